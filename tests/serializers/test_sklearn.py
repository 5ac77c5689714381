"""scikit-learn estimators: what is captured, what runs in a fresh process, and what hostile files cannot do."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import saying, zipped

pytest.importorskip("sklearn")
pytest.importorskip("skops")

import skops.io
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from catalog_core import Catalog
from catalog_core.errors import InvalidInput, NotTrusted, SerializationError
from catalog_sklearn import archive, boosters

pytestmark = pytest.mark.framework
X = np.random.default_rng(0).random((60, 4))
Y = (X[:, 0] + X[:, 1] > 1).astype(int)


class Own(BaseEstimator):
    """A class that only this file knows."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def fit(self, X: Any, y: Any = None) -> Own:
        self.fitted_ = True
        return self

    def predict(self, X: Any) -> Any:
        return np.asarray(X)[:, 0] * self.factor


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield catalog


@pytest.mark.parametrize(
    "estimator",
    [
        GradientBoostingClassifier(n_estimators=3), HistGradientBoostingClassifier(max_iter=3),
        IsolationForest(n_estimators=3),
        GaussianProcessRegressor(alpha=0.1), CalibratedClassifierCV(LogisticRegression()),
        GridSearchCV(LogisticRegression(), {"C": [1, 2]}),
    ],
    ids=lambda estimator: type(estimator).__name__,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The optimal value")
def test_many_kinds_of_estimators_load_without_trust(catalog: Catalog, estimator: Any) -> None:
    estimator.fit(X, Y)
    catalog.save("m", estimator, example={"X": X[:3]})
    assert np.array_equal(catalog.load("m").predict(X), estimator.predict(X))


def test_a_pipeline_is_captured_verified_and_run(catalog: Catalog) -> None:
    pipeline = make_pipeline(StandardScaler(), PCA(2), LogisticRegression(C=0.25)).fit(X, Y)
    points = {"predict": "model", "probability": "model.predict_proba"}
    with catalog.prepare("flow", pipeline, entry_points=points, example={"X": X[:5]}) as draft:
        report = draft.verify()
        assert report.passed, report.reason
        assert {check.id for check in report.checks} >= {"load:model", "match:probability", "batch:probability"}
        version = draft.save()
    assert version.params["logisticregression__C"] == 0.25
    assert version.params["pca__n_components"] == 2
    assert [v.ref for v in catalog.search("framework = 'sklearn' and algorithm = 'Pipeline'")] == ["flow@1"]
    with catalog.session("flow") as session:
        np.testing.assert_allclose(session.probability(X), pipeline.predict_proba(X))
        assert session.entry_points["probability"].outputs[0].shape == ("batch", 2)


def test_transformers_and_chains_of_components(catalog: Catalog) -> None:
    scaler = StandardScaler().fit(X)
    model = LogisticRegression().fit(scaler.transform(X), Y)
    parts = {"scale": scaler, "model": model}
    catalog.save(
        "chain", components=parts, entry_points={"predict": ["scale.transform", "model"]}, example={"X": X[:3]}
    )
    with catalog.session("chain") as session:
        assert np.array_equal(session.predict(X), model.predict(scaler.transform(X)))


def test_classes_that_are_texts_come_out_as_places(catalog: Catalog) -> None:
    model = LogisticRegression().fit(X, np.array(["electron", "photon"])[Y])
    catalog.save("names", model, example={"X": X[:3]})
    with catalog.session("names") as session:
        index = session.predict(X)
        told = session.entry_points["predict"].outputs[0]
    assert (told.name, told.description) == ("index", "place in classes_: electron, photon")
    assert np.array_equal(model.classes_[index], model.predict(X))


@pytest.mark.parametrize("module, name", [("xgboost", "XGBRegressor"), ("lightgbm", "LGBMRegressor")])
def test_boosters_in_a_pipeline_and_alone_run_in_a_fresh_process(catalog: Catalog, module: str, name: str) -> None:
    quiet = {"verbose": -1} if module == "lightgbm" else {}
    kind = getattr(pytest.importorskip(module), name)
    for model in (kind(n_estimators=3, **quiet), make_pipeline(StandardScaler(), kind(n_estimators=3, **quiet))):
        model.fit(X, X[:, 0])
        with catalog.prepare("boost", model, example={"X": X[:3]}) as draft:
            report = draft.verify()
            assert report.passed, report.reason
            draft.save()
        assert np.array_equal(catalog.load("boost").predict(X), model.predict(X))


def test_parameters_of_xgboost_come_back(catalog: Catalog) -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=3, learning_rate=0.1, gamma=0.5, booster="gbtree").fit(X, Y)
    catalog.save("x", model)
    assert repr(catalog.load("x").get_params()) == repr(model.get_params())
    assert [file.name for file in catalog.artifact("x").manifest.components[0].files] == ["model.ubj"]


# -- what is refused -------------------------------------------------------------------------------------------------


