"""`catalog demo`, as a newcomer runs it: to its end, and every command that it proposes works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.framework, pytest.mark.slow]


def test_the_demo_ends_well_and_every_command_it_proposes_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.delenv("CATALOG", raising=False)

    def run(command: str) -> str:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=250, check=False)
        assert (done.returncode, done.stderr) == (0, ""), (command, done.stdout, done.stderr)
        return done.stdout

    said = run("catalog demo --seconds 0")
    assert "same logits, bit by bit" in said
    proposed = [line.strip() for line in said.partition("Look into it:")[2].splitlines() if line.strip()]
    assert len(proposed) >= 5
    for command in proposed:
        run(command)
