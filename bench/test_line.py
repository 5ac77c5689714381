"""Models in catalogs at the end of a line of 1 Gb/s each way, against the bare client of the same server over the same
line, in the same run. On loopback what is compared is mostly who hashes: nobody's data centre is a loopback."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line import Line
from weights import interleaved, ratio, record, state

from catalog_core import Catalog

ROUNDS = 3
RATE = 125_000_000
BLOCK = 8 << 20
Bare = tuple[Callable[[], object], Callable[[], object]]
Far = tuple[str, dict[str, Any], Callable[[bytes], Bare]]


def eos(stack: ExitStack) -> Far:
    pytest.importorskip("XRootD")
    import xrootd_server
    from XRootD import client
    from XRootD.client.flags import OpenFlags

    reason = xrootd_server.missing()
    if reason:
        pytest.skip(reason)
    server = stack.enter_context(xrootd_server.XrootdServer())
    line = stack.enter_context(Line(server.port, RATE))
    url = server.fresh()[0].replace(f":{server.port}/", f":{line.port}/")
    place = f"{url.rpartition('/models/')[0]}//models/bare"

    def bare(whole: bytes) -> Bare:
        def put() -> None:
            file = client.File()
            assert file.open(place, OpenFlags.DELETE | OpenFlags.MAKEPATH, 0o644)[0].ok
            for start in range(0, len(whole), BLOCK):
                assert file.write(whole[start : start + BLOCK], start)[0].ok
            assert file.sync()[0].ok
            assert file.close()[0].ok

        def get() -> None:
            file = client.File()
            assert file.open(place, OpenFlags.READ)[0].ok
            start = 0
            while start < len(whole):
                start += len(file.read(start, BLOCK)[1])
            file.close()

        return put, get

    return url, {}, bare


def oci(stack: ExitStack) -> Far:
    sdk = pytest.importorskip("oci")
    from oci_server import NAMESPACE, OCIServer

    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
    server = stack.enter_context(OCIServer(process=True, run=folder))
    line = stack.enter_context(Line(server.port, RATE))
    url, options = server.fresh()
    options["service_endpoint"] = f"http://127.0.0.1:{line.port}"
    client = sdk.object_storage.ObjectStorageClient(
        sdk.config.from_file(str(server.config)),
        service_endpoint=options["service_endpoint"],
        circuit_breaker_strategy=sdk.circuit_breaker.NoCircuitBreakerStrategy(),
    )
    manager, bucket = sdk.object_storage.UploadManager(client), url.partition("//")[2].partition("@")[0]

    def bare(whole: bytes) -> Bare:
        path = folder / "whole"
        path.write_bytes(whole)

        def get() -> None:
            body = client.get_object(NAMESPACE, bucket, "bare").data.raw
            for _ in body.stream(1 << 20, decode_content=False):
                pass

        return lambda: manager.upload_file(NAMESPACE, bucket, "bare", str(path)), get

    return url, options, bare


def s3(stack: ExitStack) -> Far:
    store = pytest.importorskip("obstore").store
    s3_server = pytest.importorskip("s3_server")
    server = stack.enter_context(s3_server.S3Server(volumes=200))
    line = stack.enter_context(Line(server.ports[0], RATE))
    url, options = server.fresh()
    options["endpoint"] = f"http://127.0.0.1:{line.port}"
    stack.enter_context(pytest.MonkeyPatch.context()).setenv("AWS_SHARED_CREDENTIALS_FILE", str(server.credentials))
    access, secret, _ = s3_server.USERS["writer"]
    client = store.S3Store(
        "catalogs", endpoint=options["endpoint"], access_key_id=access, secret_access_key=secret, region="us-east-1",
        virtual_hosted_style_request=False, client_options={"allow_http": True, "timeout": "60s"},
    )  # fmt: skip

    def bare(whole: bytes) -> Bare:
        def get() -> None:
            for _ in client.get("bare").stream(min_chunk_size=1 << 20):
                pass

        return lambda: client.put("bare", whole), get

    return url, options, bare


@pytest.fixture(params=[eos, oci, s3], ids=lambda made: made.__name__)
def far(request: pytest.FixtureRequest) -> Iterator[Far]:
    with ExitStack() as stack:
        yield request.param(stack)


def test_a_model_at_the_end_of_a_line(
    benchmark, far: Far, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save of a model, of the same with 5 % of its layers changed, and a checked read of all of it into no cache."""
    url, options, make = far
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CATALOG_CONFIG", str(tmp_path / "catalog.toml"))
    first = state(min(size, 512_000_000))
    changed = first | {name: array[::-1].copy() for name, array in list(first.items())[60:70]}
    bare_put, bare_get = make(b"".join(memoryview(array).cast("B") for array in first.values()))
    catalogs: list[Catalog] = []

    def save() -> None:
        lines = [f"{key} = {value!r}" for key, value in {"url": f"{url}/{len(catalogs)}", **options}.items()]
        (tmp_path / "catalog.toml").write_text("\n".join(["[catalogs.far]", *lines]) + "\n")
        catalogs.append(Catalog.open("far"))
        catalogs[-1].save("m", first)

    def read() -> None:
        artifact = catalogs[-1].artifact("m@1")
        reader = artifact.reader(artifact.manifest.components[0])
        assert sum(len(piece) for piece in reader.pieces("model.safetensors")) > size * 0.99 or size > 512_000_000

    times = interleaved(
        ROUNDS, bare_put=bare_put, save=save, again=lambda: catalogs[-1].save("m", changed), bare_get=bare_get,
        read=read, settle=os.sync,
    )  # fmt: skip
    assert np.array_equal(catalogs[-1].load("m@2")["layer065.weight"], changed["layer065.weight"])
    ratios = {
        "save_to_bare": ratio(times, "bare_put", "save"), "read_to_bare": ratio(times, "bare_get", "read"),
        "again": ratio(times, "save", "again"),
    }  # fmt: skip
    record(benchmark, times, **ratios)
    benchmark.pedantic(lambda: None, rounds=1)
    for catalog in catalogs:
        catalog.close()
    if size >= 100_000_000:
        assert ratios["save_to_bare"] >= 0.8 and ratios["read_to_bare"] >= 0.8, ratios
