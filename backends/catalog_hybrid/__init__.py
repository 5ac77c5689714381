"""One catalog on several stores: a primary that orders the writes, and replicas that follow."""

from collections.abc import Iterable

from catalog_core.specs import BackendSpec


def catalog_register_backends() -> Iterable[BackendSpec]:
    """Register `hybrid://`, whose parts are other catalogs of the configuration."""
    yield BackendSpec("hybrid", ("hybrid",), "catalog_hybrid.store:open_store", options="catalog_hybrid.store:Options")
