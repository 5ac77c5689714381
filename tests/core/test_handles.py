"""Handles belong to their catalog and their digest, keep what they saw, and say what a call means."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import CatalogError, Conflict, InvalidInput, InvalidReference, NotFound, Rejected


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def both(place: Path) -> Iterator[tuple[Catalog, Catalog]]:
    """Two catalogs that call different bytes `m@1`."""
    with Catalog.open(place / "a") as a, Catalog.open(place / "b") as b:
        a.save("m", {"w": np.full(9, 1.0)}, tags={"whose": "a"})
        b.save("m", {"w": np.full(9, 2.0)}, tags={"whose": "b"})
        yield a, b


# -- a handle is not a text ---------------------------------------------------------------------------------------

READING: dict[str, Callable[[Catalog, Any, Path], Any]] = {
    "version": lambda c, v, folder: c.version(v),
    "artifact": lambda c, v, folder: c.artifact(v),
    "load": lambda c, v, folder: c.load(v),
    "session": lambda c, v, folder: c.session(v),
    "download": lambda c, v, folder: c.download(v, folder / "out"),
    "copy": lambda c, v, folder: c.copy(v, c, "other"),
    "export": lambda c, v, folder: c.export(v, folder / "out.bundle"),
    "lineage": lambda c, v, folder: c.lineage(v),
    "verify": lambda c, v, folder: c.verify(v),
    "erase": lambda c, v, folder: c.erase(v, "test"),
    "pin": lambda c, v, folder: c.pin(v),
    "unpin": lambda c, v, folder: c.cache is not None and c.unpin(v),
    "parents": lambda c, v, folder: c.save("child", {"w": np.ones(1)}, parents=[v]),
    "prepare": lambda c, v, folder: c.prepare("child", {"w": np.ones(1)}, parents=[v]),
}


@pytest.mark.parametrize("call", [name for name in READING if name != "unpin"])
def test_a_version_of_another_catalog_is_never_taken_for_one_of_the_same_name(
    both: tuple[Catalog, Catalog], place: Path, call: str
) -> None:
    a, b = both
    before = b.position
    with pytest.raises(InvalidInput, match="version of catalog 'a'") as caught:
        READING[call](b, a.version("m@1"), place)
    assert "copy" in str(caught.value.hint)
    assert b.position == before and not (place / "out").exists()
    assert a.version("m@1") != b.version("m@1")
    assert a.version("m@1") not in b


def test_a_copy_stands_for_the_version_that_it_was_made_of(both: tuple[Catalog, Catalog], place: Path) -> None:
    a, b = both
    theirs = a.version("m@1")
    here = a.copy(theirs, b)
    assert here.ref == "m@2" and here.digest == theirs.digest
    assert here != theirs and theirs in b
    assert b.version(theirs) == here
    assert b.load(theirs)["w"][0] == 1.0
    assert b.save("child", {"w": np.ones(1)}, parents=[theirs]).summary["parents"] == ["m@2"]
    out = b.download(theirs, place / "out")
    assert (out / next(f.name for f in here.manifest.components[0].files)).exists()
    with pytest.raises(InvalidInput, match="no version of 'b'"):
        b.erase(theirs, "what is for good is not done to a namesake")
    assert b.load("m@2")["w"][0] == 1.0
    here.delete()
    with pytest.raises(NotFound, match="deleted"):
        b.load(theirs)


def test_versions_of_two_catalogs_are_compared_by_their_bytes(both: tuple[Catalog, Catalog]) -> None:
    a, b = both
    va, vb = a.version("m@1"), b.version("m@1")
    for found in (va.compare(vb), a.compare(va, vb), b.compare(va, vb), a.compare("m@1", vb)):
        changed = {(d.kind, d.name): (d.before, d.after) for d in found.differences}
        assert ("tensor", "model.w") in changed
        assert changed["tag", "whose"] == ("a", "b")
        assert (found.first, found.second, found.same) == ("a:m@1", "b:m@1", 0)
    same = va.compare(a.copy(va, b, "copied"))
    assert not [d for d in same.differences if d.kind in ("tensor", "file")]


def test_what_was_copied_with_its_folder_and_went_its_own_way_is_not_taken_for_the_same(place: Path) -> None:
    """`cp -r` keeps the id of a catalog; what both call m@2 afterwards are two versions."""
    with Catalog.open(f"file://{place}/one") as one:
        one.save("m", {"w": np.zeros(1)})
    shutil.copytree(place / "one", place / "two")
    with Catalog.open(f"file://{place}/one") as one, Catalog.open(f"file://{place}/two") as two:
        assert one.id == two.id
        assert one.version("m@1") == two.version("m@1")
        mine, theirs = one.save("m", {"w": np.ones(1)}), two.save("m", {"w": np.full(1, 2.0)})
        assert mine.ref == theirs.ref and mine != theirs
        with pytest.raises(NotFound, match="is not sha256"):
            two.load(mine)
        assert two.load(one.version("m@1"))["w"][0] == 0.0


def test_a_number_that_went_to_another_version_is_not_changed_through_an_old_handle(place: Path) -> None:
    """As after a failover that abandoned the branch in which this number stood for something else."""
    with Catalog.open(place / "c") as catalog:
        version = catalog.save("m", {"w": np.zeros(1)})
        stranger = catalog.version("m@1")
        other = attrs.evolve(stranger.row, digest="sha256:" + "0" * 64)
        object.__setattr__(stranger, "row", other)  # what the handle saw under this number
        for change in (
            lambda: stranger.tag(a=1), lambda: stranger.annotate(a=1), lambda: stranger.promote("tested"),
            lambda: stranger.alias("x"), lambda: stranger.attach("note", b"x"), lambda: stranger.delete(),
        ):  # fmt: skip
            with pytest.raises(Conflict) as caught:
                change()
            assert (caught.value.seen, caught.value.actual) == (stranger.digest, version.digest)
        now = catalog.version("m@1")
        assert (now.tags, now.metrics, now.stage, now.aliases, now.attachments) == ({}, {}, "registered", [], {})


def test_only_text_is_a_reference(place: Path) -> None:
    """A relative of a lineage may stand in another catalog; its `ref` alone does not say so."""
    with Catalog.open(place / "c") as catalog:
        catalog.save("m", {"w": np.zeros(1)})
        child = catalog.save("n", {"w": np.zeros(1)}, parents=["m@1"])
        with pytest.raises(InvalidReference, match="a reference is text"):
            catalog.load(child.lineage().parents[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("component", "hint"), [(1, "m@1"), (b"model", None), (2.0, None)])
def test_a_component_is_named_by_text(place: Path, component: Any, hint: str | None) -> None:
    """`load(name, 3)` means a version elsewhere."""
    with Catalog.open(place / "c") as catalog:
        catalog.save("m", {"w": np.zeros(1)})
        with pytest.raises(InvalidInput, match="named by text") as caught:
            catalog.load("m", component)
        assert hint is None or hint in str(caught.value.hint)


# -- a handle keeps what it saw ----------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "file"])
def two(request: pytest.FixtureRequest, place: Path) -> Iterator[tuple[Catalog, Catalog]]:
    """One catalog, opened by two."""
    url = f"{request.param}://{place}/catalog"
    with Catalog.open(url) as mine, Catalog.open(url) as other:
        for number in range(3):
            mine.save("m", {"w": np.full(3, number)}, tags={"n": number}, metrics={"auc": number / 10})
        yield mine, other


def test_an_alias_that_moved_since_the_handle_was_read_is_a_conflict(two: tuple[Catalog, Catalog]) -> None:
    mine, other = two
    mine.version("m@1").alias("champion")
    late, model = mine.version("m@3"), mine.model("m")
    other.version("m@2").alias("champion")
    assert mine.version("m@champion").number == 2  # this process has seen it, the handle has not
    with pytest.raises(Conflict) as caught:
        late.alias("champion")
    assert (caught.value.seen, caught.value.actual) == (1, 2)
    with pytest.raises(Conflict) as caught:
        model.unalias("champion")
    assert (caught.value.seen, caught.value.actual) == (1, 2)
    assert mine.version("m@champion").number == 2
    assert mine.version(late).alias("champion").aliases == ["champion"]
    assert mine.model("m").unalias("champion").aliases == {}


def test_an_alias_that_came_or_went_since_is_a_conflict(two: tuple[Catalog, Catalog]) -> None:
    mine, other = two
    early, model = mine.version("m@1"), mine.model("m")
    other.version("m@2").alias("new")
    with pytest.raises(Conflict) as caught:
        early.alias("new")
    assert (caught.value.seen, caught.value.actual) == (None, 2)
    with pytest.raises(Conflict) as caught:
        model.unalias("new")
    assert (caught.value.seen, caught.value.actual) == (None, 2)
    seen = mine.version("m@1")
    other.model("m").unalias("new")
    with pytest.raises(Conflict) as caught:
        seen.alias("new")
    assert (caught.value.seen, caught.value.actual) == (2, None)
    with pytest.raises(NotFound, match="no alias"):
        mine.model("m").unalias("new")


def test_handles_keep_what_they_saw(two: tuple[Catalog, Catalog]) -> None:
    mine, other = two
    mine.version("m@1").alias("best").attach("log", b"one")
    looked = [mine.version("m@1"), mine.versions("m")[-1], mine.search("version = 1")[0]]
    model = mine.model("m")
    listed = mine.models()[0]
    now = other.version("m@1").tag(n=99, more=True).annotate(auc=0.99).promote("tested").attach("log", b"other")
    other.version("m@2").alias("best")
    other.model("m").update(title="New")
    other.save("m", {"w": np.zeros(1)})
    assert mine.version("m@1").stage == "tested"
    for handle in looked:
        assert (handle.tags, handle.metrics, handle.stage) == ({"n": 0}, {"auc": 0.0}, "registered")
        assert (handle.aliases, handle.attachments, handle.attachment("log")) == (["best"], {"log": 3}, b"one")
        assert handle == now  # the same version
    for known in (model, listed):
        assert (known.title, known.newest, known.aliases) == (None, 3, {"best": 1})
        assert known == mine.model("m")


def test_changes_return_a_handle_that_saw_them(two: tuple[Catalog, Catalog]) -> None:
    mine, _ = two
    version = mine.version("m@2")
    assert version.alias("x").aliases == ["x"]
    assert version.tag(a=1).tags == {"n": 1, "a": 1}
    assert version.tag("a", 2).untag("a", "n").tags == {}
    assert version.annotate(loss=1).unannotate("auc").metrics == {"loss": 1}
    assert version.attach("log", b"x").attachments == {"log": 1}
    assert version.delete().deleted
    assert mine.version(version, deleted=True).restore().deleted == 0
    assert mine.model("m").update(owner="us").owner == "us"
    assert mine.model("m").set_card("# M").card == "# M"
    gone = mine.model("m").delete()
    assert gone.deleted and gone.newest is None
    assert gone.restore().newest == 3


def test_the_newest_is_not_a_deleted_one(two: tuple[Catalog, Catalog]) -> None:
    mine, _ = two
    mine.version("m@3").delete()
    assert (mine.model("m").newest, mine.models()[0].newest) == (2, 2)
    assert mine.save("m", {"w": np.zeros(1)}).number == 4


# -- a call means what it means elsewhere -------------------------------------------------------------------------


def test_tags_and_metrics_are_set_in_the_ways_of_other_tools(two: tuple[Catalog, Catalog]) -> None:
    version = two[0].version("m@1").untag("n").unannotate("auc")
    assert version.tag("team", "cms").tags == {"team": "cms"}
    assert version.tag({"odd key": 1}).tags == {"team": "cms", "odd key": 1}
    assert version.tag({"a": 1}, b=2).tags == {"team": "cms", "odd key": 1, "a": 1, "b": 2}
    assert version.annotate("auc", 0.5).metrics == {"auc": 0.5}
    assert version.annotate({"loss": 1}).annotate(f1=0.25).metrics == {"auc": 0.5, "loss": 1, "f1": 0.25}
    model = two[0].model("m").update("title", "T").update({"owner": "us"})
    assert (model.title, model.owner) == ("T", "us")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda v: v.tag("team"), "has no value"),
        (lambda v: v.tag(), "sets nothing"),
        (lambda v: v.tag({}), "sets nothing"),
        (lambda v: v.tag(None), "cannot take a NoneType"),
        (lambda v: v.tag(["a", "b"]), "cannot take a list"),
        (lambda v: v.tag("a", "b", "c"), "cannot take 3 arguments"),
        (lambda v: v.tag({"a": 1}, a=2), "twice"),
        (lambda v: v.tag({1: 2}), "tag key 1"),
        (lambda v: v.tag("a", object()), "tag 'a'"),
        (lambda v: v.untag(), "name the tags"),
        (lambda v: v.untag("nothing"), "has no tag 'nothing'"),
        (lambda v: v.untag({"n": 1}), "tag key"),
        (lambda v: v.annotate("auc"), "has no value"),
        (lambda v: v.annotate(), "sets nothing"),
        (lambda v: v.annotate(0.5), "cannot take a float"),
        (lambda v: v.annotate({"auc": "high"}), "must be a number"),
        (lambda v: v.unannotate("ucs"), "has no metric"),
        (lambda v: v.promote(None), "no stage None"),
        (lambda v: v.alias(None), "alias must be text"),
        (lambda v: v.alias(2), "alias must be text"),
        (lambda v: v.attach("plot", None), "cannot be a NoneType"),
        (lambda v: v.attach("plot", {"a": 1}), "cannot be a dict"),
        (lambda v: v.attach("plot", "there is no such file"), "no file or folder"),
        (lambda v: v.detach("plot"), "no attachment"),
        (lambda v: v.catalog.model("m").update(), "sets nothing"),
        (lambda v: v.catalog.model("m").update("A title"), "has no value"),
        (lambda v: v.catalog.model("m").update(titel="x"), "has no 'titel'"),
        (lambda v: v.catalog.model("m").update(title=5), "no text"),
        (lambda v: v.catalog.model("m").set_card(Path("card.md")), "a card is text"),
        (lambda v: v.catalog.model("m").unalias(None), "alias must be text"),
    ],
)  # fmt: skip
def test_a_call_that_means_nothing_is_refused_and_writes_nothing(
    two: tuple[Catalog, Catalog], call: Callable[[Any], Any], says: str
) -> None:
    catalog = two[0]
    before = catalog.position
    with pytest.raises(CatalogError, match=says):
        call(catalog.version("m@1"))
    assert catalog.position == before


def test_a_version_is_verified_with_trust(two: tuple[Catalog, Catalog]) -> None:
    version = two[0].version("m@1")
    assert version.verify(trust=True).passed and version.verify().passed


def test_an_unknown_stage_offers_those_there_are(two: tuple[Catalog, Catalog]) -> None:
    with pytest.raises(Rejected) as caught:
        two[0].version("m@1").promote("Production")
    assert "production" in str(caught.value.hint)


# -- handles are of this process ---------------------------------------------------------------------------------


def test_what_holds_an_open_catalog_says_why_it_is_not_pickled(two: tuple[Catalog, Catalog]) -> None:
    catalog = two[0]
    parts = catalog.save("gan", components={"g": {"w": np.zeros(1)}, "d": {"w": np.ones(1)}})
    with catalog.prepare("m", {"w": np.zeros(1)}) as draft:
        for thing in (
            catalog,
            parts,
            catalog.model("m"),
            catalog.models(),
            parts.load(),
            draft,
            catalog.artifact(parts),
        ):
            with pytest.raises(InvalidInput, match="cannot be pickled") as caught:
                pickle.dumps(thing)
            assert caught.value.hint
    loaded = pickle.loads(pickle.dumps(dict(parts.load())))
    assert loaded["d"]["w"][0] == 1.0
    for handle in (parts, catalog.model("m")):
        assert copy.deepcopy({"a": handle})["a"] is handle
        assert copy.copy(handle) is handle


@pytest.mark.parametrize("call", [name for name in READING if name not in ("load", "download", "pin", "unpin")])
def test_a_component_that_a_reference_names_is_not_dropped(
    both: tuple[Catalog, Catalog], place: Path, call: str
) -> None:
    """What takes a whole version says so; `load` and `download` take the component."""
    before = both[0].position
    with pytest.raises(InvalidInput, match="names a component") as caught:
        READING[call](both[0], "m@1#model", place)
    assert "m@1;" in str(caught.value.hint)
    assert both[0].position == before
    assert both[0].load("m@1#model")["w"][0] == 1.0


# -- a handle shows, and is not assigned --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("stage", "promote"), ("tags", "tag"), ("metrics", "annotate"), ("aliases", "alias"), ("deleted", "restore"),
        ("attachments", "attach"), ("digest", "save a new version"), ("params", "save a new version"),
        ("stagee", "can be changed"),
    ],
)  # fmt: skip
def test_a_version_refuses_an_assignment_and_names_the_way(both: tuple[Catalog, Catalog], name: str, way: str) -> None:
    version = both[0].version("m@1")
    with pytest.raises(InvalidInput, match=name) as caught:
        setattr(version, name, "x")
    assert way in str(caught.value.hint)
    with pytest.raises(InvalidInput, match=name):
        delattr(version, name)
    assert version.stage == both[0].version("m@1").stage == "registered"


@pytest.mark.parametrize(
    ("name", "way"), [("title", "update"), ("owner", "update"), ("card", "set_card"), ("aliases", "unalias")]
)
def test_a_model_refuses_an_assignment_and_names_the_way(both: tuple[Catalog, Catalog], name: str, way: str) -> None:
    model = both[0].model("m")
    with pytest.raises(InvalidInput, match=name) as caught:
        setattr(model, name, "x")
    assert way in str(caught.value.hint)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "set": lambda d: d.__setitem__("a", 1),
    "delete": lambda d: d.__delitem__("whose"),
    "update": lambda d: d.update(a=1),
    "or": lambda d: d.__ior__({"a": 1}),
    "pop": lambda d: d.pop("whose"),
    "popitem": lambda d: d.popitem(),
    "clear": lambda d: d.clear(),
    "setdefault": lambda d: d.setdefault("a", 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_handle_shows_refuses_changes(both: tuple[Catalog, Catalog], change: str) -> None:
    version = both[0].version("m@1").annotate(auc=0.5).attach("note", b"1").alias("best")
    model = both[0].model("m")
    shown = (
        version.tags, version.metrics, version.params, version.taxonomy, version.summary, version.attachments,
        model.aliases,
    )  # fmt: skip
    for item in shown:
        before = dict(item)
        with pytest.raises(InvalidInput, match="cannot be changed in place"):
            CHANGES[change](item)
        assert item == before
    with pytest.raises(InvalidInput, match="tag"):
        CHANGES[change](version.tags)


def test_what_a_handle_shows_is_a_dictionary_of_json_and_its_copies_are_plain(both: tuple[Catalog, Catalog]) -> None:
    tags = both[0].version("m@1").tags
    assert tags == {"whose": "a"}
    assert json.loads(json.dumps(tags)) == tags
    for plain in (dict(tags), tags.copy(), copy.copy(tags), copy.deepcopy(tags), pickle.loads(pickle.dumps(tags))):
        plain["b"] = 1
        assert plain == {"whose": "a", "b": 1}
    assert {**tags, "b": 1} == tags | {"b": 1}
    assert both[0].save("again", {"w": np.ones(1)}, tags=tags).tags == tags
