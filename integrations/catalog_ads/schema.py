"""`input_schema.json` and `output_schema.json`, version 1.1: a row for each tensor, as far as ADS can say it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalog_ads.archive import read_json
from catalog_core.errors import SerializationError
from catalog_core.records import TensorSpec

VERSION = "1.1"
INPUT = "input_schema.json"
OUTPUT = "output_schema.json"
MAX_BYTES = 32_000
MAX_COLUMNS = 2_000
_KINDS = {"f": "Continuous", "i": "Integer", "u": "Integer", "b": "Boolean"}
_NAMED = {"float16", "float32", "float64", "bool", *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64))}


def schema_of(specs: Sequence[TensorSpec]) -> dict[str, Any]:
    """The schema of tensors. One that would be over ADS's limits (2,000 rows, 32,000 bytes) is left empty:
    `catalog_model.json` describes the tensors in full."""
    rows = [_row(spec, number) for number, spec in enumerate(specs)]
    whole = {"version": VERSION, "schema": rows}
    if len(rows) > MAX_COLUMNS or len(json.dumps(whole, indent=1).encode()) > MAX_BYTES - 100:
        whole["schema"] = []
    return whole


def _row(spec: TensorSpec, number: int) -> dict[str, Any]:
    known = spec.dtype in _NAMED
    sizes = ", ".join("?" if size is None else str(size) for size in spec.shape)
    ends = ((">=", spec.minimum), ("<=", spec.maximum))
    limits = [f"($x {sign} {end:.17g})" for sign, end in ends if end is not None]
    unit = f" in {spec.unit}" if spec.unit else ""
    about = f"{spec.dtype}[{sizes}]{unit}" + (f": {spec.description}" if spec.description else "")
    return {
        "dtype": spec.dtype if known else "object",
        "feature_type": _KINDS[spec.dtype[0]] if known else "Unknown",
        "name": spec.name,
        "domain": {
            "values": "",
            "stats": {},
            "constraints": [{"expression": " and ".join(limits), "language": "python"}] if limits else [],
        },
        "required": True,
        "description": about[:255],
        "order": number,
    }


def write_schema(path: Path, specs: Sequence[TensorSpec]) -> None:
    """Write the schema of tensors to a file."""
    path.write_text(json.dumps(schema_of(specs), indent=1) + "\n", encoding="utf-8")


def read_schema(path: Path) -> list[dict[str, Any]]:
    """The rows of a schema; none where there is no file. Raises `SerializationError`."""
    if not path.exists():
        return []
    told = read_json(path)
    rows = told.get("schema") if isinstance(told, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "name" in row for row in rows):
        raise SerializationError(f"{path.name} is no schema")
    return rows
