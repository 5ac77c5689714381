"""An ObjectStore around another that fails, dawdles and dies where it is told to.

Examples:
    >>> import io
    >>> from catalog_core.testing.faults import Death, FaultyStore
    >>> from catalog_core.testing.memory import MemoryStore
    >>> store = FaultyStore(MemoryStore())
    >>> store.fail("put", when="after")  # the answer to the next put is lost
    >>> store.put("a", io.BytesIO(b"text"), 4, "content")
    Traceback (most recent call last):
    catalog_core.errors.BackendError: put failed on request, after it was done
    >>> store.get("a").read()
    b'text'
    >>> store.die(nth=2)  # the process dies before the second call from here
    >>> store.delete(["a"])
    >>> try:
    ...     store.stat("a")
    ... except Death:
    ...     print("dead")
    dead
    >>> store.store.stat("a") is None  # what lies below outlives it
    True
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal

from catalog_core.errors import BackendError
from catalog_core.forks import Lock
from catalog_core.interfaces.store import BlobInfo, Mode, ObjectStore

Verb = Literal["put", "get", "stat", "list", "delete"]
When = Literal["before", "after"]


class Death(BaseException):
    """The end of the process: nothing that handles errors catches it."""


class FaultyStore:
    """Passes every verb on to `store`. `calls` counts them by verb; `latency` is in seconds, before each call;
    `bandwidth` in bytes per second, for what is put and got (0: no limit)."""

    def __init__(self, store: ObjectStore, latency: float = 0.0, bandwidth: float = 0.0) -> None:
        self.store = store
        self.latency = latency
        self.bandwidth = bandwidth
        self.calls: Counter[str] = Counter()
        self._faults: dict[tuple[str, int], tuple[When, Exception]] = {}
        self._death: tuple[int, When] | None = None
        self._lock = Lock()

    def fail(self, verb: Verb, nth: int = 1, when: When = "before", error: Exception | None = None) -> None:
        """Let the `nth` next call of `verb` raise `error` (a `BackendError` if None), once: `before` it did anything,
        or `after` it was done, as when the answer is lost."""
        with self._lock:
            fault = error or BackendError(f"{verb} failed on request, {when} it was done", backend="faulty")
            self._faults[(verb, self.calls[verb] + nth)] = (when, fault)

    def die(self, nth: int = 1, when: When = "before") -> None:
        """Let the `nth` next call, whatever its verb, and all that follow raise `Death`."""
        with self._lock:
            self._death = (self.calls.total() + nth, when)

    def _enter(self, verb: Verb) -> BaseException | None:
        """Count the call; raise what is to come before it, return what is to come after it."""
        if self.latency:
            time.sleep(self.latency)
        with self._lock:
            self.calls[verb] += 1
            error: BaseException | None
            when, error = self._faults.pop((verb, self.calls[verb]), ("before", None))
            number = self.calls.total()
            if self._death is not None and number >= self._death[0]:
                when = self._death[1] if number == self._death[0] else "before"
                error = Death(f"died {when} call {number}, a {verb}")
        if error is not None and when == "before":
            raise error
        return error

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        """See `ObjectStore.put`."""
        error = self._enter("put")
        if self.bandwidth:
            time.sleep(size / self.bandwidth)
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
        if self.bandwidth:
            with stream:
                data = stream.read()
            time.sleep(len(data) / self.bandwidth)
            return io.BytesIO(data)
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
