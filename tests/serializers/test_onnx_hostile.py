"""What a graph of a stranger cannot do: each case is refused before onnxruntime sees it, or by a guard when it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from catalog_core.errors import InvalidInput, NotTrusted, SerializationError  # noqa: E402
from catalog_onnx import memory, operators, review, trees  # noqa: E402
from catalog_onnx.model import OnnxModel  # noqa: E402

pytestmark = pytest.mark.framework
X = np.ones((1, 4), np.float32)


def value(name: str, kind: int = TensorProto.FLOAT, shape: Any = None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list[Any], constants: dict[str, Any] | None = None, opset: int = 20, **about: Any) -> Any:
    """A graph from `x` to `y`."""
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    made = helper.make_graph(nodes, "g", [value("x")], [value("y")], initializers)
    domains = {"ai.onnx.ml": 3, "com.microsoft": 1, "own": 1}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*item) for item in domains.items())]
    opsets = opsets if about.get("functions") else opsets[:-1]
    return helper.make_model(made, opset_imports=opsets, ir_version=10, **about)


def opened(made: Any) -> OnnxModel:
    found = OnnxModel(made.SerializeToString(), {})
    found.session  # noqa: B018
    return found


def node(operator: str, *inputs: str, domain: str = "", **about: Any) -> Any:
    return helper.make_node(operator, list(inputs) or ["x"], ["y"], domain=domain, **about)


# -- operators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operator, domain",
    [("ImageDecoder", ""), ("Adagrad", "ai.onnx.preview.training"), ("MemcpyToHost", ""),
     ("Attention", "com.microsoft"),
     ("BeamSearch", "com.microsoft"), ("Snpe", "com.microsoft"), ("SomethingNew", ""), ("Inverse", "com.microsoft"),
     ("Conv", "com.microsoft.nchwc"), ("Relu", "ai.onnx.ml")],
)  # fmt: skip
def test_what_is_on_no_list_is_refused(operator: str, domain: str) -> None:
    with pytest.raises(NotTrusted, match=r"is not on the list|no installed library has"):
        opened(model([node(operator, domain=domain)]))


def test_the_lists_hold_what_onnx_defines_and_no_more() -> None:
    defined: dict[str, set[str]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        defined.setdefault(schema.domain, set()).add(schema.name)
    assert operators.ONNX - defined[""] <= {"SimplifiedLayerNormalization"}
    assert defined["ai.onnx.ml"] == operators.TRADITIONAL
    assert not {"ImageDecoder", "CausalConvWithState"} & operators.ONNX
    assert operators.ALLOWED.keys() == {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}


@pytest.mark.parametrize("domain, name", [("com.microsoft", "EPContext"), ("", "PyOp"), ("ai.onnx.ml", "Scaler")])
def test_a_function_cannot_take_the_name_of_what_is_refused(domain: str, name: str) -> None:
    """onnxruntime runs its own operator where a function of the graph has its name."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    function = helper.make_function(domain, name, ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], opsets)
    with pytest.raises(NotTrusted, match="not its own"):
        opened(model([node(name, domain=domain)], functions=[function]))


def test_settings_of_onnxruntime_do_not_come_from_a_graph() -> None:
    made = model([node("Neg")])
    made.metadata_props.add(key="ort_config", value='{"session_options": {"enable_profiling": 1}}')
    with pytest.raises(NotTrusted, match="ort_config"):
        opened(made)


# -- functions and inner graphs --------------------------------------------------------------------------------------


