"""A model of a Triton repository: `config.pbtxt` and a folder for each version, `1/model.onnx` and the like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog_core.errors import InvalidInput, NotFound, SerializationError
from catalog_core.records import Foreign
from catalog_doors import calls, example, text
from catalog_doors.files import MODELS, Found, model, rest
from catalog_doors.look import Looked, look, tree

CONFIG = "config.pbtxt"


def read(path: Path, scratch: Path, unsafe: bool) -> list[Foreign]:
    """Each version that the server serves, the highest last; inputs and outputs of the configuration go into the
    provenance."""
    folder = _model(path)
    looked = look(tree(folder))
    told = text.pbtxt(looked.text(CONFIG), CONFIG)
    _single(folder.name, told)
    versions = sorted({int(head) for head in (name.partition("/")[0] for name in looked.files) if _is_number(head)})
    if not versions:
        raise NotFound(f"{folder.name} has no version folder", hint=f"{folder.name}/1/model.onnx")
    served = _served(folder.name, versions, told)
    found = [_one(looked, number, told, scratch, unsafe) for number in served]
    left = [str(number) for number in versions if number not in served]
    if left:
        found[-1].notes.append(f"version {', '.join(map(str, served))} was taken; left behind: {', '.join(left)}")
    return [_told(each, looked, folder.name, number, told) for each, number in zip(found, served, strict=True)]


def _one(looked: Looked, number: int, told: Mapping[str, list[Any]], scratch: Path, unsafe: bool) -> Found:
    """The model of one version, with the files that are no version's."""
    chosen = f"{number}/"
    found = model(looked, scratch, unsafe, "model", _main(looked, chosen, told))
    calls.by(found, _signatures(told), f"{CONFIG} (TF_SIGNATURE_DEF)")
    others = [file for file in looked.files if _is_number(file.partition("/")[0]) and not file.startswith(chosen)]
    rest(found, looked, scratch, leave=others)
    return found


def _told(found: Found, looked: Looked, name: str, number: int, told: Mapping[str, list[Any]]) -> Foreign:
    """What was found, with what the configuration says of it."""
    runs = {key: str(told[key][0]) for key in ("platform", "backend") if told.get(key)}
    signature = {f"{kind}s": [_tensor(item) for item in told.get(kind, [])] for kind in ("input", "output")}
    named = next((item for item in told.get("name", []) if isinstance(item, str)), name)
    batch = {key: told[key][0] for key in ("max_batch_size",) if told.get(key) and isinstance(told[key][0], int)}
    example.zeros(found, _inputs(told.get("input", []), signature["inputs"], batch.get("max_batch_size", 0) > 0))
    return found.foreign(
        looked,
        name=named,
        tags=text.tags({f"triton_{key}": value for key, value in runs.items()}),
        provenance={"version": number, **runs, **batch, "signature": text.plain(signature, CONFIG)},
    )


def _single(name: str, told: Mapping[str, list[Any]]) -> None:
    """Raise `SerializationError` for what only joins other models."""
    steps = next((item for item in told.get("ensemble_scheduling", []) if isinstance(item, dict)), None)
    if steps is None and told.get("platform") != ["ensemble"]:
        return
    inner = [str(step.get("model_name", ["?"])[0]) for step in (steps or {}).get("step", []) if isinstance(step, dict)]
    raise SerializationError(
        f"{name} is an ensemble: it holds no model, and joins {', '.join(inner)[:200] or 'others'}",
        hint="import each of those; components={…} and entry_points={…} join what is loaded here",
    )


def _served(name: str, versions: list[int], told: Mapping[str, list[Any]]) -> list[int]:
    """The versions that the server would serve, by `version_policy`; the newest where it says nothing. Raises
    `NotFound` where none of them is there."""
    policy = next((item for item in told.get("version_policy", []) if isinstance(item, dict)), {})
    inner = {key: next((item for item in value if isinstance(item, dict)), {}) for key, value in policy.items()}
    if "specific" in inner:
        wanted = [number for number in inner["specific"].get("versions", []) if isinstance(number, int)]
        served = [number for number in versions if number in wanted]
        if not served:
            raise NotFound(
                f"{name} serves the versions {', '.join(map(str, wanted))}, of which none is there",
                hint=f"version_policy in {CONFIG} names them; there are {', '.join(map(str, versions))}",
            )
        return served
    count = next(iter(inner.get("latest", {}).get("num_versions", [])), 1)
    return versions if "all" in inner else versions[-max(1, count if isinstance(count, int) else 1) :]


def _main(looked: Looked, chosen: str, told: Mapping[str, list[Any]]) -> list[str]:
    """The files of a version that may be the model: the one that the configuration names, else `model.*`, else all."""
    files = [name for name in looked.files if name.startswith(chosen)]
    named = next((str(item) for item in told.get("default_model_filename", [])), None)
    if named is not None:
        own = [name for name in files if name == chosen + named or name.startswith(f"{chosen}{named}/")]
        if not own:
            raise NotFound(f"{CONFIG} names the model {named[:100]!r}, which {chosen} does not hold")
        return own
    usual = [name for name in files if name.startswith(f"{chosen}model.")]
    return usual if any(looked.kinds[name] in MODELS for name in usual) else files


def _signatures(told: Mapping[str, list[Any]]) -> list[str]:
    """The signature of a SavedModel that the server calls, where the configuration names one."""
    items = [item for item in told.get("parameters", []) if isinstance(item, dict)]
    values = [item.get("value", [{}])[0] for item in items if item.get("key") == ["TF_SIGNATURE_DEF"]]
    return [str(value["string_value"][0]) for value in values if isinstance(value, dict) and value.get("string_value")]


def _is_number(head: str) -> bool:
    return head.isascii() and head.isdigit() and len(head) < 10 and not head.startswith("0")


def _model(path: Path) -> Path:
    if (path / CONFIG).is_file():
        return path
    models = sorted(item.parent.name for item in path.glob(f"*/{CONFIG}"))
    if len(models) != 1:
        raise InvalidInput(
            f"{path.name} is a repository of {len(models)} models: {', '.join(models[:10])}",
            hint=f"import one of them: {path.name}/{models[0] if models else 'MODEL'}",
        )
    if (path / models[0]).is_symlink():
        raise InvalidInput(f"{models[0]} is a link, which is not followed")
    return path / models[0]


def _inputs(items: list[Any], told: list[dict[str, Any]], batched: bool) -> list[example.Tensor]:
    """The inputs; where the server makes batches, the configuration leaves their axis out. None where one is odd."""
    sizes = [example.shape(item.get("dims", []) if isinstance(item, dict) else None) for item in items]
    lead = (None,) if batched else ()
    return [
        example.Tensor(tensor["name"], tensor["dtype"], (*lead, *size))
        for tensor, size in zip(told, sizes, strict=True)
        if size is not None and None not in sizes
    ]


def _tensor(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        return {}
    kind = [str(value).removeprefix("TYPE_").lower() for value in item.get("data_type", ["?"])]
    return {
        "name": str(item.get("name", ["?"])[0]),
        "dtype": {"fp16": "float16", "fp32": "float32", "fp64": "float64", "bf16": "bfloat16"}.get(kind[0], kind[0]),
        "shape": [None if size == -1 else size for size in item.get("dims", [])],
    }
