"""Configurations of Keras models: checked before Keras makes objects of them.

Keras looks classes up by the paths that a file names. Here a class is one of Keras' own, of a kind that models are made
of, or one that this process has registered; nothing is imported, and code in a configuration is never run.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import keras

from catalog_core.errors import NotTrusted, SerializationError

MAX_CONFIG = 64 << 20
_VALUES = frozenset(
    ["__tuple__", "__bytes__", "__slice__", "__ellipsis__", "__keras_tensor__", "__tensor__", "__numpy__"]
)
_FUNCTIONS = ("activations", "constraints", "initializers", "losses", "metrics", "ops", "regularizers")
# layers that read files, or hold the code of another framework
_FORBIDDEN = frozenset(["FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper", "TFLayer"])
_FILES = frozenset(["vocabulary", "idf_weights", "filepath"])


def parse(data: bytes) -> dict[str, Any]:
    """A configuration from its JSON. Raises `SerializationError`."""
    try:
        config = json.loads(data) if len(data) <= MAX_CONFIG else None
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"the model's configuration cannot be read: {exc}") from exc
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise SerializationError("the model's configuration is no object, or larger than 64 MiB")
    return config


def check(config: Any, *, registered: bool = True) -> None:
    """Hold every object of a configuration against the rules. Raises `SerializationError` for what is never made, and,
    where they must be `registered` by now, for a class or function that is not."""
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack += value
        elif isinstance(value, dict):
            if "class_name" in value:
                try:
                    _check_object(value)
                except NotTrusted as exc:
                    if registered:
                        raise SerializationError(exc.message, hint=exc.hint) from exc
            for key, item in value.items():
                if key in _FILES and isinstance(item, str):
                    raise SerializationError(
                        f"the configuration names the file {item[:100]!r} as {key}, which is not read"
                    )
            stack += value.values()


def _check_object(found: dict[str, Any]) -> None:
    name, module, registered = (found.get(key) for key in ("class_name", "module", "registered_name"))
    if isinstance(name, str) and name in _VALUES:
        return
    if not isinstance(name, str) or name == "__lambda__" or name.startswith("__"):
        raise SerializationError(
            f"the configuration holds code or a type ({str(name)[:100]}), which is never run",
            hint="write the function as a registered layer (keras.saving.register_keras_serializable)",
        )
    if name == "function":
        _check_function(found.get("config"), module, registered)
        return
    kind = keras.saving.get_registered_object(registered) if isinstance(registered, str) else None
    if kind is None:
        kind = _builtin(module, name)
    if kind is None:
        raise NotTrusted(
            f"the class {str(registered or name)[:100]!r} is not registered in this process",
            hint="import what defines it, with @keras.saving.register_keras_serializable(), or load(ref, into=model)",
        )


def _check_function(name: Any, module: Any, registered: Any) -> None:
    if not isinstance(name, str):
        raise SerializationError("the configuration holds a function without a name")
    if any(isinstance(n, str) and keras.saving.get_registered_object(n) is not None for n in (name, registered)):
        return
    places = [module.removeprefix("keras.")] if str(module).startswith("keras.") else list(_FUNCTIONS)
    for place in places if module == "builtins" or str(module).startswith("keras.") else ():
        if place.split(".")[0] in _FUNCTIONS and callable(getattr(getattr(keras, place, None), name, None)):
            return
    raise NotTrusted(
        f"the function {name[:100]!r} is neither one of Keras nor registered in this process",
        hint="import what defines it, with @keras.saving.register_keras_serializable()",
    )


def _builtin(module: Any, name: str) -> Any:
    """The class of Keras called so, if it is one that models are made of, without importing anything."""
    if not isinstance(module, str) or module.partition(".")[0] != "keras" or name in _FORBIDDEN:
        return None
    holder: Any = sys.modules.get(module)
    if holder is None:
        holder = keras
        for part in module.split(".")[1:]:
            holder = getattr(holder, part, None)
    kind = getattr(holder, name, None)
    allowed = (
        keras.Operation, keras.Initializer, keras.Regularizer, keras.optimizers.Optimizer, keras.Loss, keras.Metric,
        keras.optimizers.schedules.LearningRateSchedule, keras.DTypePolicy, keras.random.SeedGenerator,
        keras.constraints.Constraint, keras.KerasTensor,
        keras.quantizers.QuantizationConfig, keras.quantizers.Quantizer,
    )  # fmt: skip
    return kind if isinstance(kind, type) and issubclass(kind, allowed) else None


def make(config: dict[str, Any]) -> Any:
    """The model of a checked configuration. Raises `SerializationError` with Keras' reason."""
    try:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as exc:  # Keras, or a registered class
        raise SerializationError(f"Keras cannot make the model: {reason(exc)}") from exc
    if not isinstance(model, keras.layers.Layer):
        raise SerializationError(f"the configuration is one of a {type(model).__name__}, not of a model or layer")
    return model


def reason(exc: BaseException) -> str:
    """The first line of an error, with its kind."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {(lines or [''])[0][:300]}"
