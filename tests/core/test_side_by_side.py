"""A catalog and a plain-Python model of it take the same steps, and must agree after each of them."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from catalog_core import Catalog
from catalog_core.errors import Conflict, InvalidInput, NotFound, Rejected
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.memory import MemoryStore

STAGES = ("registered", "tested", "validated", "production", "archived")
NAMES = st.sampled_from(["calo/gan", "digits", "x"])
ALIASES = st.sampled_from(["best", "candidate"])
KEYS = st.sampled_from(["team", "odd key"])
METRICS = st.sampled_from(["auc", "val/loss"])
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, -1e-9, 1e300]))
TAGS = st.one_of(st.sampled_from(["cms", "other", "", "1", "ünï"]), st.booleans(), NUMBERS)
WHO = st.integers(0, 1)
# a few numbers (inside the journal or a row), a blob of its own, a pack, and two packs that share a large tensor
CONTENTS: dict[str, dict[str, int]] = {
    "tiny": {"a": 4}, "tiny2": {"b": 4}, "blob": {"c": 7_000}, "pack": {"d": 20_000},
    "shared1": {"e": 1_200_000, "f": 1_200_000}, "shared2": {"e": 1_200_000, "g": 1_200_000},
}  # fmt: skip
_unique = itertools.count()


def quick_folder() -> str | None:
    """Where a sync costs nothing, if there is such a place with room."""
    memory = "/dev/shm"
    return memory if os.path.isdir(memory) and shutil.disk_usage(memory).free > 2 << 30 else None


def arrays(content: str) -> dict[str, np.ndarray]:
    """The same arrays each time it is asked."""
    sizes = CONTENTS[content]
    return {name: np.random.default_rng(ord(name)).random(size, dtype=np.float32) for name, size in sizes.items()}


@attrs.define
class PlainVersion:
    content: str
    digest: str
    stage: str = "registered"
    hidden: str = ""  # "", "deleted", "with model", "collected", or "perhaps collected"
    tags: dict[str, Any] = attrs.field(factory=dict)
    metrics: dict[str, Any] = attrs.field(factory=dict)
    attached: dict[str, bytes] = attrs.field(factory=dict)


@attrs.define
class PlainModel:
    texts: dict[str, str | None] = attrs.field(factory=lambda: {"title": None, "description": None, "owner": None})
    card: str | None = None
    hidden: bool = False
    aliases: dict[str, int] = attrs.field(factory=dict)
    parted: dict[str, int] = attrs.field(factory=dict)  # of deleted versions: they come back with them
    versions: dict[int, PlainVersion] = attrs.field(factory=dict)

    def visible(self) -> dict[int, PlainVersion]:
        return {number: version for number, version in self.versions.items() if not version.hidden}

    def part(self, names: set[str]) -> None:
        self.parted |= {alias: self.aliases.pop(alias) for alias in names}

    def rejoin(self) -> None:
        back = {alias: number for alias, number in self.parted.items() if number in self.visible()}
        self.aliases = back | self.aliases
        self.parted = {alias: number for alias, number in self.parted.items() if alias not in back}


class Machine(RuleBasedStateMachine):
    """Two handles, each with an index of its own, write to one place; `kind` says of what sort."""

    kind = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="catalog-machine-", dir=quick_folder()))
        self.store = MemoryStore()
        self.url = f"{self.kind}://{self.folder}/catalog"
        if self.kind == "memory":
            self.url = f"memory://{next(_unique)}"
        self.models: dict[str, PlainModel] = {}
        self.past: list[dict[str, PlainModel]] = []
        self.catalogs = [self.opened(0), self.opened(1)]
        self.noted()

    def opened(self, who: int) -> Catalog:
        os.environ["CATALOG_CACHE_DIR"] = str(self.folder / f"cache{who}")
        if self.kind != "memory":
            return Catalog.open(self.url)
        catalog = Catalog(ObjectStoreBackend(self.store, "memory", self.url), "memory")
        catalog.repository.max_staleness = 0.0
        if catalog.repository.index.head is None:
            catalog.repository.begin()
        return catalog

    def noted(self) -> None:
        """One entry was written, and the state behind it is this."""
        self.past.append(copy.deepcopy(self.models))

    def teardown(self) -> None:
        try:
            self.nothing_is_damaged()
        finally:
            for catalog in self.catalogs:
                catalog.close()
            shutil.rmtree(self.folder)

    def nothing_is_damaged(self) -> None:
        catalog = self.catalogs[0]
        findings = catalog.fsck()
        assert findings.clean, findings.problems
        for name, model in self.models.items():
            for number, version in model.visible().items():
                self.holds(catalog, f"{name}@{number}", version)

    def holds(self, catalog: Catalog, ref: str, version: PlainVersion) -> None:
        loaded = catalog.load(ref)
        wanted = arrays(version.content)
        assert loaded.keys() == wanted.keys()
        for key, array in wanted.items():
            np.testing.assert_array_equal(loaded[key], array)

    def some(self, data: st.DataObject) -> tuple[str, int, PlainVersion]:
        every = [(name, number) for name, model in self.models.items() for number in model.versions]
        name, number = data.draw(st.sampled_from(every), label="version")
        return name, number, self.models[name].versions[number]

    # -- changes ------------------------------------------------------------------------------------------------

    @initialize(name=NAMES, content=st.sampled_from(sorted(CONTENTS)))
    def first(self, name: str, content: str) -> None:
        self.publish(0, name, content, None, {}, {})

    @rule(
        who=WHO, name=NAMES, content=st.sampled_from(sorted(CONTENTS)), alias=st.none() | ALIASES,
        tags=st.dictionaries(KEYS, TAGS), metrics=st.dictionaries(METRICS, NUMBERS),
    )  # fmt: skip
    def publish(
        self, who: int, name: str, content: str, alias: str | None, tags: dict[str, Any], metrics: dict[str, Any]
    ) -> None:
        model = self.models.setdefault(name, PlainModel())
        number = len(model.versions) + 1
        saved = self.catalogs[who].save(name, arrays(content), alias=alias, tags=tags, metrics=metrics)
        assert saved.ref == f"{name}@{number}"
        model.versions[number] = PlainVersion(content, saved.digest, tags=dict(tags), metrics=dict(metrics))
        model.hidden = False
        if alias:
            model.aliases[alias] = number
        self.noted()

    @rule(who=WHO, data=st.data(), alias=ALIASES)
    def point(self, who: int, data: st.DataObject, alias: str) -> None:
        name, number, version = self.some(data)
        handle = self.catalogs[who].version(f"{name}@{number}", deleted=True)
        if version.hidden:
            with pytest.raises(Rejected, match="deleted"):
                handle.alias(alias)
            return
        assert alias in handle.alias(alias).aliases
        if self.models[name].aliases.get(alias) == number:
            return  # nothing was to be written
        self.models[name].aliases[alias] = number
        self.noted()

    @rule(who=WHO, data=st.data(), alias=ALIASES)
    def point_by_one_who_has_not_looked(self, who: int, data: st.DataObject, alias: str) -> None:
        name, number, version = self.some(data)
        if version.hidden:
            return
        late = self.catalogs[who].version(f"{name}@{number}")
        seen = self.models[name].aliases.get(alias)
        self.point(1 - who, data, alias)
        actual = self.models[name].aliases.get(alias)
        if actual == seen:
            return
        if actual == number:
            assert alias in late.alias(alias).aliases
            return
        with pytest.raises(Conflict) as caught:
            late.alias(alias)
        assert (caught.value.seen, caught.value.actual) == (seen, actual)
        self.point(who, data, alias)

    @rule(who=WHO, name=NAMES, alias=ALIASES)
    def unpoint(self, who: int, name: str, alias: str) -> None:
        model = self.models.get(name)
        if model is None or model.hidden:
            with pytest.raises(NotFound):
                self.catalogs[who].model(name)
            return
        if alias not in model.aliases:
            with pytest.raises(NotFound, match="no alias"):
                self.catalogs[who].model(name).unalias(alias)
            return
        self.catalogs[who].model(name).unalias(alias)
        del model.aliases[alias]
        self.noted()

    @rule(who=WHO, data=st.data(), stage=st.sampled_from([*STAGES, "nonsense"]))
    def promote(self, who: int, data: st.DataObject, stage: str) -> None:
        name, number, version = self.some(data)
        handle = self.catalogs[who].version(f"{name}@{number}", deleted=True)
        assert handle.stage == version.stage
        if stage not in STAGES:
            with pytest.raises(Rejected, match="no stage"):
                handle.promote(stage)
            return
        assert handle.promote(stage).stage == stage
        seen, version.stage = version.stage, stage
        self.noted()
        if seen != stage:  # the handle has grown stale
            with pytest.raises(Conflict) as caught:
                handle.promote("archived")
            assert (caught.value.seen, caught.value.actual) == (seen, stage)

    @rule(who=WHO, data=st.data(), tags=st.dictionaries(KEYS, TAGS), unset=st.sets(KEYS))
    def tag(self, who: int, data: st.DataObject, tags: dict[str, Any], unset: set[str]) -> None:
        name, number, version = self.some(data)
        changed = self.catalogs[who].version(f"{name}@{number}", deleted=True)
        if tags:
            changed = changed.tag(tags)
            version.tags = {**version.tags, **tags}
            self.noted()
        gone = unset & version.tags.keys()
        if gone:
            changed = changed.untag(*sorted(gone))
            version.tags = {key: value for key, value in version.tags.items() if key not in gone}
            self.noted()
        assert changed.tags == version.tags

    @rule(who=WHO, data=st.data(), metrics=st.dictionaries(METRICS, NUMBERS, min_size=1))
    def annotate(self, who: int, data: st.DataObject, metrics: dict[str, Any]) -> None:
        name, number, version = self.some(data)
        assert self.catalogs[who].version(f"{name}@{number}", deleted=True).annotate(**metrics)
        version.metrics |= metrics
        self.noted()

    @rule(who=WHO, data=st.data(), value=st.sampled_from([float("nan"), float("inf"), "high", True, None, 1 << 60]))
    def annotate_with_what_is_no_number(self, who: int, data: st.DataObject, value: Any) -> None:
        name, number, _ = self.some(data)
        with pytest.raises(InvalidInput):
            self.catalogs[who].version(f"{name}@{number}", deleted=True).annotate(auc=value)

    @rule(who=WHO, name=NAMES, key=st.sampled_from(["title", "description", "owner"]), text=st.sampled_from("αbc"))
    def describe(self, who: int, name: str, key: str, text: str) -> None:
        model = self.models.get(name)
        if model is None or model.hidden:
            return
        mine = self.catalogs[who].model(name)
        other = self.catalogs[1 - who].model(name)
        assert getattr(mine.update(**{key: text}), key) == text
        seen, model.texts[key] = model.texts[key], text
        self.noted()
        if seen != text:
            with pytest.raises(Conflict) as caught:
                other.update(**{key: "late"})
            assert (caught.value.seen, caught.value.actual) == (seen, text)

    @rule(who=WHO, name=NAMES, text=st.sampled_from(["# short", "# long " + "x" * 40_000, "# longer " + "x" * 80_000]))
    def write_card(self, who: int, name: str, text: str) -> None:
        model = self.models.get(name)
        if model is None or model.hidden:
            return
        assert self.catalogs[who].model(name).set_card(text).card == text
        model.card = text
        self.noted()

    @rule(
        who=WHO,
        data=st.data(),
        name=st.sampled_from(["log", "plot"]),
        size=st.sampled_from([None, 0, 9, 30_000, 90_000]),
    )
    def attach(self, who: int, data: st.DataObject, name: str, size: int | None) -> None:
        ref, number, version = self.some(data)
        handle = self.catalogs[who].version(f"{ref}@{number}", deleted=True)
        if size is None and name not in version.attached:
            return
        changed = handle.detach(name) if size is None else handle.attach(name, b"y" * size)
        assert (name in handle.attachments) == (name in version.attached)  # the handle keeps what it saw
        version.attached.pop(name, None)
        if size is not None:
            version.attached[name] = b"y" * size
        self.noted()
        assert changed.attachments == {key: len(content) for key, content in sorted(version.attached.items())}

    @rule(who=WHO, data=st.data())
    def read_attachments(self, who: int, data: st.DataObject) -> None:
        name, number, version = self.some(data)
        if not version.hidden:
            for key, content in version.attached.items():
                assert self.catalogs[who].version(f"{name}@{number}").attachment(key) == content

    @rule(who=WHO, data=st.data())
    def delete(self, who: int, data: st.DataObject) -> None:
        name, number, version = self.some(data)
        handle = self.catalogs[who].version(f"{name}@{number}", deleted=True)
        if version.hidden:
            with pytest.raises(Rejected, match="deleted already"):
                handle.delete()
            return
        handle.delete()
        version.hidden = "deleted"
        model = self.models[name]
        model.part({alias for alias, to in model.aliases.items() if to == number})
        self.noted()

    @rule(who=WHO, data=st.data())
    def restore(self, who: int, data: st.DataObject) -> None:
        name, number, version = self.some(data)
        catalog = self.catalogs[who]
        handle = catalog.version(f"{name}@{number}", deleted=True)
        if not version.hidden:
            with pytest.raises(InvalidInput, match="is not deleted"):
                handle.restore()
            return
        if version.hidden.endswith("collected"):
            try:
                handle.restore()
            except Rejected as exc:
                assert exc.code == "collected"
                version.hidden = "collected"
                return
            assert version.hidden == "perhaps collected"
        else:
            handle.restore()
        version.hidden = ""
        self.models[name].hidden = False
        self.models[name].rejoin()
        self.noted()
        self.holds(catalog, f"{name}@{number}", version)

    @rule(who=WHO, name=NAMES)
    def delete_model(self, who: int, name: str) -> None:
        model = self.models.get(name)
        if model is None or model.hidden:
            return
        self.catalogs[who].model(name).delete()
        model.hidden = True
        model.part(set(model.aliases))
        for version in model.visible().values():
            version.hidden = "with model"
        self.noted()

    @precondition(lambda self: any(model.hidden for model in self.models.values()))
    @rule(who=WHO, data=st.data())
    def restore_model(self, who: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(name for name, model in self.models.items() if model.hidden)))
        model = self.models[name]
        self.catalogs[who].model(name, deleted=True).restore()
        model.hidden = False
        for number, version in model.versions.items():
            if version.hidden == "perhaps collected":
                (row,) = self.catalogs[who].repository.index.rows(
                    "SELECT deleted FROM versions WHERE name = ? AND number = ?", (name, number)
                )
                version.hidden = {0: "", 1: "deleted", 2: "collected"}[row[0]]
            elif version.hidden == "with model":
                version.hidden = ""
        model.rejoin()
        self.noted()

    @rule(who=WHO)
    def collect(self, who: int) -> None:
        every = [version for model in self.models.values() for version in model.versions.values()]
        live = {version.digest for version in every if not version.hidden}
        catalog = self.catalogs[who]
        catalog.gc(grace=-1)
        if catalog.position != len(self.past) - 1:
            self.swept(every, live)
        if catalog.gc(grace=-1).blobs:  # attachments of versions that were collected just now
            self.noted()
        assert catalog.gc(grace=-1).blobs == 0

    def swept(self, every: list[PlainVersion], live: set[str]) -> None:
        for version in every:
            if version.hidden not in ("deleted", "with model", "perhaps collected"):
                continue
            if version.digest in live:  # the same content, but perhaps in a pack of its own: another index wrote it
                if version.content.startswith("shared"):
                    version.hidden = "perhaps collected"
            else:
                if self.kind == "sqlite" or version.content in ("blob", "pack"):
                    version.hidden = "collected"
                elif version.content.startswith("shared"):  # it stays as long as the other one needs its pack
                    version.hidden = "perhaps collected"
        self.noted()

    @rule(who=WHO)
    def open_again(self, who: int) -> None:
        self.catalogs[who].close()
        self.catalogs[who] = self.opened(who)

    @rule(who=WHO)
    def open_again_without_the_index(self, who: int) -> None:
        before = self.catalogs[who]
        before.repository.refresh(force=True)
        state = before.repository.index.dump()
        before.close()
        shutil.rmtree(self.folder / f"cache{who}")
        self.catalogs[who] = self.opened(who)
        assert self.catalogs[who].repository.index.dump() == state

    # -- looks --------------------------------------------------------------------------------------------------

    @rule(who=WHO, data=st.data())
    def load(self, who: int, data: st.DataObject) -> None:
        name, number, version = self.some(data)
        if not version.hidden:
            self.holds(self.catalogs[who], f"{name}@{number}", version)

    @rule(who=WHO, data=st.data())
    def ask_the_past(self, who: int, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.past) - 1), label="position")
        name = data.draw(NAMES, label="model")
        model = self.past[position].get(name)
        if model is None:
            with pytest.raises(NotFound):
                self.catalogs[who].as_of(name, f"#{position}")
            return
        state = self.catalogs[who].as_of(name, f"#{position}")
        assert {key: state[key] for key in model.texts} == model.texts
        assert state["aliases"] == model.aliases
        unsure = {number for number, version in model.versions.items() if version.hidden == "perhaps collected"}
        assert {
            v["number"]: (v["stage"], v["digest"], v["tags"], v["metrics"])
            for v in state["versions"]
            if v["number"] not in unsure
        } == {number: (v.stage, v.digest, v.tags, v.metrics) for number, v in model.visible().items()}

    @rule(who=WHO, data=st.data())
    def search(self, who: int, data: st.DataObject) -> None:
        key = data.draw(KEYS, label="key")
        metric = data.draw(METRICS, label="metric")
        number = data.draw(NUMBERS, label="number")
        alias = data.draw(ALIASES, label="alias")
        stage = data.draw(st.sampled_from(STAGES), label="stage")

        def found(text: str) -> set[str]:
            return {version.ref for version in self.catalogs[who].search(text, limit=1000)}

        every = [
            (f"{name}@{number}", number, model, version)
            for name, model in self.models.items()
            for number, version in model.visible().items()
        ]
        assert found("") == {ref for ref, *_ in every}
        assert found(f'tags."{key}" = "cms"') == {r for r, _, _, v in every if v.tags.get(key) == "cms"}
        assert found(f'has(tags."{key}")') == {r for r, _, _, v in every if key in v.tags}
        assert found(f'metrics."{metric}" > {number!r}') == {
            r for r, _, _, v in every if metric in v.metrics and v.metrics[metric] > number
        }
        assert found(f'stage != "{stage}"') == {r for r, _, _, v in every if v.stage != stage}
        assert found(f'alias = "{alias}"') == {r for r, n, model, _ in every if model.aliases.get(alias) == n}

    @rule(who=WHO, name=NAMES, alias=ALIASES)
    def resolve(self, who: int, name: str, alias: str) -> None:
        catalog = self.catalogs[who]
        model = self.models.get(name, PlainModel())
        newest = max((n for n, version in model.visible().items() if version.stage != "archived"), default=None)
        for ref, number in ((name, newest), (f"{name}@{alias}", model.aliases.get(alias))):
            if number is None:
                with pytest.raises(NotFound):
                    catalog.version(ref)
            else:
                assert catalog.version(ref).number == number

    @invariant()
    def both_handles_agree_with_the_model(self) -> None:
        for catalog in self.catalogs:
            listed = {model.name: model for model in catalog.models()}
            assert catalog.position == len(self.past) - 1
            assert listed.keys() == {name for name, model in self.models.items() if not model.hidden}
            for name, handle in listed.items():
                model = self.models[name]
                assert handle.aliases == model.aliases
                assert {key: getattr(handle, key) for key in model.texts} == model.texts
                assert handle.card == model.card
                assert [(v.number, v.digest, v.stage) for v in handle.versions] == [
                    (number, version.digest, version.stage) for number, version in reversed(model.visible().items())
                ]


@pytest.mark.parametrize("kind", ["sqlite", "file", "memory"])
def test_the_catalog_does_what_a_plain_model_of_it_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", "")  # set by each machine, put back when this ends
    machine = type(f"Machine_{kind}", (Machine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=20, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ["sqlite", "file", "memory"])
def test_the_catalog_does_what_a_plain_model_of_it_does_for_long(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", "")
    examples = int(os.environ.get("CATALOG_TEST_EXAMPLES", "1500"))
    machine = type(f"Machine_{kind}", (Machine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as opened:
        yield opened


def test_a_restored_version_brings_its_model_back(catalog: Catalog) -> None:
    catalog.save("m", arrays("tiny"))
    catalog.model("m").delete()
    catalog.version("m@1", deleted=True).restore()
    assert [model.name for model in catalog.models()] == ["m"]
    assert [version.number for version in catalog.versions("m")] == [1]


def test_the_past_knows_what_was_collected(catalog: Catalog) -> None:
    catalog.save("other", arrays("tiny"))
    catalog.save("m", arrays("blob"))
    for name in ("m", "other"):
        catalog.model(name).delete()
    catalog.gc(grace=-1)
    catalog.model("m", deleted=True).restore()
    assert catalog.versions("m") == []
    assert catalog.as_of("m", f"#{catalog.position}")["versions"] == []
    assert len(catalog.as_of("m", "#2")["versions"]) == 1
