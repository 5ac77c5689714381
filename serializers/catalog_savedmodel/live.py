"""What TensorFlow and Keras objects say of themselves: variables by stable names, methods, and how to call one.

Keras is never imported here: an object that needs it has brought it along.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from catalog_core.errors import InvalidInput, SerializationError
from catalog_core.outputs import by_name
from catalog_core.shown import an
from catalog_core.snapshots import MAX_COPIED, of_plain, together

_CONTROL = ("training", "mask")
_ALIASES = {"call": ("call", "__call__"), "forward": ("call", "__call__")}


def is_keras(obj: Any) -> bool:
    """Whether an object is one of Keras."""
    return any(kind.__module__.partition(".")[0] == "keras" for kind in type(obj).__mro__)


def _check(obj: Any) -> Any:
    if not (isinstance(obj, tf.Module) or hasattr(obj, "_trackable_children")):
        hint = "publish a tf.Module, a Keras model or layer, or what tf.saved_model.load returned"
        if is_keras(obj):
            hint = "serializer='keras' takes models of every Keras backend"
        raise SerializationError(f"{an(type(obj).__name__)} is no TensorFlow object", hint=hint)
    return obj


def parts(obj: Any, *, optimizers: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Variables, and other resources such as tables, by names that say where they are. A Keras layer's variables are
    numbered in its own order, since Keras numbers the names of layers through the life of a process. Those of
    `optimizers` are left out unless they are asked for: moments are twice as large as what is trained."""
    variables: dict[str, Any] = {}
    others: dict[str, Any] = {}
    view = tf.train.TrackableView(_check(obj))
    seen: set[int] = set()
    queue = [("", obj)]
    while queue:
        path, item = queue.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        if not optimizers and item is not obj and is_optimizer(item):
            continue
        if isinstance(item, tf.Variable):
            variables[path] = item
            continue
        if isinstance(item, tf.saved_model.experimental.TrackableResource):
            others[path] = item
        prefix = f"{path}." if path else ""
        if is_keras(item):
            for number, variable in enumerate(getattr(item, "variables", ())):
                value = variable if isinstance(variable, tf.Variable) else variable.value
                if isinstance(value, tf.Variable) and id(value) not in seen:
                    seen.add(id(value))
                    name = "" if is_optimizer(item) else f".{variable.name.partition(':')[0]}"  # numbered like layers
                    variables[f"{prefix}{number:03d}{name}"] = value
            for number, state in enumerate(_states(item)):
                if id(state.value) not in seen:
                    seen.add(id(state.value))
                    variables[f"{prefix}state.{number:03d}"] = state.value
        queue += [(prefix + str(name), child) for name, child in view.children(item).items()]
    return variables, others


def is_optimizer(item: Any) -> bool:
    """Whether an object is an optimizer of Keras, of this or an older kind."""
    names = {kind.__name__ for kind in type(item).__mro__ if kind.__module__.partition(".")[0] in ("keras", "tf_keras")}
    return bool(names & {"BaseOptimizer", "Optimizer", "OptimizerV2"})


def counters(obj: Any) -> dict[str, Any]:
    """The variables of metrics, which running a Keras model may change; they are part of it where it reads them."""
    found = getattr(obj, "metrics_variables", ()) if is_keras(obj) else ()
    values = [variable if isinstance(variable, tf.Variable) else variable.value for variable in found]
    return {f"metrics.{number:03d}": value for number, value in enumerate(values) if isinstance(value, tf.Variable)}


def kept_elsewhere(obj: Any) -> list[str]:
    """The Keras layers that keep state which is no variable: by methods of their own, or learned by `adapt`."""
    found: list[str] = []
    for layer in obj._flatten_layers() if hasattr(obj, "_flatten_layers") else ():
        own = [method for method in ("save_own_variables", "save_assets") if _is_own(layer, method)]
        store: dict[str, Any] = {}
        if "save_own_variables" in own:
            layer.save_own_variables(store)
        mine = {id(variable) for variable in layer.variables}
        learned = getattr(layer, "input_vocabulary", "") is None
        learned |= type(layer).__name__ == "Discretization" and layer.num_bins is not None
        if "save_assets" in own or learned or any(id(value) not in mine for value in store.values()):
            found.append(f"{layer.name} ({type(layer).__name__})")
    return found


def _is_own(layer: Any, method: str) -> bool:
    owner = next((kind for kind in type(layer).__mro__ if method in vars(kind)), object)
    return owner is not object and owner.__module__.partition(".")[0] != "keras"


def _states(layer: Any) -> list[Any]:
    """What recurrent layers with `stateful=True` keep between calls; Keras does not count it among the variables."""
    layers = layer._flatten_layers() if hasattr(layer, "_flatten_layers") else []
    found = [state for part in layers for state in tf.nest.flatten(getattr(part, "states", None))]
    return [state for state in found if is_keras(state) and isinstance(state.value, tf.Variable)]


