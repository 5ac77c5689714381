"""Opening a catalog of many entries on each real server: by a machine that never saw it, and again."""

from __future__ import annotations

import io
import os
import secrets
import statistics
import zlib
from pathlib import Path

import pytest
from journals import versions
from weights import interleaved, ratio, record

from catalog_core.catalog import Catalog
from catalog_core.digests import digest_of
from catalog_core.events import Intent, event, new_id, write_entry
from catalog_core.interfaces.backend import Head
from catalog_core.interfaces.store import ObjectStore
from catalog_core.journal import BLOCK, LEVELS, entry_key, segment_key
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.faults import FaultyStore
from catalog_core.testing.memory import MemoryStore

COUNT = int(os.environ.get("CATALOG_BENCH_VERSIONS", "100000")) - 1  # the worst: one short of a block, on each level
ROUNDS = 3
CLIENTS = {"eos": "XRootD", "oci": "oci", "s3": "obstore"}


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    """What a newcomer asks for: segments, the entries since the last one, the hint. The other 99,900 entries, one
    object each, are there only on a catalog that grew."""
    created = event("catalog.created", catalog=new_id(), format=1, hash="sha256")
    first = write_entry(None, 1_750_000_000_000, [Intent(new_id(), "bench", 0, None, (created,))])
    entries = [first, *(data for _, data in versions(Head(0, digest_of(first)), COUNT - 1))]
    found, position = {}, 0
    while position < COUNT:
        size = next((size for size in LEVELS if position % size == 0 and position + size <= COUNT), 1)
        block = entries[position : position + size]
        if size > 1:
            found[segment_key(position, size)] = zlib.compress(b"\n".join(block), 1)
        else:
            found[entry_key(position)] = block[0]
        position += size
    last = COUNT // BLOCK * BLOCK - 1
    return found | {entry_key(last): entries[last], "hints/head": str(last).encode()}


def fill(store: ObjectStore, objects: dict[str, bytes]) -> None:
    for key, data in objects.items():
        store.put(key, io.BytesIO(data), len(data), "exclusive" if key.startswith("journal/") else "hint")


@pytest.mark.parametrize("name", CLIENTS)
def test_open(benchmark, name: str, objects: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The floor is the same from memory: reading JSON, checking the chain, writing the index."""
    pytest.importorskip(CLIENTS[name])
    places = pytest.importorskip("places")
    if name == "eos" and (reason := pytest.importorskip("xrootd_server").missing()):
        pytest.skip(reason)
    with places.start(name) as place:
        for key, value in place.environment.items():
            monkeypatch.setenv(key, value)
        target = place.fresh()
        memory, far = MemoryStore(), place.connect(target).store
        for store in (memory, far):
            fill(store, objects)
        calls: dict[str, int] = {}

        def opened(kind: str, store: ObjectStore) -> None:
            counted = FaultyStore(store)
            with Catalog(ObjectStoreBackend(counted, kind, f"{kind}://bench"), kind, max_staleness=0) as catalog:
                assert catalog.position == COUNT - 1
            calls[kind] = counted.calls.total()

        def first(kind: str, store: ObjectStore) -> None:
            monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / secrets.token_hex(4)))
            opened(kind, store)
            calls[f"first {kind}"] = calls[kind]

        times = interleaved(
            ROUNDS,
            rebuild=lambda: first("memory", memory),
            first=lambda: first("far", far),
            second=lambda: opened("far", far),
        )
        record(benchmark, times, rebuild_to_first=ratio(times, "rebuild", "first"))
        benchmark.extra_info |= {"first requests": calls["first far"], "second requests": calls["far"]}
        benchmark.extra_info["seconds"] = times
        benchmark.pedantic(lambda: None, rounds=1)
        assert calls["first far"] <= 150
        assert calls["far"] <= 4
        assert COUNT < 50_000 or statistics.median(times["second"]) < 1
