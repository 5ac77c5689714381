"""Estimators of scikit-learn, XGBoost and LightGBM."""

from __future__ import annotations

import io
import json
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
            return {"index": np.searchsorted(np.asarray(self.model.classes_), arrays[0])}
        return {"output": arrays[0]} if len(arrays) == 1 else {f"output_{n}": array for n, array in enumerate(arrays)}

    def labelled(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs with classes themselves for places in classes_."""
        return {n: np.asarray(self.model.classes_)[v] if n == "index" else v for n, v in outputs.items()}

    def rows(self, rows: Any) -> Any:
        """What the model wants: a DMatrix, or a data frame where it was fitted on one."""
        if type(self.model).__module__.startswith("xgboost") and type(self.model).__name__ == "Booster":
            import xgboost

            return xgboost.DMatrix(rows, feature_names=self.model.feature_names, feature_types=self.model.feature_types)
        names = getattr(self.model, "feature_names_in_", None)
        if names is not None and rows.ndim == 2 and rows.shape[1] == len(names):
            try:
                import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
            except ImportError:
                return rows
            return pd.DataFrame(rows, columns=list(names))
        return rows
