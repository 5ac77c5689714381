"""Models made of checked configurations: no larger than what is stored, and with the layers shared that were.

Keras keeps the state of a build in globals, so builds take turns.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from catalog_core import forks
from catalog_core.errors import CatalogError, SerializationError
from catalog_core.quiet import quiet
from catalog_core.shown import an
from catalog_keras import config, structure

SLACK = 64 << 20  # bytes for what is small and not stored: metrics, seeds, steps
_COPIES = 4  # of the weights: an optimizer that was never used is built anew, with its moments
ONE_AT_A_TIME = forks.Lock(threading.RLock)


def allowance(stored: int) -> int:
    """How many bytes the variables of a model may take whose stored arrays take `stored`."""
    return (1 + _COPIES) * stored + SLACK


@contextmanager
def bounded(limit: int) -> Iterator[None]:
    """Variables that this thread makes inside take `limit` bytes at most: a configuration of 300 bytes can ask for
    terabytes, and each variable is measured before it is allocated. Raises `SerializationError`."""
    kind, thread, left = keras.Variable, threading.get_ident(), [limit]
    original, inherited = kind.__init__, "__init__" not in vars(kind)

    def measured(self: Any, initializer: Any, shape: Any = None, dtype: Any = None, *rest: Any, **options: Any) -> None:
        if shape is not None and threading.get_ident() == thread:
            sizes = (shape,) if isinstance(shape, int) else tuple(shape)
            count = math.prod(int(size) for size in sizes if size is not None)
            left[0] -= count * _itemsize(dtype)
            if left[0] < 0:
                raise SerializationError(
                    f"the configuration asks for a variable of the shape {list(sizes)}, far more than what is stored"
                )
        original(self, initializer, shape, dtype, *rest, **options)

    with ONE_AT_A_TIME:
        kind.__init__ = measured
        try:
            yield
        finally:
            if inherited:
                del kind.__init__
            else:
                kind.__init__ = original


def _itemsize(dtype: Any) -> int:
    digits = "".join(
        c for c in str(keras.backend.standardize_dtype(dtype or "float32")).partition("_")[0] if c.isdigit()
    )
    return max(1, int(digits or 8) // 8)


def model(found: dict[str, Any], shared: Mapping[str, str] | None = None) -> Any:
    """The model of a checked configuration, which is used up; `shared` are places of layers with the places of the
    same layer before them. Raises `SerializationError` with Keras' reason."""
    compiled = found.pop("compile_config", None) if shared else None
    try:
        with ONE_AT_A_TIME:
            made = keras.saving.deserialize_keras_object(found, safe_mode=True)
            if isinstance(made, keras.layers.Layer) and shared:
                made = _share(made, "", shared, structure.layers(made))
            if compiled:
                made.compile_from_config(compiled)
    except Exception as exc:  # Keras, or a registered class
        raise refusal(exc, "Keras cannot make the model") from exc
    if not isinstance(made, keras.layers.Layer):
        raise SerializationError(f"the configuration is one of {an(type(made).__name__)}, not of a model or layer")
    return made


def optimizer(found: dict[str, Any]) -> Any:
    """The optimizer of a checked configuration, which is used up. Raises `SerializationError`."""
    settings = found.get("config") or {}
    floats = {key: float(value) if type(value) is int else value for key, value in settings.items()}
    try:
        try:
            made = keras.saving.deserialize_keras_object(config.copied(found), safe_mode=True)
        except ValueError:  # of an earlier release, whose manifest has 0 in place of 0.0
            made = keras.saving.deserialize_keras_object({**found, "config": floats}, safe_mode=True)
    except Exception as exc:
        raise refusal(exc, "Keras cannot make the optimizer") from exc
    if not isinstance(made, keras.optimizers.Optimizer):
        raise SerializationError(f"a stored optimizer is {an(type(made).__name__)}")
    return made


def outline(found: dict[str, Any], shared: Mapping[str, str]) -> Any:
    """The model of a checked configuration, which is used up, where its layers allow it without memory for its
    variables. Raises `SerializationError`."""
    again = config.copied(found)
    with quiet():
        try:
            with keras.StatelessScope(initialize_variables=False), _forgotten():
                return model(found, shared)
        except SerializationError as exc:
            if "stateless scope" not in exc.message:
                raise
        return model(again, shared)  # a layer makes variables of arrays: recurrent ones that keep their state do


@contextmanager
def _forgotten() -> Iterator[None]:
    """Keras would allocate later what was made without memory."""
    from keras.src.backend.common import global_state

    before = list(global_state.get_global_attribute("uninitialized_variables") or [])
    try:
        yield
    finally:
        global_state.set_global_attribute("uninitialized_variables", before)


@contextmanager
def same_names() -> Iterator[None]:
    """What is made in here and forgotten does not count for the names that Keras gives to later layers."""
    from keras.src.backend.common import global_state

    names = dict(global_state.get_global_attribute("object_name_uids") or {})
    try:
        yield
    finally:
        counted = global_state.get_global_attribute("object_name_uids")
        if counted is not None:
            counted.clear()
            counted.update(names)


def _share(made: Any, path: str, shared: Mapping[str, str], places: Mapping[str, Any]) -> Any:
    """A model whose layers at the places `shared` are those at the places before them: Keras writes a layer that is
    in a model and in a model inside twice, and makes two of it."""
    if not structure.is_graph(made):
        return made
    instead: dict[int, Any] = {}
    for number, layer in enumerate(made.layers):
        place = f"{path}.layers.{number}" if path else f"layers.{number}"
        first = places[shared[place]] if place in shared else _share(layer, place, shared, places)
        if first is not layer:
            instead[id(layer)] = first
    if not instead:
        return made
    clone = keras.models.clone_model(made, clone_function=lambda layer: instead.get(id(layer), layer))
    clone.trainable = made.trainable
    return clone


def refusal(exc: Exception, what: str) -> SerializationError:
    """The error for what Keras, or a check inside it, said of an object."""
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, CatalogError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, CatalogError):
        return SerializationError(cause.message, hint=cause.hint)
    return SerializationError(f"{what}: {config.reason(exc)}")
