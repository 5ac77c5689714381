"""An ObjectStore in this process's memory, and with it a whole catalog that leaves nothing behind.

Examples:
    >>> from catalog_core.catalog import Catalog
    >>> from catalog_core.testing.memory import memory_catalog
    >>> with memory_catalog() as catalog:
    ...     _ = catalog.save("m", {"w": [1, 2, 3]}, alias="champion")
    ...     catalog.load("m@champion")
    {'w': [1, 2, 3]}
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from catalog_core.durable import blocks
from catalog_core.errors import BlobMissing, KeyTaken
from catalog_core.forks import Lock
from catalog_core.interfaces.store import BlobInfo, Mode, ObjectStore

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog


class MemoryStore:
    """See `interfaces.store.ObjectStore`. Safe for threads; seen by this process only; gone with it."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = Lock()

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        """See `ObjectStore.put`."""
        data = b"".join(blocks(stream, size, backend="memory"))
        with self._lock:
            if mode == "exclusive" and key in self._objects:
                raise KeyTaken(f"{key} is taken", backend="memory")
            self._objects[key] = (data, time.time())

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


def memory_catalog(store: ObjectStore | None = None) -> Catalog:
    """A catalog over `store`, or over new memory; created where there is none yet. Each call has an index of its own,
    as another machine would."""
    import secrets

    from catalog_core.catalog import Catalog
    from catalog_core.objectstore import ObjectStoreBackend

    url = f"memory://{secrets.token_hex(8)}"
    catalog = Catalog(ObjectStoreBackend(store if store is not None else MemoryStore(), "memory", url), "memory")
    if catalog.position < 0:
        catalog.repository.begin()
    return catalog
