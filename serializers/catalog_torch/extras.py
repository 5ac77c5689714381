"""What the state of a module holds beside tensors: plain data, as `get_extra_state` gives them. Never a pickle.

Stored as JSON in `plain.json`: texts, `true`, `false` and `null` are themselves, all else is an object with one key
that says its type. Tensors, arrays and bytes lie among the weights, under names of their own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from catalog_core import tensors
from catalog_core.digests import canonical, parse
from catalog_core.errors import SerializationError
from catalog_core.interfaces.serializer import Directory, Reader
from catalog_core.shown import an

FILE = "plain.json"
MAX_BYTES = 16 << 20
MAX_DEPTH = 32
_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple}
_TABLES: dict[str, Any] = {"dict": dict, "ordered": OrderedDict}


def split(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a state, and what is none."""
    found = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return found, {key: value for key, value in state.items() if key not in found}


def write(values: Mapping[str, Any], taken: Mapping[str, Any], directory: Directory) -> dict[str, Any]:
    """Write what is plain to `plain.json`. Returns the tensors and arrays within it, by names that are not `taken`, to
    be stored too. Raises `SerializationError` for what is no plain data."""
    parts: dict[str, Any] = {}

    def put(key: str, array: Any) -> str:
        number = len(parts)
        while (name := f"{key}#{number}") in taken or name in parts:
            number += 1
        parts[name] = tensors.check_array(key, array)
        return name

    def encoded(key: str, value: Any, depth: int) -> Any:
        kind = type(value)
        if depth > MAX_DEPTH:
            raise SerializationError(
                f"{key!r} is nested more than {MAX_DEPTH} deep", hint="store tensors, or flat data"
            )
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            return {"int": hex(value)}
        if kind is float:
            return {"float": value.hex()}
        if kind is bytes:
            return {"bytes": put(key, np.frombuffer(value, np.uint8))}
        if isinstance(value, torch.Tensor):
            return {"tensor": put(key, value.detach())}
        if kind is np.ndarray or isinstance(value, np.generic):
            return {"array" if kind is np.ndarray else "scalar": put(key, np.asarray(value))}
        for name, made in _SEQUENCES.items():
            if kind is made:
                return {name: [encoded(key, part, depth + 1) for part in value]}
        for name, made in _TABLES.items():
            if kind is made:
                return {name: [[encoded(key, part, depth + 1) for part in pair] for pair in value.items()]}
        raise SerializationError(
            f"{key!r} of the module's state holds {an(kind.__module__)}.{kind.__qualname__}, which is no plain data",
            hint="get_extra_state may give numbers, texts, bytes, None, tensors, and lists, tuples and dicts of them",
        )

    table = {key: encoded(key, value, 0) for key, value in values.items()}
    try:
        text = canonical(table)
    except (ValueError, TypeError) as exc:
        raise SerializationError(f"the plain data of the module's state cannot be written: {exc}") from exc
    if len(text) > MAX_BYTES:
        raise SerializationError(
            f"the plain data of the module's state take {len(text):,} bytes", hint="keep them as tensors"
        )
    directory.write(FILE, [text])
    return parts


def read(reader: Reader, values: Mapping[str, Any]) -> dict[str, Any]:
    """The plain data of a state; `values` are the stored tensors. A stranger may have written it: raises
    `SerializationError` for what is not as `write` writes it."""
    if FILE not in reader.files:
        return {}
    if reader.files[FILE] > MAX_BYTES:
        raise SerializationError(f"{FILE} is larger than {MAX_BYTES:,} bytes")

    def decoded(value: Any, depth: int) -> Any:
        if value is None or isinstance(value, (bool, str)):
            return value
        if depth > MAX_DEPTH or not isinstance(value, dict) or len(value) != 1:
            raise ValueError("it is nested too deep, or of no known type")
        ((kind, content),) = value.items()
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](decoded(part, depth + 1) for part in content)
        if kind in _TABLES:
            return _TABLES[kind]((decoded(key, depth + 1), decoded(part, depth + 1)) for key, part in content)
        if kind == "int":
            return int(content, 16)
        if kind == "float":
            return float.fromhex(content)
        stored = values[content]
        if kind == "tensor":
            return stored
        if kind == "bytes":
            return bytes(tensors.memory_of(stored))
        if kind in ("array", "scalar"):
            array = stored.cpu().numpy() if isinstance(stored, torch.Tensor) else np.asarray(stored)
            return array if kind == "array" else array[()]
        raise ValueError(f"it holds a {str(kind)[:40]!r}")

    try:
        table = parse(bytes(reader.view(FILE)))
        return {key: decoded(value, 0) for key, value in table.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise SerializationError(f"{FILE} cannot be read: {' '.join(str(exc).split())[:200]}") from exc
