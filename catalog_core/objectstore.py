"""Any ObjectStore as a backend.

Journal entries are `journal/<epoch>/<position div 1000>/<position>`, one object each, put `exclusive`, never deleted or
overwritten; there are no holes, so the head is found by asking for the next one. Blobs are
`blobs/sha256/<2 hex>/<hex>[~k]`.
"""

from __future__ import annotations

import io
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import attrs

from catalog_core.digests import digest_of
from catalog_core.errors import (
    BackendError,
    BlobMissing,
    DeadlineExceeded,
    InvalidInput,
    KeyTaken,
    PositionTaken,
    ReadOnly,
)
from catalog_core.interfaces.backend import Capabilities, Head
from catalog_core.interfaces.store import BlobInfo, LocalFiles, ObjectStore

EPOCH = 0
PROBE = "probes/exclusive"  # a hint: the result of the race of `catalog doctor`, as JSON
_KEY = re.compile(r"sha256:([0-9a-f]{2})([0-9a-f]{62}(?:~[0-9]+)?)\Z")


def entry_key(position: int) -> str:
    """The key of the journal entry at `position`."""
    return f"journal/{EPOCH:010}/{position // 1000:010}/{position:010}"


def _folder(position: int) -> str:
    return entry_key(position).rpartition("/")[0]


def blob_key(key: str) -> str:
    """The object that holds a blob."""
    match = _KEY.match(key)
    if not match:
        raise InvalidInput(f"not the key of a blob: {key[:100]!r}")
    return f"blobs/sha256/{match[1]}/{match[1]}{match[2]}"


def proven(store: ObjectStore) -> bool:
    """Whether `catalog doctor` found that an `exclusive` put has one winner on this server."""
    try:
        with store.get(PROBE) as stream:
            found = json.loads(stream.read(4096))
    except (BackendError, BlobMissing, ValueError):
        return False
    return isinstance(found, dict) and found.get("result") == "passed"


class ObjectStoreBackend:
    """See `interfaces.backend`; journal and blobs are parts of this object."""

    def __init__(self, store: ObjectStore, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.store = store
        self.journal = _Journal(self)
        self.blobs = _Blobs(store)
        self.files: LocalFiles | None = _Files(store) if isinstance(store, LocalFiles) else None
        writable = bool(getattr(store, "writable", True))
        many = getattr(store, "many_writers", True)
        many = proven(store) if many is None else bool(many)
        self.capabilities = Capabilities(
            transactional=False, local=self.files is not None, writable=writable, many_writers=many
        )

    def close(self) -> None:
        """Close the store, if it can be closed."""
        close = getattr(self.store, "close", None)
        if close:
            close()


class _Journal:
    def __init__(self, backend: ObjectStoreBackend) -> None:
        self._backend = backend
        self._head: Head | None = None

    def _stat(self, position: int) -> bool:
        return self._backend.store.stat(entry_key(position)) is not None

    def _read(self, position: int) -> bytes:
        with self._backend.store.get(entry_key(position)) as stream:
            return stream.read()

    def head(self) -> Head | None:
        """Gallop from the last known entry: steps of 1, 2, 4 … until one is missing, then halve."""
        low = -1 if self._head is None else self._head.position
        step = 1
        while self._stat(low + step):
            low += step
            step *= 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            if self._stat(middle):
                low = middle
            else:
                high = middle
        if low >= 0 and (self._head is None or low != self._head.position):
            self._head = Head(low, digest_of(self._read(low)))
        return self._head

    def read(self, start: int, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """See `interfaces.backend.Journal.read`."""
        position = start
        while stop is None or position < stop:
            try:
                data = self._read(position)
            except BlobMissing as exc:
                known = self._head is not None and position <= self._head.position
                # who reads all of it also looks behind the end: a hole looks like one
                whole = start == 0 and stop is None
                if known or (whole and any(self._backend.store.list("journal/", entry_key(position)))):
                    url, name = self._backend.url, self._backend.name
                    raise BlobMissing(
                        f"{url}: journal entry {position} is missing", hint="restore it from a copy", backend=name
                    ) from exc
                return
            yield position, data
            position += 1

    def append(
        self, build: Callable[[Head | None], bytes], blobs: Mapping[str, bytes], deadline: float
    ) -> tuple[int, bytes]:
        """See `interfaces.backend.Journal.append`."""
        if blobs:
            raise BackendError("this store has no transactions: blobs are put before the entry")
        if not self._backend.capabilities.writable:
            raise ReadOnly(f"{self._backend.url} may not be written", hint="check the rights of the folder")
        local = self._backend.files is not None
        wait = 0.001
        while True:
            head = self.head()
            position = 0 if head is None else head.position + 1
            try:
                data = build(head)
            except PositionTaken:  # the caller knows of a later entry already
                if time.monotonic() > deadline:
                    raise
                continue
            try:
                if local and head and _folder(position) != _folder(head.position):
                    last = self._read(head.position)  # its writer may not have lived to sync the folder it is in
                    self._backend.store.put(entry_key(head.position), io.BytesIO(last), len(last), "content")
                self._backend.store.put(entry_key(position), io.BytesIO(data), len(data), "exclusive")
                won = True
            except KeyTaken:
                won = self._read(position) == data  # our own put, whose answer was lost
            except BackendError:
                if local or not self._stat(position):  # a local put that failed may be there and not durable
                    raise
                won = self._read(position) == data
            if won:
                self._head = Head(position, digest_of(data))
                return position, data
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"others kept winning the journal of {self._backend.url}", hint="try again")
            time.sleep(random.uniform(0, wait))
            wait = min(wait * 2, 0.05)


class _Blobs:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, key: str, stream: BinaryIO, size: int) -> None:
        """See `interfaces.backend.Blobs.put`."""
        info = None if isinstance(self._store, LocalFiles) else self._store.stat(blob_key(key))  # a local one syncs it
        if info is None or info.size != size:
            self._store.put(blob_key(key), stream, size, "content")

    def open(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `interfaces.backend.Blobs.open`."""
        return self._store.get(blob_key(key), start, length)

    def stat(self, key: str) -> BlobInfo | None:
        """See `interfaces.backend.Blobs.stat`."""
        info = self._store.stat(blob_key(key))
        return None if info is None else attrs.evolve(info, key=key)

    def list(self, after: str = "") -> Iterator[BlobInfo]:
        """See `interfaces.backend.Blobs.list`."""
        prefix = "blobs/sha256/"
        for info in self._store.list(prefix, blob_key(after) if after else ""):
            key = "sha256:" + info.key.rpartition("/")[2]
            if _KEY.match(key):
                yield attrs.evolve(info, key=key)

    def delete(self, keys: Iterable[str]) -> None:
        """See `interfaces.backend.Blobs.delete`."""
        self._store.delete([blob_key(key) for key in keys])


class _Files:
    """LocalFiles by the keys of blobs, over LocalFiles by the keys of the store."""

    def __init__(self, store: LocalFiles) -> None:
        self._store = store

    def staging(self) -> Path:
        """See `interfaces.store.LocalFiles.staging`."""
        return self._store.staging()

    def adopt(self, path: Path, key: str) -> None:
        """See `interfaces.store.LocalFiles.adopt`."""
        self._store.adopt(path, blob_key(key))

    def local_path(self, key: str) -> Path | None:
        """See `interfaces.store.LocalFiles.local_path`."""
        return self._store.local_path(blob_key(key))

    def sweep_uploads(self, older_than: float) -> int:
        """See `interfaces.store.LocalFiles.sweep_uploads`."""
        return self._store.sweep_uploads(older_than)
