"""An ObjectStore around another that fails and dawdles where it is told to."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal

from catalog_core.errors import BackendError
from catalog_core.interfaces.store import BlobInfo, Mode, ObjectStore

Verb = Literal["put", "get", "stat", "list", "delete"]
When = Literal["before", "after"]


class FaultyStore:
    """Passes every verb on to `store`. `calls` counts them by verb; `latency` is in seconds, before each call."""

    def __init__(self, store: ObjectStore, latency: float = 0.0) -> None:
        self.store = store
        self.latency = latency
        self.calls: Counter[str] = Counter()
        self._faults: dict[tuple[str, int], tuple[When, Exception]] = {}
        self._lock = threading.Lock()

    def fail(self, verb: Verb, nth: int = 1, when: When = "before", error: Exception | None = None) -> None:
        """Let the `nth` next call of `verb` raise `error` (a `BackendError` if None), once: `before` it did anything,
        or `after` it was done, as when the answer is lost."""
        with self._lock:
            fault = error or BackendError(f"{verb} failed on request, {when} it was done", backend="faulty")
            self._faults[(verb, self.calls[verb] + nth)] = (when, fault)

    def _enter(self, verb: Verb) -> Exception | None:
        """Count the call; raise what is to come before it, return what is to come after it."""
        if self.latency:
            time.sleep(self.latency)
        with self._lock:
            self.calls[verb] += 1
            when, error = self._faults.pop((verb, self.calls[verb]), ("before", None))
        if error is not None and when == "before":
            raise error
        return error

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        """See `ObjectStore.put`."""
        error = self._enter("put")
        self.store.put(key, stream, size, mode)
        if error:
            raise error

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `ObjectStore.get`."""
        error = self._enter("get")
        stream = self.store.get(key, start, length)
        if error:
            stream.close()
            raise error
        return stream

    def stat(self, key: str) -> BlobInfo | None:
        """See `ObjectStore.stat`."""
        error = self._enter("stat")
        info = self.store.stat(key)
        if error:
            raise error
        return info

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        """See `ObjectStore.list`; `after` means that the listing breaks off at its end."""
        error = self._enter("list")
        yield from self.store.list(prefix, after)
        if error:
            raise error

    def delete(self, keys: Iterable[str]) -> None:
        """See `ObjectStore.delete`."""
        error = self._enter("delete")
        self.store.delete(keys)
        if error:
            raise error