def after_filling(obj: Any) -> None:
    """Layers that compute with copies of their variables take them anew."""
    for part in obj._flatten_layers() if hasattr(obj, "_flatten_layers") else ():
        if is_keras(part) and hasattr(part, "adapt_mean"):
            part.finalize_state()


def method_of(obj: Any, method: str) -> Any:
    """A method, a callable attribute (a network inside the model, `generator.call` below one), or a signature of a
    loaded SavedModel. Raises `SerializationError` where there is none."""
    _check(obj)
    for name in _ALIASES.get(method, (method,)):
        try:
            found = (
                obj
                if name in ("call", "__call__") and callable(obj)
                else functools.reduce(getattr, name.split("."), obj)
            )
        except AttributeError:
            continue
        if name == "call" and is_keras(obj) and not _has_call(obj):
            break
        if callable(found):
            return found
    signatures = getattr(obj, "signatures", None)
    if isinstance(signatures, Mapping):
        if method in _ALIASES and "serving_default" in signatures:
            method = "serving_default"
        if method in signatures:
            return signatures[method]
    inside = {name: value for name, value in vars(obj).items() if not name.startswith("_")}
    networks = [name for name, value in inside.items() if is_keras(value) and callable(getattr(value, "call", None))]
    raise SerializationError(
        f"{an(type(obj).__name__)} has no method {method!r}",
        hint=f"entry_points={{name: 'component.{networks[0]}'}} names a network inside it" if networks else None,
    )


def _has_call(obj: Any) -> bool:
    owner = next((kind for kind in type(obj).__mro__ if "call" in vars(kind)), None)
    return owner is not None and owner.__qualname__ not in ("Model", "Layer", "Operation")


def _signature(function: Any) -> inspect.Signature | None:
    target = function
    if is_keras(function):
        target = function.call
    try:
        return inspect.signature(getattr(target, "python_function", target))
    except (TypeError, ValueError):
        return None


def _is_automatic(name: str, kinds: Sequence[str]) -> bool:
    """Whether Keras made up the name of a tensor or layer."""
    head = re.sub(r"(_\d+)+\Z", "", name)
    return head in ("keras_tensor", "input_layer", "input", "") or head in kinds


def _keras_names(tensors: Sequence[Any], names: Sequence[str], what: str, kinds: Sequence[str] = ()) -> list[str]:
    if len(names) == len(tensors) == len(set(names)) and not any(_is_automatic(name, kinds) for name in names):
        return list(names)
    return [what] if len(tensors) == 1 else [f"{what}_{number}" for number in range(len(tensors))]


def _is_functional(function: Any) -> bool:
    """Whether it is a built functional or sequential Keras model, whose inputs are known tensors."""
    kinds = {kind.__qualname__ for kind in type(function).__mro__ if kind.__module__.startswith("keras.")}
    return bool(kinds & {"Functional", "Sequential"} and getattr(function, "inputs", None)) and not _overrides(function)


def _overrides(function: Any) -> bool:
    owner = next(kind for kind in type(function).__mro__ if "call" in vars(kind))
    return not owner.__module__.startswith("keras.")


def _structure(function: Any) -> Any:
    """The nested inputs of a functional model."""
    structure = getattr(function, "_inputs_struct", None)
    return function.inputs[0] if structure is None else structure  # a sequential model takes one tensor


def input_names(obj: Any, method: str) -> list[str] | None:
    """The names of a method's inputs; None where one argument takes several arrays, or may."""
    function = method_of(obj, method)
    if _is_concrete(function):
        return list(function.structured_input_signature[1])
    if is_keras(function) and _is_functional(function):
        structure = _structure(function)
        if isinstance(structure, Mapping):
            return [str(key) for key in structure]
        return _keras_names(function.inputs, [tensor.name for tensor in function.inputs], "input")
    signature = _signature(function)
    if signature is None:
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [p.name for p in signature.parameters.values() if p.kind in kinds and p.name not in (*_CONTROL, "self")]
    if len(names) == 1 and (names == ["inputs"] or _nested(function)) and _nested(function) is not False:
        return None
    return names or None


def known_specs(obj: Any, method: str) -> list[dict[str, Any]]:
    """What a method can be traced for without an example: one choice, or none."""
    function = method_of(obj, method)
    if _is_concrete(function):
        return [dict(function.structured_input_signature[1])]
    names = input_names(obj, method)
    if names and is_keras(function) and _is_functional(function):
        structure = _structure(function)
        tensors = list(structure.values()) if isinstance(structure, Mapping) else function.inputs
        return [{n: tf.TensorSpec(t.shape, t.dtype, n) for n, t in zip(names, tensors, strict=True)}]
    specs = getattr(function, "input_signature", None)
    if names and specs and len(names) == len(specs) and all(isinstance(spec, tf.TensorSpec) for spec in specs):
        return [{n: tf.TensorSpec(spec.shape, spec.dtype, n) for n, spec in zip(names, specs, strict=True)}]
    return []


