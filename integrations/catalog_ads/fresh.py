"""`score.py`, run as a deployment runs it: in a process that cannot see the catalog or the training code."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalog_core.errors import SerializationError

TIMEOUT = 300.0
_CHILD = """
import importlib.abc, json, os, sys
class Refused(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("catalog_"):
            raise ModuleNotFoundError(f"score.py may not import {name}", name=name)
spec = json.load(open(sys.argv[1]))
sys.meta_path.insert(0, Refused())
sys.dont_write_bytecode = True
sys.path[:0] = [spec["folder"]]
out = os.dup(1)
os.dup2(2, 1)  # what frameworks print is no answer
import score
model = score.load_model()
answers = [score.predict(data, model) for data in spec["requests"]]
with open(out, "w") as file:
    json.dump({"answers": answers, "modules": sorted(name for name in sys.modules if "." not in name)}, file)
"""


def answers(folder: Path, requests: Sequence[Any], timeout: float = TIMEOUT) -> tuple[list[Any], list[str]]:
    """What `score.py` of `folder` answers to requests (JSON values), and the modules that this took. It runs the code
    that the folder holds. Raises `SerializationError` with the last line of a process that failed or hung."""
    with tempfile.TemporaryDirectory(prefix="catalog-score-") as work:
        spec = Path(work) / "spec.json"
        spec.write_text(json.dumps({"folder": str(folder.resolve()), "requests": list(requests)}), "utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", _CHILD, str(spec)], capture_output=True, text=True, errors="replace",
                timeout=timeout, check=False, cwd=work, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise SerializationError(f"score.py did not end within {timeout:.0f} s") from exc
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise SerializationError(f"score.py failed in a clean process: {last[:300]}")
    told = json.loads(done.stdout)
    return told["answers"], told["modules"]
