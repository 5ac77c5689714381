"""TensorFlow, torch and the catalog in one process, in every order: each in a process of its own."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
pytest.importorskip("tensorflow")

USE = """
import numpy as np
from catalog_core import Catalog
with Catalog.open(sys.argv[1]) as catalog:
    x = np.ones((3, 4), np.float32)
    if "tensorflow" in sys.modules:
        class Module(tf.Module):
            def __init__(self):
                super().__init__()
                self.w = tf.Variable(tf.ones((4, 2)))
            def __call__(self, x):
                return x @ self.w
        catalog.save("tf", Module(), example={"x": x})
        with catalog.session("tf") as session:
            assert np.allclose(session.predict(x), 4)
    if "torch" in sys.modules:
        catalog.save("torch", torch.nn.Linear(4, 2), example={"input": x})
        with catalog.session("torch") as session:
            assert session.predict(x).shape == (3, 2)
    assert len(catalog.search()) > 0
print("good")
"""
IMPORTS = {
    "tensorflow": "import tensorflow as tf",
    "torch": "import torch",
    "catalog": "from catalog_core import Catalog; import sqlite3",
}


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, f"sqlite://{folder}/catalog"], capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("order", itertools.permutations(IMPORTS), ids="-".join)
def test_every_order_of_imports_works(order: tuple[str, ...], tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        order = tuple(name for name in order if name != "torch")
    done = run("\n".join(["import sys", *(IMPORTS[name] for name in order), USE]), tmp_path)
    assert (done.returncode, done.stdout) == (0, "good\n"), done.stderr[-2000:]


def test_another_sqlite_that_is_there_already_is_named(tmp_path: Path) -> None:
    """TensorFlow's library brings an SQLite without full-text search, and a plain import takes that one."""
    done = run("import sys; import tensorflow as tf; import sqlite3\n" + USE, tmp_path)
    if done.returncode:
        assert "no full-text search (FTS5) (import catalog_core before tensorflow)" in done.stderr
