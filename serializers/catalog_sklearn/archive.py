"""skops archives: written so that the same object gives the same bytes, and checked before skops opens them.

An archive is a zip file of `schema.json`, a tree of nodes that say how each part of the object is made, and of arrays
(`.npy`) and bytes that the nodes name. skops compares the types that a tree names with a list of its own; ours is that
list, with a few types more, less all nodes that call something.
"""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np

from catalog_core import forks
from catalog_core.errors import NotTrusted, SerializationError
from catalog_core.shown import an
from catalog_core.tensors import cuts
from catalog_sklearn.boosters import check_lightgbm, check_xgboost
from catalog_sklearn.review import parts, review
from catalog_sklearn.skops_io import skops_io
from catalog_sklearn.trees import check_trees, mapped, nodes_of
from catalog_sklearn.types import TRUSTED

SCHEMA = "schema.json"
MAX_BYTES = 16 << 30
MAX_RATIO = 200  # unpacked to packed, beyond which an archive is a bomb
_ONE_AT_A_TIME = forks.Lock()
# A node that is not among these calls a function, a method or a constructor that the file names.
NODES = frozenset({
    "BytearrayNode", "BytesNode", "DTypeNode", "DefaultDictNode", "DictNode", "FunctionNode", "JsonNode", "ListNode",
    "LossNode", "MaskedArrayNode", "NdArrayNode", "ObjectNode", "RandomGeneratorNode", "RandomStateNode", "SetNode",
    "SliceNode", "SparseMatrixNode", "TreeNode", "TupleNode", "TypeNode",
})  # fmt: skip


def write(obj: Any) -> tuple[bytes, list[int], str | None]:
    """The archive of an object, where its chunks begin, and why it will load with `trust` only, or None. It was read
    back. Raises `SerializationError` for what skops cannot hold or load."""
    try:
        with _ownerless(obj):
            data = skops_io().dumps(obj)
    except RecursionError as exc:
        raise SerializationError(f"{an(type(obj).__name__)} holds itself, or is nested too deeply") from exc
    except Exception as exc:  # it meets every kind of object, and raises every kind of error
        raise SerializationError(f"{an(type(obj).__name__)} cannot be written by skops: {_line(exc)}") from exc
    members, schema, _ = _opened(data)
    members = _renamed({name: _clean(content) for name, content in members.items()}, schema)
    data, starts = _zipped(members, schema)
    cause = None
    try:
        read(data, False)
    except NotTrusted as exc:
        cause = exc.message
        try:
            read(data, True)
        except SerializationError as again:  # a class inside of a function, say
            if absent := re.search(r"module '([\w.]+)' has no attribute '([^']+)'", again.message):
                what = "a lambda" if absent[2] == "<lambda>" else f"{absent[2]!r}, which was made inside of a function"
                raise SerializationError(
                    f"{an(type(obj).__name__)} could never be loaded: it holds {what}, and no import finds it in "
                    f"{absent[1]}",
                    hint="define it in a module, outside of functions: then it loads with trust=True",
                ) from again
            raise SerializationError(f"{an(type(obj).__name__)} could never be loaded: {again.message}") from again
    return data, cuts(pairwise([*starts, len(data)]), len(data)), cause


@contextmanager
def _ownerless(obj: Any) -> Iterator[None]:
    """Requests for metadata name the estimator that holds them, for messages, and skops writes no circles: as long as
    this lasts they tell this thread the name of its class. The object itself is not touched: others may use it."""
    kinds: set[Any] = set()
    for part in parts(obj):
        requests = getattr(part, "__dict__", {}).get("_metadata_request")
        if requests is not None:
            held = [requests, *(value for value in vars(requests).values() if hasattr(value, "owner"))]
            kinds |= {type(value) for value in held}
    thread = threading.get_ident()

    def stateless(kind: Any) -> Callable[[Any], Any]:
        usual = kind.__getstate__

        def state(self: Any) -> Any:
            found = usual(self)
            if threading.get_ident() != thread or not isinstance(found, dict) or isinstance(found["owner"], str):
                return found
            return {**found, "owner": type(found["owner"]).__name__}

        return state

    with _ONE_AT_A_TIME if kinds else nullcontext():
        before = {kind: vars(kind).get("__getstate__") for kind in kinds}
        try:
            for kind in kinds:
                kind.__getstate__ = stateless(kind)
            yield
        finally:
            for kind, own in before.items():
                if own is not None:
                    kind.__getstate__ = own
                elif "__getstate__" in vars(kind):
                    del kind.__getstate__


def read(data: bytes, trust: bool) -> Any:
    """The object of an archive. Raises `NotTrusted` with the types that are on no list, unless `trust`, and
    `SerializationError` for an archive that is broken."""
    try:
        members, schema, changed = _opened(data)
        unknown = _check(members, schema, trust)
        if changed:
            data, _ = _zipped(members, schema)
        obj = skops_io().loads(data, trusted=[*TRUSTED, *unknown])
        review(obj, trust)
        return obj
    except (NotTrusted, SerializationError):
        raise
    except (Exception, RecursionError) as exc:
        raise SerializationError(f"the skops archive is broken: {_line(exc)}") from exc


