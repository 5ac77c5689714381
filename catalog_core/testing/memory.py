"""An ObjectStore in this process's memory."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from catalog_core.errors import BackendError, BlobMissing, KeyTaken
from catalog_core.interfaces.store import BlobInfo, Mode


class MemoryStore:
    """See `interfaces.store.ObjectStore`. Safe for threads; seen by this process only; gone with it."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        """See `ObjectStore.put`."""
        parts = []
        left = size
        while left:
            part = stream.read(left)
            if not part:
                raise BackendError(f"{size - left} of {size} bytes came, then the stream ended", backend="memory")
            parts.append(part)
            left -= len(part)
        with self._lock:
            if mode == "exclusive" and key in self._objects:
                raise KeyTaken(f"{key} is taken", backend="memory")
            self._objects[key] = (b"".join(parts), time.time())

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `ObjectStore.get`."""
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise BlobMissing(f"{key} is not in memory", backend="memory")
        return io.BytesIO(found[0][start:] if length is None else found[0][start : start + length])

    def stat(self, key: str) -> BlobInfo | None:
        """See `ObjectStore.stat`."""
        with self._lock:
            found = self._objects.get(key)
        return None if found is None else BlobInfo(key, len(found[0]), found[1])

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        """See `ObjectStore.list`."""
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix) and key > after)
        for key in keys:
            info = self.stat(key)
            if info is not None:
                yield info

    def delete(self, keys: Iterable[str]) -> None:
        """See `ObjectStore.delete`."""
        wanted = list(keys)
        with self._lock:
            for key in wanted:
                self._objects.pop(key, None)
