"""CERN's 3DGAN with its layers (EPJ Web Conf. 251, 02073): convolutions padded by hand, a discriminator whose last two
outputs are computed from the image by plain functions. Smaller in x, y and z; saved, verified, loaded and run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from catalog_core import Catalog  # noqa: E402

layers, ops = keras.layers, keras.ops
SIZE = (13, 13, 9)  # 51, 51, 25 in full
LATENT = 16


def generator() -> Any:
    """Dense and upsampling, then convolution, ReLU and batch normalization in this order, valid after zero padding."""
    latent = keras.Input((LATENT,), name="latent")
    x = layers.Reshape((4, 4, 4, 8))(layers.Dense(4 * 4 * 4 * 8)(latent))
    x = layers.UpSampling3D((4, 4, 3))(x)
    for channels, kernel, pad in ((8, (3, 3, 3), 0), (6, (3, 3, 3), 1), (6, (2, 2, 2), 0)):
        x = layers.ZeroPadding3D(pad)(x) if pad else x
        x = layers.ReLU()(layers.Conv3D(channels, kernel, kernel_initializer="he_uniform")(x))
        x = layers.BatchNormalization(epsilon=1e-6)(x)
    image = layers.ReLU()(layers.Conv3D(1, (1, 1, 1), kernel_initializer="glorot_normal")(x))
    return keras.Model(latent, image, name="generator")


def ecal_sum(image: Any) -> Any:
    """The sum of the image before it was raised to 0.85."""
    return ops.sum(ops.power(ops.maximum(image, 0.0), 1 / 0.85), axis=(1, 2, 3))


def ecal_angle(image: Any) -> Any:
    """The mean angle of the layers to the barycentre, weighted by z; 100 where the image is empty."""
    image = ops.squeeze(ops.power(ops.maximum(image, 0.0), 1 / 0.85), -1)
    total = ops.sum(image, axis=(1, 2, 3))
    z = ops.arange(image.shape[3], dtype="float32") + 0.5
    y = ops.arange(image.shape[2], dtype="float32") + 0.5
    safe = ops.where(total > 0, total, 1.0)
    middle_z = ops.sum(ops.sum(image, axis=(1, 2)) * z, axis=1) / safe
    middle_y = ops.sum(ops.sum(image, axis=(1, 3)) * y, axis=1) / safe
    by_layer = ops.sum(image, axis=(1, 2))
    layer_y = ops.sum(ops.sum(image, axis=1) * ops.reshape(y, (1, -1, 1)), axis=1) / ops.where(
        by_layer > 0, by_layer, 1.0
    )
    run = z - ops.expand_dims(middle_z, 1)
    slope = (layer_y - ops.expand_dims(middle_y, 1)) / ops.where(ops.abs(run) > 1e-3, run, 1e-3)
    weights = z * ops.cast(by_layer > 0, "float32")
    angle = ops.sum((np.pi / 2 - ops.arctan(slope)) * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)
    return ops.expand_dims(ops.where(total > 0, angle, 100.0), -1)


def discriminator() -> Any:
    """Convolution, LeakyReLU(0.3), batch normalization from the second on, dropout; four outputs."""
    image = keras.Input((*SIZE, 1), name="image")
    x = image
    for number, (channels, padding) in enumerate(((16, "same"), (8, "valid"), (8, "valid"))):
        x = layers.ZeroPadding3D((0, 0, 1))(x) if number == 1 else x
        x = layers.LeakyReLU(0.3)(layers.Conv3D(channels, (3, 3, 3), padding=padding)(x))
        x = layers.Dropout(0.2)(layers.BatchNormalization(epsilon=1e-6)(x) if number else x)
    hidden = layers.Flatten()(layers.AveragePooling3D(2)(x))
    heads = [
        layers.Dense(1, activation="sigmoid", name="generation")(hidden),
        layers.Dense(1, name="energy")(hidden),
        layers.Lambda(ecal_angle, name="angle", output_shape=(1,))(image),
        layers.Lambda(ecal_sum, name="ecal", output_shape=(1,))(image),
    ]
    return keras.Model(image, heads, name="discriminator")


class Gan(keras.Model):
    """Both networks, each with an RMSprop of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = generator(), discriminator()

    def compile(self) -> None:
        super().compile()
        self.generator_optimizer, self.discriminator_optimizer = (keras.optimizers.RMSprop(1e-3) for _ in range(2))
        self.generator_optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


def noise(rows: int) -> Any:
    return np.random.default_rng(1).normal(size=(rows, LATENT)).astype("float32")


def test_the_3dgan_is_served_and_both_networks_give_what_they_gave(catalog: Catalog) -> None:
    keras.utils.set_random_seed(1)
    gan = Gan()
    gan.compile()
    images = np.asarray(gan.generator(noise(3)))
    assert images.shape == (3, *SIZE, 1)
    version = catalog.save(
        "calo/3dgan", components={"gan": gan}, entry_points={"generate": "gan.generator", "score": "gan.discriminator"},
        example={"latent": noise(3), "image": images}, verify=True,
    )  # fmt: skip
    assert version.summary["verification"] == "passed"
    with catalog.session("calo/3dgan") as session:
        made = session.generate(latent=noise(3))
        scores = session.score(image=made)
    assert np.allclose(made, images, atol=1e-5)
    for name, wanted in zip(("generation", "energy", "angle", "ecal"), gan.discriminator(images), strict=True):
        assert np.allclose(scores[name], wanted, atol=1e-3, rtol=1e-4), name
    assert not [name for name in catalog.load("calo/3dgan").weights if "optimizer" in name]


def test_the_3dgan_resumes_from_its_weights_and_says_why_it_is_no_more(catalog: Catalog) -> None:
    gan, other = Gan(), Gan()
    for one in (gan, other):
        one.compile()
    gan.discriminator_optimizer.learning_rate = 3e-4
    with pytest.warns(UserWarning, match="is stored as weights only"):
        catalog.save("calo/3dgan", components={"gan": gan}, serializer="keras")
    catalog.load("calo/3dgan", into=other)
    images = np.asarray(gan.generator(noise(2)))
    assert np.array_equal(other.generator(noise(2)), images)
    for mine, theirs in zip(gan.discriminator(images), other.discriminator(images), strict=True):
        assert np.array_equal(mine, theirs)
    assert float(other.discriminator_optimizer.learning_rate) == pytest.approx(3e-4)


@pytest.mark.parametrize("serializer", ["keras", "savedmodel"])
def test_the_discriminator_alone_comes_back_or_says_why(catalog: Catalog, serializer: str) -> None:
    net = discriminator()
    images = np.random.default_rng(2).random((3, *SIZE, 1), dtype="float32")
    images[0] = 0
    if serializer == "keras":
        with pytest.warns(UserWarning, match="'ecal_(angle|sum)' is neither one of Keras nor registered"):
            catalog.save("d", net, serializer=serializer)
        again = catalog.load("d", into=discriminator())
        scores = dict(zip(("generation", "energy", "angle", "ecal"), again(images), strict=True))
    else:
        catalog.save("d", net, example=images)
        scores = catalog.load("d")(images)
    assert float(scores["angle"][0, 0]) == 100.0 and float(scores["ecal"][0, 0]) == 0.0
    for name, wanted in zip(("generation", "energy", "angle", "ecal"), net(images), strict=True):
        assert np.allclose(scores[name], wanted, atol=1e-3, rtol=1e-4), name
