"""Guards that a graph gets before it runs: some operators of onnxruntime end the process when an input is empty, and
what is empty is known only then. A guard costs a few calls on shapes, and copies nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from catalog_core.errors import SerializationError
from catalog_onnx.operators import FILLED
from catalog_onnx.review import messages

_PREFIX = "catalog guard "
OLDEST = 6  # the opset from which on onnxruntime has a Cast, and a Reshape by an input
ADDED = 13  # of a graph that has operators of other domains only
CONVERT = "onnx.version_converter.convert_version(onnx.load(path), 21) makes a newer graph of it: save that"
_KEEPS = ("DequantizeLinear", "QuantizeLinear", "Cast", "Identity", "Transpose")  # what is full stays so


def needs_guards(proto: Any) -> bool:
    """Whether `guard` would change the graph."""
    return any(isinstance(part, onnx.NodeProto) and part.op_type in FILLED for part in messages(proto))


def guard(proto: Any) -> None:
    """Change a graph, and the graphs and functions in it: an empty input of an operator of `FILLED` is an error that
    onnxruntime raises, of a Gather beyond its numbers. Raises `SerializationError` where a guard is needed and the
    opset is older than the guard's operators."""
    count = itertools.count()
    for holder, bodies in [
        (proto, _graphs(proto.graph)), *((function, [function, *_graphs(function)]) for function in proto.functions)
    ]:  # fmt: skip
        for at, body in enumerate(bodies):
            if any(node.op_type in FILLED for node in body.node):
                full = {tensor.name for tensor in getattr(body, "initializer", ()) if all(tensor.dims)}
                if at or holder is not proto:  # the graph's own are never given: a session has no inputs for them
                    full -= {value.name for value in body.input} if isinstance(body, onnx.GraphProto) else set()
                _guard_body(body, count, full, holder.opset_import)
    if any(_version(function.opset_import) for function in proto.functions) and not _version(proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("", ADDED))


def _graphs(body: Any) -> list[Any]:
    """The graphs in a message, itself first if it is one."""
    return [part for part in messages(body) if isinstance(part, onnx.GraphProto)]


def _version(imports: Any) -> int | None:
    return next((part.version for part in imports if part.domain in ("", "ai.onnx")), None)


def _guard_body(body: Any, count: Iterator[int], full: set[str], imports: Any) -> None:
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
    if before:
        _check_opset(nodes, before, imports)
    copies = [onnx.NodeProto.FromString(node.SerializeToString())
              for at, last in enumerate(nodes) for node in (*before.get(at, ()), last)]  # fmt: skip
    del body.node[:]
    body.node.extend(copies)


def _check_opset(nodes: list[Any], before: Iterable[int], imports: Any) -> None:
    """The guard's operators are there in the opset of the graph, which gets one if it has only others."""
    version = _version(imports)
    if version is None:
        imports.append(helper.make_opsetid("", ADDED))
    elif version < OLDEST:
        kind = nodes[min(before)].op_type
        raise SerializationError(
            f"opset {version} of the graph is too old: an empty input of its {kind} would end the process, and a graph "
            f"can be guarded against that from opset {OLDEST} on",
            hint=CONVERT,
        )


def _guarded(name: str, made: str) -> list[Any]:
    """Nodes that give `name` as `made`, if no axis of it is 0. They are written so that any opset from `OLDEST` on has
    them, and says the same by them."""
    row = numpy_helper.from_array(np.array([1, -1], np.float32))  # an early Constant holds no integers
    return [
        helper.make_node("Shape", [name], [f"{made} shape"]),
        helper.make_node("ReduceMin", [f"{made} shape"], [f"{made} least"], keepdims=0),
        helper.make_node("Cast", [f"{made} least"], [f"{made} full"], to=onnx.TensorProto.BOOL),
        helper.make_node("Not", [f"{made} full"], [f"{made} empty"]),
        helper.make_node("Cast", [f"{made} empty"], [f"{made} place"], to=onnx.TensorProto.INT64),
        helper.make_node("Constant", [], [f"{made} numbers"], value=row),
        helper.make_node("Cast", [f"{made} numbers"], [f"{made} row"], to=onnx.TensorProto.INT64),
        helper.make_node("Reshape", [f"{made} shape", f"{made} row"], [f"{made} sizes"]),
        helper.make_node("Gather", [f"{made} sizes", f"{made} place"], [f"{made} size"], axis=0),
        helper.make_node("Reshape", [name, f"{made} size"], [made]),
    ]
