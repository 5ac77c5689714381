"""From a configured place to a backend."""

from __future__ import annotations

from typing import Any

from catalog_core.config import Target
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.platform import offline
from catalog_core.plugins import check_options, registry


def connect(target: Target, *, create: bool) -> Any:
    """The backend at `target` (interfaces.backend.Backend); an ObjectStore that its plug-in makes is wrapped. Raises
    what the plug-in raises, `MissingPlugin`, `ConfigError`. Nothing far away is made while CATALOG_OFFLINE is set."""
    spec = registry().backend_for(target.url)
    create = create and (spec.local or not offline())
    check_options(spec, target)
    factory = registry().load(spec.factory, spec.extra)
    try:
        made = factory(target.url, dict(target.options), create)
    except ModuleNotFoundError:
        with registry().importing(spec.factory, spec.extra):
            raise
    if hasattr(made, "journal"):
        return made
    return ObjectStoreBackend(made, spec.name, target.url, bandwidth=target.bandwidth)
