"""What a model takes, as another program tells it: its example, or else zeros by its signature. It is run once, so that
the entry point knows names, dtypes and shapes, and `catalog verify` has something to run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core.errors import SerializationError
from catalog_doors.look import small

if TYPE_CHECKING:
    from catalog_doors.files import Found

DTYPES = frozenset(
    ["bool", "float16", "float32", "float64"] + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
FREE = 2  # the length of an axis that may have any
MAX_NUMBERS = 1 << 22  # of all inputs
MAX_JSON = 16 << 20


@attrs.frozen
class Tensor:
    """An input that a program declares; None stands for a name that it did not give, and for an axis of any length."""

    name: str | None
    dtype: str
    shape: tuple[int | None, ...]


def zeros(found: Found, tensors: Sequence[Tensor]) -> None:
    """Let the version have an example of zeros, where the model can run and all of its inputs are numbers."""
    import numpy as np

    shapes = [tuple(FREE if size is None else size for size in tensor.shape) for tensor in tensors]
    known = all(tensor.dtype in DTYPES and len(tensor.shape) < 32 for tensor in tensors)
    if (
        not known
        or not 0 < sum(math.prod(shape) for shape in shapes) <= MAX_NUMBERS
        or "entry_points" not in found.about
    ):
        return
    _give(found, tensors, [np.zeros(shape, tensor.dtype) for shape, tensor in zip(shapes, tensors, strict=True)])
    found.about["baseline"] = {}  # zeros are no statistics
    found.notes.append("its example is of zeros, by the signature")


def read(found: Found, path: Path, tensors: Sequence[Tensor]) -> bool:
    """Let the version have the example of a JSON file (a table by columns and rows, or arrays as TensorFlow Serving
    takes them), with the dtypes of the tensors. False where there is none of numbers."""
    import numpy as np

    if not DTYPES.issuperset(tensor.dtype for tensor in tensors):
        return False
    try:
        value = _values(json.loads(small(path, MAX_JSON)))
        named = isinstance(value, dict)
        kinds = {tensor.name: tensor.dtype for tensor in tensors}
        if not named and len(set(kinds.values())) > 1:  # columns of several types, in one array
            kinds = {None: str(np.result_type(*kinds.values()))}
        elif not named and tensors:
            kinds = {None: tensors[0].dtype}
        given = value if named else {None: value}
        arrays = [np.asarray(item, kinds.get(name)) for name, item in given.items()]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, SerializationError):
        return False
    if "entry_points" not in found.about or not arrays or any(str(array.dtype) not in DTYPES for array in arrays):
        return False
    _give(found, [Tensor(name, "", ()) for name in given], arrays)
    return True


def _values(told: Any) -> Any:
    """An array as lists, or arrays by name, of what MLflow writes: a table, what a server takes, or the plain array."""
    if not isinstance(told, dict):
        return told
    told = told.get("dataframe_split", told)
    if "columns" in told and "data" in told:
        return told["data"]
    return next((told[key] for key in ("inputs", "instances") if key in told), told)


def _give(found: Found, tensors: Sequence[Tensor], arrays: list[Any]) -> None:
    names = [tensor.name for tensor in tensors if tensor.name is not None]
    whole = len(set(names)) == len(arrays)
    found.about["example"] = dict(zip(names, arrays, strict=True)) if whole else arrays


def columns(kinds: Sequence[str]) -> list[Tensor]:
    """Columns of a table as the one array that a model takes of them."""
    import numpy as np

    if not kinds or not DTYPES.issuperset(kinds):
        return []
    return [Tensor(None, str(np.result_type(*kinds)), (None, len(kinds)))]


def shape(sizes: Any) -> tuple[int | None, ...] | None:
    """A shape of whole numbers, of which -1 is an axis of any length; None for anything else."""
    if not isinstance(sizes, list) or not all(type(size) is int and size >= -1 for size in sizes):
        return None
    return tuple(None if size == -1 else size for size in sizes)
