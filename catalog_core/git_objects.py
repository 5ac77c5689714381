"""The objects and the index of a git repository, read without git: commits and trees, loose or packed.

Everything here was written by others and may lie. A reader raises `ValueError`, `KeyError`, `IndexError`,
`struct.error`, `zlib.error` or `OSError` for what it cannot read; `git.look` turns these into "not known".
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import time
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import attrs

MAX_OBJECT = 64 << 20  # bytes of one commit or tree
MAX_INDEX = 1 << 30
MAX_CHAIN = 300  # deltas upon deltas; git makes 50
MAX_DEPTH = 100  # folders in folders
MAX_STORES = 20  # object folders that name further ones
PIECE = 4 << 10  # bytes of a pack that are taken first: where an object ends there is known only to who inflates it
FOLDER, LINK, MODULE = 0o040000, 0o120000, 0o160000
_KINDS = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}


def small(path: Path, limit: int) -> bytes:
    """All of a regular file. Raises `OSError` where there is none, `ValueError` for a pipe, a device, or too large a
    file: opening them waits for nobody."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise ValueError(f"{path} is no file that git would write")
        return file.read(limit + 1)


@attrs.frozen
class Entry:
    """A line of the index: `mode` as git has it, `oid`, times (ns), size modulo 2^32; `checked` is False where git
    itself does not look at the file, `staged` is False where the content is not in the repository."""

    path: bytes
    mode: int
    oid: bytes
    ctime: int
    mtime: int
    size: int
    checked: bool
    staged: bool


@attrs.frozen
class Index:
    """The entries of an index; `tree` is the root tree that they make, where git noted it; `whole` is False where this
    file holds a part only."""

    entries: tuple[Entry, ...]
    tree: bytes | None
    whole: bool


def read_index(data: bytes, width: int) -> Index:
    """The index file of versions 2, 3 and 4; `width` is the size of an object's name in bytes."""
    mark, version, count = struct.unpack(">4sII", data[:12])
    if mark != b"DIRC" or version not in (2, 3, 4):
        raise ValueError("it is no index")
    entries, at, path, whole = [], 12, b"", True
    for _ in range(count):
        begin = at
        cs, cn, ms, mn, _, _, mode, _, _, size = struct.unpack(">10I", data[at : at + 40])
        oid = data[at + 40 : at + 40 + width]
        (flags,) = struct.unpack(">H", data[at + 40 + width : at + 42 + width])
        at += 42 + width
        more = 0
        if flags & 0x4000:
            (more,) = struct.unpack(">H", data[at : at + 2])
            at += 2
        if version == 4:
            strip, at = _offset(data, at)
            end = data.index(b"\0", at)
            path, at = path[: len(path) - strip] + data[at:end], end + 1
        else:
            end = data.index(b"\0", at)
            path, at = data[at:end], begin + (end - begin + 8) // 8 * 8
        whole = whole and mode != FOLDER  # a folder of a sparse index
        unchecked, merging, intended = flags & 0x8000 or more & 0x4000, flags & 0x3000, more & 0x2000
        entries.append(
            Entry(path, mode, oid, cs * 10**9 + cn, ms * 10**9 + mn, size, not unchecked, not (merging or intended))
        )
    tree = None
    while at + 8 <= len(data) - width:
        name, (length,) = data[at : at + 4], struct.unpack(">I", data[at + 4 : at + 8])
        body = data[at + 8 : at + 8 + length]
        whole = whole and name not in (b"link", b"sdir")
        if name == b"TREE" and body[:1] == b"\0":
            head, _, rest = body[1:].partition(b"\n")
            if int(head.split(b" ")[0]) >= 0:
                tree = rest[:width]
        at += 8 + length
    return Index(tuple(entries), tree, whole)


def _offset(data: bytes, at: int) -> tuple[int, int]:
    """A number as packs and indexes of version 4 write offsets."""
    byte = data[at]
    value, at = byte & 127, at + 1
    while byte & 128:
        byte = data[at]
        value, at = ((value + 1) << 7) | (byte & 127), at + 1
    return value, at


