"""TensorFlow objects ↔ `saved_model.pb` and `variables/`: one signature for each method that was traced."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from catalog_core import forks
from catalog_core import quiet as quietly
from catalog_core.axes import BATCH, measured
from catalog_core.errors import BackendError, CatalogError, InvalidInput, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest, Signature, Trial
from catalog_core.names import nearest
from catalog_core.records import Description, TensorSpec
from catalog_core.session import in_order
from catalog_core.snapshots import Snapshot
from catalog_core.values import refuse_pickle
from catalog_savedmodel import graph, live

GRAPH = "saved_model.pb"
INDEX = "variables/variables.index"
DATA = "variables/variables.data-00000-of-00001"
_KEY = "weights/{}/.ATTRIBUTES/VARIABLE_VALUE"
STRIDE = 4 << 20  # variables lie at the same places in each version of a model: equal stretches are stored once
_ONE_AT_A_TIME = forks.Lock()  # tracing and loading keep their state in globals


def _quiet() -> AbstractContextManager[None]:
    """Keep TensorFlow from telling of every file: what goes wrong is in the error."""
    return quietly.quiet("tensorflow", "absl")


def _reason(exc: BaseException) -> str:
    """All that TensorFlow says: the line of the object's code stands behind "in user code"."""
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:4000]


