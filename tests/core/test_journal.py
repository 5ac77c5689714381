"""The journal on a remote store: segments, requests, epochs, and the turns of near and far writers."""

from __future__ import annotations

import io
import re
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import attrs
import numpy as np
import pytest
from clock import Clock

from catalog_core.catalog import Catalog
from catalog_core.digests import canonical, digest_of
from catalog_core.epochs import Epoch, identity
from catalog_core.errors import BlobMissing, CatalogError, IntegrityError, ReadOnly
from catalog_core.events import Intent, event, new_id, write_entry
from catalog_core.interfaces.backend import Head
from catalog_core.interfaces.store import BlobInfo, Mode, ObjectStore
from catalog_core.journal import BLOCK, StoreJournal, entry_key, segment_key
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.faults import FaultyStore
from catalog_core.testing.memory import MemoryStore, memory_catalog


def journal_of(store: ObjectStore, *, writable: bool = True) -> StoreJournal:
    return StoreJournal(store, "memory", "memory://x", local=False, writable=writable)


def put(store: ObjectStore, key: str, data: bytes) -> None:
    store.put(key, io.BytesIO(data), len(data), "hint")


def chain(count: int, head: Head | None = None, epoch: int = 0) -> list[bytes]:
    """So many entries that continue each other."""
    entries = []
    for _ in range(count):
        position = 0 if head is None else head.position + 1
        created = event("catalog.created", catalog="c" * 32, format=1, hash="sha256")
        tags = event("tags.set", model="m", number=1, set={"n": position}, unset=[])
        intent = Intent(new_id(), "a@b", 1_000 + position, head, (created if head is None else tags,))
        data = write_entry(head, 1_000 + position, [intent], epoch=epoch)
        head = Head(position, digest_of(data))
        entries.append(data)
    return entries


def fill(store: ObjectStore, entries: list[bytes]) -> None:
    """Append as one writer would."""
    journal = journal_of(store)
    for data in entries:
        assert journal.append(lambda head, data=data: data, {}, time.monotonic() + 30)[1] == data  # type: ignore[misc]


def test_the_last_of_a_block_packs_it_and_a_newcomer_needs_few_requests() -> None:
    store, entries = MemoryStore(), chain(BLOCK**2 + 3 * BLOCK + 5)
    fill(store, entries)
    counted = FaultyStore(store)
    journal = journal_of(counted, writable=False)
    head = journal.head()
    assert head == Head(len(entries) - 1, digest_of(entries[-1]))
    assert list(journal.read(0, head.position + 1)) == list(enumerate(entries))
    assert counted.calls["get"] == 1 + 1 + 3 + 5  # the hint, one level of each, and what is in no block yet
    assert counted.calls.total() < 30


def test_a_hundred_thousand_entries_cost_a_newcomer_at_most_150_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path))
    store, entries = MemoryStore(), chain(100_000 - 1)  # the worst: one short of the next block, on each level
    for position, data in enumerate(entries):
        put(store, entry_key(position), data)
    journal = journal_of(store)
    for last in range(BLOCK - 1, len(entries), BLOCK):
        journal._packed(last)
    counted = FaultyStore(store)
    with Catalog(ObjectStoreBackend(counted, "memory", "memory://newcomer"), "far") as catalog:
        assert catalog.position == len(entries) - 1
    assert counted.calls.total() <= 150
    print(dict(counted.calls))
    again = FaultyStore(store)
    with Catalog(ObjectStoreBackend(again, "memory", "memory://newcomer"), "far") as catalog:
        assert catalog.position == len(entries) - 1
    assert again.calls.total() <= 4, again.calls


