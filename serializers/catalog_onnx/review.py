"""What a graph holds, checked before onnxruntime sees it: operators, sizes, tensors, loops, functions, trees."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx

from catalog_core.errors import InvalidName, NotTrusted, SerializationError
from catalog_core.names import check_file
from catalog_onnx import trees
from catalog_onnx.operators import ALLOWED, BOUNDS, KERNEL, NUMBERS, OPSETS, SHAPES, SIZED, WRITTEN

MAX_NODES = 1 << 20  # of the whole graph, once each function stands where it is called
MAX_DEPTH = 24  # of graphs in graphs, and of functions in functions
SMALL = 4096
_A, _T = onnx.AttributeProto, onnx.TensorProto
_BITS = {
    **dict.fromkeys((_T.FLOAT, _T.INT32, _T.UINT32), 32), **dict.fromkeys((_T.INT64, _T.UINT64, _T.DOUBLE), 64),
    **dict.fromkeys((_T.UINT16, _T.INT16, _T.FLOAT16, _T.BFLOAT16), 16),
    **dict.fromkeys((_T.UINT8, _T.INT8, _T.BOOL), 8),
    _T.COMPLEX64: 64, _T.COMPLEX128: 128,
    **dict.fromkeys((17, 18, 19, 20, 24), 8), 21: 4, 22: 4, 23: 4, 25: 2, 26: 2,
}  # fmt: skip
_KEYS = {"location", "offset", "length", "checksum"}
_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def check(proto: Any) -> dict[str, int]:
    """How often each operator occurs: `domain:operator` → count. Raises `NotTrusted` for what is on no list, and
    `SerializationError` for what is broken or larger than onnxruntime can bear."""
    if any(entry.key == "ort_config" for entry in proto.metadata_props):
        raise NotTrusted(
            "the graph brings settings for onnxruntime (ort_config)", hint="remove them, and save it again"
        )
    if proto.training_info:
        raise NotTrusted("the graph brings steps of training (training_info)", hint="export it for inference")
    for tensor in (part for part in messages(proto) if isinstance(part, _T)):
        _check_tensor(tensor)
    for part in messages(proto):
        if isinstance(part, onnx.SparseTensorProto):
            _check_sparse(part)
    count = _operators(proto)
    _check_functions(proto)
    for body in (proto.graph, *proto.functions):
        _check_body(body, {}, 0)
    return count


def messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages in it."""
    waiting = [message]
    while waiting:
        item = waiting.pop()
        yield item
        for field, value in item.ListFields():
            if field.message_type is not None:
                waiting += [value] if hasattr(value, "ListFields") else list(value)


def external_files(proto: Any) -> dict[str, int]:
    """The files that hold external data: location → how many bytes it must have. Raises `SerializationError` for a
    location that leaves the folder, and for external data in other places than the initializers of the graph."""
    outside = [tensor for tensor in proto.graph.initializer if tensor.data_location == _T.EXTERNAL]
    everywhere = sum(
        isinstance(part, _T) and (part.data_location == _T.EXTERNAL or bool(part.external_data))
        for part in messages(proto)
    )
    if everywhere != len(outside):
        raise SerializationError("external data are read for the initializers of the graph only, not for inner graphs")
    found: dict[str, int] = {}
    for tensor in outside:
        where = f"tensor {tensor.name[:80]!r}"
        told = {entry.key: entry.value for entry in tensor.external_data}
        if len(told) != len(tensor.external_data) or not told.keys() <= _KEYS:
            raise SerializationError(  # onnxruntime would take prepared weights from there, and trust them
                f"{where} tells more of its data than {', '.join(sorted(_KEYS))}, once each"
            )
        try:
            name = check_file(told.get("location"))
            offset, length = int(told.get("offset") or 0), int(told.get("length") or 0)
        except (InvalidName, ValueError) as exc:
            raise SerializationError(f"{where} has its data in a place that is not allowed: {exc}") from exc
        if "*" in name or "_ORT_MEM_ADDR_" in name:  # onnxruntime reads the offset as an address in memory
            raise SerializationError(f"{where} has its data in a place that is not allowed: {name!r}")
        if offset < 0 or length < 0:
            raise SerializationError(f"{where} begins before its file")
        size = _bytes_of(tensor, where)
        if "length" in told and told["length"] and length != size:
            raise SerializationError(f"{where} is {size:,} bytes by its shape, and {length:,} in its file")
        found[name] = max(found.get(name, 0), offset + size)
    return found


