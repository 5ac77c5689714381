"""Checked reads: blobs and chunks, from the store or from the staged packs of a draft, and the files made of them."""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import io
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal

import attrs

from catalog_core import durable, remembered, state
from catalog_core.cache import Cache
from catalog_core.digests import digest_of, digest_of_parts
from catalog_core.errors import BlobMissing, IntegrityError, InvalidInput
from catalog_core.fetch import Fetcher, check, missing
from catalog_core.index import Index
from catalog_core.interfaces.backend import Backend
from catalog_core.layout import SMALL, Chunk, Layout
from catalog_core.names import check_file, check_together

THREADS = 2
STEP = 64 << 20  # bytes that are read at a time, or one chunk
CLOCK_GRAIN = 20_000_000  # ns; file times move in steps of the kernel's clock, 10 ms at most
Policy = Literal["always", "first-use", "never"]


@attrs.frozen
class Mapped:
    """A mapped file; `inode` is what was mapped, whatever the path names by now."""

    view: memoryview
    path: Path
    inode: int

    def stamp(self) -> tuple[str, int]:
        """What changes whenever the file does, and when it last did (ns); empty where another file took its place."""
        return stamp_of(self.path, self.inode)


def stamp_of(path: Path, inode: int | None = None) -> tuple[str, int]:
    """See `Mapped.stamp`; without `inode`, of whatever file is there."""
    try:
        stat = os.stat(path)
    except FileNotFoundError:  # collected meanwhile: a mapping stays good
        return "", 0
    if inode is not None and stat.st_ino != inode:
        return "", 0
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}", stat.st_ctime_ns


