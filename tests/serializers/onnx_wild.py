"""Change graphs at random and run what still opens, in a process of its own: `onnx_wild.py SEED ROUNDS`.

It prints how many opened and how many ran. It must not end by a signal."""

from __future__ import annotations

import random
import resource
import sys
from typing import Any

import numpy as np
from onnx import AttributeProto as A
from onnx import TensorProto, helper, numpy_helper

from catalog_core.errors import CatalogError
from catalog_onnx.model import OnnxModel

INTEGERS = [-1, 0, 1, 2, 3, 7, 64, 1000, 10**6, -2, -1000, 2**31 - 1, -(2**31), 2**31, 2**40, 2**63 - 1, -(2**63)]
FLOATS = [float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 1e30, -1e30, 0.5]
TEXTS = [b"", b"x", b"NOTSET", b"VALID", b"SAME_UPPER", b"LEAF", b"BRANCH_LEQ"]
R = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return R.random(shape, np.float32)


def tree(**more: Any) -> dict[str, Any]:
    return {
        "nodes_treeids": [0] * 5, "nodes_nodeids": [0, 1, 2, 3, 4], "nodes_featureids": [0, 1, 0, 0, 0],
        "nodes_values": [0.5, 0.3, 0.0, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 3, 0, 0, 0], "nodes_falsenodeids": [2, 4, 0, 0, 0], **more,
    }  # fmt: skip


