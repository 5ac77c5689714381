"""Models of torch, scikit-learn and ONNX in the files that those programs write: imported, loaded, run, verified."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from tolerance import close  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import NotTrusted, SerializationError  # noqa: E402

X = np.random.default_rng(0).random((20, 3))
Y = (X[:, 0] > 0.5).astype(int)


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.chdir(tmp_path)
    with Catalog.open(tmp_path / "catalog") as made:
        yield made


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.register_buffer("scale", torch.full((2,), 3.0))
        self.constant = torch.ones(2)

    def forward(self, x: Any, *, shift: Any) -> Any:
        return self.linear(x) * self.scale + shift + self.constant


@pytest.fixture
def net() -> Any:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def program(net: Any, tmp_path: Path) -> Path:
    batch = torch.export.Dim("batch")
    exported = torch.export.export(
        net, (torch.ones(4, 3),), {"shift": torch.ones(4, 2)}, dynamic_shapes={"x": {0: batch}, "shift": {0: batch}}
    )
    torch.export.save(exported, tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def test_a_pt2_that_torch_wrote_runs_without_its_class(catalog: Catalog, net: Any, program: Path, caplog: Any) -> None:
    (version,) = catalog.import_(program)
    x, shift = torch.rand(7, 3), torch.rand(7, 2)
    loaded = catalog.load(version.ref)
    close(loaded(x=x, shift=shift), net(x, shift=shift))
    assert set(loaded.state_dict()) == set(net.state_dict())
    with catalog.session(version.ref) as session:
        outputs = session.run("predict", {"x": x, "shift": shift})
    assert np.allclose(next(iter(outputs.values())), net(x, shift=shift).detach().numpy())
    assert version.summary["entry_points"] == ["predict"] and version.verify().passed
    assert "its sample inputs, a pickle, were left behind" in caplog.text


def test_pickles_in_a_pt2_are_never_read(catalog: Catalog, program: Path, tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    with zipfile.ZipFile(program) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    table = "net/data/weights/model_weights_config.json"
    for name, change in (
        ("net/data/sample_inputs/model.pt", lambda data: pickle.dumps(Canary())),
        (table, lambda data: data.replace(b'"use_pickle": false', b'"use_pickle": true')),
        (table, lambda data: data.replace(b'"weight_0"', b'"../../weight_0"')),
        (table, lambda data: data.replace(b'{"as_int": 3}', b'{"as_int": 3000000000}')),
        ("net/models/model.json", lambda data: data.replace(b"torch.ops.aten.linear.default", b"os.system")),
    ):
        with zipfile.ZipFile(tmp_path / "evil.pt2", "w") as archive:
            for key, data in members.items():
                changed = change(data) if key == name else data
                assert key != name or changed != data
                archive.writestr(key, changed)
        try:
            (version,) = catalog.import_(tmp_path / "evil.pt2")
        except (NotTrusted, SerializationError) as exc:
            assert "\n" not in str(exc)
        else:  # read without it, or kept as it is
            assert version.summary["components"] == {"model": "torch" if "sample" in name else "files"}
        assert not (tmp_path / "canary").exists()


def test_state_dicts_and_checkpoints_become_safetensors(catalog: Catalog, net: Any, tmp_path: Path) -> None:
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3), shift=torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save(net.state_dict(), tmp_path / "state.pt")
    torch.save(net.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "run.ckpt")
    for name in ("state.pt", "old.pt", "run.ckpt"):
        with pytest.raises(NotTrusted, match="a pickle"):
            catalog.import_(tmp_path / name)
        (version,) = catalog.import_(tmp_path / name, unsafe=True)
        assert version.summary["components"] == {"model": "safetensors"}
        loaded = catalog.load(version.ref)
        state = loaded.get("model", loaded)
        assert all(torch.equal(state[key], value) for key, value in net.state_dict().items()) and len(state) == 3
    assert loaded["epoch"] == 3
    torch.optim.Adam(net.parameters()).load_state_dict(loaded["optimizer"])


def test_a_pickled_module_leaves_its_code_behind(catalog: Catalog, tmp_path: Path, caplog: Any) -> None:
    linear = torch.nn.Linear(3, 2)
    torch.save(linear, tmp_path / "module.pth")
    torch.jit.script(linear).save(str(tmp_path / "script.pt"))
    for name in ("module.pth", "script.pt"):
        (version,) = catalog.import_(tmp_path / name, unsafe=True)
        assert torch.equal(catalog.load(version.ref)["weight"], linear.weight)
    assert "a Linear became its state dict; its code stayed behind" in caplog.text


def estimators(tmp_path: Path) -> dict[str, Any]:
    import joblib
    import lightgbm
    import skops.io
    import xgboost
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    forest = xgboost.XGBClassifier(n_estimators=3).fit(X, Y)
    trees = lightgbm.train({"verbose": -1}, lightgbm.Dataset(X, Y), 2)
    joblib.dump(pipeline, tmp_path / "packed.joblib", compress=3)
    (tmp_path / "forest.pkl").write_bytes(pickle.dumps(forest))
    (tmp_path / "trees.pkl").write_bytes(pickle.dumps(trees))
    skops.io.dump(pipeline, tmp_path / "pipeline.skops")
    forest.get_booster().save_model(tmp_path / "forest.ubj")
    trees.save_model(tmp_path / "trees.lgb")
    return {"pipeline": pipeline, "packed": pipeline, "forest": forest, "trees": trees}


def test_estimators_come_in_by_every_door(catalog: Catalog, tmp_path: Path) -> None:
    import xgboost

    live = estimators(tmp_path)
    for path in sorted(tmp_path.glob("*.*")):
        unsafe = path.suffix in (".pkl", ".joblib")
        if unsafe:
            with pytest.raises(NotTrusted, match=r"--unsafe"):
                catalog.import_(path)
        (version,) = catalog.import_(path, unsafe=unsafe)
        assert version.summary["components"] == {"model": "sklearn"}
        loaded, wanted = catalog.load(version.ref), live[path.stem]
        if path.suffix == ".ubj":
            assert np.allclose(loaded.predict(xgboost.DMatrix(X)), wanted.predict_proba(X)[:, 1])
        else:
            assert np.array_equal(loaded.predict(X), wanted.predict(X)), path.name


def mlflow_sklearn(tmp_path: Path, pipeline: Any) -> Path:
    """As `mlflow.sklearn.save_model` writes it by cloudpickle (3.17)."""
    folder = tmp_path / "higgs"
    folder.mkdir()
    (folder / "model.pkl").write_bytes(pickle.dumps(pipeline))
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    model_path: model.pkl\n"
        "    predict_fn: predict\n    python_version: 3.11.7\n  sklearn:\n    code: null\n"
        "    pickled_model: model.pkl\n    serialization_format: cloudpickle\n    sklearn_version: 1.9.1\n"
        "mlflow_version: 3.17.2\nmodel_uuid: 803328d6c07f47769705038285861e07\n"
        "utc_time_created: '2026-11-25 15:10:06.544247'\n"
    )
    (folder / "conda.yaml").write_text("channels:\n- conda-forge\n")
    return folder


def test_an_mlflow_estimator_runs_after_conversion(catalog: Catalog, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    live = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    folder = mlflow_sklearn(tmp_path, live)
    with pytest.raises(NotTrusted, match=r"model.pkl is a pickle"):
        catalog.import_(folder)
    (version,) = catalog.import_(folder, unsafe=True)
    assert version.ref == "higgs@1" and version.summary["framework"] == "sklearn"
    assert np.array_equal(catalog.load("higgs").predict(X), live.predict(X))
    told = catalog.artifact(version).manifest.provenance["imported"]
    assert told["versions"] == {"sklearn_version": "1.9.1", "python_version": "3.11.7"}
    assert told["converted"]["model.pkl"]["was"] == "sklearn.pipeline.Pipeline"


@pytest.mark.parametrize("kind", ["dataframe", "serving", "tensor", "columns", "odd"])
def test_an_mlflow_example_is_run_and_verified(catalog: Catalog, tmp_path: Path, kind: str, caplog: Any) -> None:
    from sklearn.linear_model import LogisticRegression

    live = LogisticRegression().fit(X, Y)
    folder = mlflow_sklearn(tmp_path, live)
    names = ["a", "b", "c"]
    assert X.shape[1] == 3
    table = {"columns": names, "data": X[:4].tolist()}
    examples = {"dataframe": table, "serving": {"inputs": X[:4].tolist()}, "odd": {"columns": ["a"], "data": [[1.0]]}}
    columns = [{"type": "double", "name": name, "required": True} for name in names]
    inputs = (
        [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}] if kind == "tensor" else columns
    )
    told = {"inputs": json.dumps(inputs), "outputs": "[]", "params": None}
    text = (folder / "MLmodel").read_text() + f"signature: {json.dumps(told)}\n"
    if kind in examples:
        (folder / "input_example.json").write_text(json.dumps(examples[kind]))
        text += "saved_input_example_info: {artifact_path: input_example.json, type: dataframe, pandas_orient: split}\n"
    (folder / "MLmodel").write_text(text)
    (version,) = catalog.import_(folder, unsafe=True)
    (point,) = version.manifest.entry_points
    assert (version.attachments.keys() >= {"input_example.json"}) == (kind in examples)
    if kind == "odd":
        assert "its example does not run, and is left out: " in caplog.text and point.inputs == ()
        return
    assert [(spec.dtype, spec.shape[1:]) for spec in point.inputs] == [("float64", (3,))]
    report = version.verify()
    assert report.passed and "skipped" not in {check.result for check in report.checks if check.id.startswith("run")}
    assert np.array_equal(catalog.session(version).predict(X), live.predict(X))
    assert ("its example is of zeros, by the signature" in caplog.text) == (kind not in examples)


@pytest.mark.parametrize("kind", ["XGBClassifier", "XGBRFClassifier", "XGBRegressor"])
def test_an_mlflow_estimator_of_xgboost_stays_one(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    """As `mlflow.xgboost.save_model` writes it: a booster would give other numbers, and say nothing."""
    import xgboost

    live = getattr(xgboost, kind)(n_estimators=2).fit(X, Y)
    folder = tmp_path / "higgs"
    folder.mkdir()
    live.save_model(folder / "model.ubj")
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    data: model.ubj\n    loader_module: mlflow.xgboost\n  xgboost:\n"
        f"    data: model.ubj\n    model_class: xgboost.sklearn.{kind}\n    model_format: ubj\n    xgb_version: 3.2.0\n"
        "saved_input_example_info: {artifact_path: input_example.json, type: ndarray, format: tf-serving}\n"
    )
    (folder / "input_example.json").write_text(json.dumps(X[:4].tolist()))  # of an array: no names, no columns
    (version,) = catalog.import_(folder)
    loaded = catalog.load(version)
    assert type(loaded).__name__ == kind and np.array_equal(loaded.predict(X), live.predict(X))
    assert version.verify().passed
    stored = catalog.artifact(version).example()
    assert stored is not None and np.array_equal(stored[0]["X"], X[:4])
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(X), live.predict(X))


@pytest.mark.parametrize("suffix", [".ubj", ".json"])
def test_a_file_of_an_estimator_of_xgboost_becomes_one(catalog: Catalog, tmp_path: Path, suffix: str) -> None:
    import xgboost

    live = xgboost.XGBClassifier(n_estimators=2).fit(X, Y)
    live.save_model(tmp_path / f"forest{suffix}")
    (version,) = catalog.import_(tmp_path / f"forest{suffix}", format="file")
    assert np.array_equal(catalog.load(version).predict(X), live.predict(X))


def graph(folder: Path, location: str | None = None) -> Any:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 2])], [weights],
        ),
        ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)],
    )  # fmt: skip
    if location is not None:
        (folder / "weights.bin").write_bytes(weights.raw_data)
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    return made.SerializeToString()


def test_a_triton_repository_with_onnx_runs(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "calo" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph(folder, "weights.bin"))
    (folder.parent / "config.pbtxt").write_text('name: "calo"\nplatform: "onnxruntime_onnx"\n')
    (version,) = catalog.import_(folder.parent)
    assert version.summary["components"] == {"files": "files", "model": "onnx"}
    assert [spec.name for spec in version.manifest.entry_points[0].inputs] == ["x"]  # the graph says so
    config = 'name: "calo"\nmax_batch_size: 8\ninput { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }\n'
    (folder.parent / "config.pbtxt").write_text(config)
    (described,) = catalog.import_(folder.parent)
    ((spec,),) = [point.inputs for point in described.manifest.entry_points]
    assert (spec.name, spec.dtype, spec.shape[1]) == ("x", "float32", 3) and described.verify().passed
    x = np.ones((2, 3), np.float32)
    assert np.array_equal(catalog.load("calo", "model").run(x=x)["y"], x @ np.arange(6, dtype=np.float32).reshape(3, 2))


def test_an_onnx_file_stays_inside(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "plain.onnx").write_bytes(graph(tmp_path))
    (version,) = catalog.import_(tmp_path / "plain.onnx")
    assert version.summary["entry_points"] == ["predict"] and version.verify().passed
    for location in ("../weights.bin", "/etc/passwd", "absent.bin"):
        (tmp_path / "evil.onnx").write_bytes(graph(tmp_path, location))
        with pytest.raises(SerializationError, match="it wants its data from"):
            catalog.import_(tmp_path / "evil.onnx")


@pytest.mark.parametrize("place", [None, "linear.data", "weights/w.bin"])
def test_an_onnx_file_runs_with_the_data_beside_it(place: str | None, catalog: Catalog, tmp_path: Path) -> None:
    """Its inputs are those of the graph, and its example is of zeros; nobody has to import the folder."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    w = np.arange(1200, dtype=np.float32).reshape(4, 300)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [helper.make_tensor_value_info("x", kind, ["n", 4])],
        [helper.make_tensor_value_info("y", kind, ["n", 300])], [onnx.numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if place:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        onnx.save(made, tmp_path / "net.onnx", save_as_external_data=True, location=place, size_threshold=10)
    else:
        onnx.save(made, tmp_path / "net.onnx")
    (tmp_path / "other.onnx").write_bytes(b"left alone")
    (version,) = catalog.import_(tmp_path / "net.onnx", "m")
    assert set(version.summary["components"]) == {"model"}
    (point,) = version.manifest.entry_points
    assert [(spec.name, spec.dtype, spec.shape) for spec in point.inputs] == [("x", "float32", ("n", 4))]
    x = np.ones((3, 4), np.float32)
    with catalog.session(version) as session:
        close(session.predict(x), x @ w)
    assert version.verify().passed


def test_an_onnx_file_takes_no_data_from_elsewhere(catalog: Catalog, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    w = onnx.numpy_helper.from_array(np.ones((4, 300), np.float32), "w")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 300])], [w])  # fmt: skip
    folder, secret = tmp_path / "in", tmp_path / "secret"
    folder.mkdir()
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(made, folder / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=10)
    (folder / "w.bin").rename(secret)
    with pytest.raises(SerializationError, match="which is not beside it"):
        catalog.import_(folder / "net.onnx", "m")
    (folder / "w.bin").symlink_to(secret)
    with pytest.raises(SerializationError, match="which is not beside it"):
        catalog.import_(folder / "net.onnx", "m")
