"""Folders in which registries and servers keep a model beside what they know of it: TorchServe, pins, modelstore,
Kedro, Weights & Biases."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve

from catalog_core.errors import CatalogError, NotFound, SerializationError
from catalog_core.names import check_name
from catalog_core.records import Foreign
from catalog_core.values import check_metric
from catalog_doors import text
from catalog_doors.files import MODELS, Found, model, rest
from catalog_doors.look import Looked, fits, look, tree
from catalog_doors.packed import inner

MAR = "MAR-INF/MANIFEST.json"
PIN = "data.txt"
_PIN_TOLD = ("title", "description", "created", "pin_hash", "type", "file", "api_version", "urls")
_MAR_TOLD = ("createdOn", "runtime", "archiverVersion")
_RUN_TOLD = ("program", "git", "python", "startedAt", "args", "codePath")


def torchserve(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """An unpacked archive of TorchServe: the file that its manifest names; handlers are kept, and never run."""
    looked = look(tree(path))
    told = _json(looked, MAR)
    about = _mapping(told.get("model"))
    named = about.get("serializedFile")
    if named is not None and named not in looked.files:
        raise NotFound(f"{MAR} names the model {str(named)[:100]!r}, which the archive does not hold")
    found = _found(looked, scratch, unsafe, [named] if named else None)
    rest(found, looked, scratch)
    version = {"torchserve_version": str(about["modelVersion"])} if about.get("modelVersion") else {}
    provenance = {**{key: told[key] for key in _MAR_TOLD if key in told}, "model": about}
    return found.foreign(
        looked,
        name=_name(about.get("modelName"), path),
        tags=text.tags(version),
        provenance=text.plain(provenance, MAR),
    )


def pins(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """A version of a pin, or the newest of a pin's folder: the file or files that `data.txt` names."""
    path, left = _newest(path, [item.parent for item in path.glob(f"*/{PIN}")], PIN)
    looked = look(tree(path))
    told = text.mapping(text.yaml(looked.text(PIN), PIN), PIN)
    names = told.get("file")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or any(name not in looked.files for name in names):
        raise SerializationError(f"{PIN} names no file that is here, as that of a pin does", hint="is it a pin's?")
    found = _found(looked, scratch, unsafe, names)
    found.notes += left
    rest(found, looked, scratch, leave=[PIN])
    words = {"pin_tags": told["tags"]} if isinstance(told.get("tags"), list) else {}
    description = next((told[key] for key in ("description", "title") if isinstance(told.get(key), str)), None)
    return found.foreign(
        looked,
        name=_name(told.get("name"), path.parent),
        tags=text.tags(words, notes=found.notes, of=PIN),
        params=text.tags(_mapping(told.get("user")), "parameter", found.notes, f"user of {PIN}"),
        description=description,
        provenance={"version": path.name, **{key: told[key] for key in _PIN_TOLD if told.get(key)}},
        attachments={PIN: looked.files[PIN]},
    )


