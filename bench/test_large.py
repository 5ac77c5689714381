"""Save and load of a large model, against copy + fsync, SHA-256 and `safetensors` in the same run."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from weights import copy_and_sync, drop_cache, interleaved, ratio, record, state

from catalog_core import Catalog

ROUNDS = 5


def _stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_save_new_weights(benchmark, catalog: Catalog, tmp_path: Path, size: int) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    models = iter([state(size, seed=seed) for seed in range(ROUNDS + 1)])
    source = tmp_path / "source.safetensors"
    safetensors.save_file(next(models), source)

    def floor() -> None:
        copy_and_sync(source, tmp_path / "copy")
        (tmp_path / "copy").unlink()

    times = interleaved(ROUNDS, copy=floor, save=lambda: catalog.save("big", next(models)))
    record(benchmark, times, ratio=ratio(times, "save", "copy"))
    stored = _stored(tmp_path / "catalog") / ROUNDS
    benchmark.extra_info["bytes written / size"] = round(stored / size, 4)
    benchmark.pedantic(lambda: None, rounds=1)
    assert stored <= 1.01 * size


def test_save_again(benchmark, catalog: Catalog, tmp_path: Path, size: int) -> None:
    model = state(size)
    catalog.save("big", model)
    before = _stored(tmp_path / "catalog")

    def hash_once() -> None:
        digest = hashlib.sha256()
        for array in model.values():
            digest.update(array)

    times = interleaved(ROUNDS, hash=hash_once, save=lambda: catalog.save("big", model))
    record(benchmark, times, ratio=ratio(times, "save", "hash"))
    added = (_stored(tmp_path / "catalog") - before) / ROUNDS
    benchmark.extra_info["added %"] = round(100 * added / size, 4)
    benchmark.pedantic(lambda: None, rounds=1)
    assert added < 0.001 * size or size < 100_000_000


def test_save_five_percent_changed(benchmark, catalog: Catalog, tmp_path: Path, size: int) -> None:
    model = state(size)
    catalog.save("big", model)
    before = _stored(tmp_path / "catalog")
    for number in range(0, 10):
        model[f"layer{number * 20:03}.weight"] = model[f"layer{number * 20:03}.weight"] + 1
    benchmark.pedantic(lambda: catalog.save("big", model), rounds=1)
    added = _stored(tmp_path / "catalog") - before
    benchmark.extra_info["added %"] = round(100 * added / size, 3)
    assert added <= 0.06 * size or size < 100_000_000


def test_load_warm_and_cold(benchmark, catalog: Catalog, tmp_path: Path, size: int) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    model = {name: torch.from_numpy(array) for name, array in state(size).items()}
    plain = tmp_path / "plain" / "model.safetensors"
    plain.parent.mkdir()
    safetensors.save_file(model, plain)
    catalog.save("big", model)
    catalog.load("big")

    block = bytearray(16 << 20)

    def read() -> None:
        with plain.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass

    def touch(loaded: dict) -> None:
        for tensor in loaded.values():
            tensor.view(torch.uint8)[::4096].sum()

    times = interleaved(
        ROUNDS,
        safetensors=lambda: safetensors.load_file(plain),
        catalog=lambda: catalog.load("big"),
        one=lambda: catalog.load("big", tensors=["layer100.weight"]),
    )
    cold = interleaved(
        3,
        drop=lambda: drop_cache(tmp_path),
        safetensors_cold=lambda: touch(safetensors.load_file(plain)),
        drop_again=lambda: drop_cache(tmp_path),
        catalog_cold=lambda: touch(catalog.load("big")),
        drop_once_more=lambda: drop_cache(tmp_path),
        read_cold=read,  # what the disk can give
    )
    record(
        benchmark,
        {**times, **cold},
        warm=ratio(times, "catalog", "safetensors"),
        cold=ratio(cold, "catalog_cold", "safetensors_cold"),
        cold_to_read=ratio(cold, "catalog_cold", "read_cold"),
    )
    benchmark.pedantic(lambda: catalog.load("big"), rounds=5)


def test_load_with_every_digest_checked(benchmark, catalog: Catalog, size: int) -> None:
    model = state(size)
    catalog.save("big", model)
    catalog.repository.content.policy = "always"

    def two_threads() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda array: hashlib.sha256(array).digest(), model.values()))

    times = interleaved(ROUNDS, hash=two_threads, load=lambda: catalog.load("big"))
    record(benchmark, times, ratio=ratio(times, "load", "hash"))
    benchmark.pedantic(lambda: None, rounds=1)


def test_chunking(benchmark) -> None:
    from catalog_core import chunks

    data = memoryview(np.random.default_rng(0).bytes(256 << 20))
    chunks.cut(data[: 8 << 20], True)
    benchmark.pedantic(lambda: chunks.cut(data, True), rounds=5)
    benchmark.extra_info["GB/s"] = round(data.nbytes / benchmark.stats.stats.median / 1e9, 2)
