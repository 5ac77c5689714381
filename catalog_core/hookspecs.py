"""The hooks: plug-ins announce what they bring, and are told what happened. Nothing is stored or run through them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from catalog_core.specs import BackendSpec, CheckSpec, CommandSpec, FormatSpec, RuntimeSpec, SerializerSpec

PROJECT = "catalog_core"
GROUP = "catalog_core.plugins"  # the group of entry points
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def catalog_register_backends() -> Iterable[BackendSpec]:
    """Yield the backends that this plug-in brings."""
    return ()


@hookspec
def catalog_register_serializers() -> Iterable[SerializerSpec]:
    """Yield the serializers that this plug-in brings."""
    return ()


@hookspec
def catalog_register_runtimes() -> Iterable[RuntimeSpec]:
    """Yield the runtimes that this plug-in brings."""
    return ()


@hookspec
def catalog_register_formats() -> Iterable[FormatSpec]:
    """Yield the formats of other programs that this plug-in reads or writes."""
    return ()


@hookspec
def catalog_register_checks() -> Iterable[CheckSpec]:
    """Yield checks that `catalog verify` is to make."""
    return ()


@hookspec
def catalog_register_commands() -> Iterable[CommandSpec]:
    """Yield subcommands for `catalog`."""
    return ()


@hookspec
def catalog_saving(name: str, manifest: Any) -> None:
    """Called before a version is published; raise `CatalogError` to refuse it."""


@hookspec
def catalog_saved(version: Any) -> None:
    """Told after a version was published. What it raises is logged and changes nothing."""
