"""A training script as a user has it: a GAN in `__main__`. Run by test_keras.py: first | resume, URL of the catalog."""

import json
import sys
from typing import Any

import keras
import numpy as np

from catalog_core import Catalog

ops = keras.ops


class Gan(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        layers = keras.layers
        self.generator = keras.Sequential(
            [keras.Input((3,)), layers.Dense(6), layers.BatchNormalization(), layers.Dense(4)]
        )
        image = keras.Input((4,))
        hidden = layers.Dropout(0.3, seed=11)(layers.Dense(8, activation="relu")(image))
        self.discriminator = keras.Model(image, [layers.Dense(1)(hidden), layers.Dense(1)(hidden)])
        self.seeds = keras.random.SeedGenerator(5)

    def compile(self, generator_optimizer: Any, discriminator_optimizer: Any) -> None:
        super().compile()
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer

    def scores_of(self, real: Any) -> tuple[Any, Any]:
        made = self.generator(keras.random.normal((ops.shape(real)[0], 3), seed=self.seeds), training=True)
        true, false = self.discriminator(real, training=True), self.discriminator(made, training=True)
        return ops.mean((true[0] - 1) ** 2 + false[0] ** 2 + true[1] ** 2), ops.mean((false[0] - 1) ** 2)

    def train_step(self, real: Any) -> dict[str, Any]:
        import tensorflow as tf

        with tf.GradientTape(persistent=True) as tape:
            first, second = self.scores_of(real)
        for network, optimizer, loss in (
            (self.discriminator, self.discriminator_optimizer, first),
            (self.generator, self.generator_optimizer, second),
        ):
            weights = network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"discriminator": first, "generator": second}


def batch(step: int) -> Any:
    return np.random.default_rng(step).random((16, 4), dtype=np.float32)


def losses(gan: Any, steps: range) -> list[dict[str, float]]:
    told = []
    for step in steps:
        history = gan.fit(batch(step), batch_size=16, shuffle=False, verbose=0).history
        told.append({name: values[0] for name, values in history.items()})
    return told


if __name__ == "__main__":
    keras.utils.set_random_seed(1 if sys.argv[1] == "first" else 2)
    keras.layers.Dense(2), keras.layers.Dense(2)  # so that Keras' numbers of layers differ from run to run
    gan = Gan()
    gan.compile(keras.optimizers.Adam(1e-2), keras.optimizers.RMSprop(1e-2, momentum=0.5))
    with Catalog.open(sys.argv[2]) as catalog:
        if sys.argv[1] == "first":
            losses(gan, range(3))
            catalog.save("gan", components={"model": gan}, serializer="keras")
        else:
            [keras.layers.Dense(1) for _ in range(7)]
            catalog.load("gan", into=gan)
    print(json.dumps(losses(gan, range(3, 6))))
