"""A catalog that was open when its process forked works on in both, and loses nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import forks
from catalog_core.catalog import Catalog
from catalog_core.errors import BackendError
from catalog_core.testing.contract import forked

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/catalog"


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    with Catalog.open(url) as catalog:
        yield catalog


def model(number: int) -> dict[str, Any]:
    return {"w": np.full(10, number)}


def test_child_and_parent_save_and_load(catalog: Catalog) -> None:
    catalog.save("m", model(0))

    def child() -> None:
        assert catalog.load("m")["w"][0] == catalog.position - 1
        catalog.save("m", model(catalog.position))
        assert catalog.load("m")["w"][0] == catalog.position - 1

    for _ in range(3):
        assert forked(child) is None
        child()
    assert [version.number for version in catalog.versions("m")] == [7, 6, 5, 4, 3, 2, 1]
    assert catalog.fsck().clean


def test_what_a_child_saves_outlives_a_parent_that_closed(url: str) -> None:
    """SQLite removes its log with the last connection; one that a child inherited would not count as one."""
    go, told = os.pipe(), os.pipe()
    catalog = Catalog.open(url)
    catalog.save("m", model(0))
    if os.fork() == 0:
        try:
            assert catalog.version("m").number == 1
            os.write(told[1], b"r")
            os.read(go[0], 1)
            catalog.save("m", model(1))
            assert catalog.load("m")["w"][0] == 1
            os.write(told[1], b"y")
        finally:
            os._exit(0)
    os.close(told[1])
    assert os.read(told[0], 1) == b"r"
    catalog.save("other", model(2))
    catalog.close()
    os.write(go[1], b".")
    assert os.read(told[0], 1) == b"y", "the child failed"
    assert os.read(told[0], 1) == b""
    with Catalog.open(url) as catalog:
        assert catalog.version("m").number == 2
        assert catalog.version("other").number == 1
        assert catalog.fsck().clean


def test_children_forked_while_a_thread_saves_save_too(catalog: Catalog) -> None:
    errors: list[BaseException] = []
    begun, stop = threading.Event(), threading.Event()

    def save() -> None:
        try:
            while not stop.is_set():
                catalog.save("parent", model(0))
                begun.set()
        except BaseException as exc:
            errors.append(exc)
            begun.set()

    thread = threading.Thread(target=save)
    thread.start()
    begun.wait()
    try:
        told = [forked(lambda: catalog.save("child", model(1))) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert told == [None] * 5, told
    assert not errors, errors
    assert catalog.version("child").number == 5
    assert catalog.fsck().clean


def test_a_fork_inside_a_transaction_leaves_it_to_the_parent(catalog: Catalog) -> None:
    catalog.save("m", model(0))
    index = catalog.repository.index
    with index:
        assert forked(lambda: catalog.load("m")) is None
        index.db.execute("INSERT OR REPLACE INTO meta VALUES ('here', 1)")
    assert index.meta("here") == 1
    assert forked(lambda: index.meta("here") == 1 or pytest.fail("the child does not see it")) is None


def test_a_closed_catalog_stays_closed_in_a_child(catalog: Catalog) -> None:
    catalog.save("m", model(0))
    catalog.close()

    def child() -> None:
        with pytest.raises(BackendError, match="closed"):
            catalog.versions("m")

    assert forked(child) is None
    child()


def test_a_lock_that_a_thread_held_is_free_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "WAIT", 0.0)
    lock = forks.Lock()
    taken, stop = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            stop.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()

    def child() -> None:
        with lock:
            pass

    assert forked(child) is None
    stop.set()
    thread.join()
    child()


def test_a_lock_may_be_taken_again_where_it_is_made_so() -> None:
    lock = forks.Lock(threading.RLock)

    def twice() -> None:
        with lock, lock:
            pass

    with lock:
        assert forked(twice) is None
        twice()
    assert forked(twice) is None
    twice()


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_who_forks_while_it_holds_a_lock_holds_it_in_both_processes(make: Any) -> None:
    lock = forks.Lock(make)
    context = lock.__enter__()
    assert context is None

    def leave() -> None:
        lock.__exit__()
        with lock:
            pass

    assert forked(leave) is None
    leave()
