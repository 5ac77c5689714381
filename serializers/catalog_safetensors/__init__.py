"""Dictionaries of arrays as safetensors files."""

from collections.abc import Iterable

from catalog_core.specs import SerializerSpec


def catalog_register_serializers() -> Iterable[SerializerSpec]:
    """Register `safetensors`."""
    yield SerializerSpec(
        "safetensors",
        ("builtins", "collections", "numpy"),
        "catalog_safetensors.serializer:SafetensorsSerializer",
        (".safetensors",),
    )