class LoadedModel:
    """The methods of a stored model over one set of variables; loads without Keras and without the class it came
    from. Methods are attributes (`model.generate(latent=…)`), or `model.run("generator.call", …)`; gradients flow
    through them to `trainable_variables`. `root` is TensorFlow's own object, to be tracked by a live model."""

    def __init__(self, root: Any, graph: bytes, notes: Mapping[str, Any]) -> None:
        self.catalog_draws_on = False  # a session sets it
        self.root = root
        self.graph = graph
        self.notes = notes
        self.weights: dict[str, Any] = {name: root.weights[name] for name in notes["names"]}
        self.methods: dict[str, list[str]] = {name: found["inputs"] for name, found in notes["methods"].items()}

    @property
    def variables(self) -> tuple[Any, ...]:
        """All variables, in the order they were stored."""
        return tuple(self.weights.values())

    @property
    def trainable_variables(self) -> tuple[Any, ...]:
        """Those that training changes."""
        return tuple(variable for variable in self.weights.values() if variable.trainable)

    def signature_of(self, method: str) -> Any:
        """TensorFlow's function of a method. Raises `SerializationError` for one that was not stored."""
        if method not in self.methods:
            hint = nearest(method, self.methods) or f"it has {', '.join(self.methods) or 'none'}"
            raise SerializationError(f"no method {method!r} was stored", hint=hint)
        return self.root.signatures[method]

    def run(self, method: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a method; inputs by position or name, outputs by name."""
        signature = self.signature_of(method)
        named = in_order(method, self.methods[method], args, kwargs)
        if named.keys() != set(self.methods[method]):
            raise InvalidInput(f"{method} takes {', '.join(self.methods[method])}, not {', '.join(named) or 'nothing'}")
        wanted = signature.structured_input_signature[1]
        tensors = {name: tf.convert_to_tensor(value) for name, value in named.items()}
        for name, spec in wanted.items():
            got = tensors[name]
            if got.dtype != spec.dtype or not spec.shape.is_compatible_with(got.shape):
                raise InvalidInput(
                    f"input {name!r} of {method}: expected {_shown(spec.dtype, spec.shape)}, "
                    f"got {_shown(got.dtype, got.shape)}"
                )
        outputs = signature(**tensors)
        return {name: outputs[name] for name in self.notes["methods"][method]["outputs"]}

    def __repr__(self) -> str:
        return f"<LoadedModel {', '.join(self.methods) or 'without methods'}: {len(self.weights)} variables>"

    def __reduce__(self) -> NoReturn:
        refuse_pickle(
            self, "catalog.load(reference)", "its functions are graphs of TensorFlow, which pickle cannot write"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method `call`: its tensor, or its tensors by name."""
        return self._plain("call", args, kwargs)

    def _plain(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outputs = self.run(method, *args, **kwargs)
        return next(iter(outputs.values())) if list(outputs) == ["output"] else outputs

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("methods", {}):
            return lambda *args, **kwargs: self._plain(name, args, kwargs)
        have = ", ".join(self.__dict__.get("methods", {})) or "none"
        way = f"its methods are {have}, and model(x) is `call`; a keras.Model is what serializer='keras' keeps"
        raise AttributeError(f"this stored model has no attribute {name!r} ({way})")


def _shown(dtype: Any, shape: Any) -> str:
    sizes = "?" if shape.rank is None else ", ".join("?" if size is None else str(size) for size in shape)
    return f"{dtype.name}[{sizes}]"


def variables_of(obj: Any) -> dict[str, Any]:
    """The variables of a live object or a stored model, by name, without those of optimizers of a live one."""
    return obj.weights if isinstance(obj, LoadedModel) else live.parts(obj)[0]


class SavedModelSerializer:
    """See `interfaces.serializer`."""

    name = "savedmodel"
    save_options = ("optimizers",)

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Variables always; a signature for `call` and each named method, from the example, or from what Keras or a
        `tf.function` knows of its inputs."""
        place = directory.path(DATA, STRIDE)
        with tempfile.TemporaryDirectory(prefix="savedmodel-", dir=place.parent) as name:
            with _ONE_AT_A_TIME, _quiet():
                pb, meta = _write(obj, request, Path(name))
            directory.write(GRAPH, [pb])
            directory.write(INDEX, [(Path(name) / INDEX).read_bytes()])
            (Path(name) / DATA).rename(place)
        return meta

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """The stored model; `into` fills the variables of a live one. See `interfaces.serializer.Serializer.load`."""
        kind = options.get("as_")
        if kind not in (None, "numpy"):
            raise SerializationError(f"as_={kind!r} is not known here", hint="numpy")
        place, notes = _place(device), _notes(reader.meta)
        for file in (GRAPH, INDEX, DATA):
            if file not in reader.files:
                raise SerializationError(f"the component holds no {file}")
        surplus = sorted(set(reader.files) - {GRAPH, INDEX, DATA})
        if surplus:
            raise SerializationError(f"the component holds {surplus[0]!r}, which is no part of a stored SavedModel")
        with tempfile.TemporaryDirectory(prefix="savedmodel-") as name:
            folder = Path(name)
            (folder / "variables").mkdir()
            for file in (INDEX, DATA):
                os.symlink(reader.path(file).resolve(), folder / file)
            _check_sizes(folder)
            if kind == "numpy" or into is not None:
                values = _values(folder, notes["names"])
                return values if into is None else _fill(into, values)
            data = bytes(reader.view(GRAPH))
            safe = graph.safe_copy(graph.parse(data))
            (folder / GRAPH).write_bytes(safe.SerializeToString(deterministic=True))
            try:
                with _ONE_AT_A_TIME, _quiet(), tf.device(place):
                    root = tf.saved_model.load(str(folder))
                return _loaded(root, data, notes)
            except CatalogError:
                raise
            except Exception as exc:  # TensorFlow raises anything for a graph that is broken
                raise SerializationError(f"TensorFlow cannot load the SavedModel: {_reason(exc)}") from exc

    def describe(self, obj: Any) -> Description:
        """Class, configuration, parameters and variables."""
        keras = live.is_keras(obj)
        framework, module = ("keras", sys.modules.get("keras")) if keras else ("tensorflow", tf)
        version = str(getattr(module, "__version__", ""))
        try:
            variables = variables_of(obj)
        except Exception:  # no TensorFlow object, or one whose own code fails
            return Description(framework, version)
        count = sum(int(np.prod(variable.shape)) for variable in variables.values() if variable.trainable)
        shapes = {name: (_dtype(variable), tuple(variable.shape)) for name, variable in variables.items()}
        path = _path(obj)
        algorithm = path.partition(":")[2].rpartition(".")[2]
        return Description(framework, version, algorithm, _hyperparameters(obj), count, shapes, path)

    def inputs(self, obj: Any, method: str) -> Iterable[str] | None:
        """See `interfaces.serializer.Serializer.inputs`."""
        if isinstance(obj, LoadedModel):
            obj.signature_of(method)
            return obj.methods[method]
        return live.input_names(obj, method)

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a method in inference mode; NumPy arrays out. The object is left as it was, seeds included, unless a
        session draws on."""
        if isinstance(obj, LoadedModel):
            place = next((variable.device for variable in obj.variables), None)
            with tf.device(place), _unchanged(obj):
                return {name: np.asarray(value.numpy()) for name, value in obj.run(method, **inputs).items()}
        with _unchanged(obj):
            values = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
            return {name: np.asarray(value.numpy()) for name, value in live.invoke(obj, method, values).items()}

    @staticmethod
    def snapshot(obj: Any) -> Snapshot:
        """Random numbers only: each call puts back what else it changes, and the first one builds what is stored."""
        return Snapshot(None)

    def measure(self, obj: Any, method: str, trial: Trial) -> Signature:
        """Found by running, for the axes that the object leaves free, or that may be free in another."""
        if not isinstance(obj, LoadedModel):
            return measured(trial, live.known_axes(obj, method, trial.example))
        wanted = obj.signature_of(method).structured_input_signature[1]
        return measured(
            trial, {name: tuple(spec.shape) for name, spec in wanted.items() if spec.shape.rank is not None}
        )


def _write(obj: Any, request: SaveRequest, folder: Path) -> tuple[bytes, dict[str, Any]]:
    """Write the variables into `folder`; return the graph, and what the manifest notes."""
    if isinstance(obj, LoadedModel):  # the graph stays as it is
        for method in request.methods:
            obj.signature_of(method)
        root = _container(obj.weights, list(obj.root.others))
        tf.train.Checkpoint(root=root).write(str(folder / "variables" / "variables"))
        return obj.graph, dict(obj.notes)
    variables, others = live.parts(obj, optimizers=bool(request.options.get("optimizers")))
    meta: dict[str, Any] = {"class": _path(obj), "methods": {}, "shapes": {}}
    signatures: dict[str, Any] = {}
    with _unchanged(obj):
        for method in dict.fromkeys((*request.methods, *_usual(obj))):
            try:
                trial = request.trials.get(method)
                found = measured(trial, live.known_axes(obj, method, trial.example)) if trial else None
                given = {} if request.methods and not trial else (trial or request).example
                choices = _specs(obj, method, given or {}, found)
                if choices:
                    signatures[method], meta["methods"][method], why = _traced(obj, method, choices, trial)
                if trial and found and choices:
                    meta["shapes"][method] = _shapes(trial, found, signatures[method], why)
            except CatalogError:
                if method in request.methods:
                    raise
    variables, others = _with_what_is_used(signatures.values(), variables, others, obj)
    root = _container(variables, list(others.values()))
    meta["names"] = list(variables)
    meta["fixed"] = {method: found["fixed"] for method, found in meta["methods"].items() if "fixed" in found}
    try:
        tf.saved_model.save(root, str(folder), signatures=signatures)
    except (AssertionError, ValueError, tf.errors.OpError) as exc:
        raise SerializationError(f"TensorFlow cannot write {type(obj).__name__}: {_reason(exc)}") from exc
    data = graph.canonical(graph.parse((folder / GRAPH).read_bytes()))
    graph.check(graph.parse(data))
    return data, meta


def _with_what_is_used(
    functions: Iterable[Any], variables: dict[str, Any], others: dict[str, Any], obj: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Variables and other resources, with those of optimizers and metrics that traced functions read or write: a method
    that trains, a layer that counts."""
    kept = {id(variable) for variable in variables.values()}
    used = {id(variable) for function in functions for variable in function.graph.variables} - kept
    complete, resources = live.parts(obj, optimizers=True)
    if used & {id(variable) for variable in complete.values()}:
        variables, others = complete, resources
    metrics = live.counters(obj)
    if used & {id(variable) for variable in metrics.values()}:
        variables = variables | metrics
    return variables, others


def _container(variables: Mapping[str, Any], others: list[Any]) -> Any:
    root = tf.Module()
    root.weights = dict(variables)
    root.others = others
    return root


def _usual(obj: Any) -> list[str]:
    """What is stored without being asked for: the method `call`, where there is one."""
    try:
        live.method_of(obj, "call")
    except SerializationError:
        return []
    return ["call"]


@contextmanager
def _unchanged(obj: Any) -> Iterator[None]:
    """Put back what running changes, unless a session uses the object: its random numbers go on."""
    if getattr(obj, "catalog_draws_on", False):
        yield
        return

    def variables() -> list[Any]:
        found = obj.weights if isinstance(obj, LoadedModel) else live.parts(obj, optimizers=True)[0]
        return [*found.values(), *live.counters(obj).values()]

    with live.unchanged(obj, variables):
        yield


def _specs(obj: Any, method: str, example: Mapping[str, Any], found: Signature | None) -> list[dict[str, Any]]:
    """What a method may be traced for, best first: the example's tensors with the axes free that were `found` so, with
    a free first axis, and as they are; or what the object knows of its inputs; or nothing."""
    names = live.input_names(obj, method)
    if names is not None and len(names) == len(example) == 1:  # what was not built when it was named: by position
        names = None
    given = {name: tf.convert_to_tensor(v) for name, v in example.items() if names is None or name in names}
    if not given:
        return live.known_specs(obj, method)
    fixed = {name: tf.TensorSpec(tensor.shape, tensor.dtype, name) for name, tensor in given.items()}
    choices = [fixed]
    if len({tensor.shape[0] for tensor in given.values() if tensor.shape.rank}) == 1:
        free = {
            name: tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, name) if spec.shape.rank else spec
            for name, spec in fixed.items()
        }
        choices.insert(0, free)
    axes = (
        {spec.name: [n if isinstance(n, int) else None for n in spec.shape] for spec in found.inputs} if found else {}
    )
    if axes.keys() >= fixed.keys() and any(None in axes[name] for name in fixed):
        freest = {name: tf.TensorSpec(axes[name], spec.dtype, name) for name, spec in fixed.items()}
        choices = [freest, *(choice for choice in choices if choice != freest)]
    return choices


def _shapes(trial: Trial, found: Signature, function: Any, why: str) -> dict[str, Any]:
    """The axes of a traced method: those that were found free, as far as it was traced so."""
    traced = {name: tuple(spec.shape) for name, spec in function.structured_input_signature[1].items()}
    lost = {
        axis
        for spec in found.inputs
        for axis, size in zip(spec.shape, traced.get(spec.name, ()), strict=False)
        if not isinstance(axis, int) and size is not None
    }
    if not lost:
        return {**_axes(found), "why": found.why}
    if BATCH in lost:
        return {"inputs": {}, "outputs": {}, "why": why}

    def rows(specs: Iterable[TensorSpec], arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {
            s.name: [a if a == BATCH else n for a, n in zip(s.shape, arrays[s.name].shape, strict=True)] for s in specs
        }

    outputs = rows(found.outputs, trial.outputs)
    return {"inputs": rows(found.inputs, trial.example), "outputs": outputs, "why": why}


def _axes(found: Signature) -> dict[str, Any]:
    return {"inputs": {s.name: s.shape for s in found.inputs}, "outputs": {s.name: s.shape for s in found.outputs}}


def _traced(
    obj: Any, method: str, choices: Iterable[Mapping[str, Any]], trial: Trial | None
) -> tuple[Any, dict[str, Any], str]:
    """A concrete function with named inputs and outputs for the first choice that can be traced, the notes,
    and why a better choice could not be.
    Raises `SerializationError` with TensorFlow's reason."""
    order: list[str] = []

    def run(**values: Any) -> Any:
        outputs = live.invoke(obj, method, values)
        order[:] = outputs
        return {name: tf.identity(value) for name, value in outputs.items()}

    reasons: list[str] = []
    for specs in choices:
        try:
            concrete = tf.function(run).get_concrete_function(**specs)
            if trial is not None:
                _same_shapes(concrete, specs, trial)
        except Exception as exc:  # the object's own code
            reasons.append(_reason(exc))
            continue
        notes: dict[str, Any] = {"inputs": list(specs), "outputs": list(order)}
        if reasons and all(None not in spec.shape.as_list() for spec in specs.values() if spec.shape.rank is not None):
            notes["fixed"] = reasons[0]
        return concrete, notes, (reasons or [""])[0]
    raise SerializationError(f"{method} of {type(obj).__name__} cannot be traced: {reasons[0]}")


def _same_shapes(concrete: Any, specs: Mapping[str, Any], trial: Trial) -> None:
    """Raise `SerializationError` where a function that was traced with more than its rows free gives outputs of other
    shapes than the object gave: Keras' `TimeDistributed` does, for steps of any number."""
    inner = any(None in spec.shape.as_list()[1:] for spec in specs.values() if spec.shape.rank)
    if not inner or set(specs) != set(trial.example):
        return
    outputs = concrete(**{n: tf.convert_to_tensor(trial.example[n], spec.dtype) for n, spec in specs.items()})
    for name, value in outputs.items():
        if name in trial.outputs and tuple(value.shape) != tuple(trial.outputs[name].shape):
            raise SerializationError(
                f"traced for any length, {name!r} comes out as {list(value.shape)}, not as "
                f"{list(trial.outputs[name].shape)}"
            )


def _place(device: str | None) -> str:
    """TensorFlow's name of a device. Raises `BackendError` where there is none."""
    kind, _, number = (device or "cpu").partition(":")
    places = {"cpu": "CPU", "cuda": "GPU", "gpu": "GPU"}
    known = len(tf.config.list_logical_devices(places[kind])) if kind in places else 0
    if not (number or "0").isdigit() or int(number or "0") >= known:
        there = ["cpu", *[f"cuda:{place}" for place in range(len(tf.config.list_logical_devices("GPU")))]]
        raise BackendError(
            f"TensorFlow cannot use device {device!r}", hint=f"devices here: {', '.join(there)}", backend="savedmodel"
        )
    return f"/{places[kind]}:{number or 0}"


def _notes(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What `save` returned, as the manifest has it: a stranger may have written it."""
    methods, names = meta.get("methods"), meta.get("names")
    lists = [names]
    if isinstance(methods, dict) and all(isinstance(found, dict) for found in methods.values()):
        lists += [found.get(key) for found in methods.values() for key in ("inputs", "outputs")]
    else:
        lists.append(None)
    if not all(isinstance(listed, list) and all(isinstance(n, str) for n in listed) for listed in lists):
        raise SerializationError("what the manifest says of this component cannot be read")
    return dict(meta)


def _loaded(root: Any, data: bytes, notes: Mapping[str, Any]) -> LoadedModel:
    """Hold what TensorFlow loaded against the notes."""
    weights, signatures = getattr(root, "weights", {}), getattr(root, "signatures", {})
    if set(weights) != set(notes["names"]) or not all(isinstance(v, tf.Variable) for v in weights.values()):
        raise SerializationError("the SavedModel holds other variables than the manifest names")
    if set(signatures) != set(notes["methods"]):
        raise SerializationError("the SavedModel holds other methods than the manifest names")
    for name, found in notes["methods"].items():
        outputs = signatures[name].structured_outputs
        known = set(signatures[name].structured_input_signature[1])
        if known != set(found["inputs"]) or set(outputs) != set(found["outputs"]):
            raise SerializationError(f"the inputs and outputs of {name!r} are others than the manifest names")
    return LoadedModel(root, data, notes)


def _check_sizes(folder: Path) -> None:
    """Hold the sizes that the index of the variables names against the bytes that are there, before any is read."""
    try:
        checkpoint = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        types, shapes = checkpoint.get_variable_to_dtype_map(), checkpoint.get_variable_to_shape_map()
    except Exception as exc:  # TensorFlow raises anything for an index that is broken
        raise SerializationError(f"the variables of the SavedModel cannot be read: {_reason(exc)}") from exc
    named = sum(math.prod(shape) * types[key].size for key, shape in shapes.items() if types[key] != tf.string)
    stored = sum(file.stat().st_size for file in (folder / "variables").glob("variables.data-*"))
    if named > stored:
        raise SerializationError(f"the index names variables of {named} bytes, and {stored} are stored")


def _values(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """The stored variables as arrays."""
    try:
        checkpoint = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        stored = {key for key in checkpoint.get_variable_to_shape_map() if key.startswith("weights/")}
        keys = {name: _KEY.format(name.replace(".", "..").replace("/", ".S")) for name in names}
        if stored != set(keys.values()):
            raise SerializationError("the SavedModel holds other variables than the manifest names")
        return {name: checkpoint.get_tensor(key) for name, key in keys.items()}
    except (tf.errors.OpError, ValueError, RuntimeError) as exc:
        raise SerializationError(f"the variables of the SavedModel cannot be read: {_reason(exc)}") from exc


def _fill(target: Any, values: Mapping[str, Any]) -> Any:
    variables = variables_of(target)
    if values.keys() - variables.keys() and not isinstance(target, LoadedModel):  # of optimizers or metrics, too
        complete, metrics = live.parts(target, optimizers=True)[0], live.counters(target)
        values = {name if name in complete else _by_number(name, complete): value for name, value in values.items()}
        choices = (complete, variables | metrics, complete | metrics)
        variables = next((choice for choice in choices if choice.keys() == values.keys()), variables)
    kept = [] if isinstance(target, LoadedModel) else live.kept_elsewhere(target)
    if kept:
        raise SerializationError(
            f"{kept[0]} keeps state that is no variable, and a SavedModel has it in its graph only",
            hint="load(ref) without into=, or publish it with serializer='keras'; nothing was changed",
        )
    problems = [f"{name} is missing from what is stored" for name in variables if name not in values]
    problems += [f"{name} is stored, but not in the live object" for name in values if name not in variables]
    for name in variables.keys() & values.keys():
        stored = f"{values[name].dtype.name}{list(values[name].shape)}"
        wanted = f"{_dtype(variables[name])}{list(variables[name].shape)}"
        if stored != wanted:
            problems.append(f"{name} is stored as {stored}, the live one is {wanted}")
    if problems:
        raise SerializationError(
            f"the stored variables do not fit: {'; '.join(sorted(problems)[:5])}", hint="nothing was changed"
        )
    for name, variable in variables.items():
        variable.assign(values[name])
    live.after_filling(target)
    return target


def _by_number(name: str, complete: Mapping[str, Any]) -> str:
    """An optimizer's variable as it is called now: earlier releases added the name that Keras had given it."""
    return name.rpartition(".")[0] if name.rpartition(".")[0] in complete else name


def _dtype(variable: Any) -> str:
    return str(np.dtype(variable.dtype.as_numpy_dtype).name)


def _path(obj: Any) -> str:
    """Where the class is, or was, for a model that was loaded without it."""
    if isinstance(obj, LoadedModel) and isinstance(obj.notes.get("class"), str):
        return str(obj.notes["class"])
    return f"{type(obj).__module__}:{type(obj).__qualname__}"


def _hyperparameters(obj: Any) -> dict[str, Any]:
    """The plain values of a Keras configuration and its optimizer, or of a module's attributes."""
    found: dict[str, Any] = {}
    if live.is_keras(obj):
        for prefix, part in (("", obj), ("optimizer.", getattr(obj, "optimizer", None))):
            try:
                config = part.get_config() if part is not None else {}
            except Exception:  # a class of the user's that has none
                config = {}
            found |= {prefix + str(key): value for key, value in config.items() if key not in ("trainable", "dtype")}
    elif not isinstance(obj, LoadedModel):
        found = {key: value for key, value in vars(obj).items() if not key.startswith("_")}
    return {key: value for key, value in found.items() if isinstance(value, (bool, int, float, str))}
