"""The model classes of ADS, by framework. They differ in what they take; the catalog finds the serializer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from catalog_ads.generic_model import GenericModel
from catalog_ads.properties import ModelProperties

__all__ = [
    "FrameworkSpecificModel",
    "GenericModel",
    "KerasModel",
    "LightGBMModel",
    "PyTorchModel",
    "SklearnModel",
    "TensorFlowModel",
    "XGBoostModel",
]


class FrameworkSpecificModel(GenericModel):
    """A model of one framework: its requests are put into ADS's payload, unless told otherwise."""

    def __init__(
        self,
        estimator: Any = None,
        artifact_dir: str | os.PathLike[str] | None = None,
        properties: ModelProperties | Mapping[str, Any] | None = None,
        auth: Any = None,
        model_save_serializer: Any = None,
        model_input_serializer: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(
            estimator, artifact_dir, properties, auth, options.pop("serialize", True), model_save_serializer,
            model_input_serializer, **options,
        )  # fmt: skip

    def verify(
        self, data: Any = None, reload_artifacts: bool = True, auto_serialize_data: bool = True, **options: Any
    ) -> dict[str, Any]:
        """As `GenericModel.verify`."""
        return super().verify(data, reload_artifacts, auto_serialize_data, **options)

    def predict(
        self, data: Any = None, auto_serialize_data: bool = True, local: bool = False, **options: Any
    ) -> dict[str, Any]:
        """As `GenericModel.predict`."""
        return super().predict(data, auto_serialize_data, local, **options)


class PyTorchModel(FrameworkSpecificModel):
    """An `nn.Module`; its graph is stored where `prepare` gets an `X_sample`."""

    KINDS = ("torch",)


class TensorFlowModel(FrameworkSpecificModel):
    """A `tf.Module` or a Keras model, several outputs and sampling layers included."""

    KINDS = ("tensorflow", "keras")


class KerasModel(FrameworkSpecificModel):
    """A Keras model."""

    KINDS = ("keras", "tensorflow")


class SklearnModel(FrameworkSpecificModel):
    """An estimator or pipeline of scikit-learn."""

    KINDS = ("sklearn",)


class XGBoostModel(FrameworkSpecificModel):
    """A booster of XGBoost, or an estimator of its."""

    KINDS = ("xgboost",)


class LightGBMModel(FrameworkSpecificModel):
    """A booster of LightGBM, or an estimator of its."""

    KINDS = ("lightgbm",)
