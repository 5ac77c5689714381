"""What a public call takes: switches are True or False, seconds are seconds, an actor is text."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog, platform
from catalog_core.draft import Draft
from catalog_core.errors import InvalidInput
from catalog_core.handles import Model, Version

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory):
    with Catalog.open(tmp_path_factory.mktemp("flags")) as opened:
        opened.save("m", {"w": np.ones(2)})
        yield opened


def switches() -> list[tuple[str, str, str]]:
    """Every public method with an argument that is on or off."""
    found = []
    for owner in (Catalog, Version, Model, Draft):
        for name, method in inspect.getmembers(owner, callable):
            if not name.startswith("_"):
                for key, parameter in inspect.signature(method).parameters.items():
                    if str(parameter.annotation) in ("bool", "bool | None"):
                        found.append((owner.__name__, name, key))
    return found


# what stands before the switch, where something has to
BEFORE: dict[str, tuple[Any, ...]] = {
    "model": ("m",), "version": ("m",), "verify": ("m",), "save": ("new", {"w": np.ones(1)}), "import_": ("x",),
    "failover": ("x",), "open": ("./never",),
}  # fmt: skip


@pytest.mark.parametrize(("owner", "name", "key"), switches())
@pytest.mark.parametrize("value", ["no", "", 0, 1, [], 2.0])
def test_a_switch_is_on_or_off(owner: str, name: str, key: str, value: Any, catalog: Catalog) -> None:
    draft = catalog.prepare("d", {"w": np.ones(1)}) if owner == "Draft" else None
    thing: Any = {"Catalog": catalog, "Version": catalog.version("m"), "Model": catalog.model("m"), "Draft": draft}[
        owner
    ]
    before = BEFORE.get(name, ()) if owner == "Catalog" else ()
    with pytest.raises(InvalidInput, match=f"{key}= is .*neither True nor False"):
        getattr(thing, name)(*before, **{key: value})
    if draft is not None:
        draft.discard()


def test_the_switches_are_found() -> None:
    assert {("Catalog", "model", "deleted"), ("Catalog", "gc", "dry_run"), ("Draft", "save", "force")} < {*switches()}


@pytest.mark.parametrize("value", ["x", True, float("nan"), float("inf"), -1, [], None])
def test_seconds_are_a_number(value: Any, catalog: Catalog, tmp_path: Any) -> None:
    if value is not None:  # which means the default
        with pytest.raises(InvalidInput, match=r"max_staleness is .*no number of seconds"):
            Catalog.open(tmp_path / "c", max_staleness=value)
    if value != -1:  # what a second ahead has been written goes too
        with pytest.raises(InvalidInput, match=r"grace is .*no number of seconds"):
            catalog.gc(grace=value)


@pytest.mark.parametrize("actor", [7, "", "a\nb", "x" * 201, "\ud800", b"x", True])
def test_an_actor_that_nobody_could_read_signs_nothing(actor: Any, tmp_path: Any, monkeypatch: Any) -> None:
    with pytest.raises(InvalidInput, match="an actor cannot be"):
        Catalog.open(tmp_path / "c", actor=actor)
    monkeypatch.setattr(platform, "actor", lambda: actor)  # as $CATALOG_ACTOR may give it
    with pytest.raises(InvalidInput, match="CATALOG_ACTOR"):
        Catalog.open(tmp_path / "c")


def test_what_a_pickle_is_told_to_call_instead_works(catalog: Catalog) -> None:
    for thing, wanted in ((catalog, catalog.id), (catalog.version("m"), "m@1"), (catalog.model("m"), "m")):
        with pytest.raises(InvalidInput) as caught:
            pickle.dumps(thing)
        call = re.search(r"(Catalog\.open\(.*)", str(caught.value.hint))
        made = eval(call[1], {"Catalog": Catalog})  # what the sentence says
        assert wanted in (getattr(made, "ref", None), getattr(made, "name", None), getattr(made, "id", None))
        (made if isinstance(made, Catalog) else made.catalog).close()
