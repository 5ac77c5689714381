"""Keras models take the weights of others: under other names, and in part."""

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
from catalog_core.errors import SerializationError  # noqa: E402

layers = keras.layers


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


class Old(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = layers.Dense(3), layers.Dense(10)
        self(np.zeros((1, 4), np.float32))

    def call(self, x: Any) -> Any:
        return self.head(self.encoder(x))


class New(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.classify = layers.Dense(3), layers.Dense(2)
        self(np.zeros((1, 4), np.float32))
        self.backbone.trainable = False

    def call(self, x: Any) -> Any:
        return self.classify(self.backbone(x))


def test_a_model_is_used_again_for_another_task(catalog: Catalog) -> None:
    old, new = Old(), New()
    catalog.save("base", old, serializer="keras")
    head = new.classify.get_weights()
    with pytest.raises(SerializationError, match=r"backbone.*encoder|encoder.*backbone"):
        catalog.load("base", into=new)
    done = catalog.load("base", into=new, rename={"encoder": "backbone", "head": "classify"}, partial=True)
    assert done.into is new
    for one, two in zip(new.backbone.get_weights(), old.encoder.get_weights(), strict=True):
        assert np.array_equal(one, two)
    assert all(np.array_equal(one, two) for one, two in zip(new.classify.get_weights(), head, strict=True))
    assert len(done.loaded) == len(done.frozen) == 2 == len(done.skipped), str(done)
    done = catalog.load("base", into=new, rename={"encoder": "backbone"}, partial=True)
    assert len(done.new) == len(done.left_over) == 2
    with pytest.raises(SerializationError, match=r"2 missing from what is stored.*2 left over"):
        catalog.load("base", into=new, rename={"encoder": "backbone"})


@keras.saving.register_keras_serializable("reuse")
class Scale(layers.Layer):
    """It keeps a number that is no variable."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scale = np.array(1.0, np.float32)

    def call(self, x: Any) -> Any:
        return x * float(self.scale)

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["scale"] = self.scale

    def load_own_variables(self, store: Any) -> None:
        self.scale = np.array(store["scale"])


def scaled(scale: float = 1.0, name: str = "first") -> Any:
    model = keras.Model()
    setattr(model, name, Scale())
    getattr(model, name).scale = np.array(scale, np.float32)
    model.head = layers.Dense(2)
    model.head.build((1, 2))
    return model


@pytest.mark.parametrize("options", [{"partial": True}, {"rename": {"first": "second"}}])
def test_what_a_layer_keeps_of_its_own_comes_along(catalog: Catalog, options: Any) -> None:
    catalog.save("base", scaled(7.0), serializer="keras")
    new = scaled(name="second" if "rename" in options else "first")
    done = catalog.load("base", into=new, **options)
    assert float((new.second if "rename" in options else new.first).scale) == 7.0
    if "partial" in options:
        assert "first.own_state" in done.loaded and not done.left_over


def test_what_a_layer_learned_comes_along(catalog: Catalog) -> None:
    def binned(most: float) -> Any:
        learning = layers.Discretization(num_bins=4)
        learning.adapt(np.linspace(0, most, 50).reshape(-1, 1))
        return keras.Sequential([keras.Input((1,)), learning, layers.CategoryEncoding(5), layers.Dense(1)])

    old, new = binned(100.0), binned(1.0)
    catalog.save("base", old, serializer="keras")
    x = np.array([[30.0], [70.0]], np.float32)
    catalog.load("base", into=new, partial=True)
    assert np.array_equal(keras.ops.convert_to_numpy(old(x)), keras.ops.convert_to_numpy(new(x)))


def test_own_state_without_a_place_is_said(catalog: Catalog) -> None:
    catalog.save("base", scaled(7.0), serializer="keras")
    plain = keras.Model()
    plain.head = layers.Dense(2)
    plain.head.build((1, 2))
    with pytest.raises(SerializationError, match=r"first\.own_state"):
        catalog.load("base", into=plain, rename={"head": "head"})
    assert catalog.load("base", into=plain, partial=True).left_over == ("first.own_state",)
    catalog.save("plain", plain, serializer="keras")
    live = scaled(3.0)
    assert "first.own_state" in catalog.load("plain", into=live, partial=True).new and float(live.first.scale) == 3.0


def test_a_layer_that_takes_its_own_state_otherwise_leaves_all_as_it_was(catalog: Catalog) -> None:
    catalog.save("base", scaled(7.0), serializer="keras")
    live = scaled(3.0)
    live.first.load_own_variables = lambda store: setattr(live.first, "scale", np.array(5.0, np.float32))
    before = live.head.get_weights()
    with pytest.raises(SerializationError, match="reports something else"):
        catalog.load("base", into=live, partial=True)
    assert all(np.array_equal(one, two) for one, two in zip(live.head.get_weights(), before, strict=True))
