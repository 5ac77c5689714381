"""What five scripts show of a package's classes, as plain data: types, columns, index names, attributes, signatures.

    python record.py ads OUT.json      with oracle-ads installed (`tox -e ads` does it), and no account
    python record.py catalog OUT.json  with the classes of this catalog

A script runs under both with another import line. Names that begin with an underscore are left out.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = ("sklearn_model", "xgboost_model", "pytorch_model", "generic_model", "onnx_model")
CLASSES = ("GenericModel", "SklearnModel", "XGBoostModel", "PyTorchModel")
METHODS = (
    "__init__", "prepare", "save", "verify", "predict", "introspect", "summary_status", "populate_metadata",
    "populate_schema", "from_model_artifact", "from_model_catalog", "download_artifact", "update_summary_status",
    "update_summary_action",
)  # fmt: skip
SHOWN = (
    "artifact_dir", "local_copy_dir", "model_file_name", "framework", "algorithm", "model_id", "schema_input",
    "schema_output", "runtime_info", "metadata_custom", "metadata_taxonomy", "metadata_provenance", "properties",
    "ignore_conda_error",
)  # fmt: skip


def arguments(function: Any) -> list[str]:
    """The names of those that can be given by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = inspect.signature(function).parameters.values()
    return [item.name for item in given if item.kind in kinds and item.name not in ("self", "cls")]


def shown(value: Any) -> Any:
    """The type of a value; the columns and words of a table; the public attributes of an object."""
    kind = type(value).__name__
    if kind == "DataFrame":
        names = [name for name in value.index.names if name]
        table = value.reset_index() if names else value
        words = [
            name for name in ("Step", "Details", "Status", "Test key", "Test name", "Result", "Key") if name in table
        ]
        return {
            "type": kind, "columns": list(value.columns), "index": names,
            "words": {name: table[name].tolist() for name in words},
        }  # fmt: skip
    if value is None or isinstance(value, (str, int, float, bool, dict, list, tuple)):
        return {"type": kind}
    return {"type": kind, "attributes": [name for name in dir(value) if not name.startswith("_")]}


def run(name: str, package: str) -> dict[str, Any]:
    """What a script shows."""
    first, _, rest = (HERE / f"{name}.py").read_text(encoding="utf-8").partition("\n")
    line = first if package == "ads" else "from catalog_ads import " + first.partition(" import ")[2]
    space: dict[str, Any] = {"__name__": name}
    exec(compile(f"{line}\n{rest}", f"{name}.py", "exec"), space)
    model, again = space["model"], space["again"]
    found: dict[str, Any] = {
        key: shown(space[key]) for key in ("introspected", "status", "custom", "taxonomy", "item", "verified")
    }
    found["prepare returns the model"] = space["prepared"] is model
    found["verified keys"] = sorted(space["verified"])
    found["model"] = {key: shown(getattr(model, key)) for key in SHOWN}
    found["values"] = {key: getattr(model, key) for key in ("framework", "algorithm")}
    found["custom keys"] = sorted(model.metadata_custom.keys)
    found["taxonomy keys"] = sorted(model.metadata_taxonomy.keys)
    found["columns"] = {
        key: [
            [str(item.name), item.dtype, item.feature_type, item.required, sorted(item.domain.stats)] for item in made
        ]
        for key, made in (("schema_input", model.schema_input), ("schema_output", model.schema_output))
    }
    found["runtime keys"] = _keys(model.runtime_info.to_dict())
    found["again"] = {"type": type(again).__name__, "status": shown(again.summary_status())["words"]}
    return found


def _keys(told: Any) -> Any:
    return {key: _keys(value) for key, value in sorted(told.items())} if isinstance(told, dict) else None


def main(package: str, out: str, *names: str) -> None:
    """Run the scripts, and write what they show."""
    told: dict[str, Any] = {"scripts": {}}
    if package == "ads":
        from importlib.metadata import version

        import offline  # noqa: F401
        from ads import model as classes

        told["oracle-ads"] = version("oracle-ads")
    else:
        import catalog_ads as classes
    told["arguments"] = {
        name: {method: arguments(getattr(getattr(classes, name), method)) for method in METHODS} for name in CLASSES
    }
    for name in names or SCRIPTS:
        told["scripts"][name] = run(name, package)
    Path(out).write_text(json.dumps(told, indent=1, sort_keys=True, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
