"""One component of several: only its bytes are fetched from a far store, and only they are checked in a near one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import IntegrityError
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.faults import FaultyStore
from catalog_core.testing.memory import MemoryStore

MB = 1 << 20
SIZES = (1000, 600)  # of the first component; the second is half as wide
KINDS = [
    "safetensors",
    "pytree",
    *(pytest.param(kind, marks=pytest.mark.framework) for kind in ("torch", "savedmodel", "keras")),
]


def make(kind: str, width: int) -> Any:
    """A component with a matrix of 1,000 by `width` float32 numbers."""
    numbers = np.random.default_rng(width).random((1000, width), np.float32)
    if kind == "safetensors":
        return {"w": numbers}
    if kind == "pytree":
        return {"layer": [{"w": numbers}]}
    if kind == "torch":
        torch = pytest.importorskip("torch")
        net = torch.nn.Linear(1000, width)
        net.weight.data = torch.from_numpy(numbers.T.copy())
        return net
    tf = pytest.importorskip("tensorflow")
    if kind == "savedmodel":
        module = tf.Module()
        module.w = tf.Variable(numbers)
        return module
    keras = importlib.import_module("keras")
    net = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(width)])
    net.layers[0].kernel.assign(numbers)
    return net


class Counting(FaultyStore):
    """Notes each read of a blob: how many requests, and how many bytes were asked for."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.bytes = self.requests = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        if key.startswith("blobs/"):
            info = self.store.stat(key)
            assert info is not None
            self.requests += 1
            self.bytes += min(info.size - start, info.size if length is None else length)
        return super().get(key, start, length)


def far(store: Any) -> Catalog:
    catalog = Catalog(ObjectStoreBackend(store, "memory", "memory://far"), "far", max_staleness=0)
    if catalog.position < 0:
        catalog.repository.begin()
    return catalog


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    yield


def same(first: Any, second: Any) -> bool:
    if hasattr(first, "weights"):  # of Keras and TensorFlow
        return all(np.array_equal(a, b) for a, b in zip(first.weights, second.weights, strict=True))
    if hasattr(first, "state_dict"):
        first, second = first.state_dict(), dict(second)
        return all((first[key] == second[key]).all() for key in first)
    return bool(
        np.array_equal(first["w"], second["w"]) if "w" in first else same(first["layer"][0], second["layer"][0])
    )


@pytest.mark.parametrize("kind", KINDS)
def test_only_its_bytes_are_fetched(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    components = {"first": make(kind, SIZES[0]), "second": make(kind, SIZES[1])}
    store = MemoryStore()
    with far(store) as catalog:
        catalog.save("m", components=components, serializer=dict.fromkeys(components, kind))
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "elsewhere"))
    counted = Counting(store)
    with far(counted) as catalog:
        version = catalog.version("m")
        sizes = {c.name: sum(f.size for f in c.files) for c in catalog.artifact(version).manifest.components}
        counted.bytes = counted.requests = 0
        lazy = catalog.load("m")
        assert counted.bytes < 100_000, "naming the components fetches none of them"
        before = counted.bytes
        second = lazy["second"]
        assert sizes["second"] * 0.9 <= counted.bytes - before <= sizes["second"] + 100_000
        assert 1 <= counted.requests < 20
        before, requests = counted.bytes, counted.requests
        catalog.load("m", component="second")
        assert (counted.bytes, counted.requests) == (before, requests), "the second time it is near"
        first = catalog.load("m", component="first")
        assert sizes["first"] * 0.9 <= counted.bytes - before <= sizes["first"] + 100_000
    if kind != "savedmodel":  # its loaded form has other attributes
        assert same(components["second"], second) and same(components["first"], first)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_the_others_may_be_broken(kind: str, tmp_path: Path) -> None:
    """In a folder: each byte of the other component is another one, and nobody notices before it is asked for."""
    components = {"first": make(kind, SIZES[0]), "second": make(kind, SIZES[1])}
    with Catalog.open(f"file://{tmp_path}/catalog") as catalog:
        catalog.save("m", components=components, serializer=dict.fromkeys(components, kind))
        artifact = catalog.artifact("m")
        for file in artifact.find("first").files:
            for chunk in artifact.layout.get(file.digest) or ():
                path = artifact.content.path_of(chunk.pack or chunk.digest)
                if path is None or not path.exists():
                    continue  # a small one, in the journal
                data = bytearray(path.read_bytes())
                end = chunk.offset + chunk.length
                data[chunk.offset : end] = bytes(255 - byte for byte in data[chunk.offset : end])
                path.chmod(0o644)
                path.write_bytes(data)
    with Catalog.open(f"file://{tmp_path}/catalog") as catalog:
        loaded = catalog.load("m")
        assert loaded["second"] is not None
        with pytest.raises(IntegrityError):
            loaded["first"]
