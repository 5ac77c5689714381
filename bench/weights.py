"""Weights for the benchmarks, and the floors they are held against."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

LAYERS = 200


def state(size: int, layers: int = LAYERS, seed: int = 0) -> dict[str, np.ndarray]:
    """A state dict of `size` bytes: float32 tensors of equal size, uniform random (trained weights do not compress)."""
    rng = np.random.default_rng(seed)
    return {f"layer{n:03}.weight": rng.random(size // 4 // layers, dtype=np.float32) for n in range(layers)}


def copy_and_sync(source: Path, target: Path) -> None:
    """The floor of a durable save: copy a file and fsync it."""
    shutil.copyfile(source, target)
    handle = os.open(target, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def sync_below(folder: Path) -> None:
    """Make the bytes of all files below `folder` durable."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


def drop_cache(folder: Path) -> None:
    """Forget the cached pages of all files below `folder`."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def interleaved(rounds: int, **work: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each piece of work, run in turn `rounds` times."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    return times


def ratio(times: dict[str, list[float]], name: str, floor: str) -> float:
    """Median ratio of two pieces of work, round by round."""
    return statistics.median(a / b for a, b in zip(times[name], times[floor], strict=True))


def record(benchmark: object, times: dict[str, list[float]], **ratios: float) -> None:
    """Keep medians and ratios beside the benchmark's own figures."""
    info = benchmark.extra_info  # type: ignore[attr-defined]
    for name, values in times.items():
        info[f"{name} ms"] = round(statistics.median(values) * 1e3, 3)
    for name, value in ratios.items():
        info[name] = round(value, 3)
