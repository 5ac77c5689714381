"""Inputs of a model in files, as `catalog save --example` reads them. Nothing in them is run or unpickled."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from catalog_core import folders
from catalog_core.errors import InvalidInput
from catalog_core.shown import an

MOST = 256 << 20  # bytes of a file, and of the arrays in it
HINT = ".npz: an array for each input; .npy: one array; .json: input → numbers; .csv: columns with a header"


def read(path: Path) -> Any:
    """The example in a file, as `Catalog.save(example=…)` takes it: input → array, or one array. Numbers of a text
    file are float64 or int64; `{"dtype": "float32", "values": [[0.5]]}` in JSON is an array of another type. Raises
    `InvalidInput`, which names the file."""
    kind = path.suffix.lower()
    reader = {".npz": _npz, ".npy": _npy, ".json": _json, ".csv": _csv}.get(kind)
    if reader is None:
        raise InvalidInput(f"the example {path} is of no kind that is read: {kind or 'it has no suffix'}", hint=HINT)
    data = folders.content(path, MOST, "the example")
    try:
        return reader(data)
    except InvalidInput as exc:
        raise InvalidInput(f"the example {path} cannot be read: {exc.message}", hint=HINT) from exc
    except (ValueError, KeyError, EOFError, OverflowError, TypeError, RecursionError, zipfile.BadZipFile) as exc:
        raise InvalidInput(f"the example {path} cannot be read: {exc}", hint=HINT) from exc


def _npy(data: bytes) -> Any:
    import numpy as np

    return np.load(io.BytesIO(data), allow_pickle=False)


def _npz(data: bytes) -> Any:
    import numpy as np

    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        size = sum(item.file_size for item in packed.infolist())
        if size > MOST:
            raise InvalidInput(f"its arrays take {size:,} bytes; {MOST:,} are allowed")
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _json(data: bytes) -> Any:
    told = json.loads(data.decode("utf-8-sig"))
    if isinstance(told, dict) and set(told) != {"dtype", "values"}:
        return {name: _array(name, value) for name, value in told.items()}
    return _array("it", told)


def _array(name: str, value: Any) -> Any:
    import numpy as np

    dtype = None
    if isinstance(value, dict) and set(value) == {"dtype", "values"}:
        dtype, value = value["dtype"], value["values"]
    if isinstance(value, dict):
        return {inner: _array(f"{name}.{inner}", each) for inner, each in value.items()}
    if not isinstance(value, (list, int, float)):
        raise InvalidInput(f"{name} is {an(type(value).__name__)}, not a list of numbers or texts")
    found = np.array(value, dtype=None if dtype is None else np.dtype(str(dtype)))
    if found.dtype.kind not in "fiubUc":
        raise InvalidInput(f"{name} is no array of numbers, booleans or texts")
    return found


def _csv(data: bytes) -> Any:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    if len(rows) < 2:
        raise InvalidInput("it has no rows below a header")
    header, rows = rows[0], [row for row in rows[1:] if row]
    if len(set(header)) < len(header) or not all(header):
        raise InvalidInput("its first line must name each column, and no two alike")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InvalidInput(f"row {number} has {len(row)} cells, and the header {len(header)}")
    return {name: _column([row[at] for row in rows]) for at, name in enumerate(header)}


def _column(cells: list[str]) -> Any:
    import numpy as np

    for kind in (np.int64, np.float64):
        try:
            return np.array([kind(cell) if cell else kind("nan") for cell in cells])
        except ValueError:
            continue
    return np.array(cells)
