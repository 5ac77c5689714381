"""The safetensors format: its header, where a file is cut into chunks, and how arrays are written, mapped and filled.

A file is 8 bytes (little-endian length n), n bytes of JSON, then the tensors without gaps. Imports no framework: a
plug-in passes its own to `torch_maker`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from catalog_core.digests import canonical, parse
from catalog_core.errors import BackendError, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader
from catalog_core.names import nearest
from catalog_core.outputs import odd
from catalog_core.shown import an

FILE = "model.safetensors"
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
STEP = 1 << 20  # numbers looked at together
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

    def ranges(self) -> list[tuple[int, int]]:
        """Where each tensor begins and ends in the file, in bytes."""
        return [(entry.start, entry.end) for entry in self.entries]


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
                f"tensor {entry.name[:80]!r} begins at byte {entry.start}, not at {at}: a gap or overlap"
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
        why = str(exc)[:200]
        raise SerializationError(f"tensor {name[:80]!r} of the safetensors file is described wrongly: {why}") from exc
    return Entry(name, dtype, shape, start + low, start + high)


def check_dtype(name: str, dtype: str) -> None:
    """Raise `SerializationError` for a dtype that safetensors cannot hold."""
    if dtype not in NAMES:
        raise SerializationError(
            f"tensor {name!r}: safetensors has no dtype {dtype!r}",
            hint=f"convert it, say with astype; it has {', '.join(NAMES)}",
        )


def plan(tensors: Sequence[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> tuple[bytes, Header]:
    """The header bytes for tensors (name, dtype, shape), and where each will lie: larger items first, then by name;
    the data begin at a multiple of 64 bytes. The same input gives the same bytes."""
    for name, dtype, _ in tensors:
        if name == "__metadata__":
            raise SerializationError("safetensors keeps the name '__metadata__' for itself", hint="rename the tensor")
        check_dtype(name, dtype)
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


def cuts(ranges: Iterable[tuple[int, int]], size: int) -> list[int]:
    """The offsets where chunks begin in a file whose tensors have these ranges, in order. Small neighbours share a
    chunk of about 4 MiB, tensors over 64 MiB are cut at that stride from their own start; a tensor of 4 MiB or more
    has its chunks for itself, so that a change elsewhere never moves its cuts."""
    result = [0]
    open_since: int | None = None
    for start, end in ranges:
        if end - start >= SMALL_GROUP:
            result += range(start, end, MAX_CHUNK)
            open_since = None
        elif end > start and (open_since is None or end - open_since > SMALL_GROUP):
            result.append(start)
            open_since = start
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


def check_truths(buffer: Any, entry: Entry) -> None:
    """Raise `SerializationError` for a tensor of truth values with a byte that is none: what is computed with one is
    true and not true, by NumPy and torch alike (`x ^ True`), and no two compilers agree."""
    import numpy as np

    if entry.dtype != "bool" or not all(entry.shape):
        return
    if wrong := int((np.frombuffer(buffer, np.uint8) > 1).sum()):
        raise SerializationError(
            f"tensor {entry.name!r} is of truth values, and {wrong:,} of its bytes are neither 0 nor 1",
            hint="write it as uint8, or `array.view('uint8') != 0`",
        )


def numpy_view(buffer: Any, entry: Entry) -> Any:
    """The bytes of one tensor as a read-only NumPy array of its dtype and shape, without a copy."""
    import numpy as np

    try:
        array = np.frombuffer(buffer, dtype=numpy_dtype(entry.dtype)).reshape(entry.shape)
    except ValueError as exc:
        raise SerializationError(f"tensor {entry.name!r} cannot be an array of {entry.shape}: {exc}") from exc
    array.flags.writeable = False
    return array


# -- arrays and torch tensors, written and read -----------------------------------------------------------------------

Maker = Callable[[memoryview, Entry], Any]


def is_torch(value: Any) -> bool:
    """Whether `value` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def dtype_of(value: Any) -> str:
    """The dtype of an array or tensor, as NumPy and torch name it."""
    return str(value.dtype).removeprefix("torch.") if is_torch(value) else _name_of(value.dtype)


@functools.lru_cache(256)
def _name_of(dtype: Any) -> str:
    return str(dtype.name)


