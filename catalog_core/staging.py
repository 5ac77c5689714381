"""Staging: files become chunks and packs beside the catalog, hashed while they are written, published by name."""

from __future__ import annotations

import io
import mmap
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from catalog_core import durable, remembered, state
from catalog_core.digests import digest_of, digest_of_parts, digest_of_stream
from catalog_core.index import Index
from catalog_core.interfaces.backend import Backend
from catalog_core.layout import SMALL, Chunk, Layout
from catalog_core.names import check_file
from catalog_core.parallel import in_order

ALIGN = 64
FLUSH = 64 << 20  # bytes of a pack after which it is synced, while more is written
LOOSE = 64  # so many small files of a version are blobs of their own,
LOOSE_FAR = 8  # or so many in a remote store, where each costs a request
THREADS = 2
UPLOADS = 4  # at a time; each is at most one chunk
Progress = Callable[[int, int], None]


def _bytes_of(part: Any) -> memoryview:
    view = memoryview(part)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


class Source:
    """The bytes of a file to be stored: buffers in memory, or a mapped file, as one range."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = [view for view in map(_bytes_of, parts) if view.nbytes]
        self.size = _length(self.parts)

    @classmethod
    def of_file(cls, path: Path) -> Source:
        """A file, mapped."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return cls([mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)] if size else [])

    def pieces(self, cuts: Sequence[int]) -> Iterator[list[memoryview]]:
        """The parts of each chunk, where chunks begin at `cuts`."""
        ends = [*[cut for cut in cuts if 0 < cut < self.size], self.size]
        number, inside, at = 0, 0, 0
        for end in ends:
            piece: list[memoryview] = []
            while at < end:
                part = self.parts[number]
                step = min(end - at, part.nbytes - inside)
                piece.append(part[inside : inside + step])
                at, inside = at + step, inside + step
                if inside == part.nbytes:
                    number, inside = number + 1, 0
            yield piece

    def stream(self) -> BinaryIO:
        """All bytes, to be read once."""
        return io.BufferedReader(_Joined(self.parts), 1 << 20)

    def content_cuts(self) -> list[int]:
        """Where the content decides to cut."""
        from catalog_core import chunks

        if self.size <= chunks.MINIMUM:
            return []
        whole = self.parts[0] if len(self.parts) == 1 else memoryview(b"".join(self.parts))
        return chunks.cut(whole, True)[:-1]


