"""A folder with `catalog.db` (journal and small blobs), `blobs/` (large ones, a file each) and `staging/`."""

from __future__ import annotations

import io
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from catalog_core import durable, forks
from catalog_core.digests import digest_of
from catalog_core.errors import (
    BackendError,
    DeadlineExceeded,
    IntegrityError,
    InvalidInput,
    NoSpace,
    NotFound,
    ReadOnly,
    UnsafePlace,
    UpgradeRequired,
)
from catalog_core.interfaces.backend import Capabilities, Head
from catalog_core.interfaces.store import BlobInfo
from catalog_core.platform import network_file_system
from catalog_core.sqlite import sqlite3

SMALL = 64 << 10
WAIT = 60.0  # seconds that one statement waits for others
DATABASE = "catalog.db"
FILES = "journal"  # the folder by which a catalog of `file://` is known
SCHEMA = 1  # of catalog.db, kept as its user_version: the number of migrations in schema.py
_KEY = re.compile(r"sha256:[0-9a-f]{64}(~[0-9]+)?\Z")


def _check_key(key: str) -> str:
    if not _KEY.match(key):
        raise InvalidInput(f"not the key of a blob: {key[:100]!r}")
    return key


def _cannot_change(folder: Path) -> bool:
    """Whether the database may be read as a file that nobody changes, without locks and without a `-shm` file.

    Only where SQLite could not make that file, and so no log is there to be read: a file system mounted read-only, or
    a folder without the right to write. Another account may still write there; a reader then sees what stood when it
    opened the catalog until it opens it again.
    """
    if (folder / f"{DATABASE}-wal").exists():
        return False
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY) or not os.access(folder, os.W_OK)


