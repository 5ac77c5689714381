"""A catalog on CERN's EOS, or on any XRootD server."""

from collections.abc import Iterable

from catalog_core.specs import BackendSpec


def catalog_register_backends() -> Iterable[BackendSpec]:
    """Register `root://`, `roots://`, and `eos://` for a mounted `/eos`."""
    yield BackendSpec(
        "eos",
        ("root", "roots", "eos"),
        "catalog_eos.store:open_store",
        options="catalog_eos.options:Options",
        extra="eos",
        doctor="catalog_eos.doctor:checks",
        imports=("catalog_eos.remote",),
    )
