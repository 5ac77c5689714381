"""SavedModels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class SavedModelRunner:
    """The signatures of a SavedModel; its random numbers go on from call to call."""

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        import tensorflow as tf

        self.root = tf.saved_model.load(str(folder))
        self.outputs = {method: told["outputs"] for method, told in meta["methods"].items()}

    def call(self, method: str, values: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Any]:
        """Run a method."""
        import tensorflow as tf

        signature = self.root.signatures[method]
        wanted = signature.structured_input_signature[1]
        found = signature(**{name: tf.cast(tf.constant(value), wanted[name].dtype) for name, value in values.items()})
        outputs = {name: found[name] for name in self.outputs[method]}
        return {n: (tf.cast(v, "float32") if v.dtype == tf.bfloat16 else v).numpy() for n, v in outputs.items()}
