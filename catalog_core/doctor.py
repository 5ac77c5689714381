"""`catalog doctor`: whether a place keeps the promises that a catalog rests on, tried on the place itself."""

from __future__ import annotations

import io
import json
import multiprocessing
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import attrs

from catalog_core import clock, config, platform, plugins, state
from catalog_core.backends import connect, places
from catalog_core.branches import notices
from catalog_core.digests import parse
from catalog_core.errors import KeyTaken
from catalog_core.index import Index, index_file
from catalog_core.interfaces.store import ObjectStore, Replicated
from catalog_core.objectstore import PROBE
from catalog_core.records import Check, checked
from catalog_core.shown import clean
from catalog_core.values import AHEAD

PROCESSES = 3
ROUNDS = 30
CONTENT = bytes(range(256)) * 16


def examine(target: config.Target, *, write: bool = True, rounds: int = ROUNDS) -> Iterator[Check]:
    """Check a place one promise after the other; what cannot be tried because an earlier one failed is skipped.

    With `write` it puts, races for, reads and removes objects below `probes/`; a race of several processes that was
    passed is noted there, and the place then counts as safe for many writers. Nothing of a catalog is touched.
    """
    yield from _machine()
    spec = plugins.registry().backend_for(target.url)
    opened: list[Any] = []
    yield _timed("open", lambda: opened.append(connect(target, create=write)))
    if not opened:
        return
    backend = opened[0]
    try:
        yield checked("times", lambda: _times(backend))
        if isinstance(getattr(backend, "store", None), Replicated):
            yield checked("epochs", lambda: _epochs(backend))
        if spec.doctor is not None:
            more = {"parts": places(spec, target)} if spec.parts else {}
            own = list(plugins.registry().load(spec.doctor, spec.extra)(target.url, dict(target.options), **more))
            yield from own
            if any(check.result == "failed" for check in own):
                return
        store = getattr(backend, "store", None)
        if store is None:
            yield Check("probe", "skipped", 0.0, f"{spec.name} is no object store: its transactions keep the promises")
        elif not write or not backend.capabilities.writable:
            yield Check("probe", "skipped", 0.0, "nothing is written" if not write else "this user may not write here")
        else:
            yield from _probe(store, target, rounds)
    finally:
        backend.close()


def _machine() -> Iterator[Check]:
    place, why = platform.cache_dir()
    yield Check("index and cache", "passed" if place else "warned", 0.0, why)
    problems = plugins.registry().problems
    told = "; ".join(f"{problem.plugin}: {problem.message}" for problem in problems)
    yield Check("plug-ins", "warned" if problems else "passed", 0.0, told)
    yield Check("governance", "passed", 0.0, "advisory: no root keys, an actor is only a name")


def _times(backend: Any) -> tuple[str, str]:
    """Whether the journal holds times that have not come yet: the first entry that has one, and whose it is."""
    index = Index(index_file(platform.cache_dir()[0], backend.url), backend.url)
    try:
        index.follow(backend.journal)
        limit = time.time() + AHEAD
        found = state.first_after(index, limit)
        if index.time / 1000 <= limit:
            return "passed", ""
        entry = parse(found[1]) if found else {}
        who = ", ".join(dict.fromkeys(clean(str(intent["actor"])) for intent in entry.get("intents", ())))
        at = f"journal entry {found[0]} (by {who})" if found else "the newest journal entry"
        return "warned", (
            f"{at} was written by a clock that was {clock.told(index.time / 1000 - time.time())} ahead: times from "
            "there on are shown as now until then; nothing else depends on them"
        )
    finally:
        index.close()


@attrs.frozen
class _Opened:
    """What `branches.notices` needs of a repository."""

    backend: Any
    index: Index
    parts: Replicated
    url: str
    void: dict[Any, Any] = attrs.field(factory=dict)


def _epochs(backend: Any) -> tuple[str, str]:
    """Whether a hybrid has rival epochs, or changes that a failover abandoned."""
    index = Index(index_file(platform.cache_dir()[0], backend.url), backend.url)
    try:
        told = notices(cast("Any", _Opened(backend, index, backend.store, backend.url)))
    finally:
        index.close()
    return ("warned" if told else "passed"), "; ".join(clean(line) for line in told)


def _timed(name: str, ask: Callable[[], str | None]) -> Check:
    def verdict() -> tuple[str, str]:
        try:
            return "passed", ask() or ""
        except AssertionError as exc:
            return "failed", f"{exc}: a catalog is not safe here"

    return checked(name, verdict)


