"""Dictionaries of NumPy arrays or torch tensors ↔ one safetensors file. Tied tensors are stored once and stay tied."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from catalog_core import tensors
from catalog_core.errors import MissingPlugin, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest
from catalog_core.names import nearest
from catalog_core.records import Description
from catalog_safetensors.structure import check_state, flatten, is_array, is_torch, restore

FILE = "model.safetensors"


def torch_module() -> Any:
    """torch, imported on first use. Raises `MissingPlugin` where it is not installed."""
    try:
        import torch
    except ImportError as exc:
        raise MissingPlugin(f"torch cannot be imported: {exc}", hint="pip install torch, or as_='numpy'") from exc
    return torch


def dtype_of(value: Any) -> str:
    """The dtype of an array or tensor, as NumPy and torch name it."""
    return str(value.dtype).removeprefix("torch.") if is_torch(value) else str(value.dtype.name)


def memory_of(value: Any) -> Any:
    """The bytes of an array or tensor in C order, without a copy where it is contiguous and in this memory."""
    if is_torch(value):
        torch = torch_module()
        flat = value.detach().resolve_conj().resolve_neg().contiguous().cpu()
        return flat.reshape(-1).view(torch.uint8).numpy() if flat.numel() else b""
    array = np.ascontiguousarray(value)
    if array.dtype.byteorder != "|":
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return array.reshape(-1).view(np.uint8) if array.size else b""


def identity(value: Any) -> tuple[Any, ...] | None:
    """What two tied tensors have in common: place, dtype, shape, strides and lazy signs; None for an empty one."""
    if is_torch(value):
        if value.numel() == 0 or value.device.type == "meta":
            return None
        signs = (value.is_conj(), value.is_neg())
        return (str(value.device), value.data_ptr(), value.dtype, tuple(value.shape), value.stride(), *signs)
    if value.size == 0:
        return None
    return (value.__array_interface__["data"][0], str(value.dtype), value.shape, value.strides)


def write(values: Mapping[str, Any], directory: Directory, name: str = FILE) -> dict[str, str]:
    """Write arrays to file `name`; return the tied names (other name → stored name)."""
    kept: dict[str, Any] = {}
    shared: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for key, value in values.items():
        mark = identity(value)
        if mark is not None and mark in seen:
            shared[key] = seen[mark]
            continue
        if mark is not None:
            seen[mark] = key
        kept[key] = value
    header, where = tensors.plan([(key, dtype_of(value), tuple(value.shape)) for key, value in kept.items()], {})
    parts = [header, *[memory_of(kept[entry.name]) for entry in where.entries]]
    size = where.entries[-1].end if where.entries else len(header)
    directory.write(name, parts, tensors.cuts(where, size))
    return shared


def read(
    reader: Reader, kind: str, shared: Mapping[str, str], *, names: Iterable[str] | None = None, copy: bool = False,
    device: str | None = None, name: str = FILE,
) -> dict[str, Any]:  # fmt: skip
    """Arrays (`kind` numpy) or tensors (`kind` torch) of file `name`, in the order of the file, tied names last."""
    size = reader.files[name]
    header = tensors.parse_header(lambda start, length: bytes(reader.view(name, start, length)), size)
    entries = list(header.entries)
    if names is not None:
        names = list(names)
        wanted = {shared.get(key, key) for key in names}
        known = [*(entry.name for entry in entries), *shared]
        missing = sorted(set(names) - set(known))
        if missing:
            raise SerializationError(f"there is no tensor {missing[0]!r} in {name}", hint=nearest(missing[0], known))
        entries = [entry for entry in entries if entry.name in wanted]
        views = [reader.view(name, e.start, e.end - e.start, writable=kind == "torch") for e in entries]
    else:
        whole = reader.view(name, writable=kind == "torch")
        views = [whole[entry.start : entry.end] for entry in entries]
    make = _torch_maker(device, copy) if kind == "torch" else _numpy_maker(copy)
    result = {entry.name: make(view, entry) for entry, view in zip(entries, views, strict=True)}
    for other, stored in shared.items():
        if stored in result and (names is None or other in set(names)):
            result[other] = result[stored]
    if names is not None:
        result = {key: result[key] for key in names}
    return result


def _numpy_maker(copy: bool) -> Any:
    def make(view: memoryview, entry: tensors.Entry) -> Any:
        array = tensors.numpy_view(view, entry)
        return array.copy() if copy else array

    return make


def _torch_maker(device: str | None, copy: bool) -> Any:
    torch = torch_module()

    def make(view: memoryview, entry: tensors.Entry) -> Any:
        dtype = getattr(torch, entry.dtype)
        if not view.nbytes:
            return torch.empty(entry.shape, dtype=dtype, device=device)
        tensor = torch.frombuffer(view, dtype=dtype).view(entry.shape)
        if device is not None and device != "cpu":
            return tensor.to(device)
        return tensor.clone() if copy else tensor

    return make


def fill(target: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Copy `values` into the live arrays of `target`; names, shapes and dtypes are checked before anything changes."""
    problems = mismatches(target, values)
    problems += [
        f"{key} is read-only" for key, live in target.items() if not is_torch(live) and not live.flags.writeable
    ]
    for problem in problems:
        raise SerializationError(f"the stored tensors do not fit: {problem}", hint="nothing was changed")
    for key, value in values.items():
        live = target[key]
        if is_torch(live):
            torch = torch_module()
            with torch.no_grad():
                live.copy_(value if is_torch(value) else torch.from_numpy(np.array(value)))
        else:
            live[...] = value


