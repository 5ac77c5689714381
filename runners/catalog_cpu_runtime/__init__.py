"""Runs on the processor what its serializer can call: ONNX graphs, scikit-learn's estimators, generic models."""

from collections.abc import Iterable

from catalog_core.specs import RuntimeSpec


def catalog_register_runtimes() -> Iterable[RuntimeSpec]:
    """Register `cpu`."""
    yield RuntimeSpec("cpu", ("generic", "onnx", "sklearn"), ("cpu",), "catalog_cpu_runtime.runtime:CpuRuntime")
