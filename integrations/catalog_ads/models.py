"""The model classes of ADS, by framework. They differ in what they take; the catalog finds the serializer."""

from __future__ import annotations

from catalog_ads.generic_model import GenericModel

__all__ = [
    "GenericModel",
    "KerasModel",
    "LightGBMModel",
    "PyTorchModel",
    "SklearnModel",
    "TensorFlowModel",
    "XGBoostModel",
]


class PyTorchModel(GenericModel):
    """An `nn.Module`; its graph is stored where `prepare` gets an `X_sample`."""

    KINDS = ("torch",)


class TensorFlowModel(GenericModel):
    """A `tf.Module` or a Keras model, several outputs and sampling layers included."""

    KINDS = ("tensorflow", "keras")


class KerasModel(GenericModel):
    """A Keras model."""

    KINDS = ("keras", "tensorflow")


class SklearnModel(GenericModel):
    """An estimator or pipeline of scikit-learn."""

    KINDS = ("sklearn",)


class XGBoostModel(GenericModel):
    """A booster of XGBoost, or an estimator of its."""

    KINDS = ("xgboost",)


class LightGBMModel(GenericModel):
    """A booster of LightGBM, or an estimator of its."""

    KINDS = ("lightgbm",)
