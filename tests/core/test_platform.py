from __future__ import annotations

import os
from pathlib import Path

import pytest

from catalog_core import platform

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
