"""Data frames as inputs: a column is an input like others, with a name, a dtype and a free number of rows.

Text is an object array whose dtype is told as `string`, a pandas categorical as `category` with its list of categories.
What is stored of them are bytes and where each text ends: `text|KEY`, `ends|KEY`; of a table of objects also
`shape|KEY`, and of numbers among texts `kinds|KEY`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from catalog_core.digests import plain
from catalog_core.errors import InvalidInput, MissingPlugin, SerializationError
from catalog_core.records import EntryPoint, TensorSpec
from catalog_core.shown import an

STRING, CATEGORY = "string", "category"
_NUMERIC = ("int", "uint", "float", "double")  # how the names of dtypes begin that pandas and polars have for numbers


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
    """The columns of a data frame by name. Its index is left out. Raises `InvalidInput` for what is neither numbers,
    text nor categories, and for numbers that would become others."""
    found = Columns()
    names = list(frame.columns)
    for name in names:
        if not isinstance(name, str) or names.count(name) > 1 or not name:
            raise _misnamed(name)
        found[name] = _column(name, frame[name])
    if not found:
        raise InvalidInput("a data frame has no columns", hint="give the columns that the model was fitted on")
    return found


def _misnamed(name: Any) -> InvalidInput:
    what, hint = "twice", "rename one of them"
    if name == "":
        what, hint = "without a name", "rename it"
    elif isinstance(name, tuple):
        what, hint = "of several levels", "df.columns = ['_'.join(map(str, levels)) for levels in df.columns]"
    elif not isinstance(name, str):
        what, hint = f"of the type {type(name).__name__}", "df.columns = df.columns.map(str)"
    return InvalidInput(f"a data frame has a column {name!r} {what}; names are texts, each once", hint=hint)


def _column(name: str, series: Any) -> Any:
    """One column as an array of numbers or texts, or as categories. Raises `InvalidInput`."""
    import numpy as np

    if str(series.dtype) == CATEGORY:
        return _categories(name, series.array)
    value = np.asarray(series.to_numpy())
    if value.ndim != 1:
        raise _strange(name, series, [])
    if value.dtype.kind in "OUT":
        # a model may tell None from NaN: they are two categories
        items = [np.nan if item is not None and _missing(item) else _plain(item) for item in value.tolist()]
        present = [item for item in items if not _missing(item)]
        numeric = str(series.dtype).lower().startswith(_NUMERIC)
        if _all(present, str) and not (numeric and not present):
            return np.array([*items, None], object)[:-1]
        if _all(present, bool) and len(present) == len(items):
            return np.array(items, bool)
        if _all(present, (int, float)) and not any(isinstance(item, bool) for item in present):
            _check_exact(name, present)
            return np.array([np.nan if _missing(item) else item for item in items], np.float64)
        raise _strange(name, series, present)
    if value.dtype.kind == "f" and str(series.dtype).lower().startswith(_NUMERIC[:2]):  # polars, with nulls
        _check_exact(name, [item for item in series.to_list() if item is not None])
    if value.dtype.kind not in "biuf":
        raise _strange(name, series, [])
    return value


def _all(items: Iterable[Any], kinds: Any) -> bool:
    return all(isinstance(item, kinds) for item in items)


def _check_exact(name: str, numbers: Iterable[Any]) -> None:
    for number in numbers:
        if isinstance(number, int) and (abs(number) >= 1 << 1023 or int(float(number)) != number):
            raise InvalidInput(
                f"column {name!r} has {number}, and no float64 is that number",
                hint="missing values, or an example with fractions, make a column float64: fill them, as integers",
            )


def _strange(name: str, series: Any, present: Sequence[Any]) -> InvalidInput:
    """What is wrong with a column that is neither numbers, text nor categories."""
    kinds = list(dict.fromkeys(type(item).__name__ for item in present))
    dtype = str(series.dtype)
    if kinds == ["bool"]:
        return InvalidInput(
            f"column {name!r} is {dtype} with missing values, which no array of bool holds",
            hint="fill them, or astype('float64') for 0, 1 and NaN",
        )
    if any(part in f"{dtype} {kinds}".lower() for part in ("date", "time", "duration", "period")):
        hint = "numbers, say seconds: (t - t0).dt.total_seconds()"
    elif len(kinds) > 1:
        hint = "one type for all: astype(str), or pd.to_numeric"
    else:
        hint = "convert it first, say with astype"
    told = f"{dtype} of {' and '.join(kinds[:3])}" if kinds else dtype
    return InvalidInput(f"column {name!r} is {told}: neither numbers, text nor categories", hint=hint)


def _categories(name: str, value: Any) -> Any:
    """A categorical whose categories are texts, numbers or bools. Raises `InvalidInput`."""
    odd = next((item for item in map(_plain, value.categories) if not isinstance(item, (str, int, float))), None)
    if odd is not None:
        raise InvalidInput(
            f"column {name!r} has categories of {type(odd).__name__}; they are texts, numbers or bools",
            hint="cat.rename_categories(str)",
        )
    return value


def _missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, Real) and value != value


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
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


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
        elif spec is not None and spec.dtype == CATEGORY:
            told = [_plain(item) for item in getattr(value, "categories", ())]
            found[name] = value if told == list(spec.categories or ()) and told else _categorical(value, spec)
        elif spec is not None and isinstance(value, (list, tuple, int, float)):
            found[name] = _of_numbers(value, spec)
    return found


def _widened(value: Any, spec: TensorSpec | None) -> Any:
    """Numbers in the dtype that is asked for, where NumPy has it and each of them is kept. Raises `InvalidInput` for
    missing ones among integers."""
    import numpy as np

    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if spec is None or kind not in ("b", "i", "u", "f") or not hasattr(np, spec.dtype):
        return value
    if kind == "f" and np.dtype(spec.dtype).kind in "iub" and np.isnan(value).any():
        raise InvalidInput(
            f"column {spec.name!r} has missing values, and {spec.dtype} has none",
            hint="fill them; a model that takes them is saved with an example that has some",
        )
    if value.dtype.itemsize == 8 and kind in "iu" and spec.dtype == "float64":
        _check_exact(spec.name, value[np.abs(value) > 1 << 53].tolist())  # NumPy calls that safe
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
