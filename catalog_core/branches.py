"""Void branches: what a primary acknowledged behind the entry from which another part took over. Nothing of it is lost
before somebody brought it back or dropped it (`catalog_core.reconcile`)."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core.digests import digest_of, parse
from catalog_core.epochs import Epoch, Line
from catalog_core.errors import BlobMissing, CatalogError, IntegrityError
from catalog_core.interfaces.store import ObjectStore, Replicated
from catalog_core.journal import ENTRY, entry_key
from catalog_core.layout import read_layout
from catalog_core.objectstore import blob_key

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog

log = logging.getLogger("catalog_core")
COMPUTED = ("catalog.created", "blobs.swept")  # what a catalog works out by itself is not brought back


@attrs.define
class Found:
    """An intent as it stands in a void branch, as stored."""

    part: str
    epoch: int
    position: int
    stored: Mapping[str, Any]


class Branches:
    """The void intents of all parts that are there, and the blobs that their entries carry. `found` has each intent as
    it was made first; `places` all places of each, by its id: it may have come back into a branch that became void."""

    def __init__(self, catalog: Catalog, hybrid: Replicated) -> None:
        self._catalog = catalog
        self.places: dict[str, list[Found]] = {}
        self.inlined: dict[str, bytes] = {}
        self.stores: dict[str, ObjectStore] = {}
        line = catalog._backend.journal.line(fresh=True)
        known = {record.id: record for record in (*line.chain, *line.void)}
        self.forks = {  # of an epoch: the one before it, and the last entry that it took over
            record.number: (known[record.previous].number if record.previous else 0, record.position)
            for record in known.values()
            if record.number
        }
        ends = self._ends(line)
        seen: set[tuple[int, int]] = set()
        for name in hybrid.parts:
            try:
                store = self.stores[name] = hybrid.part(name)
            except CatalogError as exc:
                log.warning("what stands in void branches of %s is not known: %s", name, exc)
                continue
            for epoch, position, entry in [found for end in ends for found in self._entries(name, store, *end)]:
                for key, text in entry.get("blobs", {}).items():
                    self.inlined.setdefault(key.partition("~")[0], base64.b64decode(text))
                if (epoch, position) in seen:
                    continue
                seen.add((epoch, position))
                for stored in entry["intents"]:
                    if any(e["type"] not in COMPUTED for e in stored["events"]):
                        self.places.setdefault(stored["id"], []).append(Found(name, epoch, position, stored))

        def order(found: Found) -> tuple[int, int]:
            return found.epoch, found.position

        self.found = sorted((min(places, key=order) for places in self.places.values()), key=order)

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

    def digests(self, found: Found) -> Iterator[str]:
        """The blobs that an intent relies on. Raises `BlobMissing` where no part has a layout."""
        for item in found.stored["events"]:
            yield from (item[field] for field in ("manifest", "layout", "digest") if item.get(field))
            if item.get("layout"):
                layout = self.blob(item["layout"], found.part)
                if layout is None:
                    layout = self._catalog._content.blob(item["layout"], f"layout of {item['model']}")
                yield from (chunk.pack or chunk.digest for chunks in read_layout(layout).values() for chunk in chunks)


def awaited(catalog: Catalog, hybrid: Replicated) -> set[str]:
    """The digests of blobs that void intents rely on, and which nobody brought back or dropped yet: no sweep takes
    them. What was erased is not awaited."""
    branches, index = Branches(catalog, hybrid), catalog._index
    result: set[str] = set()
    for found in branches.found:
        if index.rows("SELECT 1 FROM intents WHERE id = ?", (found.stored["id"],)):
            continue
        try:
            for digest in branches.digests(found):
                result.add(digest)
        except BlobMissing:
            continue
    return {digest for digest in result if not index.is_erased(digest)}
