"""What a study could not put into another catalog: GANs, VAEs and conditional generators as one model, from
TensorFlow and Keras, prepared, verified, saved, and loaded in a process that has neither Keras nor the classes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, SerializationError  # noqa: E402

# Without Keras, and without this file: what is in a catalog is loaded, run on its example, and compared.
CHILD = """
import importlib.abc, importlib.machinery, json, sys
class NoKeras(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):  # TensorFlow asks where Keras is, and does not import it
        if name.partition(".")[0] in ("keras", "tf_keras", "h5py"):
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise ImportError(f"{spec.name} is blocked")
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, NoKeras())
import numpy as np
from catalog_core import Catalog
told = {}
with Catalog.open(sys.argv[1], create=False) as catalog:
    inputs, outputs = catalog.artifact("m").example()
    for point in catalog.artifact("m").manifest.entry_points:
        with catalog.session("m") as session:  # a new one starts from the stored seeds
            name = point.name
            got = session.run(name, {spec.name: inputs[spec.name] for spec in point.inputs})
            told[name] = {key: float(np.abs(got[key] - wanted).max()) for key, wanted in outputs[name].items()}
            more = {spec.name: np.concatenate([inputs[spec.name]] * 2) for spec in point.inputs}
            assert all(len(value) == 2 * len(got[key]) for key, value in session.run(name, more).items())
print(json.dumps([told, sorted({n.partition(".")[0] for n in sys.modules} & {"keras", "test_savedmodel_models"})]))
"""


class Gan3D(keras.Model):
    """Two networks, two optimizers, a training step of its own, and no `call`."""

    def __init__(self, latent: int = 6) -> None:
        super().__init__()
        self.latent = latent
        layers = keras.layers
        self.generator = keras.Sequential(
            [
                keras.Input((latent,), name="noise"),
                layers.Dense(27 * 2, activation="relu"),
                layers.Reshape((3, 3, 3, 2)),
                layers.Conv3DTranspose(4, 3, strides=2, padding="same", activation="relu"),
                layers.BatchNormalization(),
                layers.Conv3D(1, 2, activation="relu"),
            ]
        )
        shower = keras.Input((5, 5, 5, 1), name="shower")
        hidden = layers.LeakyReLU()(layers.Conv3D(4, 3)(shower))
        hidden = layers.Flatten()(layers.Dropout(0.2)(hidden))
        ecal = layers.Lambda(lambda image: keras.ops.sum(image, axis=(1, 2, 3)), name="ecal")(shower)
        heads = [
            layers.Dense(1, activation="sigmoid", name="validity")(hidden),
            layers.Dense(1, name="energy")(hidden),
            ecal,
        ]
        self.discriminator = keras.Model(shower, heads)

    def compile(self, generator: Any, discriminator: Any) -> None:
        super().compile()
        self.generator_optimizer, self.discriminator_optimizer = generator, discriminator

    def train_step(self, real: Any) -> dict[str, Any]:
        noise = tf.random.stateless_normal((tf.shape(real)[0], self.latent), [1, 2])
        with tf.GradientTape() as tape:
            scores = [self.discriminator(x, training=True)[0] for x in (real, self.generator(noise))]
            loss = -tf.reduce_mean(tf.math.log(scores[0] + 1e-6) + tf.math.log(1 - scores[1] + 1e-6))
        weights = self.discriminator.trainable_variables
        self.discriminator_optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            made = self.discriminator(self.generator(noise, training=True))
            other = -tf.reduce_mean(tf.math.log(made[0] + 1e-6))
        weights = self.generator.trainable_variables
        self.generator_optimizer.apply_gradients(zip(tape.gradient(other, weights), weights, strict=True))
        return {"discriminator": loss, "generator": other}


class Sampling(keras.layers.Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(7)

    def call(self, moments: Any) -> Any:
        mean, logarithm = moments
        return mean + keras.ops.exp(logarithm / 2) * keras.random.normal(keras.ops.shape(mean), seed=self.seeds)


class Vae(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        x = keras.Input((8,), name="cells")
        hidden = keras.layers.Dense(6, activation="relu")(x)
        mean, logarithm = keras.layers.Dense(2)(hidden), keras.layers.Dense(2)(hidden)
        self.encoder = keras.Model(x, [mean, logarithm, Sampling()([mean, logarithm])])
        self.decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8)])

    def call(self, cells: Any) -> dict[str, Any]:
        mean, logarithm, drawn = self.encoder(cells)
        return {"cells": self.decoder(drawn), "mean": mean, "logarithm": logarithm}


class Conditional(tf.Module):
    """Several inputs, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="tanh")])
        self.scale = tf.Variable([2.0, 3.0])

    def generate(self, noise: Any, energy: Any, angle: Any) -> Any:
        image = self.network(tf.concat([noise, energy, angle], axis=1)) * energy
        return {"image": image, "sum": tf.reduce_sum(image, axis=1), "index": tf.argmax(image, axis=1)}


