"""A package that a stranger wrote from the how-to pages alone keeps the contracts, on the library as it is installed.

It is built and installed into a throw-away folder, and its own tests run in a process of their own, where nothing but
that folder is on the path.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.server
SOURCE = Path(__file__).with_name("catalog_stranger")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what `pip install --no-deps --target` puts there, for whoever has no pip and no network."""
    folder = tmp_path_factory.mktemp("stranger")
    source = folder / "source"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "target")
    return folder


def run(installed: Path, *command: str) -> str:
    """What a process prints that sees the stranger's package, and not the folder it was built from."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "CATALOG"))}
    environment |= {"PYTHONPATH": str(installed / "target"), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=installed / "source" / "tests", env=environment, capture_output=True, text=True,
        timeout=250, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_stranger_is_a_plug_in_like_the_others(installed: Path) -> None:
    output = run(installed, "-c", "from catalog_core.plugins import registry as r; print(r().modules, r().problems)")
    assert "'stranger': 'catalog_stranger'" in output and output.strip().endswith("[]"), output


def test_the_tests_of_the_stranger_pass(installed: Path) -> None:
    output = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".")
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", output.strip().splitlines()[-1])}
    assert counts.keys() <= {"passed", "skipped", "warnings", "warning"}, output[-5000:]
    assert counts["passed"] > 60, output[-5000:]
