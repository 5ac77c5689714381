"""An artifact of ADS, folder or zip file → what becomes a version. Nothing in it is run or unpickled."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
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
    names_of,
    read_json,
    unpack,
)
from catalog_ads.runtime import flat_runtime, read_runtime
from catalog_ads.writer import DESCRIPTION, EXAMPLE, FORMAT, HYPERPARAMETERS, NO_PACK
from catalog_core import examples, tensors
from catalog_core.about import DETAILS, taxonomy_of
from catalog_core.errors import CatalogError, IntegrityError, InvalidInput, NotFound, NotTrusted, SerializationError
from catalog_core.names import check_component, check_file, check_name
from catalog_core.records import Foreign, Stored
from catalog_core.values import check_tags, check_value
from catalog_doors import files as door
from catalog_doors import packed
from catalog_doors.look import PICKLED, Looked, look

MAX_EXAMPLE = 1 << 30
ASIDE = frozenset(
    [SCORE, RUNTIME, MANIFEST, HYPERPARAMETERS, schema.INPUT, schema.OUTPUT, introspection.RESULTS, "requirements.txt"]
)
MODELS = frozenset(door.ORDER) - {"npy", "npz"}  # arrays beside a model are none


def imported(path: Path, scratch: Path, unsafe: bool) -> Foreign | list[Foreign]:
    """What lies at `path`, read as an artifact of ADS; a zip file that has nothing of ADS as the archive that it is."""
    if not path.is_dir() and names_of(path).isdisjoint((SCORE, RUNTIME)):
        with suppress(NotFound):
            return packed.read(path, scratch, unsafe)
    return read(path, scratch, unsafe)


def read(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """What lies at `path`. One that this catalog wrote comes back as it was, component by component. Of another, the
    model becomes the component `model` where its format is a safe one (or `unsafe` converts it), and all of it the
    component `artifact`, which runs with trust only. Raises `SerializationError`, `IntegrityError` and `InvalidInput`
    for what is damaged."""
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
    told = flat_runtime(read_runtime(folder))
    provenance: dict[str, Any] = {"runtime": {key: value for key, value in told.items() if value != NO_PACK}}
    attachments = {f"ads/{name}": files[name] for name in (RUNTIME, schema.INPUT, schema.OUTPUT) if name in files}
    for name in (schema.INPUT, schema.OUTPUT):
        schema.read_schema(folder / name)
    if DESCRIPTION in files:
        return _ours(folder, scratch, provenance, attachments, notes)
    return _theirs(folder, scratch, unsafe, files, provenance, attachments, notes)


def _theirs(
    folder: Path, scratch: Path, unsafe: bool, files: Mapping[str, Path], provenance: Mapping[str, Any],
    attachments: Mapping[str, Path], notes: list[str],
) -> Foreign:  # fmt: skip
    looked = look({name: path.resolve() for name, path in files.items() if name not in ASIDE})
    found = _model(looked, scratch, unsafe, introspection.model_file(folder))
    found.notes[:0] = notes
    everything = _linked(scratch / "artifact", {name: path for name, path in files.items() if name != MANIFEST})
    whole = door.component("artifact.", found.objects)
    found.objects[whole] = Stored("generic", everything)
    entries = found.about.get("entry_points", {})
    found.about["entry_points"] = {**entries, "score" if "predict" in entries else "predict": whole}
    params = read_json(files[HYPERPARAMETERS]) if HYPERPARAMETERS in files else {}
    return found.foreign(
        looked, name=_name(folder.name), params=plain_params(params if isinstance(params, dict) else {}),
        provenance=provenance, attachments=attachments,
    )  # fmt: skip


def _model(looked: Looked, scratch: Path, unsafe: bool, named: str | None) -> door.Found:
    """The model that `score.py` names, else the only one of a safe format, else the only pickle; as far as it is read
    here."""
    graphs = {name: name.removesuffix(door.GRAPH) for name in looked.files if name.rpartition("/")[2] == door.GRAPH}
    models = [name for name, kind in looked.kinds.items() if kind in MODELS and name not in graphs]
    models = [*graphs, *(name for name in models if not name.startswith(tuple(graphs.values())))]
    among = [name for name in models if named and (name == named or name.startswith(named + "/"))]
    among = among or [name for name in models if looked.kinds[name] not in PICKLED] or models
    if not among:
        return door.Found()
    if len(among) > 1 and (not graphs.keys().isdisjoint(among) or len({looked.kinds[name] for name in among}) > 1):
        return door.Found(notes=[f"it holds {len(among)} models, and does not say which is it"])
    try:
        return door.model(looked, scratch, unsafe, "model", among)
    except NotTrusted as exc:
        return door.Found(notes=[f"kept in the component `artifact` only: {exc}"])


def _ours(
    folder: Path, scratch: Path, provenance: dict[str, Any], attachments: Mapping[str, Path], notes: list[str]
) -> Foreign:
    told = read_json(folder / DESCRIPTION)
    try:
        if told["format"] != FORMAT:
            raise SerializationError(f"{DESCRIPTION} is of format {str(told['format'])[:20]}; {FORMAT} is read here")
        components = {check_component(part["name"]): _component(folder, scratch, part) for part in told["components"]}
        points = {check_component(point["name"]): _steps(point["steps"]) for point in told["entry_points"]}
        taxonomy, custom = taxonomy_of(told["taxonomy"])
        provenance |= {
            "version": {"name": str(told["name"])[:200], "digest": str(told["digest"])[:71]},
            "provenance": dict(told["provenance"]),
            "environment": dict(told.get("environment", {})),
        }
        about: dict[str, Any] = {
            "entry_points": points, "taxonomy": taxonomy, "params": plain_params(told["params"]),
            "custom": {**told.get("custom", {}), **custom},
        }  # fmt: skip
        if told["example"] is not None:
            order = {
                check_component(point["name"]): [str(spec["name"]) for spec in point["inputs"]]
                for point in told["entry_points"]
            }
            about["example"] = _example(folder / EXAMPLE / tensors.FILE, order)
            about["tensors"] = _details(told["entry_points"])
        trusted = [name for name, part in components.items() if getattr(part, "serializer", "") == "generic"]
        if trusted:  # the example would run them
            about = {key: value for key, value in about.items() if key not in ("example", "tensors")}
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


def _details(points: list[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Units, ranges and descriptions, by entry point and tensor."""
    told = {
        f"{point['name']}.{spec['name']}": {key: spec[key] for key in DETAILS if spec.get(key) is not None}
        for point in points
        for spec in (*point["inputs"], *point["outputs"])
    }
    return {name: details for name, details in told.items() if details}


