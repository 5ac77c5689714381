"""Run by itself, in a process of its own: shuts itself in, then unpickles one file and writes it in a safe format."""

from __future__ import annotations

import io
import json
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULT = "result.json"
MAX_DEPTH = 50
MAX_NOTES = 20


def main() -> None:
    """The job comes as JSON on standard input; the first line on standard output says what is out of reach."""
    job = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = job["path"]
    from catalog_doors import jail

    reach = jail.enter([*job["read"], job["file"]], [job["out"], job["home"]], *job["limits"])
    print(json.dumps(reach), flush=True)
    os.chdir(job["home"])
    out = Path(job["out"])
    try:
        told = convert(Path(job["file"]), job["kind"], out)
    except (Exception, SystemExit) as exc:  # whatever the file did
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())[:400]
        told = {"error": cause, "missing": _missing(exc), "imported": not isinstance(exc, ImportError)}
    (out / RESULT).write_text(json.dumps(told))


def _missing(exc: BaseException) -> str | None:
    """The module whose package is not installed; None where it is, and has no such part or fails by itself."""
    if not isinstance(exc, ModuleNotFoundError) or not exc.name:
        return None
    owner = sys.modules.get(exc.name.partition(".")[0])
    return None if getattr(owner, "__file__", None) else exc.name  # a namespace, say google, has no file


def convert(path: Path, kind: str, out: Path) -> dict[str, Any]:
    """Load a file, and write what it holds by the serializer for it."""
    from catalog_core.interfaces.serializer import SaveRequest
    from catalog_doors.stored import FolderDirectory, serializer

    obj = _load(path, kind)
    notes: list[str] = []
    what = f"{type(obj).__module__}.{type(obj).__qualname__}"
    name = _serializer(obj)
    if name == "safetensors":
        obj = arrays(obj, notes)
    meta = serializer(name).save(obj, FolderDirectory(out), SaveRequest("model"))
    return {"serializer": name, "meta": meta, "was": what, "notes": notes[:MAX_NOTES]}


def _load(path: Path, kind: str) -> Any:
    if kind == "hdf5":
        return _hdf5(path)
    if kind == "torchscript":
        import torch

        return torch.jit.load(str(path), map_location="cpu")
    head = path.open("rb").read(64)
    if kind == "torch pickle" or b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in head:  # torch's number before 1.6
        import torch

        return torch.load(path, map_location="cpu", weights_only=False)
    try:
        import joblib  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        import pickle

        return pickle.loads(path.read_bytes())
    return joblib.load(io.BytesIO(path.read_bytes()))


def _hdf5(path: Path) -> Any:
    """The Keras model, or else every array by its place in the file."""
    import h5py

    with h5py.File(path, "r") as file:
        if "model_config" in file.attrs:
            try:
                import keras

                return keras.saving.load_model(path, compile=False)
            except Exception:  # no Keras, or classes of the user's: the arrays are what is left
                pass
        found: dict[str, Any] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "biufc":
                found[name] = item[()]

        file.visititems(visit)
    if not found:
        raise ValueError("the file holds no arrays")
    return found


def _serializer(obj: Any) -> str:
    tops = {kind.__module__.partition(".")[0] for kind in type(obj).__mro__}
    if tops & {"sklearn", "xgboost", "lightgbm"}:
        return "sklearn"
    if "keras" in tops and "Layer" in {kind.__name__ for kind in type(obj).__mro__}:
        return "keras"
    return "safetensors"


def arrays(obj: Any, notes: list[str]) -> dict[str, Any]:
    """The arrays and plain values of an object; what else it held is noted. Raises TypeError where there is none."""
    if hasattr(obj, "state_dict") and callable(obj.state_dict):
        notes.append(f"a {type(obj).__name__} became its state dict; its code stayed behind")
        obj = obj.state_dict()
    if _is_array(obj):
        obj = {"array": obj}
    if isinstance(obj, (list, tuple)):
        obj = {"items": list(obj)}
    found = _plain(obj, "", notes, 0)
    if not isinstance(found, Mapping) or not _holds(found):
        raise TypeError(f"a {type(obj).__name__} holds no arrays that a safe format could keep")
    return dict(found)


_LEFT = object()


def _plain(value: Any, path: str, notes: list[str], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise TypeError(f"it is nested deeper than {MAX_DEPTH}")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if _is_array(value):
        if getattr(getattr(value, "dtype", None), "kind", "f") not in "OUSVMm":
            return value
    elif isinstance(value, Mapping):
        made = {}
        for key, item in value.items():
            kept = _plain(item, f"{path}/{key}", notes, depth + 1) if type(key) in (str, int) else _LEFT
            if kept is not _LEFT:
                made[key] = kept
        return OrderedDict(made) if isinstance(value, OrderedDict) and depth else made
    elif isinstance(value, (list, tuple)):
        items = [_plain(item, f"{path}/{at}", notes, depth + 1) for at, item in enumerate(value)]
        return [item for item in items if item is not _LEFT]
    elif hasattr(value, "state_dict") and callable(value.state_dict):
        notes.append(f"{path}: a {type(value).__name__} became its state dict")
        return _plain(value.state_dict(), path, notes, depth + 1)
    notes.append(f"{path}: a {type(value).__name__} was left behind")
    return _LEFT


def _is_array(value: Any) -> bool:
    kind = type(value)
    top = {base.__module__.partition(".")[0] for base in kind.__mro__}
    return hasattr(value, "dtype") and hasattr(value, "shape") and bool(top & {"numpy", "torch"})


def _holds(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds, value.values()))
    return any(map(_holds, value)) if isinstance(value, list) else _is_array(value)


if __name__ == "__main__":
    main()
