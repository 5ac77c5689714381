"""Golden journals mean what they meant, entries that are broken stop every reader with one clear error, and those of a
newer release leave readable what comes before them."""

from __future__ import annotations

import doctest
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_core import Catalog
from catalog_core.digests import canonical
from catalog_core.errors import IntegrityError, UpgradeRequired
from catalog_core.events import MAX_ENTRY, read_entry
from catalog_core.index import Index
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing import golden
from catalog_core.testing.memory import MemoryStore

SCRIPT = Path(__file__).with_name("make_golden.py")
NAMES = golden.names()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def opened(place: Path) -> Iterator[Callable[[str], Catalog]]:
    """A golden journal as a catalog in memory."""
    catalogs: list[Catalog] = []

    def open(name: str) -> Catalog:
        backend = ObjectStoreBackend(MemoryStore(), "memory", f"memory://{place}/{name}")
        golden.replay(backend, golden.entries(name))
        catalogs.append(Catalog(backend, "golden"))
        return catalogs[-1]

    yield open
    for catalog in catalogs:
        catalog.close()


def test_every_kind_of_journal_is_there() -> None:
    assert {"every-event", "rejected", "replays", "retries", "sweeps", "unknown-ignored", "unknown-critical"} <= set(
        NAMES
    )
    intents = _intents("every-event") + _intents("erasures") + _intents("replays")
    types = {event["type"] for intent in intents for event in intent["events"]}
    from catalog_core.events import FIELDS

    assert types == set(FIELDS)


def _intents(name: str) -> list[dict[str, Any]]:
    return [intent for data in golden.entries(name) for intent in json.loads(data)["intents"]]


@pytest.mark.parametrize("name", NAMES)
def test_the_script_writes_what_is_shipped(name: str, place: Path) -> None:
    functions = runpy.run_path(str(SCRIPT))
    write = next(f for f in functions["JOURNALS"] if f.__name__.replace("_", "-") == name)
    for _ in range(2):
        journal = functions["Journal"]()
        write(journal)
        assert journal.entries == golden.entries(name)


def test_the_script_writes_the_states_too(place: Path) -> None:
    out = place / "out"
    out.mkdir()
    runpy.run_path(str(SCRIPT))["main"](out)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{n}.{end}" for n in NAMES for end in ("json", "jsonl")
    )
    for name in NAMES:
        assert json.loads((out / f"{name}.json").read_text()) == golden.expected(name)


@pytest.mark.parametrize("scheme", ["memory", "file", "sqlite"])
@pytest.mark.parametrize("name", NAMES)
def test_a_golden_journal_means_what_it_meant(name: str, scheme: str, place: Path, opened: Any) -> None:
    if scheme == "memory":
        catalog = opened(name)
    else:
        empty = _empty(scheme, place / name)
        golden.replay(empty, golden.entries(name))
        catalog = Catalog(empty, "golden")
    assert golden.state(catalog) == golden.expected(name)
    catalog.close()


def _empty(scheme: str, folder: Path) -> Any:
    from catalog_core import plugins

    spec = plugins.registry().backend_for(f"{scheme}://")
    made = plugins.registry().load(spec.factory)(f"{scheme}://{folder}", {}, True)
    return made if hasattr(made, "journal") else ObjectStoreBackend(made, scheme, f"{scheme}://{folder}")


@pytest.mark.parametrize("name", NAMES)
def test_entries_one_by_one_and_all_at_once_give_one_state(name: str) -> None:
    store = ObjectStoreBackend(MemoryStore(), "memory", "memory://")
    golden.replay(store, golden.entries(name))
    whole, steps = Index(None), Index(None)
    for index, stops in ((whole, [None]), (steps, range(1, len(golden.entries(name)) + 1))):
        for stop in stops:
            try:
                with index:
                    index.catch_up(store.journal, stop)
            except UpgradeRequired:
                assert golden.expected(name)["stopped"] is not None
    if golden.expected(name)["stopped"] is None:
        assert whole.dump() == steps.dump()
        assert whole.head == steps.head
    else:
        assert steps.head is not None and steps.head.position == golden.expected(name)["stopped"] - 1


@pytest.mark.parametrize("name", ["unknown-critical", "unknown-version"])
def test_behind_an_entry_of_a_newer_release_all_reads_work_and_no_write_does(name: str, opened: Any) -> None:
    catalog = opened(name)
    assert not catalog.writable
    assert catalog.version("m").number == 1 and len(catalog.search("m")) == 1 and catalog.history("m")
    length = len(list(catalog.repository.backend.journal.read(0)))
    for write in (
        lambda: catalog.version("m@1").tag(a=1),
        lambda: catalog.save("m", {}),
        lambda: catalog.model("m").delete(),
        lambda: catalog.gc(grace=0),
    ):
        with pytest.raises(UpgradeRequired, match="not known to this release") as caught:
            write()
        assert "pip install -U" in (caught.value.hint or "")
    assert len(list(catalog.repository.backend.journal.read(0))) == length
    assert not catalog.fsck().clean


