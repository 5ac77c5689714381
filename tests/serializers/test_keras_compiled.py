"""Losses, metrics, optimizers and schedules of the user's own are left out of a stored model, with the reason, and it
loads and predicts without trust."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import SerializationError  # noqa: E402
from catalog_core.testing.serializers import SerializerContract  # noqa: E402
from catalog_keras import foreign  # noqa: E402
from catalog_keras.serializer import CONFIG, KerasSerializer  # noqa: E402

layers = keras.layers
X = np.random.default_rng(0).random((8, 4), dtype="float32")
Y = X[:, :1]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


def own_loss(wanted: Any, given: Any) -> Any:
    return keras.ops.mean(keras.ops.square(wanted - given))


class OwnLoss(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return own_loss(y_true, y_pred)


class OwnMetric(keras.metrics.Metric):
    def __init__(self, name: str = "own", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign_add(keras.ops.sum(y_true))

    def result(self) -> Any:
        return self.total


class OwnAdam(keras.optimizers.Adam):
    pass


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """It has no `get_config`."""

    def __call__(self, step: Any) -> Any:
        return 0.01


@keras.saving.register_keras_serializable("tests-compiled")
class LossWithoutConfig(keras.losses.Loss):
    """It is registered, and cannot be made of what it says of itself."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return own_loss(y_true, y_pred) * self.weight


@keras.saving.register_keras_serializable("tests-compiled")
def registered_loss(wanted: Any, given: Any) -> Any:
    return own_loss(wanted, given)


def net() -> Any:
    return keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3, activation="tanh"), layers.Dense(1)])


def two() -> Any:
    x = keras.Input((4,), name="x")
    return keras.Model(x, {"a": layers.Dense(1, name="a")(x), "b": layers.Dense(1, name="b")(x)})


def inside() -> Any:
    """A compiled model in one that is not."""
    inner, x = net(), keras.Input((4,), name="x")
    inner.compile("adam", own_loss)
    return keras.Model(x, inner(x))


def compiled(model: Any, wanted: Any = Y, **options: Any) -> Any:
    model.compile(**{"optimizer": "adam", "loss": "mse", **options})
    model.fit(X, wanted, verbose=0, callbacks=[keras.callbacks.LambdaCallback()])
    return model


