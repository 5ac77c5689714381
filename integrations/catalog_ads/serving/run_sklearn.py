"""Estimators of scikit-learn, XGBoost and LightGBM."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class SklearnRunner:
    """An estimator or a booster. The types in its file were checked when the artifact was written."""

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        path = next(path for path in sorted(folder.iterdir()) if path.suffix in (".skops", ".ubj", ".txt"))
        if path.suffix == ".skops":
            import skops.io

            data = self.plain(path.read_bytes())
            self.model = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
        elif path.suffix == ".txt":
            import lightgbm

            self.model = lightgbm.Booster(model_str=path.read_text(encoding="utf-8"))
        else:
            import xgboost

            kind, told = meta.get("class", "Booster"), meta.get("params", {})
            params = {k: float.fromhex(v["float"]) if isinstance(v, dict) else v for k, v in told.items()}
            self.model = getattr(xgboost, kind)(**params)
            self.model.load_model(bytearray(path.read_bytes()))

    def plain(self, data: bytes) -> bytes:
        """The archive without ids, by which one node stands for another: the catalog looked at it so."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "schema.json":
                    told = json.loads(content)
                    waiting = [told]
                    while waiting:
                        item = waiting.pop()
                        if isinstance(item, dict):
                            item.pop("__id__", None)
                        waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
                    content = json.dumps(told).encode()
                target.writestr(name, content)
        return buffer.getvalue()

    def call(self, method: str, values: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Any]:
        """Run a method on X. Classes that are no numbers come as their place in classes_."""
        rows = self.rows(values["X"])
        result = getattr(self.model, method)(rows)
        parts = result if isinstance(result, (list, tuple)) else [result]
        arrays = [np.asarray(part.toarray() if hasattr(part, "toarray") else part) for part in parts]
        if len(arrays) == 1 and arrays[0].dtype.kind in "OUS":
            return {"index": self.places(arrays[0])}
        return {"output": arrays[0]} if len(arrays) == 1 else {f"output_{n}": array for n, array in enumerate(arrays)}

    def lists(self, count: int) -> list[Any]:
        """The classes of each of `count` outputs."""
        found = self.model.classes_
        return list(found) if isinstance(found, (list, tuple)) else [found] * count

    def places(self, labels: Any) -> Any:
        """The place of each label in classes_, which are in any order."""
        columns = labels[:, None] if labels.ndim == 1 else labels
        places = np.empty(columns.shape, np.int64)
        for at, classes in enumerate(self.lists(columns.shape[1])):
            known = {label: place for place, label in enumerate(np.asarray(classes, object).tolist())}
            places[:, at] = [known[label] for label in columns[:, at].tolist()]
        return places.reshape(labels.shape)

    def labelled(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs with classes themselves for places in classes_."""
        found = dict(outputs)
        if "index" in found:
            places = found["index"]
            columns = places[:, None] if places.ndim == 1 else places
            lists = [np.asarray(classes, object) for classes in self.lists(columns.shape[1])]
            labels = [classes[columns[:, at]] for at, classes in enumerate(lists)]
            found["index"] = np.stack(labels, axis=1).reshape(places.shape)
        return found

    def ordered(self, names: list[str]) -> list[str] | None:
        """The columns of a table in the order in which the model was fitted on them; None where it was fitted on
        arrays. Raises ValueError for other columns."""
        kind = type(self.model).__module__.partition(".")[0]
        if kind == "xgboost" and type(self.model).__name__ == "Booster":
            told = self.model.feature_names
        elif kind == "lightgbm" and type(self.model).__name__ == "Booster":
            told = self.model.feature_name()
        else:
            told = getattr(self.model, "feature_names_in_", None)
        wanted = [] if told is None else [str(name) for name in told]
        if not wanted or (kind == "lightgbm" and wanted == [f"Column_{at}" for at in range(len(wanted))]):
            return None
        given = {re.sub(r"\s", "_", name) if kind == "lightgbm" else name: name for name in names}
        if given.keys() != set(wanted):
            raise ValueError(f"it was fitted on the columns {', '.join(wanted)}; got {', '.join(names)}")
        return [given[name] for name in wanted]

    def frame(self, values: Mapping[str, Any], specs: Mapping[str, Any]) -> Any:
        """The data frame of these columns, in the order of the model."""
        import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]

        columns = {}
        for name in self.ordered(list(values)) or list(values):
            value, known = values[name], specs[name].get("categories")
            if specs[name]["dtype"] == "category":
                value = pd.Categorical(value, categories=known)
            columns[name] = pd.Series(value, dtype=value.dtype)
        return pd.DataFrame(columns)

    def rows(self, rows: Any) -> Any:
        """What the model wants: a DMatrix, or a data frame where it was fitted on one."""
        if type(self.model).__module__.startswith("xgboost") and type(self.model).__name__ == "Booster":
            import xgboost

            if hasattr(rows, "columns"):
                return xgboost.DMatrix(rows, enable_categorical=True)
            return xgboost.DMatrix(rows, feature_names=self.model.feature_names, feature_types=self.model.feature_types)
        names = getattr(self.model, "feature_names_in_", None)
        if hasattr(rows, "columns"):
            return rows
        if names is not None and rows.ndim == 2 and rows.shape[1] == len(names):
            try:
                import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
            except ImportError:
                return rows
            return pd.DataFrame(rows, columns=list(names))
        return rows
