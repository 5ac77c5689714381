"""The embedded default: the journal in SQLite, large blobs as files beside it."""

from collections.abc import Iterable

from catalog_core.specs import BackendSpec


def catalog_register_backends() -> Iterable[BackendSpec]:
    """Register `sqlite://`."""
    yield BackendSpec("sqlite", ("sqlite",), "catalog_sqlite.backend:open_backend", local=True, store=False)