class Writer:
    """Stages the files of one draft. New chunks of a large file go into one pack on the target's own file system, in
    order, hashed while they are written; known ones are not written. `publish` gives the packs their names."""

    def __init__(self, backend: Backend, index: Index, progress: Progress | None = None) -> None:
        self.backend = backend
        self.index = index
        self.progress = progress or (lambda done, total: None)
        self.small: dict[str, bytes] = {}
        self.fresh: dict[str, bytes] = {}  # those of the small ones that the catalog does not hold
        self.layout: Layout = {}
        self.staged: dict[str, Path] = {}
        self.written = 0
        self.shared = 0
        self._placed: dict[str, Chunk] = {}  # chunks of earlier files of this draft
        self._sizes: dict[str, int | None] = {}  # of blobs of a remote store that were asked for

    def add_small(self, data: bytes, digest: str | None = None) -> str:
        """Keep a small blob for the commit; return its digest."""
        digest = digest or digest_of(data)
        self.index.refuse_erased(digest)
        self.small[digest] = self.fresh[digest] = data
        return digest

    def add(self, source: Source, cuts: Sequence[int] | None = None, spare: Path | None = None) -> tuple[str, int]:
        """Stage one file; return its digest and size. `spare` is that file where nobody needs it any more: it may be
        taken as it is, instead of being written once more."""
        if source.size <= SMALL:
            data = b"".join(source.parts)
            digest = digest_of(data)
            self.index.refuse_erased(digest)
            known = self.known(digest, len(data))
            if known is not None and known.pack is not None:  # it was bundled with others
                self.layout[digest], self.small[digest] = (known,), data
                return digest, len(data)
            self.layout[digest] = (Chunk(digest, len(data)),)
            held = self._held(self.index.key(digest), len(data))
            if held and self.backend.capabilities.transactional:
                self.small[digest] = data
            else:  # a file that is there may not be durable yet: putting it again makes sure
                self.add_small(data, digest)
            self.written += 0 if held else len(data)
            return digest, len(data)
        pieces = list(source.pieces(source.content_cuts() if cuts is None else cuts))
        with ThreadPoolExecutor(THREADS + 1) as pool:
            if self.backend.files:
                digest, chunks = self._add_large(source, pieces, pool, spare)
            else:
                digest, chunks = self._upload(source, pieces, pool)
        self.index.refuse_erased(digest)
        self.layout[digest] = chunks
        if self.backend.files:
            self._placed.update((chunk.digest, chunk) for chunk in chunks)
        return digest, source.size

    def bundle(self, alone: Collection[str]) -> None:
        """Let many small files be one pack: the event that publishes them names every blob. Those of `alone` are read
        by their digests and stay blobs of their own."""
        loose = [
            digest
            for digest, chunks in self.layout.items()
            if chunks[0].pack is None and digest in self.small and digest not in alone
        ]
        if len(loose) <= (LOOSE if self.backend.capabilities.local else LOOSE_FAR):
            return
        data = b"".join(self.small[digest] for digest in loose)
        name, at = digest_of(data), 0
        if self.backend.files is None:
            self.backend.blobs.put(self.index.key(name), io.BytesIO(data), len(data))
        else:
            self.staged[name] = durable.write_new(self.backend.files.staging(), io.BytesIO(data), len(data))
        for digest in loose:
            size = len(self.small[digest])
            self.layout[digest] = (Chunk(digest, size, name, at),)
            self.fresh.pop(digest, None)
            at += size

    def _held(self, key: str, size: int) -> bool:
        """Whether the catalog has a small blob, as far as that can be known without asking a remote store."""
        can = self.backend.capabilities
        if can.transactional:
            if key not in self.index.held:
                info = self.backend.blobs.stat(key)
                if info is None or info.size != size:
                    return False
                if len(self.index.held) < 10_000:
                    self.index.held.add(key)
            return True
        if state.is_inlined(self.index, key):
            return True
        info = self.backend.blobs.stat(key) if can.local else None
        return info is not None and info.size == size

    def known(self, digest: str, length: int) -> Chunk | None:
        """Where a chunk lies already, in the catalog or in this draft."""
        if digest in self._placed and self._placed[digest].length == length:
            return self._placed[digest]
        found = remembered.chunk(self.index, digest)
        if found is None or found[2] != length:
            return None
        pack, offset, _ = found
        size = self._size(self.index.key(pack))
        if size is None or size < offset + length:
            return None
        return (
            Chunk(digest, length)
            if pack == digest and offset == 0 and size == length
            else Chunk(digest, length, pack, offset)
        )

    def _size(self, key: str) -> int | None:
        """The size of a stored blob, or None; a remote store is asked once a draft."""
        if key in self._sizes:
            return self._sizes[key]
        info = self.backend.blobs.stat(key)
        size = None if info is None else info.size
        if not self.backend.capabilities.local:
            self._sizes[key] = size
        return size

    def _add_large(
        self, source: Source, pieces: list[list[memoryview]], pool: ThreadPoolExecutor, spare: Path | None
    ) -> tuple[str, tuple[Chunk, ...]]:
        hashes = _hashed(pieces, pool)
        files = self.backend.files
        assert files is not None
        chunks: list[Chunk | None] = []
        digests: list[str] = []
        placed: list[tuple[int, str, int, int]] = []
        whole = flushed = None
        pack: _Pack | None = None
        at = 0
        own: dict[str, int] = {}
        held: list[tuple[int, str, list[memoryview], int]] = []
        new: list[tuple[int, str, list[memoryview], int]] = []  # not written, as long as the spare file may do

        def write() -> None:
            nonlocal pack
            for number, digest, piece, start in new:
                pack = pack or _Pack(files.staging(), pool)
                placed.append((number, digest, _length(piece), pack.add(piece, start)))
            new.clear()

        try:
            for number, piece in enumerate(pieces):
                length = _length(piece)
                digest = next(hashes).result()
                digests.append(digest)
                known = self.known(digest, length)
                if known is None and digest in own and length > SMALL:
                    known = chunks[own[digest]] or Chunk(digest, length, "", own[digest])
                if known is not None and known.pack and length <= SMALL:
                    # a header must not keep the pack of another version alive: where anything is new, it is new too
                    if whole is None:
                        held.append((number, digest, piece, at))
                    else:
                        known = None
                if known is None:
                    if whole is None:
                        whole = pool.submit(digest_of_parts, source.parts)
                        if spare is not None:
                            flushed = pool.submit(durable.flush, spare)
                    own[digest] = number
                    new += [*held, (number, digest, piece, at)]
                    held.clear()
                else:
                    self.shared += length
                    spare = spare if length <= SMALL else None
                if spare is None:
                    write()
                chunks.append(known)
                at += length
                self.progress(at, source.size)
            digest = self._whole(source, digests) if whole is None else whole.result()
            if spare is not None and flushed is not None and len(new) == len(pieces):
                flushed.result()
                self.staged[digest], name = durable.take(spare, files.staging()), digest
                placed = [(number, chunk, _length(piece), start) for number, chunk, piece, start in new]
            else:
                write()
                if pack is not None:
                    verbatim = pack.size == source.size and len(placed) == len(pieces)
                    name = pack.seal(digest if verbatim else None)
                    self.staged[name], pack = pack.path, None
            for number, chunk, length, offset in placed:
                chunks[number] = Chunk(chunk, length, name, offset)
                self.written += length
        finally:
            if pack is not None:
                pack.discard()
        return digest, tuple(self._settled(chunk, chunks) for chunk in chunks)

    def _whole(self, source: Source, digests: list[str]) -> str:
        """The digest of a file of which all chunks were known: known too, or computed."""
        return remembered.file_of(self.index, digests) or digest_of_parts(source.parts)

    def _upload(
        self, source: Source, pieces: list[list[memoryview]], pool: ThreadPoolExecutor
    ) -> tuple[str, tuple[Chunk, ...]]:
        """Put the chunks that a remote store lacks, several at a time. A second try after a kill finds what the first
        one stored."""
        hashes = _hashed(pieces, pool)
        whole: Future[str] | None = None
        chunks: list[Chunk] = []
        sent: set[str] = set()
        done = 0

        def lacking() -> Iterator[tuple[str, list[memoryview], int]]:
            nonlocal whole, done
            for piece in pieces:
                length = _length(piece)
                digest = next(hashes).result()
                known = self.known(digest, length)
                chunks.append(known or Chunk(digest, length))
                if known is not None or digest in sent:
                    self.shared += length
                    done += length
                    continue
                whole = whole or pool.submit(digest_of_parts, source.parts)
                sent.add(digest)
                self.written += length
                yield self.index.key(digest), piece, length

        def put(item: tuple[str, list[memoryview], int]) -> int:
            key, piece, length = item
            self.backend.blobs.put(key, io.BufferedReader(_Joined(piece), 1 << 20), length)
            return length

        for length in in_order(put, lacking(), UPLOADS, UPLOADS + 1):
            done += length
            self.progress(done, source.size)
        digest = self._whole(source, [chunk.digest for chunk in chunks]) if whole is None else whole.result()
        return digest, tuple(chunks)

    @staticmethod
    def _settled(chunk: Chunk | None, chunks: list[Chunk | None]) -> Chunk:
        assert chunk is not None
        if chunk.pack == "":  # the same bytes stand twice in this file
            first = chunks[chunk.offset]
            assert first is not None
            return first
        return chunk

    def publish_packs(self) -> None:
        """Give the staged packs their names: durable when this returns. The staged names stay until `discard`."""
        assert self.backend.files is not None or not self.staged
        for digest, path in self.staged.items():
            assert self.backend.files is not None
            self.backend.files.adopt(path, self.index.key(digest))

    def remember(self) -> None:
        """Note in the index which chunks are stored where, so that the next save finds them (a cache)."""
        pieces = {
            digest: chunks
            for digest, chunks in self.layout.items()
            if chunks[0].digest != digest or any(chunk.pack for chunk in chunks)
        }
        if pieces:
            remembered.note_layout(self.index, pieces)

    def blobs(self) -> set[str]:
        """The digests of the blobs that this draft's layout names."""
        return {chunk.pack or chunk.digest for chunks in self.layout.values() for chunk in chunks}

    def discard(self) -> None:
        """Remove what was staged."""
        for path in self.staged.values():
            path.unlink(missing_ok=True)
        self.staged.clear()


