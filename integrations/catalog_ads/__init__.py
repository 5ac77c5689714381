"""Oracle ADS: artifacts in and out, metadata by its names, and its model classes over a catalog."""

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from catalog_core.specs import FormatSpec

if TYPE_CHECKING:
    from catalog_ads.columns import Schema
    from catalog_ads.metadata import ModelCustomMetadata, ModelCustomMetadataItem, ModelTaxonomyMetadata
    from catalog_ads.models import (
        FrameworkSpecificModel,
        GenericModel,
        KerasModel,
        LightGBMModel,
        PyTorchModel,
        SklearnModel,
        TensorFlowModel,
        XGBoostModel,
    )
    from catalog_ads.properties import ModelProperties
    from catalog_ads.provenance import ModelProvenanceMetadata
    from catalog_ads.runtime_info import RuntimeInfo
    from catalog_ads.words import (
        Framework,
        MetadataCustomCategory,
        MetadataCustomKeys,
        MetadataTaxonomyKeys,
        UseCaseType,
    )

__all__ = [
    "Framework",
    "FrameworkSpecificModel",
    "GenericModel",
    "KerasModel",
    "LightGBMModel",
    "MetadataCustomCategory",
    "MetadataCustomKeys",
    "MetadataTaxonomyKeys",
    "ModelCustomMetadata",
    "ModelCustomMetadataItem",
    "ModelProperties",
    "ModelProvenanceMetadata",
    "ModelTaxonomyMetadata",
    "PyTorchModel",
    "RuntimeInfo",
    "Schema",
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
        "catalog_ads.reader:imported",
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
    where = {
        "ModelCustomMetadata": "metadata",
        "ModelCustomMetadataItem": "metadata",
        "ModelProperties": "properties",
        "ModelProvenanceMetadata": "provenance",
        "ModelTaxonomyMetadata": "metadata",
        "RuntimeInfo": "runtime_info",
        "Schema": "columns",
    }
    module = where.get(name) or ("models" if name.endswith("Model") else "words")
    return getattr(importlib.import_module(f"catalog_ads.{module}"), name)
