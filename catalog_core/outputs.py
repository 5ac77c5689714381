"""The outputs of a method: arrays by name, out of whatever it returned, and those that are left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import attrs

from catalog_core.errors import InvalidInput
from catalog_core.names import nearest
from catalog_core.shown import an


@attrs.define
class Choice:
    """Which outputs count: all but those in `skip`, with what is below them. `seen` are the names that came by, `used`
    those of `skip` among them."""

    skip: frozenset[str] = frozenset()
    seen: set[str] = attrs.field(factory=set)
    used: set[str] = attrs.field(factory=set)

    def check(self) -> None:
        """Raise `InvalidInput` for a name in `skip` that no output has."""
        for name in sorted(self.skip - self.used):
            hint = nearest(name, self.seen) or f"outputs: {', '.join(sorted(self.seen)) or 'none were run'}"
            raise InvalidInput(f"skip names {name!r}, which is no output", hint=hint)


_choice: ContextVar[Choice | None] = ContextVar("choice", default=None)


@contextmanager
def choosing(skip: Iterable[str]) -> Iterator[Choice]:
    """In here `by_name` leaves out what the caller named."""
    made = Choice(frozenset(skip))
    token = _choice.set(made)
    try:
        yield made
    finally:
        _choice.reset(token)


def to_skip(skip: Any) -> list[str]:
    """The names of outputs to leave out, of one or several. Raises `InvalidInput`."""
    names = [skip] if isinstance(skip, str) else list(skip) if isinstance(skip, Iterable) else [skip]
    for name in names:
        if not isinstance(name, str):
            raise InvalidInput(f"skip names {repr(name)[:80]}, which is no text", hint='skip=["name of an output"]')
    return names


def skips() -> bool:
    """Whether some outputs are left out by name."""
    found = _choice.get()
    return found is not None and bool(found.skip)


def left_out(name: str) -> bool:
    """Whether the output of this name, and what is below it, is left out."""
    found = _choice.get()
    if found is None:
        return False
    found.seen.add(name)
    if name in found.skip:
        found.used.add(name)
    return name in found.skip


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a named tuple or a dataclass by name; None for anything else."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def odd(value: Any) -> tuple[str, str] | None:
    """What a tensor is that is no dense array with data, and the way out; None for any other value. Of
    TensorFlow, SciPy and torch, none of which is imported."""
    kind = type(value)
    roots = {base.__module__.partition(".")[0] for base in kind.__mro__}
    if "tensorflow" in roots and kind.__name__ in ("RaggedTensor", "SparseTensor", "IndexedSlices"):
        return f"a {kind.__name__}", "tf.sparse.to_dense" if kind.__name__ == "SparseTensor" else "its to_tensor()"
    if "scipy" in roots and hasattr(value, "tocsr"):
        return f"a sparse {kind.__name__}", "toarray()"
    if "torch" not in roots or not hasattr(value, "is_quantized"):
        return None
    if value.is_nested:
        return "a nested tensor", "to_padded_tensor(…), and the lengths as another tensor"
    if hasattr(value, "materialize"):
        return "a lazy tensor, which has no shape yet", "run the lazy module once"
    if str(value.layout) != "torch.strided":
        return f"sparse, or of another layout ({str(value.layout).removeprefix('torch.')})", "to_dense()"
    if value.is_quantized:
        return "quantized", "dequantize()"
    if value.device.type == "meta":
        return "without data (on the device meta)", "to_empty(device='cpu'), and fill it"
    if hasattr(value, "__tensor_flatten__"):
        return f"a {kind.__name__}, which is made of other tensors", "the tensor that it stands for"
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype in ("complex32", "float4_e2m1fn_x2") or dtype.startswith(("bits", "quint", "qint")):
        other = "to(torch.complex64)" if dtype == "complex32" else "view(torch.uint8)"
        return f"of the dtype {dtype}, which NumPy has no array for", other
    return None


def by_name(result: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of what a method returned, by name: `output`, `output_0`, `output_1_0`, or the keys of a mapping,
    the fields of a named tuple or dataclass. None is left out, and so is what `choosing` says. Raises `InvalidInput`
    for what is no array or number, and where two get one name."""
    seen: set[str] = set()
    for name, value in _named(result, ""):
        if name in seen:
            raise InvalidInput(f"it gives two outputs that are called {name!r}", hint="give one another key")
        seen.add(name)
        yield name, value


def _named(result: Any, name: str) -> Iterator[tuple[str, Any]]:
    found = fields_of(result)
    if name and left_out(name):
        return
    if found is not None or isinstance(result, Mapping):
        for key, value in (result if found is None else found).items():
            yield from _named(value, f"{name}_{key}" if name else str(key))
    elif isinstance(result, (tuple, list)):
        for number, value in enumerate(result):
            yield from _named(value, f"{name or 'output'}_{number}")
    elif result is None or (not name and left_out("output")):
        return
    elif (strange := odd(result)) is not None:
        raise InvalidInput(
            f"it gives {name or 'output'!r}, which is {strange[0]}",
            hint=f"{strange[1]}; or leave it out: skip=[{name or 'output'!r}]",
        )
    elif not hasattr(result, "shape") and not isinstance(result, (bool, int, float, complex)):
        raise InvalidInput(
            f"it gives {an(type(result).__name__)} as {name or 'output'}, which is no array",
            hint=f"return arrays, or name what is none: skip=[{name or 'output'!r}]",
        )
    else:
        yield name or "output", result
