"""The serializers that come with the library keep the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from catalog_core.specs import SerializerSpec
from catalog_core.testing.contract import SerializerContract
from catalog_safetensors import catalog_register_serializers


def same(first: Any, second: Any) -> bool:
    """Arrays, and mappings and lists of them, bit by bit."""
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, np.ndarray):
        return (first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes())
    return type(first) is type(second) and first == second


class TestArrays(SerializerContract):
    """A flat dictionary of arrays: more than one chunk, tied, empty and without axes."""

    @pytest.fixture
    def spec(self) -> SerializerSpec:
        return next(iter(catalog_register_serializers()))

    @pytest.fixture
    def obj(self) -> dict[str, Any]:
        large = np.random.default_rng(0).standard_normal((300, 100), dtype=np.float32)
        return {
            "large": large, "tied": large, "half": large[:3].astype(np.float16), "empty": np.zeros((0, 3)),
            "step": np.array(7), "mask": np.array([True, False]), "z": np.array([1 + 2j], np.complex64),
        }  # fmt: skip

    @pytest.fixture
    def equal(self) -> Callable[[Any, Any], bool]:
        return same

    @pytest.fixture
    def change(self) -> Callable[[Any], Any]:
        def change(loaded: Any) -> None:
            loaded["large"][0, 0] += 1

        return change

    @pytest.fixture
    def target(self, obj: dict[str, Any]) -> dict[str, Any]:
        return {key: np.zeros_like(value) for key, value in obj.items()}

    @pytest.fixture
    def misfits(self, obj: dict[str, Any]) -> list[Any]:
        def other(**values: Any) -> dict[str, Any]:
            return {**{key: np.zeros_like(value) for key, value in obj.items()}, **values}

        less = other()
        del less["mask"]
        return [
            other(step=np.zeros(1, int)), other(step=np.array(7.0)), other(more=np.zeros(1)), less,
            other(mask=np.frombuffer(b"\0\0", bool)), other(mask="text"), {},
        ]  # fmt: skip


class TestNested(SerializerContract):
    """Nested mappings and lists, as an optimizer's state is."""

    @pytest.fixture
    def spec(self) -> SerializerSpec:
        return next(iter(catalog_register_serializers()))

    @pytest.fixture
    def obj(self) -> dict[str, Any]:
        return {"state": {0: {"step": np.array(3.0), "a/b": np.ones(4)}}, "groups": [{"lr": 0.1, "betas": (0.9, 2)}]}

    @pytest.fixture
    def equal(self) -> Callable[[Any, Any], bool]:
        return same
