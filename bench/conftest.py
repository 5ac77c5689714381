"""Fixtures of the benchmarks: a catalog on the disk under test, and weights that do not compress."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catalog_core import Catalog

MEGABYTE = 1_000_000


@pytest.fixture(scope="session")
def size() -> int:
    """Bytes of the large model: CATALOG_BENCH_MB megabytes (1,000 unless set; the smoke run sets less)."""
    return int(os.environ.get("CATALOG_BENCH_MB", "1000")) * MEGABYTE


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A fresh local catalog, its index beside it."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as opened:
        yield opened
