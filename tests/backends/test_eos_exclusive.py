"""An exclusive key has one winner: on a real server, and where rename follows EOS's rules at their worst."""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from clock import Clock
from eos_race import EosRules, race
from xrootd_server import XrootdServer

from catalog_core import Catalog
from catalog_core.errors import IntegrityError, KeyTaken, ReadOnly
from catalog_core.testing.memory import memory_catalog
from catalog_eos.store import EosStore, open_store

pytestmark = pytest.mark.server


def _race(url: str, rules: str, processes: int, rounds: int) -> None:
    """Every round has one winner, and its bytes are what is there."""
    context = multiprocessing.get_context("spawn")  # XRootD's threads do not outlive a fork
    barrier, results = context.Barrier(processes), context.Queue()
    racers = [
        context.Process(target=race, args=(url, rules, me, rounds, barrier, results), daemon=True)
        for me in range(processes)
    ]
    for racer in racers:
        racer.start()
    won = dict(results.get(timeout=1200) for _ in racers)
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    store = open_store(url, {}, False)
    count = Counter(number for numbers in won.values() for number in numbers)
    assert dict(count) == dict.fromkeys(range(rounds), 1)
    for me, numbers in won.items():
        for number in numbers:
            assert store.get(f"race/{number:06}").read().startswith(b"%d of %d " % (me, number))
    assert [info.key for info in store.list("race/")] == [f"race/{number:06}" for number in range(rounds)]
    assert list(store.calls.entries("claims")) == []
    assert list(store.calls.entries("tmp")) == []
    assert list(store.calls.entries("overwritten")) == []
    assert min(map(len, won.values())) > 0 or rounds < 100  # all took part


@pytest.mark.parametrize("rules", ["posix", "eos"])
@pytest.mark.parametrize("processes", [2, 4])
def test_of_several_processes_one_wins(xrootd: XrootdServer, rules: str, processes: int) -> None:
    _race(xrootd.fresh()[0], rules, processes, 100)


@pytest.mark.parametrize("rules", ["posix", "eos"])
def test_of_several_processes_on_a_mounted_folder_one_wins(tmp_path: Path, rules: str) -> None:
    _race(f"eos://{tmp_path}/models", rules, 3, 100)


@pytest.mark.campaign
@pytest.mark.parametrize("rules", ["posix", "eos"])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_of_several_processes_one_wins_three_thousand_times(xrootd: XrootdServer, rules: str, processes: int) -> None:
    _race(xrootd.fresh()[0], rules, processes, 3000)


class Gate:
    """Stops whoever comes first, until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, source: str, target: str) -> None:
        if not self.reached.is_set():
            self.reached.set()
            assert self.opened.wait(30)


class Late:
    """`calls` whose rename begins only when the gate opens: a request that was held up on its way."""

    def __init__(self, calls: object, gate: Gate) -> None:
        self._calls = calls
        self._gate = gate

    def __getattr__(self, name: str) -> object:
        return getattr(self._calls, name)

    def move(self, source: str, target: str, *, once: bool = False) -> bool:
        self._gate(source, target)
        return self._calls.move(source, target, once=once)  # type: ignore[attr-defined,no-any-return]


def _put(store: EosStore, text: bytes, key: str = "k") -> str:
    try:
        store.put(key, io.BytesIO(text), len(text), "exclusive")
    except KeyTaken:
        return "lost"
    return "won"


@contextmanager
def _held(store: EosStore, gate: Gate) -> Iterator[list[str]]:
    """Somebody whose put is held at the gate, which opens at the end; its outcome is in the list then."""
    outcome: list[str] = []
    thread = threading.Thread(target=lambda: outcome.append(_put(store, b"early")))
    thread.start()
    assert gate.reached.wait(30)
    yield outcome
    gate.opened.set()
    thread.join(30)


def _eos(url: str, gate: Gate | None = None, lease: float = 12.0, pinned: bool = False) -> EosStore:
    """A store on a server with EOS's rename."""
    rules = EosRules(open_store(url, {}, True).calls, gate or (lambda source, target: None), pinned)
    return EosStore(rules, lease)  # type: ignore[arg-type]


def test_who_holds_a_claim_is_waited_for_even_inside_its_rename(xrootd: XrootdServer) -> None:
    url = xrootd.fresh()[0]
    gate, second = Gate(), []
    with _held(_eos(url, gate), gate) as first:
        other = threading.Thread(target=lambda: second.append(_put(_eos(url), b"late")))
        other.start()
        other.join(0.5)
        assert other.is_alive()
    other.join(30)
    assert (first, second) == (["won"], ["lost"])
    assert _eos(url).get("k").read() == b"early"


@pytest.mark.parametrize("rules", ["posix", "eos"])
def test_a_rename_that_comes_after_its_successors_loses(xrootd: XrootdServer, rules: str) -> None:
    url = xrootd.fresh()[0]
    gate = Gate()
    early = EosStore(open_store(url, {}, True).calls, 2.0) if rules == "posix" else _eos(url, lease=2.0)
    early.calls = Late(early.calls, gate)  # type: ignore[assignment]
    with _held(early, gate) as first:
        assert _put(_eos(url, lease=1.0), b"late") == "won"  # it took the second claim
    assert first == ["lost"]
    store = _eos(url)
    assert store.get("k").read() == b"late"
    assert [info.key for info in store.list("")] == ["k"]
    assert [name for name, _ in store.calls.entries("k")] == ["entry"]
    assert store.calls.entries("claims") == store.calls.entries("tmp") == []


