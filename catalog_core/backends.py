"""From a configured place to a backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from catalog_core import config
from catalog_core.config import Target
from catalog_core.digests import digest_of
from catalog_core.errors import CatalogError, ConfigError
from catalog_core.interfaces.store import ObjectStore, Place
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.platform import offline
from catalog_core.plugins import check_options, registry
from catalog_core.specs import BackendSpec


def connect(target: Target, *, create: bool) -> Any:
    """The backend at `target` (interfaces.backend.Backend); an ObjectStore that its plug-in makes is wrapped. Raises
    what the plug-in raises, `MissingPlugin`, `ConfigError`. Nothing far away is made while CATALOG_OFFLINE is set."""
    spec = registry().backend_for(target.url)
    more: dict[str, Any]
    create = create and (spec.local or not offline())
    check_options(spec, target)
    factory = registry().load(spec.factory, spec.extra)
    url, more = target.url, {}
    if spec.parts:
        parts = places(spec, target)
        more = {"parts": parts, "stale": target.stale}
        url += "#" + digest_of("\n".join(part.url for part in parts.values()).encode())[7:15]  # two may bear one name
    try:
        made = factory(url, dict(target.options), create, **more)
    except ModuleNotFoundError:
        with registry().importing(spec.factory, spec.extra):
            raise
    if hasattr(made, "journal"):
        return made
    return ObjectStoreBackend(made, spec.name, url, bandwidth=target.bandwidth)


def places(spec: BackendSpec, target: Target) -> Mapping[str, Place]:
    """The catalogs that the options of `target` name as its parts. Raises `ConfigError`, `NotFound`."""
    names: list[str] = []
    for option in spec.parts:
        value = target.options.get(option, ())
        names += [value] if isinstance(value, str) else value
    found: dict[str, Place] = {}
    for name in names:
        place = _place(config.resolve(name), target)
        same = next((other for other, known in found.items() if _one_place(known.url) == _one_place(place.url)), None)
        if same is not None:
            raise ConfigError(
                f"{target.source}: [catalogs.{target.name}]: {same!r} and {name!r} are one place, {place.url}",
                hint="a copy is worth something in another one",
            )
        found[name] = place
    return found


def _one_place(url: str) -> str:
    """A URL as it is for all who mean the same place: without a slash at its end, and behind links of the file
    system."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{os.path.realpath(rest) if scheme == 'file' else rest.rstrip('/')}"


def _place(part: Target, whole: Target) -> Place:
    spec = registry().backend_for(part.url)
    where = f"{whole.source}: [catalogs.{whole.name}]: {part.name!r}"
    if spec.parts:
        raise ConfigError(f"{where} has parts itself")
    no_store = ConfigError(
        f"{where} ({part.url}) keeps its journal in a database",
        hint="a part is a store of objects: file://, root://, oci://, s3://; `catalog copy` moves versions",
    )
    if not spec.store:
        raise no_store

    def connected(create: bool) -> ObjectStore:
        backend = connect(part, create=create)
        if not isinstance(backend, ObjectStoreBackend):
            backend.close()
            raise no_store
        return backend.store

    def load() -> None:
        with suppress(CatalogError, ImportError):  # opening it tells
            registry().load(spec.factory, spec.extra)
            for name in spec.imports:
                import_module(name)

    return Place(part.url, connected, load)
