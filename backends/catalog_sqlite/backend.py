"""A folder with `catalog.db` (journal and small blobs), `blobs/` (large ones, a file each) and `staging/`."""

from __future__ import annotations

import io
import os
import random
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from catalog_core import durable
from catalog_core.digests import digest_of
from catalog_core.errors import (
    BackendError,
    BlobMissing,
    DeadlineExceeded,
    IntegrityError,
    InvalidInput,
    NoSpace,
    NotFound,
    ReadOnly,
    UnsafePlace,
)
from catalog_core.interfaces.backend import Capabilities, Head
from catalog_core.interfaces.store import BlobInfo
from catalog_core.platform import network_file_system

SMALL = 64 << 10
DATABASE = "catalog.db"
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS entries (position INTEGER PRIMARY KEY, digest TEXT NOT NULL, data BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS small (key TEXT PRIMARY KEY, data BLOB NOT NULL, time REAL NOT NULL) WITHOUT ROWID",
)
_KEY = re.compile(r"sha256:[0-9a-f]{64}(~[0-9]+)?\Z")


def _check_key(key: str) -> str:
    if not _KEY.match(key):
        raise InvalidInput(f"not the key of a blob: {key[:100]!r}")
    return key


class SqliteBackend:
    """See `interfaces.backend`. One connection, used under a lock; journal and blobs are this same object."""

    name = "sqlite"

    def __init__(self, folder: Path, writable: bool) -> None:
        self.folder = folder
        self.url = f"sqlite://{folder}"
        self.capabilities = Capabilities(transactional=True, local=True, writable=writable)
        self.journal = self
        self.blobs = _Blobs(self)
        self.files = self.blobs if writable else _ReadOnlyFiles(self)
        self.lock = threading.RLock()
        path = folder / DATABASE
        with self.translated():
            if writable:
                self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
                self.db.execute("PRAGMA journal_mode=WAL")
                self.db.execute("PRAGMA synchronous=FULL")
                for statement in SCHEMA:
                    self.db.execute(statement)
                self.db.execute("PRAGMA busy_timeout=0")
            else:
                still = "" if (folder / f"{DATABASE}-wal").exists() else "&immutable=1"
                self.db = sqlite3.connect(
                    f"{path.as_uri()}?mode=ro{still}", uri=True, isolation_level=None, check_same_thread=False
                )
                self.db.execute("SELECT 1 FROM entries LIMIT 1")

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of SQLite into ours."""
        try:
            yield
        except sqlite3.OperationalError as exc:
            text = str(exc)
            if "full" in text:
                raise NoSpace(f"{self.url}: no space left", hint="free space; nothing was published") from exc
            if "readonly" in text or "read-only" in text:
                raise ReadOnly(f"{self.url} cannot be written: {text}", hint="check the rights of its folder") from exc
            raise BackendError(f"{self.url}: {text}", backend=self.name) from exc
        except sqlite3.DatabaseError as exc:
            raise IntegrityError(
                f"the journal {self.folder / DATABASE} is damaged: {exc}",
                hint="restore it from a copy",
                backend=self.name,
            ) from exc

    # -- journal ------------------------------------------------------------------------------------------------

    def head(self) -> Head | None:
        """See `interfaces.backend.Journal.head`."""
        with self.lock, self.translated():
            row = self.db.execute("SELECT position, digest FROM entries ORDER BY position DESC LIMIT 1").fetchone()
        return Head(*row) if row else None

    def read(self, start: int, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """See `interfaces.backend.Journal.read`."""
        position = start
        while stop is None or position < stop:
            with self.lock, self.translated():
                rows = self.db.execute(
                    "SELECT position, data FROM entries WHERE position >= ? AND position < ? ORDER BY position LIMIT 1000",
                    (position, (1 << 53) if stop is None else stop),
                ).fetchall()
            for found, data in rows:
                if found != position:
                    raise IntegrityError(
                        f"{self.url}: journal entry {position} is missing", hint="restore it from a copy"
                    )
                yield found, bytes(data)
                position += 1
            if len(rows) < 1000:
                return

    def begin(self, deadline: float) -> None:
        """Begin a write transaction. Short random waits keep the queue fair: SQLite's own back-off lets one starve."""
        wait = 0.0001
        while True:
            try:
                self.db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as exc:
                if "locked" not in str(exc):
                    raise
                if time.monotonic() > deadline:
                    raise DeadlineExceeded(f"{self.url} stayed busy until the deadline", hint="try again") from exc
            time.sleep(random.uniform(wait / 2, wait))
            wait = min(wait * 1.5, 0.001)

    def append(
        self, build: Callable[[Head | None], bytes], blobs: Mapping[str, bytes], deadline: float
    ) -> tuple[int, bytes]:
        """See `interfaces.backend.Journal.append`: one transaction, one sync."""
        if not self.capabilities.writable:
            raise ReadOnly(f"{self.url} was opened read-only", hint="check the rights of its folder")
        with self.lock, self.translated():
            self.begin(deadline)
            try:
                row = self.db.execute("SELECT position, digest FROM entries ORDER BY position DESC LIMIT 1").fetchone()
                data = build(Head(*row) if row else None)
                position = row[0] + 1 if row else 0
                if blobs:
                    now = time.time()
                    self.db.executemany(
                        "INSERT OR REPLACE INTO small VALUES (?, ?, ?)",
                        [(_check_key(key), blob, now) for key, blob in blobs.items()],
                    )
                self.db.execute("INSERT INTO entries VALUES (?, ?, ?)", (position, digest_of(data), data))
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
        return position, data

    def close(self) -> None:
        """See `interfaces.backend.Backend.close`."""
        self.db.close()