def to_array(name: str, value: Any) -> Any:
    """An array of NumPy or JAX, a NumPy scalar or a torch tensor as what is stored of it. Raises as `check_array`."""
    import numpy as np

    if is_torch(value) or isinstance(value, np.ma.MaskedArray):
        return check_array(name, value)
    try:
        return check_array(name, np.asarray(value))
    except TypeError as exc:  # keys of JAX
        raise SerializationError(
            f"{name!r} is no array of numbers: {exc}",
            hint="serializer='pytree' keeps keys of JAX, else jax.random.key_data(key)",
        ) from exc
    except RuntimeError as exc:  # a buffer of JAX that was donated or deleted
        raise SerializationError(f"{name!r} cannot be read: {exc}", hint="a copy that was taken before") from exc


def check_array(name: str, value: Any) -> Any:
    """`value`, if it is a dense array or tensor with data. Raises `SerializationError` with its name and the reason."""
    if is_torch(value):
        strange = odd(value)
        if strange is not None:
            raise SerializationError(f"{name!r} is {strange[0]}", hint=strange[1])
    elif not hasattr(value, "__array_interface__"):
        raise SerializationError(f"{name!r} is {an(type(value).__name__)}, not an array or tensor")
    elif hasattr(value, "filled"):
        raise SerializationError(f"{name!r} has a mask, which would be lost", hint="its filled() array, and its mask")
    elif value.dtype.hasobject or value.dtype.fields:
        raise SerializationError(f"{name!r} has dtype {value.dtype}, which safetensors cannot hold")
    return value


def memory_of(value: Any) -> Any:
    """The bytes of an array or tensor in C order, without a copy where it is contiguous and in this memory."""
    if is_torch(value):
        flat = value.detach().resolve_conj().resolve_neg().contiguous().cpu().reshape(-1)
        # torch calls one number contiguous whatever its stride is, and then takes no view of its bytes
        flat = flat.as_strided((flat.numel(),), (1,))
        return flat.view(sys.modules["torch"].uint8).numpy() if flat.numel() else b""
    import numpy as np

    array = np.ascontiguousarray(value)
    if array.dtype.byteorder != "|":
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return array.reshape(-1).view(np.uint8) if array.size else b""


def identity(value: Any) -> tuple[Any, ...] | None:
    """What two tied tensors have in common: place, dtype, shape, strides and lazy signs; None for an empty one."""
    if is_torch(value):
        if value.numel() == 0:
            return None
        signs = (value.is_conj(), value.is_neg())
        return (str(value.device), value.data_ptr(), value.dtype, tuple(value.shape), value.stride(), *signs)
    return (value.__array_interface__["data"][0], str(value.dtype), value.shape, value.strides) if value.size else None


def write(values: Mapping[str, Any], directory: Directory, name: str = FILE) -> dict[str, str]:
    """Write arrays to file `name`, tied ones once; return the tied names (other name → name in the file)."""
    kept: dict[str, Any] = {}
    shared: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for key, value in values.items():
        mark = identity(check_array(key, value))
        if mark is not None and mark in seen:
            shared[key] = seen[mark]
            continue
        if mark is not None:
            seen[mark] = key
        kept[key] = value
    header, where = plan([(key, dtype_of(value), tuple(value.shape)) for key, value in kept.items()], {})
    parts = [header, *[memory_of(kept[entry.name]) for entry in where.entries]]
    for entry, part in zip(where.entries, parts[1:], strict=True):
        check_truths(part, entry)
    census = getattr(directory, "census", None)
    if census is not None:
        count_numbers(zip(where.entries, parts[1:], strict=True), census)
    directory.write(name, parts, cuts(where.ranges(), where.entries[-1].end if where.entries else len(header)))
    return shared


