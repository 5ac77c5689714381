"""Whatever a stranger with access to the store wrote: reading goes on up to there, one sentence says where and what to
do, nothing is written behind it, and `fsck` runs."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from catalog_core import Catalog, platform, show
from catalog_core.digests import canonical, digest_of
from catalog_core.errors import CatalogError, IntegrityError, InvalidInput, SerializationError, UpgradeRequired
from catalog_core.events import event, new_id, read_entry, relies_on
from catalog_core.index import Index
from catalog_core.journal import entry_key
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.sync import relied
from catalog_core.testing import golden
from catalog_core.testing.memory import MemoryStore

pytestmark = pytest.mark.unit
SEEDS = [name for name in golden.names() if golden.expected(name)["stopped"] is None]
COUNT = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def in_memory():
    """No index on the disk: each catalog is a newcomer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "cache_dir", lambda: (None, "a test"))
        yield


def store_of(entries: list[bytes]) -> MemoryStore:
    store = MemoryStore()
    for position, data in enumerate(entries):
        store.put(entry_key(position), io.BytesIO(data), len(data), "exclusive")
    return store


def opened(store: MemoryStore, **options: Any) -> Catalog:
    return Catalog(ObjectStoreBackend(store, "memory", f"memory://{next(COUNT)}"), "hostile", **options)


def behind(entries: list[bytes], *intents: dict[str, Any], **more: Any) -> bytes:
    """The next entry, of intents as they are, as anybody can write it."""
    made = {
        "epoch": 0, "position": len(entries), "previous": digest_of(entries[-1]), "time": 1_750_000_100_000,
        "intents": list(intents), **more,
    }  # fmt: skip
    return canonical(made)


def intent(*events: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": new_id(), "actor": "eve", "time": 1_750_000_000_000, "based_on": None, "events": list(events), **more}


def look_at_all(catalog: Catalog) -> dict[str, Any]:
    """What every reading command needs; it may say why not, and nothing else may happen."""
    seen: dict[str, Any] = {"history": [(item.type, item.rejected is None) for item in catalog.history()]}
    assert all(item.text.isprintable() for item in catalog.history())
    show.html(catalog), show.table(catalog.history()), repr(catalog)
    for model in catalog.models():
        shown = [show.record(model), show.lines(model)]
        for version in catalog.versions(model.name):
            shown += [show.record(version), show.lines(version), version.checks]
            for read in (
                lambda version=version: version.manifest,
                lambda version=version: catalog.load(version),
                lambda version=version: catalog.lineage(version).rows(),
                lambda version=version: catalog.compare(version, version),
            ):
                try:
                    read()
                except CatalogError as exc:
                    assert str(exc).isprintable()
        with contextlib.suppress(CatalogError):
            assert model.card is None or model.card
        with contextlib.suppress(CatalogError):
            catalog.as_of(model.name, f"#{catalog.position}")
        seen[model.name] = json.loads(json.dumps(shown, default=str))
    catalog.search("a text"), catalog.search("tags.team = cms order by metrics.auc")
    return seen


def check_stop(entries: list[bytes], at: int, stopped: bool) -> None:
    """A newcomer reads up to the entry `at`, which is bad if `stopped`, and says so."""
    store = store_of(entries)
    before = {info.key: store.get(info.key).read() for info in store.list("journal/")}
    try:
        catalog = opened(store)
    except CatalogError as exc:
        assert at == 0, exc
        assert "entry 0" in str(exc)
        catalog = opened(store, damaged=True)
    with catalog:
        if stopped:
            assert catalog.position <= at - 1
            assert not catalog.writable
            assert f"entry {at}" in str(catalog.repository.stopped)
            assert str(catalog.repository.stopped).isprintable()
            assert getattr(catalog.repository.stopped, "hint", None)
            assert len(str(catalog.repository.stopped)) < 700
            for write in (lambda: catalog.save("new", {}), lambda: catalog.gc(grace=0)):
                with pytest.raises(CatalogError, match="entry"):
                    write()
        if catalog.repository.index.head is not None:
            found = look_at_all(catalog)
            if stopped and catalog.position == at - 1:
                with opened(store_of(entries[:at])) as prefix:
                    assert look_at_all(prefix) == found
        findings = catalog.fsck()
        assert not stopped or any(f"entry {at}" in problem.what for problem in findings.problems)
        assert all(problem.message.isprintable() for problem in findings.problems)
    after = {info.key: store.get(info.key).read() for info in store.list("journal/")}
    assert before == after, "nobody wrote"
    assert not list(store.list("blobs/"))


def _changed(data: st.DataObject, entry: Any) -> Any:
    """The entry with one value of it replaced by any other."""
    path, item = [], entry
    while isinstance(item, (dict, list)) and item and (not path or data.draw(st.integers(0, 4))):
        keys = sorted(item) if isinstance(item, dict) else range(len(item))
        path.append(data.draw(st.sampled_from(list(keys))))
        item = item[path[-1]]
    value = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers(-5, 2**53 - 1) | st.text(max_size=5) | st.floats(-2, 1e21)
            | st.sampled_from(["\x1b[31m", "sha256:" + "0" * 64, {}, [], "m", 1]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        )
    )  # fmt: skip
    changed = json.loads(json.dumps(entry))
    place = changed
    for key in path[:-1]:
        place = place[key]
    if data.draw(st.booleans()) or not isinstance(place, dict):
        place[path[-1]] = value
    elif data.draw(st.booleans()):
        del place[path[-1]]
    else:
        place[data.draw(st.text(max_size=8))] = value
    return changed


