"""The model catalog of OCI Data Science, step by step. Every step may be repeated: it finds what it did before."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from catalog_core.errors import BackendError, DeadlineExceeded, IntegrityError, NotFound
from catalog_oci_datascience.archive import BLOCK, Packed
from catalog_oci_datascience.bucket import Bucket
from catalog_oci_datascience.calls import Calls
from catalog_oci_datascience.options import Options
from catalog_oci_datascience.record import DIGEST, MD5, SHA256, SIZE, Item, Record, metadata_of
from catalog_oracle.client import answer

GENERATIONS = 20  # how often a version may have been published and its model deleted again, within a day
GONE = ("DELETED", "FAILED")
PIECE = 64 << 20  # bytes of an artifact that one request asks for


class Service:
    """The models of one region, as one user sees them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._calls = Calls(options, "data_science.DataScienceClient", options.endpoint)

    # -- models -----------------------------------------------------------------------------------------------------

    def get(self, ocid: str) -> Any:
        """The model. Raises `NotFound`, also for one that was deleted."""
        model = self._look(ocid)
        if model.lifecycle_state in GONE:
            raise NotFound(f"the model {ocid} is {model.lifecycle_state.lower()}")
        return model

    def _look(self, ocid: str) -> Any:
        return self._calls(f"looking at the model {ocid}", lambda c: c.get_model(ocid)).data

    def list(self, compartment: str, project: str | None = None) -> Iterator[Any]:
        """Summaries of the models that are not deleted, newest first."""
        found = self._calls.pages(
            f"listing the models of {f'project {project} in ' if project else ''}compartment {compartment}",
            lambda c, **more: c.list_models(compartment, limit=100, sort_by="timeCreated", sort_order="DESC", **more),
            **({"project_id": project} if project else {}),
        )
        return (model for model in found if model.lifecycle_state not in GONE)

    def find(self, digest: str, compartment: str, project: str) -> Any:
        """The oldest model that holds the version with this digest, or None."""
        same = [m.id for m in self.list(compartment, project) if (m.freeform_tags or {}).get(DIGEST) == digest]
        return self.get(same[-1]) if same else None

    def create(self, record: Record, compartment: str, project: str, version_set: str | None) -> Any:
        """A model without an artifact: the one that the same call made before, by whichever process, within a day."""
        from oci.data_science.models import CreateModelDetails
        from oci.exceptions import ServiceError

        digest = record.tags[DIGEST]
        details = CreateModelDetails(
            compartment_id=compartment,
            project_id=project,
            display_name=record.name,
            description=record.description,
            freeform_tags=dict(record.tags),
            custom_metadata_list=_items(record.custom),
            defined_metadata_list=_items(record.defined),
            input_schema=record.input_schema,
            output_schema=record.output_schema,
            model_version_set_id=version_set,
            version_label=record.label if version_set else None,
        )
        what = f"creating a model in compartment {compartment} and project {project}"

        def create(token: str, client: Any) -> Any:
            return client.create_model(details, opc_retry_token=token)

        for generation in range(GENERATIONS):
            token = token_of("model", digest, compartment, project, str(generation))
            try:
                made = self._calls(what, partial(create, token), answers=(409,))
            except ServiceError as exc:
                if exc.code == "InvalidatedRetryToken":
                    continue
                found = self.find(digest, compartment, project)  # somebody was faster, with another description
                if found is not None:
                    return found
                raise self._calls.meaning(exc, what) from exc
            # a token may answer with a model that was deleted since; one that cannot be seen yet must not make another
            model = self._look(made.data.id)
            if model.lifecycle_state not in GONE:
                return model
        raise BackendError(
            f"{what}: {GENERATIONS} models of this version were deleted today", hint="try again tomorrow"
        )

    def promise(self, model: Any, record: Record) -> Any:
        """Let the record of a model that has no artifact yet name the one that comes; returns the new record."""
        from oci.data_science.models import UpdateModelDetails

        details = UpdateModelDetails(custom_metadata_list=_items(record.custom))
        self._calls(f"changing the record of {model.id}", lambda c: c.update_model(model.id, details))
        return self.get(model.id)

    def version_set(self, name: str, compartment: str, project: str) -> str:
        """The OCID of the version set of this name, made where there is none."""
        from oci.data_science.models import CreateModelVersionSetDetails
        from oci.exceptions import ServiceError

        what = f"looking for the version set {name!r}"

        def look() -> str | None:
            sets = self._calls.pages(
                what, lambda c, **more: c.list_model_version_sets(compartment, project_id=project, name=name, **more)
            )
            return next((s.id for s in sets if s.name == name and s.lifecycle_state == "ACTIVE"), None)

        found = look()
        if found is not None:
            return found
        details = CreateModelVersionSetDetails(compartment_id=compartment, project_id=project, name=name)
        token = token_of("set", name, compartment, project, uuid.uuid4().hex)
        try:
            made = self._calls(
                f"creating the version set {name!r}",
                lambda c: c.create_model_version_set(details, opc_retry_token=token),
                answers=(409,),
            )
            return str(made.data.id)
        except ServiceError as exc:
            found = look()  # its name was taken meanwhile
            if found is None:
                raise self._calls.meaning(exc, f"creating the version set {name!r}") from exc
            return found

    def origin(self, ocid: str) -> dict[str, str]:
        """The provenance that the service knows of a model; empty where it knows none."""
        from oci.exceptions import ServiceError

        try:
            found = self._calls(
                f"looking at the provenance of {ocid}", lambda c: c.get_model_provenance(ocid), answers=(404,)
            ).data
        except ServiceError:
            return {}
        names = ("repository_url", "git_branch", "git_commit", "script_dir", "training_script", "training_id")
        return {name: getattr(found, name) for name in names if getattr(found, name)}

    def set_origin(self, ocid: str, origin: dict[str, str]) -> None:
        """Record the provenance, where that was not done."""
        from oci.data_science.models import CreateModelProvenanceDetails, UpdateModelProvenanceDetails
        from oci.exceptions import ServiceError

        known = self.origin(ocid)
        if not origin or all(known.get(key) == value for key, value in origin.items()):
            return
        what = f"recording the provenance of {ocid}"
        try:
            if not known:
                made = CreateModelProvenanceDetails(**origin)
                self._calls(what, lambda c: c.create_model_provenance(ocid, made), answers=(409,))
                return
        except ServiceError:
            pass  # another process did, or our own answer was lost
        changed = UpdateModelProvenanceDetails(**{**known, **origin})
        self._calls(what, lambda c: c.update_model_provenance(ocid, changed))

    # -- artifacts --------------------------------------------------------------------------------------------------

    def artifact(self, ocid: str) -> Any:
        """The headers of a model's artifact; None where it has none."""
        from oci.exceptions import ServiceError

        what = f"looking at the artifact of {ocid}"
        try:
            return self._calls(what, lambda c: c.head_model_artifact(ocid), answers=(404,)).headers
        except ServiceError:
            return None

    def holds(self, model: Any) -> bool:
        """Whether the model has the artifact that its record promises; False where it has none. Raises `IntegrityError`
        for another one."""
        promise = metadata_of(model)
        found = self.artifact(model.id)
        if found is None:
            return False
        bad = IntegrityError(
            f"the artifact of {model.id} is not the one that was published: its record promises "
            f"{promise.get(SIZE)} bytes, sha256:{promise.get(SHA256)}",
            hint="delete that model (oci data-science model delete --model-id …), and publish the version again",
        )
        if not {SHA256, SIZE} <= promise.keys():
            raise bad
        if found.get("content-length") not in (None, promise.get(SIZE)):
            raise bad
        if found.get("content-md5") != promise.get(MD5):
            # what went through a bucket may be reported by another kind of checksum: only its bytes tell
            digest = hashlib.sha256()
            for low in range(0, int(promise[SIZE]), PIECE):
                digest.update(self._piece(model.id, low, min(low + PIECE, int(promise[SIZE]))))
            if digest.hexdigest() != promise[SHA256]:
                raise bad
        return True

    def upload(self, ocid: str, packed: Packed) -> None:
        """Send the artifact; where another process did meanwhile, that is that. Raises `NotFound` where the model is
        gone."""
        from oci.exceptions import ServiceError

        what = f"uploading the artifact of {ocid}"
        token = uuid.uuid4().hex  # of this call only: an artifact that vanished must come anew
        with packed.path.open("rb") as file:

            def send(client: Any) -> Any:
                file.seek(0)
                return client.create_model_artifact(
                    ocid,
                    file,
                    content_length=packed.size,
                    content_disposition=f'attachment; filename="{ocid}{packed.path.suffix}"',
                    opc_retry_token=token,
                )

            try:
                self._calls(
                    what, send, size=packed.size, answers=(404, 409, 412),
                    settled=lambda: self.artifact(ocid) is not None,
                )  # fmt: skip
            except ServiceError as exc:
                if exc.status == 404:
                    raise NotFound(
                        f"{what}: the model is not there any more ({answer(exc)})",
                        hint="somebody deleted it; publish again to make a new one",
                    ) from exc
                if self.artifact(ocid) is None:
                    raise self._calls.meaning(exc, what) from exc

    def export(self, ocid: str, bucket: Bucket, key: str) -> None:
        """Let the service take the artifact from a bucket (which it calls an export)."""
        from oci.data_science.models import ArtifactExportDetailsObjectStorage, ExportModelArtifactDetails

        source = ArtifactExportDetailsObjectStorage(
            namespace=bucket.namespace, source_bucket=bucket.name, source_object_name=key, source_region=bucket.region
        )
        details = ExportModelArtifactDetails(artifact_export_details=source)
        what = f"copying the artifact of {ocid} from bucket {bucket.name!r}"
        going = self._going(ocid, "EXPORT_MODEL_ARTIFACT")  # that of a process that was killed
        if going is None:
            token = uuid.uuid4().hex
            asked = self._calls(what, lambda c: c.export_model_artifact(ocid, details, opc_retry_token=token))
            going = asked.headers["opc-work-request-id"]
        self._wait(what, going)

    def import_(self, ocid: str, bucket: Bucket, key: str) -> None:
        """Let the service put the artifact into a bucket (which it calls an import)."""
        from oci.data_science.models import ArtifactImportDetailsObjectStorage, ImportModelArtifactDetails

        target = ArtifactImportDetailsObjectStorage(
            namespace=bucket.namespace,
            destination_bucket=bucket.name,
            destination_object_name=key,
            destination_region=bucket.region,
        )
        details = ImportModelArtifactDetails(artifact_import_details=target)
        what = f"copying the artifact of {ocid} to bucket {bucket.name!r}"
        # without a retry token, which it does not take: after a lost answer the same bytes are written twice
        asked = self._calls(what, lambda c: c.import_model_artifact(ocid, details))
        self._wait(what, asked.headers["opc-work-request-id"])

    def _going(self, ocid: str, kind: str) -> str | None:
        model = self.get(ocid)
        found = self._calls.pages(
            f"looking for work on {ocid}",
            lambda c, **more: c.list_work_requests(model.compartment_id, operation_type=kind, **more),
        )
        busy = ("ACCEPTED", "IN_PROGRESS")
        return next(
            (w.id for w in found if w.status in busy and any(r.identifier == ocid for r in w.resources or ())), None
        )

    def _wait(self, what: str, request: str) -> None:
        end, pause = time.monotonic() + self.options.patience, 0.2
        while True:
            status = self._calls(what, lambda c: c.get_work_request(request)).data.status
            if status == "SUCCEEDED":
                return
            if status in ("FAILED", "CANCELED", "CANCELING"):
                errors = self._calls.pages(what, lambda c, **more: c.list_work_request_errors(request, **more))
                said = "; ".join(" ".join(str(error.message).split())[:300] for error in errors) or status.lower()
                raise BackendError(f"{what}: {said} (work request {request})", backend="oci")
            if time.monotonic() > end:
                text = f"{what}: not done after {self.options.patience:g} s (work request {request} is {status})"
                raise DeadlineExceeded(text, hint="it goes on there: publish again later to see how it ended")
            time.sleep(pause)
            pause = min(pause * 1.5, 10.0)

    def download(self, model: Any, target: Path) -> None:
        """Fetch a model's artifact into a new file, piece by piece, and check it against what the service reports and
        what the record promises. Raises `NotFound`, `IntegrityError`."""
        from catalog_oci_datascience.archive import measure

        found = self.artifact(model.id)
        if found is None:
            raise NotFound(f"the model {model.id} has no artifact", hint="its publication was never finished")
        size = int(found["content-length"])
        with target.open("xb") as file:
            for low in range(0, size, PIECE):
                file.write(self._piece(model.id, low, min(low + PIECE, size)))
        self.check(model, measure(target), found.get("content-md5"))

    def check(self, model: Any, got: Packed, reported: str | None = None) -> None:
        """Hold a downloaded artifact against its model's record. Raises `IntegrityError`."""
        promise = metadata_of(model).get(SHA256)
        wrong = promise is not None and promise != got.sha256
        if wrong or (promise is None and reported is not None and reported != got.md5 and "-" not in reported):
            raise IntegrityError(
                f"the artifact of {model.id} is damaged or was changed: {got.size:,} bytes came, "
                f"sha256:{got.sha256}, where {f'sha256:{promise}' if promise else f'MD5 {reported}'} was promised"
            )

    def _piece(self, ocid: str, low: int, high: int) -> bytes:
        def ask(client: Any) -> bytes:
            found = client.get_model_artifact_content(ocid, range=f"bytes={low}-{high - 1}")
            data = b"".join(found.data.raw.stream(BLOCK, decode_content=False))
            if len(data) != high - low:
                raise ConnectionError("the answer broke off")
            return data

        data: bytes = self._calls(f"downloading the artifact of {ocid}", ask, size=high - low)
        return data


def promised(packed: Packed) -> tuple[Item, ...]:
    """What a record says of the artifact that comes, or came."""
    return Item(SHA256, packed.sha256), Item(MD5, packed.md5), Item(SIZE, str(packed.size))


def token_of(*parts: str) -> str:
    """A retry token: calls that are the same have the same, in every process."""
    return hashlib.sha256("\n".join(("catalog-core", *parts)).encode()).hexdigest()


def _items(items: tuple[Item, ...]) -> list[Any]:
    from oci.data_science.models import Metadata

    return [Metadata(key=i.key, value=i.value, category=i.category, description=i.description or None) for i in items]
