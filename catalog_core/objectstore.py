"""Any ObjectStore as a backend: `catalog_core.journal`, and blobs as `blobs/sha256/<2 hex>/<hex>[~k]`."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from catalog_core.digests import checksum
from catalog_core.errors import BackendError, BlobMissing, InvalidInput
from catalog_core.forks import Lock
from catalog_core.interfaces.backend import Capabilities
from catalog_core.interfaces.store import BlobInfo, LocalFiles, ObjectStore, Replicated
from catalog_core.journal import StoreJournal

CLOCK = "probes/clock"  # a hint, and empty: what counts is the time that the store gives it
PROBE = "probes/exclusive"  # a hint: the result of the race of `catalog doctor`, as JSON
_KEY = re.compile(r"sha256:([0-9a-f]{2})([0-9a-f]{62}(?:~[0-9]+)?)\Z")


def blob_key(key: str) -> str:
    """The object that holds a blob."""
    match = _KEY.match(key)
    if not match:
        raise InvalidInput(f"not the key of a blob: {key[:100]!r}")
    return f"blobs/sha256/{match[1]}/{match[1]}{match[2]}"


def clock_of(store: Any) -> float | None:
    """The time of a store, in seconds since 1970: what it says itself, else what it gives a new object."""
    if hasattr(store, "clock"):
        told: float | None = store.clock()
        return told
    store.put(CLOCK, io.BytesIO(b""), 0, "hint")
    info = store.stat(CLOCK)
    return None if info is None else info.time


def proven(store: ObjectStore) -> bool:
    """Whether `catalog doctor` found that an `exclusive` put has one winner on this server."""
    try:
        with store.get(PROBE) as stream:
            found = json.loads(stream.read(4096))
    except (BackendError, BlobMissing, ValueError):
        return False
    return isinstance(found, dict) and found.get("result") == "passed"


class ObjectStoreBackend:
    """See `interfaces.backend`; journal and blobs are parts of this object. `bandwidth` (bytes per second) limits what
    blobs move, all together."""

    def __init__(self, store: ObjectStore, name: str, url: str, *, bandwidth: int | None = None) -> None:
        self.name = name
        self.url = url
        self.store = store
        self.blobs = _Blobs(store, _Throttle(bandwidth) if bandwidth else None)
        self.files: LocalFiles | None = _Files(store) if isinstance(store, LocalFiles) else None
        self.journal = StoreJournal(store, name, url, local=self.files is not None, writable=True)

    @property
    def capabilities(self) -> Capabilities:
        """What it can do now: another part of a hybrid may become the primary."""
        writable = bool(getattr(self.store, "writable", True))
        return Capabilities(transactional=False, local=self.files is not None, writable=writable)

    @property
    def many_writers(self) -> bool:
        """Whether several writers at a time are safe, as far as anybody has shown. May ask the store."""
        many = getattr(self.store, "many_writers", True)
        return proven(self.store) if many is None else bool(many)

    def clock(self) -> float | None:
        """The time of the store, in seconds since 1970; None where it does not tell."""
        return clock_of(self.store)

    def sweep_uploads(self, older_than: float) -> int:
        """Remove what killed writers left, older than so many seconds, where the store can; return how many."""
        sweep = getattr(self.store, "sweep_uploads", None)
        return sweep(older_than) if sweep else 0

    def close(self) -> None:
        """Close the store, if it can be closed."""
        close = getattr(self.store, "close", None)
        if close:
            close()


class _Throttle:
    """Lets so many bytes per second through, over all streams of a backend."""

    def __init__(self, bandwidth: int) -> None:
        self._bandwidth = bandwidth
        self._due = 0.0
        self._lock = Lock()

    def wait(self, count: int) -> None:
        """Come back when `count` more bytes may move."""
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now) + count / self._bandwidth
            due = self._due
        time.sleep(max(due - now, 0.0))


class _Throttled(io.RawIOBase):
    """A stream whose bytes wait for the throttle. `borrowed`: it outlives this view of it."""

    STEP = 64 << 10

    def __init__(self, stream: BinaryIO, throttle: _Throttle, *, borrowed: bool = False) -> None:
        self._stream = stream
        self._throttle = throttle
        self._borrowed = borrowed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read(min(len(buffer), self.STEP))
        self._throttle.wait(len(part))
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        if not self._borrowed:
            self._stream.close()
        super().close()


def _same(checksums: Mapping[str, str], key: str, stream: BinaryIO, size: int) -> bool:
    """Whether what the store reports of an object speaks for the bytes of `stream`, which stays where it is. A store
    that reports nothing is believed by the size."""
    if not checksums:
        return True
    if "sha256" in checksums:
        return key.partition("~")[0] == "sha256:" + checksums["sha256"]
    name = next((name for name in ("md5", "adler32") if name in checksums), None)
    if name is None or not stream.seekable():
        return False
    begun = stream.tell()
    found = checksum(name, stream, size)
    stream.seek(begun)
    return found == checksums[name]


class _Blobs:
    def __init__(self, store: ObjectStore, throttle: _Throttle | None = None) -> None:
        self._store = store
        self._throttle = throttle

    def put(self, key: str, stream: BinaryIO, size: int) -> None:
        """See `interfaces.backend.Blobs.put`. What is there counts if its size is right and, where the store reports a
        checksum, that; a local store is asked to make it durable in any case."""
        info = None if isinstance(self._store, LocalFiles) else self._store.stat(blob_key(key))
        if info is None or info.size != size or not _same(info.checksums, key, stream, size):
            if self._throttle:
                stream = io.BufferedReader(_Throttled(stream, self._throttle, borrowed=True), _Throttled.STEP)
            self._store.put(blob_key(key), stream, size, "content")

    def open(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `interfaces.backend.Blobs.open`."""
        stream = self._store.get(blob_key(key), start, length)
        return io.BufferedReader(_Throttled(stream, self._throttle), _Throttled.STEP) if self._throttle else stream

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

    def distrust(self, key: str) -> bool:
        """See `interfaces.backend.Blobs.distrust`."""
        return isinstance(self._store, Replicated) and self._store.distrust(blob_key(key))


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
