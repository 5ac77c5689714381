"""OCI Object Storage, by the real SDK, against a server of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from oci_server import OCIServer

from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_oci.store import OCIStore, open_store

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server() -> Iterator[OCIServer]:
    with OCIServer() as server:
        yield server


@pytest.fixture
def store(server: OCIServer) -> Iterator[OCIStore]:
    server.control(faults=[], settings={"latency": 0.0, "skew": 0.0, "denied": "hidden", "page": 1000}, reset=True)
    url, options = server.fresh()
    store = open_store(url, {"deadline": 5.0, **options}, True)
    yield store
    store.close()


class TestStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, store: OCIStore) -> OCIStore:
        return store


class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self, store: OCIStore) -> ObjectStoreBackend:
        return ObjectStoreBackend(store, "oci", "oci://test")
