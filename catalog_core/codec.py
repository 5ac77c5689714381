"""Manifests ↔ JSON (cattrs). Imported on use."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import cattrs
from cattrs.gen import make_dict_unstructure_fn

from catalog_core.digests import check_digest, parse
from catalog_core.errors import IntegrityError, InvalidInput
from catalog_core.names import check_component, check_file
from catalog_core.records import Component, EntryPoint, File, Manifest, TensorSpec


@functools.cache
def converter() -> cattrs.Converter:
    """The converter of all records: unknown fields are refused, defaults are not written."""
    conv = cattrs.Converter(forbid_extra_keys=True, omit_if_default=True)
    conv.register_structure_hook(int | str | None, lambda value, _: value)
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
        manifest = converter().structure(value, Manifest)
        for component in manifest.components:
            check_component(component.name)
            for file in component.files:
                check_file(file.name)
                check_digest(file.digest)
                if file.size < 0:
                    raise IntegrityError(f"file {file.name} has a negative size")
    except (InvalidInput, cattrs.BaseValidationError, KeyError, TypeError) as exc:
        raise IntegrityError(f"the manifest cannot be read: {exc}") from exc
    return manifest
