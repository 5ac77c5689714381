"""Upload and download through the S3 backend, against bare obstore on the same server in the same run."""

from __future__ import annotations

import io
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from weights import interleaved, ratio, record, state

from catalog_core import Catalog

ROUNDS = 5
CHUNK = 64 << 20
SMALL, COUNT = 4096, 500

obstore = pytest.importorskip("obstore")
s3_server = pytest.importorskip("s3_server")


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.S3Server]:
    with s3_server.S3Server(volumes=200) as server:
        yield server


@pytest.fixture(autouse=True)
def _keys(server: s3_server.S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(server.credentials))
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))


def opened(server: s3_server.S3Server, monkeypatch: pytest.MonkeyPatch, folder: Path, **more: str) -> Catalog:
    """A new catalog on the server."""
    url, options = server.fresh()
    options |= more
    lines = [f"{key} = {value!r}" for key, value in {"url": url, **options}.items()]
    (folder / "catalog.toml").write_text("\n".join(["[catalogs.far]", *lines]) + "\n")
    monkeypatch.setenv("CATALOG_CONFIG", str(folder / "catalog.toml"))
    return Catalog.open("far")


def spread(times: dict[str, list[float]]) -> dict[str, str]:
    """Fastest and slowest of each, in seconds."""
    return {f"{name} range": f"{min(values):.3f} to {max(values):.3f}" for name, values in times.items()}


def test_upload_and_download(benchmark, server: s3_server.S3Server, size: int) -> None:
    from catalog_s3.store import open_store

    size = min(size, 512_000_000)
    url, options = server.fresh()
    store, bare = open_store(url, options, True), server._store("catalogs")
    whole = os.urandom(1_000_000) * (size // 1_000_000)
    chunks = {start: memoryview(whole)[start : start + CHUNK] for start in range(0, size, CHUNK)}

    def put() -> None:
        store.put("blob", io.BytesIO(whole), size, "content")

    def hashed_put() -> None:
        """As the core does it: every chunk is hashed and put, four at a time, and the whole is hashed beside it."""

        def one(start: int) -> None:
            digest = sha256(chunks[start]).hexdigest()
            store.put(f"{digest}-{start}", io.BytesIO(chunks[start]), len(chunks[start]), "content")

        with ThreadPoolExecutor(5) as pool:
            last = pool.submit(sha256, whole)
            list(pool.map(one, chunks))
            last.result()

    def bare_get() -> None:
        for _ in bare.get("bare").stream(min_chunk_size=1 << 20):
            pass

    def get() -> None:
        with store.get("blob") as stream:
            while stream.read(1 << 20):
                pass

    def hashed_get() -> None:
        digest = sha256()
        with store.get("blob") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)

    times = interleaved(
        ROUNDS, bare_put=lambda: bare.put("bare", whole), put=put, hashed_put=hashed_put, bare_get=bare_get, get=get,
        hashed_get=hashed_get,
    )  # fmt: skip
    record(
        benchmark, times,
        **{name: ratio(times, f"bare_{name.rpartition('_')[2]}", name) for name in times if "bare" not in name},
    )  # fmt: skip
    benchmark.extra_info.update(spread(times))
    benchmark.pedantic(lambda: None, rounds=1)
    assert size < 100_000_000 or ratio(times, "bare_put", "hashed_put") >= 0.8


