"""Estimators of scikit-learn, XGBoost and LightGBM, without pickle."""

from collections.abc import Iterable

from catalog_core.specs import SerializerSpec


def catalog_register_serializers() -> Iterable[SerializerSpec]:
    """Register `sklearn`."""
    yield SerializerSpec(
        "sklearn",
        ("sklearn", "xgboost", "lightgbm"),
        "catalog_sklearn.serializer:SklearnSerializer",
        (".skops",),
        extra="sklearn",
        default_method="predict",
    )