def _expect(held: bool, otherwise: str) -> None:
    if not held:
        raise AssertionError(otherwise)


def _read(store: ObjectStore, key: str, start: int = 0, length: int | None = None) -> bytes:
    with store.get(key, start, length) as stream:
        return stream.read()


def _probe(store: ObjectStore, target: config.Target, rounds: int) -> Iterator[Check]:
    folder = f"probes/{secrets.token_hex(8)}"
    key = f"{folder}/content"

    def write() -> None:
        store.put(key, io.BytesIO(CONTENT), len(CONTENT), "content")
        store.put(key, io.BytesIO(CONTENT), len(CONTENT), "content")

    def read() -> None:
        _expect(_read(store, key) == CONTENT, "other bytes came back than were put")
        _expect(_read(store, key, 100, 50) == CONTENT[100:150], "a range came back wrong")

    def stat() -> str:
        info = store.stat(key)
        _expect(info is not None and info.size == len(CONTENT), "what was put is not seen, or has another size")
        _expect(store.stat(f"{folder}/missing") is None, "what was never put is seen")
        assert info is not None
        skew = info.time - time.time()
        _expect(abs(skew) < 300, f"the clocks differ by {skew:.0f} s: set this machine's (NTP)")
        return f"clocks differ by {abs(skew):.1f} s"

    def listed() -> None:
        found = [info.key for info in store.list(folder + "/")]
        _expect(found == [key], f"the listing shows {len(found)} objects, not one")

    def exclusive() -> None:
        store.put(f"{folder}/once", io.BytesIO(b"1"), 1, "exclusive")
        try:
            store.put(f"{folder}/once", io.BytesIO(b"2"), 1, "exclusive")
        except KeyTaken:
            _expect(_read(store, f"{folder}/once") == b"1", "the loser of an exclusive put changed the object")
            return
        raise AssertionError("two exclusive puts of one key were accepted")

    steps = {"write": write, "read": read, "stat": stat, "list": listed, "exclusive": exclusive}
    failed = False
    try:
        for name, step in steps.items():
            check = _timed(name, step)
            failed |= check.result == "failed"
            yield check
            if name == "write" and failed:
                return
        if failed:
            yield Check("race", "skipped", 0.0, "an earlier check failed; until it passes, one writer at a time")
            return
        check = _timed("race", lambda: race(target, folder, rounds))
        if check.result == "passed":
            told = {"result": "passed", "rounds": rounds, "processes": PROCESSES, "time": round(time.time()),
                    "by": platform.actor()}  # fmt: skip
            note = json.dumps(told).encode()
            store.put(PROBE, io.BytesIO(note), len(note), "hint")
        yield check
    finally:
        left = [info.key for info in store.list(folder + "/")]
        yield _timed("delete", lambda: store.delete(left))


def race(target: config.Target, folder: str, rounds: int) -> str:
    """Several processes put the same keys, `exclusive`, at the same time; each key must have one winner, whose bytes
    are what is read. Raises `AssertionError` that says in how many rounds it was otherwise."""
    context = multiprocessing.get_context("spawn")
    begin = time.time() + 2.0
    with context.Pool(PROCESSES) as pool:
        work = [(target, folder, rounds, number, begin) for number in range(PROCESSES)]
        won = pool.starmap_async(_racer, work).get(timeout=60 + 2.0 * rounds)
    backend = connect(target, create=False)
    try:
        wrong = 0
        for turn in range(rounds):
            winners = [number for number in range(PROCESSES) if turn in won[number]]
            held = len(winners) == 1 and _read(backend.store, f"{folder}/race-{turn}") == _mark(winners[0])
            wrong += not held
    finally:
        backend.close()
    _expect(wrong == 0, f"{wrong} of {rounds} races had no single winner: one writer at a time")
    return f"{rounds} races of {PROCESSES} processes, one winner each"


def _mark(number: int) -> bytes:
    return b"%d" % number * 2000


def _racer(target: config.Target, folder: str, rounds: int, number: int, begin: float) -> list[int]:
    """The rounds that this process won."""
    backend = connect(target, create=False)
    won = []
    try:
        for turn in range(rounds):
            time.sleep(max(0.0, begin + turn * 0.02 - time.time()))  # all at about the same moment
            try:
                backend.store.put(f"{folder}/race-{turn}", io.BytesIO(_mark(number)), 2000, "exclusive")
                won.append(turn)
            except KeyTaken:
                continue
    finally:
        backend.close()
    return won
