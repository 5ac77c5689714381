"""Runs torch components eagerly."""

from collections.abc import Iterable

from catalog_core.specs import RuntimeSpec


def catalog_register_runtimes() -> Iterable[RuntimeSpec]:
    """Register `torch`."""
    yield RuntimeSpec("torch", ("torch",), ("cpu", "cuda"), "catalog_torch_runtime.runtime:TorchRuntime", extra="torch")
