"""Five scripts show here what they show under oracle-ads itself, as `ads_scripts/recorded.json` holds it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

for needed in ("pandas", "sklearn", "xgboost", "torch", "skl2onnx"):
    pytest.importorskip(needed)

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
HERE = Path(__file__).parent / "ads_scripts"


def lacks(wanted: Any, got: Any, path: str = "") -> list[str]:
    """What ADS shows and is not shown here; more attributes, and `local` in `predict`, may be."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        return [line for key in wanted for line in lacks(wanted[key], got.get(key), f"{path}/{key}")]
    if path.endswith("/attributes"):
        return [f"{path}: {name}" for name in wanted if name not in got]
    if path.startswith("/arguments"):
        return [] if got[: len(wanted)] == wanted else [f"{path}: {got}"]
    if "/columns/schema_output" in path and not wanted:
        return []
    return [] if wanted == got else [f"{path}: {got}, not {wanted}"]


def test_scripts_of_ads_show_the_same_here(tmp_path: Path) -> None:
    env = {**os.environ, "CATALOG": str(tmp_path / "catalog"), "CATALOG_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, HERE / "record.py", "catalog", tmp_path / "ours.json"], env=env, cwd=tmp_path, check=False,
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = json.loads((HERE / "recorded.json").read_text())
    assert wanted.pop("oracle-ads") and len(wanted["scripts"]) == 5
    assert lacks(wanted, json.loads((tmp_path / "ours.json").read_text())) == []
