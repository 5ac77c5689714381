"""Tensors that are no dense arrays with data: kept as they are, or refused by one error that names them and the way
out, as a parameter, a buffer, an input, an output, in a dictionary, and in a session."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
torch = pytest.importorskip("torch")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, SerializationError  # noqa: E402
from catalog_core.outputs import odd  # noqa: E402

nn = torch.nn
X = torch.ones(3, 2)


def _made() -> dict[str, tuple[Any, str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls some of these experimental
        return {
            "nested": (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
                       "a nested tensor", "to_padded_tensor"),
            "jagged": (torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 3)], layout=torch.jagged),
                       "a nested tensor", "to_padded_tensor"),
            "coo": (torch.eye(3).to_sparse(), "sparse, or of another layout", "to_dense"),
            "csr": (torch.eye(3).to_sparse_csr(), "sparse, or of another layout", "to_dense"),
            "quantized": (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantized", "dequantize"),
            "meta": (torch.ones(3, device="meta"), "without data", "to_empty"),
            "complex32": (torch.ones(2, dtype=torch.complex32), "of the dtype complex32", "complex64"),
            "bits8": (torch.ones(2, dtype=torch.uint8).view(torch.bits8), "of the dtype bits8", "uint8"),
        }  # fmt: skip


ODD = _made()


class Holds(nn.Module):
    def __init__(self, value: Any, as_parameter: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        if as_parameter:
            self.w = nn.Parameter(value, requires_grad=False)
        else:
            self.register_buffer("w", value)

    def forward(self, x: Any) -> Any:
        return self.layer(x)


class Gives(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.layer, self.value = nn.Linear(2, 2), [value]

    def forward(self, x: Any) -> Any:
        return {"y": self.layer(x), "z": self.value[0]}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("example", [X, None], ids=["example", "no example"])
@pytest.mark.parametrize("as_parameter", [True, False], ids=["parameter", "buffer"])
def test_an_odd_weight_is_named_with_the_way_out(kind: str, as_parameter: bool, example: Any, catalog: Catalog) -> None:
    value, what, way = ODD[kind]
    with pytest.raises(SerializationError, match=f"'w' is {what}") as caught:
        catalog.save("m", Holds(value, as_parameter), example=example)
    assert way in str(caught.value.hint)
    assert len(catalog.models()) == 0


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_tensor_in_a_dictionary_is_named(kind: str, catalog: Catalog) -> None:
    value, what, way = ODD[kind]
    for tree in ({"w": value}, {"a": {"w": value}}):
        with pytest.raises(SerializationError, match=f"w' is {what}") as caught:
            catalog.save("m", tree)
        assert way in str(caught.value.hint)


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_input_is_named_in_the_example_and_in_a_session(kind: str, catalog: Catalog) -> None:
    value, what, way = ODD[kind]
    for example in (value, {"input": value}, (value,)):
        with pytest.raises(InvalidInput, match=f"the example's 'input' is {what}") as caught:
            catalog.save("m", nn.Linear(2, 2), example=example)
        assert way in str(caught.value.hint)
    catalog.save("m", nn.Linear(2, 2), example=X)
    with catalog.session("m") as session, pytest.raises(InvalidInput, match=f"'input' of predict is {what}") as caught:
        session.predict(value)
    assert way in str(caught.value.hint)


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_output_is_named_and_may_be_left_out(kind: str, catalog: Catalog) -> None:
    value, what, way = ODD[kind]
    net = Gives(value)
    with pytest.raises(InvalidInput, match=f"it gives 'z', which is {what}") as caught:
        catalog.save("m", net, example=X)
    assert way in str(caught.value.hint) and "skip=['z']" in str(caught.value.hint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch cannot trace some of them
        version = catalog.save("m", net, example=X, skip=["z"])
    assert [spec.name for spec in version.manifest.entry_points[0].outputs] == ["y"]


@pytest.mark.parametrize(
    "dtype", ["complex64", "float8_e4m3fn", "float8_e5m2", "bfloat16", "uint16", "uint32", "uint64"]
)
def test_a_dtype_that_can_be_kept_is_kept(dtype: str, catalog: Catalog) -> None:
    value = torch.tensor([1.0, 2.0]).to(getattr(torch, dtype))
    for as_parameter in (False, True):
        net = Holds(value, as_parameter)
        catalog.save("m", net, example=X)
        found = catalog.load("m", as_="state_dict")["w"]
        assert found.dtype is value.dtype and bytes(found.view(torch.uint8)) == bytes(value.view(torch.uint8))
        filled = catalog.load("m", into=Holds(torch.zeros(2).to(value.dtype), as_parameter))
        assert bytes(filled.w.detach().view(torch.uint8)) == bytes(value.view(torch.uint8))


@pytest.mark.parametrize("dtype", ["complex128", "float8_e4m3fnuz"])
def test_a_dtype_that_cannot_be_kept_is_said_before_anything_runs(dtype: str, catalog: Catalog) -> None:
    class Counts(Holds):
        runs = 0

        def forward(self, x: Any) -> Any:
            Counts.runs += 1
            return super().forward(x)

    with pytest.raises(SerializationError, match=f"'w': safetensors has no dtype '{dtype}'") as caught:
        catalog.save("m", Counts(torch.ones(2).to(getattr(torch, dtype)), False), example=X)
    assert "complex64" in str(caught.value.hint) and Counts.runs == 0


def test_conjugates_and_negatives_are_kept_as_what_they_mean(catalog: Catalog) -> None:
    value = torch.tensor([1 + 2j, 3 - 1j]).conj()
    catalog.save("m", Holds(value, False), example=X)
    assert torch.equal(catalog.load("m").state_dict()["w"], value)
    catalog.save("n", Holds(torch.tensor([1 + 2j]).conj().imag, False), example=X)
    assert catalog.load("n").state_dict()["w"].tolist() == [-2.0]


def test_one_number_out_of_a_longer_row_is_kept(catalog: Catalog) -> None:
    """torch calls it contiguous, whatever its stride is."""
    catalog.save("m", Holds(torch.arange(6.0)[::2][1:2], True), example=X)
    assert catalog.load("m").state_dict()["w"].tolist() == [2.0]
    catalog.save("n", {"w": torch.arange(6.0)[::2][1:2]})
    assert catalog.load("n")["w"].tolist() == [2.0]


def test_a_buffer_that_is_not_stored_may_be_odd(catalog: Catalog) -> None:
    """It is no part of what is published, and is as it was after saving."""
    for kind in ("nested", "coo", "quantized"):
        net = nn.Linear(2, 2)
        net.register_buffer("scratch", ODD[kind][0], persistent=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            catalog.save("m", net, example=X)
        assert net.scratch is ODD[kind][0]


def test_tensors_made_of_other_tensors_are_named() -> None:
    class Wrapped:
        def __tensor_flatten__(self) -> Any:
            raise NotImplementedError

    Wrapped.__module__ = "torch.distributed.tensor"
    made: Any = Wrapped()
    made.is_nested, made.layout, made.is_quantized, made.device = False, torch.strided, False, torch.device("cpu")
    assert "a Wrapped, which is made of other tensors" in str(odd(made))
    assert all(odd(value) is None for value in (X, nn.Parameter(X), X.half(), np.ones(2), [1.0], None, "text", 3))


def test_nothing_of_torch_speaks_while_a_recurrent_network_is_saved_and_loaded(tmp_path: Path) -> None:
    """In a process of its own: torch says some things once."""
    code = f"""
import copy, torch
from catalog_core import Catalog
from torch import nn
class Tagger(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.words, self.steps, self.out = nn.Embedding(10, 4), kind(4, 5, 2, batch_first=True), nn.Linear(5, 3)
    def forward(self, x):
        return self.out(self.steps(self.words(x))[0])
with Catalog.open({str(tmp_path / "catalog")!r}) as catalog:
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        catalog.save("m", Tagger(kind), example=torch.ones(2, 7, dtype=torch.long))
        copy.deepcopy(catalog.load("m"))(torch.ones(2, 7, dtype=torch.long))
        catalog.load("m", into=Tagger(kind))(torch.ones(2, 5, dtype=torch.long))
        with catalog.session("m") as session:
            session.predict(torch.ones(3, 7, dtype=torch.long))
"""
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    ours = [line for line in lines if "its code takes other lengths" in line]
    assert len(ours) == 3
    assert not [line for line in lines if "torch/" in line or "contiguous" in line or "_flat_weights" in line], (
        done.stderr
    )
