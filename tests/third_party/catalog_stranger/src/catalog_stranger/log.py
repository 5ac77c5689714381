"""An object store in one append-only file.

The file is the magic, then records: header, key, data, seal. The seal is the CRC of offset, header and key, and of data
up to SMALL bytes; larger data are synced before their seal is written. A writer holds an exclusive flock; what stands
behind the last sealed record is the torn tail of a killed one, and is cut off by the next.
"""

import errno
import fcntl
import io
import os
import struct
import tempfile
import threading
import time
import zlib
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from catalog_core import forks
from catalog_core.errors import BackendError, BlobMissing, InvalidInput, KeyTaken, NoSpace, NotFound, ReadOnly
from catalog_core.interfaces.store import BlobInfo, Mode

MAGIC, MARK, SMALL, SPOOL = b"strlog1\n", b"\xabREC", 1 << 16, 1 << 24
HEADER = struct.Struct("<4s?HQd")  # mark, is it there (or deleted), length of the key, size of the data, time
SEAL = struct.Struct("<I")


class Place(NamedTuple):
    offset: int
    size: int
    time: float


def seal(offset: int, head: bytes, data: bytes) -> bytes:
    return SEAL.pack(zlib.crc32(data if len(data) <= SMALL else b"", zlib.crc32(head, offset & 0xFFFFFFFF)))


