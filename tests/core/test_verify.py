"""Verification runs in a process that cannot see the training code."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import verify as verify_module
from catalog_core import verify_child
from catalog_core.catalog import Catalog
from catalog_core.records import Check
from catalog_core.verify import Report

pytest.importorskip("torch")
pytestmark = pytest.mark.framework

SCRIPT = """
import sys
import torch
from catalog_core import Catalog
{imports}
class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
    def forward(self, x):
        return self.layer(x)
class Branching(Plain):
    def forward(self, x):
        if x.sum() > 0:
            return self.layer(x)
        return self.layer(-x)
with Catalog.open(sys.argv[1]) as catalog, catalog.prepare("m", {made}, example={{"x": torch.ones(4, 3)}}) as draft:
    report = draft.verify()
    print("PASSED" if report.passed else "FAILED " + report.reason)
"""


def verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, imports: str = "", python: str = sys.executable
) -> str:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(made=made, imports=imports))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    done = subprocess.run(
        [python, str(script), str(tmp_path / "catalog")],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_an_exported_module_passes_without_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(tmp_path, monkeypatch, "Plain()") == "PASSED"


def test_a_module_that_needs_its_class_from_main_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify(tmp_path, monkeypatch, "Branching()").startswith("FAILED run:predict")


def test_a_class_beside_the_script_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
        "        return x if x.sum() > 0 else -x\n"
    )
    assert verify(tmp_path, monkeypatch, "beside.Net()", "import beside").startswith("FAILED run:predict")


def test_what_a_package_brings_inside_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """setuptools puts a folder of its own on the path when it is imported, perhaps after the packages were listed."""
    pytest.importorskip("setuptools")
    late = "Catalog.open(sys.argv[1] + '-other').save('x', {'w': torch.ones(1)})\nimport setuptools\n"
    code = "class Late(torch.nn.Module):\n    def forward(self, x):\n        return x * 2\n"
    assert verify(tmp_path, monkeypatch, "Late()", late + code) == "PASSED"
    child = verify_child.Guard({"setuptools": "1"}, {})
    folder = next(p for p in sys.path if p.endswith("site-packages"))
    monkeypatch.setattr(sys, "path", [folder, f"{folder}/setuptools/_vendor"])
    vendored = next(p.name for p in (Path(folder) / "setuptools/_vendor").iterdir() if (p / "__init__.py").exists())
    monkeypatch.setattr(child, "owners", {"setuptools": ["setuptools"], vendored: ["somebody"]})
    assert child.find_spec(vendored) is None
    child.recorded.clear()
    with pytest.raises(ImportError, match="somebody, which the artifact does not record"):
        child.find_spec(vendored)


def test_torch_that_only_pythonpath_reaches_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=120)
    python = str(bare / "bin" / "python")
    monkeypatch.setenv("PYTHONPATH", "")
    without = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False, timeout=60)
    assert without.returncode == 1
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if os.path.isdir(path)))
    assert verify(tmp_path, monkeypatch, "Plain()", python=python) == "PASSED"


def test_random_outputs_are_compared_by_finiteness_and_moments() -> None:
    from catalog_core.verify_child import _match

    rng = np.random.default_rng(0)

    def draws() -> list[dict[str, Any]]:
        return [{"y": rng.normal(3, 2, 1000), "z": np.ones(2)} for _ in range(16)]

    got = draws()[0]
    for _ in range(20):
        assert _match(got, {"y": rng.normal(3, 2, 1000), "z": np.ones(2)}, draws) == (
            "passed",
            "random: y, compared by finiteness and moments",
        )
    assert _match(got, dict(got), draws) is None
    for recorded, why in (
        (rng.normal(4, 2, 1000), "its mean was"),
        (rng.normal(3, 3, 1000), "its standard deviation was"),
        (np.full(1000, np.nan), "only one side is finite"),
        (rng.normal(3, 2, 999), "largest difference another shape"),
    ):
        with pytest.raises(ValueError, match=why):
            _match(got, {"y": recorded, "z": np.ones(2)}, draws)
    with pytest.raises(ValueError, match=r"output 'z' differs.*difference 1.0\)$"):
        _match(got, {"y": got["y"], "z": np.zeros(2)}, draws)


TEXTS = np.array([["a", 1], [None, np.nan]], object)


@pytest.mark.parametrize(
    ("got", "recorded", "says"),
    [
        (TEXTS, TEXTS.copy(), None),
        (np.array(["a", "b"]), np.array(["a", "b"], object), None),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), "gave: 'b', not 'c'"),
        (np.array(["1"], object), np.array([1], object), "gave: '1', not 1"),
        (np.array([2**60 + 1]), np.array([2**60 + 1]), None),
        (np.array([2**60 + 1]), np.array([2**60]), "differs from what the live object gave"),
        (np.array([True, False]), np.array([True, True]), "differs from what the live object gave"),
        (np.array([1 + 2j]), np.array([1 + 2j]), None),
        (np.array([1 + 2j]), np.array([1 - 2j]), "largest difference 4"),
        (np.array(["a"], object), np.array([["a"]], object), "another shape"),
    ],
)
def test_outputs_of_every_kind_are_compared(got: Any, recorded: Any, says: str | None) -> None:
    from catalog_core.verify_child import _match

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if says is None:
            assert _match({"y": got}, {"y": recorded}, lambda: []) is None
            return
        with pytest.raises(ValueError, match=says):
            _match({"y": got}, {"y": recorded}, lambda: [{"y": got}] * 3)


DYING = """
import os
from catalog_core.specs import CheckSpec
def catalog_register_checks():
    yield CheckSpec("dies", "dying_plugin:die")
