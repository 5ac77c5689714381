"""A model of 300 MB of each framework: prepare, save and load it, against the framework's own save and load.
Ours is durable and checked: SHA-256 of all bytes when they are written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from weights import copy_and_sync, interleaved, ratio, record

from catalog_core import Catalog

ROUNDS = 5
LAYERS = 12


def torch_(size: int, folder: Path) -> tuple[Any, Callable[[], object], dict[str, Any]]:
    torch = pytest.importorskip("torch")
    width = int((size / 4 / LAYERS) ** 0.5)
    net = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(LAYERS)]).eval()

    def own() -> object:
        torch.save(net.state_dict(), folder / "own.pt")
        return torch.load(folder / "own.pt", weights_only=True, mmap=True)

    return net, own, {"example": torch.zeros(2, width)}


def arrays(size: int, folder: Path) -> tuple[Any, Callable[[], object], dict[str, Any]]:
    state = {f"layer{n}": np.random.default_rng(n).random(size // 4 // LAYERS, dtype=np.float32) for n in range(LAYERS)}

    def own() -> object:
        np.savez(folder / "own.npz", **state)
        return dict(np.load(folder / "own.npz"))

    return state, own, {}


def keras_(size: int, folder: Path) -> tuple[Any, Callable[[], object], dict[str, Any]]:
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    width = int((size / 4 / LAYERS) ** 0.5)
    model = keras.Sequential([keras.Input((width,)), *[keras.layers.Dense(width) for _ in range(LAYERS)]])

    def own() -> object:
        model.save(folder / "own.keras")
        return keras.saving.load_model(folder / "own.keras")

    return model, own, {"serializer": "keras"}


def savedmodel(size: int, folder: Path) -> tuple[Any, Callable[[], object], dict[str, Any]]:
    tf = pytest.importorskip("tensorflow")
    width = int((size / 4 / LAYERS) ** 0.5)

    class Net(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [tf.Variable(tf.random.normal((width, width))) for _ in range(LAYERS)]

        @tf.function(input_signature=[tf.TensorSpec([None, width], tf.float32, "x")])
        def call(self, x: Any) -> Any:
            for layer in self.layers:
                x = x @ layer
            return x

    net = Net()

    def own() -> object:
        shutil.rmtree(folder / "own", ignore_errors=True)
        tf.saved_model.save(net, str(folder / "own"))
        return tf.saved_model.load(str(folder / "own"))

    return net, own, {}


def sklearn_(size: int, folder: Path) -> tuple[Any, Callable[[], object], dict[str, Any]]:
    ensemble = pytest.importorskip("sklearn.ensemble")
    io = pytest.importorskip("skops.io")
    rng = np.random.default_rng(0)
    count = max(size // 1_500_000, 4)
    forest = ensemble.RandomForestRegressor(count, n_jobs=2).fit(rng.random((12_000, 8)), rng.random(12_000))

    def own() -> object:
        io.dump(forest, folder / "own.skops")
        return io.load(folder / "own.skops", trusted=io.get_untrusted_types(file=folder / "own.skops"))

    return forest, own, {}


@pytest.mark.parametrize("made", [arrays, torch_, sklearn_, savedmodel, keras_], ids=lambda made: made.__name__)
def test_a_model_of_each_framework(
    benchmark, made: Callable[..., Any], size: int, tmp_path: Path, catalog: Catalog
) -> None:
    model, own, about = made(min(size, 300_000_000), tmp_path)
    floor = tmp_path / "floor"
    floor.write_bytes(np.random.default_rng(0).bytes(min(size, 300_000_000)))

    def ours() -> object:
        version = catalog.save("m", model, **about)
        return catalog.load(version)

    def fresh() -> None:
        """Nothing of the round before is there to be found again."""
        catalog.model("m").delete()
        catalog.gc(grace=-1)

    times = interleaved(
        ROUNDS, own=own, ours=ours, fresh=fresh, floor=lambda: copy_and_sync(floor, tmp_path / "copy")
    )  # fmt: skip
    record(benchmark, times, ours_to_own=ratio(times, "ours", "own"), ours_to_floor=ratio(times, "ours", "floor"))
    benchmark.pedantic(lambda: None, rounds=1)
