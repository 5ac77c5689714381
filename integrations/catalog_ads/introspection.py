"""The checks of ADS on an artifact folder: ids, categories and what they ask for are ADS's. No code of the folder runs,
and no network is asked."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from catalog_ads.archive import RUNTIME, SCORE, read_text
from catalog_ads.runtime import read_runtime
from catalog_core.errors import CatalogError
from catalog_core.records import Check

RESULTS = "test_json_output.json"
# id → (category, ADS's name of the check)
CHECKS = {
    "runtime_env_path": ("conda_env", "Check that field MODEL_DEPLOYMENT.INFERENCE_ENV_PATH is set"),
    "runtime_env_python": (
        "conda_env",
        "Check that field MODEL_DEPLOYMENT.INFERENCE_PYTHON_VERSION is set to a value of 3.6 or higher",
    ),
    "runtime_path_exist": (
        "conda_env",
        "Check that the file path in MODEL_DEPLOYMENT.INFERENCE_ENV_PATH is correct.",
    ),
    "runtime_version": ("runtime.yaml", "Check that field MODEL_ARTIFACT_VERSION is set to 3.0"),
    "runtime_yaml": (
        "Mandatory Files Check",
        'Check that the file "runtime.yaml" exists and is in the top level directory of the artifact directory',
    ),
    "score_load_model": ("score.py", "Check that load_model() is defined"),
    "score_predict": ("score.py", "Check that predict() is defined"),
    "score_predict_arg": (
        "score.py",
        "Check that all other arguments in predict() are optional and have default values",
    ),
    "score_predict_data": ("score.py", 'Check that the only required argument for predict() is named "data"'),
    "score_py": (
        "Mandatory Files Check",
        'Check that the file "score.py" exists and is in the top level directory of the artifact directory',
    ),
    "score_syntax": ("score.py", "Check for Python syntax errors"),
}
_PYTHON = re.compile(r"3\.([6-9]|1[0-4])(\.\d+)*\Z")


def introspect(folder: Path) -> list[Check]:
    """The checks in order of their ids. Whether the pack exists is skipped; a broken folder gives failed checks, never
    an error."""
    score = _score(folder)
    env: dict[str, Any] = {}
    version: Any = None
    broken = ""
    try:
        told = read_runtime(folder)
        version = told.get("MODEL_ARTIFACT_VERSION")
        env = told["MODEL_DEPLOYMENT"]["INFERENCE_CONDA_ENV"]
    except (CatalogError, OSError) as exc:
        broken = str(exc)
    required = _required(score)
    no_score = "score.py cannot be read" if score is None else ""
    functions = _functions(score)
    asked: dict[str, Callable[[], str]] = {
        "score_py": lambda: "" if (folder / SCORE).is_file() else "there is none",
        "runtime_yaml": lambda: "" if (folder / RUNTIME).is_file() else "there is none",
        "score_syntax": lambda: no_score,
        "score_load_model": lambda: no_score or ("" if "load_model" in functions else "there is none"),
        "score_predict": lambda: no_score or ("" if "predict" in functions else "there is none"),
        "score_predict_data": lambda: no_score or ("" if "data" in required else "there is none"),
        "score_predict_arg": lambda: no_score or ", ".join(f"{n} has none" for n in required if n != "data"),
        "runtime_version": lambda: broken or ("" if str(version) == "3.0" else f"it is {str(version)[:20]}"),
        "runtime_env_path": lambda: broken or ("" if env.get("INFERENCE_ENV_PATH") else "it is not set"),
        "runtime_env_python": lambda: broken or _python(env.get("INFERENCE_PYTHON_VERSION")),
    }
    checks = []
    for name in CHECKS:
        if name not in asked:
            checks.append(Check(name, "skipped", 0.0, "it needs the network"))
            continue
        begun = time.monotonic()
        cause = asked[name]()
        checks.append(Check(name, "failed" if cause else "passed", time.monotonic() - begun, cause))
    return checks


def as_ads(checks: Sequence[Check], env: dict[str, Any]) -> dict[str, Any]:
    """The checks as ADS keeps them in `test_json_output.json`."""
    found: dict[str, Any] = {}
    values = {"runtime_env_path": "INFERENCE_ENV_PATH", "runtime_env_python": "INFERENCE_PYTHON_VERSION"}
    for check in checks:
        category, asked = CHECKS[check.id]
        row: dict[str, Any] = {"category": category, "description": asked, "error_msg": check.cause}
        if check.result != "skipped":
            row["success"] = check.result == "passed"
        if check.id in values:
            row["value"] = str(env.get(values[check.id], ""))
        if check.id == "score_py":
            row["key"] = "score_py"
        found[check.id] = row
    return found


def _score(folder: Path) -> ast.Module | None:
    try:
        return ast.parse(read_text(folder / SCORE))
    except (CatalogError, OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def model_file(folder: Path) -> str | None:
    """The file or folder that `load_model` of `score.py` reads when it is told none; None where it does not say."""
    score = _score(folder)
    load = _functions(score).get("load_model")
    default: Any = load.args.defaults[0] if load is not None and load.args.defaults else None
    if isinstance(default, ast.Name):  # ADS writes model_name = "…" above it
        for node in score.body if score else ():
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == default.id:
                default = node.value
                break
    value = default.value if isinstance(default, ast.Constant) else None
    return value.strip("/") if isinstance(value, str) else None


def _functions(score: ast.Module | None) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in (score.body if score else ()) if isinstance(node, ast.FunctionDef)}


def _required(score: ast.Module | None) -> list[str]:
    """The arguments of predict that have no default."""
    predict = _functions(score).get("predict")
    if predict is None:
        return []
    given = predict.args
    names = [item.arg for item in (*given.posonlyargs, *given.args)]
    pairs = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return names[: len(names) - len(given.defaults)] + [item.arg for item, default in pairs if default is None]


def _python(version: Any) -> str:
    return "" if _PYTHON.match(str(version)) else f"it is {str(version)[:20]}"
