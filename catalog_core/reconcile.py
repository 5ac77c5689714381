"""What stands in void branches comes back: intents that were acknowledged by a primary, and not replicated before
another part took over.

An intent keeps its id, so it counts once, whoever brings it and how often. Where nothing in its way changed it is
written again as it was; a version whose number was given away meanwhile gets a new one, and what refers to it follows;
what somebody else changed first is a conflict. Both are for a person to decide.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import attrs

from catalog_core import writer
from catalog_core.digests import canonical, digest_of, parse
from catalog_core.epochs import Epoch, Line
from catalog_core.errors import BlobMissing, CatalogError, IntegrityError, NotFound, Rejected
from catalog_core.events import Intent, event, write_entry
from catalog_core.index import Index
from catalog_core.interfaces.backend import Head
from catalog_core.interfaces.store import ObjectStore, Replicated
from catalog_core.journal import ENTRY, entry_key
from catalog_core.layout import read_layout
from catalog_core.objectstore import blob_key
from catalog_core.reducer import BROKEN
from catalog_core.spool import received
from catalog_core.sync import replicated

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog

Outcome = Literal["ready", "renumber", "conflict", "replayed", "dropped"]
log = logging.getLogger("catalog_core")
COMPUTED = ("catalog.created", "blobs.swept")  # what a catalog works out by itself is not brought back


@attrs.frozen
class Void:
    """An intent in a void branch: `part`, `epoch` and `position` say where. `outcome` is ready (it can be written as it
    was), renumber (its version would get another number), conflict (`why` shows what is in its way), replayed or
    dropped; `becomes` are the references that it would get, or got."""

    id: str
    part: str
    epoch: int
    position: int
    actor: str
    time: float
    what: tuple[str, ...]
    outcome: Outcome
    becomes: tuple[str, ...] = ()
    why: str | None = None


@attrs.define
class _Found:
    """An intent as it stands in a void branch, as stored."""

    part: str
    epoch: int
    position: int
    stored: Mapping[str, Any]


class _Branches:
    """The void intents of all parts that are there, and the blobs that their entries carry."""

    def __init__(self, catalog: Catalog) -> None:
        self.hybrid: Replicated = replicated(catalog)
        self.found: list[_Found] = []
        self.inlined: dict[str, bytes] = {}
        self.stores: dict[str, ObjectStore] = {}
        ends = self._ends(catalog._backend.journal.line(fresh=True))
        seen: set[str] = set()
        for name in self.hybrid.parts:
            try:
                store = self.stores[name] = self.hybrid.part(name)
            except CatalogError as exc:
                log.warning("what stands in void branches of %s is not known: %s", name, exc)
                continue
            for epoch, position, entry in [found for end in ends for found in self._entries(name, store, *end)]:
                for key, text in entry.get("blobs", {}).items():
                    self.inlined.setdefault(key.partition("~")[0], base64.b64decode(text))
                for stored in entry["intents"]:
                    if stored["id"] not in seen and any(e["type"] not in COMPUTED for e in stored["events"]):
                        seen.add(stored["id"])
                        self.found.append(_Found(name, epoch, position, stored))
        self.found.sort(key=lambda found: (found.epoch, found.position))

    @staticmethod
    def _ends(line: Line) -> list[tuple[int, int]]:
        """Pairs of an epoch's number and the last position of it that counts."""
        ends = [(record.number, record.position) for record in line.void]
        first = [Epoch(0, -1, None, "", "", 0)] if line.chain and line.chain[0].number else []  # it has no record
        chain = [*first, *line.chain]
        for number, record in enumerate(chain[:-1], 1):
            ends.append((record.number, min(later.position for later in chain[number:])))
        return ends

    @staticmethod
    def _entries(name: str, store: ObjectStore, epoch: int, end: int) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        for info in store.list(f"journal/{epoch:010}/", entry_key(end, epoch) if end >= 0 else ""):
            if not ENTRY.match(info.key):
                continue  # a stranger's
            with store.get(info.key) as stream:
                data = stream.read()
            try:
                entry = parse(data)
                yield epoch, entry["position"], entry
            except (CatalogError, KeyError, TypeError) as exc:
                raise IntegrityError(f"{info.key} of {name} cannot be read: {exc}") from exc

    def beginning_with(self, part: str) -> list[ObjectStore]:
        """The stores that are there, `part` first."""
        return [self.stores[name] for name in dict.fromkeys((part, *self.stores)) if name in self.stores]

    def blob(self, digest: str, part: str) -> bytes | None:
        """A small blob that only a void branch may have; None where nobody has it."""
        if digest in self.inlined:
            return self.inlined[digest]
        for store in self.beginning_with(part):
            try:
                with store.get(blob_key(digest)) as stream:
                    data = stream.read()
            except CatalogError:
                continue
            if digest_of(data) == digest:
                return data
        return None


