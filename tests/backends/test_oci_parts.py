"""Large blobs in a bucket of OCI: parts side by side, and uploads that were left."""

from __future__ import annotations

import os
import threading
from typing import Any

import oci
import pytest
from oci_server import NAMESPACE, OCIServer
from oci_store import bare, blob, calm, cut_small, new_store, put, run

from catalog_core.errors import BackendError
from catalog_oci import parts
from catalog_oci.store import OCIStore

pytestmark = pytest.mark.server
running, server, store = pytest.fixture(run, scope="module"), pytest.fixture(calm), pytest.fixture(new_store)
small_parts = pytest.fixture(cut_small)


def test_parts_travel_side_by_side(
    server: OCIServer, store: OCIStore, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the four that the options allow waits for the other three."""
    data, send = os.urandom(8 << 20), parts.Parts._send
    together = threading.Barrier(store.calls.options.parallel, timeout=10)

    def wait_and_send(*args: Any) -> str:
        together.wait()
        return send(*args)

    monkeypatch.setattr(parts.Parts, "_send", wait_and_send)
    put(store, blob(data), data)
    assert store.get(blob(data)).read() == data


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
