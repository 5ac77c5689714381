"""Keras models that are published can be read back: what Keras itself would lose or make differently is kept, stored as
weights with the reason, or refused, and layers that keep state of their own get it back."""

from __future__ import annotations

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

layers = keras.layers


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


def draw(*shape: int, seed: int = 5) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def chain(*parts: Any, shape: Any = (4,), **options: Any) -> Any:
    return keras.Sequential([keras.Input(shape, **options), *parts])


def saved(catalog: Catalog, model: Any) -> Any:
    """The model as it comes back; a warning that only weights are stored fails the test."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*stored as weights only")
        catalog.save("m", model, serializer="keras")
    return catalog.load("m")


def shared_below() -> Any:
    """A layer inside a model and beside it."""
    dense = layers.Dense(4)
    inner, outer = keras.Input((4,)), keras.Input((4,))
    return keras.Model(outer, dense(keras.Model(inner, dense(inner))(outer)))


def shared_twice() -> Any:
    """One layer in two models inside, one of which is a model of models, and an activation beside them."""
    dense, inputs = layers.Dense(4, activation="tanh"), [keras.Input((4,)) for _ in range(4)]
    first = keras.Sequential([keras.Input((4,)), dense, layers.Dense(4)])
    second = keras.Model(inputs[0], layers.Dense(4)(dense(inputs[0])))
    third = keras.Model(inputs[1], second(layers.ReLU()(inputs[1])))
    return keras.Model(inputs[2], first(third(dense(inputs[2]))))


def same_input() -> Any:
    """As autoencoders are written: encoder and whole start from one `Input`."""
    x = keras.Input((4,))
    encoder = keras.Model(x, layers.Dense(2)(x))
    return keras.Model(x, layers.Dense(4)(encoder(x)))


@pytest.mark.parametrize("make", [shared_below, shared_twice, same_input])
def test_layers_that_models_share_are_shared_after_loading(catalog: Catalog, make: Any) -> None:
    model, x = make(), draw(3, 4)
    model.compile("adam", "mse")
    model.fit(x, x, verbose=0)
    again = saved(catalog, model)
    assert len(again.trainable_variables) == len(model.trainable_variables)
    assert np.allclose(again(x), model(x), atol=1e-6)
    for net in (model, again):
        net.fit(x, x, epochs=2, shuffle=False, verbose=0)
    assert np.allclose(again(x), model(x), atol=1e-5)


def test_a_loss_scaled_optimizer_resumes_whatever_the_policy_of_the_process(catalog: Catalog) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = chain(layers.Dense(8, activation="relu"), layers.Dense(1, dtype="float32"))
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.fit(draw(8, 4), draw(8, 1), verbose=0, shuffle=False)
    finally:
        keras.config.set_dtype_policy("float32")
    again = saved(catalog, model)
    assert type(again.optimizer).__name__ == type(model.optimizer).__name__ == "LossScaleOptimizer"
    assert [layer.dtype_policy.name for layer in again.layers] == [layer.dtype_policy.name for layer in model.layers]
    for net in (model, again):
        net.fit(draw(8, 4), draw(8, 1), epochs=2, verbose=0, shuffle=False)
    for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.allclose(mine, theirs, atol=1e-6)


def test_an_optimizer_that_was_changed_after_compiling_comes_back_changed(catalog: Catalog) -> None:
    model = chain(layers.Dense(1))
    model.compile("adam", "mse")
    model.fit(draw(8, 4), draw(8, 1), verbose=0)
    model.optimizer.clipnorm = 0.5
    assert saved(catalog, model).optimizer.clipnorm == 0.5


def ecal_sum(image: Any) -> Any:
    return keras.ops.sum(image, axis=1)


@keras.saving.register_keras_serializable("tests-read-back")
def registered_sum(image: Any) -> Any:
    return keras.ops.sum(image, axis=1)


def test_a_function_that_nobody_registered_leaves_the_weights_and_the_reason(catalog: Catalog) -> None:
    def made() -> Any:
        return chain(layers.Dense(3), layers.Lambda(ecal_sum))

    model = made()
    with pytest.warns(UserWarning, match=r"stored as weights only.*'ecal_sum' is neither one of Keras nor registered"):
        catalog.save("m", model, serializer="keras")
    with pytest.raises(SerializationError, match="'ecal_sum' is neither") as caught:
        catalog.load("m")
    assert "into" in str(caught.value.hint)
    assert np.allclose(catalog.load("m", into=made())(draw(2, 4)), model(draw(2, 4)))
    other = chain(layers.Dense(3), layers.Lambda(registered_sum))
    assert np.allclose(saved(catalog, other)(draw(2, 4)), other(draw(2, 4)))


class NotRegistered(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs * 2


@keras.saving.register_keras_serializable("tests-read-back")
class Forgetful(layers.Layer):
    """Its configuration does not say how wide it is."""

    def __init__(self, units: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.dense = layers.Dense(units)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


@keras.saving.register_keras_serializable("tests-read-back")
class Fails(layers.Layer):
    """It cannot be made of its configuration."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)

    def call(self, inputs: Any) -> Any:
        return inputs

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (NotRegistered, "NotRegistered' is not registered"),
        (lambda: Forgetful(5), "makes another model of its configuration"),
        (lambda: Fails(3), "cannot make the model"),
    ],
)
def test_what_keras_does_not_make_again_is_stored_as_weights_with_the_reason(
    catalog: Catalog, make: Any, told: str
) -> None:
    model = chain(layers.Dense(4), make())
    with pytest.warns(UserWarning, match=f"stored as weights only.*{told}"):
        catalog.save("m", model, serializer="keras")
    with pytest.raises(SerializationError, match=told):
        catalog.load("m")
    other = chain(layers.Dense(4), make())
    assert np.allclose(catalog.load("m", into=other)(draw(2, 4)), model(draw(2, 4)))


