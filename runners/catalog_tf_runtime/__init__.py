"""Runs TensorFlow and Keras components eagerly."""

from collections.abc import Iterable

from catalog_core.specs import RuntimeSpec


def catalog_register_runtimes() -> Iterable[RuntimeSpec]:
    """Register `tensorflow`."""
    yield RuntimeSpec(
        "tensorflow",
        ("savedmodel", "keras"),
        ("cpu", "cuda"),
        "catalog_tf_runtime.runtime:TensorFlowRuntime",
        extra="tensorflow",
    )
