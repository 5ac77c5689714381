"""The index: a SQLite file computed from the journal by the reducer. Delete it and it comes back."""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from catalog_core import forks
from catalog_core.digests import digest_of, parse
from catalog_core.errors import BackendError, BlobMissing, CatalogError, IntegrityError, UpgradeRequired
from catalog_core.events import SWEEPS, Entry, read_entry
from catalog_core.interfaces.backend import Head, Journal
from catalog_core.platform import cache_dir, others_can_change, own_folder
from catalog_core.reducer import STATE, TABLES, Reducer, erased
from catalog_core.sqlite import check_search, sqlite3

SCHEMA = 12
Stopped = UpgradeRequired | IntegrityError
DAMAGED = (
    "`catalog fsck` checks the rest; restore that entry from a copy, or take it out of the store if nobody has one"
)
# caches beside the state: they can be emptied at any time
CACHES = """
CREATE TABLE chunks (digest TEXT PRIMARY KEY, key TEXT, offset INTEGER, length INTEGER) WITHOUT ROWID;
CREATE TABLE files (chunks TEXT PRIMARY KEY, digest TEXT) WITHOUT ROWID;
CREATE TABLE expanded (layout TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE edges (layout TEXT, key TEXT, PRIMARY KEY (layout, key)) WITHOUT ROWID;
CREATE TABLE trusted (key TEXT, stamp TEXT, digest TEXT, PRIMARY KEY (key, digest)) WITHOUT ROWID;
"""


class Damaged(BackendError):
    """The index file was damaged, and is thrown away: what asked it repeats."""


class _Before(Exception):
    """The entry at `position`, before the one that does not fit (`problem`), is the damaged one."""

    def __init__(self, position: int, problem: Stopped) -> None:
        self.position = position
        self.problem = problem


def cannot_write(exc: sqlite3.Error) -> bool:
    """Whether SQLite found its place full, gone or read-only."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY
    )  # fmt: skip


def is_damaged(exc: sqlite3.Error) -> bool:
    """Whether SQLite found that its file is not what it wrote."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def index_file(place: Path | None, url: str) -> Path | None:
    """The index of the catalog at `url` below the folder `place` of `platform.cache_dir`; None for memory."""
    if place is None:
        return None
    try:
        folder = own_folder(place / "index")
        file = folder / f"{digest_of(url.encode())[7:31]}.db"
        if others_can_change(folder):
            return None
        if file.exists() and others_can_change(file):  # it comes back from the journal
            for path in folder.glob(f"{file.name}*"):
                path.unlink()
    except OSError:
        return None
    return file


def index_known(url: str) -> bool:
    """Whether this user has an index of a catalog at `url`: there was one."""
    file = index_file(cache_dir()[0], url)
    return file is not None and file.exists()