class Objects:
    """The objects of a repository and of those that it borrows from. Behind the `deadline` (of `time.monotonic`) it
    raises `TimeoutError`."""

    def __init__(self, folder: Path, width: int, deadline: float = float("inf")) -> None:
        self._width, self._deadline = width, deadline
        self._stores = list(_stores(folder))
        self._packs: list[_Pack] | None = None

    def tree_of(self, commit: bytes) -> bytes:
        """The root tree of a commit."""
        kind, data = self.get(commit)
        if kind != "commit" or not data.startswith(b"tree "):
            raise ValueError("it is no commit")
        return bytes.fromhex(data[5 : 5 + 2 * self._width].decode("ascii"))

    def files(self, tree: bytes, prefix: bytes = b"", depth: int = 0) -> Iterator[tuple[bytes, int, bytes]]:
        """Path, mode and object of everything below a tree."""
        kind, data = self.get(tree)
        if kind != "tree" or depth > MAX_DEPTH:
            raise ValueError("it is no tree")
        at = 0
        while at < len(data):
            middle, end = data.index(b" ", at), data.index(b"\0", at)
            mode, name = int(data[at:middle], 8), prefix + data[middle + 1 : end]
            at = end + 1 + self._width
            oid = data[end + 1 : at]
            if mode == FOLDER:
                yield from self.files(oid, name + b"/", depth + 1)
            else:
                yield name, mode, oid

    def get(self, oid: bytes) -> tuple[str, bytes]:
        """Kind and bytes of an object. Raises `KeyError` where it is not here."""
        self._check_time()
        name = oid.hex()
        for store in self._stores:
            try:
                packed = small(store / name[:2] / name[2:], MAX_OBJECT)
            except FileNotFoundError:
                continue
            head, _, body = _inflated(packed, MAX_OBJECT).partition(b"\0")
            return head.partition(b" ")[0].decode("ascii"), body
        if self._packs is None:
            found = [path for store in self._stores for path in sorted((store / "pack").glob("*.idx"))]
            self._packs = [_Pack(path, self._width) for path in found]
        for pack in self._packs:
            at = pack.find(oid)
            if at is not None:
                return self._packed(pack, at, 0)
        raise KeyError(name)

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise TimeoutError("the objects of a repository take too long")

    def _packed(self, pack: _Pack, at: int, depth: int) -> tuple[str, bytes]:
        self._check_time()
        if depth > MAX_CHAIN:
            raise ValueError("deltas are chained too deeply")
        begin, data = at, pack.data
        byte = data[at]
        number, at = (byte >> 4) & 7, at + 1
        while byte & 128:
            byte, at = data[at], at + 1
        if number == 6:
            back, at = _offset(data[at : at + 16], 0)[0], at + _offset(data[at : at + 16], 0)[1]
            if not 0 < back < begin:
                raise ValueError("a delta leads nowhere")
            kind, base = self._packed(pack, begin - back, depth + 1)
            return kind, _patched(base, _inflated(data, MAX_OBJECT, at))
        if number == 7:
            where = pack.find(data[at : at + self._width])
            if where is None:
                raise KeyError("the base of a delta")
            kind, base = self._packed(pack, where, depth + 1)
            return kind, _patched(base, _inflated(data, MAX_OBJECT, at + self._width))
        return _KINDS[number], _inflated(data, MAX_OBJECT, at)


def _stores(folder: Path) -> Iterator[Path]:
    waiting, seen = [folder], set[Path]()
    while waiting and len(seen) < MAX_STORES:
        place = waiting.pop(0)
        if place in seen:
            continue
        seen.add(place)
        yield place
        try:
            told = small(place / "info" / "alternates", 1 << 16)
        except (OSError, ValueError):
            continue
        waiting += [place / os.fsdecode(line) for line in told.splitlines() if line and not line.startswith(b"#")]


class _Pack:
    """A pack and its index (version 2), mapped."""

    def __init__(self, path: Path, width: int) -> None:
        self._index, self._width = _mapped(path), width
        self.data = _mapped(path.with_suffix(".pack"))
        if self._index[:8] != b"\xfftOc\0\0\0\x02":
            raise ValueError("an index of packs of another version")
        self._count = struct.unpack(">I", self._index[8 + 255 * 4 : 8 + 256 * 4])[0]

    def find(self, oid: bytes) -> int | None:
        """Where an object begins in the pack, or None."""
        first, width, count = 8 + 256 * 4, self._width, self._count
        place = bisect_left(range(count), oid, key=lambda n: self._index[first + n * width : first + (n + 1) * width])
        if place == count or self._index[first + place * width : first + (place + 1) * width] != oid:
            return None
        offsets = first + count * (width + 4)
        (at,) = struct.unpack(">I", self._index[offsets + 4 * place : offsets + 4 * place + 4])
        if at & 0x80000000:
            far = offsets + 4 * count + 8 * (at & 0x7FFFFFFF)
            (at,) = struct.unpack(">Q", self._index[far : far + 8])
        return int(at)


def _mapped(path: Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(f"{path} is no file")
        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)


def _inflated(packed: bytes | mmap.mmap, limit: int, at: int = 0) -> bytes:
    """The object that begins at `at`. No more of the pack is read than about twice what the object takes."""
    stream, data, step = zlib.decompressobj(), bytearray(), PIECE
    while not stream.eof:
        piece = packed[at : at + step]
        if not piece or len(data) >= limit:
            raise ValueError("an object is too large, or broken")
        data += stream.decompress(piece, limit - len(data))
        at, step = at + step, 2 * step
    return bytes(data)


def _patched(base: bytes, delta: bytes) -> bytes:
    """What a delta makes of its base."""
    size, at = _size(delta, 0)
    wanted, at = _size(delta, at)
    if size != len(base) or wanted > MAX_OBJECT:
        raise ValueError("a delta has another base")
    made = bytearray()
    while at < len(delta):
        order, at = delta[at], at + 1
        if not order & 128:
            made += delta[at : at + order]
            at += order
            continue
        numbers = []
        for bits, first in ((4, 0), (3, 4)):
            value = 0
            for bit in range(bits):
                if order & 1 << (first + bit):
                    value, at = value | delta[at] << 8 * bit, at + 1
            numbers.append(value)
        start, length = numbers[0], numbers[1] or 0x10000
        made += base[start : start + length]
        if len(made) > wanted:
            break
    if len(made) != wanted:
        raise ValueError("a delta does not end where it says")
    return bytes(made)


def _size(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
