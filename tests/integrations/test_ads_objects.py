"""The objects that the classes of ADS show: tables of pandas, metadata, schemas, runtime, properties."""

from __future__ import annotations

import importlib.abc
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pd = pytest.importorskip("pandas")

from catalog_ads import (  # noqa: E402
    Framework,
    GenericModel,
    ModelCustomMetadata,
    ModelCustomMetadataItem,
    ModelProperties,
    ModelProvenanceMetadata,
    PyTorchModel,
    RuntimeInfo,
    Schema,
    SklearnModel,
    UseCaseType,
    XGBoostModel,
)
from catalog_ads.columns import Attribute, columns_of  # noqa: E402
from catalog_ads.fresh import answers  # noqa: E402
from catalog_ads.plain import frame  # noqa: E402
from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, MissingPlugin, NotFound, SerializationError  # noqa: E402

pytestmark = [pytest.mark.framework, pytest.mark.timeout(300)]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as opened:
        yield opened


class Mine:
    """What ADS would cloudpickle."""

    def predict(self, data: Any) -> Any:
        return data


def fitted() -> tuple[Any, Any, Any]:
    from sklearn.linear_model import LogisticRegression

    table = pd.DataFrame(np.random.default_rng(0).random((20, 3)), columns=["a", "b", "c"])
    labels = (table.a > 0.5).astype(int).rename("label")
    return LogisticRegression().fit(table.to_numpy(), labels), table, labels


