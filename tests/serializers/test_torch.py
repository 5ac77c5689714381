"""torch modules through a real catalog."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tolerance import close  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import SerializationError  # noqa: E402

pytestmark = pytest.mark.framework


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"file://{tmp_path}/catalog") as opened:
        yield opened


class Conv(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, image: Any) -> Any:
        return torch.relu(self.norm(self.conv(image))).mean((2, 3))

    def encode(self, image: Any) -> Any:
        return self.conv(image)


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, left: Any, right: Any) -> Any:
        return {"total": self.first(left) + self.second(right), "gap": left - right}


class Branch(torch.nn.Linear):
    def forward(self, input: Any) -> Any:
        return super().forward(input) if input.sum() > 0 else input


def test_a_conv_net_loads_without_its_class_bit_by_bit(catalog: Catalog, tmp_path: Path) -> None:
    net = Conv()
    net(torch.randn(16, 1, 6, 6))  # the running statistics of the norm are no longer the initial ones
    catalog.save("conv", net, example={"image": torch.randn(4, 1, 6, 6)})
    assert net.training
    net.eval()
    for size in (1, 4, 9):
        np.save(tmp_path / f"in{size}.npy", torch.randn(size, 1, 6, 6).numpy())
    code = f"""
import numpy as np, torch
from catalog_core import Catalog
with Catalog.open({catalog.url!r}) as catalog:
    net = catalog.load("conv")
    for size in (1, 4, 9):
        out = net(torch.from_numpy(np.load(f"{tmp_path}/in{{size}}.npy")))
        np.save(f"{tmp_path}/out{{size}}.npy", out.detach().numpy())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for size in (1, 4, 9):
        expected = net(torch.from_numpy(np.load(tmp_path / f"in{size}.npy"))).detach().numpy()
        close(np.load(tmp_path / f"out{size}.npy"), expected)


def test_names_of_inputs_and_outputs_and_tied_weights_stay(catalog: Catalog) -> None:
    net = Two().eval()
    left, right = torch.randn(4, 3), torch.randn(4, 3)
    catalog.save("two", net, example={"left": left, "right": right})
    loaded = catalog.load("two")
    mine, theirs = net(left, right), loaded(right=right, left=left)
    assert list(theirs) == ["total", "gap"]
    close(dict(theirs), dict(mine))
    state = catalog.load("two", as_="state_dict")
    assert state["first.weight"].data_ptr() == state["second.weight"].data_ptr()
    component = catalog.artifact("two").manifest.components[0]
    assert component.meta["shared"] == {"second.weight": "first.weight"}
    point = catalog.artifact("two").manifest.entry_points[0]
    assert [spec.name for spec in point.inputs] == ["left", "right"]
    assert [spec.name for spec in point.outputs] == ["total", "gap"]


def test_bfloat16_stays(catalog: Catalog) -> None:
    net = torch.nn.Linear(3, 2).to(torch.bfloat16)
    x = torch.randn(4, 3).to(torch.bfloat16)
    catalog.save("bf", net)
    state = catalog.load("bf")
    assert state["weight"].dtype is torch.bfloat16 and torch.equal(state["weight"], net.weight)
    fresh = torch.nn.Linear(3, 2).to(torch.bfloat16)
    assert torch.equal(catalog.load("bf", into=fresh)(x), net(x))


def test_what_cannot_be_traced_keeps_its_weights_and_the_reason(catalog: Catalog) -> None:
    net = Branch(3, 3)
    catalog.save("branch", net, example={"input": torch.randn(4, 3)})
    assert "cannot trace Branch" in catalog.artifact("branch").manifest.components[0].meta["export"]["forward"]
    assert torch.equal(catalog.load("branch")["weight"], net.weight)


def test_other_methods_are_exported_too(catalog: Catalog) -> None:
    net, image = Conv().eval(), torch.randn(4, 1, 6, 6)
    points = {"predict": "model", "encode": "model.encode"}
    catalog.save("conv", components={"model": net}, entry_points=points, example={"image": image})
    loaded = catalog.load("conv")
    close(loaded.encode(image), net.encode(image))
    close(loaded(image), net(image))
    with catalog.session("conv") as session:
        close(session.encode(image=image.numpy()), net.encode(image).detach().numpy())


@pytest.mark.parametrize(
    "target",
    [
        torch.nn.Linear(3, 2, bias=False),
        torch.nn.Sequential(torch.nn.Linear(3, 2)),
        torch.nn.Linear(4, 2),
        torch.nn.Linear(3, 2).double(),
    ],
)
def test_into_is_strict_and_changes_nothing(catalog: Catalog, target: Any) -> None:
    catalog.save("net", torch.nn.Linear(3, 2))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(SerializationError, match="do not fit"):
        catalog.load("net", into=target)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_the_class_is_imported_with_trust_only(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "canary_net.py").write_text(
        f"import pathlib, torch\npathlib.Path({str(canary)!r}).touch()\n"
        "class Net(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(3, 2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import canary_net

    net = canary_net.Net()
    catalog.save("net", net, example={"input": torch.randn(4, 3)})
    monkeypatch.delitem(sys.modules, "canary_net")
    canary.unlink()
    catalog.load("net")
    catalog.load("net", as_="state_dict")
    assert not canary.exists() and "canary_net" not in sys.modules
    made = catalog.load("net", trust=True)
    assert canary.exists() and type(made).__name__ == "Net" and torch.equal(made.weight, net.weight)
    monkeypatch.delitem(sys.modules, "canary_net")


def test_arrays_and_state_dict_on_request(catalog: Catalog) -> None:
    net = torch.nn.Linear(3, 2)
    catalog.save("net", net, example={"input": torch.randn(4, 3)})
    arrays = catalog.load("net", as_="numpy")
    assert isinstance(arrays["weight"], np.ndarray) and np.array_equal(arrays["weight"], net.weight.detach().numpy())
    assert torch.equal(catalog.load("net", as_="state_dict")["bias"], net.bias)
