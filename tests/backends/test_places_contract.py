"""Every place keeps the contracts: as it is, behind a slow line, and where answers get lost.

What a store promises must also hold for a caller who tries again (`Again`), and what the core promises must hold on a
store that fails in any way (`Failing`). The places as they are have their contracts in tests of their own as well.
"""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TypeVar

import numpy as np
import places
import pytest

from catalog_core.catalog import Catalog
from catalog_core.digests import digest_of
from catalog_core.errors import BackendError, CatalogError
from catalog_core.interfaces.store import BlobInfo, Mode, ObjectStore
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_core.testing.faults import FaultyStore
from catalog_core.testing.memory import memory_catalog

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
T = TypeVar("T")
LINE = {"latency": 0.05, "bandwidth": 20e6}  # seconds before each call, bytes per second
campaign = pytest.mark.campaign


class Failing(FaultyStore):
    """Some calls, by chance from a seed, fail before they did anything, and some have their answers lost."""

    def __init__(self, store: ObjectStore, seed: object, rate: float) -> None:
        super().__init__(store)
        self.chance, self.rate = random.Random(str(seed)), rate

    def _enter(self, verb: Any) -> BaseException | None:
        super()._enter(verb)
        drawn = self.chance.random()
        if drawn < self.rate / 2:
            raise BackendError(f"{verb} failed before it was done", backend="faulty")
        return BackendError(f"the answer to {verb} was lost", backend="faulty") if drawn < self.rate else None


class Losing(FaultyStore):
    """Loses the answer to every other entry, and every other hint, packed block and ticket: that much the core bears
    without a word to its caller."""

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        super().put(key, stream, size, mode)
        if key.startswith(("journal/", "hints/", "segments/")) and self.calls["put"] % 2:
            raise BackendError("the answer was lost", backend="faulty")


class Again:
    """A caller who tries again what failed. Of an exclusive put that may have come through nothing is asked again: its
    answer is found by reading back, as the core does."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def _again(self, call: Callable[[], T]) -> T:
        for _ in range(20):
            try:
                return call()
            except BackendError as exc:
                if exc.backend != "faulty":
                    raise
        raise AssertionError("20 faults in a row")

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        begun = stream.tell()

        def put() -> None:
            stream.seek(begun)
            try:
                self.store.put(key, stream, size, mode)
            except BackendError as exc:
                if mode != "exclusive" or "lost" not in exc.message:
                    raise

        self._again(put)

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        return self._again(lambda: self.store.get(key, start, length))

    def stat(self, key: str) -> BlobInfo | None:
        return self._again(lambda: self.store.stat(key))

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        yield from self._again(lambda: list(self.store.list(prefix, after)))

    def delete(self, keys: Iterable[str]) -> None:
        names = list(keys)
        self._again(lambda: self.store.delete(names))


@pytest.fixture
def place(request: pytest.FixtureRequest, running: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """The place that a test's parameter names."""
    servers = running(request.param)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with places.start(request.param, servers) as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        yield place


def on(names: Iterable[str], ci: Iterable[str]) -> pytest.MarkDecorator:
    """Run on these places; on those that are not in `ci` only in a campaign."""
    chosen = [pytest.param(name, marks=[] if name in ci else [campaign], id=name) for name in names]
    return pytest.mark.parametrize("place", chosen, indirect=True)


def wrapped(backend: Any, wrap: Callable[[Any], Any]) -> ObjectStoreBackend:
    return ObjectStoreBackend(wrap(backend.store), backend.name, backend.url)


@on(places.STORES, ["memory", "files", "eos-tokens", "oci"])
class TestStoreWhereCallsFail(ObjectStoreContract):
    @pytest.fixture
    def store(self, place: places.Place, request: pytest.FixtureRequest) -> Again:
        return Again(Failing(place.store(), request.node.name, 0.3))


@on(places.STORES, [])
class TestStoreBehindASlowLine(ObjectStoreContract):
    @pytest.fixture
    def store(self, place: places.Place) -> FaultyStore:
        return FaultyStore(place.store(), **LINE)


@on(places.PLACES, ["hybrid", "reverse"])
class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self, place: places.Place) -> Any:
        return place.backend()


