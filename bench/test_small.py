"""Many small versions: publish, concurrent writers, lookups at 100,000 versions, against bare `sqlite3`."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
from journals import versions
from weights import interleaved, ratio, record
from writers import bare_writer, catalog_writer, database, fair_writer

from catalog_core import Catalog
from catalog_core.interfaces.backend import Head

COUNT = int(os.environ.get("CATALOG_BENCH_VERSIONS", "100000"))


def test_publish_small(benchmark, catalog: Catalog, tmp_path: Path) -> None:
    db = database(tmp_path / "bare.db")
    model = {"weight": np.arange(1000, dtype=np.float32)}
    data = bytes(4000)

    def bare() -> None:
        for _ in range(100):
            db.execute("INSERT INTO rows (data) VALUES (?)", (data,))

    def publish() -> None:
        for _ in range(100):
            model["weight"][0] += 1
            catalog.save("small", model)

    def cpu_of(run) -> float:
        begin = time.process_time()
        run()
        return time.process_time() - begin

    publish()
    cpu = [(cpu_of(publish), cpu_of(bare)) for _ in range(5)]
    benchmark.extra_info["CPU ms a version"] = round(statistics.median(ours for ours, _ in cpu) * 10, 3)
    benchmark.extra_info["CPU, ratio to a bare row"] = round(statistics.median(o / max(b, 1e-9) for o, b in cpu), 2)
    times = interleaved(5, bare=bare, publish=publish)
    record(benchmark, times, ratio=ratio(times, "publish", "bare"))
    benchmark.extra_info["versions/s"] = round(100 / statistics.median(times["publish"]))
    benchmark.pedantic(lambda: None, rounds=1)


def _race(target, path: str, seconds: float, writers: int = 8) -> tuple[float, float, int]:
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    begin = time.time() + 4
    processes = [context.Process(target=target, args=(path, begin, seconds, out)) for _ in range(writers)]
    for process in processes:
        process.start()
    results = [out.get(timeout=seconds + 60) for _ in processes]
    for process in processes:
        process.join(30)
    return sum(r[0] for r in results) / seconds, max(r[1] for r in results), sum(r[2] for r in results)


def test_eight_writers(benchmark, catalog: Catalog, tmp_path: Path) -> None:
    seconds = float(os.environ.get("CATALOG_BENCH_SECONDS", "10"))
    database(tmp_path / "bare.db").close()
    bare, bare_worst, _ = _race(bare_writer, str(tmp_path / "bare.db"), seconds)
    database(tmp_path / "fair.db").close()
    fair, fair_worst, _ = _race(fair_writer, str(tmp_path / "fair.db"), seconds)
    ours, worst, failed = _race(catalog_writer, str(tmp_path / "catalog"), seconds)
    benchmark.extra_info.update(
        {
            "bare/s": round(bare),
            "catalog/s": round(ours),
            "ratio": round(ours / bare, 3),
            "worst wait s": round(worst, 3),
            "bare worst wait s": round(bare_worst, 3),
            "fair bare/s": round(fair),
            "ratio to fair": round(ours / fair, 3),
            "fair bare worst wait s": round(fair_worst, 3),
            "failed": failed,
        }
    )
    benchmark.pedantic(lambda: None, rounds=1)
    assert failed == 0
    numbers = [v.number for v in catalog.versions("race")]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory):
    """COUNT versions with a tag, a metric and a text in COUNT / 10 models with an alias each, written as a journal; and
    the seconds that computing its index took."""
    folder = tmp_path_factory.mktemp("full")
    os.environ["CATALOG_CACHE_DIR"] = str(folder / "cache")
    Catalog.open(folder / "catalog").close()
    db = sqlite3.connect(folder / "catalog" / "catalog.db", isolation_level=None)
    position, digest = db.execute("SELECT position, digest FROM entries ORDER BY position DESC LIMIT 1").fetchone()
    db.execute("BEGIN")
    for head, data in versions(Head(position, digest), COUNT):
        db.execute("INSERT INTO entries (position, digest, data) VALUES (?, ?, ?)", (head.position, head.digest, data))
    db.execute("COMMIT")
    db.close()
    begin = time.perf_counter()
    with Catalog.open(folder / "catalog") as opened:
        yield opened, time.perf_counter() - begin


def _percentiles(run, count: int) -> tuple[float, float]:
    times = []
    for number in range(count):
        begin = time.perf_counter()
        run(number)
        times.append(time.perf_counter() - begin)
    times.sort()
    return round(times[len(times) // 2] * 1e3, 4), round(times[int(len(times) * 0.99)] * 1e3, 4)


def test_lookups(benchmark, full) -> None:
    catalog, seconds = full
    models = COUNT // 10
    name = [f"group{n % models % 7}/model{n % models}" for n in range(models)]
    catalog.version(name[0])
    info = benchmark.extra_info
    info["rebuild entries/s"] = round(COUNT / seconds)
    info["get @7 ms p50, p99"] = _percentiles(lambda n: catalog.version(f"{name[n * 37 % models]}@7"), 2000)
    info["alias ms p50, p99"] = _percentiles(lambda n: catalog.version(f"{name[n * 37 % models]}@champion"), 2000)
    for label, query in {
        "first page": "",
        "tag": "tags.team = team7",
        "metric": "metrics.auc > 0.9",
        "metric rare": "metrics.auc > 0.9999",
        "text": "calorimeter",
        "text rare": '"shower 777"',
    }.items():
        catalog.search(query)
        info[f"{label} ms p50, p99"] = _percentiles(lambda n, q=query: catalog.search(q), 100)
    benchmark.pedantic(lambda: catalog.version(f"{name[5]}@7"), rounds=200)
