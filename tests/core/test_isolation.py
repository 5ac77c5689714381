"""What an import and a look cost, in a process of its own, over a bare Python measured in the same run."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import catalog_core

pytestmark = pytest.mark.unit
ROOT = Path(catalog_core.__file__).parents[1]
HEAVY = {"numpy", "torch", "numba", "sqlite_utils", "rich", "lark"}


def run(code: str, *arguments: str, **more: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment(more), capture_output=True, text=True, check=True).stdout


def environment(more: Mapping[str, str]) -> dict[str, str]:
    paths = [ROOT, *(ROOT / name for name in ("backends", "serializers", "runners", "integrations", "apps"))]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path.is_dir()), **more}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


def over_bare(code: str, rounds: int = 5, **more: str) -> tuple[float, float]:
    """What `code` takes over `pass`, best of `rounds`, in seconds of the clock and of the processor; the two take
    turns, so that both meet the same noise."""
    env = environment(more)
    clock = {"pass": float("inf"), code: float("inf")}
    processor = dict(clock)
    for _ in range(rounds):
        for each in clock:
            begin, used = time.perf_counter(), children()
            subprocess.run([sys.executable, "-c", each], env=env, capture_output=True, check=True)
            clock[each] = min(clock[each], time.perf_counter() - begin)
            processor[each] = min(processor[each], children() - used)
    return clock[code] - clock["pass"], processor[code] - processor["pass"]


def children() -> float:
    """Seconds of the processor that finished children took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def within(limit: float, code: str, **more: str) -> None:
    """The cost is within `limit` seconds of the clock; on a machine with more to do than cores, of the processor."""
    run(code, **more)  # writes the bytecode
    tries = []
    for _ in range(4):
        clock, processor = over_bare(code, **more)
        tries.append(f"{clock * 1000:.0f} ms ({processor * 1000:.0f} of the processor)")
        print(f"{tries[-1]} of {limit * 1000:.0f} ms")
        busy = os.getloadavg()[0] > (os.cpu_count() or 1)
        if clock <= limit or (busy and processor <= limit):
            return
    raise AssertionError(f"over a bare Python: {', '.join(tries)}")


def test_the_import_is_cheap() -> None:
    within(0.060, "from catalog_core import Catalog")


def test_the_import_loads_nothing_heavy() -> None:
    loaded = run("import sys; from catalog_core import Catalog; print(*sys.modules)").split()
    assert not HEAVY & set(loaded)


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


def test_a_warm_look_is_cheap(warm: dict[str, str]) -> None:
    within(0.200, LOOK, **warm)


def test_a_warm_look_loads_no_framework(warm: dict[str, str]) -> None:
    loaded = run(f"import sys; {LOOK}; print(*sys.modules)", **warm).split()
    assert not {"numpy", "torch", "numba"} & set(loaded)
