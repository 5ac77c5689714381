"""Which axes of Keras and TensorFlow models are free, and which method is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput  # noqa: E402

pytestmark = pytest.mark.framework


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


def shapes(version: Any, entry: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    point = version.manifest.entry_points[entry]
    return {s.name: s.shape for s in point.inputs}, {s.name: s.shape for s in point.outputs}


def image_model(size: Any) -> Any:
    image = keras.Input((size, size, 3), name="image")
    hidden = keras.layers.Conv2D(4, 3, padding="same")(image)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(hidden))


@pytest.mark.parametrize("serializer", ["savedmodel", "keras"])
def test_axes_that_a_functional_model_leaves_free_are_free(catalog: Catalog, serializer: str) -> None:
    model = image_model(None)
    version = catalog.save("m", model, example=np.ones((2, 8, 8, 3), "float32"), serializer=serializer)
    assert shapes(version) == ({"image": ("batch", None, None, 3)}, {"output": ("batch", 4)})
    other = np.random.default_rng(0).random((3, 12, 7, 3), "float32")
    with catalog.session("m") as session:
        np.testing.assert_allclose(session.predict(other), model(other), atol=1e-5)
    version = catalog.save("m", image_model(8), example=np.ones((2, 8, 8, 3), "float32"), serializer=serializer)
    assert shapes(version)[0] == {"image": ("batch", 8, 8, 3)}
    with catalog.session("m") as session, pytest.raises(InvalidInput, match=r"expected float32\[batch, 8, 8, 3\]"):
        session.predict(other)


class Module(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(tf.ones((3, 2)))
        self.runs = tf.Variable(0, trainable=False)

    def __call__(self, x: Any) -> Any:
        raise RuntimeError("call is for training only")

    def log_prob(self, x: Any) -> Any:
        self.runs.assign_add(1)
        return tf.reduce_sum(x @ self.weight, -1)

    def decode(self, x: Any) -> Any:
        return x @ tf.transpose(self.weight)


def test_the_method_of_the_entry_point_is_stored_with_its_own_example_and_axes(catalog: Catalog) -> None:
    module = Module()
    version = catalog.save(
        "m", module, entry_points={"score": "model.log_prob", "decode": "model.decode"},
        example={"score": np.ones((2, 5, 3), "float32"), "decode": {"x": np.ones((4, 2), "float32")}}, verify=True,
    )  # fmt: skip
    assert shapes(version) == ({"x": ("batch", None, 3)}, {"output": ("batch", None)})
    assert shapes(version, 1) == ({"x": ("batch", 2)}, {"output": ("batch", 3)})
    assert set(catalog.artifact("m").manifest.components[0].meta["methods"]) == {"log_prob", "decode"}
    assert int(module.runs) == 0
    with catalog.session("m") as session:
        assert session.score(np.ones((1, 9, 3), "float32")).shape == (1, 9)


def test_a_model_that_data_built_has_free_rows(catalog: Catalog) -> None:
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    version = catalog.save("m", model, example=np.ones((2, 4, 4, 1), "float32"))
    assert shapes(version) == ({"input": ("batch", 4, 4, 1)}, {"output": ("batch", 3)})


def test_networks_of_a_gan_whose_inputs_have_one_name(catalog: Catalog) -> None:
    generator = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(8)])
    critic = keras.Sequential([keras.Input((8,), name="x"), keras.layers.Dense(1)])
    points = {"generate": "generator", "score": "critic"}
    for example in ({"x": np.ones((4, 3), "f4")}, {"generate": np.ones((4, 3), "f4"), "score": np.ones((2, 8), "f4")}):
        version = catalog.save(
            "gan", components={"generator": generator, "critic": critic}, entry_points=points, example=example
        )
        assert [shapes(version, n)[0]["x"] for n in (0, 1)] == [("batch", 3), ("batch", 8)]


def test_a_layer_that_gives_other_shapes_for_any_length_is_stored_for_its_own(catalog: Catalog) -> None:
    """Keras' `TimeDistributed` gives as many steps as there are rows, where it is traced for any number of steps."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((None, 3)), layers.TimeDistributed(layers.Dense(1))])
    x = np.random.default_rng(0).random((2, 6, 3)).astype("float32")
    with pytest.warns(UserWarning, match="traced for any length"):
        version = catalog.save("m", model, example=x, axes={"input": {0: "batch", 1: "steps"}})
    assert np.allclose(catalog.load("m")(x), model(x), atol=1e-6)
    assert version.verify().passed
