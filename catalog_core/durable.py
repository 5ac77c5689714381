"""Files that survive a power cut: written under a temporary name, synced, then given their name for good."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from catalog_core.errors import BackendError, BlobMissing, CatalogError, InvalidInput, KeyTaken, NoSpace, ReadOnly

BLOCK = 1 << 20


STORE_FULL = "free space, or `catalog gc`; nothing was published"


@contextmanager
def translated(what: str, *, full: str = STORE_FULL, reading: bool = False) -> Iterator[None]:
    """Turn an `OSError` into an error of ours: `NoSpace`, `ReadOnly` or `BackendError`, naming `what`. `full` says what
    to do where no space is left: what helps depends on whose place it is. With `reading`, what is refused is to read,
    which is a `BackendError`."""
    try:
        yield
    except CatalogError:
        raise
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"{what}: no space left", hint=full) from exc
        if reading and exc.errno in (errno.EACCES, errno.EPERM):
            raise BackendError(
                f"{what}: may not be read ({exc.strerror})", hint="check the rights of it, and of the folders above it"
            ) from exc
        if exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise ReadOnly(
                f"{what}: may not be written ({exc.strerror})", hint="check the rights of the folder"
            ) from exc
        hint = "this process may not write a file so large: ulimit -f" if exc.errno == errno.EFBIG else None
        raise BackendError(f"{what}: {exc.strerror or exc}", hint=hint or "check the path, and the disk") from exc


def check_folder(folder: Path) -> None:
    """Raise `InvalidInput` where a catalog cannot be in `folder`, since it, or what stands above it, is no folder; and
    `BackendError` where that cannot be found out."""
    with translated(str(folder), reading=True):
        for at in (folder, *folder.parents):
            try:
                mode = os.stat(at).st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            if not stat.S_ISDIR(mode):
                raise InvalidInput(
                    f"there can be no catalog in {folder}: {at} is no folder",
                    hint="name a folder; `catalog import FILE` reads a bundle",
                )
            return


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_durable: set[Path] = set()  # folders whose own names this process knows to be durable


def make_folders(folder: Path) -> None:
    """Make a folder and its parents, each durable in its own parent.

    One that is there is synced too, once: whoever made it may have been killed before that. The walk up ends at a mount
    point, and where this process may not write: what lies there was not made by a writer of this catalog.
    """
    made = folder.is_dir()
    if made and (folder in _durable or os.path.ismount(folder) or not os.access(folder.parent, os.W_OK)):
        return
    make_folders(folder.parent)
    if not made:
        try:
            os.mkdir(folder)
        except FileExistsError:
            pass
    sync_folder(folder.parent)
    _durable.add(folder)


def stage(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file of a unique name in `folder`, open for writing."""
    path = folder / f"tmp-{secrets.token_hex(12)}"
    with translated(str(folder)):
        return path, path.open("xb", buffering=0)


def clock(folder: Path) -> float:
    """The time, in seconds since 1970, that the file system gives a new file."""
    path, file = stage(folder)
    try:
        with file, translated(str(path)):
            return os.fstat(file.fileno()).st_mtime
    finally:
        path.unlink(missing_ok=True)


def write_all(file: BinaryIO, part: Any) -> None:
    """Write all of `part`; a raw file may take less at a time."""
    view = memoryview(part)
    while view.nbytes:
        view = view[file.write(view) :]


def sync(file: BinaryIO, path: Path) -> None:
    """Make the bytes of an open staged file durable, close it, and take away the right to write it."""
    with translated(str(path)):
        os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())
        file.close()


def flush(path: Path) -> None:
    """Have the bytes of a file written to the disk. A failure is told once, to whoever synced: it must be heard."""
    with translated(str(path)), path.open("rb") as file:
        os.fsync(file.fileno())


def takable(path: Path) -> bool:
    """Whether a file is nobody else's: it has no other name, and no process can write it, by a handle or a mapping.
    False where the system cannot tell."""
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            return False
        import fcntl

        with path.open("rb") as file:  # a lease for reading is given where nobody writes
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except (OSError, ImportError, AttributeError):
        return False
    return True


def take(path: Path, folder: Path) -> Path:
    """Make a file that was written elsewhere on the same file system a staged one of `folder`, synced."""
    staged = folder / f"tmp-{secrets.token_hex(12)}"
    with translated(str(path)):
        os.utime(path)  # old files there are taken for leftovers
        os.replace(path, staged)
        try:
            with staged.open("rb") as file:
                sync(file, staged)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
    return staged


