"""Polynomial calibrations as one safetensors file and a few numbers in `meta`."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polycal
from polycal import PolynomialCalibration

from catalog_core import tensors
from catalog_core.errors import BackendError, InvalidInput, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest
from catalog_core.records import Description, TensorSpec

FILE = "polynomials.safetensors"
NAMES = ("coefficients", "pedestals")
METHODS = {"forward": "predict"}  # the catalog asks for `forward` where the user names no method
OUTPUTS = {"forward": "energy", "predict": "energy", "by_channel": "energies"}


def arrays_of(obj: Any) -> dict[str, np.ndarray]:
    if not isinstance(obj, PolynomialCalibration):
        raise SerializationError(f"a {type(obj).__name__} is no PolynomialCalibration")
    arrays = {name: getattr(obj, name, None) for name in NAMES}
    check(arrays)
    return arrays


def check(arrays: Mapping[str, Any]) -> None:
    """Whether these arrays make a calibration, however they came here."""
    if sorted(arrays) != sorted(NAMES):
        raise SerializationError(f"a calibration has {', '.join(NAMES)}, not {', '.join(map(repr, arrays))}")
    for name, dimensions in zip(NAMES, (2, 1), strict=True):
        array = arrays[name]
        if not isinstance(array, np.ndarray) or array.ndim != dimensions or array.dtype != np.float64:
            raise SerializationError(f"{name!r} is no float64 array of {dimensions} dimensions")
    if len(arrays["coefficients"]) != len(arrays["pedestals"]) or arrays["coefficients"].shape[1] < 1:
        raise SerializationError("coefficients and pedestals differ in the number of channels")


def settings_of(meta: Any) -> dict[str, Any]:
    """The hyperparameters in `meta`, which may come from anyone."""
    if not isinstance(meta, Mapping) or set(meta) != {"ridge", "unit"}:
        raise SerializationError("the meta of a calibration is {ridge, unit}")
    ridge, unit = meta["ridge"], meta["unit"]
    if isinstance(ridge, bool) or not isinstance(ridge, (int, float)) or not math.isfinite(ridge):
        raise SerializationError(f"ridge = {ridge!r} is no number")
    if not isinstance(unit, str) or len(unit) > 100:
        raise SerializationError(f"unit = {unit!r} is no short text")
    return {"ridge": float(ridge), "unit": unit}


class PolycalSerializer:
    name = "polycal"

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        arrays = arrays_of(obj)
        meta = settings_of({"ridge": obj.ridge, "unit": obj.unit})
        tied = tensors.write(arrays, directory, FILE)  # names that share memory are stored once
        if tied:
            raise SerializationError(f"{', '.join(tied)} shares its memory with another array", hint="copy it")
        return meta

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        kind = options.get("as_")
        if kind not in (None, "numpy"):
            raise SerializationError(f"as_={kind!r} is not known here", hint="numpy")
        if device not in (None, "cpu"):
            raise BackendError(f"a calibration cannot be put on {device!r}", hint="device='cpu'", backend="polycal")
        arrays = tensors.read(reader, tensors.numpy_maker(bool(options.get("copy"))), writable=False, name=FILE)
        check(arrays)
        settings = settings_of(reader.meta)
        if into is not None:
            problems = tensors.mismatches(arrays_of(into), arrays)
            if problems:
                raise SerializationError(f"the calibration does not fit: {problems[0]}", hint="nothing was changed")
            for name, array in arrays.items():
                getattr(into, name)[...] = array
            into.ridge, into.unit = settings["ridge"], settings["unit"]
            return into
        return arrays if kind == "numpy" else PolynomialCalibration(**arrays, **settings)

    def describe(self, obj: Any) -> Description:
        try:
            arrays = arrays_of(obj)
            settings = {"degree": obj.degree, **settings_of({"ridge": obj.ridge, "unit": obj.unit})}
        except Exception:
            arrays, settings = {}, {}
        shapes = {name: ("float64", array.shape) for name, array in arrays.items()}
        count = sum(array.size for array in arrays.values())
        return Description("polycal", polycal.VERSION, type(obj).__name__, settings, count, shapes)

    def inputs(self, obj: Any, method: str) -> list[str] | None:
        return ["signals"] if method in OUTPUTS else None

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if method not in OUTPUTS or not isinstance(obj, PolynomialCalibration):
            raise SerializationError(f"a {type(obj).__name__} has no method {method!r}")
        signals = inputs.get("signals")
        if not isinstance(signals, np.ndarray) or signals.ndim != 2 or signals.shape[1] != len(obj.pedestals):
            raise InvalidInput(f"signals must be an array [rows, {len(obj.pedestals)}], not {np.shape(signals)}")
        return {OUTPUTS[method]: getattr(obj, METHODS.get(method, method))(signals)}

    def signature(self, obj: Any, method: str, example: Mapping[str, Any]) -> tuple[list[TensorSpec], list[TensorSpec]]:
        self.call(obj, method, example)
        signals, channels = example["signals"], len(obj.pedestals)
        out = ("rows",) if method != "by_channel" else ("rows", channels)
        return (
            [TensorSpec("signals", str(signals.dtype), ("rows", channels))],
            [TensorSpec(OUTPUTS[method], "float64", out, unit=obj.unit)],
        )
