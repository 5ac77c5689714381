"""The model classes of ADS over a catalog: a script changes its import line, and needs no account.

What ADS kept in OCI's model catalog goes into a catalog of ours: the one given as `catalog=`, else the usual one
(`CATALOG`). A model's id is then a reference such as `calo/gan@3`. Arguments that only mean something in OCI (`auth`,
`compartment_id`, timeouts, …) are accepted, and change nothing.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from catalog_ads import reader, runtime, schema, summary, taxonomy
from catalog_ads.describing import SCHEMAS, Described
from catalog_ads.elsewhere import never
from catalog_ads.folder import ArtifactFolder
from catalog_ads.payload import (
    as_graph,
    collected,
    keepable,
    main_file,
    of_frame,
    own_files,
    place_of,
    sample,
    slug,
    tags_of,
    told_of,
)
from catalog_ads.properties import ModelProperties
from catalog_ads.provenance import ModelProvenanceMetadata
from catalog_ads.published import Published
from catalog_ads.running import Runs
from catalog_ads.summary import Summary
from catalog_core import Catalog, capture
from catalog_core.columns import is_frame
from catalog_core.errors import InvalidInput, NotTrusted
from catalog_core.records import Description
from catalog_core.shown import an

if TYPE_CHECKING:
    from catalog_core.artifact import StoredArtifact
    from catalog_core.draft import Draft
    from catalog_core.handles import Version
    from catalog_core.verify import Report

log = logging.getLogger("catalog_core")


class GenericModel(Described, Runs, Published):
    """A model of any kind that the catalog has a serializer for; several components as a dictionary; or, with
    `serialize=False`, the files of `artifact_dir` with a `score.py`, which is code and is trusted here: it is yours.
    Anything can be given; `prepare` says what cannot be kept."""

    KINDS: Sequence[str] = ()  # top-level modules of the classes that it takes; any, where there are none

    def __init__(
        self,
        estimator: Any = None,
        artifact_dir: str | os.PathLike[str] | None = None,
        properties: ModelProperties | Mapping[str, Any] | None = None,
        auth: Any = None,
        serialize: bool = True,
        model_save_serializer: Any = None,
        model_input_serializer: Any = None,
        *,
        catalog: Catalog | str | os.PathLike[str] | None = None,
        name: str | None = None,
        as_onnx: bool = False,
        **options: Any,
    ) -> None:
        self.estimator = estimator
        self._artifact = ArtifactFolder(place_of(artifact_dir))
        super().__init__()
        self.properties = (
            properties
            if isinstance(properties, ModelProperties)
            else ModelProperties.from_dict(properties)
            if properties
            else ModelProperties().with_env()
        )
        self.auth = auth
        self.model_file_name: str | None = None
        self.ignore_conda_error = False
        self.model_id: str | None = None
        self.report: Report | None = None
        self._serialize = serialize
        self._trust = not serialize
        self._session: Any = None
        self._scratch: Any = None
        self._catalog = catalog
        self._name = name
        self._about: dict[str, Any] = {}
        self._components: Mapping[str, Any] = {}
        self._draft: Draft | None = None
        self._attachments: Mapping[str, Any] = {}
        self._summary = Summary()
        self._as_onnx = as_onnx
        for set_serializer, given in (
            (self.set_model_save_serializer, model_save_serializer),
            (self.set_model_input_serializer, model_input_serializer),
        ):
            if given is not None:
                set_serializer(given)

    # -- prepare ------------------------------------------------------------------------------------------------

    @property
    def catalog(self) -> Catalog:
        """The catalog, opened on first use."""
        if not isinstance(self._catalog, Catalog):
            self._catalog = Catalog.open(self._catalog)
        return self._catalog

    def prepare(
        self,
        inference_conda_env: str | None = None,
        inference_python_version: str | None = None,
        training_conda_env: str | None = None,
        training_python_version: str | None = None,
        model_file_name: str | None = None,
        as_onnx: bool = False,
        initial_types: Any = None,
        force_overwrite: bool = False,
        namespace: str | None = None,
        use_case_type: str | None = None,
        X_sample: Any = None,
        y_sample: Any = None,
        training_script_path: str | None = None,
        training_id: str | None = None,
        ignore_pending_changes: bool = True,
        max_col_num: int = schema.MAX_COLUMNS,
        ignore_conda_error: bool = False,
        score_py_uri: str | None = None,
        *,
        entry_points: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Stage the model, and write the artifact to `artifact_dir`. `X_sample` is what it is run on: signatures,
        schemas and graphs come from it; `y_sample` describes the output's columns. `as_onnx` has its framework's
        converter make an ONNX graph of it. What `properties` hold stands in for arguments left out. `entry_points` as
        in `Catalog.prepare`. Raises what that raises, and `InvalidInput` for an object that is never pickled here."""
        for key in options:
            log.warning("prepare: %s changes nothing here", key)
        self.ignore_conda_error = ignore_conda_error
        told = {
            "inference_conda_env": inference_conda_env,
            "inference_python_version": inference_python_version,
            "training_conda_env": training_conda_env,
            "training_python_version": training_python_version,
            "training_script_path": training_script_path,
            "training_id": training_id,
        }
        self.properties.with_dict({key: value for key, value in told.items() if value is not None})
        self._about = {"provenance": self._provenance(ignore_pending_changes), "entry_points": entry_points}
        self._components = self._parts(model_file_name, score_py_uri, force_overwrite)
        if X_sample is not None:
            self._about["example"] = sample(X_sample)
        if as_onnx or self._as_onnx:
            self._about["provenance"]["ads"]["estimator"] = told_of(self.catalog, self._components)
            self._components, self._about["example"] = as_graph(self.catalog, self._components, X_sample)
        if is_frame(X_sample) and not self._own_code:
            self._about |= of_frame(self.catalog, self._components, X_sample, self._about)
        if use_case_type is not None:
            self.metadata_taxonomy["UseCaseType"].value = use_case_type
        if self._own_code:
            self._about["entry_points"] = entry_points or {"predict": "model"}
        self._columns = self._schemas(X_sample, y_sample, max_col_num)
        self._stage(force_overwrite)
        self.model_file_name = (self._own_code and model_file_name) or main_file(self._draft)
        return self

    def _provenance(self, ignore_pending_changes: bool) -> dict[str, Any]:
        provenance = dict(capture.provenance())
        if not ignore_pending_changes and (provenance.get("git") or {}).get("dirty"):
            raise InvalidInput("the working tree has changes that are not committed")
        given = self.properties
        told = {key: getattr(given, key) for key in (*runtime.INFERENCE, *runtime.TRAINING) if hasattr(given, key)}
        trained_by = given.training_id or os.environ.get("JOB_RUN_OCID") or os.environ.get("NB_SESSION_OCID")
        told["training_id"] = trained_by
        told = runtime.with_slugs({key: value for key, value in told.items() if value})
        packs = {key: value for key, value in told.items() if "_env" in key or "_python" in key}
        provenance["ads"] = {"runtime": told}
        if self.ignore_conda_error:  # it runs in a container: ADS writes no pack, and so its own checks of one fail
            provenance["ads"] = {"runtime": {k: v for k, v in told.items() if k not in packs}, "no_pack": packs}
        if given.training_script_path is not None:
            provenance["script"] = Path(given.training_script_path).name
        if trained_by:
            provenance["run"] = trained_by
        return provenance

    @property
    def _own_code(self) -> bool:
        return not self._serialize

    def _parts(self, model_file_name: str | None, score_py_uri: str | None, overwrite: bool) -> dict[str, Any]:
        folder = self._artifact.path
        if not self._own_code:
            if self.estimator is None:
                raise InvalidInput("there is no estimator", hint="or serialize=False, with a score.py in artifact_dir")
            parts = dict(self.estimator) if isinstance(self.estimator, dict) else {"model": self.estimator}
            keepable(self.catalog, parts, type(self).__name__, self.KINDS)
            return parts
        collected(folder, model_file_name, score_py_uri, overwrite)
        failed = self._artifact.failed("score_")
        if failed:
            raise InvalidInput(
                f"score.py in {folder} fails {', '.join(failed)}",
                hint="it defines load_model() and predict(data, model=load_model())",
            )
        self._scratch = tempfile.TemporaryDirectory(prefix="catalog-ads-")
        own_files(folder, Path(self._scratch.name))
        return {"model": Path(self._scratch.name)}

    def _stage(self, overwrite: bool) -> None:
        if self._draft is not None:
            self._draft.discard()
        use_case = self.metadata_taxonomy["UseCaseType"].value
        known = {key: value for key, value in self._about.get("taxonomy", {}).items() if key != "use_case"}
        about = self._about | {"taxonomy": known | ({"use_case": str(use_case)} if use_case else {})}
        if self._own_code:
            about["serializer"] = "generic"
        self._draft = self.catalog.prepare(self._name or self._usual_name(), components=self._components, **about)
        self._written(overwrite)

    def _written(self, overwrite: bool) -> None:
        """Describe what is staged, and write its artifact."""
        assert self._draft is not None
        main = next((found for found in self._draft.described.values() if found.framework), Description())
        self._know(self._draft.manifest, dict(main.hyperparameters))
        self.metadata_provenance = ModelProvenanceMetadata.of(self._draft.manifest.provenance, self.artifact_dir)
        self._summary.done(summary.RUNTIME, summary.DESCRIBED, *(() if self._own_code else (summary.SERIALIZED,)))
        self._summary.available(summary.VERIFIED, summary.PUBLISHED)
        replace = overwrite or self._own_code or self.model_id is not None
        if not self._artifact.write(self._draft, reader.plain_params(main.hyperparameters), replace):
            log.warning("no score.py: %s", self._artifact.why_not)
            ours = self._draft.manifest.provenance.get("ads") or {}
            self._without_score(self._artifact.why_not, ours.get("runtime"))
            self._show_columns()
            return
        self.metadata_taxonomy["ArtifactTestResults"].value = self._artifact.results()
        self._read_artifact()
        self._summary.done(summary.SCORE)
        if not self.ignore_conda_error:
            self._summary.available(summary.INTROSPECTED)

    def _usual_name(self) -> str:
        part = next(iter(self._components.values()), None)
        kind = type(self if isinstance(part, Path) or part is None else part).__name__
        return slug(kind.lower())

    def set_model_save_serializer(self, model_save_serializer: Any) -> None:
        """`onnx` is `prepare(as_onnx=True)`; by other names the model's class is kept as it is. Raises `InvalidInput`
        for an object."""
        self._named(model_save_serializer)
        self._as_onnx = model_save_serializer == "onnx"

    def set_model_input_serializer(self, model_input_serializer: Any) -> None:
        """Of no effect: requests are JSON. Raises `InvalidInput` for an object."""
        self._named(model_input_serializer)

    @staticmethod
    def _named(given: Any) -> None:
        if not isinstance(given, str):
            raise InvalidInput(
                f"{an(type(given).__name__)} is not used to save or send anything here",
                hint="docs/how-to/write-a-serializer.md",
            )

    get_model_serializer = never(
        "the catalog finds the serializer by the model's class", "`catalog plugins` lists them"
    )
    get_data_serializer = never("requests are JSON", "catalog_ads.payload.envelope(data) makes one")
    serialize_model = never("a model is written when it is prepared", "prepare(X_sample=…)")

    # -- publish ------------------------------------------------------------------------------------------------

    def save(
        self,
        bucket_uri: str | None = None,
        defined_tags: Mapping[str, Mapping[str, Any]] | None = None,
        description: str | None = None,
        display_name: str | None = None,
        freeform_tags: Mapping[str, Any] | None = None,
        ignore_introspection: bool = False,
        model_version_set: Any = None,
        overwrite_existing_artifact: bool = True,
        parallel_process_count: int | None = None,
        remove_existing_artifact: bool = True,
        reload: bool = True,
        version_label: str | None = None,
        model_by_reference: bool = False,
        **oci: Any,
    ) -> str:
        """Publish the model; return its reference. The version set, else the display name, is the name of the model,
        in the letters that names have; the display name is its title. Custom metadata of the category Performance that
        are numbers become metrics, others tags. What says where OCI keeps it is of no effect. Raises `InvalidInput`
        where checks of ADS fail, and what `Draft.save` raises."""
        if self._draft is None:
            raise InvalidInput("nothing is prepared", hint="prepare() first")
        skipped = ignore_introspection or self.ignore_conda_error
        failed = [] if self._artifact.why_not or skipped else self._artifact.failed()
        if failed:
            raise InvalidInput(f"the artifact fails {', '.join(failed)}", hint="save(ignore_introspection=True)")
        self.metadata_custom.validate()
        self._stage_again()
        draft = self._draft
        group = getattr(model_version_set, "name", model_version_set)
        draft.name = slug(str(group or display_name)) if group or display_name else draft.name
        draft.description = description or draft.description
        metrics, draft.tags = tags_of(self.metadata_custom, draft.tags, freeform_tags, defined_tags, version_label)
        draft.metrics.update(metrics)
        self._summary.set(summary.INTROSPECTED, "Not Applicable" if skipped else "Done")
        version = draft.save()
        self._draft, self.model_id = None, version.ref
        for key, content in self._attached().items():
            version = version.attach(key, content)
        if display_name is not None and self.catalog.model(version.model).title != display_name:
            self.catalog.model(version.model).update(title=display_name)
        self._summary.done(summary.PUBLISHED)
        self._summary.available(summary.CALLED)
        return version.ref

    def _stage_again(self) -> None:
        """Stage once more what was changed since: the use case, and `runtime.yaml`."""
        assert self._draft is not None
        use_case = self.metadata_taxonomy["UseCaseType"].value
        changed = (str(use_case) if use_case else None) != self._draft.taxonomy.get("use_case")
        if not self._artifact.why_not:
            told = self._runtime_told()
            if told != self._runtime_written:
                provenance = dict(self._about.get("provenance") or {})
                self._about["provenance"] = {**provenance, "ads": {**(provenance.get("ads") or {}), "runtime": told}}
                changed = True
        if changed:
            self._stage(True)

    def _attached(self) -> dict[str, Any]:
        """What goes beside the version: what an imported artifact held, schemas of columns, custom metadata."""
        found = dict(self._attachments)
        for name, made in (
            (schema.INPUT, self.schema_input), (schema.OUTPUT, self.schema_output),
        ):  # fmt: skip
            if name in self._columns:
                found[SCHEMAS[name]] = made.to_json().encode()
        if len(self.metadata_custom):
            found[taxonomy.ATTACHMENT] = self.metadata_custom.stored()
        return found

    # -- the catalog --------------------------------------------------------------------------------------------

    def _version(self) -> Version:
        if self.model_id is None:
            raise InvalidInput("the model is not saved", hint="save() first")
        return self.catalog.version(self.model_id)

    def _loaded(self, artifact: StoredArtifact) -> Any:
        """The first component that is no code; None where all is, and is not trusted."""
        parts = artifact.manifest.components
        try:
            return artifact.load(
                next((p for p in parts if p.serializer != "generic"), parts[0]).name, trust=self._trust
            )
        except NotTrusted:
            return None

    @classmethod
    def from_model_artifact(
        cls,
        uri: str | os.PathLike[str],
        model_file_name: str | None = None,
        artifact_dir: str | os.PathLike[str] | None = None,
        auth: Any = None,
        force_overwrite: bool = False,
        properties: ModelProperties | Mapping[str, Any] | None = None,
        ignore_conda_error: bool = False,
        *,
        catalog: Any = None,
        name: str | None = None,
        trust: bool = False,
        unsafe: bool = False,
        **options: Any,
    ) -> Self:
        """A prepared model from an artifact, folder or zip file; `estimator` is its first component, or None where
        that is code. `trust` lets the artifact's own code run, `unsafe` has a pickle converted. Raises what
        `catalog import` raises."""
        scratch = tempfile.TemporaryDirectory(prefix="catalog-ads-")
        source = Path(uri).expanduser()
        found = reader.read(source, Path(scratch.name), unsafe)
        for note in found.notes:
            log.warning("%s: %s", source.name, note)
        model = cls(None, artifact_dir, properties, auth, catalog=catalog, name=name or found.name or "model")
        provenance = {"imported": {"format": "ads", "name": source.name, **found.provenance}}
        model._components, model._about = found.components, {**found.about, "provenance": provenance}
        model._scratch = scratch  # it may be staged again
        model._attachments = {k: v.read_bytes() if isinstance(v, Path) else v for k, v in found.attachments.items()}
        model.metadata_taxonomy["UseCaseType"].value = found.about.get("taxonomy", {}).get("use_case")
        model.ignore_conda_error = ignore_conda_error
        model._draft = model.catalog.prepare(str(model._name), components=found.components, **model._about)
        model._trust = trust
        model._written(force_overwrite or source.resolve() == model._artifact.path.resolve())
        model.model_file_name = model_file_name or main_file(model._draft)
        model.estimator = model._loaded(model._draft.artifact)
        model._summary.from_artifact(bool(options.get("reload", False)), without_score=bool(model._artifact.why_not))
        return model

    @classmethod
    def from_model_catalog(
        cls,
        model_id: str,
        model_file_name: str | None = None,
        artifact_dir: str | os.PathLike[str] | None = None,
        auth: Any = None,
        force_overwrite: bool = False,
        properties: ModelProperties | Mapping[str, Any] | None = None,
        bucket_uri: str | None = None,
        remove_existing_artifact: bool = True,
        ignore_conda_error: bool = False,
        download_artifact: bool = True,
        *,
        catalog: Any = None,
        trust: bool = False,
        **options: Any,
    ) -> Self:
        """A saved model by its reference; `estimator` is its first component, or None where that is code. `trust` lets
        code of its author run. Raises `NotFound`."""
        if model_id.startswith("ocid1."):
            raise InvalidInput(
                f"{model_id[:40]}… is an id of OCI, this is a catalog of yours", hint="a reference such as calo/gan@3"
            )
        model = cls(None, artifact_dir, properties, auth, catalog=catalog)
        version = model.catalog.version(model_id)
        model.model_id, model._name = version.ref, version.model
        model._trust, model.ignore_conda_error = trust, ignore_conda_error
        model.estimator = model._loaded(model.catalog.artifact(version))
        model._take_from(version)
        if download_artifact:
            model._try_download(version, force_overwrite)
        model.model_file_name = model_file_name or main_file(version)
        model._summary.from_catalog(download_artifact, ignore_conda_error, without_score=bool(model._artifact.why_not))
        return model

    @classmethod
    def from_id(cls, ocid: str, **options: Any) -> Self:
        """As `from_model_catalog`."""
        return cls.from_model_catalog(ocid, **options)

    def close(self) -> None:
        """Discard what was not saved, and release what was loaded."""
        self.reload()
        if self._draft is not None:
            self._draft.discard()
