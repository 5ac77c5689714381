"""One wrong clock: it is refused by the store's, and what it wrote before locks nobody out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import config, doctor
from catalog_core.catalog import Catalog
from catalog_core.errors import InvalidInput
from catalog_core.events import Intent, event, new_id, write_entry
from catalog_core.interfaces.store import BlobInfo
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.faults import FaultyStore
from catalog_core.testing.memory import MemoryStore, memory_catalog
from catalog_core.values import when

DAY = 86400.0
MODEL = {"w": np.zeros(3)}
real = time.time_ns


class Elsewhere(MemoryStore):
    """A server whose clock differs by `off` seconds."""

    off = 0.0

    def stat(self, key: str) -> BlobInfo | None:
        info = super().stat(key)
        return info and BlobInfo(key, info.size, info.time + self.off)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets this machine's clock so many seconds ahead."""

    def ahead(seconds: float) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: real() + int(seconds * 1e9))

    return ahead


@pytest.fixture(params=["sqlite", "file"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"{request.param}://{tmp_path}/catalog") as catalog:
        yield catalog


@pytest.mark.parametrize("days", [3, -3])
def test_a_machine_with_a_wrong_clock_is_refused_and_the_others_go_on(
    catalog: Catalog, local: Callable[[float], None], days: int
) -> None:
    """By the time that the file system gives a new file."""
    catalog.save("m", MODEL)
    local(days * DAY)
    for call in (
        lambda: catalog.save("m", MODEL),
        lambda: catalog.version("m").tag({"a": 1}),
        lambda: catalog.gc(),
    ):
        with pytest.raises(InvalidInput, match=f"3 days {'ahead of' if days > 0 else 'behind'} that of the store"):
            call()
    local(0)
    assert catalog.save("m", MODEL).number == 2
    assert abs(catalog.version("m").created - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize("days", [3, -3])
def test_the_time_of_a_server_counts(days: int) -> None:
    store = Elsewhere()
    with memory_catalog(store) as catalog:
        catalog.save("m", MODEL)
    store.off = -days * DAY
    with (
        memory_catalog(store) as catalog,
        pytest.raises(InvalidInput, match=r"3 days (ahead of|behind) that of the store .*; 5 minutes are allowed"),
    ):
        catalog.save("m", MODEL)
    store.off = 100.0
    with memory_catalog(store) as catalog:
        assert catalog.save("m", MODEL).number == 2


def test_a_store_may_tell_its_time_without_an_object(local: Callable[[float], None]) -> None:
    class Telling(MemoryStore):
        def clock(self) -> float:
            return time.time() - 4 * DAY

    with pytest.raises(InvalidInput, match="4 days ahead"):
        memory_catalog(Telling())


def test_the_store_is_asked_once_and_again_when_the_clock_was_set(local: Callable[[float], None]) -> None:
    store = FaultyStore(MemoryStore())
    asked: list[str] = []
    put = store.put
    store.put = lambda key, *rest: (asked.append(key), put(key, *rest))[1]  # type: ignore[method-assign]
    with memory_catalog(store) as catalog:
        for _ in range(3):
            catalog.save("m", MODEL)
        assert asked.count("probes/clock") == 1
        local(3 * DAY)
        with pytest.raises(InvalidInput, match="3 days ahead"):
            catalog.save("m", MODEL)
        assert asked.count("probes/clock") == 2
        local(0)
        catalog.save("m", MODEL)
        assert asked.count("probes/clock") == 3


def test_another_process_of_the_machine_does_not_ask_again(tmp_path: Path) -> None:
    store = Elsewhere()
    backend = ObjectStoreBackend(store, "memory", "memory://shared")
    with Catalog(backend, "one") as catalog:
        catalog.repository.begin()
    store.delete(["probes/clock"])
    with Catalog(backend, "one") as catalog:
        catalog.save("m", MODEL)
    assert store.stat("probes/clock") is None


def written_by_a_wrong_clock(catalog: Catalog, milliseconds: int) -> None:
    """Append an entry as a store writer without scruples does."""
    index, backend = catalog.repository.index, catalog.repository.backend

    def build(head: Any) -> bytes:
        made = [event("tags.set", model="none", number=1, set={}, unset=[])]
        return write_entry(head, milliseconds, [Intent(new_id(), "mallory\x1b[31m", milliseconds, head, tuple(made))])

    backend.journal.append(build, {}, time.monotonic() + 30)
    catalog.repository.refresh(force=True)
    assert index.time >= milliseconds


@pytest.mark.parametrize(
    "milliseconds",
    [
        pytest.param(int((time.time() + 3 * DAY) * 1000), id="in three days"),
        4102444800000,  # the year 2100
        253402300800000,  # the year 10000
        2**53 - 1,
    ],
)
def test_a_time_that_has_not_come_yet_locks_nobody_out_and_is_named(catalog: Catalog, milliseconds: int) -> None:
    catalog.save("m", MODEL)
    written_by_a_wrong_clock(catalog, milliseconds)
    version = catalog.save("m", MODEL)
    assert version.number == 2
    shown = [version.created, when(catalog.model("m").updated), *(item.time for item in catalog.history())]
    assert max(shown) <= datetime.now(UTC) + timedelta(minutes=5)
    assert repr(version)
    assert catalog._repr_html_()
    assert catalog.as_of("m", datetime.now(UTC))["versions"][-1]["number"] == 2
    assert catalog.fsck().clean
    found = {check.id: check for check in doctor.examine(config.resolve(catalog.url), write=False)}["times"]
    assert found.result == "warned"
    assert f"journal entry {catalog.position - 1} (by mallory" in found.cause
    assert "\x1b" not in found.cause


def test_times_before_1970_are_shown_too() -> None:
    assert when(-(2**53) / 1000).year == 1970


def test_the_doctor_is_content_with_times_that_have_come(catalog: Catalog) -> None:
    catalog.save("m", MODEL)
    found = {check.id: check for check in doctor.examine(config.resolve(catalog.url), write=False)}["times"]
    assert found.result == "passed"
