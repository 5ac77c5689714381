"""Several stores as one: who is read, who is mended, how replicas follow, and how another part becomes the primary."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sites import Site, World, big, same, weights

from catalog_core.catalog import Catalog
from catalog_core.digests import digest_of
from catalog_core.errors import (
    BackendError,
    CatalogError,
    ConfigError,
    IntegrityError,
    InvalidInput,
    NotFound,
    NotReplicated,
    PublishedNotReplicated,
    ReadOnly,
)
from catalog_core.events import event
from catalog_core.objectstore import ObjectStoreBackend, blob_key
from catalog_core.sync import BATCH, Copy
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_core.testing.faults import Death
from catalog_hybrid.store import HybridStore


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
            near.repository.backend.blobs.open(big(near, "m@1")).read()
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
        reader.repository.max_staleness = 60.0
    else:
        getattr(site, harm)(key)
    assert same(reader, "m@1", 0)
    site.away = False
    reader.repository.max_staleness = 0.0
    assert len(reader.versions("m")) == 1, "a lack may be a sweep: it is mended when the journal was asked again"
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


def test_a_hybrid_none_of_whose_folders_is_mounted_is_not_begun_anew(configured, tmp_path: Path) -> None:
    configured('primary = "cern"\nreplicas = ["oracle"]\ndurability = "sync"')
    with Catalog.open("hybrid") as catalog:
        catalog.save("m", weights(1))
        known = catalog.id
    for name in ("cern", "oracle"):
        (tmp_path / name).rename(tmp_path / f"{name}.disk")
    for staleness in (60.0, 0.0):  # it looks before it writes at the latest
        with pytest.raises(IntegrityError, match=f"held the catalog {known}.*nothing is there now.*mounted"):
            Catalog.open("hybrid", max_staleness=staleness).save("m", weights(2))
    for name in ("cern", "oracle"):
        if (tmp_path / name).exists():
            (tmp_path / name).rename(tmp_path / f"{name}.empty")
        (tmp_path / f"{name}.disk").rename(tmp_path / name)
    with Catalog.open("hybrid") as catalog:
        assert same(catalog, "m@1", 1)
        assert catalog.id == known


def test_a_new_primary_is_not_kept_waiting_by_the_old_one_that_hangs(world, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog_hybrid.store.LATER", 0.2)
    monkeypatch.setattr("catalog_hybrid.store.SOON", 1.0)
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    cern = w.sites["cern"]
    cern.held = threading.Event()  # who waits for an answer waits until the end of the test
    answered = cern.calls.total()
    catalog.failover("oracle")  # it was open before: what it knew of cern does not count
    assert catalog.save("m", weights(2)).ref == "m@2"
    w.machine("two")
    assert len(w.open().versions("m")) == 2
    assert cern.calls.total() == answered, "it hung all the while"
    held, cern.held = cern.held, None
    held.set()


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
    slow.held = threading.Event()
    store = HybridStore({"fast": Site("fast").place, "slow": slow.place})
    store.look()
    store.put(blob_key(digest_of(b"x")), io.BytesIO(b"x"), 1, "content")
    assert store.get(blob_key(digest_of(b"x"))).read() == b"x"
    assert slow.calls.total() == 0, "nothing came from there"
    slow.held.set()


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
    delete = catalog.repository.backend.blobs.delete

    def delete_and_publish(keys: Any) -> None:
        delete(keys)
        sweeps.append(1)
        if len(sweeps) == 1:
            other.save("n", weights(2))
            catalog.repository.refresh(force=True)

    monkeypatch.setattr(catalog.repository.backend.blobs, "delete", delete_and_publish)
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


@pytest.mark.parametrize("racing", [False, True])
def test_a_reader_that_is_behind_does_not_bring_back_what_was_erased(
    world, monkeypatch: pytest.MonkeyPatch, racing: bool
) -> None:
    """The primary lacks it, a replica that is behind has it still: that is no loss to be mended. Also where the erasure
    comes just before the bytes."""
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    key = big(catalog, "m@1")
    w.sites["oracle"].latency = 0.02  # the primary is nearer, and asked first
    w.machine("reader")
    reader = w.open()
    reader.repository.max_staleness = 60.0
    version = reader.version("m@1")
    if racing:
        w.sites["cern"].drop(key)
        bring = Copy.bring

        def erase_and_bring(copy: Copy, key: str) -> Any:
            if copy.repository is reader.repository:
                catalog.erase("m@1", "by request")
            return bring(copy, key)

        monkeypatch.setattr(Copy, "bring", erase_and_bring)
    else:
        catalog.erase("m@1", "by request")
    assert (version.load()["w"] == weights(1)["w"]).all()
    reader.close()
    assert "m@1" not in catalog and not w.sites["cern"].has(key)
    catalog.sync()
    assert not any(site.has(key) for site in w.sites.values())


def test_a_stray_of_an_older_sweep_does_not_hide_what_lives(world) -> None:
    """The content was swept and published again; the old key appears once more and is swept once more."""
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    old = big(catalog, "m@1")
    data = w.sites["cern"].store.get(blob_key(old)).read()
    catalog.version("m@1").delete()
    catalog.gc(grace=-1)
    catalog.save("m", weights(1))
    w.sites["cern"].put(blob_key(old), io.BytesIO(data), len(data), "content")
    catalog.gc(grace=-1)
    assert not w.sites["cern"].has(old)
    catalog.sync()
    assert w.sites["oracle"].has(big(catalog, "m@2"))
    w.sites["oracle"].drop(big(catalog, "m@2"))
    assert [flaw.ref for flaw in catalog.audit(mend=True).flaws] == ["m@2"]
    w.sites["cern"].away = True
    w.machine("two")
    assert same(w.open(stale=True), "m@2", 1)


def test_a_version_that_can_be_restored_is_copied_even_where_an_old_key_of_it_was_swept(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    old = big(catalog, "m@1")
    catalog.version("m@1").delete()
    catalog.gc(grace=-1)
    version = catalog.save("m", weights(1))
    version.delete()
    catalog.repository.commit(event("blobs.swept", keys=[old], versions=[]))  # left by a late writer, and swept again
    catalog.sync()
    version.restore()
    catalog.sync()
    assert not catalog.audit().flaws
    with w.direct("oracle") as oracle:
        assert same(oracle, "m@2", 1)
