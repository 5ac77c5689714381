"""One part of a hybrid: a store that may be near or far, and may be away."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

from catalog_core.epochs import Epoch, identity, read_epochs
from catalog_core.errors import BackendError, CatalogError, NotFound
from catalog_core.interfaces.store import ObjectStore, Place

AWAY = 30.0  # seconds for which a part that failed is asked last
OLD = 300.0  # seconds after which a measured speed counts half, so that a part is tried again
RATE = 50e6  # bytes per second, until it was measured
LARGE = 256 << 10  # bytes that tell something about the rate


class Silent(BackendError):
    """A store that may still answer."""


class Part:
    """A store by its name. `identity`, `records` and `error` are what `look` found."""

    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        self.url = place.url
        self._place = place
        self._store: ObjectStore | None = None
        self.identity: str | None = None
        self.records: Mapping[str, Epoch] = {}
        self.error: CatalogError | None = None
        self.forget()
        self._latency = 0.1
        self._rate = RATE
        self._measured = -1e9
        self._failed = -1e9

    def forget(self) -> None:
        """Count it as away until it has answered again."""
        self.error = Silent(f"{self.name} ({self.url}) has not answered yet", backend=self.name)

    def store(self, *, create: bool = False) -> ObjectStore:
        """The store, connected on first use. Raises what its backend raises."""
        if self._store is None:
            self._store = self._place.open(create)
        return self._store

    def load(self) -> None:
        """Import what its store needs."""
        if self._store is None:
            self._place.load()

    @property
    def holds_a_copy(self) -> bool:
        """Whether it answered, and knows of an epoch: it may stand in for the primary."""
        return self.error is None and bool(self.records)

    def look(self, create: bool) -> None:
        """Ask the store who it is and what it knows of epochs; where that fails, `error` says why."""
        begun = time.monotonic()
        try:
            store = self.store(create=create)
            records = read_epochs(store, self.url)
            self._latency = (time.monotonic() - begun) / 2  # once to connect, once to ask
            self.identity = identity(store)  # a record is written after the identity that it names
            self.records = records
            self.error = None
        except NotFound as exc:
            hint = exc.hint or ""
            if hint.endswith("init"):  # that would put another catalog there
                hint = "is its place mounted? If it is to be a new replica: catalog sync"
            self.error = NotFound(f"{self.name}: {exc.message}", hint=hint)
            self.error.__cause__ = exc
        except CatalogError as exc:
            self.error = exc

    @property
    def writable(self) -> bool:
        """Whether this user may write there, as far as the store knows."""
        return self._store is not None and bool(getattr(self._store, "writable", True))

    # -- how near it is -----------------------------------------------------------------------------------------

    def seconds(self, size: int) -> float:
        """About how long so many bytes will take; long where it failed a moment ago."""
        if self.error is not None or time.monotonic() - self._failed < AWAY:
            return 1e6
        expected = self._latency + size / self._rate
        return expected / 2 if time.monotonic() - self._measured > OLD else expected

    def failed(self) -> None:
        """It did not answer."""
        self._failed = time.monotonic()

    def took(self, latency: float, size: int, seconds: float) -> None:
        """Note a measured read."""
        self._latency += (latency - self._latency) / 4
        if size >= LARGE:
            self._rate += (size / max(seconds, 1e-6) - self._rate) / 4
        self._measured = time.monotonic()

    def close(self) -> None:
        """Close the store, if it was opened and can be closed."""
        close = getattr(self._store, "close", None)
        if close:
            close()


class Measured(io.RawIOBase):
    """The bytes of a part, timed."""

    def __init__(self, stream: BinaryIO, part: Part, latency: float) -> None:
        self._stream = stream
        self._part = part
        self._latency = latency
        self._size = 0
        self._seconds = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        begun = time.monotonic()
        try:
            block = self._stream.read(len(buffer))
        except BackendError:
            self._part.failed()
            raise
        self._seconds += time.monotonic() - begun
        self._size += len(block)
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self._part.took(self._latency, self._size, self._seconds)
            self._stream.close()
        super().close()
