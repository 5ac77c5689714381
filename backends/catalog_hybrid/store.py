"""Several stores as one: the primary is written, and blobs are read from the nearest copy that is good.

Replication itself is the core's (`catalog_core.sync`): it needs to know which blobs an entry relies on.
"""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from catalog_core import platform
from catalog_core.epochs import Epoch, Line, identity, line_of, write_epoch
from catalog_core.errors import BackendError, BlobMissing, CatalogError, ConfigError, IntegrityError, KeyTaken, NotFound
from catalog_core.interfaces.store import BlobInfo, Mode, ObjectStore, Place
from catalog_core.journal import StoreJournal, entry_key
from catalog_core.objectstore import clock_of
from catalog_core.spool import received
from catalog_hybrid.options import Options
from catalog_hybrid.parts import Measured, Part, Silent

LOOK = 40.0  # seconds for which the primary may take to answer,
SOON = 5.0  # or where a replica may stand in
LATER = 3.0  # seconds for which the others may take longer
USUAL = 1 << 20  # bytes of a read whose length is not given
_BLOB = re.compile(r"blobs/sha256/../([0-9a-f]{64})(?:~[0-9]+)?\Z")


def open_store(
    url: str, options: Mapping[str, Any], create: bool, *, parts: Mapping[str, Place], stale: bool
) -> HybridStore:
    """The stores `parts` as one. With `stale` it opens on a replica, read-only, while the primary is away. Raises
    `BackendError` where none may be used, `NotFound` where there is no catalog and `create` is False."""
    known = Options(**options)
    store = HybridStore({name: parts[name] for name in known.names}, known.durability, stale=stale)
    store.look(create=create)
    store.begin(create=create)
    return store


