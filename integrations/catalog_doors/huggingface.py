"""A folder of the Hugging Face Hub's cache (`models--org--name`), one of its snapshots, or a plain folder like one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from catalog_core import tensors
from catalog_core.errors import InvalidInput, SerializationError
from catalog_core.records import Foreign
from catalog_doors import text
from catalog_doors.files import Found, component, model, named, one, rest
from catalog_doors.look import PICKLED, Looked, fits, look, small, tree
from catalog_doors.stored import FolderReader

INDEX = ".safetensors.index.json"
_CACHE = re.compile(r"models--(?:(?P<org>[^/]+?)--)?(?P<name>[^/]+)")
_REVISION = re.compile(r"[0-9A-Za-z._-]{1,100}")
CONFIGS = {  # beside config.json: file → what its values are called by
    "generation_config.json": "generation", "adapter_config.json": "adapter", "model_index.json": "diffusers",
    "preprocessor_config.json": "preprocessor", "config_sentence_transformers.json": "sentence_transformers",
    "open_clip_config.json": "open_clip",
}  # fmt: skip
LIBRARIES = {  # files that only one library writes
    "model_index.json": "diffusers", "adapter_config.json": "peft", "modules.json": "sentence-transformers",
    "open_clip_config.json": "open_clip",
}  # fmt: skip
_TAGS = ("license", "license_name", "library_name", "pipeline_tag", "language", "base_model", "datasets", "tags")


@attrs.frozen
class Place:
    """A snapshot, the folder that its links may lead into, and what the path says of it."""

    snapshot: Path
    inside: Path
    name: str | None = None
    revision: str | None = None


def read(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """Weights become components, safetensors first; all other files are kept beside them, the card with its head."""
    place = located(path)
    looked = look(tree(place.snapshot, place.inside))
    found = _weights(looked, scratch, unsafe)
    notes: list[str] = []
    card, head = _card(looked, notes)
    config = _configs(looked, notes)
    found.notes += notes
    own = [name for name in looked.files if name.startswith(".cache/huggingface/")]  # the client's, in a folder of ours
    rest(found, looked, scratch, leave=["README.md", ".gitattributes", *own])
    known = {key: head[key] for key in _TAGS if key in head}
    tags = text.tags({**_told(config, looked), **known}, notes=found.notes, of="the card")
    task, library = tags.get("pipeline_tag"), tags.get("library_name")
    taxonomy = {key: str(value) for key, value in (("task", task), ("framework", library)) if value}
    provenance = {"repository": place.name, "revision": place.revision, "card": head}
    return found.foreign(
        looked,
        name=place.name or path.name,
        tags=tags,
        taxonomy=taxonomy,
        params=text.tags(config, "parameter", found.notes, "the configurations"),
        provenance={key: value for key, value in provenance.items() if value},
        card=card,
    )


def located(path: Path) -> Place:
    """The snapshot of a cache folder that `refs/main` names, or the only one; or the folder itself. Raises
    `InvalidInput` where there are several."""
    snapshots = path / "snapshots"
    if not snapshots.is_dir():
        cache = path.parent.parent
        if path.parent.name == "snapshots" and _CACHE.fullmatch(cache.name):
            return Place(path, cache, _repository(cache), path.name)
        return Place(path, path)
    known = sorted(item.name for item in snapshots.iterdir() if item.is_dir() and not item.is_symlink())
    main = path / "refs" / "main"
    wanted = small(main, 1000).decode("utf-8", "replace").strip() if main.is_file() and not main.is_symlink() else None
    if wanted is None and len(known) == 1:
        wanted = known[0]
    if wanted is None:
        raise InvalidInput(
            f"{path.name} holds {len(known)} snapshots and no refs/main",
            hint=f"name one: {path.name}/snapshots/{known[0] if known else 'REVISION'}",
        )
    if not _REVISION.fullmatch(wanted) or wanted not in known:
        raise InvalidInput(f"refs/main of {path.name} names {wanted[:100]!r}, which is no snapshot here")
    return Place(snapshots / wanted, path, _repository(path), wanted)


def _repository(cache: Path) -> str | None:
    match = _CACHE.fullmatch(cache.name)
    if match is None:
        return None
    return f"{match['org']}/{match['name']}" if match["org"] else match["name"]


def _weights(looked: Looked, scratch: Path, unsafe: bool) -> Found:
    safe = [name for name, kind in looked.kinds.items() if kind == "safetensors"]
    if not safe:
        pickled = [name for name, kind in looked.kinds.items() if kind in PICKLED and name.startswith("pytorch_model")]
        if len(pickled) > 1 and unsafe:
            return _joined([one(looked, name, scratch, unsafe, "model") for name in pickled])
        return model(looked, scratch, unsafe, "model", pickled or None)
    looked.elsewhere(name for name in looked.files if name.endswith(".safetensors"))
    found = Found()
    for index in [name for name in looked.files if name.endswith(INDEX)]:
        shards = _shards(looked, index)
        looked.refuse(shards)
        _sharded(found, looked, index, shards, scratch, alone=set(shards) == set(safe))
        safe = [name for name in safe if name not in found.used]
    for name in safe:
        part = one(
            looked,
            name,
            scratch,
            unsafe,
            "model" if not found.objects and len(safe) == 1 else component(name, found.objects),
        )
        found.objects |= part.objects
        found.used |= part.used
    return found


def _joined(parts: list[Found]) -> Found:
    """Shards that were converted one by one, as one dictionary."""
    whole = Found({"model": {}})
    for part in parts:
        again = whole.objects["model"].keys() & part.objects["model"].keys()
        if again:
            raise SerializationError(f"two shards hold {sorted(map(str, again))[0]!r}")
        whole.objects["model"] |= part.objects["model"]
        whole.used |= part.used
        whole.notes += part.notes
        known = whole.provenance.setdefault("converted", {})
        known |= part.provenance["converted"]
    return whole


def _shards(looked: Looked, index: str) -> list[str]:
    """The files that an index names; they must be there."""
    try:
        table = json.loads(small(looked.files[index], 64 << 20))["weight_map"]
        names = sorted({str(name) for name in table.values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise SerializationError(f"{index} cannot be read: {type(exc).__name__}") from exc
    folder = index.rpartition("/")[0]
    shards = [f"{folder}/{name}" if folder else name for name in names]
    looked.elsewhere(name for name in shards if name in looked.files)
    for name in shards:
        if looked.kinds.get(name) != "safetensors":
            raise SerializationError(f"{index} names {name[:100]!r}, which is no safetensors file in this folder")
    return shards


def _sharded(found: Found, looked: Looked, index: str, shards: list[str], scratch: Path, alone: bool) -> None:
    """All shards as one dictionary of arrays, mapped where they lie. Where NumPy lacks a type, one component each."""
    found.used |= {*shards, index}
    if not all(_numpy_has(looked.files[shard]) for shard in shards):
        found.notes.append(f"the shards of {index} are a component each: ml_dtypes is not installed (pip install it)")
        for shard in shards:
            found.objects[component(shard, found.objects)] = named(looked.files[shard], scratch)
        return
    values: dict[str, Any] = {}
    for shard in shards:
        reader = FolderReader({tensors.FILE: looked.files[shard]}, {})
        part: Mapping[str, Any] = tensors.read(reader, tensors.numpy_maker(), writable=False)
        again = values.keys() & part.keys()
        if again:
            raise SerializationError(f"two shards of {index} hold {sorted(again)[0]!r}")
        values |= part
    found.objects["model" if alone else component(index.removesuffix(INDEX) + ".", found.objects)] = values


def _numpy_has(path: Path) -> bool:
    """Whether NumPy has all types of a safetensors file."""
    reader = FolderReader({tensors.FILE: path}, {})
    header = tensors.parse_header(lambda at, size: bytes(reader.view(tensors.FILE, at, size)), path.stat().st_size)
    return all(fits(tensors.numpy_dtype, kind) for kind in {entry.dtype for entry in header.entries})


def _card(looked: Looked, notes: list[str]) -> tuple[str | None, dict[str, Any]]:
    """The card, and what its head says."""
    if "README.md" not in looked.files:
        return None, {}
    card = looked.text("README.md")
    try:
        return card, text.card_head(card, "README.md")
    except SerializationError as exc:
        notes.append(exc.message)
    return card, {}


def _told(config: Mapping[str, Any], looked: Looked) -> dict[str, str]:
    """What the configurations say of the kind of the model, under the names that a card has for it."""
    adapter = config.get("adapter") if isinstance(config.get("adapter"), dict) else {}
    index = config.get("diffusers") if isinstance(config.get("diffusers"), dict) else {}
    assert isinstance(adapter, dict) and isinstance(index, dict)
    library = next((name for mark, name in LIBRARIES.items() if mark in looked.files), None)
    found = {
        "model_type": config.get("model_type"),
        "library_name": library,
        "base_model": adapter.get("base_model_name_or_path"),
        "peft_type": adapter.get("peft_type"),
        "pipeline": index.get("_class_name"),
    }
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _configs(looked: Looked, notes: list[str]) -> dict[str, Any]:
    """The values of `config.json`, and those of the other configurations under what they are of: `generation`,
    `adapter`, `diffusers`, or the folder that they lie in (`unet`). A broken one is noted, the main one refused."""
    found = _config(looked, "config.json")
    for name in looked.files:
        folder, _, file = name.rpartition("/")
        inner = "/" not in folder and file in ("config.json", "scheduler_config.json")
        key = CONFIGS.get(name) or (folder if inner else "")
        if not key or key.startswith("."):
            continue
        try:
            told = _config(looked, name)
        except SerializationError as exc:
            notes.append(exc.message)
            continue
        found[key] = {**found[key], **told} if isinstance(found.get(key), dict) else told
    return found


def _config(looked: Looked, name: str) -> dict[str, Any]:
    if name not in looked.files:
        return {}
    looked.elsewhere([name])
    try:
        value = json.loads(small(looked.files[name], 16 << 20))
        return text.plain(value, name) if isinstance(value, dict) else {}
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"{name} cannot be read: {' '.join(str(exc).split())[:200]}") from exc