def _bytes_of(tensor: Any, where: str) -> int:
    if tensor.data_type not in _BITS:
        raise SerializationError(f"{where} is of no type that has a size ({tensor.data_type})")
    return (_numbers_of(tensor.dims, where) * _BITS[tensor.data_type] + 7) // 8


def _numbers_of(dims: Any, where: str) -> int:
    if len(dims) > 64 or any(axis < 0 for axis in dims):
        raise SerializationError(f"{where} has an axis below 0, or more than 64 axes")
    return math.prod(dims)


def _check_tensor(tensor: Any) -> None:
    """The numbers of a tensor are as many as its shape says."""
    where = f"tensor {tensor.name[:80]!r}"
    if tensor.HasField("segment"):
        raise SerializationError(f"{where} is a piece of one")
    if tensor.data_location == _T.EXTERNAL:
        return
    count, kind = _numbers_of(tensor.dims, where), tensor.data_type
    if kind == _T.STRING:
        given, wanted = len(tensor.string_data), {count}
    elif tensor.HasField("raw_data"):
        given, wanted = len(tensor.raw_data), {_bytes_of(tensor, where)}
    else:
        given = sum(len(getattr(tensor, name)) for name in _TYPED)
        bits = _bytes_of(tensor, where) * 8
        wanted = {2 * count} if kind in (_T.COMPLEX64, _T.COMPLEX128) else {count}
        wanted |= {(bits + 7) // 8, (bits + 31) // 32} if _BITS[kind] < 8 else set()
    if given not in wanted:
        raise SerializationError(f"{where} says {count:,} numbers by its shape, and holds others ({given:,})")


def _check_sparse(sparse: Any) -> None:
    """The places of a sparse tensor's numbers are in its shape, and it is small enough to be written out."""
    where = f"sparse tensor {sparse.values.name[:80]!r}"
    size, count = _numbers_of(sparse.dims, where), _numbers_of(sparse.values.dims, where)
    if size > max(1 << 24, 64 * count):
        raise SerializationError(f"{where} is written out as {size:,} numbers, of which it holds {count:,}")
    try:
        places = onnx.numpy_helper.to_array(sparse.indices)
    except (ValueError, TypeError, KeyError) as exc:
        raise SerializationError(f"{where} is broken: {exc}") from exc
    ends = np.array([size] if places.ndim == 1 else list(sparse.dims), np.int64)
    fits = places.dtype.kind in "iu" and places.shape in ((count,), (count, len(sparse.dims)))
    if not fits or (places.size and ((places < 0).any() or (places >= ends).any())):
        raise SerializationError(f"{where} has numbers at places that are not in its shape")


def _operators(proto: Any) -> dict[str, int]:
    own = {(function.domain, function.name) for function in proto.functions}
    for domain, name in sorted(own):
        if domain in ALLOWED:  # onnxruntime may run its own operator of that name instead
            raise NotTrusted(f"the graph defines {name[:80]!r} in the domain {domain!r}, which is not its own")
    for part in (
        *proto.opset_import,
        *(imported for function in proto.functions for imported in function.opset_import),
    ):
        if part.domain not in ALLOWED and part.domain not in {domain for domain, _ in own}:
            raise NotTrusted(f"the graph wants operators of {part.domain[:80]!r}, which no installed library has")
        if part.domain in OPSETS and not 1 <= part.version <= OPSETS[part.domain]:
            raise NotTrusted(
                f"the graph wants version {part.version} of {part.domain or 'ai.onnx'}, of 1 to {OPSETS[part.domain]}",
                hint="export it for an opset in these bounds",
            )
    count: Counter[str] = Counter()
    for node in messages(proto):
        if not isinstance(node, onnx.NodeProto) or (node.domain, node.op_type) in own:
            continue
        if node.op_type not in ALLOWED.get(node.domain, ()):
            raise NotTrusted(
                f"operator {node.op_type[:80]!r} of {node.domain[:80]!r} is not on the list",
                hint="the list: catalog_onnx.operators.ALLOWED",
            )
        count[f"{node.domain or 'ai.onnx'}:{node.op_type}"] += 1
    return dict(sorted(count.items()))


def _check_functions(proto: Any) -> None:
    """Functions call no function that calls them, and are not too much once each stands where it is called."""
    bodies = {(function.domain, function.name, function.overload): function for function in proto.functions}
    if len(bodies) != len(proto.functions):
        raise SerializationError("two functions of the graph have one name")
    sizes: dict[Any, int] = {}

    def size(key: Any, body: Any, above: tuple[Any, ...]) -> int:
        if key in above or len(above) > MAX_DEPTH:
            raise SerializationError(f"function {str(key[1])[:80]!r} calls itself, or lies too deep")
        if key not in sizes:
            total = 0
            for node in messages(body):
                if isinstance(node, onnx.NodeProto):
                    called = (node.domain, node.op_type, node.overload)
                    total += size(called, bodies[called], (*above, key)) if called in bodies else 1
            if total > MAX_NODES:
                raise SerializationError(f"the graph has more than {MAX_NODES:,} nodes, with its functions in place")
            sizes[key] = total
        return sizes[key]

    for key, function in bodies.items():
        size(key, function, ())
    size(("", "graph", None), proto.graph, ())


def _check_body(body: Any, known: Mapping[str, Any], depth: int) -> None:
    """The nodes of a graph or function. `known`: small constants of the graphs around it, by name."""
    if depth > MAX_DEPTH:
        raise SerializationError(f"graphs are nested deeper than {MAX_DEPTH}")
    known = {**known, **constants(body, top=depth == 0)}
    for node in body.node:
        told = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute
                if not attribute.ref_attr_name and attribute.type not in (_A.UNDEFINED,)}  # fmt: skip
        where = f"node {(node.name or node.op_type)[:80]!r}"
        for attribute in node.attribute:
            if node.domain in ALLOWED and node.op_type != "Constant":
                _check_numbers(where, attribute, node.op_type)
        _check_sizes(where, node, told, known)
        if node.op_type in trees.KINDS:
            trees.check_trees(node, _plain(told))
        if node.op_type == "StringNormalizer" and not re.fullmatch(rb"[\w.@-]{0,40}", told.get("locale", b"")):
            raise SerializationError(f"{where} names a locale that is none")
        if node.op_type == "Split" and told.get("num_outputs", len(node.output)) != len(node.output):
            raise SerializationError(f"{where} has {len(node.output)} outputs, and says another number of them")
        if node.op_type == "TfIdfVectorizer":
            _check_words(where, told)
        if node.op_type == "Loop":
            _check_loop(where, node, told, known)
        for attribute in node.attribute:
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                _check_body(inner, known, depth + 1)


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with tensors as arrays."""
    return {name: onnx.numpy_helper.to_array(value) if isinstance(value, _T) else value for name, value in told.items()}


def constants(body: Any, top: bool = False) -> dict[str, Any]:
    """The small tensors of numbers that are written in a body, by name. `top`: it is the graph itself, which old files
    list among its inputs, too; no session takes them."""
    given = {value.name for value in body.input} if isinstance(body, onnx.GraphProto) and not top else set()
    found = {tensor.name: tensor for tensor in getattr(body, "initializer", ()) if tensor.name not in given}
    for node in body.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.output:
            found[node.output[0]] = node.attribute[0]
    arrays: dict[str, Any] = {}
    for name, value in found.items():
        try:
            if isinstance(value, _A):
                value = onnx.helper.get_attribute_value(value)
            if isinstance(value, _T):
                if value.data_location == _T.EXTERNAL or _numbers_of(value.dims, name) > SMALL:
                    continue
                value = onnx.numpy_helper.to_array(value)
            array = np.asarray(value)
        except (ValueError, TypeError, KeyError):
            continue
        if array.size <= SMALL and array.dtype.kind in "iufb":
            arrays[name] = array
    return arrays


def _check_numbers(where: str, attribute: Any, kind: str) -> None:
    if attribute.name not in BOUNDS or attribute.type not in (_A.INT, _A.INTS):
        return
    numbers = [attribute.i] if attribute.type == _A.INT else list(attribute.ints)
    low, high = BOUNDS[attribute.name]
    low = -high if kind == "Pad" else low  # it cuts off
    if any(not low <= number <= high for number in numbers):
        raise SerializationError(f"{where} has {attribute.name}={numbers!r:.80}, and may have {low:,} to {high:,}")
    if attribute.name == "kernel_shape" and math.prod(numbers) > KERNEL:
        raise SerializationError(f"{where} has a window of {math.prod(numbers):,} places, and may have {KERNEL:,}")


def _check_sizes(where: str, node: Any, told: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Sizes that are written in the graph make at most `NUMBERS` numbers in one call."""
    given = [known.get(name) for name in node.input]
    sizes = [given[at] for at in SIZED.get(node.op_type, ()) if at < len(given)]
    if node.op_type in SHAPES and SHAPES[node.op_type] in told:
        sizes.append(np.atleast_1d(told[SHAPES[node.op_type]]))
    for size in sizes:
        if size is None or size.dtype.kind not in "iuf":
            continue
        parts = [abs(float(part)) for part in size.ravel().tolist()]
        if any(not math.isfinite(part) for part in parts):
            raise SerializationError(f"{where} makes an endless output")
        if math.prod(max(1.0, part) for part in parts) > NUMBERS:
            raise SerializationError(f"{where} makes {size.ravel().tolist()!r:.80}: more than {NUMBERS:,} numbers")
    for at in WRITTEN.get(node.op_type, ()):
        size = given[at] if at < len(given) else None
        if at < len(given) and node.input[at] and (size is None or size.size != 1):
            raise SerializationError(f"{where} wants one number, written in the graph, as its input {at}")
    if node.op_type == "Range" and len(given) == 3 and all(part is not None and part.size == 1 for part in given):
        start, limit, step = (float(part.ravel()[0]) for part in given)  # type: ignore[union-attr]
        if not step or not (limit - start) / step <= NUMBERS:
            raise SerializationError(f"{where} counts from {start:g} to {limit:g} by {step:g}")


