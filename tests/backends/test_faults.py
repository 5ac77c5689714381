"""Errors and lost replies of a store lose no entry and write none twice."""

from __future__ import annotations

import doctest
import io
import itertools
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from catalog_core.digests import digest_of
from catalog_core.errors import BackendError, DeadlineExceeded, KeyTaken
from catalog_core.interfaces.backend import Head
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing import faults, memory
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_core.testing.faults import Death, FaultyStore
from catalog_core.testing.memory import MemoryStore, memory_catalog
from catalog_files.store import open_store


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


@pytest.fixture
def backend(store: FaultyStore) -> ObjectStoreBackend:
    return ObjectStoreBackend(store, "faulty", "faulty://")


def soon() -> float:
    return time.monotonic() + 20


class TestStoreContract(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> FaultyStore:
        return FaultyStore(MemoryStore(), latency=0.0002, bandwidth=1e9)


class TestSlowBackend(BackendContract):
    @pytest.fixture
    def backend(self) -> ObjectStoreBackend:
        return ObjectStoreBackend(FaultyStore(MemoryStore(), latency=0.0002), "faulty", "faulty://")


class TestSlowFiles(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> ObjectStoreBackend:
        return ObjectStoreBackend(
            FaultyStore(open_store(f"file://{tmp_path}/files", {}, True), latency=0.0002), "faulty", "x://"
        )


def test_a_lost_reply_does_not_append_twice(store: FaultyStore, backend: ObjectStoreBackend) -> None:
    store.fail("put", when="after")
    assert backend.journal.append(lambda head: b'"a"', {}, soon()) == (0, b'"a"')
    assert backend.journal.append(lambda head: b'"b"', {}, soon()) == (1, b'"b"')
    assert list(backend.journal.read(0)) == [(0, b'"a"'), (1, b'"b"')]


def test_key_taken_by_our_own_repeated_put_is_ours(store: FaultyStore, backend: ObjectStoreBackend) -> None:
    store.fail("put", when="after", error=KeyTaken("the client library tried again"))
    assert backend.journal.append(lambda head: b'"a"', {}, soon()) == (0, b'"a"')
    assert len(list(backend.journal.read(0))) == 1


def test_a_put_that_did_nothing_reaches_the_caller(store: FaultyStore, backend: ObjectStoreBackend) -> None:
    store.fail("put", when="before")
    with pytest.raises(BackendError, match="on request"):
        backend.journal.append(lambda head: b'"a"', {}, soon())
    assert list(backend.journal.read(0)) == []
    assert backend.journal.append(lambda head: b'"a"', {}, soon())[0] == 0


def test_a_loser_builds_again_on_the_winners_head(store: FaultyStore, backend: ObjectStoreBackend) -> None:
    other = ObjectStoreBackend(store.store, "other", "other://")
    heads: list[Head | None] = []

    def build(head: Head | None) -> bytes:
        heads.append(head)
        if len(heads) == 1:
            other.journal.append(lambda head: b'"other"', {}, soon())
        return b'"ours"'

    assert backend.journal.append(build, {}, soon()) == (1, b'"ours"')
    assert heads == [None, Head(0, digest_of(b'"other"'))]


def test_losing_until_the_deadline_says_so(store: FaultyStore, backend: ObjectStoreBackend) -> None:
    other = ObjectStoreBackend(store.store, "other", "other://")
    count = 0

    def build(head: object) -> bytes:
        nonlocal count
        count += 1
        other.journal.append(lambda head: b'"other %d"' % count, {}, soon())
        return b'"ours"'

    with pytest.raises(DeadlineExceeded):
        backend.journal.append(build, {}, time.monotonic() + 0.05)
    assert all(data != b'"ours"' for _, data in other.journal.read(0))


def test_a_blob_whose_reply_was_lost_is_there_and_put_again(store: FaultyStore, backend: ObjectStoreBackend) -> None:
    key = "sha256:" + "a" * 64
    store.fail("put", when="after")
    with pytest.raises(BackendError):
        backend.blobs.put(key, io.BytesIO(b"x"), 1)
    backend.blobs.put(key, io.BytesIO(b"x"), 1)
    assert backend.blobs.open(key).read() == b"x"
    assert store.calls["put"] == 1


def test_the_examples_of_the_modules_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path))
    for module in (faults, memory):
        result = doctest.testmod(module)
        assert (result.failed, result.attempted > 2) == (0, True)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_that_dies_at_any_call_publishes_all_or_nothing(
    when: Literal["before", "after"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path))
    old, new = ({"w": np.arange(30_000, dtype="f4") + n} for n in (0, 1))
    outcomes = []
    for nth in itertools.count(1):
        inner = MemoryStore()
        with memory_catalog(inner) as catalog:
            catalog.save("m", old)
        store = FaultyStore(inner)
        writer = memory_catalog(store)
        store.die(nth, when)
        try:
            writer.save("m", new, alias="champion")
            died = False
        except Death:
            died = True
        with memory_catalog(inner) as reader:
            newest = reader.version("m").number
            outcomes.append(newest)
            assert np.array_equal(reader.load(f"m@{newest}")["w"], (old, new)[newest - 1]["w"])
            assert reader.model("m").aliases == ({"champion": 2} if newest == 2 else {})
            assert reader.fsck().clean
            assert reader.save("m", new).number == newest + 1
            reader.gc(grace=0)
            assert np.array_equal(reader.load("m")["w"], new["w"])
        if not died:
            break
    assert {1, 2} == set(outcomes) and outcomes == sorted(outcomes) and len(outcomes) > 5
