"""A catalog in a shared folder, on plain POSIX calls."""

from collections.abc import Iterable

from catalog_core.specs import BackendSpec


def catalog_register_backends() -> Iterable[BackendSpec]:
    """Register `file://`."""
    yield BackendSpec("files", ("file",), "catalog_files.store:open_store", local=True)