def test_what_is_changed_is_saved_and_comes_back(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    estimator, table, labels = fitted()
    model = SklearnModel(estimator, "~/out", {"inference_python_version": "3.11"}, catalog=catalog, name="m")
    assert model.artifact_dir == model.local_copy_dir == str(tmp_path / "out") and model.runtime_info is None
    same = model.prepare(
        "oci://packs@space/one", None, None, None, None, False, None, True, "namespace", "regression", table, labels
    )
    assert same is model and model.properties.inference_conda_env == "oci://packs@space/one"
    assert model.metadata_taxonomy["UseCaseType"].value == "regression"
    assert model.schema_input.keys == ("a", "b", "c") and model.schema_output.keys == ("label",)
    assert model.schema_input["a"].feature_type == "Continuous"
    assert model.schema_input["a"].domain.stats["count"] == 20.0
    env = model.runtime_info.model_deployment.inference_conda_env
    assert (env.inference_env_path, env.inference_python_version) == ("oci://packs@space/one", "3.11")
    assert model.metadata_provenance.artifact_dir == model.artifact_dir
    assert Path(model.artifact_dir, model.model_file_name).is_file()
    model.schema_input["a"].description = "first"
    model.metadata_custom.set_training_data("oci://data@space/a.csv", "20 rows")
    model.metadata_custom.add("auc", np.float64(0.75), "on the rest", "Performance")
    env.inference_python_version = "3.12"
    with pytest.raises(InvalidInput, match=r"runtime\.yaml is not what runtime_info says") as caught:
        model.save()
    assert caught.value.hint is not None and "runtime_info.save()" in caught.value.hint
    model.runtime_info.save()
    version = catalog.version(model.save(display_name="Of Tables"))
    assert version.metrics["auc"] == 0.75 and version.tags["TrainingDatasetSize"] == "20 rows"
    again = SklearnModel.from_model_catalog(version.ref, None, str(tmp_path / "again"), catalog=catalog)
    assert again.runtime_info.model_deployment.inference_conda_env.inference_python_version == "3.12"
    assert again.schema_input["a"].description == "first" and again.schema_output.keys == ("label",)
    assert json.loads((tmp_path / "again" / "input_schema.json").read_text())["schema"][0]["description"] == "first"
    item = again.metadata_custom.get("trainingdataset")
    assert (item.value, item.category) == ("oci://data@space/a.csv", "Training and Validation Datasets")
    assert again.predict(table)["prediction"] == estimator.predict(table.to_numpy()).tolist()
    model.close()
    again.close()


@pytest.mark.parametrize(
    "given",
    [lambda x: x, len, Mine(), Mine, {"a": 1}, {"net": Mine()}, {1: 2}, [1, 2], 5, b"bytes", "text", object()],
    ids=[
        "lambda",
        "builtin",
        "instance",
        "class",
        "dict",
        "components",
        "keys",
        "list",
        "int",
        "bytes",
        "str",
        "object",
    ],
)
def test_anything_can_be_given_and_prepare_says_what_to_do(catalog: Catalog, tmp_path: Path, given: Any) -> None:
    model = GenericModel(given, tmp_path / "out", catalog=catalog)
    with pytest.raises(InvalidInput, match="no serializer takes it, and it is never pickled as ADS would") as caught:
        model.prepare("oci://packs@space/one", X_sample=[[1.0]])
    assert caught.value.hint is not None and "serialize=False" in caught.value.hint
    with pytest.raises(InvalidInput, match="takes objects of xgboost"):
        XGBoostModel(given if not isinstance(given, dict) else Mine(), catalog=catalog).prepare()


def test_custom_metadata() -> None:
    metadata = ModelCustomMetadata()
    metadata.add("b", [1, 2], "list", "Training Profile")
    metadata.add("A", "one")
    assert metadata.keys == ("b", "A") and len(metadata) == 2 and not metadata.isempty()
    table = metadata.to_dataframe()
    assert list(table.columns) == ["Key", "Value", "Description", "Category", "HasArtifact"]
    assert table["Key"].tolist() == ["A", "b"] and table.loc[1, "Value"] == [1, 2]
    assert metadata.get("B").value == [1, 2] and metadata.get("none", 3) == 3
    assert {**metadata.to_dict()["data"][1]} == {
        "key": "A", "value": "one", "description": "", "category": "Other", "has_artifact": False,
    }  # fmt: skip
    assert ModelCustomMetadata.from_dict(json.loads(metadata.to_json())).to_dict() == metadata.to_dict()
    assert metadata.size() > 100 and metadata.validate() and metadata.validate_size()
    with pytest.raises(InvalidInput, match="are there"):
        metadata.add("a", 1)
    metadata.add("a", 1, replace=True)
    assert metadata.keys == ("b", "a")
    metadata["b"].update("new", description="text", category="Other")
    assert metadata["b"].to_dict()["value"] == "new"
    for wrong in (None, ""):
        with pytest.raises(InvalidInput, match="is empty"):
            metadata.add("c", wrong)
    with pytest.raises(ValueError, match="there are no metadata"):  # ADS raises it
        metadata.remove("missing")
    with pytest.raises(NotFound):
        metadata["missing"]
    metadata.remove("B")
    metadata.clear()
    assert metadata.isempty()
    assert ModelCustomMetadataItem("k", "v", description="d", category="Other").to_yaml().startswith("category: Other")


def test_runtime_properties_and_provenance_read_what_they_write(tmp_path: Path, monkeypatch: Any) -> None:
    info = RuntimeInfo.from_env()
    info.model_deployment.inference_conda_env.inference_python_version = "3.11"
    for again in (
        RuntimeInfo.from_json(info.to_json()), RuntimeInfo.from_yaml(info.to_yaml()),
        RuntimeInfo.from_dict(info.to_dict(side_effect="upper")),
    ):  # fmt: skip
        assert again == info
    with pytest.raises(InvalidInput, match="prepare"):
        info.save()
    with pytest.raises(InvalidInput, match="that is no RuntimeInfo"):
        RuntimeInfo.from_yaml("a: [")
    monkeypatch.setenv("PROJECT_OCID", "ocid1.project")
    given = ModelProperties(deployment_ocpus=2).with_env().with_prop("bucket_uri", "oci://a@b")
    assert given.project_id == "ocid1.project" and given.deployment_ocpus == 2 and given.bucket_uri == "oci://a@b"
    with pytest.raises(TypeError, match="deployment_instance_count"):
        given.with_prop("deployment_instance_count", "many")
    given.to_config(str(tmp_path / "p.ini"), "here")
    assert ModelProperties.from_config(str(tmp_path / "p.ini"), "here") == given
    source = ModelProvenanceMetadata(git_commit="abc", training_id="ocid1.job")
    assert ModelProvenanceMetadata.from_yaml(source.to_yaml()) == source and "repo" not in source.to_dict()
    assert "Regression" in UseCaseType and Framework.LIGHT_GBM in Framework and "other" in set(Framework)


def test_schemas_of_tables() -> None:
    told = columns_of(
        pd.DataFrame(
            {"f": [1.5, None, 2.25], "i": [1, 2, 3], "b": [True, False, True], "c": pd.Categorical(["u", "v", "u"])}
        )
    )
    assert told is not None
    assert [(item.feature_type, item.required) for item in told] == [
        ("Continuous", False), ("Integer", True), ("Boolean", True), ("Category", True),
    ]  # fmt: skip
    assert told["f"].domain.stats["missing"] == 1.0 and told["f"].domain.stats["median"] == 1.875
    assert told["c"].domain.constraints[0].expression == "$x in ['u', 'v']"
    assert Schema.from_json(told.to_json()).keys == told.keys and told.validate_schema() and told.validate_size()
    assert json.loads(told.to_json())["schema"][0]["domain"]["stats"]["skew"] is None  # JSON has no word for NaN
    other = columns_of(np.arange(6.0).reshape(3, 2))
    assert other is not None and other.keys == (0, 1)
    assert columns_of(np.zeros((2, 2, 2))) is None and columns_of({"x": 1}) is None
    assert columns_of(np.zeros((2, 30)), 20) is None
    with pytest.raises(InvalidInput, match="exists already"):
        told.add(Attribute("float64", "Continuous", "f"))
    told.add(Attribute("float64", "Continuous", "f"), replace=True)
    with pytest.raises(InvalidInput, match="is not found"):
        told["missing"]


def test_pandas_is_asked_for_on_use_only(monkeypatch: pytest.MonkeyPatch, catalog: Catalog, tmp_path: Path) -> None:
    class Refused(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "pandas":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    estimator, _, _ = fitted()
    monkeypatch.delitem(sys.modules, "pandas")
    monkeypatch.setattr(sys, "meta_path", [Refused(), *sys.meta_path])
    model = SklearnModel(estimator, tmp_path / "out", catalog=catalog).prepare(X_sample=np.ones((2, 3)))
    assert model.schema_input.keys == ("X",)  # the tensor, as there are no columns
    for show in (model.summary_status, model.introspect, model.metadata_custom.to_dataframe):
        with pytest.raises(MissingPlugin, match="pandas DataFrame") as caught:
            show()
        assert caught.value.hint == "pip install pandas"
    with pytest.raises(MissingPlugin):
        frame([], ["a"])


def words(model: Any) -> list[str]:
    return list(model.summary_status().reset_index()["Status"])


def test_the_words_of_a_saved_model_are_those_of_ads(catalog: Catalog, tmp_path: Path) -> None:
    """As `ads/model/generic_model.py` of 2.16.1 sets them in `from_model_catalog` and `from_model_artifact`."""
    estimator, table, labels = fitted()
    model = SklearnModel(estimator, tmp_path / "out", catalog=catalog, name="m")
    model.prepare("oci://packs@space/one", "3.11", X_sample=table, y_sample=labels)
    path = model.artifact_dir
    reference = model.save()
    skipped = ["Not Applicable"] * 3
    for options, wanted in (
        ({}, [*skipped, "Done", "Available", "Available", "Not Available"]),
        ({"ignore_conda_error": True}, [*skipped, "Done", "Available", "Not Available", "Not Available"]),
        ({"download_artifact": False}, ["Not Applicable"] * 7),
    ):
        again = SklearnModel.from_model_catalog(
            reference, artifact_dir=tmp_path / str(len(options) + len(str(options))), catalog=catalog, **options
        )
        assert words(again) == ["Done", *wanted, "UNKNOWN", "Not Available"]
        assert again.algorithm == "LogisticRegression"
    read = SklearnModel.from_model_artifact(
        path, artifact_dir=tmp_path / "read", catalog=catalog, name="r", reload=True
    )
    assert words(read) == ["Done", *skipped, "Available", *["Not Available"] * 3, "UNKNOWN", "Not Available"]


def test_without_conda_no_pack_is_written_and_what_was_said_is_kept(catalog: Catalog, tmp_path: Path) -> None:
    estimator, table, _ = fitted()
    model = SklearnModel(estimator, tmp_path / "out", catalog=catalog, name="m")
    model.prepare("oci://packs@space/one", "3.11", X_sample=table, ignore_conda_error=True)
    results = dict(zip(model.introspect()["Test key"], model.introspect()["Result"], strict=True))
    assert (results["runtime_env_path"], results["runtime_env_python"]) == ("Failed", "Failed")
    told = catalog.version(model.save()).manifest.provenance["ads"]
    assert told["no_pack"] == {"inference_conda_env": "oci://packs@space/one", "inference_python_version": "3.11"}
    assert "inference_conda_env" not in told["runtime"]


def test_a_graph_keeps_the_name_of_its_estimator(catalog: Catalog, tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    from catalog_oracle.taxonomy import main_of

    estimator, table, _ = fitted()
    model = SklearnModel(estimator, tmp_path / "out", catalog=catalog, name="m")
    model.prepare(as_onnx=True, X_sample=table.to_numpy("f4"))
    assert (model.framework, model.algorithm) == ("scikit-learn", "LogisticRegression")
    version = catalog.version(model.save())
    assert main_of(version.manifest)["algorithm"] == "LogisticRegression"
    again = SklearnModel.from_model_catalog(version.ref, artifact_dir=tmp_path / "again", catalog=catalog)
    assert again.algorithm == "LogisticRegression"


def _frame() -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"pt": rng.normal(0, 1, 40), "n hits": rng.normal(9, 4, 40), "kind": ["a", "b"] * 20})
    return table, np.where(table.pt - table["n hits"] > -9, "late", "early")


def _as_ads(table: Any) -> dict[str, str]:
    return {"data": table.to_json(double_precision=15), "data_type": "<class 'pandas.core.frame.DataFrame'>"}


def test_columns_in_another_order_give_the_same_answers(catalog: Catalog, tmp_path: Path) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    table, labels = _frame()
    steps = make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough")
    mixed = make_pipeline(steps, LogisticRegression()).fit(table, labels)
    numbers = LogisticRegression().fit(table[["pt", "n hits"]], labels)
    for name, estimator, whole in (("mixed", mixed, table), ("numbers", numbers, table[["pt", "n hits"]])):
        wanted = estimator.predict(whole[:9]).tolist()
        turned = whole[whole.columns[::-1]][:9]
        model = SklearnModel(estimator, str(tmp_path / name), catalog=catalog, name=name)
        model.prepare("oci://packs@space/one", inference_python_version="3.11", X_sample=whole[:5])
        assert "pandas" in (tmp_path / name / "requirements.txt").read_text().split()
        for data in (whole[:9], turned):
            assert model.verify(data)["prediction"] == wanted
        model.save()
        assert model.predict(turned)["prediction"] == wanted
        with pytest.raises(InvalidInput, match="'pt'"):
            model.predict(turned.rename(columns={"pt": "p"}))
        catalog.export(model.model_id, tmp_path / f"{name}-out", format="ads")
        rows = turned.to_dict("records")
        requests = [_as_ads(whole[:9]), _as_ads(turned), {"data": whole[:9].to_numpy().tolist()}, {"data": rows}]
        for answer in answers(tmp_path / f"{name}-out", requests)[0]:
            assert answer["prediction"] == wanted
        with pytest.raises(SerializationError, match="takes pt"):
            answers(tmp_path / f"{name}-out", [_as_ads(turned.rename(columns={"pt": "p"}))])
        model.close()


def test_a_model_of_arrays_gets_the_columns_in_the_order_of_its_sample(catalog: Catalog, tmp_path: Path) -> None:
    table = pd.DataFrame(np.random.default_rng(0).random((9, 2)), columns=["a", "b"])
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(2, 1).double()
    model = PyTorchModel(net, str(tmp_path / "net"), catalog=catalog, name="net")
    model.prepare("oci://packs@space/one", inference_python_version="3.11", X_sample=table[:3])
    wanted = net(torch.from_numpy(table.to_numpy())).tolist()
    for data in (table, table[["b", "a"]], table.to_numpy()):
        np.testing.assert_allclose(model.verify(data)["prediction"], wanted)
    model.save()
    np.testing.assert_allclose(model.predict(table[["b", "a"]])["prediction"], wanted)
    with pytest.raises(InvalidInput, match="takes the columns a, b"):
        model.predict(table.rename(columns={"a": "c"}))
    model.close()


def test_score_py_names_classes_in_any_order(catalog: Catalog, tmp_path: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier

    table, labels = _frame()
    both = np.stack([labels, table.kind.to_numpy().astype(object)], axis=1)
    rows = table[["pt", "n hits"]].to_numpy()
    forest = RandomForestClassifier(5, random_state=0).fit(rows, both)
    version = catalog.save("forest", forest, example=rows[:4])
    catalog.export(version, tmp_path / "out", format="ads")
    ((answer,), _) = answers(tmp_path / "out", [{"data": rows[:9].tolist()}])
    assert answer["prediction"] == forest.predict(rows[:9]).tolist()