class HybridStore:
    """See `interfaces.store.ObjectStore` and `Replicated`. The first of `places` is the configured primary."""

    many_writers: bool | None

    def __init__(self, places: Mapping[str, Place], durability: str = "manual", *, stale: bool = False) -> None:
        self.parts = {name: Part(name, place) for name, place in places.items()}
        self.durability = durability
        self.stale = self._may_stand_in = stale  # whether a replica may stand in for the primary
        self.line = Line()
        self.primary: str | None = next(iter(places))  # None while it is away
        self._main = self.parts[self.primary]  # of which journal and listings are read
        self._bad: set[tuple[str, str]] = set()  # parts and keys that gave wrong bytes
        self.lacked: set[str] = set()  # keys that the primary did not have, and another part had
        self._served = threading.local()

    # -- who is the primary -------------------------------------------------------------------------------------

    def look(self, *, create: bool = False, stale: bool = False) -> None:
        """Ask all parts which of them is the primary, and tell those that do not know. Places are made, if `create`,
        where no part knows of a primary: else one that is not there is away. Raises `BackendError` where the primary is
        away (and, with `stale` here or from the beginning, every replica)."""
        self._may_stand_in = stale or self.stale
        first = next(iter(self.parts.values()))
        for part in self.parts.values():
            part.load()  # before anybody's time runs
        threads = [threading.Thread(target=part.look, args=(False,), daemon=True) for part in self.parts.values()]
        for part in self.parts.values():
            part.forget()
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        deadline = begun + LOOK
        found = False
        while time.monotonic() < deadline and any(thread.is_alive() for thread in threads):
            time.sleep(0.01)
            stands_in = self._may_stand_in and any(part.holds_a_copy for part in self.parts.values())
            if stands_in and time.monotonic() > begun + SOON:
                break
            if not found and self._owner(first, self._answered()) is not None:
                found, deadline = True, min(deadline, time.monotonic() + LATER)
        wrong = [part.error for part in self.parts.values() if isinstance(part.error, ConfigError)]
        if wrong:
            raise wrong[0]  # no outage: it will not pass by itself
        known = any(part.records for part in self.parts.values())
        for part in self.parts.values():
            if known and part.error is None and part.identity is None:
                part.look(False)  # the first epoch began while the parts were asked one beside the other
        if create and not known:
            for part in self.parts.values():
                if isinstance(part.error, NotFound):
                    part.look(True)
        self._elect(first)

    def _answered(self) -> list[Part]:
        return [part for part in self.parts.values() if part.error is None]

    @staticmethod
    def _records(answered: list[Part]) -> dict[str, Epoch]:
        return {digest: record for part in answered for digest, record in part.records.items()}

    def _owner(self, first: Part, answered: list[Part]) -> Part | None:
        """The primary, by all that the parts know; None while it did not answer."""
        records = self._records(answered)
        self.line = line_of(records, first.identity, "this hybrid")
        owner = self.line.last.owner if self.line.last else first.identity
        found = next((part for part in answered if owner is not None and part.identity == owner), None)
        return first if found is None and not records and first.error is None else found

    def _elect(self, first: Part) -> None:
        answered = self._answered()
        found = self._owner(first, answered)
        self._tell(self._records(answered), answered, first)
        self.primary = None if found is None else found.name
        if found is None:
            found = self._stand_in(answered, first)
        self._main = found
        self.writable = self.primary is not None and found.writable
        self.many_writers = getattr(found.store(), "many_writers", True)

    def _tell(self, records: Mapping[str, Epoch], answered: list[Part], first: Part) -> None:
        """Write what some parts know of epochs to those that hold the catalog and missed it."""
        for part in answered:
            if part is not first and not part.records:
                continue  # an empty place: the first `catalog sync` begins it
            for digest in sorted(records.keys() - part.records.keys(), key=lambda digest: records[digest].number):
                try:
                    write_epoch(part.store(), records[digest])
                except KeyTaken as exc:
                    raise IntegrityError(
                        f"{part.name} and another part have different records {records[digest].key}: they hold "
                        "different catalogs",
                        hint="name parts of one catalog",
                    ) from exc
                except CatalogError:
                    break  # read-only, or gone again: whoever may write there tells it

    def _stand_in(self, answered: list[Part], first: Part) -> Part:
        """The replica that has most, while the primary is away."""
        away = [part for part in self.parts.values() if part.error is not None]
        why = first.error or (away[0].error if away else None)
        if not self._may_stand_in or not answered:
            raise BackendError(
                f"the primary of this hybrid is away: {why or 'no part is its owner'}",
                hint=self._hint(answered),
                backend="hybrid",
            ) from why
        heads = {part: self._head(part) for part in answered}
        best = max(heads, key=lambda part: heads[part])
        if heads[best] < 0:
            raise BackendError(
                f"the primary is away, and no replica that answered has a copy: {why}",
                hint=self._hint([]),
                backend="hybrid",
            ) from why
        return best

    def _hint(self, answered: list[Part]) -> str:
        """What may be done while the primary is away."""
        names = [part.name for part in answered if part.records]
        if names:
            others = f" (or {', '.join(names[1:])})" if names[1:] else ""
            take = f"catalog hybrid failover {names[0]}{others}"
            return f"read a copy: --stale (stale=True); or make it the primary: {take}"
        silent = ", ".join(part.name for part in self.parts.values() if isinstance(part.error, Silent))
        return f"try again: {silent} had no time to answer" if silent else "no replica has a copy"

    def _head(self, part: Part) -> int:
        try:
            head = StoreJournal(part.store(), part.name, part.url, local=False, writable=False).head()
        except CatalogError:
            return -1
        return -1 if head is None else head.position

    def begin(self, *, create: bool) -> None:
        """Write the first epoch, by which all copies know their primary, where there is a catalog or one is made."""
        if self.line.chain or self.primary is None or not self.writable:
            return
        store = self._main.store()
        if not create and store.stat(entry_key(0)) is None:
            raise NotFound(f"there is no catalog at {self._main.url}", hint="catalog init")
        owner = identity(store, create=True)
        assert owner is not None
        try:
            write_epoch(store, Epoch(0, -1, None, owner, platform.actor(), time.time_ns() // 1_000_000))
        except KeyTaken:
            pass  # another process was first
        self._main.look(False)
        self._elect(next(iter(self.parts.values())))

    # -- the five verbs -----------------------------------------------------------------------------------------

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        """See `ObjectStore.put`: into the primary."""
        self._main.store().put(key, stream, size, mode)

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `ObjectStore.get`: blobs from the nearest copy, the rest from the primary."""
        if not _BLOB.match(key):
            return self._main.store().get(key, start, length)
        lacking: list[Part] = []
        error: CatalogError | None = None
        size = USUAL if length is None else length
        for part in self._near(key, size) or self.parts.values():  # bad bytes are told from missing ones
            begun = time.monotonic()
            try:
                stream = part.store().get(key, start, length)
            except BlobMissing:
                lacking.append(part)
                continue
            except CatalogError as exc:
                part.failed()
                error = exc
                continue
            self._served.key, self._served.part = key, part
            if self._main in lacking:  # a replica may be behind; here it was lost, or swept: only the catalog knows
                self.lacked.add(key)
            return io.BufferedReader(Measured(stream, part, time.monotonic() - begun), 64 << 10)
        if error is not None:
            raise error
        raise BlobMissing(f"{key} is on none of {', '.join(self.parts)}", backend="hybrid")

    def _near(self, key: str, size: int) -> list[Part]:
        """The parts that may have a good copy, nearest first."""
        good = [part for part in self.parts.values() if (part.name, key) not in self._bad]
        return sorted(good, key=lambda part: part.seconds(size))

    def clock(self) -> float | None:
        """The time of the primary."""
        return clock_of(self._main.store())

    def stat(self, key: str) -> BlobInfo | None:
        """See `ObjectStore.stat`: of the primary."""
        return self._main.store().stat(key)

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        """See `ObjectStore.list`: of the primary."""
        return self._main.store().list(prefix, after)

    def delete(self, keys: Iterable[str]) -> None:
        """See `ObjectStore.delete`: in the primary. A replica deletes when it has replicated the sweep."""
        self._main.store().delete(keys)

    def sweep_uploads(self, older_than: float) -> int:
        """Remove what killed writers left in any part that is there; return how many."""
        count = 0
        for part in self.parts.values():
            sweep = getattr(part.store(), "sweep_uploads", None) if part.error is None else None
            count += sweep(older_than) if sweep else 0
        return count

    # -- copies that are not good -------------------------------------------------------------------------------

    def distrust(self, key: str) -> bool:
        """See `Replicated.distrust`."""
        if getattr(self._served, "key", None) != key:
            return False
        part: Part = self._served.part
        self._mend(key, part)
        return bool(self._near(key, 0))

    def _mend(self, key: str, part: Part) -> None:
        """Give `part` the bytes of another one, if they are those that the key names; as well as it goes."""
        match = _BLOB.match(key)
        assert match
        self._bad.add((part.name, key))
        for other in self._near(key, USUAL):
            try:
                with other.store().get(key) as stream, received(stream) as blob:
                    if blob.digest != "sha256:" + match[1]:
                        self._bad.add((other.name, key))
                        continue
                    store = part.store()
                    store.delete([key])  # what is there already may count as stored
                    store.put(key, blob.file, blob.size, "content")
                self._bad.discard((part.name, key))
                return
            except CatalogError:
                continue

    # -- parts, for replication ---------------------------------------------------------------------------------

    def part(self, name: str, *, create: bool = False) -> ObjectStore:
        """See `Replicated.part`."""
        part = self.parts.get(name)
        if part is None:
            raise NotFound(f"this hybrid has no part {name!r}", hint=f"parts: {', '.join(self.parts)}")
        if part.error is not None:
            part.look(create)
        if part.error is not None:
            raise part.error
        return part.store()

    def url_of(self, name: str) -> str:
        """See `Replicated.url_of`."""
        return self.parts[name].url

    def close(self) -> None:
        """Close all parts."""
        for part in self.parts.values():
            part.close()
