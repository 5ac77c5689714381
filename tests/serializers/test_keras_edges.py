"""Keras models at the edges, by both serializers: layers that keep copies, states between calls, quantised weights,
vocabularies, models that are not built yet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, SerializationError  # noqa: E402

layers = keras.layers
BOTH = pytest.mark.parametrize("serializer", ["keras", "savedmodel"])


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


def draw(*shape: int, seed: int = 5) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def chain(*parts: Any, shape: Any = (4,), **options: Any) -> Any:
    return keras.Sequential([keras.Input(shape, **options), *parts])


def adapted(seed: int = 5) -> Any:
    layer = layers.Normalization()
    layer.adapt(3 + 2 * draw(50, 4, seed=seed))
    return chain(layer, layers.Dense(2))


def quantised() -> Any:
    net = chain(layers.Dense(8))
    net.quantize("int8")
    return net


MODELS = {
    "normalization": adapted,
    "int8": quantised,
    "stateful": lambda: chain(layers.LSTM(5, stateful=True), shape=(5, 4), batch_size=3),
    "spectral": lambda: chain(layers.SpectralNormalization(layers.Dense(3))),
    "bidirectional": lambda: chain(layers.Bidirectional(layers.LSTM(3)), shape=(5, 4)),
    "bfloat16": lambda: chain(
        layers.Dense(8, dtype="mixed_bfloat16"), layers.BatchNormalization(), layers.Dropout(0.5)
    ),
}


@BOTH
@pytest.mark.parametrize("kind", MODELS)
def test_it_gives_the_same_in_a_fresh_process_and_after_loading(catalog: Catalog, kind: str, serializer: str) -> None:
    """`verify` compares what a fresh process gives with what the live model gave."""
    net = MODELS[kind]()
    x = draw(3, *net.input_shape[1:])
    version = catalog.save("m", net, example=x, serializer=serializer, verify=True)
    assert version.summary["verification"] == "passed"
    with catalog.session("m") as session:
        first = session.predict(x)
    assert np.allclose(np.asarray(first, "float32"), np.asarray(net(x), "float32"), rtol=1e-2, atol=1e-2)


@BOTH
def test_layers_with_copies_of_their_variables_are_filled_too(catalog: Catalog, serializer: str) -> None:
    """Normalization computes with constants that it made of what it learned."""
    net, other, x = adapted(), adapted(seed=9), draw(3, 4)
    catalog.save("m", net, serializer=serializer)
    assert not np.allclose(net(x), other(x))
    catalog.load("m", into=other)
    assert np.array_equal(net(x), other(x))


@BOTH
def test_preparing_leaves_the_state_of_a_recurrent_layer_alone(catalog: Catalog, serializer: str) -> None:
    net, x = MODELS["stateful"](), draw(3, 5, 4)
    net(x)
    before = np.array(net.layers[0].states[0])
    catalog.save("m", net, example=x, serializer=serializer)
    assert before.any() and np.array_equal(net.layers[0].states[0], before)


def test_weights_of_a_vocabulary_that_keras_would_lose_are_refused(catalog: Catalog) -> None:
    """What `adapt` finds of them is neither a variable, nor in the configuration, nor in Keras' file."""
    layer = layers.TextVectorization(output_mode="tf_idf")
    layer.adapt(np.array(["a", "b b"]))
    with pytest.raises(SerializationError, match=r"the weights of the vocabulary of .* were learned by adapt"):
        catalog.save("m", chain(layer, shape=(1,), dtype="string"), serializer="keras")
    given = chain(layers.IntegerLookup(vocabulary=[5, 7, 9]), shape=(1,), dtype="int64")
    assert catalog.save("m", given, example=np.array([[7]]), serializer="keras", verify=True)