def _read(entries: list[bytes], at: int) -> bool:
    previous = digest_of(entries[at - 1]) if at else None
    try:
        read_entry(entries[at], at, previous)
    except (IntegrityError, UpgradeRequired):
        return False
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_any_entry(data: st.DataObject) -> None:
    entries = golden.entries(data.draw(st.sampled_from(SEEDS)))
    at = data.draw(st.integers(0, len(entries) - 1))
    bad = canonical(_changed(data, json.loads(entries[at])))
    assume(bad != entries[at])
    changed = [*entries[:at], bad]
    check_stop(changed, at, stopped=not _read(changed, at))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_bytes_in_any_entry(data: st.DataObject) -> None:
    entries = golden.entries(data.draw(st.sampled_from(SEEDS)))
    at = data.draw(st.integers(0, len(entries) - 1))
    whole = entries[at]
    first, last = sorted(data.draw(st.lists(st.integers(0, len(whole)), min_size=2, max_size=2)))
    some = st.binary(max_size=6) | st.sampled_from([b"\\ud800", b"\\u001b", b"1e999", b"[" * 600, b'"', b"null", b"-"])
    bad = data.draw(
        st.sampled_from([whole[:first], whole[:first] + whole[last:], whole[:first] + data.draw(some) + whole[first:]])
        | st.just(data.draw(some))
    )
    assume(bad != whole)
    changed = [*entries[:at], bad, *entries[at + 1 :]]
    good = _read(changed, at)
    stops = at if not good else at + 1
    assume(stops < len(changed))
    if good:  # it is well formed, and the next one shows that it is another: all that comes before it is read
        with opened(store_of(changed), damaged=True) as catalog:
            assert catalog.position <= at
            assert not catalog.writable
            assert not catalog.fsck().clean
        return
    check_stop(changed, at, stopped=True)


