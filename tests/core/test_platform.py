from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from catalog_core import platform
from catalog_core.catalog import Catalog
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.memory import MemoryStore

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (b"/mnt/m\xc3\xbcll", "/mnt/müll"),
        (b"/mnt/a\\040b", "/mnt/a b"),
        (b"/mnt/caf\xe9", os.fsdecode(b"/mnt/caf\xe9")),
        (b"/mnt/x\\134n", "/mnt/x\\n"),
    ],
)
def test_mount_points_are_read_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bytes, path: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_bytes(
        b"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / " + written + b" rw,relatime shared:1 - nfs4 host:/x rw\n"
    )
    monkeypatch.setenv("CATALOG_TEST_MOUNTS", str(mounts))
    assert platform.file_system(Path(path) / "deep") == "nfs4"
    assert platform.network_file_system(Path(path)) == "NFS"
    assert platform.file_system(Path(path + "-beside")) == "ext4"


def test_fuse_is_named_and_no_cache_is_placed_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_bytes(b"1 0 8:1 / / rw - fuse.eosxd eos rw\n")
    monkeypatch.setenv("CATALOG_TEST_MOUNTS", str(mounts))
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    place, reason = platform.cache_dir()
    assert place is None
    assert "EOS (FUSE)" in reason


# -- who may change what we rely on -----------------------------------------------------------------------------------


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_nothing_that_is_made_for_index_and_cache_follows_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "new" / "place"
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(place))
    with Catalog(ObjectStoreBackend(MemoryStore(), "memory", "memory://umask"), "umask") as catalog:
        catalog.repository.begin()
        catalog.save("m", {"w": np.arange(100_000)})
        catalog.load("m")
    for folder in (place.parent, place, place / "index", place / "cache"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    for file in (place / "index").iterdir():
        assert not file.stat().st_mode & 0o022, file


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_cache_folder_that_others_can_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    given.chmod(mode)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(given))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    place, reason = platform.cache_dir()
    assert place == tmp_path / "xdg" / "catalog-core"
    assert f"{given} can be written by other users" in reason
    assert list(given.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "given"
    given.mkdir(mode=0o755)
    os.chown(given, 12345, 12345)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(given))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    place, reason = platform.cache_dir()
    assert place == tmp_path / "xdg" / "catalog-core"
    assert f"{given} belongs to another user (uid 12345)" in reason


def test_folders_of_an_older_release_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    for folder in (place, place / "index", place / "cache"):
        folder.mkdir()
    for folder in (place / "index", place / "cache"):
        folder.chmod(0o777)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(place))
    with Catalog(ObjectStoreBackend(MemoryStore(), "memory", "memory://old"), "old") as catalog:
        assert catalog.repository.index.path is not None
    for folder in (place / "index", place / "cache"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_an_index_that_others_could_write_is_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which files were checked: what others wrote there must not count."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "place"))
    url = f"file://{tmp_path}/catalog"
    with Catalog.open(url) as catalog:
        catalog.save("m", {"w": np.arange(100_000)})
        catalog.load("m")
        with catalog.repository.index as index:
            index.db.execute("INSERT INTO trusted VALUES ('sha256:forged', 'stamp', 'sha256:forged')")
        path = catalog.repository.index.path
    assert path is not None
    path.chmod(0o666)
    with Catalog.open(url) as catalog:
        assert catalog.repository.index.rows("SELECT * FROM trusted WHERE key = 'sha256:forged'") == []
        assert catalog.load("m")["w"][-1] == 99_999
    assert not path.stat().st_mode & 0o022
