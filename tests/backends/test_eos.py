"""The store on EOS keeps the contracts, on a real XRootD server in three configurations and on a mounted folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from xrootd_server import XrootdServer

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
