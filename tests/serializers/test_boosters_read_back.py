"""What boosters are fitted with in practice can be saved, and what is saved is read back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import SerializationError

pytest.importorskip("sklearn")
xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")
pd = pytest.importorskip("pandas")

pytestmark = pytest.mark.framework
X = np.random.default_rng(0).random((80, 4))
Y = (X[:, 0] > 0.5).astype(int)
FRAME = pd.DataFrame(
    {"a": pd.Categorical(["x", "y", "z", "x"] * 20), "b": X[:, 0], "c": pd.Categorical([1, 2, 3, 4] * 20)}
)
FEW: dict[str, Any] = {"n_estimators": 3, "max_depth": 3}
TEXT: dict[str, Any] = {"verbose": -1, "num_threads": 1, "num_leaves": 5, "min_data_in_leaf": 1}


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield catalog


def slope(labels: Any, guess: Any) -> Any:
    return guess - labels, np.ones_like(guess)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "model, rows",
    [
        (xgboost.XGBClassifier(enable_categorical=True, **FEW).fit(FRAME, Y), FRAME),
        (xgboost.XGBClassifier(enable_categorical=True, max_cat_to_onehot=1, **FEW).fit(FRAME, Y), FRAME),
        (xgboost.XGBRegressor(objective="reg:quantileerror", quantile_alpha=np.array([0.1, 0.9]), **FEW).fit(X, Y), X),
        (xgboost.XGBRegressor(booster="dart", rate_drop=0.5, **FEW).fit(X, X[:, 0]), X),
        (xgboost.XGBRegressor(objective=slope, **FEW).fit(X, X[:, 0]), X),
        (xgboost.XGBRegressor(base_score=float("-inf"), **FEW).fit(X, X[:, 0]), X),
        (xgboost.XGBClassifier(**FEW).fit(X, np.c_[Y, 1 - Y]), X),
        (lightgbm.train({**TEXT, "objective": lambda p, d: (p - d.get_label(), np.ones_like(p))},
                        lightgbm.Dataset(X, Y), 2), X),
        (lightgbm.train(TEXT, lightgbm.Dataset(FRAME, Y), 2), FRAME),
    ],
    ids=["text categories", "partitions of categories", "an array as parameter", "a parameter of dart", "own objective",
         "base -inf", "two outputs", "lightgbm's own objective", "lightgbm's categories"],
)  # fmt: skip
def test_a_fitted_booster_is_saved_and_predicts_the_same(model: Any, rows: Any, catalog: Catalog) -> None:
    before = copy.deepcopy(model.get_params()) if hasattr(model, "get_params") else dict(model.params)
    catalog.save("m", model)
    assert np.array_equal(catalog.load("m").predict(rows), model.predict(rows), equal_nan=True)
    after = model.get_params() if hasattr(model, "get_params") else model.params
    assert str(after) == str(before)


def test_a_parameter_that_is_not_stored_is_told(catalog: Catalog) -> None:
    model = xgboost.XGBRegressor(booster="dart", rate_drop=0.5, **FEW).fit(X, X[:, 0])
    with pytest.warns(UserWarning, match="rate_drop is no parameter"):
        catalog.save("m", model)
    assert catalog.load("m").get_params()["booster"] == "dart"


@pytest.mark.parametrize("module", ["xgboost", "lightgbm"])
def test_a_booster_that_its_own_library_cannot_read_is_not_published(
    module: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library that reads says no where the one that wrote said yes."""
    if module == "xgboost":
        model = xgboost.train({}, xgboost.DMatrix(X, Y), 2)
        real = xgboost.Booster.load_model
        monkeypatch.setattr(xgboost.Booster, "load_model", lambda self, fname: real(self, bytearray(fname[:-9])))
    else:
        model = lightgbm.train(TEXT, lightgbm.Dataset(X, Y), 2)
        real = lightgbm.Booster.__init__
        monkeypatch.setattr(
            lightgbm.Booster, "__init__", lambda self, model_str: real(self, model_str="tree\nversion=v9\n")
        )
    with pytest.raises(SerializationError, match="cannot read"):
        catalog.save("m", model)
    assert catalog.models() == [] if isinstance(catalog.models(), list) else not list(catalog.models())


def test_trees_with_linear_models_say_what_to_do(catalog: Catalog) -> None:
    model = lightgbm.train({**TEXT, "linear_tree": True}, lightgbm.Dataset(X, Y), 2)
    with pytest.raises(SerializationError, match=r"^LightGBM's linear models") as caught:
        catalog.save("m", model)
    assert "without linear_tree" in str(caught.value.hint)
