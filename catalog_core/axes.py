"""Which axes of a method's inputs and outputs may have any length: said by the model, declared, or found by trying."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve

from catalog_core.columns import dtype_of
from catalog_core.errors import CatalogError, InvalidInput
from catalog_core.interfaces.serializer import Signature, Trial
from catalog_core.names import check_component, nearest
from catalog_core.records import TensorSpec
from catalog_core.shown import an

Axis = int | str | None
Free = dict[str, dict[int, str | None]]  # input → axis → its name, or None
BATCH = "batch"


def _output_axes(
    shape: Sequence[int], other: Sequence[int] | None, known: Mapping[tuple[int, int], set[str | None]]
) -> tuple[Axis, ...]:
    """The axes of an output, from its shapes for two sizes of the inputs. `known`: both sizes of an input's free axis →
    the names of the axes that have these."""
    if other is None or len(other) != len(shape):
        return tuple(shape)
    found: list[Axis] = []
    for size, after in zip(shape, other, strict=True):
        names = known.get((size, after), set())
        found.append(size if size == after else next(iter(names)) if len(names) == 1 else None)
    return tuple(found)


def measured(trial: Trial, known: Mapping[str, Sequence[Axis]] | None = None) -> Signature:
    """The names, dtypes and shapes of a method's inputs and outputs. The method ran once already, for the trial.

    `known` is what the model itself says of its inputs: an axis that is None or a name may have any length. Where it is
    None, the first axis that all inputs share may be free, and so may those between the first and the last one.
    What the caller declared (`trial.axes`) comes on top.

    Runs: one more, with all of these axes at another length together; where that fails, one without those that nobody
    spoke of, and one for the first axis alone. So none where nothing may be free, else one to three. A length counts as
    free only if the outputs keep their rows."""
    batch = _batch(trial.example, known)
    told = _joined(batch, _known(trial.example, known), trial.axes)
    inner: Free = {}
    if known is None:
        inner = {n: dict.fromkeys(range(1, v.ndim - 1)) for n, v in trial.example.items() if v.ndim > 2}
    why = ""
    tried: list[Free] = []
    for free in (_joined(inner, told), told, batch):
        if not any(free.values()) or free in tried:
            continue
        tried.append(free)
        try:
            return evolve(_tried(trial, free), why=why)
        except Exception as exc:  # the object's own code
            if free == told:
                cause = exc.message if isinstance(exc, CatalogError) else f"{type(exc).__name__}: {exc}"
                why = " ".join(cause.split())
    return Signature(_fixed(trial.example), _fixed(trial.outputs), why)


def _fixed(arrays: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, dtype_of(array), tuple(array.shape)) for name, array in arrays.items())


def shared_rows(arrays: Mapping[str, Any]) -> int:
    """The length of the first axis, where all arrays (numbers aside) have the same; else 0."""
    sizes = {int(array.shape[0]) for array in arrays.values() if array.ndim}
    return sizes.pop() if len(sizes) == 1 else 0


def _batch(arrays: Mapping[str, Any], known: Mapping[str, Sequence[Axis]] | None) -> Free:
    def open_(name: str) -> bool:
        return known is None or name not in known or not isinstance(known[name][0], int)

    wanted = [name for name, array in arrays.items() if array.ndim]
    return {name: {0: BATCH} for name in wanted} if shared_rows(arrays) and all(map(open_, wanted)) else {}


def _known(arrays: Mapping[str, Any], known: Mapping[str, Sequence[Axis]] | None) -> Free:
    return {
        name: {at: axis for at, axis in enumerate(known[name]) if not isinstance(axis, int)}
        for name, array in arrays.items()
        if known is not None and name in known and len(known[name]) == array.ndim
    }


def _joined(*parts: Mapping[str, Mapping[int, str | None]]) -> Free:
    """One table of several; a name of an earlier part is kept where a later part has none."""
    found: Free = {}
    for part in parts:
        for name, axes in part.items():
            mine = found.setdefault(name, {})
            for at, axis in axes.items():
                mine[at] = axis if axis is not None else mine.get(at)
    return {name: axes for name, axes in found.items() if axes}


def _tried(trial: Trial, free: Free) -> Signature:
    """Run once with all of these axes at another length. Raises what the object raises, and `InvalidInput` where what
    comes out does not go with what went in."""
    alone = all(axis == BATCH for axes in free.values() for axis in axes.values())
    inputs, pairs = {}, dict[tuple[int, int], set[str | None]]()
    for name, array in trial.example.items():
        for at, axis in free.get(name, {}).items():
            size = int(array.shape[at])
            other = 2 * size if axis != BATCH or alone else 2 if size > 2 else size + 1
            pairs.setdefault((size, other), set()).add(axis)
            array = resized(array, at, other)
        inputs[name] = array
    outputs = trial.run(inputs)
    rows = next((pair for pair, axes in pairs.items() if BATCH in axes), None)
    for name, array in trial.outputs.items():
        shape, other_shape = tuple(array.shape), tuple(getattr(outputs.get(name), "shape", ()))
        kept = len(shape) == len(other_shape) and not (rows and shape[:1] == rows[:1] and other_shape[0] != rows[1])
        if not kept and not alone:
            raise InvalidInput(f"other lengths give {name!r} as {list(other_shape)}, not {list(shape)}")
    return Signature(
        tuple(
            TensorSpec(n, dtype_of(a), tuple(free.get(n, {}).get(at, size) for at, size in enumerate(a.shape)))
            for n, a in trial.example.items()
        ),
        tuple(
            TensorSpec(n, dtype_of(a), _output_axes(a.shape, getattr(outputs.get(n), "shape", None), pairs))
            for n, a in trial.outputs.items()
        ),
    )


def resized(array: Any, axis: int, size: int) -> Any:
    """The array with another length along an axis: its entries again and again, so that their values stay valid."""
    import numpy as np

    if not hasattr(array, "detach"):
        return np.take(np.asarray(array), np.arange(size) % array.shape[axis], axis)
    return array[(slice(None),) * axis + ([number % array.shape[axis] for number in range(size)],)]


def from_shapes(trial: Trial, shapes: Mapping[str, Any]) -> Signature:
    """The signature of a method from the shapes that a serializer found while it saved: `inputs` and `outputs`, name →
    axes, and perhaps `why` some are not free."""

    def specs(arrays: Mapping[str, Any], axes: Mapping[str, Sequence[Axis]]) -> tuple[TensorSpec, ...]:
        return tuple(evolve(spec, shape=tuple(axes.get(spec.name, spec.shape))) for spec in _fixed(arrays))

    inputs, outputs = (specs(a, shapes[kind]) for kind, a in (("inputs", trial.example), ("outputs", trial.outputs)))
    return Signature(inputs, outputs, str(shapes.get("why") or ""))


def frozen(trial: Trial, signature: Signature) -> Iterator[tuple[str, int]]:
    """The axes that should be free and are not, as input and axis: those that were declared, and the first one, where
    all inputs share it."""
    rows = {name: {0: BATCH} for name, array in trial.example.items() if array.ndim and shared_rows(trial.example)}
    wanted = _joined(rows, trial.axes)
    for spec in signature.inputs:
        for at in sorted(wanted.get(spec.name, {})):
            if isinstance(spec.shape[at], int):
                yield spec.name, at


def check_axes(axes: Any, arrays: Mapping[str, Any]) -> Free:
    """What a caller declares of one entry point's inputs, as input → axis → name or None. An array in place of the axes
    is a second example: the axes along which it differs are free. Raises `InvalidInput`."""
    found: Free = {}
    for name, given in axes.items():
        array = arrays[name]
        if hasattr(given, "shape"):
            pairs = list(zip(array.shape, given.shape, strict=False))
            if len(given.shape) != array.ndim:
                raise InvalidInput(f"the second example of {name!r} has {len(given.shape)} axes, not {array.ndim}")
            given = {at: None for at, (size, other) in enumerate(pairs) if size != other}
        if not isinstance(given, Mapping):
            raise InvalidInput(
                f"the axes of {name!r} are {an(type(given).__name__)}",
                hint=f'axes={{{name!r}: {{0: "batch"}}}}, or an array of other lengths',
            )
        for at, axis in given.items():
            if type(at) is not int or not -array.ndim <= at < array.ndim:
                raise InvalidInput(f"{name!r} has no axis {at!r}", hint=f"it has {array.ndim} axes, from 0")
            called = None if axis is None else check_component(axis, "name of an axis")
            found.setdefault(name, {})[at % array.ndim] = called
    return found


def declared(axes: Mapping[str, Any], entry: str, names: Sequence[str]) -> dict[str, Any]:
    """The declared axes that are for an entry point: those of its inputs, or those under its own name."""
    own = axes.get(entry)
    if isinstance(own, Mapping) and own and all(isinstance(key, str) for key in own):
        for name in own:
            if name not in names:
                hint = nearest(name, names) or f"inputs: {', '.join(names)}"
                raise InvalidInput(f"axes tells of {name!r}, which is no input of {entry!r}", hint=hint)
        return dict(own)
    return {name: axes[name] for name in names if name in axes}
