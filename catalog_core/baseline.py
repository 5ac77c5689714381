"""What inputs and weights looked like when a version was made, to be held against later ones: plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from catalog_core.errors import InvalidInput
from catalog_core.records import TensorSpec
from catalog_core.session import to_numpy

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS = 20


def statistics(values: Any) -> dict[str, Any] | None:
    """Of all numbers of an array: `count`, `nan`, `inf`; of the finite ones `mean`, `std`, `min`, `max`, `quantiles`
    (level → value) and `histogram` (`edges`, one more than `counts`), in float64. None for what is no real number."""
    import numpy as np

    plain = to_numpy(values.compressed() if hasattr(values, "compressed") else values)  # not what a mask hides
    array = np.asarray(plain.float() if hasattr(plain, "detach") else plain)  # torch's own small floats
    if array.dtype.kind not in "fiub" and "float" in array.dtype.name:
        array = array.astype(np.float32)  # those of ml_dtypes
    if array.dtype.kind not in "fiub":
        return None
    flat = array.reshape(-1)
    found: dict[str, Any] = {"count": int(flat.size), "nan": 0, "inf": 0}
    if array.dtype.kind == "f":
        found["nan"], found["inf"] = int(np.isnan(flat).sum()), int(np.isinf(flat).sum())
        if found["nan"] or found["inf"]:
            flat = flat[np.isfinite(flat)]
    if not flat.size:
        return found
    flat = flat.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        found |= {
            "mean": float(flat.mean()),
            "std": float(flat.std()),
            "min": float(flat.min()),
            "max": float(flat.max()),
        }
        levels = np.quantile(flat, QUANTILES)
    found["quantiles"] = {str(level): float(value) for level, value in zip(QUANTILES, levels, strict=True)}
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            counts, edges = np.histogram(flat, bins=BINS)
        found["histogram"] = {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]}
    except ValueError:  # the range is too large, or too small, for so many bins
        pass
    return {key: value for key, value in found.items() if np.isfinite(_numbers(value)).all()}


def _numbers(value: Any) -> list[float]:
    if isinstance(value, Mapping):
        return [number for item in value.values() for number in _numbers(item)]
    return value if isinstance(value, list) else [value]


def check(values: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> None:
    """Raise `InvalidInput` for an array that the input of its name could not be: another kind of values, or axes."""
    import numpy as np

    for name, value in values.items():
        spec = specs.get(name)
        if spec is None or not hasattr(value, "shape"):
            continue
        array = value if hasattr(value, "dtype") else np.asarray(value)
        kind = str(getattr(array.dtype, "kind", "f"))
        numbers = spec.dtype not in ("string", "category", "object")
        fits = len(array.shape) == len(spec.shape) and all(
            size == wanted for size, wanted in zip(array.shape, spec.shape, strict=False) if isinstance(wanted, int)
        )
        if not fits or (numbers and kind in "OUSMm"):
            shown = ", ".join("?" if axis is None else str(axis) for axis in spec.shape)
            raise InvalidInput(
                f"the baseline of {name!r} is {array.dtype}{list(array.shape)}; the input is {spec.dtype}[{shown}]",
                hint="give values of the same kind, any number of rows",
            )


def of_inputs(values: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The statistics of each input. Raises `InvalidInput` for one that no entry point has."""
    names = list(known)
    for name in values:
        if names and name not in names:
            raise InvalidInput(f"the baseline names {name!r}, which is no input", hint=f"inputs: {', '.join(names)}")
    found = {}
    for name, value in values.items():
        try:
            found[name] = statistics(value)
        except (TypeError, ValueError, RuntimeError) as exc:  # of NumPy or torch: lists of several lengths, sparse ones
            why = " ".join(str(exc).split())
            raise InvalidInput(f"the baseline of {name!r} is no array of numbers: {why}") from exc
    return found


def short(found: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics without their lists."""
    return {key: value for key, value in found.items() if key not in ("histogram", "quantiles")}
