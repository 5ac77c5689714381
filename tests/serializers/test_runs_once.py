"""Preparing runs the example once an entry point and exports a method once; verifying loads a component once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog, verify

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.framework

# the child's own program, with loads and calls counted
CHILD = """
import json, sys
spec = json.load(open(sys.argv[1])); sys.path[:] = spec["path"]
child = {"__name__": "child"}
told = dict(spec); del spec
exec(compile(open(told["child"]).read(), told["child"], "exec"), child)
sys.meta_path.insert(0, child["OwnFinder"](told["roots"]))
from catalog_core.artifact import StoredArtifact
seen = []
def counted(name, shown):
    real = getattr(StoredArtifact, name)
    def method(self, *values, **options):
        seen.append(shown(*values))
        return real(self, *values, **options)
    setattr(StoredArtifact, name, method)
counted("load", lambda name, *rest: f"load {name}")
counted("call", lambda name, obj, method, inputs: f"call {name}.{method}")
child["main"](told)
print(json.dumps(seen))
"""


def in_child(artifact: Any, folder: Path) -> tuple[Counter[str], dict[str, str]]:
    """What the process that verifies an artifact loads and calls, and the result of each check."""
    folder.mkdir()
    spec = verify._spec(artifact, folder, folder / "result.json") | {"trust": False}
    (folder / "verify.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CHILD, str(folder / "verify.json")], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((folder / "result.json").read_text())
    return Counter(json.loads(done.stdout.splitlines()[-1])), {row["id"]: row["result"] for row in rows}


class Generator(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 6)
        self.seen: list[str] = []

    def forward(self, latent: Any) -> Any:
        self.seen.append(type(latent).__name__)
        return self.layer(latent).relu()


class Discriminator(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 1)
        self.seen: list[str] = []

    def forward(self, image: Any) -> Any:
        self.seen.append(type(image).__name__)
        return self.layer(image)


class Counting(torch.nn.Module):
    """Its answer depends on how often it was run."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Any) -> Any:
        self.runs += 1
        return x + self.runs

    def decode(self, x: Any) -> Any:
        self.runs += 1
        return x * 2 + self.runs


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as made:
        yield made


def test_a_gan_runs_once_and_is_exported_once_and_loaded_once(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports: list[str] = []
    real = torch.export.export

    def export(module: Any, *args: Any, **options: Any) -> Any:
        exports.append(type(module).__name__)
        return real(module, *args, **options)

    monkeypatch.setattr(torch.export, "export", export)
    seen: dict[str, list[str]] = {}
    parts = {"generator": Generator(), "discriminator": Discriminator()}
    lists = {name: part.seen for name, part in parts.items()}
    for name, part in parts.items():
        seen[name] = found = []
        part.register_forward_pre_hook(
            lambda m, args, kwargs, found=found: found.append(type([*args, *kwargs.values()][0]).__name__),
            with_kwargs=True,
        )
    with catalog.prepare(
        "gan", components=parts, entry_points={"generate": "generator", "score": "discriminator"},
        example={"latent": np.ones((2, 4), np.float32)},
    ) as draft:  # fmt: skip
        assert {name: kinds.count("Tensor") for name, kinds in seen.items()} == {"generator": 1, "discriminator": 1}
        assert exports == ["Generator", "Discriminator"]
        assert lists["generator"] == []  # the live object is as it was
        found, results = in_child(draft.artifact, tmp_path / "child")
    assert found == {
        "load generator": 1, "load discriminator": 1, "call generator.forward": 3, "call discriminator.forward": 3,
    }  # fmt: skip
    assert set(results.values()) == {"passed"}


def test_an_entry_point_never_sees_what_another_left(catalog: Catalog, tmp_path: Path) -> None:
    with catalog.prepare(
        "m", Counting(), entry_points={"first": "model", "second": "model.decode"},
        example={"x": np.ones((2, 3), np.float32)},
    ) as draft:  # fmt: skip
        found, results = in_child(draft.artifact, tmp_path / "child")
    assert results["match:first"] == results["match:second"] == "passed"
    assert found["load model"] == 2


def test_an_estimator_is_loaded_once(catalog: Catalog, tmp_path: Path) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    pytest.importorskip("skops")
    x = np.arange(12.0).reshape(6, 2)
    with catalog.prepare("m", linear.LinearRegression().fit(x, x[:, 0]), example={"X": x}) as draft:
        found, results = in_child(draft.artifact, tmp_path / "child")
    assert found == {"load model": 1, "call model.predict": 3}
    assert set(results.values()) == {"passed"}
