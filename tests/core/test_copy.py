"""Versions move between catalogs: only what is missing, with where they come from, and never over another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import BackendError
from catalog_core.interfaces.store import Mode
from catalog_core.testing.faults import FaultyStore
from catalog_core.testing.memory import MemoryStore, memory_catalog

LAYERS, VALUES = 20, 300_000


class Scales(FaultyStore):
    """Weighs what goes in and out, in bytes."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.moved: Counter[str] = Counter()

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        super().put(key, stream, size, mode)
        self.moved["put"] += size

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        with super().get(key, start, length) as stream:
            data = stream.read()
        self.moved["got"] += len(data)
        return super().get(key, start, length)


def weights(changed: int = -1) -> dict[str, Any]:
    return {
        f"layer{n}": np.random.default_rng((n, n == changed)).random(VALUES, dtype=np.float32) for n in range(LAYERS)
    }


@pytest.fixture(params=["cache", "no cache"])
def far(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """A catalog in a remote store, on scales."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with memory_catalog(Scales()) as catalog:
        if request.param == "no cache":
            catalog.repository.cache = catalog.repository.content.remote.cache = None  # type: ignore[union-attr]
        yield catalog


@pytest.fixture
def laptop(far: Catalog, tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/laptop", actor="ada@train") as catalog:
        yield catalog


def moved(far: Catalog) -> Counter[str]:
    """What went over the scales since this was asked for."""
    scales = far.repository.backend.blobs._store
    found, scales.moved = scales.moved, Counter()
    return found


def test_only_missing_chunks_go_up(laptop: Catalog, far: Catalog) -> None:
    first, second = laptop.save("m", weights()), laptop.save("m", weights(7))
    moved(far)
    laptop.copy(first, far)
    assert moved(far)["put"] > first.size
    copied = laptop.copy(second, far)
    assert moved(far)["put"] < 0.2 * second.size  # a chunk holds four layers
    assert copied.summary["new_bytes"] < 0.2 * second.size  # a chunk holds four layers
    laptop.copy(second, far, "another/name")
    assert moved(far)["put"] < 50_000
    np.testing.assert_array_equal(far.load("m@2")["layer7"], weights(7)["layer7"])
    assert far.fsck().clean


def test_only_missing_chunks_come_back(laptop: Catalog, far: Catalog) -> None:
    first, second = far.save("m", weights()), far.save("m", weights(7))
    if far.cache is not None:
        far.cache.trim(0)
    moved(far)
    far.copy(first, laptop)
    assert first.size <= moved(far)["got"] < 1.1 * first.size
    if far.cache is not None:
        far.cache.trim(0)
    copied = far.copy(second, laptop)
    assert moved(far)["got"] < 0.2 * second.size  # a chunk holds four layers
    assert (copied.ref, copied.digest) == ("m@2", second.digest)
    np.testing.assert_array_equal(laptop.load("m@2")["layer7"], weights(7)["layer7"])
    assert laptop.fsck().clean


def test_a_copy_that_broke_off_goes_on_where_it_stopped(laptop: Catalog, far: Catalog) -> None:
    version = laptop.save("m", weights())
    scales = far.repository.backend.blobs._store
    for nth in range(6, 12):
        scales.fail("put", nth=nth)
    with pytest.raises(BackendError):
        laptop.copy(version, far)
    assert not far.models()
    scales._faults.clear()
    first = moved(far)["put"]
    laptop.copy(version, far)
    assert first > 0.1 * version.size
    assert first + moved(far)["put"] < 1.2 * version.size
    assert far.fsck().clean


def test_where_it_comes_from_stays_with_it(laptop: Catalog, far: Catalog) -> None:
    version = laptop.save("m", weights(), tags={"team": "lab"}).annotate(auc=0.5)
    origin = {
        "catalog": laptop.id, "ref": "m@1", "digest": version.digest, "author": "ada@train",
        "time": version.created.isoformat(),
    }  # fmt: skip
    assert "origin" not in version.summary
    copied = laptop.copy(version, far, "calo/gan")
    with memory_catalog() as third:
        again = far.copy(copied, third)
        home = third.copy(again, laptop, "back")
        for item in (copied, again, home):
            assert item.summary["origin"] == origin
            assert (item.digest, item.tags, item.metrics) == (version.digest, {"team": "lab"}, {"auc": 0.5})
            assert item.catalog.version(f"{item.model}@{version.digest}").number == 1
    assert laptop.version(f"m@{version.digest}").ref == "m@1"


def test_a_number_that_is_taken_is_never_overwritten(laptop: Catalog, far: Catalog) -> None:
    theirs = far.save("m", {"w": np.arange(4)}, alias="champion")
    mine = laptop.save("m", {"w": np.arange(5)}, alias="champion")
    copied = laptop.copy(mine, far)
    assert (copied.ref, copied.digest) == ("m@2", mine.digest)
    assert far.version("m@1").digest == far.version("m@champion").digest == theirs.digest
    assert far.version(f"m@{mine.digest}").number == 2
    assert laptop.copy(mine, far).number == 2
    assert far.copy("m@2", laptop).number == 1
    assert len(far.versions("m")) == 2