def mismatches(target: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Why `values` cannot fill `target`: missing and surplus names, other shapes or dtypes."""
    found = [f"{key} is missing from what is stored" for key in target if key not in values]
    found += [f"{key} is stored, but not in the live object" for key in values if key not in target]
    for key in values:
        if key in target:
            stored = (dtype_of(values[key]), tuple(values[key].shape))
            live = (dtype_of(target[key]), tuple(target[key].shape))
            if stored != live:
                found.append(
                    f"{key} is stored as {stored[0]}{list(stored[1])}, the live one is {live[0]}{list(live[1])}"
                )
    return found


class SafetensorsSerializer:
    """See `interfaces.serializer`."""

    name = "safetensors"

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Write a mapping name → array, or nested mappings and lists of arrays and plain values."""
        values, structure = flatten(obj)
        shared = write(values, directory)
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
        structure = reader.meta.get("structure")
        target: Any = into.state_dict() if into is not None and hasattr(into, "state_dict") else into
        if into is not None and not isinstance(target, Mapping):
            raise SerializationError(f"a {type(into).__name__} cannot be filled", hint="a dictionary or a module")
        if into is not None and structure is None:
            wrong = [key for key, live in target.items() if not is_array(live)]
            if wrong:
                raise SerializationError(f"{wrong[0]!r} of the live object is not an array", hint="nothing was changed")
            kind = "torch" if any(map(is_torch, target.values())) else "numpy"
        if into is not None and structure is not None and not hasattr(into, "load_state_dict"):
            raise SerializationError("nested values fill only an object with load_state_dict", hint="load without into")
        file = next(name for name in reader.files if name.endswith(".safetensors"))
        names = options.get("tensors")
        values = read(
            reader, kind, reader.meta.get("shared", {}), names=names, copy=bool(options.get("copy")),
            device=device, name=file,
        )  # fmt: skip
        if structure is None or names is not None:
            if into is None:
                return values
            if structure is not None:
                raise SerializationError("tensors= and into= do not go together for nested values")
            fill(target, values)
            return into
        state = restore(structure, values)
        if into is None:
            return state
        check_state(target, state)
        try:
            into.load_state_dict(state)
        except (ValueError, KeyError, RuntimeError) as exc:
            raise SerializationError(f"{type(into).__name__} refuses the stored state: {exc}") from exc
        return into

    def describe(self, obj: Any) -> Description:
        """Names, dtypes and shapes."""
        values, _ = flatten(obj)
        torch = any(map(is_torch, values.values()))
        shapes = {key: (dtype_of(value), tuple(value.shape)) for key, value in values.items()}
        version = sys.modules["torch"].__version__ if torch else np.__version__
        count = sum(int(np.prod(shape, dtype=np.int64)) for _, shape in shapes.values())
        return Description("torch" if torch else "numpy", str(version), "", {}, count, shapes)

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arrays cannot be called."""
        raise SerializationError(
            "a dictionary of arrays cannot be called", hint="load it into a module: load(ref, into=net)"
        )

    def inputs(self, obj: Any, method: str) -> Iterable[str] | None:
        """Unknown: arrays have no methods."""
        return None
