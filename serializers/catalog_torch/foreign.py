"""`.pt2` archives that torch itself wrote: taken apart, and put together again as this package stores them."""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from catalog_core.errors import SerializationError
from catalog_torch import exported, tables
from catalog_torch.serializer import ExportedModule

_ROOT = re.compile(r"[^/]+/models/model\.json\Z")
CONFIG = "data/weights/model_weights_config.json"


def read(path: Path) -> ExportedModule:
    """The module of an archive of `torch.export.save`. Nothing in it is unpickled: sample inputs are left behind, and
    pickled weights refused. Raises `SerializationError`."""
    members = _members(path)
    table = exported._object(members.get(CONFIG, b'{"config":{}}')).get("config")
    if not isinstance(table, dict):
        raise SerializationError("the archive's table of tensors cannot be read")
    state = {key: _weight(key, item, members) for key, item in table.items()}
    graph = exported._object(members["models/model.json"])
    names = _by_name(graph)
    members["models/model.json"] = json.dumps(graph).encode()
    kept = {f"archive/{name}": data for name, data in members.items() if not re.match(r"data/weights/weight_", name)}
    archive = exported._strip(exported._write(kept))
    module = exported.load(archive, state)
    return ExportedModule(
        {"forward": module}, {"forward": archive}, {"inputs": {"forward": names}, "order": list(state)}
    )


def _members(path: Path) -> dict[str, bytes]:
    """The members of the archive without its root, which torch names after the file; no sample inputs."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            roots = [name.partition("/")[0] for name in names if _ROOT.match(name)]
            if len(roots) != 1 or len(set(names)) != len(names):
                raise SerializationError("the archive holds no graph of torch.export, or more than one")
            if sum(info.file_size for info in infos) > path.stat().st_size + exported.MAX_GRAPH:
                raise SerializationError("the archive unpacks to far more than it is")
            found = {name.removeprefix(roots[0] + "/"): name for name in names}
            skipped = "data/sample_inputs/"
            return {
                short: exported.member(archive, archive.getinfo(name))
                for short, name in found.items()
                if not short.startswith(skipped)
            }
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, ValueError) as exc:
        raise SerializationError(f"not a readable .pt2 archive: {exc}") from exc


def _weight(key: str, item: Any, members: dict[str, bytes]) -> torch.Tensor:
    """A weight of the archive; its bytes and what is said of them must agree."""
    try:
        if item["use_pickle"]:
            raise SerializationError(f"{key[:100]} is stored as a pickle, which is never read")
        meta, name = item["tensor_meta"], item["path_name"]
        if not re.fullmatch(r"weight_\d+", name):
            raise SerializationError(f"{key[:100]} lies at {name[:100]!r}, which is not a member's name")
        sizes, strides = ([axis["as_int"] for axis in meta[kind]] for kind in ("sizes", "strides"))
        dtype, data = getattr(torch, tables.DTYPES[meta["dtype"]]), members[f"data/weights/{name}"]
        if 0 in sizes:
            return torch.empty(sizes, dtype=dtype)
        flat = torch.frombuffer(bytearray(data), dtype=dtype)
        if math.prod(sizes) > flat.numel():
            raise ValueError("it is larger than its bytes")
        value = flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"]).clone()
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as exc:
        raise SerializationError(f"the weight {key[:100]!r} is described wrongly: {_line(exc)}") from exc
    return torch.nn.Parameter(value, requires_grad=value.is_floating_point()) if item.get("is_param") else value


def _by_name(graph: dict[str, Any]) -> list[str]:
    """Let the graph take all inputs by name, as those do that are exported here; returns the names, in order."""
    try:
        specs = graph["graph_module"]["signature"]["input_specs"]
        arguments = [spec["user_input"]["arg"] for spec in specs if "user_input" in spec]
        names = [next(iter(argument.values()))["name"] for argument in arguments]
        signature = graph["graph_module"]["module_call_graph"][0]["signature"]
        named = signature.get("forward_arg_names")
        whole = json.loads(signature["in_spec"])[1]
        leaves = [leaf for part in whole["children_spec"] for leaf in part["children_spec"]]
        flat = len(leaves) == len(names) and all(leaf["type"] is None for leaf in leaves)
    except (KeyError, TypeError, IndexError, StopIteration, ValueError) as exc:
        raise SerializationError(f"the signature of the graph cannot be read: {_line(exc)}") from exc
    names = named if isinstance(named, list) and len(named) == len(names) else names
    if not flat or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise SerializationError("the graph takes nested inputs, or some without a name", hint="export it for tensors")
    empty: dict[str, Any] = {"type": "builtins.tuple", "context": "null", "children_spec": []}
    given = {"type": "builtins.dict", "context": json.dumps(names), "children_spec": leaves}
    signature["in_spec"] = json.dumps([1, {**empty, "children_spec": [empty, given]}])
    signature["forward_arg_names"] = names
    return names


def _line(exc: BaseException) -> str:
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:200]
