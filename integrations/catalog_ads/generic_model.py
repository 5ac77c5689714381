"""The model classes of ADS over a catalog: a script changes its import line, and needs no account.

What ADS kept in OCI's model catalog goes into a catalog of ours: the one given as `catalog=`, else the usual one
(`CATALOG`). A model's id is then a reference such as `calo/gan@3`. Arguments that only mean something in OCI (`auth`,
`compartment_id`, timeouts, …) are accepted, and change nothing.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from catalog_ads import archive, reader, runtime, schema, summary, taxonomy
from catalog_ads.elsewhere import later, never
from catalog_ads.folder import ArtifactFolder
from catalog_ads.metadata import Metadata, MetadataItem, Table
from catalog_ads.payload import arrays, as_graph, collected, envelope, own_files, sample, slug
from catalog_ads.summary import Summary
from catalog_core import Catalog, capture
from catalog_core.errors import InvalidInput, NotFound, NotTrusted, VerificationFailed
from catalog_core.records import Description, step_of
from catalog_core.values import check_metric, check_tags

if TYPE_CHECKING:
    from catalog_core.artifact import StoredArtifact
    from catalog_core.draft import Draft
    from catalog_core.handles import Version
    from catalog_core.verify import Report

TAXONOMY = ("UseCaseType", "Framework", "FrameworkVersion", "Algorithm", "Hyperparameters", "ArtifactTestResults")
log = logging.getLogger("catalog_core")


class GenericModel:
    """A model of any kind that the catalog has a serializer for; several components as a dictionary; or, with
    `serialize=False`, the files of `artifact_dir` with a `score.py`, which is code and is trusted here: it is yours."""

    KINDS: Sequence[str] = ()  # top-level modules of the classes that it takes; any, where there are none

    def __init__(
        self,
        estimator: Any = None,
        artifact_dir: str | os.PathLike[str] | None = None,
        properties: Any = None,
        auth: Any = None,
        serialize: bool = True,
        model_save_serializer: Any = None,
        model_input_serializer: Any = None,
        *,
        catalog: Catalog | str | os.PathLike[str] | None = None,
        name: str | None = None,
    ) -> None:
        modules = {kind.__module__.partition(".")[0] for kind in type(estimator).__mro__}
        if estimator is not None and self.KINDS and not modules & set(self.KINDS):
            raise InvalidInput(
                f"{type(self).__name__} takes objects of {' or '.join(self.KINDS)}, not a {type(estimator).__name__}",
                hint="GenericModel takes what any serializer takes",
            )
        self.estimator = estimator
        self._artifact = ArtifactFolder(Path(artifact_dir or tempfile.mkdtemp(prefix="catalog-ads-")))
        self.properties = properties
        self.metadata_custom = Metadata(custom=True)
        self.metadata_taxonomy = Metadata(TAXONOMY)
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
        self._as_onnx = False
        for set_serializer, given in (
            (self.set_model_save_serializer, model_save_serializer),
            (self.set_model_input_serializer, model_input_serializer),
        ):
            if given is not None:
                set_serializer(given)

    @property
    def artifact_dir(self) -> Path:
        """The folder of the artifact."""
        return self._artifact.path

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
        force_overwrite: bool = False,
        *,
        use_case_type: str | None = None,
        X_sample: Any = None,
        training_script_path: str | None = None,
        training_id: str | None = None,
        ignore_pending_changes: bool = True,
        score_py_uri: str | None = None,
        entry_points: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Stage the model, and write the artifact to `artifact_dir`. `X_sample` is what it is run on: signatures,
        schemas and graphs come from it. `as_onnx` has its framework's converter make an ONNX graph of it.
        `entry_points` as in `Catalog.prepare`. Raises what that raises."""
        for key in options:
            log.warning("prepare: %s changes nothing here", key)
        provenance = dict(capture.provenance())
        if not ignore_pending_changes and (provenance.get("git") or {}).get("dirty"):
            raise InvalidInput("the working tree has changes that are not committed")
        trained_by = training_id or os.environ.get("JOB_RUN_OCID") or os.environ.get("NB_SESSION_OCID")
        told = {
            "inference_conda_env": inference_conda_env,
            "inference_python_version": inference_python_version,
            "training_conda_env": training_conda_env,
            "training_python_version": training_python_version,
            "training_id": trained_by,
        }
        provenance["ads"] = {"runtime": runtime.with_slugs({key: value for key, value in told.items() if value})}
        if training_script_path is not None:
            provenance["script"] = Path(training_script_path).name
        if trained_by:
            provenance["run"] = trained_by
        self._components = self._parts(model_file_name, score_py_uri, force_overwrite)
        self._about = {"provenance": provenance, "entry_points": entry_points}
        if X_sample is not None:
            self._about["example"] = sample(X_sample)
        if as_onnx or self._as_onnx:
            self._components, self._about["example"] = as_graph(self.catalog, self._components, X_sample)
        if use_case_type is not None:
            self.metadata_taxonomy["UseCaseType"].value = use_case_type
        if self._own_code:
            self._about["entry_points"] = entry_points or {"predict": "model"}
        self._stage(force_overwrite)
        return self

    @property
    def _own_code(self) -> bool:
        return not self._serialize

    def _parts(self, model_file_name: str | None, score_py_uri: str | None, overwrite: bool) -> dict[str, Any]:
        if not self._own_code:
            if self.estimator is None:
                raise InvalidInput("there is no estimator", hint="or serialize=False, with a score.py in artifact_dir")
            return dict(self.estimator) if isinstance(self.estimator, dict) else {"model": self.estimator}
        collected(self.artifact_dir, model_file_name, score_py_uri, overwrite)
        failed = self._artifact.failed("score_")
        if failed:
            raise InvalidInput(
                f"score.py in {self.artifact_dir} fails {', '.join(failed)}",
                hint="it defines load_model() and predict(data, model=load_model())",
            )
        self._scratch = tempfile.TemporaryDirectory(prefix="catalog-ads-")
        own_files(self.artifact_dir, Path(self._scratch.name))
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
        self._know(self._draft.manifest.description, dict(main.hyperparameters))
        self._summary.done(*summary.PREPARED)
        replace = overwrite or self._own_code or self.model_id is not None
        if not self._artifact.write(self._draft, reader.plain_params(main.hyperparameters), replace):
            log.warning("no score.py: %s", self._artifact.why_not)
            return
        self.metadata_taxonomy["ArtifactTestResults"].value = self._artifact.results()
        self._summary.done(summary.SCORE)

    def _usual_name(self) -> str:
        part = next(iter(self._components.values()), None)
        kind = type(self if isinstance(part, Path) or part is None else part).__name__
        return slug(kind.lower())

    def _know(self, described: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> None:
        """Fill the taxonomy with what the serializers found."""
        main = taxonomy.main_of(described)
        values = {
            "Framework": taxonomy.framework_of(main["framework"]) if main else None,
            "FrameworkVersion": main.get("framework_version") or None,
            "Algorithm": main.get("algorithm") or None,
            "Hyperparameters": hyperparameters or None,
        }
        for key, value in values.items():
            self.metadata_taxonomy[key].value = value
        self._summary.done(summary.DESCRIBED)

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
                f"a {type(given).__name__} is not used to save or send anything here",
                hint="docs/how-to/write-a-serializer.md",
            )

    get_model_serializer = never(
        "the catalog finds the serializer by the model's class", "`catalog plugins` lists them"
    )
    get_data_serializer = never("requests are JSON", "catalog_ads.payload.envelope(data) makes one")
    serialize_model = never("a model is written when it is prepared", "prepare(X_sample=…)")
    populate_schema = never("schemas are written when the model is prepared", "prepare(X_sample=…)")

    def populate_metadata(self, use_case_type: str | None = None, **options: Any) -> None:
        """Set the use case; `prepare` finds the rest."""
        if use_case_type is not None:
            self.metadata_taxonomy["UseCaseType"].value = use_case_type

    # -- look ---------------------------------------------------------------------------------------------------

    def introspect(self) -> Table:
        """The checks of ADS on the artifact."""
        return self._artifact.table()

    def summary_status(self) -> Table:
        """What was done, and what is next."""
        ready = {"prepare()"} | ({"verify()", "save()"} if self._draft is not None else set())
        if self.model_id is not None or (self._draft is not None and not self._artifact.why_not):
            ready.add("predict()")
        return self._summary.rows(ready, self._artifact.why_not)

    def update_summary_status(self, detail: str, status: str) -> None:
        """Set the status of a detail. Raises `NotFound`."""
        self._summary.set(detail, status)

    def update_summary_action(self, detail: str, action: str) -> None:
        """Say what is to be done for a detail. Raises `NotFound`."""
        self._summary.set(detail, action=action)

    def reload(self) -> Self:
        """Let go of what is loaded: the next call takes the artifact as it is then."""
        if self._session is not None:
            self._session.close()
            self._session = None
        return self

    reload_runtime_info = reload

    @property
    def runtime_info(self) -> dict[str, Any]:
        """`runtime.yaml` of the artifact."""
        return runtime.read_runtime(self.artifact_dir)

    @property
    def schema_input(self) -> dict[str, Any]:
        """`input_schema.json` of the artifact."""
        return dict(archive.read_json(self.artifact_dir / schema.INPUT))

    @property
    def schema_output(self) -> dict[str, Any]:
        """`output_schema.json` of the artifact."""
        return dict(archive.read_json(self.artifact_dir / schema.OUTPUT))

    @property
    def metadata_provenance(self) -> dict[str, str]:
        """Where the model comes from, by the names of OCI."""
        source = self._version().manifest if self._draft is None else self._draft.manifest
        return taxonomy.provenance_to_oci(source.provenance) | {"script_dir": str(self.artifact_dir)}

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

    # -- run ----------------------------------------------------------------------------------------------------

    def verify(
        self, data: Any = None, reload_artifacts: bool = True, auto_serialize_data: bool | None = None,
        *, entry: str | None = None, **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Check the model in a fresh process, and return what `score.py` answers for `data` in another. A `score.py`
        of somebody's own gets `data` as they are, unless `auto_serialize_data`; else they are put into the payload of
        ADS. Raises `VerificationFailed` with the table of checks, `SerializationError` with what `score.py` printed
        last."""
        if self._draft is not None:
            self.report = self._draft.verify(trust=self._trust)
        else:
            self.report = self.catalog.verify(self._version(), trust=self._trust)
        self._summary.set(summary.VERIFIED, "Done" if self.report.passed else "Failed")
        if not self.report.passed:
            raise VerificationFailed(f"the model fails: {self.report.reason}", report=self.report)
        return self._scored(data, entry, auto_serialize_data) if data is not None else {"prediction": None}

    def _scored(self, data: Any, entry: str | None, auto: bool | None) -> dict[str, Any]:
        code = self._holds_code()
        if code and not self._trust:
            raise NotTrusted("score.py is code that its author wrote", hint="trust=True, if you trust the author")
        return self._artifact.answer(envelope(data, entry) if (not code if auto is None else auto) else data)

    def predict(
        self, data: Any, auto_serialize_data: bool | None = None, local: bool = True, *, entry: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """What the model gives for `data`, here: there is no deployment. `entry` names another entry point than the
        usual one. A published model runs in this process, a draft in a fresh one."""
        self._summary.done(summary.CALLED)
        if self.model_id is None or self._holds_code(entry or "predict"):
            return self._scored(data, entry, auto_serialize_data)
        if self._session is None:
            self._session = self.catalog.session(self.model_id)
        points = self._session.entry_points
        if not points:
            raise NotFound(f"{self.model_id} has no entry points", hint="prepare(X_sample=…)")
        chosen = entry or ("predict" if "predict" in points else next(iter(points)))
        point = points.get(chosen)
        inputs = arrays(data, point.inputs if point is not None else ())
        if point is not None and not point.inputs:  # no example was run: the component knows the names
            name, method = step_of(point.steps[0])
            artifact = self._session._artifact
            inputs = artifact.fit(name, artifact.component(name), method, inputs)
        outputs = self._session.run(chosen, inputs)
        classes = getattr(self.estimator, "classes_", None)
        plain = {
            name: (classes[value] if name == "index" and classes is not None else value).tolist()
            for name, value in outputs.items()
        }
        return {"prediction": next(iter(plain.values())) if len(plain) == 1 else plain}

    def _holds_code(self, entry: str | None = None) -> bool:
        """Whether a component, of an entry point or at all, is somebody's own `score.py`."""
        manifest = self._version().manifest if self._draft is None else self._draft.manifest
        steps = next((point.steps for point in manifest.entry_points if point.name == entry), ())
        used = {step_of(step)[0] for step in steps} or {component.name for component in manifest.components}
        return any(component.serializer == "generic" for component in manifest.components if component.name in used)

    # -- publish ------------------------------------------------------------------------------------------------

    def save(
        self,
        display_name: str | None = None,
        description: str | None = None,
        freeform_tags: Mapping[str, Any] | None = None,
        defined_tags: Mapping[str, Mapping[str, Any]] | None = None,
        ignore_introspection: bool = False,
        model_version_set: Any = None,
        version_label: str | None = None,
        **oci: Any,
    ) -> str:
        """Publish the model; return its reference. The version set, else the display name, is the name of the model,
        in the letters that names have; the display name is its title. Custom metadata of the category Performance that
        are numbers become metrics, others tags. Raises `InvalidInput` where checks of ADS fail, and what
        `Draft.save` raises."""
        if self._draft is None:
            raise InvalidInput("nothing is prepared", hint="prepare() first")
        failed = [] if self._artifact.why_not or ignore_introspection else self._artifact.failed()
        if failed:
            raise InvalidInput(f"the artifact fails {', '.join(failed)}", hint="save(ignore_introspection=True)")
        self.metadata_custom.validate()
        use_case = self.metadata_taxonomy["UseCaseType"].value
        if (str(use_case) if use_case else None) != self._draft.taxonomy.get("use_case"):
            self._stage(True)
        draft = self._draft
        group = getattr(model_version_set, "name", model_version_set)
        draft.name = slug(str(group or display_name)) if group or display_name else draft.name
        draft.description = description or draft.description
        found = {**(freeform_tags or {})}
        found |= {f"{space}.{key}": v for space, told in (defined_tags or {}).items() for key, v in told.items()}
        if version_label is not None:
            found["version_label"] = version_label
        for item in self.metadata_custom:
            if item.is_metric():
                draft.metrics[item.key] = check_metric(item.key, item.value)
            elif isinstance(item.value, (str, bool, int, float)):
                found[item.key] = item.value
        tags = check_tags({**draft.tags, **found})
        draft.tags = {key: value for key, value in tags.items() if value is not None}
        self._summary.set(summary.INTROSPECTED, "Not Applicable" if ignore_introspection else "Done")
        version = draft.save()
        self._draft, self.model_id = None, version.ref
        for key, content in self._attachments.items():
            version = version.attach(key, content)
        if len(self.metadata_custom):
            version = version.attach(taxonomy.ATTACHMENT, self.metadata_custom.to_json().encode())
        if display_name is not None and self.catalog.model(version.model).title != display_name:
            self.catalog.model(version.model).update(title=display_name)
        self._summary.done(summary.PUBLISHED)
        return version.ref

    deploy = later(
        "deploying follows with the deployers; no plug-in does it yet",
        "`catalog export REF model.zip --format ads` makes an artifact that OCI Model Deployment takes",
    )
    prepare_save_deploy = update_deployment = restart_deployment = delete_deployment = deploy
    from_model_deployment = later("deployments follow with the deployers", "from_model_catalog(reference)")
    evaluate = later(
        "reports of evaluations follow; no plug-in makes them yet",
        'metadata_custom.add(NAME, number, category="Performance") keeps a metric, which can be searched',
    )
    model_deployment: Any = None  # there is none yet
    model_deployment_id: str | None = None

    # -- the catalog --------------------------------------------------------------------------------------------

    def _version(self) -> Version:
        if self.model_id is None:
            raise InvalidInput("the model is not saved", hint="save() first")
        return self.catalog.version(self.model_id)

    def update(self, **about: Any) -> Self:
        """Change `display_name`, `description`, `freeform_tags`. Raises `InvalidInput` for what cannot change."""
        unknown = sorted(set(about) - {"display_name", "description", "freeform_tags"})
        if unknown:
            raise InvalidInput(f"{unknown[0]!r} cannot be changed", hint="display_name, description, freeform_tags")
        version = self._version()
        told = {"title": about.get("display_name"), "description": about.get("description")}
        if any(told.values()):
            self.catalog.model(version.model).update(**{key: value for key, value in told.items() if value})
        if about.get("freeform_tags"):
            version.tag(**about["freeform_tags"])
        return self

    def delete(self, model_id: str | None = None, **options: Any) -> None:
        """Hide the version in the catalog; `catalog restore` brings it back."""
        if model_id is not None:
            self.model_id = model_id
        self._version().delete()

    def download_artifact(
        self, artifact_dir: str | os.PathLike[str] | None = None, force_overwrite: bool = False, **options: Any
    ) -> Path:
        """Write the artifact of the saved version. Raises `InvalidInput` where other files are in the way."""
        target = Path(artifact_dir) if artifact_dir is not None else self.artifact_dir
        self._artifact.fetch(self._version(), target, force_overwrite)
        return target

    def upload_artifact(self, uri: str, force_overwrite: bool = False, **options: Any) -> Path:
        """Write the zip file of the artifact to a local path. Raises `InvalidInput` for a file that exists."""
        if "://" in uri:
            raise InvalidInput(f"{uri} is no local path", hint="write it here, and copy it")
        target = Path(uri)
        if target.is_dir():
            target /= f"{slug(self._name or 'model').replace('/', '-')}.zip"
        self._artifact.pack(target, force_overwrite)
        return target

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
        *,
        force_overwrite: bool = False,
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
        found = reader.read(Path(uri), Path(scratch.name), unsafe)
        for note in found.notes:
            log.warning("%s: %s", Path(uri).name, note)
        model = cls(None, artifact_dir, catalog=catalog, name=name or found.name or "model")
        provenance = {"imported": {"format": "ads", "name": Path(uri).name, **found.provenance}}
        model._components, model._about = found.components, {**found.about, "provenance": provenance}
        model._scratch = scratch  # it may be staged again
        model._attachments = {k: v.read_bytes() if isinstance(v, Path) else v for k, v in found.attachments.items()}
        model.metadata_taxonomy["UseCaseType"].value = found.about.get("taxonomy", {}).get("use_case")
        model._draft = model.catalog.prepare(str(model._name), components=found.components, **model._about)
        model._trust = trust
        model._written(force_overwrite)
        model.estimator = model._loaded(model._draft.artifact)
        return model

    @classmethod
    def from_model_catalog(
        cls,
        model_id: str,
        model_file_name: str | None = None,
        artifact_dir: str | os.PathLike[str] | None = None,
        *,
        force_overwrite: bool = False,
        download_artifact: bool = True,
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
        model = cls(None, artifact_dir, catalog=catalog)
        version = model.catalog.version(model_id)
        model.model_id, model._name = version.ref, version.model
        model._trust = trust
        model.estimator = model._loaded(model.catalog.artifact(version))
        model._know(version.manifest.description, version.params)
        model.metadata_taxonomy["UseCaseType"].value = version.taxonomy.get("use_case")
        if taxonomy.ATTACHMENT in version.attachments:
            for row in json.loads(version.attachment(taxonomy.ATTACHMENT))["data"]:
                model.metadata_custom._items[row["key"]] = MetadataItem(**row)
        if download_artifact:
            try:
                model.download_artifact(force_overwrite=force_overwrite)
            except (InvalidInput, NotTrusted) as exc:
                if model.artifact_dir.exists() and any(model.artifact_dir.iterdir()):
                    raise
                model._artifact.why_not = str(exc)
        model._summary.done(summary.PREPARED[0], summary.PUBLISHED)
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

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model_id or 'not saved'}>"