def die(artifact):
    os.kill(os.getpid(), 35)
"""


def test_a_process_that_dies_in_any_way_is_a_failed_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "dying_plugin.py").write_text(DYING)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.import_module("dying_plugin")
    with Catalog.open(tmp_path / "catalog") as catalog, catalog.prepare("m", {"w": np.ones(3)}) as draft:
        monkeypatch.setitem(draft.artifact.registry.modules, "dying", "dying_plugin")
        report = draft.verify()
    assert not report.passed and "process: the process ended by signal 35" in report.reason


@pytest.mark.parametrize(
    "direct",
    [
        b"{no json", b"[]", b"\xff", b'{"dir_info": null, "url": "x"}', b'{"dir_info": {"editable": true}}',
        b'{"dir_info": {"editable": true}, "url": 5}', b'{"dir_info": 5}',
    ],
    ids=repr,
)  # fmt: skip
def test_a_broken_distribution_does_not_end_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bytes
) -> None:
    site, mine = tmp_path / "site", tmp_path / "my project"
    mine.mkdir()
    told = {"url": mine.as_uri(), "dir_info": {"editable": True}}
    for name, text in (("broken", direct), ("mine", json.dumps(told).encode())):
        info = site / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        (info / "direct_url.json").write_bytes(text)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(mine))
    path = verify_module._clean_path()
    assert str(site) in path and str(mine) not in path  # a blank is %20 in a URL


def test_a_version_keeps_its_checks_and_is_found_by_them(tmp_path: Path) -> None:
    with Catalog.open(f"file://{tmp_path}/catalog") as catalog:
        catalog.save("m", {"w": np.arange(3.0)}, verify=True)
        catalog.save("m", {"w": np.arange(4.0)})
        found = catalog.search("verification = passed")
        assert [version.ref for version in found] == ["m@1"]
        assert [v.ref for v in catalog.search('verification = "not run"')] == ["m@2"]
        checks = {check.id: check for check in found[0].checks}
        assert checks["digests"].result == "passed" and checks["load:model"].seconds > 0
        assert catalog.version("m@2").checks == ()


def test_very_many_checks_are_kept_as_far_as_there_is_room() -> None:
    many = [Check(f"run:{number}", "passed", 0.1, "") for number in range(500)]
    told = Report((*many, Check("match:last", "failed", 0.2, "why " * 300))).told()
    assert told[0] == ["match:last", "failed", 0.2, ("why " * 300)[:1000]]
    assert 50 < len(told) < 200
