"""Killed writers, many writers at once, full disks: nothing published is lost, nothing is seen by halves."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from catalog_core import Catalog

KILLS = int(os.environ.get("CATALOG_TEST_KILLS", "12"))
WRITER = """
import sys
import numpy as np
from catalog_core import Catalog
with Catalog.open(sys.argv[1]) as catalog:
    rng = np.random.default_rng()
    while True:
        weights = {"w": rng.random(500_000, dtype=np.float32), "n": rng.random(4, dtype=np.float32)}
        saved = catalog.save("m", weights, alias="a")
        print(saved.number, flush=True)
"""


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    return f"{request.param}://{tmp_path}/catalog"


def test_a_writer_killed_at_any_moment_loses_nothing(url: str) -> None:
    """SIGKILL at random moments of a stream of saves; what was acknowledged is there, whole, and garbage goes."""
    Catalog.open(url).close()
    acknowledged = 0
    rng = random.Random(7)
    for _ in range(KILLS):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        first = writer.stdout.readline()
        assert first, "the writer could not save after a kill"
        time.sleep(rng.uniform(0, 0.08))
        writer.send_signal(signal.SIGKILL)
        seen = [int(first), *[int(line) for line in writer.stdout.read().split("\n")[:-1]]]
        writer.wait(30)
        assert seen[0] > acknowledged
        acknowledged = seen[-1]
    with Catalog.open(url) as catalog:
        numbers = [version.number for version in catalog.versions("m")]
        assert acknowledged <= numbers[0]
        assert sorted(numbers) == list(range(1, numbers[0] + 1))
        assert catalog.model("m").aliases["a"] == numbers[0]
        assert catalog.fsck().clean
        for number in numbers[:3]:
            assert catalog.load(f"m@{number}")["w"].shape == (500_000,)
        catalog.gc(grace=-1)
        assert catalog.fsck().clean
        staging = catalog._backend.files.staging()
        assert not list(staging.iterdir())
        catalog.save("m", {"w": np.zeros(3, dtype=np.float32)})


PUBLISHER = """
import json, sys, time
import numpy as np
from catalog_core import Catalog
url, begin, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
numbers, worst = [], 0.0
with Catalog.open(url) as catalog:
    weights = np.random.default_rng().random(1000, dtype=np.float32)
    time.sleep(max(0.0, begin - time.time()))
    while time.time() < begin + seconds:
        weights[0] += 1
        start = time.perf_counter()
        numbers.append(catalog.save("race", {"w": weights}).number)
        worst = max(worst, time.perf_counter() - start)
print(json.dumps([numbers, worst]))
"""


def test_many_processes_never_share_or_lose_a_number(url: str) -> None:
    seconds = os.environ.get("CATALOG_TEST_SECONDS", "3")
    Catalog.open(url).close()
    arguments = [sys.executable, "-c", PUBLISHER, url, str(time.time() + 4), seconds]
    writers = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    results = []
    for writer in writers:
        out, err = writer.communicate(timeout=float(seconds) + 90)
        assert writer.returncode == 0, err
        results.append(json.loads(out))
    published = sorted(number for numbers, _ in results for number in numbers)
    assert published == list(range(1, len(published) + 1))
    with Catalog.open(url) as catalog:
        assert sorted(v.number for v in catalog.versions("race")) == published
        assert catalog.fsck().clean
