"""What is said of a version comes back as it was said: scalars of frameworks, booleans, None, what is nested."""

from __future__ import annotations

import argparse
import enum
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_core import Catalog
from catalog_core.errors import InvalidInput
from catalog_core.values import check_metric, check_tags, scalar

pytestmark = pytest.mark.unit


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as opened:
        yield opened


def weights() -> dict[str, Any]:
    return {"w": np.zeros(2, dtype=np.float32)}


class Optimizer(enum.StrEnum):
    ADAM = "adam"


class Zero:
    """What a 0-dimensional tensor of a framework looks like."""

    shape, dtype = (), "int64"

    def __init__(self, value: Any) -> None:
        self._value = value

    def item(self) -> Any:
        if self._value is None:
            raise RuntimeError("no data")
        return self._value


SCALARS = [
    (np.int64(3), 3), (np.uint8(7), 7), (np.float32(0.5), 0.5), (np.float64(0.25), 0.25), (np.longdouble(2), 2.0),
    (np.bool_(True), True), (np.bool_(False), False), (np.str_("x"), "x"), (np.array(4), 4), (Zero(5), 5),
    (Zero(True), True), (Optimizer.ADAM, "adam"), (PurePosixPath("a/b"), "a/b"), (True, True), (False, False), ("", ""),
    ("true", "true"), ("3", "3"), (3.1e17, 3.1e17), (-1e18, -1e18), (2.0**53, 2.0**53), (1e21, 1e21), (-0.0, 0),
]  # fmt: skip


@pytest.mark.parametrize(("value", "stored"), SCALARS, ids=lambda value: repr(value)[:30])
def test_a_scalar_comes_back_as_pythons_own_from_tags_and_parameters(catalog: Catalog, value: Any, stored: Any) -> None:
    version = catalog.save("m", weights(), tags={"k": value}, params={"k": value}, custom={"k": value})
    for found in (version.tags["k"], version.params["k"], version.manifest.custom["k"]["value"]):
        assert found == stored
        assert type(found) in (bool, int, float, str)
        assert isinstance(found, bool) == isinstance(stored, bool)
    assert catalog.version("m").tag(other=value).tags["other"] == stored
    assert catalog.fsck().clean


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (np.int64(3), 3), (np.float32(0.5), 0.5), (np.array(4.0), 4.0), (Zero(5), 5), (2**53 - 1, 2**53 - 1),
        (3.1e17, 3.1e17), (2.0**53, 2.0**53), (np.float64(1e20), 1e20), (np.int64(-(2**53) + 1), -(2**53) + 1),
    ],
)  # fmt: skip
def test_a_number_comes_back_from_metrics_as_it_was(catalog: Catalog, value: Any, stored: Any) -> None:
    version = catalog.save("m", weights(), metrics={"k": value})
    assert version.metrics == {"k": stored}
    assert catalog.version("m").annotate(again=value).metrics["again"] == stored


def test_a_boolean_is_no_text_and_a_search_finds_both(catalog: Catalog) -> None:
    catalog.save("m", weights(), tags={"approved": False, "word": "false"}, params={"shuffle": True})
    version = Catalog.open(catalog.url).version("m")
    assert version.tags == {"approved": False, "word": "false"}
    assert version.params == {"shuffle": True}
    assert not version.tags["approved"]
    for query in ("tags.approved = false", 'tags.word = "false"', "params.shuffle = true"):
        assert [found.ref for found in catalog.search(query)] == ["m@1"]
    assert catalog.as_of("m", "#1")["versions"][0]["tags"] == {"approved": False, "word": "false"}
    assert version.tag(approved=True).tags["approved"] is True
    assert version.tag(approved="true").tags["approved"] == "true"


def test_none_says_that_a_parameter_has_no_value(catalog: Catalog, tmp_path: Path) -> None:
    version = catalog.save("m", weights(), params={"warmup": None, "lr": 0.1}, tags={"owner": None, "team": "cms"})
    assert version.params == {"warmup": None, "lr": 0.1}
    assert version.tags == {"team": "cms"}
    assert not list(catalog.search("has(params.warmup)"))
    with Catalog.open(tmp_path / "other") as other:
        assert catalog.copy("m@1", other).params == {"warmup": None, "lr": 0.1}
        catalog.export("m@1", tmp_path / "m.tar")
        assert other.import_(tmp_path / "m.tar", "again")[0].params == {"warmup": None, "lr": 0.1}
    with pytest.raises(InvalidInput, match="tag 'team' cannot be None"):
        version.tag(team=None)
    assert catalog.version("m").tags == {"team": "cms"}


