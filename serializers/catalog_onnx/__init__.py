"""ONNX graphs, with external data."""

from collections.abc import Iterable

from catalog_core.specs import SerializerSpec


def catalog_register_serializers() -> Iterable[SerializerSpec]:
    """Register `onnx`."""
    yield SerializerSpec(
        "onnx",
        ("onnx", "catalog_onnx"),
        "catalog_onnx.serializer:OnnxSerializer",
        (".onnx",),
        extra="onnx",
        default_method="run",
        paths=True,
    )