def _overtaken(url: str, pinned: bool) -> tuple[Catalog, Catalog]:
    """Two catalogs, the first of which slept through its lease between the look and the act of the rename that
    publishes its second entry, while the second took its place; both have saved by their own account."""
    with memory_catalog(open_store(url, {}, True)) as catalog:
        catalog.save("m", {"w": np.zeros(3)})
    gate = Gate()
    sleeper, successor = memory_catalog(_eos(url, gate, 2.0, pinned)), memory_catalog(_eos(url, lease=1.0))
    # it asked for the store's time before: the gate is there for the entry, not for the probe
    sleeper.repository.index.compared = time.time_ns() / 1e9, time.monotonic(), 0.0
    sleeping = threading.Thread(target=lambda: sleeper.save("m", {"w": np.ones(3)}))
    sleeping.start()
    assert gate.reached.wait(30)
    assert successor.save("m", {"w": np.full(3, 2.0)}).number == 2
    gate.opened.set()
    sleeping.join(30)
    return sleeper, successor


def test_a_rename_that_lost_its_lease_finds_nothing_to_publish(xrootd: XrootdServer) -> None:
    url = xrootd.fresh()[0]
    sleeper, successor = _overtaken(url, pinned=False)
    np.testing.assert_array_equal(successor.load("m@2")["w"], np.full(3, 2.0))
    np.testing.assert_array_equal(sleeper.load("m@3")["w"], np.ones(3))  # it saved again, behind its successor
    with memory_catalog(open_store(url, {}, False)) as catalog:
        assert catalog.fsck().clean
        assert [version.number for version in catalog.versions("m")] == [3, 2, 1]


def test_what_is_left_is_noticed(xrootd: XrootdServer) -> None:
    """If the server itself holds a rename for longer than half a lease, past its look at the source, and overwrites
    then: the successor's entry is gone. The chain shows it to everybody as soon as the successor goes on."""
    url = xrootd.fresh()[0]
    sleeper, successor = _overtaken(url, pinned=True)
    np.testing.assert_array_equal(sleeper.load("m@2")["w"], np.ones(3))
    successor.save("m", {"w": np.full(3, 3.0)})
    with pytest.raises(IntegrityError, match=r"entry 3 .* does not continue the chain"):
        sleeper.save("m", {"w": np.zeros(1)})
    with memory_catalog(open_store(url, {}, False)) as newcomer:  # what comes before it is read
        assert newcomer.position == 2
        with pytest.raises(IntegrityError, match=r"entry 3 .* does not continue the chain"):
            newcomer.save("m", {"w": np.zeros(1)})


def test_a_claim_of_the_dead_is_passed_over_and_swept(xrootd: XrootdServer) -> None:
    url = xrootd.fresh()[0]
    dead = _eos(url, lease=0.5)
    assert dead.calls.make("claims/k.1")
    assert dead.calls.make("claims/never.1")
    assert _put(_eos(url, lease=0.5), b"next") == "won"
    assert [name for name, _ in dead.calls.entries("claims")] == ["never.1"]
    assert dead.sweep_uploads(-1) == 0  # somebody may hold it
    assert _eos(url, lease=0.0).sweep_uploads(-1) == 1


def test_a_claim_that_was_made_anew_is_waited_for_anew(xrootd: XrootdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = xrootd.fresh()[0]
    store = _eos(url, lease=2.0)
    assert store.calls.make("claims/k~1.1")  # of somebody

    def anew(waited: float) -> None:
        if 1.0 <= waited < 1.5:
            os.utime(xrootd.path(url) / "claims/k~1.1", (1, 1))  # of somebody else, since now

    clock = Clock(anew)
    monkeypatch.setattr("catalog_eos.store.time", clock)
    assert _put(store, b"text", "k~1") == "won"
    assert clock.waited > 4  # what was left of the first lease, and all of the second


def test_the_fence_knows_a_key_with_a_tilde(xrootd: XrootdServer) -> None:
    store = _eos(xrootd.fresh()[0])
    for name in ("k~1.1~aa", "k~2.1~aa", "~bb"):
        store.calls.upload(f"tmp/{name}/entry", io.BytesIO(b"x"), 1)
    store._fence(["k~1.1"])
    assert sorted(name for name, _ in store.calls.entries("tmp")) == ["k~2.1~aa", "~bb"]


def test_a_put_that_fails_gives_its_claim_back(xrootd: XrootdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _eos(xrootd.fresh()[0])

    def refuse(*args: object) -> int:
        raise ReadOnly("no")

    with monkeypatch.context() as patched:
        patched.setattr(store.calls._calls, "upload", refuse)  # type: ignore[attr-defined]
        with pytest.raises(ReadOnly):
            _put(store, b"first")
    assert store.calls.entries("claims") == []
    assert _put(store, b"second") == "won"
