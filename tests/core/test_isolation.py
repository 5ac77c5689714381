"""What an import and a look cost, in a process of its own: seconds of the processor, not of the clock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import catalog_core

pytestmark = pytest.mark.unit
ROOT = Path(catalog_core.__file__).parents[1]


def run(code: str, *arguments: str, **more: str) -> str:
    paths = os.pathsep.join([str(ROOT), *(str(ROOT / p) for p in ("backends", "serializers", "runners", "apps"))])
    env = {**os.environ, "PYTHONPATH": paths, **more}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_the_import_is_cheap() -> None:
    code = (
        "import sys, time; t = time.process_time(); from catalog_core import Catalog;"
        "d = time.process_time() - t;"
        "heavy = {'numpy', 'torch', 'numba', 'sqlite_utils', 'rich', 'lark'} & set(sys.modules);"
        "print(d); assert not heavy, heavy"
    )
    times = [float(run(code)) for _ in range(7)]
    assert min(times) <= 0.060, times


def test_a_warm_look_is_cheap_and_loads_no_framework(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    more = {"CATALOG_CACHE_DIR": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path / "none"), "CATALOG": place}
    fill = (
        "import sys, pathlib; from catalog_core import Catalog;"
        "f = pathlib.Path(sys.argv[1]); f.write_bytes(b'x' * 99);"
        "c = Catalog.open(); print(c.save('calo/x', f).ref)"
    )
    ref = run(fill, str(tmp_path / "w.bin"), **more).split()[-1]
    code = (
        "import sys, time; t = time.process_time(); from catalog_core import Catalog;"
        "v = Catalog.open().version(sys.argv[1]); assert str(v.ref) == sys.argv[1];"
        "d = time.process_time() - t; heavy = {'numpy', 'torch', 'numba'} & set(sys.modules);"
        "print(d); assert not heavy, heavy"
    )
    times = [float(run(code, ref, **more)) for _ in range(5)]
    assert min(times) <= 0.200, times
