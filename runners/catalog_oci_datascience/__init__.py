"""Versions in the Model Catalog of OCI Data Science: `publish`, `models`, `pull`, and `catalog oci`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from catalog_core.specs import CheckSpec, CommandSpec

if TYPE_CHECKING:
    from catalog_oci_datascience.options import Options
    from catalog_oci_datascience.publishing import Published, publish
    from catalog_oci_datascience.reading import Listed, models, pull
    from catalog_oci_datascience.record import Item

__all__ = ["Item", "Listed", "Options", "Published", "models", "publish", "pull"]
_HOMES = {
    "Item": "record", "Listed": "reading", "Options": "options", "Published": "publishing", "models": "reading",
    "publish": "publishing", "pull": "reading",
}  # fmt: skip


def catalog_register_commands() -> Iterable[CommandSpec]:
    """Register `catalog oci`."""
    yield CommandSpec(
        "oci",
        "catalog_oci_datascience.command:oci_command",
        "Publish to OCI Data Science's model catalog, list it, and pull from it.",
        extra="oci",
    )


def catalog_register_checks() -> Iterable[CheckSpec]:
    """Register the check `size`."""
    yield CheckSpec("size", "catalog_oci_datascience.limits:check")


def __getattr__(name: str) -> Any:
    """The names above, imported on first use."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