def blocks(stream: BinaryIO, size: int, most: int = BLOCK, backend: str | None = None) -> Iterator[bytes]:
    """The next `size` bytes of `stream`, up to `most` at a time. Raises `BackendError` if it ends early."""
    left = size
    while left:
        block = stream.read(min(most, left))
        if not block:
            raise BackendError(f"{size - left} of {size} bytes came, then the stream ended", backend=backend)
        left -= len(block)
        yield block


def write_new(folder: Path, stream: BinaryIO, size: int) -> Path:
    """Write the next `size` bytes of `stream` to a new staged file, synced. Raises `BackendError` if it ends early."""
    path, file = stage(folder)
    try:
        with translated(str(folder)), file:
            for block in blocks(stream, size):
                write_all(file, block)
            sync(file, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _link(path: Path, final: Path) -> None:
    try:
        os.link(path, final)
    except OSError as exc:
        if exc.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV) or (
            exc.errno == errno.EPERM and os.access(final.parent, os.W_OK)
        ):
            raise BackendError(
                f"{final}: this file system has no hard links ({exc.strerror})",
                hint="keep the catalog on one that has them",
            ) from exc
        raise


def link(path: Path, final: Path, *, exclusive: bool = False) -> None:
    """Give a synced file a second name, durable at return. An existing `final` of the same size is left alone, one of
    another size is replaced; with `exclusive` any existing one raises `KeyTaken`."""
    with translated(str(final)):
        make_folders(final.parent)
        try:
            _link(path, final)
        except FileNotFoundError as exc:
            raise BackendError(
                f"{path}, which was staged for {final.name}, is gone", hint="was it collected meanwhile? save again"
            ) from exc
        except FileExistsError:
            if exclusive:
                raise KeyTaken(f"{final.name} is taken") from None
            if final.stat().st_size != path.stat().st_size:
                spare = path.with_name(path.name + ".good")
                _link(path, spare)
                try:
                    os.replace(spare, final)
                finally:
                    spare.unlink(missing_ok=True)
        sync_folder(final.parent)


def settled(final: Path, size: int) -> bool:
    """Whether `final` is there with `size` bytes. If so, it is durable: who linked it may have died before the sync."""
    found = file_info(final)
    if found is None or found[0] != size:
        return False
    with translated(str(final)):
        make_folders(final.parent)
        sync_folder(final.parent)
    return True


def file_info(path: Path | str) -> tuple[int, float] | None:
    """Size in bytes and time of change in seconds since 1970 of a regular file; None where there is none."""
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        with translated(str(path), reading=True):
            raise
    return (info.st_size, info.st_mtime) if stat.S_ISREG(info.st_mode) else None


def open_range(path: Path, key: str, backend: str, start: int = 0, length: int | None = None) -> BinaryIO:
    """The bytes of a file from `start`, `length` of them or all that follow. Raises `BlobMissing` naming `key`.

    A range of at most `BLOCK` bytes is read at once; a longer one is read as it is taken.
    """
    if file_info(path) is None:
        raise BlobMissing(f"{key} is not in the store: there is no {path}", backend=backend)
    with translated(str(path), reading=True):
        try:
            file = path.open("rb")
        except FileNotFoundError as exc:
            raise BlobMissing(f"{key} is not in the store: there is no {path}", backend=backend) from exc
        try:
            if length is None or length > BLOCK:
                return io.BufferedReader(_Range(file, start, length), BLOCK)
            with file:
                file.seek(start)
                return io.BytesIO(file.read(length))
        except BaseException:
            file.close()
            raise


class _Range(io.RawIOBase):
    """`length` bytes of a file from `start`, or all that follow; the file is closed with it. It keeps its own place:
    that of the file is one with a forked child's, or its parent's."""

    def __init__(self, file: BinaryIO, start: int, length: int | None) -> None:
        self._file = file
        self._start = self._at = start
        size = os.fstat(file.fileno()).st_size
        self._end = size if length is None else min(start + length, size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(offset + {io.SEEK_SET: self._start, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence], 0)
        return self.tell()

    def tell(self) -> int:
        return self._at - self._start

    def readinto(self, buffer: Any, /) -> int:
        want = max(min(len(buffer), self._end - self._at), 0)
        if hasattr(os, "preadv"):
            count = os.preadv(self._file.fileno(), [memoryview(buffer)[:want]], self._at)
        else:
            self._file.seek(self._at)
            part = self._file.read(want)
            count = len(part)
            buffer[:count] = part
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def sweep(folder: Path, older_than: float) -> int:
    """Remove what was staged in `folder` and left alone for `older_than` seconds; return how many."""
    import shutil
    import time

    count = 0
    before = time.time() - older_than
    for path in folder.iterdir():
        try:
            if path.lstat().st_mtime <= before:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                count += 1
        except FileNotFoundError:
            continue
    return count
