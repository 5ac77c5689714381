"""What would make a version that nobody can use, or be lost in silence, is refused where it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import CatalogError, Conflict, InvalidInput, NotFound

W = {"w": np.zeros(2)}


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield catalog


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"options": {"optimizer": True}}, "no option 'optimizer'"),
        ({"options": [1]}, "options must map"),
        ({"serializer": ["safetensors", "safetensors"]}, "different ones"),
        ({"serializer": 3}, "serializer= is 3"),
        ({"description": 3}, "description is an int"),
        ({"metrics": {"loss": [1.0, 0.5]}}, r"values\[-1\]"),
        ({"params": {"a": [float("nan")]}}, "'a' is nan"),
        ({"tags": {"a": {"b": [float("inf")]}}}, "'a.b' is inf"),
        ({"tags": {"a": "\ud800"}}, r"tag 'a' holds half a surrogate"),
        ({"params": {"a": ["\ud800"]}}, r"parameter 'a' holds half a surrogate"),
    ],
)
def test_it_is_named_and_nothing_is_saved(given: dict[str, Any], says: str, catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match=says):
        catalog.save("m", W, **given)
    assert not catalog.models()


def test_a_list_of_serializers_is_enough_for_one_object(catalog: Catalog) -> None:
    version = catalog.save("m", W, serializer=["safetensors", "pytree"])
    assert {c.serializer for c in version.manifest.components} == {"safetensors", "pytree"}


def test_metrics_may_be_nested_as_parameters_are(catalog: Catalog) -> None:
    version = catalog.save("m", W, metrics={"train": {"loss": 0.5}, "n": np.int64(3)})
    assert version.metrics == {"train.loss": 0.5, "n": 3}


def test_an_alias_that_is_there_already_is_no_conflict(catalog: Catalog) -> None:
    first, second = catalog.save("m", W), catalog.save("m", {"w": np.ones(2)})
    assert first.alias("best").aliases == ["best"]
    position = catalog.position
    assert first.alias("best").aliases == ["best"]
    assert catalog.position == position
    with pytest.raises(Conflict):
        second.alias("best")


def test_a_bare_name_of_archived_versions_says_so(catalog: Catalog) -> None:
    catalog.save("m", W).promote("archived")
    with pytest.raises(NotFound, match=r"all versions of m are archived \(name one: m@1\)"):
        catalog.load("m")


def test_a_card_whose_head_is_broken_is_told(catalog: Catalog) -> None:
    model = catalog.model(catalog.save("m", W).model)
    with pytest.warns(UserWarning, match="its fields are not read"):
        assert model.set_card("---\na: [\n---\ntext").card == "---\na: [\n---\ntext"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Catalog("./models"), r"Catalog\.open\('\./models'\)"),
        (lambda: Catalog.open(3), "not by an? int"),  # type: ignore[arg-type]
    ],
)
def test_a_catalog_is_opened(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(CatalogError, match=says):
        call()


def test_an_address_is_no_folder(catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match=r"https://hub/bert is an address"):
        catalog.import_("https://hub/bert")


@pytest.mark.parametrize(
    "text", ["metrics.a between 1 and 2", "metrics.a is null", "stage registered", "alias champion", "not", "limit -1"]
)
def test_half_a_filter_is_told(text: str, catalog: Catalog) -> None:
    catalog.save("m", W, metrics={"a": 1.5})
    found = catalog.search(text)
    assert not found and "searched for as words" in found.notes[0]


def test_what_parts_a_hybrid_needs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "catalog.toml"
    monkeypatch.setenv("CATALOG_CONFIG", str(config))
    config.write_text('[catalogs.both]\nbackend = "hybrid"\n')
    with pytest.raises(CatalogError, match="needs primary and replicas"):
        Catalog.open("both")
    (tmp_path / "link").symlink_to(tmp_path / "same")
    parts = f'[catalogs.aa]\nurl = "file://{tmp_path}/same"\n[catalogs.bb]\nurl = "file://{tmp_path}/link/"\n'
    config.write_text(f'{parts}[catalogs.both]\nbackend = "hybrid"\nprimary = "aa"\nreplicas = ["bb"]\n')
    with pytest.raises(CatalogError, match="'aa' and 'bb' are one place"):
        Catalog.open("both")
    assert not (tmp_path / "same").exists()


framework = pytest.mark.framework


@framework
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tensors": {"X": {"minimum": 5, "maximum": 1}}}, "minimum of 'X', 5, is above"),
        ({"tensors": {"X": {"minimum": 5}}}, "of the example: expected values from 5"),
        ({"baseline": {"X": np.ones((3, 5))}}, r"baseline of 'X' is float64\[3, 5\]"),
        ({"baseline": {"X": np.array(["a", "b"])}}, "baseline of 'X'"),
    ],
)
def test_what_nobody_could_run_is_not_saved(given: dict[str, Any], says: str, catalog: Catalog) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x = np.arange(8.0).reshape(4, 2)
    model = linear.LinearRegression().fit(x, x[:, 0])
    with pytest.raises(InvalidInput, match=says):
        catalog.save("m", model, example=x, **given)
    assert not catalog.models()
    catalog.save("m", model, example=x, tensors={"X": {"minimum": 0, "maximum": 7}}, baseline={"X": x[:1]})


@framework
def test_an_entry_point_that_gives_nothing_is_not_saved(catalog: Catalog) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InvalidInput, match="'predict' gives nothing when output is left out"):
        catalog.save("m", torch.nn.Linear(2, 2), example=torch.ones(1, 2), skip="output")


@framework
def test_an_example_that_nothing_would_run_is_not_dropped(catalog: Catalog, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(2, 2)
    with pytest.raises(InvalidInput, match="for no entry point: one and two are several"):
        catalog.save("m", components={"one": net, "two": net}, example=torch.ones(1, 2))
    (tmp_path / "w.bin").write_bytes(b"w")
    with pytest.raises(InvalidInput, match="files are run by nothing"):
        catalog.save("m", tmp_path / "w.bin", example=np.ones(2))
    assert not catalog.models()
