"""Weights of one model in another: under other names, or those that fit. See `catalog_core.filling`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from catalog_core import filling
from catalog_core.errors import SerializationError
from catalog_keras import structure


def fill(into: Any, values: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Fill the variables of a live model by their names. Its optimizers stay as they are: what they remember belongs to
    the variables that the stored model trained. Returns `into`, or with `partial` what was done.

    Raises `SerializationError` and `InvalidInput`, as `filling.fill` does."""
    if not isinstance(into, keras.layers.Layer):
        raise SerializationError(f"a {type(into).__name__} cannot be filled", hint="a Keras model or layer")
    variables = structure.walk(into)[1]

    def put(chosen: Mapping[str, Any]) -> None:
        for name, value in chosen.items():
            variable = variables[name]
            variable.assign(value.astype(keras.ops.convert_to_numpy(variable).dtype, copy=False))
        for layer in into._flatten_layers():
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # it computes with copies of its variables

    return filling.fill(
        into, variables, values, put, frozen=lambda name: not variables[name].trainable, problems=_misfits,
        what="weights", **filling.options_of(options),
    )  # fmt: skip


def _misfits(target: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Shapes and dtypes that differ. The backends of Keras count in integers of different sizes."""
    found: dict[str, str] = {}
    for name, variable in target.items():
        dtype, value = str(keras.backend.standardize_dtype(variable.dtype)), values[name]
        counts = "int" in dtype and "int" in value.dtype.name
        if tuple(value.shape) != tuple(variable.shape) or (dtype != value.dtype.name and not counts):
            stored = f"{value.dtype.name}{list(value.shape)}"
            found[name] = f"{name} is stored as {stored}, the live one is {dtype}{list(variable.shape)}"
    return found
