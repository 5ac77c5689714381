"""The contract with scikit-learn, XGBoost and LightGBM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")

from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import catalog_sklearn
from catalog_core.specs import SerializerSpec
from catalog_core.testing.contract import SerializerContract

pytestmark = pytest.mark.framework


def rows(count: int = 60) -> np.ndarray:
    return np.random.default_rng(0).random((count, 4))


def labels() -> np.ndarray:
    return (rows()[:, 0] + rows()[:, 1] > 1).astype(int)


class Common(SerializerContract):
    @pytest.fixture
    def spec(self) -> SerializerSpec:
        return next(iter(catalog_sklearn.catalog_register_serializers()))

    @pytest.fixture
    def equal(self) -> Callable[[Any, Any], bool]:
        def equal(one: Any, two: Any) -> bool:
            names = [name for name in ("predict", "predict_proba", "transform") if hasattr(one, name)]
            same = all(np.array_equal(getattr(one, name)(rows()), getattr(two, name)(rows())) for name in names)
            return type(one) is type(two) and repr(one.get_params()) == repr(two.get_params()) and same

        return equal

    @pytest.fixture
    def change(self) -> Callable[[Any], Any]:
        return lambda loaded: loaded.set_params(random_state=12345)

    @pytest.fixture
    def example(self) -> Any:
        return {"X": rows(3)}

    @pytest.fixture
    def methods(self) -> list[str]:
        return ["predict", "predict_proba"]


class TestPipeline(Common):
    @pytest.fixture
    def obj(self) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(rows(), labels())

    @pytest.fixture
    def change(self) -> Callable[[Any], Any]:
        def change(loaded: Any) -> None:
            loaded[-1].coef_[:] += 5.0

        return change


class TestForest(Common):
    @pytest.fixture
    def obj(self) -> Any:
        return RandomForestClassifier(5, random_state=0).fit(rows(), labels())


class TestHistogram(Common):
    @pytest.fixture
    def obj(self) -> Any:
        return HistGradientBoostingRegressor(max_iter=5, min_samples_leaf=3).fit(rows(), labels())

    @pytest.fixture
    def methods(self) -> list[str]:
        return ["predict"]


class TestXgboost(Common):
    @pytest.fixture
    def obj(self) -> Any:
        xgboost = pytest.importorskip("xgboost")
        return xgboost.XGBClassifier(n_estimators=4, max_depth=3, n_jobs=1, gamma=0.25).fit(rows(), labels())


class TestXgboostBooster(Common):
    @pytest.fixture
    def obj(self) -> Any:
        xgboost = pytest.importorskip("xgboost")
        return xgboost.train({"max_depth": 3, "nthread": 1}, xgboost.DMatrix(rows(), labels()), 3)

    @pytest.fixture
    def equal(self) -> Callable[[Any, Any], bool]:
        return lambda one, two: one.save_raw("ubj") == two.save_raw("ubj")

    @pytest.fixture
    def change(self) -> Callable[[Any], Any]:
        return lambda loaded: loaded.set_attr(changed="yes")

    @pytest.fixture
    def methods(self) -> list[str]:
        return ["predict"]


class TestLightgbm(Common):
    @pytest.fixture
    def obj(self) -> Any:
        lightgbm = pytest.importorskip("lightgbm")
        return lightgbm.LGBMClassifier(n_estimators=4, num_leaves=5, n_jobs=1, verbose=-1).fit(rows(), labels())


class TestLightgbmBooster(Common):
    @pytest.fixture
    def obj(self) -> Any:
        lightgbm = pytest.importorskip("lightgbm")
        params = {"num_leaves": 5, "num_threads": 1, "verbose": -1}
        return lightgbm.train(params, lightgbm.Dataset(rows(), labels()), 3)

    @pytest.fixture
    def equal(self) -> Callable[[Any, Any], bool]:
        return lambda one, two: np.array_equal(one.predict(rows()), two.predict(rows()))

    @pytest.fixture
    def change(self) -> Callable[[Any], Any]:
        return lambda loaded: loaded.set_leaf_output(0, 0, 9.0)

    @pytest.fixture
    def methods(self) -> list[str]:
        return ["predict"]
