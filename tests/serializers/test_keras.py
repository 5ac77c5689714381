"""Keras models to train on: resuming, both optimizers of a GAN, names that survive, two backends, hostile files."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import SerializationError  # noqa: E402
from catalog_core.testing.contract import SerializerContract  # noqa: E402
from catalog_keras import config, foreign, structure  # noqa: E402
from catalog_keras.serializer import CONFIG, KerasSerializer  # noqa: E402

SCRIPT = Path(__file__).with_name("gan_script.py")


def draw(*shape: int) -> Any:
    return np.random.default_rng(5).random(shape, dtype=np.float32)


@keras.saving.register_keras_serializable("tests")
class Sampling(keras.layers.Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(7)

    def call(self, mean: Any) -> Any:
        return mean + keras.random.normal(keras.ops.shape(mean), seed=self.seeds)


def vae() -> Any:
    x = keras.Input((6,), name="cells")
    return keras.Model(x, keras.layers.Dense(6, name="cells_again")(Sampling()(keras.layers.Dense(2)(x))))


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


def run(*arguments: str, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_gan_trains_on_in_another_process_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/catalog"
    uninterrupted, resumed = run(str(SCRIPT), "first", url), run(str(SCRIPT), "resume", url)
    assert resumed == uninterrupted


def test_a_compiled_model_loads_with_its_optimizer_and_trains_on(catalog: Catalog) -> None:
    model = vae()
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)), "mse")
    model.fit(draw(8, 6), draw(8, 6), batch_size=4, verbose=0)
    catalog.save("m", components={"model": model}, serializer="keras")
    again = catalog.load("m")
    first, second = (
        m.fit(draw(4, 6), draw(4, 6), batch_size=4, shuffle=False, verbose=0).history for m in (model, again)
    )
    assert first == second
    assert int(again.optimizer.iterations.numpy()) == 3


def test_prepare_verify_save_and_a_session(catalog: Catalog) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    with catalog.prepare("m", components={"model": model}, serializer="keras", example=draw(4, 6)) as draft:
        assert draft.verify().passed, draft.report.reason
        draft.save()
    with catalog.session("m") as session:
        assert np.allclose(session.predict(draw(4, 6)), model(draw(4, 6)), atol=1e-6)


def test_a_class_that_is_not_registered_is_named_and_not_imported(catalog: Catalog) -> None:
    catalog.save("m", components={"model": vae()}, serializer="keras", example=draw(4, 6))
    code = f"""
import json, sys
from catalog_core import Catalog
from catalog_core.errors import SerializationError
with Catalog.open({catalog.url!r}) as catalog:
    try:
        catalog.load("m")
    except SerializationError as exc:
        print(json.dumps([str(exc), len(catalog.load("m", as_="numpy"))]))
"""
    told, arrays = run("-c", code)
    assert "tests>Sampling" in told and "not registered" in told and arrays == 5


def test_names_do_not_depend_on_what_else_was_made() -> None:
    def model() -> Any:
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(3)])

    first = sorted(structure.walk(model())[1])
    [keras.layers.Dense(1) for _ in range(5)]
    assert first == ["layers.0.bias", "layers.0.kernel", "layers.1.bias", "layers.1.kernel"]
    assert sorted(structure.walk(model())[1]) == first


def test_the_wrong_layer_of_the_right_shape_is_refused(catalog: Catalog) -> None:
    def model(*layers: Any) -> Any:
        return keras.Sequential([keras.Input((3, 3)), *layers])

    catalog.save("m", components={"model": model(keras.layers.Dense(3), keras.layers.ReLU())}, serializer="keras")
    swapped = model(keras.layers.ReLU(), keras.layers.Dense(3))
    other = model(keras.layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), keras.layers.ReLU())
    for live in (swapped, other, model(keras.layers.Dense(3))):
        before = [weight.numpy() for weight in live.weights]
        with pytest.raises(SerializationError, match="does not fit"):
            catalog.load("m", into=live)
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, live.weights, strict=True))


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_what_tensorflow_wrote_loads_under_another_backend(backend: str, catalog: Catalog) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(2, 3),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2, seed=1),
            keras.layers.Dense(2),
        ]
    )
    model.compile("adam", "mse")
    model.fit(draw(4, 6, 6, 1), draw(4, 2), batch_size=2, verbose=0)
    catalog.save("m", components={"model": model}, serializer="keras", example=draw(2, 6, 6, 1))
    code = f"""