class _Blobs:
    """Small blobs are rows, large ones files named by their digest."""

    def __init__(self, backend: SqliteBackend) -> None:
        self.backend = backend
        self.root = backend.folder / "blobs"

    def local_path(self, key: str) -> Path | None:
        """See `interfaces.store.LocalFiles`; None where the blob is a row."""
        hexadecimal = _check_key(key)[7:]
        path = self.root / hexadecimal[:2] / hexadecimal
        return path if path.exists() else None

    def _path(self, key: str) -> Path:
        hexadecimal = _check_key(key)[7:]
        return self.root / hexadecimal[:2] / hexadecimal

    def _row(self, sql: str, key: str) -> Any:
        with self.backend.lock, self.backend.translated():
            return self.backend.db.execute(sql, (_check_key(key),)).fetchone()

    def put(self, key: str, stream: BinaryIO, size: int) -> None:
        """See `interfaces.backend.Blobs.put`."""
        if size > SMALL:
            path = durable.write_new(self.staging(), stream, size)
            try:
                durable.link(path, self._path(key))
            finally:
                path.unlink(missing_ok=True)
            return
        data = stream.read(size)
        if len(data) < size:
            raise BackendError(f"{len(data)} of {size} bytes came, then the stream ended")
        backend = self.backend
        with backend.lock, backend.translated():
            backend.begin(time.monotonic() + 60)
            try:
                backend.db.execute(
                    "INSERT OR REPLACE INTO small VALUES (?, ?, ?)", (_check_key(key), data, time.time())
                )
                backend.db.execute("COMMIT")
            except BaseException:
                if backend.db.in_transaction:
                    backend.db.execute("ROLLBACK")
                raise

    def open(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `interfaces.backend.Blobs.open`."""
        row = self._row("SELECT data FROM small WHERE key = ?", key)
        if row is not None:
            data = bytes(row[0])
            return io.BytesIO(data[start:] if length is None else data[start : start + length])
        try:
            file = self._path(key).open("rb")
        except FileNotFoundError as exc:
            raise BlobMissing(f"blob {key} is not in {self.backend.url}", backend=self.backend.name) from exc
        with durable.translated(str(self._path(key))):
            if start == 0 and length is None:
                return file
            with file:
                return io.BytesIO(
                    os.pread(file.fileno(), 1 << 62 if length is None else length, start) if length else b""
                )

    def stat(self, key: str) -> BlobInfo | None:
        """See `interfaces.backend.Blobs.stat`."""
        try:
            info = self._path(key).stat()
            return BlobInfo(key, info.st_size, info.st_mtime)
        except FileNotFoundError:
            row = self._row("SELECT length(data), time FROM small WHERE key = ?", key)
            return BlobInfo(key, *row) if row else None

    def list(self, after: str = "") -> Iterator[BlobInfo]:
        """See `interfaces.backend.Blobs.list`."""
        with self.backend.lock, self.backend.translated():
            found = [
                BlobInfo(*row)
                for row in self.backend.db.execute("SELECT key, length(data), time FROM small WHERE key > ?", (after,))
            ]
        for path in self.root.glob("??/*"):
            key = f"sha256:{path.name}"
            if key > after and _KEY.match(key):
                info = path.stat()
                found.append(BlobInfo(key, info.st_size, info.st_mtime))
        yield from sorted(found, key=lambda info: info.key)

    def delete(self, keys: Iterable[str]) -> None:
        """See `interfaces.backend.Blobs.delete`."""
        wanted = [_check_key(key) for key in keys]
        backend = self.backend
        with backend.lock, backend.translated():
            backend.begin(time.monotonic() + 60)
            backend.db.executemany("DELETE FROM small WHERE key = ?", [(key,) for key in wanted])
            backend.db.execute("COMMIT")
        for key in wanted:
            with durable.translated(key):
                self._path(key).unlink(missing_ok=True)

    # -- files --------------------------------------------------------------------------------------------------

    def staging(self) -> Path:
        """See `interfaces.store.LocalFiles.staging`."""
        folder = self.backend.folder / "staging"
        with durable.translated(str(folder)):
            folder.mkdir(exist_ok=True)
        return folder

    def adopt(self, path: Path, key: str) -> None:
        """See `interfaces.store.LocalFiles.adopt`."""
        durable.link(path, self._path(key))

    def sweep_uploads(self, older_than: float) -> int:
        """See `interfaces.store.LocalFiles.sweep_uploads`."""
        return durable.sweep(self.staging(), older_than)


class _ReadOnlyFiles(_Blobs):
    """Files of a catalog that this process may not write."""


def open_backend(url: str, options: Mapping[str, Any], create: bool) -> SqliteBackend:
    """Open, or with `create` make, the catalog in the folder of `sqlite:///folder`."""
    if options:
        raise InvalidInput(f"{url} does not know the option {sorted(options)[0]!r}", hint="it has no options")
    folder = Path(url.partition("://")[2])
    network = network_file_system(folder)
    exists = (folder / DATABASE).exists()
    if not exists and not create:
        raise NotFound(f"there is no catalog in {folder}", hint=f"catalog --catalog {folder} init")
    if network and (not exists or os.access(folder, os.W_OK)):
        raise UnsafePlace(
            f"{folder} is on {network}, where SQLite loses data", hint=f"use file://{folder} there, or a local folder"
        )
    if not exists:
        with durable.translated(str(folder)):
            durable.make_folders(folder)
    writable = os.access(folder, os.W_OK) and (not exists or os.access(folder / DATABASE, os.W_OK))
    if not exists and not writable:
        raise ReadOnly(f"{folder} cannot be written", hint="check the rights of the folder")
    return SqliteBackend(folder, writable)
