"""The whole demo on every kind of catalog, with nothing changed but its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("oci")
import places

pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.timeout(900)]
NAMES = {"laptop": "sqlite", "folder": "files", "cern": "eos", "oracle": "oci", "bucket": "s3"}
HYBRIDS = {"hybrid": ("cern", "oracle"), "reverse": ("oracle", "cern")}


@pytest.fixture(scope="module")
def configured(running: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody whose configuration names all of them."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "CATALOG_CONFIG": str(folder / "catalog.toml"), "CATALOG_CACHE_DIR": str(folder / "c")}
    environment.pop("CATALOG", None)
    tables = dict(NAMES)
    tables |= {f"{hybrid}-{part}": NAMES[part] for hybrid, parts in HYBRIDS.items() for part in parts}
    lines = []
    for name, kind in tables.items():
        with places.start(kind, running(kind)) as place:
            target = place.fresh()
            environment |= place.environment
        lines += [f"[catalogs.{name}]", f"url = {json.dumps(target.url)}"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in target.options.items()]
    for hybrid, (primary, replica) in HYBRIDS.items():
        lines += [f"[catalogs.{hybrid}]", 'backend = "hybrid"', 'durability = "sync"']
        lines += [f'primary = "{hybrid}-{primary}"', f'replicas = ["{hybrid}-{replica}"]']
    (folder / "catalog.toml").write_text("\n".join(lines) + "\n")
    return environment


@pytest.fixture
def run(configured: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    def call(*words: str) -> str:
        command = [str(Path(sys.executable).with_name("catalog")), *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=configured, capture_output=True, text=True, timeout=600, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), (command, done.stdout, done.stderr)
        return done.stdout

    return call


EACH = [pytest.param(name, marks=() if name == "hybrid" else pytest.mark.campaign) for name in (*NAMES, *HYBRIDS)]


@pytest.mark.parametrize("name", EACH)  # the hybrid one is on EOS and on OCI
def test_the_demo_runs_on_a_catalog_by_its_name(run: Callable[..., str], name: str) -> None:
    said = run("--catalog", name, "demo", "--seconds", "0")
    assert said.startswith(f"1. The catalog {name}: ")
    assert "computed the same logits (farthest apart: " in said
    assert len(json.loads(run("--catalog", name, "list", "demo/digits", "--json"))) == 2
    assert "clean" in run("--catalog", name, "fsck")
    if name in HYBRIDS:
        assert "clean" in run("--catalog", name, "fsck", "--replicas", "--deep")
        replica = f"{name}-{HYBRIDS[name][1]}"
        assert "clean" in run("--catalog", replica, "fsck")
