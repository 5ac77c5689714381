"""Trees of arrays ↔ `model.safetensors` and `structure.json`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import attrs
import numpy as np

from catalog_core import callers, filling, tensors
from catalog_core.digests import canonical, parse
from catalog_core.errors import BackendError, MissingPlugin, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest
from catalog_core.records import Description, TensorSpec
from catalog_numpy import tree

STRUCTURE = "structure.json"
MAX_STRUCTURE = 64 << 20


def jax_module() -> Any:
    """jax, imported on first use. Raises `MissingPlugin` where it is not installed."""
    try:
        import jax
    except ImportError as exc:
        raise MissingPlugin(f"jax cannot be imported: {exc}", hint="pip install jax, or as_='numpy'") from exc
    return jax


class PytreeSerializer:
    """See `interfaces.serializer`."""

    name = "pytree"
    load_options = ("like", *filling.OPTIONS)

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Write a tree of arrays and plain values: what Python has for it, dataclasses, and nodes that JAX knows."""
        arrays, structure = tree.flatten(obj)
        if not arrays:
            raise SerializationError(f"a {type(obj).__name__} holds no arrays")
        if any(tensors.is_torch(value) for value in arrays.values()):
            raise SerializationError(
                "a tree of torch tensors is written by 'safetensors'", hint="a dictionary of tensors"
            )
        tree.restore(structure, arrays)  # what cannot be read back is not published
        static = [text for text in _statics(structure) if text]
        if static:
            callers.warn(f"not stored, since they hold no numbers: {', '.join(static)[:200]}")
        meta: dict[str, Any] = {"arrays": "jax" if any(tree.is_jax(leaf) for _, leaf in tree.leaves(obj)) else "numpy"}
        shared = tensors.write(arrays, directory)
        if shared:
            meta["shared"] = shared
        directory.write(STRUCTURE, [canonical(structure)])
        return meta

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """The tree, of JAX arrays if it was, else of NumPy's. Modules and other nodes come back as dictionaries of
        their fields; `like=live` gives a new tree of the classes of `live` instead, with the stored arrays in it, which
        must agree with the live ones in names, shapes and dtypes. `into` fills NumPy arrays in place."""
        like, kind = options.get("like"), options.get("as_") or reader.meta.get("arrays", "numpy")
        if kind not in ("numpy", "jax"):
            raise SerializationError(f"as_={kind!r} is not known here", hint="numpy or jax")
        if into is not None and like is not None:
            raise SerializationError("into= fills an object, like= makes one", hint="pass one of them")
        structure = _structure(reader)
        jax = jax_module() if like is not None or (kind == "jax" and into is None) else None
        if jax is None and device not in (None, "cpu"):
            raise BackendError(f"NumPy arrays cannot be on {device!r}", hint="as_='jax'", backend="pytree")
        copy = bool(options.get("copy"))
        values = tensors.read(reader, tensors.numpy_maker(copy and jax is None), writable=False)
        if into is not None:
            live = dict(tree.leaves(into))
            if not live:
                raise SerializationError(f"a {type(into).__name__} holds no arrays to fill")
            return filling.fill(
                into, live, values, lambda chosen: tensors.fill({key: live[key] for key in chosen}, chosen),
                **filling.options_of(options),
            )  # fmt: skip
        if like is not None:
            return _alike(jax, like, values, device, filling.options_of(options))
        if jax is not None:
            place = _place(jax, device)
            values = {name: _to_jax(jax, name, value, place) for name, value in values.items()}
        return tree.restore(structure, values, bool(options.get("trust")))

    def describe(self, obj: Any) -> Description:
        """Names, dtypes and shapes, and the class of the root."""
        try:
            arrays, _ = tree.flatten(obj)
        except Exception:  # nodes of the user's own
            return Description()
        if not arrays:
            return Description()
        jax = sys.modules.get("jax")
        used = jax is not None and any(tree.is_jax(leaf) for _, leaf in tree.leaves(obj))
        shapes = {name: (tensors.dtype_of(value), tuple(value.shape)) for name, value in arrays.items()}
        count = sum(math.prod(shape) for _, shape in shapes.values())
        kind = type(obj)
        own = kind.__module__ not in ("builtins", "collections")
        version = str(jax.__version__) if used and jax is not None else np.__version__
        return Description(
            "jax" if used else "numpy", version, kind.__name__ if own else "", {}, count, shapes,
            tree.path_of(kind) if own else None,
        )  # fmt: skip

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> NoReturn:
        """Arrays cannot be called."""
        raise SerializationError("a tree of arrays cannot be called", hint="give it to the function that it belongs to")

    def signature(
        self, obj: Any, method: str, example: Mapping[str, Any]
    ) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
        """Arrays cannot be called."""
        self.call(obj, method, example)

    def inputs(self, obj: Any, method: str) -> Iterable[str] | None:
        """Unknown: arrays have no methods."""
        return None


