"""Upload and download through the OCI backend, against Oracle's bare SDK on the same server in the same run (the tests'
own server, in a process beside this one)."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from oci_server import NAMESPACE, OCIServer
from weights import interleaved, ratio, record

ROUNDS = 7
BLOCK = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[OCIServer]:
    pytest.importorskip("oci")
    with OCIServer(process=True) as server:
        yield server


def bare_client(server: OCIServer) -> Any:
    import oci

    config = oci.config.from_file(str(server.config))
    off = oci.circuit_breaker.NoCircuitBreakerStrategy()
    return oci.object_storage.ObjectStorageClient(
        config, service_endpoint=server.endpoint, circuit_breaker_strategy=off
    )


def sha256(read: Callable[[], bytes]) -> str:
    found = hashlib.sha256()
    while block := read():
        found.update(block)
    return found.hexdigest()


def test_upload_and_download(benchmark, server: OCIServer, tmp_path: Path, size: int) -> None:
    """`UploadManager` as it comes hashes too (MD5 of each part); a bare download does not, ours is also timed so."""
    import oci

    from catalog_oci.store import open_store

    size = min(size, 512_000_000)
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(1_000_000) * (size // 1_000_000))
    digest = sha256(io.BytesIO(path.read_bytes()).read)
    key = f"blobs/sha256/{digest[:2]}/{digest}"
    url, options = server.fresh()
    store, client = open_store(url, options, True), bare_client(server)
    manager = oci.object_storage.UploadManager(client)

    def bare_put() -> None:
        manager.upload_file(NAMESPACE, store.bucket, "bare", str(path))

    def put() -> None:
        with path.open("rb") as file:
            store.put(key, file, size, "content")

    def bare_get() -> None:
        body = client.get_object(NAMESPACE, store.bucket, "bare").data.raw
        assert sum(len(block) for block in body.stream(BLOCK, decode_content=False)) == size

    def get() -> None:
        with store.get(key) as stream:
            assert sum(len(block) for block in iter(lambda: stream.read(BLOCK), b"")) == size

    def get_and_hash() -> None:
        with store.get(key) as stream:
            assert sha256(lambda: stream.read(BLOCK)) == digest

    def settle() -> None:
        store.delete([key])
        client.delete_object(NAMESPACE, store.bucket, "bare")
        os.sync()

    times = interleaved(
        ROUNDS, bare_put=bare_put, put=put, bare_get=bare_get, get=get, get_and_hash=get_and_hash, settle=settle
    )  # fmt: skip
    put_ratio, get_ratio = ratio(times, "bare_put", "put"), ratio(times, "bare_get", "get_and_hash")
    record(benchmark, times, put=put_ratio, get=ratio(times, "bare_get", "get"), get_and_hash=get_ratio)
    benchmark.pedantic(lambda: None, rounds=1)
    assert size < 100_000_000 or (put_ratio >= 0.8 and get_ratio >= 0.8)


def test_small_objects(benchmark, server: OCIServer) -> None:
    """500 of 4 KB in each round, one after the other; ours carry a SHA-256, a condition and a writer's id."""
    from catalog_oci.store import open_store

    url, options = server.fresh()
    store, client = open_store(url, options, True), bare_client(server)
    data, rounds = os.urandom(4096), iter(range(1000))

    def bare_put() -> None:
        n = next(rounds)
        for k in range(500):
            client.put_object(NAMESPACE, store.bucket, f"bare/{n}/{k}", data)

    def put() -> None:
        n = next(rounds)
        for k in range(500):
            store.put(f"small/{n}/{k}", io.BytesIO(data), len(data), "exclusive")

    times = interleaved(ROUNDS, bare_put=bare_put, put=put)
    record(benchmark, times, put=ratio(times, "bare_put", "put"))
    benchmark.pedantic(lambda: None, rounds=1)
    assert ratio(times, "bare_put", "put") >= 0.8