def _linked(target: Path, files: Mapping[str, Path]) -> Path:
    """A folder of these files, without copying them."""
    for name, path in files.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path.resolve(), place)
    return target


def _example(path: Path, order: Mapping[str, list[str]]) -> dict[str, Any]:
    """The inputs of the stored example, in the order in which entry points take them; by entry point where some have
    their own. `order`: the names of each one's inputs."""
    if not path.is_file() or path.stat().st_size > MAX_EXAMPLE:
        raise SerializationError(f"the example has no {path.name}, or too large a one")
    data = path.read_bytes()
    header = tensors.parse_header(lambda start, length: data[start : start + length], len(data))
    arrays = {entry.name: tensors.numpy_view(data[entry.start : entry.end], entry) for entry in header.entries}
    shared, own, _ = examples.read(arrays)
    if not own:
        names = [name for inputs in order.values() for name in inputs]
        return {name: shared[name] for name in dict.fromkeys([*names, *shared]) if name in shared}
    given = {entry: {n: (own.get(entry) or shared).get(n) for n in names} for entry, names in order.items()}
    return {entry: inputs for entry, inputs in given.items() if inputs and all(a is not None for a in inputs.values())}


def plain_params(told: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values among hyperparameters, as far as a version has room for them."""
    kept: dict[str, Any] = {}
    for key, value in told.items():
        try:
            kept = check_tags({**kept, key: check_value(key, value, "parameter")}, "parameter")
        except InvalidInput:
            continue
    return kept


def _name(text: str) -> str | None:
    """A model name that comes as near to a text as it can; None where nothing is left of it."""
    try:
        return check_name(re.sub(r"[^A-Za-z0-9._/-]+", "-", text).strip("-._/") or "model")
    except InvalidInput:
        return None