class Pair(keras.Model):
    """One argument that is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        noise, energy = inputs
        return self.dense(keras.ops.concatenate([noise, energy], axis=1))


def draw(*shape: int) -> Any:
    return np.random.default_rng(5).random(shape, dtype=np.float32)


def trained_gan() -> Gan3D:
    keras.utils.set_random_seed(3)
    gan = Gan3D()
    gan.compile(keras.optimizers.RMSprop(1e-3), keras.optimizers.Adam(1e-3))
    gan.fit(draw(8, 5, 5, 5, 1), batch_size=4, epochs=1, verbose=0)
    return gan


def functional() -> Any:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    hidden = keras.layers.Concatenate()([a, b])
    return keras.Model(
        {"a": a, "b": b}, {"left": keras.layers.Dense(2)(hidden), "right": keras.layers.Dense(1)(hidden)}
    )


def words() -> Any:
    text = keras.layers.StringLookup(vocabulary=["e-", "pi+", "mu-"])
    return keras.Sequential([keras.Input((2,), dtype="string", name="particle"), text, keras.layers.Embedding(5, 3)])


GAN = {"generate": "model.generator", "score": "model.discriminator"}
CASES: dict[str, Any] = {
    "gan": (trained_gan, GAN, {"noise": draw(4, 6), "shower": draw(4, 5, 5, 5, 1)}),
    "vae": (Vae, None, draw(4, 8)),
    "encoder": (Vae, {"encode": "model.encoder", "predict": "model"}, {"cells": draw(4, 8)}),
    "conditional": (
        Conditional, {"generate": "model.generate"},
        {"noise": draw(4, 4), "energy": draw(4, 1) + 1, "angle": draw(4, 1)},
    ),
    "pair": (Pair, None, [draw(4, 5), draw(4, 1)]),
    "functional": (functional, None, {"b": draw(4, 2), "a": draw(4, 3)}),
    "lstm": (lambda: keras.Sequential([keras.Input((7, 3)), keras.layers.LSTM(4)]), None, draw(4, 7, 3)),
    "layer": (lambda: keras.layers.MultiHeadAttention(2, 4), None, {"query": draw(2, 5, 8), "value": draw(2, 5, 8)}),
}  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_prepared_verified_saved_and_loaded_without_code(
    name: str, catalog: Catalog, tmp_path: Path
) -> None:
    make, points, example = CASES[name]
    model = make()
    with catalog.prepare("m", components={"model": model}, entry_points=points, example=example) as draft:
        report = draft.verify()
        assert report.passed, report.reason
        assert {check.id: check.result for check in report.checks if check.result != "passed"} == {}
        draft.save()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, catalog.url], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    differences, imported = json.loads(done.stdout)
    assert imported == []
    assert set(differences) == set(points or {"predict": ""})
    assert all(value < 1e-5 for found in differences.values() for value in found.values()), differences


def test_the_discriminator_has_three_outputs_under_their_names(catalog: Catalog) -> None:
    version = catalog.save("m", components={"model": trained_gan()}, entry_points=GAN, example=CASES["gan"][2])
    score = next(point for point in version.manifest.entry_points if point.name == "score")
    assert [spec.name for spec in score.outputs] == ["validity", "energy", "ecal"]
    assert score.inputs[0].shape == ("batch", 5, 5, 5, 1)
    with catalog.session("m") as session, pytest.raises(InvalidInput, match="shower"):
        session.score(draw(2, 5, 5, 5))


def test_networks_as_components_make_a_pipeline(catalog: Catalog) -> None:
    vae = Vae()
    head = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    parts = {"head": head, "decoder": vae.decoder}
    with catalog.prepare(
        "m", components=parts, entry_points={"reconstruct": ["head", "decoder"]}, example=draw(4, 8)
    ) as draft:
        assert draft.verify().passed, draft.report.reason
        draft.save()
    with catalog.session("m") as session:
        assert np.allclose(session.reconstruct(draw(4, 8)), vae.decoder(head(draw(4, 8))), atol=1e-6)


def test_strings_and_tables_in_memory(catalog: Catalog) -> None:
    model = words()
    catalog.save("m", components={"model": model})  # Keras knows the inputs: no example is needed
    loaded = catalog.load("m")
    told = tf.constant([["mu-", "nothing"]])
    assert np.allclose(loaded(told), model(told))


def test_sessions_draw_on_and_preparing_leaves_the_seeds_alone(catalog: Catalog) -> None:
    vae = Vae()
    before = vae.encoder.layers[-1].seeds.state.numpy()
    catalog.save("m", components={"model": vae}, example=draw(4, 8))
    assert np.array_equal(before, vae.encoder.layers[-1].seeds.state.numpy())
    with catalog.session("m") as session:
        first, second = (session.predict(draw(4, 8))["cells"] for _ in range(2))
    assert not np.allclose(first, second)
    assert np.allclose(first, vae(draw(4, 8))["cells"], atol=1e-6)


def test_a_loaded_model_can_be_trained_on(catalog: Catalog) -> None:
    model = functional()
    given = {"a": draw(4, 3), "b": draw(4, 2)}
    catalog.save("m", components={"model": model}, example=given)
    loaded = catalog.load("m")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded(**given)["left"] ** 2)
    with tf.GradientTape() as live:
        wanted = tf.reduce_sum(model(given)["left"] ** 2)
    gradients = tape.gradient(loss, loaded.trainable_variables)
    expected = live.gradient(wanted, [v.value for v in model.trainable_variables])
    for got, want in zip(gradients, expected, strict=True):
        assert np.allclose(0.0 if got is None else got, 0.0 if want is None else want, atol=1e-5)
    for variable, gradient in zip(loaded.trainable_variables, gradients, strict=True):
        variable.assign_sub(0.0 if gradient is None else 0.1 * gradient)
    catalog.save("tuned", components={"model": loaded}, parents=["m"])
    again = catalog.load("tuned")
    assert np.allclose(again(**given)["left"], loaded(**given)["left"])
    assert not np.allclose(again(**given)["left"], model(given)["left"])


def test_a_model_that_cannot_be_traced_or_called_says_why(catalog: Catalog) -> None:
    class Wild(tf.Module):
        def __call__(self, x: Any) -> Any:
            return tf.constant(np.asarray(x) * 2)

    with pytest.raises(SerializationError, match="cannot be traced"):
        catalog.save("m", components={"model": Wild()}, example=draw(4, 3))
    with pytest.raises(SerializationError, match=r"has no method 'call'.*component\.generator"):
        catalog.save("m", components={"model": Gan3D()}, example=draw(4, 6))


def test_what_is_called_with_something_else_is_told(catalog: Catalog) -> None:
    catalog.save("m", components={"model": functional()}, example={"a": draw(4, 3), "b": draw(4, 2)})
    loaded = catalog.load("m")
    for wrong in (
        {"a": draw(4, 3)},
        {"a": draw(4, 2), "b": draw(4, 2)},
        {"a": draw(4, 3).astype("f8"), "b": draw(4, 2)},
    ):
        with pytest.raises(InvalidInput):
            loaded(**wrong)
    with pytest.raises(SerializationError, match="call"):
        loaded.run("cal")


# -- optimizers, metrics and state outside of variables ---------------------------------------------------------------


def compiled() -> Any:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(40), keras.layers.Dense(2)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(draw(8, 3), draw(8, 2), verbose=0)
    return model


@pytest.mark.parametrize("make", [compiled, trained_gan])
def test_what_is_served_carries_no_moments(catalog: Catalog, make: Any) -> None:
    model = make()
    points, example = (None, draw(4, 3)) if make is compiled else (GAN, CASES["gan"][2])
    version = catalog.save("m", components={"model": model}, entry_points=points, example=example)
    loaded = catalog.load("m")
    assert sum(v.shape.num_elements() for v in loaded.variables) == sum(np.prod(v.shape) for v in model.variables)
    assert not [name for name in loaded.weights if "optimizer" in name]
    files = catalog.artifact(version).manifest.components[0].files
    data = next(file.size for file in files if "data-" in file.name)
    assert data < 1.3 * sum(4 * int(np.prod(v.shape)) for v in model.variables) + 20_000


def test_optimizers_are_kept_where_they_are_asked_for(catalog: Catalog) -> None:
    model, other = compiled(), compiled()
    catalog.save("m", model, example=draw(4, 3), options={"optimizers": True})
    assert sum("optimizer" in name for name in catalog.load("m").weights) == len(model.optimizer.variables)
    other.fit(draw(8, 3), draw(8, 2), epochs=3, verbose=0)
    catalog.load("m", into=other)
    assert int(other.optimizer.iterations) == int(model.optimizer.iterations) == 1
    for mine, theirs in zip(model.optimizer.variables, other.optimizer.variables, strict=True):
        assert np.array_equal(mine, theirs)


class Trains(keras.Model):
    """A method that trains uses its optimizer, so it is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)
        self.sgd = keras.optimizers.SGD(0.1, momentum=0.9)
        self.seen = keras.metrics.Mean()

    def call(self, x: Any) -> Any:
        self.seen.update_state(x)
        return self.dense(x)

    def learn(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self.dense(x) ** 2)
        weights = self.dense.trainable_variables
        self.sgd.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def test_a_method_that_trains_has_its_optimizer_and_the_live_one_is_left_alone(catalog: Catalog) -> None:
    model = Trains()
    model(draw(4, 3))
    model.learn(draw(4, 3))
    before = [np.array(v.numpy()) for v in (*model.sgd.variables, *model.seen.variables)]
    points = {"learn": "model.learn"}
    catalog.save("m", components={"model": model}, entry_points=points, example={"x": draw(4, 3)})
    after = [np.array(v.numpy()) for v in (*model.sgd.variables, *model.seen.variables)]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert any(name.startswith("sgd.") for name in catalog.load("m").weights)


