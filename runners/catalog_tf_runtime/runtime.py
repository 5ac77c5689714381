"""The eager runtime of SavedModels and Keras models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalog_core.errors import BackendError
from catalog_core.interfaces.runtime import Artifact
from catalog_core.records import Manifest
from catalog_core.session import Session


class DrawingSession(Session):
    """A session whose random numbers go on from call to call; outside of one, running a model changes nothing."""

    def _step(self, component: str, method: str, values: Mapping[str, Any], *, first: bool) -> Mapping[str, Any]:
        place = None if self.device == "cpu" else self.device
        self._artifact.component(component, place, **self._options).catalog_draws_on = True
        return super()._step(component, method, values, first=first)


class TensorFlowRuntime:
    """See `interfaces.runtime.Runtime`."""

    name = "tensorflow"

    def handles(self, manifest: Manifest) -> bool:
        """Whether all components are SavedModels or Keras models."""
        return all(component.serializer in ("savedmodel", "keras") for component in manifest.components)

    def open(self, artifact: Artifact, device: str, options: Mapping[str, Any]) -> Session:
        """A session on `device`; a place that TensorFlow (or Keras' backend) does not have is a `BackendError`."""
        kind, _, number = device.partition(":")
        count = 0 if kind == "cpu" else _accelerators(artifact.manifest)
        if kind == "cpu" or (kind == "cuda" and (number or "0").isdigit() and int(number or 0) < count):
            return DrawingSession(artifact, device, options)
        there = ["cpu", *[f"cuda:{place}" for place in range(count)]]
        raise BackendError(
            f"there is no device {device!r} here", hint=f"devices here: {', '.join(there)}", backend="tensorflow"
        )


def _accelerators(manifest: Manifest) -> int:
    """How many GPUs the framework sees that will run the components."""
    if all(component.serializer == "keras" for component in manifest.components):
        import keras

        if keras.backend.backend() == "torch":
            import torch

            return int(torch.cuda.device_count())
    import tensorflow as tf

    return len(tf.config.list_logical_devices("GPU"))
