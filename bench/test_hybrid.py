"""A hybrid of EOS (primary) and OCI Object Storage (replica): what copies cost, against the primary alone and against
a bare copy, on the tests' servers in the same run."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import numpy as np
import pytest
from weights import interleaved, ratio, record, state

from catalog_core.catalog import Catalog
from catalog_core.interfaces.store import Mode, ObjectStore, Place
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.faults import FaultyStore

ROUNDS = 3
BLOCK = 8 << 20
FAR = 0.05  # seconds

for needed in ("XRootD", "oci", "cryptography"):
    pytest.importorskip(needed)
oci_server = pytest.importorskip("oci_server")
xrootd_server = pytest.importorskip("xrootd_server")


class Metered(FaultyStore):
    """Counts the bytes that are read and written besides."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.read = self.written = 0

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        self.written += size
        super().put(key, stream, size, mode)

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        return _Counted(super().get(key, start, length), self)  # type: ignore[return-value]


class _Counted:
    def __init__(self, stream: BinaryIO, store: Metered) -> None:
        self._stream = stream
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._store.read += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        count: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self._store.read += count
        return count


@attrs.define
class Sites:
    """The servers, and new catalogs on them; `close` also takes away what these stored."""

    eos: Any
    oci: Any
    stores: list[ObjectStore] = attrs.field(factory=list)
    opened: list[Catalog] = attrs.field(factory=list)

    def pair(self) -> dict[str, Metered]:
        """A new place on each site."""
        from catalog_eos.store import open_store as open_eos
        from catalog_oci.store import open_store as open_oci

        pair = {"cern": open_eos(*self.eos.fresh(), True), "oracle": open_oci(*self.oci.fresh(), True)}
        self.stores += pair.values()
        return {name: Metered(store) for name, store in pair.items()}

    def catalog(self, pair: dict[str, Metered] | None = None, durability: str = "", url: str = "") -> Catalog:
        """A hybrid of the pair; without a `durability` its primary alone."""
        from catalog_hybrid.store import HybridStore

        pair, store = pair or self.pair(), None
        if durability:
            places = {name: Place(name, lambda create, part=part: part) for name, part in pair.items()}  # type: ignore[misc]
            store = HybridStore(places, durability)
            store.look(create=True)
            store.begin(create=True)
        url = url or f"bench://{secrets.token_hex(8)}"
        catalog = Catalog(ObjectStoreBackend(store or pair["cern"], "bench", url), "bench")
        if catalog.position < 0:
            catalog.repository.begin()
        self.opened.append(catalog)
        return catalog

    def close(self) -> None:
        for catalog in self.opened:
            catalog.close()
        for store in self.stores:
            store.delete([info.key for info in store.list("blobs/")])
        self.opened.clear()
        self.stores.clear()
        os.sync()


@pytest.fixture(scope="module")
def servers() -> Iterator[Sites]:
    """What OCI's server keeps lies in memory where that is possible, as in its own benchmark."""
    if reason := xrootd_server.missing():
        pytest.skip(reason)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=memory) as folder,
        oci_server.OCIServer(process=True, run=Path(folder)) as oci,
        xrootd_server.XrootdServer() as eos,
    ):
        yield Sites(eos, oci)


@pytest.fixture
def sites(servers: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sites]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    yield servers
    servers.close()


