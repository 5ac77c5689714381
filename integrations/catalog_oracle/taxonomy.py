"""Metadata by the names of ADS and of the OCI SDK, both ways, and the limits of OCI. Data and functions only.

What a version is described by (`Facts`) goes out as two lists of `Item`: the *defined* ones, whose keys are fixed, and
the *custom* ones. What the fixed keys and values cannot say (a use case such as `fast_simulation`) goes into a custom
item too, so that it comes back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs

from catalog_core import redact
from catalog_core.about import ORACLE_USE_CASES as USE_CASES
from catalog_core.errors import InvalidInput
from catalog_core.records import Manifest
from catalog_core.values import word

Style = Literal["ads", "oci"]
ATTACHMENT = "ads/metadata.json"  # of a version: custom metadata with descriptions and categories
MAX_LIST = 32_000  # bytes of one list, as JSON in UTF-16
MAX_VALUE = 16_000  # characters
MAX_DESCRIPTION = 255
MAX_KEY = 255
CATEGORIES = (
    "Performance", "Training Profile", "Training and Validation Datasets", "Training Environment", "Reports", "Readme",
    "Other",
)  # fmt: skip
# ours → (ADS, OCI SDK); the first six are those that ADS knows
KEYS = {
    "use_case": ("UseCaseType", "useCaseType"),
    "framework": ("Framework", "libraryName"),
    "framework_version": ("FrameworkVersion", "libraryVersion"),
    "algorithm": ("Algorithm", "estimatorClass"),
    "hyperparameters": ("Hyperparameters", "hyperParameters"),
    "checks": ("ArtifactTestResults", "testArtifactresults"),
    "readme": ("Readme", "readme"),
    "license": ("License", "license"),
    "deployment": ("DeploymentConfiguration", "deploymentConfiguration"),
    "fine_tuning": ("FineTuneConfiguration", "fineTuningConfiguration"),
    "evaluation": ("EvaluationConfiguration", "evaluationConfiguration"),
}
_OURS = {name.lower(): key for key, names in KEYS.items() for name in names}
# What ADS has no value for; to OCI it is `other`.
MORE_USE_CASES = (
    "generative_model", "fast_simulation", "surrogate", "inpainting", "segmentation", "tracking", "trigger",
)  # fmt: skip
FRAMEWORKS = (
    "scikit-learn", "xgboost", "tensorflow", "pytorch", "mxnet", "keras", "lightgbm", "pymc3", "pyod", "spacy",
    "prophet", "sktime", "statsmodels", "cuml", "oracle_automl", "h2o", "transformers", "nltk", "emcee", "pystan",
    "bert", "gensim", "flair", "word2vec", "ensemble", "pyspark", "embedding_onnx", "other",
)  # fmt: skip
_THEIRS = {"torch": "pytorch", "sklearn": "scikit-learn"}
_BACK = {theirs: ours for ours, theirs in _THEIRS.items()}
# Custom keys that ADS fills itself. They are read, and kept as custom items.
ADS_CUSTOM = {
    "CondaEnvironment": "Training Environment", "CondaEnvironmentPath": "Training Environment",
    "EnvironmentType": "Training Environment", "SlugName": "Training Environment",
    "ModelArtifacts": "Training Environment", "ModelSerializationFormat": "Training Profile",
    "ModelFileName": "Other", "ClientLibrary": "Other",
    "TrainingDataset": "Training and Validation Datasets", "TrainingDatasetSize": "Training and Validation Datasets",
    "TrainingDatasetNumberOfRows": "Training and Validation Datasets",
    "TrainingDatasetNumberOfCols": "Training and Validation Datasets",
    "ValidationDataset": "Training and Validation Datasets",
    "ValidationDatasetSize": "Training and Validation Datasets",
    "ValidationDatasetNumberOfRows": "Training and Validation Datasets",
    "ValidationDataSetNumberOfCols": "Training and Validation Datasets",
}  # fmt: skip
# ours, inside `provenance` → the names of OCI's model provenance
PROVENANCE = {
    ("git", "url"): "repository_url",
    ("git", "branch"): "git_branch",
    ("git", "commit"): "git_commit",
    ("script_dir",): "script_dir",
    ("script",): "training_script",
    ("run",): "training_id",
}


@attrs.frozen
class Item:
    """One entry of a list of metadata. Custom ones have a category."""

    key: str
    value: str
    description: str = ""
    category: str | None = None


@attrs.frozen
class Facts:
    """What a version is described by. `taxonomy` holds `use_case`, `framework`, `framework_version`, `algorithm`,
    `readme`, `license` and other texts (`task`, `domain`, …); `custom` is anybody's."""

    taxonomy: Mapping[str, str] = attrs.field(factory=dict)
    hyperparameters: Mapping[str, Any] = attrs.field(factory=dict)
    metrics: Mapping[str, float] = attrs.field(factory=dict)
    checks: Mapping[str, Any] = attrs.field(factory=dict)
    custom: Sequence[Item] = ()


