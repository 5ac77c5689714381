"""OCI Object Storage, by the real SDK, against a server of the tests' own.

Not settled without a live tenancy, and so not shown here: that the service refuses what a user may not do before it
looks at a condition (the doctor's probe of rights relies on it), the status of a delete that a retention rule forbids,
which checksums a ranged read reports, whether conditions or checksums are looked at first, and its limits of pages and
parts.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oci
import pytest
from oci_server import NAMESPACE, OCIServer

from catalog_core import Catalog
from catalog_core.errors import (
    BackendError,
    BlobMissing,
    CatalogError,
    ConfigError,
    DeadlineExceeded,
    InvalidInput,
    KeyTaken,
    NoSpace,
    ReadOnly,
)
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_core.testing.faults import FaultyStore
from catalog_oci import doctor, parts, source
from catalog_oci import store as store_module
from catalog_oci.options import Options
from catalog_oci.store import OCIStore, open_store, split_url

pytestmark = pytest.mark.server
CALM: dict[str, Any] = {"latency": 0.0, "skew": 0.0, "denied": "hidden", "page": 1000}


@pytest.fixture(scope="module")
def running() -> Iterator[OCIServer]:
    with OCIServer() as server:
        yield server


@pytest.fixture
def server(running: OCIServer) -> OCIServer:
    running.control(faults=[], settings=CALM, reset=True)
    return running


@pytest.fixture
def store(server: OCIServer) -> Iterator[OCIStore]:
    url, options = server.fresh()
    store = open_store(url, {"deadline": 5.0, **options}, True)
    yield store
    store.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of more than 2 MiB travel in parts of 1 MiB; what is larger than 64 KiB is not held in memory."""
    monkeypatch.setattr(store_module, "WHOLE", 2 << 20)
    monkeypatch.setattr(parts, "PART", 1 << 20)
    monkeypatch.setattr(source, "SMALL", 1 << 16)


def other_user(server: OCIServer, store: OCIStore, profile: str = "DEFAULT", **more: Any) -> OCIStore:
    """Another process or person with the same bucket."""
    url = f"oci://{store.bucket}@{NAMESPACE}/{store.prefix}"
    return open_store(url, {**server.options(profile), "deadline": 2.0, **more}, False)


def bare(server: OCIServer) -> Any:
    """The SDK's own client."""
    config = oci.config.from_file(str(server.config))
    off = oci.circuit_breaker.NoCircuitBreakerStrategy()
    return oci.object_storage.ObjectStorageClient(
        config, service_endpoint=server.endpoint, circuit_breaker_strategy=off
    )


def put(store: OCIStore, key: str, data: bytes, mode: Any = "content") -> None:
    store.put(key, io.BytesIO(data), len(data), mode)


