"""Keras models ↔ `model.json`, `model.safetensors`, `optimizers.safetensors`, and what layers keep of their own."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import keras
import numpy as np

from catalog_core import callers, filling, tensors
from catalog_core.axes import measured
from catalog_core.errors import BackendError, InvalidInput, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest, Signature, Trial
from catalog_core.outputs import by_name
from catalog_core.quiet import quiet
from catalog_core.records import Description
from catalog_core.shown import an
from catalog_core.snapshots import MAX_COPIED, Snapshot, of_plain, together
from catalog_keras import build, config, own, reuse, structure, training

CONFIG = "model.json"
WEIGHTS = "model.safetensors"
STATES = "optimizers.safetensors"


class KerasSerializer:
    """See `interfaces.serializer`."""

    name = "keras"
    save_options = ()
    load_options = filling.OPTIONS

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Weights, seeds, own state and optimizers always; the configuration where Keras makes the model of it."""
        with build.same_names():
            return _saved(obj, directory)

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """The model with its optimizers; `into` fills a live one. See `interfaces.serializer.Serializer.load`."""
        kind = options.get("as_")
        if kind not in (None, "numpy"):
            raise SerializationError(f"as_={kind!r} is not known here", hint="numpy")
        notes = _notes(reader.meta)
        make = tensors.numpy_maker(bool(options.get("copy")))
        own_files = own.files(notes["own"])
        parts = [WEIGHTS, *([STATES] if notes["optimizers"] else []), *sorted(own_files & {own.FILE})]
        exact = training.exact(reader, notes["optimizers"])
        surplus = sorted(set(reader.files) - {CONFIG, *parts, *own_files, *([training.FILE] if exact else [])})
        if surplus:
            raise SerializationError(f"the component holds {surplus[0]!r}, which is no part of a stored Keras model")
        arrays = {part: tensors.read(reader, make, writable=False, name=part) for part in parts}
        if kind == "numpy" and into is None:
            return {name: array for part in parts for name, array in arrays[part].items()}
        kept = own.read(notes["own"], arrays.get(own.FILE, {}), lambda name: bytes(reader.view(name)))
        if into is not None and any(options.get(key) for key in filling.OPTIONS):
            return reuse.fill(into, arrays[WEIGHTS], kept, options)
        stored = _Stored(notes["layers"], arrays[WEIGHTS], notes["optimizers"], arrays.get(STATES, {}), kept)
        if into is not None:
            return _fill(into, stored, strict=False)
        if "config" in reader.meta:
            why = str(reader.meta["config"])
            raise SerializationError(f"only weights are stored: {why}", hint="load(ref, into=model) or as_='numpy'")
        if CONFIG not in reader.files:
            raise SerializationError(f"the component holds no {CONFIG}")
        found = config.parse(bytes(reader.view(CONFIG)))
        stored, lost = _trusted(found, stored, exact)
        config.check(found)
        size = sum(array.nbytes for part in arrays.values() for array in part.values())
        # Keras warns of a custom compile(), whose optimizers come here
        with _on(device), quiet(), build.bounded(build.allowance(size)):
            model = build.model(found, notes["same_layers"])
            for attribute, note in stored.optimizers.items():
                # what compile() made is as it was given: without the scaling of losses, for one
                live = type(getattr(model, attribute, None)).__name__
                if attribute in exact or live != note["config"].get("class_name"):
                    setattr(model, attribute, build.optimizer(exact.get(attribute, note["config"])))
            _fill(model, stored, strict=True)
        if lost:
            callers.warn(f"{type(model).__name__} is loaded without all that it was compiled with: {lost}")
        return model

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

    @staticmethod
    def snapshot(obj: Any) -> Snapshot:
        """Random numbers only: each call puts back what else it changes, and the first one builds what is stored."""
        return Snapshot(None)

    def measure(self, obj: Any, method: str, trial: Trial) -> Signature:
        """Found by running, for the axes that a functional model leaves free, or that may be free in another."""
        return measured(trial, _known_axes(_method(obj, method), trial.example))


