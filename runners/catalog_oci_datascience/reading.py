"""Models of OCI Data Science: listed, and pulled into a catalog."""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core.errors import IntegrityError, InvalidInput, InvalidName, NotFound
from catalog_core.names import check_file, check_name
from catalog_oci_datascience import limits, publishing
from catalog_oci_datascience.archive import unpack
from catalog_oci_datascience.bucket import Bucket
from catalog_oci_datascience.options import Options
from catalog_oci_datascience.publishing import FORMAT, note_of
from catalog_oci_datascience.record import BY_REFERENCE, DIGEST, REFERENCE, about, metadata_of
from catalog_oci_datascience.service import Service

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.handles import Version

DESCRIPTION = 16 << 20  # bytes of a list of objects


@attrs.frozen
class Listed:
    """A model of the service. `reference` and `digest` are those of our version, where we published it."""

    ocid: str
    name: str
    state: str
    created: str
    created_by: str
    version_set: str | None
    label: str | None
    reference: str | None
    digest: str | None


def models(
    *, compartment: str | None = None, project: str | None = None, options: Options | None = None, limit: int = 1000
) -> list[Listed]:
    """The newest `limit` models of a compartment, or of one project in it, that are not deleted. Raises `ConfigError`,
    `NotFound`, `BackendError`."""
    where = publishing.ocid_of("compartment", compartment)
    found: list[Listed] = []
    for m in Service(options or Options()).list(where, project):
        if len(found) == limit:
            break
        tags: Mapping[str, str] = m.freeform_tags or {}
        created = m.time_created.isoformat(timespec="seconds")
        found.append(
            Listed(
                m.id, m.display_name, m.lifecycle_state, created, m.created_by, m.model_version_set_name,
                m.version_label, tags.get(REFERENCE), tags.get(DIGEST),
            )
        )  # fmt: skip
    return found


def pull(
    catalog: Catalog,
    ocid: str,
    name: str | None = None,
    *,
    options: Options | None = None,
    bucket: str | None = None,
    format: str = FORMAT,
    unsafe: bool = False,
) -> Version:
    """Publish a model of the service in a catalog, under `name`, the name it had there when we published it, or one
    like its own; a version that came from it, or became it, is returned as it is (unless files of it
    were kept unread and `unsafe` may convert them now). What the service knows of the model
    (taxonomy, metrics, provenance, tags) comes along. `bucket` is needed for more than 2 GiB; `format` reads the
    artifact, and `unsafe` lets it convert pickles (see `Catalog.import_`). Raises `NotFound`, `IntegrityError`,
    `NotTrusted`, `InvalidInput`, `MissingPlugin`, `BackendError`."""
    options = options or Options()
    service = Service(options)
    model = service.get(ocid)
    key = note_of(model.compartment_id, model.project_id)
    for version in catalog.search(f'tags.{key} = "{ocid}"', limit=100):
        if (name is None or version.model == name) and not (unsafe and _left_unread(version)):
            return version
    chosen = check_name(name or _name(model))
    ours = _ours(catalog, chosen, model)
    if ours is not None:
        return ours.tag(**{key: ocid}) if catalog.writable else ours
    known = about(model, service.origin(ocid), {key: ocid})
    if unsafe:
        known["provenance"]["oci"]["unsafe"] = True
    with tempfile.TemporaryDirectory(prefix="catalog-oci-") as scratch:
        folder = Path(scratch) / chosen.rpartition("/")[2]
        folder.mkdir()
        _fetch(service, model, folder, Path(scratch), Bucket(bucket, options) if bucket else None, options)
        (version,) = catalog.import_(folder, chosen, format=format, unsafe=unsafe, **known)
    if model.description and not catalog.model(chosen).description:  # it describes all versions, as the catalog has it
        catalog.model(chosen).update(description=model.description)
    return version


def _left_unread(version: Version) -> bool:
    """Whether a version was pulled without `unsafe`, and some of its files are kept as they are."""
    oci = version.manifest.provenance.get("oci")
    kept = any(component.serializer == "files" for component in version.manifest.components)
    return isinstance(oci, Mapping) and not oci.get("unsafe") and kept


def _ours(catalog: Catalog, name: str, model: Any) -> Version | None:
    """The version of this catalog that the model was made from, where it does not note its model."""
    digest = (model.freeform_tags or {}).get(DIGEST, "")
    try:
        return catalog.version(f"{name}@{digest}") if digest else None
    except (NotFound, InvalidInput):
        return None


def _name(model: Any) -> str:
    """The name under which we published it, or the model's own as far as it may be one."""
    reference, called = (model.freeform_tags or {}).get(REFERENCE, ""), model.display_name or ""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", called).strip("-._")[:100]
    for text in (reference.rpartition(":")[2], called, plain):  # the name of the other catalog may be any
        try:
            return check_name(text.partition("@")[0])
        except InvalidName:
            continue
    return str(model.id)


def _fetch(service: Service, model: Any, folder: Path, scratch: Path, storage: Bucket | None, options: Options) -> None:
    """The files of a model's artifact."""
    path = scratch / f"{uuid.uuid4().hex}.artifact"
    found = service.artifact(model.id)
    if found is None:
        raise NotFound(f"the model {model.id} has no artifact", hint="its publication was never finished")
    size = int(found["content-length"])
    if model.is_model_by_reference or metadata_of(model).get(BY_REFERENCE) == "true":
        if size > DESCRIPTION:
            raise IntegrityError(f"the list of objects of {model.id} has {size:,} bytes")
        service.download(model, path)
        _fetch_objects(path, model.id, folder, options)
        return
    if size > limits.DIRECT:
        if storage is None:
            raise InvalidInput(
                f"the artifact of {model.id} has {size:,} bytes; more than {limits.DIRECT:,} come through a bucket",
                hint="--bucket oci://bucket@namespace/prefix",
            )
        key = storage.key(f"{uuid.uuid4().hex}.zip")
        try:
            service.import_(model.id, storage, key)
            service.check(model, storage.get(key, path), found.get("content-md5"))
        finally:
            storage.delete(key)
    else:
        service.download(model, path)
    unpack(path, folder)


def _fetch_objects(path: Path, ocid: str, folder: Path, options: Options) -> None:
    """The objects that an artifact by reference lists."""
    try:
        listed = json.loads(path.read_bytes())["models"]
        for one in listed:
            bucket = Bucket(f"oci://{one['bucketName']}@{one['namespace']}", options)
            prefix = one.get("prefix") or ""
            for found in one["objects"]:
                name = check_file(str(found["name"]).removeprefix(prefix).lstrip("/"))
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                got = bucket.get(found["name"], target, found.get("version") or None)
                if got.size != found["sizeInBytes"]:
                    raise IntegrityError(f"{found['name']} has {got.size:,} bytes, not {found['sizeInBytes']:,}")
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        if isinstance(exc, InvalidInput):
            raise
        raise IntegrityError(f"the list of objects of {ocid} cannot be read: {type(exc).__name__}") from exc
