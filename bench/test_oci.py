"""Upload and download through the OCI backend, against Oracle's bare SDK on the same server in the same run (the tests'
own server, in a process beside this one)."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from oci_server import NAMESPACE, OCIServer
from weights import interleaved, ratio, record

ROUNDS = 7
BLOCK, CHUNK = 1 << 20, 64 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[OCIServer]:
    """Its objects lie in memory where that is possible: clients are compared, not how a disk writes back."""
    pytest.importorskip("oci")
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder, OCIServer(process=True, run=Path(folder)) as server:
        yield server


def bare_client(server: OCIServer) -> Any:
    import oci

    config = oci.config.from_file(str(server.config))
    off = oci.circuit_breaker.NoCircuitBreakerStrategy()
    return oci.object_storage.ObjectStorageClient(
        config, service_endpoint=server.endpoint, circuit_breaker_strategy=off
    )


def sha256(blocks: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for block in blocks:
        found.update(block)
    return found.hexdigest()


def test_upload_and_download(benchmark, server: OCIServer, tmp_path: Path, size: int) -> None:
    """`UploadManager` as it comes hashes (MD5 of each part), so does `put`. Downloads are timed without and with a
    SHA-256 of what came, and as the catalog does it: chunks side by side, each with its SHA-256."""
    import oci

    from catalog_oci.store import open_store

    size = min(size, 512_000_000)
    path = tmp_path / "blob"
    whole = os.urandom(1_000_000) * (size // 1_000_000)
    path.write_bytes(whole)
    digest = hashlib.sha256(whole).hexdigest()
    key = f"blobs/sha256/{digest[:2]}/{digest}"
    digests = [hashlib.sha256(whole[start : start + CHUNK]).hexdigest() for start in range(0, size, CHUNK)]
    url, options = server.fresh()
    store, client = open_store(url, options, True), bare_client(server)
    manager = oci.object_storage.UploadManager(client)

    def bare_put() -> None:
        manager.upload_file(NAMESPACE, store.bucket, "bare", str(path))

    def put() -> None:
        with path.open("rb") as file:
            store.put(key, file, size, "content")

    def bare_body() -> Iterator[bytes]:
        body = client.get_object(NAMESPACE, store.bucket, "bare").data.raw
        yield from body.stream(BLOCK, decode_content=False)

    def body() -> Iterator[bytes]:
        with store.get(key) as stream:
            yield from iter(lambda: stream.read(BLOCK), b"")

    def get_chunk(start: int) -> str:
        with store.get(key, start, min(CHUNK, size - start)) as stream:
            return sha256(iter(lambda: stream.read(BLOCK), b""))

    def get_chunks() -> None:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(get_chunk, range(0, size, CHUNK))) == digests

    def check(found: str) -> None:
        assert found == digest

    def rounds(count: int) -> dict[str, list[float]]:
        # each object goes before the next comes: on a virtual machine memory that was never used is slow
        return interleaved(
            count,
            bare_put=bare_put,
            bare_get=lambda: deque(bare_body(), 0),
            bare_get_sha256=lambda: check(sha256(bare_body())),
            bare_remove=lambda: client.delete_object(NAMESPACE, store.bucket, "bare"),
            put=put,
            get=lambda: deque(body(), 0),
            get_sha256=lambda: check(sha256(body())),
            get_chunks_sha256=get_chunks,
            remove=lambda: store.delete([key]),
        )

    rounds(1)
    times = rounds(ROUNDS)
    ratios = {
        "put": ratio(times, "bare_put", "put"),
        "get": ratio(times, "bare_get", "get"),
        "get_sha256": ratio(times, "bare_get_sha256", "get_sha256"),
        "get_chunks_sha256": ratio(times, "bare_get_sha256", "get_chunks_sha256"),
    }
    unhashed = ratio(times, "bare_get", "get_chunks_sha256")
    record(benchmark, times, **ratios, get_chunks_sha256_to_unhashed=unhashed)
    benchmark.extra_info["seconds"] = times
    benchmark.pedantic(lambda: None, rounds=1)
    assert size < 100_000_000 or min(ratios.values()) >= 0.8, ratios


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
    benchmark.extra_info["seconds"] = times
    benchmark.pedantic(lambda: None, rounds=1)
    assert ratio(times, "bare_put", "put") >= 0.8