import json, sys
import numpy as np
from catalog_core import Catalog
with Catalog.open({catalog.url!r}) as catalog:
    x = np.random.default_rng(5).random((2, 6, 6, 1), dtype=np.float32)
    with catalog.session("m") as session:
        got = session.predict(x)
    model, imported = catalog.load("m"), "tensorflow" in sys.modules
    model.train_on_batch(x, np.zeros((2, 2), "f4"))
    catalog.save("again", components={{"model": model}}, serializer="keras")
    import keras
    steps = int(model.optimizer.iterations)
    print(json.dumps([keras.backend.backend(), got.tolist(), steps, imported]))
"""
    used, got, steps, imported = run("-c", code, KERAS_BACKEND=backend)
    assert (used, steps, imported) == (backend, 3, backend == "tensorflow")
    assert np.allclose(got, model(draw(2, 6, 6, 1)), atol=1e-5)
    back = catalog.load("again")
    assert int(back.optimizer.iterations.numpy()) == 3


def test_a_lambda_is_stored_as_weights_and_fills_a_live_model(catalog: Catalog) -> None:
    def model() -> Any:
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), keras.layers.Lambda(lambda x: x * 2)])

    first, second = model(), model()
    with pytest.warns(UserWarning, match="stored as weights only"):
        catalog.save("m", components={"model": first}, serializer="keras")
    with pytest.raises(SerializationError, match="only weights are stored"):
        catalog.load("m")
    catalog.load("m", into=second)
    assert np.allclose(first(draw(2, 3)), second(draw(2, 3)))


# -- hostile ----------------------------------------------------------------------------------------------------------


def stored(catalog: Catalog) -> tuple[dict[str, bytes], dict[str, Any]]:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), keras.layers.Activation("relu")])
    catalog.save("m", components={"model": model}, serializer="keras")
    return SerializerContract.files(catalog), dict(SerializerContract.component(catalog).meta)


def layer(module: Any, name: str, settings: Any, registered: Any = None) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": settings, "registered_name": registered}


def code_of(path: Path) -> Any:
    """A lambda as Keras stores one: marshalled code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lambda_layer = keras.layers.Lambda(lambda x, place=str(path): (Path(place).write_text("harm"), x)[1])
        found: dict[str, Any] = json.loads(json.dumps(keras.saving.serialize_keras_object(lambda_layer)))
    return found


