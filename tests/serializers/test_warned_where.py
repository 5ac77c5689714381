"""Each warning that saving or loading gives names the caller's file, whichever serializer gives it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
X = np.random.default_rng(0).random((8, 4), dtype="float32")
Y = (X.sum(1) > 2).astype("int64")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


def _own_sum(image: Any) -> Any:
    import keras

    return keras.ops.sum(image, axis=1, keepdims=True)


def _own_loss(wanted: Any, given: Any) -> Any:
    import keras

    return keras.ops.mean(keras.ops.square(wanted - given))


class Own:
    """A class that nothing trusts."""


def _torch(catalog: Catalog, how: str) -> None:
    torch = pytest.importorskip("torch")

    class Flat(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x.reshape(x.shape[0], 8)

    class Branching(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x + 1 if x.sum() > 0 else x - 1

    class Anything(torch.nn.Linear):  # type: ignore[misc, name-defined]
        def forward(self, *xs: Any) -> Any:
            return super().forward(xs[0])

    class Loop(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return sum((x[:, step] for step in range(1, x.shape[1])), x[:, 0])

    if how == "frozen":
        catalog.save("m", Flat(), example=torch.ones(3, 2, 4), axes={"x": {0: "batch", 2: "width"}})
    elif how == "prepared":
        with catalog.prepare("m", Flat(), example=torch.ones(3, 2, 4), axes={"x": {0: "batch", 2: "width"}}) as draft:
            draft.save()
    elif how == "weights":
        catalog.save("m", Branching(), example=torch.ones(3, 4))
    elif how == "unrolled":
        catalog.save("m", Loop(), example=torch.ones(3, 6, 4))
    elif how == "not run":
        catalog.save("m", Anything(4, 4), example=torch.ones(3, 4))
    else:
        catalog.save("m", torch.nn.Linear(4, 2))


def _sklearn(catalog: Catalog, tmp_path: Path, how: str) -> None:
    pytest.importorskip("skops")
    from sklearn.preprocessing import FunctionTransformer

    if how == "trust":
        catalog.save("m", FunctionTransformer(np.log1p, kw_args={"where": Own()}))
    elif how == "path":
        skops = pytest.importorskip("skops.io")
        (tmp_path / "own.skops").write_bytes(skops.dumps(FunctionTransformer(np.log1p, kw_args={"where": Own()})))
        catalog.save("m", tmp_path / "own.skops")
    elif how == "rate_drop":
        xgboost = pytest.importorskip("xgboost")
        catalog.save("m", xgboost.XGBRegressor(booster="dart", rate_drop=0.5, n_estimators=2).fit(X, X[:, 0]))
    else:
        xgboost = pytest.importorskip("xgboost")
        model = xgboost.XGBRegressor(n_estimators=2, feature_weights=np.ones(4, np.float32)).fit(X, X[:, 0])
        catalog.save("m", model)


def _jax(catalog: Catalog) -> None:
    eqx, jax = pytest.importorskip("equinox"), pytest.importorskip("jax")
    catalog.save("m", eqx.nn.MLP(2, 1, 8, 2, key=jax.random.key(0)))


def _onnx(how: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from catalog_onnx.export import to_onnx

    to_onnx(torch.nn.Linear(4, 2), {"input": torch.rand(3, 4)}, axes={"input": {0: "batch", 1: "width"}})


def _keras(catalog: Catalog, tmp_path: Path, how: str) -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((4,))
    middle = keras.layers.Lambda(_own_sum)(inputs) if how == "weights" else inputs
    model = keras.Model(inputs, keras.layers.Dense(1)(middle))
    if how == "weights":
        catalog.save("m", model, serializer="keras")
        return
    model.compile("sgd", _own_loss)
    if how == "uncompiled":
        catalog.save("m", model, serializer="keras")
    elif how == "missing":
        register = keras.saving.register_keras_serializable("tests-warned-where")
        model.compile("sgd", register(_own_loss))
        catalog.save("m", model, serializer="keras")
        registered = keras.saving.get_custom_objects()
        registered.pop("tests-warned-where>_own_loss")
        catalog.load("m")
    else:
        model.save(tmp_path / "m.keras")
        catalog.import_(tmp_path / "m.keras", "m")


CASES: dict[str, tuple[Callable[..., Any], str]] = {
    "torch axis": (lambda c, p: _torch(c, "frozen"), "as long as in the example only"),
    "torch axis, prepared": (lambda c, p: _torch(c, "prepared"), "as long as in the example only"),
    "torch weights": (lambda c, p: _torch(c, "weights"), "is stored as weights only"),
    "torch unrolled": (lambda c, p: _torch(c, "unrolled"), "its code takes other lengths"),
    "torch not run": (lambda c, p: _torch(c, "not run"), "is not stored to be run"),
    "no example": (lambda c, p: _torch(c, "no example"), "has no example"),
    "sklearn trust": (lambda c, p: _sklearn(c, p, "trust"), "will load with trust=True only"),
    "sklearn path": (lambda c, p: _sklearn(c, p, "path"), "will load with trust=True only"),
    "xgboost left out": (lambda c, p: _sklearn(c, p, "rate_drop"), "is no parameter"),
    "xgboost not plain": (lambda c, p: _sklearn(c, p, "array"), "is an ndarray, and is not stored"),
    "pytree static": (lambda c, p: _jax(c), "not stored, since they hold no numbers"),
    "onnx axis": (lambda c, p: _onnx("axis"), "as long as in the example only"),
    "keras weights": (lambda c, p: _keras(c, p, "weights"), "is stored as weights only"),
    "keras uncompiled": (lambda c, p: _keras(c, p, "uncompiled"), "without all that it was compiled with"),
    "keras missing": (lambda c, p: _keras(c, p, "missing"), "is loaded without all"),
    "keras file": (lambda c, p: _keras(c, p, "file"), "is read without what it was compiled with"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_warning_names_the_callers_file(case: str, catalog: Catalog, tmp_path: Path) -> None:
    work, text = CASES[case]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        work(catalog, tmp_path)
    found = [one.filename for one in told if text in str(one.message)]
    assert found == [__file__], [(str(one.message), one.filename) for one in told]
