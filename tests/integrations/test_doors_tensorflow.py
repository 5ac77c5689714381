"""Models of TensorFlow and Keras in the files that those programs write: imported, loaded, run, verified."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import NotTrusted  # noqa: E402


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "catalog") as made:
        yield made


@pytest.fixture
def model() -> Any:
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
    made.compile("adam", "mse")
    made.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0)
    return made


X = np.random.default_rng(0).random((5, 3)).astype(np.float32)


class Module(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable([[1.0], [2.0], [3.0]])

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
    def __call__(self, x: Any) -> Any:
        return {"y": x @ self.w}


class Thief(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "name")])
    def steal(self, name: Any) -> Any:
        return {"y": tf.io.read_file(name)}


def test_a_savedmodel_keeps_its_signatures(catalog: Catalog, tmp_path: Path) -> None:
    module = Module()
    place = tmp_path / "repository" / "calo" / "1" / "model.savedmodel"
    tf.saved_model.save(module, str(place), signatures={"serving_default": module.__call__})
    (place.parent.parent / "config.pbtxt").write_text('name: "calo"\nplatform: "tensorflow_savedmodel"\n')
    for path in (place, place.parent.parent):
        (version,) = catalog.import_(path, "calo")
        assert version.summary["components"]["model"] == "savedmodel"
        assert np.allclose(catalog.load(version.ref, "model").run("serving_default", X)["y"], X @ [[1], [2], [3]])
        assert version.verify().passed


def test_a_keras_export_runs_without_keras(catalog: Catalog, model: Any, tmp_path: Path) -> None:
    model.export(str(tmp_path / "exported"), verbose=False)
    (version,) = catalog.import_(tmp_path / "exported")
    assert set(version.summary["entry_points"]) == {"predict", "serve"}
    with catalog.session(version.ref) as session:
        (output,) = session.run("predict", {"x": X}).values()
    assert np.allclose(output, model.predict(X, verbose=0), atol=1e-6)


def test_a_graph_that_reads_files_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    module = Thief()
    tf.saved_model.save(module, str(tmp_path / "evil"), signatures={"serving_default": module.steal})
    with pytest.raises(NotTrusted, match="ReadFile is not on the list"):
        catalog.import_(tmp_path / "evil")


def test_assets_are_kept_and_not_read(catalog: Catalog, tmp_path: Path, caplog: Any) -> None:
    module = Module()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serving_default": module.__call__})
    (tmp_path / "model" / "assets" / "words.txt").write_text("a\n")
    (version,) = catalog.import_(tmp_path / "model")
    assert version.summary["components"] == {"model": "files"}
    assert "kept as it is: the SavedModel reads files of its own" in caplog.text


def test_a_keras_file_trains_on(catalog: Catalog, model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "model.keras")
    (version,) = catalog.import_(tmp_path / "model.keras")
    loaded = catalog.load(version.ref)
    assert np.array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert int(loaded.optimizer.iterations) == 1
    assert version.summary["components"] == {"model": "keras"} and version.verify().passed


def test_an_old_h5_is_converted_on_request(catalog: Catalog, model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "model.h5")
    model.save_weights(tmp_path / "only.weights.h5")
    for name, kind in (("model.h5", "keras"), ("only.weights.h5", "safetensors")):
        with pytest.raises(NotTrusted, match="an HDF5 file, as old Keras models are"):
            catalog.import_(tmp_path / name)
        (version,) = catalog.import_(tmp_path / name, unsafe=True)
        assert version.summary["components"] == {"model": kind}
    assert np.array_equal(catalog.load("model").predict(X, verbose=0), model.predict(X, verbose=0))
    assert any(np.array_equal(array, model.layers[0].kernel) for array in catalog.load("only.weights").values())


def test_code_in_a_keras_file_never_runs(catalog: Catalog, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    place = str(canary)
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: [os.mkdir(place), x][1])])
    canary.rmdir()
    inner.save(tmp_path / "lambda.keras")
    with pytest.raises(NotTrusted, match="a layer of Keras holds Python code"):
        catalog.import_(tmp_path / "lambda.keras")
    assert not canary.exists() and len(catalog.models()) == 0


def test_a_class_of_ones_own_is_kept_with_the_reason(catalog: Catalog, model: Any, tmp_path: Path, caplog: Any) -> None:
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config.update({"module": "os", "class_name": "system", "registered_name": "os>system"})
    with zipfile.ZipFile(tmp_path / "own.keras", "w") as archive:
        for name, data in {**members, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, data)
    (version,) = catalog.import_(tmp_path / "own.keras")
    assert version.summary["components"] == {"model": "files"}
    assert "own.keras: kept as it is: the class 'os>system' is not registered" in caplog.text


@pytest.mark.parametrize("kind", ["keras file", "keras export", "savedmodel"])
def test_what_a_model_says_of_its_inputs_lets_it_run(kind: str, catalog: Catalog, model: Any, tmp_path: Path) -> None:
    """Its example is of zeros, so a session and `verify` know what it takes."""
    if kind == "keras file":
        place, expected = tmp_path / "m.keras", model(X).numpy()
        model.save(place)
    elif kind == "keras export":
        place, expected = tmp_path / "exported", model(X).numpy()
        model.export(place, verbose=False)
    else:
        module, place = Module(), tmp_path / "saved"
        tf.saved_model.save(module, str(place))
        expected = module(tf.constant(X))["y"].numpy()
    (version,) = catalog.import_(place, "m")
    with catalog.session(version) as session:
        for name, point in session.entry_points.items():
            assert [(spec.dtype, spec.shape) for spec in point.inputs] == [("float32", ("batch", 3))]
            assert np.allclose(getattr(session, name)(X), expected)
    checks = {check.name: check.state for check in version.verify().checks if hasattr(check, "name")}
    assert version.verify().passed, checks
