"""Void branches: what a primary acknowledged behind the entry from which another part took over. Nothing of it is lost
before somebody brought it back or dropped it (`catalog_core.reconcile`)."""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core import state
from catalog_core.digests import MAX_INTEGER, check_count, check_digest, digest_of, parse
from catalog_core.epochs import Epoch, Line
from catalog_core.errors import BackendError, BlobMissing, CatalogError, IntegrityError, UpgradeRequired
from catalog_core.events import is_right, read_entry
from catalog_core.interfaces.store import ObjectStore, Replicated
from catalog_core.journal import ENTRY, entry_key
from catalog_core.layout import Layout, read_layout
from catalog_core.names import check_name
from catalog_core.objectstore import blob_key
from catalog_core.parallel import in_order

if TYPE_CHECKING:
    from catalog_core.repository import Repository

log = logging.getLogger("catalog_core")
COMPUTED = ("catalog.created", "blobs.swept")  # what a catalog works out by itself is not brought back


@attrs.define
class Found:
    """An intent as it stands in a void branch, as stored."""

    part: str
    epoch: int
    position: int
    stored: Mapping[str, Any]
    shared: int  # the last entry that its branch has in common with the present journal


class Branches:
    """The void intents of all parts that are there, and the blobs that their entries carry. `found` has each intent as
    it was made first; `places` all places of each, by its id: it may have come back into a branch that became void.
    Parts that do not answer are warned of; with `names` only these are asked."""

    def __init__(self, repository: Repository, hybrid: Replicated, names: Collection[str] | None = None) -> None:
        self._repository = repository
        self.places: dict[str, list[Found]] = {}
        self.inlined: dict[str, bytes] = {}
        self.stores: dict[str, ObjectStore] = {}
        self._carried: dict[str, str] | None = None
        line = repository.backend.journal.line(fresh=True)
        known = {record.id: record for record in (*line.chain, *line.void)}
        self.forks = {  # of an epoch: the one before it, and the last entry that it took over
            record.number: (known[record.previous].number if record.previous else 0, record.position)
            for record in known.values()
            if record.number
        }
        ends = self._ends(line)
        lasting = {record.number: math.inf for record in line.chain[-1:]} | dict(ends[len(line.void) :])
        seen: set[tuple[int, int]] = set()
        for name in hybrid.parts if names is None else names:
            try:
                store = hybrid.part(name)
                entries = [found for end in ends for found in self._entries(name, store, *end)]
            except BackendError as exc:
                log.warning("what stands in void branches of %s is not known: %s", name, exc)
                continue
            self.stores[name] = store
            for epoch, position, entry in entries:
                for key, text in entry.get("blobs", {}).items():
                    if is_right(key, text):
                        self.inlined.setdefault(key.partition("~")[0], base64.b64decode(text))
                if (epoch, position) in seen:
                    continue
                seen.add((epoch, position))
                for stored in entry["intents"]:
                    if any(e["type"] not in COMPUTED for e in stored["events"]):
                        found = Found(name, epoch, position, stored, self._shared(epoch, lasting))
                        self.places.setdefault(stored["id"], []).append(found)

        def order(found: Found) -> tuple[int, int]:
            return found.epoch, found.position

        self.found = sorted((min(places, key=order) for places in self.places.values()), key=order)

    @staticmethod
    def _ends(line: Line) -> list[tuple[int, int]]:
        """Pairs of an epoch's number and the last position of it that counts: of void ones, then of those that another
        one cut short."""
        ends = [(record.number, record.position) for record in line.void]
        first = [Epoch(0, -1, None, "", "", 0)] if line.chain and line.chain[0].number else []  # it has no record
        chain = [*first, *line.chain]
        for number, record in enumerate(chain[:-1], 1):
            ends.append((record.number, min(later.position for later in chain[number:])))
        return ends

    def _shared(self, epoch: int, lasting: Mapping[int, float]) -> int:
        """The last entry of the present journal that a branch goes on from."""
        position = math.inf
        while epoch not in lasting:
            epoch, fork = self.forks[epoch]
            position = min(position, fork)
        return int(min(position, lasting[epoch]))

    def _entries(self, name: str, store: ObjectStore, epoch: int, end: int) -> list[tuple[int, int, Mapping[str, Any]]]:
        """The void entries of an epoch. They are read once a process: nothing changes them, but more may come."""
        known: dict[str, tuple[int, int, Mapping[str, Any]]] = self._repository.void.setdefault((name, epoch, end), {})
        after = max(known, default=entry_key(end, epoch) if end >= 0 else "")
        keys = [info.key for info in store.list(f"journal/{epoch:010}/", after) if ENTRY.match(info.key)]

        def read(key: str) -> bytes:
            with store.get(key) as stream:
                return stream.read()

        for key, data in zip(keys, in_order(read, keys, 8, 16), strict=True):
            try:
                entry = parse(data)
                with suppress(UpgradeRequired):  # a newer release can bring it back
                    read_entry(data, entry["position"], entry["previous"], name, epoch)
                for stored in entry["intents"]:
                    _check_intent(stored)
                known[key] = epoch, entry["position"], {**entry, "blobs": dict(entry.get("blobs", {}))}
            except (CatalogError, KeyError, TypeError, ValueError, AttributeError) as exc:
                log.warning("%s of %s cannot be read, what it says cannot come back: %s", key, name, exc)
        return list(known.values())

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
        return self.of_journal(digest)

    def of_journal(self, digest: str) -> bytes | None:
        """A small blob that an entry of the present journal carries, though it was swept since. Reads all of it."""
        if self._carried is None:
            index = self._repository.index
            self._carried = {}
            for _, data in self._repository.backend.journal.read(0, self._repository.position + 1):
                for key, text in parse(data).get("blobs", {}).items() if b'"blobs":' in data else ():
                    if not state.is_inlined(index, key):
                        self._carried[key.partition("~")[0]] = text
        text = self._carried.get(digest)
        return base64.b64decode(text) if text is not None and is_right(digest, text) else None

    def digests(self, found: Found) -> Iterator[str]:
        """The blobs that an intent relies on. Raises `BlobMissing` where no part has a layout."""
        for item in found.stored["events"]:
            yield from (item[field] for field in ("manifest", "layout", "digest") if item.get(field))
            yield from (chunk.pack or chunk.digest for chunks in self._layout(found, item).values() for chunk in chunks)

    def contents(self, found: Found) -> Iterator[str]:
        """What may have been erased of it: manifests, files, attachments. Raises as `digests`."""
        for item in found.stored["events"]:
            yield from (item[field] for field in ("manifest", "digest") if item.get(field))
            yield from self._layout(found, item)

    def _layout(self, found: Found, item: Mapping[str, Any]) -> Layout:
        if not item.get("layout"):
            return {}
        layout = self.blob(item["layout"], found.part)
        if layout is None:
            layout = self._repository.content.blob(item["layout"], f"layout of {item['model']}")
        return read_layout(layout)


