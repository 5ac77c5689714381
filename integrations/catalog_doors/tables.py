"""Input examples that are tables: columns with names and types, text among them, for what takes columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog_core.columns import STRING, frame_of
from catalog_core.errors import CatalogError, SerializationError
from catalog_doors.example import FREE, MAX_JSON, MAX_NUMBERS
from catalog_doors.files import Found
from catalog_doors.look import small


def read(found: Found, path: Path | None, kinds: Mapping[str, str], name: str = "model") -> bool:
    """Let the version have the table of a JSON file (by columns and rows) as its example; without a file, zeros and
    empty texts by `kinds`, the types of the columns. False where it is no table, or one of numbers that an array can
    hold as well, for an object that knows no columns; then nothing was done."""
    if "entry_points" not in found.about or name not in found.objects:
        return False
    obj = found.objects[name]
    graph = type(obj).__module__.partition(".")[0] == "catalog_onnx"
    try:
        table = _table(path, kinds) if path is not None else _zeros(kinds)
        if not table:
            return False
        if graph:
            found.about["example"] = _fed(obj, table)
        elif any(str(value.dtype) == "object" for value in table.values()) or _fitted_on(obj) == set(table):
            found.about["example"] = frame_of(table)
        else:
            return False
    except (CatalogError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as exc:
        said = exc.message if isinstance(exc, CatalogError) else str(exc)
        found.notes.append(f"its table is no example: {' '.join(said.split())[:200]}")
        return False
    if path is None:
        found.about["baseline"] = {}  # zeros are no statistics
        found.notes.append("its example is of zeros and empty texts, by the signature")
    return True


def _fitted_on(obj: Any) -> set[str]:
    """The columns of the data frame that an estimator was fitted on; none of another object."""
    return {str(name) for name in getattr(obj, "feature_names_in_", ())}


def _table(path: Path, kinds: Mapping[str, str]) -> dict[str, Any]:
    """The columns of a JSON file, each of its type; empty where it holds no table."""
    try:
        told = json.loads(small(path, MAX_JSON))
    except ValueError:
        return {}
    told = told.get("dataframe_split", told) if isinstance(told, dict) else {}
    names, rows = (told.get("columns"), told.get("data")) if isinstance(told, dict) else (None, None)
    if not isinstance(names, list) or not isinstance(rows, list) or not all(isinstance(name, str) for name in names):
        return {}
    if len(set(names)) < len(names) or any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise SerializationError("its rows do not fit its columns")
    return {key: _column(key, [row[at] for row in rows], kinds.get(key)) for at, key in enumerate(names)}


def _column(name: str, values: list[Any], kind: str | None) -> Any:
    import numpy as np

    texts = all(value is None or isinstance(value, str) for value in values)
    if kind == STRING or (kind is None and texts):
        if not texts:
            raise SerializationError(f"column {name!r} is told to be text, and is not")
        return np.array([*values, None], object)[:-1]
    return np.asarray(values, kind)


def _zeros(kinds: Mapping[str, str]) -> dict[str, Any]:
    import numpy as np

    if len(kinds) * FREE > MAX_NUMBERS:
        return {}
    empty = np.array([""] * FREE, object)
    return {key: empty if kind == STRING else np.zeros(FREE, kind) for key, kind in kinds.items()}


def _fed(graph: Any, table: Mapping[str, Any]) -> dict[str, Any]:
    """What a graph takes of a table: each input its column, or its only input all of them, in the graph's dtypes."""
    import numpy as np

    inputs = graph.inputs
    if len(inputs) == 1 and inputs[0].name not in table:
        return {inputs[0].name: np.stack([np.asarray(value) for value in table.values()], 1).astype(_dtype(inputs[0]))}
    missing = [spec.name for spec in inputs if spec.name not in table]
    if missing:
        raise SerializationError(f"the graph takes {missing[0]!r}, which is no column")
    found = {}
    for spec in inputs:
        value = table[spec.name].astype(_dtype(spec))
        found[spec.name] = value.reshape(-1, 1) if len(spec.shape) == 2 else value
    return found


def _dtype(spec: Any) -> str:
    return "object" if spec.dtype == STRING else str(spec.dtype)
