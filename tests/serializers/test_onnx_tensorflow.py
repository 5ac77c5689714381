"""ONNX graphs of Keras and TensorFlow models, by tf2onnx, and a model that is kept in two formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import SerializationError  # noqa: E402
from catalog_onnx.export import to_onnx  # noqa: E402

layers = keras.layers


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


def draw(*shape: int) -> Any:
    return np.random.default_rng(5).normal(size=shape).astype("float32")


class Discriminator(keras.Model):
    """Showers (n, 6, 6, 6, 1) → whether they are real, and their energy; not built before it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.features = keras.Sequential([layers.Conv3D(4, 3), layers.BatchNormalization(), layers.Dropout(0.3)])
        self.real = layers.Dense(1)

    def call(self, shower: Any, training: bool = False) -> Any:
        found = self.features(shower, training=training)
        return {"real": self.real(tf.reshape(found, [-1, 256])), "energy": tf.reduce_sum(shower, [1, 2, 3, 4])}


class Conditional(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(draw(3, 4))

    def __call__(self, latent: Any, energy: Any) -> Any:
        return latent @ self.w * energy


def two_inputs() -> Any:
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    return keras.Model([left, right], layers.Dense(2)(layers.Concatenate()([left, right])))


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "gan": (Discriminator, {"shower": draw(3, 6, 6, 6, 1)}),
    "module": (Conditional, {"latent": draw(3, 3), "energy": draw(3, 1)}),
    "functional": (two_inputs, {"left": draw(3, 4), "right": draw(3, 3)}),
    "recurrent": (lambda: keras.Sequential([keras.Input((5, 4)), layers.LSTM(3)]), {"input": draw(3, 5, 4)}),
}


@pytest.mark.parametrize("kind", CASES)
def test_it_is_kept_in_two_formats_that_give_the_same(catalog: Catalog, kind: str) -> None:
    make, x = CASES[kind]
    version = catalog.save("m", make(), example=x, serializer={"model": ["savedmodel", "onnx"]}, verify=True)
    assert version.summary["components"] == {"model": "savedmodel", "model-onnx": "onnx"}
    graph = catalog.load("m", "model-onnx")
    more = {name: np.concatenate([value, value]) for name, value in x.items()}
    got = graph.run(**more)
    with catalog.session("m") as session:
        wanted = session.run("predict", more)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5)


def test_a_stored_model_is_exported_without_its_class(catalog: Catalog) -> None:
    make, x = CASES["gan"]
    catalog.save("m", make(), example=x)
    loaded = catalog.load("m")
    catalog.save("graph", to_onnx(loaded, x), example=x, verify=True)
    np.testing.assert_allclose(catalog.load("graph").run(**x)["real"], loaded(**x)["real"], rtol=1e-4, atol=1e-5)


def test_what_has_no_operator_in_onnx_is_refused(catalog: Catalog) -> None:
    class Strange(tf.Module):
        def __call__(self, x: Any) -> Any:
            return tf.math.igamma(x, x)

    with pytest.raises(SerializationError, match=r"Igamma|exported to ONNX"):
        catalog.save("m", Strange(), example={"x": draw(3, 4)}, serializer={"model": ["savedmodel", "onnx"]})
