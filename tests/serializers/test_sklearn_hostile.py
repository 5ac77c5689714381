"""Fitted state that compiled code would follow beyond its arrays, and parameters that name files, are refused.

Each estimator is fitted, changed as an attacker would change the file, and written by skops itself.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")

import scipy.sparse as sp
import skops.io
from sklearn.cluster import BisectingKMeans, KMeans
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingRegressor,
    VotingClassifier,
)  # fmt: skip
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KernelDensity, KNeighborsClassifier, NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

from catalog_core import Catalog
from catalog_core.errors import NotTrusted, SerializationError
from catalog_sklearn import archive, boosters, types

pytestmark = pytest.mark.framework
X = np.random.default_rng(0).random((60, 4))
Y = (X[:, 0] + X[:, 1] > 1).astype(int)
Y3 = (X[:, 0] * 3).astype(int)
TEXTS = ["a muon and a jet", "a jet", "two muons"]


def put(**values: Any) -> Callable[[Any], None]:
    """Attributes of the estimator by name, each a value or a function of what is there."""

    def change(obj: Any) -> None:
        for name, value in values.items():
            setattr(obj, name, value(getattr(obj, name)) if callable(value) else value)

    return change


def item(attribute: str, at: Any, value: Any) -> Callable[[Any], None]:
    def change(obj: Any) -> None:
        getattr(obj, attribute)[at] = value

    return change


def tree(place: int, change: Callable[[Any], None]) -> Callable[[Any], None]:
    """A part of the state of the neighbours' tree is another one."""

    def changed(obj: Any) -> None:
        state = list(obj._tree.__getstate__())
        state[place] = np.array(state[place]) if isinstance(state[place], np.ndarray) else state[place]
        state[place] = change(state[place])
        obj._tree.__setstate__(tuple(state))

    return changed


def wild(array: Any, at: Any, value: Any, field: str | None = None) -> Any:
    (array[field] if field else array)[at] = value
    return array


def longer(array: Any) -> Any:
    return np.concatenate([array, array])


def wider(array: Any) -> Any:
    return np.concatenate([array, array], axis=1)


def position(obj: Any) -> None:
    state = obj._random_state.get_state(legacy=False)
    state["state"]["pos"] = 10**6
    obj._random_state.set_state(state)