def known_axes(obj: Any, method: str, example: Mapping[str, Any]) -> dict[str, tuple[int | None, ...]] | None:
    """What the object says of the axes of a method's inputs, None where they may have any length; None where it says
    nothing. `example` has the names: one input alone may bear another one."""
    specs = next(iter(known_specs(obj, method)), {})
    # the rows are tried: a sequential model that data built has theirs
    shapes = {name: (None, *spec.shape[1:]) for name, spec in specs.items() if spec.shape.rank}
    if len(shapes) != len(specs) or len(shapes) != len(example):
        return None
    return shapes if set(shapes) == set(example) else dict(zip(example, shapes.values(), strict=True))


def _is_concrete(function: Any) -> bool:
    """Whether it is a signature of a loaded SavedModel."""
    return hasattr(function, "structured_input_signature") and not hasattr(function, "python_function")


def _nested(function: Any) -> bool | None:
    """Whether the one argument of a Keras layer takes several tensors, as it was built; None where nobody knows."""
    shapes = getattr(function, "_build_shapes_dict", None)
    if not shapes or len(shapes) != 1:
        return None
    shape = next(iter(shapes.values()))
    return not (isinstance(shape, (list, tuple)) and all(size is None or isinstance(size, int) for size in shape))


def invoke(obj: Any, method: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Run a method on named tensors, in inference mode; its outputs by name."""
    function = method_of(obj, method)
    if _is_concrete(function):
        return _tensors(function(**values))
    if is_keras(function) and _is_functional(function):
        return _outputs_of(function, function(_packed(function, values), training=False))
    signature = _signature(function)
    extra: dict[str, Any] = {}
    if signature is not None and "training" in signature.parameters:
        extra["training"] = False
    names = input_names(obj, method)
    if names is not None and set(values) <= set(names):
        return _tensors(function(**values, **extra))
    tensors = list(values.values())
    if len(tensors) == 1 and not _nested(function):
        return _tensors(function(tensors[0], **extra))
    problems = []
    for given in (dict(values), tensors):  # one argument that takes several arrays: a dictionary, or a list
        try:
            return _tensors(function(given, **extra))
        except Exception as exc:
            problems.append(f"{type(exc).__name__}: {exc}".splitlines()[0][:200])
    raise InvalidInput(
        f"{method} takes neither a dictionary of {', '.join(values)} ({problems[0]}) nor a list ({problems[1]})"
    )


def _packed(function: Any, values: Mapping[str, Any]) -> Any:
    structure = _structure(function)
    if isinstance(structure, Mapping):
        return dict(values)
    names = input_names(function, "call") or []
    missing = [name for name in names if name not in values]
    if missing or len(names) != len(values):
        raise InvalidInput(f"it takes {', '.join(names)}, not {', '.join(values)}")
    listed = [values[name] for name in names]
    return listed if isinstance(structure, (list, tuple)) else listed[0]


def _outputs_of(function: Any, result: Any) -> dict[str, Any]:
    """The outputs of a functional model: under the names of their layers, where somebody chose those."""
    if not isinstance(result, (list, tuple)):
        return _tensors(result)
    kinds = {_snake(type(layer).__name__) for layer in function.layers}
    names = _keras_names(result, list(getattr(function, "output_names", ())), "output", sorted(kinds))
    return dict(zip(names, result, strict=True))


def _snake(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


@contextmanager
def unchanged(obj: Any, variables: Callable[[], Iterable[Any]]) -> Iterator[None]:
    """Put back what running an object changes, also a method that trains: its variables, and plain attributes of
    classes that are not Keras' own, unless the run made variables: it built the object then."""
    kept, room = list(variables()), MAX_COPIED
    before = []
    for variable in sorted(kept, key=lambda v: bool(v.trainable)):
        room -= variable.trainable * variable.dtype.size * math.prod(variable.shape)
        if room >= 0 or not variable.trainable or variable.dtype.is_integer:
            before.append((variable, variable.numpy()))
    plain = together([of_plain(part, _internal(part)) for part in _modules(obj)])
    try:
        yield
    finally:
        for variable, value in before:
            if not np.array_equal(variable.numpy(), value):
                variable.assign(value)
        if len(kept) == len(list(variables())) and plain.differs():
            plain.put_back()


def _modules(obj: Any) -> list[Any]:
    """An object and the modules and layers in it that are no classes of Keras or TensorFlow."""
    found = [obj, *(obj._flatten_layers() if hasattr(obj, "_flatten_layers") else getattr(obj, "submodules", ()))]
    own = {id(part): part for part in found if type(part).__module__.partition(".")[0] not in ("keras", "tensorflow")}
    return [part for part in own.values() if hasattr(part, "__dict__")]


def _internal(part: Any) -> frozenset[str]:
    """The attributes that Keras keeps for itself in a model or layer."""
    keras = sys.modules.get("keras") if is_keras(part) else None
    return frozenset(vars(keras.Model(name="model"))) | {"built"} if keras is not None else frozenset()


def _tensors(result: Any) -> dict[str, Any]:
    """The tensors of a result by name."""
    return {name: tf.convert_to_tensor(value) for name, value in by_name(result)}