def functions(*bodies: tuple[str, list[str]]) -> list[Any]:
    """Functions of one input that call others, one after the other."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    found = []
    for name, calls in bodies:
        nodes = [helper.make_node(call, [f"v{at}"], [f"v{at + 1}"], domain="" if call == "Neg" else "own")
                 for at, call in enumerate(calls)]  # fmt: skip
        found.append(helper.make_function("own", name, ["v0"], [f"v{len(calls)}"], nodes, opsets))
    return found


def test_functions_that_call_each_other_are_refused() -> None:
    for bodies in ([("A", ["A"])], [("A", ["B"]), ("B", ["A"])]):
        with pytest.raises(SerializationError, match="calls itself"):
            opened(model([node("A", domain="own")], functions=functions(*bodies)))


def test_functions_that_double_each_other_are_refused() -> None:
    """Twenty-three functions of two calls each are eight million nodes; onnxruntime would write them all."""
    bodies = [("A0", ["Neg"]), *((f"A{at}", [f"A{at - 1}"] * 2) for at in range(1, 24))]
    with pytest.raises(SerializationError, match="more than 1,048,576 nodes"):
        opened(model([node("A23", domain="own")], functions=functions(*bodies)))
    assert opened(model([node("A3", domain="own")], functions=functions(*bodies[:4]))).run(x=X)["y"].tolist() == [
        [1] * 4
    ]


def loop(turns: Any, condition: str) -> Any:
    """`x` is negated in a loop. `condition`: `same` as it was, `true`, or `made` by the body."""
    nodes = {
        "same": [helper.make_node("Identity", ["c"], ["co"])],
        "true": [helper.make_node("Constant", [], ["co"], value=numpy_helper.from_array(np.array(True)))],
        "made": [helper.make_node("Less", ["i", "ten"], ["co"])],
    }[condition]
    body = helper.make_graph(
        [*nodes, helper.make_node("Neg", ["v"], ["vo"])], "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("v")],
        [value("co", TensorProto.BOOL, []), value("vo")],
    )  # fmt: skip
    constants = {"go": np.array(True), "ten": np.array(10)} | ({} if turns is None else {"turns": np.array(turns)})
    return model([node("Loop", "" if turns is None else "turns", "go", "x", body=body)], constants)


@pytest.mark.parametrize("turns, condition", [(None, "same"), (None, "true"), (2**62, "same"), (2**62, "true")])
def test_a_loop_that_never_ends_is_refused(turns: Any, condition: str) -> None:
    with pytest.raises(SerializationError, match="never ends"):
        opened(loop(turns, condition))


@pytest.mark.parametrize("turns, condition, factor", [(3, "same", -1), (2**63 - 1, "made", -1), (None, "made", -1)])
def test_a_loop_that_ends_runs(turns: Any, condition: str, factor: int) -> None:
    """Three turns, or eleven: the body goes on while its number is below ten."""
    assert np.array_equal(opened(loop(turns, condition)).run(x=X)["y"], factor * X)


def endless(condition: str) -> Any:
    """A loop whose condition its body computes, and which always holds."""
    nodes = {
        "equal": [helper.make_node("Equal", ["i", "i"], ["co"])],
        "either": [helper.make_node("Not", ["c"], ["no"]), helper.make_node("Or", ["c", "no"], ["co"])],
    }.get(condition, [helper.make_node("Identity", ["c"], ["co"])])
    body = helper.make_graph(
        [*nodes, helper.make_node("Neg", ["v"], ["vo"])], "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("v")],
        [value("co", TensorProto.BOOL, []), value("vo")],
    )  # fmt: skip
    before = [helper.make_node("Mul", ["big", "big"], ["turns"])] if condition == "turns" else []
    turns = "turns" if before else ""
    return model([*before, node("Loop", turns, "go", "x", body=body)], {"go": np.array(True), "big": np.array(1 << 31)})


@pytest.mark.parametrize("condition", ["equal", "either", "turns"])
def test_a_loop_whose_end_nobody_can_tell_is_stopped(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog_onnx.model.LOOP_SECONDS", 0.01)
    graph = opened(endless(condition))
    for _ in range(2):  # it may be asked again
        with pytest.raises(InvalidInput, match="loops were not done"):
            graph.run(x=X)


def test_graphs_that_are_nested_too_deep_are_refused() -> None:
    inner = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [], [value("y")])
    ends = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", [], [value("y")])
    for _ in range(review.MAX_DEPTH + 1):
        branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=ends)
        inner = helper.make_graph([branch], "g", [], [value("y")])
    with pytest.raises(SerializationError, match="nested deeper"):
        opened(model([branch], {"c": np.array(True)}))


# -- numbers and sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nodes, constants",
    [
        ([node("ConstantOfShape", "s")], {"s": [1 << 20, 1 << 20]}),
        ([node("Expand", "x", "s")], {"s": [1 << 40, 4]}),
        ([node("Tile", "x", "s")], {"s": [1 << 20, 1 << 20]}),
        ([node("Pad", "x", "s")], {"s": [0, 0, 1 << 40, 0]}),
        ([node("OneHot", "x", "d", "v")], {"d": np.array(1 << 40), "v": np.array([0, 1], np.float32)}),
        ([node("Range", "a", "b", "c")], {"a": np.array(0), "b": np.array(1 << 50), "c": np.array(1)}),
        ([node("Range", "a", "b", "c")], {"a": np.array(0), "b": np.array(1), "c": np.array(0)}),
        ([node("Resize", "x", "", "", "s")], {"s": [1 << 20, 1 << 20]}),
        ([node("Resize", "x", "", "f")], {"f": np.array([1e20, 1e20], np.float32)}),
        ([node("RandomNormal", shape=[1 << 20, 1 << 20])], {}),
        ([helper.make_node("Constant", [], ["s"], value_ints=[1 << 40]), node("ConstantOfShape", "s")], {}),
    ],
    ids=lambda item: item[-1].op_type if isinstance(item, list) else "",
)
def test_sizes_that_are_written_in_the_graph_are_bounded(nodes: list[Any], constants: dict[str, Any]) -> None:
    with pytest.raises(SerializationError, match=r"numbers|endless|counts from"):
        opened(model(nodes, {name: np.asarray(array) for name, array in constants.items()}))


@pytest.mark.parametrize(
    "operator, about",
    [
        ("AveragePool", {"kernel_shape": [2, 2**31], "auto_pad": "SAME_LOWER"}),  # hangs
        ("MaxPool", {"kernel_shape": [60000, 60000]}),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [0, 0, -1, 0]}),
        ("ConvTranspose", {"group": 0}),  # divides by it
        ("DepthToSpace", {"blocksize": 2**40}),
        ("Softmax", {"axis": -(2**63)}),
        ("LRN", {"size": 2**62}),
        ("GatherND", {"batch_dims": -2}),  # ends the process
    ],
)
def test_numbers_that_are_out_of_bounds_are_refused(operator: str, about: dict[str, Any]) -> None:
    with pytest.raises(SerializationError, match="and may have"):
        opened(model([node(operator, **about)]))


def test_a_vector_of_less_than_nothing_is_refused() -> None:
    """onnxruntime 1.32 ends the process there (SIGABRT)."""
    with pytest.raises(SerializationError, match="inputdimensions"):
        opened(model([node("FeatureVectorizer", "x", "x", domain="ai.onnx.ml", inputdimensions=[4, -1])]))


def test_a_split_says_how_many_outputs_it_has() -> None:
    """onnxruntime 1.32 ends the process there (SIGABRT)."""
    split = helper.make_node("Split", ["x"], ["y", "z", "v"], num_outputs=2)
    with pytest.raises(SerializationError, match="says another number"):
        opened(model([split]))


@pytest.mark.parametrize(
    "changed",
    [{}, {"ngram_indexes": [0, 1, 2]}, {"ngram_counts": [0, 40]}, {"ngram_counts": [-1, 4]},
     {"ngram_indexes": [0, 1, 2, 3, 4, 5, -1]},
     {"weights": [1.0]}, {"pool_int64s": [1, 2, 3]}],
    ids=str,
)  # fmt: skip
def test_sequences_of_words_fit_the_list_of_words(changed: dict[str, Any]) -> None:
    """onnxruntime 1.32 ends the process where they do not (SIGABRT)."""
    told = {
        "mode": "TF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 0, "ngram_counts": [0, 4],
        "ngram_indexes": [0, 1, 2, 3, 4, 5, 6], "pool_int64s": [2, 3, 5, 4, 5, 6, 7, 8, 6, 7],
    }  # fmt: skip
    nodes = [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64)]
    made = model([*nodes, node("TfIdfVectorizer", "i", **{**told, **changed})])
    if not changed:
        assert opened(made).run(x=X)["y"].shape == (1, 7)
        return
    with pytest.raises(SerializationError, match="sequences of words"):
        opened(made)


@pytest.mark.parametrize("opset", [0, -1, 27, 2**40])
def test_an_opset_that_was_not_tried_is_refused(opset: int) -> None:
    """onnxruntime 1.32 ends the process at a Range of opset 27 whose step is empty (SIGSEGV)."""
    with pytest.raises(NotTrusted, match="wants version"):
        opened(model([node("Neg")], opset=opset))


def test_an_axis_of_a_transform_is_one_number_in_the_graph() -> None:
    """onnxruntime 1.32 reads the first of none (SIGSEGV)."""
    for constants in ({"a": np.zeros(0, np.int64)}, {}):
        with pytest.raises(SerializationError, match="wants one number"):
            opened(model([node("DFT", "x", "", "a" if constants else "x")], constants))


def test_an_input_that_is_empty_when_it_runs_is_an_error() -> None:
    """onnxruntime 1.32 ends the process at each (SIGSEGV, SIGFPE)."""
    made = opened(model([node("ConvTranspose", "x", "w")], {"w": np.ones((1, 2, 3, 3, 3), np.float32)}))
    assert made.run(x=np.ones((1, 1, 2, 2, 2), np.float32))["y"].shape == (1, 2, 4, 4, 4)
    with pytest.raises(InvalidInput, match="out of data bounds"):
        made.run(x=np.ones((1, 1, 0, 4, 5), np.float32))
    constants = {"s": np.ones((0, 3, 4), np.float32), "g": np.ones(4, np.float32)}
    made = opened(model([node("SkipLayerNormalization", "x", "s", "g", domain="com.microsoft")], constants))
    with pytest.raises(InvalidInput, match="out of data bounds"):
        made.run(x=np.ones((2, 3, 4), np.float32))
    made = opened(model([node("InstanceNormalization", "x", "g", "g")], {"g": np.ones(2, np.float32)}))
    assert made.run(x=np.ones((1, 2, 1, 3), np.float32))["y"].shape == (1, 2, 1, 3)
    with pytest.raises(InvalidInput, match=r"out of data bounds"):
        made.run(x=np.ones((1, 2, 1, 0), np.float32))


@pytest.mark.parametrize("empty", [0, 1, 2])
@pytest.mark.parametrize(("operator", "gates"), [("GRU", 3), ("LSTM", 4)])
def test_a_recurrent_network_with_nothing_to_read_is_an_error(operator: str, gates: int, empty: int) -> None:
    """onnxruntime 1.32 calls std::terminate for each of a GRU, and for an LSTM of an empty batch."""
    shape = [3, 2, 4]
    constants = {
        "w": np.ones((1, gates * 5, 0 if empty == 2 else 4), np.float32),
        "r": np.ones((1, gates * 5, 5), np.float32),
    }
    made = opened(model([node(operator, "x", "w", "r", hidden_size=5)], constants))
    if empty != 2:
        assert made.run(x=np.ones(shape, np.float32))["y"].shape == (3, 1, 2, 5)
    shape[empty] = 0
    with pytest.raises(InvalidInput, match="out of data bounds"):
        made.run(x=np.ones(shape, np.float32))


def test_rows_that_are_none_are_not_joined() -> None:
    """onnxruntime 1.32 calls std::terminate."""
    vectorizer = node("FeatureVectorizer", "x", "x", domain="ai.onnx.ml", inputdimensions=[4, 4])
    made = opened(model([vectorizer]))
    assert made.run(x=np.ones((5, 4), np.float32))["y"].shape == (5, 8)
    with pytest.raises(InvalidInput, match="out of data bounds"):
        made.run(x=np.ones((0, 4), np.float32))


# -- memory ----------------------------------------------------------------------------------------------------------

GROWING = {
    "ConstantOfShape": ([helper.make_node("ConstantOfShape", ["x"], ["y"])], {}, [1 << 26]),
    "Expand": ([helper.make_node("Expand", ["c", "x"], ["y"])], {"c": np.ones(1, np.float32)}, [1 << 26]),
    "Tile": ([helper.make_node("Tile", ["c", "x"], ["y"])], {"c": np.ones(1 << 10, np.float32)}, [1 << 16]),
    "Pad": ([helper.make_node("Pad", ["c", "x"], ["y"])], {"c": np.ones(4, np.float32)}, [0, 1 << 26]),
    "Range": (
        [helper.make_node("Squeeze", ["x"], ["n"]), helper.make_node("Range", ["zero", "n", "one"], ["y"])],
        {"zero": np.array(0), "one": np.array(1)}, [1 << 26],
    ),
    "Resize": (
        [helper.make_node("Resize", ["c", "", "", "x"], ["y"], mode="nearest")],
        {"c": np.ones((1, 1, 2, 2), np.float32)}, [1, 1, 1 << 13, 1 << 13],
    ),
    "OneHot": (
        [helper.make_node("OneHot", ["at", "x", "values"], ["y"])],
        {"at": np.array([1]), "values": np.array([0.0, 1.0], np.float32)}, [1 << 26],
    ),
}  # fmt: skip
BOUNDED = """
import sys
import numpy as np
from catalog_core.errors import InvalidInput
from catalog_onnx import memory
from catalog_onnx.model import OnnxModel
memory.bound = lambda: 128 << 20
made = OnnxModel(open(sys.argv[1], "rb").read(), {})
sizes = np.array([int(size) for size in sys.argv[2:]])
assert made.run(x=np.minimum(sizes, 4))["y"].size
try:
    made.run(x=sizes)
