"""What an import and a look load, in a process of its own, beyond a bare Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import catalog_core

pytestmark = pytest.mark.unit
ROOT = Path(catalog_core.__file__).parents[1]
HEAVY = {"numpy", "torch", "numba", "sqlite_utils", "rich"}


def run(code: str, *arguments: str, **more: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment(more), capture_output=True, text=True, check=True).stdout


def environment(more: Mapping[str, str]) -> dict[str, str]:
    paths = [ROOT, *(ROOT / name for name in ("backends", "serializers", "runners", "integrations", "apps"))]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path.is_dir()), **more}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


def loaded(code: str, *arguments: str, **more: str) -> set[str]:
    """The modules that are there after `code`, and were not in a bare Python."""
    show = "import sys; print(*sys.modules)"
    bare = set(run(show).split())
    return set(run(f"{code}\n{show}", *arguments, **more).split()) - bare


def test_the_import_loads_little() -> None:
    """`bench/test_start.py` has the time; what makes it is what is imported."""
    names = loaded("from catalog_core import Catalog")
    others = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert {name for name in others if not name.startswith("_")} == {"attr", "attrs", "catalog_core"}
    assert len(names) <= 105, sorted(names)


def test_the_import_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded("from catalog_core import Catalog")


@pytest.fixture
def warm(tmp_path: Path) -> dict[str, str]:
    """A catalog with `calo/x@1` and its index, as the environment says."""
    more = {"CATALOG_CACHE_DIR": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path / "none")}
    more["CATALOG"] = str(tmp_path / "store")
    fill = (
        "import sys, pathlib; from catalog_core import Catalog;"
        "f = pathlib.Path(sys.argv[1]); f.write_bytes(b'x' * 99); Catalog.open().save('calo/x', f)"
    )
    run(fill, str(tmp_path / "w.bin"), **more)
    return more


LOOK = "from catalog_core import Catalog; assert Catalog.open().version('calo/x@1').ref == 'calo/x@1'"


def test_a_warm_look_loads_no_framework(warm: dict[str, str]) -> None:
    names = loaded(LOOK, **warm)
    others = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert {name for name in others if not name.startswith(("_", "catalog_"))} == {"attr", "attrs", "pluggy"}
