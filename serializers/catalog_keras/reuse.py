"""Weights of one model in another: under other names, or those that fit. See `catalog_core.filling`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from catalog_core import filling
from catalog_core.errors import SerializationError
from catalog_core.shown import an
from catalog_keras import own, structure

OWN = "own_state"  # behind the path of a layer: what it keeps outside of its variables, as if it were one of them


def fill(into: Any, values: Mapping[str, Any], kept: Mapping[str, own.Own], options: Mapping[str, Any]) -> Any:
    """Fill the variables of a live model by their names, and what its layers keep of their own (`kept`, by path). Its
    optimizers stay as they are: what they remember belongs to the variables that the stored model trained. Returns
    `into`, or with `partial` what was done.

    Raises `SerializationError` and `InvalidInput`, as `filling.fill` does."""
    if not isinstance(into, keras.layers.Layer):
        raise SerializationError(f"{an(type(into).__name__)} cannot be filled", hint="a Keras model or layer")
    variables, layers = structure.walk(into)[1], structure.layers(into)
    mine = own.report(layers, variables)
    stored = {_own(path): state for path, state in kept.items() if not path.startswith("optimizers.")}
    # a layer that learned nothing yet reports no state, and can take some
    able = {_own(path): path for path in layers if path in mine or _own(path) in stored}
    target = {**variables, **able}

    def put(chosen: Mapping[str, Any]) -> None:
        before = {name: np.array(keras.ops.convert_to_numpy(variables[name])) for name in chosen if name in variables}
        states = {able[name]: value for name, value in chosen.items() if name in able}
        for name in before:
            variables[name].assign(chosen[name].astype(before[name].dtype, copy=False))
        problems = _restored(layers, states, values)
        if problems:
            for name, value in before.items():
                variables[name].assign(value)
            _restored(layers, {path: mine[path] for path in states if path in mine}, _arrays(variables))
            raise SerializationError("; ".join(problems[:5]), hint="nothing was changed")
        for layer in into._flatten_layers():
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # it computes with copies of its variables

    return filling.fill(
        into, target, {**values, **stored}, put, problems=_misfits, what="weights",
        frozen=lambda name: name in variables and not variables[name].trainable, **filling.options_of(options),
    )  # fmt: skip


def _own(path: str) -> str:
    return f"{path}.{OWN}" if path else OWN


def _arrays(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(keras.ops.convert_to_numpy(variable)) for name, variable in variables.items()}


def _restored(layers: Mapping[str, Any], states: Mapping[str, own.Own], values: Mapping[str, Any]) -> list[str]:
    """Hand own states back; the problems, if what the layers report then is something else. (Variables that a state
    names may be called otherwise here.)"""
    try:
        own.restore(layers, states, values)
        now = own.report({path: layers[path] for path in states}, {})
    except Exception as exc:  # the layer's own code
        return [f"a layer refuses what it kept of its own: {type(exc).__name__}: {' '.join(str(exc).split())[:300]}"]
    return [
        f"{path or 'the model'} was given what it kept of its own, and reports something else"
        for path, state in states.items()
        if path not in now or not state.agrees(now[path])
    ]


def _misfits(target: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Shapes and dtypes that differ. The backends of Keras count in integers of different sizes."""
    found: dict[str, str] = {}
    for name, variable in target.items():
        value = values[name]
        if isinstance(value, own.Own) or isinstance(variable, str):
            if not (isinstance(value, own.Own) and isinstance(variable, str)):
                found[name] = f"{name} is an own state on one side, and a variable on the other"
            continue
        dtype = str(keras.backend.standardize_dtype(variable.dtype))
        counts = "int" in dtype and "int" in value.dtype.name
        if tuple(value.shape) != tuple(variable.shape) or (dtype != value.dtype.name and not counts):
            stored = f"{value.dtype.name}{list(value.shape)}"
            found[name] = f"{name} is stored as {stored}, the live one is {dtype}{list(variable.shape)}"
    return found
