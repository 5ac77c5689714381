"""A full disk under the cache, a real one: what is old goes, else what is loaded stays in memory; no load fails."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from catalog_core.catalog import Catalog
from catalog_core.errors import NoSpace
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.memory import MemoryStore

MB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Counting(MemoryStore):
    """Counts how often each blob is read."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[str] = []

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        self.got += [key] if key.startswith("blobs/") else []
        return super().get(key, start, length)


def model(number: int) -> dict[str, Any]:
    random = np.random.default_rng(number)
    return {f"w{n}": random.integers(0, 256, 5 * MB, np.uint8) for n in range(3)}


def same(one: Any, two: Any) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    """With a catalog of three versions of 15 MB, saved with room for all."""
    store = Counting()
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "large"))
    with opened(store) as catalog:
        catalog.repository.begin()
        for number in range(3):
            catalog.save("m", model(number))
    store.got.clear()
    return store


def opened(store: Counting) -> Catalog:
    return Catalog(ObjectStoreBackend(store, "memory", "memory://far"), "far")


def test_what_was_not_used_for_longest_makes_room(
    disk: Path, store: Counting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(disk / "cache"))
    with opened(store) as catalog:
        for number in (0, 1, 2):
            assert same(catalog.load(f"m@{number + 1}"), model(number))
        store.got.clear()
        assert same(catalog.load("m@3"), model(2))
        assert store.got == []  # it stayed there
    assert caplog.messages == []


def test_where_others_filled_the_disk_a_load_stays_in_memory(
    disk: Path, store: Counting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(disk / "cache"))
    with opened(store) as catalog:
        (disk / "others").write_bytes(bytes(20 * MB))
        with caplog.at_level(logging.WARNING):
            assert same(catalog.load("m@1"), model(0))
            assert same(catalog.load("m@2"), model(1))
        assert len(caplog.messages) == 1
        assert "CATALOG_CACHE_DIR" in caplog.messages[0]
        assert len(set(store.got)) == len(store.got), "something was fetched twice"
        assert catalog.cache is not None
        assert catalog.cache.usage().bytes < MB
        assert list(catalog.cache.staging().iterdir()) == []


def test_a_disk_that_fills_up_while_it_is_fetched_fails_no_load_either(
    disk: Path, store: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(disk / "cache"))
    monkeypatch.setattr(os, "posix_fallocate", lambda handle, start, size: None)
    with opened(store) as catalog:
        (disk / "others").write_bytes(bytes(16 * MB))
        assert same(catalog.load("m@1"), model(0))
        assert same(catalog.load("m@2"), model(1))


def test_what_is_pinned_stays_and_a_pin_for_which_there_is_no_room_is_an_error(
    disk: Path, store: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(disk / "cache"))
    with opened(store) as catalog:
        catalog.pin("m@1")
        assert same(catalog.load("m@2"), model(1))
        with pytest.raises(NoSpace, match="no space left") as caught:
            catalog.pin("m@3")
        assert caught.value.hint is not None
        assert "CATALOG_CACHE_DIR" in caught.value.hint
        assert "published" not in caught.value.hint
        assert catalog.cache is not None
        assert [pin.ref for pin in catalog.cache.pins()] == ["m@1"]
    monkeypatch.setenv("CATALOG_OFFLINE", "1")
    with opened(store) as catalog:
        assert same(catalog.load("m@1"), model(0))


def test_a_download_to_a_full_disk_says_what_helps(disk: Path, store: Counting) -> None:
    (disk / "others").write_bytes(bytes(20 * MB))
    with opened(store) as catalog, pytest.raises(NoSpace) as caught:
        catalog.download("m@1", disk / "target")
    assert caught.value.hint == "free space on that disk, or choose a folder on another one"


def test_a_full_temporary_folder_is_named_as_such(disk: Path, store: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    (disk / "others").write_bytes(bytes(20 * MB))
    with opened(store) as catalog:
        artifact = catalog.artifact("m@1")
        reader = artifact.reader(artifact.manifest.components[0])
        with pytest.raises(NoSpace) as caught:
            reader.path(next(iter(reader.files)))
    assert caught.value.hint is not None
    assert "TMPDIR" in caught.value.hint
