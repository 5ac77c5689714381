"""Why a module has no graph is said in a plain sentence first, and then in torch's own words."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from catalog_core.errors import SerializationError  # noqa: E402
from catalog_torch import tracing  # noqa: E402

pytestmark = pytest.mark.framework


class Branch(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class Loop(torch.nn.Module):
    def forward(self, x):
        while x.sum() > 1:
            x = x / 2
        return x


class Number(torch.nn.Module):
    def forward(self, x):
        return x[: int(x.sum().item())]


class Numpy(torch.nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy() * 2)


class Odd(torch.nn.Module):
    def forward(self, x):
        return x, object()


class Own(torch.nn.Module):
    def forward(self, x):
        raise ValueError("the layers do not fit")


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (Branch, "its code asks for the values of a tensor"), (Loop, "its code asks for the values of a tensor"),
        (Number, "its code makes a Python number of a tensor's values"),
        (Numpy, "its code leaves torch for NumPy"), (Odd, "it gives an object that torch does not take apart"),
    ],
)  # fmt: skip
def test_the_first_sentence_is_plain_and_torch_follows(kind: type, plain: str) -> None:
    with pytest.raises(SerializationError) as caught:
        tracing.trace(kind(), {"x": torch.ones(4, 3)}, keep=lambda program: None)
    said = caught.value.message
    assert said.startswith(f"torch.export cannot trace {kind.__name__}: {plain}")
    assert ". torch says: " in said
    assert ": " in said.partition(". torch says: ")[2]  # the name of the error, and what it says


def test_an_error_of_the_modules_own_is_said_as_it_is() -> None:
    with pytest.raises(SerializationError) as caught:
        tracing.trace(Own(), {"x": torch.ones(4, 3)}, keep=lambda program: None)
    assert caught.value.message == "torch.export cannot trace Own: ValueError: the layers do not fit"


def test_a_fixed_axis_is_said_plainly() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return x.reshape(4, 3) + torch.ones(4, 3)

    made = tracing.trace(Fixed(), {"x": torch.ones(4, 3)}, keep=lambda program: None)
    assert made.fixed.startswith("its code holds the length of an axis fixed. torch says: ")
