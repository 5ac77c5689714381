"""Every kind of hostile file through every door by which one could come in: one clear line, and nothing is executed."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import (
    CANARY,
    Canary,
    encrypted,
    keras_file,
    layer,
    npy,
    onnx_file,
    safetensors,
    saved_model,
    saying,
    twice,
    zipped,
)

from catalog_cli.main import main
from catalog_core import Catalog
from catalog_core.codec import manifest_to_json
from catalog_core.digests import canonical
from catalog_core.errors import CatalogError
from catalog_core.records import Component, Manifest
from catalog_core.testing.memory import memory_catalog
from catalog_scan.scanner import scan_path

pytestmark = pytest.mark.usefixtures("nothing_runs")
DEFLATED = 8
PICKLE = pickle.dumps(Canary())
TORCH = zipped({"m/data.pkl": PICKLE, "m/version": b"3\n", "m/data/0": b""})
PT2 = {"p/archive_format": b"pt2", "p/models/model.json": b"{}", "p/data/weights/model_weights_config.json": b"{}"}
PAYLOADS = {
    **{f"pickle{suffix}": PICKLE for suffix in (".pt", ".npy", ".keras", ".pt2", ".onnx", ".safetensors", ".skops")},
    "text.bin": pickle.dumps(Canary(), 0),
    "joined.pkl": pickle.dumps([1]) + PICKLE,
    "torch.pt": TORCH,
    "objects.npy": npy(np.array([Canary()], dtype=object)),
    "objects.npz": zipped({"a.npy": npy(np.array([Canary()], dtype=object))}),
    "lies.safetensors": safetensors(b"1234", 1 << 42),
    "short.safetensors": safetensors(bytes(8)),
    "bomb.npz": zipped({"a.npy": npy(np.zeros(1 << 22))}, DEFLATED),
    "longer.npz": saying(zipped({"a.npy": npy(np.zeros(1 << 16))}, DEFLATED), (1 << 19) + 128, 640),
    "climbs.npz": zipped({"../../a.npy": npy(np.ones(1))}),
    "locked.npz": encrypted(zipped({"a.npy": npy(np.ones(1))})),
    "twice.npz": twice(npy(np.ones(1)), npy(np.zeros(1))),
    "lambda.keras": keras_file(layer("Functional", layers=[layer("Lambda", function="x")]), b"\x89HDF\r\n\x1a\n"),
    "vocabulary.keras": keras_file(layer("TextVectorization", vocabulary="/etc/passwd")),
    "reduce.skops": zipped({"schema.json": b'{"__loader__": "ReduceNode", "__module__": "os", "__class__": "system"}'}),
    "native.pt2": zipped({**PT2, "p/data/aotinductor/model/m.so": b"\x7fELF" + bytes(60)}),
    "outside.onnx": onnx_file("../../secret"),
    "custom.onnx": onnx_file("w", "Run", "evil.corp"),
    "reads/saved_model.pb": saved_model("ReadFile"),
    "calls/saved_model.pb": saved_model("MatMul", functions={"f": ("EagerPyFunc",)}, entry="f"),
    "asset/saved_model.pb": saved_model("MatMul", asset="../../../etc/passwd"),
}


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with memory_catalog() as made:
        yield made


def lay(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def alone(place: Path, name: str) -> Path:
    lay(place, {name: PAYLOADS[name]})
    return place / name.partition("/")[0]


def snapshot(place: Path, name: str) -> Path:
    """As the Hub's client keeps it: content in blobs, a snapshot of links."""
    cache = lay(place / "models--cern--gan", {"blobs/1": PAYLOADS[name], "blobs/2": "{}", "refs/main": "5f"})
    for number, file in ((1, name), (2, "config.json")):
        link = cache / "snapshots" / "5f" / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(cache / "blobs" / str(number), link.parent))
    return cache


def mlflow(place: Path, name: str) -> Path:
    told = f"artifact_path: m\nflavors: {{python_function: {{data: data, loader_module: x}}}}\nrun_id: {'0' * 32}\n"
    return lay(place / "mlflow", {"MLmodel": told, f"data/{name}": PAYLOADS[name]})