def _saved(obj: Any, directory: Directory) -> Mapping[str, Any]:
    """Write a model; return the notes for the manifest."""
    if not isinstance(obj, keras.layers.Layer):
        raise SerializationError(f"{an(type(obj).__name__)} is no Keras model or layer")
    layers, variables = structure.walk(obj)
    meta: dict[str, Any] = {
        "class": f"{type(obj).__module__}:{type(obj).__qualname__}", "layers": layers, "optimizers": {}
    }  # fmt: skip
    states: dict[str, Any] = {}
    for attribute, optimizer in structure.optimizers(obj).items():
        trained = structure.trained_by(optimizer, variables)
        if trained is not None:
            states |= structure.state_of(attribute, optimizer)
            meta["optimizers"][attribute] = training.note(optimizer, trained)
    kept = own.report(_owners(obj, meta["optimizers"]), variables)
    tensors.write(_arrays(variables), directory, WEIGHTS)
    if states:
        tensors.write(_arrays(states), directory, STATES)
        directory.write(training.FILE, [training.exact_bytes(meta["optimizers"])])
    if kept:
        meta["own"] = own.write(
            kept,
            lambda arrays: tensors.write(arrays, directory, own.FILE),
            lambda name, data: directory.write(name, [data]),
        )
    try:
        shared = structure.shared(obj)
        found, lost = training.configuration(obj, lambda made: _read_back(made, shared, layers, variables))
        directory.write(CONFIG, [json.dumps(found, sort_keys=True, separators=(",", ":")).encode()])
        if shared:
            meta["same_layers"] = shared
        lost = lost or next((n["left_out"] for n in meta["optimizers"].values() if "left_out" in n), None)
    except training.FAILURES as exc:
        lost, meta["config"] = None, training.cause(exc)
        callers.warn(
            f"{type(obj).__name__} is stored as weights only; load(ref, into=model) fills one: {meta['config']}"
        )
    if lost:
        meta["uncompiled"] = lost
        callers.warn(
            f"{type(obj).__name__} is stored without all that it was compiled with: it loads and predicts, and is "
            f"to be compiled before it trains on (load(ref, into=model) fills the optimizer too): {lost}"
        )
    return meta


def _dtype(variable: Any) -> str:
    return str(keras.backend.standardize_dtype(variable.dtype))


def _arrays(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(keras.ops.convert_to_numpy(variable)) for name, variable in variables.items()}


@attrs.frozen
class _Stored:
    """What is stored of a model: kinds of layers, variables, optimizers with their states, and own state, by place."""

    layers: Mapping[str, str]
    values: Mapping[str, Any]
    optimizers: Mapping[str, Any]
    states: Mapping[str, Any]
    own: Mapping[str, own.Own]


def _trusted(found: dict[str, Any], stored: _Stored, exact: dict[str, Any]) -> tuple[_Stored, str | None]:
    """What is stored, less the optimizers that were left out when it was saved, or that are of classes which this
    process does not have; what the models of `found` were compiled with is taken out alike. And why, for what is only
    missing here. Raises `SerializationError` for a configuration that is never made."""
    lost = training.unknown_taken_out(found)
    kept = {name: note for name, note in stored.optimizers.items() if "left_out" not in note}
    for name in list(kept):
        why = training.unknown(kept[name]["config"]) or (training.unknown(exact[name]) if name in exact else None)
        if why is not None:
            lost = lost or why
            del kept[name]
    gone = stored.optimizers.keys() - kept.keys()
    states = {key: value for key, value in stored.states.items() if key.split(".")[1] not in gone}
    mine = {key: value for key, value in stored.own.items() if key not in {f"optimizers.{name}" for name in gone}}
    return attrs.evolve(stored, optimizers=kept, states=states, own=mine), lost


def _owners(model: Any, attributes: Iterable[str]) -> dict[str, Any]:
    """The layers and optimizers that may keep state of their own, by place."""
    live = structure.optimizers(model)
    found = {f"optimizers.{attribute}": live[attribute] for attribute in attributes if attribute in live}
    return structure.layers(model) | found


def _read_back(
    found: dict[str, Any], shared: Mapping[str, str], layers: Mapping[str, str], variables: Mapping[str, Any]
) -> None:  # fmt: skip
    """Make the model of its configuration, as `load` will. Raises `SerializationError` where that is another one."""
    config.check(found)
    try:
        made, others = structure.walk(build.outline(found, shared))
    except SerializationError:
        raise
    except Exception as exc:  # a class of the user's
        raise SerializationError(f"Keras cannot make the model: {config.reason(exc)}") from exc
    problems = _other_layers(layers, made) + _unlike(
        {name: (_dtype(v), tuple(v.shape)) for name, v in variables.items()},
        {name: (_dtype(v), tuple(v.shape)) for name, v in others.items()},
    )
    if problems:
        raise SerializationError(f"Keras makes another model of its configuration: {'; '.join(problems[:5])}")


