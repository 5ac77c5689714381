"""XGBoost's UBJSON and LightGBM's text, walked before their native readers see them.

Those readers trust the numbers in a file: one that lies ends the process, or reads and writes what is not the model's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from catalog_core.errors import SerializationError

MAX_DEPTH = 64
_ROOT = 2**31 - 1  # the parent of a root
_NUMBERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}


class _Ubjson:
    """A reader of UBJSON, as XGBoost writes it; typed arrays become NumPy arrays. Raises ValueError, IndexError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, length: int) -> bytes:
        part = self.data[self.at : self.at + length]
        if length < 0 or len(part) != length:
            raise ValueError("it ends too early")
        self.at += length
        return part

    def number(self, kind: bytes) -> Any:
        return np.frombuffer(self.take(np.dtype(_NUMBERS[kind]).itemsize), _NUMBERS[kind])[0].item()

    def length(self) -> int:
        return int(self.number(self.take(1)))

    def value(self, kind: bytes, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if kind in _NUMBERS:
            return self.number(kind)
        if kind in (b"T", b"F", b"Z", b"N"):
            return kind == b"T"
        if kind == b"C":
            return self.take(1).decode()
        if kind == b"S":
            return self.take(self.length()).decode()
        if kind == b"{":
            found: dict[str, Any] = {}
            while self.data[self.at : self.at + 1] != b"}":
                if self.take(1) != b"L":
                    raise ValueError("a key has no length")
                key = self.take(self.number(b"L")).decode()
                found[key] = self.value(self.take(1), depth + 1)
            self.take(1)
            return found
        if kind != b"[":
            raise ValueError(f"there is no type {kind!r}")
        typed = self.data[self.at : self.at + 1] == b"$"
        of = self.take(2)[1:] if typed else b""
        if self.data[self.at : self.at + 1] == b"#":
            self.take(1)
            count = self.length()
            if typed:
                return np.frombuffer(self.take(count * np.dtype(_NUMBERS[of]).itemsize), _NUMBERS[of])
            if not 0 <= count <= len(self.data):
                raise ValueError("a list is longer than the file")
            return [self.value(self.take(1), depth + 1) for _ in range(count)]
        items: list[Any] = []
        while self.data[self.at : self.at + 1] != b"]":
            items.append(self.value(self.take(1), depth + 1))
        self.take(1)
        return items


def check_xgboost(data: bytes) -> None:
    """Raises `SerializationError` for what is no whole XGBoost model (UBJSON), or whose trees lie."""
    with _broken():
        reader = _Ubjson(data)
        model = reader.value(reader.take(1))
        if reader.at != len(data):
            raise ValueError("something follows it")
        _check_learner(model.get("Model", model)["learner"])


def read_xgboost(text: bytes) -> Any:
    """The booster that XGBoost wrote as JSON. Raises `SerializationError` as `check_xgboost` does."""
    with _broken():
        _check_learner(json.loads(text)["learner"])
    import xgboost

    try:
        return as_estimator(xgboost.Booster(model_file=bytearray(text)))
    except (xgboost.core.XGBoostError, ValueError, TypeError) as exc:
        cause = (str(exc).strip().splitlines() or [""])[0][:200]
        raise SerializationError(f"XGBoost cannot read the file: {cause}") from exc


ESTIMATORS = ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor")
_KINDS = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}


