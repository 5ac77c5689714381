"""Saving leaves the live object and the process as they were: weights, optimizers, counters, random numbers, names."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import CatalogError  # noqa: E402

layers = keras.layers
X = np.random.default_rng(0).random((8, 4), dtype="float32")
Y = X[:, :1]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


class Net(keras.Model):  # type: ignore[misc,name-defined,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm, self.line = layers.Dropout(0.5), layers.BatchNormalization(), layers.Dense(1)
        self.steps, self.mode, self.losses_seen = 0, "fresh", [1.0]

    def call(self, x: Any, training: bool = False) -> Any:
        return self.line(self.norm(self.drop(x, training=training), training=training))

    def learn(self, x: Any, y: Any) -> Any:
        """A step of training that is called by hand."""
        self.steps += 1
        self.mode = "trained"
        self.losses_seen.append(2.0)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
        )
        return loss

    def sampled(self, x: Any) -> Any:
        """It draws from all that there is to draw from."""
        noise = keras.random.normal((1,)) + tf.random.get_global_generator().normal(()) + tf.random.normal(())
        return self(x, training=True) + noise + float(np.random.random()) + random.random()


class Counting(tf.Module):  # type: ignore[misc,name-defined,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.total, self.calls, self.seen = tf.Variable(2.0), tf.Variable(0.0), 0, {"x": 1}

    def __call__(self, x: Any) -> Any:
        self.calls += 1
        self.seen["y"] = 2
        self.weight.assign_add(1.0)
        self.total.assign_add(tf.reduce_sum(x))
        return x * self.weight


def trained() -> Any:
    model = Net()
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(X, Y, verbose=0)
    return model


def state(obj: Any) -> dict[str, bytes]:
    found = [*obj.variables, *getattr(getattr(obj, "optimizer", None), "variables", ())]
    found += getattr(obj, "metrics_variables", [])
    return {f"{number} {variable.name}": np.asarray(variable).tobytes() for number, variable in enumerate(found)}


def drawn() -> list[float]:
    """What comes next of each source of random numbers, which this leaves where they are."""
    kept = random.getstate(), np.random.get_state()
    shared = keras.src.backend.common.global_state.get_global_attribute("global_seed_generator")
    found = [random.random(), float(np.random.random())]
    random.setstate(kept[0])
    np.random.set_state(kept[1])
    return found + tf.random.get_global_generator().state.numpy().tolist() + np.asarray(shared.state).tolist()


METHODS = {"call": {"x": X}, "learn": {"x": X, "y": Y}, "sampled": {"x": X}}


@pytest.mark.parametrize("serializer", ["keras", "savedmodel"])
@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_after_saving_what_it_was_before(method: str, serializer: str, catalog: Catalog) -> None:
    keras.utils.set_random_seed(3)
    keras.random.normal((1,))
    model = trained()
    tf.random.get_global_generator()
    before, numbers = state(model), drawn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            catalog.save(
                "m", model, serializer=serializer, example=METHODS[method], entry_points={"go": f"model.{method}"}
            )
        except CatalogError:  # TensorFlow cannot write a method that draws from a generator of the process
            assert (method, serializer) == ("sampled", "savedmodel")
    assert state(model) == before
    assert (model.steps, model.mode, list(model.losses_seen)) == (0, "fresh", [1.0])
    assert drawn() == numbers


def test_a_module_that_counts_is_put_back_and_one_that_builds_itself_stays_built(catalog: Catalog) -> None:
    module = Counting()
    catalog.save("m", module, example={"x": X})
    assert (float(module.weight), float(module.total), module.calls, module.seen) == (2.0, 0.0, 0, {"x": 1})

    class Late(tf.Module):  # type: ignore[misc,name-defined,unused-ignore]
        made = False

        def __init__(self) -> None:
            super().__init__()
            self.made = False

        def __call__(self, x: Any) -> Any:
            if not self.made:
                self.weight = tf.Variable(tf.ones((4, 2)))
                self.made = True
            return x @ self.weight

    late = Late()
    catalog.save("late", late, example={"x": X})
    assert late.made and late.weight.shape == (4, 2)
    assert np.allclose(catalog.load("late")(X), late(X))


@pytest.mark.parametrize("fitted", [True, False])
def test_a_script_that_saves_goes_on_as_one_that_does_not(fitted: bool, catalog: Catalog) -> None:
    """Names and weights of the layers made after saving, and draws, are those of a script without a catalog."""

    def script(save: bool) -> tuple[list[str], list[Any]]:
        keras.backend.clear_session()
        keras.utils.set_random_seed(5)
        model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.GaussianNoise(0.1), layers.Dense(1)])
        model.compile("adam", "mse")
        if fitted:
            model.fit(X, Y, verbose=0)
        if save:
            catalog.save("m", model, serializer="keras", example={"input": X} if fitted else None)
        after = layers.Dense(2)
        drawn = [keras.random.normal((2,)), tf.random.normal((2,)), after(X[:1]), model(X, training=True)]
        return [after.name, *(layer.name for layer in model.layers)], [np.asarray(value).tolist() for value in drawn]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert script(True) == script(False)