def bento(place: Path, name: str) -> Path:
    told = "name: m\nversion: abc\nmodule: bentoml.picklable_model\nlabels: {}\n"
    return lay(place / "bento", {"model.yaml": told, name: PAYLOADS[name]})


def triton(place: Path, name: str) -> Path:
    return lay(place / "repository" / "m", {"config.pbtxt": 'name: "m"\n', f"1/{name}": PAYLOADS[name]}).parent


DOORS = [alone, snapshot, mlflow, bento, triton]


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("door", DOORS)
def test_a_model_of_a_stranger_is_refused_in_one_line(
    catalog: Catalog, tmp_path: Path, door: Callable[[Path, str], Path], name: str
) -> None:
    path = door(tmp_path / "in", name)
    with pytest.raises(CatalogError) as caught:
        catalog.import_(path, "m")
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500 and name.rpartition("/")[2] in line
    assert len(catalog.models()) == 0


@pytest.mark.parametrize("name", PAYLOADS)
def test_beside_a_good_model_it_is_never_read(catalog: Catalog, tmp_path: Path, name: str, caplog: Any) -> None:
    """Where something else is the model, a hostile file is refused, left behind with a line, or kept as bytes."""
    folder = lay(
        tmp_path / "in", {"config.json": "{}", "model.safetensors": safetensors(), f"more/{name}": PAYLOADS[name]}
    )
    try:
        (version,) = catalog.import_(folder, "m")
    except CatalogError as exc:
        assert "\n" not in str(exc) and name.rpartition("/")[2] in str(exc)
        return
    kept = {file.name for part in catalog.artifact(version).manifest.components for file in part.files}
    assert (f"more/{name}" in kept) != (f"left behind, since nothing here reads pickles: more/{name}" in caplog.text)
    assert np.array_equal(catalog.load(version, "model")["w"], np.zeros(4, np.float32))
    assert f"more/{name}" in json.loads(version.attachment("scan.json"))["findings"][0]["file"]


@pytest.mark.parametrize("name", PAYLOADS)
def test_an_artifact_of_ads_runs_nothing_without_trust(catalog: Catalog, tmp_path: Path, name: str) -> None:
    score = f"import os\nos.system('touch {CANARY}')\ndef load_model(): ...\ndef predict(data, model=None): ...\n"
    files = {"score.py": score.encode(), "runtime.yaml": b"MODEL_ARTIFACT_VERSION: '3.0'\n", name: PAYLOADS[name]}
    lay(tmp_path, {"in.zip": zipped(files), **{f"in/{key}": data for key, data in files.items()}})
    for path in (tmp_path / "in", tmp_path / "in.zip"):
        try:
            (version,) = catalog.import_(path, "m", format="ads")
        except CatalogError as exc:
            assert "\n" not in str(exc)
            continue
        with pytest.raises(CatalogError, match="trust"):
            catalog.load(version, "artifact")


