"""Chunks from a remote store: several at a time, checked while they stream, into the cache or into memory."""

from __future__ import annotations

import io
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from catalog_core import durable
from catalog_core.cache import Cache
from catalog_core.errors import BackendError, BlobMissing, IntegrityError
from catalog_core.index import Index
from catalog_core.interfaces.backend import Backend
from catalog_core.layout import Chunk

PARALLEL = 4  # transfers at a time; each holds at most one chunk in memory
BLOCK = 1 << 20
TRIES = 4  # of one chunk, when its stream breaks off
Progress = Callable[[int, int], None]


class Fetcher:
    """Brings chunks near. `cache` is None where there is no place for one."""

    def __init__(self, backend: Backend, index: Index, cache: Cache | None) -> None:
        self.backend = backend
        self.index = index
        self.cache = cache
        self.offline = False
        self.progress: Progress | None = None
        self.received = 0  # bytes, by this object

    def path(self, digest: str) -> Path | None:
        """The cached file of a chunk, not checked."""
        return self.cache.path(digest) if self.cache else None

    def fetch(self, chunks: Sequence[Chunk], what: str) -> None:
        """Bring chunks into the cache, those that are not there. Raises `IntegrityError`, `BlobMissing`,
        `BackendError`; what came whole stays, so that a second try goes on where this one stopped."""
        if self.cache is None:
            return
        todo = list({chunk.digest: chunk for chunk in chunks if self.cache.path(chunk.digest) is None}.values())
        done, total, lock = 0, sum(chunk.length for chunk in todo), threading.Lock()

        def one(chunk: Chunk) -> None:
            nonlocal done
            self._to_cache(chunk, what)
            with lock:
                done += chunk.length
                if self.progress:
                    self.progress(done, total)

        if len(todo) == 1:
            one(todo[0])
        elif todo:
            with ThreadPoolExecutor(PARALLEL) as pool:
                futures = [pool.submit(one, chunk) for chunk in todo]
                try:
                    for future in futures:
                        future.result()
                finally:
                    for future in futures:
                        future.cancel()

    def pieces(self, chunks: Sequence[Chunk], what: str) -> Iterator[memoryview]:
        """The bytes of chunks in order, read ahead; from the cache where they are there, and not put into it."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            waiting: deque[Future[memoryview]] = deque()
            try:
                for chunk in chunks:
                    waiting.append(pool.submit(self.chunk, chunk, what))
                    if len(waiting) >= PARALLEL:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def chunk(self, chunk: Chunk, what: str) -> memoryview:
        """One chunk in memory, checked."""
        path = self.path(chunk.digest)
        if path is not None:
            try:
                data = path.read_bytes()
                if "sha256:" + sha256(data).hexdigest() == chunk.digest:
                    return memoryview(data)
            except OSError:
                pass
        target = bytearray(chunk.length)
        self._receive(chunk, what, memoryview(target))
        return memoryview(target)

    def whole(self, digest: str, what: str) -> bytes:
        """A small blob of unknown size, checked."""
        sink = io.BytesIO()
        self._receive(Chunk(digest, 0), what, sink, whole=True)
        return sink.getvalue()

    def _to_cache(self, chunk: Chunk, what: str) -> None:
        assert self.cache is not None
        path, file = durable.stage(self.cache.staging())
        try:
            with durable.translated(str(path)), file:
                self._receive(chunk, what, file)
                os.fchmod(file.fileno(), 0o444)
            self.cache.add(path, chunk.digest)
        finally:
            path.unlink(missing_ok=True)

    def _receive(self, chunk: Chunk, what: str, sink: memoryview | BinaryIO, *, whole: bool = False) -> None:
        """Stream a chunk into `sink` from a copy whose bytes are right; copies whose bytes are wrong are mended."""
        key = self.index.key(chunk.pack or chunk.digest)
        if self.offline:
            raise BackendError(
                f"{what}: {chunk.digest} is not in the cache, and CATALOG_OFFLINE is set",
                hint="pin it while there is a network: catalog cache pin REF",
                backend=self.backend.name,
            )
        blobs: Any = self.backend.blobs
        copies: list[str | None] = [None]
        wrong: list[str | None] = []
        problem: IntegrityError | None = None
        while copies:
            copy = copies.pop(0)
            opened = blobs.open if copy is None else blobs.copy(copy).open
            try:
                actual = self._stream(opened, key, chunk.offset, None if whole else chunk.length, sink)
            except BlobMissing as exc:
                problem = problem or BlobMissing(
                    f"{what}: blob {key} is missing from {self.backend.name} ({self.backend.url})",
                    hint="catalog fsck",
                    backend=self.backend.name,
                )
                problem.__cause__ = exc
            else:
                if actual == chunk.digest:
                    for damaged in wrong:
                        blobs.mend(key, damaged, copy)
                    return
                problem = problem or IntegrityError(
                    f"{what}: chunk {chunk.digest} in {self.backend.name} ({self.backend.url}) holds other bytes "
                    f"({actual})",
                    hint="the stored bytes were damaged; `catalog fsck` lists all, restore them from a copy",
                    backend=self.backend.name,
                )
                if copy is not None:
                    wrong.append(copy)
            if copy is None and hasattr(blobs, "copies"):
                copies = list(blobs.copies())
        assert problem is not None
        raise problem

    def _stream(
        self, opened: Callable[..., BinaryIO], key: str, start: int, length: int | None, sink: memoryview | BinaryIO
    ) -> str:
        """Stream once, again from the start where the line breaks; return the digest of what came."""
        for attempt in range(TRIES):
            state, at = sha256(), 0
            if not isinstance(sink, memoryview):
                sink.seek(0)
                sink.truncate()
            try:
                with opened(key, start, length) as stream:
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
                self.received += at
                return "sha256:" + state.hexdigest()
            except BackendError:
                if attempt == TRIES - 1:
                    raise
                time.sleep(0.1 * 4**attempt)
        raise AssertionError("unreachable")