class Range(io.RawIOBase):
    """Bytes of a file, by a descriptor of its own: a rewritten log does not disturb it."""

    def __init__(self, fd: int, start: int, stop: int) -> None:
        self._fd, self._at, self._stop = os.dup(fd), start, stop

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            data = os.pread(self._fd, min(len(buffer), self._stop - self._at), self._at)
        except OSError as exc:
            raise BackendError(f"the log cannot be read: {exc}", backend="logfile") from exc
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class LogStore:
    """Objects as records of one file."""

    def __init__(self, path: str, create: bool = True, sync: bool = True) -> None:
        self._path, self._sync, self._fd = path, sync, -1
        self._mutex = forks.Lock(threading.RLock)  # a thread that holds it does not live in a forked child
        if not create and not os.path.exists(path):
            raise NotFound(f"there is no log {path}", backend="logfile")
        with self._errors():
            if create:
                os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        self._open(os.O_CREAT if create else 0)

    def _open(self, flags: int = 0) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with self._errors():
            try:
                self._fd, self.writable = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | flags, 0o666), True
            except OSError as exc:
                if exc.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                self._fd, self.writable = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC), False
            self._pid, self._end, self._dead = os.getpid(), 0, 0
            self._places: dict[str, Place] = {}
            self._keys: list[str] = []

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            kind = NoSpace if exc.errno in (errno.ENOSPC, errno.EDQUOT) else BackendError
            raise kind(f"the log {self._path}: {exc}", backend="logfile") from exc

    @contextmanager
    def _fresh(self, write: bool = False) -> Iterator[None]:
        """The index as of now; with `write`, alone in the file, and at its end."""
        with self._mutex, self._errors():
            if write and not self.writable:
                raise ReadOnly(f"the log {self._path} cannot be written", backend="logfile")
            while True:
                if os.getpid() != self._pid:  # a fork shares the lock of its parent
                    self._open()
                fcntl.flock(self._fd, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
                if os.path.samestat(os.stat(self._path), os.fstat(self._fd)):
                    break
                self._open()  # it was rewritten meanwhile
            try:
                self._scan()
                if write:
                    if not self._end:
                        os.pwrite(self._fd, MAGIC, 0)
                        self._end = len(MAGIC)
                        self._flush(folder=True)
                    os.ftruncate(self._fd, self._end)
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _flush(self, folder: bool = False) -> None:
        if self._sync:
            os.fsync(self._fd)
            if folder:
                above = os.open(os.path.dirname(os.path.abspath(self._path)), os.O_RDONLY)
                os.fsync(above)
                os.close(above)

    def _scan(self) -> None:
        size = os.fstat(self._fd).st_size
        if not self._end:
            if (start := os.pread(self._fd, len(MAGIC), 0)) != MAGIC:
                if not MAGIC.startswith(start):
                    raise BackendError(f"{self._path} is no log of this kind", backend="logfile")
                return
            self._end = len(MAGIC)
        while self._end < size:
            found = self._record(self._end)
            if not found:
                self._whole(size)
                return
            self._note(*found)

    def _record(self, at: int) -> tuple[bool, str, Place, int] | None:
        """The record at an offset, if it is whole: is it there, its key, its place, where the next begins."""
        head = os.pread(self._fd, HEADER.size, at)
        if len(head) < HEADER.size or not head.startswith(MARK):
            return None
        _, there, length, size, when = HEADER.unpack(head)
        key = os.pread(self._fd, length, at + HEADER.size)
        start = at + HEADER.size + length
        data = os.pread(self._fd, size, start) if size <= SMALL else b""
        if os.pread(self._fd, SEAL.size, start + size) != seal(at, head + key, data):
            return None
        return there, key.decode(), Place(start, size, when), start + size + SEAL.size

    def _whole(self, size: int) -> None:
        """A torn tail holds no whole record; else the file is damaged, and nothing may be cut off."""
        tail, at = os.pread(self._fd, size - self._end, self._end), 0
        while (at := tail.find(MARK, at + 1)) > 0:
            if self._record(self._end + at):
                raise BackendError(f"{self._path} is damaged at byte {self._end}", backend="logfile")

    def _note(self, there: bool, key: str, place: Place, end: int) -> None:
        if old := self._places.pop(key, None):
            self._dead += old.size
        elif there:
            insort(self._keys, key)
        if there:
            self._places[key] = place
        elif old:
            self._keys.remove(key)
        self._end = end

    def _append(self, there: bool, key: str, stream: BinaryIO, size: int, when: float) -> None:
        at, name = self._end, key.encode()
        head = HEADER.pack(MARK, there, len(name), size, when) + name
        with open(self._fd, "r+b", buffering=0, closefd=False) as file:
            file.seek(at)
            data, left = b"", size
            writer = io.BufferedWriter(file, 1 << 20)
            writer.write(head)
            while left:
                left -= len(data := stream.read(min(left, 1 << 20)))
                writer.write(data)
            if size > SMALL:
                writer.flush()
                self._flush()
            writer.write(seal(at, head, data if size <= SMALL else b""))
            writer.flush()
            writer.detach()
        start = at + len(head)
        self._note(there, key, Place(start, size, when), start + size + SEAL.size)

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        with tempfile.SpooledTemporaryFile(SPOOL) as spool:  # so that no slow stream holds the lock
            left = size
            with self._errors():
                while left:
                    part = stream.read(min(left, 1 << 20))
                    if not part:
                        raise BackendError(
                            f"{size - left} of {size} bytes came, then the stream ended", backend="logfile"
                        )
                    spool.write(part)
                    left -= len(part)
                spool.seek(0)
            with self._fresh(write=True):
                if mode == "exclusive" and key in self._places:
                    raise KeyTaken(f"{key} is taken", backend="logfile")
                if mode != "content" or key not in self._places:
                    self._append(True, key, spool, size, time.time())
                if mode != "hint":
                    self._flush()  # also what a killed writer left without

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        with self._fresh():
            place = self._places.get(key)
            if place is None:
                raise BlobMissing(f"{key} is not in the log", backend="logfile")
            first = min(start, place.size)
            last = place.size if length is None else min(first + length, place.size)
            return io.BufferedReader(Range(self._fd, place.offset + first, place.offset + last))

    def stat(self, key: str) -> BlobInfo | None:
        with self._fresh():
            place = self._places.get(key)
        return BlobInfo(key, place.size, place.time) if place else None

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        with self._fresh():
            first = bisect_right(self._keys, after) if after >= prefix else bisect_right(self._keys, prefix)
            if after < prefix and prefix in self._places:
                first -= 1
            found = []
            for key in self._keys[first:]:
                if not key.startswith(prefix):
                    break
                found.append(BlobInfo(key, self._places[key].size, self._places[key].time))
        yield from found

    def delete(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        with self._fresh(write=True):
            for key in keys:
                if key in self._places:
                    self._append(False, key, io.BytesIO(), 0, time.time())
            self._flush()
            if self._dead > 1 << 20 and self._dead > self._end // 2:
                self._rewrite()

    def _rewrite(self) -> None:
        """Leave out what was deleted; only the holder of the lock does it."""
        path = self._path + ".rewrite"
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        new = LogStore(path, sync=False)
        with new._fresh(write=True):
            for key in self._keys:
                place = self._places[key]
                with io.BufferedReader(Range(self._fd, place.offset, place.offset + place.size)) as stream:
                    new._append(True, key, stream, place.size, place.time)
        new._sync = self._sync
        new._flush()
        os.rename(path, self._path)
        new._flush(folder=True)
        new.close()

    def close(self) -> None:
        with self._mutex:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def open_store(url: str, options: Mapping[str, Any], create: bool) -> LogStore:
    """Open the store of `logfile:///path/of/the/file`."""
    path = url.partition("://")[2]
    if not path.startswith("/"):
        raise InvalidInput(f"{url} has no absolute path", hint="logfile:///path/of/the.log", backend="logfile")
    return LogStore(path, create, options.get("sync", True))
