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
from catalog_core.shown import an
from catalog_numpy import tree

STRUCTURE = "structure.json"
MAX_STRUCTURE = 64 << 20
_METHODS = {"fry": "threefry2x32", "urbg": "unsafe_rbg"}  # of random keys, by the short names in their dtypes


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
    save_options = ()
    load_options = ("like", *filling.OPTIONS)

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Write a tree of arrays and plain values: what Python has for it, dataclasses, and nodes that JAX knows."""
        arrays, structure = tree.flatten(obj)
        if not arrays:
            raise SerializationError(
                f"{an(type(obj).__name__)} holds no arrays", hint="publish its variables, parameters or state"
            )
        if any(tensors.is_torch(value) for value in arrays.values()):
            raise SerializationError(
                "a tree of torch tensors is written by 'safetensors'", hint="a dictionary of tensors"
            )
        tree.restore(structure, arrays)  # what cannot be read back is not published
        static = [text for text in _statics(structure) if text]
        if static:
            callers.warn(f"not stored, since they hold no numbers: {', '.join(static)[:200]}")
        live = dict(tree.leaves(obj))
        meta: dict[str, Any] = {"arrays": "jax" if any(map(tree.is_jax, live.values())) else "numpy"}
        if meta["arrays"] == "jax":
            numpy = sorted(name for name, leaf in live.items() if not tree.is_jax(leaf))
            keys = {name: _method_of(name, leaf) for name, leaf in live.items() if tree.is_key(leaf)}
            meta |= ({"numpy": numpy} if numpy else {}) | ({"keys": keys} if keys else {})
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
        notes = _notes(reader.meta, values)
        if into is not None:
            return _filled(into, values, options)
        if like is not None:
            return _alike(jax, like, values, notes[1], device, filling.options_of(options))
        if jax is not None:
            place = _place(jax, device)
            numpy, keys = ((), notes[1]) if options.get("as_") else notes
            values = {n: v if n in numpy else _to_jax(jax, n, v, place, keys.get(n)) for n, v in values.items()}
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


def _method_of(name: str, key: Any) -> str:
    """What makes random numbers of a key, by the name that JAX has for it. Raises `SerializationError`."""
    method = jax_module().random.key_impl(key)
    if not isinstance(method, str):
        raise SerializationError(f"{name!r} is a random key of an unknown method", hint="jax.random.key_data(key)")
    return method


def _notes(meta: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[Sequence[str], Mapping[str, str]]:
    """The arrays of a JAX tree that were NumPy's, and the random keys with their methods: a stranger may have written
    it. Raises `SerializationError`."""
    numpy, keys = meta.get("numpy", []), meta.get("keys", {})
    good = isinstance(numpy, list) and isinstance(keys, dict) and all(isinstance(name, str) for name in numpy)
    if not good or not {*numpy, *keys} <= values.keys() or not all(isinstance(text, str) for text in keys.values()):
        raise SerializationError("what the manifest says of this component cannot be read")
    return numpy, keys


def _to_jax(jax: Any, name: str, value: Any, place: Any, method: str | None = None) -> Any:
    made = jax.device_put(value, place)
    if made.dtype != value.dtype:
        raise SerializationError(
            f"{name!r} is stored as {value.dtype.name}, and JAX makes {made.dtype.name} of it",
            hint='jax.config.update("jax_enable_x64", True), or as_="numpy"',
        )
    if method is None:
        return made
    try:
        return jax.random.wrap_key_data(made, impl=method)
    except (TypeError, ValueError) as exc:
        raise SerializationError(
            f"{name!r} is no random key of {method[:60]!r} for JAX: {exc}", hint='as_="numpy" gives its numbers'
        ) from exc


def _place(jax: Any, device: str | None) -> Any:
    kind, _, number = (device or "cpu").partition(":")
    try:
        return jax.devices("gpu" if kind == "cuda" else kind)[int(number or 0)] if device else None
    except (RuntimeError, ValueError, IndexError) as exc:
        there = dict.fromkeys([*jax.devices(), *jax.devices("cpu")])
        named = [f"{'cuda' if d.platform in ('gpu', 'cuda') else d.platform}:{d.id}" for d in there]
        why = "" if isinstance(exc, IndexError) else f": {' '.join(str(exc).split())[:200]}"
        raise BackendError(
            f"JAX has no device {device!r}{why}", hint=f"devices here: {', '.join(named)}", backend="pytree"
        ) from exc


def _filled(into: Any, values: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Fill the NumPy arrays of a live tree in place. Raises `SerializationError`: nothing was changed."""
    live, again = dict(tree.leaves(into)), dict(tree.leaves(into))
    if not live:
        raise SerializationError(f"{an(type(into).__name__)} holds no arrays to fill")
    name = next((name for name, leaf in live.items() if tree.is_jax(leaf)), None)
    if name is not None:
        raise SerializationError(
            f"{name!r} is an array of JAX, which cannot be changed in place", hint="like=tree gives a new tree"
        )
    name = next((name for name, leaf in live.items() if not _is_one(leaf, again[name])), None)
    if name is not None:
        raise SerializationError(
            f"{name!r} is made anew each time that the live object is asked for it, so that nothing can be filled in",
            hint="like=tree gives a new tree",
        )
    return filling.fill(
        into, live, values, lambda chosen: tensors.fill({key: live[key] for key in chosen}, chosen),
        **filling.options_of(options),
    )  # fmt: skip


