"""What the catalog adds to a graph is written for the graph's own opset; a graph that is too old says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper, version_converter  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, SerializationError  # noqa: E402
from catalog_onnx import memory  # noqa: E402
from catalog_onnx.model import OnnxModel  # noqa: E402

pytestmark = pytest.mark.framework
FLOAT, TESTS = TensorProto.FLOAT, Path(onnx.__file__).parent / "backend/test/data"
PARTS = {
    "w": np.ones((1, 2, 3, 3), np.float32), "one": np.ones(1, np.float32),
    "W": np.ones((1, 12, 2), np.float32), "R": np.ones((1, 12, 4), np.float32),
}  # fmt: skip
IMAGE = np.arange(32, dtype=np.float32).reshape(1, 1, 4, 8)
# operator → its node, the shape of x, and arrays for its inputs
GUARDED = {
    "Conv": (dict(kernel_shape=[3, 3]), {"x": IMAGE, "k": np.ones((2, 1, 3, 3), np.float32)}),
    "ConvTranspose": (dict(kernel_shape=[3, 3]), {"x": IMAGE, "w": None}),
    "InstanceNormalization": ({}, {"x": IMAGE, "one": None, "one ": None}),
    "GRU": (dict(hidden_size=4), {"x": np.ones((2, 1, 2), np.float32), "W": None, "R": None}),
}  # fmt: skip


def info(name: str, shape: Any) -> Any:
    return helper.make_tensor_value_info(name, FLOAT, shape)


def graph(kind: str, opset: int, listed: bool) -> tuple[Any, dict[str, Any]]:
    """A graph of one operator, and arrays for it. `listed`: the weights are among the inputs too, as in old files."""
    about, given = GUARDED[kind]
    own = sorted({name.strip() for name, array in given.items() if array is None})
    arrays = {name: array for name, array in given.items() if array is not None}
    inputs = [info(name, [f"{name}{n}" for n in range(array.ndim)]) for name, array in arrays.items()]
    inputs += [info(name, PARTS[name].shape) for name in own if listed]
    node = helper.make_node(kind, [name.strip() for name in given], ["y"], **about)
    held = [numpy_helper.from_array(PARTS[name], name) for name in own]
    made = helper.make_graph([node], "g", inputs, [info("y", ["a", "b", "c", "d"])], held)
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if listed else 8
    ), arrays


def plain(proto: Any, arrays: dict[str, Any]) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, arrays)[0]


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("opset", [6, 7, 9, 11, 12, 13, 18, 21, 26])
@pytest.mark.parametrize("kind", GUARDED)
def test_a_guard_is_there_in_every_opset(kind: str, opset: int, listed: bool) -> None:
    if kind == "GRU" and opset == 6:
        pytest.skip("onnxruntime has none")
    proto, arrays = graph(kind, opset, listed)
    model = OnnxModel(proto.SerializeToString(), {})
    assert np.array_equal(model.run(**arrays)["y"], plain(proto, arrays))
    name = "k" if kind == "Conv" else "x"
    axis = 1 if kind == "GRU" else 0
    empty = np.zeros([0 if n == axis else size for n, size in enumerate(arrays[name].shape)], np.float32)
    with pytest.raises(InvalidInput, match="cannot run on these inputs"):
        model.run(**{**arrays, name: empty})


@pytest.mark.parametrize("opsets", [(13, 13), (6, 13), (9, 21), (13, 6), (13, None)])
def test_a_guard_in_a_function_is_of_the_functions_opset(opsets: tuple[int, int | None]) -> None:
    one = numpy_helper.from_array(np.ones(1, np.float32))
    nodes = [
        helper.make_node("Constant", [], ["s"], value=one),
        helper.make_node("InstanceNormalization", ["x", "s", "s"], ["y"]),
    ]
    function = helper.make_function("mine", "F", ["x"], ["y"], nodes, [helper.make_opsetid("", opsets[0])])
    made = helper.make_graph([helper.make_node("F", ["x"], ["y"], domain="mine")], "g", [info("x", ["n", 1, "h"])],
                             [info("y", ["n", 1, "h"])])  # fmt: skip
    imports = [helper.make_opsetid("mine", 1), *([helper.make_opsetid("", opsets[1])] if opsets[1] else [])]
    proto = helper.make_model(made, functions=[function], opset_imports=imports, ir_version=8)
    x = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    model = OnnxModel(proto.SerializeToString(), {})
    assert np.array_equal(model.run(x=x)["y"], plain(proto, {"x": x}))
    with pytest.raises(InvalidInput, match="cannot run on these inputs"):
        model.run(x=x[:0])


def test_a_guard_in_a_graph_of_another_domain_brings_its_opset() -> None:
    node = helper.make_node("FeatureVectorizer", ["x"], ["y"], domain="ai.onnx.ml", inputdimensions=[2])
    made = helper.make_graph([node], "g", [info("x", ["n", 2])], [info("y", ["n", 2])])
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8)
    model = OnnxModel(proto.SerializeToString(), {})
    assert model.run(x=np.ones((3, 2), np.float32))["y"].shape == (3, 2)
    with pytest.raises(InvalidInput, match="cannot run on these inputs"):
        model.run(x=np.ones((0, 2), np.float32))


def test_a_graph_that_is_too_old_says_how_to_make_it_newer(tmp_path: Path) -> None:
    proto, arrays = graph("ConvTranspose", 5, False)
    with pytest.raises(SerializationError, match="opset 5 of the graph is too old: an empty input of its Conv") as why:
        OnnxModel(proto.SerializeToString(), {}).session  # noqa: B018
    assert "onnx.version_converter.convert_version" in str(why.value.hint)
    newer = version_converter.convert_version(proto, 21)
    with Catalog.open(f"sqlite://{tmp_path}/c") as catalog:
        catalog.save("m", newer, example=arrays)
        with catalog.session("m") as session:
            assert np.array_equal(session.predict(arrays["x"]), plain(newer, arrays))


def test_an_operator_that_onnxruntime_lacks_in_an_old_opset_says_so(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    made = helper.make_graph([node], "g", [info("x", ["n"])], [info("y", ["n"])])
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 6)], ir_version=3)
    with Catalog.open(f"sqlite://{tmp_path}/c") as catalog, pytest.raises(SerializationError) as why:
        catalog.save("m", proto, example={"x": np.ones(2, np.float32)})
    assert str(why.value.hint).startswith("the graph is of opset 6: onnx.version_converter")  # no name of a method


def test_a_size_is_read_where_an_old_file_lists_it_among_its_inputs() -> None:
    """A session takes no input for a tensor that the graph holds, so its numbers are known."""

    def made(size: int) -> bytes:
        node = helper.make_node("ConstantOfShape", ["s"], ["y"])
        inputs = [helper.make_tensor_value_info("s", TensorProto.INT64, [1])]
        held = [numpy_helper.from_array(np.array([size], np.int64), "s")]
        body = helper.make_graph([node], "g", inputs, [info("y", ["a"])], held)
        found = helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        assert not memory.grows(found)
        return bytes(found.SerializeToString())

    assert OnnxModel(made(3), {}).run()["y"].shape == (3,)
    with pytest.raises(SerializationError, match="more than 1,073,741,824 numbers"):
        OnnxModel(made(1 << 40), {})


def test_the_models_that_onnx_brings_for_tests_are_saved_and_give_equal_numbers(tmp_path: Path) -> None:
    """All that onnxruntime opens, of opsets 6 to 26, and that give numbers (two give texts)."""
    options, known, texts = ort.SessionOptions(), 0, []
    options.log_severity_level = 4
    with Catalog.open(f"sqlite://{tmp_path}/c") as catalog:
        for path in sorted(TESTS.glob("*/*/model.onnx")):
            try:
                session = ort.InferenceSession(path, options)
            except Exception:  # it has an error class for each of its codes
                continue
            arrays = {}
            for at, entry in enumerate(session.get_inputs()):
                tensor = TensorProto.FromString((path.parent / f"test_data_set_0/input_{at}.pb").read_bytes())
                arrays[entry.name] = numpy_helper.to_array(tensor)
            expected = dict(zip((out.name for out in session.get_outputs()), session.run(None, arrays), strict=True))
            if any(array.dtype.kind in "OU" for array in expected.values()):
                texts.append(path.parent.name)
                continue
            version = catalog.save("m", path, example=arrays)
            with catalog.session(version.ref) as running:
                got = running.run("predict", arrays)
            for name, array in expected.items():
                assert np.array_equal(got[name], array, equal_nan=array.dtype.kind == "f"), (path.parent.name, name)
            known += 1
    assert known >= 90 and len(texts) <= 4
