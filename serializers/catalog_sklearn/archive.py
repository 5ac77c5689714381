"""skops archives: written so that the same object gives the same bytes, and checked before skops opens them.

An archive is a zip file of `schema.json`, a tree of nodes that say how each part of the object is made, and of arrays
(`.npy`) and bytes that the nodes name. skops compares the types that a tree names with a list of its own; ours is that
list, with a few types more, less all nodes that call something.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from catalog_core.errors import NotTrusted, SerializationError
from catalog_core.tensors import cuts
from catalog_sklearn.boosters import check_lightgbm, check_xgboost

SCHEMA = "schema.json"
MAX_BYTES = 16 << 30
MAX_RATIO = 200  # unpacked to packed, beyond which an archive is a bomb
_TREE = "sklearn.tree._tree.Tree"
_PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
# What may be made besides the types that skops trusts itself. The trees are: their arrays are checked here.
ALLOWED = (
    _TREE, _PREDICTOR, "collections.OrderedDict",
    "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier", "lightgbm.sklearn.LGBMModel",
    "lightgbm.sklearn.LGBMRanker", "lightgbm.sklearn.LGBMRegressor", "lightgbm.sklearn._LGBMLabelEncoder",
    "xgboost.core.Booster", "xgboost.sklearn.XGBClassifier", "xgboost.sklearn.XGBRanker",
    "xgboost.sklearn.XGBRegressor", "xgboost.sklearn.XGBRFClassifier", "xgboost.sklearn.XGBRFRegressor",
)  # fmt: skip
# Plain classes of scikit-learn, written in Python, that hold numbers and names.
_PLAIN = {
    "sklearn.gaussian_process.kernels": "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation "
    "Hyperparameter Matern PairwiseKernel Product RBF RationalQuadratic Sum WhiteKernel",
    "sklearn.calibration": "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling",
    "sklearn.metrics._scorer": "_PassthroughScorer",
    "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
    "sklearn.model_selection._split": "GroupKFold KFold LeaveOneOut RepeatedKFold RepeatedStratifiedKFold ShuffleSplit "
    "StratifiedGroupKFold StratifiedKFold StratifiedShuffleSplit TimeSeriesSplit",
}
TRUSTED = [*ALLOWED, *(f"{module}.{name}" for module, names in _PLAIN.items() for name in names.split())]
# The estimators that hold trees, by module: what holds one elsewhere is refused by its type.
_FORESTS = (
    "sklearn.tree._classes", "sklearn.ensemble._forest", "sklearn.ensemble._gb", "sklearn.ensemble._iforest",
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting",
)  # fmt: skip
# A node that is not among these calls a function, a method or a constructor that the file names.
NODES = frozenset({
    "BytearrayNode", "BytesNode", "DTypeNode", "DefaultDictNode", "DictNode", "FunctionNode", "JsonNode", "ListNode",
    "LossNode", "MaskedArrayNode", "NdArrayNode", "ObjectNode", "RandomGeneratorNode", "RandomStateNode", "SetNode",
    "SliceNode", "SparseMatrixNode", "TreeNode", "TupleNode", "TypeNode",
})  # fmt: skip


def write(obj: Any) -> tuple[bytes, list[int], str | None]:
    """The archive of an object, where its chunks begin, and why it will load with `trust` only, or None. Raises
    `SerializationError` for what skops cannot hold."""
    import skops.io

    try:
        data = skops.io.dumps(obj)
    except RecursionError as exc:
        raise SerializationError(f"a {type(obj).__name__} holds itself, or is nested too deeply") from exc
    except Exception as exc:  # it meets every kind of object, and raises every kind of error
        raise SerializationError(f"a {type(obj).__name__} cannot be written by skops: {_line(exc)}") from exc
    members, schema, _ = _opened(data)
    members = _renamed({name: _clean(content) for name, content in members.items()}, schema)
    cause = None
    try:
        _check(members, schema, trust=False)
    except (NotTrusted, SerializationError) as exc:
        cause = exc.message
    data, starts = _zipped(members, schema)
    return data, cuts(pairwise([*starts, len(data)]), len(data)), cause


def read(data: bytes, trust: bool) -> Any:
    """The object of an archive. Raises `NotTrusted` with the types that are on no list, unless `trust`, and
    `SerializationError` for an archive that is broken."""
    import skops.io

    try:
        members, schema, changed = _opened(data)
        unknown = _check(members, schema, trust)
        if changed:
            data, _ = _zipped(members, schema)
        return skops.io.loads(data, trusted=[*TRUSTED, *unknown])
    except (NotTrusted, SerializationError):
        raise
    except (Exception, RecursionError) as exc:
        raise SerializationError(f"the skops archive is broken: {_line(exc)}") from exc


def _check(members: Mapping[str, bytes], schema: dict[str, Any], trust: bool) -> list[str]:
    """The types that are on no list. Raises `NotTrusted` where there are some, unless `trust`."""
    import skops.io

    for node in _nodes(schema):
        _check_node(node, members, trust)
    without, _ = _zipped(dict.fromkeys(members, b""), schema)  # types stand in the tree
    unknown = sorted(set(skops.io.get_untrusted_types(data=without)) - set(TRUSTED))
    if unknown and not trust:
        raise NotTrusted(
            f"the file wants to make objects of types that are on no list: {', '.join(unknown)[:300]}",
            hint="load(ref, trust=True), if you trust its author",
        )
    return unknown


def _mapped(content: bytes) -> tuple[np.ndarray, int]:
    """The array of a `.npy` file, on the file's own bytes, and where in them it begins. No pickle is read."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or version not in ((1, 0), (2, 0)):
        raise SerializationError("an array holds Python objects, or is of a newer format")
    flat = np.frombuffer(content, dtype, math.prod(shape), file.tell())
    return flat.reshape(shape, order="F" if fortran else "C"), file.tell()


