"""The runtime of the processor: components run step by step, each by its serializer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalog_core.errors import BackendError, InvalidInput
from catalog_core.interfaces.runtime import Artifact
from catalog_core.records import Manifest
from catalog_core.session import Session

RUNS = ("generic", "onnx", "sklearn")


class CpuRuntime:
    """See `interfaces.runtime.Runtime`. Its option is `trust`: whether code that the artifact brings may run."""

    name = "cpu"

    def handles(self, manifest: Manifest) -> bool:
        """Whether all components are of kinds that it runs."""
        return all(component.serializer in RUNS for component in manifest.components)

    def open(self, artifact: Artifact, device: str, options: Mapping[str, Any]) -> Session:
        """A session on the processor."""
        if device != "cpu":
            raise BackendError(f"these components run on the processor, not on {device!r}", hint="device='cpu'")
        unknown = sorted(set(options) - {"trust"})
        if unknown:
            raise InvalidInput(f"the runtime of the processor has no option {unknown[0]!r}", hint="it has trust")
        return Session(artifact, device, options)