def _check(members: Mapping[str, bytes], schema: dict[str, Any], trust: bool) -> list[str]:
    """The types that are on no list. Raises `NotTrusted` where there are some, unless `trust`."""
    for node in nodes_of(schema):
        _check_node(node, members, trust)
    check_trees(schema, members, trust)
    without, _ = _zipped(dict.fromkeys(members, b""), schema)  # types stand in the tree
    unknown = sorted(set(skops_io().get_untrusted_types(data=without)) - set(TRUSTED))
    if unknown and not trust:
        raise NotTrusted(
            f"the file wants to make objects of types that are on no list: {', '.join(unknown)[:300]}",
            hint="load(ref, trust=True), if you trust its author",
        )
    return unknown


def _clean(content: bytes) -> bytes:
    """An array of records without what happens to lie in the memory between its fields."""
    if not content.startswith(b"\x93NUMPY") or b"'descr': [" not in content[:100]:
        return content
    array, start = mapped(content)
    if array.dtype.names is None:
        return content
    clean = np.zeros(array.shape, array.dtype, "F" if array.flags.f_contiguous else "C")  # zeros_like keeps the gaps
    for name in array.dtype.names:
        clean[name] = array[name]
    return content[:start] + clean.tobytes("A")


def _opened(data: bytes) -> tuple[dict[str, bytes], dict[str, Any], bool]:
    """The members and the tree, without the ids by which one node may stand for another, and whether it had some, or
    packed members: skops gets neither."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        names = [info.filename for info in infos]
        if len(set(names)) != len(names) or SCHEMA not in names:
            raise SerializationError(f"the skops archive has no {SCHEMA}, or two members of one name")
        _refuse_bomb(archive, len(data))
        members = {info.filename: _member(archive, info) for info in infos}
        packed = any(info.compress_type != zipfile.ZIP_STORED for info in infos)
    schema = json.loads(members.pop(SCHEMA))
    if not isinstance(schema, dict):
        raise SerializationError(f"{SCHEMA} is no object")
    ids = [node.pop("__id__", None) for node in nodes_of(schema)]
    return members, schema, packed or any(number is not None for number in ids)


def _is_array_check(node: Mapping[str, Any]) -> bool:
    """Whether it is `check_array` with some options, as gradient boosting keeps it for its categories."""
    content = node.get("content")
    if not isinstance(content, dict) or not {"func", "args", "namespace"} <= content.keys():
        return False
    func, args, namespace = content["func"], content["args"], content["namespace"]
    named = (func["__loader__"], func["__module__"], func["__class__"])
    return (
        named == ("FunctionNode", "sklearn.utils.validation", "check_array")
        and args["content"] in ([], "[]")
        and namespace.get("content") in ("null", {})
    )


def _refuse_bomb(archive: zipfile.ZipFile, size: int) -> None:
    total = sum(info.file_size for info in archive.infolist())
    if total > min(MAX_BYTES, MAX_RATIO * size + (1 << 20)):
        raise SerializationError(f"the skops archive of {size:,} bytes says that it unpacks to {total:,}")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, as many as the archive says: `ZipFile.read` unpacks the whole stream before it counts."""
    with archive.open(info) as file:
        return file.read(info.file_size)


def _renamed(members: Mapping[str, bytes], schema: dict[str, Any]) -> dict[str, bytes]:
    """The members by other names, in the order in which the tree meets their contents; the tree is told."""
    names: dict[bytes, str] = {}
    for node in nodes_of(schema):
        file = node.get("file")
        if isinstance(file, str):
            if file not in members:
                raise SerializationError(f"the skops archive has no member {file[:60]!r}")
            node["file"] = names.setdefault(members[file], f"{len(names)}.npy")
    return {name: content for content, name in names.items()}


def _zipped(members: Mapping[str, bytes], schema: dict[str, Any]) -> tuple[bytes, list[int]]:
    """The archive of the members, and where each begins in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        text = json.dumps(schema, ensure_ascii=True).encode()
        for name, content in [(SCHEMA, text), *members.items()]:
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue(), [info.header_offset for info in archive.infolist()]


def _check_node(node: Mapping[str, Any], members: Mapping[str, bytes], trust: bool) -> None:
    loader, module, name = node["__loader__"], node["__module__"], node["__class__"]
    if loader == "PartialNode" and _is_array_check(node):
        return
    if loader not in NODES and not trust:
        raise NotTrusted(
            f"the file wants to call something ({str(loader)[:40]} of {str(module)[:80]}.{str(name)[:80]})",
            hint="load(ref, trust=True), if you trust its author",
        )
    if loader == "SparseMatrixNode":
        with zipfile.ZipFile(io.BytesIO(members[node["file"]])) as inner:  # scipy unpacks it
            _refuse_bomb(inner, len(members[node["file"]]))
    if loader == "ObjectNode" and f"{module}.{name}" in ("xgboost.core.Booster", "lightgbm.basic.Booster"):
        state = node["content"]["content"]
        handles = [part for key, part in state.items() if key.endswith("handle")]  # `_handle` in LightGBM 4
        if [part["__loader__"] for part in handles] == ["BytearrayNode"] and module == "xgboost.core":
            check_xgboost(members[handles[0]["file"]])
        elif [part["__loader__"] for part in handles] == ["JsonNode"] and module == "lightgbm.basic":
            check_lightgbm(json.loads(handles[0]["content"]))
        else:
            raise SerializationError(f"the archive holds a {module}.{name} that was not fitted, or is broken")


def _line(exc: BaseException) -> str:
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