OWN = {
    "function": (lambda: compiled(net(), loss=own_loss), "own_loss"),
    "class": (lambda: compiled(net(), loss=OwnLoss()), "OwnLoss"),
    "lambda": (lambda: compiled(net(), loss=lambda y, p: keras.ops.mean(y - p)), "never run"),
    "metric function": (lambda: compiled(net(), metrics=[own_loss]), "own_loss"),
    "metric": (lambda: compiled(net(), weighted_metrics=[OwnMetric()]), "OwnMetric"),
    "by output": (
        lambda: compiled(two(), {"a": Y, "b": Y}, loss={"a": "mse", "b": own_loss}, metrics={"a": [OwnMetric()]}),
        "own_loss|OwnMetric",
    ),
    "optimizer": (lambda: compiled(net(), optimizer=OwnAdam()), "OwnAdam"),
    "schedule": (lambda: compiled(net(), optimizer=keras.optimizers.Adam(OwnSchedule())), "OwnSchedule"),
    "step by step": (lambda: compiled(net(), loss=own_loss, run_eagerly=True), "own_loss"),
    "no configuration": (lambda: compiled(net(), loss=LossWithoutConfig(2.0)), "LossWithoutConfig|weight"),
    "inside": (inside, "own_loss"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OWN)
def test_what_it_was_compiled_with_is_left_out_and_it_predicts(kind: str, catalog: Catalog) -> None:
    make, told = OWN[kind]
    model = make()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*stored as weights only")
        with pytest.warns(UserWarning, match=rf"compiled before it trains on[^\n]*({told})"):
            version = catalog.save("m", model, serializer="keras", example={"x": X})
    assert getattr(model, "compiled", False) == (kind != "inside")  # the live one is as it was
    again = catalog.load("m")
    for mine, theirs in zip(keras.tree.flatten(model(X)), keras.tree.flatten(again(X)), strict=True):
        assert np.allclose(mine, theirs, atol=1e-6)
    assert not again.compiled
    assert version.verify().passed


def test_an_optimizer_that_keras_makes_again_stays_and_trains_on(catalog: Catalog) -> None:
    model = compiled(net(), loss=own_loss)
    with pytest.warns(UserWarning, match="own_loss"):
        catalog.save("m", model, serializer="keras")
    again = catalog.load("m")
    assert int(again.optimizer.iterations.numpy()) == int(model.optimizer.iterations.numpy()) == 1
    again.compile(again.optimizer, own_loss)
    for one in (model, again):
        one.fit(X, Y, shuffle=False, epochs=2, verbose=0)
    assert np.allclose(model(X), again(X), atol=1e-6)


def test_an_optimizer_of_the_users_own_is_filled_with_what_it_remembered(catalog: Catalog) -> None:
    model, other = compiled(net(), optimizer=OwnAdam()), compiled(net(), optimizer=OwnAdam())
    with pytest.warns(UserWarning, match="OwnAdam"):
        catalog.save("m", model, serializer="keras")
    catalog.load("m", into=other)
    for one in (model, other):
        one.fit(X, Y, shuffle=False, epochs=2, verbose=0)
    assert np.allclose(model(X), other(X), atol=1e-6)
    assert any(name.startswith("optimizers.") for name in catalog.load("m", as_="numpy"))


def test_a_registered_loss_comes_back_and_is_not_asked_of_a_process_that_serves(catalog: Catalog) -> None:
    model = compiled(net(), loss=registered_loss)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(weights only|compiled with)")
        catalog.save("m", model, serializer="keras")
        assert catalog.load("m").loss is registered_loss
    code = f"""
import json, sys, warnings
import numpy as np
from catalog_core import Catalog
with Catalog.open({catalog.url!r}) as catalog, warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    model = catalog.load("m")
    told = [str(one.message) for one in told if "compiled with" in str(one.message)]
    print(json.dumps([np.asarray(model(np.ones((1, 4), "float32"))).tolist(), model.compiled, told]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    given, is_compiled, told = json.loads(done.stdout.strip().splitlines()[-1])
    assert np.allclose(given, model(np.ones((1, 4), "float32")), atol=1e-5)
    assert not is_compiled and len(told) == 1 and "registered_loss" in told[0]


def test_code_in_what_it_was_compiled_with_is_refused_and_not_left_out(catalog: Catalog) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        catalog.save("m", compiled(net()), serializer="keras")
    files, meta = SerializerContract.files(catalog), dict(SerializerContract.component(catalog).meta)
    found = json.loads(files[CONFIG])
    for harm in ({"class_name": "__lambda__", "config": {"value": "x"}}, {"class_name": "__typespec__", "config": []}):
        found["compile_config"]["loss"] = harm
        reader = SerializerContract.reader(catalog, {**files, CONFIG: json.dumps(found).encode()}, meta)
        with pytest.raises(SerializationError, match="never run"):
            KerasSerializer().load(reader, None, None, {})


def test_a_keras_file_of_a_model_with_a_loss_of_its_own_is_read(tmp_path: Path) -> None:
    model = compiled(net(), loss=own_loss)
    model.save(tmp_path / "m.keras")
    with pytest.warns(UserWarning, match="without what it was compiled with.*own_loss"):
        again = foreign.read(tmp_path / "m.keras")
    assert np.allclose(again(X), model(X), atol=1e-6) and not again.compiled


@keras.saving.register_keras_serializable("tests-compiled")
class Looking(layers.Dense):  # type: ignore[misc]
    """Asks, each time that its configuration is read, what another thread sees."""

    look: Any = None

    def get_config(self) -> dict[str, Any]:
        if Looking.look is not None:
            thread = threading.Thread(target=Looking.look)
            thread.start()
            thread.join()
        return dict(super().get_config())


def test_another_thread_that_trains_or_warns_sees_nothing_of_a_save(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = keras.Input((4,), name="x")
    model, other = compiled(keras.Model(x, Looking(1)(x)), loss=own_loss), compiled(net())
    seen: list[Any] = []

    def look() -> None:
        warnings.warn("of the other thread", stacklevel=1)
        found = keras.saving.serialize_keras_object(other)
        seen.append((model.compiled, model.optimizer is not None, found["compile_config"]["loss"]))
        other.fit(X, Y, verbose=0)

    monkeypatch.setattr(Looking, "look", staticmethod(look))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        catalog.save("m", model, serializer="keras", example={"x": X})
    assert len(seen) > 2 and all(one == (True, True, "mse") for one in seen)
    assert sum("of the other thread" in str(one.message) for one in told) == len(seen)
    assert any("compiled before it trains on" in str(one.message) for one in told)