def test_reading_back_takes_no_memory_for_variables_and_leaves_none_to_be_made(catalog: Catalog) -> None:
    from catalog_keras import build, config

    model = chain(layers.Dense(8), layers.BatchNormalization())
    found = config.copied(keras.saving.serialize_keras_object(model))
    config.check(found)
    made = build.outline(found, {})
    assert [tuple(v.shape) for v in made.variables] == [tuple(v.shape) for v in model.variables]
    assert all(variable._value is None for variable in made.variables)
    with keras.StatelessScope():
        pass  # at the end of a scope Keras makes what is still without memory
    assert all(variable._value is None for variable in made.variables)


# -- state outside of variables ---------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests-read-back")
class Clip(layers.Layer):
    """As Keras' guide writes one: what it learned is in a plain number."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.high = 1.0
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def adapt(self, data: Any) -> None:
        self.high = float(np.max(data))

    def call(self, inputs: Any) -> Any:
        return keras.ops.minimum(inputs, self.high) * self.scale

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["high"] = np.float32(self.high)

    def load_own_variables(self, store: Any) -> None:
        self.high = float(np.asarray(store["high"]))
        super().load_own_variables({"0": store["0"]})


@keras.saving.register_keras_serializable("tests-read-back")
class Table(layers.Layer):
    """What it learned is in a file."""

    offsets = (0.0,)

    def call(self, inputs: Any) -> Any:
        return inputs + sum(self.offsets)

    def save_assets(self, folder: str) -> None:
        (Path(folder) / "tables").mkdir()
        (Path(folder) / "tables" / "offsets.txt").write_text("\n".join(str(value) for value in self.offsets))

    def load_assets(self, folder: str) -> None:
        self.offsets = tuple(float(v) for v in (Path(folder) / "tables" / "offsets.txt").read_text().split())


@keras.saving.register_keras_serializable("tests-read-back")
class Deaf(Clip):
    """It writes its state, and does not read it."""

    def load_own_variables(self, store: Any) -> None:
        pass


@keras.saving.register_keras_serializable("tests-read-back")
class Counting(keras.optimizers.SGD):
    """An optimizer with a number of its own."""

    seen = 0

    def apply(self, gradients: Any, variables: Any = None) -> Any:
        self.seen += 1
        return super().apply(gradients, variables)

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["seen"] = np.int64(self.seen)

    def load_own_variables(self, store: Any) -> None:
        self.seen = int(store["seen"])


def clip(high: float) -> Any:
    layer = Clip()
    layer.adapt([high])
    return layer


def table(*offsets: float) -> Any:
    layer = Table()
    layer.offsets = offsets
    return layer


def bins(*edges: float) -> Any:
    layer = layers.Discretization(num_bins=3)
    layer.adapt(np.array(edges))
    return layer


OWN = {
    "variables": lambda high: chain(layers.TimeDistributed(clip(high)), layers.Dense(1), shape=(3, 4)),
    "inside": lambda high: chain(chain(clip(high)), layers.Dense(1)),
    "assets": lambda high: chain(table(high, 2.0), layers.Dense(1)),
    "bins": lambda high: chain(bins(-high, 0.0, high)),
}


@pytest.mark.parametrize("kind", OWN)
def test_what_a_layer_keeps_outside_of_variables_comes_back(catalog: Catalog, kind: str) -> None:
    model, other = OWN[kind](0.5), OWN[kind](0.1)
    x = draw(3, *model.input_shape[1:])
    want = np.asarray(model(x))
    assert not np.allclose(other(x), want)
    assert np.array_equal(saved(catalog, model)(x), want)
    assert np.array_equal(catalog.load("m", into=other)(x), want)
    assert np.array_equal(model(x), want)


def test_what_an_optimizer_keeps_of_its_own_comes_back(catalog: Catalog) -> None:
    model = chain(layers.Dense(1))
    model.compile(Counting(0.1), "mse", run_eagerly=True)
    model.fit(draw(8, 4), draw(8, 1), batch_size=4, verbose=0)
    assert (model.optimizer.seen, saved(catalog, model).optimizer.seen) == (2, 2)


@pytest.mark.parametrize("kind", ["StringLookup", "IntegerLookup", "TextVectorization"])
def test_a_vocabulary_that_adapt_found_comes_back(catalog: Catalog, kind: str) -> None:
    """Keras writes it to a file of its own beside the configuration."""
    words = [5, 7, 9, 5] if kind == "IntegerLookup" else ["e-", "mu mu", "pi\u2028", "mu"]
    dtype = "int64" if kind == "IntegerLookup" else "string"

    def made(data: Any) -> Any:
        layer = getattr(layers, kind)()
        layer.adapt(np.array(data))
        return chain(layer, shape=(1,), dtype=dtype)

    model, other = made(words), made(words[:1])
    x = keras.ops.convert_to_tensor(np.array([[word] for word in words]))
    want = np.asarray(model(x))
    assert np.array_equal(saved(catalog, model)(x), want)
    assert np.array_equal(catalog.load("m", into=other)(x), want)


def test_a_layer_that_does_not_take_its_state_back_is_told_and_nothing_changes(catalog: Catalog) -> None:
    def made(high: float) -> Any:
        layer = Deaf()
        layer.adapt([high])
        return chain(layer, layers.Dense(1))

    catalog.save("m", made(0.5), serializer="keras")
    live = made(0.1)
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in live.variables]
    with pytest.raises(SerializationError, match="reports something else"):
        catalog.load("m", into=live)
    for variable, value in zip(live.variables, before, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(variable), value)
    with pytest.raises(SerializationError, match="reports something else"):
        catalog.load("m")


def test_state_without_a_place_is_told(catalog: Catalog) -> None:
    """A version of an earlier release has no own state: another number would be there in silence."""
    catalog.save("m", chain(Clip(name="c"), layers.Dense(1)), serializer="keras")
    from catalog_core.testing.contract import SerializerContract
    from catalog_keras.serializer import KerasSerializer

    files, meta = SerializerContract.files(catalog), dict(SerializerContract.component(catalog).meta)
    old = {name: data for name, data in files.items() if not name.startswith("own")}
    reader = SerializerContract.reader(catalog, old, {key: meta[key] for key in meta if key != "own"})
    with pytest.raises(SerializationError, match="of which nothing is stored"):
        KerasSerializer().load(reader, None, None, {})