def _numbers(index: Index, found: _Found, position: int) -> dict[tuple[str, int], int]:
    """Which numbers the versions of an intent got, where the entry at `position` brought it back under others."""
    entry = parse(index.rows("SELECT data FROM entries WHERE position = ?", (position,))[0][0])
    came = [intent for intent in entry["intents"] if intent["id"] == found.stored["id"]]
    if not came:
        return {}  # dropped
    pairs = zip(found.stored["events"], came[0]["events"], strict=True)
    return {
        (old["model"], old["number"]): new["number"]
        for old, new in pairs
        if old["type"] == "version.published" and old["number"] != new["number"]
    }


def _adapted(
    index: Index, events: Iterable[Mapping[str, Any]], numbers: dict[tuple[str, int], int], *, take: bool
) -> list[dict[str, Any]]:
    """The events as they can be written on the present state; `numbers` learns what versions are called now. With
    `take` they go over what somebody else changed."""
    newest: dict[str, int] = {}
    result = []
    for old in events:
        new = dict(old)
        model, number = new.get("model"), new.get("number")
        if new["type"] == "version.published" and isinstance(model, str) and isinstance(number, int):
            rows = index.rows("SELECT newest FROM models WHERE name = ?", (model,))
            newest[model] = newest.get(model, rows[0][0] if rows else 0) + 1
            new["number"] = newest[model]
            if new["number"] != number:
                numbers[model, number] = new["number"]
        elif isinstance(model, str) and isinstance(number, int):
            new["number"] = numbers.get((model, number), number)
        if "checked" in new:
            rows = index.rows("SELECT 1 FROM swept WHERE position > ? LIMIT 1", (new["checked"],))
            if rows and index.head is not None:  # its blobs were brought to where the present state looks for them
                new["checked"] = index.head.position
        if take and "seen" in new:
            new["seen"] = _present(index, new)
        result.append(new)
    return result


def _present(index: Index, item: Mapping[str, Any]) -> Any:
    """What stands now where the event would change something."""
    model = item["model"]
    if item["type"] == "alias.set":
        return "any"
    if item["type"] == "stage.set":
        sql = "SELECT stage FROM versions WHERE name = ? AND number = ?"
        rows = index.rows(sql, (model, item["number"]))
        return rows[0][0] if rows else None
    if item["type"] == "card.set":
        rows = index.rows("SELECT card FROM models WHERE name = ?", (model,))
        return rows[0][0] if rows else None
    rows = index.rows("SELECT title, description, owner FROM models WHERE name = ?", (model,))
    present = dict(zip(("title", "description", "owner"), rows[0], strict=True)) if rows else {}
    return {key: present.get(key) for key in item["set"]}


