"""What is said of a version beside its components: tensors in words, what it was trained on, use cases, metadata."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from catalog_core import folders, redact
from catalog_core.digests import MAX_INTEGER, check_digest
from catalog_core.durable import translated
from catalog_core.errors import ConfigError, InvalidInput
from catalog_core.names import check_key, nearest
from catalog_core.records import EntryPoint, TensorSpec
from catalog_core.shown import an
from catalog_core.values import check_value, scalar

ORACLE_USE_CASES = (  # under the names of ADS and OCI
    "binary_classification", "regression", "multinomial_classification", "clustering", "recommender",
    "dimensionality_reduction/representation", "time_series_forecasting", "anomaly_detection", "topic_modeling", "ner",
    "sentiment_analysis", "image_classification", "object_localization", "other",
)  # fmt: skip
USE_CASES = (  # and what physicists and image people do
    *ORACLE_USE_CASES, "fast_simulation", "generative_model", "image_segmentation", "inpainting", "language_model",
    "reconstruction", "segmentation", "super_resolution", "surrogate", "tracking", "trigger",
)  # fmt: skip
DETAILS = ("unit", "description", "minimum", "maximum")
# variables by which schedulers and trackers tell what runs
RUNS = (
    ("mlflow", "MLFLOW_RUN_ID"), ("wandb", "WANDB_RUN_ID"), ("slurm", "SLURM_JOB_ID"), ("htcondor", "CONDOR_JOB_ID"),
    ("kubeflow", "KFP_RUN_ID"), ("oci", "JOB_RUN_OCID"), ("github", "GITHUB_RUN_ID"), ("gitlab", "CI_JOB_ID"),
)  # fmt: skip
BLOCK = 1 << 20
CAPTURE = "CATALOG_CAPTURE"


def check_taxonomy(given: Mapping[str, Any]) -> dict[str, str]:
    """Taxonomy as it is stored: text by key. Raises `InvalidInput` for a `use_case` that is not on the list."""
    found = {check_key(key, "taxonomy"): str(value) for key, value in given.items() if value is not None}
    case = found.get("use_case")
    if case is not None:
        plain = case.strip().lower().replace(" ", "_").replace("-", "_")
        if plain not in USE_CASES:
            hint = nearest(plain, USE_CASES) or f"one of {', '.join(USE_CASES)}"
            raise InvalidInput(f"use_case {case!r} is not known", hint=f"{hint}; other keys take any text")
        found["use_case"] = plain
    return found


def taxonomy_of(told: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """What another program, or another release, says of a model: taxonomy as it may be stored, and custom metadata that
    hold a use case which is not on the list."""
    found = {key: str(value) for key, value in told.items()}
    try:
        return check_taxonomy(found), {}
    except InvalidInput:
        case = found.pop("use_case", "")
        return check_taxonomy(found), {"use_case": {"value": case[:1000], "category": "Other"}}


def check_custom(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metadata of one's own as it is stored: key → `value`, and perhaps `category` and `description` (texts); a plain
    value stands for one without these. Raises `InvalidInput`."""
    result = {}
    for key, item in given.items():
        fields = dict(item) if isinstance(item, Mapping) else {"value": item}
        odd = sorted(map(str, fields.keys() - {"value", "category", "description"}))
        if odd or "value" not in fields:
            raise InvalidInput(
                f"custom {key!r} {f'has {odd[0]!r}' if odd else 'has no value'}",
                hint='custom={"key": {"value": 1, "category": "…", "description": "…"}}',
            )
        fields["value"] = check_value(check_key(key, "custom"), fields["value"], "custom")
        for name in ("category", "description"):
            if fields.get(name) is not None and not isinstance(fields[name], str):
                raise InvalidInput(f"the {name} of custom {key!r} is no text")
        result[key] = {name: value for name, value in fields.items() if value is not None}
    return result


def detailed(points: Iterable[EntryPoint], tensors: Mapping[str, Mapping[str, Any]]) -> tuple[EntryPoint, ...]:
    """Entry points whose inputs and outputs of these names bear `unit`, `description`, `minimum`, `maximum`;
    `entry.name` is that of one entry point alone. Raises `InvalidInput` for a name or key that is not there."""
    listed = tuple(points)
    names = {spec.name for point in listed for spec in (*point.inputs, *point.outputs)}
    names |= {f"{point.name}.{spec.name}" for point in listed for spec in (*point.inputs, *point.outputs)}
    for name, details in tensors.items():
        if name not in names:
            hint = nearest(name, names) or f"inputs and outputs: {', '.join(sorted(names)) or 'none'}"
            raise InvalidInput(f"tensors tells of {name!r}, which is no input or output", hint=hint)
        if not isinstance(details, Mapping):
            raise InvalidInput(
                f"tensors[{name!r}] is {an(type(details).__name__)}", hint=f"a mapping of {', '.join(DETAILS)}"
            )
        for key, value in details.items():
            if key not in DETAILS:
                raise InvalidInput(f"tensors[{name!r}] has {key!r}", hint=f"known: {', '.join(DETAILS)}")
            bound = key in ("minimum", "maximum")
            found = scalar(value) if bound else value
            if not isinstance(found, (int, float) if bound else str) or isinstance(found, bool):
                raise InvalidInput(f"the {key} of {name!r} cannot be {value!r}")

    def spec(entry: str, tensor: TensorSpec) -> TensorSpec:
        details = {**tensors.get(tensor.name, {}), **tensors.get(f"{entry}.{tensor.name}", {})}
        told: dict[str, Any] = {k: float(scalar(v)) if k in ("minimum", "maximum") else v for k, v in details.items()}
        low, high = told.get("minimum"), told.get("maximum")
        if not (low is high is None or tensor.has_order):
            raise InvalidInput(f"{tensor.name!r} is {tensor.dtype}, which has no minimum or maximum")
        if low is not None and high is not None and not low <= high:
            raise InvalidInput(f"the minimum of {tensor.name!r}, {low:g}, is above its maximum, {high:g}")
        return attrs.evolve(tensor, **told)

    return tuple(
        attrs.evolve(
            point,
            inputs=tuple(spec(point.name, tensor) for tensor in point.inputs),
            outputs=tuple(spec(point.name, tensor) for tensor in point.outputs),
        )
        for point in listed
    )