def test_an_own_class_loads_with_trust_only(catalog: Catalog) -> None:
    with pytest.warns(UserWarning, match="trust=True only"):
        catalog.save("own", Own(2.0).fit(X))
    with pytest.raises(NotTrusted, match=re.escape(f"{__name__}.Own")):
        catalog.load("own")
    assert catalog.load("own", trust=True).factor == 2.0


def hostile(change: Callable[[dict[str, Any]], Any], obj: Any = None) -> bytes:
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(obj or StandardScaler().fit(X)))) as source:
        members = {name: source.read(name) for name in source.namelist()}
    schema = json.loads(members["schema.json"])
    change(schema)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, data in {**members, "schema.json": json.dumps(schema).encode()}.items():
            target.writestr(name, data)
    return buffer.getvalue()


TUPLE = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode"}
TEXT = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "is_json": True}


@pytest.mark.parametrize(
    "node",
    [
        {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"},
        {"__class__": "Popen", "__module__": "subprocess", "__loader__": "TypeNode"},
        {"__class__": "Popen", "__module__": "subprocess", "__loader__": "ObjectNode"},
        {"__class__": "Popen", "__module__": "subprocess", "__loader__": "ConstructorFromReduceNode",
         "content": {**TUPLE, "content": [{**TEXT, "content": '"touch CANARY"'}]}},
        {"__class__": "attrgetter", "__module__": "operator", "__loader__": "OperatorFuncNode"},
        {"__class__": "partial", "__module__": "functools", "__loader__": "PartialNode"},
        {"__class__": "method", "__module__": "builtins", "__loader__": "MethodNode"},
        {"__class__": "x", "__module__": "y", "__loader__": "NoSuchNode"},
    ],
    ids=lambda node: node["__loader__"],
)  # fmt: skip
def test_nodes_that_call_or_name_strange_types_are_refused(
    node: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotTrusted):
        archive.read(hostile(lambda schema: schema["content"]["content"].update(scale_=node)), False)
    assert os.listdir(tmp_path) == []


def test_a_function_of_the_users_is_not_loaded_without_trust(catalog: Catalog) -> None:
    with pytest.warns(UserWarning, match="trust=True only"):
        catalog.save("f", FunctionTransformer(os.path.join))
    with pytest.raises(NotTrusted, match="join"):
        catalog.load("f")


def test_a_tree_that_lies_is_refused() -> None:
    model = DecisionTreeClassifier().fit(X, Y)
    good, _, _ = archive.write(model)
    for field, value in (("left_child", 9999), ("right_child", 0), ("feature", 77), ("left_child", -7)):
        with zipfile.ZipFile(io.BytesIO(good)) as source:
            members = {name: source.read(name) for name in source.namelist()}
        for name, data in members.items():
            if name.endswith(".npy"):
                array = np.load(io.BytesIO(data))
                if array.dtype.names:
                    array[field][0] = value
                    buffer = io.BytesIO()
                    np.save(buffer, array)
                    members[name] = buffer.getvalue()
        bad = io.BytesIO()
        with zipfile.ZipFile(bad, "w") as target:
            for name, data in members.items():
                target.writestr(name, data)
        with pytest.raises(SerializationError, match="a tree"):
            archive.read(bad.getvalue(), False)
    assert np.array_equal(archive.read(good, False).predict(X), model.predict(X))


def test_a_zip_bomb_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("schema.json", b"{}")
        target.writestr("0.npy", bytes(50 << 20))
    with pytest.raises(SerializationError, match="unpacks to"):
        archive.read(buffer.getvalue(), False)


def test_a_member_that_is_longer_than_it_says_is_not_unpacked() -> None:
    size = 200 << 20
    members = {"schema.json": b'{"__loader__": "JsonNode"}', "0.npy": bytes(size)}
    lying = saying(zipped(members, zipfile.ZIP_DEFLATED), size, 100)
    tracemalloc.start()
    with pytest.raises(SerializationError, match="broken"):
        archive.read(lying, False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20


def test_a_pickle_called_skops_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch canary'\ntR.")
    with pytest.raises(SerializationError, match=r"model\.skops cannot be loaded: the skops archive is broken"):
        catalog.save("p", path)
    assert len(catalog.models()) == 0


_FUZZ = """
import random, sys, warnings
import numpy as np
warnings.simplefilter("ignore")
from catalog_core.errors import SerializationError
from catalog_sklearn.serializer import _lightgbm_load, _xgboost_load
kind, draw = sys.argv[1], random.Random(0)
data, X = open(sys.argv[2], "rb").read(), np.random.default_rng(0).random((60, 4))
loaded = 0
for _ in range(400):
    bad = bytearray(data)
    for _ in range(draw.choice([1, 1, 3])):
        bad[draw.randrange(len(bad))] = draw.randrange(256)
    try:
        if kind == "lightgbm":
            _lightgbm_load(bytes(bad)).predict(X)
        else:
            _xgboost_load(bytes(bad), {"class": "XGBClassifier", "params": {}}).predict(X)
        loaded += 1
    except (SerializationError, ValueError, TypeError) as exc:
        pass
    except Exception as exc:
        assert type(exc).__module__.startswith(kind), repr(exc)
print("survived", loaded)
"""


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_broken_native_files_do_not_end_the_process(kind: str, tmp_path: Path) -> None:
    framework = pytest.importorskip(kind)
    if kind == "xgboost":
        data = bytes(framework.XGBClassifier(n_estimators=3, max_depth=3).fit(X, Y).get_booster().save_raw("ubj"))
        boosters.check_xgboost(data)
    else:
        train = framework.Dataset(X, Y)
        data = framework.train({"verbose": -1, "num_leaves": 5}, train, 3).model_to_string().encode()
        boosters.check_lightgbm(data.decode())
    path = tmp_path / "model"
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", _FUZZ, kind, str(path)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "survived" in done.stdout


class Loose(ClassifierMixin, BaseEstimator):
    """Its classes stand in the order in which they came, and it predicts what it is told."""

    def __init__(self, says: Any = ("b", "a")) -> None:
        self.says = says

    def fit(self, X: Any, y: Any) -> Loose:
        self.classes_ = np.array(list(dict.fromkeys(y)))
        return self

    def predict(self, X: Any) -> Any:
        return np.array([self.says[row % len(self.says)] for row in range(len(X))])


def test_labels_become_their_places_in_whatever_order_the_classes_stand() -> None:
    from catalog_sklearn.serializer import SklearnSerializer

    serializer = SklearnSerializer()
    loose = Loose().fit(X[:3], ["b", "c", "a"])
    assert serializer.call(loose, "predict", {"X": X[:4]})["index"].tolist() == [0, 2, 0, 2]
    with pytest.raises(SerializationError, match="'z', which is not in its classes_"):
        serializer.call(Loose(("z",)).fit(X[:3], ["b", "c", "a"]), "predict", {"X": X[:4]})
    with pytest.raises(SerializationError, match="no list of classes"):
        serializer.call(Loose(("z",)), "predict", {"X": X[:4]})
    for kind in (object, "U5"):
        words = np.array([["low", "left"], ["high", "right"], ["mid", "left"]] * 20, kind)
        forest = RandomForestClassifier(3, random_state=0).fit(X, words)
        index = serializer.call(forest, "predict", {"X": X})["index"]
        assert index.dtype == np.int64 and index.shape == (60, 2)
        back = np.stack([classes[index[:, at]] for at, classes in enumerate(forest.classes_)], axis=1)
        assert (back == forest.predict(X)).all()


def test_two_outputs_of_text_are_saved_and_served(catalog: Any) -> None:
    words = np.array([["low", "left"], ["high", "right"], ["mid", "left"]] * 20)
    forest = RandomForestClassifier(3, random_state=0).fit(X, words)
    catalog.save("two", forest, example=X[:4])
    with catalog.session("two") as session:
        index = session.predict(X)["index"] if isinstance(session.predict(X), dict) else session.predict(X)
    assert np.asarray(index).shape == (60, 2)


@pytest.mark.parametrize("kind", ["array", "objects", "list"])
def test_texts_in_a_row_are_an_example(catalog: Any, kind: str) -> None:
    texts: Any = ["a muon", "jet jet"]
    given = texts if kind == "list" else np.array(texts, object if kind == "objects" else None)
    words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["a muon here", "a jet there"], [0, 1])
    catalog.save("words", words, example=given)
    with catalog.session("words") as session:
        assert np.asarray(session.predict(given)).tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["texts", "objects", "list", "named"])
def test_a_table_of_texts_is_an_example_however_it_is_spelt(catalog: Any, kind: str) -> None:
    table = np.array([["low", "left"], ["high", "right"]])
    forms = {"texts": table, "objects": table.astype(object), "list": table.tolist(), "named": {"X": table}}
    version = catalog.save(
        "words", OrdinalEncoder().fit(table), example=forms[kind], entry_points={"transform": "model.transform"}
    )
    ((spec,),) = [point.inputs for point in version.manifest.entry_points]
    assert (spec.dtype, spec.shape) == ("string", ("batch", 2))
    with catalog.session("words") as session:
        for given in (table, table.astype(object), table.tolist()):
            assert np.asarray(session.transform(X=given)).tolist() == [[1, 0], [0, 1]]
    assert version.verify().passed


def test_an_array_of_bytes_says_how_it_becomes_texts(catalog: Any) -> None:
    table = np.array([["low", "left"], ["high", "right"]])
    with pytest.raises(InvalidInput, match="the example's 'X' is an array of bytes") as caught:
        catalog.save("words", OrdinalEncoder().fit(table), example=table.astype("S"))
    assert caught.value.hint == "texts: array.astype(str)"
