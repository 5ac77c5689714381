"""scikit-learn estimators ↔ `model.skops`; XGBoost ↔ `model.ubj`; LightGBM boosters ↔ `model.txt`."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import sklearn
from sklearn.base import BaseEstimator

from catalog_core import callers
from catalog_core.axes import measured
from catalog_core.columns import frame_of, specs
from catalog_core.errors import BackendError, InvalidInput, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest, Signature, Trial
from catalog_core.modules import is_module
from catalog_core.names import nearest
from catalog_core.records import Description, TensorSpec
from catalog_core.shown import an
from catalog_sklearn import archive
from catalog_sklearn.boosters import ESTIMATORS as XGBOOST
from catalog_sklearn.boosters import as_estimator, check_lightgbm, check_xgboost

METHODS = (
    "predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "inverse_transform",
    "score_samples", "apply", "kneighbors", "mahalanobis",
)  # fmt: skip
# what an estimator is for that predicts nothing, best first
_IN_PLACE_OF_PREDICT = ("transform", "score_samples", "kneighbors", "mahalanobis")


def _is(obj: Any, module: str, name: str) -> bool:
    """Whether `obj` is of a class of a module that may not be imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(obj, kind)


def _is_booster(obj: Any) -> bool:
    return _is(obj, "xgboost", "Booster") or _is(obj, "lightgbm", "Booster")