class SqliteBackend:
    """See `interfaces.backend`. One connection, used under a lock; journal and blobs are this same object."""

    name = "sqlite"

    def __init__(self, folder: Path, writable: bool) -> None:
        self.folder = folder
        self.url = f"sqlite://{folder}"
        self.capabilities = Capabilities(transactional=True, local=True, writable=writable)
        self.journal = self
        self.blobs = _Blobs(self)
        self.files = self.blobs
        self.lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._held = False  # whether `before_fork` has the lock
        self._closed = False
        self.damaged = False  # a part of the file cannot be read: it is read as far as it goes, and not written
        self._connect()
        forks.watch(self)

    def _connect(self) -> None:
        with self.translated():
            try:
                self._open()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                if self._db is not None:
                    self._db.close()
                if not self._salvage():
                    raise

    def _salvage(self) -> bool:
        """Open a file that SQLite calls damaged, to read what can be read of it; whether there is anything."""
        place = (self.folder / DATABASE).as_uri()
        for how in ("mode=ro", "mode=ro&immutable=1"):  # the second where what lies beside it is damaged too
            self._db = sqlite3.connect(f"{place}?{how}", uri=True, isolation_level=None, check_same_thread=False)
            try:
                self._db.execute("PRAGMA writable_schema=ON")  # else a file that was cut short is not looked at
                self._db.execute("SELECT data FROM entries WHERE position = 0").fetchone()
            except sqlite3.DatabaseError:
                self._db.close()
                continue
            self.capabilities = attrs.evolve(self.capabilities, writable=False)
            self.damaged = True
            return True
        return False

    def _open(self) -> None:
        path = self.folder / DATABASE
        if self.capabilities.writable:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=WAIT)
            self._patiently("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._migrate()
        else:
            still = "&immutable=1" if _cannot_change(self.folder) else ""
            self._db = sqlite3.connect(
                f"{path.as_uri()}?mode=ro{still}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=WAIT,
            )
            self._db.execute("SELECT 1 FROM entries LIMIT 1")
            self._check_schema()

    @property
    def db(self) -> sqlite3.Connection:
        """The open database; opened again after a fork."""
        if self._db is None:
            with self.lock:
                if self._db is None:
                    self._connect()
        assert self._db is not None
        return self._db

    def before_fork(self) -> None:
        """See `forks.Forks`: the database is closed, and opened again on the next use."""
        self._held = self.lock.acquire(timeout=forks.WAIT)
        if self._held and self._db is not None and not self._closed and not self._db.in_transaction:
            self._db.close()
            self._db = None

    def after_fork(self, *, child: bool) -> None:
        """See `forks.Forks`."""
        if child:
            self.lock = threading.RLock()
            if self._db is not None and not self._closed:  # its parent is at work with it
                forks.INHERITED.append(self._db)
                self._db = None
        elif self._held:
            self.lock.release()
        self._held = False

    def _check_schema(self) -> bool:
        """Whether the file has the schema of this release. Raises `UpgradeRequired` where it has a later one."""
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise UpgradeRequired(
                f"{self.folder / DATABASE} has schema {version}, this release knows {SCHEMA}",
                hint="upgrade: pip install -U catalog-core",
            )
        return bool(version == SCHEMA)

    def _migrate(self) -> None:
        if self._check_schema():
            return
        from catalog_sqlite.schema import migrate

        with self.transaction(time.monotonic() + WAIT):
            if not self._check_schema():  # another process may have been first
                migrate(self.db, SCHEMA)

    def _patiently(self, statement: str) -> None:
        """Run a statement of the opening. Changing the journal's mode meets locks that no busy handler waits for."""
        deadline = time.monotonic() + WAIT
        while True:
            try:
                self.db.execute(statement)
                return
            except sqlite3.OperationalError as exc:
                if "locked" not in str(exc) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.001, 0.01))

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of SQLite into ours."""
        try:
            yield
        except sqlite3.OperationalError as exc:
            text = " ".join(str(exc).split())
            if "full" in text:
                raise NoSpace(f"{self.url}: no space left", hint="free space; nothing was published") from exc
            if "readonly" in text or "read-only" in text:
                raise ReadOnly(f"{self.url} cannot be written: {text}", hint="check the rights of its folder") from exc
            hint = "check the rights of the folder and its files, and the disk"
            raise BackendError(f"{self.url}: {text}", hint=hint, backend=self.name) from exc
        except (sqlite3.DatabaseError, UnicodeDecodeError) as exc:  # a damaged page may be quoted in the message
            if "closed database" in str(exc):
                raise BackendError(f"{self.url} was closed", hint="open it again", backend=self.name) from exc
            raise IntegrityError(
                f"the journal {self.folder / DATABASE} is damaged: {' '.join(str(exc).split())}",
                hint="restore it from a copy",
                backend=self.name,
            ) from exc

    # -- journal ------------------------------------------------------------------------------------------------

    def head(self) -> Head | None:
        """See `interfaces.backend.Journal.head`."""
        if self.damaged:
            return self._unreadable()
        with self.lock, self.translated():
            return self._head()

    def _unreadable(self) -> Head:
        """The first entry that cannot be read; nobody knows its digest. Who follows the journal meets it, and tells."""
        first = 0
        with suppress(IntegrityError):
            for position, _ in self.read(0):
                first = position + 1
        return Head(first, "")

    def _head(self) -> Head | None:
        row = self.db.execute("SELECT position, digest FROM entries ORDER BY position DESC LIMIT 1").fetchone()
        if row and [type(value) for value in row] != [int, str]:  # SQLite gives what a damaged page says
            raise sqlite3.DatabaseError("the newest row of the journal has other types")
        return Head(*row) if row else None

    def read(self, start: int, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
        """See `interfaces.backend.Journal.read`."""
        position = start
        many = 1000
        while stop is None or position < stop:
            with self.lock, self.translated():
                try:
                    rows = self.db.execute(
                        "SELECT position, digest, data FROM entries WHERE position >= ? AND position < ? "
                        "ORDER BY position LIMIT ?",
                        (position, (1 << 53) if stop is None else stop, many),
                    ).fetchall()
                except sqlite3.OperationalError:
                    raise
                except sqlite3.DatabaseError as exc:
                    if many == 1:
                        raise sqlite3.DatabaseError(f"entry {position} cannot be read: {exc}") from exc
                    many = 1  # all before the damage are read
                    continue
            for found, digest, data in rows:
                if found != position:
                    raise IntegrityError(
                        f"{self.url}: journal entry {position} is missing", hint="restore it from a copy"
                    )
                if type(data) is not bytes or digest_of(data) != digest:  # nothing else chains the newest one
                    told = f"{digest}, as it was written" if type(digest) is str else "as it was written"
                    raise IntegrityError(
                        f"{self.url}: journal entry {position} is not {told}",
                        hint="restore it from a copy",
                        backend=self.name,
                    )
                yield found, data
                position += 1
            if len(rows) < many:
                return

    def begin(self, deadline: float) -> None:
        """Begin a write transaction. Short random waits keep the queue fair: SQLite's own back-off lets one starve."""
        wait = 0.0001
        self.db.execute("PRAGMA busy_timeout=0")
        try:
            while True:
                try:
                    self.db.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as exc:
                    if "locked" not in str(exc):
                        raise
                    if time.monotonic() > deadline:
                        raise DeadlineExceeded(
                            f"{self.url} stayed busy until the deadline", hint="try again", backend=self.name
                        ) from exc
                time.sleep(random.uniform(wait / 2, wait))
                wait = min(wait * 1.5, 0.001)
        finally:
            self.db.execute(f"PRAGMA busy_timeout={int(WAIT * 1000)}")

    @contextmanager
    def transaction(self, deadline: float) -> Iterator[None]:
        """All of the block is stored, durably, or nothing. Raises `ReadOnly`, `DeadlineExceeded`, `NoSpace`."""
        self.check_writable()
        with self.lock, self.translated():
            self.begin(deadline)
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def check_writable(self) -> None:
        """Raises `ReadOnly` where this process may not write."""
        if not self.capabilities.writable:
            raise ReadOnly(f"{self.url} was opened read-only", hint="check the rights of its folder", backend=self.name)

    def append(
        self, build: Callable[[Head | None], bytes], blobs: Mapping[str, bytes], deadline: float
    ) -> tuple[int, bytes]:
        """See `interfaces.backend.Journal.append`: one transaction, one sync."""
        with self.transaction(deadline):
            head = self._head()
            data = build(head)
            position = head.position + 1 if head else 0
            if blobs:
                now = time.time()
                self.db.executemany(
                    "INSERT OR REPLACE INTO small (key, data, time) VALUES (?, ?, ?)",
                    [(_check_key(key), blob, now) for key, blob in blobs.items()],
                )
            self.db.execute("INSERT INTO entries VALUES (?, ?, ?)", (position, digest_of(data), data))
        return position, data

    def clock(self) -> float:
        """See `interfaces.backend.Backend.clock`."""
        return durable.clock(self.blobs.staging())

    def close(self) -> None:
        """See `interfaces.backend.Backend.close`."""
        self._closed = True
        if self._db is None:  # a fork closed it
            self._db = sqlite3.connect(":memory:")
        self._db.close()