def test_nested_parameters_are_joined_by_dots_and_lists_are_their_json(catalog: Catalog) -> None:
    arguments = argparse.Namespace(
        lr=np.float64(1e-3), out=Path("runs") / "a", resume=None, layers=[64, np.int64(32)], amp=np.bool_(True),
        optimizer={"name": Optimizer.ADAM, "betas": (0.9, np.float32(0.5)), "weights": {0: 1.0, 1: 2.0}, "extra": {}},
        loss=SimpleNamespace(kind="mse", terms=[{"a": None}, [2.5]]), empty=[],
    )  # fmt: skip
    expected = {
        "lr": 0.001, "out": "runs/a", "resume": None, "layers": "[64, 32]", "amp": True, "optimizer.name": "adam",
        "optimizer.betas": "[0.9, 0.5]", "optimizer.weights.0": 1.0, "optimizer.weights.1": 2.0,
        "optimizer.extra": "{}", "loss.kind": "mse", "loss.terms": '[{"a": null}, [2.5]]', "empty": "[]",
    }  # fmt: skip
    for told in (arguments, vars(arguments), MappingProxyType(vars(arguments)), OrderedDict(vars(arguments))):
        assert catalog.save("m", weights(), params=told).params == expected
    tags = {key: value for key, value in expected.items() if value is not None}
    assert catalog.save("m", weights(), tags=vars(arguments)).tags == tags
    assert [found.number for found in catalog.search("params.optimizer.name = adam")] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"a": {"b": 1}, "a.b": 2}, "'a.b' is given twice"),
        ({"a": {"1": 1, 1: 2}}, "'a.1' is given twice"),
        ({"a": {"b": dict}}, "'a.b' is a type"),
        ({"a": [1, {"b": b"x"}]}, "'a' is a bytes"),
        ({"a": {"b": {"c": float("nan")}}}, "'a.b.c' is nan"),
        ({"a": {"b": 2**60}}, "'a.b' is an integer beyond"),
        ({"a": {"b": 10**6000}}, "'a.b' is an integer beyond"),
        ({"a": {None: 1}}, "None"),
        ({"a": {"b\x1b": 1}}, r"'a.b\x1b'"),
        ({"a": {"b": np.zeros(3)}}, "'a.b' is an ndarray"),
        ({"a": Zero(None)}, "'a' is a Zero"),
        ({"a": {"b": ["x" * 5000]}}, "'a.b' takes"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_whole_name(values: Any, named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_tags(values)
    assert named in str(caught.value)


def test_what_holds_itself_is_refused() -> None:
    mapping: dict[str, Any] = {}
    mapping["again"] = mapping["too"] = mapping
    sequence: list[Any] = []
    sequence.append(sequence)
    for given_value in (mapping, {"a": sequence}):
        with pytest.raises(InvalidInput):
            check_tags(given_value)


KEYS = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=4)
PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=9),
)


@given(st.dictionaries(KEYS, st.recursive(PLAIN | st.none(), lambda inner: st.dictionaries(KEYS, inner, max_size=3))))
def test_what_is_flat_stays_as_it_is(values: dict[str, Any]) -> None:
    flat = check_tags(values)
    assert check_tags(flat) == flat
    assert {key: value for key, value in values.items() if not isinstance(value, dict)}.items() <= flat.items()


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53) + 1, 2**53 - 1))
def test_metrics_are_not_rounded(number: float) -> None:
    assert check_metric("k", number) == number
    assert scalar(number) == number


def test_bounds_seeds_and_provenance_take_scalars_of_numpy_too(catalog: Catalog) -> None:
    version = catalog.save(
        "m", weights(), seed=np.int64(3), provenance={"git": {"a": np.float64(0.5), "n": 1e17}},
        datasets={"train": {"reference": "x", "size": np.int64(7)}},
    )  # fmt: skip
    found = version.manifest.provenance
    assert (found["seed"], found["git"], found["datasets"]["train"]["size"]) == (3, {"a": 0.5, "n": 1e17}, 7)
    for seed in (True, 10**6000, 1.5, "7"):
        with pytest.raises(InvalidInput, match="seed"):
            catalog.save("m", weights(), seed=seed)  # type: ignore[arg-type]
