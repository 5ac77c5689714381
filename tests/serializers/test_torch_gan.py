"""PyTorch models of several networks: a 3-D GAN, a VAE that samples, a conditional generator, without code of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.framework
torch = pytest.importorskip("torch")

from catalog_core import Catalog  # noqa: E402

SCRIPT = Path(__file__).with_name("torch_gan_script.py")


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"file://{tmp_path}/catalog") as made:
        yield made


def run(*arguments: str) -> Any:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_gan_trains_on_in_another_process_as_if_it_had_not_stopped(catalog: Catalog) -> None:
    """Both optimizers, the scheduler and the random numbers: the next losses are equal to the last bit."""
    uninterrupted, resumed = run(str(SCRIPT), "first", catalog.url), run(str(SCRIPT), "resume", catalog.url)
    assert resumed == uninterrupted


def test_its_networks_run_where_nobody_has_their_classes(catalog: Catalog) -> None:
    run(str(SCRIPT), "first", catalog.url)
    code = (
        "import sys, json, torch; from catalog_core import Catalog\n"
        "with Catalog.open(sys.argv[1]) as c, c.session('calo/gan') as s:\n"
        "    shower = torch.as_tensor(s.generate(latent=torch.zeros(5, 8)))\n"
        "    told = s.score(shower=shower)\n"
        "    print(json.dumps([list(shower.shape), {k: list(v.shape) for k, v in told.items()}]))"
    )
    shape, told = run("-c", code, catalog.url)
    assert shape == [5, 1, 6, 6, 6] and told == {"real": [5, 1], "energy": [5, 1], "total": [5, 1]}


class Encoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = torch.nn.Linear(6, 2), torch.nn.Linear(6, 2)

    def forward(self, cells: Any) -> Any:
        return self.mean(cells), self.spread(cells)


class Sampling(torch.nn.Module):
    def forward(self, mean: Any, spread: Any) -> Any:
        return mean + torch.exp(0.5 * spread) * torch.randn_like(mean)


class Vae(torch.nn.Module):
    """A sampling layer in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.sampling, self.decoder = Encoder(), Sampling(), torch.nn.Linear(2, 6)

    def forward(self, cells: Any) -> Any:
        mean, spread = self.encoder(cells)
        return {"cells": self.decoder(self.sampling(mean, spread)), "mean": mean, "spread": spread}


class Conditional(torch.nn.Module):
    """Several inputs, of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.particles, self.mix = torch.nn.Embedding(5, 3), torch.nn.Linear(8 + 3 + 1, 4)

    def forward(self, latent: Any, particle: Any, energy: Any) -> Any:
        return self.mix(torch.cat([latent, self.particles(particle), energy[:, None].log1p()], 1)).relu()


CONDITIONS = {"latent": torch.randn(3, 8), "particle": torch.tensor([0, 4, 2]), "energy": torch.rand(3) * 100}


@pytest.mark.parametrize(
    ("net", "example", "outputs"),
    [
        (Vae(), {"cells": torch.rand(3, 6)}, {"cells", "mean", "spread"}),
        (Conditional(), CONDITIONS, {"output"}),
        ({"encoder": Encoder(), "decoder": torch.nn.Linear(2, 6)}, {"cells": torch.rand(3, 6)}, {"output"}),
    ],
    ids=["vae", "conditional", "autoencoder"],
)
def test_a_model_is_prepared_verified_saved_and_loaded_without_code(
    catalog: Catalog, net: Any, example: dict[str, Any], outputs: set[str]
) -> None:
    parts = net if isinstance(net, dict) else {"model": net}
    for part in parts.values():
        part.eval()
    steps = ["encoder", "decoder"] if isinstance(net, dict) else "model"
    with catalog.prepare("m", components=parts, entry_points={"whole": steps}, example=example) as draft:
        report = draft.verify()
        assert report.passed, report.rows()
        version = draft.save()
    more = {name: torch.cat([value, value]) for name, value in example.items()}
    with catalog.session(version) as session:
        found = session.run("whole", more)
    assert set(found) == outputs and all(len(np.asarray(value)) == 6 for value in found.values())
