"""Several stores as one: who is read, who is mended, how replicas follow, and how another part becomes the primary."""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import journal as journal_module
from catalog_core.catalog import Catalog
from catalog_core.digests import digest_of
from catalog_core.epochs import read_epochs
from catalog_core.errors import (
    BackendError,
    CatalogError,
    ConfigError,
    Conflict,
    IntegrityError,
    InvalidInput,
    NotFound,
    NotReplicated,
    PublishedNotReplicated,
    ReadOnly,
)
from catalog_core.events import Intent, event, new_id
from catalog_core.interfaces.store import ObjectStore, Place
from catalog_core.objectstore import ObjectStoreBackend, blob_key
from catalog_core.sync import BATCH
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_core.testing.faults import Death, FaultyStore
from catalog_core.testing.memory import MemoryStore
from catalog_core.writer import commit
from catalog_hybrid.store import HybridStore


class Site(FaultyStore):
    """A store that can be away, and be damaged."""

    def __init__(self, name: str) -> None:
        super().__init__(MemoryStore())
        self.name = name
        self.away = False
        self.place = Place(f"memory://{name}", self._open)

    def _open(self, create: bool) -> ObjectStore:
        return self

    def _enter(self, verb: Any) -> BaseException | None:
        if self.away:
            raise BackendError(f"{self.name} is away", backend=self.name)
        return super()._enter(verb)

    def damage(self, key: str) -> None:
        """Flip a byte of a stored blob."""
        data, when = self.store._objects[blob_key(key)]  # type: ignore[attr-defined]
        self.store._objects[blob_key(key)] = (bytes([data[0] ^ 1]) + data[1:], when)  # type: ignore[attr-defined]

    def drop(self, key: str) -> None:
        self.store.delete([blob_key(key)])

    def has(self, key: str) -> bool:
        return self.store.stat(blob_key(key)) is not None

    def blobs(self) -> set[str]:
        return {info.key for info in self.store.list("blobs/")}