CASES: dict[str, tuple[Any, Callable[[Any], None]]] = {
    "svc support": (SVC().fit(X, Y), put(support_=longer)),
    "svc fewer vectors": (SVC().fit(X, Y3),
                          put(support_vectors_=lambda v: v[:3].copy(), _n_support=np.ones(3, np.int32))),
    "svc narrow vectors": (SVC().fit(X, Y), put(support_vectors_=lambda v: v[:, :1].copy())),
    "svc counts": (SVC().fit(X, Y), item("_n_support", 0, -5)),
    "svc intercept": (SVC().fit(X, Y3), put(_intercept_=lambda v: v[:1].copy())),
    "svc coefficients": (NuSVC(nu=0.2).fit(X, Y), put(_dual_coef_=lambda v: v[:, :2].copy())),
    "svc probability": (SVC().fit(X, Y3), put(_probA=np.zeros(1), _probB=np.zeros(1))),
    "svc sparse": (SVC().fit(sp.csr_matrix(X), Y), put(_dual_coef_=lambda v: sp.csr_matrix(v.shape))),
    "svc precomputed": (SVC(kernel="precomputed").fit(X @ X.T, Y), item("support_", 0, 10**6)),
    "svc sparse and precomputed": (
        SVC().fit(sp.csr_matrix(X), Y),
        put(kernel="precomputed", shape_fit_=(4, 4), support_=lambda v: np.zeros(len(v), np.int32),
            support_vectors_=lambda v: sp.csr_matrix(np.full(v.shape, 2e9))),
    ),
    **{f"{type(svm).__name__} computed before, on sparse rows": (
        svm.fit(sp.csr_matrix(X), Y),
        put(kernel="precomputed", shape_fit_=(4, 4), support_=lambda v: np.zeros_like(v),
            support_vectors_=lambda v: sp.csr_matrix(np.full((v.shape[0], 4), 2e9))),
    ) for svm in (SVC(), NuSVC(nu=0.2), SVR(), NuSVR(), OneClassSVM())},
    "svc other kernels": (SVC().fit(sp.csr_matrix(X), Y), put(_sparse_kernels=["", "", "", "", "rbf"])),
    "svc another machine": (SVC().fit(X, Y), put(_impl="one_class")),
    "svc vectors beside a kernel": (SVC(kernel="precomputed").fit(X @ X.T, Y), put(support_vectors_=np.zeros((3, 4)))),
    "svc of no rows": (SVC(kernel="precomputed").fit(X @ X.T, Y), put(shape_fit_=(2**40, 1))),
    "svr": (SVR().fit(X, X[:, 0]), put(support_=longer)),
    "one class": (OneClassSVM().fit(X), put(_intercept_=np.zeros(0))),
    "in a pipeline": (make_pipeline(StandardScaler(), SVC()).fit(X, Y), lambda p: put(support_=longer)(p[-1])),
    "k means": (KMeans(2, n_init=1).fit(X), put(cluster_centers_=lambda v: v[:, :1].copy())),
    "bisecting": (BisectingKMeans(2).fit(X), lambda m: put(center=np.zeros(1))(m._bisecting_tree.left)),
    "neighbours' classes": (KNeighborsClassifier(algorithm="brute").fit(X, Y), item("_y", 0, 10**6)),
    "neighbours' rows": (KNeighborsClassifier(algorithm="brute").fit(X, Y), put(_fit_X=lambda v: v[:, :1].copy())),
    "neighbours' number": (NearestNeighbors(algorithm="brute").fit(X), put(n_samples_fit_=10**9)),
    "kd order": (KNeighborsClassifier(algorithm="kd_tree").fit(X, Y), tree(1, lambda v: wild(v, 0, 10**6))),
    "kd nodes": (KNeighborsClassifier(algorithm="kd_tree").fit(X, Y), tree(2, lambda v: wild(v, 0, 10**6, "idx_end"))),
    "kd bounds": (KNeighborsClassifier(algorithm="kd_tree").fit(X, Y), tree(3, lambda v: v[..., :1].copy())),
    "kd levels": (KNeighborsClassifier(algorithm="kd_tree").fit(X, Y), tree(5, lambda v: 30)),
    "ball leaf": (NearestNeighbors(algorithm="ball_tree", leaf_size=5).fit(X),
                  tree(2, lambda v: wild(v, -1, 0, "is_leaf"))),
    "density": (KernelDensity().fit(X), lambda k: tree(1, lambda v: wild(v, 0, -1))(type("o", (), {"_tree": k.tree_}))),
    "hashing by nothing": (FeatureHasher(), put(n_features=0)),
    "hashing words by nothing": (HashingVectorizer(), put(n_features=0)),
    "words": (CountVectorizer().fit(TEXTS), item("vocabulary_", "jet", 10**9)),
    "words of a pipeline": (make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, [0, 1, 0]),
                            lambda p: item("vocabulary_", "jet", 10**9)(p[0])),
    "dictionaries": (DictVectorizer().fit([{"a": 1, "b": 2}]), item("vocabulary_", "a", 10**9)),
    "spline": (SplineTransformer().fit(X), lambda s: put(c=lambda v: v[:1].copy())(s.bsplines_[0])),
    "stages": (GradientBoostingRegressor(n_estimators=2).fit(X, X[:, 0]), put(estimators_=wider)),
    "stages of classes": (GradientBoostingClassifier(n_estimators=2).fit(X, Y3), put(estimators_=wider)),
    "isolated columns": (IsolationForest(n_estimators=2, max_features=0.5).fit(X),
                         put(estimators_features_=[np.zeros(1, int)] * 2)),
    "categories": (HistGradientBoostingClassifier(max_iter=2, categorical_features=[1]).fit(np.c_[X[:, :1], Y], Y),
                   lambda m: put(is_categorical_=np.zeros(1, bool))(m._bin_mapper)),
    "encoder": (HistGradientBoostingClassifier(max_iter=2, categorical_features=[1]).fit(np.c_[X[:, :1], Y], Y),
                lambda m: m._preprocessor.transformers_.pop(0)),
    "random numbers": (MLPClassifier(max_iter=2).fit(X, Y), position),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_state_that_compiled_code_would_follow_is_refused(case: str) -> None:
    estimator, change = CASES[case]
    good = skops.io.dumps(estimator)
    archive.read(good, False)  # it is read as it was
    obj = skops.io.loads(good, trusted=list(types.TRUSTED))
    change(obj)
    bad = skops.io.dumps(obj)
    for trust in (False, True):
        with pytest.raises(SerializationError):
            archive.read(bad, trust)