def _structure(reader: Reader) -> Any:
    if not 0 < reader.files.get(STRUCTURE, 0) <= MAX_STRUCTURE:
        raise SerializationError(f"the component holds no {STRUCTURE}, or one that is too large")
    try:
        return parse(bytes(reader.view(STRUCTURE)))
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"{STRUCTURE} is broken: {exc}") from exc


def _statics(node: Any) -> list[str]:
    if isinstance(node, dict):
        return ([str(node["static"])] if "static" in node else []) + [t for v in node.values() for t in _statics(v)]
    return [t for item in node for t in _statics(item)] if isinstance(node, list) else []


def _to_jax(jax: Any, name: str, value: Any, place: Any) -> Any:
    made = jax.device_put(value, place)
    if made.dtype != value.dtype:
        raise SerializationError(
            f"{name!r} is stored as {value.dtype.name}, and JAX makes {made.dtype.name} of it",
            hint='jax.config.update("jax_enable_x64", True), or as_="numpy"',
        )
    return made


def _place(jax: Any, device: str | None) -> Any:
    kind, _, number = (device or "cpu").partition(":")
    try:
        return jax.devices("gpu" if kind == "cuda" else kind)[int(number or 0)] if device else None
    except (RuntimeError, ValueError, IndexError) as exc:
        raise BackendError(f"JAX has no device {device!r}: {exc}", hint="device='cpu'", backend="pytree") from exc


def _alike(jax: Any, live: Any, values: Mapping[str, Any], device: str | None, options: Mapping[str, Any]) -> Any:
    """A tree like `live` with the stored arrays in the places of its own; with `partial`, a `Filled` that holds it."""
    places: dict[int, str] = {}
    wanted: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for name, leaf in tree.leaves(live):
        wanted[name] = np.asarray(leaf)
        places.setdefault(id(leaf), name)

    def problems(target: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in target:
            old, new = (f"{v.dtype.name}{list(v.shape)}" for v in (stored[name], target[name]))
            if old != new:
                found[name] = f"{name} is {old}, in the live object {new}"
        for name, leaf in tree.leaves(live):
            first = places[id(leaf)]
            if first != name and name in stored and first in stored and not _same(stored[first], stored[name]):
                found[name] = f"{first!r} and {name!r} are one array in the live object, and two that are stored"
        return found

    done = filling.fill(None, wanted, values, chosen.update, problems=problems, what="arrays", **options)
    place = _place(jax, device)

    def made(leaf: Any) -> Any:
        name = places.get(id(leaf))
        if name is None or name not in chosen:
            return leaf
        return _to_jax(jax, name, chosen[name], place) if tree.is_jax(leaf) else np.array(chosen[name])

    result = jax.tree_util.tree_map(made, live)
    return result if done is None else attrs.evolve(done, into=result)


def _same(one: Any, two: Any) -> bool:
    return bool(np.array_equal(one.reshape(-1).view(np.uint8), two.reshape(-1).view(np.uint8)))
