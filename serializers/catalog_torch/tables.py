"""The tensors that an archive names: held against what is stored, before torch makes any of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from catalog_core.errors import SerializationError

# torch's own numbers of types (torch._export.serde.schema.ScalarType)
DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn",
    30: "float8_e5m2",
}  # fmt: skip
MAX_REPEATED = 1 << 28  # elements that a constant may have of fewer bytes


def layout_of(key: str, meta: Any) -> tuple[torch.dtype, list[int], list[int], int]:
    """Dtype, sizes, strides and offset (in elements) of a tensor in a table. Raises `SerializationError`."""
    try:
        dtype = getattr(torch, DTYPES[meta["dtype"]])
        sizes, strides = ([axis["as_int"] for axis in meta[kind]] for kind in ("sizes", "strides"))
        offset = meta["storage_offset"]["as_int"]
        numbers = [*sizes, *strides, offset]
        if not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers) or len(sizes) != len(strides):
            raise ValueError("sizes, strides and offsets are whole numbers from 0")
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise SerializationError(f"the tensor {key[:100]!r} is described wrongly: {str(exc)[:200]}") from exc
    return dtype, sizes, strides, offset


def fits(key: str, meta: Any, size: int) -> None:
    """Whether a tensor of an archive lies in its `size` bytes, and is no larger: torch makes one of zeros, however
    large, where there are no bytes. Raises `SerializationError`."""
    dtype, sizes, strides, offset = layout_of(key, meta)
    item = torch.empty((), dtype=dtype).element_size()
    if 0 in sizes:
        return
    last = offset + sum((count - 1) * step for count, step in zip(sizes, strides, strict=True))
    if (last + 1) * item > size or (math.prod(sizes) * item > size and math.prod(sizes) > MAX_REPEATED):
        raise SerializationError(
            f"the tensor {key[:100]!r} has the shape {sizes}, and {size:,} bytes are stored for it",
            hint="the archive is damaged, or made to exhaust memory",
        )


def items_of(whole: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a table; where they lie is the name of a member. Raises `SerializationError`."""
    config = whole.get("config")
    if not isinstance(config, dict) or not all(isinstance(item, dict) for item in config.values()):
        raise SerializationError("the archive's table of tensors cannot be read")
    for key, item in config.items():
        if item.get("use_pickle"):
            raise SerializationError(f"{key} is stored as a pickle, which is never read")
        if not re.fullmatch(r"(weight|tensor)_\d+", str(item.get("path_name"))):
            raise SerializationError(f"{key} lies at {item.get('path_name')!r}, which is not a member's name")
        yield key, item


def placeholder(item: dict[str, Any], tensor: torch.Tensor) -> bytes:
    """One element that stands for all of a weight, until the weight itself takes its place."""
    meta = item.get("tensor_meta")
    if not isinstance(meta, dict):
        raise SerializationError("the archive's table of tensors cannot be read")
    meta.update(
        sizes=[{"as_int": size} for size in tensor.shape],
        strides=[{"as_int": 0} for _ in tensor.shape],
        storage_offset={"as_int": 0},
    )
    return bytes(tensor.element_size() if tensor.numel() else 0)


def check_weights(graph: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> None:
    """Whether the weights that the graph says it takes are those that are stored: names, dtypes and shapes. Raises
    `SerializationError`."""
    try:
        module = graph["graph_module"]
        metas, specs = module["graph"]["tensor_values"], module["signature"]["input_specs"]
        wanted = [
            (spec[kind][f"{kind}_name"], metas[spec[kind]["arg"]["name"]])
            for spec in specs
            for kind in ("parameter", "buffer")
            if kind in spec and spec[kind] is not None and (kind == "parameter" or spec[kind]["persistent"])
        ]
    except (KeyError, TypeError, AttributeError) as exc:
        raise SerializationError(f"the signature of the graph cannot be read: {str(exc)[:200]}") from exc
    for key, meta in wanted:
        if type(key) is not str or not isinstance(meta, dict):
            raise SerializationError(f"the signature of the graph cannot be read: {str(key)[:100]!r} is no weight")
        if key not in state:
            raise SerializationError(f"the graph needs {str(key)[:100]}, which is not among the stored weights")
        dtype, sizes, _, _ = layout_of(key, {**meta, "strides": meta.get("sizes"), "storage_offset": {"as_int": 0}})
        if (dtype, sizes) != (state[key].dtype, list(state[key].shape)):
            raise SerializationError(
                f"the graph takes {key[:100]} as {dtype} {sizes}, stored is {state[key].dtype} {list(state[key].shape)}"
            )
