"""Checked reads: blobs and chunks, from the store or from the staged packs of a draft, and the files made of them."""

from __future__ import annotations

import io
import mmap
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal

import attrs

from catalog_core.digests import digest_of, digest_of_parts
from catalog_core.errors import BlobMissing, IntegrityError
from catalog_core.index import Index
from catalog_core.interfaces.backend import Backend
from catalog_core.layout import SMALL, Chunk, Layout
from catalog_core.names import check_file

THREADS = 2
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
            return digest_of_parts([view[chunk.offset : chunk.offset + chunk.length]])

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
