"""A fresh process prepares, saves, verifies and loads a model: of the frameworks, it imports the model's own only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.framework
FRAMEWORKS = (
    "torch", "tensorflow", "keras", "jax", "sklearn", "skops", "xgboost", "lightgbm", "onnx", "onnxruntime", "dask",
    "cupy", "numba", "polars", "oci", "pytest",
)  # fmt: skip
X = "X = np.random.default_rng(0).random((60, 4), np.float32); Y = (X[:, 0] > 0.5).astype(int)"
# kind → (modules without which the test is skipped, code that makes `obj`, an example or None, what may be imported)
KINDS = {
    "sklearn": (
        "sklearn skops",
        "from sklearn.linear_model import LogisticRegression; obj = LogisticRegression().fit(X, Y)",
        '{"X": X[:3]}', "sklearn skops",
    ),
    "xgboost": (
        "xgboost sklearn skops",
        "import xgboost; obj = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, Y)", '{"X": X[:3]}',
        "xgboost sklearn",
    ),
    "lightgbm": (
        "lightgbm sklearn skops",
        'import lightgbm; obj = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, Y), 2)',
        '{"X": X[:3]}', "lightgbm sklearn dask",  # lightgbm imports dask where it is installed
    ),
    "onnx": (
        "onnx onnxruntime",
        "import onnx.helper as h; t = h.make_tensor_value_info; g = h.make_graph([h.make_node('Neg', ['x'], ['y'])],"
        " 'g', [t('x', 1, ['n', 4])], [t('y', 1, ['n', 4])]); obj = h.make_model(g, ir_version=10,"
        " opset_imports=[h.make_opsetid('', 20)])",
        '{"x": X[:3]}', "onnx onnxruntime",
    ),
    "safetensors": ("numpy", 'obj = {"w": X}', "None", ""),
    "pytree": ("numpy", 'obj = {"layer": [{"w": X}]}', "None", ""),
    "jax": ("jax", 'import jax.numpy as jnp; obj = {"layer": [{"w": jnp.ones(3)}]}', "None", "jax"),
    "torch": ("torch", "import torch; obj = torch.nn.Linear(4, 2)", '{"input": X[:3]}', "torch"),
    "generic": (
        "numpy",
        "from pathlib import Path; Path('f').mkdir(); Path('f/score.py').write_text('def load_model(): return 1\\n"
        "def predict(x, model): return x\\n'); from catalog_generic.model import GenericModel;"
        " obj = GenericModel('f', trust=True)",
        '{"x": X[:3]}', "",
    ),
    "tensorflow": (
        "tensorflow",
        "import tensorflow as tf; obj = tf.Module(); obj.w = tf.Variable(X)", "None", "tensorflow keras sklearn",
    ),
    "keras": (
        "tensorflow keras",
        "import keras; obj = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])", "[X[:3]]",
        "tensorflow keras sklearn",  # keras imports scikit-learn where it is installed
    ),
}  # fmt: skip
SCRIPT = """
import importlib.util, json, subprocess, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from catalog_core import Catalog, verify
FRAMEWORKS = {frameworks!r}
found = {{}}
def note(stage):
    found[stage] = sorted(name for name in FRAMEWORKS if name in sys.modules)
child = []
real = subprocess.run
def run(command, **options):
    if len(command) > 4 and command[1:4] == ["-I", "-S", "-c"]:
        done = real([command[0], "-X", "importtime", *command[1:]], **options)
        child.extend(line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line)
        assert child, done.stderr
        return done
    return real(command, **options)
{x}
{code}
example = {example}
with Catalog.open("file://" + sys.argv[1]) as catalog:
    with catalog.prepare("m", obj, example=example) as draft:
        note("prepare")
        verify.subprocess = type("S", (), {{"run": staticmethod(run), "DEVNULL": subprocess.DEVNULL,
                                            "TimeoutExpired": subprocess.TimeoutExpired}})
        report = draft.verify()
        assert report.passed, report.reason
        draft.save()
    note("save")
found["verify"] = sorted(name for name in FRAMEWORKS if name in child and importlib.util.find_spec(name))
assert "catalog_core.artifact" in child
print(json.dumps(found))
"""
LOAD = """
import json, sys, warnings
warnings.simplefilter("ignore")
from catalog_core import Catalog
with Catalog.open("file://" + sys.argv[1]) as catalog:
    catalog.load("m", trust=True)
print(json.dumps({{"load": sorted(name for name in {frameworks!r} if name in sys.modules)}}))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_no_framework_is_imported_that_the_model_does_not_use(kind: str, tmp_path: Path) -> None:
    needed, code, example, allowed = KINDS[kind]
    for module in needed.split():
        pytest.importorskip(module)
    script = SCRIPT.format(frameworks=FRAMEWORKS, x=X, code=code, example=example)
    seen = {}
    for text in (script, LOAD.format(frameworks=FRAMEWORKS)):
        done = subprocess.run(
            [sys.executable, "-c", text, str(tmp_path / "catalog")], capture_output=True, text=True, check=False,
            cwd=tmp_path, env={**os.environ, "CATALOG_CACHE_DIR": str(tmp_path / "cache")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        seen.update(json.loads(done.stdout.splitlines()[-1]))
    assert seen.keys() == {"prepare", "save", "verify", "load"}
    further = {stage: sorted(set(names) - set(allowed.split())) for stage, names in seen.items()}
    assert further == {stage: [] for stage in seen}


def test_skops_trusts_the_same_estimators_as_when_it_is_imported_plainly(tmp_path: Path) -> None:
    pytest.importorskip("skops")
    plain = (
        "import pkgutil, sys\n"
        "if sys.argv[1] == 'ours':\n    from catalog_sklearn.skops_io import skops_io; skops_io()\n"
        "from skops.io import _trusted_types as t\n"
        "from sklearn.utils import discovery; assert discovery.pkgutil is pkgutil\n"
        "from sklearn.utils._testing import skip_if_no_parallel\n"
        "print(sorted(t.SKLEARN_ESTIMATOR_TYPE_NAMES))"
    )
    ours, theirs = (
        subprocess.run(
            [sys.executable, "-c", plain, how], capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout
        for how in ("ours", "theirs")
    )
    assert ours == theirs and len(ours) > 1000