class SklearnSerializer:
    """See `interfaces.serializer`."""

    name = "sklearn"
    save_options = ()

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Write a fitted or unfitted estimator, a pipeline, or a booster."""
        if (
            type(obj).__module__ == "xgboost.sklearn"
            and type(obj).__name__ in XGBOOST
            and hasattr(obj, "n_features_in_")
        ):
            data = bytes(obj.get_booster().save_raw("ubj"))
            meta = {"class": type(obj).__name__, "params": _xgboost_params(obj)}
            _xgboost_load(data, meta)  # what cannot be read back is not published
            directory.write("model.ubj", [data])
            return meta
        if _is(obj, "xgboost", "Booster"):
            data = bytes(obj.save_raw("ubj"))
            _xgboost_load(data, {"class": "Booster"})
            directory.write("model.ubj", [data])
            return {"class": "Booster"}
        if _is(obj, "lightgbm", "Booster"):
            text = obj.model_to_string()
            _lightgbm_load(text.encode())
            directory.write("model.txt", [text.encode()])
            return {}
        if not isinstance(obj, BaseEstimator):
            raise SerializationError(
                f"{an(type(obj).__name__)} is no estimator", hint="publish an estimator or a pipeline"
            )
        data, cuts, cause = archive.write(obj)
        directory.write("model.skops", [data], cuts)
        if cause is not None:
            callers.warn(f"{type(obj).__name__} will load with trust=True only: {cause}")
        return {}

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """The estimator or booster. Classes that are on no list of trusted ones are made with `trust` only."""
        if options.get("as_") is not None:
            raise SerializationError(
                f"as_={options['as_']!r} is not known here", hint="an estimator is loaded as it is"
            )
        if into is not None:
            raise SerializationError("an estimator cannot be filled", hint="load it without into")
        if device not in (None, "cpu"):
            raise BackendError(f"an estimator cannot be on {device!r}", hint="device='cpu'", backend="sklearn")
        files = list(reader.files)
        if len(files) != 1 or not files[0].endswith((".skops", ".ubj", ".txt")):
            raise SerializationError(
                f"an estimator is one file, .skops, .ubj or .txt; here are {', '.join(files)[:200]}"
            )
        data = bytes(reader.view(files[0]))
        if files[0].endswith(".skops"):
            obj = archive.read(data, bool(options.get("trust")))
            if not isinstance(obj, BaseEstimator):
                raise SerializationError(f"the file holds {an(type(obj).__name__)}, not an estimator")
            return obj
        return _xgboost_load(data, reader.meta) if files[0].endswith(".ubj") else _lightgbm_load(data)

    def describe(self, obj: Any) -> Description:
        """Framework, class, `get_params`, and how many numbers the fitted attributes hold."""
        top = type(obj).__module__.partition(".")[0]
        framework = top if top in ("xgboost", "lightgbm") else "sklearn"
        if not isinstance(obj, BaseEstimator) and not _is_booster(obj):
            return Description("sklearn", sklearn.__version__)
        try:
            params = (
                {key: _plain(value) for key, value in obj.get_params().items()} if hasattr(obj, "get_params") else {}
            )
        except Exception:  # an estimator of the user's
            params = {}
        version = str(getattr(sys.modules.get(framework), "__version__", sklearn.__version__))
        path = f"{type(obj).__module__}:{type(obj).__qualname__}"
        return Description(framework, version, type(obj).__name__, params, _count(obj, 0), {}, path)

    @staticmethod
    def default_method(obj: Any) -> str:
        """What the estimator is for: `predict`, else `transform` of a scaler, `score_samples` of a density, …"""
        have = [name for name in ("predict", *_IN_PLACE_OF_PREDICT) if callable(getattr(obj, name, None))]
        only_labels = hasattr(obj, "fit_predict") and not {"predict", "transform"} & set(have)
        return have[0] if have and not only_labels else "predict"

    def inputs(self, obj: Any, method: str) -> list[str] | None:
        """`X`, rows by columns."""
        if is_module(obj):
            raise SerializationError(
                f"{an(type(obj).__name__)} is a module of torch, which no archive of scikit-learn holds",
                hint="serializer='torch', or leave it out",
            )
        known = ("predict",) if _is_booster(obj) else METHODS
        if method not in known or not callable(getattr(obj, method, None)):
            have = [name for name in known if callable(getattr(obj, name, None))]
            trains = [name for name in ("fit_predict", "fit_transform") if callable(getattr(obj, name, None))]
            hint = nearest(method, have) or f"it has {', '.join(have)}"
            if trains and not {"predict", "transform"} & set(have):
                others = f", or name {have[0]} as entry point" if have else ""
                hint = f"its {trains[0]} trains it on the rows that it gets: save it without example{others}"
            elif not have:
                hint = "it can be saved and loaded without example"
            raise SerializationError(f"{an(type(obj).__name__)} has no method {method!r}", hint=hint)
        return ["X"]

    def in_order(self, obj: Any, names: Sequence[str]) -> list[str] | None:
        """The columns of a data frame in the order in which the object was fitted on them; None where it was fitted on
        arrays. Raises `InvalidInput` where one is missing, or is none of them."""
        fitted = _fitted_columns(obj)
        if fitted is None:
            return None
        given = {_as_lightgbm(name) if _is_lightgbm(obj) else name: name for name in names}
        odd = [name for name in fitted if name not in given] or [name for name in given if name not in fitted]
        if odd:
            raise InvalidInput(
                f"it was fitted on the columns {', '.join(fitted)}"[:300] + f", and these are {', '.join(names)}"[:300],
                hint=f"{odd[0]!r} is {'missing' if odd[0] in fitted else 'none of them'}",
            )
        return [given[name] for name in fitted]

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a method on `X`. Classes that are no numbers come out as `index`, their place in `classes_`."""
        self.inputs(obj, method)
        rows = _rows(obj, np.asarray(inputs["X"])) if set(inputs) == {"X"} else self._frame(obj, method, inputs)
        result = getattr(obj, method)(rows)
        parts = result if isinstance(result, (list, tuple)) else [result]
        arrays = [np.asarray(part.toarray() if hasattr(part, "toarray") else part) for part in parts]
        if method == "predict" and len(arrays) == 1 and arrays[0].dtype.kind in "OUS":
            return {"index": _places(obj, arrays[0])}
        if any(array.dtype.hasobject or array.dtype.kind in "US" for array in arrays):
            raise SerializationError(f"{method} gives no numbers")
        return {"output": arrays[0]} if len(arrays) == 1 else {f"output_{n}": array for n, array in enumerate(arrays)}

    def _frame(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Any:
        """The data frame of columns, in the order in which the object was fitted on them."""
        try:
            names = self.in_order(obj, list(inputs)) or list(inputs)
        except InvalidInput as exc:
            raise InvalidInput(f"{method} takes X, or columns: {exc.message}", hint=exc.hint) from exc
        frame = frame_of({name: inputs[name] for name in names})
        if _is(obj, "xgboost", "Booster"):
            import xgboost

            return xgboost.DMatrix(frame, enable_categorical=True)
        return frame

    def measure(self, obj: Any, method: str, trial: Trial) -> Signature:
        """Found by running; the rows are free."""
        if set(trial.example) != {"X"}:
            return self._told(obj, _of_columns(trial))
        found = measured(trial, {name: (None, *array.shape[1:]) for name, array in trial.example.items()})
        return self._told(obj, found)

    @staticmethod
    def _told(obj: Any, found: Signature) -> Signature:
        if [spec.name for spec in found.outputs] == ["index"]:
            lists = obj.classes_ if isinstance(obj.classes_, (list, tuple)) else [obj.classes_]
            told = "; ".join(", ".join(map(str, classes)) for classes in lists if np.ndim(classes) == 1)
            told = f"place in classes_: {told or ', '.join(map(str, obj.classes_))}"[:1000]
            found = attrs.evolve(found, outputs=(attrs.evolve(found.outputs[0], description=told),))
        return found


def _places(obj: Any, labels: np.ndarray) -> np.ndarray:
    """The place of each label in `classes_`, int64, of the shape of `labels`: one list of classes for all, or one for
    each column. Raises `SerializationError` where a label is in none."""
    found = getattr(obj, "classes_", None)
    columns = labels[:, None] if labels.ndim == 1 else labels
    lists = found if isinstance(found, (list, tuple)) and labels.ndim == 2 else [found]
    if found is None or labels.ndim not in (1, 2) or len(lists) != columns.shape[1]:
        raise SerializationError(
            "the predictions are no numbers, and there is no list of classes for each output",
            hint="train it on numbers in place of texts, or save it without example",
        )
    places = np.empty(columns.shape, np.int64)
    for at, classes in enumerate(lists):
        known = {label: place for place, label in enumerate(np.asarray(classes, object).ravel().tolist())}
        for row, label in enumerate(columns[:, at].tolist()):
            if label not in known:
                raise SerializationError(
                    f"it predicts {label!r}"[:200] + ", which is not in its classes_",
                    hint="save it without example, or fit it anew so that classes_ has all that it predicts",
                )
            places[row, at] = known[label]
    return places.reshape(labels.shape)


def _fitted_columns(obj: Any) -> list[str] | None:
    """The names of the columns that an object was fitted on; None of arrays, which have no names."""
    if _is(obj, "xgboost", "Booster"):
        names = obj.feature_names
    elif _is(obj, "lightgbm", "Booster"):
        names = obj.feature_name()
    else:
        names = getattr(obj, "feature_names_in_", None)
    told = None if names is None else [str(name) for name in names]
    if told and _is_lightgbm(obj) and told == [f"Column_{at}" for at in range(len(told))]:  # it calls arrays so
        return None
    return told


def _is_lightgbm(obj: Any) -> bool:
    return type(obj).__module__.partition(".")[0] == "lightgbm"


def _as_lightgbm(name: str) -> str:
    """The name that LightGBM gives a column: it writes no blanks."""
    return re.sub(r"\s", "_", name)


def _of_columns(trial: Trial) -> Signature:
    """What a method takes and gives, where it takes columns: one more run, on twice as many rows."""
    rows = len(next(iter(trial.example.values())))
    twice = trial.run({name: value.take(np.arange(2 * rows) % rows) for name, value in trial.example.items()})
    outputs = []
    for name, value in trial.outputs.items():
        free = np.ndim(value) > 0 and len(twice[name]) == 2 * len(value) == 2 * rows
        outputs.append(TensorSpec(name, value.dtype.name, ("batch" if free else len(value), *value.shape[1:])))
    return Signature(specs(trial.example), tuple(outputs))


def _rows(obj: Any, rows: np.ndarray) -> Any:
    """What the object wants: a DMatrix, or a data frame where it was fitted on one."""
    if _is(obj, "xgboost", "Booster"):
        import xgboost

        return xgboost.DMatrix(rows, feature_names=obj.feature_names, feature_types=obj.feature_types)
    names = getattr(obj, "feature_names_in_", None)
    if names is not None and rows.ndim == 2 and rows.shape[1] == len(names):
        try:
            import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            return rows
        return pd.DataFrame(rows, columns=list(names))
    return rows


def _plain(value: Any) -> Any:
    """A hyperparameter as it can be searched: numbers and texts as they are, other things by their class."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return f"{type(value).__module__}:{type(value).__name__}" if hasattr(value, "get_params") else str(value)[:200]


def _count(value: Any, depth: int) -> int:
    """How many numbers the fitted attributes (`…_`) of an estimator and of what it holds have."""
    if depth > 8:
        return 0
    if isinstance(value, np.ndarray):
        return value.size if value.dtype.kind in "fiuc" else sum(_count(item, depth + 1) for item in value.flat)
    if isinstance(value, (list, tuple)):
        return sum(_count(item, depth + 1) for item in value)
    if isinstance(value, BaseEstimator):
        told = vars(value).items()
        mine = [item for name, item in told if name.endswith("_") and not name.endswith(("_in_", "_seen_"))]
        mine += [item for name, item in told if name in ("steps", "transformers_", "_predictors")]
        return sum(_count(item, depth + 1) for item in mine)
    if type(value).__name__ == "Tree" and hasattr(value, "value"):
        return int(value.node_count * 2 + value.value.size)
    return 0


def _xgboost_params(obj: Any) -> dict[str, Any]:
    """The parameters that are not as they are by default; others than plain values are left out, with a warning."""
    default = type(obj)().get_params()
    kept: dict[str, Any] = {}
    for key, value in obj.get_params().items():
        value = value.item() if isinstance(value, np.generic) else value
        plain = value is None or isinstance(value, (bool, int, float, str))
        if value is default.get(key) or (plain and (value == default.get(key) or value != value)):
            continue
        if key not in default:
            callers.warn(f"{key} is no parameter of {type(obj).__name__}, and is not stored")
        elif isinstance(value, float):
            kept[key] = {"float": value.hex()}
        elif isinstance(value, (bool, int, str)):
            kept[key] = value
        else:
            callers.warn(f"{key} of {type(obj).__name__} is {an(type(value).__name__)}, and is not stored")
    return kept


def _xgboost_load(data: bytes, meta: Mapping[str, Any]) -> Any:
    import xgboost

    name, stored = meta.get("class"), meta.get("params", {})
    if name not in (*XGBOOST, "Booster", None) or not isinstance(stored, dict):
        raise SerializationError(f"XGBoost has no model {str(name)[:60]!r}")
    check_xgboost(data)
    try:
        if name in (None, "Booster"):
            booster = xgboost.Booster(model_file=bytearray(data))
            return booster if name else as_estimator(booster)
        params = {k: float.fromhex(v["float"]) if isinstance(v, dict) else v for k, v in stored.items()}
        estimator = getattr(xgboost, name)
        unknown = sorted(set(params) - set(estimator().get_params()))
        if unknown:
            raise SerializationError(f"{name} has no parameter {unknown[0][:60]!r}")
        made = estimator(**params)
        made.load_model(bytearray(data))
        for key, value in estimator().get_params().items():  # load_model changes some
            setattr(made, key, params.get(key, value))
        return made
    except SerializationError:
        raise
    except Exception as exc:
        raise SerializationError(f"XGBoost cannot read the model: {_line(exc)}") from exc


def _lightgbm_load(data: bytes) -> Any:
    import lightgbm

    try:
        text = data.decode()
        check_lightgbm(text)
        return lightgbm.Booster(model_str=text)
    except SerializationError:
        raise
    except Exception as exc:
        raise SerializationError(f"LightGBM cannot read the model: {_line(exc)}") from exc


def _line(exc: BaseException) -> str:
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
