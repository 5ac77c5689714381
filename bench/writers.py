"""What a writer does in a process of its own. A module by itself: a spawned process imports it by this name."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from catalog_core import Catalog


def database(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, data BLOB)")
    return db


def bare_writer(path: str, begin: float, seconds: float, out: multiprocessing.Queue) -> None:
    _rows(database(Path(path)), lambda db: db.execute("BEGIN IMMEDIATE"), begin, seconds, out)


def fair_writer(path: str, begin: float, seconds: float, out: multiprocessing.Queue) -> None:
    """Bare rows, but nobody starves: short random waits instead of SQLite's own, as the backend has them."""
    db = database(Path(path))
    db.execute("PRAGMA busy_timeout=0")
    _rows(db, _begin_fairly, begin, seconds, out)


def _begin_fairly(db: sqlite3.Connection) -> None:
    wait = 0.0001
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:
            time.sleep(random.uniform(wait / 2, wait))
            wait = min(wait * 1.5, 0.001)


def _rows(
    db: sqlite3.Connection, start: Callable[[sqlite3.Connection], object], begin: float, seconds: float,
    out: multiprocessing.Queue,
) -> None:  # fmt: skip
    done, worst = 0, 0.0
    time.sleep(max(0.0, begin - time.time()))
    while time.time() < begin + seconds:
        since = time.perf_counter()
        start(db)
        db.execute("INSERT INTO rows (data) VALUES (?)", (bytes(4000),))
        db.execute("COMMIT")
        worst = max(worst, time.perf_counter() - since)
        done += 1
    out.put((done, worst, 0))


def catalog_writer(path: str, begin: float, seconds: float, out: multiprocessing.Queue) -> None:
    done, worst, failed = 0, 0.0, 0
    with Catalog.open(path) as catalog:
        model = {"weight": np.random.default_rng().random(1000, dtype=np.float32)}
        time.sleep(max(0.0, begin - time.time()))
        while time.time() < begin + seconds:
            model["weight"][0] += 1
            start = time.perf_counter()
            try:
                catalog.save("race", model)
                done += 1
            except Exception:
                failed += 1
            worst = max(worst, time.perf_counter() - start)
    out.put((done, worst, failed))
