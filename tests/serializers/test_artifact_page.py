"""docs/artifact.md names every file and every note of every serializer."""

from __future__ import annotations

import re
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.testing.memory import memory_catalog

PAGE = (Path(__file__).parents[2] / "docs/artifact.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE[: PAGE.index("## ")], re.M))
Pair = namedtuple("Pair", "left right")


def safetensors(folder: Path) -> dict[str, Any]:
    array = np.arange(3.0)
    return {"components": {"m": OrderedDict(a=array, b=[array, 1, {2: 0.5}], c=(None, "x"))}}


def pytree(folder: Path) -> dict[str, Any]:
    return {"components": {"m": Pair(np.zeros(2), [np.ones(3)])}, "serializer": "pytree"}


def generic(folder: Path) -> dict[str, Any]:
    (folder / "score.py").write_text("def load_model():\n    return 1\n\n\ndef predict(x, model):\n    return x\n")
    return {"components": {"m": folder}, "serializer": "generic"}


def torch(folder: Path) -> dict[str, Any]:
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Linear(3, 3)
            self.two = torch.nn.Linear(3, 3)
            self.two.weight = self.one.weight

        def forward(self, x: Any) -> Any:
            return self.two(self.one(x)).reshape(2, 3)

        def encode(self, x: Any) -> Any:
            return self.one(x) if x.sum() > 0 else x

    return {
        "components": {"m": Net()},
        "example": {"x": torch.ones(2, 3)},
        "entry_points": {"predict": "m", "encode": "m.encode"},
    }


def sklearn(folder: Path) -> dict[str, Any]:
    pytest.importorskip("skops")
    linear = pytest.importorskip("sklearn.linear_model")
    return {"components": {"m": linear.LinearRegression().fit(np.eye(3), np.ones(3))}}


def xgboost(folder: Path) -> dict[str, Any]:
    xgboost = pytest.importorskip("xgboost")
    return {"components": {"m": xgboost.XGBRegressor(n_estimators=2).fit(np.eye(3), np.ones(3))}}


def onnx(folder: Path) -> dict[str, Any]:
    pytest.importorskip("onnx")
    torch = pytest.importorskip("torch")
    return {
        "components": {"m": torch.nn.Linear(3, 2)}, "example": torch.ones(2, 3), "serializer": {"m": ["torch", "onnx"]},
    }  # fmt: skip


def keras(folder: Path) -> dict[str, Any]:
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    return {"components": {"m": model}, "serializer": {"m": ["savedmodel", "keras"]}}


def check(made: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    catalog: Catalog
    with memory_catalog() as catalog:
        for component in catalog.save("m", **made(tmp_path)).manifest.components:
            section = PAGE if component.serializer not in ROWS else PAGE[PAGE.index("## ") :]
            words = set(re.findall(r"`(?:meta\.)?([A-Za-z_]+)`", section))
            assert set(component.meta) <= words, component
            names = "|".join(re.findall(r"`([\w./-]+)`", ROWS[component.serializer]))
            pattern = names.replace(".", r"\.").replace("METHOD", r"\w+")
            assert all(re.fullmatch(pattern, file.name) for file in component.files), (pattern, component.files)
            told = str(component.meta.get("structure", "")).replace("'", '"')
            nodes = {kind for kind, value in re.findall(r'\{"(\w+)": ([^ ])', told)}
            assert nodes <= set(re.findall(r"\w+", section)), nodes


@pytest.mark.parametrize("made", [safetensors, pytree, generic])
def test_of_arrays_and_folders(made: Any, tmp_path: Path) -> None:
    check(made, tmp_path)


@pytest.mark.framework
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("made", [torch, sklearn, xgboost, onnx, keras])
def test_of_frameworks(made: Any, tmp_path: Path) -> None:
    check(made, tmp_path)
