"""Entry points over several torch components."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import BackendError, InvalidInput, NotFound  # noqa: E402

pytestmark = pytest.mark.framework
GENERATOR = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5)).eval()
DISCRIMINATOR = torch.nn.Sequential(torch.nn.Linear(5, 1), torch.nn.Sigmoid()).eval()
POINTS = {"generate": "generator", "chain": ["generator", "discriminator"]}


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    parts = {"generator": GENERATOR, "discriminator": DISCRIMINATOR}
    with Catalog.open(f"file://{tmp_path}/catalog") as opened:
        opened.save("gan", components=parts, entry_points=POINTS, example={"input": torch.randn(4, 2)})
        yield opened


def test_an_entry_point_runs_as_the_module_does(catalog: Catalog) -> None:
    latent = torch.randn(9, 2)
    with catalog.session("gan") as session, torch.no_grad():
        assert np.array_equal(session.generate(input=latent.numpy()), GENERATOR(latent).numpy())


def test_a_chain_runs_as_the_modules_do(catalog: Catalog) -> None:
    latent = torch.randn(9, 2)
    with catalog.session("gan") as session, torch.no_grad():
        assert np.array_equal(session.chain(latent.numpy()), DISCRIMINATOR(GENERATOR(latent)).numpy())


def test_errors_name_the_tensor_what_was_expected_and_what_came(catalog: Catalog) -> None:
    with catalog.session("gan") as session:
        with pytest.raises(InvalidInput, match=r"'input'.*expected float32\[batch, 2\].*got float64\[4, 3\]"):
            session.generate(input=np.zeros((4, 3)))
        with pytest.raises(NotFound):
            session.run("generat", {})


def test_a_device_that_is_not_there_is_named(catalog: Catalog) -> None:
    for device in ("nonsense", "cuda:99", "cuda:x", ""):
        with pytest.raises(BackendError, match=f"device '{device}'.*devices here: cpu"):
            catalog.session("gan", device=device)
        for options in ({}, {"as_": "torch"}, {"into": torch.nn.Linear(2, 5)}):
            with pytest.raises(BackendError, match=f"device '{device}'.*devices here: cpu"):
                catalog.load("gan", "generator", device=device, **options)
    catalog.save("arrays", {"a": torch.ones(2)})
    with pytest.raises(BackendError, match=r"device .nonsense.*devices here: cpu"):
        catalog.load("arrays", device="nonsense")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_on_a_gpu(catalog: Catalog) -> None:
    latent = torch.randn(9, 2)
    with catalog.session("gan", device="cuda") as session, torch.no_grad():
        assert np.allclose(session.generate(input=latent.numpy()), GENERATOR(latent).numpy(), atol=1e-5)