def count_numbers(parts: Iterable[tuple[Entry, Any]], census: dict[str, Any]) -> None:
    """Add the floating-point numbers of tensors (as `memory_of` gives them) to a census: `count`, `nan`, `inf`, and
    the names of the first hundred `tensors` with some of these two. Costs about a tenth of hashing them."""
    import numpy as np

    for entry, memory in parts:
        kind = {"complex64": "float32", "complex128": "float64"}.get(entry.dtype, entry.dtype)
        if not len(memory) or kind not in ("float16", "bfloat16", "float32", "float64"):
            continue
        bits = memory.view(np.uint16) if kind.endswith("16") else memory.view(kind)
        mask = np.uint16({"float16": 0x7C00, "bfloat16": 0x7F80}.get(kind, 0))
        nan = inf = 0
        for start in range(0, bits.size, STEP):
            block = bits[start : start + STEP]
            if mask:
                odd = block[(block & mask) == mask]
                infinite = int(((odd & ~(mask | np.uint16(0x8000))) == 0).sum())
                nan, inf = nan + odd.size - infinite, inf + infinite
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                fine = np.isfinite(np.dot(block, block))  # one that is not would have stayed
            if not fine:
                nan, inf = nan + int(np.isnan(block).sum()), inf + int(np.isinf(block).sum())
        census["count"] += int(bits.size)
        if nan or inf:
            census["nan"], census["inf"] = census["nan"] + nan, census["inf"] + inf
            census["tensors"] = [*census["tensors"], entry.name][:100]


def numpy_maker(copy: bool = False) -> Maker:
    """Makes read-only views of the stored bytes, or private arrays."""

    def make(view: memoryview, entry: Entry) -> Any:
        check_truths(view, entry)
        return numpy_view(view, entry).copy() if copy else numpy_view(view, entry)

    return make


def torch_device(torch: Any, device: Any) -> Any:
    """A device of torch, tried with one number; `torch` is the module. Raises `BackendError` with those there are."""
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as exc:
        there = ["cpu", *[f"cuda:{number}" for number in range(torch.cuda.device_count())]]
        there += ["mps"] if torch.backends.mps.is_available() else []
        why = str(exc).strip().partition("\n")[0][:200]
        raise BackendError(
            f"torch cannot use the device {device!r}: {why}", hint=f"devices here: {', '.join(there)}", backend="torch"
        ) from exc
    return place


def torch_maker(torch: Any, device: str | None = None, copy: bool = False) -> Maker:
    """Makes tensors over the (copy-on-write) bytes, or on a device; `torch` is the module. Raises as `torch_device`."""
    if device not in (None, "cpu"):
        torch_device(torch, device)

    def make(view: memoryview, entry: Entry) -> Any:
        dtype = getattr(torch, entry.dtype)
        check_truths(view, entry)
        try:
            if not view.nbytes:
                return torch.empty(entry.shape, dtype=dtype, device=device)
            tensor = torch.frombuffer(view, dtype=dtype).view(entry.shape)
        except (RuntimeError, TypeError) as exc:
            raise SerializationError(f"tensor {entry.name!r} cannot have the shape {entry.shape}: {exc}") from exc
        if device is not None and device != "cpu":
            return tensor.to(device)
        return tensor.clone() if copy else tensor

    return make


def read(
    reader: Reader, make: Maker, *, writable: bool, names: Iterable[str] | None = None, name: str = FILE
) -> dict[str, Any]:
    """What `make` makes of the tensors of file `name` (all, or those called `names`), in the order of the file, tied
    names last. `writable`: over private copy-on-write memory."""
    if name not in reader.files:
        raise SerializationError(f"the component holds no {name}", hint=f"it holds {', '.join(reader.files)}"[:200])
    header = parse_header(lambda start, length: bytes(reader.view(name, start, length)), reader.files[name])
    entries = {entry.name: entry for entry in header.entries}
    shared = reader.meta.get("shared", {})
    if not isinstance(shared, dict) or not all(isinstance(s, str) and s in entries for s in shared.values()):
        raise SerializationError(f"the table of tied tensors names what is not in {name}")
    if names is None and not getattr(reader, "scattered", False):
        whole = reader.view(name, writable=writable)
        result = {entry.name: make(whole[entry.start : entry.end], entry) for entry in header.entries}
        return {**result, **{other: result[stored] for other, stored in shared.items()}}
    if names is None:  # each is mapped where it lies
        reader.fetch(name)
        reader.hold(name)
        names = [*entries, *shared]
    names = list(names)
    missing = sorted(set(names) - entries.keys() - shared.keys())
    if missing:
        raise SerializationError(
            f"there is no tensor {missing[0]!r} in {name}", hint=nearest(missing[0], [*entries, *shared])
        )
    wanted = {shared.get(key, key) for key in names}
    result = {
        e.name: make(reader.view(name, e.start, e.end - e.start, writable=writable), e)
        for e in header.entries
        if e.name in wanted
    }
    return {key: result[shared.get(key, key)] for key in names}


