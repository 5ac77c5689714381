"""Folders with a score.py of their own."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class GenericRunner:
    """A folder's score.py, imported."""

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        spec = importlib.util.spec_from_file_location(f"score_of_{folder.name}", folder / "score.py")
        assert spec is not None and spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = self.module
        sys.path.insert(0, str(folder))
        try:
            spec.loader.exec_module(self.module)
            self.model = self.module.load_model()
        finally:
            sys.path.remove(str(folder))

    def call(self, method: str, values: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Any]:
        """Run its predict."""
        takes = inspect.signature(self.module.predict).parameters
        result = self.module.predict(**values, **({"model": self.model} if "model" in takes else {}))
        if isinstance(result, Mapping):
            parts = {str(key): value for key, value in result.items()}
        elif isinstance(result, tuple):
            parts = {f"output_{number}": value for number, value in enumerate(result)}
        else:
            parts = {"output": result}
        return {n: np.asarray(value.numpy() if hasattr(value, "numpy") else value) for n, value in parts.items()}
