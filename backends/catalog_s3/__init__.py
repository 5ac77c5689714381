"""A catalog in a bucket of any S3 endpoint."""

from collections.abc import Iterable

from catalog_core.specs import BackendSpec


def catalog_register_backends() -> Iterable[BackendSpec]:
    """Register `s3://bucket/prefix`."""
    yield BackendSpec("s3", ("s3",), "catalog_s3.store:open_store", options="catalog_s3.store:Options", extra="s3")
