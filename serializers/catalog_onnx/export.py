"""Other frameworks' models as ONNX graphs, by the converters that their own projects maintain."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from catalog_core import callers
from catalog_core.axes import BATCH, resized, shared_rows
from catalog_core.errors import MissingPlugin, SerializationError, installs
from catalog_core.outputs import by_name
from catalog_core.quiet import quiet
from catalog_core.shown import an

OPSET = 18  # of TensorFlow's graphs; the newest that tf2onnx writes


USUAL = ("forward", "call", "predict")  # the methods that a graph stands for without being asked


Axes = Mapping[str, Mapping[int, str | None]]


def to_onnx(obj: Any, example: Mapping[str, Any], method: str = "forward", axes: Axes | None = None) -> Any:
    """An estimator of scikit-learn (by skl2onnx), a torch module (by torch.onnx), or a model or function of Keras or
    TensorFlow (by tf2onnx) as an `onnx.ModelProto`. `example`: input name → array. `method` is what the graph does: of
    an estimator its predictions, whatever it is. The first axis is free, each that the model leaves free, and those of
    `axes`: input → axis (from 0) → its name, or None; a warning names those of them that are not. Raises
    `MissingPlugin` where the converter is not installed, and `SerializationError` for what it cannot convert."""
    proto = _converted(obj, example, method, axes or {})
    _named(proto, example, axes or {})
    return proto


def _converted(obj: Any, example: Mapping[str, Any], method: str, axes: Axes) -> Any:
    kinds = {kind.__module__.partition(".")[0] for kind in type(obj).__mro__}
    try:
        if "sklearn" in kinds:
            return _from_sklearn(obj, example)
        if "torch" in kinds:
            return _from_torch(obj, example, method, axes)
        if kinds & {"tensorflow", "keras", "catalog_savedmodel"}:
            return _from_tensorflow(obj if method in USUAL else _part(obj, method), example, axes)
    except ModuleNotFoundError as exc:
        raise MissingPlugin(
            f"to_onnx needs {exc.name}, which is not installed", hint=installs(str(exc.name))
        ) from exc
    except Exception as exc:  # converters raise all kinds of errors
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
        raise SerializationError(f"{an(type(obj).__name__)} cannot be exported to ONNX: {cause}") from exc
    raise SerializationError(f"there is no converter for {an(type(obj).__module__)}.{type(obj).__name__}")


def _named(proto: Any, example: Mapping[str, Any], axes: Axes) -> None:
    """Give the free axes of a graph's inputs the names that were declared, and `batch` to the first one, wherever the
    graph has them; and warn of declared axes, and of rows, that are not free."""
    wanted = {name: {0: BATCH} if shared_rows(example) and np.ndim(value) else {} for name, value in example.items()}
    for name, declared in axes.items():
        wanted[name] = {**wanted.get(name, {}), **{at: axis for at, axis in declared.items() if axis}}
    called: dict[str, str] = {}
    for value in proto.graph.input:
        declared = {**dict.fromkeys(axes.get(value.name, ())), **wanted.get(value.name, {})}
        for at, axis in declared.items():
            size = value.type.tensor_type.shape.dim[at]
            if size.HasField("dim_value"):
                callers.warn(
                    f"the ONNX graph takes axis {at} of {value.name!r} as long as in the example only "
                    f"({size.dim_value})"
                )  # fmt: skip
            elif not size.dim_param and axis:
                size.dim_param = axis
            elif axis and axis not in called.values():
                called.setdefault(size.dim_param, axis)
    taken = re.compile(r"\b(" + "|".join(map(re.escape, called)) + r")\b")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info) if called else ():
        for size in value.type.tensor_type.shape.dim:
            if size.HasField("dim_param"):
                size.dim_param = taken.sub(lambda found: called[found[0]], size.dim_param)


def _from_sklearn(obj: Any, example: Mapping[str, Any]) -> Any:
    import skl2onnx
    from skl2onnx.common.data_types import guess_data_type

    types = []
    for name, value in example.items():
        ((_, kind),) = guess_data_type(np.asarray(value))
        kind.shape = [None, *np.shape(value)[1:]]
        types.append((name, kind))
    options = {id(obj): {"zipmap": False}} if hasattr(obj, "predict_proba") else None
    proto = skl2onnx.convert_sklearn(obj, initial_types=types, options=options)
    _as_places(proto, getattr(obj, "classes_", ()))
    return proto


def _as_places(proto: Any, classes: Any) -> None:
    """Let a graph that gives classes that are texts give their places among the classes, `index`, as the estimator's
    entry point does."""
    from onnx import TensorProto, helper

    if not all(isinstance(item, str) for item in classes):
        return
    for at, out in enumerate(proto.graph.output):
        if out.type.tensor_type.elem_type == TensorProto.STRING:
            version = next((part.version for part in proto.opset_import if part.domain == "ai.onnx.ml"), 1)
            texts, numbers = list(map(str, classes)), list(range(len(classes)))
            told: dict[str, Any] = {"keys_strings": texts, "values_int64s": numbers} if version > 1 else {
                "classes_strings": texts}  # fmt: skip
            proto.graph.node.append(
                helper.make_node("LabelEncoder", [out.name], ["index"], domain="ai.onnx.ml", default_int64=-1, **told)
            )
            proto.graph.output[at].CopyFrom(helper.make_tensor_value_info("index", TensorProto.INT64, [None]))
            return


def _part(obj: Any, method: str) -> Any:
    """A method, or what is below a network inside it (`generator.call`)."""
    return functools.reduce(getattr, method.split("."), obj)


def _method_as_module(obj: Any, method: str) -> Any:
    """A torch module whose forward is another method."""
    import torch

    class Method(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.owner = obj
            self.forward = getattr(obj, method)

    return Method()


def _from_torch(obj: Any, example: Mapping[str, Any], method: str, axes: Axes) -> Any:
    import torch

    obj = obj if method in USUAL else _method_as_module(obj, method)
    known = inspect.signature(obj.forward).parameters
    given = {name: torch.as_tensor(value) for name, value in example.items() if name in known}
    rows = {name: {0: BATCH} for name, value in given.items() if value.ndim}
    for name, value in given.items():  # torch takes an axis of the length 1 for one that is never longer
        for at in {**rows.get(name, {}), **axes.get(name, {})} if shared_rows(given) or name in axes else ():
            given[name] = resized(given[name], at, 2) if value.shape[at] == 1 else given[name]
    modes = [(part, part.training) for part in obj.modules()]
    obj.eval()
    try:
        with torch.no_grad(), quiet("torch", "onnxscript"):
            outputs = [name for name, _ in by_name(obj(**given))]
            free = _tried(obj, given, axes)
            choices: list[Any] = [{name: dict.fromkeys(free[name], torch.export.Dim.AUTO) for name in given}]
            if shared_rows(given):
                choices.append({name: {0: torch.export.Dim(BATCH)} for name in rows})
            program = _first(choices, lambda free: torch.onnx.export(
                obj, (), kwargs=given, dynamic_shapes=free, dynamo=True, input_names=list(given),
                output_names=outputs, verbose=False,
            ))  # fmt: skip
    finally:
        for part, mode in modes:
            part.training = mode
    if program is None:
        raise SerializationError("torch.onnx gave nothing")
    return program.model_proto


def _tried(obj: Any, given: Mapping[str, Any], axes: Axes) -> dict[str, set[int]]:
    """The axes with which a module runs at another length: those that were declared by one name, those of several
    inputs that have one place and length, and each alone. (The exporter takes an axis for free that a convolution wants
    as it is.)"""
    groups: dict[Any, list[tuple[str, int]]] = {}
    for name, value in given.items():
        for at, axis in axes.get(name, {}).items():
            groups.setdefault(axis, []).append((name, at))
        for at, size in enumerate(value.shape):
            groups.setdefault((at, int(size)), []).append((name, at))
    alone = [[place] for group in list(groups.values()) if len(group) > 1 for place in group]
    free: dict[str, set[int]] = {name: set() for name in given}
    for group in (*groups.values(), *alone):
        if all(at in free[name] for name, at in group):
            continue
        longer = dict(given)
        for name, at in group:
            longer[name] = resized(longer[name], at, 2 * given[name].shape[at])
        try:
            obj(**longer)
        except Exception:  # the object's own code
            continue
        for name, at in group:
            free[name].add(at)
    return free


def _first(choices: Sequence[Any], convert: Callable[[Any], Any]) -> Any:
    """What the first choice gives that can be converted. Raises what the last one raises."""
    for choice in choices[:-1]:
        try:
            return convert(choice)
        except Exception:  # a converter, or the object's own code: the next choice asks for less
            continue
    return convert(choices[-1])


def _from_tensorflow(obj: Any, example: Mapping[str, Any], axes: Axes) -> Any:
    import tensorflow as tf
    import tf2onnx

    arrays = {name: np.asarray(value) for name, value in example.items()}
    rows = {name: {0: BATCH} for name, array in arrays.items() if array.ndim} if shared_rows(arrays) else {}
    free = _left_free(obj, arrays)
    every = {name: {*rows.get(name, ()), *free.get(name, ()), *axes.get(name, ())} for name in arrays}
    told = {name: {*rows.get(name, ()), *free.get(name, ())} for name in arrays}

    def specs(open_axes: Mapping[str, Any]) -> list[Any]:
        return [
            tf.TensorSpec([None if at in open_axes.get(name, ()) else n for at, n in enumerate(a.shape)], a.dtype, name)
            for name, a in arrays.items()
        ]

    def convert(open_axes: Mapping[str, Any]) -> Any:
        @tf.function
        def run(*tensors: Any) -> dict[str, Any]:
            result = _called(obj, dict(zip(arrays, tensors, strict=True)))
            return {name: tf.identity(value) for name, value in by_name(result)}

        return tf2onnx.convert.from_function(run, specs(open_axes), opset=OPSET)[0]

    with quiet("tensorflow", "absl", "tf2onnx"):
        _called(obj, {name: tf.convert_to_tensor(array) for name, array in arrays.items()})  # builds what is not yet
        return _first([every, told, rows], convert)


def _left_free(obj: Any, arrays: Mapping[str, Any]) -> dict[str, list[int]]:
    """The axes that a functional or sequential model of Keras leaves free, by input."""
    tensors = list(getattr(obj, "inputs", None) or ())
    if len(tensors) != len(arrays) or not all(hasattr(tensor, "shape") for tensor in tensors):
        return {}
    shapes = {tensor.name: tuple(tensor.shape) for tensor in tensors}
    if set(shapes) != set(arrays):
        shapes = dict(zip(arrays, shapes.values(), strict=False))
    return {
        name: [at for at, size in enumerate(shape) if size is None]
        for name, shape in shapes.items()
        if len(shape) == arrays[name].ndim
    }


def _called(obj: Any, tensors: Mapping[str, Any]) -> Any:
    """What it gives for named tensors, in inference mode: by name, as a dictionary, or by position."""
    target = obj.call if any(kind.__module__.startswith("keras.") for kind in type(obj).__mro__) else obj
    extra = {"training": False} if "training" in inspect.signature(target).parameters else {}
    listed = list(tensors.values())
    problems = []
    for args, named in (((), tensors), ((dict(tensors),), {}), ((listed if len(listed) > 1 else listed[0],), {})):
        try:
            return obj(*args, **named, **extra)
        except Exception as exc:  # the object's own code
            problems.append(exc)
    raise problems[0 if len(listed) > 1 else -1]
