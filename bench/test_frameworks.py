"""A model of 300 MB of each framework: prepare, save and load it, against the framework's own save and load.
Ours is durable and checked: SHA-256 of all bytes when they are written and when they are read, and synced to the disk.
`own` leaves its bytes to the kernel; `own synced` has them synced too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from weights import copy_and_sync, interleaved, ratio, record, sync_below

from catalog_core import Catalog

ROUNDS = 5
LAYERS = 12


def torch_weights(size: int, folder: Path) -> tuple[Any, Callable[[], object], dict[str, Any]]:
    torch = pytest.importorskip("torch")
    state = {f"layer{n}": torch.rand(size // 4 // LAYERS) for n in range(LAYERS)}

    def own() -> object:
        torch.save(state, folder / "own.pt")
        return torch.load(folder / "own.pt", weights_only=True, mmap=True)

    return state, own, {}


def torch_program(size: int, folder: Path) -> tuple[Any, Callable[[], object], dict[str, Any]]:
    torch = pytest.importorskip("torch")
    width = int((size / 4 / LAYERS) ** 0.5)
    net = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(LAYERS)]).eval()
    rows = {"input": {0: torch.export.Dim("rows")}}

    def own() -> object:
        program = torch.export.export(net, (torch.zeros(2, width),), dynamic_shapes=rows)
        torch.export.save(program, folder / "own.pt2")
        return torch.export.load(folder / "own.pt2")

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


MODELS = [arrays, torch_weights, torch_program, sklearn_, savedmodel, keras_]


@pytest.mark.parametrize("made", MODELS, ids=lambda made: made.__name__.strip("_"))
def test_a_model_of_each_framework(
    benchmark, made: Callable[..., Any], size: int, tmp_path: Path, catalog: Catalog
) -> None:
    size = min(size, 300_000_000)
    folder = tmp_path / "own"
    folder.mkdir()
    model, own, about = made(size, folder)
    floor = tmp_path / "floor"
    floor.write_bytes(np.random.default_rng(0).bytes(size))

    def ours() -> object:
        version = catalog.save("m", model, **about)
        return catalog.load(version)

    def fresh() -> None:
        """Nothing of the round before is there to be found again."""
        catalog.model("m").delete()
        catalog.gc(grace=-1)

    own(), ours(), fresh()  # the first one imports, and compiles
    times = interleaved(
        ROUNDS,
        own=own,
        sync=lambda: sync_below(folder),
        ours=ours,
        fresh=fresh,
        floor=lambda: copy_and_sync(floor, tmp_path / "copy"),
    )
    times["own synced"] = [sum(pair) for pair in zip(times["own"], times.pop("sync"), strict=True)]
    ratios = {f"ours_to_{name}": ratio(times, "ours", name) for name in ("own", "own synced", "floor")}
    record(benchmark, times, **ratios)
    benchmark.pedantic(lambda: None, rounds=1)
