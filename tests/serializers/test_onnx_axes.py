"""Axes that a model leaves free, or that are declared, are free in its ONNX graph; what is not is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from catalog_onnx.export import to_onnx  # noqa: E402
from catalog_onnx.model import OnnxModel  # noqa: E402

IMAGE = np.random.default_rng(0).random((2, 3, 8, 8), dtype="float32")


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield catalog


def graph_of(catalog: Catalog, name: str) -> Any:
    artifact = catalog.artifact(name)
    (found,) = [part.name for part in artifact.manifest.components if part.serializer == "onnx"]
    return artifact.load(found)


def shapes(model: Any) -> dict[str, tuple[Any, ...]]:
    return {spec.name: spec.shape for spec in model.inputs}


# -- files by their path -----------------------------------------------------------------------------------------------


def test_a_declared_name_is_given_to_an_axis_that_the_file_leaves_free(catalog: Catalog, tmp_path: Path) -> None:
    helper = onnx.helper
    ends = [helper.make_tensor_value_info(name, 1, [None, None, "h", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "net.onnx")
    x = np.ones((2, 4, 5, 3), np.float32)
    with pytest.warns(UserWarning, match="axis 3 of 'x': 3"):
        catalog.save("m", tmp_path / "net.onnx", example={"x": x}, axes={"x": {0: "batch", 1: None, 3: "c"}})
    (point,) = catalog.artifact("m").manifest.entry_points
    assert point.inputs[0].shape == ("batch", None, "h", 3)
    with catalog.session("m") as session:
        assert session.predict(np.ones((1, 9, 7, 3), np.float32)).shape == (1, 9, 7, 3)


# -- torch -------------------------------------------------------------------------------------------------------------


def convolution() -> Any:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")

    class Net(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Any) -> Any:
            return self.conv(x).mean((2, 3))

    return Net()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("axes", [None, {"x": {0: "batch", 2: "height", 3: "width"}}])
def test_sizes_of_images_are_free_in_the_graph_of_a_torch_module(axes: Any, catalog: Catalog) -> None:
    torch, net = pytest.importorskip("torch"), convolution()
    catalog.save("m", net, example={"x": torch.tensor(IMAGE)}, axes=axes, serializer={"model": ["torch", "onnx"]})
    graph = graph_of(catalog, "m")
    batch, channels, *sizes = shapes(graph)["x"]
    assert batch == "batch" and channels == 3 and not any(isinstance(size, int) for size in sizes)
    assert axes is None or sizes == ["height", "width"]
    other = np.random.default_rng(1).random((5, 3, 12, 6), dtype="float32")
    (given,) = graph.run(x=other).values()
    assert np.allclose(given, net(torch.tensor(other)).detach(), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_nodes_and_edges_are_free_apart(catalog: Catalog) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")

    class Edges(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(4, 3)

        def forward(self, nodes: Any, edges: Any) -> Any:
            return self.line(nodes)[edges[0]] + self.line(nodes)[edges[1]]

    net = Edges()
    example = {"nodes": torch.rand(5, 4), "edges": torch.randint(0, 5, (2, 9))}
    graph = OnnxModel(to_onnx(net, example, axes={"nodes": {0: "n"}, "edges": {1: "e"}}).SerializeToString(), {})
    assert shapes(graph)["nodes"] == ("n", 4) and shapes(graph)["edges"][1] == "e"
    nodes, edges = torch.rand(7, 4), torch.randint(0, 7, (2, 4))
    (given,) = graph.run(nodes=nodes.numpy(), edges=edges.numpy()).values()
    assert np.allclose(given, net(nodes, edges).detach(), atol=1e-5)


def test_a_declared_axis_that_stays_as_long_is_said() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    with pytest.warns(UserWarning, match=r"axis 1 of 'input' as long as in the example only \(4\)"):
        to_onnx(torch.nn.Linear(4, 2), {"input": torch.rand(3, 4)}, axes={"input": {0: "batch", 1: "width"}})


@pytest.mark.filterwarnings("ignore")
def test_an_example_of_one_row_gives_a_graph_of_any_number_of_rows() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    net = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Tanh())
    graph = OnnxModel(to_onnx(net, {"input": torch.rand(1, 4)}).SerializeToString(), {})
    assert shapes(graph) == {"input": ("batch", 4)}
    rows = torch.rand(6, 4)
    (given,) = graph.run(input=rows.numpy()).values()
    assert np.allclose(given, net(rows).detach(), atol=1e-6)


def test_the_rows_of_an_estimator_have_a_name() -> None:
    pytest.importorskip("skl2onnx")
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(0).random((20, 3), dtype="float32")
    made = to_onnx(LogisticRegression().fit(rows, [0, 1] * 10), {"X": rows[:3]}, axes={"X": {0: "events"}})
    assert shapes(OnnxModel(made.SerializeToString(), {})) == {"X": ("events", 3)}


# -- Keras -------------------------------------------------------------------------------------------------------------


def keras_models() -> dict[str, Any]:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tf2onnx")
    layers = keras.layers

    class Own(keras.Model):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mean = layers.Conv2D(4, 3, padding="same"), layers.GlobalAveragePooling2D()

        def call(self, x: Any) -> Any:
            return self.mean(self.conv(x))

    token = keras.Input((None,), dtype="int32", name="x")
    words = layers.LSTM(4)(layers.Embedding(50, 8, mask_zero=True)(token))
    image = keras.Input((None, None, 3), name="x")
    return {
        "words": keras.Model(token, layers.Dense(2)(words)),
        "image": keras.Model(image, layers.Conv2D(1, 1)(layers.Conv2D(4, 3, padding="same")(image))),
        "own": Own(),
    }


@pytest.mark.parametrize("kind", ["words", "image", "own"])
@pytest.mark.parametrize("declared", [True, False])
def test_what_a_keras_model_leaves_free_is_free_in_its_graph(kind: str, declared: bool, catalog: Catalog) -> None:
    model = keras_models()[kind]
    draw = np.random.default_rng(2)
    x = draw.integers(1, 50, (2, 7)).astype("int32") if kind == "words" else draw.random((2, 8, 8, 3), dtype="float32")
    other = (
        draw.integers(1, 50, (3, 4)).astype("int32") if kind == "words" else draw.random((3, 6, 10, 3), dtype="float32")
    )
    names = {"x": {0: "batch", 1: "steps"} if kind == "words" else {0: "batch", 1: "height", 2: "width"}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore")
        catalog.save(
            "m", model, example={"x": x}, axes=names if declared else None, serializer={"model": ["savedmodel", "onnx"]}
        )
    graph = graph_of(catalog, "m")
    free = shapes(graph)["x"][: len(names["x"])]
    assert free[0] == "batch" and not any(isinstance(size, int) for size in free)
    assert not declared or list(free) == list(names["x"].values())
    (given,) = graph.run(x=other).values()
    assert np.allclose(given, model(other), atol=1e-4)
