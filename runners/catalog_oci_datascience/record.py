"""What OCI's record of a model says of a version, the limits of the service, and the way back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core import redact
from catalog_core.about import taxonomy_of
from catalog_core.errors import InvalidInput
from catalog_core.values import check_tags, check_value
from catalog_oracle.taxonomy import (
    CATEGORIES,
    KEYS,
    MAX_DESCRIPTION,
    MAX_KEY,
    MAX_LIST,
    MAX_VALUE,
    framework_of,
    main_of,
    number,
    use_case_of,
)

if TYPE_CHECKING:
    from catalog_core.handles import Version

# Limits beside those of metadata: those documented for every resource, and for schemas.
MAX_SCHEMA = 32_000  # bytes
MAX_NAME = 255
MAX_TAGS, MAX_TAG_KEY, MAX_TAG = 10, 100, 256
# Oracle's client writes the first name, the service's documentation says the second: both are read.
NAMES = {second: first for first, second in KEYS.values()}
DIGEST, REFERENCE = "catalog_digest", "catalog_reference"  # free-form tags: a listing shows them
SHA256, MD5, SIZE = "CatalogArtifactSHA256", "CatalogArtifactMD5", "CatalogArtifactSize"
BY_REFERENCE = "modelDescription"
# What is written about a version by itself, and need not be kept when it comes back.
OURS = frozenset([
    "CatalogReference", "CatalogDigest", "CatalogId", "ClientLibrary", "Components", "Parameters", "Parents",
    "TrainingCommand", "GitDirty", "GitDiff", "Python", "Platform", "GPU", "Seed", SHA256, MD5, SIZE, BY_REFERENCE,
])  # fmt: skip
SCHEMAS = ("input_schema", "output_schema")


@attrs.frozen
class Item:
    """One item of a model's metadata. `category` is one of `CATEGORIES`, None for those that OCI defines."""

    key: str
    value: str
    category: str | None = "Other"
    description: str = ""


@attrs.frozen
class Record:
    """What is sent to the service beside the artifact."""

    name: str
    description: str | None
    tags: Mapping[str, str]
    custom: tuple[Item, ...]
    defined: tuple[Item, ...]
    provenance: Mapping[str, str]
    label: str | None = None
    input_schema: str | None = None
    output_schema: str | None = None

    def with_schemas(self, folder: Path, leave_out: Collection[str]) -> Record:
        """With the schemas and the test results that an artifact in `folder` holds."""
        texts = {name: None if name in leave_out else _text(folder / f"{name}.json") for name in SCHEMAS}
        tests = None if "ArtifactTestResults" in leave_out else _text(folder / "test_json_output.json")
        defined = self.defined if tests is None else (*self.defined, Item("ArtifactTestResults", tests, None))
        return attrs.evolve(
            self, defined=defined, input_schema=texts["input_schema"], output_schema=texts["output_schema"]
        )

    def promising(self, *items: Item) -> Record:
        """With more custom metadata, in place of items of the same keys."""
        keys = {item.key for item in items}
        return attrs.evolve(self, custom=(*(item for item in self.custom if item.key not in keys), *items))


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def describe(
    version: Version,
    *,
    name: str | None = None,
    description: str | None = None,
    label: str | None = None,
    custom: Iterable[Item] = (),
    tags: Mapping[str, str] | None = None,
    leave_out: Collection[str] = (),
) -> Record:
    """What the catalog knows of a version, in OCI's words."""
    manifest, summary = version.manifest, version.summary
    provenance, environment = redact.tree(manifest.provenance), manifest.environment
    git: Mapping[str, Any] = provenance.get("git") or {}
    main = main_of(manifest)
    framework = str(summary.get("framework") or main.get("framework") or "")
    reference = f"{version.catalog.name}:{version.ref}"
    command = provenance.get("command") or []
    found = [  # and OURS below
        Item("CatalogReference", reference, "Other", "The version in the catalog that published it."),
        Item(
            "CatalogDigest", version.digest, "Other", "The digest of the version's manifest, the same in every catalog."
        ),
        Item("CatalogId", version.catalog.id, "Other", "The catalog that published it."),
        Item("ClientLibrary", "catalog-core", "Other"),
        Item("Components", ", ".join(f"{c.name} ({c.serializer})" for c in manifest.components), "Training Profile"),
        Item("Parameters", _word(summary.get("parameters")), "Training Profile", "Trainable and fixed numbers."),
        Item("Parents", ", ".join(provenance.get("parents") or ()), "Training Profile", "Versions it was made from."),
        Item("TrainingCommand", " ".join(map(str, command)), "Training Profile"),
        Item("GitDirty", _word(git.get("dirty")), "Training Profile", "Whether the working tree had changes."),
        Item("GitDiff", _word(git.get("diff")), "Training Profile", "The digest of those changes."),
        Item("Python", _word(environment.get("python")), "Training Environment"),
        Item("Platform", _word(environment.get("platform")), "Training Environment"),
        Item("GPU", _word(environment.get("gpu")), "Training Environment"),
        Item("Seed", _word(provenance.get("seed")), "Training Profile"),
        *_data_sets(provenance.get("datasets") or {}),
        *(Item(key, _word(value), "Performance") for key, value in version.metrics.items()),
        *(Item(f"taxonomy.{key}", _word(value)) for key, value in version.taxonomy.items()),
        *(Item(f"tag.{key}", _word(value)) for key, value in version.tags.items() if not key.startswith("oci_model_")),
        *_own(manifest.custom),
        *custom,
    ]
    defined = [
        Item("UseCaseType", _listed(_use_case(version.taxonomy), use_case_of), None),
        Item("Framework", _listed(framework, framework_of), None),
        Item("FrameworkVersion", _word(main.get("framework_version")), None),
        Item("Algorithm", _word(summary.get("algorithm") or main.get("algorithm")), None),
        Item("Hyperparameters", json.dumps(version.params, sort_keys=True) if version.params else "", None),
    ]
    origin = {
        "repository_url": git.get("url"), "git_branch": git.get("branch"), "git_commit": git.get("commit"),
        "training_script": provenance.get("script"), "training_id": _resource(provenance.get("run")),
    }  # fmt: skip
    return Record(
        name=name or version.ref,
        description=description,
        tags={DIGEST: version.digest, REFERENCE: reference, **(tags or {})},
        custom=tuple(item for item in found if item.value and item.key not in leave_out),
        defined=tuple(item for item in defined if item.value and item.key not in leave_out),
        provenance={key: str(value) for key, value in origin.items() if value},
        label=label,
    )


