"""Dictionaries of NumPy arrays or torch tensors ↔ one safetensors file. Tied tensors are stored once and stay tied."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np

from catalog_core import filling, modules, tensors
from catalog_core.errors import MissingPlugin, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest
from catalog_core.records import Description, TensorSpec
from catalog_core.shown import an
from catalog_core.tensors import is_torch
from catalog_safetensors.structure import check_state, flatten, is_array, restore


def torch_module() -> Any:
    """torch, imported on first use. Raises `MissingPlugin` where it is not installed."""
    try:
        import torch
    except ImportError as exc:
        raise MissingPlugin(f"torch cannot be imported: {exc}", hint="pip install torch, or as_='numpy'") from exc
    return torch


def _bytes(reader: Reader, name: str, start: int, length: int) -> bytes:
    return bytes(reader.view(name, start, length))


class SafetensorsSerializer:
    """See `interfaces.serializer`."""

    name = "safetensors"
    save_options = ()
    load_options = ("tensors", *filling.OPTIONS)

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Write a mapping name → array, or nested mappings and lists of arrays and plain values."""
        values, structure = flatten(obj)
        shared = tensors.write(values, directory)
        meta: dict[str, Any] = {"arrays": "torch" if any(map(is_torch, values.values())) else "numpy"}
        if shared:
            meta["shared"] = shared
        if structure is not None:
            meta["structure"] = structure
        return meta

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """A dictionary of arrays, or what was nested; `tensors=[…]` loads only those, by their names in the file."""
        kind = options.get("as_") or reader.meta.get("arrays", "numpy")
        if kind not in ("numpy", "torch"):
            raise SerializationError(f"as_={kind!r} is not known here", hint="numpy or torch")
        structure, names = reader.meta.get("structure"), options.get("tensors")
        target: Any = into.state_dict() if into is not None and hasattr(into, "state_dict") else into
        if into is not None:
            self._check_target(into, target, structure, names)
            if structure is None:
                kind = "torch" if any(map(is_torch, target.values())) else "numpy"
        if kind == "numpy" and device not in (None, "cpu"):
            raise SerializationError(f"NumPy arrays cannot lie on {device!r}", hint="as_='torch'")
        copy = bool(options.get("copy"))
        make = tensors.torch_maker(torch_module(), device, copy) if kind == "torch" else tensors.numpy_maker(copy)
        file = next((name for name in reader.files if name.endswith(".safetensors")), tensors.FILE)
        values = tensors.read(reader, make, writable=kind == "torch", names=names, name=file)
        if structure is None or names is not None:
            if into is None:
                return values
            return modules.fill(into, into if modules.is_module(into) else target, values, options)
        if any(options.get(key) for key in filling.OPTIONS):
            raise SerializationError("rename= and partial= fill tensors by name, and what is stored is nested")
        state = restore(structure, values)
        if into is None:
            return state
        check_state(target, state)
        try:
            into.load_state_dict(state)
        except (ValueError, KeyError, RuntimeError) as exc:
            raise SerializationError(f"{type(into).__name__} refuses the stored state: {exc}") from exc
        return into

    @staticmethod
    def _check_target(into: Any, target: Any, structure: Any, names: Any) -> None:
        if not isinstance(target, Mapping):
            raise SerializationError(f"{an(type(into).__name__)} cannot be filled", hint="a dictionary or a module")
        if structure is None:
            for key, live in target.items():
                if not is_array(live):
                    raise SerializationError(f"{key!r} of the live object is not an array", hint="nothing was changed")
        elif names is not None:
            raise SerializationError("tensors= and into= do not go together for nested values")
        elif not hasattr(into, "load_state_dict"):
            raise SerializationError("nested values fill only an object with load_state_dict", hint="load without into")

    def describe(self, obj: Any) -> Description:
        """Names, dtypes and shapes; nothing of what cannot be saved."""
        try:
            values, _ = flatten(obj)
        except SerializationError:
            return Description()
        torch = any(map(is_torch, values.values()))
        shapes = {key: (tensors.dtype_of(value), tuple(value.shape)) for key, value in values.items()}
        version = sys.modules["torch"].__version__ if torch else np.__version__
        count = sum(math.prod(shape) for _, shape in shapes.values())
        return Description("torch" if torch else "numpy", str(version), "", {}, count, shapes)

    def describe_stored(self, reader: Reader) -> Description:
        """The same of files, by their headers; the library's version is not known. Raises `SerializationError`."""
        frameworks: set[str] = set()
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
        for name, size in reader.files.items():
            header = tensors.parse_header(partial(_bytes, reader, name), size)
            frameworks.add("torch" if header.metadata.get("format") == "pt" else "numpy")
            shapes |= {entry.name: (entry.dtype, entry.shape) for entry in header.entries}
            for entry in header.entries:
                if entry.dtype == "bool":  # the only numbers of which not all bytes are some
                    tensors.check_truths(reader.view(name, entry.start, entry.end - entry.start), entry)
        count = sum(math.prod(shape) for _, shape in shapes.values())
        framework = frameworks.pop() if len(frameworks) == 1 else ""
        return Description(framework, "", "", {}, count, shapes)

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> NoReturn:
        """Arrays cannot be called."""
        raise SerializationError(
            "a dictionary of arrays cannot be called", hint="load it into a module: load(ref, into=net)"
        )

    def signature(
        self, obj: Any, method: str, example: Mapping[str, Any]
    ) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
        """Arrays cannot be called."""
        self.call(obj, method, example)

    def inputs(self, obj: Any, method: str) -> Iterable[str] | None:
        """Unknown: arrays have no methods."""
        return None
