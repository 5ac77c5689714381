"""The serializer contract for SavedModels: modules, Keras models of all kinds, and what was loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

import catalog_savedmodel  # noqa: E402
from catalog_core import Catalog  # noqa: E402
from catalog_core.specs import SerializerSpec  # noqa: E402
from catalog_core.testing.contract import SerializerContract  # noqa: E402
from catalog_savedmodel.serializer import LoadedModel, variables_of  # noqa: E402


def same(one: Any, two: Any) -> bool:
    left, right = variables_of(one), variables_of(two)
    if list(left) != list(right):
        return False
    return all(np.array_equal(left[name].numpy(), right[name].numpy()) for name in left)


def copied(obj: Any, memo: Any) -> Any:
    """A copy as the contract needs one: another instance with the same variables."""
    other = type(obj)(width=obj.width)
    for name, variable in variables_of(other).items():
        variable.assign(variables_of(obj)[name])
    return other


class Module(tf.Module):
    __deepcopy__ = copied

    def __init__(self, seed: int = 0, width: int = 5) -> None:
        super().__init__()
        self.width = width
        draw = np.random.default_rng(seed)
        self.layers = [
            tf.Variable(draw.random((4, width)), dtype=tf.float32),
            tf.Variable(draw.random((width, 3)), dtype=tf.float32),
        ]
        self.steps = tf.Variable(seed, trainable=False, dtype=tf.int64)
        self.half = tf.Variable(draw.random(3), dtype=tf.bfloat16)

    @tf.function
    def __call__(self, left: Any, right: Any) -> Any:
        self.steps.assign_add(1)
        return {"score": tf.nn.relu((left + right) @ self.layers[0]) @ self.layers[1], "gap": left - right}

    def encode(self, left: Any) -> Any:
        if tf.reduce_sum(left) > 1e9:  # needs autograph
            return tf.zeros_like(left) @ self.layers[0]
        return left @ self.layers[0]


class Network(keras.Model):
    __deepcopy__ = copied

    def __init__(self, seed: int = 0, width: int = 5) -> None:
        super().__init__()
        keras.utils.set_random_seed(seed)
        self.width = width
        self.body = keras.Sequential([keras.Input((4,)), keras.layers.Dense(width), keras.layers.BatchNormalization()])
        self.noise = keras.layers.GaussianNoise(0.1)
        self.heads = [keras.layers.Dense(1, name="a"), keras.layers.Dense(2, name="b")]
        for head in self.heads:
            head.build((None, width))

    def call(self, inputs: Any, training: bool = False) -> Any:
        left, right = inputs
        hidden = self.noise(self.body(left, training=training) + self.body(right), training=training)
        return [head(hidden) for head in self.heads]

    def encode(self, left: Any) -> Any:
        return self.body(left)


class Common(SerializerContract):
    @pytest.fixture
    def spec(self) -> SerializerSpec:
        return next(iter(catalog_savedmodel.catalog_register_serializers()))

    @pytest.fixture
    def equal(self) -> Callable[[Any, Any], bool]:
        return same

    @pytest.fixture
    def change(self) -> Callable[[Any], Any]:
        return lambda loaded: [v.assign(tf.ones_like(v) * 7) for v in variables_of(loaded).values()]

    @pytest.fixture
    def example(self) -> Any:
        draw = np.random.default_rng(2)
        return {name: draw.random((3, 4), dtype=np.float32) for name in ("left", "right")}

    @pytest.fixture
    def methods(self) -> list[str]:
        return ["call", "encode"]


class TestModule(Common):
    @pytest.fixture
    def obj(self) -> Any:
        return Module()

    @pytest.fixture
    def target(self) -> Any:
        return Module(1)

    @pytest.fixture
    def misfits(self) -> list[Any]:
        return [Module(1, width=6), tf.Module()]


class TestKeras(Common):
    @pytest.fixture
    def obj(self) -> Any:
        return Network()

    @pytest.fixture
    def target(self) -> Any:
        return Network(1)

    @pytest.fixture
    def misfits(self) -> list[Any]:
        return [keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])]


class TestLoaded(TestModule):
    """What was loaded is saved again, as the same files."""

    @pytest.fixture
    def obj(self, tmp_path: Any, example: Any) -> Any:
        LoadedModel.__deepcopy__ = lambda model, memo: model  # type: ignore[attr-defined]
        with Catalog.open(f"sqlite://{tmp_path}/first") as catalog:
            points = {"call": "model.call", "encode": "model.encode"}
            catalog.save("m", components={"model": Module()}, entry_points=points, example=example)
            return catalog.load("m")

    @pytest.fixture
    def target(self) -> Any:
        return Module(1)


class TestWithoutExample(TestModule):
    @pytest.fixture
    def example(self) -> None:
        return None

    @pytest.fixture
    def methods(self) -> list[str]:
        return []


def test_copies_are_equal_and_apart() -> None:
    """The test of the test."""
    for obj in (Module(), Network()):
        other = copy.deepcopy(obj)
        assert same(obj, other)
        next(iter(variables_of(other).values())).assign_add(tf.ones_like(next(iter(variables_of(other).values()))))
        assert not same(obj, other)
