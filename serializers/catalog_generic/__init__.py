"""Any folder with a `score.py`: runs only where its author is trusted."""

from collections.abc import Iterable

from catalog_core.specs import SerializerSpec


def catalog_register_serializers() -> Iterable[SerializerSpec]:
    """Register `generic`."""
    yield SerializerSpec(
        "generic",
        ("catalog_generic",),
        "catalog_generic.serializer:GenericSerializer",
        default_method="predict",
        paths=True,
    )
