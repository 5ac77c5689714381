"""torch tensors, modules and optimizers through the safetensors serializer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from catalog_core.errors import SerializationError
from catalog_core.interfaces.serializer import SaveRequest
from catalog_safetensors.serializer import SafetensorsSerializer

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.framework


class Folder:
    """A component's files in memory: both `Directory` and `Reader`."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.meta: Mapping[str, Any] = {}

    @property
    def files(self) -> dict[str, int]:
        return {name: len(data) for name, data in self.data.items()}

    def write(self, name: str, parts: Sequence[Any], cuts: Sequence[int] = ()) -> None:
        self.data[name] = b"".join(bytes(memoryview(part)) for part in parts)

    def view(self, name: str, start: int = 0, length: int | None = None, *, writable: bool = False) -> memoryview:
        end = len(self.data[name]) if length is None else start + length
        part = self.data[name][start:end]
        return memoryview(bytearray(part) if writable else part)


def saved(obj: Any) -> Folder:
    folder = Folder()
    folder.meta = SafetensorsSerializer().save(obj, folder, SaveRequest("m"))  # type: ignore[arg-type]
    return folder


def load(folder: Folder, into: Any = None, **options: Any) -> Any:
    return SafetensorsSerializer().load(folder, None, into, options)  # type: ignore[arg-type]


DTYPES = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "bool", "int64", "float16", "complex64", "float32"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_every_dtype_comes_back(dtype: str, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape).to(getattr(torch, dtype))
    back = load(saved({"a": tensor}))["a"]
    assert back.dtype == tensor.dtype and back.shape == tensor.shape
    assert torch.equal(back.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_tied_tensors_stay_tied_and_lazy_signs_do_not_tie() -> None:
    z = torch.tensor([1 + 2j, 3 - 4j])
    real = {"z": z, "conj": z.conj(), "again": z, "imag": z.imag, "neg": z.conj().imag}
    back = load(saved(real))
    assert back["again"] is back["z"]
    for key, value in real.items():
        assert torch.equal(back[key], value.resolve_conj().resolve_neg())


def test_numpy_arrays_fill_a_module() -> None:
    net = torch.nn.Linear(2, 1)
    folder = saved({"weight": np.full((1, 2), 3, "f4"), "bias": np.full(1, 4, "f4")})
    assert load(folder, net) is net
    assert net(torch.ones(2)).item() == 10
    before = net.weight.clone()
    with pytest.raises(SerializationError):
        load(saved({"weight": np.zeros((1, 2), "f4"), "bias": np.zeros(2, "f4")}), net)
    assert torch.equal(before, net.weight)


def _trained() -> tuple[Any, Any]:
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.125)
    for _ in range(2):
        net(torch.ones(3)).sum().backward()
        optimizer.step()
    return net, optimizer


def test_an_optimizer_goes_on_where_it_stood() -> None:
    net, optimizer = _trained()
    folder = saved(optimizer.state_dict())
    back = load(folder)
    want = optimizer.state_dict()
    assert back["param_groups"] == want["param_groups"]
    assert list(back["state"]) == list(want["state"])
    for number, state in want["state"].items():
        assert all(torch.equal(value, back["state"][number][key]) for key, value in state.items())
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(net.state_dict())
    fresh = torch.optim.AdamW(other.parameters(), lr=1.0)
    assert load(folder, fresh) is fresh
    for model, stepper in ((net, optimizer), (other, fresh)):
        stepper.zero_grad()
        model(torch.ones(3)).sum().backward()
        stepper.step()
    assert torch.equal(net.weight, other.weight)


def test_an_optimizer_of_another_shape_is_unchanged() -> None:
    folder = saved(_trained()[1].state_dict())
    for other in (
        torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1.0),
        torch.optim.SGD(torch.nn.Linear(3, 2).parameters(), lr=1.0),
    ):
        with pytest.raises(SerializationError):
            load(folder, other)
        assert other.param_groups[0]["lr"] == 1.0 and not other.state


def test_the_safetensors_package_reads_and_writes_the_same() -> None:
    package = pytest.importorskip("safetensors.torch")
    obj = {"a": torch.ones(2, 3, dtype=torch.bfloat16), "b": torch.tensor(5), "c": torch.zeros(0, 2)}
    theirs = package.load(saved(obj).data["model.safetensors"])
    folder = Folder()
    folder.data["other.safetensors"] = package.save(obj)
    ours = load(folder, as_="torch")
    for key, value in obj.items():
        assert torch.equal(theirs[key], value) and torch.equal(ours[key], value)
        assert theirs[key].dtype == ours[key].dtype == value.dtype


def test_sparse_and_meta_tensors_are_refused() -> None:
    for bad in (torch.eye(2).to_sparse(), torch.empty(2, device="meta")):
        with pytest.raises(SerializationError):
            saved({"a": bad})
