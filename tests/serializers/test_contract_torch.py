"""The contract with torch: state dicts, modules that are exported, and modules that are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import catalog_safetensors  # noqa: E402
import catalog_torch  # noqa: E402
from catalog_core.specs import SerializerSpec  # noqa: E402
from catalog_core.testing.contract import SerializerContract  # noqa: E402

pytestmark = pytest.mark.framework


def bits(tensor: Any) -> bytes:
    return tensor.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(first: Any, second: Any) -> bool:
    """The tensors of two modules or state dicts, bit by bit."""
    one, two = (value if isinstance(value, Mapping) else value.state_dict() for value in (first, second))
    return one.keys() == two.keys() and all(
        (one[key].dtype, one[key].shape, bits(one[key])) == (two[key].dtype, two[key].shape, bits(two[key]))
        for key in one
    )


def first_tensor_changed(loaded: Any) -> None:
    state = loaded if isinstance(loaded, Mapping) else loaded.state_dict()
    next(value for value in state.values() if value.numel() and value.is_floating_point()).detach().add_(1)


class Net(torch.nn.Module):
    def __init__(self, seed: int = 0, width: int = 200, dtype: Any = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = torch.nn.Linear(4, width, dtype=dtype)
        self.second = torch.nn.Linear(width, width, dtype=dtype)
        self.tied = torch.nn.Linear(width, width, dtype=dtype)
        self.tied.weight = self.second.weight
        self.register_buffer("count", torch.tensor(seed))

    def forward(self, left: Any, right: Any) -> Any:
        hidden = torch.relu(self.first(left + right))
        return {"score": self.tied(self.second(hidden)).sum(1), "gap": left - right}

    def encode(self, left: Any) -> Any:
        return self.first(left)


class Wild(Net):
    def forward(self, left: Any, right: Any) -> Any:
        return super().forward(left, right) if left.sum() > 0 else {"score": right.sum(1), "gap": left}


class Common(SerializerContract):
    @pytest.fixture
    def equal(self) -> Callable[[Any, Any], bool]:
        return same

    @pytest.fixture
    def change(self) -> Callable[[Any], Any]:
        return first_tensor_changed


class TestStateDict(Common):
    @pytest.fixture
    def spec(self) -> SerializerSpec:
        return next(iter(catalog_safetensors.catalog_register_serializers()))

    @pytest.fixture
    def obj(self) -> Any:
        special = {
            dtype: torch.ones(3).to(getattr(torch, dtype)) for dtype in ("bfloat16", "float8_e5m2", "float8_e4m3fn")
        }
        return {**Net().state_dict(), **special, "bool": torch.tensor([True]), "empty": torch.zeros(0, 2)}

    @pytest.fixture
    def target(self, obj: Any) -> Any:
        return {key: torch.zeros_like(value) for key, value in obj.items()}

    @pytest.fixture
    def misfits(self) -> list[Any]:
        return [Net(1), Net(1).state_dict(), {}]


class TestModule(Common):
    @pytest.fixture
    def spec(self) -> SerializerSpec:
        return next(iter(catalog_torch.catalog_register_serializers()))

    @pytest.fixture
    def obj(self) -> Any:
        return Net().eval()

    @pytest.fixture
    def target(self) -> Any:
        return Net(1)

    @pytest.fixture
    def misfits(self) -> list[Any]:
        return [Net(1, width=201), Net(1, dtype=torch.float64), torch.nn.Linear(2, 2), torch.nn.Sequential(Net(1)), {}]

    @pytest.fixture
    def example(self) -> Any:
        torch.manual_seed(2)
        return {"left": torch.rand(3, 4), "right": torch.rand(3, 4)}

    @pytest.fixture
    def methods(self) -> list[str]:
        return ["forward", "encode"]


class TestUntraceable(TestModule):
    @pytest.fixture
    def obj(self) -> Any:
        return Wild().eval()

    @pytest.fixture
    def methods(self) -> list[str]:
        return ["forward"]


class TestWithoutExample(TestModule):
    @pytest.fixture
    def example(self) -> None:
        return None

    @pytest.fixture
    def methods(self) -> list[str]:
        return []
