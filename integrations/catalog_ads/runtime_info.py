"""`runtime.yaml` as an object: `runtime_info.model_deployment.inference_conda_env.inference_python_version`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import attrs

from catalog_ads import runtime
from catalog_ads.archive import RUNTIME
from catalog_ads.plain import Plain
from catalog_core.errors import InvalidInput


@attrs.define(repr=False, str=False)
class InferenceEnvInfo(Plain):
    """The conda environment of a deployment."""

    inference_env_slug: str = ""
    inference_env_type: str = ""
    inference_env_path: str = ""
    inference_python_version: str = ""


@attrs.define(repr=False, str=False)
class TrainingEnvInfo(Plain):
    """The conda environment of the training."""

    training_env_slug: str = ""
    training_env_type: str = ""
    training_env_path: str = ""
    training_python_version: str = ""


@attrs.define(repr=False, str=False)
class ModelDeploymentDetails(Plain):
    """What a deployment needs."""

    inference_conda_env: InferenceEnvInfo = attrs.Factory(InferenceEnvInfo)


@attrs.define(repr=False, str=False)
class TrainingCode(Plain):
    """Where the artifact lies."""

    artifact_directory: str = ""


@attrs.define(repr=False, str=False)
class ModelProvenanceDetails(Plain):
    """Where the model was trained, by ids of OCI."""

    project_ocid: str = ""
    tenancy_ocid: str = ""
    training_code: TrainingCode = attrs.Factory(TrainingCode)
    training_compartment_ocid: str = ""
    training_conda_env: TrainingEnvInfo = attrs.Factory(TrainingEnvInfo)
    training_region: str = ""
    training_resource_ocid: str = ""
    user_ocid: str = ""
    vm_image_internal_id: str = ""


@attrs.define(repr=False, str=False)
class RuntimeInfo(Plain):
    """What `runtime.yaml` says. Changes are written by `save()`."""

    model_artifact_version: str = ""
    model_deployment: ModelDeploymentDetails = attrs.Factory(ModelDeploymentDetails)
    model_provenance: ModelProvenanceDetails = attrs.Factory(ModelProvenanceDetails)

    @classmethod
    def from_env(cls) -> Self:
        """One of today's version that says nothing."""
        return cls(model_artifact_version=runtime.VERSION)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """That of an artifact folder. Raises `SerializationError`."""
        found = cls.from_dict(runtime.read_runtime(folder))
        found.model_artifact_version = str(found.model_artifact_version or "")
        found.model_provenance.training_code.artifact_directory = str(folder)
        return found

    def told(self) -> dict[str, str]:
        """By the names that `prepare` has for it, less what is empty."""
        found = runtime.flat_runtime(self.to_dict(side_effect="upper"))
        return {key: value for key, value in found.items() if key != "training_code"}

    def save(self, storage_options: Any = None) -> None:
        """Write `runtime.yaml` into the artifact's folder. Raises `InvalidInput` where there is none."""
        folder = self.model_provenance.training_code.artifact_directory
        if not folder or not os.path.isdir(folder):
            raise InvalidInput("runtime.yaml belongs to an artifact, and there is none", hint="prepare() first")
        told = {**self.told(), "training_code": folder}
        (Path(folder) / RUNTIME).write_text(runtime.write_runtime(told), encoding="utf-8")
