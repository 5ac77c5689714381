"""OCI Object Storage, by the real SDK, against a server of the tests' own.

Not settled without a live tenancy, and so not shown here: that the service refuses what a user may not do before it
looks at a condition (the doctor's probe of rights relies on it), the status of a delete that a retention rule forbids,
which checksums a ranged read reports, whether conditions or checksums are looked at first, and its limits of pages and
parts.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oci_server import NAMESPACE, OCIServer
from oci_store import bare, blob, calm, cut_small, new_store, put, run

from catalog_core import Catalog
from catalog_core.errors import BackendError, BlobMissing, ConfigError, DeadlineExceeded, InvalidInput, KeyTaken
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_core.testing.faults import FaultyStore
from catalog_oci import parts, source
from catalog_oci import store as store_module
from catalog_oci.options import Options
from catalog_oci.store import OCIStore, open_store, split_url

pytestmark = pytest.mark.server
running, server, store = pytest.fixture(run, scope="module"), pytest.fixture(calm), pytest.fixture(new_store)
small_parts = pytest.fixture(cut_small)


# -------------------------------------------------------------------------------------------------- the contract


class TestStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, store: OCIStore) -> OCIStore:
        return store


class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self, store: OCIStore) -> ObjectStoreBackend:
        return ObjectStoreBackend(store, "oci", "oci://test")


class TestStoreInParts(ObjectStoreContract):
    """Every object of more than a byte travels in parts, none is held in memory."""

    @pytest.fixture
    def store(self, store: OCIStore, monkeypatch: pytest.MonkeyPatch) -> OCIStore:
        monkeypatch.setattr(store_module, "WHOLE", 1)
        monkeypatch.setattr(parts, "PART", 1 << 16)
        monkeypatch.setattr(source, "SMALL", 0)
        return store


class TestStoreOverTls(ObjectStoreContract):
    """Over TLS the SDK waits for `100 Continue` before it sends a body: another path through it."""

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OCIStore]:
        with OCIServer(tls=True) as server:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca))
            url, options = server.fresh()
            store = open_store(url, options, True)
            yield store
            store.close()


class TestStoreWithOneObjectOnAPage(ObjectStoreContract):
    @pytest.fixture
    def store(self, server: OCIServer, store: OCIStore) -> OCIStore:
        server.control(settings={"page": 1})
        return store


@pytest.mark.slow
class TestSlowLine:
    """50 ms to the server, 20 MB/s."""

    @pytest.fixture
    def backend(self, store: OCIStore) -> ObjectStoreBackend:
        return ObjectStoreBackend(FaultyStore(store, latency=0.05, bandwidth=20e6), "oci", "oci://test")

    test_entries = BackendContract.test_entries_come_back_in_order_and_the_head_is_the_last
    test_threads = BackendContract.test_threads_append_without_gaps_or_losses
    test_blobs = BackendContract.test_blobs_come_back_whole_and_in_ranges
    test_lists = BackendContract.test_blobs_are_listed_in_order_and_deleted


def test_lost_answers_above_the_store_append_nothing_twice(store: OCIStore) -> None:
    faulty = FaultyStore(store)
    backend = ObjectStoreBackend(faulty, "oci", "oci://test")
    for n in range(6):
        faulty.fail("put", when="after" if n % 2 else "before")
        for _ in range(2):  # what was done before the failure is found, what was not is tried again
            try:
                assert backend.journal.append(lambda head, n=n: b"%d" % n, {}, time.monotonic() + 9)[0] == n  # type: ignore[misc]
                break
            except BackendError:
                continue
    assert [data for _, data in backend.journal.read(0)] == [b"%d" % n for n in range(6)]


def test_a_catalog_in_a_bucket(server: OCIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name in a configuration file, as a user has it."""
    url, options = server.fresh()
    lines = "".join(f'{key} = "{value}"\n' for key, value in options.items())
    (tmp_path / "catalog.toml").write_text(f'[catalogs.oracle]\nurl = "{url}"\n{lines}')
    monkeypatch.setenv("CATALOG_CONFIG", str(tmp_path / "catalog.toml"))
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    weights = np.arange(300_000, dtype="f4")
    with Catalog.open("oracle", create=True) as catalog:
        catalog.save("calo/3dgan", {"w": weights}, alias="champion")
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "elsewhere"))
    with Catalog.open("oracle") as catalog:
        assert np.array_equal(catalog.load("calo/3dgan@champion")["w"], weights)
        assert catalog.fsck().clean
        catalog.version("calo/3dgan@1").delete()
        assert catalog.gc(grace=-1).blobs > 0


