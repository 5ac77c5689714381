"""One catalog on several sites: a primary that is written, and replicas that follow it."""

from collections.abc import Iterable

from catalog_core.specs import BackendSpec


def catalog_register_backends() -> Iterable[BackendSpec]:
    """Register `backend = "hybrid"`."""
    yield BackendSpec(
        "hybrid",
        ("hybrid",),
        "catalog_hybrid.store:open_store",
        options="catalog_hybrid.options:Options",
        doctor="catalog_hybrid.doctor:checks",
        parts=("primary", "replicas"),
    )