def dataset(name: str, given: Any) -> dict[str, Any]:
    """A data set as provenance has it. A `Path` is read: its `digest`, `size` in bytes and, for a folder, `files`; text
    is a `reference` that is kept as it is; a mapping may give `reference`, `digest`, `size` and `description`. Raises
    `InvalidInput`."""
    if isinstance(given, Mapping):
        odd = sorted(map(str, given.keys() - {"reference", "digest", "size", "description"}))
        if odd:
            raise InvalidInput(f"data set {name!r} has {odd[0]!r}", hint="reference, digest, size, description")
        if given.get("digest") is not None:
            check_digest(str(given["digest"]))
        return {key: value for key, value in given.items() if value is not None}
    if isinstance(given, str):
        return {"reference": given}
    if not isinstance(given, Path):
        raise InvalidInput(f"data set {name!r} is {an(type(given).__name__)}", hint="a Path, a text, or a mapping")
    with translated(str(given), reading=True):
        if not given.is_dir():
            ((file, path),) = folders.read(given).files.items()
            digest, size = _read(path)
            return {"reference": file, "digest": digest, "size": size}
        return {"reference": given.name, **_folder(given)}


def _folder(folder: Path) -> dict[str, Any]:
    """Digest, size and number of files of a folder: the digest is that of a line for each file and each empty folder,
    in the order of their names. Links are followed; what could not be read is refused."""
    state, total, count = hashlib.sha256(), 0, 0
    for item in folders.walk(folder):
        if item.kind == "file":
            digest, size = _read(item.path)
            state.update(_line(f"{digest} {size} ", item.name))
            total, count = total + size, count + 1
        elif item.kind == "empty":
            state.update(_line("empty 0 ", item.name))
        else:
            raise folders.wrong(item, folder)
    return {"digest": "sha256:" + state.hexdigest(), "size": total, "files": count}


def _line(before: str, name: str) -> bytes:
    """A line of the list, escaped as `sha256sum` does where a name holds what ends a line."""
    if "\n" not in name:
        return f"{before}{name}\n".encode(errors="surrogateescape")
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
    return f"\\{before}{escaped}\n".encode(errors="surrogateescape")


def _read(path: Path) -> tuple[str, int]:
    state, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            state.update(block)
            size += len(block)
    return "sha256:" + state.hexdigest(), size


def captured() -> bool:
    """Whether command line, script, git and run ids may be recorded: `$CATALOG_CAPTURE` is not `none`. Raises
    `ConfigError` for what is neither `none` nor `all`."""
    told = os.environ.get(CAPTURE, "").strip().lower()
    if told not in ("", "all", "none"):
        raise ConfigError(f"{CAPTURE} is {told[:40]!r}", hint="all (the default), or none")
    return told != "none"


def without_secrets(told: Any) -> Any:
    """`redact.tree`. Raises `InvalidInput` for what is nested hundreds of times, or holds itself."""
    try:
        return redact.tree(told)
    except RecursionError as exc:
        raise InvalidInput("provenance is nested too deep, or holds itself", hint="at most some 100 levels") from exc


def training(seed: Any, datasets: Mapping[str, Any] | None, run: str | None) -> dict[str, Any]:
    """Provenance that only the user knows, and the run that this process is part of; what nobody told is not there.
    Raises `InvalidInput`."""
    found: dict[str, Any] = {}
    if seed is not None:
        found["seed"] = scalar(seed)
        if type(found["seed"]) is not int or abs(found["seed"]) > MAX_INTEGER:
            shown = "is beyond ±(2^53-1)" if type(found["seed"]) is int else f"{repr(seed)[:80]} is no integer"
            raise InvalidInput(f"seed {shown}, so JSON cannot hold it")
    if datasets is not None:
        found["datasets"] = {check_key(name, "data set"): dataset(name, given) for name, given in datasets.items()}
    known = RUNS if captured() else ()
    runs = {system: os.environ[variable] for system, variable in known if os.environ.get(variable)}
    if run is not None:
        runs = {"id": run, **runs}
    if runs:
        found["run"] = runs
    return found
