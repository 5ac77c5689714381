"""Upload and download through the EOS backend, against XRootD's bare client on the same server in the same run."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest
import xrootd_server
from weights import interleaved, ratio, record

from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.parallel import in_order

ROUNDS = 5
BLOCK, CHUNK = 8 << 20, 64 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[xrootd_server.XrootdServer]:
    pytest.importorskip("XRootD")
    reason = xrootd_server.missing()
    if reason:
        pytest.skip(reason)
    with xrootd_server.XrootdServer() as server:
        yield server


def test_upload_and_download(benchmark, server: xrootd_server.XrootdServer, size: int) -> None:
    from XRootD import client
    from XRootD.client.flags import OpenFlags, QueryCode

    from catalog_eos.remote import split
    from catalog_eos.store import open_store

    size = min(size, 512_000_000)
    url = server.fresh()[0]
    store, (host, folder) = open_store(url, {}, True), split(url)
    whole = os.urandom(1_000_000) * (size // 1_000_000)
    data = memoryview(whole)

    def bare_put() -> None:
        file = client.File()
        assert file.open(f"{host}/{folder}/bare", OpenFlags.DELETE, 0o644)[0].ok
        for start in range(0, size, BLOCK):
            assert file.write(bytes(data[start : start + BLOCK]), start)[0].ok
        assert file.sync()[0].ok
        assert file.close()[0].ok

    def summed_put() -> None:
        bare_put()
        assert client.FileSystem(host).query(QueryCode.CHECKSUM, f"{folder}/bare")[0].ok

    def put() -> None:
        store.put("blob", io.BytesIO(whole), size, "content")

    def bare_get() -> None:
        file = client.File()
        assert file.open(f"{host}/{folder}/bare", OpenFlags.READ)[0].ok
        start = 0
        while start < size:
            start += len(file.read(start, BLOCK)[1])
        file.close()

    def get() -> None:
        with store.get("blob") as stream:
            while stream.read(1 << 20):
                pass

    def settle() -> None:
        store.delete(["bare", "blob"])
        os.sync()

    times = interleaved(
        ROUNDS, bare_put=bare_put, summed_put=summed_put, put=put, bare_get=bare_get, get=get, settle=settle
    )  # fmt: skip
    record(
        benchmark,
        times,
        put=ratio(times, "bare_put", "put"),
        put_to_summed=ratio(times, "summed_put", "put"),
        get=ratio(times, "bare_get", "get"),
    )
    benchmark.pedantic(lambda: None, rounds=1)
    assert size < 100_000_000 or ratio(times, "bare_get", "get") >= 0.8
    assert size < 100_000_000 or ratio(times, "summed_put", "put") >= 0.8


def test_upload_as_the_catalog_does_it(benchmark, server: xrootd_server.XrootdServer, size: int) -> None:
    """Eight chunks, four at a time, each with its size and adler32 compared with the server's; the bare client trusts
    what it sent, as one file and as the same eight."""
    from XRootD import client
    from XRootD.client.flags import OpenFlags

    from catalog_eos.remote import split
    from catalog_eos.store import open_store

    length = min(CHUNK, size // 8)
    url = server.fresh()[0]
    store, (host, folder) = open_store(url, {}, True), split(url)
    blobs = ObjectStoreBackend(store, "eos", url).blobs
    chunks = {"sha256:" + sha256(data).hexdigest(): data for data in (os.urandom(length) for _ in range(8))}
    whole = b"".join(chunks.values())

    def bare_put(name: str, data: bytes) -> None:
        file = client.File()
        assert file.open(f"{host}/{folder}/{name}", OpenFlags.NEW | OpenFlags.MAKEPATH, 0o644)[0].ok
        for start in range(0, len(data), BLOCK):
            assert file.write(data[start : start + BLOCK], start)[0].ok
        assert file.sync()[0].ok
        assert file.close()[0].ok

    def four_at_a_time(put: Callable[[str], None]) -> None:
        list(in_order(put, chunks, 4, 8))

    def settle() -> None:
        blobs.delete(chunks)
        store.delete(["bare", *(f"bare-{key[7:]}" for key in chunks)])
        os.sync()

    times = interleaved(
        ROUNDS,
        one_bare=lambda: bare_put("bare", whole),
        settle=settle,
        eight_bare=lambda: four_at_a_time(lambda key: bare_put(f"bare-{key[7:]}", chunks[key])),
        settle_again=settle,
        put=lambda: four_at_a_time(lambda key: blobs.put(key, io.BytesIO(chunks[key]), length)),
        settle_last=settle,
    )
    record(benchmark, times, to_one=ratio(times, "one_bare", "put"), to_eight=ratio(times, "eight_bare", "put"))
    benchmark.extra_info["seconds"] = times
    benchmark.pedantic(lambda: None, rounds=1)
    assert length < CHUNK or ratio(times, "one_bare", "put") >= 0.4


def test_small_objects(benchmark, server: xrootd_server.XrootdServer) -> None:
    from catalog_eos.store import open_store

    store = open_store(server.fresh()[0], {}, True)
    numbers = iter(range(1_000_000))
    last: list[int] = []

    def put() -> None:
        last.append(next(numbers))
        store.put(f"small/{last[-1]:06}", io.BytesIO(b"x" * 1024), 1024, "content")

    def append() -> None:
        store.put(f"entries/{next(numbers):06}", io.BytesIO(b"x" * 1024), 1024, "exclusive")

    times = interleaved(
        100, put=put, append=append, stat=lambda: store.stat(f"small/{last[-1]:06}"),
        get=lambda: store.get(f"small/{last[-1]:06}").read(),
    )  # fmt: skip
    record(benchmark, times)
    benchmark.pedantic(lambda: list(store.list("small/")), rounds=5)
