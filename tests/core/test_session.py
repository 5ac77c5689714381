"""What sessions check at the door."""

from __future__ import annotations

import numpy as np
import pytest

from catalog_core.errors import InvalidInput
from catalog_core.records import EntryPoint, TensorSpec
from catalog_core.session import check_inputs, fit

POINT = EntryPoint(
    "score",
    ("model",),
    (TensorSpec("left", "float32", ("batch", 2)), TensorSpec("right", "float32", ("batch", None))),
    (),
)


def array(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.zeros(shape, dtype)


def test_fitting_inputs_pass() -> None:
    check_inputs(POINT, {"left": array(5, 2), "right": array(5, 7)})


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"left": array(5, 2)}, "needs the input 'right'"),
        ({"left": array(5, 2), "right": array(5, 1), "rihgt": array(1)}, "has no input 'rihgt'"),
        ({"left": array(5, 3), "right": array(5, 1)}, r"'left'.*expected float32\[batch, 2\].*got float32\[5, 3\]"),
        ({"left": array(5, 2), "right": array(4, 1)}, r"'right'.*batch = 5, got float32\[4, 1\]"),
        ({"left": array(5, 2, dtype="float64"), "right": array(5, 1)}, r"'left'.*got float64\[5, 2\]"),
        ({"left": [1.0], "right": array(5, 1)}, "'left' of score is a list"),
    ],
)
def test_what_does_not_fit_is_named(inputs: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_inputs(POINT, inputs)


def test_steps_fit_by_name_else_by_position() -> None:
    assert fit({"a": 1, "b": 2}, ["b"]) == {"b": 2}
    assert fit({"output": 1}, ["input"]) == {"input": 1}
    assert fit({"a": 1, "b": 2}, None) == {"a": 1, "b": 2}
