"""Manifests ↔ JSON (cattrs). Imported on use."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import cattrs
from cattrs.gen import make_dict_unstructure_fn

from catalog_core.digests import check_count, check_digest, parse
from catalog_core.errors import IntegrityError, InvalidInput
from catalog_core.layout import Layout, read_layout
from catalog_core.names import check_component, check_file, check_together
from catalog_core.records import Component, EntryPoint, File, Manifest, TensorSpec
from catalog_core.shown import clean

Record = TypeVar("Record", Manifest, Component)


def _exactly(kind: type, *kinds: type) -> Any:
    """A hook that takes JSON of one type only: cattrs by itself makes 7 of 7.0, and a text of anything."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) not in (kind, *kinds):
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        return value

    return structure


def _axis(value: Any, _: Any) -> int | str | None:
    if not (value is None or type(value) is str or (type(value) is int and value >= 0)):
        raise TypeError(f"an axis cannot be {str(value)[:40]!r}")
    return value


@functools.cache
def converter(*, reasons: bool = True) -> cattrs.Converter:
    """The converter of all records: unknown fields are refused, defaults are not written. Without `reasons` it refuses
    the same, in half of the time, and does not say where."""
    conv = cattrs.Converter(forbid_extra_keys=True, omit_if_default=True, detailed_validation=reasons)
    conv.register_structure_hook(int, _exactly(int))
    conv.register_structure_hook(str, _exactly(str))
    conv.register_structure_hook(float, _exactly(float, int))
    conv.register_structure_hook(int | str | None, _axis)
    free = (Mapping[str, Any], Mapping[str, str])  # JSON already
    conv.register_unstructure_hook_func(lambda kind: kind in free, dict)
    for kind in (TensorSpec, EntryPoint, File, Component, Manifest):
        conv.register_unstructure_hook(kind, make_dict_unstructure_fn(kind, conv, _cattrs_omit_if_default=True))
    return conv


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """The stored form of a manifest, `version` 1."""
    value: dict[str, Any] = converter().unstructure(manifest)
    return {"version": 1, **value}


def manifest_of(data: bytes) -> Manifest:
    """Parse and check a stored manifest. Raises `IntegrityError`."""
    try:
        value = parse(data)
        if not isinstance(value, dict) or value.pop("version", None) != 1:
            raise IntegrityError("the manifest has a version that this release does not know")
        manifest = _structured(value, Manifest)
        if not manifest.components:
            raise IntegrityError("the manifest has no components")
        for component in (*manifest.components, *filter(None, [example_of(manifest)])):
            _check_component(component)
        if len({component.name for component in manifest.components}) < len(manifest.components):
            raise IntegrityError("the manifest has two components of one name")
        for digest in manifest.notes:
            check_digest(digest)
    except (cattrs.BaseValidationError, cattrs.StructureHandlerNotFoundError) as exc:
        told = "; ".join(cattrs.transform_error(exc, path="manifest")) if isinstance(exc, ExceptionGroup) else str(exc)
        raise IntegrityError(f"the manifest cannot be read: {clean(told[:300])}") from exc
    except (InvalidInput, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise IntegrityError(f"the manifest cannot be read: {exc}") from exc
    return manifest


def example_of(manifest: Manifest) -> Component | None:
    """The component that holds the stored example; None where there is none."""
    return None if manifest.example is None else _structured(dict(manifest.example), Component)


def _structured(value: Any, kind: type[Record]) -> Record:
    try:
        return converter(reasons=False).structure(value, kind)
    except Exception:  # once more, to say where
        return converter().structure(value, kind)


def _check_component(component: Component) -> None:
    check_component(component.name)
    for file in component.files:
        check_file(file.name)
        check_digest(file.digest)
        check_count(file.size, f"the size of file {file.name}")
    if len({file.name for file in component.files}) < len(component.files):
        raise IntegrityError(f"component {component.name!r} has two files of one name")


def check_door(manifest: Manifest, *, everywhere: bool = True) -> None:
    """What is checked when a version comes in, and not when it is read: its files can lie in one folder, and its
    components beside each other; see `names.check_together`. Raises `InvalidName`."""
    check_together([component.name for component in manifest.components], "component", everywhere=everywhere)
    for component in manifest.components:
        check_together([file.name for file in component.files], everywhere=everywhere)


def read_artifact(manifest: bytes, layout: bytes) -> tuple[Manifest, Layout]:
    """Read a stored manifest and its layout, and hold them against each other: what this refuses, no reader can load.
    Raises `IntegrityError`."""
    found, files = manifest_of(manifest), read_layout(layout)
    for component in (*found.components, *filter(None, [example_of(found)])):
        for file in component.files:
            sizes = [chunk.length for chunk in files.get(file.digest, ())]
            if not sizes or sum(sizes) != file.size:
                told = f"the layout has {sum(sizes):,}" if sizes else "the layout lacks it"
                raise IntegrityError(
                    f"file {file.name} of component {component.name!r} has {file.size:,} bytes; {told}"
                )
            if len(sizes) == 1 and files[file.digest][0].digest != file.digest:
                raise IntegrityError(f"file {file.name} is {file.digest}, and its layout has another file there")
            if len(sizes) > 1 and 0 in sizes:
                raise IntegrityError(f"the layout of file {file.name} has empty chunks")
    for note in found.notes:
        if note not in files:
            raise IntegrityError(f"the layout lacks {note}, which the manifest names")
    return found, files
