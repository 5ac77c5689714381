"""Scripts written for ADS run over a catalog with one import line changed, and no account."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("pandas")

from catalog_ads import GenericModel, LightGBMModel, PyTorchModel, SklearnModel, XGBoostModel  # noqa: E402
from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, MissingPlugin, NotFound, NotTrusted, VerificationFailed  # noqa: E402

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]

# As somebody with an account would write them; the first line that is no comment is the only one that differs.
SKLEARN = """
from ads.model import MetadataCustomCategory, SklearnModel, UseCaseType
import tempfile
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

X, y = load_iris(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0)
estimator = LogisticRegression(max_iter=200).fit(X_train, y_train)

sklearn_model = SklearnModel(estimator=estimator, artifact_dir=tempfile.mkdtemp())
sklearn_model.prepare(
    inference_conda_env="oci://packs@space/conda/generalml_p311_cpu_v1",
    inference_python_version="3.11",
    X_sample=X_train,
    y_sample=y_train,
    use_case_type=UseCaseType.MULTINOMIAL_CLASSIFICATION,
    force_overwrite=True,
)
sklearn_model.metadata_custom.add(
    key="test accuracy", value=estimator.score(X_test, y_test), description="on a quarter of it",
    category=MetadataCustomCategory.PERFORMANCE,
)
sklearn_model.metadata_custom.set_training_data(path="oci://data@space/iris.csv", data_size="(112, 4)")
print(sklearn_model.summary_status())
print(sklearn_model.introspect())
assert sklearn_model.verify(X_test[:5])["prediction"] == estimator.predict(X_test[:5]).tolist()
model_id = sklearn_model.save(display_name="Iris Classifier", description="a first try", freeform_tags={"team": "bio"})

again = SklearnModel.from_model_catalog(model_id, artifact_dir=tempfile.mkdtemp())
assert again.metadata_taxonomy["UseCaseType"].value == UseCaseType.MULTINOMIAL_CLASSIFICATION
assert again.metadata_custom["test accuracy"].value
assert again.framework == "scikit-learn" and again.algorithm == "LogisticRegression"
assert again.hyperparameter["max_iter"] == 200
assert again.predict(X_test)["prediction"] == estimator.predict(X_test).tolist()
print(model_id, again.runtime_info.model_deployment.inference_conda_env.inference_env_path)
"""
TORCH = """
from ads.model.framework.pytorch_model import PyTorchModel
import tempfile
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(10, 8)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(8, n) for n in (1, 2, 3))

    def forward(self, features):
        hidden = torch.relu(self.hidden(features))
        return tuple(head(hidden) for head in self.heads)

net, features = Net(), torch.randn(4, 10)
artifact_dir = tempfile.mkdtemp()
torch_model = PyTorchModel(net, artifact_dir=artifact_dir)
torch_model.prepare("pytorch_p311_cpu_v1", X_sample=features, use_case_type="regression")
answer = torch_model.verify(features)["prediction"]
assert [len(answer[f"output_{n}"][0]) for n in range(3)] == [1, 2, 3]
first = torch_model.save(display_name="calo net", model_version_set="calo/net", version_label="first")
second = PyTorchModel.from_model_artifact(artifact_dir, artifact_dir=tempfile.mkdtemp())
second.save(display_name="calo net", model_version_set="calo/net", version_label="second")
wanted = [head.tolist() for head in net(features)]
got = PyTorchModel.from_id(second.model_id).predict(features)["prediction"]
torch.testing.assert_close(torch.tensor(got["output_2"]), torch.tensor(wanted[2]))
print(first, second.model_id)
"""
GENERIC = """
from ads.model.generic_model import GenericModel
import os, tempfile

artifact_dir = tempfile.mkdtemp()
with open(os.path.join(artifact_dir, "score.py"), "w") as file:
    file.write('''
import json, os
def load_model(model_file_name="table.json"):
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), model_file_name)) as file:
        return json.load(file)
def predict(data, model=load_model()):
    return {"prediction": [model.get(str(item), -1) for item in data]}
''')
with open("table.json", "w") as file:
    file.write('{"1": 10, "2": 20}')
