"""The eager torch runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from catalog_core.interfaces.runtime import Artifact
from catalog_core.records import Manifest
from catalog_core.session import Session
from catalog_core.tensors import torch_device


class TorchRuntime:
    """See `interfaces.runtime.Runtime`."""

    name = "torch"

    def handles(self, manifest: Manifest) -> bool:
        """Whether all components are torch modules."""
        return all(component.serializer in ("torch", "aoti") for component in manifest.components)

    def open(self, artifact: Artifact, device: str, options: Mapping[str, Any]) -> Session:
        """A session on `device`. Raises `BackendError` with the devices there are."""
        wanted = torch_device(torch, device)
        return Session(artifact, str(wanted), options)
