"""A tree of arrays ↔ arrays by name, and a JSON tree that says what holds what.

Names are paths joined by `/`: `~` in a key is `~0`, `/` is `~1`, a leading `#` `~2`; integers and positions are `#n`. A
node of the JSON tree is an object of one kind:

- `array`: a name; `value`, `int`, `float` (in hexadecimal): a plain value;
- `list`, `tuple`: nodes; `dict`, `ordered`: pairs of a key and a node;
- `named`: class, and pairs of a field and a node, of a named tuple;
- `node`: class, and pairs, of anything else: a frozen dictionary, a module. It loads as a dictionary;
- `static`: what holds no numbers, say an activation function. It is not stored, and loads as None.
"""

from __future__ import annotations

import dataclasses
import importlib
import keyword
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from catalog_core.errors import NotTrusted, SerializationError
from catalog_core.shown import an
from catalog_core.tensors import is_torch, to_array

MAX_DEPTH = 64
# Packages whose named tuples hold arrays and run nothing when they are made.
KNOWN = ("optax",)


def is_jax(value: Any) -> bool:
    """Whether `value` is an array of JAX, without importing it."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)


def is_array(value: Any) -> bool:
    """Whether `value` is an array of NumPy, JAX or torch, or a NumPy scalar."""
    return isinstance(value, (np.ndarray, np.generic)) or is_jax(value) or is_torch(value)


def path_of(kind: type) -> str:
    """Where a class is."""
    return f"{kind.__module__}:{kind.__qualname__}"


def segment(key: Any) -> str:
    """One part of a name, escaped."""
    if isinstance(key, int):
        return f"#{key}"
    text = str(key).replace("~", "~0").replace("/", "~1")
    return "~2" + text[1:] if text.startswith("#") else text


def children(value: Any) -> tuple[str, list[tuple[Any, Any]]] | None:
    """The kind of a node and what it holds, by key; None for a leaf."""
    if type(value) is dict:
        return "dict", list(value.items())
    if type(value) is OrderedDict:
        return "ordered", list(value.items())
    if type(value) in (list, tuple):
        return type(value).__name__, list(enumerate(value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "named", [(name, getattr(value, name)) for name in value._fields]
    if is_array(value) or value is None or isinstance(value, (bool, int, float, str)):
        return None
    found = _registered(value)
    if found is None and isinstance(value, Mapping):
        found = list(value.items())
    if found is None and dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return None if found is None else ("node", found)


def _registered(value: Any) -> list[tuple[Any, Any]] | None:
    """What JAX knows of a node, where it is imported."""
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "tree_util"):
        return None
    try:
        leaves, _ = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda item: item is not value)
    except (TypeError, ValueError):
        return None
    if len(leaves) == 1 and not leaves[0][0]:
        return None  # a leaf
    result = []
    for (key,), child in leaves:
        result.append((_key_of(key), child))
    return result


def _key_of(step: Any) -> Any:
    """The key of one step of a path of JAX."""
    return next((getattr(step, name) for name in ("key", "idx", "name") if hasattr(step, name)), str(step))


def name_of(path: Any) -> str:
    """The name that an array has which is at a path of JAX."""
    return "/".join(segment(_key_of(step)) for step in path) or "value"


def is_key(value: Any) -> bool:
    """Whether `value` is an array of random keys of JAX (`jax.random.key`)."""
    jax = sys.modules.get("jax")
    return is_jax(value) and jax is not None and bool(jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key))


def numbers_of(value: Any) -> Any:
    """An array as numbers: of random keys their data."""
    return np.asarray(sys.modules["jax"].random.key_data(value)) if is_key(value) else np.asarray(value)


def flatten(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays by name, and the JSON tree. Raises `SerializationError` with the path for what it cannot hold."""
    arrays: dict[str, Any] = {}
    return arrays, _node(value, (), arrays)


