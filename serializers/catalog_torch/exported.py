"""Graphs of `torch.export`: written without weights, pickles and paths; checked before torch sees them.

`torch.export.load` trusts a file: it unpickles sample inputs (and weights marked so), evaluates the texts of symbolic
expressions and executes guard code. So nothing of an archive reaches it unless it is on a list here, and the archive
that it gets is always one that this module put together.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from catalog_core import forks
from catalog_core import quiet as quietly
from catalog_core.errors import SerializationError
from catalog_torch import calls, expressions, guards, tables

WEIGHTS = "archive/data/weights/"
_MEMBERS = re.compile(
    r"archive/(data/weights/model_weights_config\.json|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|models/model\.json|archive_format|archive_version|byteorder|\.data/(version|serialization_id))\Z"
)
_DROPPED = re.compile(r"archive/data/(weights/weight_\d+|sample_inputs/model\.pt)\Z")
_PLAIN = re.compile(r"[\w.+:]*\Z")
_NAMES = frozenset({"name", "as_name", "as_tensor_name", "forward_arg_names", "in_names", "out_names"})
_TABLES = frozenset(["tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "range_constraints"])
_SPECS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict"})
_SYMBOL = re.compile(r"(s|u|zf|zuf)\d{1,5}\Z")  # torch counts up to the number of a symbol
MAX_GRAPH = 256 << 20
MAX_STRING = 4_000
ONE_AT_A_TIME = forks.Lock()  # torch.export keeps its state in globals


def quiet() -> AbstractContextManager[None]:
    """Keep torch from printing graphs: what goes wrong is in the error."""
    return quietly.quiet("torch")


def export(module: torch.nn.Module, inputs: Mapping[str, Any]) -> tuple[bytes, str]:
    """A module, traced for named tensors, as `archive`; and why its rows are not free ("" where they are)."""
    from catalog_torch import tracing

    traced = tracing.trace(module, inputs, keep=archive)
    return traced.kept, traced.fixed


def archive(program: torch.export.ExportedProgram) -> bytes:
    """A program as a stripped archive that can be loaded again; its weights are gone after. Raises `SerializationError`
    for one that is not on the list, or that torch cannot read."""
    state = {key: value for key, value in program.state_dict.items() if isinstance(value, torch.Tensor)}
    for key in program.state_dict.keys() - state.keys():  # extra states, which no graph reads
        del program.state_dict[key]
    # the weights are stored once, beside the graphs: here one element stands for each
    for key, value in state.items():
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
    stripped = _strip(buffer.getvalue())
    load(stripped, state)  # torch writes graphs that it cannot read, and the list is ours: nothing such is published
    return stripped


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
    members["archive/models/model.json"] = _text(_checked_graph(members["archive/models/model.json"]))
    members["archive/.data/serialization_id"] = b"0"
    return _write(members)


def _text(graph: Mapping[str, Any]) -> bytes:
    return json.dumps(graph, separators=(",", ":"), sort_keys=True).encode()


def _checked_graph(data: bytes) -> dict[str, Any]:
    """The graph without guard code, traces and paths. Raises `SerializationError` for an operation, a symbolic
    expression, a name or a structure that is not on the list."""
    graph = _object(data)
    graph["guards_code"] = []
    _check(graph)
    return graph


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"the graph cannot be read: {exc}") from exc
    if not isinstance(value, dict):
        raise SerializationError("the graph is not an object")
    return value


def _check(graph: dict[str, Any]) -> None:
    """Hold every call against the list of operators and every text against the rule of its key; drop the metadata of
    nodes, and write expressions anew."""
    stack: list[tuple[str, Any]] = [("", graph)]
    budget = expressions.Budget()
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
                if key == "range_constraints" and not _SYMBOL.match(name):
                    raise SerializationError(f"the graph holds the symbol {name[:100]!r}, which torch would not write")
            if "target" in value:
                calls.check(value["target"], value.get("inputs"))
                calls.complete(value["target"], value["inputs"])
            if "expr_str" in value:
                value["expr_str"] = expressions.checked(value["expr_str"], budget)
            stack += value.items()
        if key == "as_custom_obj" and value is not None:
            raise SerializationError("the graph holds a custom object, which is never read")
        if key == "as_operator" and value is not None:
            raise SerializationError(f"the graph passes on {str(value)[:100]!r}, which is not on the list of operators")
        if isinstance(value, str) and key != "expr_str":
            _check_text(key, value)


def _check_text(key: str, text: str) -> None:
    if key in ("in_spec", "out_spec"):
        _check_structure(text, names=key == "in_spec")
    elif key in _NAMES and not text.isidentifier() and text:  # torch writes names into the code that it generates
        raise SerializationError(f"the graph holds the name {text[:100]!r}, which is no identifier")
    elif key in ("as_float", "as_floats", "real", "imag") and text in ("Infinity", "-Infinity", "NaN"):
        return
    elif key == "as_string":  # an equation, a mode, the message of an assertion
        if len(text) > MAX_STRING or not text.isprintable():
            raise SerializationError(f"the graph holds the text {text[:100]!r}, which cannot be printed as it is")
    elif not _PLAIN.match(text):
        raise SerializationError(f"the graph holds {text[:100]!r} as {key}, which is not a plain name")


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


def _tables(members: dict[str, bytes], state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Check the tables of tensors, and put a placeholder into the archive for each weight. Gives the weights."""
    for folder in ("weights", "constants"):
        name = f"archive/data/{folder}/model_{folder}_config.json"
        whole = _object(members.get(name, b'{"config":{}}'))
        _check(whole)
        for key, item in tables.items_of(whole):
            if folder == "constants":
                place = f"archive/data/constants/{item['path_name']}"
                tables.fits(key, item.get("tensor_meta"), len(members.get(place, b"")))
            elif key not in state:
                raise SerializationError(f"the graph needs {key}, which is not among the stored weights")
            else:
                members[WEIGHTS + item["path_name"]] = tables.placeholder(item, state[key])
                yield key, state[key]
        members[name] = json.dumps(whole).encode()


