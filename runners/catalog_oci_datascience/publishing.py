"""A version as a model of OCI Data Science."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core.errors import IntegrityError, InvalidInput, NotFound
from catalog_core.shown import an
from catalog_oci_datascience import limits
from catalog_oci_datascience.archive import Packed, files, measure, pack
from catalog_oci_datascience.bucket import Bucket
from catalog_oci_datascience.options import Options
from catalog_oci_datascience.record import BY_REFERENCE, DIGEST, Item, Record, check, describe
from catalog_oci_datascience.service import Service, promised

if TYPE_CHECKING:
    from catalog_core.handles import Version

FORMAT = "ads"


@attrs.frozen
class Published:
    """What became of a publication. `how` says how the artifact went: directly, by export, by reference; or that it was
    there already."""

    ocid: str
    ref: str
    name: str
    how: str
    notes: tuple[str, ...] = ()


def note_of(compartment: str, project: str) -> str:
    """The tag under which a version notes its model in this compartment and project."""
    return f"oci_model_{hashlib.sha256(f'{compartment} {project}'.encode()).hexdigest()[:12]}"


VARIABLES = {
    "compartment": ("NB_SESSION_COMPARTMENT_OCID", "JOB_RUN_COMPARTMENT_OCID"),
    "project": ("PROJECT_OCID",),
}


def ocid_of(what: str, given: str | None) -> str:
    """The OCID of a compartment or project, as given or as a notebook session or job of OCI says. Raises
    `InvalidInput`."""
    ocid = given or next((os.environ[name] for name in VARIABLES[what] if os.environ.get(name)), "")
    if not ocid.startswith(f"ocid1.{'datascienceproject' if what == 'project' else ''}"):
        text = f"{ocid!r} is no OCID of {an(what)}" if ocid else f"no {what} is named"
        raise InvalidInput(text, hint=f"--{what} ocid1.…")
    return ocid


def publish(
    version: Version,
    *,
    compartment: str | None = None,
    project: str | None = None,
    options: Options | None = None,
    name: str | None = None,
    description: str | None = None,
    version_set: str | None = None,
    label: str | None = None,
    custom: Iterable[Item] = (),
    tags: Mapping[str, str] | None = None,
    leave_out: Collection[str] = (),
    bucket: str | None = None,
    by_reference: bool = False,
    format: str = FORMAT,
) -> Published:
    """Make the version a model of OCI Data Science, once: who is killed, or publishes again, gets the same model.

    The model is called `name` (else `calo/gan@3`); `version_set` names the set that it joins, made where there is none,
    for good, with `label` (else its number). `custom` adds metadata, `tags` free-form tags; `leave_out` names keys of
    metadata, or `input_schema`, `output_schema`, that are not sent. Artifacts over 2 GiB go through
    `bucket` (`oci://bucket@namespace/prefix`); with `by_reference`, or where they are too large for that as well, they
    stay there, and the model points at them. `format` is that of the artifact (see `Catalog.export`).

    The limits of the service are checked before it is asked anything. Raises `InvalidInput`, `ConfigError`,
    `MissingPlugin`, `NotFound`, `NoSpace`, `IntegrityError` (the artifact there is another one), `BackendError`."""
    compartment, project = ocid_of("compartment", compartment), ocid_of("project", project)
    if by_reference and bucket is None:
        raise InvalidInput("an artifact by reference needs a bucket", hint="--bucket oci://bucket@namespace/prefix")
    options = options or Options()
    record = describe(
        version, name=name, label=label or str(version.number), custom=custom, tags=tags, leave_out=leave_out,
        description=description or version.catalog.model(version.model).description,
    )  # fmt: skip
    check(record)
    service = Service(options)
    storage = Bucket(bucket, options) if bucket else None
    note = note_of(compartment, project)
    known = _known(service, version, note)
    if known is not None and service.holds(known):
        service.set_origin(known.id, dict(record.provenance))
        return Published(known.id, version.ref, known.display_name, "was there", ())
    with tempfile.TemporaryDirectory(prefix="catalog-oci-") as scratch:
        folder = Path(scratch) / "artifact"
        version.catalog.export(version, folder, format=format)
        record = record.with_schemas(folder, leave_out)
        longest = Packed(folder, 1 << 60, "=" * 24, "0" * 64)
        check(record.promising(*promised(longest), _reference_mark()))
        packed, how = _pack(folder, Path(scratch), storage, version, by_reference)
        if how == "by reference":
            record = record.promising(_reference_mark())
        record = record.promising(*promised(packed))
        model = known or service.find(version.digest, compartment, project)
        if model is None:
            group = None if version_set is None else service.version_set(version_set, compartment, project)
            model = service.create(record, compartment, project, group)
        service.set_origin(model.id, dict(record.provenance))
        if not service.holds(model):
            _send(service, model, record, packed, how, storage)
        else:
            how = "was there"
        return Published(model.id, version.ref, model.display_name, how, _noted(version, note, model.id))


def _reference_mark() -> Item:
    return Item(BY_REFERENCE, "true", "Other", "The artifact is a list of objects in a bucket.")


def _known(service: Service, version: Version, key: str) -> Any:
    """The model that the version notes, if it still is one of this version."""
    ocid = version.tags.get(key)
    if not isinstance(ocid, str):
        return None
    try:
        model = service.get(ocid)
    except NotFound:
        return None  # deleted since: it may be published again
    return model if (model.freeform_tags or {}).get(DIGEST) == version.digest else None


def _noted(version: Version, key: str, ocid: str) -> tuple[str, ...]:
    """Note the model at the version; what could not be done."""
    if version.tags.get(key) == ocid:
        return ()
    if not version.catalog.writable:
        return (f"{version.catalog.name} cannot be written: the version does not note its model",)
    version.tag(**{key: ocid})
    return ()


def _pack(
    folder: Path, scratch: Path, storage: Bucket | None, version: Version, by_reference: bool
) -> tuple[Packed, str]:
    """The file that becomes the artifact, and the way that it goes."""
    size = sum(path.stat().st_size for path in files(folder).values())
    large = InvalidInput(
        f"the artifact of {version.ref} has {size:,} bytes; more than {limits.DIRECT:,} go through a bucket",
        hint="--bucket oci://bucket@namespace/prefix",
    )
    if storage is None and size > limits.DIRECT:
        raise large  # before half a disk is filled with its zip
    if storage is None or not (by_reference or size > limits.EXPORT):
        packed = pack(folder, scratch / "artifact.zip")
        if packed.size <= limits.DIRECT:
            return packed, "directly"
        if storage is None:
            raise large
        return packed, "by export"
    objects, below = [], version.digest.removeprefix("sha256:")
    for name, path in files(folder).items():
        measured = measure(path)
        key = storage.key(below, name)
        found = {"name": key, "version": storage.put(key, measured), "sizeInBytes": measured.size}
        objects.append(found)
    prefix = storage.key(below) + "/"
    listed = {"namespace": storage.namespace, "bucketName": storage.name, "prefix": prefix, "objects": objects}
    description = scratch / "model_description.json"
    told = {"version": "1.0", "type": "modelOSSReferenceDescription", "models": [listed]}
    description.write_text(json.dumps(told, indent=2), encoding="utf-8")
    return measure(description), "by reference"


def _send(service: Service, model: Any, record: Record, packed: Packed, how: str, storage: Bucket | None) -> None:
    """Upload the artifact of a model that has none, and compare what arrived."""
    said = {item.key: item.value for item in model.custom_metadata_list or ()}
    if any(said.get(item.key) != item.value for item in promised(packed)):
        model = service.promise(model, record)  # who was cut off wrote the artifact otherwise: another release
    if how == "by export":
        assert storage is not None
        key = storage.key(f"{packed.sha256}.zip")
        storage.put(key, packed)
        service.export(model.id, storage, key)
    else:
        service.upload(model.id, packed)
    if not service.holds(model):
        raise IntegrityError(f"the service took the artifact of {model.id}, and has none now", hint="publish again")
    if how == "by export":
        assert storage is not None
        storage.delete(storage.key(f"{packed.sha256}.zip"))
