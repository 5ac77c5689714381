"""Ragged and sparse tensors of TensorFlow are refused by one error that names them and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput  # noqa: E402

X = np.ones((3, 2), np.float32)
ODD = {"RaggedTensor": lambda: tf.ragged.constant([[1.0, 2.0], [1.0]]), "SparseTensor": lambda: tf.sparse.from_dense(X)}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


class Gives(tf.Module):  # type: ignore[misc]
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> Any:
        sparse = tf.sparse.from_dense(x)
        return {"y": x + 1, "z": sparse if self.kind == "SparseTensor" else tf.RaggedTensor.from_sparse(sparse)}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_tensor_is_named(kind: str, catalog: Catalog) -> None:
    net = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
    with pytest.raises(InvalidInput, match=f"the example's 'x' is a {kind}") as caught:
        catalog.save("m", net, example={"x": ODD[kind]()})
    assert "dense" in str(caught.value.hint)
    catalog.save("m", net, example={"x": X})
    with catalog.session("m") as session, pytest.raises(InvalidInput, match=f"'x' of predict is a {kind}"):
        session.predict(ODD[kind]())
    with pytest.raises(InvalidInput, match=f"it gives 'z', which is a {kind}") as caught:
        catalog.save("gives", Gives(kind), example=X)
    assert "skip=['z']" in str(caught.value.hint)


def test_a_session_that_draws_ends_as_others_do(catalog: Catalog) -> None:
    net = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)])
    catalog.save("m", net, example={"x": X})
    with catalog.session("m") as session:
        assert session.predict(X).shape == (3, 1)
    with pytest.raises(InvalidInput, match=r"this session of m@1 was closed"):
        session.predict(X)