@contextmanager
def unread() -> Iterator[None]:
    """What is published is not read back, as by an earlier release or a forger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("catalog_core.draft.check_readable", lambda path, name: None)
        yield


@pytest.mark.parametrize("name", PAYLOADS)
def test_it_is_no_bundle(catalog: Catalog, tmp_path: Path, name: str) -> None:
    with pytest.raises(CatalogError, match="is no whole bundle") as caught:
        catalog.import_(lay(tmp_path, {"m.bundle": PAYLOADS[name]}) / "m.bundle", format="bundle")
    assert "\n" not in str(caught.value) and len(catalog.models()) == 0


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_scan_finds_it_in_a_file_a_folder_and_a_version(tmp_path: Path, name: str, capsys: Any) -> None:
    path = alone(tmp_path / "in", name)
    assert scan_path(path).findings and scan_path(path.parent).findings
    with Catalog.open(str(tmp_path / "models")) as catalog, unread():
        catalog.save("m", path.parent)
    with pytest.raises(SystemExit) as ended:
        main(["--catalog", str(tmp_path / "models"), "scan", "m@1"])
    assert ended.value.code == 1 and name.rpartition("/")[2] in capsys.readouterr().out


def test_hard_links_are_files(catalog: Catalog, tmp_path: Path) -> None:
    folder = lay(tmp_path / "in", {"config.json": "{}", "model.safetensors": safetensors()})
    os.link(folder / "model.safetensors", folder / "again.safetensors")
    (version,) = catalog.import_(folder, "m")
    assert set(version.summary["components"].values()) == {"files", "safetensors"}


# -- a catalog that somebody forged -----------------------------------------------------------------------------------


def linear() -> Any:
    import torch

    return torch.nn.Linear(2, 1).eval(), {"input": torch.ones(3, 2)}


def tree() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    x = np.eye(2)
    return DecisionTreeClassifier().fit(x, [0, 1]), {"X": x}


def graph() -> Any:
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    return onnx.helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]), {"x": np.ones(2, np.float32)}


def layers() -> Any:
    import keras

    return keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)]), {"x": np.ones((1, 2), np.float32)}


def function() -> Any:
    import tensorflow as tf

    class Double(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x: Any) -> Any:
            return {"y": 2 * x}

    return Double(), {"x": np.ones(2, np.float32)}


# the package that each needs, and an object with its example
SERIALIZERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "safetensors": ("numpy", lambda: ({"w": np.ones(2)}, None)),
    "pytree": ("numpy", lambda: ([np.ones(2), {"a": 1}], None)),
    "onnx": ("onnxruntime", graph),
    "sklearn": ("skops", tree),
    "torch": ("torch", linear),
    "keras": ("keras", layers),
    "savedmodel": ("tensorflow", function),
}
CLASS = "os:system"
META = [
    {},
    {"kind": "module", "class": CLASS, "import_path": CLASS, "methods": ["forward"], "entries": ["forward"]},
    {"structure": {"dict": {"w": "tensor"}}, "shared": {"v": "w"}, "inputs": {"forward": ["x"]}, "order": ["w"]},
]


def forged(catalog: Catalog, folder: Path, like: Manifest, meta: Mapping[str, Any]) -> Any:
    """A version like another one, whose component holds the files of a folder."""
    with unread(), catalog.prepare("forged", components={"model": folder}) as draft:
        (part,), (model,) = draft.manifest.components, like.components
        component = Component("model", model.serializer, part.files, meta)
        draft.manifest = Manifest((component,), like.entry_points, environment=draft.manifest.environment)
        draft.digest = draft._writer.add_small(canonical(manifest_to_json(draft.manifest)))
        return draft.save()


@pytest.mark.framework
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_forged_version_runs_nothing(catalog: Catalog, tmp_path: Path, serializer: str) -> None:
    package, make = SERIALIZERS[serializer]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    obj, example = make()
    good = catalog.save("good", obj, serializer=serializer, example=example)
    (model,) = good.manifest.components
    reader = catalog.artifact(good).reader(model)
    whole = {name: bytes(reader.view(name)) for name in reader.files}

    def used(files: Mapping[str, bytes], meta: Mapping[str, Any], number: str) -> CatalogError | None:
        version = forged(catalog, lay(tmp_path / number, files), good.manifest, meta)
        try:
            catalog.load(version, "model")
            if example is not None:
                with catalog.session(version) as session:
                    session.run(next(iter(good.manifest.entry_points)).name, example)
        except CatalogError as exc:
            assert "\n" not in str(exc) and len(str(exc)) < 1500
            return exc
        finally:
            assert not CANARY.exists(), number
        return None

    assert used(whole, model.meta, "same") is None
    for at, file in enumerate(whole):
        for number, payload in enumerate(PAYLOADS.values()):
            assert used({**whole, file: payload}, model.meta, f"{at}-{number}"), (file, list(PAYLOADS)[number])
    for number, meta in enumerate(META):
        used(whole, meta, f"meta-{number}")
