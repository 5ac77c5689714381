"""The calls on a mounted /eos, through POSIX. Hard links do not exist there; files are staged as everywhere."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from catalog_core import durable
from catalog_core.digests import checksum
from catalog_core.errors import BlobMissing, InvalidInput
from catalog_eos.calls import Found


class Mounted:
    """See `calls.Calls`."""

    def __init__(self, url: str) -> None:
        self.where = url
        path = url.partition("://")[2]
        if not path.startswith("/") or not path.strip("/"):
            raise InvalidInput(f"{url!r} names no folder", hint="like eos:///eos/user/j/jane/models")
        self._root = Path(path)

    def upload(self, path: str, stream: BinaryIO, size: int) -> int:
        """See `Calls.upload`."""
        final = self._root / path
        with durable.translated(str(final)):
            durable.make_folders(final.parent)
        summed = _Summed(stream)
        staged = durable.write_new(final.parent, summed, size)  # type: ignore[arg-type]
        with durable.translated(str(final)):
            os.rename(staged, final)
        return summed.adler

    def good(self, path: str, size: int, adler: int) -> bool:
        """See `Calls.good`. The file is read again: nobody else tells its checksum here."""
        found = self.stat(path)
        if found is None or found.folder or found.size != size:
            return False
        with durable.translated(path, reading=True), (self._root / path).open("rb", buffering=0) as file:
            return checksum("adler32", file, size) == f"{adler:08x}"

    def checksums(self, path: str) -> Mapping[str, str]:
        """See `Calls.checksums`."""
        return {}

    def open(self, path: str, start: int, length: int | None, *, once: bool = False) -> BinaryIO | None:
        """See `Calls.open`."""
        try:
            return durable.open_range(self._root / path, path, "eos", start, length)
        except BlobMissing:
            return None

    def stat(self, path: str) -> Found | None:
        """See `Calls.stat`."""
        with durable.translated(str(self._root / path), reading=True):
            try:
                info = (self._root / path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return Found(info.st_size, info.st_mtime, stat.S_ISDIR(info.st_mode))

    def entries(self, path: str) -> list[tuple[str, Found]]:
        """See `Calls.entries`."""
        with durable.translated(str(self._root / path), reading=True):
            try:
                names = os.listdir(self._root / path)
            except (FileNotFoundError, NotADirectoryError):
                return []
        found = ((name, self.stat(f"{path}/{name}".lstrip("/"))) for name in names)
        return [(name, info) for name, info in found if info is not None]

    def make(self, path: str) -> bool:
        """See `Calls.make`."""
        folder = self._root / path
        with durable.translated(str(folder)):
            durable.make_folders(folder.parent)
            try:
                os.mkdir(folder)
            except FileExistsError:
                return False
        return True

    def move(self, source: str, target: str, *, once: bool = False) -> bool:
        """See `Calls.move`."""
        final = self._root / target
        with durable.translated(str(final)):
            durable.make_folders(final.parent)
            try:
                os.rename(self._root / source, final)
            except FileNotFoundError:
                return False
            durable.sync_folder(final.parent)
        return True

    def remove(self, path: str, *, once: bool = False) -> bool:
        """See `Calls.remove`."""
        with durable.translated(str(self._root / path)):
            try:
                (self._root / path).unlink(missing_ok=True)
            except NotADirectoryError:
                pass
            except (IsADirectoryError, PermissionError):
                if (self._root / path).is_dir():
                    return False
                raise
        return True

    def remove_folder(self, path: str, *, once: bool = False) -> None:
        """See `Calls.remove_folder`."""
        try:
            os.rmdir(self._root / path)
        except OSError:
            pass  # what stays holds something, or is swept later


class _Summed:
    """A stream that takes the adler32 of what is read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.adler = 1

    def read(self, size: int) -> bytes:
        part = self._stream.read(size)
        self.adler = zlib.adler32(part, self.adler)
        return part
