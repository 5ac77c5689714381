"""The index is a cache: a damaged one comes back, and who fails to begin a change locks out nobody."""

from __future__ import annotations

import random
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core import index as module
from catalog_core.errors import BackendError, CatalogError
from catalog_core.index import Index, index_file
from catalog_core.platform import cache_dir

pytestmark = pytest.mark.unit
PAGE = 4096


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    made = f"{getattr(request, 'param', 'file')}://{tmp_path}/catalog"
    with Catalog.open(made) as catalog:
        for number in range(30):
            catalog.save(f"m{number % 7}", {"w": np.full(3, number)}, description="words " * 20, tags={"n": number})
    return made


def file_of(catalog: Catalog) -> Path:
    file = index_file(cache_dir()[0], catalog.repository.url)
    assert file is not None
    return file


def use(catalog: Catalog) -> list[str]:
    """What reads all tables."""
    found = [version.ref for version in catalog.search("", limit=100)]
    assert len(list(catalog.search("words", limit=100))) == len(found)
    assert len(list(catalog.search("order by tags.n", limit=100))) == 30
    assert catalog.version("m1@1").tags and catalog.history()
    return found


def damage(file: Path, good: bytes, page: int) -> None:
    broken = bytearray(good)
    broken[page * PAGE : (page + 1) * PAGE] = random.Random(page).randbytes(PAGE)
    file.write_bytes(broken)


@pytest.mark.parametrize("url", ["file", "sqlite"], indirect=True)
def test_a_damaged_page_is_one_error_of_ours_and_the_next_try_is_right(url: str) -> None:
    with Catalog.open(url) as catalog:
        file, known = file_of(catalog), use(catalog)
    good, said = file.read_bytes(), 0
    for page in range(1, len(good) // PAGE, max(1, len(good) // PAGE // 25)):
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        damage(file, good, page)
        try:
            with Catalog.open(url) as catalog:
                use(catalog)
        except CatalogError as exc:
            said += 1
            assert str(file) in str(exc)
            assert "comes back from the journal" in str(exc.hint)
            with Catalog.open(url) as catalog:
                assert use(catalog) == known
    assert said


@pytest.mark.parametrize("url", ["file", "sqlite"], indirect=True)
@pytest.mark.parametrize("table", ["versions", "models", "entries", "events", "fields", "texts_data"])
def test_a_change_is_made_once_whatever_page_is_damaged(url: str, table: str) -> None:
    with Catalog.open(url) as catalog:
        file = file_of(catalog)
        index = catalog.repository.index
        (page,) = index.rows("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))[0]
    damage(file, file.read_bytes(), page - 1)
    for _ in range(2):
        try:
            with Catalog.open(url) as catalog:
                catalog.save("new", {"w": np.ones(3)}, description="words")
            break
        except BackendError as exc:
            assert "comes back from the journal" in str(exc.hint)
    with Catalog.open(url) as catalog:
        assert [version.ref for version in catalog.versions("new")] == ["new@1"]
        assert len(use(catalog)) == 31


def is_free(index: Index) -> bool:
    """Whether another thread gets the lock."""
    found: list[bool] = []

    def ask() -> None:
        found.append(index.lock.acquire(blocking=False))
        if found[0]:
            index.lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return found[0]


def test_who_stops_waiting_for_the_index_locks_out_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, other = Index(tmp_path / "i.db"), sqlite3.connect(tmp_path / "i.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.clock, "sleep", stop)
        with pytest.raises(KeyboardInterrupt), index:
            pass
    other.execute("ROLLBACK")
    other.close()
    assert is_free(index)
    index.note("a", 1.0)
    index.close()
    with pytest.raises(BackendError, match="closed"), index:
        pass
    assert is_free(index)


def test_who_fails_behind_the_begin_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else other processes would wait for a minute, and then fail."""
    index, other = Index(tmp_path / "i.db"), Index(tmp_path / "i.db")
    with other:
        other.db.execute("INSERT INTO meta VALUES ('position', 0), ('digest', 'x')")

    def fail(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(index, "load_head", fail)
        with pytest.raises(MemoryError), index:
            pass
    assert is_free(index)
    assert not index.db.in_transaction
    other.note("a", 1.0)
    index.close()
    other.close()
