"""Configurations of Keras models: checked, and rewritten, before Keras makes objects of them.

Keras looks classes and functions up by several fields of a record, some before others. Here each record is resolved
once: to a class or function of Keras that models are made of, or to one that this process has registered. What Keras
gets names exactly that object and nothing else; nothing is imported, and code in a configuration is never run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import keras

from catalog_core.errors import NotTrusted, SerializationError
from catalog_core.shown import an

MAX_CONFIG = 64 << 20
_VALUES = frozenset(
    ["__tuple__", "__bytes__", "__slice__", "__ellipsis__", "__keras_tensor__", "__tensor__", "__numpy__"]
)
_PLACES = ("activations", "losses", "metrics", "ops", "ops.image", "ops.linalg", "ops.nn", "ops.numpy")
_LOOKUPS = frozenset(["get", "serialize", "deserialize"])  # they find objects by name
# layers that read files, or hold the code of another framework
_FORBIDDEN = frozenset(["FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper", "TFLayer"])
_FILES = frozenset(["vocabulary", "idf_weights", "filepath"])
# arguments of Keras' classes that become an array or a list when the object is made, before any variable is
_SIZES = frozenset(["num_thresholds", "num_classes", "num_bins", "ngrams", "fft_length", "num_mel_bins"])
MAX_SIZE = 1 << 20
_DTYPES = frozenset(
    ["bool", "string", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
    + [f"{kind}{bits}" for kind in ("int", "uint") for bits in (4, 8, 16, 32, 64)]
    + ["float16", "float32", "float64", "complex64", "complex128"]
)


def parse(data: bytes) -> dict[str, Any]:
    """A configuration from its JSON. Raises `SerializationError`."""
    try:
        config = json.loads(data) if len(data) <= MAX_CONFIG else None
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"the model's configuration cannot be read: {exc}") from exc
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise SerializationError("the model's configuration is no object, or larger than 64 MiB")
    return config


def copied(config: Any) -> Any:
    """A copy of a configuration: Keras changes what it reads."""
    return json.loads(json.dumps(config))


def records(config: Any) -> Iterator[dict[str, Any]]:
    """All objects of a configuration, at any depth."""
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack += value.values()
        elif isinstance(value, list):
            stack += value


def check(config: Any) -> None:
    """Hold every record of a configuration against the rules, and rewrite it in place so that Keras finds what was
    checked. Raises `SerializationError` for what is never made, and for a class or function that is neither Keras'
    nor registered in this process."""
    for found in records(config):
        for key, item in found.items():
            if key in _FILES and isinstance(item, str):
                raise SerializationError(f"the configuration names the file {item[:100]!r} as {key}, which is not read")
        if "class_name" in found:
            try:
                _check_object(found)
            except NotTrusted as exc:
                raise SerializationError(exc.message, hint=exc.hint) from exc


def _check_object(found: dict[str, Any]) -> None:
    name, module, registered = (found.get(key) for key in ("class_name", "module", "registered_name"))
    if isinstance(name, str) and name in _VALUES:
        return _check_value(found.get("config"))
    if not isinstance(name, str) or name == "__lambda__" or name.startswith("__"):
        raise SerializationError(
            f"the configuration holds code or a type ({str(name)[:100]}), which is never run",
            hint="write the function as a registered layer (keras.saving.register_keras_serializable)",
        )
    if name == "function":
        return _check_function(found)
    if not isinstance(found.get("config"), dict):
        raise SerializationError(f"the configuration of {an(name[:100])} is no object")
    if isinstance(_registered(registered), type):
        found["module"] = None
        return None
    if not _is_builtin(module, name):
        raise NotTrusted(
            f"the class {str(registered or name)[:100]!r} is not registered in this process",
            hint="import what defines it, with @keras.saving.register_keras_serializable(), or load(ref, into=model)",
        )
    found["registered_name"] = None
    for key in _SIZES & found["config"].keys():
        size = found["config"][key]
        if isinstance(size, (int, float)) and not 0 <= size <= MAX_SIZE:
            raise SerializationError(f"the configuration asks for {key}={size} in {an(name)}; the most is {MAX_SIZE}")
    return None


def _check_value(settings: Any) -> None:
    """The dtype of an array in a configuration says how many bytes each of its items takes."""
    dtype = settings.get("dtype", "float32") if isinstance(settings, dict) else "float32"
    if dtype is not None and dtype not in _DTYPES:
        raise SerializationError(f"the configuration holds an array of dtype {str(dtype)[:100]!r}, which is not known")


def _check_function(found: dict[str, Any]) -> None:
    """Keras goes by `config`, the name; what stands in `registered_name` vouches for nothing."""
    name, module = found.get("config"), found.get("module")
    if not isinstance(name, str):
        raise SerializationError("the configuration holds a function without a name")
    own = name if _registered(name) is not None else _by_short_name(name) if module == "builtins" else None
    if own is not None:
        found |= {"config": own, "registered_name": own, "module": None}
        return
    place = _place_of(module, name)
    if place is None:
        raise NotTrusted(
            f"the function {name[:100]!r} is neither one of Keras nor registered in this process",
            hint="import what defines it, with @keras.saving.register_keras_serializable()",
        )
    found |= {"module": place, "registered_name": name}


def _place_of(module: Any, name: str) -> str | None:
    """Where Keras has a function of this name that models use; older versions of Keras wrote no place."""
    places = _PLACES if module == "builtins" else [str(module).removeprefix("keras.")]
    for place in places:
        holder: Any = keras
        for part in place.split(".") if place in _PLACES else ():
            holder = getattr(holder, part, None)
        if holder is not keras and name not in _LOOKUPS and isinstance(getattr(holder, name, None), FunctionType):
            return f"keras.{place}"
    return None


def _registered(name: Any) -> Any:
    return keras.saving.get_registered_object(name) if isinstance(name, str) else None


def _by_short_name(name: str) -> str | None:
    """The full name of a registered function: Keras wrote it without its package before 3.7."""
    full = (key for key in keras.saving.get_custom_objects() if key.endswith(f">{name}"))
    return next(full, None) if ">" not in name else None


def _is_builtin(module: Any, name: str) -> bool:
    """Whether Keras has a class of this name that models are made of; nothing is imported."""
    if not isinstance(module, str) or module.partition(".")[0] != "keras" or name in _FORBIDDEN:
        return False
    holder: Any = sys.modules.get(module)
    if holder is None:
        holder = keras
        for part in module.split(".")[1:]:
            holder = getattr(holder, part, None)
    kind = getattr(holder, name, None)
    if not isinstance(kind, type) or not kind.__module__.startswith("keras.") or kind.__name__ in _FORBIDDEN:
        return False
    kinds = [
        keras.Operation, keras.Initializer, keras.Regularizer, keras.optimizers.Optimizer, keras.Loss, keras.Metric,
        keras.optimizers.schedules.LearningRateSchedule, keras.DTypePolicy, keras.random.SeedGenerator,
        keras.constraints.Constraint, keras.KerasTensor, keras.quantizers.Quantizer,
    ]  # fmt: skip
    kinds += [kind for kind in [getattr(keras.quantizers, "QuantizationConfig", None)] if kind]  # newer than the rest
    return issubclass(kind, tuple(kinds))


def reason(exc: BaseException) -> str:
    """An error in one line, with its kind: what Keras says before it prints whole configurations."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    told = " ".join(line for line in lines if "config=" not in line[:10])
    return f"{type(exc).__name__}: {told[:600]}"
