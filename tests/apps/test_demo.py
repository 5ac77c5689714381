"""`catalog demo`, as a newcomer runs it: to its end, and every command that it proposes works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog_core import Catalog

pytest.importorskip("torch")
from catalog_demo import demo

pytestmark = [pytest.mark.framework, pytest.mark.slow]


def replays_from_the_stored_weights_alone(place: Path, line: str) -> None:
    """The fresh process gives the same logits without any stored metric, and others where one weight was changed."""
    with Catalog.open(place) as catalog:
        network = catalog.load("demo/digits@champion", into=demo.network())
        example = {"images": demo.held_out()[0][:4]}
        as_is = catalog.save("copy", network, example=example)
        assert as_is.metrics == {} and as_is.tags == {}
        network.head.bias.data[0] += 1.0
        changed = catalog.save("copy", network, example=example)
    first, same, other = (demo.replay(place, ref) for ref in ("demo/digits@champion", as_is.ref, changed.ref))
    assert same == first
    assert f"accuracy {first['accuracy']:.1%}" in line
    assert other["logits"] != first["logits"]


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
    assert "computed the same logits (farthest apart: " in said
    (line,) = [line for line in said.splitlines() if line.startswith("8. ")]
    replays_from_the_stored_weights_alone(tmp_path / "catalog-demo" / "catalog", line)
    proposed = [line.strip() for line in said.partition("Look into it:")[2].splitlines() if line.strip()]
    assert len(proposed) >= 5
    for command in proposed:
        run(command)
