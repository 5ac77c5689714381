"""The nouns, as frozen values without I/O. Field names are those of the stored JSON (`docs/format.md`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from catalog_core.errors import CatalogError


@attrs.frozen
class TensorSpec:
    """One named input or output. `dtype` as NumPy and torch name it (`float32`, `bfloat16`), 'string' for a column of
    text, 'category' for one of `categories`; a free axis of `shape` is None or a name (axes of one name have one
    length)."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]
    unit: str | None = None
    description: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[Any, ...] | None = None

    @property
    def has_order(self) -> bool:
        """Whether its values are real numbers, of which one is the least."""
        return self.dtype not in ("string", "category") and not self.dtype.startswith("complex")


@attrs.frozen
class EntryPoint:
    """A named function of the artifact: `steps` are `component` or `component.method`, run one after the other.
    `skipped` are outputs of the last step that are left out, because they are no arrays or nobody wants them."""

    name: str
    steps: tuple[str, ...]
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    skipped: tuple[str, ...] = ()


def step_of(step: str) -> tuple[str, str]:
    """Component and method of a step; a component alone means its `forward`."""
    component, _, method = step.partition(".")
    return component, method or "forward"


@attrs.frozen
class Description:
    """What a serializer knows of an object. `tensors`: name → (dtype, shape); `parameters` counts trainable and
    fixed numbers, not buffers; `hyperparameters` can be searched as `params.*`; `import_path` (`module:Class`) says
    where the object's class was: shown to people, and never imported unless the caller trusts."""

    framework: str = ""
    framework_version: str = ""
    algorithm: str = ""
    hyperparameters: Mapping[str, Any] = attrs.field(factory=dict)
    parameters: int = 0
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] = attrs.field(factory=dict)
    import_path: str | None = None


@attrs.frozen
class File:
    """A file of a component: name, digest of all its bytes, size in bytes."""

    name: str
    digest: str
    size: int


@attrs.frozen
class Component:
    """One named part of a model, with the serializer that reads it and what that needs (`meta`)."""

    name: str
    serializer: str
    files: tuple[File, ...]
    meta: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Manifest:
    """What a version *is*: its digest names the version in every catalog. How bytes are stored is not in here."""

    components: tuple[Component, ...]
    entry_points: tuple[EntryPoint, ...] = ()
    description: Mapping[str, Any] = attrs.field(factory=dict)
    environment: Mapping[str, Any] = attrs.field(factory=dict)
    provenance: Mapping[str, Any] = attrs.field(factory=dict)
    taxonomy: Mapping[str, str] = attrs.field(factory=dict)
    example: Mapping[str, Any] | None = None
    custom: Mapping[str, Any] = attrs.field(factory=dict)
    baseline: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """The digests of files that belong to no component: the list of distributions, and the baseline."""
        return tuple(digest for digest in (self.environment.get("distributions"), self.baseline) if digest)

    def component(self, name: str) -> Component:
        """The component called `name`. Raises KeyError."""
        for component in self.components:
            if component.name == name:
                return component
        raise KeyError(name)


@attrs.frozen
class Stored:
    """A component as a serializer wrote it before: its files, in `folder`, and its `meta`. It is published as it is,
    once that serializer has read it (without trust); one that it may not read so is kept and not run."""

    serializer: str
    folder: Path
    meta: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Foreign:
    """What was found in the format of another program. `components`: name → object, `Stored`, or `Path` of a file or
    folder that is kept or, where `about` names a serializer, read; `about` are keywords of `Catalog.prepare`;
    `provenance` is what the other program knew (the version keeps it as it is); `attachments`: name → `Path` or bytes;
    `notes` say what was left behind. `name` is a model name that fits, or None; `card` is the text of a model card, or
    None."""

    components: Mapping[str, Any]
    about: Mapping[str, Any] = attrs.field(factory=dict)
    provenance: Mapping[str, Any] = attrs.field(factory=dict)
    attachments: Mapping[str, Any] = attrs.field(factory=dict)
    notes: tuple[str, ...] = ()
    name: str | None = None
    card: str | None = None


@attrs.frozen
class Check:
    """One check. `result` is passed, failed, skipped or warned; `cause` says why, where it did not pass."""

    id: str
    result: str
    seconds: float = 0.0
    cause: str = ""


def checked(name: str, ask: Callable[[], tuple[str, str]]) -> Check:
    """The check `name`, whose result and cause are what `ask` returns; an error of ours is a failure."""
    begun = time.monotonic()
    try:
        result, cause = ask()
    except CatalogError as exc:
        result, cause = "failed", str(exc)
    return Check(name, result, time.monotonic() - begun, cause)