def schema_of(obj: Any, change: Callable[[dict[str, Any]], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(obj))) as source:
        members = {name: source.read(name) for name in source.namelist()}
    schema = json.loads(members["schema.json"])
    change(schema)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, data in {**members, "schema.json": json.dumps(schema).encode()}.items():
            target.writestr(name, data)
    return buffer.getvalue()


def first_tree(node: Any) -> Any:
    if isinstance(node, dict):
        if node.get("__loader__") == "TreeNode":
            return node
        return next((found for value in node.values() if (found := first_tree(value))), None)
    return next((found for value in node if (found := first_tree(value))), None) if isinstance(node, list) else None


@pytest.mark.parametrize("field, value", [("node_count", "1000000"), ("max_depth", "0"), ("max_depth", "-1")])
@pytest.mark.parametrize("kind", [DecisionTreeClassifier, RandomForestClassifier])
def test_a_tree_that_says_another_size_is_refused(kind: Any, field: str, value: str) -> None:
    """`decision_path` writes as many numbers as the tree is deep, into as many as it says."""

    def change(schema: dict[str, Any]) -> None:
        first_tree(schema)["content"]["content"][field]["content"] = value

    with pytest.raises(SerializationError, match="than it says"):
        archive.read(schema_of(kind(random_state=0).fit(X, Y), change), False)


@pytest.mark.parametrize("place, value", [(0, "0"), (2, "7")])
def test_a_tree_of_fewer_inputs_or_more_outputs_is_refused(place: int, value: str) -> None:
    """`feature_importances_` adds to as many numbers as the tree has inputs."""

    def change(schema: dict[str, Any]) -> None:
        first_tree(schema)["__reduce__"]["args"]["content"][place]["content"] = value

    with pytest.raises(SerializationError, match="a tree"):
        archive.read(schema_of(DecisionTreeClassifier(random_state=0).fit(X, Y3), change), False)


def test_a_tree_in_the_place_of_an_estimator_is_refused() -> None:
    """A vote asks it for a prediction, and nobody would ask it how many inputs it has."""
    vote = VotingClassifier([("t", DecisionTreeClassifier())]).fit(X, Y)
    vote.estimators_[0] = vote.estimators_[0].tree_
    with pytest.raises(NotTrusted, match="held by what holds no trees"):
        archive.read(skops.io.dumps(vote), False)


def test_an_attribute_that_hides_a_check_is_refused() -> None:
    model = RandomForestClassifier(3).fit(X, Y)
    model._validate_X_predict = np.positive  # takes any number of columns, and gives them back
    with pytest.raises(NotTrusted, match="hides its method '_validate_X_predict'"):
        archive.read(skops.io.dumps(model), False)
    assert archive.read(skops.io.dumps(model), True)._validate_X_predict is np.positive


