"""Many writers at once: no number is lost, and none is shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catalog_core import Catalog


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    return f"{request.param}://{tmp_path}/catalog"


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
    seconds = os.environ.get("CATALOG_TEST_SECONDS", "10")
    Catalog.open(url).close()
    arguments = [sys.executable, "-c", PUBLISHER, url, str(time.time() + 4), seconds]
    writers = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    results = []
    for writer in writers:
        out, err = writer.communicate(timeout=float(seconds) + 90)
        assert writer.returncode == 0, err
        results.append(json.loads(out))
    assert max(worst for _, worst in results) < 10, "a writer starved"
    published = sorted(number for numbers, _ in results for number in numbers)
    assert published == list(range(1, len(published) + 1))
    with Catalog.open(url) as catalog:
        assert sorted(v.number for v in catalog.versions("race")) == published
        assert catalog.fsck().clean
