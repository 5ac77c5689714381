"""The embedded default keeps the contract."""

from __future__ import annotations

import io
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from catalog_core.errors import DeadlineExceeded, IntegrityError, NotFound, ReadOnly, UnsafePlace, UpgradeRequired
from catalog_core.testing.contract import CONTENT, BackendContract, key_of
from catalog_sqlite.backend import SqliteBackend, open_backend


@pytest.fixture
def backend(tmp_path: Path) -> SqliteBackend:
    return open_backend(f"sqlite://{tmp_path}/catalog", {}, True)


class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> SqliteBackend:
        return open_backend(f"sqlite://{tmp_path}/catalog", {}, True)


def test_a_catalog_is_only_made_on_request(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_backend(f"sqlite://{tmp_path}/none", {}, False)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["nfs4", "fuse.eosxd", "lustre"])
def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {tmp_path}/far rw - {kind} x rw\n")
    monkeypatch.setenv("CATALOG_TEST_MOUNTS", str(mounts))
    with pytest.raises(UnsafePlace, match="file://"):
        open_backend(f"sqlite://{tmp_path}/far/catalog", {}, True)
    assert not (tmp_path / "far").exists()
    open_backend(f"sqlite://{tmp_path}/near", {}, True).close()


def test_read_only_refuses_every_write_and_sees_new_entries(backend: SqliteBackend, tmp_path: Path) -> None:
    backend.blobs.put(key_of(CONTENT), io.BytesIO(CONTENT), len(CONTENT))
    backend.blobs.put(key_of(b"x"), io.BytesIO(b"x"), 1)
    backend.close()
    reader = SqliteBackend(tmp_path / "catalog", writable=False)
    spare = tmp_path / "spare"
    spare.write_bytes(b"y")
    for write in (
        lambda: reader.journal.append(lambda head: b"{}", {}, time.monotonic() + 1),
        lambda: reader.blobs.put(key_of(b"y"), io.BytesIO(b"y"), 1),
        lambda: reader.blobs.put(key_of(CONTENT[1:]), io.BytesIO(CONTENT[1:]), len(CONTENT) - 1),
        lambda: reader.blobs.delete([key_of(CONTENT)]),
        lambda: reader.files.adopt(spare, key_of(b"y")),
        reader.files.staging,
    ):
        with pytest.raises(ReadOnly):
            write()
    assert [info.size for info in reader.blobs.list()].count(1) == 1
    writer = open_backend(f"sqlite://{tmp_path}/catalog", {}, False)
    for n in range(3):
        writer.journal.append(lambda head: b"{}", {}, time.monotonic() + 10)
        head = reader.journal.head()
        assert head is not None
        assert head.position == n


def test_a_held_lock_delays_writers_until_the_deadline_and_readers_not_at_all(backend: SqliteBackend) -> None:
    backend.journal.append(lambda head: b"{}", {}, time.monotonic() + 10)
    other = sqlite3.connect(backend.folder / "catalog.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DeadlineExceeded):
        backend.journal.append(lambda head: b"{}", {}, time.monotonic() + 0.1)
    assert len(list(backend.journal.read(0))) == 1
    other.execute("ROLLBACK")
    assert backend.journal.append(lambda head: b"{}", {}, time.monotonic() + 10)[0] == 1


def test_reads_wait_where_the_database_is_held_exclusively(backend: SqliteBackend) -> None:
    backend.journal.append(lambda head: b"{}", {}, time.monotonic() + 10)
    path = backend.folder / "catalog.db"
    backend.close()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA journal_mode=DELETE")
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
    timer.start()
    again = open_backend(f"sqlite://{path.parent}", {}, False)  # the change to WAL meets the lock, and waits
    assert len(list(again.journal.read(0))) == 1
    timer.join()
    other.close()


def test_a_failed_delete_leaves_no_transaction_open(backend: SqliteBackend) -> None:
    backend.blobs.put(key_of(b"x"), io.BytesIO(b"x"), 1)
    backend.db.execute("CREATE TRIGGER no BEFORE DELETE ON small BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(IntegrityError):
        backend.blobs.delete([key_of(b"x")])
    assert not backend.db.in_transaction
    assert backend.journal.append(lambda head: b"{}", {}, time.monotonic() + 10)[0] == 0


def test_a_gap_in_the_journal_is_told(backend: SqliteBackend) -> None:
    for _ in range(3):
        backend.journal.append(lambda head: b"{}", {}, time.monotonic() + 10)
    backend.db.execute("DELETE FROM entries WHERE position = 1")
    with pytest.raises(IntegrityError, match="entry 1 is missing"):
        list(backend.journal.read(0))


def test_a_file_of_a_later_release_asks_for_an_upgrade(tmp_path: Path) -> None:
    backend = open_backend(f"sqlite://{tmp_path}/c", {}, True)
    backend.db.execute("PRAGMA user_version = 99")
    backend.close()
    with pytest.raises(UpgradeRequired, match="schema 99"):
        open_backend(f"sqlite://{tmp_path}/c", {}, False)


def test_migrations_run_once_and_are_not_imported_again(tmp_path: Path) -> None:
    open_backend(f"sqlite://{tmp_path}/c", {}, True).close()
    code = (
        "import sys; from catalog_sqlite.backend import open_backend;"
        "b = open_backend(sys.argv[1], {}, False); print('sqlite_utils' in sys.modules);"
        "print(b.db.execute('SELECT count(*) FROM _sqlite_migrations').fetchone()[0])"
    )
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite://{tmp_path}/c"], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "1"]