def _refs(events: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(f"{e['model']}@{e['number']}" for e in events if e["type"] == "version.published")


def _what(item: Mapping[str, Any]) -> str:
    model, number = item.get("model"), item.get("number")
    return " ".join(str(part) for part in (item["type"], f"{model}@{number}" if number else model) if part)


def reconcile(
    catalog: Catalog,
    *,
    apply: bool = False,
    renumber: bool = False,
    take: Iterable[str] = (),
    drop: Iterable[str] = (),
) -> list[Void]:
    """Show the void intents that nobody brought back or dropped yet; with `apply`, write those that are ready, with
    `renumber` those under new numbers too. `take` are ids (or their beginnings) of conflicts in which the void side
    wins, `drop` of intents that are to stay void for good. What is left is shown with the reason. Raises `NotFound` for
    an id that is not there, `ReadOnly`, `BlobMissing`."""
    catalog._refresh(force=True)
    branches = _Branches(catalog)
    index = catalog._index
    ids = {found.stored["id"] for found in branches.found}
    taken, dropped = _ids(take, ids), _ids(drop, ids)
    if apply or taken or dropped:
        catalog._check_writable()
    if dropped:
        catalog._commit(event("intents.dropped", ids=sorted(dropped), reason="reconciled"))
    numbers: dict[tuple[str, int], int] = {}
    result: list[Void] = []
    trial = index if apply else _copy_of(index)
    try:
        for found in branches.found:
            known = index.rows("SELECT position FROM intents WHERE id = ?", (found.stored["id"],))
            if known:
                numbers.update(_numbers(index, found, known[0][0]))
                if found.stored["id"] in dropped:
                    result.append(_void(found, "dropped"))
                continue
            result.append(_one(catalog, branches, found, numbers, trial, apply, renumber, found.stored["id"] in taken))
    finally:
        if trial is not index:
            trial.close()
    return result


def _ids(given: Iterable[str], known: set[str]) -> set[str]:
    result = set()
    for begin in given:
        matching = [id for id in known if id.startswith(begin)]
        if len(matching) != 1:
            raise NotFound(f"{begin!r} is the id of {len(matching) or 'no'} void intents", hint="catalog reconcile")
        result.add(matching[0])
    return result


def _copy_of(index: Index) -> Index:
    """The same state in memory, to try things on."""
    trial = Index(None, index.place)
    with index.lock:
        index.db.backup(trial.db)
    trial._load_head()
    return trial


def _void(found: _Found, outcome: Outcome, becomes: tuple[str, ...] = (), why: str | None = None) -> Void:
    stored = found.stored
    what = tuple(_what(item) for item in stored["events"])
    return Void(
        stored["id"], found.part, found.epoch, found.position, stored["actor"], stored["time"] / 1000, what,
        outcome, becomes, why,
    )  # fmt: skip


def _one(
    catalog: Catalog, branches: _Branches, found: _Found, numbers: dict[tuple[str, int], int], trial: Index,
    apply: bool, renumber: bool, take: bool,
) -> Void:  # fmt: skip
    """Bring one intent back, or only try it."""
    before = dict(numbers)
    stored = found.stored
    events = _adapted(trial, stored["events"], numbers, take=take)
    becomes = _refs(events)
    renumbered = becomes != _refs(stored["events"])
    outcome: Outcome = "renumber" if renumbered else "ready"
    try:
        if not apply or (renumbered and not (renumber or take)):
            _try(trial if not apply else _copy_of(trial), _intent(catalog, found, events))
            return _void(found, outcome, becomes)
        blobs = _bring(catalog, branches, found)

        def made(index: Index) -> Intent:
            numbers.clear()
            numbers.update(before)
            now = _adapted(index, stored["events"], numbers, take=take)
            if _refs(now) != becomes and not renumber:
                raise Rejected("somebody published meanwhile", code="number")
            return _intent(catalog, found, now)

        writer.commit(catalog._backend, catalog._index, catalog.actor, made, blobs)
        if catalog._follower is not None:
            catalog._follower.follow()
        return _void(found, "replayed", becomes)
    except BROKEN as exc:
        numbers.clear()
        numbers.update(before)
        return _void(found, "conflict", becomes, str(exc))


def _intent(catalog: Catalog, found: _Found, events: list[dict[str, Any]]) -> Intent:
    """The intent as it is written again: its own fields (a signature too) as they were, and who brought it. Where its
    events had to change, the original ones stand beside them."""
    stored = found.stored
    base = stored["based_on"]
    more = {k: v for k, v in stored.items() if k not in ("id", "actor", "time", "based_on", "events", "replayed")}
    about: dict[str, Any] = {"by": catalog.actor, "epoch": found.epoch, "position": found.position}
    if canonical(events) != canonical(stored["events"]):
        about["events"] = stored["events"]
    return Intent(
        stored["id"], stored["actor"], stored["time"], base and Head(**base), tuple(events), {**more, "replayed": about}
    )


def _try(trial: Index, intent: Intent) -> None:
    """Let the intent take effect on a copy of the state. Raises what the reducer raises."""
    with trial:
        head, epoch = trial.head, trial.epoch
        data = write_entry(head, time.time_ns() // 1_000_000, [intent], None, epoch)
        trial.apply(0 if head is None else head.position + 1, data, strict=True, epoch=epoch)


def _bring(catalog: Catalog, branches: _Branches, found: _Found) -> dict[str, bytes]:
    """Copy the blobs that the intent relies on to where the present state looks for them; return the small ones, which
    go into the entry. Raises `BlobMissing` where no part has one."""
    small: dict[str, bytes] = {}
    for item in found.stored["events"]:
        wanted = [item[field] for field in ("manifest", "layout", "digest") if item.get(field)]
        if item.get("layout"):
            layout = branches.blob(item["layout"], found.part)
            if layout is None:
                layout = catalog._content.blob(item["layout"], f"layout of {_what(item)}")
            wanted += [chunk.pack or chunk.digest for chunks in read_layout(layout).values() for chunk in chunks]
        for digest in dict.fromkeys(wanted):
            if digest in branches.inlined:
                small[digest] = branches.inlined[digest]
            else:
                _carry(catalog, branches, found.part, digest, _what(item))
    return small


def _carry(catalog: Catalog, branches: _Branches, part: str, digest: str, what: str) -> None:
    """Let the primary have a blob that a void branch relies on."""
    index, blobs = catalog._index, catalog._backend.blobs
    key = index.key(digest)
    if index.rows("SELECT 1 FROM inlined WHERE key = ?", (key,)) or blobs.stat(key) is not None:
        return
    for store, stored in product(branches.beginning_with(part), dict.fromkeys((digest, key))):
        try:
            with store.get(blob_key(stored)) as stream, received(stream) as blob:
                if blob.digest == digest:
                    blobs.put(key, blob.file, blob.size)
                    return
        except BlobMissing:
            continue
    raise BlobMissing(f"{what} needs {digest}, which no part has", hint="drop it: catalog reconcile --drop ID")
