"""Graphs of `torch.export`: written without weights, pickles and paths; checked before torch sees them.

`torch.export.load` trusts a file: it unpickles sample inputs (and weights marked so), evaluates the texts of symbolic
expressions and executes guard code. So nothing of an archive reaches it unless it is on a list here, and the archive
that it gets is always one that this module put together.
"""

from __future__ import annotations

import io
import json
import logging
import re
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch

from catalog_core.errors import SerializationError

WEIGHTS = "archive/data/weights/"
_MEMBERS = re.compile(
    r"archive/(data/weights/model_weights_config\.json|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|models/model\.json|archive_format|archive_version|byteorder|\.data/(version|serialization_id))\Z"
)
_DROPPED = re.compile(r"archive/data/(weights/weight_\d+|sample_inputs/model\.pt)\Z")
_OPERATION = re.compile(
    r"torch\.ops\.(aten|prims|higher_order)\.(__i?(?:and|or|xor|lshift|rshift)__|_?[A-Za-z]\w*)(?:\.([A-Za-z]\w*))?\Z"
)
_SCALAR = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|index)\Z"
    r"|math\.(ceil|floor|trunc|sqrt|pow|log|log2|exp)\Z|torch\.sym_(not|ite|max|min|int|float|sum|sqrt)\Z"
)
_CONTROL = frozenset(["cond", "while_loop", "wrap_with_set_grad_enabled", "wrap_with_autocast"])
_FILES = frozenset(["from_file", "save", "warn", "format", "set_data"])  # they reach files, streams or foreign storage
_PLAIN = re.compile(r"[\w.+:]*\Z")
_NAMES = frozenset({"name", "as_name", "as_tensor_name", "forward_arg_names", "in_names", "out_names"})
_TABLES = frozenset(["tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "range_constraints"])
_SPECS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict"})
_WORDS = re.compile(
    r"Symbol|positive|integer|nonnegative|True|False|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|Eq|Ne|Lt|Le|"
    r"Gt|Ge|Integer|Float|Rational|Add|Mul|Pow|ToFloat|TruncToInt|Where|And|Or|Not|oo|PowByNatural|FloatPow|"
    r"FloatTrueDiv|IntTrueDiv|ModularIndexing|CeilToInt|FloorToInt|RoundToInt|[suz][uf]?\d+"
)
MAX_GRAPH = 256 << 20
ONE_AT_A_TIME = threading.Lock()  # torch.export keeps its state in globals


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch from printing graphs: what goes wrong is in the error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def export(module: torch.nn.Module, inputs: Mapping[str, Any]) -> tuple[bytes, str]:
    """A module, traced for named tensors, as `archive`; and why its rows are not free ("" where they are)."""
    from catalog_torch import tracing

    traced = tracing.trace(module, inputs, keep=archive)
    return traced.kept, traced.fixed


def archive(program: torch.export.ExportedProgram) -> bytes:
    """A program as a stripped archive; its weights are gone after. Raises `SerializationError` for one that is not on
    the list."""
    # the weights are stored once, beside the graphs: here one element stands for each
    for key, value in program.state_dict.items():
        light = torch.zeros((), dtype=value.dtype)
        program.state_dict[key] = (
            torch.nn.Parameter(light, value.requires_grad) if isinstance(value, torch.nn.Parameter) else light
        )
    buffer = io.BytesIO()
    try:
        with ONE_AT_A_TIME:
            torch.export.save(program, buffer)
    except Exception as exc:  # of types that it has no name for
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())[:4000]
        raise SerializationError(f"torch.export cannot write the graph: {cause}") from exc
    return _strip(buffer.getvalue())


def _read(data: bytes) -> dict[str, bytes]:
    """The members of an archive, names and sizes checked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if len(set(names)) != len(names):
                raise SerializationError("the archive holds a name twice")
            for info in infos:
                if not _MEMBERS.match(info.filename) and not _DROPPED.match(info.filename):
                    raise SerializationError(
                        f"the archive holds {info.filename!r}, which is not on the list of safe members"
                    )
            if sum(info.file_size for info in infos if not _DROPPED.match(info.filename)) > MAX_GRAPH:
                raise SerializationError("the archive unpacks to more than 256 MiB")
            if "archive/models/model.json" not in names:
                raise SerializationError("the archive holds no graph")
            return {info.filename: member(archive, info) for info in infos if not _DROPPED.match(info.filename)}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as exc:
        raise SerializationError(f"not a readable .pt2 archive: {exc}") from exc


def member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, as many as the archive says: `ZipFile.read` unpacks the whole stream before it counts."""
    with archive.open(info) as file:
        return file.read(info.file_size)


def _write(members: Mapping[str, bytes]) -> bytes:
    """A zip file whose bytes depend on its members only."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), members[name])
    return buffer.getvalue()


def _strip(data: bytes) -> bytes:
    members = _read(data)
    members["archive/models/model.json"] = _checked_graph(members["archive/models/model.json"])
    members["archive/.data/serialization_id"] = b"0"
    return _write(members)


def _checked_graph(data: bytes) -> bytes:
    """The graph without guard code, traces and paths. Raises `SerializationError` for an operation, a symbolic
    expression, a name or a structure that is not on the list."""
    graph = _object(data)
    graph["guards_code"] = []
    _check(graph)
    return json.dumps(graph, separators=(",", ":"), sort_keys=True).encode()


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"the graph cannot be read: {exc}") from exc
    if not isinstance(value, dict):
        raise SerializationError("the graph is not an object")
    return value


def _check(graph: dict[str, Any]) -> None:
    """Hold every text of the graph against the rule of its key; drop the metadata of nodes."""
    stack: list[tuple[str, Any]] = [("", graph)]
    while stack:
        key, value = stack.pop()
        if isinstance(value, list):
            stack += [(key, item) for item in value]
        elif isinstance(value, dict):
            if "metadata" in value:
                value["metadata"] = {}
            for name in value:
                if not (name.isidentifier() if key in _TABLES else _PLAIN.match(name)):
                    raise SerializationError(f"the graph holds the name {name[:100]!r}, which is no identifier")
            stack += value.items()
        if key == "as_custom_obj" and value is not None:
            raise SerializationError("the graph holds a custom object, which is never read")
        if key in ("target", "as_operator") and value is not None:
            _check_target(value)
        elif key == "expr_str":
            _check_expression(value)
        elif isinstance(value, str):
            _check_text(key, value)


def _check_text(key: str, text: str) -> None:
    if key in ("in_spec", "out_spec"):
        _check_structure(text, names=key == "in_spec")
    elif key in _NAMES and not text.isidentifier() and text:  # torch writes names into the code that it generates
        raise SerializationError(f"the graph holds the name {text[:100]!r}, which is no identifier")
    elif key != "as_string" and not _PLAIN.match(text):
        raise SerializationError(f"the graph holds {text[:100]!r} as {key}, which is not a plain name")


def _check_target(target: Any) -> None:
    found = _OPERATION.match(target) if isinstance(target, str) else None
    good = bool(isinstance(target, str) and _SCALAR.match(target))
    if found is not None:
        space, name, overload = found.groups()
        if space == "higher_order":
            good = overload is None and name in _CONTROL
        elif name not in _FILES and overload is not None:
            packet = getattr(getattr(torch.ops, space), name, None)
            good = isinstance(getattr(packet, overload, None), torch._ops.OpOverload)
    if not good:
        raise SerializationError(f"the graph calls {str(target)[:100]!r}, which is not on the list")


def _check_structure(text: str, *, names: bool) -> None:
    """A pytree's structure: tuples, lists and dictionaries only, since other types import what their context says.
    `names`: keys become parameter names of generated code."""
    try:
        protocol, root = json.loads(text)
        stack, good = [root], protocol == 1
        while stack and good:
            node = stack.pop()
            context = node["context"]
            keys = json.loads(context) if isinstance(context, str) else context
            good = node["type"] in _SPECS and (
                keys is None
                or (
                    isinstance(keys, list)
                    and all(isinstance(k, (str, int)) and (not names or str(k).isidentifier()) for k in keys)
                )
            )
            stack += node["children_spec"]
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise SerializationError(f"the graph holds the structure {text[:200]!r}, which is not on the list")


def _check_expression(text: Any) -> None:
    words = set(re.findall(r"[^\W\d]\w*", text)) if isinstance(text, str) else {"?"}
    quoted = re.sub(r"'[suz][uf]?\d+'", "", text) if isinstance(text, str) else ""
    if not all(map(_WORDS.fullmatch, words)) or re.search(r"[^\w\s(),.+*/=<>-]|\.\s*[^\W\d]", quoted):
        raise SerializationError(f"the graph holds the expression {str(text)[:100]!r}, which is not plain arithmetic")


def _placeholder(item: dict[str, Any], tensor: torch.Tensor) -> bytes:
    """One element that stands for all of a weight, until the weight itself takes its place."""
    meta = item.get("tensor_meta")
    if not isinstance(meta, dict):
        raise SerializationError("the archive's table of tensors cannot be read")
    meta.update(
        sizes=[{"as_int": size} for size in tensor.shape],
        strides=[{"as_int": 0} for _ in tensor.shape],
        storage_offset={"as_int": 0},
    )
    return bytes(tensor.element_size() if tensor.numel() else 0)


def load(data: bytes, state: Mapping[str, torch.Tensor], device: str | None = None) -> torch.nn.Module:
    """The graph as a module on `device`, whose weights are the tensors of `state` themselves."""
    members = _read(data)
    members["archive/models/model.json"] = _checked_graph(members["archive/models/model.json"])
    members["archive/data/sample_inputs/model.pt"] = b""  # torch asks for it; empty means none, and nothing to unpickle
    used: dict[str, torch.Tensor] = {}
    for name in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
        whole = _object(members.get(f"archive/{name}", b'{"config":{}}'))
        _check(whole)
        config = whole.get("config")
        if not isinstance(config, dict) or not all(isinstance(item, dict) for item in config.values()):
            raise SerializationError("the archive's table of tensors cannot be read")
        for key, item in config.items():
            if item.get("use_pickle"):
                raise SerializationError(f"{key} is stored as a pickle, which is never read")
            if not re.fullmatch(r"(weight|tensor)_\d+", str(item.get("path_name"))):
                raise SerializationError(f"{key} lies at {item.get('path_name')!r}, which is not a member's name")
            if "weights" in name:
                if key not in state:
                    raise SerializationError(f"the graph needs {key}, which is not among the stored weights")
                used[key] = state[key]
                members[WEIGHTS + item["path_name"]] = _placeholder(item, state[key])
        members[f"archive/{name}"] = json.dumps(whole).encode()
    try:
        with ONE_AT_A_TIME:
            program = torch.export.load(io.BytesIO(_write(members)))
            if device not in (None, "cpu"):  # constants, and operations that name a device
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, device)
            module = program.module()
        module.load_state_dict(
            {key: used[key] for key in module.state_dict() if key in used}, strict=False, assign=True
        )
    except Exception as exc:
        reason = (str(exc) or type(exc).__name__).strip().splitlines()[0][:300]
        raise SerializationError(f"torch cannot load the graph: {reason}") from exc
    return module
