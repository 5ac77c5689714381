"""An ObjectStore on plain POSIX calls: a file per key, put in place by a hard link, which only one writer wins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from catalog_core import durable
from catalog_core.errors import InvalidInput, NotFound, ReadOnly
from catalog_core.interfaces.store import BlobInfo, Mode

STAGING = "staging"


def _unreadable(exc: OSError) -> None:
    """A folder that is gone has no objects; one that cannot be read must not look like that."""
    if not isinstance(exc, (FileNotFoundError, NotADirectoryError)):
        raise exc


class FileStore:
    """See `interfaces.store`: ObjectStore and LocalFiles."""

    def __init__(self, root: Path, writable: bool) -> None:
        self.root = root
        self.writable = writable

    def _path(self, key: str) -> Path:
        if not key or any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or "\0" in key:
            raise InvalidInput(f"not a key: {key[:100]!r}")
        return self.root / key

    def _check_writable(self) -> None:
        if not self.writable:
            raise ReadOnly(f"{self.root} may not be written", hint="check the rights of the folder", backend="files")

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        """See `ObjectStore.put`."""
        final, staging = self._path(key), self.staging()
        if mode == "content" and durable.settled(final, size):
            return
        path = durable.write_new(staging, stream, size)
        try:
            if mode == "hint":
                with durable.translated(str(final)):
                    durable.make_folders(final.parent)
                    os.replace(path, final)  # its name is not synced: a hint may be lost
            else:
                durable.link(path, final, exclusive=mode == "exclusive")
        finally:
            path.unlink(missing_ok=True)

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `ObjectStore.get`."""
        return durable.open_range(self._path(key), key, "files", start, length)

    def stat(self, key: str) -> BlobInfo | None:
        """See `ObjectStore.stat`."""
        found = durable.file_info(self._path(key))
        return BlobInfo(key, *found) if found else None

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        """See `ObjectStore.list`."""
        found = []
        with durable.translated(str(self.root), reading=True):
            for folder, _, names in os.walk(self.root / prefix.rpartition("/")[0], onerror=_unreadable):
                base = Path(folder).relative_to(self.root).as_posix()
                for name in names:
                    key = name if base == "." else f"{base}/{name}"
                    if key.startswith(prefix) and key > after and not key.startswith(STAGING + "/"):
                        found.append(key)
        for key in sorted(found):
            info = self.stat(key)
            if info is not None:
                yield info

    def delete(self, keys: Iterable[str]) -> None:
        """See `ObjectStore.delete`."""
        self._check_writable()
        for key in keys:
            path = self._path(key)
            with durable.translated(str(path)):
                path.unlink(missing_ok=True)

    def clock(self) -> float:
        """See `ObjectStore`: a file server gives files its own time."""
        return durable.clock(self.staging())

    def staging(self) -> Path:
        """See `LocalFiles.staging`."""
        self._check_writable()
        folder = self.root / STAGING
        with durable.translated(str(folder)):
            folder.mkdir(exist_ok=True)
        return folder

    def adopt(self, path: Path, key: str) -> None:
        """See `LocalFiles.adopt`."""
        self._check_writable()
        durable.link(path, self._path(key))

    def local_path(self, key: str) -> Path | None:
        """See `LocalFiles.local_path`."""
        path = self._path(key)
        return path if durable.file_info(path) else None

    def sweep_uploads(self, older_than: float) -> int:
        """See `LocalFiles.sweep_uploads`."""
        return durable.sweep(self.staging(), older_than)


SQLITE = "catalog.db"  # by which a folder is known as one of `sqlite://`


def open_store(url: str, options: Mapping[str, object], create: bool) -> FileStore:
    """Open, or with `create` make, the folder of `file:///folder`."""
    if options:
        raise InvalidInput(f"{url} does not know the option {sorted(options)[0]!r}", hint="it has no options")
    root = Path(url.partition("://")[2])
    durable.check_folder(root)
    with durable.translated(str(root), reading=True):
        there = (root / "journal").is_dir()
    if not there:
        if durable.file_info(root / SQLITE) is not None:
            raise InvalidInput(
                f"{root} holds a catalog of SQLite; one of files in the same folder would be another catalog",
                hint=f"open it as {root} or sqlite://{root}, or name another folder",
            )
        if not create:
            raise NotFound(f"there is no catalog in {root}", hint=f"catalog --catalog file://{root} init")
        with durable.translated(str(root)):
            durable.make_folders(root / "journal")
    return FileStore(root, os.access(root, os.W_OK) and os.access(root / "journal", os.W_OK))
