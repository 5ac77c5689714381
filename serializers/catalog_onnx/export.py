"""Other frameworks' models as ONNX graphs, by the converters that their own projects maintain."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from catalog_core.errors import MissingPlugin, SerializationError


def to_onnx(obj: Any, example: Mapping[str, Any]) -> Any:
    """An estimator of scikit-learn (by skl2onnx) or a torch module (by torch.onnx) as an `onnx.ModelProto`, with a free
    first axis. `example`: input name → array. Raises `MissingPlugin` where the converter is not installed, and
    `SerializationError` for what it cannot convert."""
    kinds = {kind.__module__.partition(".")[0] for kind in type(obj).__mro__}
    try:
        if "sklearn" in kinds:
            return _from_sklearn(obj, example)
        if "torch" in kinds:
            return _from_torch(obj, example)
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


def _from_torch(obj: Any, example: Mapping[str, Any]) -> Any:
    import torch

    given = {name: torch.as_tensor(value) for name, value in example.items()}
    free = {name: {0: torch.export.Dim("batch")} for name in given}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            obj.eval(), (), kwargs=given, dynamic_shapes=free, dynamo=True, input_names=list(given), verbose=False
        )
    if program is None:
        raise SerializationError("torch.onnx gave nothing")
    return program.model_proto