def _notes(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Layers, optimizers, own state and shared layers, as the manifest has them: a stranger may have written it."""
    notes = {key: meta.get(key) for key in ("layers", "optimizers")}
    notes |= {key: meta.get(key, {}) for key in ("own", "same_layers")}
    good = all(isinstance(note, dict) for note in notes.values())
    for key in ("layers", "same_layers") if good else ():
        good = good and all(isinstance(text, str) for text in notes[key].values())  # type: ignore[union-attr]
    for attribute, note in notes["optimizers"].items() if good else ():  # type: ignore[union-attr]
        trains = note.get("trains") if isinstance(note, dict) and attribute.isidentifier() else None
        good = good and isinstance(trains, list) and all(isinstance(n, str) for n in trains)
        good = good and not attribute.startswith("_") and isinstance(note.get("config"), dict)
    if not good:
        raise SerializationError("what the manifest says of this component cannot be read")
    found = {key: dict(note) for key, note in notes.items()}  # type: ignore[arg-type]
    found["optimizers"] = {
        attribute: {**note, "config": training.numbered(note["config"])}
        for attribute, note in found["optimizers"].items()
    }
    return found


def _fill(target: Any, stored: _Stored, *, strict: bool) -> Any:
    """Fill a model, its optimizers and their own state; all is checked before anything changes, and what the objects
    report afterwards is compared. `strict`: optimizers must be there. Raises `SerializationError`: the model is as it
    was."""
    if not isinstance(target, keras.layers.Layer):
        raise SerializationError(f"{an(type(target).__name__)} cannot be filled", hint="a Keras model or layer")
    found, variables = structure.walk(target)
    problems = _other_layers(stored.layers, found) + _differences(variables, stored.values)
    live = structure.optimizers(target)
    if live or strict:
        problems += [f"it has no optimizer {attribute!r}" for attribute in stored.optimizers if attribute not in live]
    pending: dict[str, Any] = {}
    for attribute, note in stored.optimizers.items() if live and not problems else ():
        problems += _optimizer_problems(attribute, live[attribute], note, variables)
        if not problems:
            pending |= structure.state_of(attribute, live[attribute])
    if not problems and live:
        problems += _differences(pending, stored.states)
    items = _owners(target, live)
    expected = {path: kept for path, kept in stored.own.items() if live or not path.startswith("optimizers.")}
    if not problems:
        problems += own.refuse_unfilled(items, variables, expected)
    if not problems:
        problems += _assign({**variables, **pending}, {**stored.values, **stored.states}, target, items, expected)
    if problems:
        raise SerializationError(
            f"what is stored does not fit the model: {'; '.join(problems[:5])}", hint="nothing was changed"
        )
    return target


def _optimizer_problems(
    attribute: str, optimizer: Any, note: Mapping[str, Any], variables: Mapping[str, Any]
) -> list[str]:
    """Why a stored optimizer does not fit a live one, which is built if it does."""
    if type(optimizer).__name__ != note["config"].get("class_name"):
        return [f"{attribute} is {an(type(optimizer).__name__)}, stored is {note['config'].get('class_name')}"]
    if any(name not in variables for name in note["trains"]):
        return [f"{attribute} trains what is not there"]
    if optimizer.built and structure.trained_by(optimizer, variables) != note["trains"]:
        return [f"{attribute} trains other variables"]
    if not optimizer.built:
        optimizer.build([variables[name] for name in note["trains"]])
    return []


def _assign(
    variables: Mapping[str, Any], values: Mapping[str, Any], target: Any, items: Mapping[str, Any],
    kept: Mapping[str, own.Own],
) -> list[str]:  # fmt: skip
    """Give all variables and own states their values, and compare what the objects report then; on a difference, put
    back what was there and return the problems."""
    owned = {path: items[path] for path in kept}
    before = own.report(owned, variables)
    old = _arrays(variables) if kept else {}
    for name, variable in variables.items():
        variable.assign(values[name].astype(keras.ops.convert_to_numpy(variable).dtype, copy=False))
    problems = own.fill(items, variables, kept, values)
    for name, variable in variables.items() if kept and not problems else ():
        given = values[name].astype(keras.ops.convert_to_numpy(variable).dtype, copy=False)
        if given.tobytes() != np.asarray(keras.ops.convert_to_numpy(variable)).tobytes():
            problems.append(f"{name} was changed by what the layer's own methods load")
    if problems:
        for name, variable in variables.items():
            variable.assign(old[name])
        own.restore(items, before, old)
    for layer in target._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with copies of its variables
    return problems


def _other_layers(stored: Mapping[str, str], live: Mapping[str, str]) -> list[str]:
    """Where the kinds of layers differ. Input layers hold nothing, and a model and one inside may share one."""
    return [
        f"layer {path!r} is stored as {stored.get(path, 'none')}, the live one is {live.get(path, 'none')}"
        for path in sorted(stored.keys() | live.keys())
        if path and stored.get(path) != live.get(path) and "InputLayer" not in (stored.get(path), live.get(path))
    ]


def _differences(variables: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Why stored arrays do not fit variables by name."""
    return _unlike(
        {name: (value.dtype.name, tuple(value.shape)) for name, value in values.items()},
        {name: (_dtype(variable), tuple(variable.shape)) for name, variable in variables.items()},
    )


def _unlike(stored: Mapping[str, tuple[str, Any]], live: Mapping[str, tuple[str, Any]]) -> list[str]:
    """Where dtypes and shapes differ by name. The backends of Keras count in integers of different sizes."""
    problems = [f"{name} is missing from what is stored" for name in live if name not in stored]
    problems += [f"{name} is stored, but not in the live object" for name in stored if name not in live]
    for name in live.keys() & stored.keys():
        (dtype, shape), (wanted, size) = stored[name], live[name]
        counts = "int" in dtype and "int" in wanted and shape == size
        if (dtype, shape) != (wanted, size) and not counts:
            problems.append(f"{name} is stored as {dtype}{list(shape)}, the live one is {wanted}{list(size)}")
    return sorted(problems)


@contextmanager
def _on(device: str | None) -> Iterator[None]:
    """Where Keras puts what it makes. Raises `BackendError` for a device that it does not have."""
    kind, _, number = (device or "cpu").partition(":")
    if kind != "cpu" and not (kind == "cuda" and (number or "0").isdigit() and int(number or 0) < _accelerators()):
        there = ["cpu", *[f"cuda:{number}" for number in range(_accelerators())]]
        raise BackendError(
            f"Keras cannot use device {device!r}", hint=f"devices here: {', '.join(there)}", backend="keras"
        )
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


_INTERNAL = frozenset(vars(keras.Model(name="model"))) | {"built"}  # what Keras keeps for itself in a model or layer


@contextmanager
def _unchanged(obj: Any) -> Iterator[None]:
    """Put back what running changes, also a method that trains: variables, those of optimizers and metrics too, and
    plain attributes of classes that are not Keras' own, unless the run built something. A session's object draws on."""
    if getattr(obj, "catalog_draws_on", False):
        yield
        return
    before = [(v, np.array(keras.ops.convert_to_numpy(v))) for v in _variables(obj)]
    own = [part for part in obj._flatten_layers() if not type(part).__module__.startswith("keras.")]
    plain = together([of_plain(part, _INTERNAL) for part in own])
    try:
        yield
    finally:
        for variable, value in before:
            if np.asarray(keras.ops.convert_to_numpy(variable)).tobytes() != value.tobytes():
                variable.assign(value)
        if len(before) == len(_variables(obj)) and plain.differs():
            plain.put_back()


def _variables(obj: Any) -> list[Any]:
    """All variables that code of a model may change: of those that are trained, as many as are copied in a moment."""
    found = list(structure.walk(obj)[1].values())
    for optimizer in structure.optimizers(obj).values():
        found += optimizer.variables
    found += getattr(obj, "metrics_variables", None) or []
    room, kept = MAX_COPIED, {}
    for variable in sorted(found, key=lambda v: bool(v.trainable)):
        room -= variable.trainable * math.prod(variable.shape) * 8
        if room >= 0 or not variable.trainable:
            kept[id(variable)] = variable
    return list(kept.values())


def _method(obj: Any, method: str) -> Any:
    """The model itself for `call`; else a method, or a network inside it."""
    if not isinstance(obj, keras.layers.Layer):
        raise SerializationError(f"{an(type(obj).__name__)} is no Keras model or layer")
    found = obj
    for part in method.split(".") if method != "call" else ():
        found = getattr(found, part, None)
    owner = next(kind for kind in type(obj).__mro__ if "call" in vars(kind))
    if not callable(found) or (method == "call" and owner.__qualname__ in ("Model", "Layer", "Operation")):
        raise SerializationError(f"{an(type(obj).__name__)} has no method {method!r}")
    return found


def _inputs_of(function: Any) -> list[str] | None:
    """The names of the inputs of a functional or sequential model; None for others."""
    if not isinstance(function, keras.Model) or not structure.is_graph(function) or not function.built:
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


def _known_axes(function: Any, example: Mapping[str, Any]) -> dict[str, tuple[int | None, ...]] | None:
    """The axes of a functional or sequential model's inputs, None where they may have any length; None for others."""
    names = _inputs_of(function)
    if names is None or len(names) != len(example):
        return None
    nested = getattr(function, "_inputs_struct", None)
    tensors = list(nested.values()) if isinstance(nested, Mapping) else function.inputs
    # the rows are tried: a sequential model that data built has theirs
    known = {name: (None, *tensor.shape[1:]) for name, tensor in zip(names, tensors, strict=True) if tensor.shape}
    return known if set(known) == set(example) else dict(zip(example, known.values(), strict=False))


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