class World:
    """Sites, and machines that open them. Each machine has an index and a cache of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.sites = {name: Site(name) for name in names}
        self.folder = folder
        self._patch = monkeypatch
        self._opened: list[Catalog] = []
        self.machine("one")

    def machine(self, name: str) -> None:
        """From now on somebody else, somewhere else."""
        self._patch.setenv("CATALOG_CACHE_DIR", str(self.folder / name))

    def open(self, durability: str = "manual", *, stale: bool = False, url: str = "hybrid://h", **more: Any) -> Catalog:
        store = HybridStore({name: site.place for name, site in self.sites.items()}, durability, stale=stale)
        store.look(create=True)
        store.begin(create=True)
        return self._catalog(store, url, stale=stale, **more)

    def direct(self, name: str) -> Catalog:
        """A part of it, opened without knowing of the others."""
        return self._catalog(self.sites[name], f"memory://{name}")

    def _catalog(self, store: Any, url: str, **more: Any) -> Catalog:
        catalog = Catalog(ObjectStoreBackend(store, "hybrid", url), "h", max_staleness=0, **more)
        if catalog._index.head is None:
            catalog._create()
        self._opened.append(catalog)
        return catalog

    def close(self) -> None:
        for catalog in self._opened:
            catalog.close()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(*names: str) -> World:
        made.append(World(tmp_path, monkeypatch, *(names or ("cern", "oracle"))))
        return made[-1]

    monkeypatch.setattr(journal_module, "FENCE", 0.0)
    yield make
    for one in made:
        one.close()


def weights(seed: int = 0, size: int = 40_000) -> dict[str, Any]:
    return {"w": np.random.default_rng(seed).normal(size=size)}


def same(catalog: Catalog, ref: str, seed: int) -> bool:
    return bool((catalog.load(ref)["w"] == weights(seed)["w"]).all())


def big(catalog: Catalog, ref: str) -> str:
    """The key of the largest blob of a version."""
    chunks = [chunk for parts in catalog.artifact(ref).layout.values() for chunk in parts]
    largest = max(chunks, key=lambda chunk: chunk.length)
    return catalog._index.key(largest.pack or largest.digest)


class TestStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> HybridStore:
        store = HybridStore({name: Site(name).place for name in ("one", "two")})
        store.look()
        return store


class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self) -> ObjectStoreBackend:
        store = HybridStore({name: Site(name).place for name in ("one", "two")})
        store.look()
        store.begin(create=True)
        return ObjectStoreBackend(store, "hybrid", "hybrid://contract")


# -- reading ----------------------------------------------------------------------------------------------------------


def test_blobs_come_from_the_nearest_copy_and_the_journal_from_the_primary(world) -> None:
    w = world()
    w.sites["cern"].latency = 0.03
    catalog = w.open()
    catalog.save("m", weights())
    catalog.sync()
    w.machine("two")
    with w.open() as near:
        before = w.sites["cern"].calls["get"], w.sites["oracle"].calls["get"]
        assert same(near, "m@1", 0)
        assert w.sites["cern"].calls["get"] == before[0], "a slow primary is not asked for blobs"
        assert w.sites["oracle"].calls["get"] > before[1]
        w.sites["oracle"].latency, w.sites["cern"].latency = 0.2, 0.0
        for _ in range(12):  # measured, not believed
            near._backend.blobs.open(big(near, "m@1")).read()
        assert w.sites["cern"].calls["get"] > before[0], "what became slow is left"


@pytest.mark.parametrize("victim", ["cern", "oracle"])
@pytest.mark.parametrize("harm", ["damage", "drop", "away"])
def test_a_copy_that_is_not_good_is_passed_over_and_mended(world, victim: str, harm: str) -> None:
    w = world()
    w.sites["oracle" if victim == "cern" else "cern"].latency = 0.02  # the bad one is nearer
    catalog = w.open()
    catalog.save("m", weights())
    catalog.sync()
    key = big(catalog, "m@1")
    site = w.sites[victim]
    w.machine("two")
    reader = w.open()
    assert len(reader.versions("m")) == 1
    if harm == "away":
        site.away = True
        reader._max_staleness = 60.0
    else:
        getattr(site, harm)(key)
    assert same(reader, "m@1", 0)
    site.away = False
    if harm == "damage" or (harm == "drop" and victim == "cern"):
        with site.store.get(blob_key(key)) as stream:
            assert digest_of(stream.read()) == key, "it was mended"
    if harm == "drop" and victim == "oracle":
        assert not site.has(key), "a replica may be behind: a lack of it is no damage until somebody audits"


def test_bytes_that_are_wrong_everywhere_are_an_error_and_nothing_is_mended_with_them(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights())
    catalog.sync()
    key = big(catalog, "m@1")
    for site in w.sites.values():
        site.damage(key)
    w.machine("two")
    with pytest.raises(IntegrityError, match="holds other bytes"):
        w.open().load("m@1")
    assert all(site.has(key) for site in w.sites.values()), "what is there stays for whoever can read something of it"


# -- following --------------------------------------------------------------------------------------------------------


def test_sync_copies_what_lacks_says_so_before_in_bytes_and_does_nothing_twice(world) -> None:
    w = world()
    catalog = w.open()
    for seed in range(3):
        catalog.save("m", weights(seed))
    (planned,) = catalog.sync(dry_run=True)
    assert not w.sites["oracle"].blobs(), "a dry run copies nothing"
    seen: list[tuple[int, int]] = []
    (done,) = catalog.sync(progress=lambda at, total: seen.append((at, total)))
    assert (done.entries, done.blobs, done.bytes) == (planned.entries, planned.blobs, planned.bytes) == (4, *done_of(w))
    assert seen[-1] == (done.bytes, done.bytes)
    assert w.sites["oracle"].blobs() == w.sites["cern"].blobs()
    (again,) = catalog.sync()
    assert (again.entries, again.blobs, again.bytes, again.position) == (0, 0, 0, 3)
    with w.direct("oracle") as copy:
        assert not copy.writable
        assert copy.id == catalog.id
        assert same(copy, "m@2", 1)
        assert copy.fsck().clean
        with pytest.raises(ReadOnly, match="is a copy"):
            copy.save("m", weights(9))


def done_of(w: World) -> tuple[int, int]:
    infos = list(w.sites["oracle"].store.list("blobs/"))
    return len(infos), sum(info.size for info in infos)


def test_a_replica_is_at_every_moment_a_whole_older_catalog(world) -> None:
    """Killed before and after each of its calls, a sync leaves a copy that is whole up to its head; the next one
    completes it."""
    w = world()
    catalog = w.open()
    for seed in range(3):
        catalog.save("m", weights(seed, 10_000))
    catalog.save("m", {"w": np.zeros(10)})
    for when in ("before", "after"):
        for nth in range(1, 500):
            w.sites["oracle"].__init__("oracle")  # type: ignore[misc]
            hybrid = w.open()
            oracle = w.sites["oracle"]
            oracle.die(nth, when)  # type: ignore[arg-type]
            try:
                hybrid.sync()
                break
            except Death:
                pass
            oracle._death = None
            w.machine(f"copy-{when}-{nth}")
            if oracle.store.stat("journal/0000000000/0000000000/0000000000") is not None:
                with w.direct("oracle") as copy:
                    assert copy.fsck().clean, (when, nth)
            w.machine("one")
            hybrid.sync()
            with w.direct("oracle") as copy:
                assert copy.position == 4
                assert copy.fsck().clean, (when, nth)
        assert 20 < nth < 499, "the whole of it was tried"


@pytest.mark.parametrize("durability", ["sync", "async", "manual"])
def test_durability_says_when_a_change_is_on_the_replicas(world, durability: str) -> None:
    w = world()
    catalog = w.open(durability)
    catalog.save("m", weights(), alias="good")
    if durability == "async":
        catalog.close()  # it waits for them
    with w.direct("oracle") if durability != "manual" else w.open() as copy:
        assert same(copy, "m@good", 0)
    if durability == "manual":
        assert not w.sites["oracle"].blobs()


def test_a_version_that_did_not_reach_a_replica_is_published_once_and_completed_by_a_retry(world) -> None:
    w = world()
    catalog = w.open("sync")
    w.sites["oracle"].away = True
    with catalog.prepare("m", weights()) as draft:
        with pytest.raises(PublishedNotReplicated, match="m@1 is published, and not on every replica yet") as caught:
            draft.save(alias="good")
        assert caught.value.version.ref == "m@1"
        with pytest.raises(BackendError, match="oracle is away"):
            draft.save()
        w.sites["oracle"].away = False
        assert draft.save().ref == "m@1"
        with pytest.raises(InvalidInput, match="was saved as m@1"):
            draft.save()
    assert [version.ref for version in catalog.versions("m")] == ["m@1"]
    with w.direct("oracle") as copy:
        assert same(copy, "m@good", 0)


def test_one_replica_that_is_away_does_not_keep_the_others_from_it(world) -> None:
    w = world("cern", "oracle", "tape")
    catalog = w.open()
    catalog.save("m", weights())
    w.sites["oracle"].away = True
    with pytest.raises(BackendError, match="oracle is away"):
        catalog.sync()
    states = {part.name: part for part in catalog.replicas()}
    assert (states["tape"].behind, states["oracle"].role) == (0, "away")
    assert "oracle is away" in str(states["oracle"].problem)


def test_what_was_swept_is_not_copied_and_a_replica_deletes_only_after_the_sweep(world) -> None:
    w = world("cern", "oracle", "late")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.save("m", weights(2))
    first = big(catalog, "m@1")
    catalog.sync("oracle")
    catalog.version("m@1").delete()
    catalog.sync("oracle")
    assert w.sites["oracle"].has(first)
    assert catalog.gc(grace=-1).blobs > 0
    assert not w.sites["cern"].has(first)
    assert w.sites["oracle"].has(first), "the sweep has not come there yet"
    (done, late) = catalog.sync()
    assert done.deleted > 0
    assert not w.sites["oracle"].has(first)
    assert late.entries == catalog.position + 1
    assert not w.sites["late"].has(first), "what is swept by now is never copied"
    catalog.save("m", weights(1))  # the same bytes, under their next key
    catalog.sync()
    for name in ("oracle", "late"):
        with w.direct(name) as copy:
            assert same(copy, "m@3", 1)
            assert copy.fsck().clean


def test_a_replica_killed_between_a_sweep_and_its_deletes_deletes_next_time(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    key = big(catalog, "m@1")
    catalog.version("m@1").delete()
    catalog.gc(grace=-1)
    oracle = w.sites["oracle"]
    oracle.fail("delete")
    with pytest.raises(BackendError, match="delete failed"):
        catalog.sync()
    assert oracle.has(key)
    catalog.sync()
    assert not oracle.has(key)


def test_a_foreign_place_is_refused_and_stays_as_it_is(world) -> None:
    w = world("cern", "oracle")
    with w.direct("oracle") as other:
        other.save("theirs", weights(5))
    before = {info.key for info in w.sites["oracle"].store.list("")}
    catalog = w.open()
    catalog.save("m", weights())
    with pytest.raises(IntegrityError, match="holds another catalog"):
        catalog.sync()
    assert {info.key for info in w.sites["oracle"].store.list("")} == before


def test_many_entries_go_over_in_batches_and_newcomers_read_segments_there(world) -> None:
    w = world()
    catalog = w.open()
    version = catalog.save("m", {"w": np.zeros(3)})
    for number in range(BATCH + 40):
        version = version.tag(n=str(number))
    (done,) = catalog.sync()
    assert done.entries == BATCH + 42
    assert [info.key for info in w.sites["oracle"].store.list("segments/")]
    with w.direct("oracle") as copy:
        assert copy.version("m@1").tags == {"n": str(BATCH + 39)}


# -- audits -----------------------------------------------------------------------------------------------------------


class Telling(Site):
    """A site that reports adler32, as EOS does."""

    def stat(self, key: str) -> Any:
        import zlib

        import attrs

        info = super().stat(key)
        if info is None or not key.startswith("blobs/"):
            return info
        return attrs.evolve(info, checksums={"adler32": f"{zlib.adler32(self.store.get(key).read()):08x}"})


def test_an_audit_believes_what_stores_report_and_reads_nothing(world) -> None:
    w = world()
    w.sites["oracle"] = Telling("oracle")
    catalog = w.open()
    for seed in range(3):
        catalog.save("m", weights(seed))
    catalog.sync()
    oracle = w.sites["oracle"]
    bad, gone = big(catalog, "m@1"), big(catalog, "m@3")
    assert not catalog.audit().flaws
    oracle.damage(bad)
    oracle.drop(gone)
    before = oracle.calls["get"], w.sites["cern"].calls["get"]
    found = catalog.audit()
    assert [(flaw.part, flaw.key, flaw.ref, flaw.what) for flaw in found.flaws] == [
        ("oracle", bad, "m@1", "damaged"), ("oracle", gone, "m@3", "missing"),
    ]  # fmt: skip
    assert "adler32" in found.flaws[0].message
    assert found.read == 0
    assert found.proven == 2, "what oracle has of m@2, and the environment"
    moved = sum(site.calls["get"] for site in w.sites.values()) - sum(before)
    assert moved < 15, "hints and entries are read, no blob"
    (state,) = [part for part in catalog.replicas() if part.name == "oracle"]
    assert (state.damaged, state.missing) == (("m@1",), ("m@3",))
    mended = catalog.audit(mend=True)
    assert [flaw.mended for flaw in mended.flaws] == [True, True]
    assert not catalog.audit(deep=True).flaws


def test_a_deep_audit_finds_what_no_checksum_tells(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights())
    catalog.sync()
    key = big(catalog, "m@1")
    w.sites["cern"].damage(key)
    assert not catalog.audit().flaws, "the size is right, and this store reports nothing else"
    found = catalog.audit(deep=True, mend=True)
    assert [(flaw.part, flaw.what, flaw.mended) for flaw in found.flaws] == [("cern", "damaged", True)]
    assert not catalog.audit(deep=True).flaws


# -- another primary --------------------------------------------------------------------------------------------------


def forked(w: World) -> Catalog:
    """cern acknowledged m@3, an alias and a tag that oracle never got; oracle became the primary and has an m@3 of its
    own. Then cern returned."""
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.save("m", weights(2), alias="best")
    catalog.sync()
    third = catalog.save("m", weights(3))
    third.alias("best")
    catalog.version("m@1").tag(team="cern")
    catalog.save("only-there", weights(7))
    w.sites["cern"].away = True
    w.machine("two")
    w.open(stale=True).failover("oracle")
    other = w.open()
    other.save("m", weights(30))
    other.version("m@3").alias("best")
    w.sites["cern"].away = False
    return w.open()


def test_while_the_primary_is_away_a_replica_is_read_and_not_written(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2))  # only here
    w.sites["cern"].away = True
    with pytest.raises(BackendError, match="the primary of this hybrid is away") as caught:
        w.open()
    assert "--stale" in str(caught.value.hint)
    seen = w.open(stale=True)  # this machine has seen more than the replica has
    assert [version.number for version in seen.versions("m")] == [2, 1]
    assert same(seen, "m@1", 1)
    with pytest.raises(ReadOnly):
        seen.save("m", weights(3))
    assert {part.name: (part.role, part.behind) for part in seen.replicas()} == {
        "cern": ("away", None), "oracle": ("replica", 1),
    }  # fmt: skip
    w.machine("two")
    newcomer = w.open(stale=True)
    assert [version.number for version in newcomer.versions("m")] == [1]
    w.sites["cern"].away = False
    assert [version.number for version in w.open().versions("m")] == [2, 1]
    w.machine("three")
    went = w.open(stale=True)
    w.sites["cern"].away = True
    assert [version.number for version in went.versions("m")] == [2, 1], "it goes on with what it knows"


def test_who_reads_on_does_not_ask_a_dead_primary_each_time(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    w.machine("two")
    reader = w.open(stale=True)
    cern = w.sites["cern"]
    cern.away = True
    asked: list[str] = []
    enter = cern._enter
    cern._enter = lambda verb: asked.append(verb) or enter(verb)  # type: ignore[method-assign, func-returns-value]
    for _ in range(20):
        assert same(reader, "m@1", 1)
    assert len(asked) < 5, "once for news, once for a blob"
    cern.away = False
    catalog.save("m", weights(2))
    reader._refresh(force=True)
    assert same(reader, "m@2", 2)


def test_a_fork_loses_nothing(world) -> None:
    w = world()
    catalog = forked(w)
    assert same(catalog, "m@best", 30)
    assert "only-there@1" not in catalog
    for name in ("cern", "oracle"):
        w.machine(f"direct-{name}")
        with w.direct(name) as part:
            assert part.writable == (name == "oracle")
    w.machine("two")
    with pytest.raises(ReadOnly, match="another store is the primary"):
        w.direct("cern").save("m", weights(4))
    shown = {void.what: (void.outcome, void.becomes) for void in catalog.reconcile()}
    assert shown == {
        ("version.published m@3",): ("renumber", ("m@4",)),
        ("alias.set m@3",): ("conflict", ()),
        ("tags.set m@1",): ("ready", ()),
        ("version.published only-there@1",): ("ready", ("only-there@1",)),
    }
    assert all(void.part == "cern" and void.actor == catalog.actor for void in catalog.reconcile())
    applied = {void.what[0]: void.outcome for void in catalog.reconcile(apply=True)}
    assert list(applied.values()) == ["renumber", "conflict", "replayed", "replayed"]
    assert catalog.version("m@1").tags == {"team": "cern"}
    assert same(catalog, "only-there@1", 7)
    left = catalog.reconcile(apply=True, renumber=True)
    assert [(void.outcome, void.becomes) for void in left] == [("replayed", ("m@4",)), ("conflict", ())]
    assert "you saw 2, it is 3" in str(left[1].why)
    assert same(catalog, "m@4", 3)
    assert same(catalog, "m@best", 30), "the alias is as oracle's people set it"
    (taken,) = catalog.reconcile(take=[left[1].id[:8]], apply=True)
    assert taken.outcome == "replayed"
    assert same(catalog, "m@best", 3), "it follows its version to the new number"
    assert catalog.reconcile() == []
    catalog.sync()
    w.machine("three")
    with w.direct("cern") as old:
        assert [version.number for version in old.versions("m")] == [4, 3, 2, 1]
        assert same(old, "m@4", 3)
        assert old.fsck().clean


def test_a_replayed_intent_keeps_its_id_its_actor_and_what_it_was(world) -> None:
    w = world()
    catalog = forked(w)
    ids = {void.what[0]: void.id for void in catalog.reconcile()}
    catalog.actor = "bob@later"
    catalog.reconcile(apply=True, renumber=True)
    entries = [json.loads(data) for _, data in catalog._backend.journal.read(0)]
    intents = {intent["id"]: intent for entry in entries for intent in entry["intents"]}
    plain = intents[ids["tags.set m@1"]]
    assert plain["replayed"] == {"by": "bob@later", "epoch": 0, "position": plain["replayed"]["position"]}
    assert plain["actor"] != "bob@later"
    moved = intents[ids["version.published m@3"]]
    assert moved["events"][0]["number"] == 4
    assert moved["replayed"]["events"][0]["number"] == 3
    assert [event.actor for event in catalog.history("m")][-1] != "bob@later"


def test_a_signature_comes_back_as_it_was(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    tag = event("tags.set", model="m", number=1, set={"by": "alice"}, unset=[])
    head = catalog._index.head
    signed = Intent(new_id(), "alice", 1_750_000_000_000, head, (tag,), {"signature": "c2lnbmVk", "key": "alice-1"})
    commit(catalog._backend, catalog._index, "alice", lambda index: signed, {})
    w.sites["cern"].away = True
    w.machine("two")
    w.open(stale=True).failover("oracle")
    w.sites["cern"].away = False
    catalog = w.open()
    assert [void.outcome for void in catalog.reconcile(apply=True)] == ["replayed"]
    (_, data) = list(catalog._backend.journal.read(0))[-1]
    (intent,) = json.loads(data)["intents"]
    stored = signed.to_json()
    assert {key: intent[key] for key in stored} == stored
    assert intent["replayed"]["by"] == catalog.actor
    assert catalog.version("m@1").tags == {"by": "alice"}


def test_two_people_who_reconcile_at_once_bring_each_intent_once(world) -> None:
    w = world()
    first = forked(w)
    w.machine("three")
    second = w.open()
    assert len(first.reconcile()) == len(second.reconcile()) == 4
    first.reconcile(apply=True, renumber=True)
    assert [void.outcome for void in second.reconcile(apply=True, renumber=True)] == ["conflict"]
    assert len(second.versions("m")) == 4
    assert len(second.versions("only-there")) == 1


def test_what_is_dropped_is_offered_no_more_and_cannot_come_back(world) -> None:
    w = world()
    catalog = forked(w)
    voids = catalog.reconcile()
    with pytest.raises(NotFound, match="no void intents"):
        catalog.reconcile(drop=["zz"])
    dropped = catalog.reconcile(drop=[void.id for void in voids])
    assert {void.outcome for void in dropped} == {"dropped"}
    assert catalog.reconcile() == []
    assert len(catalog.versions("m")) == 3


def test_blobs_of_a_void_version_come_along_even_if_swept_meanwhile(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(3))  # acknowledged, not replicated
    w.sites["cern"].away = True
    w.machine("two")
    w.open(stale=True).failover("oracle")
    other = w.open()
    other.save("x", weights(3)).delete()  # the same bytes
    assert other.gc(grace=-1).blobs > 0
    w.sites["cern"].away = False
    catalog = w.open()
    assert [void.outcome for void in catalog.reconcile(apply=True)] == ["replayed"]
    assert same(catalog, "m@2", 3)
    catalog.sync()
    assert catalog.fsck().clean


def test_a_direct_client_of_the_old_primary_stops_and_what_it_wrote_before_is_found(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    direct = w.direct("cern")
    w.sites["cern"].away = True
    w.machine("two")
    w.open(stale=True).failover("oracle")
    w.sites["cern"].away = False
    assert direct.save("m", weights(5)).ref == "m@2", "nobody has told cern yet"
    catalog = w.open()  # tells it
    with pytest.raises(ReadOnly, match="another store is the primary"):
        direct.save("m", weights(6))
    assert [void.outcome for void in catalog.reconcile(apply=True)] == ["replayed"]
    assert same(catalog, "m@2", 5)


def test_a_planned_failover_takes_all_along_and_back(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.failover("oracle")
    catalog.save("m", weights(2))
    with pytest.raises(InvalidInput, match="primary already"):
        catalog.failover("oracle")
    catalog.sync()
    catalog.failover("cern")
    catalog.save("m", weights(3))
    assert catalog.reconcile() == []
    catalog.sync()
    assert [part.role for part in catalog.replicas()] == ["primary", "replica"]
    assert len(catalog._backend.journal.line().chain) == 3
    for name in ("cern", "oracle"):
        w.machine(f"at-{name}")
        with w.direct(name) as part:
            assert [version.number for version in part.versions("m")] == [3, 2, 1]
            assert part.fsck().clean


def test_failover_refuses_what_would_void_more_than_needs_be(world) -> None:
    w = world("cern", "oracle", "tape")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2))
    catalog.sync("oracle")
    catalog.save("m", weights(3))
    w.sites["cern"].away = True
    with pytest.raises(Conflict, match="this machine has seen 3"):
        w.open(stale=True).failover("tape")
    with w.direct("tape") as tape:
        assert tape.position == 2, "what oracle has came first"
    w.open(stale=True).failover("tape", force=True)
    w.sites["cern"].away = False
    assert [void.what for void in w.open().reconcile()] == [("version.published m@3",)]
    w.sites["empty"] = Site("empty")
    with pytest.raises(NotFound, match="holds no copy"):
        w.open().failover("empty")


def test_a_catalog_that_was_open_before_the_outage_can_choose_another_primary(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    w.sites["cern"].away = True
    with pytest.raises(BackendError):
        catalog.save("m", weights(2))
    catalog.failover("oracle")
    assert catalog.save("m", weights(3)).ref == "m@2"


def test_reconcile_says_which_part_it_could_not_see_and_what_it_cannot_read(
    world, caplog: pytest.LogCaptureFixture
) -> None:
    w = world()
    catalog = forked(w)
    cern = w.sites["cern"]
    cern.store.put("journal/0000000000/0000000000/notes.txt", io.BytesIO(b"hello"), 5, "hint")
    assert len(catalog.reconcile()) == 4, "what strangers left there is no entry"
    cern.store.put("journal/0000000000/0000000000/0000000004", io.BytesIO(b"rot"), 3, "hint")
    with pytest.raises(IntegrityError, match="0000000004 of cern cannot be read"):
        catalog.reconcile()
    cern.away = True
    assert w.open().reconcile() == []
    assert "void branches of cern is not known: cern is away" in caplog.text


def test_a_following_save_costs_a_replica_few_requests(world) -> None:
    w = world()
    catalog = w.open("sync")
    for seed in range(3):
        catalog.save("m", weights(seed))
    before = w.sites["oracle"].calls.total()
    catalog.save("m", weights(3))
    assert w.sites["oracle"].calls.total() - before <= 16


def test_two_rival_primaries_are_read_only_until_a_person_chooses(world) -> None:
    w = world("cern", "oracle", "tape")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    for winner, loser, seed in (("oracle", "tape", 20), ("tape", "oracle", 30)):
        w.machine(winner)
        w.sites["cern"].away = w.sites[loser].away = True
        w.open(stale=True).failover(winner)
        with w.open() as there:
            there.save("m", weights(seed))
            there.save(f"by-{winner}", weights(seed))
        w.sites["cern"].away = w.sites[loser].away = False
    w.machine("chief")
    catalog = w.open(stale=True)
    assert not catalog.writable
    with pytest.raises(ReadOnly, match="two rival epochs"):
        catalog.save("m", weights(9))
    with pytest.raises(ReadOnly, match="two rival epochs"):
        catalog.sync()
    catalog.failover("tape")
    catalog = w.open()
    assert same(catalog, "m@2", 30)
    voids = {void.what[0]: void.outcome for void in catalog.reconcile()}
    assert voids == {"version.published m@2": "renumber", "version.published by-oracle@1": "ready"}
    catalog.reconcile(apply=True, renumber=True)
    assert same(catalog, "m@3", 20)
    assert same(catalog, "by-oracle@1", 20)
    catalog.sync()
    for name in w.sites:
        w.machine(f"at-{name}")
        with w.direct(name) as part:
            assert part.writable == (name == "tape")
            assert len(part.versions("m")) == 3
            assert part.fsck().clean


def test_a_replica_that_is_far_behind_follows_over_several_epochs(world) -> None:
    w = world("cern", "oracle", "tape")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    w.sites["tape"].away = True
    for seed, name in ((2, "oracle"), (3, "cern"), (4, "oracle")):
        catalog.save("m", weights(seed))
        with pytest.raises(BackendError):
            catalog.sync()
        catalog.failover(name)
    catalog.save("m", weights(5))
    w.sites["tape"].away = False
    catalog = w.open()
    assert len(read_epochs(w.sites["tape"].store, "tape")) == 4
    with w.direct("tape") as behind:
        assert [version.number for version in behind.versions("m")] == [1]
    catalog.sync()
    w.machine("two")
    with w.direct("tape") as followed:
        assert [version.number for version in followed.versions("m")] == [5, 4, 3, 2, 1]
        assert followed.fsck().clean


def test_random_outages_failovers_and_reconciliations_lose_nothing(world) -> None:
    """A seeded walk: whatever was acknowledged is there at the end, once."""
    w = world("cern", "oracle", "tape")
    chance = random.Random(5)
    w.open().save("start", weights(0, 100))
    w.open().sync()
    acknowledged: dict[str, int] = {}
    for turn in range(60):
        w.machine(f"machine-{turn % 3}")
        for site in w.sites.values():
            site.away = chance.random() < 0.25
        try:
            catalog = w.open(chance.choice(["manual", "sync"]), stale=True)
            if not catalog.writable:
                up = [name for name, site in w.sites.items() if not site.away]
                catalog.failover(chance.choice(up), force=True)
            seed = turn + 100
            try:
                catalog.save(f"m{chance.randrange(3)}", weights(seed, 3000))
            except PublishedNotReplicated:
                pass
            acknowledged[digest_of(weights(seed, 3000)["w"].tobytes())] = seed
            if chance.random() < 0.4:
                catalog.sync()
        except CatalogError:
            continue
    assert len(acknowledged) > 20
    for site in w.sites.values():
        site.away = False
    w.machine("last")
    catalog = w.open(stale=True)
    if not catalog.writable:
        catalog.failover("oracle")
        catalog = w.open()
    for void in catalog.reconcile(apply=True, renumber=True):
        assert void.outcome == "replayed", void
    catalog.sync()
    for name in (None, *w.sites):
        w.machine(f"final-{name}")
        with w.direct(name) if name else w.open() as part:
            refs = [version.ref for model in part.models() for version in part.versions(model.name)]
            held = [digest_of(part.load(ref)["w"].tobytes()) for ref in refs if not ref.startswith("start")]
            assert sorted(held) == sorted(acknowledged), f"each once on {name or 'the hybrid'}"
            assert part.fsck().clean


# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))

    def write(table: str) -> None:
        text = '[catalogs.cern]\nurl = "file:cern"\n[catalogs.oracle]\nurl = "file:oracle"\n'.replace(":", "://")
        text += '[catalogs.rows]\nurl = "sqlite://rows"\n[catalogs.hybrid]\nbackend = "hybrid"\n'
        (tmp_path / "catalog.toml").write_text(text + table)

    return write


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('replicas = ["oracle"]', "primary"),
        ('primary = "cern"', "replicas"),
        ('primary = "cern"\nreplicas = []', "two or more different catalogs"),
        ('primary = "cern"\nreplicas = ["cern"]', "two or more different catalogs"),
        ('primary = "cern"\nreplicas = "oracle"', "a list of names"),
        ('primary = "cern"\nreplicas = ["oracle"]\ndurability = "often"', "durability"),
        ('primary = "cern"\nreplicas = ["oracle"]\ncolour = "red"', "colour"),
        ('primary = "cern"\nreplicas = ["rows"]', "keeps its journal in a database"),
        ('primary = "cern"\nreplicas = ["hybrid"]', "has parts itself"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_clear_error(configured, table: str, says: str) -> None:
    configured(table)
    with pytest.raises(ConfigError, match=says):
        Catalog.open("hybrid").sync()


def test_a_part_that_is_not_configured_is_named(configured) -> None:
    configured('primary = "cern"\nreplicas = ["orakel"]')
    with pytest.raises(NotFound, match="orakel"):
        Catalog.open("hybrid")


def test_the_same_program_runs_on_each_by_its_name_alone(configured) -> None:
    configured('primary = "cern"\nreplicas = ["oracle"]\ndurability = "sync"')
    with Catalog.open("hybrid") as catalog:
        catalog.save("m", weights(1))
    for name in ("cern", "oracle", "hybrid"):
        with Catalog.open(name) as catalog:
            assert same(catalog, "m@1", 1)
            assert catalog.writable == (name != "oracle")
    with pytest.raises(InvalidInput, match="has no replicas"), Catalog.open("cern") as catalog:
        catalog.replicas()


def test_a_folder_that_is_not_mounted_is_away_and_not_made_anew(configured, tmp_path: Path) -> None:
    configured('primary = "cern"\nreplicas = ["oracle"]\ndurability = "sync"')
    with Catalog.open("hybrid") as catalog:
        catalog.save("m", weights(1))
    for name in ("oracle", "cern"):
        (tmp_path / name).rename(tmp_path / "away")
        with pytest.raises(CatalogError), Catalog.open("hybrid") as catalog:
            catalog.save("m", weights(2))
        assert not (tmp_path / name).exists()
        (tmp_path / "away").rename(tmp_path / name)


def test_a_new_primary_is_not_kept_waiting_by_the_old_one_that_hangs(world, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog_hybrid.store.LATER", 0.2)
    monkeypatch.setattr("catalog_hybrid.store.SOON", 1.0)
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    w.sites["cern"].latency = 3.0  # a call takes longer than anybody waits here
    begun = time.monotonic()
    catalog.failover("oracle")  # it was open before: what it knew of cern does not count
    assert catalog.save("m", weights(2)).ref == "m@2"
    w.machine("two")
    assert len(w.open().versions("m")) == 2
    assert time.monotonic() - begun < 9.0
    w.sites["cern"].latency = 0.0


@pytest.mark.parametrize("verb", ["get", "list"])
def test_who_comes_while_the_first_epoch_begins_finds_the_primary(world, verb: str) -> None:
    """Another process begins the catalog, and brings a replica up, right after our first look at the primary."""
    w = world()
    cern = w.sites["cern"]
    ask = getattr(cern, verb)

    def ask_once(*values: Any) -> Any:
        setattr(cern, verb, ask)
        try:
            return iter(list(ask(*values))) if verb == "list" else ask(*values)
        finally:
            w.open().sync()

    setattr(cern, verb, ask_once)
    store = HybridStore({name: site.place for name, site in w.sites.items()})
    store.look()
    assert store.primary == "cern"


def test_a_reader_is_not_held_up_by_a_part_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog_hybrid.store.LATER", 0.2)
    slow = Site("slow")
    slow.latency = 3.0
    store = HybridStore({"fast": Site("fast").place, "slow": slow.place})
    begun = time.monotonic()
    store.look()
    assert time.monotonic() - begun < 1.0
    store.put(blob_key(digest_of(b"x")), io.BytesIO(b"x"), 1, "content")
    assert store.get(blob_key(digest_of(b"x"))).read() == b"x"
    assert time.monotonic() - begun < 1.0


def test_what_was_erased_goes_from_every_part_and_comes_back_from_none(world) -> None:
    w = world("cern", "oracle", "late")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync("oracle")
    key = big(catalog, "m@1")
    catalog.save("m", weights(2))
    w.machine("two")
    other = w.open()
    assert same(other, "m@1", 1)
    catalog.erase("m@1", "by request")
    assert not w.sites["cern"].has(key)
    assert w.sites["oracle"].has(key), "the erasure has not come there yet"
    catalog.sync()
    assert not any(site.has(key) for site in w.sites.values())
    assert not catalog.audit(mend=True).flaws
    w.sites["cern"].away = True
    other = w.open(stale=True)
    other.failover("oracle")
    with pytest.raises(CatalogError, match="erased"):
        w.open().save("n", weights(1))
    assert not any(site.has(key) for site in w.sites.values())


@pytest.mark.parametrize("how", ["gc", "erase"])
def test_what_is_swept_goes_from_the_primary_also_while_a_replica_is_away(world, how: str) -> None:
    w = world()
    catalog = w.open("sync")
    catalog.save("m", weights(1))
    key = big(catalog, "m@1")
    if how == "gc":
        catalog.version("m@1").delete()
    w.sites["oracle"].away = True
    with pytest.raises(NotReplicated, match="do not repeat it"):
        catalog.gc(grace=-1) if how == "gc" else catalog.erase("m@1", "by request")
    assert not w.sites["cern"].has(key)
    w.sites["oracle"].away = False
    catalog.sync()
    assert not w.sites["oracle"].has(key)


def test_a_publish_between_two_parts_of_a_sweep_lets_it_be_computed_again(
    world, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each part of a sweep the replicas follow, which looks at the journal: what came in meanwhile may rely on
    what the next part would take."""
    monkeypatch.setattr("catalog_core.maintain.BATCH", 1)
    w = world()
    catalog = w.open("sync")
    for seed in (1, 2):
        catalog.save("m", weights(seed))
    for ref in ("m@1", "m@2"):
        catalog.version(ref).delete()
    w.machine("two")
    other = w.open()
    w.machine("one")
    sweeps: list[Any] = []
    delete = catalog._backend.blobs.delete

    def delete_and_publish(keys: Any) -> None:
        delete(keys)
        sweeps.append(1)
        if len(sweeps) == 1:
            other.save("n", weights(2))
            catalog._refresh(force=True)

    monkeypatch.setattr(catalog._backend.blobs, "delete", delete_and_publish)
    catalog.gc(grace=-1)
    assert len(sweeps) > 1
    assert same(catalog, "n@1", 2)
    assert catalog.fsck().clean


