"""What only training needs: the configurations of optimizers, and what a model was compiled with.

A loss, metric or optimizer of the user's own keeps no model from loading and predicting: it is left out, with the
reason.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import keras
from keras.src.saving import serialization_lib

from catalog_core.errors import CatalogError, NotTrusted, SerializationError
from catalog_core.interfaces.serializer import Reader
from catalog_core.quiet import quiet
from catalog_keras import build, config

FILE = "optimizers.json"
FAILURES = (SerializationError, NotImplementedError, TypeError, ValueError, AttributeError, KeyError)


def cause(exc: Exception) -> str:
    """An error in one line."""
    return exc.message if isinstance(exc, CatalogError) else config.reason(exc)


def plain(obj: Any) -> dict[str, Any]:
    """The configuration of an object as plain data."""
    with quiet():  # it warns of lambdas, which are refused right after
        found: dict[str, Any] = json.loads(json.dumps(keras.saving.serialize_keras_object(obj)))
    stack: list[Any] = [found]
    while stack:  # the torch backend has optimizers of its own, under the names of Keras'
        value = stack.pop()
        if isinstance(value, dict):
            if str(value.get("module")).startswith("keras.src.backend."):
                value |= {"module": "keras.optimizers", "registered_name": None}
            stack += value.values()
        elif isinstance(value, list):
            stack += value
    return found


def configuration(obj: Any, read_back: Callable[[dict[str, Any]], None]) -> tuple[dict[str, Any], str | None]:
    """The configuration of a model that `read_back` can make (it gets a copy), and why what the model was compiled with
    is not in it, or None. Raises one of `FAILURES` where the model cannot be made even so."""
    try:
        found = plain(obj)
        read_back(config.copied(found))
        return found, None
    except FAILURES as exc:
        if not any(getattr(part, "compiled", False) for part in obj._flatten_layers()):
            raise
        lost = cause(exc)
    with _uncompiled():
        found = plain(obj)
    for record in config.records(found):
        if "class_name" in record:
            record.pop("compile_config", None)
    read_back(config.copied(found))
    return found, lost


@contextmanager
def _uncompiled() -> Iterator[None]:
    """As long as this lasts, Keras asks in this thread no model for what it was compiled with: that may have no
    configuration. The models themselves are not touched: another thread may train them."""
    thread = threading.get_ident()

    def built_only(obj: Any, config: dict[str, Any]) -> None:
        if threading.get_ident() == thread:
            own = {"get_build_config": obj.get_build_config} if hasattr(obj, "get_build_config") else {}
            obj = SimpleNamespace(**own)
        usual(obj, config)

    with build.ONE_AT_A_TIME:
        usual = serialization_lib.get_build_and_compile_config
        serialization_lib.get_build_and_compile_config = built_only
        try:
            yield
        finally:
            serialization_lib.get_build_and_compile_config = usual


def note(optimizer: Any, trains: list[str]) -> dict[str, Any]:
    """What the manifest says of a built optimizer: what it trains and its configuration. One that Keras would not make
    again has its class only, and `left_out`, the reason."""
    try:
        told = plain(optimizer)
        again = config.copied(told)
        config.check(again)
        build.optimizer(again)
        return {"trains": trains, "config": _worded(told), "file": FILE}
    except FAILURES as exc:
        name = {"class_name": type(optimizer).__name__}
        return {"trains": trains, "config": name, "file": FILE, "left_out": cause(exc)}


def _worded(value: Any) -> Any:
    """A configuration for the manifest, which holds no infinity and no NaN: each is `{"float": "inf"}` there."""
    if isinstance(value, dict):
        return {key: _worded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_worded(inner) for inner in value]
    return value if not isinstance(value, float) or math.isfinite(value) else {"float": str(value)}


def numbered(value: Any) -> Any:
    """The configuration that the manifest has with infinities and NaN as `{"float": "inf"}`."""
    if isinstance(value, dict):
        if value.keys() == {"float"} and value["float"] in ("inf", "-inf", "nan"):
            return float(value["float"])
        return {key: numbered(inner) for key, inner in value.items()}
    return [numbered(inner) for inner in value] if isinstance(value, list) else value


def exact_bytes(notes: Mapping[str, Any]) -> bytes:
    """The file of the optimizers' configurations, as they were: a manifest has no 0.0, only 0, and some mind."""
    configs = {attribute: numbered(told["config"]) for attribute, told in notes.items()}
    return json.dumps(configs, sort_keys=True, separators=(",", ":")).encode()


def exact(reader: Reader, notes: Mapping[str, Any]) -> dict[str, Any]:
    """The configurations of `exact_bytes`. Empty for a version of an earlier release. Raises `SerializationError`."""
    if not any("file" in told for told in notes.values()):
        return {}
    if FILE not in reader.files:
        raise SerializationError(f"the component holds no {FILE}")
    try:
        found = json.loads(bytes(reader.view(FILE)))
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"{FILE} cannot be read: {exc}") from exc
    good = isinstance(found, dict) and found.keys() == notes.keys()
    if not good or not all(isinstance(value, dict) for value in found.values()):
        raise SerializationError(f"{FILE} is of other optimizers than the manifest")
    return dict(found)


def unknown(found: Any) -> str | None:
    """Check a configuration, which is rewritten as `config.check` does. Returns why this process lacks a class or
    function that it names, or None. Raises `SerializationError` for what is never made."""
    try:
        config.check(found)
    except SerializationError as exc:
        if isinstance(exc.__cause__, NotTrusted):
            return exc.message
        raise
    return None


def unknown_taken_out(found: dict[str, Any]) -> str | None:
    """Take out of the configuration of a model what it, or a model in it, was compiled with, where this process lacks
    a class or function of that. Returns why, or None. Raises `SerializationError` for what is never made."""
    lost = None
    for record in list(config.records(found)):
        if "class_name" in record and "compile_config" in record:
            why = unknown(config.copied(record["compile_config"]))
            if why is not None:
                del record["compile_config"]
                lost = why
    return lost
