"""Backend: where a journal and blobs live. `catalog_core.objectstore` makes one from any `ObjectStore`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO, Protocol

import attrs

from catalog_core.interfaces.store import BlobInfo, LocalFiles


@attrs.frozen
class Head:
    """The last entry of a journal: `position` counts from 0, `digest` is that of the entry's bytes."""

    position: int
    digest: str


@attrs.frozen
class Capabilities:
    """What a backend can do. `transactional`: `append` runs its `build` inside the store's own transaction, and
    stores the given blobs in the same one. `local`: blobs are files that can be mapped. `writable`: this process may
    write."""

    transactional: bool = False
    local: bool = False
    writable: bool = True

    @property
    def remote(self) -> bool:
        """Whether each look at it costs a request, and its bytes are worth a cache."""
        return not (self.local or self.transactional)


class Journal(Protocol):
    """An ordered, append-only, gap-free list of entries, each a JSON text of at most 1 MiB.

    Where a journal can change its primary store it has `epoch`, the number that new entries carry, and
    `epoch_of(position)` (else 0), and where the search for the head needs many requests, `look_from(head)`, to begin
    it at an entry that is known.
    """

    def head(self) -> Head | None:
        """The last entry, or None where there is none. Never older than what this process appended or read."""

    def read(self, start: int, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Positions and bytes from `start` up to `stop` (not included) or the head, in order, without gaps."""

    def append(
        self, build: Callable[[Head | None], bytes], blobs: Mapping[str, bytes], deadline: float
    ) -> tuple[int, bytes]:
        """Append the entry that `build` makes for the present head; return its position and bytes; durable at return.

        `build` is called again whenever another writer was first, until `deadline` (`time.monotonic()`), then
        `DeadlineExceeded`, or when it raises `PositionTaken` (it knows of a later entry). What else `build` raises
        ends the append with nothing stored. `blobs` (key to bytes) are stored with the entry where
        `Capabilities.transactional`, else they must be empty.
        """


class Blobs(Protocol):
    """Immutable bytes by key: `sha256:<hex>`, or `sha256:<hex>~<k>` once the content was swept k times.

    Where there are several copies, `distrust(key) -> bool` says that what this thread read last was wrong; it returns
    whether another copy will be read next time (optional).
    """

    def put(self, key: str, stream: BinaryIO, size: int) -> None:
        """Store a blob; idempotent; whole or absent; durable at return."""

    def open(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """The bytes from `start`. Raises `BlobMissing`. They are *not* checked here; the core does that."""

    def stat(self, key: str) -> BlobInfo | None:
        """Size, time and reported checksums, or None."""

    def list(self, after: str = "") -> Iterator[BlobInfo]:
        """All blobs, in order of their keys."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove blobs. What is not there is no error."""


class Backend(Protocol):
    """A journal, blobs, and what they can do.

    A backend whose place has a clock has a method `clock() -> float | None`, the time there in seconds since 1970:
    writers whose own clock is wrong by it are refused.
    """

    name: str
    url: str
    journal: Journal
    blobs: Blobs
    files: LocalFiles | None
    capabilities: Capabilities

    def close(self) -> None:
        """Release connections and files. Using the backend afterwards is an error."""
