"""Runs calibrations, and what else is made of NumPy arrays, on the processor."""

from collections.abc import Mapping
from typing import Any

from catalog_core.errors import BackendError
from catalog_core.session import Session

SERIALIZERS = ("polycal",)


class NumpyRuntime:
    name = "polycal"

    def handles(self, manifest: Any) -> bool:
        return all(component.serializer in SERIALIZERS for component in manifest.components)

    def open(self, artifact: Any, device: str, options: Mapping[str, Any]) -> Session:
        if device != "cpu":
            raise BackendError(f"a calibration does not run on {device!r}", hint="device='cpu'", backend="polycal")
        return Session(artifact, device)
