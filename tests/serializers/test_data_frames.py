"""Data frames: columns by name, with numbers, text and categories, are inputs like others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")
pd = pytest.importorskip("pandas")

from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import Pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput  # noqa: E402

pytestmark = pytest.mark.framework
DRAW = np.random.default_rng(0)


def frame(rows: int = 50) -> Any:
    return pd.DataFrame(
        {
            "pt": DRAW.random(rows),
            "hits": DRAW.integers(0, 9, rows),
            "det": DRAW.choice(["ecal", "hcal", "μ"], rows),
            "run": pd.Categorical(DRAW.choice(["a", "b"], rows), categories=["a", "b", "c"]),
        }
    )


def pipeline(data: Any) -> Any:
    encoded = ColumnTransformer([("n", StandardScaler(), ["pt", "hits"]), ("c", OneHotEncoder(), ["det", "run"])])
    return Pipeline([("pre", encoded), ("clf", LogisticRegression())]).fit(data, data["pt"] > 0.5)


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield catalog


@pytest.mark.parametrize("by_name", [False, True])
def test_a_pipeline_of_columns_is_saved_verified_and_run(catalog: Catalog, by_name: bool) -> None:
    data = frame()
    model = pipeline(data)
    points = {"predict": "model", "probability": "model.predict_proba"}
    example = {"X": data[:6]} if by_name else data[:6]
    with catalog.prepare("m", model, example=example, entry_points=points) as draft:
        report = draft.verify()
        assert report.passed, report.reason
        assert {"match:predict", "batch:probability"} <= {
            check.id for check in report.checks if check.result == "passed"
        }
        version = draft.save()
    inputs = version.manifest.entry_points[0].inputs
    assert [(spec.name, spec.dtype, spec.shape) for spec in inputs] == [
        ("pt", "float64", ("batch",)), ("hits", "int64", ("batch",)), ("det", "string", ("batch",)),
        ("run", "category", ("batch",)),
    ]  # fmt: skip
    assert inputs[3].categories == ("a", "b", "c")
    stored, _ = catalog.artifact(version).example_of("predict")
    assert stored["det"].tolist() == data["det"][:6].tolist() and stored["run"].tolist() == data["run"][:6].tolist()
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(data), model.predict(data))
        assert np.array_equal(session.predict(X=data), model.predict(data))
        assert np.array_equal(session.predict(data[data.columns[::-1]]), model.predict(data)), "the order is no matter"
        plain = {name: data[name].tolist() if name in ("det", "run") else data[name].to_numpy() for name in data}
        assert np.array_equal(session.run("predict", plain)["output"], model.predict(data))
        with pytest.raises(InvalidInput, match="needs the input 'det'"):
            session.predict(data.drop(columns="det"))
        with pytest.raises(InvalidInput, match="'pt' of predict: expected float64"):
            session.predict(data.assign(pt=data["det"]))
        with pytest.raises(InvalidInput, match="'run' has no category 'z'"):
            session.run("predict", {**plain, "run": ["z"] * 50})


def test_missing_texts_and_numbers_stay_missing(catalog: Catalog) -> None:
    data = frame()
    data.loc[0, "det"] = None
    data.loc[1, "run"] = None
    data.loc[2, "pt"] = np.nan
    encoded = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), ["det", "run"])])
    model = Pipeline([("pre", encoded), ("clf", LogisticRegression())]).fit(data, data["hits"] > 4)
    version = catalog.save("m", model, example=data[:4], verify=True)
    stored, _ = catalog.artifact(version).example_of("predict")
    assert all(item != item for item in (stored["det"][0], stored["pt"][2]))  # pandas keeps NaN in a column of texts
    assert stored["run"][1] is None or stored["run"][1] != stored["run"][1]
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(data), model.predict(data))


@pytest.mark.parametrize("lacking", [None, np.nan], ids=["None", "NaN"])
def test_none_and_nan_are_two_categories_for_a_model(catalog: Catalog, lacking: Any) -> None:
    """In a column of objects both stay what they are, in the stored example and in what a session gives the model."""
    column = pd.Series(["a", lacking, "b", "a"], dtype=object)
    data = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "c": column})
    encoded = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), ["c"])], remainder="passthrough")
    model = Pipeline([("pre", encoded), ("clf", LogisticRegression())]).fit(data, [0, 1, 0, 1])
    version = catalog.save("m", model, example=data, verify=True)
    stored, _ = catalog.artifact(version).example_of("predict")
    assert stored["c"][1] is lacking or (lacking is not None and np.isnan(stored["c"][1]))
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(data), model.predict(data))


def test_two_columns_of_one_name_are_refused(catalog: Catalog) -> None:
    data = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], columns=["a", "a"])
    with pytest.raises(InvalidInput, match="names are texts, each once"):
        catalog.save("m", LogisticRegression().fit(data.to_numpy(), [0, 1]), example=data)


def test_columns_reach_a_model_that_takes_categories_by_their_dtype(catalog: Catalog) -> None:
    data = frame()[["pt", "run"]]
    model = HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype").fit(data, data["pt"] > 0.5)
    version = catalog.save("m", model, example=data[:3], verify=True)
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(data), model.predict(data))


def test_a_frame_goes_to_a_model_whose_example_was_an_array(catalog: Catalog) -> None:
    data = frame()[["pt"]].assign(z=1.0)
    model = LogisticRegression().fit(data.to_numpy(), data["pt"] > 0.5)
    version = catalog.save("m", model, example={"X": data.to_numpy()[:3]})
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(data), model.predict(data.to_numpy()))


def test_frames_of_polars_are_read_too(catalog: Catalog) -> None:
    pl = pytest.importorskip("polars")
    data = frame()[["pt", "det"]]
    encoded = ColumnTransformer([("n", StandardScaler(), ["pt"]), ("c", OneHotEncoder(), ["det"])])
    model = Pipeline([("pre", encoded), ("clf", LogisticRegression())]).fit(data, data["pt"] > 0.5)
    other = pl.DataFrame({"pt": data["pt"].to_numpy(), "det": data["det"].tolist()})
    version = catalog.save("m", model, example=other[:4], verify=True)
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(other), model.predict(data))


def test_a_column_that_is_neither_numbers_nor_text_is_named(catalog: Catalog) -> None:
    data = frame()
    model = pipeline(data)
    with pytest.raises(InvalidInput, match="column 'when' is datetime64"):
        catalog.save("m", model, example=data.assign(when=pd.Timestamp("2026-01-01")))


def fitted(kind: str, data: Any, labels: Any) -> Any:
    if kind == "pipeline":
        return Pipeline([("scale", StandardScaler()), ("clf", LogisticRegression())]).fit(data, labels)
    if kind == "texts as labels":
        return LogisticRegression().fit(data, np.where(labels, "signal", "background"))
    if kind.startswith("lightgbm"):
        lightgbm = pytest.importorskip("lightgbm")
        model = lightgbm.LGBMClassifier(n_estimators=3, min_child_samples=2, verbose=-1).fit(data, labels)
        return model.booster_ if kind.endswith("booster") else model
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=3).fit(data, labels)
    return model.get_booster() if kind.endswith("booster") else model


KINDS = ["pipeline", "texts as labels", "lightgbm", "lightgbm booster", "xgboost", "xgboost booster"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("example", ["frame", "array", "arrays by column"])
def test_the_order_of_columns_changes_no_answer(kind: str, example: str, catalog: Catalog) -> None:
    """What is given as a data frame is held against the names that the model was fitted on, also where its example was
    an array. LightGBM knows `n hits` as `n_hits`."""
    data = frame()[["pt", "hits"]].rename(columns={"hits": "n hits"}).assign(eta=DRAW.random(50) * 9)
    model = fitted(kind, data, data["pt"] * 9 > data["eta"])
    given = {"frame": data[:3], "array": data[:3].to_numpy(), "arrays by column": {n: data[n][:3] for n in data}}
    session = catalog.save("m", model, example=given[example], verify=True).session()
    expected = np.asarray(session.predict(data))
    assert len(np.unique(expected)) > 1
    assert np.array_equal(session.predict(data[["eta", "n hits", "pt"]]), expected)
    assert np.array_equal(session.run("predict", data[["eta", "n hits", "pt"]])[next(iter(outputs(session)))], expected)
    if example != "array":
        assert np.array_equal(session.predict({name: data[name].tolist() for name in data}), expected)
    for wrong in (data.rename(columns={"pt": "p_t"}), data.assign(more=1.0), data[["pt", "eta"]]):
        with pytest.raises(InvalidInput, match=r"'pt'|'more'|'n hits'|'n_hits'"):
            session.predict(wrong)


def outputs(session: Any) -> list[str]:
    return [spec.name for spec in session.entry_points["predict"].outputs]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.endswith("booster")])
def test_columns_go_to_an_artifact_of_ads_and_back(kind: str, catalog: Catalog, tmp_path: Path) -> None:
    data = frame()[["pt", "hits"]].rename(columns={"hits": "n hits"})
    model = fitted(kind, data, data["pt"] > 0.5)
    version = catalog.save("m", model, example=data[:3])
    (back,) = catalog.import_(catalog.export(version, tmp_path / "ads", format="ads"), "back")
    assert back.manifest.entry_points[0].inputs == version.manifest.entry_points[0].inputs
    assert np.array_equal(back.session().predict(data), version.session().predict(data))


def test_columns_of_other_numbers_fit_where_each_is_kept(catalog: Catalog) -> None:
    """pandas makes floats of whole numbers as soon as one is missing."""
    data = frame()[["pt", "hits"]].astype({"hits": "float64"})
    model = LogisticRegression().fit(data, data["pt"] > 0.5)
    session = catalog.save("m", model, example=data[:3]).session()
    whole = data.astype({"hits": "int32"})
    assert np.array_equal(session.predict(whole), model.predict(data))
    given = {"pt": [0.5, 1], "hits": [1, 2]}
    assert np.array_equal(session.predict(**given), session.predict(given))
    with pytest.raises(InvalidInput, match="hits"):
        session.predict(pt=[0.5], hits=["many"])


@pytest.mark.parametrize("inputs", ["x", [1.0], None, np.zeros((2, 2)), 3])
def test_inputs_that_have_no_names_are_refused_with_the_way(inputs: Any, catalog: Catalog) -> None:
    data = frame()[["pt", "hits"]]
    session = catalog.save("m", LogisticRegression().fit(data, data["pt"] > 0.5), example=data[:3]).session()
    with pytest.raises(InvalidInput, match=r"arrays by name.*session\.predict"):
        session.run("predict", inputs)
    with pytest.raises(AttributeError, match="it has predict"):
        _ = session.forward
