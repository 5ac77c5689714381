"""Entries, intents and events: how they are written, read, and checked for shape.

An *entry* is one link of the journal; it carries *intents* (what one actor wants, whole); an intent's *events* take
effect together. What an event means is in `index.py`; what its fields are is here and in `docs/format.md`.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from catalog_core.digests import canonical, check_count, check_depth, check_digest, digest_of, parse
from catalog_core.errors import IntegrityError, InvalidInput, UpgradeRequired
from catalog_core.interfaces.backend import Head

FORMAT = 1
MAX_ENTRY = 1 << 20
MAX_EVENT = 16 << 10
SWEEPS = ("blobs.swept", "blobs.erased")  # they take blobs away, and are computed at exactly one head
UPGRADE = "upgrade: pip install -U catalog-core"
OWN = ("id", "actor", "time", "based_on", "events")  # the fields that every intent has
SIGNED = ("signature", "key")  # reserved for intents that a newer release signs
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
    of the stored form: `replayed` (who brought it here from a void branch), and `signature` and `key`, reserved: a
    reader of this release stops at a signed intent."""

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
    `epoch` counts the changes of the primary store. `blobs` are those that it carries, `wrong` the keys of others
    that it carries too, and whose bytes are not what the key says: they are ignored."""

    position: int
    previous: str | None
    time: int
    intents: tuple[Intent, ...]
    blobs: Mapping[str, str]
    digest: str
    epoch: int = 0
    wrong: tuple[str, ...] = ()


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
        problem = next(filter(None, map(too_large, intents)), None)
        if problem:
            raise InvalidInput(problem, hint="put long texts and files into attachments or the card")
        if len(data) > MAX_ENTRY:
            raise InvalidInput(f"an entry of {len(data):,} bytes is too large; {MAX_ENTRY:,} are allowed")
    return data


def too_large(intent: Intent) -> str | None:
    """Why an intent takes more room than any may, or None: one rule for those who write, and for those who read, who
    pass over what another wrote. Sweeps, which name many blobs, may fill an entry."""
    for item in intent.events:
        if item["type"] not in SWEEPS and (size := len(canonical(item))) > MAX_EVENT:
            model = _shown(item.get("model"))
            return f"what {_shown(item['type'])[1:-1]} says of {model} takes {size:,} bytes; {MAX_EVENT:,} are allowed"
    size = len(canonical({**intent.to_json(), "events": []}))
    if size > MAX_EVENT:
        return f"an intent without its events takes {size:,} bytes; {MAX_EVENT:,} are allowed"
    return None


SUMMARY = {
    "framework": str, "algorithm": str, "verification": str, "parameters": int, "new_bytes": int, "components": dict,
    "origin": dict, "entry_points": list, "parents": list, "none": list, "checks": list,
}  # fmt: skip


def summary_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """What the event that publishes a version says of it, as far as it is of the kind that readers expect: no rule of
    the journal is about it, so any writer may have put anything there."""
    told = item.get("summary")
    found = {
        key: value for key, value in (told.items() if isinstance(told, dict) else ())
        if key not in SUMMARY or type(value) is SUMMARY[key]
    }  # fmt: skip
    for key in ("entry_points", "parents", "none"):
        if key in found:
            found[key] = [each for each in found[key] if type(each) is str]
    if "components" in found:
        found["components"] = {key: each for key, each in found["components"].items() if type(each) is str}
    if "checks" in found:
        kinds: Any = (str, str, (int, float), str)  # see `records.Check`
        rows = [row for row in found["checks"] if isinstance(row, list) and len(row) == len(kinds)]
        found["checks"] = [row for row in rows if all(isinstance(*pair) for pair in zip(row, kinds, strict=True))]
    return found


def known(item: Mapping[str, Any]) -> bool:
    """Whether this release knows what the event means; what it does not know, and is not critical, it ignores."""
    return item["type"] in FIELDS and item["v"] == 1


def _check_event(item: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(item, dict) or type(item.get("type")) is not str or type(item.get("v")) is not int:
        raise IntegrityError(f"{where}: an event without type and version")
    if not known(item):
        if item.get("critical", True):
            raise UpgradeRequired(
                f"{where}: event {_shown(item['type'])} (v{_shown(item['v'])}) is not known to this release",
                hint=UPGRADE,
            )
        return item
    must, all_ = FIELDS[item["type"]]
    if not must <= item.keys() <= all_:
        has = _shown(sorted(item))
        raise IntegrityError(f"{where}: event {item['type']!r} has the fields {has}, not {sorted(must)}")
    if item["type"] == "catalog.created" and (item["format"], item["hash"]) != (FORMAT, "sha256"):
        has = f"{_shown(item['format'])} with {_shown(item['hash'])}"
        raise UpgradeRequired(
            f"{where}: the catalog has format {has}, this release reads {FORMAT}",
            hint=UPGRADE,
        )
    if "roots" in item:  # who may change what: to ignore them is to let anybody
        raise UpgradeRequired(
            f"{where}: the catalog has root keys, and this release cannot check signatures", hint=UPGRADE
        )
    return item


def _read_intent(item: Any, where: str) -> Intent:
    """An intent, of known fields only: to skip one could change what it means."""
    identity, actor, made, base = item["id"], item["actor"], item["time"], item["based_on"]
    if type(identity) is not str or type(actor) is not str or type(made) is not int:
        raise IntegrityError(f"{where}: an intent without id, actor or time")
    more = {key: value for key, value in item.items() if key not in OWN}
    _check_fields(more, ("replayed", *SIGNED), f"{where}: an intent")
    signed = [key for key in SIGNED if key in more]
    # what came back from a void branch shows the signature that it had there, a text, which nobody checks
    if signed and not ("replayed" in more and all(type(more[key]) is str for key in signed)):
        raise UpgradeRequired(
            f"{where}: an intent is signed ({signed[0]!r}), and this release cannot check signatures", hint=UPGRADE
        )
    if not isinstance(item["events"], list):
        raise IntegrityError(f"{where}: the events of an intent are no list")
    for event in item["events"]:
        _check_event(event, where)
    return Intent(identity, actor, made, _read_base(base), tuple(item["events"]), more)


def _read_base(base: Any) -> Head | None:
    """The head that an intent was based on."""
    if base is None:
        return None
    if not isinstance(base, Mapping) or base.keys() != {"position", "digest"}:
        raise InvalidInput("what an intent is based on has a position and a digest, and nothing else")
    head = Head(**base)
    check_count(head.position, "the position that an intent is based on")
    check_digest(head.digest)
    return head


def _shown(value: Any) -> str:
    return repr(value) if len(repr(value)) <= 80 else repr(value)[:76] + "…"


def _check_fields(found: Iterable[str], known: Iterable[str], what: str) -> None:
    unknown = set(found).difference(known)
    if unknown:
        raise UpgradeRequired(f"{what} holds {_shown(min(unknown))}, which this release does not know", hint=UPGRADE)


def is_right(key: str, text: str) -> bool:
    """Whether a text is the base64 of the bytes that a storage key names."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return False
    return digest_of(data) == key.partition("~")[0]


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
        check_count(value["epoch"], "its epoch")
        check_count(value["position"], "its position")
        if value["epoch"] != epoch:
            raise IntegrityError(f"{where} is of epoch {_shown(value['epoch'])}, and epoch {epoch} is due")
        if value["position"] != position or value["previous"] != previous:
            found = f"{_shown(value['position'])} behind {_shown(value['previous'])}"
            raise IntegrityError(
                f"{where} does not continue the chain: it is entry {found}, not {position} behind {previous!r}",
                hint="that one or the one before was damaged; restore the journal from a copy",
            )
        _check_fields(value, ("epoch", "position", "previous", "time", "intents", "blobs"), where)
        intents = tuple(_read_intent(item, where) for item in value["intents"])
        blobs = value.get("blobs", {})
        for key, text in blobs.items():
            check_digest(key.partition("~")[0])
            if not isinstance(text, str):
                raise IntegrityError(f"{where}: the blob {key} is no text")
        if type(value["time"]) is not int:
            raise IntegrityError(f"{where} has no time")
        right = {key: text for key, text in blobs.items() if is_right(key, text)}
        wrong = tuple(key for key in blobs if key not in right)
        entry = Entry(position, previous, value["time"], intents, right, digest, value["epoch"], wrong)
    except KeyError as exc:
        raise IntegrityError(f"{where} cannot be read: it lacks {exc}") from exc
    except (InvalidInput, TypeError, AttributeError) as exc:
        raise IntegrityError(f"{where} cannot be read: {exc}") from exc
    return entry
