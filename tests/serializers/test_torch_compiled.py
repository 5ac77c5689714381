"""Modules that AOTInductor compiled: kept beside the others, run where they were compiled, with trust only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from catalog_core import Catalog
from catalog_core.errors import BackendError, NotTrusted, SerializationError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.framework
if shutil.which(os.environ.get("CXX", "g++")) is None:
    pytest.skip("AOTInductor needs a C++ compiler", allow_module_level=True)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout())
        self.decoder = torch.nn.Linear(8, 6)

    def forward(self, x: Any, scale: Any) -> Any:
        return {"made": self.decoder(self.encoder(x).relu()) * scale}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    os.environ.setdefault("CATALOG_CACHE_DIR", str(folder / "cache"))
    torch.manual_seed(0)
    net = Net()
    with Catalog.open(folder / "catalog") as catalog:
        version = catalog.save(
            "m", components={"net": net}, example={"x": torch.ones(4, 6), "scale": torch.ones(4, 1)},
            serializer={"net": ["torch", "aoti"]}, entry_points={"predict": "net"},
        )  # fmt: skip
        assert net.training and version.summary["components"] == {"net": "torch", "net-aoti": "aoti"}
    return folder / "catalog"


RUN = """
import json, sys
import torch
from catalog_core import Catalog
with Catalog.open(sys.argv[1]) as catalog:
    x, scale = torch.arange(18.0).reshape(3, 6) / 9, torch.full((3, 1), 2.0)
    found = [catalog.load("m#" + name, trust=True) for name in ("net-aoti",)] + [catalog.load("m#net")]
    print(json.dumps([net(x=x, scale=scale)["made"].tolist() for net in found]))
"""


def test_in_a_fresh_process_without_the_class_it_gives_what_the_graph_gives(place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(place)], capture_output=True, text=True, timeout=200, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    compiled, graph = map(torch.tensor, json.loads(done.stdout.strip().splitlines()[-1]))
    torch.testing.assert_close(compiled, graph)


def test_it_runs_as_a_session_and_is_machine_code_for_verify_and_for_trust(place: Path, tmp_path: Path) -> None:
    with Catalog.open(place) as catalog:
        with pytest.raises(NotTrusted, match="machine code"):
            catalog.load("m#net-aoti")
        checks = {check.id: check for check in catalog.verify("m").checks}
        assert (checks["unsafe"].result, "native code" in checks["unsafe"].cause) == ("warned", True)
        assert (checks["load:net-aoti"].result, checks["match:predict"].result) == ("skipped", "passed")
        trusted = {check.id: (check.result, check.cause) for check in catalog.verify("m", trust=True).checks}
        assert trusted["load:net-aoti"] == ("passed", "")
        alone = catalog.save("alone", torch.nn.Linear(2, 1), example=torch.ones(3, 2), serializer="aoti")
        with alone.session(trust=True) as session:
            assert session.predict(torch.ones(5, 2)).shape == (5, 1)
        with pytest.raises(SerializationError, match="cannot be stored again"):
            catalog.save("again", catalog.load("m#net-aoti", trust=True), serializer="aoti")
        with pytest.raises(SerializationError, match="compiled for an example"):
            catalog.save("again", Net(), serializer="aoti")


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("torch", "1.0", r"torch 1\.0, not 2"),
        ("machine", "riscv64", "machine riscv64, not"),
        ("device", "cuda", "CUDA|device cuda"),
        ("flags", ["avx1024"], "its processor has avx1024"),
    ],
)
def test_on_another_machine_it_is_refused(place: Path, key: str, value: Any, why: str) -> None:
    with Catalog.open(place) as catalog:
        artifact = catalog.artifact("m")
        component = artifact.find("net-aoti")
        component.meta["made_for"][key] = value
        with pytest.raises(BackendError, match=why):
            artifact.load("net-aoti", trust=True)
        assert artifact.load("net") is not None