class Index:
    """One index file, or memory where `path` is None. Safe to use from several threads and processes."""

    def __init__(self, path: Path | None, place: str = "the catalog") -> None:
        self.path = path
        self.place = place  # of the journal, for messages
        self.lock = threading.RLock()
        self.held: set[str] = set()  # keys of small blobs that this process has seen in the store
        self.head: Head | None = None
        self.closed = False
        self._db: sqlite3.Connection | None = None
        self.compared: tuple[float, float, float] | None = None  # clocks (clock.check)
        self._held = False  # whether `before_fork` has the lock
        self._open_or_begin_anew()
        forks.watch(self)

    @property
    def db(self) -> sqlite3.Connection:
        """The open file; opened again after a fork."""
        if self.closed:
            raise BackendError(f"{self.place} was closed", hint="open it again")
        if self._db is None:
            self._reopen()
        assert self._db is not None
        return self._db

    @property
    def _reducer(self) -> Reducer:
        if self._db is None:
            self._reopen()
        return self._reduces

    def _reopen(self) -> None:
        with self.lock:
            if self.closed:
                raise BackendError(f"{self.place} was closed", hint="open it again")
            if self._db is None:
                self._open_or_begin_anew()

    def before_fork(self) -> None:
        """See `forks.Forks`: the file is closed, and opened again on the next use."""
        self._held = self.lock.acquire(timeout=forks.WAIT)
        ours = self._db is not None and self.path is not None and not self.closed
        if self._held and ours and not self.db.in_transaction:
            self.db.close()
            self._db = None

    def after_fork(self, *, child: bool) -> None:
        """See `forks.Forks`."""
        if child:
            self.lock = threading.RLock()
            if self._db is not None and not self.closed and (self.path is not None or not self._held):  # in use there
                forks.INHERITED.append(self._db)
                self._db = None
        elif self._held:
            self.lock.release()
        self._held = False

    def _open_or_begin_anew(self) -> None:
        try:
            self._open()
        except sqlite3.DatabaseError as exc:
            if cannot_write(exc):
                self.move_to_memory()
            else:
                self.discard()
                self._open()

    def _open(self) -> None:
        self.head = None
        self._db = sqlite3.connect(
            self.path or ":memory:", isolation_level=None, check_same_thread=False, timeout=60, cached_statements=256
        )
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.execute("PRAGMA cache_size=-65536")
        check_search(self.db)
        self._reduces = Reducer(self.db)
        if not self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            self._create()
        elif self.meta("schema") != SCHEMA:
            raise sqlite3.DatabaseError("another schema")
        self.load_head()

    def _create(self) -> None:
        with self:
            if not self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                for statement in (TABLES + CACHES).split(";\n"):
                    self.db.execute(statement)
                self.db.execute("INSERT INTO meta VALUES ('schema', ?)", (SCHEMA,))

    def load_head(self) -> None:
        """Forget what is kept in memory: the file says how far the state goes."""
        position = self.meta("position")
        self.head = None if position is None else Head(position, self.meta("digest"))
        self.epoch: int = self.meta("epoch") or 0  # of the newest entry
        self._reducer.load(self.meta("time") or 0)

    def discard(self) -> None:
        """Remove the file: it cannot be used, and comes back from the journal."""
        if self._db is not None:
            self._db.close()
        if self.path:
            for suffix in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def move_to_memory(self) -> None:
        """Begin anew in memory: the file cannot be written, as on a full disk, and may be good later."""
        with self.lock:
            if self._db is not None:
                self._db.close()
            self.path = None
            self._open()

    def reset(self) -> None:
        """Empty the state, to compute it again from the journal."""
        with self.lock:
            self.discard()
            self._open()

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        if self._db is not None:
            self._db.close()

    @property
    def erases(self) -> bool:
        """Whether anything was erased."""
        return self._reducer.erased

    @property
    def time(self) -> int:
        """The time of the newest entry, in milliseconds since 1970 (UTC)."""
        return self._reducer.time

    def meta(self, key: str) -> Any:
        """A value of the table `meta`, or None."""
        with self.lock:
            row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row and row[0]

    # -- transactions -------------------------------------------------------------------------------------------

    def __enter__(self) -> Index:
        """Begin a write transaction; other processes wait for at most a minute."""
        self.lock.acquire()
        try:
            with self.undamaged():
                self._begin()
                made = self.head is not None or self.db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
                if made and self.meta("position") != (self.head and self.head.position):
                    self.load_head()
        except BaseException:  # also of who stops waiting: nobody else would ever get the lock
            if self._db is not None and not self.closed and self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self.lock.release()
            raise
        return self

    def _begin(self) -> None:
        deadline, tries = clock.monotonic() + 60, 0
        while True:
            try:
                self.db.execute("PRAGMA busy_timeout=0")
                self.db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as exc:
                if cannot_write(exc):
                    raise
                if clock.monotonic() > deadline:
                    raise BackendError(f"the index {self.path} cannot be written: {exc}") from exc
                tries += 1
                clock.sleep(0.0 if tries < 50 else 0.0002)  # mostly it is a commit away

    def __exit__(self, kind: Any, *_: Any) -> None:
        done = False
        try:
            with self.undamaged():
                if kind is None:
                    self._flush()
                    self.db.execute("COMMIT")
                    done = True
        finally:
            try:
                if not done:
                    if self.db.in_transaction:  # SQLite itself gives up some when the disk is full
                        self.db.execute("ROLLBACK")
                    if self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                        self.load_head()  # else its tables were being made
            finally:
                self.lock.release()

    @contextmanager
    def undamaged(self) -> Iterator[None]:
        """Where SQLite finds the file damaged: throw it away, for the next use to make it from the journal, and raise
        `Damaged`."""
        try:
            yield
        except sqlite3.DatabaseError as exc:
            path = self.path
            if path is None or not is_damaged(exc):
                raise
            with self.lock:
                self.discard()
                self._db, self.head = None, None
            raise Damaged(
                f"the index {path} of {self.place} was damaged, and is thrown away: {exc}",
                hint="repeat: it comes back from the journal; nothing of the catalog is lost. Is that disk good?",
            ) from exc

    @contextmanager
    def cache(self) -> Iterator[None]:
        """A transaction on a cache: where it cannot be written, nothing is lost."""
        try:
            with self:
                yield
        except sqlite3.OperationalError as exc:
            if not cannot_write(exc):
                raise

    def note(self, key: str, value: str | float) -> None:
        """Remember a value for all processes of this user, as `meta` gives it; it may be lost."""
        with self.cache():
            self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def copy(self) -> Index:
        """The same state in memory, to try things on."""
        trial = Index(None, self.place)
        with self.lock:
            self.db.backup(trial.db)
        trial.load_head()
        return trial

    def follow(self, journal: Journal, stop: int | None = None) -> Stopped | None:
        """Catch up in a transaction of its own; in memory where the file cannot be written. Return why an entry cannot
        be read, where the journal goes on with one; all before it is applied. Raises `IntegrityError` where nothing can
        be read, an entry is missing, or what was read is not what the store holds."""
        begun = -1 if self.head is None else self.head.position
        try:
            with self:
                try:
                    self.catch_up(journal, stop)
                except (UpgradeRequired, IntegrityError) as exc:
                    if self.head is None or isinstance(exc, BlobMissing):  # a hole: it is not known what was there
                        raise
                    if self.head.position > begun:  # what came before is as new to us as the entry that does not fit
                        self._check_last(journal, exc)
                    return exc
        except _Before as found:
            with self:
                if found.position > begun + 1:
                    self.catch_up(journal, found.position)
            return found.problem
        except sqlite3.OperationalError as exc:
            if self.path is None or not cannot_write(exc):
                raise
            self.move_to_memory()
            return self.follow(journal, stop)
        return None

    def _check_last(self, journal: Journal, problem: Stopped) -> None:
        """Raise `problem` where the last entry that was applied is not the one that the store holds, but came from a
        segment; and `_Before` where the entry behind it does not continue it, and is itself continued: then the last
        one is the damaged one."""
        assert self.head is not None
        at = self.head.position
        entries = dict(journal.read(at, at + 1))
        if at not in entries or digest_of(entries[at]) != self.head.digest:
            raise problem
        try:
            (_, first), (_, second) = journal.read(at + 1, at + 3)
            breaks = parse(first)["previous"] != self.head.digest and parse(second)["previous"] == digest_of(first)
        except (ValueError, CatalogError, KeyError, TypeError):
            return
        if breaks and at > 0:
            raise _Before(at, problem)

    def _flush(self) -> None:
        self._reducer.write_back()
        if self.head is not None:
            self.db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                (
                    ("position", self.head.position),
                    ("digest", self.head.digest),
                    ("time", self.time),
                    ("epoch", self.epoch),
                ),
            )

    def catch_up(self, journal: Journal, stop: int | None = None) -> None:
        """Apply what the journal has beyond this index. Call inside a transaction. Raises `IntegrityError` at an entry
        that cannot be read, and `UpgradeRequired` at one that only a newer release understands; all before it is
        applied."""
        start = 0 if self.head is None else self.head.position + 1
        self._reducer.begin(empty=start == 0)
        stopped: Stopped | None = None
        epoch_of = getattr(journal, "epoch_of", lambda position: 0)
        with self.undamaged():
            try:
                for position, data in journal.read(start, stop):
                    self.apply(position, data, epoch=epoch_of(position))
            except BlobMissing:
                raise
            except (UpgradeRequired, IntegrityError) as exc:  # of the entry, or of a store that knows its digest
                exc.hint = exc.hint or DAMAGED
                stopped = exc
            self._reducer.end(empty=start == 0)
        if stopped is not None:
            raise stopped

    def apply(self, position: int, data: bytes, *, strict: bool = False, epoch: int = 0) -> None:
        """Take one entry of `epoch` into the state, inside a transaction. What breaks a rule is skipped and kept as
        rejected; with `strict` (a writer trying its own entry) it is raised as `Rejected`."""
        due = 0 if self.head is None else self.head.position + 1
        if position != due:
            raise IntegrityError(f"journal entry {position} of {self.place} came when {due} was due")
        entry = read_entry(data, position, None if self.head is None else self.head.digest, self.place, epoch)
        self._reducer.apply(entry, data, strict=strict)
        self.head = Head(position, entry.digest)
        self.epoch = entry.epoch

    # -- reads --------------------------------------------------------------------------------------------------

    def key(self, digest: str) -> str:
        """The storage key of a digest: `digest`, or `digest~k` after k sweeps of that content."""
        if not self._reducer.swept:
            return digest
        with self.lock:
            row = self.db.execute("SELECT count FROM swept WHERE digest = ?", (digest,)).fetchone()
        return f"{digest}~{row[0]}" if row else digest

    def relies(self, key: str) -> bool:
        """Whether what this key names may be needed: it was neither swept nor erased."""
        digest = key.partition("~")[0]
        with self.lock:
            return self.key(digest) == key and not self.is_erased(digest)

    def gave(self, key: str) -> bool:
        """Whether something is or was stored under this key; a void branch may have given further ones."""
        digest, _, count = key.partition("~")
        current = self.key(digest).partition("~")[2]
        return int(count or 0) <= int(current or 0)

    def is_erased(self, digest: str) -> bool:
        """Whether a content may not come back into this catalog."""
        with self.lock:
            return self._reducer.is_erased(digest)

    def refuse_erased(self, digest: str) -> None:
        """Raise `Rejected` (`erased`) for a content that may not come back into this catalog."""
        if self.is_erased(digest):
            raise erased(digest)

    def seen(self, intent: str, actor: str) -> int | None:
        """The position where an intent of this id and actor came, or was dropped for good; None where neither did."""
        rows = self.rows(
            "SELECT position FROM intents WHERE id = ? AND actor = ? UNION SELECT position FROM dropped WHERE id = ?",
            (intent, actor, intent),
        )
        return rows[0][0] if rows else None

    def rows(self, sql: str, params: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a read, as one list."""
        with self.lock:
            if self.closed:
                raise BackendError(f"{self.place} was closed", hint="open it again")
            with self.undamaged():
                return self.db.execute(sql, tuple(params)).fetchall()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let several reads see one state, whatever other processes apply between them."""
        with self.lock:
            begin = not self.closed and not self.db.in_transaction
            if begin:
                self.db.execute("BEGIN")
            try:
                yield
            finally:
                if begin and self.db.in_transaction:
                    self.db.execute("COMMIT")

    def dump(self) -> dict[str, list[list[Any]]]:
        """The whole state, table by table, for comparison. Row numbers are left out."""
        result: dict[str, list[list[Any]]] = {}
        for table in STATE:
            cursor = self.db.execute(f"SELECT * FROM {table}")
            result[table] = sorted(([*row] for row in cursor), key=repr)
        return result

    def event(self, position: int, ordinal: int) -> Mapping[str, Any]:
        """The event at a place of the journal: the `ordinal`th of its entry."""
        return self.events_at(position)[ordinal]

    def events_at(self, position: int) -> list[Mapping[str, Any]]:
        """The events of an entry, those of all its intents one after the other."""
        entry = parse(self.rows("SELECT data FROM entries WHERE position = ?", (position,))[0][0])
        return [event for intent in entry["intents"] for event in intent["events"]]

    def as_of(self, model: str, position: int) -> Index:
        """The state of one model at a past position, computed by the same reducer in memory."""
        past = Index(None)
        with past:
            for at, ordinal, seconds, actor in self.rows(
                "SELECT position, ordinal, time, actor FROM events WHERE (model = ? OR model IS NULL) AND position <= ?"
                " AND rejected IS NULL ORDER BY id",
                (model, position),
            ):
                past._reducer.time = round(seconds * 1000)
                event = self.event(at, ordinal)
                if event["type"] in SWEEPS:  # what it says of other models is not known here
                    nothing: dict[str, list[str]] = {key: [] for key in ("keys", "digests") if key in event}
                    event = {**event, **nothing, "versions": [pair for pair in event["versions"] if pair[0] == model]}
                past._reducer.reduce(event, Entry(at, None, past.time, (), {}, ""), actor)
        return past