def key_of(name: str) -> str | None:
    """Our key of a defined one of ADS or of the SDK, however it is written; None for others."""
    return _OURS.get(name.lower())


def framework_of(name: str, *, back: bool = False) -> str:
    """Their name of a framework of ours (`other` where they have none), or, `back`, ours of theirs."""
    if back:
        return _BACK.get(name, name)
    name = _THEIRS.get(name, name)
    return name if name in FRAMEWORKS else "other"


def use_case_of(name: str) -> str:
    """Their name of a use case: one of `USE_CASES`, else `other`."""
    return name if name in USE_CASES else "other"


def main_of(manifest: Manifest) -> Mapping[str, Any]:
    """What a manifest says of the estimator that it was exported from, else of its first component that a framework
    made, else of a folder with code; else nothing."""
    ads = manifest.provenance.get("ads")
    estimator = ads.get("estimator") if isinstance(ads, Mapping) else None
    if isinstance(estimator, Mapping):
        return estimator
    described: Mapping[str, Mapping[str, Any]] = manifest.description
    made = [about for about in described.values() if about.get("framework")]
    return min(made, key=lambda about: bool(about["framework"] == "generic"), default={})


def facts_of(version: Any, checks: Mapping[str, Any] | None = None) -> Facts:
    """The facts of a version (`catalog_core.handles.Version`): taxonomy, what its serializers found, metrics, tags, and
    the custom metadata that the classes of ADS attached. `checks` are results, as `introspection.as_ads` gives them."""
    described = main_of(version.manifest)
    told = {key: str(described[key]) for key in ("framework", "framework_version", "algorithm") if described.get(key)}
    custom = {key: Item(key, word(value), "", "Other") for key, value in version.tags.items()}
    if ATTACHMENT in version.attachments:
        rows = json.loads(version.attachment(ATTACHMENT))["data"]
        custom |= {row["key"]: Item(**row) for row in rows if row["key"] not in version.metrics}
    return Facts({**told, **version.taxonomy}, version.params, version.metrics, checks or {}, tuple(custom.values()))


def to_items(facts: Facts, style: Style = "ads") -> tuple[list[Item], list[Item]]:
    """The defined and the custom items of facts. Raises `InvalidInput` for what is over the limits of OCI."""
    told = {key: value for key, value in facts.taxonomy.items() if value}
    said = {key: told[key] for key in KEYS if key in told}
    lost: dict[str, str] = {}
    for key, to in (("use_case", use_case_of), ("framework", framework_of)):
        if key in said:
            said[key] = to(told[key])
            if said[key] == "other" != told[key]:
                lost[key] = told[key]
    for key, value in (("hyperparameters", facts.hyperparameters), ("checks", facts.checks)):
        if value:
            said[key] = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    defined = [Item(KEYS[key][style == "oci"], said[key]) for key in KEYS if key in said]
    custom = [Item(f"catalog.{key}", lost[key], "as the catalog has it", "Other") for key in lost]
    custom += [
        Item(f"catalog.{key}", value, "as the catalog has it", "Other")
        for key, value in told.items()
        if key not in KEYS
    ]
    custom += [Item(key, repr(value), "", "Performance") for key, value in facts.metrics.items()]
    custom += [attrs.evolve(item, category=item.category or "Other", value=item.value or "NA") for item in facts.custom]
    check(defined)
    check(custom)
    return defined, custom