def test_packed_numbers_that_unpack_to_too_much_are_refused() -> None:
    matrix = sp.csr_matrix((np.zeros(40 << 20), np.zeros(40 << 20, np.int32), np.array([0, 40 << 20])), shape=(1, 1))
    model = StandardScaler().fit(X)
    model.numbers_ = matrix
    with pytest.raises(SerializationError, match="unpacks to"):
        archive.read(skops.io.dumps(model), False)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_sparse_numbers_outside_of_their_shape_are_refused(kind: str) -> None:
    model = StandardScaler().fit(X)
    model.numbers_ = getattr(sp, f"{kind}_matrix")(np.eye(3))
    assert archive.read(skops.io.dumps(model), False).numbers_.shape == (3, 3)
    getattr(model.numbers_, "col" if kind == "coo" else "indices")[0] = 10**6
    with pytest.raises(SerializationError):
        archive.read(skops.io.dumps(model), False)


# -- parameters that reach files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, told",
    [
        (make_pipeline(StandardScaler(), Ridge(), memory="cache"), "memory='cache'"),
        (VotingClassifier([("p", make_pipeline(StandardScaler(), memory="cache"))]), "memory='cache'"),
        (CountVectorizer(input="filename"), "input='filename'"),
        (make_pipeline(TfidfVectorizer(input="file"), Ridge()), "input='file'"),
        (RandomForestClassifier(n_jobs=10**6), "n_jobs=1000000"),
    ],
    ids=["pipeline", "inner pipeline", "words", "inner words", "jobs"],
)
def test_parameters_that_reach_beyond_the_process_need_trust(model: Any, told: str, tmp_path: Path) -> None:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        with pytest.warns(UserWarning, match="trust=True only"):
            catalog.save("m", model)
        with pytest.raises(NotTrusted, match=told):
            catalog.load("m")
        assert type(catalog.load("m", trust=True)) is type(model)


# -- what is plain needs no trust ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_every_estimator_of_scikit_learn_that_skops_writes_loads_without_trust() -> None:
    from sklearn.utils import all_estimators

    instances = pytest.importorskip("sklearn.utils._test_common.instance_generator")
    targets = [
        (X, Y),
        (X, X[:, 0]),
        (X,),
        (X, np.c_[Y, Y]),
        (X, X[:, :2]),
        (TEXTS,),
        ([{"a": 1}],),
        (X[:, 0], Y),
        (Y,),
        (X @ X.T,),
    ]
    fitted, refused = 0, []
    for name, kind in all_estimators():
        if name in ("Birch", "FrozenEstimator", "SparseCoder"):  # skops cannot write it; these need arguments
            continue
        estimator = next(iter(instances._construct_instances(kind)))
        for target in targets:
            try:
                estimator.fit(*target)
                fitted += 1
                break
            except Exception:
                continue
        try:
            archive.read(archive.write(estimator)[0], False)
        except (NotTrusted, SerializationError) as exc:
            refused.append(f"{name}: {exc}")
    assert refused == [] and fitted > 150


@pytest.mark.parametrize(
    "model",
    [
        VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())]),
        StackingRegressor([("a", Ridge()), ("b", SVR())]),
        AdaBoostClassifier(n_estimators=3),
        KNeighborsClassifier(),
        KNeighborsClassifier(algorithm="ball_tree", metric="minkowski", p=3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_ensembles_and_neighbours_load_without_trust(model: Any, tmp_path: Path) -> None:
    model.fit(X, Y)
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        with catalog.prepare("m", model, example={"X": X[:3]}) as draft:
            report = draft.verify()
            assert report.passed, report.reason
            draft.save()
        assert np.array_equal(catalog.load("m").predict(X), model.predict(X))


def test_requests_for_metadata_are_kept_and_the_live_object_keeps_its_own(tmp_path: Path) -> None:
    import sklearn

    with sklearn.config_context(enable_metadata_routing=True), Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        inner = LogisticRegression().set_fit_request(sample_weight=True).set_score_request(sample_weight="w")
        model = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), inner).fit(X, Y)
        before = inner._metadata_request
        catalog.save("m", model, example={"X": X[:3]})
        assert inner._metadata_request is before
        loaded = catalog.load("m")
        assert str(loaded[-1].get_metadata_routing()) == str(inner.get_metadata_routing())
        assert loaded.fit(X, Y, sample_weight=Y + 1.0) is loaded


