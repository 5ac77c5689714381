"""What another tool's manifest says of how a model is called, which version is served, and what it was trained with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
pytest.importorskip("sklearn")
onnx = pytest.importorskip("onnx")
pandas = pytest.importorskip("pandas")

import skops.io  # noqa: E402
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import CatalogError, NotFound, SerializationError  # noqa: E402

X = np.random.default_rng(0).random((20, 3))
Y = (X[:, 0] > 0.5).astype(int)
TABLE = pandas.DataFrame({"city": ["a", "b"] * 10, "area": X[:, 0], "rooms": np.arange(20)})
SKLEARN = """flavors:
  python_function: {{loader_module: mlflow.sklearn, model_path: model.skops, predict_fn: {fn}, python_version: 3.11.7}}
  sklearn: {{code: null, pickled_model: model.skops, serialization_format: skops, sklearn_version: 1.9.1}}
mlflow_version: 3.17.2
saved_input_example_info: {{artifact_path: input_example.json, type: {kind}}}
signature:
  inputs: '{inputs}'
  params: null
"""
NUMBERS = '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]'
COLUMNS = (
    '[{"type": "string", "name": "city", "required": true}, {"type": "double", "name": "area", "required": true},'
    ' {"type": "long", "name": "rooms", "required": true}]'
)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "catalog") as made:
        yield made


def mlflow(folder: Path, model: Any, example: str | None, **told: str) -> Path:
    """A folder as `mlflow.sklearn.save_model` of 3.17 writes it."""
    folder.mkdir()
    skops.io.dump(model, folder / "model.skops")
    (folder / "MLmodel").write_text(SKLEARN.format(**told))
    if example is not None:
        (folder / "input_example.json").write_text(example)
    return folder


def test_mlflow_says_which_method_its_predict_calls(catalog: Catalog, tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y)
    told = {"kind": "ndarray", "inputs": NUMBERS}
    folder = mlflow(tmp_path / "m", model, json.dumps(X[:3].tolist()), fn="predict_proba", **told)
    (version,) = catalog.import_(folder, "m")
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(X[:5]), model.predict_proba(X[:5]))
    labels = mlflow(tmp_path / "labels", model, json.dumps(X[:3].tolist()), fn="predict", **told)
    (version,) = catalog.import_(labels, "labels")
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(X[:5]), model.predict(X[:5]))
    assert version.verify().passed


@pytest.mark.parametrize("kept", [True, False], ids=["example", "signature only"])
def test_a_table_with_texts_is_an_example(catalog: Catalog, tmp_path: Path, kept: bool) -> None:
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city"]), (StandardScaler(), ["area", "rooms"])
    )
    model = make_pipeline(columns, LogisticRegression()).fit(TABLE, Y)
    rows = json.dumps(TABLE.head(3).to_dict("split", index=False)) if kept else None
    folder = mlflow(tmp_path / "m", model, rows, fn="predict", kind="dataframe", inputs=COLUMNS)
    (version,) = catalog.import_(folder, "m")
    (point,) = version.manifest.entry_points
    assert [spec.name for spec in point.inputs] == ["city", "area", "rooms"]
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(TABLE), model.predict(TABLE))


@pytest.mark.parametrize("kept", [True, False], ids=["example", "signature only"])
def test_columns_of_numbers_keep_their_names_and_their_order(catalog: Catalog, tmp_path: Path, kept: bool) -> None:
    data = TABLE[["area", "rooms"]]
    model = LogisticRegression().fit(data, Y)
    rows = json.dumps(data.head(3).to_dict("split", index=False)) if kept else None
    columns = f"[{COLUMNS.partition(', {')[2].join(['{', ''])}"
    folder = mlflow(tmp_path / "m", model, rows, fn="predict", kind="dataframe", inputs=columns)
    (version,) = catalog.import_(folder, "m")
    assert [spec.name for spec in version.manifest.entry_points[0].inputs] == ["area", "rooms"]
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(data[["rooms", "area"]]), model.predict(data))


def added(number: float) -> bytes:
    """A graph that adds a number."""
    spec = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    constant = onnx.numpy_helper.from_array(np.float32(number), "c")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "c"], ["y"])], "g", spec[:1], spec[1:], [constant]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def triton(folder: Path, policy: str) -> Path:
    for version in (1, 2, 10):
        (folder / str(version)).mkdir(parents=True)
        (folder / str(version) / "model.onnx").write_bytes(added(version))
    (folder / "config.pbtxt").write_text(f'name: "adds"\nplatform: "onnxruntime_onnx"\n{policy}\n')
    return folder


@pytest.mark.parametrize(
    ("policy", "numbers"),
    [
        ("", [10]),
        ("version_policy: { latest: { num_versions: 2 }}", [2, 10]),
        ("version_policy: { all: { }}", [1, 2, 10]),
        ("version_policy: { specific: { versions: [1, 2] }}", [1, 2]),
        ("version_policy { specific { versions: 1 } }", [1]),
    ],
)
def test_triton_says_which_versions_are_served(
    catalog: Catalog, tmp_path: Path, policy: str, numbers: list[int]
) -> None:
    versions = catalog.import_(triton(tmp_path / "adds", policy))
    assert [version.manifest.provenance["imported"]["version"] for version in versions] == numbers
    assert [version.ref for version in versions] == [f"adds@{at}" for at in range(1, len(numbers) + 1)]
    for version, number in zip(versions, numbers, strict=True):
        (component,) = [part for part in version.manifest.components if part.serializer == "onnx"]
        reader = version.artifact.reader(component)
        assert [bytes(reader.view(file)) for file in reader.files] == [added(number)]


def test_nothing_is_published_where_one_of_several_versions_is_broken(catalog: Catalog, tmp_path: Path) -> None:
    folder = triton(tmp_path / "adds", "version_policy: { all: { }}")
    (folder / "10" / "model.onnx").write_bytes(added(10)[:-20])
    with pytest.raises(CatalogError):
        catalog.import_(folder)
    assert not catalog.models()


def test_a_version_of_triton_that_is_not_there_is_said(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="serves the versions 7, of which none is there"):
        catalog.import_(triton(tmp_path / "adds", "version_policy: { specific: { versions: [7] }}"))


def test_bentoml_says_which_methods_are_called_and_nested_metadata_is_kept(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "calo"
    folder.mkdir()
    model = LogisticRegression().fit(X, Y)
    skops.io.dump(model, folder / "saved_model.skops")
    (folder / "model.yaml").write_text(
        "name: calo\nversion: i4uywhhndogpcax4\nmodule: bentoml.sklearn\nlabels: {stage: dev}\noptions: {}\n"
        "metadata: {train: {lr: 0.1, opt: {name: adam}}, acc: 0.5}\ncontext: {framework_name: sklearn}\n"
        "signatures:\n  predict_proba: {batchable: true, batch_dim: [0, 0]}\napi_version: v1\n"
    )
    (version,) = catalog.import_(folder, example=X[:3])
    params = {key: version.params[key] for key in ("train.lr", "train.opt.name", "acc")}
    assert params == {"train.lr": 0.1, "train.opt.name": "adam", "acc": 0.5}
    assert [found.ref for found in catalog.search('params.train.opt.name = "adam"')] == [version.ref]
    assert "predict_proba" in version.summary["entry_points"]
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(X[:5]), model.predict_proba(X[:5]))


def weights(path: Path) -> None:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.arange(4, dtype=np.float32)}, path)


def test_nested_configurations_of_a_hub_are_searched(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    weights(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": {"hidden_size": 512}}))
    (folder / "generation_config.json").write_text('{"max_new_tokens": 20}')
    (version,) = catalog.import_(folder, "hub")
    found = {"text_config.hidden_size": 512, "generation.max_new_tokens": 20, "model_type": "clip"}
    assert {key: version.params[key] for key in found} == found
    assert len(catalog.search("params.text_config.hidden_size > 500")) == 1


def test_adapters_and_pipelines_of_parts_are_known(catalog: Catalog, tmp_path: Path) -> None:
    adapter, pipeline = tmp_path / "lora", tmp_path / "sd"
    weights(adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8, "base_model_name_or_path": "gpt2"}')
    for part in ("unet", "vae"):
        weights(pipeline / part / "diffusion_pytorch_model.safetensors")
        (pipeline / part / "config.json").write_text(json.dumps({"in_channels": len(part)}))
    (pipeline / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (lora,), (diffusion,) = catalog.import_(adapter), catalog.import_(pipeline)
    assert lora.params["adapter.r"] == 8 and lora.tags["base_model"] == "gpt2" and lora.tags["peft_type"] == "LORA"
    assert diffusion.tags["library_name"] == "diffusers" and diffusion.params["unet.in_channels"] == 4
    assert {"unet", "vae"} <= set(diffusion.summary["components"])


POINTERS = {
    "model.safetensors": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "model.onnx": ("/annex/objects/SHA256E-s9--0.onnx\n", "git annex get"),
}


@pytest.mark.parametrize("name", POINTERS)
def test_what_stands_for_a_file_that_is_elsewhere_is_said(catalog: Catalog, tmp_path: Path, name: str) -> None:
    text, remedy = POINTERS[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(text)
    (tmp_path / "in" / "config.json").write_text("{}")
    for place in (tmp_path / "in", tmp_path / "in" / name):
        with pytest.raises(SerializationError) as caught:
            catalog.import_(place)
        assert remedy in str(caught.value)
    assert not catalog.models()


def test_a_pointer_of_dvc_is_said(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "model.pkl.dvc").write_text("outs:\n- md5: 0\n  size: 9\n  path: model.pkl\n")
    with pytest.raises(SerializationError, match="dvc pull"):
        catalog.import_(tmp_path / "model.pkl.dvc")


def test_a_folder_of_models_names_them(catalog: Catalog, tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / "store" / "models" / "calo" / f"v{number}"
        folder.mkdir(parents=True)
        (folder / "model.yaml").write_text("name: calo\nmodule: bentoml.sklearn\n")
    with pytest.raises(NotFound, match=r"holds models/calo/v1 \(bentoml\), models/calo/v2 \(bentoml\)"):
        catalog.import_(tmp_path / "store")


@pytest.mark.parametrize("name", ["model.pkl", "weights.pt", "forest.joblib"])
def test_a_model_that_is_kept_as_bytes_says_how_to_read_it(catalog: Catalog, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.warns(UserWarning, match=f"{name} is kept as bytes.*catalog import {name}"):
        catalog.save("m", tmp_path / name)
