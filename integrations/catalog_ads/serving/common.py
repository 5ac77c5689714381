"""score.py of a model from a catalog. It needs this folder, NumPy and the model's framework; nothing else.

`predict` takes the payload of ADS, {"data": …, "data_type": …}, or arrays by name: {"inputs": {name: array}, "entry":
name of an entry point, "encoding": "list" or "base64"}. An array is a nested list, the base64 of a .npy file, or
{"dtype": …, "shape": …, "data": base64 of its bytes}. The answer is {"prediction": …}.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
TENSOR = "__ads_torch_tensor__"
NPY = "k05VTVBZ"  # how the base64 of a .npy file begins


def check_files(folder: Path) -> dict[str, Any]:
    """The description of the model, after every file that runs was held against it. Files that only say something,
    such as test_json_output.json, runtime.yaml and the schemas, may change: tools rewrite them. Raises ValueError."""
    listed = folder / "model_artifact_manifest.json"
    described = folder / "catalog_model.json"
    if listed.is_file():
        files = json.loads(listed.read_text(encoding="utf-8")).get("files", {})
        if described.name in files:
            check_file(folder, described.name, files[described.name])
    if not described.is_file():
        raise ValueError(f"{described.name} is missing from the artifact")
    told: dict[str, Any] = json.loads(described.read_text(encoding="utf-8"))
    for name, wanted in told["files"].items():
        check_file(folder, name, wanted)
    return told


def check_file(folder: Path, name: str, wanted: Mapping[str, Any]) -> None:
    """Hold a file against its size and digest. Raises ValueError."""
    path, state, size = folder / name, hashlib.sha256(), 0
    if not path.is_file():
        raise ValueError(f"{name} is missing from the artifact")
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
            size += len(block)
    if (size, state.hexdigest()) != (wanted["size"], wanted["sha256"]):
        raise ValueError(f"{name} of the artifact is damaged")


class Model:
    """Components, ready to run, and the entry points over them."""

    def __init__(self, folder: Path, runners: Mapping[str, Any]) -> None:
        told = check_files(folder)
        self.default: str = told["default"]
        self.columns: list[str] = told.get("columns") or []  # of the data frame that became one array
        self.entries: dict[str, Any] = {entry["name"]: entry for entry in told["entry_points"]}
        self.inputs: dict[str, Any] = {part["name"]: part["inputs"] for part in told["components"]}
        self.components: dict[str, Any] = {
            part["name"]: runners[part["serializer"]](folder / part["folder"], part["meta"])
            for part in told["components"]
            if part["inputs"]
        }

    def entry(self, name: Any) -> dict[str, Any]:
        """An entry point by name, or the usual one. Raises ValueError."""
        if name is not None and name not in self.entries:
            raise ValueError(f"there is no entry point {name!r}; there are {', '.join(self.entries)}")
        found: dict[str, Any] = self.entries[self.default if name is None else name]
        return found

    def run(self, entry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of an entry point, arrays by name. Raises ValueError that names the tensor."""
        specs = {spec["name"]: spec for spec in entry["inputs"]}
        if specs and specs.keys() != given.keys():
            raise ValueError(f"{entry['name']} takes {', '.join(specs)}; got {', '.join(given) or 'nothing'}")
        values: dict[str, Any] = {}
        axes: dict[str, int] = {}
        for name in specs or given:
            values[name] = fitted(name, given[name], specs.get(name), axes)
        dtypes = {name: spec["dtype"] for name, spec in specs.items()}
        if self.takes_columns(entry):
            values = {"X": self.first(entry).frame(values, specs)}
        for step in entry["steps"]:
            component, _, method = step.partition(".")
            names = self.inputs[component].get(method or "forward")
            if names:
                same = {name: value for name, value in values.items() if name in names}
                values = same or dict(zip(names, values.values(), strict=False))
            values = self.components[component].call(method or "forward", values, dtypes)
            dtypes = {}
        return values

    def first(self, entry: Mapping[str, Any]) -> Any:
        """What runs the first step of an entry point."""
        return self.components[entry["steps"][0].partition(".")[0]]

    def takes_columns(self, entry: Mapping[str, Any]) -> bool:
        """Whether the inputs of an entry point are the columns of a data frame, which its model takes as one."""
        component, _, method = entry["steps"][0].partition(".")
        wanted = self.inputs[component].get(method or "forward") or []
        given = {spec["name"] for spec in entry["inputs"]}
        return bool(given) and not given & set(wanted) and hasattr(self.components[component], "frame")

    def named(self, kind: str, value: Any, entry: Mapping[str, Any]) -> dict[str, Any]:
        """What a payload of ADS holds, by the names of the inputs. Raises ValueError."""
        names = [spec["name"] for spec in entry["inputs"]]
        columns = self.takes_columns(entry)
        if "DataFrame" in kind:
            table = columns_of(value)
            return table if columns or (names and set(names) == set(table)) else self.one_array(table, names, entry)
        coded = isinstance(value, dict) and (TENSOR in value or {"dtype", "shape", "data"} <= value.keys())
        if columns:
            plain = decoded(value).tolist() if coded or isinstance(value, str) else value
            table = rows_of(plain, names) or plain
            named = isinstance(plain, dict) or isinstance(plain[0], dict)
            if not named and (self.first(entry).ordered(names) or names) != names:
                raise ValueError(f"rows do not say their columns: send a DataFrame of {', '.join(names)}")
            if not isinstance(table, dict):
                raise ValueError(f"it takes the columns {', '.join(names)}: a DataFrame, or rows of {len(names)}")
            return table
        if isinstance(value, dict) and not coded:
            return dict(value)
        if len(names) > 1 and isinstance(value, list):
            if len(value) != len(names):
                raise ValueError(f"it takes {', '.join(names)}: {len(names)} arrays, not {len(value)}")
            return dict(zip(names, value, strict=True))
        return {names[0] if names else "input": value}

    def one_array(self, table: dict[str, Any], names: list[str], entry: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a table as the one array that is asked for, in the order in which the model knows them. Raises
        ValueError for other columns."""
        runner = self.first(entry)
        order = runner.ordered(list(table)) if hasattr(runner, "ordered") else None
        order = order or self.columns or list(table)
        if set(order) != set(table):
            raise ValueError(f"it takes the columns {', '.join(order)}; got {', '.join(table)}")
        rows = [list(row) for row in zip(*(table[name] for name in order), strict=True)]
        return {names[0] if names else "input": rows}

    def answer(self, data: Any) -> dict[str, Any]:
        """The answer to a request."""
        data = json.loads(data) if isinstance(data, (str, bytes, bytearray)) else data
        if isinstance(data, dict) and isinstance(data.get("inputs"), dict):
            unknown = sorted(data.keys() - {"inputs", "entry", "encoding"})
            if unknown:
                raise ValueError(f"a request has inputs, entry and encoding, and no {unknown[0]!r}")
            entry = self.entry(data.get("entry"))
            outputs = self.run(entry, data["inputs"])
            coded = data.get("encoding") == "base64"
            return {"prediction": {name: encoded(value, coded) for name, value in outputs.items()}}
        envelope = isinstance(data, dict) and "data" in data and data.keys() <= {"data", "data_type", "entry"}
        entry = self.entry(data.get("entry") if envelope else None)
        kind, value = (str(data.get("data_type")), data["data"]) if envelope else ("None", data)
        outputs = self.run(entry, self.named(kind, value, entry))
        last = self.components[entry["steps"][-1].partition(".")[0]]
        if hasattr(last, "labelled"):  # those who use ADS know classes by their names
            outputs = last.labelled(outputs)
        plain = {name: encoded(array, False) for name, array in outputs.items()}
        return {"prediction": next(iter(plain.values())) if len(plain) == 1 else plain}


def columns_of(value: Any) -> dict[str, Any]:
    """The columns of a table, {name: {row: value}} or {name: [value]}; each in the rows of the first. Raises
    ValueError."""
    table = json.loads(value) if isinstance(value, str) else value
    if not isinstance(table, dict):
        raise ValueError("a DataFrame comes as columns, {name: {row: value}}")
    first = next(iter(table.values()), None)
    found = {}
    for name, rows in table.items():
        if isinstance(rows, dict) and isinstance(first, dict):
            if rows.keys() != first.keys():
                raise ValueError(f"column {name!r} has other rows than the first")
            rows = [rows[key] for key in first]
        found[name] = list(rows)
    return found


def rows_of(value: Any, names: list[str]) -> dict[str, Any] | None:
    """The columns of rows: dictionaries by name, or lists in the order of the inputs; None for what is neither."""
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(row, dict) for row in value):
        if any(row.keys() != value[0].keys() for row in value):
            raise ValueError("the rows have different names")
        return {name: [row[name] for row in value] for name in value[0]}
    if all(isinstance(row, list) and len(row) == len(names) for row in value):
        return dict(zip(names, (list(column) for column in zip(*value, strict=True)), strict=True))
    return None


def decoded(value: Any) -> Any:
    """An array from one of the forms in which it may come."""
    if isinstance(value, str) and value.startswith(NPY):
        return np.load(io.BytesIO(base64.b64decode(value, validate=True)), allow_pickle=False)
    if isinstance(value, dict) and TENSOR in value:
        return np.asarray(value["data"], dtype_of(value["dtype"])).reshape(value["shape"])
    if isinstance(value, dict) and {"dtype", "shape", "data"} <= value.keys():
        data = base64.b64decode(value["data"], validate=True)
        return np.frombuffer(data, np.dtype(value["dtype"])).reshape(value["shape"])
    return np.asarray(value)


def dtype_of(name: str) -> Any:
    """NumPy's dtype; float32 stands for those that NumPy lacks."""
    name = name.removeprefix("torch.")
    return np.dtype("float32" if name.startswith(("bfloat16", "float8")) else name)


def fitted(name: str, value: Any, spec: Any, axes: dict[str, int]) -> Any:
    """An input as its specification wants it, if nothing is lost by that. Raises ValueError."""
    if spec is not None and spec["dtype"] in ("string", "category"):
        return texts(name, value, spec, axes)
    if spec is not None and isinstance(value, list) and spec["dtype"].startswith("float"):
        value = [np.nan if item is None else item for item in value]  # JSON has no other word for it
    try:
        array = decoded(value)
    except (ValueError, TypeError, KeyError, EOFError) as exc:
        raise ValueError(f"input {name!r} is no array: {exc}") from exc
    if array.dtype.kind not in "biufc":
        raise ValueError(f"input {name!r} is no array of numbers, or its rows differ in length")
    if spec is None:
        return array
    dtype, shape = dtype_of(spec["dtype"]), spec["shape"]
    good = array.ndim == len(shape)
    for size, wanted in zip(array.shape, shape, strict=False):
        if isinstance(wanted, str):
            good = good and axes.setdefault(wanted, size) == size
        else:
            good = good and wanted in (None, size)
    if good and array.dtype != dtype:
        with np.errstate(all="ignore"):
            cast = array.astype(dtype)
        good = np.can_cast(array.dtype, dtype, "same_kind") or bool((cast == array).all())
        array = cast
    if not good:
        sizes = ", ".join("?" if size is None else str(size) for size in shape)
        got = f"{decoded(value).dtype}{list(array.shape)}"
        raise ValueError(f"input {name!r}: expected {spec['dtype']}[{sizes}], got {got}")
    return array


def texts(name: str, value: Any, spec: Any, axes: dict[str, int]) -> Any:
    """A column of texts or categories; null is a missing one. Raises ValueError."""
    category = spec["dtype"] == "category"
    known = set(spec.get("categories") or ())
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise ValueError(f"input {name!r} is no list of texts")
    for item in value:
        if item is not None and not (item in known if category else isinstance(item, str)):
            what = f"no category {item!r}; it has {', '.join(map(str, known))}" if category else f"{item!r}, no text"
            raise ValueError(f"input {name!r} has {what}"[:300])
    for wanted in spec["shape"]:
        size = axes.setdefault(wanted, len(value)) if isinstance(wanted, str) else wanted
        if size not in (None, len(value)):
            raise ValueError(f"input {name!r} has {len(value)} rows, others {size}")
    return np.array([*value, None], object)[:-1]


def encoded(value: Any, coded: bool) -> Any:
    """An output as JSON can hold it."""
    array = np.asarray(value)
    if not coded and array.dtype.kind != "c":
        return array.tolist()
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}