except InvalidInput as exc:
    print(exc)
assert made.run(x=np.minimum(sizes, 4))["y"].size
"""


@pytest.mark.parametrize("operator", GROWING)
def test_a_size_that_a_graph_computes_is_bounded_by_memory(operator: str, tmp_path: Path) -> None:
    """256 MiB are refused where 128 are allowed, in a process of its own; and what fits runs on."""
    nodes, constants, sizes = GROWING[operator]
    made = model(nodes, constants)
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.INT64, [len(sizes)]))
    made.graph.output[0].ClearField("type")
    (tmp_path / "graph.onnx").write_bytes(made.SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, tmp_path / "graph.onnx", *map(str, sizes)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "asks for more memory than it may have, 134,217,728 bytes" in done.stdout


def test_only_graphs_that_compute_sizes_share_an_arena() -> None:
    for nodes, constants, _ in GROWING.values():
        assert memory.grows(model(nodes, constants))
    fixed = model([node("Tile", "x", "r")], {"r": np.array([2])})
    assert not memory.grows(fixed) and not memory.grows(model([node("Neg")]))
    assert 0 < memory.bound() < 1 << 50


# -- tensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [[5], [1 << 40], [-4], [-1, -4], [2, 3]])
@pytest.mark.parametrize("raw", [True, False])
def test_a_tensor_that_says_another_shape_is_refused(dims: list[int], raw: bool) -> None:
    made = model([node("Add", "x", "w")], {"w": np.ones(4, np.float32)})
    tensor = made.graph.initializer[0]
    if not raw:
        tensor.ClearField("raw_data")
        tensor.float_data.extend([1.0] * 4)
        opened(made)
    tensor.dims[:] = dims
    with pytest.raises(SerializationError, match=r"by its shape|axis below 0"):
        opened(made)


@pytest.mark.parametrize("place, size", [(9, 4), (-100000, 4), (1, 1 << 40), (1, -4)])
def test_sparse_numbers_lie_in_their_shape(place: int, size: int) -> None:
    made = model([node("Add", "x", "w")])
    numbers = numpy_helper.from_array(np.ones(2, np.float32), "w")
    places = numpy_helper.from_array(np.array([0, place]))
    made.graph.sparse_initializer.append(onnx.SparseTensorProto(values=numbers, indices=places, dims=[size]))
    with pytest.raises(SerializationError, match="sparse tensor"):
        opened(made)


def outside(**told: str) -> Any:
    made = model([node("Add", "x", "w")], {"w": np.ones(4, np.float32)})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in told.items():
        tensor.external_data.add(key=key, value=text)
    return made


@pytest.mark.parametrize("place", ["*/_ORT_MEM_ADDR_/*", "*/_ORT_MEM_ADDR_NATIVE_ENDIAN_/*", "a/*"])
def test_an_address_in_memory_is_no_place_of_data(place: str) -> None:
    """onnxruntime takes the offset of such a tensor as an address, and reads there."""
    made = outside(location=place, offset="4096", length="16")
    with pytest.raises(SerializationError, match="not allowed"):
        OnnxModel(made.SerializeToString(), {place: bytes(8192)})


def test_prepared_weights_do_not_come_from_a_graph() -> None:
    made = outside(location="w.bin", prepacked_0="MatMul+1|0;16;0")
    with pytest.raises(SerializationError, match="tells more"):
        OnnxModel(made.SerializeToString(), {"w.bin": bytes(64)})


@pytest.mark.parametrize("told", [{"length": "8"}, {"length": "1000000"}, {"offset": "60"}])
def test_data_in_files_are_as_many_as_the_shape_says(told: dict[str, str]) -> None:
    OnnxModel(outside(location="w.bin").SerializeToString(), {"w.bin": bytes(64)})
    with pytest.raises(SerializationError, match="bytes"):
        OnnxModel(outside(location="w.bin", **told).SerializeToString(), {"w.bin": bytes(64)})


def test_graphs_that_are_no_graphs_are_refused() -> None:
    cycle = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"]), node("Neg", "b")]
    double = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["a"]), node("Neg", "a")]
    for nodes in (cycle, double, [node("Neg", "nothing")]):
        with pytest.raises(SerializationError, match="onnxruntime refuses"):
            opened(model(nodes))


# -- trees -----------------------------------------------------------------------------------------------------------


def forest(**changed: Any) -> Any:
    told = {
        "nodes_treeids": [0] * 5, "nodes_nodeids": [0, 1, 2, 3, 4], "nodes_featureids": [0, 1, 0, 0, 0],
        "nodes_values": [0.5, 0.3, 0.0, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 3, 0, 0, 0], "nodes_falsenodeids": [2, 4, 0, 0, 0], "target_treeids": [0, 0, 0],
        "target_nodeids": [2, 3, 4], "target_ids": [0, 0, 0], "target_weights": [1.0, 2.0, 3.0], "n_targets": 1,
    }  # fmt: skip
    return model([node("TreeEnsembleRegressor", domain="ai.onnx.ml", **{**told, **changed})])


@pytest.mark.parametrize(
    "changed",
    [
        {"nodes_truenodeids": [0, 3, 0, 0, 0]}, {"nodes_truenodeids": [1, 1, 0, 0, 0]},
        {"nodes_truenodeids": [2, 1, 0, 0, 0]}, {"nodes_falsenodeids": [9, 4, 0, 0, 0]},
        {"nodes_treeids": [0, 1, 0, 0, 0]}, {"nodes_truenodeids": [2, 3, 0, 0, 0]},
        {"nodes_falsenodeids": [-1, 4, 0, 0, 0]}, {"nodes_featureids": [-7, 1, 0, 0, 0]},
        {"nodes_featureids": [2**40, 1, 0, 0, 0]}, {"nodes_nodeids": [0, 1, 2, 3, 3]}, {"nodes_values": [0.5]},
        {"nodes_modes": ["LEAF"]}, {"nodes_modes": ["BRANCH_LEQ", "WILD", "LEAF", "LEAF", "LEAF"]},
        {"target_ids": [0, 7, 0]}, {"target_ids": [0, -1, 0]}, {"target_nodeids": [2, 3, 77]},
        {"target_treeids": [0, 0, 5]},
        {"target_weights": [1.0]}, {"n_targets": 0}, {"n_targets": 2**40}, {"base_values": [0.0, 0.0]},
    ],
    ids=str,
)  # fmt: skip
def test_trees_that_do_not_fit_are_refused(changed: dict[str, Any]) -> None:
    assert opened(forest()).run(x=X)["y"].shape == (1, 1)
    with pytest.raises(SerializationError, match=r"trees of a|and may have"):
        opened(forest(**changed))


def test_a_tree_that_is_too_deep_is_refused() -> None:
    """onnxruntime follows trees by recursion: a chain of 20,000 nodes ends the process."""
    levels = trees.MAX_DEPTH + 1
    nodes = 2 * levels + 1
    inner = np.arange(0, nodes - 1, 2)
    modes = np.array(["LEAF"] * nodes, object)
    true, false = np.zeros(nodes, int), np.zeros(nodes, int)
    modes[inner], true[inner], false[inner] = "BRANCH_LEQ", inner + 1, inner + 2
    leaves = np.flatnonzero(modes == "LEAF").tolist()
    changed = {
        "nodes_treeids": [0] * nodes, "nodes_nodeids": list(range(nodes)), "nodes_featureids": [0] * nodes,
        "nodes_values": [0.0] * nodes, "nodes_modes": modes.tolist(), "nodes_truenodeids": true.tolist(),
        "nodes_falsenodeids": false.tolist(), "target_treeids": [0] * len(leaves), "target_nodeids": leaves,
        "target_ids": [0] * len(leaves), "target_weights": [1.0] * len(leaves),
    }  # fmt: skip
    with pytest.raises(SerializationError, match="deeper than"):
        opened(forest(**changed))


# -- all together ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.campaign), pytest.param(2, marks=pytest.mark.campaign)]
)
def test_changed_graphs_do_not_end_the_process(seed: int) -> None:
    """Each operator of the seeds, with changed attributes, shapes and numbers, opened and run where it opens."""
    script = Path(__file__).with_name("onnx_wild.py")
    rounds = "6" if seed == 0 else "100"
    done = subprocess.run([sys.executable, str(script), str(seed), rounds], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    _, opened_graphs, _, ran = done.stdout.split()
    assert int(opened_graphs) > 50 and int(ran) > 25
