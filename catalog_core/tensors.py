"""The safetensors header: how it is read, written, and where such a file is cut into chunks.

A file is 8 bytes (little-endian length n), n bytes of JSON, then the tensors without gaps. Imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from catalog_core.digests import canonical, parse
from catalog_core.errors import SerializationError

MAX_HEADER = 100_000_000
MAX_AXES = 64  # as many as NumPy has
ALIGN = 64
SMALL_GROUP = 4 << 20
MAX_CHUNK = 64 << 20
# name in the file → (name of the dtype, bytes of one item)
DTYPES: dict[str, tuple[str, int]] = {
    "BOOL": ("bool", 1), "U8": ("uint8", 1), "I8": ("int8", 1), "F8_E5M2": ("float8_e5m2", 1),
    "F8_E4M3": ("float8_e4m3fn", 1), "I16": ("int16", 2), "U16": ("uint16", 2), "F16": ("float16", 2),
    "BF16": ("bfloat16", 2), "I32": ("int32", 4), "U32": ("uint32", 4), "F32": ("float32", 4),
    "I64": ("int64", 8), "U64": ("uint64", 8), "F64": ("float64", 8), "C64": ("complex64", 8),
}  # fmt: skip
NAMES = {name: (code, size) for code, (name, size) in DTYPES.items()}


@attrs.frozen
class Entry:
    """One tensor: `start` and `end` are offsets (bytes) from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@attrs.frozen
class Header:
    """Tensors in the order of the file, the file's metadata, and where the data begins."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]
    data_start: int


def _count(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def parse_header(read: Callable[[int, int], bytes], size: int) -> Header:
    """Read and check the header of a file of `size` bytes; `read(start, length)` gives bytes. A header that lies
    raises `SerializationError` with the tensor and the rule."""
    length = int.from_bytes(read(0, 8), "little") if size >= 8 else 0
    if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
        raise SerializationError(f"not a safetensors file: a header of {length:,} bytes in a file of {size:,}")
    try:
        table = parse(bytes(read(8, length)))
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"the header of the safetensors file is broken: {exc}") from exc
    if not isinstance(table, dict):
        raise SerializationError("the header of the safetensors file is not an object")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise SerializationError("the metadata of the safetensors file are not texts")
    start = 8 + length
    entries = [_entry(name, value, start) for name, value in table.items()]
    entries.sort(key=lambda entry: (entry.start, entry.end))
    at = start
    for entry in entries:
        if entry.start != at:
            raise SerializationError(
                f"tensor {entry.name!r} begins at byte {entry.start}, not at {at}: a gap or overlap"
            )
        at = entry.end
    if at != size:
        raise SerializationError(f"the tensors end at byte {at}, the safetensors file at {size}")
    return Header(tuple(entries), metadata, start)


def _entry(name: str, value: Any, start: int) -> Entry:
    try:
        code, shape, (low, high) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        dtype, item = DTYPES[code]
        if not isinstance(value["shape"], list) or len(shape) > MAX_AXES:
            raise ValueError(f"a shape is a list of at most {MAX_AXES} sizes")
        if not all(type(number) is int and number >= 0 for number in (*shape, low, high)):
            raise ValueError("sizes and offsets are whole numbers from 0")
        if high - low != _count(shape) * item:
            raise ValueError(
                f"{code}{list(shape)} takes {_count(shape) * item:,} bytes, the offsets say {high - low:,}"
            )
    except (KeyError, TypeError, ValueError) as exc:
        raise SerializationError(f"tensor {name!r} of the safetensors file is described wrongly: {exc}") from exc
    return Entry(name, dtype, shape, start + low, start + high)


def plan(tensors: Sequence[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> tuple[bytes, Header]:
    """The header bytes for tensors (name, dtype, shape), and where each will lie: larger items first, then by name;
    the data begin at a multiple of 64 bytes. The same input gives the same bytes."""
    for name, dtype, _ in tensors:
        if name == "__metadata__":
            raise SerializationError("safetensors keeps the name '__metadata__' for itself", hint="rename the tensor")
        if dtype not in NAMES:
            raise SerializationError(f"tensor {name!r}: safetensors has no dtype {dtype!r}")
    ordered = sorted(tensors, key=lambda item: (-NAMES[item[1]][1], item[0]))
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at, spans = 0, []
    for name, dtype, shape in ordered:
        code, item = NAMES[dtype]
        end = at + _count(shape) * item
        table[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, end]}
        spans.append((name, dtype, tuple(shape), at, end))
        at = end
    text = canonical(table)
    text += b" " * (-(8 + len(text)) % ALIGN)
    start = 8 + len(text)
    entries = tuple(Entry(name, dtype, shape, start + low, start + high) for name, dtype, shape, low, high in spans)
    return len(text).to_bytes(8, "little") + text, Header(entries, dict(metadata), start)


def cuts(header: Header, size: int) -> list[int]:
    """The offsets where chunks begin: at tensors. Small neighbours share a chunk of about 4 MiB, tensors over 64 MiB
    are cut at that stride from their own start; a tensor of 4 MiB or more has its chunks for itself, so that a change
    elsewhere never moves its cuts."""
    result = [0]
    open_since: int | None = None
    for entry in header.entries:
        length = entry.end - entry.start
        if length >= SMALL_GROUP:
            result += range(entry.start, entry.end, MAX_CHUNK)
            open_since = None
        elif length and (open_since is None or entry.end - open_since > SMALL_GROUP):
            result.append(entry.start)
            open_since = entry.start
    return [cut for cut in result if cut < size]


def numpy_dtype(name: str) -> Any:
    """The NumPy dtype called `name`; bfloat16 and float8 need ml_dtypes. Raises `SerializationError`."""
    import numpy as np

    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes
    except ImportError as exc:
        raise SerializationError(
            f"NumPy has no dtype {name}", hint="pip install ml_dtypes, or load with as_='torch'"
        ) from exc
    return np.dtype(getattr(ml_dtypes, name))


def numpy_view(buffer: Any, entry: Entry) -> Any:
    """The bytes of one tensor as a read-only NumPy array of its dtype and shape, without a copy."""
    import numpy as np

    try:
        array = np.frombuffer(buffer, dtype=numpy_dtype(entry.dtype)).reshape(entry.shape)
    except ValueError as exc:
        raise SerializationError(f"tensor {entry.name!r} cannot be an array of {entry.shape}: {exc}") from exc
    array.flags.writeable = False
    return array
