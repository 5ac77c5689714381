"""Chunks from a remote store: several at a time, checked while they stream, into the cache or into memory."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from catalog_core import durable
from catalog_core.cache import FULL, Cache
from catalog_core.digests import digest_of
from catalog_core.errors import BackendError, BlobMissing, IntegrityError, NoSpace
from catalog_core.index import Index
from catalog_core.interfaces.backend import Backend
from catalog_core.layout import Chunk
from catalog_core.parallel import in_order
from catalog_core.platform import offline

log = logging.getLogger("catalog_core")
PARALLEL = 4  # transfers at a time; each holds at most one chunk in memory
BLOCK = 1 << 20
TRIES = 4  # of one chunk, when its stream breaks off


def missing(backend: Backend, key: str, what: str) -> BlobMissing:
    """The error for a blob that is not in the store."""
    return BlobMissing(
        f"{what}: blob {key} is missing from {backend.name} ({backend.url})", hint="catalog fsck", backend=backend.name
    )


def check(backend: Backend, actual: str, digest: str, what: str) -> None:
    """Raise `IntegrityError` where the bytes of a chunk have another digest than they should."""
    if actual != digest:
        raise IntegrityError(
            f"{what}: chunk {digest} in {backend.name} ({backend.url}) holds other bytes ({actual})",
            hint="the stored bytes were damaged; `catalog fsck` lists all, restore them from a copy",
            backend=backend.name,
        )


class Fetcher:
    """Brings chunks near. `cache` is None where there is no place for one; `progress` gives what is told of bytes done
    and in all, if anybody wants to know."""

    def __init__(
        self,
        backend: Backend,
        index: Index,
        cache: Cache | None,
        progress: Callable[[], Callable[[int, int], None] | None] = lambda: None,
    ) -> None:
        self._progress = progress
        self._told = False  # that the cache is full
        self.backend = backend
        self.index = index
        self.cache = cache

    def path(self, digest: str) -> Path | None:
        """The cached file of a chunk, not checked."""
        return self.cache.path(digest) if self.cache else None

    def cached(self, digest: str) -> bytes | None:
        """The bytes of a cached file, checked; None where it is not there, or damaged."""
        path = self.path(digest)
        try:
            data = None if path is None else path.read_bytes()
        except OSError:
            return None
        return data if data is not None and digest_of(data) == digest else None

    def fetch(self, chunks: Iterable[Chunk], what: str, *, keep: bool = False) -> None:
        """Bring chunks into the cache. Raises `IntegrityError`, `BlobMissing`, `BackendError`; what came whole stays,
        so that a second try goes on where this one stopped. Where its disk is full, what was not used for longest goes;
        if that is not enough either, the rest is not kept (it is read into memory), or, with `keep`, raises
        `NoSpace`."""
        todo = {chunk.digest: chunk for chunk in chunks}.values()
        done, total, tell = 0, sum(chunk.length for chunk in todo), self._progress()
        for length in in_order(lambda chunk: self._to_cache(chunk, what, keep), todo, PARALLEL, PARALLEL):
            done += length
            if tell:
                tell(done, total)

    def pieces(self, chunks: Iterable[Chunk], what: str) -> Iterator[memoryview]:
        """The bytes of chunks in order, read ahead; from the cache where they are there, and not put into it."""
        return in_order(lambda chunk: self.chunk(chunk, what), chunks, PARALLEL, PARALLEL)

    def chunk(self, chunk: Chunk, what: str) -> memoryview:
        """One chunk in memory, checked."""
        data = self.cached(chunk.digest)
        if data is not None:
            return memoryview(data)
        try:
            target = memoryview(bytearray(chunk.length))
        except (MemoryError, OverflowError) as exc:
            raise IntegrityError(f"{what} has {chunk.length:,} bytes, more than this machine's memory") from exc
        self._receive(chunk, what, target)
        return target

    def whole(self, digest: str, what: str) -> bytes:
        """A small blob of unknown size, checked."""
        sink = io.BytesIO()
        self._receive(Chunk(digest, 0), what, sink, whole=True)
        return sink.getvalue()

    def _to_cache(self, chunk: Chunk, what: str, keep: bool) -> int:
        cache, room = self.cache, True
        assert cache is not None
        while room:
            try:
                cache.add(chunk.digest, lambda file: self._receive(chunk, what, file), chunk.length)
                return chunk.length
            except NoSpace:
                room = cache.make_room(chunk.length)
                if keep and not room:
                    raise
        if not self._told:
            self._told = True
            log.warning("no space left for the cache %s: what is loaded stays in memory; %s", cache.folder, FULL)
        return chunk.length

    def _receive(self, chunk: Chunk, what: str, sink: memoryview | BinaryIO, *, whole: bool = False) -> None:
        """Stream a chunk into `sink`, checked."""
        if offline():
            raise BackendError(
                f"{what}: {chunk.digest} is not in the cache, and CATALOG_OFFLINE is set",
                hint="pin it while there is a network: catalog cache pin REF",
                backend=self.backend.name,
            )
        key = self.index.key(chunk.pack or chunk.digest)
        distrust = getattr(self.backend.blobs, "distrust", lambda key: False)
        for _ in range(TRIES):
            try:
                actual = self._stream(key, chunk.offset, None if whole else chunk.length, sink)
            except BlobMissing as exc:
                raise missing(self.backend, key, what) from exc
            if actual == chunk.digest or not distrust(key):
                break
        check(self.backend, actual, chunk.digest, what)

    def _stream(self, key: str, start: int, length: int | None, sink: memoryview | BinaryIO) -> str:
        """Stream once, again from the start where the line breaks; return the digest of what came."""
        for attempt in range(TRIES):
            state, at = sha256(), 0
            if not isinstance(sink, memoryview):
                sink.seek(0)
            try:
                with self.backend.blobs.open(key, start, length) as stream:
                    while length is None or at < length:
                        block = stream.read(BLOCK if length is None else min(BLOCK, length - at))
                        if not block:
                            break
                        state.update(block)
                        if isinstance(sink, memoryview):
                            sink[at : at + len(block)] = block
                        else:
                            durable.write_all(sink, block)
                        at += len(block)
                if not isinstance(sink, memoryview):
                    sink.truncate()  # only now: space was set aside, and another try may have brought more
                return "sha256:" + state.hexdigest()
            except BackendError:
                if attempt == TRIES - 1:
                    raise
                time.sleep(0.1 * 4**attempt)
        raise AssertionError("unreachable")