def _clean(content: bytes) -> bytes:
    """An array of records without what happens to lie in the memory between its fields."""
    if not content.startswith(b"\x93NUMPY") or b"'descr': [" not in content[:100]:
        return content
    array, start = _mapped(content)
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
        total = sum(info.file_size for info in infos)
        if total > min(MAX_BYTES, MAX_RATIO * len(data) + (1 << 20)):
            raise SerializationError(f"the skops archive of {len(data):,} bytes says that it unpacks to {total:,}")
        members = {info.filename: _member(archive, info) for info in infos}
        packed = any(info.compress_type != zipfile.ZIP_STORED for info in infos)
    schema = json.loads(members.pop(SCHEMA))
    if not isinstance(schema, dict):
        raise SerializationError(f"{SCHEMA} is no object")
    ids = [node.pop("__id__", None) for node in _nodes(schema)]
    return members, schema, packed or any(number is not None for number in ids)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, as many as the archive says: `ZipFile.read` unpacks the whole stream before it counts."""
    with archive.open(info) as file:
        return file.read(info.file_size)


def _renamed(members: Mapping[str, bytes], schema: dict[str, Any]) -> dict[str, bytes]:
    """The members by other names, in the order in which the tree meets their contents; the tree is told."""
    names: dict[bytes, str] = {}
    for node in _nodes(schema):
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


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree that says how it is loaded, outermost first."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "__loader__" in item:
                yield item
            waiting += reversed(list(item.values()))
        elif isinstance(item, list):
            waiting += reversed(item)


def _check_node(node: Mapping[str, Any], members: Mapping[str, bytes], trust: bool) -> None:
    loader, module, name = node["__loader__"], node["__module__"], node["__class__"]
    if loader not in NODES and not trust:
        raise NotTrusted(
            f"the file wants to call something ({str(loader)[:40]} of {str(module)[:80]}.{str(name)[:80]})",
            hint="load(ref, trust=True), if you trust its author",
        )
    if loader == "ObjectNode" and module in _FORESTS:
        check_trees(node, members)
    if loader == "ObjectNode" and f"{module}.{name}" in ("xgboost.core.Booster", "lightgbm.basic.Booster"):
        state = node["content"]["content"]
        handles = [part for key, part in state.items() if key.endswith("handle")]  # `_handle` in LightGBM 4
        if [part["__loader__"] for part in handles] == ["BytearrayNode"] and module == "xgboost.core":
            check_xgboost(members[handles[0]["file"]])
        elif [part["__loader__"] for part in handles] == ["JsonNode"] and module == "lightgbm.basic":
            check_lightgbm(json.loads(handles[0]["content"]))
        else:
            raise SerializationError(f"the archive holds a {module}.{name} that was not fitted, or is broken")


def check_trees(node: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """Hold the trees of an estimator against it. scikit-learn follows the numbers in them without looking, so that
    one that lies crashes the process or reads what is not the model's. Children come after parents: a walk ends."""
    highest = -1
    for part in _nodes(node):
        if part["__loader__"] == "TreeNode" or f"{part['__module__']}.{part['__class__']}" == _TREE:
            nodes = _array(part, "nodes", members)
            highest = max(
                highest, _check_tree(nodes, ~(nodes["left_child"] == -1), "left_child", "right_child", "feature")
            )
        elif f"{part['__module__']}.{part['__class__']}" == _PREDICTOR:
            nodes = _array(part, "nodes", members)
            inner = nodes["is_leaf"] == 0
            highest = max(highest, _check_tree(nodes, inner, "left", "right", "feature_idx"))
            tables = [_array(part, f"{kind}_left_cat_bitsets", members) for kind in ("binned", "raw")]
            used = nodes[inner & (nodes["is_categorical"] != 0)]["bitset_idx"]
            if used.size and int(used.max()) >= min(map(len, tables)):
                raise SerializationError("a tree names categories that it does not hold")
    if highest >= 0:
        inputs = json.loads(node["content"]["content"]["n_features_in_"]["content"])
        if type(inputs) is not int or highest >= inputs:
            raise SerializationError(f"a tree looks at input {highest} of {inputs}")


def _array(node: Mapping[str, Any], key: str, members: Mapping[str, bytes]) -> np.ndarray:
    part = node["content"]["content"][key]
    array, _ = _mapped(members[part["file"]])
    if part["__loader__"] != "NdArrayNode" or part["type"] != "numpy" or array.ndim == 0:
        raise SerializationError(f"the {key} of a tree are no array")
    return array


def _check_tree(nodes: np.ndarray, inner: np.ndarray, left: str, right: str, feature: str) -> int:
    """The highest input that the nodes look at, or -1."""
    at = np.flatnonzero(inner)
    for child in (left, right):
        targets = nodes[child][inner].astype(np.int64)
        if nodes.ndim != 1 or not len(nodes) or (targets <= at).any() or (targets >= len(nodes)).any():
            raise SerializationError("a tree has branches that lead nowhere, or back")
    used = nodes[feature][inner].astype(np.int64)
    if used.size and used.min() < 0:
        raise SerializationError(f"a tree looks at input {int(used.min())}")
    return int(used.max()) if used.size else -1


def _line(exc: BaseException) -> str:
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