def _data_sets(given: Mapping[str, Mapping[str, Any]]) -> Iterable[Item]:
    """Data sets by name, as provenance has them: reference, digest, size, description."""
    for name, about in given.items():
        told = {key: value for key, value in about.items() if key != "description"}
        description = str(about.get("description") or "")
        yield Item(f"dataset.{name}", _word(told), "Training and Validation Datasets", description)


def _own(given: Mapping[str, Mapping[str, Any]]) -> Iterable[Item]:
    """Metadata of the version's own: value, and perhaps a category, in OCI's words where it has such a one."""
    words = {category.lower(): category for category in CATEGORIES}
    for key, item in given.items():
        category = words.get(str(item.get("category") or "").lower(), "Other")
        yield Item(key, _word(item["value"]), category, str(item.get("description") or ""))


def _resource(run: Any) -> str | None:
    """The OCID of the job or session that trained, among the ids of a run."""
    ids = run.values() if isinstance(run, Mapping) else [run]
    return next((str(one) for one in ids if str(one).startswith("ocid1.")), None)


def _word(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _use_case(taxonomy: Mapping[str, Any]) -> str:
    plain = {re.sub("[^a-z]", "", key.lower()): str(value) for key, value in taxonomy.items()}
    return plain.get("usecase") or plain.get("usecasetype") or ""


def _listed(value: str, name_of: Callable[[str], str]) -> str:
    """The value as the service's list has it; nothing stays nothing."""
    return name_of(value.lower().replace(" ", "_")) if value else ""


def check(record: Record) -> None:
    """Refuse what the service would refuse. Raises `InvalidInput` that names the key."""
    _short("the name", record.name, MAX_NAME)
    _short("the version label", record.label or "", MAX_NAME)
    for what, items in (("custom", record.custom), ("defined", record.defined)):
        seen: set[str] = set()
        for item in items:
            if not 0 < len(item.key) <= MAX_KEY or item.key != item.key.strip() or not item.key.isprintable():
                raise InvalidInput(
                    f"metadata key {item.key[:80]!r} is not allowed: 1 to {MAX_KEY} printable characters, "
                    "no blanks at the ends"
                )
            if item.key.lower() in seen:
                raise InvalidInput(f"metadata key {item.key!r} is there twice", hint=_leave_out(item.key))
            seen.add(item.key.lower())
            _short(f"metadata {item.key!r}", item.value, MAX_VALUE, _leave_out(item.key))
            _short(f"the description of metadata {item.key!r}", item.description, MAX_DESCRIPTION)
            if what == "custom" and item.category not in CATEGORIES:
                raise InvalidInput(
                    f"metadata {item.key!r} has the category {item.category!r}", hint=f"one of {', '.join(CATEGORIES)}"
                )
        size = len(json.dumps([attrs.asdict(item) for item in items]).encode("utf-16"))
        if size > MAX_LIST:
            largest = max(items, key=lambda item: len(item.value)).key
            raise InvalidInput(
                f"the {what} metadata take {size:,} bytes; {MAX_LIST:,} are allowed, and {largest!r} is the largest",
                hint=_leave_out(largest),
            )
    if len(record.tags) > MAX_TAGS:
        raise InvalidInput(f"{len(record.tags)} free-form tags; {MAX_TAGS} are allowed, two of them the catalog's own")
    for key, value in record.tags.items():
        if not 0 < len(key) <= MAX_TAG_KEY or not re.fullmatch(r"[^\s.]+", key):
            raise InvalidInput(
                f"tag key {key[:80]!r} is not allowed: 1 to {MAX_TAG_KEY} characters, no dots, no blanks"
            )
        _short(f"tag {key!r}", value, MAX_TAG)
    for name in SCHEMAS:
        size = len((getattr(record, name) or "").encode())
        if size > MAX_SCHEMA:
            raise InvalidInput(f"{name} takes {size:,} bytes; {MAX_SCHEMA:,} are allowed", hint=_leave_out(name))


def _leave_out(key: str) -> str:
    return f"leave_out=[{key!r}] (--leave-out {key}) publishes without it"


def _short(what: str, text: str, limit: int, hint: str | None = None) -> None:
    if len(text) > limit:
        raise InvalidInput(f"{what} has {len(text):,} characters; OCI allows {limit:,}", hint=hint)


# -------------------------------------------------------------------------------------------------------- the way back


def metadata_of(model: Any) -> dict[str, str]:
    """The metadata of OCI's record of a model, custom and defined, under the names that Oracle's client writes."""
    found = {NAMES.get(item.key, item.key): item.value for item in model.defined_metadata_list or ()}
    found |= {item.key: item.value for item in model.custom_metadata_list or ()}
    return {key: value for key, value in found.items() if value not in (None, "", "NA")}


def about(model: Any, origin: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, Any]:
    """Keywords of `Catalog.prepare` for what OCI's record says of a model, with more `tags`. What may not be stored so
    stands in the provenance alone, which holds all of it."""
    found = metadata_of(model)
    told = {key.removeprefix("taxonomy."): value for key, value in found.items() if key.startswith("taxonomy.")}
    if "UseCaseType" in found:
        told.setdefault("use_case", found["UseCaseType"])
    taxonomy, custom = taxonomy_of(_storable(told))
    performance = {i.key: number(i.value) for i in model.custom_metadata_list or () if i.category == "Performance"}
    theirs = {key: value for key, value in (model.freeform_tags or {}).items() if key not in (DIGEST, REFERENCE)}
    theirs |= {key.removeprefix("tag."): value for key, value in found.items() if key.startswith("tag.")}
    record = {"id": model.id, "name": model.display_name, "metadata": found, "created_by": model.created_by}
    record |= {"created": str(model.time_created), "tags": dict(model.freeform_tags or {})}
    schemas = {"input_schema": model.input_schema, "output_schema": model.output_schema}
    git = {"url": "repository_url", "branch": "git_branch", "commit": "git_commit"}
    provenance: dict[str, Any] = {
        "oci": record | {key: value for key, value in schemas.items() if value},
        "git": {key: origin.get(name) for key, name in git.items()} if origin else None,
        "script": origin.get("training_script"),
        "run": {"oci": origin["training_id"]} if origin.get("training_id") else None,
    }
    return {
        "tags": _storable({**theirs, **tags}, tags),
        "metrics": _storable({key: value for key, value in performance.items() if value is not None}),
        "params": _storable(_json(found.get("Hyperparameters"))),
        "taxonomy": taxonomy,
        "custom": {**_custom(model), **custom},
        "description": model.description,
        "provenance": provenance,
    }


def _custom(model: Any) -> dict[str, dict[str, Any]]:
    """What people wrote beside a model, with category and description; the framework too, where its artifact may not
    tell it."""
    known = metadata_of(model)
    found = {
        item.key: {"value": item.value, "category": item.category or "Other", "description": item.description}
        for item in model.custom_metadata_list or ()
        if item.key in known and item.key not in OURS and not item.key.startswith(("taxonomy.", "tag.", "dataset."))
        and (item.category != "Performance" or number(item.value) is None)
    }  # fmt: skip
    if DIGEST not in (model.freeform_tags or {}):
        names = [key for key in ("Framework", "FrameworkVersion", "Algorithm") if known.get(key, "None") != "None"]
        found |= {key: {"value": known[key], "category": "Other", "description": None} for key in names}
    kept = _storable({key: item["value"] for key, item in found.items()})
    return {key: item for key, item in found.items() if key in kept}


def _storable(values: Mapping[str, Any], first: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Those of the values that the catalog takes, `first` before the others."""
    kept = dict(first)
    for key, value in values.items():
        try:
            kept = check_tags({**kept, key: check_value(key, value)})
        except InvalidInput:
            continue
    return kept


def _json(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