# ------------------------------------------------------------------------------------- bytes and their checksums


def test_the_service_reports_the_digest_that_a_blob_is_named_by(store: OCIStore) -> None:
    for size in (0, 10, 6 << 20):  # nothing, in memory, streamed
        data = os.urandom(size)
        put(store, blob(data), data)
        info = store.stat(blob(data))
        assert info is not None
        assert dict(info.checksums) == {
            "md5": hashlib.md5(data).hexdigest(),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    listed = {info.key: dict(info.checksums) for info in store.list("blobs/")}
    assert listed[blob(data)] == {"md5": hashlib.md5(data).hexdigest()}


def test_a_large_blob_that_is_not_what_its_key_says_is_refused(store: OCIStore) -> None:
    data = os.urandom(5 << 20)
    with pytest.raises(BackendError, match=r"not those that their checksum promised.*opc-request-id"):
        put(store, blob(b"something else"), data)
    assert list(store.list("")) == []


def test_a_blob_of_parts_reports_no_checksum_of_parts_as_its_own(store: OCIStore, small_parts: None) -> None:
    data = os.urandom((3 << 20) + 17)
    put(store, blob(data), data)
    info = store.stat(blob(data))
    assert info is not None
    assert (info.size, dict(info.checksums)) == (len(data), {})
    assert [dict(info.checksums) for info in store.list("")] == [{}]
    with store.get(blob(data)) as stream:
        assert stream.read() == data


@pytest.mark.parametrize("size", [1000, 300_000, (3 << 20) + 17], ids=["memory", "streamed", "parts"])
def test_content_that_is_there_stays_and_wrong_bytes_are_replaced(
    server: OCIServer, store: OCIStore, small_parts: None, size: int
) -> None:
    data, wrong = os.urandom(size), os.urandom(size)
    name, client = store.prefix + blob(data), bare(server)
    put(store, blob(data), data)
    etag = client.head_object(NAMESPACE, store.bucket, name).headers["etag"]
    put(store, blob(data), data)
    assert client.head_object(NAMESPACE, store.bucket, name).headers["etag"] == etag
    client.put_object(NAMESPACE, store.bucket, name, wrong)  # by another tool: the service knows an MD5 alone
    put(store, blob(data), data)
    assert store.get(blob(data)).read() == data
    client.put_object(NAMESPACE, store.bucket, name, data)
    etag = client.head_object(NAMESPACE, store.bucket, name).headers["etag"]
    put(store, blob(data), data)
    assert client.head_object(NAMESPACE, store.bucket, name).headers["etag"] == etag


class Pipe(io.RawIOBase):
    """A stream that cannot be read again."""

    def __init__(self, data: bytes) -> None:
        self.inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.inner.read(min(size, 70_000) if size >= 0 else size)


@pytest.mark.parametrize("size", [1000, 300_000, (3 << 20) + 17], ids=["memory", "streamed", "parts"])
def test_a_pipe_can_be_put_and_an_attempt_fail(
    server: OCIServer, store: OCIStore, small_parts: None, size: int
) -> None:
    data = os.urandom(size)
    server.fault({"fault": 503, "method": "PUT"})
    store.put("pipe", Pipe(data + b"more"), size, "content")  # type: ignore[arg-type]
    assert store.get("pipe").read() == data


def test_a_stream_is_left_behind_what_was_put_of_it(store: OCIStore, small_parts: None) -> None:
    data = os.urandom(5 << 20)
    stream = io.BytesIO(data)
    for key, size in (("a", 70_000), ("b", 4 << 20), ("c", 100)):
        store.put(key, stream, size, "content")
    assert b"".join(store.get(key).read() for key in "abc") == data[: 70_100 + (4 << 20)]


def test_content_type_and_writer_are_set(server: OCIServer, store: OCIStore, small_parts: None) -> None:
    client, writers = bare(server), set()
    for key, size in (("a", 10), ("b", 3 << 20)):
        put(store, key, bytes(size))
        headers = client.head_object(NAMESPACE, store.bucket, store.prefix + key).headers
        assert headers["content-type"] == "application/octet-stream"
        writers.add(headers["opc-meta-catalog-put"])
    assert len(writers) == 2


# --------------------------------------------------------------------------- who was first, when one cannot know


@pytest.mark.parametrize("size", [10, 300_000, 3 << 20], ids=["memory", "streamed", "parts"])
def test_a_lost_answer_is_no_lost_race(server: OCIServer, store: OCIStore, small_parts: None, size: int) -> None:
    data = os.urandom(size)
    path = "/u/" if size > 2 << 20 else "/o/"
    server.fault({"fault": "after", "path": path, "method": "POST" if path == "/u/" else "PUT"})
    put(store, "k", data, "exclusive")
    assert server.control()["faults"] == []  # it did happen
    assert store.get("k").read() == data


@pytest.mark.parametrize("size", [10, 3 << 20], ids=["memory", "parts"])
def test_a_lost_answer_to_a_loser_is_a_lost_race(
    server: OCIServer, store: OCIStore, small_parts: None, size: int
) -> None:
    put(store, "k", b"first", "exclusive")
    server.fault("after")
    with pytest.raises(KeyTaken):
        put(store, "k", b"first" if size == 10 else bytes(size), "exclusive")
    assert store.get("k").read() == b"first"


def test_a_key_that_is_deleted_while_we_look_is_put(server: OCIServer, store: OCIStore) -> None:
    put(store, "k", b"old")
    looks = 0
    look = store._look

    def look_late(name: str) -> Any:
        nonlocal looks
        looks += 1
        if looks == 1:
            store.delete(["k"])
        return look(name)

    store._look = look_late  # type: ignore[method-assign]
    put(store, "k", b"new", "exclusive")
    assert store.get("k").read() == b"new"


# ------------------------------------------------------------------------------------------ names, and whose they are


def test_foreign_objects_are_not_seen(server: OCIServer, store: OCIStore) -> None:
    client = bare(server)
    below = store.prefix
    for name in ("a", "team/models2/blobs/x", "zzz", below + "blobs/", below + "my file", below + "é", below + "a//b"):
        client.put_object(NAMESPACE, store.bucket, name, b"foreign")
    put(store, "blobs/x", b"ours")
    assert [info.key for info in store.list("")] == ["blobs/x"]
    assert [info.key for info in store.list("blobs/")] == ["blobs/x"]
    assert store.stat("zzz") is None
    store.delete(["a", "zzz"])
    names = [item.name for item in client.list_objects(NAMESPACE, store.bucket).data.objects]
    assert len(names) == 8


def test_keys_that_leave_the_prefix_are_refused(store: OCIStore) -> None:
    for key in ("", "/a", "a/", "a//b", "../a", "a/../b", ".", "a b", "é", "a\n"):
        for verb in (lambda: store.stat(key), lambda: store.get(key), lambda: put(store, key, b"")):  # noqa: B023
            with pytest.raises(InvalidInput):
                verb()


def test_urls() -> None:
    assert split_url("oci://b@n/a/b") == split_url("oci://b@n/a/b/") == ("b", "n", "a/b/")
    assert split_url("oci://b@n") == split_url("oci://b@n/") == ("b", "n", "")
    for url in ("oci://b", "oci://b/n", "oci://@n/x", "oci://b@n/a/../b", "oci://b@n/a b", "s3://b@n"):
        with pytest.raises(InvalidInput, match="oci://bucket@namespace/prefix"):
            split_url(url)


def test_a_catalog_at_the_top_of_a_bucket(server: OCIServer) -> None:
    url, options = server.fresh(prefix="")
    store = open_store(url, options, True)
    put(store, "journal/1", b"1")
    assert [info.key for info in store.list("", "journal/0")] == ["journal/1"]


def test_options_are_checked() -> None:
    for bad in (
        {"service_endpoint": "http://objectstorage.example.com"},
        {"service_endpoint": "ftp://127.0.0.1"},
        {"service_endpoint": "https://user:word@host"},
        {"auth": "password"},
        {"deadline": 0},
        {"parallel": 0},
        {"oci_profile": 3},
    ):
        with pytest.raises((ValueError, TypeError)):
            Options(**bad)  # type: ignore[arg-type]
    for good in ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://host"):
        Options(service_endpoint=good)


def test_nothing_is_asked_before_it_has_to_be(server: OCIServer) -> None:
    """A catalog can be opened offline, and the SDK is imported when it is used."""
    store = open_store("oci://b@n/x", {"oci_config_file": "/nonexistent"}, False)
    with pytest.raises(ConfigError):
        store.stat("a")
    with pytest.raises((DeadlineExceeded, BlobMissing)):
        nowhere = {**server.options(), "service_endpoint": "http://127.0.0.1:9", "deadline": 0.5}
        open_store("oci://b@n/x", nowhere, False).get("a")


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