def _is_one(one: Any, two: Any) -> bool:
    return one is two or not one.size or tensors.identity(one) == tensors.identity(two)


def _alike(
    jax: Any, live: Any, values: Mapping[str, Any], methods: Mapping[str, str], device: str | None,
    options: Mapping[str, Any],
) -> Any:  # fmt: skip
    """A tree like `live` with the stored arrays in the places of its own; with `partial`, a `Filled` that holds it.
    What the new tree holds is compared with what was stored."""
    found, kind = jax.tree_util.tree_flatten_with_path(live)
    leaves = [(tree.name_of(path), leaf) for path, leaf in found]
    wanted = {n: leaf for n, leaf in leaves if tree.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)}
    hidden = next((name for name, _ in tree.leaves(live) if name not in wanted), None)
    if hidden is not None:
        raise SerializationError(
            f"{hidden!r} is inside of an object that JAX does not look into",
            hint="register its class: jax.tree_util.register_dataclass, for one",
        )
    chosen: dict[str, Any] = {}
    method_of = {id(values[name]): method for name, method in methods.items()}  # `rename` gives them other names

    def problems(target: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, str]:
        wrong: dict[str, str] = {}
        first: dict[int, str] = {}
        for name, leaf in target.items():
            old, new = _kind(stored[name], method_of.get(id(stored[name]))), _kind(leaf, None)
            other = first.setdefault(id(leaf), name)
            if old != new:
                wrong[name] = f"{name} is {old}, in the live object {new}"
            elif not _same(stored[other], stored[name]):
                wrong[name] = f"{other!r} and {name!r} are one array in the live object, and two that are stored"
        return wrong

    done = filling.fill(None, wanted, values, chosen.update, problems=problems, what="arrays", **options)
    place = _place(jax, device)

    def made(name: str, leaf: Any) -> Any:
        if name not in chosen:
            return leaf
        plain = tree.is_array(leaf) and not tree.is_jax(leaf)
        return (
            np.array(chosen[name])
            if plain
            else _to_jax(jax, name, chosen[name], place, method_of.get(id(chosen[name])))
        )

    result = jax.tree_util.tree_unflatten(kind, [made(name, leaf) for name, leaf in leaves])
    given = dict(tree.leaves(result))
    for name, value in chosen.items():
        if name not in given or not _same(tree.numbers_of(given[name]), value):
            raise SerializationError(f"the class of the live object makes another array of what is stored as {name!r}")
    return result if done is None else attrs.evolve(done, into=result)


def _kind(value: Any, method: str | None) -> str:
    """Dtype and shape of an array, for people; of random keys (`method`: of what is stored) their method."""
    if method is not None:
        return f"random keys of {method}{list(value.shape[:-1])}"
    if not str(value.dtype).startswith("key<"):
        return f"{value.dtype.name}{list(value.shape)}"
    told = str(value.dtype)[4:-1]  # of a ShapeDtypeStruct JAX tells no more
    live = jax_module().random.key_impl(value) if tree.is_jax(value) else _METHODS.get(told, told)
    return f"random keys of {live}{list(value.shape)}"


def _same(one: Any, two: Any) -> bool:
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    one, two = (np.ascontiguousarray(value).reshape(-1).view(np.uint8) for value in (one, two))
    return bool(np.array_equal(one, two))
