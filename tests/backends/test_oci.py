"""OCI Object Storage, by the real SDK, against a server of the tests' own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oci_server import OCIServer

from catalog_core import doctor
from catalog_core.config import Target
from catalog_core.errors import CatalogError, KeyTaken
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


FAULTS = ["503", "429", "404", "drop", "after", "short"]


@pytest.mark.parametrize("fault", FAULTS)
def test_after_any_single_fault_the_result_is_right(server: OCIServer, store: OCIStore, fault: str) -> None:
    content = bytes(range(256)) * 400
    for number, (verb, call) in enumerate(
        {
            "exclusive": lambda: store.put("x", io.BytesIO(content), len(content), "exclusive"),
            "content": lambda: store.put("c", io.BytesIO(content), len(content), "content"),
            "get": lambda: store.get("x").read(),
            "stat": lambda: store.stat("x"),
            "list": lambda: [info.key for info in store.list("")],
            "delete": lambda: store.delete(["c"]),
        }.items()
    ):
        server.fault(fault)
        found: Any = call()
        server.fault()
        assert verb != "get" or found == content, number
        assert verb != "list" or found == ["c", "x"]
    assert store.get("x").read() == content
    assert [info.key for info in store.list("")] == ["x"]


def test_a_loser_is_not_taken_for_a_winner_whose_answer_was_lost(server: OCIServer, store: OCIStore) -> None:
    store.put("k", io.BytesIO(b"first"), 5, "exclusive")
    server.fault("after")
    with pytest.raises(KeyTaken):
        store.put("k", io.BytesIO(b"first"), 5, "exclusive")
    server.fault()
    assert store.get("k").read() == b"first"


def test_wrong_places_and_credentials_are_one_clear_sentence(server: OCIServer) -> None:
    url, options = server.fresh()
    bucket, _, rest = url.removeprefix("oci://").partition("@")
    for wrong in (f"oci://not-there@{rest}", f"oci://{bucket}@elsewhere/{rest.partition('/')[2]}"):
        with pytest.raises(CatalogError) as caught:
            open_store(wrong, {"deadline": 3.0, **options}, True).stat("x")
        assert len(str(caught.value)) < 600
    with pytest.raises(CatalogError) as caught:
        open_store(url, {**options, "oci_profile": "NOBODY", "deadline": 3.0}, True).stat("x")
    assert "NOBODY" in str(caught.value)


def test_a_skewed_clock_is_named(server: OCIServer, store: OCIStore) -> None:
    server.control(settings={"skew": 900.0})
    try:
        with pytest.raises(CatalogError, match="clock"):
            store.stat("x")
    finally:
        server.control(settings={"skew": 0.0})


def test_the_doctor_passes_and_leaves_no_race_to_chance(
    server: OCIServer, store: OCIStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path))
    url, options = server.fresh()
    checks = {check.id: check for check in doctor.examine(Target("probe", url, options), rounds=5)}
    wrong = {name: check.cause for name, check in checks.items() if check.result == "failed"}
    assert not wrong, wrong
    assert checks["race"].result == "passed"
    assert {"credentials", "signature", "clock", "bucket", "versioning", "retention"} <= checks.keys()


def test_a_whole_catalog_lives_there(
    server: OCIServer, store: OCIStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from catalog_core.catalog import Catalog

    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path))
    model = {"w": np.random.default_rng(0).integers(0, 256, 9 << 20, np.uint8)}
    with Catalog(ObjectStoreBackend(store, "oci", "oci://whole"), "whole", max_staleness=0) as catalog:
        catalog._create()
        version = catalog.save("m", model, tags={"a": 1}, alias="champion")
        assert np.array_equal(catalog.load("m@champion")["w"], model["w"])
        assert catalog.fsck().clean
        version.delete()
        assert catalog.gc(grace=-1).blobs > 0


def test_an_empty_object_that_is_deleted_while_it_is_looked_for_is_missing(
    store: OCIStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("inbox/1", io.BytesIO(b""), 0, "hint")
    found = store.stat("inbox/1")
    assert found is not None
    assert found.size == 0
    with store.calls.client() as client:
        head = type(client).head_object

    def late(*args: Any, **more: Any) -> Any:
        store.delete(["inbox/1"])
        return head(*args, **more)

    monkeypatch.setattr(type(client), "head_object", late)
    assert store.stat("inbox/1") is None