def as_estimator(obj: Any, kind: str = "") -> Any:
    """The estimator that a booster belonged to: of the class `kind`, else the one that wrote its file, as that says. A
    booster of its own stays one. (A booster gives probabilities where its classifier gives classes.)"""
    import xgboost

    booster = obj if isinstance(obj, xgboost.Booster) else obj.get_booster()
    if kind not in ESTIMATORS:
        try:
            kind = _KINDS.get(json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type"), "")
        except (ValueError, AttributeError, TypeError):
            kind = ""
    if not kind or type(obj).__name__ == kind:
        return obj
    made = getattr(xgboost, kind)()
    params = made.get_params()
    made.load_model(bytearray(booster.save_raw("ubj")))
    for key, value in params.items():  # load_model changes some
        setattr(made, key, value)
    return made


@contextmanager
def _broken() -> Iterator[None]:
    """Says so of a model that is none."""
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise SerializationError(f"the file is no XGBoost model, or is broken: {type(exc).__name__}: {exc}") from exc


def _check_learner(learner: Any) -> None:
    about = learner["learner_model_param"]
    inputs = int(about["num_feature"])
    groups = max(1, int(about.get("num_class", 0)), int(about.get("num_target", 1)))
    booster = learner["gradient_booster"]
    _check_linear(booster, inputs, groups)
    for part in (booster, booster.get("gbtree", {})):
        if "model" in part and "trees" in part["model"]:
            _check_forest(part["model"], inputs, groups)
    drop = booster.get("weight_drop")
    if drop is not None and len(drop) != len(booster["gbtree"]["model"]["trees"]):
        raise ValueError("it weighs another number of trees")


def _check_linear(booster: Any, inputs: int, groups: int) -> None:
    """`gblinear`: a weight for each input and output, and the biases behind them."""
    weights = booster.get("model", {}).get("weights")
    if booster.get("name") == "gblinear" and (weights is None or len(weights) != (inputs + 1) * groups):
        raise ValueError("its weights are not as many as its inputs")


def _check_forest(model: Any, inputs: int, groups: int) -> None:
    trees, info = model["trees"], np.asarray(model["tree_info"])
    if int(model["gbtree_model_param"]["num_trees"]) != len(trees) or len(info) != len(trees):
        raise ValueError("the number of its trees is another one")
    if len(info) and (info.min() < 0 or info.max() >= groups):
        raise ValueError("a tree adds to an output that is not there")
    steps = np.asarray(model.get("iteration_indptr", [0]))
    if len(steps) and (steps[0] != 0 or (np.diff(steps) < 0).any() or steps[-1] > len(trees)):
        raise ValueError("its rounds do not fit its trees")
    for number, tree in enumerate(trees):
        if int(tree.get("id", number)) != number:
            raise ValueError("its trees are not in order")
        _check_tree(tree, inputs, groups)
    if "cats" in model:
        _check_categories(model["cats"], inputs)


def _check_categories(cats: Any, inputs: int) -> None:
    """The categories of the data frame that it was fitted on, input by input."""
    bounds, order = (np.asarray(cats[key], np.int64) for key in ("feature_segments", "sorted_idx"))
    known = [max(len(one["offsets"]) - 1, 0) if "offsets" in one else len(one["values"]) for one in cats["enc"]]
    if len(known) not in (0, inputs) or (len(bounds) and bounds.tolist() != np.cumsum([0, *known]).tolist()):
        raise ValueError("its categories are of other inputs")
    if len(order) != sum(known) or (known and not len(bounds)):
        raise ValueError("its categories are not in order")
    for start, count, one in zip(np.cumsum([0, *known]), known, cats["enc"], strict=False):
        texts = np.asarray(one["offsets"] if len(one.get("offsets", ())) else [0], np.int64)
        if sorted(order[start : start + count].tolist()) != list(range(count)):
            raise ValueError("its categories are not in order")
        if "offsets" in one and (texts[0] != 0 or (np.diff(texts) < 0).any() or texts[-1] != len(one["values"])):
            raise ValueError("the text of a category is not there")
        if not 0 <= int(one.get("type", 0)) < 64:
            raise ValueError("a category is of no type")


def _check_tree(tree: Any, inputs: int, groups: int) -> None:
    left, right, used, parents = (
        np.asarray(tree[key], np.int64) for key in ("left_children", "right_children", "split_indices", "parents")
    )
    count = int(tree["tree_param"]["num_nodes"])
    per_node = [*map(len, (left, right, used, parents)), len(tree["split_conditions"]), len(tree["default_left"])]
    if count < 1 or set(per_node) != {count}:
        raise ValueError("a tree has lists of different lengths")
    width = int(tree["tree_param"].get("size_leaf_vector", 1)) or 1
    leaves = left == -1
    wanted = {"base_weights": count * width, "leaf_weights": int(leaves.sum()) * width}
    wanted |= dict.fromkeys(("loss_changes", "sum_hessian", "split_type"), count)
    for key, length in wanted.items():
        if (key in tree or (key == "leaf_weights" and width > 1)) and len(tree[key]) != length:
            raise ValueError(f"a tree has {len(tree[key])} of {key}")
    if width not in (1, groups) or (
        width > 1 and (right[leaves].min() < 0 or right[leaves].max() >= int(leaves.sum()))
    ):
        raise ValueError("a tree has leaves for other outputs")
    if int(tree["tree_param"].get("num_feature", inputs)) > inputs:
        raise ValueError("a tree has more inputs than the model")
    if parents[0] not in (_ROOT, -1) or ((parents[1:] < 0) | (parents[1:] >= count)).any():
        raise ValueError("a tree has parents that are not there")
    level, seen = np.array([0]), 0
    while level.size:
        seen += level.size
        if seen > count or level.min() < 0 or level.max() >= count:
            raise ValueError("a tree has branches that lead nowhere, or back")
        inner = level[left[level] != -1]
        if inner.size and (used[inner].min() < 0 or used[inner].max() >= inputs):
            raise ValueError("a tree looks at an input that is not there")
        below = np.concatenate([left[inner], right[inner]])
        if below.size and (below.min() < 1 or below.max() >= count or (parents[below] != np.tile(inner, 2)).any()):
            raise ValueError("a tree has branches that lead nowhere, or back")
        level = below
    nodes, starts, sizes = (
        np.asarray(tree.get(f"categories_{key}", []), np.int64) for key in ("nodes", "segments", "sizes")
    )
    if nodes.size and (
        not len(nodes) == len(starts) == len(sizes) or min(nodes.min(), starts.min(), sizes.min()) < 0
        or nodes.max() >= count or int((starts + sizes).max()) > len(tree["categories"])
    ):  # fmt: skip
        raise ValueError("a tree names categories that it does not hold")


def check_lightgbm(text: str) -> None:
    """Raises `SerializationError` for what is no whole LightGBM model, or whose trees lie."""
    try:
        head, mark, tail = text.partition("\n\nend of trees\n")
        if not head.startswith("tree\n") or not mark or not _TAIL.fullmatch(tail):
            raise ValueError("it was cut short, or its end is another one")
        if any(ord(letter) < 32 and letter != "\n" for letter in text):
            raise ValueError("it holds control characters")
        first, *trees = head.split("\nTree=")
        about = dict(_lines(first))
        if not {"label_index", "version"} <= about.keys():  # one of the user's own has no objective
            raise ValueError("its head is not whole")
        inputs, classes = int(about["max_feature_idx"]) + 1, int(about["num_tree_per_iteration"])
        if (
            inputs < 1
            or len(about["feature_names"].split(" ")) != inputs
            or len(about["feature_infos"].split(" ")) != inputs
        ):
            raise ValueError("the names of its inputs are not as many as its inputs")
        told = re.search(r"\bnum_class:(-?\d+)", about.get("objective", ""))
        if (
            not 1 <= classes <= 10_000
            or int(about["num_class"]) != classes
            or len(trees) % classes
            or (told is not None and int(told[1]) != classes)
        ):
            raise ValueError("its trees do not fit its classes")
        sizes = [int(size) for size in about["tree_sizes"].split()]
        if sizes != [len(f"Tree={tree}".encode()) + 1 for tree in _padded(trees)]:
            raise ValueError("the sizes of its trees are others")
        for number, tree in enumerate(trees):
            values = dict(_lines(f"Tree={tree}"))
            if values["Tree"] != str(number):
                raise ValueError("its trees are not in order")
            _check_text_tree(values, inputs)
    except (ValueError, KeyError, IndexError, OverflowError) as exc:
        raise SerializationError(f"the file is no LightGBM model, or is broken: {type(exc).__name__}: {exc}") from exc


_TAIL = re.compile(
    r"\nfeature_importances:\n([^\n=]+=[0-9.e+-]+\n)*(\nparameters:\n(\[\w+: [^\[\]\n]*\]\n)*\nend of parameters\n)?"
    r"\npandas_categorical:[^\n]*\n"
)


def _padded(trees: list[str]) -> list[str]:
    """Each tree as the file has it: two empty lines end it; the last one's were cut away with what follows."""
    return [*trees[:-1], trees[-1] + "\n"] if trees else []


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        key, mark, value = line.partition("=")
        if mark:
            yield key, value


def _check_text_tree(values: dict[str, str], inputs: int) -> None:
    leaves = int(values["num_leaves"])
    inner = leaves - 1

    def numbers(key: str, count: int, kind: Any = np.int64) -> Any:
        found = np.array(values.get(key, "").split(), kind)
        if len(found) != count:
            raise ValueError(f"a tree of {leaves} leaves has {len(found)} of {key}")
        return found

    if leaves < 1:
        raise ValueError("a tree has no leaves")
    if int(values.get("is_linear", "0")):
        raise SerializationError(
            "LightGBM's linear models in the leaves are not supported", hint="train it without linear_tree"
        )
    numbers("leaf_value", leaves, np.float64)
    numbers("shrinkage", 1, np.float64)
    told = {"leaf_weight": leaves, "leaf_count": leaves}
    told |= dict.fromkeys(("split_gain", "internal_value", "internal_weight", "internal_count"), inner)
    for key, count in told.items():
        if key in values:
            numbers(key, count if inner or values[key] else 0, np.float64)
    if not inner:
        return
    used, kinds = numbers("split_feature", inner), numbers("decision_type", inner)
    left, right = numbers("left_child", inner), numbers("right_child", inner)
    thresholds = numbers("threshold", inner, np.float64)
    if used.min() < 0 or used.max() >= inputs:
        raise ValueError("a tree looks at an input that is not there")
    both, at = np.concatenate([left, right]), np.tile(np.arange(inner), 2)
    if both.min() < -leaves or both.max() >= inner or (both[both >= 0] <= at[both >= 0]).any():
        raise ValueError("a tree has branches that lead nowhere, or back")
    cats = int(values["num_cat"])
    if cats:
        bounds = numbers("cat_boundaries", cats + 1)
        if bounds[0] != 0 or (np.diff(bounds) < 0).any():
            raise ValueError("a tree names categories that it does not hold")
        numbers("cat_threshold", int(bounds[-1]))
    by_category = thresholds[(kinds & 1) == 1]
    if by_category.size and (by_category.min() < 0 or by_category.max() >= cats):
        raise ValueError("a tree names categories that it does not hold")