def _node(value: Any, path: tuple[str, ...], arrays: dict[str, Any]) -> dict[str, Any]:
    name = "/".join(path)
    if len(path) > MAX_DEPTH:
        raise SerializationError(f"nested deeper than {MAX_DEPTH} at {name[:80]!r}", hint="does it hold itself?")
    found = children(value)
    if found is None:
        return _leaf(value, name or "value", arrays)
    kind, pairs = found
    nodes = []
    for key, child in pairs:
        if type(key) not in (str, int):
            raise SerializationError(f"the key {key!r} at {name!r} is {an(type(key).__name__)}, not a text or integer")
        nodes.append([_key(key), _node(child, (*path, segment(key)), arrays)])
    if kind in ("list", "tuple"):
        return {kind: [node for _, node in nodes]}
    return {kind: nodes, "class": path_of(type(value))} if kind in ("named", "node") else {kind: nodes}


def _key(key: Any) -> Any:
    return key if isinstance(key, str) else {"int": str(key)}


def _leaf(value: Any, name: str, arrays: dict[str, Any]) -> dict[str, Any]:
    if is_array(value):
        arrays[name] = to_array(name, numbers_of(value) if is_key(value) else value)
        return {"array": name}
    if value is None or type(value) in (bool, str):
        return {"value": value}
    if type(value) is int:
        return {"int": str(value)}
    if type(value) is float:
        return {"float": value.hex()}
    if callable(value):
        return {"static": str(getattr(value, "__qualname__", type(value).__qualname__))}
    raise SerializationError(
        f"{name!r} is {an(type(value).__name__)}: neither an array, a plain value, nor a tree of them"
    )


def restore(node: Any, arrays: Mapping[str, Any], trust: bool = False) -> Any:
    """What `flatten` took apart. Classes of named tuples are imported where they are of a known package, or with
    `trust`; else one of the same fields is made. A tree that lies raises `SerializationError`."""
    try:
        return _restored(node, arrays, trust)
    except (NotTrusted, SerializationError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as exc:
        raise SerializationError(f"the stored structure is broken: {exc!r}"[:300]) from exc


def _restored(node: Any, arrays: Mapping[str, Any], trust: bool) -> Any:
    told = dict(node)
    origin = told.pop("class", None)
    ((kind, value),) = told.items()
    if kind == "array":
        return arrays[value]
    if kind == "value":
        return value
    if kind == "int":
        return int(value)
    if kind == "float":
        return float.fromhex(value)
    if kind == "static":
        return None
    if kind in ("list", "tuple"):
        items = [_restored(item, arrays, trust) for item in value]
        return items if kind == "list" else tuple(items)
    pairs = [(key if isinstance(key, str) else int(key["int"]), _restored(item, arrays, trust)) for key, item in value]
    if kind == "named":
        return _named(origin, [str(name) for name, _ in pairs], trust)(*[item for _, item in pairs])
    if kind not in ("dict", "ordered", "node"):
        raise ValueError(f"unknown kind {kind!r}")
    return OrderedDict(pairs) if kind == "ordered" else dict(pairs)


def _named(origin: Any, fields: list[str], trust: bool) -> Any:
    module, _, name = origin.partition(":")
    if trust or module.partition(".")[0] in KNOWN:
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError):
            found = None
        if isinstance(found, type) and issubclass(found, tuple) and getattr(found, "_fields", ()) == tuple(fields):
            return found
    label = name.rpartition(".")[2]
    label = label if label.isidentifier() and not keyword.iskeyword(label) else "Named"
    made = namedtuple(label, fields, rename=True)  # type: ignore[misc]
    if made._fields != tuple(fields):  # names that no named tuple has: keywords, twice the same
        raise ValueError(f"a named tuple has no fields {fields!r:.80}")
    made.__module__, made.__qualname__ = module, name  # it is saved again as what it was
    return made


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """The arrays of a live tree as they are, by name."""
    waiting: list[tuple[str, Any, int]] = [("", value, 0)]
    while waiting:
        name, item, depth = waiting.pop()
        found = children(item) if depth <= MAX_DEPTH else None
        if found is not None:
            prefix = name + "/" if name else ""
            waiting += [(prefix + segment(key), child, depth + 1) for key, child in reversed(found[1])]
        elif is_array(item):
            yield name or "value", item
