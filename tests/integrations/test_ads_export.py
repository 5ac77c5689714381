"""Versions become artifacts of ADS whose `score.py` runs where only the framework is, and come back."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catalog_ads import introspection  # noqa: E402
from catalog_ads.archive import write_manifest  # noqa: E402
from catalog_ads.fresh import answers  # noqa: E402
from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, NotTrusted, SerializationError  # noqa: E402

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"file://{tmp_path}/catalog") as opened:
        yield opened


class Generator(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(5, 27), torch.nn.ReLU())

    def forward(self, latent: Any, energy: Any) -> Any:
        return (self.net(latent) * energy).reshape(-1, 3, 3, 3)


class Discriminator(torch.nn.Module):
    """Three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = torch.nn.Conv3d(1, 2, 2), torch.nn.Linear(16, 2)

    def forward(self, shower: Any) -> Any:
        hidden = self.head(self.conv(shower[:, None]).flatten(1))
        return {"validity": hidden[:, 0].sigmoid(), "energy": hidden[:, 1], "sum": shower.sum((1, 2, 3))}

    def features(self, shower: Any) -> Any:
        return self.conv(shower[:, None]).flatten(1)


class Sampling(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        mean = self.mean(x)
        return mean + torch.randn_like(mean), mean


class Half(torch.nn.Module):
    """What NumPy and ADS cannot name, tied weights, and a name that is no ASCII."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (torch.nn.Linear(3, 3, dtype=torch.bfloat16) for _ in range(2))
        self.two.weight = self.one.weight

    def forward(self, énergie: Any) -> Any:
        return {"größe": self.two(self.one(énergie)), "i": énergie.to(torch.complex64)}


def exported(catalog: Catalog, ref: Any, folder: Path) -> Path:
    """Export, and hold the checks of ADS and the manifest against what came."""
    made = catalog.export(ref, folder, format="ads")
    results = {check.id: check.result for check in introspection.introspect(folder)}
    assert results.pop("runtime_path_exist") == "skipped"
    assert set(results.values()) == {"passed"}, results
    told = json.loads((folder / "model_artifact_manifest.json").read_text())
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert told["version"] == 1 and set(told["files"]) == there - {"model_artifact_manifest.json"}
    assert isinstance(made, Path)
    return made


def same_components(one: Any, two: Any) -> bool:
    """Whether the files, serializers and notes of all components are the same."""
    return bool(one.manifest.components == two.manifest.components)


def test_a_gan_is_called_network_by_network_and_comes_back(catalog: Catalog, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator, discriminator = Generator(), Discriminator()
    example = {"latent": np.ones((2, 5), "f4"), "energy": np.full((2, 1), 2.0, "f4")}
    shower = generator(*map(torch.tensor, example.values())).detach().numpy()
    version = catalog.save(
        "calo/gan",
        components={"generator": generator, "discriminator": discriminator},
        entry_points={
            "generate": "generator",
            "score": "discriminator",
            "features": "discriminator.features",
            "judge": ["generator", "discriminator"],
        },
        example={**example, "shower": shower},
        taxonomy={"use_case": "fast_simulation"},
    )
    folder = exported(catalog, version, tmp_path / "gan")
    with catalog.session(version) as session:
        scored = session.run("score", {"shower": shower})
        judged = session.run("judge", example)
        features = session.run("features", {"shower": shower})
    lists = {name: value.tolist() for name, value in example.items()}
    got, modules = answers(
        folder,
        [
            {"inputs": lists},  # the first entry point is the usual one
            {"inputs": {"shower": shower.tolist()}, "entry": "score"},
            {"inputs": lists, "entry": "judge", "encoding": "base64"},
            {"data": lists, "data_type": "<class 'dict'>"},
            {"data": npy(shower), "data_type": "<class 'numpy.ndarray'>", "entry": "score"},
            {"data": [lists["latent"], lists["energy"]], "data_type": "<class 'list'>"},
            {"inputs": {"shower": shower.tolist()}, "entry": "features"},
        ],
    )
    assert "torch" in modules and not [name for name in modules if name.startswith("catalog")]
    np.testing.assert_allclose(got[0]["prediction"]["output"], shower, rtol=1e-5)
    for name, value in scored.items():
        np.testing.assert_allclose(got[1]["prediction"][name], value, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(got[4]["prediction"][name], value, rtol=1e-4, atol=1e-6)
    for name, value in judged.items():
        coded = got[2]["prediction"][name]
        plain = np.frombuffer(base64.b64decode(coded["data"]), coded["dtype"]).reshape(coded["shape"])
        np.testing.assert_allclose(plain, value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got[3]["prediction"], shower, rtol=1e-5)
    np.testing.assert_allclose(got[5]["prediction"], shower, rtol=1e-5)
    np.testing.assert_allclose(got[6]["prediction"]["output"], features["output"], rtol=1e-4, atol=1e-6)
    (again,) = catalog.import_(folder, "calo/again")
    assert same_components(again, version) and again.taxonomy == version.taxonomy
    assert again.manifest.entry_points[:2] == version.manifest.entry_points[:2]
    assert [p.steps for p in again.manifest.entry_points] == [p.steps for p in version.manifest.entry_points]
    assert again.manifest.provenance["imported"]["version"]["digest"] == version.digest


def npy(array: Any) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()


def test_the_same_version_gives_the_same_bytes(catalog: Catalog, tmp_path: Path) -> None:
    version = catalog.save("half", Half(), example={"énergie": torch.ones(2, 3, dtype=torch.bfloat16)})
    one = catalog.export(version, tmp_path / "one.zip", format="ads")
    two = catalog.export(version, tmp_path / "two.zip", format="ads")
    assert isinstance(one, Path) and isinstance(two, Path)
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert {"score.py", "runtime.yaml"} <= set(archive.namelist())
        archive.extractall(tmp_path / "out")
    schema = json.loads((tmp_path / "out" / "input_schema.json").read_text())
    assert schema["version"] == "1.1"
    assert [(row["name"], row["dtype"], row["description"]) for row in schema["schema"]] == [
        ("énergie", "object", "bfloat16[batch, 3]")
    ]
    tensor = {"__ads_torch_tensor__": 1, "data": [[1, 2, 3]], "dtype": "torch.bfloat16", "shape": [1, 3]}
    ((first, second), _) = answers(
        tmp_path / "out",
        [{"inputs": {"énergie": [[1, 2, 3]]}}, {"data": {**tensor, "device": "cpu"}, "data_type": "torch.Tensor"}],
    )
    assert first["prediction"] == second["prediction"]
    assert first["prediction"]["i"]["dtype"] == "complex64"
    wanted = catalog.load(version).forward(torch.tensor([[1, 2, 3]], dtype=torch.bfloat16))["größe"]
    np.testing.assert_allclose(first["prediction"]["größe"], wanted.float().detach().numpy())
    (again,) = catalog.import_(one)
    assert again.ref == "half@2" and same_components(again, version)


def test_random_models_draw_and_wrong_inputs_are_named(catalog: Catalog, tmp_path: Path) -> None:
    version = catalog.save("vae", Sampling(), example={"x": np.ones((2, 4), "f4")})
    folder = exported(catalog, version, tmp_path / "vae")
    ((one, two), _) = answers(folder, [{"inputs": {"x": np.ones((3, 4)).tolist()}}] * 2)
    assert one["prediction"]["output_0"] != two["prediction"]["output_0"]
    assert one["prediction"]["output_1"] == two["prediction"]["output_1"]
    for request, what in [
        ({"inputs": {"y": [[1]]}}, "takes x; got y"),
        ({"inputs": {"x": [[1, 2]]}}, r"input 'x': expected float32\[batch, 4\], got int64\[1, 2\]"),
        ({"inputs": {"x": [["a"] * 4]}}, "no array of numbers"),
        ({"inputs": {"x": [[1], [1, 2]]}}, "is no array"),
        ({"inputs": {"x": [[1] * 4]}, "entry": "forward"}, "there is no entry point 'forward'"),
        ({"data": npy_of_objects(), "data_type": "<class 'numpy.ndarray'>"}, "Object arrays cannot be loaded"),
    ]:
        with pytest.raises(SerializationError, match=what):
            answers(folder, [request])


def npy_of_objects() -> str:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}]), allow_pickle=True)
    return base64.b64encode(buffer.getvalue()).decode()


def test_what_could_not_be_called_there_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    version = catalog.save("weights", Generator())
    with pytest.raises(InvalidInput, match="no entry points"):
        catalog.export(version, tmp_path / "out", format="ads")
    version = catalog.save("weights", Generator(), entry_points={"predict": "model"})
    with pytest.raises(InvalidInput, match="weights only"):
        catalog.export(version, tmp_path / "out", format="ads")
    version = catalog.save("arrays", {"w": np.ones(3)}, entry_points={"predict": "model.items"})
    with pytest.raises(InvalidInput, match="cannot run 'model'"):
        catalog.export(version, tmp_path / "out", format="ads")
    assert not (tmp_path / "out").exists()


def test_estimators_and_boosters(catalog: Catalog, tmp_path: Path) -> None:
    sklearn = pytest.importorskip("sklearn")
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert sklearn
    rows, labels = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])
    words = names[labels]
    models: dict[str, Any] = {
        "pipe": make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels),
        "forest": RandomForestClassifier(5, random_state=0).fit(rows, words),
    }
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    models["xgb"] = xgboost.XGBClassifier(n_estimators=3).fit(rows, labels)
    models["xgb-booster"] = models["xgb"].get_booster()
    models["lgbm"] = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(rows, labels)
    models["lgbm-booster"] = models["lgbm"].booster_
    for name, model in models.items():
        entries = {"predict": "model"} | ({} if "booster" in name else {"chances": "model.predict_proba"})
        version = catalog.save(name, model, example=rows[:4], entry_points=entries)
        folder = exported(catalog, version, tmp_path / name)
        columns = {str(at): dict(enumerate(column.tolist())) for at, column in enumerate(rows[:9].T)}
        frame = {"data": json.dumps(columns), "data_type": "<class 'pandas.core.frame.DataFrame'>"}
        requests = [{"data": rows[:9].tolist(), "data_type": "<class 'list'>"}, frame]
        requests += [{"inputs": {"X": rows[:9].tolist()}, "entry": entry} for entry in entries]
        (got, modules) = answers(folder, requests)
        assert not [module for module in modules if module.startswith("catalog")]
        with catalog.session(version) as session:
            for entry, answer in zip(entries, got[2:], strict=True):
                for output, value in session.run(entry, {"X": rows[:9]}).items():
                    np.testing.assert_allclose(answer["prediction"][output], value, rtol=1e-5)
        plain = got[2]["prediction"]  # ADS gives classes by their names
        wanted = names[plain["index"]].tolist() if name == "forest" else plain["output"]
        assert got[1]["prediction"] == got[0]["prediction"] == wanted
        (again,) = catalog.import_(folder, f"again/{name}")
        assert same_components(again, version)
        assert again.params == version.params


def test_graphs_with_external_data(catalog: Catalog, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.arange(60, dtype="f4").reshape(3, 20), "w")
    shapes = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("x", 3), ("y", 20), ("z", 20))
    ]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Exp", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "graph").mkdir()
    onnx.save(model, tmp_path / "graph" / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    version = catalog.save("graph", tmp_path / "graph", serializer="onnx", example={"x": np.full((2, 3), 0.01, "f4")})
    folder = exported(catalog, version, tmp_path / "out")
    ((answer,), modules) = answers(folder, [{"data": [[0.0, 0.0, 0.01]], "data_type": "<class 'list'>"}])
    assert "onnxruntime" in modules and "torch" not in modules
    np.testing.assert_allclose(answer["prediction"]["y"], np.arange(40, 60)[None] * 0.01, rtol=1e-5)
    np.testing.assert_allclose(answer["prediction"]["z"], np.exp(answer["prediction"]["y"]), rtol=1e-5)
    (again,) = catalog.import_(folder, "again")
    assert same_components(again, version)


def theirs(folder: Path, model: str = "") -> Path:
    """An artifact as ADS writes it, whose `score.py` names the file of its model."""
    folder.mkdir()
    (folder / "score.py").write_text(
        f"model_name = {model!r}\ndef load_model(model_file_name=model_name): ...\n"
        "def predict(data, model=load_model()): return data\n"
    )
    (folder / "runtime.yaml").write_text("MODEL_ARTIFACT_VERSION: '3.0'\n")
    (folder / "requirements.txt").write_text("lightgbm")
    return folder


@pytest.mark.parametrize("kind", ["onnx", "skops", "txt", "ubj", "json", "pt2", "two"])
def test_of_what_ads_wrote_the_safe_formats_run_without_trust(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    sklearn, xgboost, lightgbm = (pytest.importorskip(name) for name in ("sklearn.linear_model", "xgboost", "lightgbm"))
    import skops.io

    folder = theirs(tmp_path / "theirs", "model.txt" if kind == "two" else "")
    rows = np.random.default_rng(0).random((50, 3))
    labels = (rows.sum(1) > 1.5).astype(int)
    linear = sklearn.LinearRegression().fit(rows, labels)
    wanted, name = linear.predict(rows), "X"
    if kind in ("skops", "two"):
        skops.io.dump(linear, folder / "model.skops")
    if kind in ("txt", "two"):
        booster = lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(rows, labels).booster_
        booster.save_model(folder / "model.txt")
        wanted = booster.predict(rows)
    if kind in ("ubj", "json"):
        booster = xgboost.XGBRegressor(n_estimators=3).fit(rows, labels).get_booster()
        booster.save_model(folder / f"m.{kind}")
        wanted = booster.predict(xgboost.DMatrix(rows))
    if kind == "onnx":
        skl2onnx = pytest.importorskip("skl2onnx")
        graph = skl2onnx.to_onnx(linear, rows.astype("f4"))
        (folder / "model.onnx").write_bytes(graph.SerializeToString())
    if kind == "pt2":
        net, name = torch.nn.Linear(3, 1), "input"
        given = torch.tensor(rows, dtype=torch.float32)
        torch.export.save(torch.export.export(net, (given,)), folder / "model.pt2")
        wanted = net(given).detach().numpy().ravel()
    (version,) = catalog.import_(folder)
    assert [part.name for part in version.manifest.components] == ["artifact", "model"]
    point = version.manifest.entry_points[0]
    with catalog.session(version) as session:
        (got,) = session.run(point.name, {name: rows.astype("f4") if kind in ("onnx", "pt2") else rows}).values()
        with pytest.raises(NotTrusted):
            session.run("score", {"data": [1]})
    np.testing.assert_allclose(got.ravel(), wanted, rtol=1e-4)


def test_weights_and_pickles_of_ads(catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Weights are a component; a pickle is one only when somebody has it converted; of two files neither is chosen."""
    from safetensors.numpy import save_file

    state = {"w": np.arange(3, dtype="f4")}
    save_file(state, theirs(tmp_path / "weights") / "model.safetensors")
    (version,) = catalog.import_(tmp_path / "weights")
    assert catalog.load(version, "model")["w"].tolist() == [0, 1, 2]
    torch.save({"w": torch.arange(3.0)}, theirs(tmp_path / "pickled", "model.pt") / "model.pt")
    (version,) = catalog.import_(tmp_path / "pickled")
    assert [part.name for part in version.manifest.components] == ["artifact"]
    assert "model.pt is a pickle of torch" in caplog.text and "--unsafe" in caplog.text
    (version,) = catalog.import_(tmp_path / "pickled", unsafe=True)
    assert catalog.load(version, "model")["w"].tolist() == [0, 1, 2]
    assert json.loads(version.attachment("scan.json"))["files"]
    save_file(state, tmp_path / "weights" / "other.safetensors")
    (version,) = catalog.import_(tmp_path / "weights")
    assert [part.name for part in version.manifest.components] == ["artifact", "model", "other"]
    (tmp_path / "weights" / "model.txt").write_text("tree\nversion=v4\n")
    (version,) = catalog.import_(tmp_path / "weights")
    assert [part.name for part in version.manifest.components] == ["artifact"]
    assert "holds 3 models, and does not say which" in caplog.text


def test_a_booster_whose_trees_lie_is_kept_and_not_read(
    catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """XGBoost itself trusts the numbers: it would end this process."""
    xgboost = pytest.importorskip("xgboost")
    rows = np.random.default_rng(0).random((50, 3))
    place = theirs(tmp_path / "theirs") / "model.json"
    xgboost.XGBRegressor(n_estimators=1).fit(rows, rows.sum(1)).save_model(place)
    told = json.loads(place.read_text())
    told["learner"]["gradient_booster"]["model"]["trees"][0]["left_children"][0] = 10**6
    place.write_text(json.dumps(told, separators=(",", ":")))
    (version,) = catalog.import_(tmp_path / "theirs")
    assert "branches that lead nowhere" in caplog.text
    assert {part.name: part.serializer for part in version.manifest.components} == {
        "artifact": "generic", "model": "files"
    }  # fmt: skip


def test_a_graph_with_code_in_it_stays_in_the_artifact(
    catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layer = {"class_name": "Lambda", "module": "keras.layers", "config": {"function": {"class_name": "__lambda__"}}}
    with zipfile.ZipFile(theirs(tmp_path / "theirs", "model.keras") / "model.keras", "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}}))
        file.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
    (version,) = catalog.import_(tmp_path / "theirs")
    assert [part.name for part in version.manifest.components] == ["artifact"]
    assert "kept in the component `artifact` only: model.keras" in caplog.text


def test_what_the_extra_file_holds_comes_back(catalog: Catalog, tmp_path: Path) -> None:
    """Units, ranges, metadata of one's own; a use case that this release does not know is kept as text."""
    version = catalog.save(
        "calo/gan",
        Generator(),
        example={"latent": np.ones((2, 5), "f4"), "energy": np.full((2, 1), 20.0, "f4")},
        entry_points={"generate": "model"},
        tensors={
            "energy": {"unit": "GeV", "minimum": 10, "maximum": 500.5, "description": "of the particle"},
            "output": {"unit": "MeV"},
        },
        taxonomy={"use_case": "fast_simulation", "domain": "calorimetry"},
        custom={"beam": {"value": "July", "category": "Training Profile", "description": "which"}},
        params={"lr": 0.5},
    )
    folder = exported(catalog, version, tmp_path / "out")
    (again,) = catalog.import_(folder, "again")
    assert again.manifest.entry_points == version.manifest.entry_points
    assert (again.manifest.custom, again.taxonomy, again.params) == (
        version.manifest.custom, version.taxonomy, version.params,
    )  # fmt: skip
    told = again.manifest.provenance["imported"]
    assert told["environment"]["python"] == version.manifest.environment["python"]
    assert "inference_conda_env" not in told["runtime"]  # nobody said which
    (folder / "model_artifact_manifest.json").unlink()
    description = json.loads((folder / "catalog_model.json").read_text())
    description["taxonomy"]["use_case"] = "weather_forecast"
    (folder / "catalog_model.json").write_text(json.dumps(description))
    (other,) = catalog.import_(folder, "other")
    assert other.taxonomy == {"domain": "calorimetry"}
    assert other.manifest.custom["use_case"] == {"value": "weather_forecast", "category": "Other"}


OWN = """
import json, os
def load_model(model_file_name="weights.json"):
    with open(os.path.join(os.path.dirname(__file__), model_file_name)) as file:
        return json.load(file)
def predict(data, model=load_model()):
    return {"prediction": [model["scale"] * value for value in data]}
"""


def test_a_folder_with_a_score_of_its_own_is_used_as_it_is(catalog: Catalog, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "score.py").write_text(OWN)
    (own / "weights.json").write_text('{"scale": 3}')
    version = catalog.save("own", own, serializer="generic")
    folder = exported(catalog, version, tmp_path / "out")
    assert (folder / "score.py").read_text() == OWN
    assert answers(folder, [[1, 2]])[0] == [{"prediction": [3, 6]}]
    (again,) = catalog.import_(folder)
    assert again.ref == "own@2" and same_components(again, version)
    with pytest.raises(NotTrusted):
        catalog.load(again)
    assert catalog.load(again, trust=True).predict(data=[2]) == {"prediction": [6]}


def test_another_folder_is_called_through_ours(catalog: Catalog, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "score.py").write_text(
        "import beside\ndef load_model(): return 2\ndef predict(x, y, model): return x, y * model * beside.N\n"
    )
    (own / "beside.py").write_text("N = 5\n")
    version = catalog.save("own", own, serializer="generic", entry_points={"predict": "model"})
    folder = exported(catalog, version, tmp_path / "out")
    ((answer,), _) = answers(folder, [{"inputs": {"x": [1], "y": [2]}}])
    assert answer["prediction"] == {"output_0": [1], "output_1": [20]}


def test_a_damaged_artifact_does_not_load(catalog: Catalog, tmp_path: Path) -> None:
    version = catalog.save("vae", Sampling(), example={"x": np.ones((2, 4), "f4")})
    folder = exported(catalog, version, tmp_path / "vae")
    weights = folder / "components" / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(SerializationError, match=r"model\.safetensors of the artifact is damaged"):
        answers(folder, [])


# what ADS's own introspect(), reload(), prepare() and zip_artifact() do to a folder that they open
REWRITES = {
    "test_json_output.json": '{"score_py": {"success": true}}',
    "runtime.yaml": "MODEL_ARTIFACT_VERSION: '3.0'\nMODEL_DEPLOYMENT: {}\n",
    "input_schema.json": '{"version": "1.1", "schema": []}',
    "output_schema.json": '{"version": "1.1", "schema": []}',
    ".model-ignore": "*.so\n",
    "test_html_output.html": "<html></html>",
}


def test_what_tools_rewrite_does_not_stop_score_py_nor_the_import(catalog: Catalog, tmp_path: Path) -> None:
    version = catalog.save("vae", Half(), example={"énergie": torch.ones(2, 3, dtype=torch.bfloat16)})
    folder = exported(catalog, version, tmp_path / "vae")
    requests = [{"inputs": {"énergie": np.ones((2, 3)).tolist()}}]
    before = answers(folder, requests)[0]
    for name, text in REWRITES.items():
        (folder / name).write_text(text)
    assert answers(folder, requests)[0] == before
    (again,) = catalog.import_(folder, "again")
    assert same_components(again, version)
    write_manifest(folder)  # as zip_artifact of ADS lists what it packs
    (folder / "requirements.txt").write_text("torch\n")
    assert answers(folder, requests)[0] == before
    (folder / "model_artifact_manifest.json").unlink()
    assert answers(folder, requests)[0] == before


@pytest.mark.parametrize("name", ["components/model/model.safetensors", "catalog_model.json"])
@pytest.mark.parametrize("how", ["lost", "longer"])
def test_what_runs_is_checked_also_beside_a_manifest_of_a_tool(
    catalog: Catalog, tmp_path: Path, name: str, how: str
) -> None:
    """Of ADS, .model-ignore leaves files out, and the manifest that it writes then lists what is left."""
    folder = exported(catalog, catalog.save("vae", Sampling(), example={"x": np.ones((2, 4), "f4")}), tmp_path / "vae")
    path = folder / name
    lost = how == "lost"
    if lost:
        path.unlink()
        write_manifest(folder)
    else:
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(SerializationError, match=f"{name} .*{'is missing' if lost else 'damaged'}"):
        answers(folder, [])


def test_what_the_catalog_ignores_is_not_run_in_a_deployment(catalog: Catalog, tmp_path: Path) -> None:
    """A stranger's archive with guard code, which torch would run: the catalog drops it, and so does score.py."""
    canary = tmp_path / "canary"
    version = catalog.save("vae", Sampling(), example={"x": np.ones((2, 4), "f4")})
    folder = exported(catalog, version, tmp_path / "first")
    graph = folder / "components" / "model" / "forward.pt2"
    with zipfile.ZipFile(graph) as source:
        members = {name: source.read(name) for name in source.namelist()}
    told = json.loads(members["archive/models/model.json"])
    told["guards_code"] = [f"open({str(canary)!r}, 'w') and True"]
    members["archive/models/model.json"] = json.dumps(told).encode()
    with zipfile.ZipFile(graph, "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
    data = graph.read_bytes()
    described = json.loads((folder / "catalog_model.json").read_text())
    (file,) = [f for f in described["components"][0]["files"] if f["name"] == "forward.pt2"]
    file |= {"digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}
    (folder / "catalog_model.json").write_text(json.dumps(described))
    write_manifest(folder)
    (hostile,) = catalog.import_(folder, "hostile")
    again = exported(catalog, hostile, tmp_path / "second")
    assert b"canary" in (again / "components" / "model" / "forward.pt2").read_bytes()
    assert len(answers(again, [{"inputs": {"x": np.ones((3, 4)).tolist()}}])[0]) == 1
    assert not canary.exists()


def test_a_schema_beyond_the_limits_of_ads_is_left_to_the_extra_file() -> None:
    from catalog_ads.schema import schema_of
    from catalog_core.records import TensorSpec

    few = [TensorSpec(f"x{n}", "float32", ("batch",), "GeV", None, 0, 1) for n in range(3)]
    assert schema_of(few)["schema"][0]["domain"]["constraints"] == [
        {"expression": "($x >= 0) and ($x <= 1)", "language": "python"}
    ]
    assert schema_of(few)["schema"][2]["description"] == "float32[batch] in GeV"
    for many in (few * 1000, [TensorSpec("x" * 200, "float32", ())] * 150):
        assert schema_of(many) == {"version": "1.1", "schema": []}