def models(size: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A model of `size` bytes, at most 512 MB, and the same with 5 % of its layers changed."""
    first = state(min(size, 512_000_000))
    return first, first | {name: array[::-1].copy() for name, array in list(first.items())[60:70]}


def done(benchmark: Any, times: dict[str, list[float]], **more: float) -> None:
    record(benchmark, times, **more)
    benchmark.extra_info["seconds"] = {name: [round(value, 3) for value in values] for name, values in times.items()}
    benchmark.pedantic(lambda: None, rounds=1)


def test_save(benchmark, sites: Sites, size: int) -> None:
    """`follow` is what closing waits for after a save that was `async`."""
    model, _ = models(size)

    def save(durability: str) -> None:
        sites.catalog(durability=durability).save("m", model)

    times = interleaved(
        ROUNDS,
        alone=lambda: save(""),
        settle=sites.close,
        manual=lambda: save("manual"),
        settle_manual=sites.close,
        asynchronous=lambda: save("async"),
        follow=lambda: sites.opened[-1].close(),
        settle_async=sites.close,
        sync=lambda: save("sync"),
        settle_sync=sites.close,
    )
    ratios = {f"{name}_to_alone": ratio(times, name, "alone") for name in ("manual", "asynchronous", "sync")}
    done(benchmark, times, **ratios)
    assert size < 100_000_000 or ratios["manual_to_alone"] <= 1.5


def test_sync(benchmark, sites: Sites, tmp_path: Path, size: int) -> None:
    """A bare copy reads one file with XRootD's client and puts it with Oracle's `UploadManager`, through a file on
    disk, as it has to be for a second try."""
    import oci
    from XRootD import client
    from XRootD.client.flags import OpenFlags

    from catalog_eos.remote import split

    model, changed = models(size)
    total = sum(array.nbytes for array in model.values())
    host, folder = split(sites.eos.fresh()[0])
    bucket = sites.oci.fresh()[0].partition("://")[2].partition("@")[0]
    off = oci.circuit_breaker.NoCircuitBreakerStrategy()
    bare = oci.object_storage.ObjectStorageClient(
        oci.config.from_file(str(sites.oci.config)), service_endpoint=sites.oci.endpoint, circuit_breaker_strategy=off
    )
    file = client.File()
    assert file.open(f"{host}/{folder}/bare", OpenFlags.NEW | OpenFlags.MAKEPATH, 0o644)[0].ok
    for number, array in enumerate(model.values()):
        assert file.write(array.tobytes(), number * array.nbytes)[0].ok
    assert file.close()[0].ok

    def bare_copy() -> None:
        source = client.File()
        assert source.open(f"{host}/{folder}/bare", OpenFlags.READ)[0].ok
        with (tmp_path / "between").open("wb") as between:
            for start in range(0, total, BLOCK):
                between.write(source.read(start, BLOCK)[1])
        source.close()
        manager = oci.object_storage.UploadManager(bare)
        manager.upload_file(oci_server.NAMESPACE, bucket, "bare", str(tmp_path / "between"))

    moved: dict[str, int] = {}

    def sync(name: str) -> None:
        moved[name] = sites.opened[-1].sync()[0].bytes

    times = interleaved(
        ROUNDS,
        bare_copy=bare_copy,
        save=lambda: sites.catalog(durability="manual").save("m", model),
        sync=lambda: sync("first"),
        save_again=lambda: sites.opened[-1].save("m", changed),
        sync_again=lambda: sync("second"),
        nothing=lambda: sync("third"),
        settle=sites.close,
    )
    done(
        benchmark, times, to_bare=ratio(times, "bare_copy", "sync"), again=ratio(times, "sync", "sync_again"),
        moved=moved["first"] / total, moved_again=moved["second"] / total,
    )  # fmt: skip
    assert moved["first"] >= total
    assert size < 100_000_000 or moved["second"] <= 0.06 * total
    assert moved["third"] == 0


def test_read_from_the_nearest(benchmark, sites: Sites, tmp_path: Path, monkeypatch, size: int) -> None:
    """The primary is 50 ms away. All bytes of the model, each chunk checked, into no cache; and twenty versions of
    400 KB, loaded by machines that opened the catalog and never read it. The journal comes from the primary anyway."""
    model, _ = models(size)
    total = sum(array.nbytes for array in model.values())
    pair = sites.pair()
    with sites.catalog(pair, "manual", "bench://near") as hybrid:
        hybrid.save("m", model)
        for number in range(20):
            hybrid.save("small", state(400_000, 1, number))
        hybrid.sync()
    pair["cern"].latency = FAR
    found: list[Catalog] = []

    def newcomer(durability: str) -> None:
        monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / secrets.token_hex(4)))
        found.append(sites.catalog(pair, durability, f"bench://{durability}"))

    def read() -> None:
        artifact = found[-1].artifact("m@1")
        reader = artifact.reader(artifact.manifest.components[0])
        assert sum(len(piece) for piece in reader.pieces("model.safetensors")) >= total

    def small() -> None:
        for number in range(1, 21):
            assert len(found[-1].load(f"small@{number}")) == 1

    times = interleaved(
        ROUNDS,
        open_alone=lambda: newcomer(""),
        alone=read,
        alone_small=small,
        open_nearest=lambda: newcomer("manual"),
        nearest=read,
        nearest_small=small,
    )
    pair["cern"].latency = 0.0
    ratios = {
        "nearest": ratio(times, "alone", "nearest"),
        "nearest_small": ratio(times, "alone_small", "nearest_small"),
        "open": ratio(times, "open_alone", "open_nearest"),
    }
    done(benchmark, times, **ratios)
    assert ratios["nearest_small"] >= 2


def test_audit(benchmark, sites: Sites, size: int) -> None:
    """By what the stores report, and by reading all of both copies. What it reads anyway are hints: `sums/`."""
    model, _ = models(size)
    pair = sites.pair()
    catalog = sites.catalog(pair, "manual")
    catalog.save("m", model)
    catalog.sync()
    read: dict[str, int] = {}

    def audit(name: str, *, deep: bool) -> None:
        for store in pair.values():
            store.read = 0
        found = catalog.audit(deep=deep)
        assert not found.flaws
        assert found.proven == found.blobs
        read[name] = sum(store.read for store in pair.values())

    times = interleaved(ROUNDS, reported=lambda: audit("reported", deep=False), deep=lambda: audit("deep", deep=True))
    done(benchmark, times, reported=ratio(times, "deep", "reported"), **{f"read {name}": n for name, n in read.items()})
    total = sum(array.nbytes for array in model.values())
    assert read["deep"] >= 2 * total
    assert read["reported"] < 1_000_000
