"""Every kind of column that pandas and polars have: kept right, or refused by one error that names it and the way out,
as an example, in the schema and as an input of a session."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")
pd = pytest.importorskip("pandas")

import scipy.sparse  # noqa: E402
from sklearn.dummy import DummyClassifier  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.columns import columns, packed, unpacked  # noqa: E402
from catalog_core.errors import InvalidInput  # noqa: E402

pytestmark = pytest.mark.framework
N, Y = 6, [0, 1] * 3


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


def arrow(values: Any, kind: str) -> Any:
    pytest.importorskip("pyarrow")
    return pd.array(values, dtype=f"{kind}[pyarrow]")


NA = [1, None] * 3
KEPT = {
    "boolean": (lambda: pd.array([True, False] * 3, dtype="boolean"), "bool"),
    "objects that are bools": (lambda: pd.Series([True, False] * 3, dtype=object), "bool"),
    "Int64": (lambda: pd.array([1, 2] * 3, dtype="Int64"), "int64"),
    "Int64 with missing": (lambda: pd.array(NA, dtype="Int64"), "float64"),
    "Int64 of missing only": (lambda: pd.array([None] * N, dtype="Int64"), "float64"),
    "UInt8": (lambda: pd.array([1, 2] * 3, dtype="UInt8"), "uint8"),
    "Float64 with missing": (lambda: pd.array([1.5, None] * 3, dtype="Float64"), "float64"),
    "Float32": (lambda: pd.array([1.5, 2] * 3, dtype="Float32"), "float32"),
    "string": (lambda: pd.array(["a", "b"] * 3, dtype="string"), "string"),
    "string with missing": (lambda: pd.array(["a", None] * 3, dtype="string"), "string"),
    "str": (lambda: pd.Series(["a", "b"] * 3), "string"),
    "objects that are texts": (lambda: pd.Series(["a", None] * 3, dtype=object), "string"),
    "string of arrow": (lambda: arrow(["a", None] * 3, "string"), "string"),
    "int64 of arrow": (lambda: arrow([1, 2] * 3, "int64"), "int64"),
    "int64 of arrow with missing": (lambda: arrow(NA, "int64"), "float64"),
    "categories of integers": (lambda: pd.Categorical([1, 2] * 3), "category"),
    "categories of integers with missing": (lambda: pd.Categorical([1, None] * 3), "category"),
    "categories of numbers": (lambda: pd.Categorical([1.5, 2.5] * 3), "category"),
    "categories of bools": (lambda: pd.Categorical([True, False] * 3), "category"),
    "categories of two kinds": (lambda: pd.Categorical(["a", 1] * 3), "category"),
    "categories of bools with missing": (lambda: pd.Categorical([True, None] * 3), "category"),
    "categories with missing": (lambda: pd.Categorical(["a", None] * 3), "category"),
    "sparse": (lambda: pd.arrays.SparseArray([0.0, 1.0] * 3), "float64"),
}
TIMES = "total_seconds"
ODD = {
    "datetime": (lambda: pd.date_range("2020-01-01", periods=N), r"is datetime64\[", TIMES),
    "datetime with a zone": (lambda: pd.date_range("2020-01-01", periods=N, tz="UTC"), r"is datetime64\[", TIMES),
    "timedelta": (lambda: pd.to_timedelta(range(N), unit="h"), r"is timedelta64\[", TIMES),
    "period": (lambda: pd.period_range("2020-01", periods=N, freq="M"), "is period", TIMES),
    "dates": (lambda: pd.Series([datetime.date(2020, 1, 1)] * N, dtype=object), "is object of date", TIMES),
    "time of arrow": (lambda: arrow(pd.date_range("2020", periods=N), "timestamp[ns]"), "is timestamp", TIMES),
    "boolean with missing": (lambda: pd.array([True, None] * 3, dtype="boolean"), "missing values", "float64"),
    "bools with None": (lambda: pd.Series([True, None] * 3, dtype=object), "missing values", "float64"),
    "large with missing": (lambda: pd.array([2**60 + 1, None] * 3, dtype="Int64"), "1152921504606846977", "fill"),
    "beyond 64 bits": (lambda: pd.Series([2**70 + 1] * N, dtype=object), "has 1180591620717411303425", "fill"),
    "mixed": (lambda: pd.Series(["a", 1, 2.5] * 2, dtype=object), "object of str and int and float", "astype"),
    "lists": (lambda: pd.Series([[1], [2]] * 3, dtype=object), "object of list", "astype"),
    "bytes": (lambda: pd.Series([b"a", b"b"] * 3, dtype=object), "object of bytes", "astype"),
    "decimals": (lambda: pd.Series([decimal.Decimal("1.5")] * N), "object of Decimal", "astype"),
    "complex": (lambda: np.ones(N) * 1j, "is complex128", "astype"),
    "intervals": (lambda: pd.interval_range(0, N), "is interval", "astype"),
    "categories of times": (lambda: pd.Categorical(list(pd.date_range("2020", periods=2)) * 3),
                            "categories of Timestamp", "rename_categories"),
    "categories of intervals": (lambda: pd.cut(range(N), 2), "categories of Interval", "rename_categories"),
}  # fmt: skip


def table(column: Any) -> Any:
    return pd.DataFrame({"x": column, "z": np.arange(N) * 1.0})


def model_of(data: Any) -> Any:
    return make_pipeline(FunctionTransformer(), DummyClassifier(strategy="prior")).fit(data, Y)


@pytest.mark.parametrize("kind", KEPT)
def test_a_column_of_this_kind_is_kept(kind: str, catalog: Catalog) -> None:
    make, dtype = KEPT[kind]
    data = table(make())
    version = catalog.save("m", model_of(data), example=data)
    (spec, _) = version.manifest.entry_points[0].inputs
    assert (spec.name, spec.dtype, spec.shape) == ("x", dtype, ("batch",))
    stored, _ = version.artifact.example()
    for got, given in zip(list(stored["x"]), list(data["x"]), strict=True):
        assert pd.isna(got) if pd.isna(given) else got == given
    with catalog.session(version) as session:
        assert session.predict(data).shape == session.predict(**stored).shape == (N,)


@pytest.mark.parametrize("kind", ODD)
def test_a_column_of_this_kind_is_named_with_the_way_out(kind: str, catalog: Catalog) -> None:
    make, what, way = ODD[kind]
    data = table(make())
    with pytest.raises(InvalidInput, match=f"column 'x' .*{what}") as caught:
        catalog.save("m", DummyClassifier().fit(table(np.ones(N)), Y), example=data)
    assert way in str(caught.value.hint)
    plain = table(np.ones(N))
    catalog.save("m", model_of(plain), example=plain)
    with catalog.session("m") as session, pytest.raises(InvalidInput, match=f"column 'x' .*{what}") as caught:
        session.predict(data)
    assert way in str(caught.value.hint)


@pytest.mark.parametrize(
    ("names", "what", "way"),
    [
        (["x", "x"], "'x' twice", "rename"),
        ([0, 1], "0 of the type int", "map"),
        (["", "t"], "'' without a name", "rename"),
        (pd.MultiIndex.from_tuples([("a", "x"), ("a", "t")]), "of several levels", "join"),
    ],
)
def test_names_of_columns_that_are_no_texts_once_each_are_refused(names: Any, what: str, way: str) -> None:
    data = pd.DataFrame(np.ones((3, 2)), columns=names)
    with pytest.raises(InvalidInput, match=what) as caught:
        columns(data)
    assert way in str(caught.value.hint)


def test_an_index_is_no_input_and_no_rows_are_rows(catalog: Catalog) -> None:
    data = pd.DataFrame({"x": np.arange(N) * 1.0, "t": ["a", "b"] * 3}, index=[5, 3, 1, 9, 7, 7])
    model = model_of(data)
    version = catalog.save("m", model, example=data)
    assert [spec.name for spec in version.manifest.entry_points[0].inputs] == ["x", "t"]
    with catalog.session("m") as session:
        assert (
            session.predict(data.set_index(pd.date_range("2020", periods=N))).tolist() == model.predict(data).tolist()
        )
        assert session.predict(data[:0]).shape == (0,)
    with pytest.raises(InvalidInput, match="has no columns"):
        catalog.save("m", model, example=data[[]])


def test_columns_fit_the_schema_where_nothing_is_lost(catalog: Catalog) -> None:
    def answer(example: Any, other: Any) -> Any:
        catalog.save("m", model_of(table(example)), example=table(example))
        with catalog.session("m") as session:
            return session.predict(table(other))

    whole, lacking = pd.array([1, 2] * 3, dtype="Int64"), pd.array(NA, dtype="Int64")
    assert answer(lacking, whole).shape == (N,)
    assert answer(["a", "b"] * 3, pd.array(["a", None] * 3, dtype="string")).shape == (N,)
    with pytest.raises(InvalidInput, match="'x' has missing values, and int64 has none"):
        answer(whole, lacking)
    with pytest.raises(InvalidInput, match="no float64 is that number"):
        answer(np.ones(N), np.full(N, 2**60 + 1))
    with pytest.raises(InvalidInput, match="'x' has no category 'c'"):
        answer(pd.Categorical(["a", "b"] * 3), pd.Categorical(["a", "c"] * 3))


def test_categories_in_another_order_reach_the_model_in_its_own(catalog: Catalog) -> None:
    """A model that goes by their codes would take each for another one."""
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(0)
    kinds = rng.choice(["a", "b", "c"], 300)
    data = pd.DataFrame({"x": pd.Categorical(kinds), "z": rng.random(300)})
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(data, kinds == "a")
    catalog.save("m", model, example=data[:5])
    other = data.assign(x=pd.Categorical(kinds, categories=["c", "a", "b"]))
    with catalog.session("m") as session:
        assert np.array_equal(session.predict(other), model.predict(data))


def test_kinds_of_polars(catalog: Catalog) -> None:
    pl = pytest.importorskip("polars")
    kept = {
        "float64": [pl.Series([1, None] * 3), pl.Series([1.5, None] * 3)],
        "string": [pl.Series(["a", None] * 3), pl.Series(["a", "b"] * 3, dtype=pl.Categorical)],
        "bool": [pl.Series([True, False] * 3)],
        "uint8": [pl.Series([1, 2] * 3, dtype=pl.UInt8)],
    }
    for dtype, made in kept.items():
        for series in made:
            assert catalog.save("m", model_of(table(np.ones(N))), example=pl.DataFrame({"x": series, "z": Y}).cast(
                {"z": pl.Float64})).manifest.entry_points[0].inputs[0].dtype == dtype  # fmt: skip
    odd = {
        "Datetime": pl.Series([datetime.datetime(2020, 1, 1)] * N), "Duration": pl.Series([datetime.timedelta(1)] * N),
        "missing values": pl.Series([True, None] * 3), "no float64": pl.Series([2**60 + 1, None] * 3),
        "List": pl.Series([[1]] * N), "Struct": pl.Series([{"a": 1}] * N),
        "Decimal": pl.Series([decimal.Decimal(1)] * N),
    }  # fmt: skip
    for what, series in odd.items():
        with pytest.raises(InvalidInput, match=f"column 'x' .*{what}"):
            columns(pl.DataFrame({"x": series}))


@pytest.mark.parametrize(
    ("example", "what"),
    [
        (np.array([[b"a", b"b"]] * N), "an array of bytes"),
        (scipy.sparse.csr_matrix(np.eye(N)), "a sparse csr_matrix"),
        (scipy.sparse.coo_array(np.eye(N)), "a sparse coo_array"),
    ],
)
def test_an_example_that_is_no_array_of_one_kind_is_refused(example: Any, what: str, catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match=f"the example's 'X' is {what}"):
        catalog.save("m", DummyClassifier().fit(np.eye(N), Y), example=example)


def test_a_sparse_matrix_is_named_in_a_session_and_made_dense_as_an_output(catalog: Catalog) -> None:
    catalog.save("m", DummyClassifier().fit(np.eye(N), Y), example=np.eye(N))
    with catalog.session("m") as session, pytest.raises(InvalidInput, match="'X' of predict is a sparse csr_array"):
        session.predict(scipy.sparse.csr_array(np.eye(N)))
    data = pd.DataFrame({"x": ["a", "b"] * 3})
    catalog.save("o", OneHotEncoder().fit(data), example=data, entry_points={"transform": "model.transform"})
    with catalog.session("o") as session:
        assert session.transform(data).tolist() == [[1, 0], [0, 1]] * 3


def test_tables_of_texts_are_stored_as_tables() -> None:
    made = {
        "output:predict:y": np.array([["a", None], ["", "μ"], [np.nan, "x"]], object),
        "row": np.array(["a", None], object), "none": np.empty((0, 2), object), "n": np.arange(3),
    }  # fmt: skip
    found = unpacked(packed(made))
    assert set(found) == set(made)
    for name, value in made.items():
        assert found[name].shape == value.shape
        assert [repr(item) for item in found[name].ravel()] == [repr(item) for item in value.ravel()]


def test_several_labels_that_are_texts_are_stored_and_verified(catalog: Catalog) -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.array([["a", "u"], ["b", "v"]] * 3, object)
    version = catalog.save("m", KNeighborsClassifier(1).fit(x, y), example=x)
    assert version.verify().passed
