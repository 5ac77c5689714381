"""Dictionaries of NumPy arrays or torch tensors ↔ one safetensors file. Tied tensors are stored once and stay tied."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from catalog_core import tensors
from catalog_core.errors import SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest
from catalog_core.records import Description

FILE = "model.safetensors"


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def dtype_of(value: Any) -> str:
    """The dtype of an array or tensor, as NumPy and torch name it."""
    return str(value.dtype).removeprefix("torch.")


def memory_of(value: Any) -> Any:
    """The bytes of an array or tensor in C order, without a copy where it is contiguous and in this memory."""
    if _is_torch(value):
        import torch

        flat = value.detach().resolve_conj().resolve_neg().contiguous().cpu()
        return flat.reshape(-1).view(torch.uint8).numpy() if flat.numel() else b""
    array = np.ascontiguousarray(value)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8) if array.size else b""


def identity(value: Any) -> tuple[Any, ...] | None:
    """What two tied tensors have in common: place, dtype, shape and strides in memory; None for an empty one."""
    if _is_torch(value):
        if value.numel() == 0 or value.device.type == "meta":
            return None
        return (str(value.device), value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
    if value.size == 0:
        return None
    return (value.__array_interface__["data"][0], value.dtype.str, value.shape, value.strides)


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
        wanted = {shared.get(key, key) for key in names}
        missing = wanted - {entry.name for entry in entries}
        if missing:
            raise SerializationError(f"there is no tensor {sorted(missing)[0]!r} in {name}")
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
        if copy:
            return array.copy()
        array.flags.writeable = False
        return array

    return make


def _torch_maker(device: str | None, copy: bool) -> Any:
    import torch

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
    for problem in mismatches(target, values):
        raise SerializationError(f"the stored tensors do not fit: {problem}", hint="nothing was changed")
    for key, value in values.items():
        if _is_torch(target[key]):
            import torch

            with torch.no_grad():
                target[key].copy_(value)
        else:
            target[key][...] = value


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
        """Write a mapping name → array."""
        values = self._checked(obj)
        shared = write(values, directory)
        meta: dict[str, Any] = {"arrays": "torch" if any(map(_is_torch, values.values())) else "numpy"}
        if shared:
            meta["shared"] = shared
        return meta

    @staticmethod
    def _checked(obj: Any) -> Mapping[str, Any]:
        if not isinstance(obj, Mapping) or not obj:
            raise SerializationError(f"safetensors holds a dictionary of arrays, not a {type(obj).__name__}")
        for key, value in obj.items():
            if not isinstance(key, str) or not (isinstance(value, (np.ndarray, np.generic)) or _is_torch(value)):
                raise SerializationError(f"{key!r} is a {type(value).__name__}, not a NumPy array or torch tensor")
            if not _is_torch(value) and (value.dtype.hasobject or value.dtype.fields):
                raise SerializationError(f"{key!r} has dtype {value.dtype}, which safetensors cannot hold")
        return {key: np.asarray(value) if isinstance(value, np.generic) else value for key, value in obj.items()}

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """A dictionary of arrays; `tensors=[…]` loads only those."""
        kind = options.get("as_") or reader.meta.get("arrays", "numpy")
        if kind not in ("numpy", "torch"):
            raise SerializationError(f"as_={kind!r} is not known here", hint="numpy or torch")
        file = next(name for name in reader.files if name.endswith(".safetensors"))
        values = read(
            reader, kind, reader.meta.get("shared", {}), names=options.get("tensors"), copy=bool(options.get("copy")),
            device=device, name=file,
        )  # fmt: skip
        if into is None:
            return values
        target = into.state_dict() if hasattr(into, "state_dict") else into
        fill(target, values)
        return into

    def describe(self, obj: Any) -> Description:
        """Names, dtypes and shapes."""
        values = self._checked(obj)
        torch = any(map(_is_torch, values.values()))
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
