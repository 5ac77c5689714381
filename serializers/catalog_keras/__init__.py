"""Keras models to train on: configuration, weights and optimizers as plain data, for every backend of Keras 3."""

from collections.abc import Iterable

from catalog_core.specs import SerializerSpec


def catalog_register_serializers() -> Iterable[SerializerSpec]:
    """Register `keras`. It takes no module's objects by itself: `savedmodel`, which needs no class to load, does."""
    yield SerializerSpec(
        "keras",
        (),
        "catalog_keras.serializer:KerasSerializer",
        extra="keras",
        default_method="call",
    )
