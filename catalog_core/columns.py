"""Data frames as inputs: a column is an input like others, with a name, a dtype and a free number of rows.

Text is an object array whose dtype is told as `string`, a pandas categorical as `category` with its list of categories.
What is stored of them are bytes and where each text ends: `text|KEY`, `ends|KEY`; of a table of objects also
`shape|KEY`, and of numbers among texts `kinds|KEY`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from catalog_core.digests import plain
from catalog_core.errors import InvalidInput, MissingPlugin, SerializationError
from catalog_core.records import EntryPoint, TensorSpec
from catalog_core.shown import an

STRING, CATEGORY = "string", "category"


class Columns(dict[str, Any]):
    """The columns of one data frame: they go together to a method that takes one input."""


def is_frame(value: Any) -> bool:
    """Whether `value` is a data frame of pandas or polars; neither is imported."""
    kind = type(value)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] in ("pandas", "polars")


def check_unmasked(what: str, value: Any) -> None:
    """Raise `InvalidInput` for an array with a mask: a model takes the numbers, those that are masked too."""
    if hasattr(value, "mask") and hasattr(value, "filled"):
        raise InvalidInput(f"{what} has a mask, which would be lost", hint="its filled() array, and its mask beside it")


def columns(frame: Any) -> Columns:
    """The columns of a data frame by name. Raises `InvalidInput` for what is neither numbers, text nor categories."""
    import numpy as np

    found = Columns()
    names = list(frame.columns)
    for name in names:
        if not isinstance(name, str) or names.count(name) > 1 or not name:
            raise InvalidInput(f"a data frame has a column {name!r}; names are texts, each once")
        series = frame[name]
        if str(series.dtype) == CATEGORY:
            found[name] = series.array
            continue
        value = np.asarray(series.to_numpy())
        if value.dtype.kind in "OUT":
            # a model may tell None from NaN: they are two categories
            items = [np.nan if item is not None and _missing(item) else item for item in value.tolist()]
            value = np.array([*items, None], object)[:-1]
            odd = next((item for item in value if not _missing(item) and not isinstance(item, str)), None)
            if odd is not None:
                value = value.astype(np.float64) if _numbers(value) else value
        if value.dtype.kind not in "biufO" or (value.dtype.kind == "O" and not _texts(value)):
            raise InvalidInput(
                f"column {name!r} is {series.dtype}: neither numbers, text nor categories",
                hint="convert it first, say with astype",
            )
        found[name] = value
    return found


def _missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def _numbers(values: Any) -> bool:
    return all(_missing(item) or (isinstance(item, (int, float)) and not isinstance(item, bool)) for item in values)


def _texts(values: Any) -> bool:
    return all(_missing(item) or isinstance(item, str) for item in values)


def dtype_of(value: Any) -> str:
    """The name of an array's dtype, as NumPy and torch have it; `string` for text."""
    name = str(getattr(value.dtype, "name", value.dtype)).removeprefix("torch.")
    return STRING if name == "object" or name.startswith("str") else name


