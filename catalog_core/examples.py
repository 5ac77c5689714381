"""Examples: the inputs of each entry point, as they are given and as they are stored.

Stored are arrays by key: `input:NAME` for what all entry points share, `input@ENTRY:NAME` for what one entry point got
alone, and `output:ENTRY:NAME`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from catalog_core.columns import Columns, check_unmasked, columns, is_frame, unpacked
from catalog_core.errors import InvalidInput
from catalog_core.names import nearest
from catalog_core.outputs import odd
from catalog_core.records import EntryPoint, TensorSpec
from catalog_core.shown import an, counted

Steps = tuple[str, ...]
Names = Callable[[str], list[str]]  # the inputs of a step; none where they are not known


def by_entry(
    example: Any, entries: Mapping[str, Steps], names: Names, columns_of: Callable[[str, list[str]], bool]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The inputs that all entry points share, and those of one alone. `columns_of` says whether a step was fitted on a
    data frame of these columns: then arrays of such names are its columns."""
    if example is None:
        return {}, {}
    if isinstance(example, Mapping) and _names_entries(example, entries, names):
        own = {}
        for name, given in example.items():
            if name not in entries:
                hint = nearest(str(name), entries) or f"entry points: {', '.join(entries)}"
                raise InvalidInput(f"the example is by entry point, and {name!r} is none", hint=hint)
            own[name] = _named(given, {name: entries[name]}, names, columns_of)
        return {}, own
    return _named(example, entries, names, columns_of), {}


def _names_entries(example: Mapping[Any, Any], entries: Mapping[str, Steps], names: Names) -> bool:
    """Whether an example is by entry point: one of its values is a mapping, or its keys are entry points and no
    inputs."""
    if not any(name in entries for name in example):
        return False
    if any(isinstance(given, (Mapping, tuple)) for name, given in example.items() if name in entries):
        return True
    if not set(example) <= set(entries):
        return False
    taken = [names(entries[name][0]) for name in example]
    return all(inputs and not set(inputs) & set(example) for inputs in taken)


def _named(
    example: Any, entries: Mapping[str, Steps], names: Names, columns_of: Callable[[str, list[str]], bool]
) -> dict[str, Any]:
    """The arrays of an example by name; those by position under the names of the first entry point's inputs."""
    frame = next(iter(example.values())) if isinstance(example, Mapping) and len(example) == 1 else example
    if is_frame(frame):
        return columns(frame)
    if isinstance(example, Mapping):
        named = _arrays({str(key): value for key, value in example.items()})
        table = {name: value if hasattr(value, "dtype") else _column(value) for name, value in named.items()}
        flat = all(len(value.shape) == 1 for value in table.values())
        if entries and flat and columns_of(next(iter(entries.values()))[0], list(named)):
            return Columns(table)
        _check_names(named, entries, names)
        return named
    several = isinstance(example, tuple) or (isinstance(example, list) and any(hasattr(v, "shape") for v in example))
    values = list(example) if several else [example]
    if not values:
        raise InvalidInput("the example holds no arrays", hint="leave it out, or give the arrays of one call")
    wanted = names(next(iter(entries.values()))[0]) if entries else []
    if wanted and len(wanted) < len(values):
        first = next(iter(entries))
        raise InvalidInput(f"the example has {counted(len(values), 'array')}, and {first!r} takes {', '.join(wanted)}")
    if not wanted:
        wanted = ["input"] if len(values) == 1 else [f"input_{number}" for number in range(len(values))]
    return _arrays(dict(zip(wanted, values, strict=False)))


def _check_names(named: Mapping[str, Any], entries: Mapping[str, Steps], names: Names) -> None:
    wanted = {name: names(steps[0]) for name, steps in entries.items()}
    known = [name for inputs in wanted.values() for name in inputs]
    odd = next((name for name in named if name not in known), None)
    if any(name in known for name in named) and odd is not None and all(wanted.values()):
        takes = "; ".join(f"{name!r} takes {', '.join(inputs)}" for name, inputs in wanted.items())
        raise InvalidInput(f"the example names {odd!r}, which nothing takes: {takes}", hint=nearest(odd, known))
    if wanted and not any(set(inputs or named) & set(named) for inputs in wanted.values()):
        takes = "; ".join(f"{name!r} takes {', '.join(inputs)}" for name, inputs in wanted.items())
        raise InvalidInput(
            f"the example names {', '.join(named)}; {takes}",
            hint="name the example's arrays as the method's parameters",
        )


def _arrays(example: dict[str, Any]) -> dict[str, Any]:
    """The example, each of whose values is one array, or numbers that make one. Raises `InvalidInput`."""
    for name, value in example.items():
        strange = odd(value)
        if strange is not None:
            raise InvalidInput(f"the example's {name!r} is {strange[0]}", hint=f"a dense array: {strange[1]}")
        parts = isinstance(value, (tuple, list)) and any(hasattr(part, "shape") for part in value)
        if value is None or parts or isinstance(value, (Mapping, str, bytes)):
            kind = type(value).__name__
            raise InvalidInput(
                f"the example's {name!r} is {an(kind)}{' of arrays' if parts else ''}, not an array",
                hint="the inputs of an entry point are arrays, each with a name of its own; networks whose inputs have "
                'one name take example={"entry point": {"input": array}, …}',
            )
        check_unmasked(f"the example's {name!r}", value)
    return {name: _texts(name, value) for name, value in example.items()}


def _column(value: Any) -> Any:
    import numpy as np

    return np.asarray(value)


def _texts(name: str, value: Any) -> Any:
    """Texts, of any shape, as an array of objects, which is stored like a column of a data frame; anything else as it
    is. Raises `InvalidInput` for an array of bytes."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "S":
        raise InvalidInput(
            f"the example's {name!r} is an array of bytes ({value.dtype})", hint="texts: array.astype(str)"
        )
    first = value
    while isinstance(first, list) and first:
        first = first[0]
    if kind not in ("U", "T") and (first is value or not isinstance(first, str)):
        return value
    import numpy as np

    try:
        found = np.asarray(value, object)
    except ValueError:  # rows of several lengths
        return value
    return found if all(isinstance(item, str) for item in found.reshape(-1).tolist()) else value


def read(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """A stored example: the inputs that entry points share, those of one alone, and the outputs by entry point."""
    shared: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    outputs: dict[str, dict[str, Any]] = {}
    for key, array in unpacked(arrays).items():
        kind, _, rest = key.partition(":")
        if kind == "input":
            shared[rest] = array
        elif kind.startswith("input@"):
            own.setdefault(kind.removeprefix("input@"), {})[rest] = array
        else:
            entry, _, name = rest.partition(":")
            outputs.setdefault(entry, {})[name] = array
    return shared, own, outputs


def inputs_of(point: EntryPoint, shared: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The stored inputs of one entry point; empty where the example is not for it."""
    given = own.get(point.name, shared)
    wanted = [spec.name for spec in point.inputs]
    return {name: given[name] for name in wanted} if wanted and set(wanted) <= set(given) else {}


def by_dots(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by input, or by entry point and input, as `input` and `entry.input`."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        found |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, Mapping) else {name: value}
    return found


def specs_by_name(points: Sequence[EntryPoint]) -> Iterator[tuple[str, TensorSpec]]:
    """Every input and output under its name, and under `entry.name`."""
    for point in points:
        for spec in (*point.inputs, *point.outputs):
            yield spec.name, spec
            yield f"{point.name}.{spec.name}", spec
