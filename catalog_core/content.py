"""Bytes of versions: how files become chunks, packs and layouts, and how they are read back checked.

A *layout* says where the bytes of files are: `{"version": 1, "files": {file digest: [[chunk digest, length] or
[chunk digest, length, pack digest, offset], …]}}`. It is a blob beside the manifest and not part of a version's
identity.
"""

from __future__ import annotations

import io
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Literal

import attrs

from catalog_core import durable
from catalog_core.digests import check_digest, digest_of, parse
from catalog_core.errors import BlobMissing, IntegrityError
from catalog_core.index import Index
from catalog_core.interfaces.backend import Backend
from catalog_core.names import check_file

SMALL = 64 << 10
ALIGN = 64
THREADS = 2
CLOCK_GRAIN = 20_000_000  # ns; file times move in steps of the kernel's clock, 10 ms at most
Policy = Literal["always", "first-use", "never"]
Progress = Callable[[int, int], None]


@attrs.frozen
class Chunk:
    """A piece of a file. It lies at `offset` of the pack, or is the blob `digest` itself where `pack` is None."""

    digest: str
    length: int
    pack: str | None = None
    offset: int = 0


Layout = dict[str, tuple[Chunk, ...]]


def write_layout(layout: Layout) -> dict[str, Any]:
    """The stored form of a layout."""
    files = {}
    for digest, chunks in layout.items():
        files[digest] = [
            [c.digest, c.length] if c.pack is None else [c.digest, c.length, c.pack, c.offset] for c in chunks
        ]
    return {"version": 1, "files": files}


def read_layout(data: bytes) -> Layout:
    """Parse and check a layout. Raises `IntegrityError`."""
    try:
        value = parse(data)
        if value["version"] != 1:
            raise IntegrityError(f"layout version {value['version']} is not known to this release")
        layout: Layout = {}
        for digest, chunks in value["files"].items():
            layout[check_digest(digest)] = tuple(Chunk(*chunk) for chunk in chunks)
            for chunk in layout[digest]:
                check_digest(chunk.digest)
                if chunk.pack is not None:
                    check_digest(chunk.pack.partition("~")[0])
                if not chunk.length >= 0 or not chunk.offset >= 0:
                    raise IntegrityError("a layout with a negative length")
        return layout
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise IntegrityError(f"the layout cannot be read: {exc}") from exc


def hash_parts(parts: Sequence[memoryview]) -> str:
    """The digest of `parts`, one after the other."""
    state = sha256()
    for part in parts:
        state.update(part)
    return "sha256:" + state.hexdigest()


def _bytes_of(part: Any) -> memoryview:
    view = memoryview(part)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


