"""An error names what is wrong, in the caller's words, and the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402
from torch import nn  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import CatalogError  # noqa: E402

pytestmark = pytest.mark.framework
X = np.eye(4)


def _pipeline(function: Any) -> Any:
    return make_pipeline(FunctionTransformer(function), LogisticRegression()).fit(X, [0, 1, 0, 1])


def _inner() -> Any:
    def twice(rows: Any) -> Any:
        return 2 * rows

    return twice


CASES: dict[str, tuple[Callable[[Catalog], Any], str, str]] = {
    "entry point": (
        lambda c: c.save("m", nn.Linear(4, 1), example=torch.ones(2, 4), entry_points={"my predict": "model"}),
        "entry point 'my predict' is not allowed", "",
    ),
    "axis": (
        lambda c: c.save("m", nn.Linear(4, 1), example=torch.ones(2, 4), axes={"input": {0: "a b"}}),
        "name of an axis 'a b' is not allowed", "",
    ),
    "other serializer": (
        lambda c: c.save("m", nn.Linear(4, 1), example=torch.ones(2, 4), serializer="sklearn"),
        "a Linear is a module of torch", "serializer='torch'",
    ),
    "lambda": (lambda c: c.save("m", _pipeline(lambda x: x), example=X), "it holds a lambda, and no import", "module"),
    "inner function": (
        lambda c: c.save("m", _pipeline(_inner()), example=X), "it holds 'twice', which was made", "module"
    ),
    "class of torch": (lambda c: c.save("m", nn.Linear), "Linear is a class, not an object of it", "Linear(…)"),
    "class of sklearn": (lambda c: c.save("m", LogisticRegression), "LogisticRegression is a class", "LogisticReg"),
    "class in parts": (lambda c: c.save("m", components={"a": nn.Linear}), "Linear is a class", "Linear(…)"),
}  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/c") as opened:
        yield opened


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_named(name: str, catalog: Catalog) -> None:
    run, told, hint = CASES[name]
    with pytest.raises(CatalogError) as caught:
        run(catalog)
    assert told in str(caught.value) and hint in str(caught.value.hint or "")
    assert list(catalog.search("")) == []