def blob(data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f"blobs/sha256/{digest[:2]}/{digest}"


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


# ---------------------------------------------------------------------------------------------- uploads in parts


def test_an_upload_that_was_left_is_taken_up(server: OCIServer, store: OCIStore, small_parts: None) -> None:
    data = os.urandom(8 << 20)
    server.fault({"fault": "400", "path": "/u/.*uploadPartNum=6", "times": -1})
    with pytest.raises(BackendError):
        put(store, blob(data), data)
    state = server.control(faults=[], reset=True)
    arrived = state["parts"][-1]
    assert state["uploads"][-1].endswith(blob(data))
    assert arrived >= 4
    put(store, blob(data), data)
    state = server.control()
    assert state["requests"]["PUT u"] == 8 - arrived
    assert not any(name.endswith(blob(data)) for name in state["uploads"])
    assert store.get(blob(data)).read() == data


def test_parts_of_other_bytes_are_not_taken(server: OCIServer, store: OCIStore, small_parts: None) -> None:
    data = os.urandom(4 << 20)
    client, name = bare(server), store.prefix + blob(data)
    details = oci.object_storage.models.CreateMultipartUploadDetails(object=name)
    upload = client.create_multipart_upload(NAMESPACE, store.bucket, details).data.upload_id
    for number, part in ((1, os.urandom(1 << 20)), (2, data[1 << 20 : 2 << 20]), (9, b"too many")):
        client.upload_part(NAMESPACE, store.bucket, name, upload, number, part)
    server.control(reset=True)
    put(store, blob(data), data)
    assert server.control()["requests"]["PUT u"] == 3
    assert store.get(blob(data)).read() == data


def test_an_upload_that_another_ends_is_begun_again_or_found(
    server: OCIServer, store: OCIStore, small_parts: None
) -> None:
    """Somebody sweeps the upload under our hands; then somebody with the same bytes commits it first."""
    data = os.urandom(4 << 20)
    commit = parts.Parts._commit
    calls = 0

    def late(self: Any, upload: str, *rest: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            store.calls.abort(self._name, upload)
        elif calls == 2:
            commit(self, upload, *rest)
        commit(self, upload, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.Parts, "_commit", late)
        put(store, blob(data), data)
    assert calls == 2
    assert store.get(blob(data)).read() == data
    assert [info.key for info in store.list("")] == [blob(data)]


def test_abandoned_uploads_are_swept_and_others_left(server: OCIServer, store: OCIStore, small_parts: None) -> None:
    data, client = os.urandom(4 << 20), bare(server)
    foreign = ["other/big", store.prefix.rstrip("/") + "2/" + blob(data), store.prefix + "holiday video.mp4"]
    for name in foreign:
        details = oci.object_storage.models.CreateMultipartUploadDetails(object=name)
        client.create_multipart_upload(NAMESPACE, store.bucket, details)
    server.fault({"fault": "400", "path": "uploadPartNum=3", "times": -1})
    with pytest.raises(BackendError):
        put(store, blob(data), data)
    server.fault()
    assert store.sweep_uploads(3600) == 0
    assert store.sweep_uploads(-1) == 1
    left = [upload.object for upload in store.calls.uploads()]
    assert sorted(left) == sorted(foreign)


def test_who_may_not_see_uploads_begins_anew(server: OCIServer, store: OCIStore, small_parts: None) -> None:
    """Objects may be put without the right to read the bucket."""
    server.fault({"fault": "404", "method": "GET", "path": "/u", "times": -1})
    data = os.urandom(3 << 20)
    put(store, blob(data), data)
    server.fault()
    assert store.get(blob(data)).read() == data


def test_a_large_blob_is_cut_into_ten_thousand_parts_at_most() -> None:
    for size in ((128 << 20) + 1, 10 << 30, 1 << 40, 10 << 40):
        cut = parts.cuts(size)
        assert len(cut) <= 10_000
        assert cut[-1][1] + cut[-1][2] == size
        assert all(length >= 10 << 20 for _, _, length in cut[:-1])  # the service's least


# ----------------------------------------------------------------------------------------------- what goes wrong


def refused(server: OCIServer, store: OCIStore, kind: type[CatalogError], profile: str = "DEFAULT", **more: Any) -> str:
    """The message of each verb's error, which must all be of `kind`."""
    texts = set()
    other = other_user(server, store, profile, **more)
    for verb in (
        lambda: put(other, "x", b"x"),
        lambda: other.get("x"),
        lambda: other.stat("x"),
        lambda: list(other.list("")),
        lambda: other.delete(["x"]),
    ):
        with pytest.raises(CatalogError) as caught:
            verb()
        assert type(caught.value) is kind
        assert caught.value.hint
        texts.add(str(caught.value))
    return "\n".join(texts)


def test_a_key_that_the_service_does_not_know(server: OCIServer, store: OCIStore) -> None:
    text = refused(server, store, BackendError, "STRANGER")
    assert "does not accept the signature of profile 'STRANGER'" in text
    assert "opc-request-id" in text


def test_no_key_no_profile_no_file(server: OCIServer, store: OCIStore, tmp_path: Path) -> None:
    assert "key file of profile 'MISSING'" in refused(server, store, ConfigError, "MISSING")
    assert "no profile 'NOBODY'" in refused(server, store, ConfigError, "NOBODY")
    nowhere = str(tmp_path / "none")
    assert "does not exist" in refused(server, store, ConfigError, oci_config_file=nowhere)
    broken = tmp_path / "config"
    broken.write_text(server.config.read_text().replace("fingerprint", "finger"))
    assert "fingerprint is missing" in refused(server, store, ConfigError, oci_config_file=str(broken))
    (tmp_path / "bad.pem").write_text("-----BEGIN RSA PRIVATE KEY-----\nnot\n-----END RSA PRIVATE KEY-----\n")
    broken.write_text(server.config.read_text().replace(str(server.run / "default.pem"), str(tmp_path / "bad.pem")))
    assert "private key" in refused(server, store, ConfigError, oci_config_file=str(broken))


def test_no_principal_outside_of_oracle_cloud(
    server: OCIServer, store: OCIStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCI_METADATA_BASE_URL", server.endpoint)  # else the SDK asks 169.254.169.254
    assert "no instance principal" in refused(server, store, ConfigError, auth="instance_principal")
    assert "no resource principal" in refused(server, store, ConfigError, auth="resource_principal")


def test_an_expired_session_says_how_to_renew_it(server: OCIServer, store: OCIStore) -> None:
    text = refused(server, store, ConfigError, "EXPIRED")
    assert "expired at 20" in text
    assert "oci session authenticate" in text


def test_a_session_that_is_renewed_goes_on(server: OCIServer, store: OCIStore, tmp_path: Path) -> None:
    """Its file holds a token that the service refuses; while we are told so, `oci session refresh` writes a new one."""
    path = tmp_path / "token"
    good = (server.run / "token.token").read_text()
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace(str(server.run / "token.token"), str(path)))
    path.write_text(good)
    other = other_user(server, store, "TOKEN", oci_config_file=str(config))
    put(other, "a", b"a")
    path.write_text("a.b.c")
    other.calls._log_in_again()
    with pytest.raises(BackendError, match="signature"):
        other.stat("a")
    path.write_text(good)
    assert other.stat("a") is not None


@pytest.mark.parametrize("skew", [-400, 400])
def test_a_wrong_clock_is_called_a_wrong_clock(server: OCIServer, store: OCIStore, skew: int) -> None:
    server.control(settings={"skew": skew})
    text = refused(server, store, BackendError)
    assert f"clock is {abs(skew)} s {'behind' if skew > 0 else 'ahead'}" in text.replace("399", "400").replace(
        "401", "400"
    )
    server.control(settings={"skew": skew * 0.7})
    put(store, "a", b"a")


def test_a_wrong_bucket_or_namespace(server: OCIServer, store: OCIStore) -> None:
    right = store.bucket
    for attribute, value, words in (
        ("bucket", "nothing", "bucket 'nothing' of namespace 'openlab' does not exist"),
        ("namespace", "elsewhere", "no namespace 'elsewhere'"),
    ):
        other = other_user(server, store)
        setattr(other, attribute, value)
        setattr(other.calls, attribute, value)
        for verb in (lambda: put(other, "x", b""), lambda: other.stat("x"), lambda: other.get("x")):  # noqa: B023
            with pytest.raises(BackendError, match=words):
                verb()
    assert store.bucket == right


@pytest.mark.parametrize("denied", ["hidden", "403"])
def test_a_user_who_may_only_read(server: OCIServer, store: OCIStore, small_parts: None, denied: str) -> None:
    server.control(settings={"denied": denied})
    put(store, "a", b"text")
    reader = other_user(server, store, "READER")
    assert reader.get("a").read() == b"text"
    assert [info.key for info in reader.list("")] == ["a"]
    for verb in (
        lambda: put(reader, "b", b"x", "exclusive"),
        lambda: put(reader, "b", bytes(3 << 20)),
        lambda: put(reader, "a", b"x", "hint"),
        lambda: reader.delete(["a"]),
    ):
        with pytest.raises(ReadOnly, match=r"may read, but not write.*policy"):
            verb()
    assert [info.key for info in store.list("")] == ["a"]


def test_a_full_bucket(server: OCIServer, small_parts: None) -> None:
    url, options = server.fresh(quota=4 << 20)
    store = open_store(url, options, True)
    put(store, "a", bytes(1 << 20))
    for mode, size in (("exclusive", (2 << 20) - 1), ("content", 3 << 20)):
        put(store, "b", bytes(1 << 20), "hint")
        with pytest.raises(NoSpace, match=r"quota.*catalog gc"):
            put(store, "c", bytes(size + (1 << 20)), mode)
    assert [info.key for info in store.list("")] == ["a", "b"]


def test_a_retention_rule_forbids_to_delete(server: OCIServer) -> None:
    url, options = server.fresh(retention=[{"id": "r", "displayName": "keep"}])
    store = open_store(url, options, True)
    put(store, "a", b"a")
    with pytest.raises(ReadOnly, match="retention rule"):
        store.delete(["a"])
    assert store.get("a").read() == b"a"


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


def test_no_secret_is_in_a_message_or_a_log(
    server: OCIServer,
    store: OCIStore,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """All errors of all users, with every logger at DEBUG and the SDK asked to log requests."""
    config = tmp_path / "config"
    words = "correct horse battery"
    text = server.config.read_text().replace("region=", f"log_requests=true\npass_phrase={words}\nregion=")
    config.write_text(text)
    secrets = [words, *(path.read_text() for path in server.run.glob("*.token"))]
    secrets += [line for path in server.run.glob("*.pem") for line in path.read_text().splitlines()[1:-1]]
    shown = []
    with caplog.at_level(logging.DEBUG):
        for profile in ("DEFAULT", "READER", "TOKEN", "EXPIRED", "STRANGER", "MISSING"):
            url = f"oci://{store.bucket}@{NAMESPACE}/x"
            options = {**server.options(profile), "oci_config_file": str(config), "deadline": 0.3}
            for fault in ("", "503", "drop"):
                server.fault(*([{"fault": fault, "times": -1}] if fault else []))
                try:
                    put(open_store(url, options, False), "a", b"a", "hint")
                except CatalogError as exc:
                    error: BaseException | None = exc
                    while error is not None:
                        shown.append(f"{error} {error!r} {getattr(error, 'hint', '')}")
                        error = error.__cause__ or error.__context__
                shown += [f"{check}" for check in doctor.checks(url, options)]
    out = "\n".join([*shown, caplog.text, *capfd.readouterr()])
    assert len(shown) > 50
    assert [secret for secret in secrets if len(secret) > 20 and secret in out] == []
    assert words not in out


# ---------------------------------------------------------------------------------------------------- the doctor


def examine(url: str, options: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {check.id: (check.result, check.cause) for check in doctor.checks(url, {"deadline": 1.0, **options})}


def test_the_doctor_passes_a_bucket_that_is_fine_and_writes_nothing(server: OCIServer, store: OCIStore) -> None:
    found = examine(f"oci://{store.bucket}@{NAMESPACE}/team", server.options())
    assert {result for result, _ in found.values()} == {"passed"}
    assert tuple(found) == doctor.NAMES
    assert f"profile 'DEFAULT' of {server.config}" in found["credentials"][1]
    assert list(bare(server).list_objects(NAMESPACE, store.bucket).data.objects) == []


@pytest.mark.parametrize(
    ("check", "words", "change"),
    [
        ("credentials", "no profile 'NOBODY'", {"oci_profile": "NOBODY"}),
        ("credentials", "key file of profile 'MISSING'", {"oci_profile": "MISSING"}),
        ("credentials", "expired at", {"oci_profile": "EXPIRED"}),
        ("signature", "does not accept the signature", {"oci_profile": "STRANGER"}),
        ("signature", "connection refused", {"service_endpoint": "http://127.0.0.1:9"}),
        ("bucket", "does not exist", {"url": f"oci://nothing@{NAMESPACE}/x"}),
        ("bucket", "no namespace 'other'", {"url": "oci://nothing@other/x"}),
    ],
)
def test_the_doctor_names_what_fails_and_skips_the_rest(
    server: OCIServer, store: OCIStore, check: str, words: str, change: dict[str, str]
) -> None:
    url = change.pop("url", f"oci://{store.bucket}@{NAMESPACE}/team")
    found = examine(url, {**server.options(), **change})
    assert found[check][0] == "failed"
    assert words in found[check][1]
    later = list(found)[list(found).index(check) + 1 :]
    assert {found[name][0] for name in later} == {"skipped"}


def test_the_doctor_warns_of_what_the_bucket_keeps(server: OCIServer) -> None:
    rule = {"id": "r", "displayName": "keep", "duration": {"timeAmount": 30, "timeUnit": "DAYS"}}
    found = examine(*server.fresh(versioning="Enabled", retention=[rule], publicAccessType="ObjectRead"))
    assert [name for name, (result, _) in found.items() if result == "warned"] == ["bucket", "versioning", "retention"]
    assert "lifecycle" in found["versioning"][1]
    assert "30 days" in found["retention"][1]


def test_the_doctor_warns_of_a_clock_before_it_is_refused(server: OCIServer, store: OCIStore) -> None:
    url = f"oci://{store.bucket}@{NAMESPACE}/team"
    for skew, result in ((100, "warned"), (270, "failed")):
        server.control(settings={"skew": skew})
        assert examine(url, server.options())["clock"][0] == result
    server.control(settings={"skew": 400})
    assert "clock is" in examine(url, server.options())["signature"][1]


def test_the_doctor_says_who_may_only_read(server: OCIServer, store: OCIStore) -> None:
    found = examine(f"oci://{store.bucket}@{NAMESPACE}/team", server.options("READER"))
    assert found["rights to read"][0] == "passed"
    assert found["rights to write"][0] == "warned"


def test_nothing_is_asked_before_it_has_to_be(server: OCIServer) -> None:
    """A catalog can be opened offline, and the SDK is imported when it is used."""
    store = open_store("oci://b@n/x", {"oci_config_file": "/nonexistent"}, False)
    with pytest.raises(ConfigError):
        store.stat("a")
    with pytest.raises((DeadlineExceeded, BlobMissing)):
        nowhere = {**server.options(), "service_endpoint": "http://127.0.0.1:9", "deadline": 0.5}
        open_store("oci://b@n/x", nowhere, False).get("a")