class Source:
    """The bytes of a file to be stored: buffers in memory, or a mapped file, as one range."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = [view for view in map(_bytes_of, parts) if view.nbytes]
        self.size = sum(view.nbytes for view in self.parts)

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

    def add_small(self, data: bytes, digest: str | None = None) -> str:
        """Keep a small blob for the commit; return its digest."""
        digest = digest or digest_of(data)
        self.small[digest] = self.fresh[digest] = data
        return digest

    def add(self, source: Source, cuts: Sequence[int] | None = None) -> tuple[str, int]:
        """Stage one file; return its digest and size."""
        if source.size <= SMALL:
            data = b"".join(source.parts)
            digest = digest_of(data)
            self.layout[digest] = (Chunk(digest, len(data)),)
            if self._held(self.index.key(digest), len(data)):
                self.small[digest] = data
            else:
                self.add_small(data, digest)
                self.written += len(data)
            return digest, len(data)
        pieces = list(source.pieces(source.content_cuts() if cuts is None else cuts))
        with ThreadPoolExecutor(THREADS + 1) as pool:
            digest, chunks = self._add_large(source, pieces, pool)
        self.layout[digest] = chunks
        return digest, source.size

    def _held(self, key: str, size: int) -> bool:
        """Whether the catalog has a small blob, as far as that can be known without asking a remote store."""
        can = self.backend.capabilities
        if not can.transactional and self.index.rows("SELECT 1 FROM inlined WHERE key = ?", (key,)):
            return True
        info = self.backend.blobs.stat(key) if can.local or can.transactional else None
        return info is not None and info.size == size

    def _known(self, digest: str, length: int) -> Chunk | None:
        rows = self.index.rows("SELECT key, offset, length FROM chunks WHERE digest = ?", (digest,))
        if not rows or rows[0][2] != length:
            return None
        pack, offset, _ = rows[0]
        info = self.backend.blobs.stat(self.index.key(pack))
        if info is None or info.size < offset + length:
            return None
        return (
            Chunk(digest, length)
            if pack == digest and offset == 0 and info.size == length
            else Chunk(digest, length, pack, offset)
        )

    def _add_large(
        self, source: Source, pieces: list[list[memoryview]], pool: ThreadPoolExecutor
    ) -> tuple[str, tuple[Chunk, ...]]:
        hashes = iter([pool.submit(hash_parts, piece) for piece in pieces])
        files = self.backend.files
        chunks: list[Chunk | None] = []
        digests: list[str] = []
        fresh: list[tuple[int, str, int, int]] = []
        whole = None
        pack: BinaryIO | None = None
        path: Path | None = None
        at = position = 0
        own: dict[str, int] = {}
        held: list[tuple[int, str, list[memoryview], int]] = []

        def write(number: int, digest: str, piece: list[memoryview], start: int) -> None:
            nonlocal position
            assert pack is not None
            padding = (start - position) % ALIGN if position else 0
            with durable.translated(str(path)):
                for part in (bytes(padding), *piece):
                    durable.write_all(pack, part)
            position += padding
            length = sum(part.nbytes for part in piece)
            fresh.append((number, digest, length, position))
            position += length
            self.written += length

        try:
            for number, piece in enumerate(pieces):
                length = sum(part.nbytes for part in piece)
                digest = next(hashes).result()
                digests.append(digest)
                known = self._known(digest, length)
                if known is None and digest in own:
                    known = chunks[own[digest]] or Chunk(digest, length, "", own[digest])
                if known is not None and known.pack and length <= SMALL and files is not None:
                    # a header must not keep the pack of another version alive: where anything is new, it is new too
                    if pack is None:
                        held.append((number, digest, piece, at))
                    else:
                        known = None
                if known is None:
                    if whole is None:
                        whole = pool.submit(hash_parts, source.parts)
                    own[digest] = number
                    if files is None:
                        key = self.index.key(digest)
                        self.backend.blobs.put(key, io.BufferedReader(_Joined(piece), 1 << 20), length)
                        known = Chunk(digest, length)
                        self.written += length
                    else:
                        if pack is None:
                            path, pack = durable.stage(files.staging())
                            for item in held:
                                write(*item)
                        write(number, digest, piece, at)
                else:
                    self.shared += length
                chunks.append(known)
                at += length
                self.progress(at, source.size)
            listing = digest_of("\n".join(digests).encode())
            if whole is None:
                rows = self.index.rows("SELECT digest FROM files WHERE chunks = ?", (listing,))
                digest = rows[0][0] if rows else hash_parts(source.parts)
            else:
                digest = whole.result()
            if pack is not None and path is not None:
                name = self._seal(pack, path, position == source.size and len(fresh) == len(pieces), digest)
                for number, chunk, length, offset in fresh:
                    chunks[number] = Chunk(chunk, length, name, offset)
                pack = None
        finally:
            if pack is not None and path is not None:
                pack.close()
                path.unlink(missing_ok=True)
        return digest, tuple(self._settled(chunk, chunks) for chunk in chunks)

    @staticmethod
    def _settled(chunk: Chunk | None, chunks: list[Chunk | None]) -> Chunk:
        assert chunk is not None
        if chunk.pack == "":  # the same bytes stand twice in this file
            first = chunks[chunk.offset]
            assert first is not None
            return first
        return chunk

    def _seal(self, pack: BinaryIO, path: Path, verbatim: bool, digest: str) -> str:
        durable.sync(pack, path)
        if not verbatim:
            with path.open("rb") as file:
                state = sha256()
                while block := file.read(1 << 20):
                    state.update(block)
            digest = "sha256:" + state.hexdigest()
        self.staged[digest] = path
        return digest

    def publish_packs(self) -> None:
        """Give the staged packs their names: durable when this returns. The staged names stay until `discard`."""
        assert self.backend.files is not None or not self.staged
        for digest, path in self.staged.items():
            assert self.backend.files is not None
            self.backend.files.adopt(path, self.index.key(digest))

    def remember(self) -> None:
        """Note in the index which chunks are stored where, so that the next save finds them (a cache)."""
        large = {digest: chunks for digest, chunks in self.layout.items() if chunks and chunks[0].digest != digest}
        packed = {digest: chunks for digest, chunks in self.layout.items() if any(c.pack for c in chunks)}
        if large or packed:
            with self.index.cache():
                remember_layout(self.index, {**large, **packed})

    def blobs(self) -> set[str]:
        """The digests of the blobs that this draft's layout names."""
        return {chunk.pack or chunk.digest for chunks in self.layout.values() for chunk in chunks}

    def discard(self) -> None:
        """Remove what was staged."""
        for path in self.staged.values():
            path.unlink(missing_ok=True)
        self.staged.clear()


