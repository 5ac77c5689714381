"""The journal on an object store.

Entries are `journal/<epoch>/<position div 1000>/<position>`, one object each, put `exclusive`, never deleted or
overwritten. There are no holes, so the head is found by asking for the next one. On a remote store whoever completes a
block of 32, 32² or 32³ entries packs it into one object, `segments/<epoch>/<first>-<last>`: a cache, checked by the
chain, so that a newcomer reads many entries with few requests. `hints/head` says about where the head is.

Which store may write, and under which epoch a position is kept, is told by `catalog_core.epochs`.
"""

from __future__ import annotations

import io
import random
import re
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from catalog_core.digests import digest_of, parse
from catalog_core.epochs import Line, identity, line_of, read_epochs
from catalog_core.errors import (
    BackendError,
    BlobMissing,
    CatalogError,
    Conflict,
    DeadlineExceeded,
    IntegrityError,
    KeyTaken,
    PositionTaken,
    ReadOnly,
    UpgradeRequired,
)
from catalog_core.events import MAX_ENTRY, read_entry
from catalog_core.interfaces.backend import Head
from catalog_core.interfaces.store import ObjectStore
from catalog_core.parallel import in_order

BLOCK = 32
LEVELS = (BLOCK**3, BLOCK**2, BLOCK)
SEGMENT = 256 << 20  # a block of more bytes is not packed: its parts are
THREADS = 8
FENCE = 2.0  # seconds for which a writer trusts that no new epoch began,
NEWS = 30.0  # and a reader, where there are epochs at all
PATIENCE = 5.0  # seconds for which a ticket of another writer is waited for
LOSSES = 4  # lost races after which a writer takes a ticket,
SLOW = 1.0  # or seconds, if it lost one
ENTRY = re.compile(r"journal/[0-9]{10}/[0-9]{10}/[0-9]{10}\Z")


def entry_key(position: int, epoch: int = 0) -> str:
    """The key of the journal entry at `position`."""
    return f"journal/{epoch:010}/{position // 1000:010}/{position:010}"


def _folder(position: int) -> str:
    return entry_key(position).rpartition("/")[0]


def segment_key(first: int, count: int, epoch: int = 0) -> str:
    """The key of the segment that holds `count` entries from `first`."""
    return f"segments/{epoch:010}/{first:010}-{first + count - 1:010}"