def test_a_model_in_a_catalog(
    benchmark, server: s3_server.S3Server, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save of a model, of the same with 5 % of its layers changed, and a checked read of all of it that fills no
    cache, against obstore with the same bytes."""
    size = min(size, 512_000_000)
    bare = server._store("catalogs")
    first = state(size)
    changed = first | {name: array[::-1].copy() for name, array in list(first.items())[60:70]}
    whole = b"".join(memoryview(array).cast("B") for array in first.values())
    catalogs: list[Catalog] = []

    def save() -> None:
        catalogs.append(opened(server, monkeypatch, tmp_path))
        catalogs[-1].save("m", first)

    def read() -> None:
        artifact = catalogs[-1].artifact("m@1")
        reader = artifact.reader(artifact.manifest.components[0])
        count = sum(len(piece) for piece in reader.pieces("model.safetensors"))
        assert count > size * 0.99

    def bare_get() -> None:
        for _ in bare.get("bare").stream(min_chunk_size=1 << 20):
            pass

    times = interleaved(
        ROUNDS, bare_put=lambda: bare.put("bare", whole), save=save, again=lambda: catalogs[-1].save("m", changed),
        bare_get=bare_get, read=read,
    )  # fmt: skip
    assert np.array_equal(catalogs[-1].load("m@2")["layer065.weight"], changed["layer065.weight"])
    record(
        benchmark, times, save_to_bare=ratio(times, "bare_put", "save"), read_to_bare=ratio(times, "bare_get", "read"),
        again=ratio(times, "save", "again"),
    )  # fmt: skip
    benchmark.extra_info.update(spread(times))
    benchmark.extra_info["new bytes of the second"] = catalogs[-1].version("m@2").summary["new_bytes"]
    benchmark.pedantic(lambda: None, rounds=1)
    for catalog in catalogs:
        catalog.close()


def test_a_model_over_a_slow_line(
    benchmark, server: s3_server.S3Server, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The saves of above at 20 MB/s. (On loopback two hashes of all bytes are most of the second.)"""
    first = state(min(size, 512_000_000))
    changed = first | {name: array[::-1].copy() for name, array in list(first.items())[60:70]}
    catalogs: list[Catalog] = []

    def save() -> None:
        catalogs.append(opened(server, monkeypatch, tmp_path, bandwidth="20MB"))
        catalogs[-1].save("m", first)

    times = interleaved(3, save=save, again=lambda: catalogs[-1].save("m", changed))
    record(benchmark, times, again=ratio(times, "save", "again"))
    benchmark.extra_info.update(spread(times))
    benchmark.pedantic(lambda: None, rounds=1)
    for catalog in catalogs:
        catalog.close()
    assert size < 100_000_000 or ratio(times, "save", "again") >= 10


def test_small_objects(benchmark, server: s3_server.S3Server) -> None:
    """The 500 of a round, one after the other."""
    from catalog_s3.store import open_store

    url, options = server.fresh()
    store, bare = open_store(url, options, True), server._store("catalogs")
    data, begun = os.urandom(SMALL), iter(range(1_000_000))

    def each(call: object) -> object:
        def run() -> None:
            at = next(begun)
            for number in range(COUNT):
                call(f"small/{at}/{number:06}")  # type: ignore[operator]

        return run

    def again(call: object) -> object:
        def run() -> None:
            for number in range(COUNT):
                call(f"fixed/{number:06}")  # type: ignore[operator]

        return run

    for number in range(COUNT):
        bare.put(f"fixed/{number:06}", data)
        store.put(f"fixed/{number:06}", io.BytesIO(data), SMALL, "content")
    times = interleaved(
        3,
        bare_put=each(lambda key: bare.put(key, data)),
        put=each(lambda key: store.put(key, io.BytesIO(data), SMALL, "content")),
        append=each(lambda key: store.put(key, io.BytesIO(data), SMALL, "exclusive")),
        bare_get=again(lambda key: bare.get(key).bytes()),
        get=again(lambda key: store.get(key).read()),
        stat=again(lambda key: store.stat(key)),
    )
    each_ms = {f"{name}, one": round(statistics.median(v) / COUNT * 1e3, 3) for name, v in times.items()}
    benchmark.extra_info.update(each_ms | spread(times))
    record(
        benchmark, times, put=ratio(times, "bare_put", "put"), get=ratio(times, "bare_get", "get"),
        list_of_500=float(len(list(store.list("fixed/")))),
    )  # fmt: skip
    benchmark.pedantic(lambda: list(store.list("fixed/")), rounds=5)
