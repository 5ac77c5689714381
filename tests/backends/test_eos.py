"""The store on EOS keeps the contracts, on a real XRootD server in three configurations and on a mounted folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xrootd_server import PARTS, XrootdServer, missing

from catalog_core import Catalog
from catalog_core.errors import NotFound
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_eos.store import EosStore, open_store

pytestmark = pytest.mark.server
PLACES = ["plain", "sss", "tokens", "mounted"]


@pytest.fixture(params=PLACES)
def url(request: pytest.FixtureRequest, xrootd_servers: dict[str, XrootdServer], tmp_path: Path) -> str:
    """A new place for a catalog."""
    if request.param == "mounted":
        return f"eos://{tmp_path}/models"
    return xrootd_servers[request.param].fresh()[0]


@pytest.fixture
def store(url: str) -> EosStore:
    return open_store(url, {}, True)


class TestStore(ObjectStoreContract):
    """On every place."""


class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self, url: str, store: EosStore) -> ObjectStoreBackend:
        return ObjectStoreBackend(store, "eos", url)


def test_the_server_is_installed_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for apt-get: what it is asked for, and what is said where it may not run."""
    folders = {"PATH": tmp_path / "bin", "LIBRARIES": tmp_path / "lib"}
    for folder in folders.values():
        folder.mkdir()
    apt = folders["PATH"] / "apt-get"
    apt.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/log\ncd {tmp_path}\n'
        'case "$*" in *xrootd-server*) : > bin/xrootd; /bin/chmod +x bin/xrootd;; esac\n'
        'case "$*" in *scitokens*) : > lib/libXrdAccSciTokens-5.so;; esac\n'
    )
    for program in (apt, folders["PATH"] / "cc", folders["PATH"] / "openssl"):
        program.touch()
        program.chmod(0o755)
    for name in PARTS:
        if name.startswith("lib") and "SciTokens" not in name:
            (folders["LIBRARIES"] / name).touch()
    monkeypatch.setenv("PATH", str(folders["PATH"]))
    monkeypatch.setattr("system_packages.LIBRARIES", (str(folders["LIBRARIES"]),))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("CATALOG_TEST_INSTALL", raising=False)
    reason = missing()
    assert reason is not None
    assert reason.startswith("XROOTD, LIBXRDACCSCITOKENS-5.SO IS NOT INSTALLED")
    monkeypatch.setenv("CATALOG_TEST_INSTALL", "1")
    assert missing() is None
    update, install = (tmp_path / "log").read_text().splitlines()
    assert update.endswith("update -q")
    assert install.endswith("xrootd-scitokens-plugins xrootd-server")  # and nothing that was there already
    (folders["LIBRARIES"] / "libXrdAccSciTokens-5.so").unlink()  # the program alone is not enough
    assert missing() is None
    assert (tmp_path / "log").read_text().splitlines()[-1].endswith("recommends xrootd-scitokens-plugins")


def test_a_catalog_is_kept_there_and_opened_again(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(NotFound):
        Catalog.open(url, create=False)
    with Catalog.open(url) as catalog:
        for factor in (1, 2):
            catalog.save("m", {"w": np.arange(200_000, dtype=np.float32) * factor}, alias="champion")
        catalog.version("m@1").delete()
        assert catalog.gc(grace=0).blobs > 0
    with Catalog.open(url, create=False) as catalog:
        np.testing.assert_array_equal(catalog.load("m@champion")["w"], np.arange(200_000, dtype=np.float32) * 2)
        assert catalog.fsck().clean
