"""What is far: fetched once, checked, in parallel, resumed, limited, pinned and used offline."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from clock import Clock

from catalog_core.cache import Cache, parse_size
from catalog_core.catalog import Catalog
from catalog_core.digests import digest_of
from catalog_core.errors import BackendError, BlobMissing, ConfigError, IntegrityError, InvalidInput, NotFound, ReadOnly
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.faults import FaultyStore
from catalog_core.testing.memory import MemoryStore

MB = 1 << 20


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))


class Counting(FaultyStore):
    """Counts the bytes of blobs that go through."""

    def __init__(self, store: Any, **options: float) -> None:
        super().__init__(store, **options)
        self.got = self.put_bytes = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        stream = super().get(key, start, length)
        if key.startswith("blobs/"):
            info = self.store.stat(key)
            assert info is not None
            self.got += min(info.size - start, info.size if length is None else length)
        return stream

    def put(self, key: str, stream: BinaryIO, size: int, mode: Any) -> None:
        super().put(key, stream, size, mode)
        self.put_bytes += size if key.startswith("blobs/") else 0


def catalog_on(store: Any, url: str = "memory://far", **options: Any) -> Catalog:
    backend = ObjectStoreBackend(store, "memory", url, bandwidth=options.pop("bandwidth", None))
    catalog = Catalog(backend, "far", max_staleness=0, **options)
    if catalog.position < 0 and not catalog.repository.offline:
        catalog.repository.begin()
    return catalog


def weights(count: int = 6, each: int = 8 * MB, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {f"layer{number}": random.integers(0, 256, each, np.uint8) for number in range(count)}


def equal(one: Any, two: Any) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)


def test_a_model_is_fetched_once_and_one_tensor_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, model = MemoryStore(), weights()
    with catalog_on(store) as catalog:
        catalog.save("m", model)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "elsewhere"))
    counted = Counting(store)
    with catalog_on(counted) as catalog:
        one = catalog.load("m", tensors=["layer3"])
        assert np.array_equal(one["layer3"], model["layer3"])
        assert counted.got < 8 * MB + 64 * 1024, "that tensor and the header"
        assert equal(catalog.load("m"), model)
        assert counted.got < 48 * MB + 128 * 1024, "and the rest, once"
        before = counted.got
        assert equal(catalog.load("m"), model)
    with catalog_on(counted) as catalog:
        assert equal(catalog.load("m"), model)
        assert counted.got == before
    with catalog_on(counted, url="memory://another name of it") as catalog:
        assert equal(catalog.load("m"), model)
        assert counted.got < before + 1 * MB, "all catalogs of a user share it"


def test_what_changed_is_all_that_is_sent_and_a_killed_upload_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, model = Counting(MemoryStore()), weights()
    with catalog_on(counted) as catalog:
        counted.fail("put", nth=4)
        with pytest.raises(BackendError):
            catalog.save("m", model)
        first = counted.put_bytes
        assert 0 < first < 48 * MB
        catalog.save("m", model)
        assert counted.put_bytes < 49 * MB, "what had arrived is not sent again"
        model["layer2"] = model["layer2"][::-1].copy()
        before = counted.put_bytes
        catalog.save("m", model)
        assert 8 * MB <= counted.put_bytes - before < 9 * MB


def test_transfers_run_side_by_side_but_not_without_bound() -> None:
    class Watched(FaultyStore):
        now = most = 0
        lock = threading.Lock()

        def put(self, *args: Any) -> None:
            self._with(lambda: super(Watched, self).put(*args))

        def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
            return self._with(lambda: super(Watched, self).get(key, start, length))  # type: ignore[no-any-return]

        def _with(self, call: Any) -> Any:
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.03)
            try:
                return call()
            finally:
                with self.lock:
                    self.now -= 1

    model = weights(12, 5 * MB)
    store = Watched(MemoryStore())
    with catalog_on(store) as catalog:
        catalog.save("m", model)
        assert 2 <= store.most <= 4
        store.most = 0
        assert equal(catalog.load("m"), model)
        assert 2 <= store.most <= 4


@pytest.mark.parametrize("what", ["flipped", "cut", "empty"])
def test_a_damaged_file_of_the_cache_is_fetched_again(what: str, tmp_path: Path) -> None:
    store, model = MemoryStore(), weights(2)
    with catalog_on(store) as catalog:
        catalog.save("m", model)
        assert equal(catalog.load("m"), model)
    files = [path for path in (tmp_path / "cache/cache/blobs").glob("*/*") if path.stat().st_size > MB]
    assert len(files) == 2
    for path in files:
        data = bytearray(path.read_bytes())
        path.chmod(0o644)
        data[MB] ^= 1
        path.write_bytes({"flipped": data, "cut": data[: 2 * MB], "empty": b""}[what])
    with catalog_on(store) as catalog:
        assert equal(catalog.load("m"), model)
        assert Cache(tmp_path / "cache/cache").verify() == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_blob_of_the_store_is_an_error_and_does_not_enter_the_cache(damage: str, tmp_path: Path) -> None:
    import io

    store = MemoryStore()
    with catalog_on(store) as catalog:
        catalog.save("m", weights(2))
        key = max(store.list("blobs/"), key=lambda info: info.size).key
        good = store.get(key).read()
        store.delete([key])
        bad = {"flipped": bytes([good[0] ^ 1]) + good[1:], "cut": good[:-5], "gone": b""}[damage]
        if bad:
            store.put(key, io.BytesIO(bad), len(bad), "hint")
        with pytest.raises(BlobMissing if damage == "gone" else IntegrityError, match="memory://far"):
            catalog.load("m")
        digest = "sha256:" + key.rpartition("/")[2]
        assert catalog.cache is not None
        assert not catalog.cache.holds([digest])
        assert not catalog.fsck().clean
        store.put(key, io.BytesIO(good), len(good), "hint")
        assert equal(catalog.load("m"), weights(2))


def test_a_stream_that_breaks_off_is_tried_again() -> None:
    store, model = MemoryStore(), weights(1)
    with catalog_on(store) as catalog:
        catalog.save("m", model)
    broken = 2

    class Line(FaultyStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
            nonlocal broken
            if key.startswith("blobs/") and broken:
                broken -= 1
                raise BackendError("the line broke")
            return super().get(key, start, length)

    with catalog_on(Line(store)) as catalog:
        assert equal(catalog.load("m"), model)
    assert broken == 0


def test_what_is_pinned_works_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = MemoryStore()
    with catalog_on(store) as catalog:
        catalog.save("kept", weights(2), tags={"a": 1}, alias="champion")
        catalog.save("other", weights(2, seed=1))
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "laptop"))
    with catalog_on(store) as catalog:
        pin = catalog.pin("kept@champion")
        assert pin.ref == "kept@1"
        assert catalog.cache is not None
        catalog.load("other")
        assert catalog.cache.trim(0)[0] > 0
        usage = catalog.cache.usage()
        assert usage.bytes == usage.pinned_bytes > 16 * MB
        assert usage.pins == ("kept@1 of memory://far",)
    monkeypatch.setenv("CATALOG_OFFLINE", "1")
    nothing = Counting(store)
    with catalog_on(nothing) as catalog:
        assert equal(catalog.load("kept@champion"), weights(2))
        assert [version.ref for version in catalog.search("tags.a = 1")] == ["kept@1"]
        with pytest.raises(BackendError, match=r"not in the cache.*CATALOG_OFFLINE"):
            catalog.load("other")
        with pytest.raises(ReadOnly, match="offline"):
            catalog.save("kept", weights(1))
        assert catalog.unpin("kept")
        assert not catalog.unpin("kept")
        assert catalog.cache is not None
        assert catalog.cache.trim(0)[0] > 0
    assert nothing.calls.total() == 0


def test_a_local_catalog_needs_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    with Catalog.open(folder) as catalog:
        catalog.save("m", {"w": np.ones(3)})
        with pytest.raises(InvalidInput, match="local catalog"):
            catalog.pin("m")
    monkeypatch.setenv("CATALOG_OFFLINE", "1")
    for new in (tmp_path / "new", f"file://{tmp_path / 'shared'}"):
        with Catalog.open(new) as catalog:  # and is made without one
            catalog.save("m", {"w": np.ones(3)})
    with Catalog.open(folder) as catalog:  # a local one needs no network
        assert "w" in catalog.load("m")
        catalog.save("m", {"w": np.ones(4)})


@pytest.mark.server
def test_what_was_never_seen_cannot_be_opened_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("XRootD")
    monkeypatch.setenv("CATALOG_OFFLINE", "1")
    with pytest.raises(NotFound, match="never opened here"):
        Catalog.open("root://127.0.0.1:1//eos/none")


def test_the_bandwidth_is_kept_in_both_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("catalog_core.objectstore.time", clock)
    store, model = MemoryStore(), weights(4, 5 * MB)
    waited = []
    for bandwidth in (None, 20 * MB):
        monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / f"at {bandwidth}"))
        with catalog_on(store, url=f"memory://{bandwidth}", bandwidth=bandwidth) as catalog:
            begun = clock.waited
            catalog.load("m") if bandwidth else catalog.save("m", model)
            waited.append(clock.waited - begun)
    assert waited[0] == 0
    assert waited[1] >= 0.9, "20 MB at 20 MB/s, several streams at a time"
    with catalog_on(MemoryStore(), url="memory://up", bandwidth=20 * MB) as catalog:
        begun = clock.waited
        catalog.save("m", model)
        assert clock.waited - begun >= 0.9


def test_staleness_saves_requests_also_in_the_next_process() -> None:
    store = Counting(MemoryStore())
    url = "memory://stale"
    catalog_on(store, url).close()
    before = store.calls.total()
    with Catalog(ObjectStoreBackend(store, "memory", url), "far", max_staleness=60) as catalog:
        assert catalog.position == 0
        assert store.calls.total() - before <= 3
        catalog.models()
        before = store.calls.total()
        catalog.models()
        catalog.search("tags.a = 1")
    with Catalog(ObjectStoreBackend(store, "memory", url), "far", max_staleness=60) as catalog:
        assert catalog.position == 0
    assert store.calls.total() == before


def test_the_oldest_leave_first_and_old_remains_are_swept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", limit=1 << 30)
    for number in range(10):
        data = bytes([number]) * 1000
        cache.add_bytes(digest_of(data), data)
        path = cache.path(digest_of(data))
        assert path is not None
        os.utime(path, (1e9 + number, 1e9 + number))
    used = digest_of(bytes([3]) * 1000)
    assert cache.path(used) is not None  # used today
    left = cache.staging() / "tmp-dead"
    left.write_bytes(b"x")
    os.utime(left, (1e9, 1e9))
    assert cache.trim(2500) == (8, 8000)
    assert not left.exists()
    kept = {digest_of(bytes([number]) * 1000) for number in range(10)}
    assert cache.holds(kept) == {used, digest_of(bytes([9]) * 1000)}


def test_a_full_cache_trims_itself(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", limit=100_000)
    for number in range(400):
        data = number.to_bytes(4, "big") * 250
        cache.add_bytes(digest_of(data), data)
    assert cache.usage().bytes <= 103_000


@pytest.mark.parametrize(
    ("text", "count"),
    [("5", 5), ("20GB", 20 * 1000**3), ("1.5 T", 1_500_000_000_000), ("3k", 3000), ("2mb", 2_000_000)],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text, "x") == count


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e99", "many", "nan", "5 apples"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="the limit is"):
        parse_size(text, "the limit")


def test_gc_clears_what_killed_uploads_left_in_a_remote_store() -> None:
    class Untidy(MemoryStore):
        asked: float | None = None

        def sweep_uploads(self, older_than: float) -> int:
            self.asked = older_than
            return 3

    store = Untidy()
    with catalog_on(store) as catalog:
        assert catalog.gc(grace=77.0).temporaries == 3
    assert store.asked == 77.0


def test_what_cannot_be_written_leaves_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from catalog_core import durable

    def full(file: BinaryIO, part: Any) -> None:
        file.write(bytes(part)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = Cache(tmp_path / "c")
    monkeypatch.setattr(durable, "write_all", full)
    cache.add_bytes(digest_of(bytes(1000)), bytes(1000))
    assert [path for path in (tmp_path / "c").rglob("*") if path.is_file()] == []


def test_a_load_from_afar_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    model = {"w": np.random.default_rng(0).normal(size=3_000_000)}
    with catalog_on(store) as catalog:
        catalog.save("m", model)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "elsewhere"))
    with catalog_on(store) as catalog:
        told: list[tuple[int, int]] = []
        catalog.progress = lambda done, total: told.append((done, total))
        catalog.load("m@1")
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1] >= model["w"].nbytes
