"""What is in the checkout is what the wheel installs, and every plug-in it announces can be imported."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUP = "catalog_core.plugins"
FOLDERS = ("backends", "serializers", "runners", "integrations", "apps")


def folders_on_disk() -> set[str]:
    plugins = (path for folder in FOLDERS for path in (ROOT / folder).glob("catalog_*/"))
    return {"catalog_core"} | {path.name for path in plugins if (path / "__init__.py").is_file()}


@pytest.fixture(scope="module")
def installed() -> Distribution:
    try:
        found = distribution("catalog-core")
    except PackageNotFoundError:
        pytest.skip("catalog-core is not installed here: tox tests the wheel")
    if any(str(file).endswith(".pth") for file in found.files or ()):
        pytest.skip("catalog-core is installed in editable form: tox tests the wheel")
    return found


def files_of(installed: Distribution) -> set[str]:
    assert installed.files, "the installed distribution lists no files"
    return {file.as_posix() for file in installed.files}


def test_the_wheel_holds_every_package_folder_and_nothing_else(installed: Distribution) -> None:
    tops = {name.split("/")[0] for name in files_of(installed) if not name.startswith("..")}
    assert {top for top in tops if not top.endswith(".dist-info")} == folders_on_disk()


def test_the_wheel_holds_every_module_of_the_checkout(installed: Distribution) -> None:
    names = files_of(installed)
    places = [ROOT, *(ROOT / folder for folder in FOLDERS)]
    sources = {
        path.relative_to(place).as_posix()
        for place in places
        for package in place.glob("catalog_*")
        for path in package.rglob("*.py")
    }
    assert sources - names == set()


def test_each_package_says_that_it_is_typed(installed: Distribution) -> None:
    names = files_of(installed)
    assert [package for package in sorted(folders_on_disk()) if f"{package}/py.typed" not in names] == []


def test_the_tests_run_against_the_installed_wheel(installed: Distribution) -> None:
    core = importlib.import_module("catalog_core")
    if os.environ.get("TOX_ENV_NAME") is None:
        pytest.skip("only tox promises that the working tree is out of the way")
    assert core.__file__ is not None
    assert not Path(core.__file__).resolve().is_relative_to(ROOT / "catalog_core")


def announced() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(project["entry-points"][GROUP])


def test_the_wheel_announces_the_plug_ins_of_pyproject(installed: Distribution) -> None:
    assert {point.name: point.value for point in installed.entry_points.select(group=GROUP)} == announced()


@pytest.mark.parametrize("target", sorted(announced().values()))
def test_a_plug_in_imports_without_its_framework(target: str) -> None:
    heavy = "{'torch', 'tensorflow', 'numba', 'oci'}"
    program = f"import sys, {target}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_every_plug_in_folder_is_announced() -> None:
    no_plug_ins = {"catalog_core", "catalog_cli", "catalog_oracle"}
    assert set(announced().values()) == folders_on_disk() - no_plug_ins


def test_the_page_on_installing_names_every_extra() -> None:
    page = (ROOT / "docs" / "how-to" / "install.md").read_text()
    told = {
        name
        for line in page.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([a-z0-9-]+)`", line.split("|")[1])
    }
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert told == extras.keys() - {"test", "servers", "docs", "dev"}