@pytest.mark.parametrize("damage", ["gone", "flipped", "cut", "other entries", "a bomb"])
def test_a_segment_is_only_a_cache(damage: str) -> None:
    import zlib

    store, entries = MemoryStore(), chain(2 * BLOCK + 1)
    fill(store, entries)
    key = segment_key(BLOCK, BLOCK)
    good = store.get(key).read()
    if damage == "gone":
        store.delete([key])
    elif damage == "flipped":
        put(store, key, good[:100] + bytes([good[100] ^ 1]) + good[101:])
    elif damage == "cut":
        put(store, key, good[:-9])
    elif damage == "a bomb":
        put(store, key, zlib.compress(bytes(1 << 29)))
    else:
        put(store, key, zlib.compress(b"\n".join(entries[BLOCK : 2 * BLOCK][::-1])))
    assert list(journal_of(store).read(0)) == list(enumerate(entries))
    assert zlib.decompress(store.get(key).read()) == b"\n".join(entries[BLOCK : 2 * BLOCK]), "it is packed anew"
    store.delete([key])
    assert list(journal_of(store, writable=False).read(0)) == list(enumerate(entries))
    assert store.stat(key) is None, "a reader without rights leaves it"


def test_a_forged_segment_that_is_a_chain_of_its_own_is_refused(place: Path) -> None:
    import zlib

    store, entries = MemoryStore(), chain(BLOCK + 3)
    fill(store, entries)
    put(store, segment_key(0, BLOCK), zlib.compress(b"\n".join(chain(BLOCK))))
    with pytest.raises(IntegrityError, match=r"entry 32 .* does not continue the chain"):
        Catalog(ObjectStoreBackend(store, "memory", "memory://forged"), "forged")


def test_a_hole_is_an_error_for_whoever_reads_across_it() -> None:
    store, entries = MemoryStore(), chain(2 * BLOCK)
    fill(store, entries)
    store.delete([entry_key(40), segment_key(BLOCK, BLOCK)])
    journal = journal_of(store)
    with pytest.raises(BlobMissing, match="entry 40 is missing"):
        list(journal.read(0))


@pytest.mark.parametrize("hint", [b"", b"x", b"-5", b"7", b"63", b"64", b"99999999", b"9" * 40])
def test_the_hint_of_the_head_may_say_anything(hint: bytes) -> None:
    store, entries = MemoryStore(), chain(2 * BLOCK)
    fill(store, entries)
    put(store, "hints/head", hint)
    assert journal_of(store).head() == Head(63, digest_of(entries[63]))


def begin(store: ObjectStore, number: int, position: int, digest: str | None, owner: str, previous: str | None) -> str:
    """Write an epoch record; return its digest."""
    record = Epoch(number, position, digest, owner, "a@b", 5, previous)
    put(store, record.key, record.to_bytes())
    return digest_of(record.to_bytes())


def test_entries_behind_a_fork_are_void_and_the_new_epoch_goes_on_from_it() -> None:
    store, old = MemoryStore(), chain(50)
    fill(store, old)
    mine = identity(store, create=True)
    assert mine is not None
    assert identity(store) == mine
    begin(store, 1, 39, digest_of(old[39]), mine, None)
    new = chain(40, Head(39, digest_of(old[39])), epoch=1)
    fill(store, new)
    journal = journal_of(store)
    assert (journal.epoch, journal.epoch_of(39), journal.epoch_of(40), journal.owned) == (1, 0, 1, True)
    assert list(journal.read(0)) == list(enumerate(old[:40] + new))
    assert journal.head() == Head(79, digest_of(new[-1]))
    assert store.get(entry_key(45, 0)).read() == old[45], "what is void is kept"
    assert store.stat(segment_key(32, 32, 0)) is None, "no block lies across the fork"
    assert store.stat(segment_key(32, 32, 1)) is None


def test_a_store_that_is_not_the_owner_is_read_only_also_for_who_has_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_core import journal as module

    store, entries = MemoryStore(), chain(5)
    fill(store, entries[:4])
    journal = journal_of(store)
    assert journal.owned
    monkeypatch.setattr(module, "FENCE", 0.0)
    begin(store, 1, 3, digest_of(entries[3]), "somebody else", None)
    with pytest.raises(ReadOnly, match="another store is the primary since epoch 1"):
        journal.append(lambda head: entries[4], {}, time.monotonic() + 5)
    assert list(journal.read(0)) == list(enumerate(entries[:4]))