class Looking(StandardScaler):  # type: ignore[misc]
    """Asks, each time that its state is read, what another thread sees of an object."""

    look: Any = None

    def __getstate__(self) -> Any:
        if type(self).look is not None:
            thread = threading.Thread(target=type(self).look)
            thread.start()
            thread.join()
        return super().__getstate__()


def requesting() -> Any:
    import sklearn

    with sklearn.config_context(enable_metadata_routing=True):
        inner = LogisticRegression().set_fit_request(sample_weight=True)
        return make_pipeline(Looking().set_fit_request(sample_weight=False), inner).fit(X, Y)


def test_another_thread_sees_no_half_state_while_an_estimator_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = requesting()
    inner = model[-1]
    requests, seen = inner._metadata_request, []

    def look() -> None:
        seen.append(
            (inner._metadata_request is requests, requests.owner is inner, requests.__getstate__()["owner"] is inner)
        )

    monkeypatch.setattr(Looking, "look", staticmethod(look))
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog, pytest.warns(UserWarning, match="trust=True only"):
        catalog.save("m", model)
    assert seen and set(seen) == {(True, True, True)}
    assert "__getstate__" not in vars(type(requests))


def test_an_error_while_an_estimator_is_saved_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = requesting()
    inner = model[-1]
    requests = inner._metadata_request

    def fail() -> Any:
        raise KeyboardInterrupt

    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        monkeypatch.setattr(Looking, "__getstate__", lambda self: fail())
        with pytest.raises(KeyboardInterrupt):
            catalog.save("m", model)
    assert inner._metadata_request is requests and requests.__getstate__()["owner"] is inner
    assert "__getstate__" not in vars(type(requests))


def test_what_could_never_be_loaded_is_not_saved(tmp_path: Path) -> None:
    class Inside(Ridge):  # type: ignore[misc]
        """A class inside of a function: no file can name it."""

    with (
        Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog,
        pytest.raises(SerializationError, match="could never be loaded"),
    ):
        catalog.save("m", Inside().fit(X, Y))


def changed_at(*path: Any) -> Callable[[Any, Any], None]:
    def change(learner: Any, value: Any) -> None:
        for key in path[:-1]:
            learner = learner[key]
        learner[path[-1]] = value(learner[path[-1]]) if callable(value) else value

    return change


TREE = ("gradient_booster", "model", "trees", 1)


