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
