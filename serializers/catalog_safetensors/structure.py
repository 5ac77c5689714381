"""Nested mappings and lists ↔ one flat dictionary of arrays and a JSON tree that says where each belongs.

A name is the path joined by `/`: `~` is written `~0`, `/` `~1`, a leading `#` of a text key `~2`; integer keys and
positions are `#n`. So two paths never share a name.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from catalog_core.errors import SerializationError
from catalog_core.shown import an
from catalog_core.tensors import is_torch, to_array

MAX_DEPTH = 64


def is_array(value: Any) -> bool:
    """Whether `value` is an array of NumPy or JAX (which is stored as NumPy's), a NumPy scalar or a torch tensor."""
    jax = sys.modules.get("jax")
    of_jax = jax is not None and isinstance(value, jax.Array)
    return isinstance(value, (np.ndarray, np.generic)) or is_torch(value) or of_jax


def segment(key: str | int) -> str:
    """One part of a path, escaped."""
    if isinstance(key, int):
        return f"#{key}"
    text = key.replace("~", "~0").replace("/", "~1")
    return "~2" + text[1:] if text.startswith("#") else text


def flatten(obj: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The arrays by name, and the tree (None for a flat dictionary of arrays, whose names stay as they are).

    Raises `SerializationError` with the path for what safetensors cannot hold."""
    if not isinstance(obj, Mapping):
        raise SerializationError(
            f"safetensors holds a dictionary of arrays, not {an(type(obj).__name__)}",
            hint="serializer='pytree' takes an array, a list or tuple of them, a dataclass",
        )
    if all(isinstance(key, str) and is_array(value) for key, value in obj.items()):
        return {key: to_array(key, value) for key, value in obj.items()}, None
    arrays: dict[str, Any] = {}
    return arrays, _node(obj, (), arrays)


def _node(value: Any, path: tuple[str, ...], arrays: dict[str, Any]) -> dict[str, Any]:
    name = "/".join(path)
    if len(path) > MAX_DEPTH:
        raise SerializationError(f"nested deeper than {MAX_DEPTH} at {name[:80]!r}", hint="does it hold itself?")
    if is_array(value):
        arrays[name] = to_array(name, value)
        return {"array": name}
    if value is None or type(value) in (bool, str):
        return {"value": value}
    if type(value) is int:
        return {"int": str(value)}
    if type(value) is float:
        return {"float": value.hex()}
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int):
                raise SerializationError(
                    f"the key {key!r} at {name!r} is {an(type(key).__name__)}, not a text or integer"
                )
        items = [
            [key if isinstance(key, str) else {"int": str(key)}, _node(item, (*path, segment(key)), arrays)]
            for key, item in value.items()
        ]
        return {"ordered" if isinstance(value, OrderedDict) else "dict": items}
    if type(value) in (list, tuple):
        nodes = [_node(item, (*path, segment(at)), arrays) for at, item in enumerate(value)]
        return {"list" if type(value) is list else "tuple": nodes}
    raise SerializationError(
        f"{name!r} is {an(type(value).__name__)}, not a NumPy array, torch tensor or plain value",
        hint="serializer='pytree' takes named tuples and what JAX knows",
    )


def restore(node: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    """What `flatten` took apart. A tree that lies raises `SerializationError`."""
    try:
        return _restored(node, arrays)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as exc:
        raise SerializationError(f"the stored structure is broken: {exc!r}") from exc


def _restored(node: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    ((kind, value),) = node.items()
    if kind == "array":
        return arrays[value]
    if kind == "value":
        return value
    if kind == "int":
        return int(value)
    if kind == "float":
        return float.fromhex(value)
    if kind in ("dict", "ordered"):
        pairs = [(key if isinstance(key, str) else int(key["int"]), _restored(item, arrays)) for key, item in value]
        return dict(pairs) if kind == "dict" else OrderedDict(pairs)
    if kind in ("list", "tuple"):
        items = [_restored(item, arrays) for item in value]
        return items if kind == "list" else tuple(items)
    raise ValueError(f"unknown kind {kind!r}")


def check_state(live: Mapping[str, Any], stored: Any) -> None:
    """Whether a stored state fits a live one: the same keys and, for optimizers, the same groups with as many
    parameters. Raises `SerializationError` before anything changes."""
    if not isinstance(stored, Mapping) or set(live) != set(stored):
        raise SerializationError("the stored state has other keys than the live object", hint="nothing was changed")
    try:
        groups = [[len(group["params"]) for group in state.get("param_groups", ())] for state in (live, stored)]
        pairs = list(zip(live.get("param_groups", ()), stored.get("param_groups", ()), strict=False))
        other = sorted({key for new, old in pairs for key in set(new) ^ set(old)})
    except (KeyError, TypeError) as exc:
        raise SerializationError(f"the stored groups cannot be read: {exc!r}", hint="nothing was changed") from exc
    if groups[0] != groups[1]:
        raise SerializationError(
            f"the stored groups have {groups[1]} parameters, the live ones {groups[0]}", hint="nothing was changed"
        )
    if other:
        raise SerializationError(
            f"the stored optimizer has other settings: {', '.join(other)}", hint="nothing was changed"
        )
