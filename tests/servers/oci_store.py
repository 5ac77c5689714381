"""A store in a bucket of a server of the tests, and what several files of tests do with it. The functions at the top
are fixtures: a file names those that it uses, as `server = pytest.fixture(calm)`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import oci
import pytest
from oci_server import NAMESPACE, OCIServer

from catalog_oci import parts, source
from catalog_oci import store as store_module
from catalog_oci.store import OCIStore, open_store

CALM: dict[str, Any] = {"latency": 0.0, "skew": 0.0, "denied": "hidden", "page": 1000}


def run() -> Iterator[OCIServer]:
    """For all tests of a file."""
    with OCIServer() as server:
        yield server


def calm(running: OCIServer) -> OCIServer:
    """Without the faults and settings of the test before."""
    running.control(faults=[], settings=CALM, reset=True)
    return running


def new_store(server: OCIServer) -> Iterator[OCIStore]:
    """In a bucket of its own."""
    url, options = server.fresh()
    store = open_store(url, {"deadline": 5.0, **options}, True)
    yield store
    store.close()


def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
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