def _reason(exc: BaseException) -> str:
    """The first error of a chain: torch says of all that the reason is printed above."""
    chain = [exc]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    return " ".join(f"{type(chain[-1]).__name__}: {chain[-1]}".split())[:1000]


def _opened(data: bytes) -> torch.export.ExportedProgram:
    """The program of an archive. `torch.export.load` hides the reason of a failure behind an older format."""
    try:
        from torch.export.pt2_archive._package import load_pt2
    except ImportError:  # torch before 2.8
        return torch.export.load(io.BytesIO(data))
    program: torch.export.ExportedProgram = load_pt2(io.BytesIO(data)).exported_programs["model"]
    return program


def load(data: bytes, state: Mapping[str, torch.Tensor], device: str | None = None) -> torch.nn.Module:
    """The graph as a module on `device`, whose weights are the tensors of `state` themselves."""
    members = _read(data)
    graph = _checked_graph(members["archive/models/model.json"])
    tables.check_weights(graph, state)
    members["archive/models/model.json"] = _text(graph)
    members["archive/data/sample_inputs/model.pt"] = b""  # torch asks for it; empty means none, and nothing to unpickle
    used = {key: value for key, value in _tables(members, state)}
    try:
        with ONE_AT_A_TIME, quiet():
            program = _opened(_write(members))
            if device not in (None, "cpu"):  # constants, and operations that name a device
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, device)
            module = program.module()
        guards.install(module)
        module.load_state_dict(
            {key: used[key] for key in module.state_dict() if key in used}, strict=False, assign=True
        )
    except Exception as exc:
        raise SerializationError(f"torch cannot load the graph: {_reason(exc)}") from exc
    return module
