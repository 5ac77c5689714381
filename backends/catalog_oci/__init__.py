"""A catalog in a bucket of Oracle Cloud's Object Storage."""

from collections.abc import Iterable

from catalog_core.specs import BackendSpec


def catalog_register_backends() -> Iterable[BackendSpec]:
    """Register `oci://bucket@namespace/prefix`."""
    yield BackendSpec(
        "oci",
        ("oci",),
        "catalog_oci.store:open_store",
        options="catalog_oci.options:Options",
        extra="oci",
        doctor="catalog_oci.doctor:checks",
        imports=("oci.object_storage",),
    )
