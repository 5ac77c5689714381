"""The trees of an archive, held against the estimator that holds them before skops makes them.

scikit-learn follows the numbers in a tree without looking, so that one that lies crashes the process or reads what is
not the model's.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from catalog_core.errors import NotTrusted, SerializationError
from catalog_sklearn.types import PREDICTOR, TREE

# The estimators that hold trees, by module, and the attribute where they do. A tree elsewhere is refused.
_FORESTS = (
    "sklearn.tree._classes", "sklearn.ensemble._forest", "sklearn.ensemble._gb", "sklearn.ensemble._iforest",
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting",
)  # fmt: skip
MAX_OUTPUTS = 1 << 20


def nodes_of(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree of an archive that says how it is loaded, outermost first."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "__loader__" in item:
                yield item
            waiting += reversed(list(item.values()))
        elif isinstance(item, list):
            waiting += reversed(item)


def mapped(content: bytes) -> tuple[np.ndarray, int]:
    """The array of a `.npy` file, on the file's own bytes, and where in them it begins. No pickle is read."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or version not in ((1, 0), (2, 0)):
        raise SerializationError("an array holds Python objects, or is of a newer format")
    flat = np.frombuffer(content, dtype, math.prod(shape), file.tell())
    return flat.reshape(shape, order="F" if fortran else "C"), file.tell()


def _is(node: Mapping[str, Any], name: str) -> bool:
    return f"{node['__module__']}.{node['__class__']}" == name


def check_trees(schema: Any, members: Mapping[str, bytes], trust: bool) -> None:
    """Raises `SerializationError` for a tree that lies, and, unless `trust`, `NotTrusted` for one elsewhere than where
    scikit-learn keeps trees: nobody asks there how many inputs it has."""
    held: set[int] = set()
    for node in nodes_of(schema):
        if node["__loader__"] == "ObjectNode" and node["__module__"] in _FORESTS:
            _check_holder(node, members, held)
    for node in nodes_of(schema):
        if id(node) not in held and (_is_tree(node) or _is_predictor(node)):
            if not trust:
                raise NotTrusted(f"a tree is held by what holds no trees of scikit-learn's ({node['__class__']})"[:200],
                                 hint="load(ref, trust=True), if you trust its author")  # fmt: skip
            (_check_tree if _is_tree(node) else _check_predictor)(node, members)


def _is_tree(node: Mapping[str, Any]) -> bool:
    loader = node["__loader__"]
    return loader == "TreeNode" or (_is(node, TREE) and loader not in ("TypeNode", "FunctionNode"))


def _is_predictor(node: Mapping[str, Any]) -> bool:
    return _is(node, PREDICTOR) and node["__loader__"] not in ("TypeNode", "FunctionNode")


def _check_holder(node: Mapping[str, Any], members: Mapping[str, bytes], held: set[int]) -> None:
    """Hold the trees of an estimator against it. Children come after their one parent: a walk ends."""
    highest = -1
    for part in nodes_of(node):
        if _is_tree(part):
            held.add(id(part))
            highest = max(highest, _check_tree(part, members))
        elif _is_predictor(part):
            held.add(id(part))
            highest = max(highest, _check_predictor(part, members))
    if highest >= 0:
        inputs = json.loads(node["content"]["content"]["n_features_in_"]["content"])
        if type(inputs) is not int or highest >= inputs:
            raise SerializationError(f"a tree looks at input {highest} of {inputs}")


def _check_tree(part: Mapping[str, Any], members: Mapping[str, bytes]) -> int:
    """A `Tree`: what it is made of, its nodes, and what it says of them. The highest input that it looks at, or -1."""
    inputs, classes, outputs = part["__reduce__"]["args"]["content"]
    inputs, outputs = json.loads(inputs["content"]), json.loads(outputs["content"])
    told, kinds = part["content"]["content"], _read(classes, members)
    nodes, values = _array(part, "nodes", members), _array(part, "values", members)
    count, depth = (json.loads(told[key]["content"]) for key in ("node_count", "max_depth"))
    if any(type(number) is not int for number in (inputs, outputs, count, depth)):
        raise SerializationError("the sizes of a tree are no numbers")
    if kinds.shape != (outputs,) or not 1 <= outputs <= MAX_OUTPUTS or kinds.dtype.kind not in "iu" or kinds.min() < 1:
        raise SerializationError("a tree has other outputs than it says")
    if count != len(nodes) or values.shape != (count, outputs, int(kinds.max())):
        raise SerializationError("a tree has other nodes than it says")
    highest, deepest = _check_nodes(nodes, nodes["left_child"] != -1, "left_child", "right_child", "feature")
    if highest >= inputs or deepest > depth:
        raise SerializationError(f"a tree looks at input {highest} of {inputs}, or is deeper than it says")
    return highest


def _check_predictor(part: Mapping[str, Any], members: Mapping[str, bytes]) -> int:
    nodes = _array(part, "nodes", members)
    inner = nodes["is_leaf"] == 0
    highest, _ = _check_nodes(nodes, inner, "left", "right", "feature_idx")
    tables = [_array(part, f"{kind}_left_cat_bitsets", members) for kind in ("binned", "raw")]
    if any(table.ndim != 2 or table.shape[1] != 8 for table in tables):  # 256 bits
        raise SerializationError("a tree has categories of another kind")
    used = nodes[inner & (nodes["is_categorical"] != 0)]["bitset_idx"]
    if used.size and int(used.max()) >= min(map(len, tables)):
        raise SerializationError("a tree names categories that it does not hold")
    return highest


def _read(part: Mapping[str, Any], members: Mapping[str, bytes]) -> np.ndarray:
    if part["__loader__"] != "NdArrayNode" or part["type"] != "numpy":
        raise SerializationError("a part of a tree is no array")
    return mapped(members[part["file"]])[0]


def _array(node: Mapping[str, Any], key: str, members: Mapping[str, bytes]) -> np.ndarray:
    array = _read(node["content"]["content"][key], members)
    if array.ndim == 0:
        raise SerializationError(f"the {key} of a tree are no array")
    return array


def _check_nodes(nodes: np.ndarray, inner: np.ndarray, left: str, right: str, feature: str) -> tuple[int, int]:
    """The highest input that the nodes look at, or -1, and how deep they lie."""
    if nodes.ndim != 1 or not len(nodes):
        raise SerializationError("a tree has no nodes")
    at = np.flatnonzero(inner)
    sides = [nodes[child][inner].astype(np.int64) for child in (left, right)]
    targets = np.concatenate(sides)
    if (targets <= np.tile(at, 2)).any() or (targets >= len(nodes)).any() or len(np.unique(targets)) != len(targets):
        raise SerializationError("a tree has branches that lead nowhere, or back")
    used = nodes[feature][inner].astype(np.int64)
    if used.size and used.min() < 0:
        raise SerializationError(f"a tree looks at input {int(used.min())}")
    children = np.zeros((2, len(nodes)), np.int64)
    children[:, at] = sides
    level, depth = np.array([0]), 0
    while (level := level[inner[level]]).size:
        level, depth = children[:, level].ravel(), depth + 1
    return (int(used.max()) if used.size else -1), depth
