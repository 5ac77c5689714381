"""Keras models ↔ `model.json`, `model.safetensors` and `optimizers.safetensors`."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from catalog_core import tensors
from catalog_core.errors import BackendError, CatalogError, InvalidInput, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest
from catalog_core.records import Description, TensorSpec
from catalog_core.session import by_name, signature_of
from catalog_keras import config, structure

CONFIG = "model.json"
WEIGHTS = "model.safetensors"
STATES = "optimizers.safetensors"


class KerasSerializer:
    """See `interfaces.serializer`."""

    name = "keras"

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Weights, seeds and optimizers always; the configuration where it is plain data."""
        if not isinstance(obj, keras.layers.Layer):
            raise SerializationError(f"a {type(obj).__name__} is no Keras model or layer")
        layers, variables = structure.walk(obj)
        structure.check_vocabularies(obj)
        meta: dict[str, Any] = {
            "class": f"{type(obj).__module__}:{type(obj).__qualname__}", "layers": layers, "optimizers": {}
        }  # fmt: skip
        states: dict[str, Any] = {}
        for attribute, optimizer in structure.optimizers(obj).items():
            trained = structure.trained_by(optimizer, variables)
            if trained is not None:
                states |= structure.state_of(attribute, optimizer)
                meta["optimizers"][attribute] = {"trains": trained, "config": _plain(optimizer)}
        tensors.write(_arrays(variables), directory, WEIGHTS)
        if states:
            tensors.write(_arrays(states), directory, STATES)
        try:
            found = _plain(obj)
            config.check(found, registered=False)
            directory.write(CONFIG, [json.dumps(found, sort_keys=True, separators=(",", ":")).encode()])
        except (SerializationError, NotImplementedError, TypeError, ValueError) as exc:
            meta["config"] = exc.message if isinstance(exc, CatalogError) else config.reason(exc)
            warnings.warn(
                f"{type(obj).__name__} is stored as weights only; load(ref, into=model) fills one: {meta['config']}",
                stacklevel=2,
            )
        return meta

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """The model with its optimizers; `into` fills a live one. See `interfaces.serializer.Serializer.load`."""
        kind = options.get("as_")
        if kind not in (None, "numpy"):
            raise SerializationError(f"as_={kind!r} is not known here", hint="numpy")
        layers, stored = _notes(reader.meta)
        make = tensors.numpy_maker(bool(options.get("copy")))
        values = tensors.read(reader, make, writable=False, name=WEIGHTS)
        states: dict[str, Any] = {}
        if stored:
            states = tensors.read(reader, make, writable=False, name=STATES)
        surplus = sorted(set(reader.files) - {CONFIG, WEIGHTS, *([STATES] if stored else [])})
        if surplus:
            raise SerializationError(f"the component holds {surplus[0]!r}, which is no part of a stored Keras model")
        if into is not None:
            return _fill(into, layers, values, stored, states, strict=False)
        if kind == "numpy":
            return {**values, **states}
        if "config" in reader.meta:
            why = str(reader.meta["config"])[:300]
            raise SerializationError(f"only weights are stored: {why}", hint="load(ref, into=model) or as_='numpy'")
        if CONFIG not in reader.files:
            raise SerializationError(f"the component holds no {CONFIG}")
        found = config.parse(bytes(reader.view(CONFIG)))
        config.check(found)
        for note in stored.values():
            config.check(note["config"])
        with _on(device), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of a custom compile(), whose optimizers come here
            model = config.make(found)
            for attribute, note in stored.items():
                if not isinstance(getattr(model, attribute, None), keras.optimizers.Optimizer):
                    setattr(model, attribute, _optimizer(note["config"]))
            return _fill(model, layers, values, stored, states, strict=True)

    def describe(self, obj: Any) -> Description:
        """Class, configuration, parameters and tensors."""
        version = str(keras.__version__)
        if not isinstance(obj, keras.layers.Layer):
            return Description("keras", version)
        try:
            variables = dict(structure.walk(obj)[1])
            count = sum(int(np.prod(v.shape)) for v in variables.values() if v.trainable)
            for attribute, optimizer in structure.optimizers(obj).items():
                if optimizer.built:
                    variables |= structure.state_of(attribute, optimizer)
            shapes = {name: (_dtype(v), tuple(v.shape)) for name, v in variables.items()}
        except Exception:  # it cannot be saved either, and save says why
            shapes, count = {}, 0
        plain: dict[str, Any] = {"backend": keras.backend.backend()}
        for prefix, part in (("", obj), *((f"{n}.", o) for n, o in structure.optimizers(obj).items())):
            try:
                plain |= {prefix + str(key): value for key, value in part.get_config().items() if key != "dtype"}
            except Exception:  # a class of the user's that has none
                continue
        plain = {key: value for key, value in plain.items() if isinstance(value, (bool, int, float, str))}
        path = f"{type(obj).__module__}:{type(obj).__qualname__}"
        return Description("keras", version, type(obj).__name__, plain, count, shapes, path)

    def inputs(self, obj: Any, method: str) -> Iterable[str] | None:
        """The names of a functional model's inputs, or of the method's parameters; None for one that takes several
        arrays in one argument."""
        function = _method(obj, method)
        known = _inputs_of(function)
        if known is not None:
            return known
        target = function.call if isinstance(function, keras.layers.Layer) else function
        names = [name for name in inspect.signature(target).parameters if name not in ("training", "mask")]
        shapes = list((getattr(function, "_build_shapes_dict", None) or {}).values())
        flat = len(shapes) == 1 and all(size is None or isinstance(size, int) for size in shapes[0])
        return None if names == ["inputs"] and not flat else names

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a method in inference mode; NumPy arrays out. The object is left as it was, seeds included, unless a
        session draws on."""
        function = _method(obj, method)
        values = {name: keras.ops.convert_to_tensor(value) for name, value in inputs.items()}
        target = function.call if isinstance(function, keras.layers.Layer) else function
        extra = {"training": False} if "training" in inspect.signature(target).parameters else {}
        with _unchanged(obj):
            names = self.inputs(obj, method)
            if _inputs_of(function) is not None:
                result = function(_packed(function, values), **extra)
            elif names is not None and set(values) <= set(names):
                result = function(**values, **extra)
            elif len(values) == 1:
                result = function(next(iter(values.values())), **extra)
            else:  # one argument that takes several arrays: a dictionary, or a list
                try:
                    result = function(dict(values), **extra)
                except Exception:
                    result = function(list(values.values()), **extra)
            return {name: keras.ops.convert_to_numpy(value) for name, value in by_name(result)}

    def signature(
        self, obj: Any, method: str, example: Mapping[str, Any]
    ) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
        """Found by running; the rows are free where twice as many give twice as many."""
        return signature_of(lambda values: self.call(obj, method, values), example)


def _plain(obj: Any) -> dict[str, Any]:
    """The configuration of an object as plain data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lambdas, which are refused right after
        found: dict[str, Any] = json.loads(json.dumps(keras.saving.serialize_keras_object(obj)))
    stack: list[Any] = [found]
    while stack:  # the torch backend has optimizers of its own, under the names of Keras'
        value = stack.pop()
        if isinstance(value, dict):
            if str(value.get("module")).startswith("keras.src.backend."):
                value |= {"module": "keras.optimizers", "registered_name": None}
            stack += value.values()
        elif isinstance(value, list):
            stack += value
    return found