def test_epochs_must_continue_each_other() -> None:
    store = MemoryStore()
    begin(store, 1, 3, "sha256:" + "0" * 64, "x", None)
    begin(store, 2, 5, "sha256:" + "1" * 64, "x", "sha256:" + "2" * 64)
    with pytest.raises(IntegrityError, match="does not continue the epoch before"):
        journal_of(store).line()
    put(store, "epochs/0000000002", b'{"number": 2}')
    with pytest.raises(IntegrityError, match="cannot be read"):
        journal_of(store).line()


def test_an_index_that_followed_a_void_branch_is_kept_until_somebody_decides(place: Path) -> None:
    """Anybody who may write to a store can add a record of an epoch: who has seen more refuses."""
    store = MemoryStore()
    entries = chain(12)
    fill(store, entries[:10])
    url = "memory://void"
    Catalog(ObjectStoreBackend(store, "memory", url), "old").close()  # its index has seen entry 9
    begin(store, 1, 5, digest_of(entries[5]), "somebody else", None)
    with pytest.raises(IntegrityError, match="leaves out entries that this machine has seen: 6 to 9") as caught:
        Catalog(ObjectStoreBackend(store, "memory", url), "old", max_staleness=0)
    (path,) = re.findall(r"delete (\S+) and", str(caught.value.hint))
    for suffix in ("", "-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)
    with Catalog(ObjectStoreBackend(store, "memory", url), "old", max_staleness=0) as catalog:
        assert catalog.position == 5
        assert not catalog.writable
    new = chain(2, Head(5, digest_of(entries[5])), epoch=1)
    for position, data in enumerate(new, 6):
        put(store, entry_key(position, 1), data)
    with Catalog(ObjectStoreBackend(store, "memory", url), "old", max_staleness=0) as catalog:
        assert catalog.position == 7


class Slow:
    """A store behind a slow line: each call takes a while, at both ends."""

    def __init__(self, store: ObjectStore, latency: float) -> None:
        self.store, self.latency = store, latency

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*args: object) -> object:
            time.sleep(self.latency / 2)
            result = getattr(self.store, name)(*args)
            time.sleep(self.latency / 2)
            return result

        return call