def _check_words(where: str, told: Mapping[str, Any]) -> None:
    """Each sequence of words has a place, and the places and weights are as many."""
    pool = len(told.get("pool_int64s") or told.get("pool_strings") or ())
    starts, places = list(told.get("ngram_counts", ())), list(told.get("ngram_indexes", ()))
    ends = [*starts[1:], pool]
    fits = (
        bool(starts)
        and starts[0] == 0
        and all(0 <= start <= end <= pool for start, end in zip(starts, ends, strict=True))
    )
    if fits:
        lengths = [(end - start, words + 1) for words, (start, end) in enumerate(zip(starts, ends, strict=True))]
        count = sum(length // words for length, words in lengths)
        fits = all(length % words == 0 for length, words in lengths) and count == len(places)
    if (
        not fits
        or not all(0 <= place < 1 << 24 for place in places)
        or len(told.get("weights") or places) != len(places)
    ):
        raise SerializationError(f"{where} has sequences of words that do not fit its list of words")


def _check_loop(where: str, node: Any, told: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """A loop has a number of turns, or its body makes a condition. Whether that condition ever fails nobody can tell
    from outside: `OnnxModel.run` stops a graph whose loops go on."""
    body = told.get("body")
    if not isinstance(body, onnx.GraphProto) or len(node.input) < 2 or len(body.input) < 2 or not body.output:
        raise SerializationError(f"{where} has no body, or one that does not fit it")
    turns = known.get(node.input[0]) if node.input[0] else None
    if node.input[0] and (turns is None or turns.size != 1 or int(turns.ravel()[0]) <= NUMBERS):
        return
    made = {output: inner for inner in body.node for output in inner.output}
    name, inside = body.output[0].name, {**known, **constants(body)}
    for _ in range(len(made) + 1):
        if name not in made or made[name].op_type not in ("Identity", "Cast") or not made[name].input:
            break
        name = made[name].input[0]
    constant = inside.get(name)
    if name == body.input[1].name or (constant is not None and constant.size == 1 and bool(constant.ravel()[0])):
        raise SerializationError(f"{where} never ends: it has no number of turns, and its condition stays as it was")
