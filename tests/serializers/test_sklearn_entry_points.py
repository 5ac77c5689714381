"""An estimator alone means what it is for: `predict`, else `transform`, `score_samples` and so on."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import CatalogError, SerializationError

pytest.importorskip("sklearn")

from sklearn.cluster import DBSCAN, KMeans, SpectralCoclustering
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomTreesEmbedding
from sklearn.manifold import TSNE
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity, LocalOutlierFactor, NearestNeighbors
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import LabelEncoder, StandardScaler

pytestmark = pytest.mark.framework
X = np.random.default_rng(0).random((40, 4))
Y = (X[:, 0] > 0.5).astype(int)


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield catalog


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "estimator, method",
    [
        (StandardScaler(), "transform"), (PCA(2), "transform"), (KMeans(2, n_init=1), "predict"),
        (make_pipeline(StandardScaler(), PCA(2)), "transform"), (make_union(StandardScaler(), PCA(2)), "transform"),
        (make_pipeline(StandardScaler(), KMeans(2, n_init=1)), "predict"),
        (RandomTreesEmbedding(3), "transform"), (KernelDensity(), "score_samples"),
        (NearestNeighbors(n_neighbors=3), "kneighbors"), (EmpiricalCovariance(), "mahalanobis"),
        (GridSearchCV(KernelDensity(), {"bandwidth": [0.5, 1.0]}, cv=2), "score_samples"),
        (LocalOutlierFactor(novelty=True), "predict"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)  # fmt: skip
def test_it_is_run_by_what_it_is_for(estimator: Any, method: str, catalog: Catalog) -> None:
    version = catalog.save("m", estimator.fit(X), example=X[:3])
    wanted = getattr(estimator, method)(X[:3])
    with catalog.session("m") as session:
        assert list(session.entry_points) == [method]
        given = getattr(session, method)(X[:3])
    parts = given if isinstance(wanted, tuple) else [given]
    parts = list(given.values()) if isinstance(given, dict) else parts
    for mine, theirs in zip(parts, wanted if isinstance(wanted, tuple) else [wanted], strict=True):
        assert np.allclose(mine, theirs.toarray() if hasattr(theirs, "toarray") else theirs)
    assert version.verify().passed


def test_labels_are_encoded(catalog: Catalog) -> None:
    catalog.save("m", LabelEncoder().fit(Y + 3), example=Y[:3] + 3)
    with catalog.session("m") as session:
        assert np.array_equal(session.transform(Y[:5] + 3), Y[:5])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [DBSCAN(), TSNE(2, perplexity=5), LocalOutlierFactor(), SpectralCoclustering(2)])
def test_what_runs_on_no_other_rows_says_so_and_is_kept_without_example(estimator: Any, catalog: Catalog) -> None:
    with pytest.raises(SerializationError, match="has no method 'predict'") as caught:
        catalog.save("m", estimator.fit(X), example=X[:3])
    assert "without example" in str(caught.value.hint)
    catalog.save("m", estimator)
    assert type(catalog.load("m")) is type(estimator)


def test_a_component_that_is_named_alone_means_the_same(catalog: Catalog) -> None:
    catalog.save(
        "m", components={"scale": StandardScaler().fit(X), "near": KMeans(2, n_init=1).fit(X)},
        entry_points={"scaled": "scale", "group": ["scale", "near"]}, example=X[:3],
    )  # fmt: skip
    with catalog.session("m") as session:
        assert session.entry_points["scaled"].steps == ("scale.transform",)
        assert session.group(X[:3]).shape == (3,)


TEXTS = ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer", "DictVectorizer", "FeatureHasher")


def fitted(estimator: Any) -> tuple[Any, Any]:
    """An estimator that is fitted on data of its kind, and an example for it. Raises where that takes more."""
    name, tags = type(estimator).__name__, estimator.__sklearn_tags__()
    if name in ("LabelEncoder", "LabelBinarizer"):
        return estimator.fit(Y), Y[:3]
    if name in ("MultiLabelBinarizer", "IsotonicRegression"):
        rows = np.c_[Y, 1 - Y] if name == "MultiLabelBinarizer" else X[:, 0]
        return estimator.fit(rows) if rows is not X[:, 0] and name[0] == "M" else estimator.fit(rows, rows), rows[:3]
    rows = X
    if tags.input_tags.three_d_array and not tags.input_tags.two_d_array:
        rows = np.random.default_rng(0).random((4, 10, 10))
    elif tags.input_tags.pairwise:
        rows = X @ X.T
    wanted = X[:, 0] if tags.estimator_type == "regressor" else Y
    if (tags.target_tags.multi_output and not tags.target_tags.single_output) or name.startswith("MultiTask"):
        wanted = np.c_[wanted, wanted[::-1]]
    asked = tags.target_tags.required or tags.estimator_type in ("classifier", "regressor")
    return estimator.fit(rows, wanted) if asked else estimator.fit(rows), rows[:3]


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1200)
def test_every_estimator_is_saved_and_run_without_trust_or_says_why(catalog: Catalog) -> None:
    from sklearn.utils import all_estimators
    from sklearn.utils._test_common.instance_generator import _construct_instances

    entries: Counter[str] = Counter()
    said: dict[str, str] = {}
    for name, kind in all_estimators():
        try:
            estimator, example = fitted(next(iter(_construct_instances(kind))))
        except Exception:  # it takes data that this test does not have
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*trust=True only")
            try:
                catalog.save("m", estimator, example=example)
            except CatalogError as exc:
                said[name] = str(exc)
                continue
        with catalog.session("m") as session:
            (entry,) = session.entry_points
            getattr(session, entry)(example)
        entries[entry] += 1
    assert entries["predict"] > 100 and entries["transform"] > 45 and entries["mahalanobis"] > 4
    odd = {n: text for n, text in said.items() if n not in TEXTS and "example" not in text and "skops" not in text}
    assert not odd
