"""An object that skops made, held against what scikit-learn's compiled code takes for granted.

That code follows the numbers in a fitted estimator without looking: an index that points beyond an array, or two
arrays whose lengths do not fit, end the process at `predict`, or read what is not the model's. Trees are checked before
they are made (`trees`); all else is plain Python and NumPy until the first call, and is checked here. So are parameters
that let an estimator read or write files.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from catalog_core.errors import NotTrusted, SerializationError
from catalog_core.shown import an

MAX_JOBS = 1024
_HINT = "load(ref, trust=True), if you trust its author"
_LEAVES = (
    str, bytes, int, float, complex, type, type(None), types.ModuleType, types.FunctionType, types.BuiltinFunctionType
)  # fmt: skip
_LIBRARIES = ("sklearn", "xgboost", "lightgbm")


def review(obj: Any, trust: bool) -> None:
    """Raises `SerializationError` for state that would crash compiled code, and, unless `trust`, `NotTrusted` for
    attributes that hide methods and parameters that name files."""
    waiting: list[tuple[Callable[[Any], None], Any]] = []
    for part in parts(obj):
        if not trust and type(part).__module__.partition(".")[0] in _LIBRARIES and hasattr(part, "__dict__"):
            _check_attributes(part)
            _check_parameters(part)
        for (module, name), check in _CHECKS.items():
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(part, kind):
                waiting.append((check, part))
    waiting.sort(key=lambda item: item[0] is _check_stages)  # it runs what the others have cleared
    for check, part in waiting:
        _run(check, part)


def _run(check: Callable[[Any], None], part: Any) -> None:
    name = type(part).__name__
    try:
        check(part)
    except SerializationError as exc:
        raise SerializationError(f"{an(name)} is broken: {exc.message}") from exc
    except Exception as exc:  # what is missing, or of another type, comes out in every way
        raise SerializationError(f"{an(name)} is broken: {type(exc).__name__}: {exc}"[:300]) from exc


def parts(obj: Any) -> Iterator[Any]:
    """An object and all that it holds, each once: in containers, arrays of objects, and attributes."""
    waiting, seen = [obj], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, _LEAVES) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting += item
        elif isinstance(item, np.ndarray):
            waiting += item.flat if item.dtype.hasobject else ()
        waiting += getattr(item, "__dict__", {}).values()


def _need(good: Any, what: str) -> None:
    if not good:
        raise SerializationError(what)


def _check_attributes(part: Any) -> None:
    """An attribute of the object hides no method of its class: a check that is called would be another function."""
    for name in vars(part):
        found = inspect.getattr_static(type(part), name, None)
        if hasattr(type(found), "__get__") and not inspect.isdatadescriptor(found):
            raise NotTrusted(
                f"an attribute of {an(type(part).__name__)} hides its method {str(name)[:60]!r}", hint=_HINT
            )


def _check_parameters(part: Any) -> None:
    told, name = vars(part), type(part).__name__
    if told.get("memory") is not None:
        raise NotTrusted(f"the file holds {an(name)} with memory={told['memory']!r}"[:200] + ", a cache that it writes "
                         "to and reads pickles from", hint=_HINT)  # fmt: skip
    if "analyzer" in told and told.get("input", "content") != "content":
        raise NotTrusted(f"the file holds {an(name)} with input={told['input']!r}"[:200] + ", which opens the files "
                         "that its inputs name", hint=_HINT)  # fmt: skip
    if callable(told.get("kernel")) and hasattr(part, "support_"):
        raise NotTrusted(f"the file holds {an(name)} with a function for a kernel", hint=_HINT)
    for jobs in ("n_jobs", "nthread", "num_threads"):
        if isinstance(told.get(jobs), int) and abs(told[jobs]) > MAX_JOBS:
            raise NotTrusted(f"the file holds {an(name)} with {jobs}={told[jobs]}"[:200], hint=_HINT)


def _array(part: Any, name: str, ndim: int, dtype: str = "fiu") -> np.ndarray:
    value = getattr(part, name)
    _need(type(value) is np.ndarray and value.ndim == ndim and value.dtype.kind in dtype, f"{name} is no such array")
    found: np.ndarray = value
    return found


def _indices(values: Any, count: int, what: str) -> None:
    values = np.asarray(values)
    _need(values.dtype.kind in "iu" and (not values.size or (values.min() >= 0 and values.max() < count)), what)


# -- one check for each kind -----------------------------------------------------------------------------------------


def _check_svm(svm: Any) -> None:
    """libsvm copies pointers and believes the lengths of `support_` and `_n_support`."""
    if not hasattr(svm, "support_"):
        return
    hidden = sorted({"_impl", "_sparse_kernels"} & vars(svm).keys())  # they say which of its kernels a name means
    _need(not hidden, f"an attribute of its own hides {', '.join(hidden)} of its class")
    support, count, intercept = _array(svm, "support_", 1), _array(svm, "_n_support", 1), _array(svm, "_intercept_", 1)
    classify = svm._impl in ("c_svc", "nu_svc")
    length, classes = len(support), len(count)
    _need(count.size and count.min() >= 0, "_n_support counts less than nothing")
    if classify:
        _need(int(count.sum()) == length, "support_ is not as long as _n_support says")
        _need(classes == len(svm.classes_), "_n_support is of other classes")
    else:
        _need(classes == 2 and int(count[0]) == length, "support_ is not as long as _n_support says")
    pairs = classes * (classes - 1) // 2 if classify else 1
    _need(len(intercept) == pairs, "intercept_ is of other classes")
    for name in ("_probA", "_probB"):
        _need(len(_array(svm, name, 1)) in (0, pairs), f"{name} is of other classes")
    vectors, dual = svm.support_vectors_, svm._dual_coef_
    _need(tuple(dual.shape) == ((classes - 1) if classify else 1, length), "dual_coef_ does not fit support_")
    if svm._sparse:  # libsvm would take the numbers in support_vectors_ for the columns of the kernel's matrix
        _need(svm.kernel in ("linear", "poly", "rbf", "sigmoid"), "no kernel of sparse vectors is precomputed")
        _need(dual.nnz == len(dual.data) == dual.shape[0] * length, "dual_coef_ leaves numbers out")
    else:
        _array(svm, "_dual_coef_", 2), _array(svm, "support_vectors_", 2)
    if svm.kernel == "precomputed" or callable(svm.kernel):
        rows = svm.shape_fit_[0]
        _need(tuple(vectors.shape) in ((0, 0), (length, 0)), "support_vectors_ are kept beside a kernel's matrix")
        _need(0 < int(rows) < 2**31, "shape_fit_ is of no rows")
        _indices(support, int(rows), "support_ points beyond the rows that it was fitted on")
    else:
        wanted = (length, int(svm.n_features_in_))
        _need(tuple(vectors.shape) == wanted, f"support_vectors_ are {list(vectors.shape)}, not {list(wanted)}")


def _check_centers(means: Any) -> None:
    if hasattr(means, "cluster_centers_"):
        shape = _array(means, "cluster_centers_", 2).shape
        _need(shape[0] >= 1 and shape[1] == means.n_features_in_, "cluster_centers_ has other columns than its inputs")


def _check_bisecting(node: Any) -> None:
    """Its tree is walked: two branches or none, and centers as long as each other."""
    top = np.shape(node.center)
    waiting, left = [node], 1_000_000
    while waiting:
        part, left = waiting.pop(), left - 1
        below = [child for child in (part.left, part.right) if child is not None]
        _need(left > 0 and np.shape(part.center) == top and len(top) == 1 and len(below) in (0, 2), "its tree is none")
        waiting += below


def _check_neighbors(part: Any) -> None:
    rows = getattr(part, "_fit_X", None)
    if rows is None:
        return
    count = rows.shape[0]
    _need(len(rows.shape) == 2 and part.n_samples_fit_ == count, "n_samples_fit_ is not the number of its rows")
    if part.effective_metric_ != "precomputed":
        _need(rows.shape[1] == part.n_features_in_, "the rows that it keeps have other columns than its inputs")
    tree = getattr(part, "_tree", None)
    if tree is not None:
        _need(np.asarray(tree.data).shape == tuple(rows.shape), "its tree is of other rows")
    labels = getattr(part, "_y", None)
    if labels is not None:
        _need(len(labels) == count, "_y is not as long as the rows that it keeps")
        if hasattr(part, "classes_"):
            several = isinstance(part.classes_, list)
            columns = list(np.asarray(labels).T) if np.ndim(labels) > 1 else [labels]
            classes = part.classes_ if several else [part.classes_]
            _need(len(columns) == len(classes), "_y is of other outputs")
            for column, known in zip(columns, classes, strict=True):
                _indices(column, len(known), "_y points beyond classes_")


_METRICS = ("EuclideanDistance", "ManhattanDistance", "ChebyshevDistance", "MinkowskiDistance")


def _check_ball(tree: Any) -> None:
    """A KD or ball tree: its nodes name slices of a permutation of its rows."""
    data, order, nodes, bounds, leaf, levels, count, *_, metric, weights = tree.__getstate__()
    data, order, nodes, bounds = map(np.asarray, (data, order, nodes, bounds))
    _need(data.ndim == 2 and len(data) >= 1, "its data are no rows")
    _need(order.shape == (len(data),) and np.array_equal(np.sort(order), np.arange(len(data))), "its rows are not once")
    _need(0 < levels < 48 and count == 2**levels - 1 == len(nodes) and leaf >= 1, "it has another number of nodes")
    binary = type(tree).__name__.startswith("KD")
    _need(bounds.shape == (2 if binary else 1, count, data.shape[1]), "its bounds do not fit its nodes")
    start, end = nodes["idx_start"], nodes["idx_end"]
    _need((start >= 0).all() and (start <= end).all() and (end <= len(data)).all(), "a node names rows it lacks")
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    _need(not inner.size or 2 * inner.max() + 2 < count, "a node has branches that lead nowhere")
    _need(weights is None or np.shape(weights) == (len(data),), "its weights are not as many as its rows")
    _check_metric(metric)


def _check_metric(metric: Any) -> None:
    """Metrics with arrays of their own index them by column: only those without are read."""
    name = type(metric).__name__
    _need(name.rstrip("0123456789") in _METRICS, f"a metric is {an(name)}")
    _, vector, matrix = metric.__getstate__()[:3]
    _need(np.size(vector) <= 1 and np.size(matrix) <= 1, "a metric has weights")


def _check_spline(spline: Any) -> None:
    """The compiled evaluation walks from knot to knot."""
    knots, degree = _array(spline, "t", 1, "f"), spline.k
    _need(type(degree) is int and 0 <= degree <= 64 and len(knots) >= 2 * degree + 2, "it has too few knots")
    _need(np.isfinite(knots).all() and (np.diff(knots) >= 0).all(), "its knots are not in order")
    _need(knots[degree] < knots[-degree - 1] or len(knots) == 0, "its knots are one")
    count = np.shape(spline.c)
    _need(len(count) >= 1 and count[0] >= len(knots) - degree - 1, "its coefficients do not fit its knots")
    _need(spline.axis == 0, "its axis is another one")


def _check_words(vectorizer: Any) -> None:
    words = getattr(vectorizer, "vocabulary_", None)
    if words is not None:
        _indices(list(words.values()) or np.zeros(0, int), len(words), "its vocabulary_ names columns that it lacks")


def _check_hashing(hashing: Any) -> None:
    """It divides by the number of its columns."""
    _need(type(hashing.n_features) is int and 1 <= hashing.n_features < 2**31, "it has no columns")


def _check_sparse(matrix: Any) -> None:
    if matrix.format in ("csr", "csc", "bsr"):
        matrix.check_format(full_check=True)
    elif matrix.format == "coo":
        for axis, found in enumerate(matrix.coords):
            _indices(found, matrix.shape[axis], "it has numbers outside of its shape")
    else:
        _need(matrix.format == "dia", f"it is of the format {matrix.format!r}")


def _check_random(state: Any) -> None:
    generator = getattr(state, "bit_generator", None) or state._bit_generator
    told = generator.state
    inner = told["state"]
    if "pos" in inner:
        _need(0 <= int(inner["pos"]) <= len(inner["key"]) == 624, "its position lies outside of its numbers")
    if "buffer_pos" in told:
        _need(0 <= int(told["buffer_pos"]) <= len(told["buffer"]) == 4, "its position lies outside of its numbers")


def _check_forest(forest: Any) -> None:
    """Its trees are given some of the columns each, and do not look how many."""
    for columns, tree in zip(
        getattr(forest, "estimators_features_", ()), getattr(forest, "estimators_", ()), strict=False
    ):
        _need(len(columns) == tree.n_features_in_, "a tree has other columns than it was given")
        _indices(columns, forest.n_features_in_, "a tree is given columns that are not there")


def _check_stages(model: Any) -> None:
    """The compiled loop adds to as many outputs as there are trees in a round."""
    if not hasattr(model, "estimators_"):
        return
    stages = _array(model, "estimators_", 2, "O")
    width = stages.shape[1]
    first = stages[0, 0]
    _need(first.n_features_in_ == model.n_features_in_, "its trees are of other inputs")
    started = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))
    _need(started.shape == (1, width), f"it begins with {list(started.shape)} outputs, and its trees have {width}")


def _check_histogram(model: Any) -> None:
    """The categories that it knows are looked up by the number of the input."""
    if not hasattr(model, "_predictors"):
        return
    mapper, inputs = model._bin_mapper, model.n_features_in_
    categorical = np.asarray(mapper.is_categorical_)
    _need(categorical.shape == (inputs,) and len(mapper.bin_thresholds_) == inputs, "its bins are of other inputs")
    for at in np.flatnonzero(categorical):
        known = np.asarray(mapper.bin_thresholds_[at])
        _need(not known.size or (known.min() >= 0 and known.max() < 256), "a category is no number below 256")
    before = getattr(model, "_preprocessor", None)
    if before is None:
        return
    made = 0
    for _, step, columns in before.transformers_:
        if step == "drop":
            continue
        count = int(np.sum(columns)) if np.asarray(columns).dtype == bool else len(columns)
        kind = type(step).__name__
        if kind == "OrdinalEncoder":
            _need(len(step.categories_) == count, "its encoder is of other columns")
        elif step != "passthrough":
            func = step.func if kind == "FunctionTransformer" else kind
            plain = func is None or getattr(getattr(func, "func", None), "__name__", "") == "check_array"
            _need(plain, "a function comes before its trees")
        made += count
    _need(made == inputs, "what comes before its trees gives other columns")


_CHECKS: dict[tuple[str, str], Callable[[Any], None]] = {
    ("sklearn.svm._base", "BaseLibSVM"): _check_svm,
    ("sklearn.cluster._kmeans", "_BaseKMeans"): _check_centers,
    ("sklearn.cluster._bisect_k_means", "_BisectingTree"): _check_bisecting,
    ("sklearn.neighbors._base", "NeighborsBase"): _check_neighbors,
    ("sklearn.neighbors._kd_tree", "BinaryTree64"): _check_ball,
    ("sklearn.neighbors._ball_tree", "BinaryTree64"): _check_ball,
    ("sklearn.neighbors._kd_tree", "BinaryTree32"): _check_ball,
    ("sklearn.neighbors._ball_tree", "BinaryTree32"): _check_ball,
    ("sklearn.metrics._dist_metrics", "DistanceMetric64"): _check_metric,
    ("sklearn.metrics._dist_metrics", "DistanceMetric32"): _check_metric,
    ("sklearn.feature_extraction.text", "CountVectorizer"): _check_words,
    ("sklearn.feature_extraction._dict_vectorizer", "DictVectorizer"): _check_words,
    ("sklearn.feature_extraction._hash", "FeatureHasher"): _check_hashing,
    ("sklearn.feature_extraction.text", "HashingVectorizer"): _check_hashing,
    ("sklearn.ensemble._iforest", "IsolationForest"): _check_forest,
    ("sklearn.ensemble._gb", "BaseGradientBoosting"): _check_stages,
    ("sklearn.ensemble._hist_gradient_boosting.gradient_boosting", "BaseHistGradientBoosting"): _check_histogram,
    ("scipy.interpolate", "BSpline"): _check_spline,
    ("scipy.sparse", "spmatrix"): _check_sparse,
    ("scipy.sparse", "sparray"): _check_sparse,
    ("numpy.random", "RandomState"): _check_random,
    ("numpy.random", "Generator"): _check_random,
}