def _length(piece: Sequence[memoryview]) -> int:
    return sum(part.nbytes for part in piece)


class _Pack:
    """A staged file of chunks, which go to the disk while others are written."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.path, self._file = durable.stage(folder)
        self.size = 0
        self._pool = pool
        self._flushed = 0
        self._flushes: list[Future[None]] = []

    def add(self, piece: Sequence[memoryview], start: int) -> int:
        """Write a chunk that begins at `start` of its own file; return where it begins here."""
        padding = bytes((start - self.size) % ALIGN if self.size else 0)
        with durable.translated(str(self.path)):
            for part in (padding, *piece):
                durable.write_all(self._file, part)
        offset = self.size + len(padding)
        self.size = offset + _length(piece)
        if self.size - self._flushed >= FLUSH:
            self._flushed = self.size
            self._flushes.append(self._pool.submit(_sync_data, self._file.fileno()))
        return offset

    def seal(self, digest: str | None) -> str:
        """Make it durable; return its digest, which is computed where it is not given."""
        with durable.translated(str(self.path)):
            for flush in self._flushes:
                flush.result()  # a failure is told once, to whoever synced
        durable.sync(self._file, self.path)
        if digest is not None:
            return digest
        with self.path.open("rb") as file:
            return digest_of_stream(file)

    def discard(self) -> None:
        """Remove it."""
        wait(self._flushes)
        self._file.close()
        self.path.unlink(missing_ok=True)


_sync_data = getattr(os, "fdatasync", os.fsync)


def _hashed(pieces: Sequence[list[memoryview]], pool: ThreadPoolExecutor) -> Iterator[Future[str]]:
    """The digests of pieces, in order, a few of them ahead: what else is asked of the pool has its turn soon."""
    ahead: deque[Future[str]] = deque()
    for piece in pieces:
        ahead.append(pool.submit(digest_of_parts, piece))
        if len(ahead) > THREADS:
            yield ahead.popleft()
    yield from ahead


class _Joined(io.RawIOBase):
    """Several buffers as one seekable stream."""

    def __init__(self, parts: Sequence[memoryview]) -> None:
        self._parts = list(parts)
        self._ends = list(accumulate(part.nbytes for part in parts))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = (0, self._at, self._ends[-1] if self._ends else 0)[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        done = 0
        number = bisect_right(self._ends, self._at)
        while number < len(self._parts) and done < target.nbytes:
            inside = self._at - (self._ends[number - 1] if number else 0)
            part = self._parts[number][inside : inside + target.nbytes - done]
            target[done : done + part.nbytes] = part
            done += part.nbytes
            self._at += part.nbytes
            number += 1
        return done


class ComponentDirectory:
    """Where a serializer writes (interfaces.serializer.Directory)."""

    def __init__(self, writer: Writer, folder: Callable[[], Path]) -> None:
        self._writer = writer
        self._folder = folder
        self._paths: dict[str, tuple[Path, int | None]] = {}
        self.files: dict[str, tuple[str, int]] = {}
        self.census: dict[str, Any] = {"count": 0, "nan": 0, "inf": 0, "tensors": []}  # see tensors.count_numbers

    def write(self, name: str, parts: Sequence[Any], cuts: Sequence[int] = ()) -> None:
        """See `interfaces.serializer.Directory.write`."""
        self.files[check_file(name)] = self._writer.add(Source(parts), cuts or None)

    def path(self, name: str, stride: int | None = None) -> Path:
        """See `interfaces.serializer.Directory.path`."""
        path = self._folder() / check_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._paths[name] = path, stride
        return path

    def seal(self) -> None:
        """Take in the files that were written by path."""
        for name, (path, stride) in self._paths.items():
            spare = path if durable.takable(path) else None
            cuts = list(range(0, path.stat().st_size, stride)) if stride else cuts_of(path)
            self.files[name] = self._writer.add(Source.of_file(path), cuts, spare)
            path.unlink(missing_ok=True)


def cuts_of(path: Path) -> list[int] | None:
    """Where a file of a known format should be cut: safetensors files at tensors; else None (by content)."""
    if path.suffix != ".safetensors" or path.stat().st_size <= SMALL:
        return None
    from catalog_core import tensors
    from catalog_core.errors import SerializationError

    try:
        return tensors.cuts(_header(path).ranges(), path.stat().st_size)
    except SerializationError:
        return None


def check_readable(path: Path, name: str) -> None:
    """Raises `SerializationError` for a safetensors file, called `name`, that never loads: its header lies."""
    from catalog_core.errors import SerializationError

    if path.suffix != ".safetensors":
        return
    try:
        _header(path)
    except SerializationError as exc:
        with path.open("rb") as file:
            pointer = file.read(20).startswith(b"version https://git-")
        hint = "git lfs pull: it is a pointer of Git LFS" if pointer else "write it once more"
        raise SerializationError(f"{name} cannot be loaded: {exc.message}", hint=hint) from exc


def _header(path: Path) -> Any:
    from catalog_core import tensors

    with path.open("rb") as file:

        def read(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        return tensors.parse_header(read, path.stat().st_size)
