"""What an import, a look at a version and two commands take, as whole processes, over a bare Python in the same run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from weights import interleaved, ratio, record

from catalog_core import Catalog

ROUNDS = 7


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A catalog with `calo/x@1` and its index, for processes of their own."""
    more = {"CATALOG": str(tmp_path / "catalog"), "CATALOG_CACHE_DIR": str(tmp_path / "cache")}
    environment = {**os.environ, **more}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    (tmp_path / "w.bin").write_bytes(b"x" * 99)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATALOG_CACHE_DIR", more["CATALOG_CACHE_DIR"])
        with Catalog.open(tmp_path / "catalog") as catalog:
            catalog.save("calo/x", tmp_path / "w.bin")
    return environment


def test_start(benchmark, environment: dict[str, str]) -> None:
    look = "from catalog_core import Catalog; assert Catalog.open().version('calo/x@1').ref == 'calo/x@1'"
    commands = {
        "bare": ["-c", "pass"],
        "import": ["-c", "from catalog_core import Catalog"],
        "look": ["-c", look],
        "help": ["-m", "catalog_cli", "--help"],
        "show": ["-m", "catalog_cli", "show", "calo/x@1"],
    }

    def run(arguments: list[str]) -> None:
        subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)

    for arguments in commands.values():  # writes the bytecode
        run(arguments)
    times = interleaved(ROUNDS, **{name: lambda a=arguments: run(a) for name, arguments in commands.items()})
    record(benchmark, times, **{f"{name} / bare": ratio(times, name, "bare") for name in commands if name != "bare"})
    benchmark.pedantic(lambda: None, rounds=1)
