"""A model of a Triton repository: `config.pbtxt` and a folder for each version, `1/model.onnx` and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from catalog_core.errors import InvalidInput, NotFound
from catalog_core.records import Foreign
from catalog_doors import example, text
from catalog_doors.files import model, rest
from catalog_doors.look import look, tree

CONFIG = "config.pbtxt"


def read(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """The highest version becomes components; inputs and outputs of the configuration go into the provenance."""
    folder = _model(path)
    looked = look(tree(folder))
    told = text.pbtxt(looked.text(CONFIG), CONFIG)
    versions = sorted({int(head) for head in (name.partition("/")[0] for name in looked.files) if _is_number(head)})
    if not versions:
        raise NotFound(f"{folder.name} has no version folder", hint=f"{folder.name}/1/model.onnx")
    chosen = f"{versions[-1]}/"
    found = model(looked, scratch, unsafe, "model", [name for name in looked.files if name.startswith(chosen)])
    if len(versions) > 1:
        older = ", ".join(map(str, versions[:-1]))
        found.notes.append(f"version {versions[-1]} was taken; left behind: {older}")
    others = [name for name in looked.files if _is_number(name.partition("/")[0]) and not name.startswith(chosen)]
    rest(found, looked, scratch, leave=others)
    runs = {key: str(told[key][0]) for key in ("platform", "backend") if told.get(key)}
    signature = {f"{kind}s": [_tensor(item) for item in told.get(kind, [])] for kind in ("input", "output")}
    named = next((item for item in told.get("name", []) if isinstance(item, str)), folder.name)
    batch = {key: told[key][0] for key in ("max_batch_size",) if told.get(key) and isinstance(told[key][0], int)}
    example.zeros(found, _inputs(told.get("input", []), signature["inputs"], batch.get("max_batch_size", 0) > 0))
    return found.foreign(
        looked,
        name=named,
        tags=text.tags({f"triton_{key}": value for key, value in runs.items()}),
        provenance={"version": versions[-1], **runs, **batch, "signature": text.plain(signature, CONFIG)},
    )


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
