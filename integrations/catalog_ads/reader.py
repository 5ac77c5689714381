"""An artifact of ADS, folder or zip file → what becomes a version. Nothing in it is run or unpickled."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog_ads import introspection, schema
from catalog_ads.archive import (
    MANIFEST,
    RUNTIME,
    SCORE,
    check_manifest,
    digest,
    files_of,
    read_json,
    unpack,
)
from catalog_ads.runtime import flat_runtime, read_runtime
from catalog_ads.writer import DESCRIPTION, EXAMPLE, FORMAT, HYPERPARAMETERS
from catalog_core import tensors
from catalog_core.errors import CatalogError, IntegrityError, InvalidInput, SerializationError
from catalog_core.names import check_component, check_file, check_key, check_name
from catalog_core.records import Foreign, Stored
from catalog_core.values import check_tags

MAX_EXAMPLE = 1 << 30


def read(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """What lies at `path`. One that this catalog wrote comes back as it was, component by component; of another,
    graphs and estimators of safe formats become the component `model`, and all of it the component `artifact`, which
    runs with trust only. Raises `SerializationError`, `IntegrityError` and `InvalidInput` for what is damaged."""
    folder = path
    if not path.is_dir():
        (scratch / "unpacked").mkdir()
        folder = unpack(path, scratch / "unpacked")
    files = files_of(folder)
    for name in (SCORE, RUNTIME):
        if name not in files:
            raise SerializationError(f"{path.name} is no artifact of ADS: there is no {name}", hint="`catalog plugins`")
    listed = check_manifest(folder)
    notes = [] if listed else [f"it has no {MANIFEST}: that it is whole, nobody can tell"]
    failed = [f"{check.id} ({check.cause})" for check in introspection.introspect(folder) if check.result == "failed"]
    if failed:
        notes.append(f"checks of ADS fail: {'; '.join(failed)}"[:500])
    provenance: dict[str, Any] = {"runtime": flat_runtime(read_runtime(folder))}
    attachments = {f"ads/{name}": files[name] for name in (RUNTIME, schema.INPUT, schema.OUTPUT) if name in files}
    for name in (schema.INPUT, schema.OUTPUT):
        schema.read_schema(folder / name)
    if DESCRIPTION in files:
        return _ours(folder, scratch, provenance, attachments, notes)
    return _theirs(folder, scratch, files, provenance, attachments, notes)


def _theirs(
    folder: Path, scratch: Path, files: Mapping[str, Path], provenance: Mapping[str, Any],
    attachments: Mapping[str, Path], notes: list[str],
) -> Foreign:  # fmt: skip
    components: dict[str, Any] = {}
    models = [(name, kind) for name, path in files.items() if (kind := _kind(name, path))]
    if len(models) == 1:
        name, kind = models[0]
        if kind == "onnx":
            components["model"] = files[name]
        else:
            at = _linked(scratch / "model", {f"model{files[name].suffix}": files[name]})
            components["model"] = Stored("sklearn", at)
    elif models:
        notes.append(f"it holds {len(models)} models, and does not say which is it")
    everything = _linked(scratch / "artifact", {name: path for name, path in files.items() if name != MANIFEST})
    components["artifact"] = Stored("generic", everything)
    entries = {"predict": "model", "score": "artifact"} if "model" in components else {"predict": "artifact"}
    about: dict[str, Any] = {"entry_points": entries}
    if HYPERPARAMETERS in files:
        found = read_json(files[HYPERPARAMETERS])
        about["params"] = plain_params(found if isinstance(found, dict) else {})
    return Foreign(components, about, provenance, attachments, tuple(notes), _name(folder.name))


def _kind(name: str, path: Path) -> str | None:
    """The serializer of a model file at the top of an artifact, told by how it begins."""
    if "/" in name:
        return None
    with path.open("rb") as file:
        head = file.read(8)
    if name.endswith(".onnx"):
        return "onnx"
    begins = {".skops": b"PK\x03\x04", ".ubj": b"{", ".txt": b"tree\n"}
    return "sklearn" if path.suffix in begins and head.startswith(begins[path.suffix]) else None


def _ours(
    folder: Path, scratch: Path, provenance: dict[str, Any], attachments: Mapping[str, Path], notes: list[str]
) -> Foreign:
    told = read_json(folder / DESCRIPTION)
    try:
        if told["format"] != FORMAT:
            raise SerializationError(f"{DESCRIPTION} is of format {str(told['format'])[:20]}; {FORMAT} is read here")
        components = {check_component(part["name"]): _component(folder, scratch, part) for part in told["components"]}
        points = {check_component(point["name"]): _steps(point["steps"]) for point in told["entry_points"]}
        taxonomy = {check_key(key, "taxonomy"): str(value) for key, value in told["taxonomy"].items()}
        provenance |= {
            "version": {"name": str(told["name"])[:200], "digest": str(told["digest"])[:71]},
            "provenance": dict(told["provenance"]),
        }
        about: dict[str, Any] = {"entry_points": points, "taxonomy": taxonomy, "params": plain_params(told["params"])}
        if told["example"] is not None:
            order = [str(spec["name"]) for point in told["entry_points"] for spec in point["inputs"]]
            about["example"] = _example(folder / EXAMPLE / tensors.FILE, order)
        trusted = [name for name, part in components.items() if getattr(part, "serializer", "") == "generic"]
        if trusted:  # the example would run them
            about.pop("example", None)
            notes.append(f"{', '.join(trusted)} is code: signatures and example are not taken over")
        name = _name(str(told["name"]))
    except CatalogError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as exc:
        raise SerializationError(f"{DESCRIPTION} is broken: {type(exc).__name__}: {str(exc)[:200]}") from exc
    return Foreign(components, about, provenance, attachments, tuple(notes), name)


def _steps(steps: Any) -> list[str]:
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
        raise SerializationError(f"{DESCRIPTION} has an entry point without steps")
    return steps


def _component(folder: Path, scratch: Path, part: Mapping[str, Any]) -> Any:
    """One component, its files held against their digests."""
    root = folder / check_file(part["folder"]) if part["folder"] else folder
    found: dict[str, Path] = {}
    for file in part["files"]:
        name = check_file(file["name"])
        path = root / name
        if not path.is_file():
            raise IntegrityError(f"{name[:200]!r} of component {part['name']!r} is missing")
        sha256, size = digest(path)
        if ("sha256:" + sha256, size) != (file["digest"], file["size"]):
            raise IntegrityError(f"{name[:200]!r} of component {part['name']!r} is not what {DESCRIPTION} says")
        found[name] = path
    if not found:
        raise SerializationError(f"component {part['name']!r} holds no files")
    kind, meta = str(part["serializer"]), dict(part["meta"])
    at = _linked(scratch / f"component-{part['name']}", found)
    return at if kind == "files" else Stored(kind, at, meta)


def _linked(target: Path, files: Mapping[str, Path]) -> Path:
    """A folder of these files, without copying them."""
    for name, path in files.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path.resolve(), place)
    return target


def _example(path: Path, order: list[str]) -> dict[str, Any]:
    """The inputs of the stored example, in the order in which entry points take them."""
    if not path.is_file() or path.stat().st_size > MAX_EXAMPLE:
        raise SerializationError(f"the example has no {path.name}, or too large a one")
    data = path.read_bytes()
    header = tensors.parse_header(lambda start, length: data[start : start + length], len(data))
    prefix = "input:"
    arrays = {
        entry.name.removeprefix(prefix): tensors.numpy_view(data[entry.start : entry.end], entry)
        for entry in header.entries
        if entry.name.startswith(prefix)
    }
    return {name: arrays[name] for name in dict.fromkeys([*order, *arrays]) if name in arrays}


def plain_params(told: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values among hyperparameters, as far as a version has room for them."""
    kept: dict[str, Any] = {}
    for key, value in told.items():
        try:
            check_tags({**kept, key: value}, "parameter")
        except InvalidInput:
            continue
        kept[key] = value
    return kept


def _name(text: str) -> str | None:
    """A model name that comes as near to a text as it can; None where nothing is left of it."""
    try:
        return check_name(re.sub(r"[^A-Za-z0-9._/-]+", "-", text).strip("-._/") or "model")
    except InvalidInput:
        return None