BASE = golden.entries("retries")[:2]
D = "sha256:" + "ab" * 32
TAG = event("tags.set", model="m", number=1, set={"x": 1}, unset=[])
BAD = {
    "torn": BASE[1][:-9],
    "empty": b"",
    "zeros": b"\0" * 500,
    "half a surrogate pair in a tag": behind(BASE[:1], intent({**TAG, "set": {"x": "HERE"}})).replace(
        b"HERE", b"\\ud800"
    ),
    "another chain": behind([BASE[0] + b" "], intent(TAG)),
    "an intent with a signature": behind(BASE[:1], intent(TAG, signature={"k7a": "c2ln"})),
    "a signature that is a text": behind(BASE[:1], intent(TAG, signature="c2ln", key="k7a")),
    "a key alone": behind(BASE[:1], intent(TAG, key="k7a")),
    "one that was replayed and is signed anew": behind(
        BASE[:1], intent(TAG, signature={"k": "c2ln"}, replayed={"by": "x"})
    ),
    "an intent with more": behind(BASE[:1], intent(TAG, via="gateway")),
    "an entry with more": behind(BASE[:1], intent(TAG), checkpoint="x"),
    "blobs that are a list": behind(BASE[:1], intent(TAG), blobs=[]),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_read_stops_a_newcomer_there(what: str) -> None:
    check_stop([BASE[0], BAD[what]], 1, stopped=True)


@pytest.mark.parametrize("what", BAD)
def test_a_genesis_that_cannot_be_read_is_no_empty_place(what: str) -> None:
    store = store_of([BAD[what]])
    with pytest.raises(CatalogError, match="entry 0"):
        opened(store)
    with opened(store, damaged=True) as catalog:
        assert [problem.what for problem in catalog.fsck().problems][:1] == ["journal entry 0"]
        with pytest.raises(CatalogError):
            catalog.save("m", {})
    assert [info.key for info in store.list("")] == [entry_key(0)]


def test_roots_in_the_genesis_ask_for_a_newer_release() -> None:
    first = json.loads(BASE[0])
    first["intents"][0]["events"][0]["roots"] = {"k3f": {"alg": "ed25519", "public": "x", "person": "p"}}
    with pytest.raises(UpgradeRequired, match="cannot check signatures") as caught:
        opened(store_of([canonical(first)]))
    assert "pip install -U" in str(caught.value)


def test_an_intent_that_came_back_shows_its_signature() -> None:
    entries = golden.entries("replays")
    read = [read_entry(data, at, digest_of(entries[at - 1]) if at else None) for at, data in enumerate(entries)]
    (back,) = [made for entry in read for made in entry.intents if "replayed" in made.more]
    assert back.more["signature"] == "reserved"
    assert back.to_json() in [made for data in entries for made in json.loads(data)["intents"]]


def test_it_is_said_once_and_what_comes_before_is_there(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING, logger="catalog_core"),
        opened(store_of([*BASE, b"garbage\x1b[31m"])) as catalog,
    ):
        for _ in range(3):
            catalog.repository.refresh(force=True)
            assert catalog.version("m").number == 1
    (message,) = [record.getMessage() for record in caplog.records]
    assert "is read up to entry 1" in message and "journal entry 2" in message and "catalog fsck" in message
    assert message.isprintable()


def test_when_the_bad_entry_is_gone_all_goes_on() -> None:
    store = store_of([*BASE, b"garbage"])
    catalog = opened(store)
    assert not catalog.writable
    store.delete([entry_key(2)])
    catalog.repository.backend.journal.forget()
    catalog.repository.refresh(force=True)
    assert catalog.writable
    assert catalog.version("m").tag(a=1).tags == {"a": 1}


def test_of_two_that_do_not_fit_the_one_that_is_continued_is_right() -> None:
    """The store's entry 2 was changed in place: the entries behind it chain each other, and not it."""
    entries = golden.entries("every-event")
    forged = json.loads(entries[2])
    forged["intents"][0]["actor"] = "eve"
    with opened(store_of([*entries[:2], canonical(forged), *entries[3:]])) as catalog:
        assert catalog.position == 1
        assert "entry 3" in str(catalog.repository.stopped)
        assert "eve" not in {item.actor for item in catalog.history()}


# -- ids, and inlined blobs -------------------------------------------------------------------------------------------


def _published(number: int) -> dict[str, Any]:
    return event("version.published", model="m", number=number, manifest=D, layout=D, size=1, blobs="", checked=-1)


def test_nobody_uses_up_the_id_of_somebody_else() -> None:
    entries, mine = list(BASE), new_id()
    entries.append(behind(entries, {**intent({**TAG, "number": 99}), "id": mine}))  # rejected
    entries.append(behind(entries, {**intent({**TAG, "set": {"by": "alice"}}), "id": mine, "actor": "alice"}))
    entries.append(behind(entries, {**intent({**TAG, "set": {"by": "again"}}), "id": mine, "actor": "alice"}))
    with opened(store_of(entries)) as catalog:
        assert catalog.version("m").tags == {"by": "alice"}
        assert [item.rejected is None for item in catalog.history()][-2:] == [False, True]
        assert catalog.repository.index.seen(mine, "alice") == 3
        assert catalog.repository.index.seen(mine, "eve") == 2
        assert catalog.repository.index.seen(mine, "bob") is None


def test_an_id_that_was_dropped_is_so_for_all() -> None:
    entries, lost = list(BASE), new_id()
    entries.append(behind(entries, intent(event("intents.dropped", ids=[lost]))))
    entries.append(behind(entries, {**intent(TAG), "id": lost, "actor": "alice"}))
    for each_alone in (True, False):
        store = store_of(entries if not each_alone else entries[:3])
        with opened(store) as catalog:
            if each_alone:
                store.put(entry_key(3), io.BytesIO(entries[3]), len(entries[3]), "exclusive")
                catalog.repository.refresh(force=True)
            assert catalog.position == 3
            assert catalog.version("m").tags == {}


