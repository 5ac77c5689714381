"""Several processes at one local catalog: first opening, races, fairness, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from catalog_core.interfaces.backend import Backend
from catalog_core.objectstore import ObjectStoreBackend
from catalog_files.store import open_store
from catalog_sqlite.backend import open_backend

WRITER = Path(__file__).with_name("journal_writer.py")


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/catalog"


def opened(url: str) -> Backend:
    if url.startswith("sqlite:"):
        return open_backend(url, {}, False)
    return ObjectStoreBackend(open_store(url, {}, False), "files", url)


def start(url: str, name: str, count: int, seconds: float) -> subprocess.Popen[str]:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    command = [sys.executable, str(WRITER), url, name, str(count), str(seconds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def run(url: str, writers: int, count: int, seconds: float) -> list[dict[str, Any]]:
    processes = [start(url, str(n), count, seconds) for n in range(writers)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    results = []
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        results.append(json.loads(out))
    return results


def test_four_processes_that_open_at_once_all_append_without_gaps(url: str) -> None:
    results = run(url, 4, 25, 60)
    entries = list(opened(url).journal.read(0))
    assert [position for position, _ in entries] == list(range(100))
    for result in results:
        mine = [(p, json.loads(data)["n"]) for p, data in entries if json.loads(data)["writer"] == result["name"]]
        assert [position for position, _ in mine] == result["positions"]
        assert [n for _, n in mine] == list(range(25))


def test_a_killed_writer_leaves_a_journal_without_gaps(url: str) -> None:
    for round_ in range(3):
        process = start(url, f"killed-{round_}", 1 << 30, 60)
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(0.15 + 0.07 * round_)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        backend = opened(url)
        entries = list(backend.journal.read(0))
        mine = [json.loads(data)["n"] for _, data in entries if json.loads(data)["writer"] == f"killed-{round_}"]
        assert mine and mine == list(range(len(mine)))
        assert [position for position, _ in entries] == list(range(len(entries)))
        position, _ = backend.journal.append(lambda head: b'{"writer": "after", "n": 0}', {}, time.monotonic() + 30)
        assert position == len(entries)
        backend.close()


@pytest.mark.slow
def test_no_writer_starves(tmp_path: Path) -> None:
    results = run(f"sqlite://{tmp_path}/catalog", 8, 1 << 30, 5)
    total = sum(len(result["positions"]) for result in results)
    for result in results:  # from its first entry to its last, nobody is passed over for long
        mine = result["positions"]
        assert len(mine) > total / 100
        assert max(after - before for before, after in pairwise(mine)) < total / 3
