"""Models as exporters and onnxruntime's own tools write them load without trust, and compute what they did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import SerializationError  # noqa: E402
from catalog_onnx.model import OnnxModel  # noqa: E402

pytestmark = pytest.mark.framework
R = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return R.standard_normal(shape).astype(np.float32)


def model(nodes: list[Any], shape: list[Any], constants: dict[str, Any]) -> Any:
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


node = helper.make_node


def scan() -> Any:
    """A running sum over time, by Scan."""
    body = helper.make_graph(
        [node("Add", ["s", "e"], ["so"]), node("Identity", ["so"], ["out"])], "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("s", "e")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("so", "out")],
    )  # fmt: skip
    nodes = [node("Scan", ["zero", "x"], ["last", "y"], body=body, num_scan_inputs=1)]
    return model(nodes, ["n", 4], {"zero": np.zeros(4, np.float32)})


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "convolutions": (
        model(
            [node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), node("Relu", ["a"], ["b"]),
             node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
             node("ConvTranspose", ["c", "t"], ["d"], strides=[2, 2]),
             node("BatchNormalization", ["d", "s", "s", "s", "s"], ["e"]), node("GlobalAveragePool", ["e"], ["y"])],
            ["n", 3, 8, 8], {"w": floats(4, 3, 3, 3), "t": floats(4, 2, 2, 2), "s": np.ones(2, np.float32)}),
        (2, 3, 8, 8)),
    "an LSTM": (model([node("LSTM", ["x", "w", "r"], ["y"], hidden_size=5)], ["t", "n", 4],
                      {"w": floats(1, 20, 4), "r": floats(1, 20, 5)}), (3, 2, 4)),
    "a GRU": (model([node("GRU", ["x", "w", "r"], ["y"], hidden_size=5, direction="forward")], ["t", "n", 4],
                    {"w": floats(1, 15, 4), "r": floats(1, 15, 5)}), (3, 2, 4)),
    "attention": (
        model(
            [node("MatMul", ["x", "w"], ["q"]), node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
             node("MatMul", ["q", "k"], ["s"]), node("Softmax", ["s"], ["p"], axis=-1),
             node("MatMul", ["p", "x"], ["m"]),
             node("LayerNormalization", ["m", "g"], ["y"], axis=-1)],
            ["n", "t", 4], {"w": floats(4, 4), "g": np.ones(4, np.float32)}),
        (2, 3, 4)),
    "quantized": (
        model(
            [node("QuantizeLinear", ["x", "s", "z"], ["q"]),
             node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["m"]),
             node("DequantizeLinear", ["m", "s", "z"], ["y"])],
            ["n", 4], {"s": np.array(0.1, np.float32), "z": np.array(7, np.uint8),
                         "w": R.integers(0, 20, (4, 3)).astype(np.uint8)}),
        (2, 4)),
    "resized and cut": (
        model(
            [node("Resize", ["x", "", "f"], ["a"], mode="nearest"), node("Slice", ["a", "from", "to", "axes"], ["b"]),
             node("Pad", ["b", "pads"], ["y"])],
            [1, 1, 4, 4], {"f": np.array([1, 1, 2, 2], np.float32), "from": np.array([1]), "to": np.array([2**63 - 1]),
                           "axes": np.array([3]), "pads": np.array([0, 0, 0, -1, 0, 0, 1, 0])}),
        (1, 1, 4, 4)),
    "a scan": (scan(), (5, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models_load_without_trust_and_give_what_onnxruntime_gives(name: str, tmp_path: Path) -> None:
    made, shape = MODELS[name]
    rows = floats(*shape)
    plain = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        catalog.save("net", made, example={"x": rows})
        loaded = catalog.load("net").run(x=rows)["y"]
    np.testing.assert_allclose(loaded, plain.run(["y"], {"x": rows})[0], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_what_the_quantizer_of_onnxruntime_writes_loads(tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Samples(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.left = [{"x": floats(2, 3, 8, 8)} for _ in range(3)]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    onnx.save(MODELS["convolutions"][0], tmp_path / "net.onnx")
    for form in quantization.QuantFormat:
        quantization.quantize_static(tmp_path / "net.onnx", tmp_path / "q.onnx", Samples(), quant_format=form)
        assert OnnxModel.open(tmp_path / "q.onnx").run(x=floats(2, 3, 8, 8))["y"].shape == (2, 2, 1, 1)
    onnx.save(MODELS["attention"][0], tmp_path / "net.onnx")
    quantization.quantize_dynamic(tmp_path / "net.onnx", tmp_path / "q.onnx")
    assert OnnxModel.open(tmp_path / "q.onnx").run(x=floats(2, 3, 4))["y"].shape == (2, 3, 4)


@pytest.mark.filterwarnings("ignore")
def test_what_skl2onnx_writes_loads() -> None:
    pytest.importorskip("skl2onnx")
    ensemble, linear, neighbors, svm = (
        pytest.importorskip(f"sklearn.{name}") for name in ("ensemble", "linear_model", "neighbors", "svm")
    )
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from catalog_onnx.export import to_onnx

    rows = floats(60, 4)
    labels = (rows[:, 0] > 0).astype(int) + (rows[:, 1] > 0.5)
    for estimator in (
        ensemble.RandomForestClassifier(5), ensemble.GradientBoostingClassifier(n_estimators=3),
        ensemble.ExtraTreesRegressor(4), svm.SVC(probability=True),
        svm.SVR(), linear.LinearRegression(), neighbors.KNeighborsClassifier(),
        ensemble.AdaBoostClassifier(n_estimators=3),
        make_pipeline(StandardScaler(), linear.LogisticRegression()),
    ):  # fmt: skip
        estimator.fit(rows, labels)
        found = OnnxModel(to_onnx(estimator, {"X": rows[:3]}).SerializeToString(), {}).run(X=rows)
        first = next(iter(found.values()))
        np.testing.assert_allclose(first.reshape(len(rows), -1)[:, 0], estimator.predict(rows), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_of_texts_by_skl2onnx_opens() -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    text = pytest.importorskip("sklearn.feature_extraction.text")
    words = text.TfidfVectorizer(ngram_range=(1, 2), lowercase=False)
    words.fit(["a muon and a jet", "one jet", "two muons and a jet"])
    kinds = [("X", skl2onnx.common.data_types.StringTensorType([None, 1]))]
    made = skl2onnx.convert_sklearn(words, initial_types=kinds)
    found = OnnxModel(made.SerializeToString(), {}).session.run(None, {"X": np.array([["two muons"]], object)})[0]
    np.testing.assert_allclose(found, words.transform(["two muons"]).toarray(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "forest", "pipeline"])
def test_classes_that_are_texts_come_out_as_their_places(kind: str, tmp_path: Path) -> None:
    """As they do of the estimator itself; the export is the catalog's, so nobody else could leave the texts out."""
    pytest.importorskip("skl2onnx")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)
    classes = np.array(["bkg", "sig", "top"])[(rows[:, 0] > 0).astype(int) + (rows[:, 1] > 0.5)]
    model = {
        "linear": LogisticRegression(), "forest": RandomForestClassifier(5),
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    }[kind].fit(rows, classes)  # fmt: skip
    with Catalog.open(f"sqlite://{tmp_path}/c") as catalog:
        catalog.save("m", model, example=rows[:5], serializer={"model": ["sklearn", "onnx"]})
        graph = catalog.load("m", "model-onnx").run(X=rows)
        with catalog.session("m") as session:
            places = np.asarray(session.predict(rows))
    assert [model.classes_[at] for at in graph["index"]] == model.predict(rows).tolist()
    assert np.array_equal(graph["index"], places)
    assert np.allclose(graph["probabilities"], model.predict_proba(rows), atol=1e-5)


def test_an_output_that_is_no_array_of_numbers_says_what_it_is() -> None:
    def model(node: Any, kind: Any) -> OnnxModel:
        made = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", kind, ["n"])], [
            onnx.ValueInfoProto(name="y")])  # fmt: skip
        opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 2)]
        return OnnxModel(helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString(), {})

    words = model(helper.make_node("StringNormalizer", ["x"], ["y"]), TensorProto.STRING)
    with pytest.raises(SerializationError, match="output 'y' is texts") as caught:
        words.run(x=np.array(["a"], object))
    assert "LabelEncoder" in str(caught.value.hint) and "zipmap" not in str(caught.value)
    parts = model(helper.make_node("SplitToSequence", ["x"], ["y"]), TensorProto.FLOAT)
    with pytest.raises(SerializationError, match="output 'y' is a sequence"):
        parts.run(x=np.ones(2, np.float32))
