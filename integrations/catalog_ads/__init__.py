"""Oracle ADS: artifacts in and out, metadata by its names, and its model classes over a catalog."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from catalog_core.specs import FormatSpec

if TYPE_CHECKING:
    from catalog_ads.models import (
        GenericModel,
        KerasModel,
        LightGBMModel,
        PyTorchModel,
        SklearnModel,
        TensorFlowModel,
        XGBoostModel,
    )
    from catalog_ads.words import Framework, MetadataCustomCategory, MetadataTaxonomyKeys, UseCaseType

__all__ = [
    "Framework",
    "GenericModel",
    "KerasModel",
    "LightGBMModel",
    "MetadataCustomCategory",
    "MetadataTaxonomyKeys",
    "PyTorchModel",
    "SklearnModel",
    "TensorFlowModel",
    "UseCaseType",
    "XGBoostModel",
]


def catalog_register_formats() -> Iterable[FormatSpec]:
    """Register `ads`."""
    yield FormatSpec(
        "ads",
        ("runtime.yaml", "*.zip"),
        "catalog_ads.reader:read",
        "catalog_ads.writer:write",
        packer="catalog_ads.archive:pack",
    )


def __getattr__(name: str) -> Any:
    """The classes, imported on first use."""
    if name not in __all__:
        from catalog_ads.elsewhere import NAMES

        if name in NAMES:  # an AttributeError would lose the hint on its way through `from … import`
            raise ImportError(f"catalog_ads has no {name}: {NAMES[name]}")
        raise AttributeError(f"catalog_ads has no {name!r}")
    from catalog_ads import words

    if not name.endswith("Model"):
        return getattr(words, name)
    from catalog_ads import models

    return getattr(models, name)
