"""How long a store that does not answer is waited for, as a multiple of the time that the configuration allows.

A server that hangs is stopped by SIGSTOP, or is a socket that takes connections and never answers; one that is down is
a port where nobody listens."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import xrootd_server

from catalog_core.errors import CatalogError

SECONDS = 2.0  # that each configuration allows


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a socket that takes connections and never answers."""
    with socket.socket() as socket_:
        socket_.bind(("127.0.0.1", 0))
        socket_.listen(64)
        yield f"http://127.0.0.1:{socket_.getsockname()[1]}"


def multiples(store: Any, allowed: float) -> dict[str, float]:
    """Verb → seconds until its error, as a multiple of `allowed`."""
    calls: dict[str, Callable[[], object]] = {
        "stat": lambda: store.stat("a"),
        "get": lambda: store.get("a").read(),
        "put": lambda: store.put("a", io.BytesIO(b"x"), 1, "content"),
        "list": lambda: list(store.list("")),
    }
    found = {}
    for name, call in calls.items():
        begin = time.perf_counter()
        with pytest.raises(CatalogError):
            call()
        found[name] = round((time.perf_counter() - begin) / allowed, 2)
    return found


def test_s3(benchmark, deaf: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    pytest.importorskip("obstore")
    from catalog_s3.store import open_store

    (tmp_path / "keys").write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    for name, endpoint in {"down": "http://127.0.0.1:9", "deaf": deaf}.items():
        options = {"endpoint": endpoint, "region": "us-east-1", "timeout": int(SECONDS)}
        benchmark.extra_info[name] = multiples(open_store("s3://catalogs/x", options, False), SECONDS)
    benchmark.pedantic(lambda: None, rounds=1)


def test_oci(benchmark, deaf: str) -> None:
    pytest.importorskip("oci")
    from oci_server import OCIServer

    from catalog_oci.store import open_store

    with OCIServer() as server:
        for name, endpoint in {"down": "http://127.0.0.1:9", "deaf": deaf}.items():
            options = server.options(service_endpoint=endpoint, deadline=SECONDS)
            store = open_store("oci://models@openlab/x", options, False)
            benchmark.extra_info[name] = multiples(store, SECONDS)
    benchmark.pedantic(lambda: None, rounds=1)


def test_eos(benchmark) -> None:
    pytest.importorskip("XRootD")
    reason = xrootd_server.missing()
    if reason:
        pytest.skip(reason)
    from catalog_eos.store import open_store

    with xrootd_server.XrootdServer() as server:
        store = open_store(server.fresh()[0], {"timeout": int(SECONDS)}, True)
        store.put("here", io.BytesIO(os.urandom(1000)), 1000, "content")
        server.pause()
        try:
            benchmark.extra_info["paused"] = multiples(store, SECONDS)
        finally:
            server.resume()
        server.kill()
        benchmark.extra_info["killed"] = multiples(store, SECONDS)
    benchmark.pedantic(lambda: None, rounds=1)