def remember_layout(index: Index, layout: Layout) -> None:
    """Enter the chunks of a layout into the index's cache, inside a transaction."""
    for digest, chunks in layout.items():
        index.db.executemany(
            "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)",
            [(c.digest, c.pack or c.digest, c.offset, c.length) for c in chunks],
        )
        listing = digest_of("\n".join(c.digest for c in chunks).encode())
        index.db.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (listing, digest))


class _Joined(io.RawIOBase):
    """Several buffers as one stream."""

    def __init__(self, parts: Sequence[memoryview]) -> None:
        self.parts = list(parts)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        done = 0
        while self.parts and done < target.nbytes:
            part = self.parts[0]
            step = min(part.nbytes, target.nbytes - done)
            target[done : done + step] = part[:step]
            done += step
            if step == part.nbytes:
                self.parts.pop(0)
            else:
                self.parts[0] = part[step:]
        return done


@attrs.frozen
class Mapped:
    """A mapped file; `inode` is what was mapped, whatever the path names by now."""

    view: memoryview
    path: Path
    inode: int

    def stamp(self) -> tuple[str, int]:
        """What changes whenever the file does, and when it last did (ns); empty where another file took its place."""
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:  # collected meanwhile: the mapping stays good
            return "", 0
        if stat.st_ino != self.inode:
            return "", 0
        stamp = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
        return stamp, stat.st_ctime_ns


