"""Runs torch components eagerly."""

from collections.abc import Iterable

from catalog_core.specs import RuntimeSpec


def catalog_register_runtimes() -> Iterable[RuntimeSpec]:
    """Register `torch`."""
    factory = "catalog_torch_runtime.runtime:TorchRuntime"
    yield RuntimeSpec("torch", ("torch", "aoti"), ("cpu", "cuda"), factory, extra="torch")
