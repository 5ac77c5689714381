"""What the process of `verify` can import: what is installed and recorded, and nothing of who trained the model.

A stranger's serializer, one module that is installed as pip would, loads its objects by importing their class.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.server
STRANGER = """
import importlib, json
from catalog_core.hookspecs import hookimpl
from catalog_core.records import Description
from catalog_core.specs import SerializerSpec

@hookimpl
def catalog_register_serializers():
    yield SerializerSpec("byname", ("__main__", "beside", "edited", "installed", "loose"), "byname:Serializer")

class Serializer:
    name = "byname"
    def save(self, obj, directory, request):
        directory.write("value.json", [json.dumps(obj.value).encode()])
        return {"module": type(obj).__module__, "name": type(obj).__qualname__}
    def load(self, reader, device, into, options):
        made = getattr(importlib.import_module(reader.meta["module"]), reader.meta["name"])()
        made.value = json.loads(bytes(reader.view("value.json")))
        return made
    def describe(self, obj):
        return Description()
    def call(self, obj, method, inputs):
        raise NotImplementedError
    def signature(self, obj, method, example):
        raise NotImplementedError
    def inputs(self, obj, method):
        return None
"""
NET = "class Net:\n    value = 7\n"
SCRIPT = """
import sys
from catalog_core import Catalog
{net}
with Catalog.open(sys.argv[1]) as catalog, catalog.prepare("m", Net()) as draft:
    report = draft.verify()
    print(report.reason or "PASSED")
"""


def distribution(folder: Path, name: str, code: str, *, editable: Path | None = None) -> None:
    """Install one module as pip leaves it: metadata, record, and where the code is, if it stays elsewhere."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(f"{name}\n")
    (info / "RECORD").write_text(f"{name}.py,,\n{name}-1.0.dist-info/METADATA,,\n")
    place = folder
    if editable is not None:
        place = editable
        (info / "direct_url.json").write_text(json.dumps({"dir_info": {"editable": True}, "url": place.as_uri()}))
    place.mkdir(exist_ok=True)
    (place / f"{name}.py").write_text(code)


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a training script that saves a `Net`, and tell what `verify` said."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    site = tmp_path / "lib" / "site-packages"
    distribution(site, "byname", STRANGER)
    (site / "byname-1.0.dist-info" / "entry_points.txt").write_text("[catalog_core.plugins]\nbyname = byname\n")

    def call(net: str, *paths: Path, python: str = sys.executable) -> str:
        script = tmp_path / "scripts" / "train.py"
        script.parent.mkdir(exist_ok=True)
        script.write_text(SCRIPT.format(net=net))
        there = [str(site), *map(str, paths), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [python, str(script), str(tmp_path / "catalog")], capture_output=True, text=True, timeout=120, check=False,
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, there))},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1]

    return call


def test_what_is_installed_and_recorded_is_imported(train: Callable[..., str], tmp_path: Path) -> None:
    distribution(tmp_path / "lib" / "site-packages", "installed", NET)
    assert train("from installed import Net") == "PASSED"


def test_a_class_in_main_is_refused(train: Callable[..., str]) -> None:
    assert train(NET).startswith("load:model: ")


def test_a_class_beside_the_script_is_refused(train: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "beside.py").write_text(NET)
    assert "No module named 'beside'" in train("from beside import Net")


def test_a_class_in_the_working_folder_is_refused(train: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(NET)
    assert "No module named 'beside'" in train("import os\nsys.path.insert(0, os.getcwd())\nfrom beside import Net")


def test_a_class_that_no_distribution_brought_is_refused(train: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    (folder / "loose.py").write_text(NET)
    assert "it belongs to no distribution" in train("from loose import Net", folder)


@pytest.mark.parametrize("layout", [".", "src"])
def test_a_class_in_an_editable_install_is_refused(train: Callable[..., str], tmp_path: Path, layout: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    place = (project / layout).resolve()
    distribution(tmp_path / "lib" / "site-packages", "edited", NET, editable=place)
    info = tmp_path / "lib" / "site-packages" / "edited-1.0.dist-info" / "direct_url.json"
    info.write_text(json.dumps({"dir_info": {"editable": True}, "url": project.as_uri()}))
    # what the .pth file of the install does
    assert "No module named 'edited'" in train("from edited import Net", place)


def test_an_environment_inside_the_project_is_kept(train: Callable[..., str], tmp_path: Path) -> None:
    """`project/.venv` is where people put it; the project itself is an editable install."""
    project = tmp_path / "project"
    inside = project / ".venv" / "lib" / "python3" / "site-packages"
    distribution(inside, "installed", NET)
    distribution(inside, "edited", NET, editable=project)
    assert train("from installed import Net", project, inside) == "PASSED"
    assert "No module named 'edited'" in train("from edited import Net", project, inside)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [".", "src"])
def test_a_class_that_pip_installed_as_editable_is_refused(
    train: Callable[..., str], tmp_path: Path, layout: str
) -> None:
    for needed in ("pip", "setuptools"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed here")
    project = tmp_path / "project"
    (project / layout).mkdir(parents=True)
    (project / layout / "edited.py").write_text(NET)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "edited"\nversion = "1.0"\n'
        f'[tool.setuptools]\npy-modules = ["edited"]\npackage-dir = {{"" = "{layout}"}}\n'
    )
    environment = project / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "parent.pth").write_text("\n".join(path for path in sys.path if os.path.isdir(path)))
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-build-isolation", "--no-deps",
         "--no-index", "-e", str(project)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    verdict = train("from edited import Net", python=str(python))
    assert verdict.startswith("load:model: ") and "edited" in verdict
    distribution(site, "installed", NET)
    assert train("from installed import Net", python=str(python)) == "PASSED"
