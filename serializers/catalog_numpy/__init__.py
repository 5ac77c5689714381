"""Trees of arrays (pytrees): JAX, Flax, Equinox, Optax, and nests of NumPy arrays."""

from collections.abc import Iterable

from catalog_core.specs import SerializerSpec


def catalog_register_serializers() -> Iterable[SerializerSpec]:
    """Register `pytree`."""
    yield SerializerSpec(
        "pytree",
        ("jax", "jaxlib", "flax", "equinox", "optax"),
        "catalog_numpy.serializer:PytreeSerializer",
        extra="jax",
    )