@pytest.mark.parametrize(
    "text", [base64.b64encode(b"wrong").decode(), "no base64!", "", "Z29vZA=", "Z29vZA==\n", "\x1b"]
)
def test_wrong_bytes_under_a_digest_do_not_hide_the_right_ones(text: str) -> None:
    digest = digest_of(b"a card")
    card = event("card.set", model="m", digest=digest, seen=None)
    entries = list(BASE)
    entries.append(behind(entries, intent(TAG), blobs={digest: text}))
    entries.append(behind(entries, intent(card), blobs={digest: base64.b64encode(b"a card").decode()}))
    with opened(store_of(entries)) as catalog:
        assert catalog.model("m").card == "a card"
        assert "other bytes" in " ".join(problem.message for problem in catalog.fsck().problems)
    with opened(store_of(entries[:3])) as catalog:  # and from the store, where it is there
        catalog.repository.backend.blobs.put(digest, io.BytesIO(b"a card"), 6)
        assert catalog.model("m").set_card("a card").card == "a card"


def test_the_event_that_counts_says_what_a_version_is() -> None:
    """A rejected twin in the same entry does not lend its words."""
    entries = list(BASE)
    number = 2
    twin = {**_published(number), "summary": {"framework": "evil"}, "tags": {" bad": 1}}
    entries.append(behind(entries, intent(twin), intent({**_published(number), "summary": {"framework": "good"}})))
    with opened(store_of(entries)) as catalog:
        assert catalog.version("m@2").summary == {"framework": "good"}


SUMMARIES: list[Any] = [
    {
        "parents": 5,
        "components": [1],
        "entry_points": {"a": 1},
        "checks": [[1], 2, ["a", "passed", 0.1, ""]],
        "none": 3,
    },
    {"new_bytes": "many", "parameters": None, "origin": "x", "verification": "\x1b[31m", "none": [1, "lr"]},
    {"ref": "other@1", "digest": D, "stage": "production", "author": "root", "deleted": True, "tags": {"a": 1}},
    {"parents": ["\x1b", "m@99", 7], "checks": "passed", "created": "yesterday", "size": [], "updated": {}},
]


@pytest.mark.parametrize("summary", SUMMARIES, ids=range(len(SUMMARIES)))
def test_a_summary_may_hold_anything(summary: Any) -> None:
    entries = list(BASE)
    entries.append(behind(entries, intent({**_published(2), "summary": summary})))
    with opened(store_of(entries)) as catalog:
        look_at_all(catalog)
        version = catalog.version("m@2")
        shown = show.record(version)
        own = ("m@2", D, "registered", "eve", False)
        assert tuple(shown[key] for key in ("ref", "digest", "stage", "author", "deleted")) == own
        assert all(name.isprintable() and text.isprintable() for name, text in show.lines(version))


# -- what blobs say ---------------------------------------------------------------------------------------------------

FILE = digest_of(b"data")
MANIFEST = {"version": 1, "components": [{"name": "model", "serializer": "files",
            "files": [{"name": "a.bin", "digest": FILE, "size": 4}]}]}  # fmt: skip
LAYOUT = {"version": 1, "files": {FILE: [[FILE, 4]]}}


def _component(**changed: Any) -> dict[str, Any]:
    return {**MANIFEST, "components": [{**MANIFEST["components"][0], **changed}]}  # type: ignore[index]


