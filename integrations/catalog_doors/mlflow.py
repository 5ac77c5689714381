"""An MLflow model: a folder with `MLmodel`, which names the flavors that can load it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from catalog_core.columns import STRING
from catalog_core.errors import SerializationError
from catalog_core.records import Foreign
from catalog_doors import calls, example, tables, text
from catalog_doors.files import Found, model, of_class, rest
from catalog_doors.look import Looked, look, tree

FLAVORS = (
    "onnx",
    "xgboost",
    "lightgbm",
    "keras",
    "tensorflow",
    "pytorch",
    "sklearn",
    "transformers",
    "python_function",
)
_PATHS = ("data", "model_data", "saved_model_dir", "pickled_model", "model_path", "python_model", "model_code_path")
_TOLD = (
    "run_id",
    "model_id",
    "model_uuid",
    "utc_time_created",
    "mlflow_version",
    "artifact_path",
    "databricks_runtime",
)
_TYPES = {
    "boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64", "string": STRING,
}  # fmt: skip
_ASIDE = (
    "MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml", "input_example.json", "serving_input_example.json",
)  # fmt: skip


def read(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """The model that the flavors name becomes components; what `MLmodel` knows goes into provenance and tags."""
    looked = look(tree(path))
    told = text.mapping(text.yaml(looked.text("MLmodel"), "MLmodel"), "MLmodel")
    flavors = {
        name: flavor if isinstance(flavor, dict) else {}
        for name, flavor in text.mapping(told.get("flavors", {}), "flavors of MLmodel").items()
    }
    if not flavors:
        raise SerializationError("MLmodel names no flavors")
    found = model(looked, scratch, unsafe, "model", _named(looked, flavors))
    kind = str(flavors.get("xgboost", {}).get("model_class") or "").rpartition(".")[2]
    found.objects = {name: of_class(obj, kind) for name, obj in found.objects.items()}
    _called(found, flavors)
    rest(found, looked, scratch, leave=_ASIDE)
    versions = {key: value for flavor in flavors.values() for key, value in flavor.items() if key.endswith("_version")}
    signature = _signature(told.get("signature"), found.notes)
    asked = (signature or {}).get("params")
    if isinstance(asked, list) and asked:
        names = ", ".join(str(item.get("name")) for item in asked if isinstance(item, dict))[:200]
        found.notes.append(f"MLflow's predict takes the parameters {names}: here it takes arrays only")
    _exemplify(found, looked, told.get("saved_input_example_info"), (signature or {}).get("inputs"))
    metadata = told.get("metadata") if isinstance(told.get("metadata"), dict) else {}
    tags = {
        "mlflow_flavor": next((name for name in FLAVORS if name in flavors), next(iter(flavors))),
        **(metadata or {}),
    }
    provenance = {
        **{key: told[key] for key in _TOLD if told.get(key)},
        "flavors": flavors,
        **({"signature": signature} if signature else {}),
        **({"versions": versions} if versions else {}),
        **({"metadata": metadata} if metadata else {}),
    }
    params = told.get("params")
    return found.foreign(
        looked,
        name=str(told["artifact_path"]) if told.get("artifact_path") else path.name,
        tags=text.tags(tags, notes=found.notes, of="metadata of MLmodel"),
        params=text.tags(params, "parameter", found.notes, "MLmodel") if isinstance(params, dict) else None,
        provenance=provenance,
        attachments={name: looked.files[name] for name in _ASIDE if name in looked.files},
    )


def _called(found: Found, flavors: Mapping[str, Mapping[str, Any]]) -> None:
    """What MLflow's `predict` does: the method of an estimator, or a signature of a SavedModel, where a flavor names
    one; code of its author where `python_function` is a class or a loader of his own."""
    python = flavors.get("python_function", {})
    named = [python.get("predict_fn"), *(flavor.get("signature_def_key") for flavor in flavors.values())]
    calls.by(found, [name for name in named if isinstance(name, str)], "MLmodel (predict_fn)")
    loader = python.get("loader_module")
    if set(flavors) == {"python_function"} and isinstance(loader, str):
        found.notes.append(f"what MLflow's predict does is code of its author, behind {loader[:100]}, and is not run")


def _named(looked: Looked, flavors: Mapping[str, Mapping[str, Any]]) -> list[str] | None:
    """The files that the best known flavor names and that are there; None where none does: then all are looked at."""
    order = [*[name for name in FLAVORS if name in flavors], *[name for name in flavors if name not in FLAVORS]]
    for name in order:
        for value in _places(flavors[name]):
            below = value.rstrip("/") + "/"
            files = [file for file in looked.files if file == value or file.startswith(below)]
            if files:
                return files
    return None


def _places(flavor: Mapping[str, Any]) -> Iterator[str]:
    for key in _PATHS:
        value = flavor.get(key)
        if isinstance(value, str) and value not in ("", ".") and ".." not in value.split("/") and value[0] != "/":
            yield value


def _exemplify(found: Found, looked: Looked, saved: Any, inputs: Any) -> None:
    """Give the version the input example that MLflow kept, else one of zeros by the signature. A table goes to what
    takes columns; one of numbers is an array to what takes that."""
    place = saved.get("artifact_path") if isinstance(saved, dict) else "input_example.json"
    path = looked.files.get(place) if isinstance(place, str) else None
    kinds = _columns(inputs)
    if tables.read(found, path, kinds):
        return
    tensors = _tensors(inputs)
    if path is not None and example.read(found, path, tensors):
        return
    if path is not None:
        found.notes.append(f"{place}: kept, and not run: it is no table or arrays that the model takes")
    example.zeros(found, tensors)


def _columns(inputs: Any) -> dict[str, str]:
    """The columns of a signature and their types; none where its inputs are no columns, or one has another type."""
    items = [item if isinstance(item, dict) else {} for item in inputs] if isinstance(inputs, list) else []
    kinds = {str(item.get("name")): _TYPES.get(str(item.get("type")), "") for item in items if item.get("name")}
    return kinds if len(kinds) == len(items) and all(kinds.values()) else {}


def _signature(told: Any, notes: list[str]) -> dict[str, Any] | None:
    """Inputs, outputs and parameters as MLflow wrote them: JSON in text."""
    if not isinstance(told, dict):
        return None
    found: dict[str, Any] = {}
    for key in ("inputs", "outputs", "params"):
        value = told.get(key)
        if not isinstance(value, str):
            continue
        try:
            found[key] = text.plain(json.loads(value), f"the signature's {key}")
        except (ValueError, RecursionError, SerializationError):
            notes.append(f"the {key} of MLmodel's signature cannot be read, and were left behind")
    return found or None


def _tensors(inputs: Any) -> list[example.Tensor]:
    """The inputs of a signature, where all of them are arrays, or columns of numbers."""
    items = [item if isinstance(item, dict) else {} for item in inputs] if isinstance(inputs, list) else []
    if any(item.get("type") != "tensor" for item in items):
        kinds = [_TYPES.get(str(item.get("type"))) for item in items]
        return example.columns([kind for kind in kinds if kind]) if all(kinds) else []
    found = []
    for item in items:
        spec = item.get("tensor-spec")
        spec = spec if isinstance(spec, dict) else {}
        sizes = example.shape(spec.get("shape"))
        if sizes is None:
            return []
        name = item.get("name")
        found.append(example.Tensor(name if isinstance(name, str) else None, str(spec.get("dtype")), sizes))
    return found
