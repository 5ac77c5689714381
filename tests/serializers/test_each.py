"""Each serializer saves, verifies in a fresh process, loads and runs one small model; `tox -e lowest` does it with the
oldest versions that `pyproject.toml` allows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]

from catalog_core import Catalog  # noqa: E402

X = np.arange(24, dtype="float32").reshape(6, 4) / 24
Y = np.array([0, 0, 0, 1, 1, 1])


def keras_model() -> Any:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.BatchNormalization()])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(X, X[:, :3], verbose=0)
    return model


def tensorflow_module() -> Any:
    tf = pytest.importorskip("tensorflow")

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable([2.0, 3.0, 4.0, 5.0])

        def __call__(self, x: Any) -> Any:
            return x * self.weight

    return Module()


def pipeline() -> Any:
    pytest.importorskip("skops")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)


def forest() -> Any:
    pytest.importorskip("skops")
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(3, random_state=0).fit(X, Y)


def xgboost() -> Any:
    return pytest.importorskip("xgboost").XGBClassifier(n_estimators=3).fit(X, Y)


def lightgbm() -> Any:
    return pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=3, min_child_samples=1, verbose=-1).fit(X, Y)


def onnx_graph() -> Any:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kind, make = onnx.TensorProto.FLOAT, onnx.helper
    ends = [make.make_tensor_value_info(name, kind, ["rows", 4]) for name in "xy"]
    graph = make.make_graph([make.make_node("Relu", ["x"], ["y"])], "graph", ends[:1], ends[1:])
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)


def torch_module() -> Any:
    torch = pytest.importorskip("torch")
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())


RUN: dict[str, tuple[Callable[[], Any], str | None]] = {
    "keras": (keras_model, "keras"),
    "keras as a graph": (keras_model, "savedmodel"),
    "tensorflow": (tensorflow_module, None),
    "pipeline": (pipeline, None),
    "forest": (forest, None),
    "xgboost": (xgboost, None),
    "lightgbm": (lightgbm, None),
    "onnx": (onnx_graph, None),
    "torch": (torch_module, None),
}


@pytest.mark.parametrize("kind", RUN)
def test_a_small_model_is_saved_verified_and_run(tmp_path: Path, kind: str) -> None:
    make, serializer = RUN[kind]
    model = make()
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        options = {"serializer": serializer} if serializer else {}
        version = catalog.save("m", model, example=X, verify=True, **options)
        assert version.summary["verification"] == "passed"
        inputs, outputs = catalog.artifact("m").example()
        with catalog.session("m") as session:
            given = session.run("predict", inputs)
        assert catalog.load("m") is not None
    for name, value in outputs["predict"].items():
        assert np.allclose(np.asarray(given[name], "float64"), np.asarray(value, "float64"), atol=1e-5)


def test_arrays_of_jax(tmp_path: Path) -> None:
    arrays = pytest.importorskip("jax.numpy")
    tree = {"a": arrays.ones((3,), arrays.bfloat16), "b": [arrays.zeros(2)]}
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        catalog.save("m", tree, serializer="pytree")
        again = catalog.load("m")
    assert again["a"].dtype == tree["a"].dtype and np.array_equal(again["b"][0], tree["b"][0])


def test_one_weight_as_safetensors(tmp_path: Path) -> None:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        catalog.save("m", {"weight": X})
        assert np.array_equal(catalog.load("m")["weight"], X)