class Content:
    """Checked reads of blobs and chunks, from the store, from the cache of a remote one, or from the staged packs of a
    draft. `remote` is what fetches them; None where they are local files."""

    def __init__(
        self,
        backend: Backend,
        index: Index,
        policy: Policy = "first-use",
        cache: Cache | None = None,
        progress: Callable[[], Callable[[int, int], None] | None] = lambda: None,
    ) -> None:
        self.remote = Fetcher(backend, index, cache, progress) if backend.capabilities.remote else None
        self.fetched: dict[str, str] = {}  # digest → stamp of a file that this process fetched and checked
        self.backend = backend
        self.index = index
        self.policy = policy
        self.own = False  # whether the layouts that are read are this process' own, as those of a draft
        self.overlay: Mapping[str, Path] = {}
        self.memory: Mapping[str, bytes] = {}

    def blob(self, digest: str, what: str) -> bytes:
        """A small blob, whole and always checked."""
        if digest in self.memory:
            return self.memory[digest]
        key = self.index.key(digest)
        carried = state.inlined(self.index, key)
        if carried is not None:
            import base64

            data = base64.b64decode(carried)
        elif self.remote is not None:
            return self._remote_blob(digest, what)
        else:
            data = self.stored(digest, what)
        self.check(digest_of(data), digest, what)
        return data

    def _remote_blob(self, digest: str, what: str) -> bytes:
        assert self.remote is not None
        data = self.remote.cached(digest)
        if data is None:
            data = self.remote.whole(digest, what)
            if self.remote.cache is not None:
                self.remote.cache.add_bytes(digest, data)
        return data

    def fetch(self, chunks: Sequence[Chunk], what: str, *, keep: bool = False) -> None:
        """Bring the chunks of a remote store near, several at a time; nothing to do for a local one. See
        `Fetcher.fetch` for `keep`."""
        if self.remote is None or self.remote.cache is None:
            return
        far = [chunk for chunk in chunks if self.lies_alone(chunk) and self.remote.path(chunk.digest) is None]
        if far:
            self.remote.fetch(far, what, keep=keep)
            for chunk in far:
                path = self.remote.path(chunk.digest)
                if path is not None:
                    self.fetched[chunk.digest] = stamp_of(path)[0]

    def lies_alone(self, chunk: Chunk) -> bool:
        """Whether a chunk becomes a file of the cache; small ones may be in the journal or in memory."""
        return chunk.digest not in self.memory and (chunk.pack is not None or chunk.length > SMALL)

    def place(self, chunk: Chunk) -> tuple[str, int]:
        """The key and offset of the file that holds a chunk: a pack or blob of the store, or a file of the cache."""
        if self.remote is not None:
            return chunk.digest, 0
        return chunk.pack or chunk.digest, chunk.offset

    def stored(self, digest: str, what: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes that the store has of a blob or pack, not checked. Raises `BlobMissing`."""
        key = self.index.key(digest)
        try:
            with self.backend.blobs.open(key, start, length) as stream:
                return stream.read()
        except BlobMissing as exc:
            raise missing(self.backend, key, what) from exc

    def check(self, actual: str, digest: str, what: str) -> None:
        """Raises `IntegrityError` where `actual`, the digest of what was read, is another one."""
        check(self.backend, actual, digest, what)

    def path_of(self, digest: str) -> Path | None:
        """The local file of a blob or pack, staged or stored, or None."""
        staged = self.overlay.get(digest)
        if staged is not None:
            return staged
        if self.remote is not None:
            return self.remote.path(digest)
        return self.backend.files.local_path(self.index.key(digest)) if self.backend.files else None

    def verify_local(self, key: str, mapped: Mapped, chunks: Sequence[Chunk], what: str) -> None:
        """Check `chunks` of a mapped pack by the policy; what was checked is trusted until the file changes."""
        if self.policy == "never":
            return
        view = mapped.view
        stamp, changed = mapped.stamp()
        if stamp and self.fetched.get(key) == stamp:
            return
        todo = list(chunks)
        if self.policy == "first-use" and stamp:
            trusted = remembered.trusted(self.index, key, stamp)
            todo = [chunk for chunk in chunks if chunk.digest not in trusted]
        if not todo:
            return
        for chunk in todo:
            if chunk.offset + chunk.length > view.nbytes:
                raise IntegrityError(
                    f"{what}: {key} in {self.backend.name} is cut short: {view.nbytes} bytes, chunk {chunk.digest} "
                    f"ends at {chunk.offset + chunk.length}",
                    hint="catalog fsck",
                    backend=self.backend.name,
                )

        def digest(chunk: Chunk) -> str:
            return digest_of_parts([view[chunk.offset : chunk.offset + chunk.length]])

        if len(todo) == 1:
            found = [digest(todo[0])]
        else:
            with ThreadPoolExecutor(THREADS) as pool:
                found = list(pool.map(digest, todo))
        for chunk, actual in zip(todo, found, strict=True):
            self.check(actual, chunk.digest, what)
        settled = stamp and time.time_ns() - changed > CLOCK_GRAIN  # else a later change could bear the same time
        if self.policy == "first-use" and settled and self.index.path is not None and key not in self.overlay:
            if self.remote is not None and self.remote.cache is not None:
                self.remote.cache.settle(mapped.path)
            remembered.trust(self.index, key, stamp, [chunk.digest for chunk in todo])


def new_file(path: Path, what: str) -> BinaryIO:
    """A new file in a folder of ours. Raises `InvalidInput` where one is there: the system takes two names for one."""
    try:
        return path.open("xb")
    except FileExistsError:
        raise InvalidInput(
            f"{what} cannot be written beside a file whose name is the same one to this disk ({path})",
            hint="write it to a disk that tells upper from lower case",
        ) from None


class ComponentReader:
    """The files of one component (interfaces.serializer.Reader)."""

    def __init__(
        self, content: Content, meta: Mapping[str, Any], files: Mapping[str, tuple[str, int]], layout: Layout, what: str
    ) -> None:
        self.meta = meta
        self.files: Mapping[str, int] = {name: size for name, (_, size) in files.items()}
        self._digests = {check_file(name): digest for name, (digest, _) in files.items()}
        self._content = content
        self._layout = layout
        self._what = what
        self._maps: dict[tuple[str, bool], Mapped] = {}
        self._given: dict[str, list[tuple[int, int]]] = {}  # the ranges that somebody may write to, sorted, by the file
        self._folder: Any = None
        self._made: set[str] = set()  # the files that lie in it

    def _chunks(self, name: str) -> tuple[Chunk, ...]:
        digest = self._digests[name]
        chunks = self._layout.get(digest)
        if chunks is None or sum(chunk.length for chunk in chunks) != self.files[name]:
            raise IntegrityError(f"{self._what}/{name}: the layout does not say where {digest} is", hint="catalog fsck")
        return chunks

    def _map(self, key: str, writable: bool) -> Mapped | None:
        known = self._maps.get((key, writable))
        if known is None:
            path = self._content.path_of(key)
            if path is None:
                return None
            try:
                with path.open("rb") as file:
                    inode = os.fstat(file.fileno()).st_ino
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY if writable else mmap.ACCESS_READ)
            except (OSError, ValueError) as exc:
                if self._content.remote is not None and not path.exists():
                    return None  # it left the cache meanwhile
                name = self._content.backend.name
                raise BlobMissing(
                    f"{self._what}: {key} cannot be opened in {name}: {exc}", hint="catalog fsck", backend=name
                ) from exc
            if hasattr(mmap, "MADV_WILLNEED"):
                mapped.madvise(mmap.MADV_SEQUENTIAL)
            known = self._maps[key, writable] = Mapped(memoryview(mapped), path, inode)
        return known

    @property
    def scattered(self) -> bool:
        """Whether the chunks of a file are files of their own, so that one view of all of it would be a copy."""
        return self._content.remote is not None

    def fetch(self, name: str) -> None:
        """See `interfaces.serializer.Reader.fetch`."""
        self._content.fetch(self._chunks(name), f"{self._what}/{name}")

    def view(self, name: str, start: int = 0, length: int | None = None, *, writable: bool = False) -> memoryview:
        """See `interfaces.serializer.Reader.view`."""
        found = self._view(name, start, length, writable)
        if found.nbytes == self.files[name] and self._is_strange(name):
            self._hold(name, digest_of_parts([found]))
        return found

    def hold(self, name: str) -> None:
        """Hold the whole file against its digest; see `_is_strange`. Raises `IntegrityError`."""
        found = self.joined(name) if self._is_strange(name) else None
        if found is not None:
            self._hold(name, found)

    def joined(self, name: str) -> str | None:
        """The digest of what the chunks of a file make together; each is checked too. None where some are far, and the
        cache has no room for them: nothing is fetched twice for it. Raises `IntegrityError`, `BlobMissing`."""
        remote, chunks, what = self._content.remote, self._chunks(name), f"{self._what}/{name}"
        if remote is None:
            return digest_of_parts(self._pieces(name, STEP))
        if not all(remote.path(chunk.digest) for chunk in chunks if self._content.lies_alone(chunk)):
            return None
        return digest_of_parts(self._chunk(chunk, what) for chunk in chunks)

    def _is_strange(self, name: str) -> bool:
        """Whether nobody here has seen yet that these chunks make the file of that digest. Each chunk is held against
        the layout, and whoever may write to the store may write another layout; one chunk alone is the file."""
        chunks, content = self._chunks(name), self._content
        if len(chunks) == 1 or content.own or content.policy == "never":
            return False
        return remembered.file_of(content.index, [chunk.digest for chunk in chunks]) != self._digests[name]

    def _hold(self, name: str, found: str) -> None:
        digest = self._digests[name]
        if found != digest:
            raise IntegrityError(
                f"{self._what}/{name}: its layout puts other bytes together: {found}, not {digest}",
                hint="somebody wrote a wrong layout; another version of the same digest may have the right one",
            )
        remembered.note_file(self._content.index, [chunk.digest for chunk in self._chunks(name)], digest)

    def _view(self, name: str, start: int, length: int | None, writable: bool) -> memoryview:
        end = self.files[name] if length is None else start + length
        if not 0 <= start <= end <= self.files[name]:
            raise IntegrityError(
                f"{self._what}/{name}: bytes {start} to {end} lie outside its {self.files[name]} bytes"
            )
        at, wanted = 0, []
        for chunk in self._chunks(name):
            if at < end and at + chunk.length > start:
                wanted.append((at, chunk))
            at += chunk.length
        if not wanted:
            return memoryview(bytearray() if writable else b"")
        what = f"{self._what}/{name}"
        self._content.fetch([chunk for _, chunk in wanted], what)
        first_at, first = wanted[0]
        key, offset = self._content.place(first)
        straight = len(wanted) == 1 or (
            self._content.remote is None
            and all((c.pack, c.offset) == (first.pack, first.offset + a - first_at) and c.pack for a, c in wanted)
        )
        begin = offset + start - first_at
        straight = straight and not (writable and self._is_given(key, begin, begin + end - start))
        if straight and first.digest not in self._content.memory:
            mapped = self._checked(key, writable, [chunk for _, chunk in wanted], what)
            if mapped is not None:
                if writable and end > start:
                    bisect.insort(self._given.setdefault(key, []), (begin, begin + end - start))
                return mapped[begin : begin + end - start]
        try:
            data = bytearray(end - start)
        except (MemoryError, OverflowError) as exc:
            raise IntegrityError(f"{what} has {end - start:,} bytes, more than this machine's memory") from exc
        for chunk_at, chunk in wanted:
            low, high = max(start, chunk_at), min(end, chunk_at + chunk.length)
            data[low - start : high - start] = self._chunk(chunk, what)[low - chunk_at : high - chunk_at]
        return memoryview(data) if writable else memoryview(data).toreadonly()

    def _is_given(self, key: str, begin: int, end: int) -> bool:
        """Whether somebody may write to some of these bytes of a mapped file already: what is equal is stored once, and
        two who write to it must not see each other."""
        given = self._given.get(key, [])
        at = bisect.bisect(given, (begin, end))
        return any(low < end and begin < high for low, high in given[max(at - 1, 0) : at + 1])

    def _chunk(self, chunk: Chunk, what: str) -> memoryview:
        if chunk.pack is None and chunk.length <= SMALL:
            return memoryview(self._content.blob(chunk.digest, what))
        key, offset = self._content.place(chunk)
        mapped = self._checked(key, False, [chunk], what)
        if mapped is not None:
            return mapped[offset : offset + chunk.length]
        if self._content.remote is not None:
            return self._content.remote.chunk(chunk, what)
        data = self._content.stored(key, what, chunk.offset, chunk.length)
        self._content.check(digest_of(data), chunk.digest, what)
        return memoryview(data)

    def _checked(self, key: str, writable: bool, chunks: Sequence[Chunk], what: str) -> memoryview | None:
        """The mapped file `key` with these chunks of it checked, or None where it is no file. A file of the cache that
        was damaged is fetched again."""
        remote = self._content.remote
        try:
            mapped = self._map(key, writable)
            if mapped is None:
                return None
            self._content.verify_local(key, mapped, self._alone(chunks), what)
        except IntegrityError:
            if remote is None or remote.cache is None or key in self._content.overlay:
                raise
            self._maps.pop((key, writable), None)
            remote.cache.drop(key)
            self._content.fetch(chunks, what)
            mapped = self._map(key, writable)
            if mapped is None:
                return None
            self._content.verify_local(key, mapped, self._alone(chunks), what)
        return mapped.view

    def _alone(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """The chunks as they lie in their files."""
        return chunks if self._content.remote is None else [Chunk(chunk.digest, chunk.length) for chunk in chunks]

    def pieces(self, name: str, step: int = STEP) -> Iterator[memoryview]:
        """The bytes of `name` in order, whole chunks of at least `step` bytes at a time; those of a remote store are
        read ahead. Raises `IntegrityError` at the end too, where they are not the file."""
        state = hashlib.sha256() if self._is_strange(name) else None
        for piece in self._pieces(name, step):
            if state is not None:
                state.update(piece)
            yield piece
        if state is not None:
            self._hold(name, f"sha256:{state.hexdigest()}")

    def _pieces(self, name: str, step: int) -> Iterator[memoryview]:
        if self._content.remote is not None:
            yield from self._ahead(name)
            return
        begin = end = 0
        for chunk in self._chunks(name):
            end += chunk.length
            if chunk.length and (end - begin >= step or end == self.files[name]):
                yield self._view(name, begin, end - begin, False)
                begin = end

    def _ahead(self, name: str) -> Iterator[memoryview]:
        """The chunks of a file of a remote store: large ones several at a time, small ones from where they are."""
        remote, what = self._content.remote, f"{self._what}/{name}"
        assert remote is not None
        chunks = self._chunks(name)
        large = remote.pieces([chunk for chunk in chunks if self._content.lies_alone(chunk)], what)
        for chunk in chunks:
            yield next(large) if self._content.lies_alone(chunk) else self._chunk(chunk, what)

    def open(self, name: str) -> BinaryIO:
        """See `interfaces.serializer.Reader.open`."""
        return io.BytesIO(self.view(name))

    def path(self, name: str) -> Path:
        """See `interfaces.serializer.Reader.path`."""
        import tempfile
        import weakref

        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="catalog-")
            weakref.finalize(self, self._folder.cleanup)
        target = Path(self._folder.name) / name
        if name not in self._made:
            check_together([name, *self._made], everywhere=False)
            target.parent.mkdir(parents=True, exist_ok=True)
            whole = self._whole(name)
            if whole is not None:
                with contextlib.suppress(OSError):  # on another disk, or another user's: it is copied
                    os.link(whole, target)
                    self._made.add(name)
                    return target
            self.fetch(name)
            full = "free space on that disk, or set TMPDIR to a folder on another one"
            with durable.translated(str(target), full=full), new_file(target, f"{self._what}/{name}") as file:
                for piece in self.pieces(name):
                    file.write(piece)
            target.chmod(0o444)
            self._made.add(name)
        return target

    def _whole(self, name: str) -> Path | None:
        """The stored file that is `name`, byte for byte, and checked; None where there is none."""
        if not self.files[name]:
            return None
        chunk = self._chunks(name)[0]
        key, offset = self._content.place(chunk)
        if offset or not chunk.pack or self._content.remote is not None:
            return None
        mapped = self._map(key, False)
        if mapped is None or mapped.view.nbytes != self.files[name] or self.view(name).obj is not mapped.view.obj:
            return None
        return mapped.path