def _check_intent(stored: Mapping[str, Any]) -> None:
    """Check what is relied on here of an intent that no reducer saw: nothing else does, in an entry of a newer release.
    Raises `KeyError`, `TypeError`, `AttributeError` or `InvalidInput`."""
    if type(stored["id"]) is not str or type(stored["actor"]) is not str:
        raise TypeError("an intent without id or actor")
    check_count(stored["time"], "the time of an intent", -MAX_INTEGER)
    for item in stored["events"]:
        if type(item["type"]) is not str:
            raise TypeError("an event without type")
        for field in ("manifest", "layout", "digest"):
            if item.get(field) is not None:
                check_digest(item[field])
        if item["type"] == "version.published":
            check_name(item["model"])
            check_count(item["number"], "the number of a version", 1)


def awaited(repository: Repository, hybrid: Replicated, besides: Collection[str] = ()) -> set[str]:
    """The digests of blobs that void intents rely on, and which nobody brought back or dropped yet: no sweep takes
    them. What holds something that was erased, or is among `besides`, is not awaited."""
    branches, index = Branches(repository, hybrid), repository.index
    result: set[str] = set()
    for found in branches.found:
        if index.seen(found.stored["id"], found.stored["actor"]) is not None:
            continue
        try:
            if not any(index.is_erased(digest) or digest in besides for digest in branches.contents(found)):
                result.update(branches.digests(found))
        except (BlobMissing, IntegrityError):
            continue
    return result


def notices(repository: Repository) -> list[str]:
    """What everybody who uses a catalog on several sites must know, a line each: that it has rival epochs, and that
    changes which were acknowledged are abandoned. Where no other store ever became the primary nothing is asked for it,
    else each part that answered when the catalog was opened."""
    hybrid = repository.parts
    if hybrid is None:
        return []
    told = []
    try:
        line = repository.backend.journal.line()
        if line.rivals:
            who = " and ".join(f"{record.number} (by {record.actor})" for record in (line.last, *line.rivals) if record)
            told.append(
                f"{repository.url} has rival epochs, {who}, and cannot be written: choose one with "
                "`catalog hybrid failover NAME`"
            )
        if len(line.chain) > 1 or line.void:
            told += _abandoned(repository, hybrid)
    except CatalogError as exc:
        log.warning("what is abandoned of %s is not known: %s", repository.url, exc)
    return told


def _abandoned(repository: Repository, hybrid: Replicated) -> list[str]:
    """A line on what nobody brought back or dropped yet, if there is something."""
    answered = [name for name, part in hybrid.parts.items() if getattr(part, "error", None) is None]
    left = [
        found
        for found in Branches(repository, hybrid, answered).found
        if not state.knows_intent(repository.index, found.stored["id"])
    ]
    refs = [
        f"{event['model']}@{event['number']} on {found.part}"
        for found in left
        for event in found.stored["events"]
        if event["type"] == "version.published"
    ]
    if not left:
        return []
    changes = f"{len(left)} acknowledged change{'s' * (len(left) > 1)}"
    versions = f", with {', '.join(refs[:5])}{' …' if len(refs) > 5 else ''}," if refs else ""
    verb = "were" if len(left) > 1 else "was"
    return [f"{changes}{versions} {verb} abandoned by a failover: `catalog reconcile` shows and brings back"]