HOSTILE = {
    "code": (code_of, "never run"),
    "path": (lambda path: layer("evil_module", "Evil", {}), "not registered"),
    "system": (lambda path: layer("os", "system", {}), "not registered"),
    "function": (
        lambda path: layer("keras.layers", "Activation", {"activation": layer("os", "function", "system", "function")}),
        "neither one of Keras nor registered",
    ),
    "download": (
        lambda path: layer("keras.layers", "Activation", {"activation": layer("keras.utils", "function", "get_file")}),
        "neither one of Keras nor registered",
    ),
    "savedmodel": (lambda path: layer("keras.layers", "TFSMLayer", {"filepath": str(path)}), "not registered"),
    "pickle": (lambda path: layer("keras.layers", "TorchModuleWrapper", {"module": "x"}), "not registered"),
    "file": (lambda path: layer("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}), "'/etc/passwd'"),
    "model": (lambda path: layer("keras.saving", "load_model", {"filepath": str(path)}), "not registered"),
    "type": (lambda path: {"class_name": "__typespec__", "spec_name": "x", "config": []}, "never run"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_configurations_that_would_do_harm_are_refused(
    kind: str, catalog: Catalog, tmp_path: Path, monkeypatch: Any
) -> None:
    files, meta = stored(catalog)
    (tmp_path / "evil_module.py").write_text(
        f"open({str(tmp_path / 'canary')!r}, 'w').write('harm')\nclass Evil: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    make, told = HOSTILE[kind]
    found = json.loads(files[CONFIG])
    found["config"]["layers"].append(make(tmp_path / "canary"))
    reader = SerializerContract.reader(catalog, {**files, CONFIG: json.dumps(found).encode()}, meta)
    with pytest.raises(SerializationError, match=told) as caught:
        KerasSerializer().load(reader, None, None, {})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "canary").exists() and "evil_module" not in sys.modules


def test_surplus_files_and_broken_json_are_refused(catalog: Catalog) -> None:
    files, meta = stored(catalog)
    deep = b"[" * 100_000 + b"]" * 100_000
    for changed in ({"x.so": b"x"}, {CONFIG: b"{"}, {CONFIG: b"[]"}, {CONFIG: deep}, {CONFIG: b"\x80\x04K\x01."}):
        with pytest.raises(SerializationError):
            KerasSerializer().load(SerializerContract.reader(catalog, {**files, **changed}, meta), None, None, {})


# -- records that say one thing and mean another, and sizes ------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
def harmless(x: Any) -> Any:
    return x


def activation(**fields: Any) -> dict[str, Any]:
    return layer("keras.layers", "Activation", {"activation": {"class_name": "function", **fields}})


MIXED = {
    "vouched": (activation(module="keras.utils", config="get_file", registered_name="tests>harmless"), "neither one"),
    "builtins": (activation(module="builtins", config="get_file", registered_name="tests>harmless"), "neither one"),
    "lookup": (activation(module="keras.activations", config="get", registered_name="get"), "neither one"),
    "loader": (activation(module="keras.saving", config="load_model", registered_name="relu"), "neither one"),
    "class": (layer("keras.saving", "load_model", {"filepath": "x"}, "relu"), "not registered"),
    "function as class": (layer("keras.utils", "get_file", {}, "tests>harmless"), "not registered"),
    "alias": (layer("keras.src.export.tfsm_layer", "TFSMLayer", {"filepath": "x"}), "not registered"),
    "callback": (layer("keras.callbacks", "CSVLogger", {"filename": "x"}), "not registered"),
    "no fields": ({"class_name": "Lambda", "config": {"function": "os.system"}}, "not registered"),
    "inside": (layer("keras.layers", "TimeDistributed", {"layer": layer("keras.layers", "TFSMLayer", {})}), "not regi"),
    "two inside": (layer("keras.layers", "Bidirectional", {"layer": layer("os", "system", {})}), "not registered"),
    "array": ({"class_name": "__numpy__", "config": {"value": ["x"], "dtype": "U900000000"}}, "dtype"),
    "vocabulary": (layer("keras.layers", "TextVectorization", {"vocabulary": "/etc/passwd"}), "names the file"),
    "list": (layer("keras.layers", "Dense", [["units", 3]]), "is no object"),
    "thresholds": (layer("keras.metrics", "AUC", {"num_thresholds": 1 << 40}), "asks for num_thresholds"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MIXED)
def test_records_that_keras_would_read_otherwise_are_refused(kind: str, catalog: Catalog) -> None:
    files, meta = stored(catalog)
    made, told = MIXED[kind]
    found = json.loads(files[CONFIG])
    found["config"]["layers"].append(made)
    reader = SerializerContract.reader(catalog, {**files, CONFIG: json.dumps(found).encode()}, meta)
    with pytest.raises(SerializationError, match=told):
        KerasSerializer().load(reader, None, None, {})


def test_keras_gets_the_class_that_was_checked_and_not_one_of_a_field_beside_it() -> None:
    """`registered_name` comes before `module` and `class_name` in Keras, for classes; `config`, for functions."""
    made = layer("keras.layers", "Dense", {"units": 3}, "nobody>registered")
    config.check(made)
    assert made["registered_name"] is None
    function = activation(module="keras.activations", config="relu", registered_name="tests>harmless")
    config.check(function)
    assert function["config"]["activation"]["registered_name"] == "relu"
    short = activation(module="builtins", config="harmless", registered_name="harmless")  # as Keras wrote it before 3.7
    config.check(short)
    assert keras.saving.deserialize_keras_object(short).activation is harmless


def dense(units: int, **more: Any) -> dict[str, Any]:
    return layer("keras.layers", "Dense", {"units": units, **more})


LARGE = {
    "plain": dense(300_000_000),
    "in time": layer("keras.layers", "TimeDistributed", {"layer": dense(300_000_000)}),
    "both ways": layer("keras.layers", "Bidirectional", {"layer": layer("keras.layers", "LSTM", {"units": 200_000})}),
    "table": layer("keras.layers", "Embedding", {"input_dim": 1 << 40, "output_dim": 8}),
    "heads": layer("keras.layers", "EinsumDense", {"equation": "ab,bc->ac", "output_shape": 300_000_000}),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_small_configuration_cannot_ask_for_more_than_is_stored(
    kind: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    glorot = keras.initializers.GlorotUniform.__call__

    def counted(self: Any, shape: Any, dtype: Any = None) -> Any:
        made.append(int(np.prod(shape)))
        return glorot(self, shape, dtype)

    files, meta = stored(catalog)
    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", counted)
    shape = (None, 5, 3) if kind in ("in time", "both ways") else (None, 3)
    start = layer("keras.layers", "InputLayer", {"batch_shape": shape, "dtype": "float32", "name": "input_layer"})
    found = json.loads(files[CONFIG])
    found["config"]["layers"] = [start, LARGE[kind]]
    found.pop("build_config", None)
    found["config"].pop("build_input_shape", None)
    reader = SerializerContract.reader(catalog, {**files, CONFIG: json.dumps(found).encode()}, meta)
    with pytest.raises(SerializationError, match="far more than what is stored"):
        KerasSerializer().load(reader, None, None, {})
    assert max(made, default=0) < 17_000_000  # 64 MiB are left for what is small
    assert keras.layers.Dense(3)(np.ones((1, 2))).shape == (1, 3)  # the bound ends with the load


def rewritten(path: Path, change: Any) -> Path:
    """A `.keras` file with another configuration or other weights."""
    place = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(place, "w") as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return place


def test_keras_files_are_read_with_the_checked_configuration(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), keras.layers.Activation("relu")])
    model.compile("adam", "mse")
    model.fit(draw(4, 3), draw(4, 3), verbose=0)
    model.save(tmp_path / "m.keras")
    again = foreign.read(tmp_path / "m.keras")
    assert np.allclose(again(draw(2, 3)), model(draw(2, 3))) and int(again.optimizer.iterations) == 1

    def changed(name: str, data: bytes) -> bytes:
        found = json.loads(data) if name == "config.json" else None
        if found:
            found["config"]["layers"][1]["config"]["units"] = 300_000_000
            found.pop("build_config")
        return json.dumps(found).encode() if found else data

    with pytest.raises(SerializationError, match="far more than what is stored"):
        foreign.read(rewritten(tmp_path / "m.keras", changed))


def test_arrays_that_are_declared_and_not_stored_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.save(tmp_path / "m.keras")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", shape=(3, 1 << 40), dtype="f4", chunks=(3, 1 << 10))
    declared = (tmp_path / "weights.h5").read_bytes()
    place = rewritten(tmp_path / "m.keras", lambda name, data: declared if name.endswith("h5") else data)
    with pytest.raises(SerializationError, match="and 0 are stored"):
        foreign.read(place)


def test_weights_that_unpack_to_far_more_are_refused_before_they_are(tmp_path: Path, monkeypatch: Any) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / "m.keras")
    bomb, size = tmp_path / "bomb.keras", foreign.build.SLACK + (16 << 20)
    with zipfile.ZipFile(tmp_path / "m.keras") as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in ("config.json", "metadata.json"):
            new.writestr(name, old.read(name))
        new.writestr("model.weights.h5", bytes(size))
    copied: list[int] = []
    monkeypatch.setattr(foreign.shutil, "copyfileobj", lambda *_: copied.append(1))
    with pytest.raises(SerializationError, match=f"says it is {size:,}"):
        foreign.read(bomb)
    assert not copied