@on(places.STORES, ["memory", "files", "eos", "oci", "s3", "hybrid"])
class TestBackendWhereAnswersAreLost(BackendContract):
    @pytest.fixture
    def backend(self, place: places.Place) -> ObjectStoreBackend:
        return wrapped(place.backend(), Losing)


@on(places.STORES, [])
class TestBackendBehindASlowLine(BackendContract):
    @pytest.fixture
    def backend(self, place: places.Place) -> ObjectStoreBackend:
        return wrapped(place.backend(), lambda store: FaultyStore(store, **LINE))


@on(places.STORES, [name for name in places.STORES if name != "reverse"])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=campaign) for seed in range(2, 9))])
def test_appends_are_never_lost_or_doubled(place: places.Place, seed: int) -> None:
    """Two writers on a store of which every tenth call fails, one way or the other."""
    clean = place.backend()
    done: list[tuple[int, bytes]] = []
    failed: list[bytes] = []
    strange: list[BaseException] = []

    def write(me: int) -> None:
        journal = wrapped(clean, lambda store: Failing(store, (seed, me), 0.1)).journal
        for number in range(25):
            text = b'"%d/%d"' % (me, number)
            try:
                done.append(journal.append(lambda head, text=text: text, {}, time.monotonic() + 20))  # type: ignore[misc]
            except BackendError:
                failed.append(text)
            except BaseException as exc:
                strange.append(exc)

    writers = [threading.Thread(target=write, args=(me,)) for me in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not strange, strange
    entries = list(wrapped(clean, lambda store: store).journal.read(0))
    assert [position for position, _ in entries] == list(range(len(entries)))
    assert set(done) <= set(entries), "an acknowledged entry is not there"
    texts = [text for _, text in entries]
    assert len(set(texts)) == len(texts), "an entry was appended twice"
    assert set(texts) <= {text for _, text in done} | set(failed)
    assert failed and len(done) > 10


@on(places.STORES, ["memory", "eos", "oci", "s3"])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=campaign) for seed in range(2, 9))])
def test_saves_that_are_repeated_publish_each_once_or_as_another_version(place: places.Place, seed: int) -> None:
    """One writer, who repeats what failed; another machine finds every version that was acknowledged."""
    store = place.backend().store
    with memory_catalog(store):
        pass
    failing = Failing(store, seed, 0.0)
    saved: dict[int, int] = {}
    errors = 0
    with memory_catalog(failing) as catalog:
        failing.rate = 0.15
        for number in range(15):
            model = {"w": np.full(60_000, number, np.int32)}
            for _ in range(60):
                try:
                    saved[catalog.save("m", model, params={"n": number}).number] = number
                    break
                except CatalogError:
                    errors += 1
    assert len(saved) == 15
    assert errors
    with memory_catalog(store) as catalog:
        found = {version.number: version.params["n"] for version in catalog.versions("m")}
        assert saved.items() <= found.items()
        assert sorted(found) == list(range(1, len(found) + 1))
        for number, content in found.items():
            assert set(catalog.load(f"m@{number}")["w"]) == {content}
        assert catalog.fsck().clean


@on(places.STORES, ["eos"])
def test_a_catalog_behind_a_slow_line_that_fails(place: places.Place) -> None:
    store = Failing(place.backend().store, 1, 0.02)
    store.latency, store.bandwidth = LINE["latency"], LINE["bandwidth"]
    content = np.random.default_rng(0).integers(0, 256, 5 << 20, np.uint8)
    assert isinstance(place, places.Place)
    catalog: Catalog | None = None
    for _ in range(20):
        try:
            catalog = catalog or memory_catalog(store)
            version = catalog.save("m", {"w": content})
            break
        except CatalogError:
            continue
    assert catalog is not None
    for _ in range(20):
        try:
            assert np.array_equal(catalog.load(version)["w"], content)
            break
        except CatalogError:
            continue
    else:
        pytest.fail("it could not be loaded")
    catalog.close()
    data = b"after"
    store.rate = 0.0
    backend = ObjectStoreBackend(store, "slow", "slow://")
    backend.blobs.put(digest_of(data), io.BytesIO(data), len(data))
    assert backend.blobs.open(digest_of(data)).read() == data