def from_items(defined: Iterable[Item], custom: Iterable[Item] = ()) -> Facts:
    """The facts that two lists hold, whichever names they use. `None` and `NA`, which ADS writes for nothing, are
    nothing; what cannot be read as what its key says is kept as a custom item."""
    taxonomy: dict[str, str] = {}
    texts: dict[str, Mapping[str, Any]] = {"hyperparameters": {}, "checks": {}}
    metrics: dict[str, float] = {}
    rest: list[Item] = []
    for item in defined:
        key = key_of(item.key)
        if item.value in ("", "None", "NA", "null"):
            continue
        if key in texts:
            found = _object(item.value)
            if found is None:
                rest.append(item)
            else:
                texts[str(key)] = found
        elif key is None:
            rest.append(item)
        else:
            taxonomy[key] = framework_of(item.value, back=True) if key == "framework" else item.value
    for item in custom:
        value = number(item.value) if item.category == "Performance" else None
        if item.key.startswith("catalog."):
            taxonomy[item.key.removeprefix("catalog.")] = item.value
        elif value is not None:
            metrics[item.key] = value
        elif item.value not in ("", "NA"):
            rest.append(item)
    return Facts(taxonomy, texts["hyperparameters"], metrics, texts["checks"], tuple(rest))


def check(items: Sequence[Item]) -> None:
    """Hold one list against the limits of OCI, before any network is asked. Raises `InvalidInput` with the item."""
    seen: set[str] = set()
    for item in items:
        if not 0 < len(item.key) <= MAX_KEY:
            raise InvalidInput(f"the key {item.key[:60]!r} has {len(item.key)} characters; OCI takes 1 to {MAX_KEY}")
        if item.key in seen:
            raise InvalidInput(f"the key {item.key[:60]!r} comes twice")
        seen.add(item.key)
        if len(item.value) > MAX_VALUE:
            raise InvalidInput(
                f"the value of {item.key!r} has {len(item.value):,} characters; OCI takes {MAX_VALUE:,}",
                hint="attach it as a file",
            )
        if len(item.description) > MAX_DESCRIPTION:
            raise InvalidInput(f"the description of {item.key!r} is longer than {MAX_DESCRIPTION} characters")
        if item.category is not None and item.category not in CATEGORIES:
            raise InvalidInput(
                f"{item.key!r} has the category {item.category[:60]!r}", hint=f"one of {', '.join(CATEGORIES)}"
            )
    size = len(json.dumps([attrs.asdict(item) for item in items], ensure_ascii=False).encode("utf-16", "surrogatepass"))
    if size > MAX_LIST:
        biggest = max(items, key=lambda item: len(item.value)).key
        raise InvalidInput(
            f"the metadata take {size:,} bytes; OCI takes {MAX_LIST:,}", hint=f"the largest is {biggest!r}; attach it"
        )


def provenance_to_oci(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The fields of OCI's model provenance that a version's provenance fills."""
    found: dict[str, str] = {}
    for path, name in PROVENANCE.items():
        value: Any = redact.tree(provenance)
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, str) and value:
            found[name] = value
    return found


def provenance_from_oci(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What such fields say, as a version has it."""
    found: dict[str, Any] = {}
    for path, name in PROVENANCE.items():
        value = fields.get(name)
        if isinstance(value, str) and value:
            inner = found.setdefault(path[0], {}) if len(path) == 2 else found
            inner[path[-1]] = value
    return found


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def number(text: str | None) -> float | None:
    """The finite number that a text is; else None."""
    try:
        found = float(text or "")
    except ValueError:
        return None
    return found if found - found == 0 else None