class Content:
    """Checked reads of blobs and chunks, from the store or from the staged packs of a draft."""

    def __init__(self, backend: Backend, index: Index, policy: Policy = "first-use") -> None:
        self.backend = backend
        self.index = index
        self.policy = policy
        self.overlay: Mapping[str, Path] = {}
        self.memory: Mapping[str, bytes] = {}

    def blob(self, digest: str, what: str) -> bytes:
        """A small blob, whole and always checked."""
        if digest in self.memory:
            return self.memory[digest]
        key = self.index.key(digest)
        rows = self.index.rows("SELECT data FROM inlined WHERE key = ?", (key,))
        if rows:
            import base64

            data = base64.b64decode(rows[0][0])
        else:
            data = self.stored(digest, what)
        self._check(digest_of(data), digest, what)
        return data

    def stored(self, digest: str, what: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes that the store has of a blob or pack, not checked. Raises `BlobMissing`."""
        key = self.index.key(digest)
        try:
            with self.backend.blobs.open(key, start, length) as stream:
                return stream.read()
        except BlobMissing as exc:
            raise BlobMissing(
                f"{what}: blob {key} is missing from {self.backend.name} ({self.backend.url})",
                hint="catalog fsck",
                backend=self.backend.name,
            ) from exc

    def _check(self, actual: str, digest: str, what: str) -> None:
        if actual != digest:
            raise IntegrityError(
                f"{what}: chunk {digest} in {self.backend.name} ({self.backend.url}) holds other bytes ({actual})",
                hint="the stored bytes were damaged; `catalog fsck` lists all, restore them from a copy",
                backend=self.backend.name,
            )

    def path_of(self, digest: str) -> Path | None:
        """The local file of a blob or pack, staged or stored, or None."""
        staged = self.overlay.get(digest)
        if staged is not None:
            return staged
        return self.backend.files.local_path(self.index.key(digest)) if self.backend.files else None

    def verify_local(self, key: str, mapped: Mapped, chunks: Sequence[Chunk], what: str) -> None:
        """Check `chunks` of a mapped pack by the policy; what was checked is trusted until the file changes."""
        if self.policy == "never":
            return
        view = mapped.view
        stamp, changed = mapped.stamp()
        todo = list(chunks)
        if self.policy == "first-use" and stamp:
            rows = self.index.rows("SELECT digest FROM trusted WHERE key = ? AND stamp = ?", (key, stamp))
            trusted = {row[0] for row in rows}
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
            return hash_parts([view[chunk.offset : chunk.offset + chunk.length]])

        if len(todo) == 1:
            found = [digest(todo[0])]
        else:
            with ThreadPoolExecutor(THREADS) as pool:
                found = list(pool.map(digest, todo))
        for chunk, actual in zip(todo, found, strict=True):
            self._check(actual, chunk.digest, what)
        settled = stamp and time.time_ns() - changed > CLOCK_GRAIN  # else a later change could bear the same time
        if self.policy == "first-use" and settled and self.index.path is not None and key not in self.overlay:
            with self.index.cache():
                self.index.db.execute("DELETE FROM trusted WHERE key = ? AND stamp <> ?", (key, stamp))
                self.index.db.executemany(
                    "INSERT OR IGNORE INTO trusted VALUES (?, ?, ?)", [(key, stamp, chunk.digest) for chunk in todo]
                )


class ComponentReader:
    """The files of one component (interfaces.serializer.Reader)."""

    def __init__(
        self, content: Content, meta: Mapping[str, Any], files: Mapping[str, tuple[str, int]], layout: Layout, what: str
    ) -> None:
        self.meta = meta
        self.files = {name: size for name, (_, size) in files.items()}
        self._digests = {check_file(name): digest for name, (digest, _) in files.items()}
        self._content = content
        self._layout = layout
        self._what = what
        self._maps: dict[tuple[str, bool], Mapped] = {}
        self._folder: Any = None

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
                name = self._content.backend.name
                raise BlobMissing(
                    f"{self._what}: {key} cannot be opened in {name}: {exc}", hint="catalog fsck", backend=name
                ) from exc
            if hasattr(mmap, "MADV_WILLNEED"):
                mapped.madvise(mmap.MADV_SEQUENTIAL)
            known = self._maps[key, writable] = Mapped(memoryview(mapped), path, inode)
        return known

    def view(self, name: str, start: int = 0, length: int | None = None, *, writable: bool = False) -> memoryview:
        """See `interfaces.serializer.Reader.view`."""
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
        first_at, first = wanted[0]
        straight = (
            all((c.pack, c.offset) == (first.pack, first.offset + a - first_at) and c.pack for a, c in wanted)
            or len(wanted) == 1
        )
        key = first.pack or first.digest
        mapped = self._map(key, writable) if straight and first.digest not in self._content.memory else None
        if mapped:
            self._content.verify_local(key, mapped, [chunk for _, chunk in wanted], what)
            begin = first.offset + start - first_at
            return mapped.view[begin : begin + end - start]
        data = bytearray(end - start)
        for chunk_at, chunk in wanted:
            low, high = max(start, chunk_at), min(end, chunk_at + chunk.length)
            data[low - start : high - start] = self._chunk(chunk, what)[low - chunk_at : high - chunk_at]
        return memoryview(data) if writable else memoryview(data).toreadonly()

    def _chunk(self, chunk: Chunk, what: str) -> memoryview:
        if chunk.pack is None and chunk.length <= SMALL:
            return memoryview(self._content.blob(chunk.digest, what))
        key = chunk.pack or chunk.digest
        mapped = self._map(key, False)
        if mapped:
            self._content.verify_local(key, mapped, [chunk], what)
            return mapped.view[chunk.offset : chunk.offset + chunk.length]
        data = self._content.stored(key, what, chunk.offset, chunk.length)
        self._content._check(digest_of(data), chunk.digest, what)
        return memoryview(data)

    def pieces(self, name: str, step: int = 64 << 20) -> Iterator[memoryview]:
        """The bytes of `name` in order, whole chunks of at least `step` bytes at a time."""
        begin = end = 0
        for chunk in self._chunks(name):
            end += chunk.length
            if end - begin >= step or end == self.files[name]:
                yield self.view(name, begin, end - begin)
                begin = end

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
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for chunk in self._chunks(name):
                    file.write(self._chunk(chunk, f"{self._what}/{name}"))
            target.chmod(0o444)
        return target


class ComponentDirectory:
    """Where a serializer writes (interfaces.serializer.Directory)."""

    def __init__(self, writer: Writer, folder: Callable[[], Path]) -> None:
        self._writer = writer
        self._folder = folder
        self._paths: dict[str, Path] = {}
        self.files: dict[str, tuple[str, int]] = {}

    def write(self, name: str, parts: Sequence[Any], cuts: Sequence[int] = ()) -> None:
        """See `interfaces.serializer.Directory.write`."""
        self.files[check_file(name)] = self._writer.add(Source(parts), cuts or None)

    def path(self, name: str) -> Path:
        """See `interfaces.serializer.Directory.path`."""
        path = self._folder() / check_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._paths[name] = path
        return path

    def seal(self) -> None:
        """Take in the files that were written by path."""
        for name, path in self._paths.items():
            self.files[name] = self._writer.add(Source.of_file(path), cuts_of(path))
            path.unlink()


def cuts_of(path: Path) -> list[int] | None:
    """Where a file of a known format should be cut: safetensors files at tensors; else None (by content)."""
    if path.suffix != ".safetensors" or path.stat().st_size <= SMALL:
        return None
    from catalog_core import tensors
    from catalog_core.errors import SerializationError

    size = path.stat().st_size
    with path.open("rb") as file:

        def read(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        try:
            return tensors.cuts(tensors.parse_header(read, size), size)
        except SerializationError:
            return None
