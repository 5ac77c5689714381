"""Other frameworks' models as ONNX graphs, by the converters that their own projects maintain."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from catalog_core.errors import MissingPlugin, SerializationError
from catalog_core.outputs import by_name

OPSET = 18  # of TensorFlow's graphs; the newest that tf2onnx writes


USUAL = ("forward", "call", "predict")  # the methods that a graph stands for without being asked


def to_onnx(obj: Any, example: Mapping[str, Any], method: str = "forward") -> Any:
    """An estimator of scikit-learn (by skl2onnx), a torch module (by torch.onnx), or a model or function of Keras or
    TensorFlow (by tf2onnx) as an `onnx.ModelProto`, with a free first axis. `example`: input name → array. `method` is
    what the graph does: of an estimator its predictions, whatever it is. Raises `MissingPlugin` where the converter is
    not installed, and `SerializationError` for what it cannot convert."""
    kinds = {kind.__module__.partition(".")[0] for kind in type(obj).__mro__}
    try:
        if "sklearn" in kinds:
            return _from_sklearn(obj, example)
        if "torch" in kinds:
            return _from_torch(obj, example, method)
        if kinds & {"tensorflow", "keras", "catalog_savedmodel"}:
            return _from_tensorflow(obj if method in USUAL else _part(obj, method), example)
    except ModuleNotFoundError as exc:
        raise MissingPlugin(
            f"to_onnx needs {exc.name}, which is not installed", hint=f"pip install {exc.name}"
        ) from exc
    except Exception as exc:  # converters raise all kinds of errors
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
        raise SerializationError(f"a {type(obj).__name__} cannot be exported to ONNX: {cause}") from exc
    raise SerializationError(f"there is no converter for a {type(obj).__module__}.{type(obj).__name__}")


def _from_sklearn(obj: Any, example: Mapping[str, Any]) -> Any:
    import skl2onnx
    from skl2onnx.common.data_types import guess_data_type

    types = []
    for name, value in example.items():
        ((_, kind),) = guess_data_type(np.asarray(value))
        kind.shape = [None, *np.shape(value)[1:]]
        types.append((name, kind))
    options = {id(obj): {"zipmap": False}} if hasattr(obj, "predict_proba") else None
    return skl2onnx.convert_sklearn(obj, initial_types=types, options=options)


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


def _from_torch(obj: Any, example: Mapping[str, Any], method: str) -> Any:
    import torch

    obj = obj if method in USUAL else _method_as_module(obj, method)
    known = inspect.signature(obj.forward).parameters
    given = {name: torch.as_tensor(value) for name, value in example.items() if name in known}
    free = {name: {0: torch.export.Dim("batch")} for name in given}
    modes = [(part, part.training) for part in obj.modules()]
    obj.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = [name for name, _ in by_name(obj(**given))]
            program = torch.onnx.export(
                obj, (), kwargs=given, dynamic_shapes=free, dynamo=True, input_names=list(given),
                output_names=outputs, verbose=False,
            )  # fmt: skip
    finally:
        for part, mode in modes:
            part.training = mode
    if program is None:
        raise SerializationError("torch.onnx gave nothing")
    return program.model_proto


def _from_tensorflow(obj: Any, example: Mapping[str, Any]) -> Any:
    import tensorflow as tf
    import tf2onnx

    arrays = {name: np.asarray(value) for name, value in example.items()}
    rows = {array.shape[0] for array in arrays.values() if array.ndim}
    free = len(rows) == 1
    specs = [
        tf.TensorSpec([None, *a.shape[1:]] if free and a.ndim else a.shape, a.dtype, name) for name, a in arrays.items()
    ]

    @tf.function
    def run(*tensors: Any) -> dict[str, Any]:
        result = _called(obj, dict(zip(arrays, tensors, strict=True)))
        return {name: tf.identity(value) for name, value in by_name(result)}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _called(obj, {name: tf.convert_to_tensor(array) for name, array in arrays.items()})  # builds what is not yet
        proto, _ = tf2onnx.convert.from_function(run, specs, opset=OPSET)
    return proto


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
