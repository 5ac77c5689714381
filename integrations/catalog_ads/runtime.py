"""`runtime.yaml`, version 3.0: the conda environment of a deployment, and where the model was trained."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from catalog_ads.archive import RUNTIME, read_text
from catalog_core.errors import SerializationError

VERSION = "3.0"
MAX_YAML = 1 << 20
MAX_DEPTH = 16
log = logging.getLogger("catalog_core")
# What `runtime.yaml` says of the training, by the names that `prepare` has for it.
TRAINING = {
    "training_conda_env": ("TRAINING_CONDA_ENV", "TRAINING_ENV_PATH"),
    "training_env_slug": ("TRAINING_CONDA_ENV", "TRAINING_ENV_SLUG"),
    "training_env_type": ("TRAINING_CONDA_ENV", "TRAINING_ENV_TYPE"),
    "training_python_version": ("TRAINING_CONDA_ENV", "TRAINING_PYTHON_VERSION"),
    "training_code": ("TRAINING_CODE", "ARTIFACT_DIRECTORY"),
    "training_id": ("TRAINING_RESOURCE_OCID",),
    "training_compartment": ("TRAINING_COMPARTMENT_OCID",),
    "training_region": ("TRAINING_REGION",),
    "project": ("PROJECT_OCID",),
    "tenancy": ("TENANCY_OCID",),
    "user": ("USER_OCID",),
    "image": ("VM_IMAGE_INTERNAL_ID",),
}
INFERENCE = {
    "inference_conda_env": "INFERENCE_ENV_PATH",
    "inference_env_slug": "INFERENCE_ENV_SLUG",
    "inference_env_type": "INFERENCE_ENV_TYPE",
    "inference_python_version": "INFERENCE_PYTHON_VERSION",
}


def with_slugs(told: Mapping[str, str]) -> dict[str, str]:
    """Names of `INFERENCE` and `TRAINING`, where a pack that is no path is told by its slug too."""
    found = dict(told)
    for kind in ("inference", "training"):
        env = found.get(f"{kind}_conda_env", "")
        if env and "://" not in env:
            found |= {f"{kind}_env_slug": env, f"{kind}_env_type": "data_science"}
            log.warning("%s: where this pack lies is not looked up; a deployment wants its oci:// path", env)
    return found


def write_runtime(told: Mapping[str, str]) -> str:
    """The text of `runtime.yaml` for names of `INFERENCE` and `TRAINING`; what is not told is empty."""
    inference = {name: told.get(key, "") for key, name in INFERENCE.items()}
    training: dict[str, Any] = {}
    for key, place in TRAINING.items():
        inner = training.setdefault(place[0], {}) if len(place) == 2 else training
        inner[place[-1]] = told.get(key, "")
    whole = {
        "MODEL_ARTIFACT_VERSION": VERSION,
        "MODEL_DEPLOYMENT": {"INFERENCE_CONDA_ENV": inference},
        "MODEL_PROVENANCE": training,
    }
    return "\n".join(_lines(whole, "")) + "\n"


def _lines(value: Mapping[str, Any], indent: str) -> list[str]:
    found = []
    for key in sorted(value):
        item = value[key]
        if isinstance(item, Mapping):
            found += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        else:
            found.append(f"{indent}{key}: {json.dumps(str(item))}")  # a JSON text is one of YAML
    return found


def read_runtime(folder: Path) -> dict[str, Any]:
    """`runtime.yaml` of a folder, with `MODEL_DEPLOYMENT.INFERENCE_CONDA_ENV` in it, at least empty. Raises
    `SerializationError` for what is no plain YAML: aliases, tags, and nests deeper than 16."""
    text = read_text(folder / RUNTIME)
    if len(text) > MAX_YAML:
        raise SerializationError(f"{RUNTIME} has {len(text):,} characters; {MAX_YAML:,} are read")
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent))
            depth -= isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent))
            if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
                raise SerializationError(f"{RUNTIME} holds aliases, or is nested too deeply")
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as exc:
        raise SerializationError(f"{RUNTIME} is no YAML: {' '.join(str(exc).split())[:200]}") from exc
    told = dict(found) if isinstance(found, dict) else {}
    if not told:
        raise SerializationError(f"{RUNTIME} says nothing")
    deployment = told.get("MODEL_DEPLOYMENT")
    deployment = told["MODEL_DEPLOYMENT"] = dict(deployment) if isinstance(deployment, dict) else {}
    env = deployment.get("INFERENCE_CONDA_ENV")
    deployment["INFERENCE_CONDA_ENV"] = env if isinstance(env, dict) else {}
    return told


def flat_runtime(told: Mapping[str, Any]) -> dict[str, str]:
    """What `read_runtime` gave, by the names of `INFERENCE` and `TRAINING`."""
    env = told["MODEL_DEPLOYMENT"]["INFERENCE_CONDA_ENV"]
    found = {key: env.get(name) for key, name in INFERENCE.items()}
    training = told.get("MODEL_PROVENANCE")
    for key, place in TRAINING.items():
        value: Any = training
        for name in place:
            value = value.get(name) if isinstance(value, dict) else None
        found[key] = value
    return {key: str(value)[:1000] for key, value in found.items() if isinstance(value, (str, int, float)) and value}