def test_a_writer_behind_a_slow_line_gets_its_turn() -> None:
    store = MemoryStore()
    fill(store, chain(1))
    stop, fast = threading.Event(), [0, 0]

    def extend(head: Head | None) -> bytes:
        return chain(1, head)[0]

    def rush(number: int) -> None:
        journal = journal_of(store)
        while not stop.is_set():
            journal.append(extend, {}, time.monotonic() + 30)
            fast[number] += 1

    threads = [threading.Thread(target=rush, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        journal = journal_of(Slow(store, 0.05))  # type: ignore[arg-type]
        for _ in range(2):  # without tickets it never comes to it: tried with a deadline of 25 s
            journal.append(extend, {}, time.monotonic() + 100)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert min(fast) > 100, "and the others go on"
    assert [info.key for info in store.list("inbox/")] == []


def test_the_ticket_of_a_dead_writer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_core import journal as module

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module._Turn, "EVERY", 0.0)
    store, entries = MemoryStore(), chain(20)
    put(store, f"inbox/{1:020}-dead", b"")
    fill(store, entries)
    assert module.PATIENCE <= clock.waited < 2 * module.PATIENCE
    assert store.stat(f"inbox/{1:020}-dead") is not None


def test_epoch_records_are_values() -> None:
    record = Epoch(1, 3, "sha256:" + "0" * 64, "o", "a@b", 5)
    assert Epoch.of(record.to_bytes(), "here") == record
    assert attrs.evolve(record, number=2).key == "epochs/0000000002"


@pytest.mark.parametrize(
    "changed",
    [
        {"previous": [1]}, {"previous": "x"}, {"over": [[1]]}, {"over": [7]}, {"digest": 7}, {"digest": {}},
        {"actor": 7}, {"actor": None}, {"time": "x"}, {"time": None}, {"time": 2.5}, {"owner": 1},
    ],
    ids=str,
)  # fmt: skip
def test_an_epoch_record_that_holds_anything_is_named(changed: dict[str, object]) -> None:
    store = MemoryStore()
    with memory_catalog(store) as catalog:
        catalog.save("m", {"w": [1]})
    right = {"number": 7, "position": 0, "digest": None, "owner": "o", "actor": "a", "time": 1, "previous": None}
    put(store, "epochs/0000000007", canonical({**right, **changed}))
    with pytest.raises(IntegrityError, match=r"^epochs/0000000007 of memory://.* cannot be read"):
        memory_catalog(store)


@pytest.mark.parametrize("kind", ["segments/", "hints/"])
def test_a_store_that_keeps_entries_and_no_caches_takes_every_entry(kind: str) -> None:
    """What was written is not told as a failure: it would be repeated."""

    class Strict(MemoryStore):
        def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
            if key.startswith(kind):
                raise ReadOnly(f"{key} may not be written")
            super().put(key, stream, size, mode)

    store = Strict()
    with memory_catalog(store) as catalog:
        catalog.save("m", {"w": [1]})
        for number in range(BLOCK):
            catalog.version("m@1").tag(number=number)
    with memory_catalog(store) as newcomer:
        assert newcomer.position == BLOCK + 1
        assert newcomer.version("m@1").tags == {"number": BLOCK - 1}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_a_reader_of_all_does_not_follow_a_writer_who_is_faster() -> None:
    store, entries = MemoryStore(), chain(200)
    fill(store, entries[:3])
    seen = []
    for position, _ in journal_of(store).read(0):
        seen.append(position)
        put(store, entry_key(3 + position), entries[3 + position])
    assert seen == [0, 1, 2, 3]


def test_entries_that_come_while_the_end_is_looked_for_are_no_hole() -> None:
    """Others write the next two after the first was found missing, and before what lies behind it is listed."""
    entries = chain(5)

    class Late(MemoryStore):
        def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
            if prefix.startswith("journal/"):
                for position in (3, 4):
                    put(self, entry_key(position), entries[position])
            return super().list(prefix, after)

    store = Late()
    fill(store, entries[:3])
    assert list(journal_of(store).read(0)) == list(enumerate(entries[:3]))


def test_what_strangers_left_beside_the_entries_is_no_entry() -> None:
    store, entries = MemoryStore(), chain(3)
    fill(store, entries)
    put(store, "journal/0000000000/0000000000/notes", b"x")
    put(store, "journal/0000000000/readme", b"x")
    assert list(journal_of(store).read(0)) == list(enumerate(entries))


@pytest.mark.parametrize("position", [0, 2])
def test_who_never_saw_a_journal_whole_does_not_write_into_its_hole(position: int) -> None:
    store = MemoryStore()
    with memory_catalog(store) as catalog:
        for number in range(3):
            catalog.save("m", {"w": [number]})
    store.delete([entry_key(position)])
    with pytest.raises(BlobMissing, match=f"entry {position} is missing"):
        memory_catalog(store)
    assert store.stat(entry_key(position)) is None


def test_of_an_entry_that_is_too_long_no_more_is_read_than_shows_it(tmp_path: Path) -> None:
    """A file with a hole costs whoever writes it nothing, and must not fill the memory of those who read."""
    place = tmp_path / "c"
    with Catalog.open(f"file://{place}") as catalog:
        catalog.save("m", {"w": np.zeros(2)})
        last = catalog.position
    entry = place / entry_key(last + 1, 0)
    with entry.open("wb") as file:
        file.truncate(3 << 30)
    tracemalloc.start()
    with Catalog.open(f"file://{place}") as catalog:
        assert [version.ref for version in catalog.versions("m")] == ["m@1"]
        with pytest.raises(CatalogError, match="1,048,576 are allowed"):
            catalog.save("m", {"w": np.ones(2)})
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