MEANINGLESS: dict[str, tuple[Any, Any]] = {
    "no components": ({"version": 1, "components": []}, LAYOUT),
    "no manifest": ([], LAYOUT),
    "components that are a text": ({"version": 1, "components": "x"}, LAYOUT),
    "two components of one name": ({**MANIFEST, "components": MANIFEST["components"] * 2}, LAYOUT),  # type: ignore
    "two files of one name": (_component(files=MANIFEST["components"][0]["files"] * 2), LAYOUT),  # type: ignore
    "a size of 4.5": (_component(files=[{"name": "a.bin", "digest": FILE, "size": 4.5}]), LAYOUT),
    "a size of -4": (_component(files=[{"name": "a.bin", "digest": FILE, "size": -4}]), LAYOUT),
    "a size that is true": (_component(files=[{"name": "a.bin", "digest": FILE, "size": True}]), LAYOUT),
    "a field of two lines": (_component(**{"a\nnothing is wrong": None}), LAYOUT),
    "a length of -4": (MANIFEST, {"version": 1, "files": {FILE: [[FILE, 8], [FILE, -4]]}}),
    "an offset of -1": (MANIFEST, {"version": 1, "files": {FILE: [[FILE, 4, FILE, -1]]}}),
    "a size that is a text": (_component(files=[{"name": "a.bin", "digest": FILE, "size": "4"}]), LAYOUT),
    "a name that leads away": (_component(files=[{"name": "../a", "digest": FILE, "size": 4}]), LAYOUT),
    "an example that is none": ({**MANIFEST, "example": {"a": 1}}, LAYOUT),
    "a baseline that is no digest": ({**MANIFEST, "baseline": "x"}, LAYOUT),
    "distributions that are no digest": ({**MANIFEST, "environment": {"distributions": [1]}}, LAYOUT),
    "a length of 4.5": (MANIFEST, {"version": 1, "files": {FILE: [[FILE, 4.5]]}}),
    "a length of 9e15": (MANIFEST, {"version": 1, "files": {FILE: [[FILE, 9 * 10**15]]}}),
    "a length and a size of 9e15": (
        _component(files=[{"name": "a.bin", "digest": FILE, "size": 9 * 10**15}]),
        {"version": 1, "files": {FILE: [[FILE, 9 * 10**15]]}},
    ),
    "two chunks of 9e15": (
        _component(files=[{"name": "a.bin", "digest": FILE, "size": 9 * 10**15}]),
        {"version": 1, "files": {FILE: [[FILE, 4, FILE, 0], [FILE, 9 * 10**15 - 4, FILE, 4]]}},
    ),
    "a length that is true": (MANIFEST, {"version": 1, "files": {FILE: [[FILE, True]]}}),
    "a chunk that is a text": (MANIFEST, {"version": 1, "files": {FILE: ["ab"]}}),
    "a pack that is no digest": (MANIFEST, {"version": 1, "files": {FILE: [[FILE, 4, "x", 0]]}}),
    "no such file": (MANIFEST, {"version": 1, "files": {}}),
    "fewer bytes": (MANIFEST, {"version": 1, "files": {FILE: [[FILE, 3]]}}),
    "another version": (MANIFEST, {"version": 2, "files": {}}),
    "a codec": (MANIFEST, {"version": 1, "files": {FILE: [[FILE, 4, FILE, 0, "zstd"]]}}),
}


def _with_version(manifest: bytes, layout: bytes, *more: bytes) -> list[bytes]:
    entries = list(BASE)
    told = {**_published(2), "manifest": digest_of(manifest), "layout": digest_of(layout)}
    blobs = {digest_of(data): base64.b64encode(data).decode() for data in (manifest, layout, b"data", *more)}
    return [*entries, behind(entries, intent(told), blobs=blobs)]


def _loads(catalog: Catalog) -> None:
    catalog.artifact("m@2").reader(catalog.version("m@2").manifest.components[0]).view("a.bin")


def test_the_pattern_of_the_following_test_loads() -> None:
    with opened(store_of(_with_version(canonical(MANIFEST), canonical(LAYOUT)))) as catalog:
        _loads(catalog)
        assert not [problem for problem in catalog.fsck().problems if problem.what.startswith("m@2")]


@pytest.mark.parametrize("what", MEANINGLESS)
def test_what_nobody_can_load_is_named_and_all_else_goes_on(what: str) -> None:
    manifest, layout = map(canonical, MEANINGLESS[what])
    with opened(store_of(_with_version(manifest, layout))) as catalog:
        with pytest.raises(CatalogError) as caught:
            _loads(catalog)
        assert "m@2" in str(caught.value)
        problems = {problem.what: problem.message for problem in catalog.fsck().problems}
        assert any(name.startswith("m@2") for name in problems), problems
        look_at_all(catalog)
        assert catalog.version("m@2").tag(seen=True).tags == {"seen": True}
        catalog.version("m@2").delete()
        assert catalog.version("m").number == 1


@pytest.mark.parametrize("what", ["a length of 4.5", "another version", "a codec", "a pack that is no digest"])
def test_collecting_and_copying_go_on_beside_a_layout_that_nobody_can_read(what: str) -> None:
    manifest, layout = map(canonical, MEANINGLESS[what])
    newer = what in ("another version", "a codec")
    with opened(store_of(_with_version(manifest, layout))) as catalog:
        catalog.version("m@1").delete()  # it has no blobs here
        with pytest.raises(IntegrityError, match="what m@2 needs is not known") as caught:
            catalog.gc(grace=0)
        assert caught.value.hint == (
            "upgrade: pip install -U catalog-core" if newer else "catalog delete m@2, then collect"
        )
        if newer:
            with pytest.raises(IntegrityError, match="this release"):
                relied(catalog.repository, 2, 2)
        else:
            assert relied(catalog.repository, 2, 2) == {}, "the blobs are in the journal"
        catalog.version("m@2").delete()
        assert catalog.gc(grace=0).blobs == 0