def modelstore(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """What `modelstore download` unpacks: the model among its files, with what two files say of it and of Python."""
    looked = look(tree(path))
    about = {name: _json(looked, name) for name in ("model-info.json", "python-info.json") if name in looked.files}
    found = _found(looked, scratch, unsafe, [name for name in looked.files if name not in about])
    rest(found, looked, scratch, leave=about)
    info = about.get("model-info.json", {})
    kind = _mapping(info.get("model_type")) or info
    tags = {f"modelstore_{key}": kind[key] for key in ("library", "type") if isinstance(kind.get(key), str)}
    return found.foreign(
        looked,
        name=_name(info.get("domain"), path),
        tags=text.tags(tags),
        provenance=text.plain(about, "model-info.json"),
        attachments={name: looked.files[name] for name in about},
    )


def kedro(path: Path, scratch: Path, unsafe: bool) -> list[Foreign]:
    """A versioned data set of Kedro: the newest version, which is what Kedro loads."""
    chosen, left = _newest(path, [item for item in path.iterdir() if re.match(r"\d{4}-.*T.*Z$", item.name)], None)
    found = inner(chosen, scratch, unsafe, version=chosen.name)
    name = _name(path.name.partition(".")[0], path)
    return [evolve(each, name=name, notes=(*each.notes, *left)) for each in found]


def wandb_artifact(path: Path, scratch: Path, unsafe: bool) -> list[Foreign]:
    """An artifact as W&B downloads it: a folder `NAME:v3` with its files."""
    name, _, version = path.name.rpartition(":")
    told = {"artifact": name, "artifact_version": version}
    return [evolve(each, name=_name(name, path)) for each in inner(path, scratch, unsafe, **told)]


def wandb_run(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """The folder of a run, or `files` in it: the model that was saved there, with the run's configuration and summary.
    Raises `NotFound` where the run saved none."""
    folder = path / "files" if (path / "files" / "wandb-metadata.json").is_file() else path
    looked = look(tree(folder))
    if not any(kind in MODELS for kind in looked.kinds.values()):
        raise NotFound(
            f"{path.name} is a run of Weights & Biases that saved no model among its files",
            hint="`wandb artifact get ENTITY/PROJECT/NAME:ALIAS` fetches a model of it; import that folder",
        )
    found = _found(looked, scratch, unsafe, None)
    rest(found, looked, scratch)
    told = _json(looked, "wandb-metadata.json")
    config = text.yaml(looked.text("config.yaml"), "config.yaml") if "config.yaml" in looked.files else {}
    values = {key: value["value"] for key, value in (config if isinstance(config, dict) else {}).items()
              if isinstance(value, dict) and "value" in value and not key.startswith("_")}  # fmt: skip
    summary = _json(looked, "wandb-summary.json") if "wandb-summary.json" in looked.files else {}
    numbers = {key: value for key, value in summary.items() if not key.startswith("_")}
    metrics = {key: value for key, value in numbers.items() if fits(partial(check_metric, key), value)}
    if metrics:
        found.about["metrics"] = metrics
    run = path.name if path.name != "files" else path.parent.name
    return found.foreign(
        looked,
        name=_name(run, path),
        params=text.tags(values, "parameter", found.notes, "config.yaml"),
        provenance=text.plain(
            {"run": run, **{key: told[key] for key in _RUN_TOLD if key in told}}, "wandb-metadata.json"
        ),
    )


def kept(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """A model that nothing here reads: its files as they are, and what the scan says of them."""
    looked = look(tree(path) if path.is_dir() else {path.name: path.resolve()})
    looked.elsewhere(looked.files)
    folder = path.suffix.lower() if path.is_file() else ""
    return Found({"files": path.resolve()}).foreign(looked, name=_name(path.name.removesuffix(folder), path))


def _found(looked: Looked, scratch: Path, unsafe: bool, among: Iterable[str] | None) -> Found:
    names = list(looked.files if among is None else among)
    return model(looked, scratch, unsafe, "model", names)


def _newest(path: Path, versions: list[Path], mark: str | None) -> tuple[Path, list[str]]:
    """The version with the highest name, which begins with its time, and a note of those that are left; or the folder
    itself where it has the mark. Raises `SerializationError` for a link."""
    if mark is not None and (path / mark).is_file():
        return path, []
    names = sorted(item.name for item in versions)
    if (path / names[-1]).is_symlink():
        raise SerializationError(f"{names[-1]} is a link, which is not followed")
    left = [f"version {names[-1]} was taken; left behind: {', '.join(names[:-1])[:300]}"] if names[1:] else []
    return path / names[-1], left


def _json(looked: Looked, name: str) -> dict[str, Any]:
    try:
        return text.mapping(text.plain(json.loads(looked.text(name)), name), name)
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, CatalogError):
            raise
        raise SerializationError(f"{name} cannot be read: {exc}") from exc


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _name(told: Any, path: Path) -> str | None:
    """A name that fits, or None."""
    return next((name for name in (told, path.name) if isinstance(name, str) and fits(check_name, name)), None)
