"""ObjectStore: the five verbs from which the core makes a backend.

Keys are relative paths of `[A-Za-z0-9._~-]` segments joined by `/`, made by the core, at most 200 characters.
A store may be used from several threads and processes at once, and by a process that was forked while it was open
(`catalog_core.forks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, runtime_checkable

import attrs

Mode = Literal["content", "exclusive", "hint"]


@attrs.frozen
class BlobInfo:
    """What a store says of one object: `size` in bytes, `time` in seconds since 1970 (UTC), and the checksums of its
    bytes that the store itself computed, if any: `adler32`, `md5`, `sha256`, in lower-case hexadecimal."""

    key: str
    size: int
    time: float
    checksums: Mapping[str, str] = attrs.field(factory=dict)


class ObjectStore(Protocol):
    """Five verbs. Errors: `BackendError` and its children, vendor errors chained; never a bare `OSError`.

    What a store may say of itself, as attributes: `writable` (bool, else True); `many_writers` (bool, else True): False
    where `exclusive` may have two winners; None where that depends on the server, so that the core believes it only
    after `catalog doctor` raced there (`probes/exclusive` says so). A store that knows the time of its server without
    an object being put has a method `clock() -> float`, in seconds since 1970.
    """

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        """Store the next `size` bytes of `stream` under `key`; durable, and whole or absent, when this returns.
        A stream that is `seekable()` may be read again from where it began, to try again.

        `content`: idempotent, whoever comes second may leave the first bytes or replace them (they are equal), and
        makes sure that they are durable: the first may have been killed before that.
        `exclusive`: exactly one of many concurrent callers wins; the others get `KeyTaken` and change nothing.
        `hint`: may be lost or overtaken by another `hint`; replaces what is there.
        Raises `NoSpace` when the store is full, `BackendError` when `stream` ends early; nothing is left under `key`.
        """

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """Open the bytes from `start`, `length` of them or all that follow. Raises `BlobMissing`. Fewer bytes come
        where the object ends sooner. The caller closes it."""

    def stat(self, key: str) -> BlobInfo | None:
        """What is known of `key`, or None. Sees every put that returned before it was called."""

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        """All objects whose key begins with `prefix` and sorts after `after`, in order of their keys."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the keys. What is not there is no error."""


@runtime_checkable
class LocalFiles(Protocol):
    """What a store on a local file system offers besides, so that nothing is written or read twice (optional)."""

    def staging(self) -> Path:
        """An existing folder on the same file system, for files on their way in."""

    def adopt(self, path: Path, key: str) -> None:
        """Give the synced file `path` the name `key` by a hard link (mode 0444); idempotent; durable at return."""

    def local_path(self, key: str) -> Path | None:
        """The file that holds `key`, for mapping; None where it is not a file of its own."""

    def sweep_uploads(self, older_than: float) -> int:
        """Remove abandoned temporaries older than `older_than` seconds; return how many."""


@attrs.frozen
class Place:
    """A configured catalog as a part of another one. `open(create)` connects to its store, or raises what its backend
    raises; `url` is for messages. `load()` imports what that needs, and never fails: it takes time of this machine,
    which no store is to be blamed for."""

    url: str
    open: Callable[[bool], ObjectStore]
    load: Callable[[], None] = lambda: None


@runtime_checkable
class Replicated(Protocol):
    """What a store made of several others offers besides, so that `catalog_core.sync` can bring them up to date
    (optional). `parts` are their names; `primary` is the name of the one that may be written, None while that is away;
    `durability` is `sync`, `async` or `manual`; `lacked` are the objects that reads found missing on the primary, and
    elsewhere: they were lost, or swept (the catalog knows, and clears it)."""

    parts: Mapping[str, object]
    primary: str | None
    durability: str
    lacked: set[str]

    def look(self, *, stale: bool = False) -> None:
        """Ask all parts again which of them is the primary; with `stale` a replica may stand in while it is away."""

    def part(self, name: str, *, create: bool = False) -> ObjectStore:
        """The store of a part, made where there is none if `create`. Raises what it raises where it does not answer,
        `NotFound` where there is no such part."""

    def url_of(self, name: str) -> str:
        """Where a part is, for messages."""

    def distrust(self, key: str) -> bool:
        """The bytes of `key` that this thread got last were wrong: read another copy next time, and mend the bad one.
        Returns whether there is another copy to read."""
