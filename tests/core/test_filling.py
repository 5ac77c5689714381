"""Filling a live object: under other names, and in part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import InvalidInput, SerializationError
from catalog_core.filling import Filled, renamed


class Counted(dict[str, str]):
    """Names that count how often somebody goes through all of them."""

    passes = 0

    def __iter__(self) -> Iterator[str]:
        self.passes += 1
        return super().__iter__()

    def items(self) -> Any:
        self.passes += 1
        return super().items()


def test_each_name_is_looked_up_and_not_all_names_for_each() -> None:
    """With 8,000 names that each had a new one, all were sorted 8,000 times."""
    names = [f"layer.{number}.weight" for number in range(300)]
    rename = Counted({name: f"new.{name}" for name in names})
    assert list(renamed(dict.fromkeys(names), rename)) == list(rename.values())
    assert rename.passes < 5


def ones(*names: str, shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {name: np.full(shape, number + 1.0) for number, name in enumerate(names)}


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        opened.save("base", ones("encoder.0.weight", "encoder.0.bias", "head.weight"))
        yield opened


@pytest.mark.parametrize(
    "rename, names",
    [
        ({"encoder": "backbone"}, ["backbone.0.weight", "backbone.0.bias", "head.weight"]),
        ({"encoder.": "backbone."}, ["backbone.0.weight", "backbone.0.bias", "head.weight"]),
        ({"encoder": ""}, ["0.weight", "0.bias", "head.weight"]),
        ({"": "model."}, ["model.encoder.0.weight", "model.encoder.0.bias", "model.head.weight"]),
        ({"encoder": "a", "encoder.0.bias": "b"}, ["a.0.weight", "b", "head.weight"]),
        ({"head.weight": "head.kernel"}, ["encoder.0.weight", "encoder.0.bias", "head.kernel"]),
        (str.upper, ["ENCODER.0.WEIGHT", "ENCODER.0.BIAS", "HEAD.WEIGHT"]),
        (lambda name: None if name.startswith("head") else name, ["encoder.0.weight", "encoder.0.bias"]),
    ],
)
def test_names_and_prefixes_are_renamed(rename: Any, names: list[str]) -> None:
    assert list(renamed(ones("encoder.0.weight", "encoder.0.bias", "head.weight"), rename)) == names


@pytest.mark.parametrize(
    "rename, why",
    [
        ({"encodr": "x"}, r"'encodr', and no stored tensor begins so.*encoder"),
        ({"enc": "x"}, "no stored tensor begins so"),
        ({"encoder.0.weight": "head.weight"}, "one name, 'head.weight'"),
        (lambda name: 7, r"gives an int for '\w+\."),
        (["encoder"], "rename= is a list"),
        ({"encoder": 3}, "rename= is a dict"),
    ],
)
def test_a_renaming_that_cannot_be_meant_is_refused(catalog: Catalog, rename: Any, why: str) -> None:
    live = ones("encoder.0.weight", "encoder.0.bias", "head.weight")
    with pytest.raises(InvalidInput, match=why):
        catalog.load("base", into=live, rename=rename)


def test_what_is_missing_and_what_is_left_over_is_listed_with_the_renaming_that_would_do(catalog: Catalog) -> None:
    live = ones("backbone.0.weight", "backbone.0.bias", "head.weight")
    with pytest.raises(SerializationError) as refused:
        catalog.load("base", into=live)
    told = str(refused.value)
    assert "2 missing from what is stored (backbone.0.weight, backbone.0.bias)" in told
    assert "2 left over: stored, but not in the live object (encoder.0." in told
    assert "rename={'encoder': 'backbone'}" in told
    assert live["head.weight"][0] == 3 and live["backbone.0.weight"][0] == 1, "nothing was changed"
    assert catalog.load("base", into=live, rename={"encoder": "backbone"}) is live


def test_partial_takes_what_fits_and_reports_the_rest(catalog: Catalog) -> None:
    live = {**ones("encoder.0.weight"), "encoder.0.bias": np.zeros(3), "other": np.zeros(2)}
    live["encoder.0.weight"][:] = 0
    done = catalog.load("base", into=live, partial=True)
    assert isinstance(done, Filled) and done.into is live
    assert (done.loaded, done.new, done.left_over) == (("encoder.0.weight",), ("other",), ("head.weight",))
    assert list(done.skipped) == ["encoder.0.bias"] and "float64[2], the live one is float64[3]" in str(done)
    assert live["encoder.0.weight"].tolist() == [1, 1] and live["encoder.0.bias"].tolist() == [0, 0, 0]


def test_partial_that_takes_nothing_is_an_error(catalog: Catalog) -> None:
    with pytest.raises(SerializationError, match="none of the stored tensors fits: they have no name in common"):
        catalog.load("base", into=ones("x"), partial=True)


def test_renaming_goes_with_a_live_object_only(catalog: Catalog) -> None:
    for options in ({"rename": {"encoder": "x"}}, {"partial": True}):
        with pytest.raises(InvalidInput, match="goes with into="):
            catalog.load("base", **options)
    with pytest.raises(InvalidInput, match="neither True nor False"):
        catalog.load("base", into=ones("x"), partial="yes")
