"""Ensembles of trees, walked before onnxruntime follows them: it does so by recursion, without an end to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from catalog_core.errors import SerializationError
from catalog_core.shown import an

KINDS = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")
MAX_DEPTH = 2000  # onnxruntime recurses once a level; some 20,000 levels end the process
_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER", "LEAF")


def check_trees(node: Any, told: dict[str, Any]) -> None:
    """Raises `SerializationError` for an ensemble whose lists do not fit each other, or whose branches lead nowhere,
    back, or too deep. `told`: the attributes of the node by name."""
    try:
        (_check_joined if node.op_type == "TreeEnsemble" else _check_listed)(told, node.op_type)
    except (KeyError, ValueError, OverflowError) as exc:
        raise SerializationError(f"the trees of {an(node.op_type)} are broken: {exc}") from exc


def _column(told: dict[str, Any], name: str, length: int | None = None) -> np.ndarray:
    found = np.asarray(told.get(name, ()))
    found = found.astype(np.int64) if found.dtype.kind in "iu" or not found.size else found
    if length is not None and len(found) != length:
        raise ValueError(f"{name} has {len(found)} entries, not {length}")
    return found


def _below(children: np.ndarray, inner: np.ndarray, roots: np.ndarray) -> None:
    """`children`: two rows, the places of each node's branches; `inner`: which nodes have them."""
    level, depth, seen = roots, 0, np.zeros(children.shape[1], bool)
    while level.size:
        level = level[inner[level]]
        if seen[level].any() or len(np.unique(level)) != len(level):
            raise ValueError("a branch leads back, or two lead to one node")
        seen[level] = True
        if (depth := depth + 1) > MAX_DEPTH:
            raise ValueError(f"a tree is deeper than {MAX_DEPTH}")
        level = children[:, level].ravel()
    if not seen[inner].all():
        raise ValueError("a node is reached from no root")


def _check_listed(told: dict[str, Any], kind: str) -> None:
    """Nodes are named by the number of their tree and their number in it."""
    trees = _column(told, "nodes_treeids")
    count = len(trees)
    names = ("nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids")
    nodes, used, true, false = (_column(told, name, count) for name in names)
    modes = np.asarray(told.get("nodes_modes", ()), dtype=object)
    if not count or len(modes) != count or not set(modes.tolist()) <= {mode.encode() for mode in _MODES}:
        raise ValueError("there are no nodes, or their modes are not known")
    values = [name for name in ("nodes_values", "nodes_values_as_tensor") if name in told]
    _column(told, values[0] if values else "nodes_values", count)
    for name in ("nodes_missing_value_tracks_true", "nodes_hitrates"):
        if len(told.get(name, ())):
            _column(told, name, count)
    inner = modes != b"LEAF"
    ids = [trees, nodes, true[inner], false[inner], used[inner]]
    if any(part.size and (part.min() < 0 or part.max() >= 1 << 31) for part in ids):
        raise ValueError("the number of a node, a tree or an input is out of bounds")
    named = trees << 32 | nodes
    order = np.argsort(named, kind="stable")
    if (np.diff(named[order]) == 0).any():
        raise ValueError("two nodes have one number")

    def place(tree: np.ndarray, node: np.ndarray) -> np.ndarray:
        wanted = tree << 32 | node
        at = np.searchsorted(named[order], wanted)
        at = np.minimum(at, count - 1)
        if (named[order][at] != wanted).any():
            raise ValueError("a node is named that is not there")
        found: np.ndarray = order[at]
        return found

    children = np.zeros((2, count), np.int64)
    children[0, inner], children[1, inner] = place(trees[inner], true[inner]), place(trees[inner], false[inner])
    _, roots = np.unique(trees, return_index=True)
    if np.count_nonzero(np.diff(trees)) != len(roots) - 1:
        raise ValueError("the nodes of a tree do not follow each other")
    _below(children, inner, roots)
    part, outputs = ("class", _classes(told)) if kind == "TreeEnsembleClassifier" else ("target", _targets(told))
    leaves, of = _column(told, f"{part}_treeids"), f"{part}_nodeids"
    if ((leaves < 0) | (leaves >= 1 << 31)).any():
        raise ValueError("a leaf is of no tree")
    place(leaves, np.clip(_column(told, of, len(leaves)), -1, (1 << 31) - 1) if len(leaves) else leaves)
    _within(_column(told, f"{part}_ids", len(leaves)), outputs, "an output")
    weights = f"{part}_weights" if f"{part}_weights_as_tensor" not in told else f"{part}_weights_as_tensor"
    _column(told, weights, len(leaves))
    _bases(told, outputs)


def _check_joined(told: dict[str, Any], kind: str) -> None:
    """Nodes and leaves are named by their place."""
    count, leaves = len(_column(told, "nodes_featureids")), len(_column(told, "leaf_targetids"))
    columns = {name: _column(told, f"nodes_{name}", count) for name in
               ("truenodeids", "trueleafs", "falsenodeids", "falseleafs", "modes", "splits", "featureids")}  # fmt: skip
    _column(told, "leaf_weights", leaves)
    for name in ("nodes_hitrates", "nodes_missing_value_tracks_true"):
        if len(told.get(name, ())):
            _column(told, name, count)
    _within(_column(told, "leaf_targetids"), _targets(told), "an output")
    _within(columns["featureids"], 1 << 31, "an input")
    _within(columns["modes"], 7, "a mode")
    roots = _column(told, "tree_roots")
    _within(roots, count, "a root")
    children = np.full((2, count + 1), count)
    for row, side in enumerate(("true", "false")):
        to, leaf = columns[f"{side}nodeids"], columns[f"{side}leafs"]
        _within(leaf, 2, "a mark of leaves")
        _within(to[leaf == 1], leaves, "a leaf")
        _within(to[leaf == 0], count, "a node")
        children[row, :count] = np.where(leaf == 1, count, to)  # every leaf stands at one place behind the nodes
    _below(children, np.arange(count + 1) < count, roots)


def _within(numbers: np.ndarray, end: int, what: str) -> None:
    if numbers.size and (numbers.min() < 0 or numbers.max() >= end):
        raise ValueError(f"{what} is named that is not there")


def _targets(told: dict[str, Any]) -> int:
    return int(told.get("n_targets", 1))


def _classes(told: dict[str, Any]) -> int:
    return max(len(told.get("classlabels_int64s", ())), len(told.get("classlabels_strings", ())))


def _bases(told: dict[str, Any], outputs: int) -> None:
    for name in ("base_values", "base_values_as_tensor"):
        if name in told and len(told[name]) not in (0, 1, outputs):
            raise ValueError(f"{name} has {len(told[name])} entries for {outputs} outputs")