def specs(values: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """Columns as inputs, with any number of rows."""
    return tuple(
        TensorSpec(
            name, dtype_of(value), ("batch",),
            categories=tuple(_plain(item) for item in value.categories) if dtype_of(value) == CATEGORY else None,
        )
        for name, value in values.items()
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def spread(
    point: EntryPoint, inputs: Mapping[str, Any], in_order: Callable[[Sequence[str]], Sequence[str] | None]
) -> dict[str, Any]:
    """The inputs of an entry point, of which one may be a data frame: its columns where it takes columns, else its
    numbers, its columns brought `in_order`. Lists, texts and categories become arrays of the dtype that the entry point
    tells, and columns of numbers too where that loses nothing: pandas makes its own choice of dtypes."""
    import numpy as np

    found: dict[str, Any] = {}
    known = {spec.name: spec for spec in point.inputs}
    for name, value in inputs.items():
        if not is_frame(value):
            found[name] = value
        elif name not in known or set(value.columns) & set(known):
            found.update({key: _widened(column, known.get(key)) for key, column in columns(value).items()})
        else:
            names = [str(column) for column in value.columns]
            table = value[list(in_order(names) or names)] if names == list(value.columns) else value
            found[name] = _widened(table.to_numpy(), known[name])
    for name, value in found.items():
        spec = known.get(name)
        if spec is not None and spec.dtype == STRING and dtype_of(np.asarray(value)) == STRING:
            found[name] = np.asarray(value, object)
        elif spec is not None and spec.dtype == CATEGORY and not hasattr(value, "categories"):
            found[name] = _categorical(value, spec)
        elif spec is not None and isinstance(value, (list, tuple, int, float)):
            found[name] = _of_numbers(value, spec)
    return found


def _widened(value: Any, spec: TensorSpec | None) -> Any:
    """Numbers in the dtype that is asked for, where NumPy has it and each of them is kept."""
    import numpy as np

    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if spec is None or kind not in ("b", "i", "u", "f") or not hasattr(np, spec.dtype):
        return value
    return value.astype(spec.dtype) if np.can_cast(value.dtype, spec.dtype, "safe") else value


def _of_numbers(value: Any, spec: TensorSpec) -> Any:
    """Python's numbers as an array of the dtype that is asked for; as it was given where it is none, or where a
    fraction would be lost."""
    import numpy as np

    try:
        array = np.asarray(value)
        wanted = np.dtype(spec.dtype)
    except (TypeError, ValueError):
        return value
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and wanted.kind != "f"):
        return value
    cast = array.astype(wanted)
    return cast if wanted.kind == "f" or np.array_equal(cast, array) else value


def _categorical(value: Any, spec: TensorSpec) -> Any:
    try:
        import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as exc:
        raise MissingPlugin(
            f"{spec.name!r} is a column of categories, which are pandas'", hint="pip install pandas"
        ) from exc
    known = set(spec.categories or ())
    unknown = next((item for item in value if not _missing(item) and _plain(item) not in known), None)
    if unknown is not None:
        raise InvalidInput(
            f"{spec.name!r} has no category {unknown!r}",
            hint=f"it has {', '.join(map(str, spec.categories or ()))}"[:300],
        )
    return pd.Categorical(value, categories=list(spec.categories or ()))


def frame_of(values: Mapping[str, Any]) -> Any:
    """A data frame of these columns: of pandas, else of polars. Raises `MissingPlugin` where neither is installed."""
    try:
        import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        try:
            import polars as pl  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError as exc:
            raise MissingPlugin("columns need pandas, which is not installed", hint="pip install pandas") from exc
        return pl.DataFrame({name: list(value) for name, value in values.items()})
    # as they are: pandas would guess another dtype for texts, and make NaN of None
    return pd.DataFrame({name: pd.Series(value, dtype=getattr(value, "dtype", None)) for name, value in values.items()})


def packed(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays as they can be stored: texts as bytes, and where each ends; -1 stands for NaN, -2 for None. What is not a
    row has its `shape|KEY`, numbers and booleans among the texts their `kinds|KEY`. Raises `SerializationError`."""
    import numpy as np

    found: dict[str, Any] = {}
    for key, value in arrays.items():
        if getattr(value, "dtype", None) is None or str(value.dtype) != "object":
            found[key] = value
            continue
        items = [plain(item) for item in value.reshape(-1).tolist()]
        texts = [None if _missing(item) else _text(key, item) for item in items]
        kinds = [0 if text is None else _KINDS.index(type(item)) for item, text in zip(items, texts, strict=True)]
        if any(kinds):
            found[f"kinds|{key}"] = np.array(kinds, np.uint8)
        if value.ndim != 1:
            found[f"shape|{key}"] = np.array(value.shape, np.int64)
        ends = np.cumsum([0 if text is None else len(text) for text in texts], dtype=np.int64)
        found[f"text|{key}"] = np.frombuffer(b"".join(text or b"" for text in texts), np.uint8)
        lacking = np.array([-2 if item is None else -1 for item in value.reshape(-1)], np.int64)
        found[f"ends|{key}"] = np.where([text is None for text in texts], lacking, ends)
    return found


_KINDS = (str, int, float, bool)


def _text(key: str, item: Any) -> bytes:
    try:
        if type(item) not in _KINDS:
            raise ValueError(f"{an(type(item).__name__)} is among its texts")
        return str(item).encode()
    except ValueError as exc:  # half a surrogate pair, and an integer of very many digits
        raise SerializationError(f"{key!r} cannot be stored: {exc}", hint="texts, numbers, booleans and None") from exc


def unpacked(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What `packed` was given."""
    import numpy as np

    found: dict[str, Any] = {}
    lacking = {-1: np.nan, -2: None}
    for key, value in arrays.items():
        kind, mark, rest = key.partition("|")
        if not mark or kind not in ("text", "ends", "kinds", "shape"):
            found[key] = value
        elif kind == "text":
            data, texts, start = bytes(np.asarray(value)), [], 0
            for end in np.asarray(arrays[f"ends|{rest}"]).tolist():
                texts.append(lacking.get(end) if end < 0 else data[start:end].decode())
                start = max(start, end)
            kinds = np.asarray(arrays.get(f"kinds|{rest}", [0] * len(texts))).tolist()
            items = [_item(text, kind) for text, kind in zip(texts, kinds, strict=True)]
            shape = np.asarray(arrays.get(f"shape|{rest}", [len(items)])).tolist()
            found[rest] = np.array([*items, None], object)[:-1].reshape(shape)
    return found


def _item(text: Any, kind: int) -> Any:
    if not kind or not isinstance(text, str):
        return text
    return text == "True" if _KINDS[kind] is bool else _KINDS[kind](text)
