"""Keras models of layers that Keras itself knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class KerasRunner:
    """A model of Keras, loaded without running code of anybody's."""

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        import keras

        self.model = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)

    def call(self, method: str, values: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Any]:
        """Run the model, or a network inside it."""
        import keras

        target = self.model
        for part in method.split(".") if method != "call" else ():
            target = getattr(target, part)
        given = {name: keras.ops.convert_to_tensor(value) for name, value in values.items()}
        struct = getattr(target, "_inputs_struct", None)
        if isinstance(struct, Mapping):
            result = target(given, training=False)
        else:
            result = target(list(given.values()) if len(given) > 1 else next(iter(given.values())), training=False)
        return {name: keras.ops.convert_to_numpy(value) for name, value in self.named(result, "")}

    def named(self, result: Any, name: str) -> list[tuple[str, Any]]:
        """The tensors of a result by name."""
        if isinstance(result, Mapping):
            parts = [(f"{name}_{key}" if name else str(key), part) for key, part in result.items()]
        elif isinstance(result, (tuple, list)):
            parts = [(f"{name or 'output'}_{number}", part) for number, part in enumerate(result)]
        else:
            return [(name or "output", result)] if result is not None else []
        return [item for key, part in parts for item in self.named(part, key)]
