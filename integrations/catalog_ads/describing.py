"""What a model of ADS's classes says of itself: metadata, schemas, runtime, summary."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_ads import columns, runtime, schema, summary, taxonomy
from catalog_ads.columns import Schema
from catalog_ads.metadata import ModelCustomMetadata, ModelCustomMetadataItem, ModelTaxonomyMetadata
from catalog_ads.provenance import ModelProvenanceMetadata
from catalog_ads.runtime_info import RuntimeInfo
from catalog_core.errors import InvalidInput, NotTrusted

if TYPE_CHECKING:
    from catalog_ads.folder import ArtifactFolder
    from catalog_core.draft import Draft
    from catalog_core.handles import Version
    from catalog_core.records import Manifest

SCHEMAS = {schema.INPUT: f"ads/{schema.INPUT}", schema.OUTPUT: f"ads/{schema.OUTPUT}"}  # file → attachment
log = logging.getLogger("catalog_core")


class Described:
    """The attributes of ADS that tell, and can be set until the model is saved."""

    _artifact: ArtifactFolder
    _draft: Draft | None
    _summary: summary.Summary
    model_id: str | None

    def __init__(self) -> None:
        self.metadata_custom = ModelCustomMetadata()
        self.metadata_taxonomy = ModelTaxonomyMetadata()
        self.metadata_provenance = ModelProvenanceMetadata()
        self.schema_input = Schema()
        self.schema_output = Schema()
        self.runtime_info: RuntimeInfo | None = None
        self._runtime_written: dict[str, str] = {}
        self._columns: dict[str, Schema] = {}  # schemas that are not those of the tensors

    @property
    def artifact_dir(self) -> str:
        """The folder of the artifact, an absolute path as text."""
        return str(self._artifact.path)

    @property
    def local_copy_dir(self) -> str:
        """The same."""
        return self.artifact_dir

    @property
    def framework(self) -> Any:
        """The framework, by ADS's name."""
        return self.metadata_taxonomy["Framework"].value

    @property
    def algorithm(self) -> Any:
        """The class of the model."""
        return self.metadata_taxonomy["Algorithm"].value

    @property
    def version(self) -> Any:
        """The version of the framework."""
        return self.metadata_taxonomy["FrameworkVersion"].value

    @property
    def hyperparameter(self) -> Any:
        """The hyperparameters that were found."""
        return self.metadata_taxonomy["Hyperparameters"].value

    # -- fill ---------------------------------------------------------------------------------------------------

    def populate_metadata(
        self, use_case_type: str | None = None, data_sample: Any = None, X_sample: Any = None, y_sample: Any = None,
        training_script_path: str | None = None, training_id: str | None = None, ignore_pending_changes: bool = True,
        max_col_num: int = schema.MAX_COLUMNS, ignore_conda_error: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        """Set the use case, and what else is given; `prepare` finds the rest. Raises `InvalidInput`."""
        if use_case_type is not None:
            self.metadata_taxonomy["UseCaseType"].value = use_case_type
        if any(given is not None for given in (data_sample, X_sample, y_sample)):
            self.populate_schema(data_sample, X_sample, y_sample, max_col_num)
        if training_script_path is not None:
            self.metadata_provenance.training_script_path = os.path.abspath(training_script_path)
        if training_id is not None:
            self.metadata_provenance.training_id = training_id
        self._summary.done(summary.DESCRIBED)

    def populate_schema(
        self, data_sample: Any = None, X_sample: Any = None, y_sample: Any = None,
        max_col_num: int = schema.MAX_COLUMNS, **options: Any,
    ) -> None:  # fmt: skip
        """Make `schema_input` of the columns of `X_sample`, `schema_output` of those of `y_sample`: data frames,
        series, arrays of one or two dimensions, lists. `data_sample` has both as `X` and `y`."""
        if data_sample is not None:
            X_sample, y_sample = data_sample.X, data_sample.y
        self._columns |= self._schemas(X_sample, y_sample, max_col_num)
        self._show_columns()

    @staticmethod
    def _schemas(x: Any, y: Any, most: int) -> dict[str, Schema]:
        found = {}
        for name, sample in ((schema.INPUT, x), (schema.OUTPUT, y)):
            made = None if sample is None else columns.columns_of(sample, most)
            if made is not None:
                found[name] = made
            elif sample is not None:
                log.info("%s describes tensors, not columns", name)
        return found

    def _show_columns(self) -> None:
        """Set the schemas to those of columns, and write them where there is an artifact."""
        self.schema_input = self._columns.get(schema.INPUT, self.schema_input)
        self.schema_output = self._columns.get(schema.OUTPUT, self.schema_output)
        if self._columns and not self._artifact.why_not and Path(self.artifact_dir).is_dir():
            self._artifact.write_schemas(self._columns)

    def _read_artifact(self) -> None:
        """Take runtime and schemas from the artifact as it was written just now."""
        folder = self._artifact.path
        self.schema_input, self.schema_output = Schema.of(folder / schema.INPUT), Schema.of(folder / schema.OUTPUT)
        self._show_columns()
        self.reload_runtime_info()
        self._runtime_written = self.runtime_info.told() if self.runtime_info is not None else {}

    def reload_runtime_info(self) -> None:
        """Read `runtime.yaml` again. Raises `SerializationError`."""
        self.runtime_info = RuntimeInfo.of(self._artifact.path)

    def _runtime_told(self) -> dict[str, str]:
        """What `runtime.yaml` says now. Raises `InvalidInput` where `runtime_info` says something else."""
        told = RuntimeInfo.of(self._artifact.path).told()
        if self.runtime_info is not None and self.runtime_info.told() != told:
            raise InvalidInput(
                "runtime.yaml is not what runtime_info says",
                hint="runtime_info.save() writes it, reload_runtime_info() reads it",
            )
        return told

    def _know(self, manifest: Manifest, hyperparameters: Mapping[str, Any]) -> None:
        """Fill the taxonomy with what the serializers found; nothing of a folder with code, which ADS does not know."""
        main = taxonomy.main_of(manifest)
        main = {} if main.get("framework") == "generic" else main
        values = {
            "Framework": taxonomy.framework_of(main["framework"]) if main else None,
            "FrameworkVersion": main.get("framework_version") or None,
            "Algorithm": main.get("algorithm") or None,
            "Hyperparameters": hyperparameters or None,
        }
        for key, value in values.items():
            self.metadata_taxonomy[key].value = value

    # -- look ---------------------------------------------------------------------------------------------------

    def introspect(self) -> Any:
        """The checks of ADS on the artifact, as a pandas DataFrame: Test key, Test name, Result, Message."""
        self.metadata_taxonomy["ArtifactTestResults"].value = self._artifact.results()
        return self._artifact.table()

    def summary_status(self) -> Any:
        """What was done, and what is next, as a pandas DataFrame: Step, Status, Details → Actions Needed."""
        return self._summary.table()

    def update_summary_status(self, detail: str, status: str) -> None:
        """Set the status of a detail. Raises `NotFound`."""
        self._summary.set(detail, status)

    def update_summary_action(self, detail: str, action: str) -> None:
        """Say what is to be done for a detail. Raises `NotFound`."""
        self._summary.set(detail, action=action)

    def __repr__(self) -> str:
        from catalog_ads.plain import to_yaml

        folder = self._artifact.path
        files = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return to_yaml(
            {
                "algorithm": self.algorithm, "artifact_dir": {self.artifact_dir: [files]}, "framework": self.framework,
                "model_deployment_id": None, "model_id": self.model_id,
            }
        )  # fmt: skip

    # -- of a published version ---------------------------------------------------------------------------------

    def _take_from(self, version: Version) -> None:
        """What a version says: taxonomy, provenance, and the metadata that were attached to it."""
        self._know(version.manifest, version.params)
        self.metadata_taxonomy["UseCaseType"].value = version.taxonomy.get("use_case")
        self.metadata_provenance = ModelProvenanceMetadata.of(version.manifest.provenance, self.artifact_dir)
        if taxonomy.ATTACHMENT in version.attachments:
            for row in json.loads(version.attachment(taxonomy.ATTACHMENT))["data"]:
                self.metadata_custom._items[row["key"]] = ModelCustomMetadataItem.from_dict(row)
        for name, key in SCHEMAS.items():
            if key in version.attachments:
                found = Schema.from_dict(json.loads(version.attachment(key)))
                if len(found):
                    self._columns[name] = found

    def _download(self, version: Version, folder: Path, overwrite: bool) -> None:
        self._artifact.fetch(version, folder, overwrite)
        self._read_artifact()
        self._summary.done(*summary.PREPARED)
        self._summary.available(summary.VERIFIED, summary.INTROSPECTED, summary.PUBLISHED)

    def _try_download(self, version: Version, overwrite: bool) -> None:
        """Write the artifact, or keep why there is none. Raises `InvalidInput` where other files are in the way."""
        try:
            self._download(version, self._artifact.path, overwrite)
        except (InvalidInput, NotTrusted) as exc:
            folder = self._artifact.path
            if folder.exists() and any(folder.iterdir()):
                raise
            self._without_score(str(exc))

    def _without_score(self, why_not: str, told: Mapping[str, str] | None = None) -> None:
        """There is no artifact: say so, and what would be in its `runtime.yaml`."""
        self._artifact.why_not = why_not
        self._summary.set(summary.SCORE, summary.NEEDS_ACTION, why_not)
        self.runtime_info = RuntimeInfo.from_yaml(runtime.write_runtime(told or {}))