@pytest.mark.parametrize(
    "options, path, value",
    [
        ({}, (*TREE, "id"), 7),
        ({}, (*TREE, "parents", 1), 2**31 - 1),
        ({}, (*TREE, "split_type"), []),
        ({}, (*TREE, "base_weights"), []),
        ({}, (*TREE, "tree_param", "size_leaf_vector"), "-1"),
        ({}, (*TREE, "tree_param", "size_leaf_vector"), "7"),
        ({"booster": "gblinear"}, ("gradient_booster", "model", "weights"), lambda v: v[:1]),
        ({"booster": "dart"}, ("gradient_booster", "weight_drop"), []),
        ({}, ("gradient_booster", "model", "cats"), {"enc": [{"type": 15, "values": [0]}] * 4,
                                                     "feature_segments": [0, 1, 2, 3, 4], "sorted_idx": [9, 0, 0, 0]}),
    ],
    ids=lambda value: "changed" if callable(value) else str(value),
)  # fmt: skip
def test_a_booster_whose_parts_do_not_fit_is_refused(
    options: dict[str, Any], path: tuple[Any, ...], value: Any
) -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=2, max_depth=3, **options).fit(X, Y)
    told = json.loads(bytes(model.get_booster().save_raw("json")))
    boosters.read_xgboost(json.dumps(told).encode())
    changed_at(*path)(told["learner"], value)
    with pytest.raises(SerializationError):
        boosters.read_xgboost(json.dumps(told).encode())


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_boosters_of_several_outputs_are_read(strategy: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBRegressor(n_estimators=2, multi_strategy=strategy, tree_method="hist").fit(X, X[:, :2])
    data = bytes(model.get_booster().save_raw("json"))
    assert np.array_equal(boosters.read_xgboost(data).predict(xgboost.DMatrix(X)), model.predict(X))


@pytest.mark.parametrize("change", [("num_class:3", "num_class:300"), ("num_class=3", "num_class=1")])
def test_a_text_of_lightgbm_that_gives_more_outputs_than_it_says_is_refused(change: tuple[str, str]) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    options = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_leaves": 5, "num_threads": 1}
    text = lightgbm.train(options, lightgbm.Dataset(X, Y3), 2).model_to_string()
    boosters.check_lightgbm(text)
    with pytest.raises(SerializationError):
        boosters.check_lightgbm(text.replace(*change))


_FUZZ = """
import io, random, re, sys, warnings, zipfile
import numpy as np
warnings.simplefilter("ignore")
from catalog_core.errors import NotTrusted, SerializationError
from catalog_sklearn import archive
draw, X = random.Random(int(sys.argv[2])), np.random.default_rng(0).random((60, 4))
data = open(sys.argv[1], "rb").read()
with zipfile.ZipFile(io.BytesIO(data)) as source:
    members = {name: source.read(name) for name in source.namelist()}
arrays = [name for name in members if name.endswith(".npy")]
loaded = 0
def changed(array):
    array = array.copy(order="K")
    how = draw.randrange(5)
    if array.dtype.names:
        field = draw.choice(array.dtype.names)
        array[field][(draw.randrange(len(array)), ...)] = draw.choice([0, 1, 7, 250])
    elif how == 0 and array.ndim:
        array = np.concatenate([array, array])
    elif how == 1 and array.ndim:
        array = array[: draw.randrange(len(array) + 1)]
    elif how == 2 and array.ndim > 1:
        array = np.ascontiguousarray(array[:, : draw.randrange(array.shape[1] + 1)])
    elif array.size and array.dtype.kind in "iufb":
        array.flat[draw.randrange(array.size)] = draw.choice([0, 1, 10**6 if array.dtype.itemsize > 2 else 100])
    return array
for _ in range(120):
    bad = dict(members)
    if draw.randrange(3) and arrays:
        name = draw.choice(arrays)
        buffer = io.BytesIO()
        np.save(buffer, changed(np.load(io.BytesIO(bad[name]))))
        bad[name] = buffer.getvalue()
    else:
        text = bad["schema.json"].decode()
        places = list(re.finditer(r'"content": "(-?[0-9]+)"', text)) or list(re.finditer(r"[0-9]", text))
        place = draw.choice(places)
        at = place.span(1) if place.lastindex else place.span()
        bad["schema.json"] = (text[:at[0]] + draw.choice(["0", "1", "7", "1000000"]) + text[at[1]:]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, content in bad.items():
            target.writestr(name, content)
    try:
        model = archive.read(buffer.getvalue(), False)
    except (NotTrusted, SerializationError):
        continue
    loaded += 1
    for rows in (X, X[:1]):
        for method in ("predict", "predict_proba", "decision_function", "transform", "score_samples", "apply",
                       "decision_path", "kneighbors"):
            try:
                getattr(model, method)(rows)
            except (Exception, MemoryError):
                pass
print("survived", loaded)
"""


@pytest.mark.parametrize(
    "model",
    [
        SVC(), NuSVC(nu=0.2), KNeighborsClassifier(), KNeighborsClassifier(algorithm="brute"), KMeans(2, n_init=1),
        RandomForestClassifier(3), GradientBoostingClassifier(n_estimators=3), IsolationForest(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=5), SplineTransformer(),
    ],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
@pytest.mark.campaign
def test_changed_archives_do_not_end_the_process(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(skops.io.dumps(model.fit(X, Y)))
    for seed in range(5):
        done = subprocess.run(
            [sys.executable, "-c", _FUZZ, str(path), str(seed)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "survived" in done.stdout