class StoreJournal:
    """See `interfaces.backend.Journal`; `name` and `url` are for messages."""

    def __init__(self, store: ObjectStore, name: str, url: str, *, local: bool, writable: bool) -> None:
        self._store = store
        self._name = name
        self._url = url
        self._local = local
        self._may_write = writable
        self._head: Head | None = None
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._line: Line | None = None
        self._owned = True
        self._looked = -1e9
        self._tickets: dict[str, float] = {}
        self._unreadable: set[int] = set()  # the first positions of blocks in which an entry cannot be read

    @property
    def _writable(self) -> bool:
        return self._may_write and bool(getattr(self._store, "writable", True))

    # -- epochs -------------------------------------------------------------------------------------------------

    def line(self, *, fresh: bool = False) -> Line:
        """The epochs of this store; without any record where its first entry began the only one."""
        if self._line is None or fresh:
            records = read_epochs(self._store, self._url)
            mine = identity(self._store) if records else None
            line = line_of(records, mine, self._url)
            if line.chain != (self._line.chain if self._line else ()):
                self.forget()
            self._line = line
            self._owned = line.last is None or (line.last.owner == mine and not line.rivals)
            self._looked = time.monotonic()
        return self._line

    def forget(self) -> None:
        """Read again what was read: another store may stand in for the one that was asked."""
        self._head = None
        self._recent.clear()

    @property
    def epoch(self) -> int:
        """The number of the present epoch."""
        last = self.line().last
        return last.number if last else 0

    @property
    def owned(self) -> bool:
        """Whether the present epoch lets this store be written."""
        self.line()
        return self._owned

    def epoch_of(self, position: int) -> int:
        """The epoch that a position belongs to."""
        return self.line().epoch_of(position)

    def check_owned(self) -> None:
        """Raise `ReadOnly` where the present epoch gives the journal to another store."""
        if time.monotonic() - self._looked > FENCE:
            self.line(fresh=True)
        last = self.line().last
        if not self._owned and last is not None:
            rivals = self.line().rivals
            if rivals:
                told = " and ".join(f"{record.number} (by {record.actor})" for record in (last, *rivals))
                raise ReadOnly(
                    f"{self._url} has two rival epochs, {told}: two copies were made the primary",
                    hint="choose one: catalog hybrid failover NAME",
                )
            since = f" since epoch {last.number} (by {last.actor})" if last.number else ""
            raise ReadOnly(
                f"{self._url} is a copy: another store is the primary{since}",
                hint="open the primary",
            )

    # -- reading ------------------------------------------------------------------------------------------------

    def _key(self, position: int) -> str:
        return entry_key(position, self.epoch_of(position))

    def _stat(self, position: int) -> bool:
        return self._store.stat(self._key(position)) is not None

    def _read(self, position: int) -> bytes:
        known = self._recent.get(position)
        if known is not None:
            return known
        data = bytearray()
        with self._store.get(self._key(position)) as stream:  # no more than what shows that it is too long
            while len(data) <= MAX_ENTRY and (piece := stream.read(MAX_ENTRY + 1 - len(data))):
                data += piece
        self._keep(position, bytes(data))
        return bytes(data)

    def _keep(self, position: int, data: bytes) -> None:
        if not self._local:  # a local file is as near as our own memory, and may have been damaged since
            self._recent[position] = data
            while len(self._recent) > 2 * BLOCK:
                self._recent.popitem(last=False)

    def look_from(self, head: Head) -> None:
        """Begin the search for the head at an entry that is known to be there."""
        if self._head is None or self._head.position < head.position:
            self._head = head

    def _hinted(self) -> int:
        """A position that is filled, perhaps near the head."""
        if self._head is not None:
            return self._head.position
        last = self.line().last
        fork = last.position if last else -1
        if fork >= 0 and not self._stat(fork):  # a copy that has not come so far
            fork = -1
        if self._local:
            return fork
        try:
            with self._store.get("hints/head") as stream:
                hint = int(stream.read(20))
        except (BlobMissing, ValueError):
            return fork
        return hint if hint > fork and self._stat(hint) else fork

    def head(self) -> Head | None:
        """Gallop from the last known entry: steps of 1, 2, 4 … until one is missing, then halve."""
        if self.line().chain and time.monotonic() - self._looked > NEWS:
            self.line(fresh=True)
        low = self._hinted()
        step = 1
        while self._stat(low + step):
            low += step
            step *= 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            if self._stat(middle):
                low = middle
            else:
                high = middle
        if low >= 0 and (self._head is None or low != self._head.position):
            self._head = Head(low, digest_of(self._read(low)))
        return self._head

    def read(self, start: int, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """See `interfaces.backend.Journal.read`."""
        end, whole = stop, start == 0 and stop is None
        if end is None and not self._local:
            head = self.head()
            end = 0 if head is None else head.position + 1
        position = start
        if not self._local and end is not None:
            for first, entries in self._ahead(list(self._pieces(start, end))):
                if entries is None:
                    break
                for number, data in enumerate(entries):
                    yield first + number, data
                position = first + len(entries)
        if end is not None and stop is None:
            stop = end + 1  # one behind the head, for a hole; whoever writes faster than we read is not followed
        while stop is None or position < stop:
            try:
                data = self._read(position)
            except BlobMissing as exc:
                if self._is_hole(position, whole=whole):
                    raise BlobMissing(
                        f"{self._url}: journal entry {position} is missing",
                        hint="restore it from a copy",
                        backend=self._name,
                    ) from exc
                return
            yield position, data
            position += 1

    def _is_hole(self, position: int, *, whole: bool) -> bool:
        """Whether entries follow behind one that is missing. Who reads all of it also looks behind the end."""
        if self._head is not None and position <= self._head.position:
            return True
        if not whole:
            return False
        behind = self._store.list(f"journal/{self.epoch_of(position):010}/", self._key(position))
        # others may have written this one and the next since; what strangers left there is no entry
        return any(ENTRY.match(info.key) for info in behind) and not self._stat(position)

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Cut a range into the largest blocks that may be packed: pairs of first position and count."""
        ends = [record.position + 1 for record in self.line().chain]
        position = start
        while position < end:
            size = next(
                (
                    size
                    for size in LEVELS
                    if position % size == 0
                    and position + size <= end
                    and not any(position < fork < position + size for fork in ends)
                ),
                1,
            )
            yield position, size
            position += size

    def _ahead(self, pieces: list[tuple[int, int]]) -> Iterator[tuple[int, list[bytes] | None]]:
        """The entries of the pieces in order, fetched several at a time; None where one is missing."""
        if len(pieces) <= 2:
            for first, size in pieces:
                yield first, self._piece(first, size)
            return
        parts = in_order(lambda piece: self._piece(*piece), pieces, THREADS, 2 * THREADS)
        yield from zip((first for first, _ in pieces), parts, strict=True)

    def _piece(self, first: int, size: int) -> list[bytes] | None:
        if size > 1:
            return self._block(first, size)
        try:
            return [self._read(first)]
        except BlobMissing:
            return None

    def _block(self, first: int, size: int) -> list[bytes] | None:
        """The entries of a block: from its segment, else from its parts, of which a segment is made then."""
        key = segment_key(first, size, self.epoch_of(first))
        try:
            with self._store.get(key) as stream:
                entries = _unpack(stream.read(), size)
            if entries is not None:
                return entries
        except BlobMissing:
            pass
        entries = []
        step = size // BLOCK
        for at in range(first, first + size, step):
            part = self._piece(at, step)
            if part is None:
                return None
            entries += part
        if size == BLOCK and not all(_is_readable(data) for data in entries):
            self._unreadable.add(first)
        if not any(first <= at < first + size for at in self._unreadable):  # else it would outlive the bad entry
            self._pack(key, entries)
        return entries

    # -- segments -----------------------------------------------------------------------------------------------

    def _pack(self, key: str, entries: list[bytes]) -> None:
        """Store a segment. It is a cache: what goes wrong is of no consequence."""
        if not self._writable or sum(map(len, entries)) > SEGMENT:
            return
        data = zlib.compress(b"\n".join(entries), 1)
        try:
            self._store.put(key, io.BytesIO(data), len(data), "hint")
        except CatalogError:
            return

    def _packed(self, position: int) -> None:
        """Pack the blocks that the entry at `position` completes."""
        if self._local or (position + 1) % BLOCK:
            return
        for size in reversed(LEVELS):
            first = position + 1 - size
            if (position + 1) % size or self.epoch_of(first) != self.epoch_of(position):
                break
            try:
                self._block(first, size)
            except CatalogError:
                return
        text = str(position).encode()
        try:
            self._store.put("hints/head", io.BytesIO(text), len(text), "hint")
        except CatalogError:
            return

    # -- writing ------------------------------------------------------------------------------------------------

    def append(
        self, build: Callable[[Head | None], bytes], blobs: Mapping[str, bytes], deadline: float
    ) -> tuple[int, bytes]:
        """See `interfaces.backend.Journal.append`."""
        if blobs:
            raise BackendError("this store has no transactions: blobs are put before the entry")
        if not self._writable:
            raise ReadOnly(f"{self._url} may not be written", hint="check the rights of the folder")
        self.check_owned()
        wait, losses = 0.001, 0
        with _Turn(self._store, self._tickets) as turn:
            while True:
                if not self._local:  # there a lost race costs microseconds
                    turn.wait(losses, deadline)
                head = self.head()
                position = 0 if head is None else head.position + 1
                try:
                    data = build(head)
                except PositionTaken:  # the caller knows of a later entry already
                    if time.monotonic() > deadline:
                        raise
                    continue
                if self._put(head, position, data):
                    self._head = Head(position, digest_of(data))
                    self._keep(position, data)
                    self._packed(position)
                    return position, data
                if time.monotonic() > deadline:
                    raise DeadlineExceeded(f"others kept winning the journal of {self._url}", hint="try again")
                self.check_owned()
                losses += 1
                time.sleep(random.uniform(0, wait))
                wait = min(wait * 2, 0.05)

    def check_line(self, line: Line) -> None:
        """Raise `Conflict` where the store knows by now of other epochs than those of `line`."""
        if self.line(fresh=True).chain != line.chain:
            raise Conflict(
                f"{self._url}: another store became the primary meanwhile", hint="open the catalog again, then repeat"
            )

    def take_over(self, position: int, data: bytes) -> None:
        """Put an entry of the primary's journal at its place in this copy of it. Raises `IntegrityError` where another
        one is there."""
        try:
            self._store.put(self._key(position), io.BytesIO(data), len(data), "exclusive")
        except KeyTaken as exc:
            if self._read(position) != data:
                raise IntegrityError(
                    f"{self._url}: journal entry {position} is another one than that of the primary",
                    hint="it is no copy of this catalog; name an empty place as the replica",
                ) from exc
        self._head = Head(position, digest_of(data))
        self._keep(position, data)
        self._packed(position)

    def _put(self, head: Head | None, position: int, data: bytes) -> bool:
        """Put an entry; whether it is there now. An unknown outcome is settled by reading back."""
        key = self._key(position)
        try:
            if self._local and head and _folder(position) != _folder(head.position):
                last = self._read(head.position)  # its writer may not have lived to sync the folder it is in
                self._store.put(self._key(head.position), io.BytesIO(last), len(last), "content")
            self._store.put(key, io.BytesIO(data), len(data), "exclusive")
            return True
        except KeyTaken:
            return self._read(position) == data  # our own put, whose answer was lost
        except BackendError:
            if self._local or not self._stat(position):  # a local put that failed may be there and not durable
                raise
            return self._read(position) == data


def _is_readable(data: bytes) -> bool:
    """Whether an entry can be read, by this release or a newer one; its place is checked when it is applied."""
    try:
        value = parse(data)
        read_entry(data, value["position"], value["previous"], "", value["epoch"])
    except UpgradeRequired:
        return True
    except (CatalogError, KeyError, TypeError):
        return False
    return True


def _unpack(data: bytes, count: int) -> list[bytes] | None:
    """The entries of a segment; None where it was damaged. Each must name the digest of the one before it."""
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(data, SEGMENT + count)
        if inflate.unconsumed_tail or not inflate.eof:
            return None
    except zlib.error:
        return None
    entries = text.split(b"\n")
    if len(entries) != count:
        return None
    for before, entry in pairwise(entries):
        if b'"previous":"%s"' % digest_of(before).encode() not in entry:
            return None
    return entries


class _Turn:
    """One writer's place among others, near and far. One that keeps losing puts a ticket into `inbox/`; the others look
    there about once a second, and leave the next position to the oldest ticket, `PATIENCE` seconds for each at most.
    `known` are the tickets that were waited for, and for how long."""

    EVERY = 1.0

    def __init__(self, store: ObjectStore, known: dict[str, float]) -> None:
        self._store = store
        self._known = known
        self._mine: str | None = None
        self._begun = time.monotonic()
        if len(known) > 1000:
            known.clear()

    def __enter__(self) -> _Turn:
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine is not None:
            try:
                self._store.delete([self._mine])
            except BackendError:
                return  # the others wait for it once, and not again

    def wait(self, losses: int, deadline: float) -> None:
        """Take a ticket after so many losses; leave the next position to a writer who has an older one."""
        now = time.monotonic()
        losing = losses >= LOSSES or (losses > 0 and now - self._begun > SLOW)
        if losing and self._mine is None:
            mine = f"inbox/{time.time_ns():020}-{secrets.token_hex(8)}"
            self._store.put(mine, io.BytesIO(b""), 0, "hint")
            self._mine = mine
        elif self._mine is None and now - self._known.setdefault("looked", now) < self.EVERY:
            return
        self._known["looked"] = now
        for info in self._store.list("inbox/"):
            if info.key == self._mine:
                return
            self._leave_to(info.key, deadline)

    def _leave_to(self, ticket: str, deadline: float) -> None:
        step = 0.02
        while self._known.get(ticket, 0.0) < PATIENCE and time.monotonic() < deadline:
            time.sleep(step)
            self._known[ticket] = self._known.get(ticket, 0.0) + step
            if self._store.stat(ticket) is None:
                return
            step = min(step * 1.5, 0.25)
