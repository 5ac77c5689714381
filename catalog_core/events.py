"""Entries, intents and events: how they are written, read, and checked for shape.

An *entry* is one link of the journal; it carries *intents* (what one actor wants, whole); an intent's *events* take
effect together. What an event means is in `index.py`; what its fields are is here and in `docs/format.md`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from catalog_core.digests import canonical, check_depth, check_digest, digest_of, parse
from catalog_core.errors import IntegrityError, InvalidInput, UpgradeRequired
from catalog_core.interfaces.backend import Head

FORMAT = 1
MAX_ENTRY = 1 << 20
MAX_EVENT = 16 << 10
SWEEPS = ("blobs.swept", "blobs.erased")  # they take blobs away, and are computed at exactly one head
STAGES = ("registered", "tested", "validated", "production", "archived")

# type → (fields that must be there, all that may be)
_ALWAYS = "type v "
FIELDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    name: (frozenset((_ALWAYS + must).split()), frozenset(f"{_ALWAYS} critical {must} {may}".split()))
    for name, (must, may) in {
        "catalog.created": ("catalog format hash", "roots"),
        "model.updated": ("model set seen", ""),
        "version.published": (
            "model number manifest layout size blobs checked",
            "summary tags metrics params taxonomy text",
        ),
        "alias.set": ("model alias number seen", ""),
        "stage.set": ("model number stage seen", ""),
        "tags.set": ("model number set unset", ""),
        "metrics.set": ("model number set unset", ""),
        "card.set": ("model digest seen", "blobs checked"),
        "attachment.set": ("model number name digest size", "blobs checked"),
        "version.deleted": ("model number", "reason"),
        "version.restored": ("model number", ""),
        "model.deleted": ("model", "reason"),
        "model.restored": ("model", ""),
        "blobs.swept": ("keys versions", ""),
        "blobs.erased": ("keys digests versions reason", ""),
        "intents.dropped": ("ids", "reason"),
    }.items()
}


@attrs.frozen
class Intent:
    """What one actor wants, whole. `id` is kept across retries: the reducer accepts it once. `more` are further fields
    of the stored form: `replayed` (who brought it here from a void branch), and `signature` and `key`, reserved."""

    id: str
    actor: str
    time: int
    based_on: Head | None
    events: tuple[Mapping[str, Any], ...]
    more: Mapping[str, Any] = attrs.field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        base = None if self.based_on is None else {"position": self.based_on.position, "digest": self.based_on.digest}
        own = {"id": self.id, "actor": self.actor, "time": self.time, "based_on": base, "events": list(self.events)}
        return {**self.more, **own}


@attrs.frozen
class Entry:
    """One link of the journal, as read. `time` is in milliseconds since 1970 (UTC), `digest` over the stored bytes,
    `epoch` counts the changes of the primary store."""

    position: int
    previous: str | None
    time: int
    intents: tuple[Intent, ...]
    blobs: Mapping[str, str]
    digest: str
    epoch: int = 0


def new_id() -> str:
    """128 random bits in hexadecimal."""
    return secrets.token_hex(16)


def event(kind: str, **fields: Any) -> dict[str, Any]:
    """An event of this release (`v` 1, critical)."""
    return {"type": kind, "v": 1, "critical": True, **fields}


def relies_on(digests: Iterable[str], head: Head | None) -> dict[str, Any]:
    """The fields of an event that names blobs: which, and the head at which the store was known to have them."""
    return {
        "blobs": "".join(digest[7:23] for digest in sorted(set(digests))),
        "checked": -1 if head is None else head.position,
    }


def write_entry(
    head: Head | None, time: int, intents: list[Intent], blobs: Mapping[str, str] | None = None, epoch: int = 0
) -> bytes:
    """The bytes of the entry after `head`. Raises `InvalidInput` when it, or one of its events, is too large."""
    value: dict[str, Any] = {
        "epoch": epoch,
        "position": 0 if head is None else head.position + 1,
        "previous": None if head is None else head.digest,
        "time": time,
        "intents": [intent.to_json() for intent in intents],
    }
    if blobs:
        value["blobs"] = dict(blobs)
    data = canonical(value)
    if len(data) > MAX_EVENT:
        for intent in intents:
            for item in intent.events:
                if item["type"] not in SWEEPS and len(canonical(item)) > MAX_EVENT:
                    raise InvalidInput(
                        f"what {item['type']} says of {item.get('model')!r} takes {len(canonical(item)):,} bytes; "
                        f"{MAX_EVENT:,} are allowed",
                        hint="put long texts and files into attachments or the card",
                    )
        if len(data) > MAX_ENTRY:
            raise InvalidInput(f"an entry of {len(data):,} bytes is too large; {MAX_ENTRY:,} are allowed")
    return data


def known(item: Mapping[str, Any]) -> bool:
    """Whether this release knows what the event means; what it does not know, and is not critical, it ignores."""
    return item["type"] in FIELDS and item["v"] == 1


def _check_event(item: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(item, dict) or type(item.get("type")) is not str or type(item.get("v")) is not int:
        raise IntegrityError(f"{where}: an event without type and version")
    if not known(item):
        if item.get("critical", True):
            raise UpgradeRequired(
                f"{where}: event {item['type']!r} (v{item['v']}) is not known to this release",
                hint="upgrade: pip install -U catalog-core",
            )
        return item
    must, all_ = FIELDS[item["type"]]
    if not must <= item.keys() <= all_:
        raise IntegrityError(f"{where}: event {item['type']!r} has the fields {sorted(item)}, not {sorted(must)}")
    if item["type"] == "catalog.created" and (item["format"], item["hash"]) != (FORMAT, "sha256"):
        raise UpgradeRequired(
            f"{where}: the catalog has format {item['format']!r} with {item['hash']!r}, this release reads {FORMAT}",
            hint="upgrade: pip install -U catalog-core",
        )
    return item


def read_entry(data: bytes, position: int, previous: str | None, place: str = "the catalog", epoch: int = 0) -> Entry:
    """Parse and check the bytes at `position` of the journal at `place` (for messages). Raises `IntegrityError` when
    they do not continue the chain, or are not of `epoch`."""
    digest = digest_of(data)
    where = f"journal entry {position} of {place} ({digest})"
    if len(data) > MAX_ENTRY:
        raise IntegrityError(f"{where} has {len(data):,} bytes; {MAX_ENTRY:,} are allowed")
    try:
        check_depth(data)
        value = parse(data)
        if value["epoch"] != epoch:
            raise IntegrityError(f"{where} is of epoch {value['epoch']!r}, and epoch {epoch} is due")
        if value["position"] != position or value["previous"] != previous:
            raise IntegrityError(
                f"{where} does not continue the chain: it is entry {value['position']!r} behind {value['previous']!r}, "
                f"not {position} behind {previous!r}",
                hint="that one or the one before was damaged; restore the journal from a copy",
            )
        intents = []
        for item in value["intents"]:
            identity, actor, made, base = item["id"], item["actor"], item["time"], item["based_on"]
            if type(identity) is not str or type(actor) is not str or type(made) is not int:
                raise IntegrityError(f"{where}: an intent without id, actor or time")
            for event in item["events"]:
                _check_event(event, where)
            intents.append(Intent(identity, actor, made, base and Head(**base), tuple(item["events"])))
        entry = Entry(position, previous, value["time"], tuple(intents), value.get("blobs", {}), digest, value["epoch"])
        for key, text in entry.blobs.items():
            check_digest(key.partition("~")[0])
            if not isinstance(text, str):
                raise IntegrityError(f"{where}: the blob {key} is no text")
        if type(entry.time) is not int:
            raise IntegrityError(f"{where} has no time")
    except (InvalidInput, KeyError, TypeError, AttributeError) as exc:
        raise IntegrityError(f"{where} cannot be read: {exc}") from exc
    return entry