@pytest.mark.parametrize(("kind", "data"), [("environment", b"[1]"), ("baseline", b"{"), ("environment", b"\xff")])
def test_fsck_reads_what_a_manifest_names(kind: str, data: bytes) -> None:
    note = digest_of(data)
    more = {"baseline": note} if kind == "baseline" else {"environment": {"distributions": note}}
    layout = {"version": 1, "files": {FILE: [[FILE, 4]], note: [[note, len(data)]]}}
    with opened(store_of(_with_version(canonical({**MANIFEST, **more}), canonical(layout), data))) as catalog:
        (told,) = [problem.message for problem in catalog.fsck().problems if problem.what == f"m@2 {kind}"]
        assert "cannot be read by anybody" in told


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_a_manifest_or_a_layout(data: st.DataObject) -> None:
    manifest: Any = {**MANIFEST, "entry_points": [{"name": "p", "steps": ["model.run"], "inputs": [
        {"name": "x", "dtype": "float32", "shape": [None, 4], "minimum": 0}]}], "provenance": {"parents": ["m@1"]},
        "description": {"model": {"framework": "x", "parameters": 4}}, "custom": {"a": {"value": 1}},
        "taxonomy": {"task": "x"}}  # fmt: skip
    layout: Any = LAYOUT
    if data.draw(st.booleans()):
        manifest = _changed(data, manifest)
    else:
        layout = _changed(data, layout)
    try:
        entries = _with_version(canonical(manifest), canonical(layout))
    except InvalidInput:
        return
    with opened(store_of(entries)) as catalog:
        look_at_all(catalog)
        catalog.fsck()
        try:
            _loads(catalog)
        except (CatalogError, KeyError):
            return


# -- fsck always runs -------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platform, "cache_dir", lambda: (tmp_path / "cache", "a test"))
    with Catalog.open(f"file://{tmp_path}/catalog") as catalog:
        for number in range(3):
            catalog.save("m", {"w": [number]})
    return tmp_path


def _tear(folder: Path) -> None:
    path = folder / "catalog" / entry_key(3)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-20])


def _empty(folder: Path) -> None:
    path = folder / "catalog" / entry_key(3)
    path.chmod(0o644)
    path.write_bytes(b"")


def _drop(position: int) -> Callable[[Path], None]:
    def drop(folder: Path) -> None:
        (folder / "catalog" / entry_key(position)).unlink()

    return drop


def _garbage(folder: Path) -> None:
    (folder / "catalog" / entry_key(4)).write_bytes(b"\x1b[31m")