# operator, domain, inputs, number of outputs, attributes
SEEDS: list[tuple[str, str, list[Any], int, dict[str, Any]]] = [
    ("Conv", "", [floats(1, 2, 6, 6), floats(4, 2, 3, 3)], 1, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("ConvTranspose", "", [floats(1, 1, 3, 3, 3), floats(1, 2, 3, 3, 3)], 1, {"strides": [1, 1, 1], "group": 1}),
    ("AveragePool", "", [floats(1, 2, 6, 6)], 1, {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", "", [floats(1, 2, 6, 6)], 2, {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [1, 1]}),
    ("Gather", "", [floats(4, 3), np.array([0, 2])], 1, {"axis": 0}),
    ("GatherND", "", [floats(4, 3), np.array([[0, 2]])], 1, {"batch_dims": 0}),
    ("ScatterElements", "", [floats(4, 3), np.array([[0, 2, 1]]), floats(1, 3)], 1, {"axis": 0}),
    ("ScatterND", "", [floats(4, 3), np.array([[0]]), floats(1, 3)], 1, {}),
    ("Slice", "", [floats(4, 3), np.array([0]), np.array([2]), np.array([1]), np.array([1])], 1, {}),
    ("Pad", "", [floats(4, 3), np.array([0, 0, 1, 1])], 1, {"mode": "reflect"}),
    ("Resize", "", [floats(1, 1, 4, 4), None, None, np.array([1, 1, 8, 8])], 1, {"mode": "cubic"}),
    ("Tile", "", [floats(2, 3), np.array([2, 2])], 1, {}),
    ("Expand", "", [floats(1, 3), np.array([4, 3])], 1, {}),
    ("OneHot", "", [np.array([0, 1]), np.array(4), floats(2)], 1, {"axis": -1}),
    ("ConstantOfShape", "", [np.array([2, 3])], 1, {"value": numpy_helper.from_array(np.array([1.0], np.float32))}),
    ("Range", "", [np.array(0), np.array(9), np.array(2)], 1, {}),
    ("DFT", "", [floats(1, 8, 8, 1), None, np.array(1)], 1, {"onesided": 1}),
    ("LSTM", "", [floats(3, 2, 4), floats(1, 20, 4), floats(1, 20, 5)], 3, {"hidden_size": 5}),
    ("GRU", "", [floats(3, 2, 4), floats(1, 15, 4), floats(1, 15, 5)], 2, {"hidden_size": 5}),
    ("Col2Im", "", [floats(1, 4, 9), np.array([4, 4]), np.array([2, 2])], 1, {"dilations": [1, 1]}),
    ("TopK", "", [floats(3, 5), np.array([2])], 2, {"axis": 1}),
    ("TreeEnsembleRegressor", "ai.onnx.ml", [floats(5, 4)], 1,
     tree(target_treeids=[0] * 3, target_nodeids=[2, 3, 4], target_ids=[0] * 3, target_weights=[1.0, 2.0, 3.0],
          n_targets=1)),
    ("TreeEnsembleClassifier", "ai.onnx.ml", [floats(5, 4)], 2,
     tree(class_treeids=[0] * 3, class_nodeids=[2, 3, 4], class_ids=[0, 1, 2], class_weights=[1.0, 2.0, 3.0],
          classlabels_int64s=[0, 1, 2], post_transform="SOFTMAX")),
    ("FeatureVectorizer", "ai.onnx.ml", [floats(5, 4), floats(5, 4)], 1, {"inputdimensions": [4, 4]}),
    ("LinearClassifier", "ai.onnx.ml", [floats(5, 4)], 2,
     {"coefficients": [1.0] * 12, "intercepts": [1.0, 2.0, 3.0], "classlabels_ints": [0, 1, 2]}),
    ("SVMClassifier", "ai.onnx.ml", [floats(5, 4)], 2,
     {"coefficients": [1.0] * 4, "kernel_params": [0.1, 0.0, 3.0], "kernel_type": "RBF", "vectors_per_class": [2, 2],
      "rho": [0.1], "support_vectors": [1.0] * 16, "classlabels_ints": [0, 1]}),
    ("SkipLayerNormalization", "com.microsoft", [floats(2, 3, 4), floats(2, 3, 4), floats(4), floats(4)], 1, {}),
    ("FusedMatMul", "com.microsoft", [floats(2, 3, 4), floats(2, 4, 5)], 1, {"alpha": 1.0, "transA": 0}),
]  # fmt: skip


def change_array(draw: random.Random, array: Any) -> Any:
    how = draw.randrange(6)
    if how < 2 and array.size:
        changed = array.copy().reshape(-1)
        with np.errstate(all="ignore"):
            value = np.array(draw.choice(INTEGERS)) if array.dtype.kind == "i" else np.array(draw.choice(FLOATS))
            changed[draw.randrange(changed.size)] = value.astype(array.dtype)
        return changed.reshape(array.shape)
    if how == 2 and array.ndim:
        return np.repeat(array, 2, axis=draw.randrange(array.ndim))
    if how == 3 and array.ndim:
        return array[: array.shape[0] // 2]
    if how == 4:
        return np.expand_dims(array, 0)
    shape = list(array.shape)
    if shape:
        shape[draw.randrange(len(shape))] = 0
    return np.zeros(shape, array.dtype)


def change_attribute(draw: random.Random, attribute: Any) -> None:
    if attribute.type == A.INT:
        attribute.i = draw.choice(INTEGERS)
    elif attribute.type == A.FLOAT:
        attribute.f = draw.choice(FLOATS)
    elif attribute.type == A.STRING:
        attribute.s = draw.choice(TEXTS)
    elif attribute.type in (A.INTS, A.FLOATS, A.STRINGS):
        field, pool = {A.INTS: ("ints", INTEGERS), A.FLOATS: ("floats", FLOATS), A.STRINGS: ("strings", TEXTS)}[
            attribute.type
        ]
        values = list(getattr(attribute, field))
        if draw.randrange(2) and values:
            values[draw.randrange(len(values))] = draw.choice(pool)
        else:
            values = draw.choice([values[:-1], values[: len(values) // 2], values * 2, []])
        attribute.ClearField(field)
        getattr(attribute, field).extend(values)


def graph(draw: random.Random, seed: tuple[str, str, list[Any], int, dict[str, Any]]) -> tuple[bytes, dict[str, Any]]:
    """A graph of one operator, changed in one to three places, and what to run it on."""
    operator, domain, arrays, outputs, about = seed
    named = {f"i{at}": array for at, array in enumerate(arrays) if array is not None}
    inputs = [f"i{at}" if array is not None else "" for at, array in enumerate(arrays)]
    node = helper.make_node(operator, inputs, [f"o{at}" for at in range(outputs)], domain=domain, **about)
    for _ in range(draw.randrange(1, 4)):
        if node.attribute and draw.randrange(2):
            change_attribute(draw, draw.choice(node.attribute))
        elif named:
            key = draw.choice(sorted(named))
            named[key] = change_array(draw, named[key])
    constant = {key for key in named if draw.randrange(3) == 0}
    kinds = {key: helper.np_dtype_to_tensor_dtype(array.dtype) for key, array in named.items()}
    made = helper.make_graph(
        [node], "wild",
        [helper.make_tensor_value_info(key, kinds[key], None) for key in named if key not in constant],
        [helper.make_tensor_value_info(f"o{at}", TensorProto.UNDEFINED, None) for at in range(outputs)],
        [numpy_helper.from_array(np.ascontiguousarray(named[key]).reshape(named[key].shape), key) for key in constant],
    )  # fmt: skip
    for value in made.output:
        value.ClearField("type")
    opsets = [
        helper.make_opsetid("", 20),
        helper.make_opsetid("ai.onnx.ml", 3),
        helper.make_opsetid("com.microsoft", 1),
    ]
    data = helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString()
    return data, {key: array for key, array in named.items() if key not in constant}


def main(seed: int, rounds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    draw, opened, ran = random.Random(seed), 0, 0
    for _ in range(rounds):
        for start in SEEDS:
            data, inputs = graph(draw, start)
            try:
                model = OnnxModel(data, {})
                session = model.session
            except CatalogError:
                continue
            opened += 1
            try:
                session.run(None, inputs)
                ran += 1
            except Exception:
                continue
    print("opened", opened, "ran", ran)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