@keras.saving.register_keras_serializable("tests-edges")
class Own(keras.Model):
    """As everybody writes them: not built before it is called, and its argument is called `inputs`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dense = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return (
            self.dense(inputs["left"]) + self.dense(inputs["right"]) if isinstance(inputs, dict) else self.dense(inputs)
        )


@BOTH
@pytest.mark.parametrize("make", [Own, lambda: layers.Dense(3), lambda: keras.Sequential([layers.Dense(3)])])
@pytest.mark.parametrize("built", [False, True])
def test_a_model_runs_on_an_example_without_a_name(catalog: Catalog, make: Any, built: bool, serializer: str) -> None:
    net, x = make(), draw(3, 4)
    if built:
        net(x)
    version = catalog.save("m", net, example=x, serializer=serializer)
    (point,) = catalog.artifact(version).manifest.entry_points
    assert [spec.shape for spec in point.inputs] == [("batch", 4)]
    with catalog.session("m") as session:
        assert np.allclose(session.predict(x), net(x), atol=1e-6)


@BOTH
def test_a_dictionary_of_arrays_in_one_argument(catalog: Catalog, serializer: str) -> None:
    x = {"left": draw(3, 4), "right": draw(3, 4)}
    net = Own()
    catalog.save("m", net, example=x, serializer=serializer)
    with catalog.session("m") as session:
        assert np.allclose(session.predict(**x), net(x), atol=1e-6)


def test_more_arrays_than_inputs_are_refused(catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match="the example has 2 arrays, and 'predict' takes input"):
        catalog.save("m", chain(layers.Dense(3)), example=(draw(3, 4), draw(3, 4)))


@pytest.mark.parametrize("limit", [1e18, 3.1e17, math.inf, float(2**53)])
def test_an_optimizer_with_a_large_or_infinite_limit_is_saved_and_comes_back(catalog: Catalog, limit: float) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.ReLU(max_value=limit)])
    model.compile(keras.optimizers.Adam(clipvalue=limit), loss="mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    version = catalog.save("m", model, serializer="keras")
    loaded = catalog.load(version)
    assert loaded.optimizer.clipvalue == limit
    assert loaded.layers[-1].max_value == limit
    assert version.params["optimizer.clipvalue"] == (limit if math.isfinite(limit) else "inf")
    assert catalog.fsck().clean


# -- what a model leaves free -----------------------------------------------------------------------------------------


def any_size() -> Any:
    return keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(2, 3, padding="same"), layers.Conv2D(1, 3), layers.ReLU()]
    )


def any_length() -> Any:
    left, right = keras.Input((None, 4), name="left"), keras.Input((5,), name="right")
    pooled = layers.GlobalAveragePooling1D()(layers.Conv1D(3, 1)(left))
    return keras.Model({"left": left, "right": right}, layers.Dense(2)(layers.Concatenate()([pooled, right])))


@BOTH
def test_sizes_of_images_that_the_model_leaves_free_are_free(catalog: Catalog, serializer: str) -> None:
    net, small, large = any_size(), draw(2, 8, 8, 3), draw(3, 12, 10, 3)
    version = catalog.save("m", net, example=small, serializer=serializer, verify=True)
    (point,) = catalog.artifact(version).manifest.entry_points
    assert [spec.shape for spec in point.inputs] == [("batch", None, None, 3)]
    assert [spec.shape[:1] + spec.shape[3:] for spec in point.outputs] == [("batch", 1)]
    with catalog.session("m") as session:
        for x in (small, large):
            assert np.allclose(session.predict(x), net(x), atol=1e-5)


@BOTH
def test_a_length_that_one_input_leaves_free_is_free_beside_one_that_is_not(catalog: Catalog, serializer: str) -> None:
    net = any_length()
    catalog.save("m", net, example={"left": draw(2, 7, 4), "right": draw(2, 5)}, serializer=serializer)
    shapes = {spec.name: spec.shape for spec in catalog.artifact("m").manifest.entry_points[0].inputs}
    assert shapes == {"left": ("batch", None, 4), "right": ("batch", 5)}
    given = {"left": draw(3, 9, 4), "right": draw(3, 5)}
    with catalog.session("m") as session:
        assert np.allclose(session.predict(**given), net(given), atol=1e-5)


@BOTH
def test_a_length_that_is_declared_is_free_in_a_model_that_says_nothing(catalog: Catalog, serializer: str) -> None:
    net, axes = Own(), {"inputs": {0: "batch", 1: "steps"}}
    net(draw(2, 6, 4))
    catalog.save("m", net, example={"inputs": draw(2, 6, 4)}, axes=axes, serializer=serializer)
    (spec,) = catalog.artifact("m").manifest.entry_points[0].inputs
    assert spec.shape == ("batch", "steps", 4)
    with catalog.session("m") as session:
        assert np.allclose(session.predict(draw(3, 11, 4)), net(draw(3, 11, 4)), atol=1e-5)


def test_a_loaded_graph_that_is_saved_again_keeps_its_free_axes(catalog: Catalog) -> None:
    catalog.save("m", any_size(), example=draw(2, 8, 8, 3))
    version = catalog.save("again", catalog.load("m"), example={"input": draw(2, 8, 8, 3)})
    assert catalog.artifact(version).manifest.entry_points[0].inputs[0].shape == ("batch", None, None, 3)