@pytest.mark.parametrize("newcomer", [False, True])
@pytest.mark.parametrize("damage", [_tear, _empty, _drop(0), _drop(2), _garbage])
def test_fsck_runs_for_who_knew_the_catalog_and_for_a_newcomer(
    damage: Callable[[Path], None], newcomer: bool, place: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from catalog_cli.main import main

    damage(place)
    if newcomer:
        monkeypatch.setattr(platform, "cache_dir", lambda: (None, "a test"))
    with pytest.raises(SystemExit) as ended:
        main(["--catalog", f"file://{place}/catalog", "fsck"])
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    assert "journal entry" in out
    assert "problem" in out.splitlines()[-1]
    assert "Traceback" not in out + err
    assert all(line.isprintable() for line in (out + err).splitlines())
    with Catalog.open(f"file://{place}/catalog", create=False, damaged=True) as catalog:
        findings = catalog.fsck()
        assert not findings.clean
        if damage is not _drop(0):
            assert findings.versions >= (0 if "drop" in damage.__qualname__ else 2)


def test_a_torn_row_of_sqlite_stops_a_newcomer_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    url = f"sqlite://{tmp_path}/catalog"
    monkeypatch.setattr(platform, "cache_dir", lambda: (tmp_path / "cache", "a test"))
    with Catalog.open(url) as catalog:
        catalog.save("m", {"w": [1]})
        catalog.save("m", {"w": [2]})
    with contextlib.closing(sqlite3.connect(tmp_path / "catalog" / "catalog.db")) as db:
        db.execute("UPDATE entries SET data = substr(data, 1, 50) WHERE position = 2")
        db.commit()
    monkeypatch.setattr(platform, "cache_dir", lambda: (None, "a test"))
    with Catalog.open(url, create=False) as catalog:
        assert (catalog.position, catalog.writable, catalog.version("m").number) == (1, False, 1)
        names = {row[0] for row in catalog.repository.index.rows("SELECT name FROM sqlite_master WHERE type = 'index'")}
        assert "lookup_0" in names, "the index is finished"
        assert not catalog.fsck().clean


ATTACHED = event("attachment.set", model="m", number=1, name="a", digest=D, size=1)
COUNTS: dict[str, tuple[dict[str, Any], ...]] = {
    f"{what} of {count!r}": tuple({**item, **({key: count} if key in item else {})} for item in items)
    for what, key, items in (
        ("a version's size", "size", (_published(2),)),
        ("a version's number", "number", (_published(2),)),
        ("an attachment's size", "size", (ATTACHED,)),
        ("an attachment's version", "number", (ATTACHED,)),
        ("a tag's version", "number", (TAG,)),
        ("a stage's version", "number", (event("stage.set", model="m", number=1, stage="tested", seen="registered"),)),
        ("an alias' version", "number", (event("alias.set", model="m", alias="x", number=1, seen=None),)),
    )
    for count in (-1, True, 1.5, "1", [1], {}, 1e300)
}


@pytest.mark.parametrize("what", COUNTS)
def test_what_counts_is_counted_by_one_rule(what: str) -> None:
    entries = [*BASE, behind(BASE, intent(*COUNTS[what]))]
    with opened(store_of(entries)) as catalog:
        assert catalog.repository.stopped is None
        last = list(catalog.history())[-1]
        assert last.rejected and last.text.isprintable(), what
        look_at_all(catalog)
        version = catalog.version("m")
        assert (version.number, version.tags, dict(version.attachments), version.aliases) == (1, {}, {}, [])
        assert version.stage == "registered"


@pytest.mark.parametrize("checked", ["x", -2, True, 1.5, None, []])
def test_a_check_of_blobs_that_is_no_position_hides_no_sweep(checked: Any) -> None:
    sweep = event("blobs.swept", keys=[FILE], versions=[])
    told = {**_published(2), "blobs": FILE[7:23], "checked": checked}
    entries = [*BASE, behind(BASE, intent(sweep))]
    entries.append(behind(entries, intent(told)))
    with opened(store_of(entries)) as catalog:
        assert list(catalog.history())[-1].rejected
        assert catalog.version("m").number == 1


@pytest.mark.parametrize("base", [[], 7, "x", {"position": -1, "digest": D}, {"position": True, "digest": D},
                                  {"position": 1.5, "digest": D}, {"position": 0, "digest": "x"}, {}])  # fmt: skip
def test_a_head_that_is_none_stops_there(base: Any) -> None:
    entries = [*BASE, behind(BASE, {**intent(TAG), "based_on": base})]
    check_stop(entries, len(BASE), True)


LARGE = {
    "a summary": ({**_published(2), "summary": {"note": "x" * (20 << 10)}},),
    "a text beside a small event": (TAG, event("model.updated", model="m", set={"title": "x" * (20 << 10)}, seen={})),
    "tags": ({**TAG, "set": {f"t{n}": "x" * 1000 for n in range(30)}},),
    "parents": ({**_published(2), "summary": {"parents": [f"m@{n}" for n in range(9000)]}},),
    "unknown and not critical": ({"type": "x.y", "v": 1, "critical": False, "note": "x" * (20 << 10)}, TAG),
}


@pytest.mark.parametrize("what", LARGE)
def test_an_event_that_no_writer_would_write_is_passed_over_with_a_sentence(what: str) -> None:
    """Others go on behind it: the limit of the writer is one of the reader's rules."""
    entries = [*BASE, behind(BASE, intent(*LARGE[what]))]
    entries.append(behind(entries, intent({**TAG, "set": {"after": "yes"}})))
    with opened(store_of(entries)) as catalog:
        assert catalog.repository.stopped is None
        reasons = [item.rejected for item in catalog.history()][-2]
        assert reasons and "16,384 are allowed" in reasons and len(reasons) < 300
        look_at_all(catalog)
        assert catalog.version("m").tags == {"after": "yes"}
        assert catalog.version("m").tag(mine=1).tags == {"after": "yes", "mine": 1}
        assert catalog.model("m").title is None


@pytest.mark.parametrize("digest", ["garbage", "", 5, True, "sha256:" + "A" * 64, "sha256:" + "0" * 63, ["x"], {}])
def test_a_card_that_is_no_digest_is_passed_over(digest: Any) -> None:
    entries = [*BASE, behind(BASE, intent(event("card.set", model="m", digest=digest, seen=None)))]
    with opened(store_of(entries)) as catalog:
        assert catalog.history()[-1].rejected
        look_at_all(catalog)
        assert not [found for found in catalog.fsck().problems if found.what.startswith("card")]
        catalog.model("m").set_card("# of its own")
        assert catalog.model("m").card == "# of its own"


@pytest.mark.parametrize("key", ["id", "actor", "replayed"])
def test_an_intent_that_is_large_beside_its_events_is_passed_over_too(key: str) -> None:
    large = {**intent(TAG), key: {"actor": "x" * (20 << 10)} if key == "replayed" else "x" * (20 << 10)}
    entries = [*BASE, behind(BASE, large)]
    with opened(store_of(entries)) as catalog:
        assert catalog.version("m").tags == {}
        assert "16,384 are allowed" in list(catalog.history())[-1].rejected


def test_an_entry_full_of_small_events_and_blobs_is_read() -> None:
    blobs = {digest_of(bytes([n]) * 16000): base64.b64encode(bytes([n]) * 16000).decode() for n in range(20)}
    events = [{**TAG, "set": {f"t{n}": "x" * 3000}} for n in range(40)]
    entries = [*BASE, behind(BASE, intent(*events), blobs=blobs)]
    with opened(store_of(entries)) as catalog:
        assert len(catalog.version("m").tags) == 40


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
@pytest.mark.parametrize("policy", ["first-use", "always"])
@pytest.mark.parametrize("how", ["another file", "another order"])
def test_a_layout_that_lies_gives_no_other_bytes(
    scheme: str, policy: Any, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest of a version is that of its manifest; whoever may write to the store may write another layout for it,
    in which every chunk is whole."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "theirs"))
    url = f"{scheme}://{tmp_path}/c"
    with Catalog.open(url) as catalog:
        one, two = (catalog.save("m", {"w": np.arange(200_000.0) * n, "v": np.ones(5) * n}) for n in (1, 2))
        mine, other = (json.loads(catalog.repository.content.blob(v.row.layout, "layout")) for v in (one, two))
        (digest, chunks), lying = max(mine["files"].items(), key=lambda item: len(item[1])), dict(mine["files"])
        assert len(chunks) > 1
        lying[digest] = max(other["files"].values(), key=len) if how == "another file" else chunks[::-1]
        layout = canonical({"version": 1, "files": lying})
        told = {"manifest": one.digest, "layout": digest_of(layout), "size": one.size}
        relied = relies_on({one.digest, digest_of(layout)}, catalog.repository.index.head)
        catalog.repository.commit(
            event("version.published", model="m", number=3, **told, **relied), blobs={digest_of(layout): layout}
        )
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "ours"))
    with Catalog.open(url, policy=policy) as catalog:
        for ref in ("m@3", f"m@{one.digest}"):
            with pytest.raises((IntegrityError, SerializationError), match=r"puts other|not a safetensors"):
                catalog.load(ref)
        for read in (
            lambda: catalog.download("m@3", tmp_path / "out"),
            lambda: catalog.export("m@3", tmp_path / "m.catalog"),
            lambda: catalog.copy("m@3", Catalog.open(tmp_path / "copy")),
        ):
            with pytest.raises(IntegrityError, match=r"other bytes"):
                read()
        assert not (tmp_path / "m.catalog").exists() and not list(tmp_path.glob("out/*"))
        (problem,) = catalog.fsck().problems
        assert problem.what.startswith("m@3 file")
        assert catalog.load("m@1")["w"][3] == 3.0 and catalog.load("m@2")["w"][3] == 6.0


@pytest.mark.parametrize("base", [[], 7, "x", {"position": 0}, {"position": 0, "digest": D, "more": 1}])
def test_a_head_of_another_kind_is_told_in_words(base: Any) -> None:
    backend = ObjectStoreBackend(store_of([*BASE, behind(BASE, {**intent(TAG), "based_on": base})]), "m", "m://m")
    with pytest.raises(IntegrityError) as caught, Index(None) as index:
        index.catch_up(backend.journal)
    assert "Head" not in str(caught.value) and "a position and a digest" in str(caught.value)
