"""The serializer contract for Keras models, with an optimizer that has been used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

import catalog_keras  # noqa: E402
from catalog_core.specs import SerializerSpec  # noqa: E402
from catalog_core.testing.contract import SerializerContract  # noqa: E402
from catalog_keras import structure  # noqa: E402


def state(model: Any) -> dict[str, Any]:
    variables = dict(structure.walk(model)[1])
    for name, optimizer in structure.optimizers(model).items():
        variables |= structure.state_of(name, optimizer) if optimizer.built else {}
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in variables.items()}


def same(one: Any, two: Any) -> bool:
    left, right = state(one), state(two)
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def copied(model: Any, make: Callable[[], Any]) -> Any:
    """Another model of the same kind that holds the same: a Keras copy loses seeds and the optimizer's state."""
    other = make()
    variables = dict(structure.walk(other)[1])
    for name, optimizer in structure.optimizers(other).items():
        variables |= structure.state_of(name, optimizer) if optimizer.built else {}
    for name, value in state(model).items():
        variables[name].assign(value)
    return other


def copyable(make: Callable[[], Any]) -> Any:
    model = make()
    model.__deepcopy__ = lambda memo: copied(model, make)
    return model


def network(seed: int = 0, width: int = 5) -> Any:
    keras.utils.set_random_seed(seed)
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    hidden = keras.layers.Dense(width, activation="relu")(keras.layers.Add()([left, right]))
    hidden = keras.layers.Dropout(0.1, seed=3)(keras.layers.BatchNormalization()(hidden))
    model = keras.Model([left, right], [keras.layers.Dense(2)(hidden), keras.layers.Dense(3)(hidden)])
    model.compile(keras.optimizers.AdamW(1e-2), ["mse", "mae"])
    draw = np.random.default_rng(seed)
    x, y = [draw.random((8, 4), dtype=np.float32) for _ in range(2)], [draw.random((8, n)) for n in (2, 3)]
    model.train_on_batch(x, y)
    return model


class TestKeras(SerializerContract):
    @pytest.fixture
    def spec(self) -> SerializerSpec:
        # it is asked for by name; here it comes before `savedmodel`, which takes Keras' objects by itself
        return attrs.evolve(next(iter(catalog_keras.catalog_register_serializers())), handles=("keras", "tensorflow"))

    @pytest.fixture
    def obj(self) -> Any:
        return copyable(network)

    @pytest.fixture
    def equal(self) -> Callable[[Any, Any], bool]:
        return same

    @pytest.fixture
    def change(self) -> Callable[[Any], Any]:
        return lambda model: [weight.assign(weight + 1) for weight in model.trainable_variables]

    @pytest.fixture
    def target(self) -> Any:
        return network(1)

    @pytest.fixture
    def misfits(self) -> list[Any]:
        def another_optimizer() -> Any:
            model = network(1)
            model.compile(keras.optimizers.SGD(0.1))
            return model

        def another_layer() -> Any:
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])

        return [copyable(make) for make in (lambda: network(1, width=6), another_optimizer, another_layer)]

    @pytest.fixture
    def example(self) -> Any:
        draw = np.random.default_rng(2)
        return {name: draw.random((3, 4), dtype=np.float32) for name in ("left", "right")}

    @pytest.fixture
    def methods(self) -> list[str]:
        return ["call"]