model = GenericModel(estimator=None, artifact_dir=artifact_dir, serialize=False)
model.prepare("oci://packs@space/any", inference_python_version="3.11", model_file_name="table.json")
assert model.verify([1, 2, 3])["prediction"] == [10, 20, -1]
assert set(model.introspect()["Result"]) == {"Passed", "Skipped"}
print(model.save(display_name="table"), model.predict([2]))
"""
IMPORTS = {
    "from ads.model import MetadataCustomCategory, SklearnModel, UseCaseType": (
        "from catalog_ads import MetadataCustomCategory, SklearnModel, UseCaseType"
    ),
    "from ads.model.framework.pytorch_model import PyTorchModel": "from catalog_ads import PyTorchModel",
    "from ads.model.generic_model import GenericModel": "from catalog_ads import GenericModel",
}


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CATALOG", str(tmp_path / "catalog"))
    with Catalog.open() as opened:
        yield opened


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (SKLEARN, "Iris-Classifier@1 oci://packs@space/conda/generalml_p311_cpu_v1"),
        (TORCH, "calo/net@1 calo/net@2"),
        (GENERIC, "table@1 {'prediction': [20]}"),
    ],
    ids=["sklearn", "torch", "generic"],
)
def test_a_script_changes_one_line(catalog: Catalog, tmp_path: Path, script: str, said: str) -> None:
    (tmp_path / "work").mkdir()
    old = next(line for line in script.splitlines() if line)
    (tmp_path / "script.py").write_text(script.replace(old, IMPORTS[old]))
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, cwd=tmp_path / "work", check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == said
    version = catalog.version(said.split()[0])
    assert version.summary["verification"] in ("passed", "not run")
    if script is SKLEARN:
        assert version.metrics["test accuracy"] > 0.9 and version.tags["team"] == "bio"
        assert version.taxonomy == {"use_case": "multinomial_classification"}
        assert catalog.model("Iris-Classifier").title == "Iris Classifier"


@pytest.mark.parametrize("kind", ["sklearn", "xgboost", "lightgbm"])
def test_classes_have_their_names(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    from sklearn.tree import DecisionTreeClassifier

    rows = np.random.default_rng(0).random((60, 3))
    words = np.where(rows[:, 0] > 0.5, "signal", "background")
    made, estimator, labels = {
        "sklearn": (SklearnModel, DecisionTreeClassifier(), words),
        "xgboost": (XGBoostModel, xgboost.XGBClassifier(n_estimators=3), (words == "signal").astype(int)),
        "lightgbm": (LightGBMModel, lightgbm.LGBMClassifier(n_estimators=3, verbose=-1), words),
    }[kind]
    estimator.fit(rows, labels)
    model = made(estimator, artifact_dir=tmp_path / "out", catalog=catalog, name=kind).prepare(X_sample=rows[:5])
    wanted = estimator.predict(rows).tolist()
    assert model.verify(rows)["prediction"] == wanted
    model.save()
    assert model.predict(rows)["prediction"] == wanted
    again = made.from_model_catalog(model.model_id, artifact_dir=tmp_path / "in", catalog=catalog)
    assert again.predict(rows)["prediction"] == wanted
    model.close()
    again.close()


class Two(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2


def test_several_components_are_one_model(catalog: Catalog, tmp_path: Path) -> None:
    model = GenericModel({"encoder": Two(), "decoder": Two()}, tmp_path / "out", catalog=catalog, name="vae")
    model.prepare(
        X_sample=np.ones((2, 3), "f4"), entry_points={"reconstruct": ["encoder", "decoder"], "encode": "encoder"}
    )
    assert model.verify([[1.0, 2.0, 3.0]])["prediction"] == [[4.0, 8.0, 12.0]]
    assert model.predict([[1.0, 2.0, 3.0]], entry="encode")["prediction"] == [[2.0, 4.0, 6.0]]
    assert model.save() == "vae@1"
    assert model.predict([[1.0, 2.0, 3.0]], entry="encode")["prediction"] == [[2.0, 4.0, 6.0]]
    assert model.summary_status().reset_index()["Status"].tolist() == ["Done"] * 8 + ["UNKNOWN", "Done"]
    assert model.upload_artifact(str(tmp_path / "vae.zip")) == tmp_path / "vae.zip"
    with zipfile.ZipFile(tmp_path / "vae.zip") as file:
        assert "components/encoder/forward.pt2" in file.namelist()
    model.update(display_name="A VAE", freeform_tags={"a": 1}).delete()
    with pytest.raises(NotFound):
        catalog.version("vae")


def test_what_cannot_be_done_is_said(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="takes objects of sklearn, not a Two"):
        SklearnModel(Two(), catalog=catalog).prepare()
    for kind in (XGBoostModel, LightGBMModel):
        with pytest.raises(InvalidInput, match="takes objects of"):
            kind(Two(), catalog=catalog).prepare()
    model = PyTorchModel(Two(), tmp_path / "out", catalog=catalog)
    with pytest.raises(InvalidInput, match="prepare"):
        model.save()
    model.prepare()
    rows = model.summary_status().reset_index().set_index("Details")
    assert rows.loc["Generated score.py", "Status"] == "Needs Action"
    with pytest.raises(InvalidInput, match=r"no score\.py: .* no entry points"):
        model.verify([1])
    with pytest.raises(MissingPlugin, match="follows with the deployers"):
        model.deploy()
    with pytest.raises(InvalidInput, match="as_onnx takes one estimator and a sample"):
        model.prepare(as_onnx=True)
    with pytest.raises(InvalidInput, match="an id of OCI"):
        PyTorchModel.from_id("ocid1.datasciencemodel.oc1..a", catalog=catalog)
    with pytest.raises(InvalidInput, match="16,000"):
        model.metadata_custom.add("long", "x" * 16_001)
    with pytest.raises(InvalidInput, match="Performance"):
        model.metadata_custom.add("odd", "x", category="Speed")
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "score.py").write_text("mine")
    with pytest.raises(InvalidInput, match="exists already"):
        model.prepare(X_sample=np.ones((2, 3), "f4"))
    model.prepare(X_sample=np.ones((2, 3), "f4"), force_overwrite=True)
    model.close()


def test_a_model_that_fails_is_not_verified(catalog: Catalog, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "score.py").write_text(
        "import nothing_here\ndef load_model(): ...\ndef predict(data, model=load_model()): ...\n"
    )
    model = GenericModel(artifact_dir=own, serialize=False, catalog=catalog, name="own").prepare()
    with pytest.raises(VerificationFailed, match="nothing_here"):
        model.verify([1])
    with pytest.raises(VerificationFailed):
        model.save()


def test_an_artifact_of_somebody_else_runs_with_trust_only(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    canary = tmp_path / "canary"
    (folder / "score.py").write_text(
        f"open({str(canary)!r}, 'w')\ndef load_model(): return 2\n"
        "def predict(data, model=load_model()): return {'prediction': [model * x for x in data['data']]}\n"
    )
    (folder / "runtime.yaml").write_text("MODEL_ARTIFACT_VERSION: '3.0'\n")
    model = GenericModel.from_model_artifact(folder, artifact_dir=tmp_path / "out", catalog=catalog)
    assert model.estimator is None
    model.metadata_taxonomy["UseCaseType"].value = "regression"
    ref = model.save(ignore_introspection=True)
    assert catalog.version(ref).taxonomy == {"use_case": "regression"}
    for kind in (model, GenericModel.from_model_catalog(ref, artifact_dir=tmp_path / "again", catalog=catalog)):
        with pytest.raises(NotTrusted):
            kind.predict([1, 2])
        kind.verify()
    assert not canary.exists()
    trusted = GenericModel.from_model_catalog(ref, artifact_dir=tmp_path / "more", catalog=catalog, trust=True)
    assert trusted.predict([1, 2], auto_serialize_data=True) == {"prediction": [2, 4]}
    assert canary.exists()


@pytest.mark.parametrize("unsafe", [False, True])
def test_the_model_of_somebody_elses_artifact_runs_without_its_code(
    catalog: Catalog, tmp_path: Path, unsafe: bool
) -> None:
    """One of a safe format, or a pickle that somebody has converted."""
    import joblib
    import skops.io
    from sklearn.linear_model import LinearRegression

    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "score.py").write_text("def load_model(): 1 / 0\ndef predict(data, model=load_model()): ...\n")
    (folder / "runtime.yaml").write_text("MODEL_ARTIFACT_VERSION: '3.0'\n")
    rows = np.random.default_rng(0).random((20, 3))
    estimator = LinearRegression().fit(rows, rows.sum(1))
    if unsafe:
        joblib.dump(estimator, folder / "model.joblib")
        assert SklearnModel.from_model_artifact(folder, catalog=catalog).estimator is None
    else:
        skops.io.dump(estimator, folder / "model.skops")
    model = SklearnModel.from_model_artifact(folder, artifact_dir=tmp_path / "out", catalog=catalog, unsafe=unsafe)
    assert type(model.estimator) is LinearRegression and model.algorithm == "LinearRegression"
    ref = model.save(ignore_introspection=True)
    assert {"scan.json", "ads/runtime.yaml"} <= set(catalog.version(ref).attachments)
    assert catalog.search("framework = 'sklearn'")[0].ref == ref
    np.testing.assert_allclose(model.predict(rows)["prediction"], rows.sum(1))
    with pytest.raises(NotTrusted):
        model.predict(rows, entry="score")
    model.close()


def test_the_taxonomy_may_change_until_it_is_saved(catalog: Catalog, tmp_path: Path) -> None:
    model = PyTorchModel(Two(), tmp_path / "out", catalog=catalog, name="two").prepare(X_sample=np.ones((2, 3), "f4"))
    assert model.metadata_taxonomy["Algorithm"].value == "Two" and model.framework == "pytorch"
    model.metadata_taxonomy["UseCaseType"].value = "fast_simulation"
    model.upload_artifact(str(tmp_path / "two.zip"))
    version = catalog.version(model.save())
    assert version.taxonomy == version.manifest.taxonomy == {"use_case": "fast_simulation"}
    assert model.metadata_provenance.artifact_dir == str(tmp_path / "out")
    loaded = PyTorchModel.from_model_artifact(tmp_path / "two.zip", artifact_dir=tmp_path / "in", catalog=catalog)
    assert loaded.save() == "two@2"
    assert catalog.version("two@2").manifest.components == version.manifest.components


def test_a_folder_is_prepared_again_without_what_was_written_into_it(catalog: Catalog, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    score = "def load_model(): return 2\ndef predict(data, model=load_model()): return {'prediction': data * model}\n"
    (own / "score.py").write_text(score)
    refs = []
    for env in ("oci://packs@space/one", "oci://packs@space/two"):
        for use_case in ("regression", "trigger"):
            model = GenericModel(artifact_dir=own, serialize=False, catalog=catalog, name="own").prepare(env, "3.11")
            model.metadata_taxonomy["UseCaseType"].value = use_case
            refs.append(model.save())
            assert model.runtime_info.model_deployment.inference_conda_env.inference_env_path == env
            assert catalog.version(refs[-1]).taxonomy == {"use_case": use_case}
    kept = [catalog.version(ref).manifest.components for ref in refs]
    assert [file.name for file in kept[0][0].files] == ["score.py"] and kept.count(kept[0]) == 4
    assert model.predict(3) == {"prediction": 6}
    (own / "score.py").write_text("def load_model(): ...\ndef predict(x, model): ...\n")
    with pytest.raises(InvalidInput, match="fails score_predict_arg, score_predict_data"):
        GenericModel(artifact_dir=own, serialize=False, catalog=catalog).prepare()


@pytest.mark.parametrize("by_name", [False, True], ids=["as_onnx", "serializer"])
def test_a_model_becomes_a_graph(catalog: Catalog, tmp_path: Path, by_name: bool) -> None:
    """`prepare(as_onnx=True)`, and the name of ADS's serializer."""
    pytest.importorskip("onnxscript")
    skl2onnx = pytest.importorskip("skl2onnx")
    assert skl2onnx
    from sklearn.linear_model import LinearRegression

    rows = np.random.default_rng(0).random((20, 3)).astype("f4")
    estimator = LinearRegression().fit(rows, rows.sum(1))
    how: dict[str, Any] = {"model_save_serializer": "onnx"} if by_name else {}
    for kind, given, wanted in (
        (SklearnModel, estimator, estimator.predict(rows)[:, None]),
        (PyTorchModel, Two(), rows * 2),
    ):
        model = kind(given, tmp_path / kind.__name__, catalog=catalog, name=kind.__name__, **how)
        model.prepare(as_onnx=not by_name, X_sample=rows)
        np.testing.assert_allclose(model.verify(rows)["prediction"], wanted, rtol=1e-4)
        version = catalog.version(model.save())
        assert [part.serializer for part in version.manifest.components] == ["onnx"]
        np.testing.assert_allclose(model.predict(rows)["prediction"], wanted, rtol=1e-4)
        model.close()


