"""TensorFlow and Keras versions become artifacts of ADS, and its classes take what ADS could not hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from catalog_ads import KerasModel, TensorFlowModel, introspection  # noqa: E402
from catalog_ads.fresh import answers  # noqa: E402
from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import NotTrusted  # noqa: E402


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"file://{tmp_path}/catalog") as opened:
        yield opened


class Sampling(keras.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, mean: Any) -> Any:
        return mean + keras.random.normal(keras.ops.shape(mean), seed=self.seeds)


class Gan(keras.Model):
    """Two networks of several inputs and outputs, and no `call`."""

    def __init__(self) -> None:
        super().__init__()
        latent, energy = keras.Input((4,), name="latent"), keras.Input((1,), name="energy")
        hidden = keras.layers.Dense(27)(keras.layers.Concatenate()([latent, energy]))
        self.generator = keras.Model([latent, energy], keras.layers.Reshape((3, 3, 3, 1))(hidden))
        shower = keras.Input((3, 3, 3, 1), name="shower")
        flat = keras.layers.Flatten()(keras.layers.Conv3D(2, 2)(shower))
        heads = {
            "validity": keras.layers.Dense(1, activation="sigmoid")(flat),
            "energy": keras.layers.Dense(1)(flat),
            "random": Sampling()(keras.layers.Dense(2)(flat)),
        }
        self.discriminator = keras.Model(shower, heads)


def exported(catalog: Catalog, ref: Any, folder: Path) -> Path:
    catalog.export(ref, folder, format="ads")
    results = {check.id: check.result for check in introspection.introspect(folder)}
    assert results.pop("runtime_path_exist") == "skipped"
    assert set(results.values()) == {"passed"}, results
    return folder


def test_a_gan_runs_without_keras_and_without_its_class(catalog: Catalog, tmp_path: Path) -> None:
    gan = Gan()
    latent, energy = np.ones((2, 4), "f4"), np.full((2, 1), 3.0, "f4")
    shower = np.asarray(gan.generator([latent, energy]))
    version = catalog.save(
        "gan", gan, entry_points={"generate": "model.generator", "score": "model.discriminator"},
        example={"latent": latent, "energy": energy, "shower": shower},
    )  # fmt: skip
    folder = exported(catalog, version, tmp_path / "gan")
    lists = {"latent": latent.tolist(), "energy": energy.tolist()}
    scored = {"inputs": {"shower": shower.tolist()}, "entry": "score"}
    (got, modules) = answers(folder, [{"inputs": lists}, scored, scored])
    assert not [name for name in modules if name.startswith(("catalog", "torch"))]
    np.testing.assert_allclose(got[0]["prediction"]["output"], shower, rtol=1e-4, atol=1e-6)
    assert set(got[1]["prediction"]) == {"validity", "energy", "random"}
    assert got[1]["prediction"]["random"] != got[2]["prediction"]["random"]
    assert got[1]["prediction"]["validity"] == got[2]["prediction"]["validity"]
    (again,) = catalog.import_(folder, "again")
    assert again.manifest.components == version.manifest.components
    one, two = (catalog.export(ref, tmp_path / f"{n}.zip", format="ads") for n, ref in enumerate((version, version)))
    assert isinstance(one, Path) and isinstance(two, Path) and one.read_bytes() == two.read_bytes()


def test_a_module_of_tensorflow(catalog: Catalog, tmp_path: Path) -> None:
    class Scale(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = tf.Variable(3.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
        def __call__(self, x: Any) -> Any:
            return {"scaled": x * self.scale, "half": tf.cast(x, tf.bfloat16)}

    version = catalog.save(
        "scale", Scale(), example={"x": np.ones((2, 2), "f4")}, entry_points={"predict": "model.__call__"}
    )
    folder = exported(catalog, version, tmp_path / "out")
    ((got,), _) = answers(folder, [{"data": [[1, 2]], "data_type": "<class 'list'>"}])
    assert got["prediction"] == {"scaled": [[3.0, 6.0]], "half": [[1.0, 2.0]]}


def test_a_model_stored_to_be_trained_on(catalog: Catalog, tmp_path: Path) -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    total = keras.layers.Add()([keras.layers.Dense(2)(left), keras.layers.Dense(2)(right)])
    model = keras.Model({"left": left, "right": right}, [total, keras.layers.Softmax()(total)])
    example = {"left": np.ones((2, 3), "f4"), "right": np.zeros((2, 3), "f4")}
    version = catalog.save("two", model, serializer="keras", example=example)
    folder = exported(catalog, version, tmp_path / "out")
    ((got,), _) = answers(folder, [{"inputs": {name: value.tolist() for name, value in example.items()}}])
    wanted = [np.asarray(value) for value in model(example)]
    for name, value in zip(("output_0", "output_1"), wanted, strict=True):
        np.testing.assert_allclose(got["prediction"][name], value, rtol=1e-5)
    (again,) = catalog.import_(folder, "again")
    assert again.manifest.components == version.manifest.components
    one, two = (catalog.export(version, tmp_path / f"{n}.zip", format="ads") for n in range(2))
    assert isinstance(one, Path) and isinstance(two, Path) and one.read_bytes() == two.read_bytes()


@keras.saving.register_keras_serializable("tests")
class Own(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x + 1


def test_a_class_that_keras_does_not_know_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    version = catalog.save(
        "own", keras.Sequential([keras.Input((2,)), Own()]), serializer="keras", example=np.ones((1, 2), "f4")
    )
    with pytest.raises(NotTrusted, match="holds an Own, which Keras itself does not know"):
        catalog.export(version, tmp_path / "out", format="ads")


@pytest.mark.parametrize("kind", [TensorFlowModel, KerasModel])
def test_what_ads_could_not_hold_is_verified_and_saved(catalog: Catalog, tmp_path: Path, kind: Any) -> None:
    gan = Gan()
    shower = np.ones((2, 3, 3, 3, 1), "f4")
    model = kind(gan, artifact_dir=tmp_path / "out", catalog=catalog, name="calo/gan")
    model.prepare(
        inference_conda_env="oci://packs@space/tensorflow", X_sample={"shower": shower},
        entry_points={"score": "model.discriminator"}, use_case_type="fast_simulation",
    )  # fmt: skip
    answer = model.verify({"shower": shower})["prediction"]
    np.testing.assert_allclose(answer["validity"], np.asarray(gan.discriminator(shower)["validity"]), rtol=1e-5)
    assert model.save() == "calo/gan@1"
    assert next(iter(model.schema_input)).description == "float32[batch, 3, 3, 3, 1]"
    again = kind.from_model_catalog("calo/gan@1", artifact_dir=tmp_path / "again", catalog=catalog)
    np.testing.assert_allclose(
        again.predict({"shower": shower})["prediction"]["validity"], answer["validity"], rtol=1e-5
    )


@pytest.mark.parametrize("name", ["model", "model.keras"])
def test_what_ads_saved_by_keras_is_a_component(catalog: Catalog, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "score.py").write_text(
        f"def load_model(model_file_name={name!r}): ...\ndef predict(data, model=load_model()): return data\n"
    )
    (folder / "runtime.yaml").write_text("MODEL_ARTIFACT_VERSION: '3.0'\n")
    x = keras.Input((3,), name="x")
    net = keras.Model(x, keras.layers.Dense(2)(x))
    if name == "model":
        net.export(folder / "model", verbose=False)
    else:
        net.save(folder / name)
    (version,) = catalog.import_(folder)
    kinds = {part.name: part.serializer for part in version.manifest.components}
    assert kinds == {"artifact": "generic", "model": "savedmodel" if name == "model" else "keras"}
    rows = np.ones((2, 3), "f4")
    with catalog.session(version) as session:
        (got,) = session.run("predict", {"x": rows}).values()
    np.testing.assert_allclose(got, np.asarray(net(rows)), rtol=1e-5)