class Clips(keras.layers.Layer):
    high = 0.5

    def call(self, x: Any) -> Any:
        return keras.ops.minimum(x, self.high)

    def save_own_variables(self, store: Any) -> None:
        store["high"] = np.float32(self.high)

    def load_own_variables(self, store: Any) -> None:
        self.high = float(store["high"])


def test_into_is_refused_where_a_layer_keeps_what_is_no_variable(catalog: Catalog) -> None:
    def made(high: float) -> Any:
        layer = Clips()
        layer.high = high
        return keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(2)])

    model = made(0.2)
    catalog.save("m", model, example=draw(4, 3))
    assert np.allclose(catalog.load("m")(draw(4, 3)), model(draw(4, 3)), atol=1e-6)  # the graph has it
    with pytest.raises(SerializationError, match="keeps state that is no variable"):
        catalog.load("m", into=made(0.9))


def _vocabulary() -> Any:
    layer = keras.layers.TextVectorization(max_tokens=50, output_sequence_length=6)
    layer.adapt(["the higgs boson", "a muon track"])
    return layer, np.array(["the muon", "a"])


@pytest.mark.parametrize("kind", ["TextVectorization", "StringLookup", "IntegerLookup", "Hashing"])
def test_what_loads_without_trust_passes_the_scan(kind: str, tmp_path: Path) -> None:
    """The scan had a list of operators of its own, and `verify` failed models of Keras' own examples."""
    layers = keras.layers
    words = np.array(["a", "b"])
    layer, x = {
        "TextVectorization": _vocabulary,
        "StringLookup": lambda: (layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot"), words),
        "IntegerLookup": lambda: (layers.IntegerLookup(vocabulary=[1, 2], output_mode="multi_hot"), np.array([1, 2])),
        "Hashing": lambda: (layers.Hashing(num_bins=4), words),
    }[kind]()
    dtype = "string" if x.dtype.kind == "U" else x.dtype.name
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=dtype), layer])
    with Catalog.open(f"sqlite://{tmp_path}/c") as catalog:
        version = catalog.save("m", model, example=x, verify=True)  # or it raises
        assert [check.result for check in catalog.verify(version.ref).checks if check.id == "unsafe"] == ["passed"]
