"""TensorFlow and Keras models as SavedModels: graphs that load without Keras and without the class."""

from collections.abc import Iterable

from catalog_core.specs import SerializerSpec


def catalog_register_serializers() -> Iterable[SerializerSpec]:
    """Register `savedmodel`."""
    yield SerializerSpec(
        "savedmodel",
        ("keras", "tensorflow", "catalog_savedmodel"),
        "catalog_savedmodel.serializer:SavedModelSerializer",
        extra="tensorflow",
        default_method="call",
    )