def mismatches(target: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Why `values` cannot fill the live arrays of `target`: missing and surplus names, other shapes or dtypes, what
    cannot be written, and live ties whose stored values differ."""
    found = [f"{key} is missing from what is stored" for key in target if key not in values]
    found += [f"{key} is stored, but not in the live object" for key in values if key not in target]
    tied: dict[Any, str] = {}
    for key in target:
        live = target[key]
        try:
            check_array(key, live)
        except SerializationError as exc:
            found.append(exc.message)
            continue
        if key not in values:
            continue
        stored, wanted = (f"{dtype_of(value)}{list(value.shape)}" for value in (values[key], live))
        if stored != wanted:
            found.append(f"{key} is stored as {stored}, the live one is {wanted}")
        if not _may_be_written(live):
            found.append(f"{key} is read-only")
        mark = identity(live)
        other = tied.setdefault(mark, key) if mark is not None else key
        same = other == key or other not in values or values[other] is values[key]
        if not same and bytes(memory_of(values[other])) != bytes(memory_of(values[key])):
            found.append(f"{key} and {other} are one live tensor, but two stored ones")
    return found


def _may_be_written(live: Any) -> bool:
    if not is_torch(live):
        return bool(live.flags.writeable)
    repeated = any(step == 0 and size > 1 for step, size in zip(live.stride(), live.shape, strict=True))
    return not repeated and (not live.is_inference() or sys.modules["torch"].is_inference_mode_enabled())


def fill(target: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Copy `values` into the live arrays of `target`; all is checked before anything changes. Values are of the
    framework of their targets, or torch tensors. Raises `SerializationError`."""
    problems = mismatches(target, values)
    if problems:
        raise SerializationError(
            f"the stored tensors do not fit: {'; '.join(problems[:5])}", hint="nothing was changed"
        )
    first = _overlapping(target)
    before = {key: target[key].detach().clone() if is_torch(target[key]) else target[key].copy() for key in first}
    for key in first:
        _put(key, target[key], values[key])
    wrong = [key for key in first if bytes(memory_of(target[key])) != bytes(memory_of(values[key]))]
    if wrong:
        for key in first:
            _put(key, target[key], before[key])
        raise SerializationError(
            f"{wrong[0]} and another live tensor lie in one memory, and what is stored of them differs",
            hint="nothing was changed",
        )
    for key, value in values.items():
        if key not in before:
            _put(key, target[key], value)


def _put(key: str, live: Any, value: Any) -> None:
    if is_torch(live):
        live.detach().copy_(value)
    elif is_torch(value):
        live[...] = numpy_view(memory_of(value), Entry(key, dtype_of(value), tuple(value.shape), 0, 0))
    else:
        live[...] = value


def _overlapping(target: Mapping[str, Any]) -> list[str]:
    """The live arrays whose memory may overlap that of another one; of those that are one array, the first."""
    spans: dict[Any, tuple[str, int, int, str]] = {}
    for key, live in target.items():
        mark = identity(live)
        if mark is None or mark in spans:
            continue
        torch = is_torch(live)
        size = live.element_size() if torch else live.itemsize
        steps = [step * size for step in live.stride()] if torch else live.strides
        reach = [(count - 1) * step for count, step in zip(live.shape, steps, strict=True)]
        at = live.data_ptr() if torch else live.__array_interface__["data"][0]
        low, high = at + sum(r for r in reach if r < 0), at + sum(r for r in reach if r > 0) + size
        spans[mark] = (str(live.device) if torch else "cpu", low, high, key)
    found: dict[str, None] = {}
    widest: tuple[str, int, int, str] = ("", 0, 0, "")
    for span in sorted(spans.values()):
        if span[0] == widest[0] and span[1] < widest[2]:
            found |= {widest[3]: None, span[3]: None}
        if span[0] != widest[0] or span[2] > widest[2]:
            widest = span
    return list(found)