class _Blobs:
    """Small blobs are rows, large ones files named by their digest."""

    def __init__(self, backend: SqliteBackend) -> None:
        self.backend = backend
        self.root = backend.folder / "blobs"

    def local_path(self, key: str) -> Path | None:
        """See `interfaces.store.LocalFiles`; None where the blob is a row."""
        hexadecimal = _check_key(key)[7:]
        path = self.root / hexadecimal[:2] / hexadecimal
        with durable.translated(str(path), reading=True):
            return path if path.is_file() else None

    def _path(self, key: str) -> Path:
        return Path(self._place(key))

    def _place(self, key: str) -> str:
        hexadecimal = _check_key(key)[7:]
        return f"{self.root}/{hexadecimal[:2]}/{hexadecimal}"

    def _row(self, sql: str, key: str) -> Any:
        with self.backend.lock, self.backend.translated():
            return self.backend.db.execute(sql, (_check_key(key),)).fetchone()

    def put(self, key: str, stream: BinaryIO, size: int) -> None:
        """See `interfaces.backend.Blobs.put`."""
        self.backend.check_writable()
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
        row = (_check_key(key), data, time.time())
        with self.backend.transaction(time.monotonic() + WAIT):
            self.backend.db.execute("INSERT OR REPLACE INTO small (key, data, time) VALUES (?, ?, ?)", row)

    def open(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `interfaces.backend.Blobs.open`."""
        row = self._row("SELECT data FROM small WHERE key = ?", key)
        if row is not None:
            data = row[0]
            if type(data) is not bytes:
                raise IntegrityError(f"{self.backend.url}: blob {key} is no bytes", backend=self.backend.name)
            return io.BytesIO(data[start:] if length is None else data[start : start + length])
        return durable.open_range(self._path(key), key, self.backend.name, start, length)

    def stat(self, key: str) -> BlobInfo | None:
        """See `interfaces.backend.Blobs.stat`."""
        row = self._row("SELECT length(data), time FROM small WHERE key = ?", key)
        found = row or durable.file_info(self._place(key))
        return BlobInfo(key, *found) if found else None

    def list(self, after: str = "") -> Iterator[BlobInfo]:
        """See `interfaces.backend.Blobs.list`."""
        found = {}
        with self.backend.lock, self.backend.translated():
            for row in self.backend.db.execute("SELECT key, length(data), time FROM small WHERE key > ?", (after,)):
                found[row[0]] = BlobInfo(*row)
        with durable.translated(str(self.root), reading=True):
            for path in self.root.glob("??/*"):
                key = f"sha256:{path.name}"
                info = durable.file_info(path) if key > after and _KEY.match(key) else None
                if info:
                    found[key] = BlobInfo(key, *info)
        for key in sorted(found):
            yield found[key]

    def delete(self, keys: Iterable[str]) -> None:
        """See `interfaces.backend.Blobs.delete`."""
        wanted = [_check_key(key) for key in keys]
        with self.backend.transaction(time.monotonic() + WAIT):
            self.backend.db.executemany("DELETE FROM small WHERE key = ?", [(key,) for key in wanted])
        for key in wanted:
            with durable.translated(key):
                self._path(key).unlink(missing_ok=True)

    # -- files --------------------------------------------------------------------------------------------------

    def staging(self) -> Path:
        """See `interfaces.store.LocalFiles.staging`."""
        self.backend.check_writable()
        folder = self.backend.folder / "staging"
        with durable.translated(str(folder)):
            folder.mkdir(exist_ok=True)
        return folder

    def adopt(self, path: Path, key: str) -> None:
        """See `interfaces.store.LocalFiles.adopt`."""
        self.backend.check_writable()
        durable.link(path, self._path(key))

    def sweep_uploads(self, older_than: float) -> int:
        """See `interfaces.store.LocalFiles.sweep_uploads`."""
        return durable.sweep(self.staging(), older_than)


def open_backend(url: str, options: Mapping[str, Any], create: bool) -> SqliteBackend:
    """Open, or with `create` make, the catalog in the folder of `sqlite:///folder`."""
    if options:
        raise InvalidInput(f"{url} does not know the option {sorted(options)[0]!r}", hint="it has no options")
    folder = Path(url.partition("://")[2])
    durable.check_folder(folder)
    network = network_file_system(folder)
    with durable.translated(str(folder), reading=True):
        exists = (folder / DATABASE).exists()
        files = not exists and (folder / FILES).is_dir()
    if files:
        raise InvalidInput(
            f"{folder} holds a catalog of files; one of SQLite in the same folder would be another catalog",
            hint=f"open it as file://{folder}, or name another folder",
        )
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