def test_a_hybrid_begins_also_while_a_replica_is_away(world) -> None:
    w = world()
    w.sites["oracle"].away = True
    catalog = w.open("sync")
    assert catalog.position == 0
    w.sites["oracle"].away = False
    catalog.save("m", weights(1))
    with w.direct("oracle") as copy:
        assert same(copy, "m@1", 1)


def test_who_had_seen_more_goes_on_in_the_new_epoch_with_what_there_is(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2))
    w.sites["cern"].away = True
    catalog = w.open(stale=True)
    assert len(catalog.versions("m")) == 2
    catalog.failover("oracle", force=True)
    assert [version.number for version in catalog.versions("m")] == [1]
    assert catalog.save("m", weights(3)).ref == "m@2"
    assert same(catalog, "m@2", 3)


@pytest.mark.parametrize("more", [0, 1, 3])
def test_who_has_an_old_primary_open_sees_the_new_epoch(world, more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the new one has fewer, as many, or more entries than the void branch that this reader followed."""
    monkeypatch.setattr(journal_module, "NEWS", 0.0)
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2))
    w.machine("reader")
    reader = w.direct("cern")
    assert same(reader, "m@2", 2)
    w.sites["cern"].away = True
    w.machine("two")
    w.open(stale=True).failover("oracle")
    new = w.open()
    for seed in range(more):
        new.save("m", weights(10 + seed))
    w.sites["cern"].away = False
    w.open().sync()
    assert [version.number for version in reader.versions("m")] == list(range(more + 1, 0, -1))
    for seed in range(more):
        assert same(reader, f"m@{seed + 2}", 10 + seed)
    assert not reader.writable
