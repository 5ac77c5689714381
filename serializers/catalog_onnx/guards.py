"""Guards that a graph gets before it runs: some operators of onnxruntime end the process when an input is empty, and
what is empty is known only then. A guard costs a few calls on shapes, and copies nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from catalog_onnx.operators import FILLED
from catalog_onnx.review import messages

_PREFIX = "catalog guard "
_KEEPS = ("DequantizeLinear", "QuantizeLinear", "Cast", "Identity", "Transpose")  # what is full stays so


def needs_guards(proto: Any) -> bool:
    """Whether `guard` would change the graph."""
    return any(isinstance(part, onnx.NodeProto) and part.op_type in FILLED for part in messages(proto))


def guard(proto: Any) -> None:
    """Change a graph, and the graphs and functions in it: an empty input of an operator of `FILLED` is an error that
    onnxruntime raises, of a Gather beyond its numbers."""
    count = itertools.count()
    for body in [part for part in messages(proto) if isinstance(part, (onnx.GraphProto, onnx.FunctionProto))]:
        if any(node.op_type in FILLED for node in body.node):
            _guard_body(body, count)


def _guard_body(body: Any, count: Iterator[int]) -> None:
    full = {tensor.name for tensor in getattr(body, "initializer", ()) if all(tensor.dims)}
    full -= {value.name for value in body.input} if isinstance(body, onnx.GraphProto) else set()
    makers = {output: at for at, node in enumerate(body.node) for output in node.output}
    nodes, before = list(body.node), dict[int, list[Any]]()
    for at, node in enumerate(nodes):
        for which in FILLED.get(node.op_type, ()):
            if which >= len(node.input) or not node.input[which]:
                continue
            place, number = at, which
            while (maker := makers.get(nodes[place].input[number], place)) < place and nodes[maker].op_type in _KEEPS:
                place, number = maker, 0  # before what is fused with it
            name = nodes[place].input[number]
            if name not in full and not name.startswith(_PREFIX):
                nodes[place].input[number] = made = f"{_PREFIX}{next(count)}"
                before.setdefault(place, []).extend(_guarded(name, made))
    copies = [onnx.NodeProto.FromString(node.SerializeToString())
              for at, last in enumerate(nodes) for node in (*before.get(at, ()), last)]  # fmt: skip
    del body.node[:]
    body.node.extend(copies)


def _guarded(name: str, made: str) -> list[Any]:
    """Nodes that give `name` as `made`, if no axis of it is 0."""

    def constant(output: str, number: int) -> Any:
        return helper.make_node("Constant", [], [output], value=numpy_helper.from_array(np.array([number], np.int64)))

    return [
        helper.make_node("Shape", [name], [f"{made} shape"]),
        helper.make_node("ReduceMin", [f"{made} shape"], [f"{made} least"], keepdims=1),
        constant(f"{made} zero", 0),
        constant(f"{made} one", 1),
        helper.make_node("Equal", [f"{made} least", f"{made} zero"], [f"{made} empty"]),
        helper.make_node("Cast", [f"{made} empty"], [f"{made} place"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", [f"{made} one", f"{made} place"], [f"{made} factor"]),
        helper.make_node("Mul", [f"{made} shape", f"{made} factor"], [f"{made} size"]),
        helper.make_node("Reshape", [name, f"{made} size"], [made]),
    ]