# what `GenericModel` of ADS has (`ads/model/generic_model.py`), less its internals
PUBLIC = """algorithm delete delete_deployment deploy download_artifact evaluate framework from_id from_model_artifact
from_model_catalog from_model_deployment get_data_serializer get_model_serializer hyperparameter introspect
metadata_custom metadata_provenance metadata_taxonomy model_deployment model_deployment_id model_id populate_metadata
populate_schema predict prepare prepare_save_deploy properties reload reload_runtime_info restart_deployment
runtime_info save schema_input schema_output serialize_model set_model_input_serializer set_model_save_serializer
summary_status update update_deployment update_summary_action update_summary_status upload_artifact verify version"""


def test_every_word_of_ads_is_there_or_says_what_to_do(catalog: Catalog, tmp_path: Path) -> None:
    model = PyTorchModel(Two(), tmp_path / "out", catalog=catalog, name="two").prepare(X_sample=np.ones((2, 3), "f4"))
    for name in PUBLIC.split():
        getattr(model, name)
    refused = {
        "deploy": "deployers", "prepare_save_deploy": "deployers", "update_deployment": "deployers",
        "restart_deployment": "deployers", "delete_deployment": "deployers", "from_model_deployment": "deployers",
        "evaluate": "metadata_custom.add", "get_model_serializer": "the catalog finds", "get_data_serializer": "JSON",
        "serialize_model": "when it is prepared",
    }  # fmt: skip
    for name, match in refused.items():
        for owner in (model, PyTorchModel):  # ADS has some of them for the class
            with pytest.raises((InvalidInput, MissingPlugin), match=match) as caught:
                getattr(owner, name)("ocid1.x", display_name="x")
            assert caught.value.hint and "\n" not in str(caught.value)
    with pytest.raises(InvalidInput, match="an object is not used to save or send"):
        model.set_model_save_serializer(object())
    model.set_model_input_serializer("json")
    model.populate_metadata(use_case_type="regression", X_sample=np.ones((2, 3), "f4"))
    model.update_summary_status("Deployed the model", "Done")
    model.update_summary_action("Deployed the model", "by hand")
    assert model.summary_status().loc[("deploy()", "Done", "Deployed the model"), "Actions Needed"] == "by hand"
    with pytest.raises(NotFound, match=r"did you mean Generated score\.py"):
        model.update_summary_status("Generated score.pi", "Done")
    tests = model.metadata_taxonomy["ArtifactTestResults"].value
    assert tests["runtime_env_python"]["value"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert catalog.version(model.reload().save()).taxonomy == {"use_case": "regression"}
    assert model.predict([[1.0, 2.0, 3.0]]) == model.reload().predict([[1.0, 2.0, 3.0]])
    model.close()
    with pytest.raises(ImportError, match="catalog_ads has no DataScienceModel: Catalog"):
        from catalog_ads import DataScienceModel  # noqa: F401