def _dtype(variable: Any) -> str:
    return str(keras.backend.standardize_dtype(variable.dtype))


def _arrays(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(keras.ops.convert_to_numpy(variable)) for name, variable in variables.items()}


def _notes(meta: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Layers and optimizers, as the manifest has them: a stranger may have written it."""
    layers, optimizers = meta.get("layers"), meta.get("optimizers")
    good = isinstance(layers, dict) and isinstance(optimizers, dict)
    good = good and all(isinstance(kind, str) for kind in layers.values())  # type: ignore[union-attr]
    for attribute, note in optimizers.items() if good else ():  # type: ignore[union-attr]
        trains = note.get("trains") if isinstance(note, dict) and attribute.isidentifier() else None
        good = good and isinstance(trains, list) and all(isinstance(n, str) for n in trains)
        good = good and not attribute.startswith("_") and isinstance(note.get("config"), dict)
    if not good:
        raise SerializationError("what the manifest says of this component cannot be read")
    return dict(layers), dict(optimizers)  # type: ignore[arg-type]


def _optimizer(found: dict[str, Any]) -> Any:
    try:
        optimizer = keras.saving.deserialize_keras_object(found, safe_mode=True)
    except Exception as exc:
        raise SerializationError(f"Keras cannot make the optimizer: {config.reason(exc)}") from exc
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise SerializationError(f"a stored optimizer is a {type(optimizer).__name__}")
    return optimizer


def _fill(
    target: Any, layers: Mapping[str, str], values: Mapping[str, Any], stored: Mapping[str, Any],
    states: Mapping[str, Any], *, strict: bool,
) -> Any:  # fmt: skip
    """Fill a model and its optimizers; all is checked before anything changes. `strict`: optimizers must be there."""
    if not isinstance(target, keras.layers.Layer):
        raise SerializationError(f"a {type(target).__name__} cannot be filled", hint="a Keras model or layer")
    found, variables = structure.walk(target)
    problems = [
        f"layer {path or 'itself'!r} is stored as {layers.get(path, 'none')}, the live one is {found.get(path, 'none')}"
        for path in sorted(layers.keys() | found.keys())
        if path and layers.get(path) != found.get(path)
    ]
    problems += _differences(variables, values)
    live = structure.optimizers(target)
    if live or strict:
        problems += [f"it has no optimizer {attribute!r}" for attribute in stored if attribute not in live]
    pending: dict[str, Any] = {}
    for attribute, note in stored.items() if live else ():
        optimizer = live.get(attribute)
        if optimizer is None or problems:
            continue
        if type(optimizer).__name__ != note["config"].get("class_name"):
            problems.append(
                f"{attribute} is a {type(optimizer).__name__}, stored is {note['config'].get('class_name')}"
            )
        elif any(name not in variables for name in note["trains"]):
            problems.append(f"{attribute} trains what is not there")
        elif optimizer.built and structure.trained_by(optimizer, variables) != note["trains"]:
            problems.append(f"{attribute} trains other variables")
        else:
            if not optimizer.built:
                optimizer.build([variables[name] for name in note["trains"]])
            pending |= structure.state_of(attribute, optimizer)
    if not problems and live:
        problems += _differences(pending, states)
    if problems:
        raise SerializationError(
            f"what is stored does not fit the model: {'; '.join(problems[:5])}", hint="nothing was changed"
        )
    for name, variable in (*variables.items(), *pending.items()):
        value = values[name] if name in variables else states[name]
        variable.assign(value.astype(keras.ops.convert_to_numpy(variable).dtype, copy=False))
    for layer in target._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with copies of its variables
    return target


def _differences(variables: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Why stored arrays do not fit variables by name. The backends of Keras count in integers of different sizes."""
    problems = [f"{name} is missing from what is stored" for name in variables if name not in values]
    problems += [f"{name} is stored, but not in the live object" for name in values if name not in variables]
    for name in variables.keys() & values.keys():
        value, variable = values[name], variables[name]
        stored, wanted = (value.dtype.name, tuple(value.shape)), (_dtype(variable), tuple(variable.shape))
        counts = all("int" in dtype for dtype, _ in (stored, wanted)) and stored[1] == wanted[1]
        if stored != wanted and not counts:
            problems.append(
                f"{name} is stored as {stored[0]}{list(stored[1])}, the live one is {wanted[0]}{list(wanted[1])}"
            )
    return sorted(problems)


@contextmanager
def _on(device: str | None) -> Iterator[None]:
    """Where Keras puts what it makes. Raises `BackendError` for a device that it does not have."""
    kind, _, number = (device or "cpu").partition(":")
    if kind != "cpu" and not (kind == "cuda" and (number or "0").isdigit() and int(number or 0) < _accelerators()):
        raise BackendError(f"Keras cannot use device {device!r}", hint="device='cpu' always works", backend="keras")
    if not _accelerators():  # there is one place only, and Keras' context breaks the seeds of the torch backend
        yield
        return
    with keras.device(f"{'gpu' if kind == 'cuda' else 'cpu'}:{number or 0}"):
        yield


def _accelerators() -> int:
    if keras.backend.backend() == "torch":
        import torch

        return int(torch.cuda.device_count())
    return len(keras.distribution.list_devices("gpu"))


@contextmanager
def _unchanged(obj: Any) -> Iterator[None]:
    """Put back what running changes, unless a session uses the object: its random numbers go on."""
    draws = getattr(obj, "catalog_draws_on", False)
    kept = [] if draws else [v for v in structure.walk(obj)[1].values() if not v.trainable]
    before = [(variable, np.array(keras.ops.convert_to_numpy(variable))) for variable in kept]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def _method(obj: Any, method: str) -> Any:
    """The model itself for `call`; else a method, or a network inside it."""
    if not isinstance(obj, keras.layers.Layer):
        raise SerializationError(f"a {type(obj).__name__} is no Keras model or layer")
    found = obj
    for part in method.split(".") if method != "call" else ():
        found = getattr(found, part, None)
    owner = next(kind for kind in type(obj).__mro__ if "call" in vars(kind))
    if not callable(found) or (method == "call" and owner.__qualname__ in ("Model", "Layer", "Operation")):
        raise SerializationError(f"a {type(obj).__name__} has no method {method!r}")
    return found


def _inputs_of(function: Any) -> list[str] | None:
    """The names of the inputs of a functional or sequential model; None for others."""
    if not isinstance(function, keras.Model) or not structure._is_graph(function) or not function.built:
        return None
    owner = next(kind for kind in type(function).__mro__ if "call" in vars(kind))
    if not owner.__module__.startswith("keras."):
        return None
    nested = getattr(function, "_inputs_struct", None)
    if isinstance(nested, Mapping):
        return [str(key) for key in nested]
    names = [tensor.name for tensor in function.inputs]
    if not any(name.startswith(("keras_tensor", "input_layer")) for name in names) and len(set(names)) == len(names):
        return names
    return ["input"] if len(names) == 1 else [f"input_{number}" for number in range(len(names))]


def _packed(function: Any, values: Mapping[str, Any]) -> Any:
    nested, names = getattr(function, "_inputs_struct", None), _inputs_of(function) or []
    if len(names) == len(values) == 1 and not isinstance(nested, Mapping):  # named before it was built, perhaps
        values = {names[0]: next(iter(values.values()))}
    if set(names) != set(values):
        raise InvalidInput(f"it takes {', '.join(names)}, not {', '.join(values)}")
    if isinstance(nested, Mapping):
        return dict(values)
    listed = [values[name] for name in names]
    return listed if isinstance(nested, (list, tuple)) else listed[0]