def test_a_catalog_of_another_format_is_not_taken_for_an_empty_place(place: Path) -> None:
    backend = ObjectStoreBackend(MemoryStore(), "memory", f"memory://{place}/new")
    golden.replay(backend, [golden.entries("retries")[0].replace(b'"format":1', b'"format":2')])
    with pytest.raises(UpgradeRequired, match="format 2"):
        Catalog(backend, "golden")


# -- broken entries --------------------------------------------------------------------------------------------------

FIRST, SECOND = golden.entries("retries")[:2]


def _changed(**values: Any) -> bytes:
    return canonical({**json.loads(SECOND), **values})


def _intent(**values: Any) -> bytes:
    return _changed(intents=[{**json.loads(SECOND)["intents"][0], **values}])


def _event(**values: Any) -> bytes:
    return _intent(events=[{**json.loads(SECOND)["intents"][0]["events"][0], **values}])


BROKEN = {
    "position": _changed(position=2),
    "previous": _changed(previous="sha256:" + "0" * 64),
    "no previous": _changed(previous=None),
    "epoch": _changed(epoch=1),
    "a key twice": SECOND.replace(b'"epoch":0', b'"epoch":0,"epoch":0'),
    "NaN": SECOND.replace(b'"size":100', b'"size":NaN'),
    "Infinity": SECOND.replace(b'"size":100', b'"size":-Infinity'),
    "a number beyond all doubles": SECOND.replace(b'"size":100', b'"size":1e999'),
    "an integer beyond 2^53-1": SECOND.replace(b'"size":100', b'"size":9007199254740993'),
    "a negative one": SECOND.replace(b'"size":100', b'"size":-9007199254740993'),
    "over 1 MiB": SECOND.replace(b'"size":100', b'"size":100' + b" " * MAX_ENTRY),
    "cut short": SECOND[:-1],
    "more behind it": SECOND + b"{}",
    "no UTF-8": SECOND.replace(b"alice", b"\xff\xfe"),
    "nothing": b"",
    "a list": b"[]",
    "nested too deep": b"[" * 100_000,
    "nested 501 deep": SECOND.replace(b'"size":100', b'"size":' + b"[" * 496 + b"]" * 496),
    "half a surrogate pair": SECOND.replace(b"alice", b"a\\ud800"),
    "no intents": _changed(intents=None),
    "intents of another kind": _changed(intents={"a": 1}),
    "no time": _changed(time="now"),
    "time of day": _changed(time=1.5),
    "blobs of another kind": _changed(blobs=["x"]),
    "a blob by another name": _changed(blobs={"md5:1": "eA=="}),
    "a blob that is no text": _changed(blobs={"sha256:" + "0" * 64: 1}),
    "an id that is no text": _intent(id=7),
    "an actor that is no text": _intent(actor=["me"]),
    "a base with more fields": _intent(based_on={"position": 0, "digest": "x", "more": 1}),
    "events of another kind": _intent(events="x"),
    "an event without type": _intent(events=[{"v": 1}]),
    "an event without version": _intent(events=[{"type": "model.deleted", "model": "m"}]),
    "a version that is true": _event(v=True),
    "a field too many": _event(colour="red"),
    "a field too few": _intent(events=[{"type": "model.deleted", "v": 1, "critical": True}]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_entry_stops_every_reader_with_one_error_that_names_it(what: str, place: Path) -> None:
    backend = ObjectStoreBackend(MemoryStore(), "memory", f"memory://{place}/{what}")
    golden.replay(backend, [FIRST, BROKEN[what]])
    index = Index(None)
    with pytest.raises(IntegrityError, match=r"journal entry 1[: ]") as caught, index:
        index.catch_up(backend.journal)
    assert len(str(caught.value)) < 500
    with index:
        index.apply(0, FIRST)
        index.apply(1, SECOND)  # and leaves no trace


def _json(depth: int) -> st.SearchStrategy[Any]:
    plain = st.none() | st.booleans() | st.integers(-5, 2**53 - 1) | st.text(max_size=5) | st.floats(-2, 2)
    return st.recursive(
        plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_an_event_is_taken_rejected_or_refused(data: st.DataObject) -> None:
    events = [event for intent in _intents("every-event") for event in intent["events"][:1]][1:]
    event = dict(data.draw(st.sampled_from(events)))
    key = data.draw(st.sampled_from(sorted(event.keys() - {"type"})))
    event[key] = data.draw(_json(2))
    index = Index(None)
    with index:
        for position, entry in enumerate(golden.entries("every-event")[:3]):
            index.apply(position, entry)
    assert index.head is not None
    last = json.loads(golden.entries("every-event")[3])
    entry = canonical({**last, "intents": [{**last["intents"][0], "events": [event]}]})
    try:
        with index:
            index.apply(3, entry)
    except (IntegrityError, UpgradeRequired):
        return
    assert read_entry(entry, 3, last["previous"]).digest == index.head.digest
    index.dump()


def test_the_example_of_the_module_runs(place: Path) -> None:
    assert doctest.testmod(golden).attempted > 5
    assert doctest.testmod(golden).failed == 0
