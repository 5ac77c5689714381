"""Model cards: Markdown behind a YAML head with the fields of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from catalog_core import state
from catalog_core.artifact import stored
from catalog_core.errors import InvalidInput, SerializationError
from catalog_core.show import size

if TYPE_CHECKING:
    from catalog_core.records import Component, Manifest, TensorSpec
    from catalog_core.repository import Repository
    from catalog_core.state import ModelRow, VersionRow

MAX_HEAD = 256 << 10
LIBRARIES = {"torch": "pytorch", "tensorflow": "tf-keras", "sklearn": "scikit-learn"}  # as the Hub calls them


def head(text: str) -> dict[str, Any]:
    """The fields of a card's head; empty where it has none. Raises `InvalidInput` for one that cannot be read."""
    from catalog_core.plain_yaml import read

    if not text.startswith("---\n"):
        return {}
    found, end, _ = text[4:].partition("\n---")
    if not end or len(found) > MAX_HEAD:
        raise InvalidInput("the head of the card does not end with a line of three dashes")
    try:
        fields = read(found, "the head of the card")
    except SerializationError as exc:
        raise InvalidInput(exc.message) from exc
    if fields is not None and not isinstance(fields, dict):
        raise InvalidInput("the head of the card is no mapping")
    return {str(key): value for key, value in (fields or {}).items()}


def start(repository: Repository, version: VersionRow) -> str:
    """A card to be completed by a person: what is known of the model from one version. Gaps are marked with `…`."""
    import yaml

    manifest = stored(repository.content, repository.registry, version).manifest
    summary = state.published(repository.index, version)["summary"]
    model = state.model_named(repository.index, version.name)
    assert model is not None
    provenance = manifest.provenance
    datasets = _datasets(provenance)
    framework = str(summary.get("framework") or "")
    fields: dict[str, Any] = {
        "license": "…",
        "library_name": LIBRARIES.get(framework, framework) or None,
        "tags": sorted({*manifest.taxonomy.values()}) or None,
        "datasets": [str(item.get("reference", name)) for name, item in sorted(datasets.items())] or None,
        "base_model": _parents(provenance) or None,
        "metrics": sorted(version.group("metrics")) or None,
    }
    shown = yaml.safe_dump(
        {key: value for key, value in fields.items() if value}, sort_keys=False, allow_unicode=True, width=120
    )
    return "\n".join(["---", shown.rstrip(), "---", "", *_body(model, version, manifest, provenance)]) + "\n"


def _body(model: ModelRow, version: VersionRow, manifest: Manifest, provenance: Mapping[str, Any]) -> Iterable[str]:
    what = model.description or "… what it is for, in a few sentences."
    load = f'model = Catalog.open().load("{version.ref}")'
    yield from (f"# {model.title or model.name}", "", what, "")
    yield from ("## Use", "", "```python", "from catalog_core import Catalog", "", load, "```", "")
    for point in manifest.entry_points:
        yield from (f"### {point.name}", "", "| | Name | Type | Shape | Unit | Range | |", "|---|" + "---|" * 6)
        yield from (_row("in", spec) for spec in point.inputs)
        yield from (_row("out", spec) for spec in point.outputs)
        yield ""
    yield from ("## What it is made of", "")
    about = manifest.description
    yield from (_part(component, _mapping(about.get(component.name))) for component in manifest.components)
    yield from ("", "## How it was trained", "", *_training(provenance), "- …", "", "## Results", "")
    metrics = version.group("metrics")
    if metrics:
        yield from ("| Metric | Value |", "|---|---|")
        yield from (f"| {key} | {value:g} |" for key, value in sorted(metrics.items()))
        yield ""
    yield from ("… on what data, against what.", "", "## Limits", "")
    yield "… where it must not be used, and what it does not know."


def _row(kind: str, spec: TensorSpec) -> str:
    shape = ", ".join("any" if axis is None else str(axis) for axis in spec.shape)
    known = spec.minimum is not None or spec.maximum is not None
    limits = f"{_number(spec.minimum)} to {_number(spec.maximum)}" if known else ""
    cells = (kind, f"`{spec.name}`", spec.dtype, shape, spec.unit or "", limits, spec.description or "")
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


def _part(component: Component, about: Mapping[str, Any]) -> str:
    what = " ".join(str(about[key]) for key in ("framework", "framework_version", "algorithm") if about.get(key))
    number = about.get("parameters")
    count = f", {number:,} parameters" if isinstance(number, int) and number else ""
    total = size(sum(file.size for file in component.files))
    return f"- `{component.name}`: {what or 'files'}{count}, {total} ({component.serializer})"


def _training(provenance: Mapping[str, Any]) -> Iterable[str]:
    git = provenance.get("git")
    if isinstance(git, Mapping) and git.get("commit"):
        dirty = ", with changes that were not committed" if git.get("dirty") else ""
        yield f"- Code: {git.get('url') or 'a repository'} at `{str(git['commit'])[:12]}`{dirty}"
    if provenance.get("script"):
        yield f"- Script: `{provenance['script']}`"
    for name, item in sorted(_datasets(provenance).items()):
        digest = f" (`{str(item['digest'])[:19]}`)" if item.get("digest") else ""
        yield f"- Data, {name}: {item.get('reference', '…')}{digest}"
    if provenance.get("seed") is not None:
        yield f"- Seed: {provenance['seed']}"
    yield from (f"- From: {parent}" for parent in _parents(provenance))


def _mapping(told: Any) -> Mapping[str, Any]:
    return told if isinstance(told, Mapping) else {}


def _datasets(provenance: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The data sets that provenance names; what another program put there may be of any form."""
    named = _mapping(provenance.get("datasets"))
    return {name: item if isinstance(item, Mapping) else {"reference": item} for name, item in named.items()}


def _parents(provenance: Mapping[str, Any]) -> list[str]:
    told = provenance.get("parents")
    return [parent for parent in told if isinstance(parent, str)] if isinstance(told, (list, tuple)) else []
