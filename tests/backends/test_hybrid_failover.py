"""A hybrid catalog whose primary was away: who may read, who becomes the primary, and what comes back."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sites import Site, World, big, same, weights

from catalog_core import journal as journal_module
from catalog_core import reconcile
from catalog_core.catalog import Catalog
from catalog_core.digests import canonical, digest_of
from catalog_core.epochs import read_epochs
from catalog_core.errors import (
    BackendError,
    CatalogError,
    Conflict,
    IntegrityError,
    InvalidInput,
    NotFound,
    NotReplicated,
    PublishedNotReplicated,
    ReadOnly,
    UpgradeRequired,
)
from catalog_core.events import Intent, event, new_id, write_entry
from catalog_core.journal import entry_key
from catalog_core.reconcile import Void
from catalog_core.writer import commit


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
    w.fails_over()
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
    reader.repository.refresh(force=True)
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
    catalog.repository.actor = "bob@later"
    catalog.reconcile(apply=True, renumber=True)
    entries = [json.loads(data) for _, data in catalog.repository.backend.journal.read(0)]
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
    head = catalog.repository.index.head
    signed = Intent(new_id(), "alice", 1_750_000_000_000, head, (tag,), {"signature": "c2lnbmVk", "key": "alice-1"})
    with pytest.raises(UpgradeRequired, match="cannot check signatures"):  # this release writes none
        commit(catalog.repository.backend, catalog.repository.index, "alice", lambda index: signed, {})
    data = write_entry(head, 1_750_000_000_000, [signed])
    w.sites["cern"].put(entry_key(head.position + 1), io.BytesIO(data), len(data), "exclusive")
    with pytest.raises(UpgradeRequired, match="cannot check signatures"):  # nor writes behind one
        catalog.version("m@1").tag(by="bob")
    w.fails_over()
    w.sites["cern"].away = False
    catalog = w.open()
    assert [void.outcome for void in catalog.reconcile(apply=True)] == ["replayed"]
    (_, data) = list(catalog.repository.backend.journal.read(0))[-1]
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
    w.fails_over()
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
    w.fails_over()
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
    assert len(catalog.repository.backend.journal.line().chain) == 3
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
    catalog = w.open()
    assert len(catalog.reconcile()) == 3
    assert "0000000004 of cern cannot be read, what it says cannot come back" in caplog.text
    for verb in (catalog.sync, lambda: catalog.gc(grace=-1), catalog.sync):
        verb()  # nothing waits for it
    cern.away = True
    assert w.open().reconcile() == []
    assert "void branches of cern is not known: cern is away" in caplog.text


PUBLISHED = {
    "type": "version.published", "v": 1, "critical": True, "model": "eve", "number": 1, "size": 1, "blobs": "",
    "checked": -1, "manifest": "sha256:" + "0" * 64, "layout": "sha256:" + "0" * 64,
}  # fmt: skip
CARD = {"type": "card.set", "v": 1, "critical": True, "model": "m", "digest": None, "seen": None}
ODD = {
    "a layout that is a number": {"events": [{**PUBLISHED, "layout": 5}]},
    "a layout that is no digest": {"events": [{**PUBLISHED, "layout": "garbage"}]},
    "a manifest that is a list": {"events": [{**PUBLISHED, "manifest": [1]}]},
    "a number that is a list": {"events": [{**PUBLISHED, "number": [1]}]},
    "a card that is an object": {"events": [{**CARD, "digest": {"a": 1}}]},
    "a card that is a number": {"events": [{**CARD, "digest": 5}]},
    "of a newer release, and no events": {"newer": 1, "events": 5},
    "of a newer release, and events without a type": {"newer": 1, "events": [{}]},
    "of a newer release, and blobs that are a number": {"newer": 1, "blobs": 5, "events": [CARD]},
    "of a newer release, and no id": {"newer": 1, "id": None, "events": [CARD]},
}


@pytest.mark.parametrize("what", ODD)
def test_whatever_stands_in_a_void_branch_keeps_nobody_from_anything(
    world, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    w = world()
    catalog = forked(w)
    there = {void.id: void.outcome for void in catalog.reconcile()}
    made = {"id": new_id(), "actor": "eve", "time": 1, "based_on": None, **ODD[what]}
    newer = {key: made.pop(key) for key in ("newer", "blobs") if key in made}
    entry = {"epoch": 0, "position": 90, "previous": None, "time": 1, "intents": [made], **newer}
    data = canonical(entry)
    w.sites["cern"].store.put(entry_key(90), io.BytesIO(data), len(data), "exclusive")
    catalog = w.open()
    found = {void.id: void.outcome for void in catalog.reconcile()}
    assert found == there, "what no reader takes is not offered"
    assert len(catalog.notices()) == 1
    for verb in (catalog.sync, lambda: catalog.gc(grace=-1), catalog.fsck, lambda: catalog.save("m", weights(9))):
        verb()
    assert there.keys() == {void.id for void in catalog.reconcile(apply=True)}
    assert f"{entry_key(90)} of cern cannot be read" in caplog.text


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
def test_who_has_seen_more_of_an_old_primary_is_told_so(world, more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the new one has fewer, as many, or more entries than the void branch that this reader followed.
    Anybody who may write there can add the record of an epoch: nobody is taken back without a word."""
    monkeypatch.setattr(journal_module, "NEWS", 0.0)
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2))
    w.machine("reader")
    reader = w.direct("cern")
    assert same(reader, "m@2", 2)
    w.fails_over()
    new = w.open()
    for seed in range(more):
        new.save("m", weights(10 + seed))
    w.sites["cern"].away = False
    w.open().sync()
    with pytest.raises(IntegrityError, match=r"leaves out entries that this machine has seen: 2 to 2 with m@2"):
        reader.versions("m")
    w.machine("reader")
    with pytest.raises(IntegrityError, match="leaves out"):
        w.direct("cern")
    reader.close()
    reader.repository.index.discard()  # as the hint says, by a person who has asked
    reader = w.direct("cern")
    assert [version.number for version in reader.versions("m")] == list(range(more + 1, 0, -1))
    for seed in range(more):
        assert same(reader, f"m@{seed + 2}", 10 + seed)
    assert not reader.writable


@pytest.mark.parametrize("stale", [False, True])
def test_who_has_seen_more_says_so_and_goes_on_by_force(world, stale: bool) -> None:
    """The catalog was open when the primary went away: what it remembers of the journal is not on the replica."""
    w = world()
    catalog = w.open(stale=stale)
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2))
    w.sites["cern"].away = True
    with pytest.raises(Conflict, match="ends at entry 1; this machine has seen 2"):
        catalog.failover("oracle")
    assert catalog.failover("oracle", force=True) == 1
    assert [version.number for version in catalog.versions("m")] == [1]
    assert catalog.save("m", weights(3)).ref == "m@2"


@pytest.mark.parametrize("followed", ["higher", "lower"])
def test_a_machine_that_followed_the_rival_that_lost_goes_on(
    world, monkeypatch: pytest.MonkeyPatch, followed: str
) -> None:
    """Whatever numbers the rivals drew, the choice gets a higher one, and each site's own machine follows it."""
    drawn = iter([500, 900, 0] if followed == "higher" else [900, 500, 0])
    monkeypatch.setattr("catalog_core.epochs.secrets.randbelow", lambda limit: next(drawn))
    w = world("cern", "oracle", "tape")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    for winner, loser, seed in (("oracle", "tape", 20), ("tape", "oracle", 30)):
        w.machine(winner)
        w.sites["cern"].away = w.sites[loser].away = True
        w.open(stale=True).failover(winner)
        w.open().save("m", weights(seed))
        w.sites["cern"].away = w.sites[loser].away = False
    w.machine("tape")
    assert same(w.open(stale=True), "m@1", 1)
    w.machine("chief")
    chief = w.open(stale=True)
    chief.failover("oracle")
    line = chief.repository.backend.journal.line()
    assert all(line.last.number > record.number for record in line.void)
    for machine in ("oracle", "tape", "chief"):
        w.machine(machine)
        with w.open() as found:
            assert same(found, "m@2", 20)


@pytest.mark.parametrize("more", [0, 3])
def test_a_machine_that_knows_a_later_epoch_does_not_write_into_an_earlier_one(world, more: int) -> None:
    """cern comes back and takes itself for the primary; nobody who knows better is there, but for this machine."""
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    w.fails_over()
    w.open().save("m", weights(2))
    w.sites["cern"].away, w.sites["oracle"].away = False, True
    w.machine("three")
    for seed in range(more):
        w.open().save("m", weights(10 + seed))
    w.machine("two")
    with pytest.raises(BackendError, match=r"has seen epoch.*none that knows of it is here"):
        w.open()
    asked = w.calls
    known = w.open(stale=True)
    assert len(known.versions("m")) == 2
    with pytest.raises(ReadOnly, match="has seen epoch"):
        known.save("m", weights(3))
    known.failover("cern", force=True)
    assert w.open().save("m", weights(4)).ref == f"m@{more + 2}"
    assert w.calls - asked < 300, "nobody tried again and again"
    w.sites["oracle"].away = False
    w.open(stale=True).failover("oracle")
    catalog = w.open()
    assert same(catalog, "m@2", 2)
    assert {void.outcome for void in catalog.reconcile(apply=True, renumber=True)} == {"replayed"}


def test_a_handle_from_before_the_outage_saves_after_the_way_there_and_back(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2))
    w.machine("old")
    old = w.direct("cern")
    old.repository.max_staleness = 60.0  # it does not look before it writes
    assert len(old.versions("m")) == 2
    w.fails_over()
    w.sites["cern"].away = False
    other = w.open()
    other.sync()
    other.failover("cern")
    other.save("m", weights(9))
    asked = w.calls
    with pytest.raises(IntegrityError, match=r"leaves out entries that this machine has seen: 2 to 2 with m@2"):
        old.save("m", weights(7))
    assert w.calls - asked < 100, "it did not try again and again"
    old.close()
    old.repository.index.discard()
    w.machine("old")
    assert w.direct("cern").save("m", weights(7)).ref == "m@3"
    assert same(w.open(), "m@2", 9) and same(w.open(), "m@3", 7)


@pytest.mark.parametrize("durability", ["sync", "manual"])
def test_a_hybrid_opened_during_the_outage_brings_the_old_primary_up(world, durability: str) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2))
    w.fails_over()
    open_during = w.open(durability)
    if durability == "sync":
        with pytest.raises(PublishedNotReplicated):
            open_during.save("m", weights(3))
    else:
        open_during.save("m", weights(3))
    w.sites["cern"].away = False
    planned = open_during.sync(dry_run=True)[0]
    assert (planned.position, planned.entries) == (1, 1), "the void entry does not count"
    done = open_during.sync()[0]
    assert (done.entries, done.position) == (1, 2)
    assert {replica.name: replica.role for replica in open_during.replicas()} == {
        "cern": "replica",
        "oracle": "primary",
    }
    with w.direct("cern") as cern:
        assert same(cern, "m@2", 3)


def test_what_a_void_branch_swept_is_there_again_after_a_sync(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    key = big(catalog, "m@1")
    catalog.version("m@1").delete()
    catalog.gc(grace=-1)
    w.fails_over()
    w.sites["cern"].away = False
    catalog = w.open()
    assert not w.sites["cern"].has(key)
    catalog.sync()
    assert w.sites["cern"].has(key)
    assert not catalog.audit().flaws
    catalog.failover("cern")
    w.sites["oracle"].away = True
    w.machine("three")
    with w.direct("cern") as cern:
        assert same(cern, "m@1", 1)


# -- what comes back of a void branch ---------------------------------------------------------------------------------


def outage(world: World, *more: Callable[[Catalog], Any]) -> Catalog:
    """cern has m@1, m@2 (best) and whatever `more` does there, which is void: oracle is the primary now, with another
    m@3, and cern is back."""
    catalog = world.open()
    catalog.save("m", weights(1))
    catalog.save("m", weights(2), alias="best")
    catalog.sync()
    for step in more:
        step(catalog)
    world.sites["cern"].away = True
    world.machine("two")
    world.open(stale=True).failover("oracle")
    catalog = world.open()
    catalog.save("m", weights(30))
    world.sites["cern"].away = False
    return world.open()


def outcomes(found: Iterable[Void]) -> dict[str, str]:
    return {void.what[0]: void.outcome for void in found}


def test_what_names_a_version_that_did_not_come_back_is_not_meant_for_its_namesake(world) -> None:
    """m@3 waits for somebody's consent to another number; m@4 becomes m@4, which is what m@3 might have become."""
    catalog = outage(
        world(),
        lambda c: c.save("m", weights(3)),
        lambda c: c.save("m", weights(4)),
        lambda c: c.version("m@3").tag(which="third"),
        lambda c: c.version("m@3").alias("prod"),
    )
    found = outcomes(catalog.reconcile(apply=True))
    assert found == {
        "version.published m@3": "renumber",
        "version.published m@4": "replayed",
        "tags.set m@3": "conflict",
        "alias.set m@3": "conflict",
    }
    assert same(catalog, "m@4", 4) and not catalog.version("m@4").tags and not catalog.version("m@3").tags
    assert catalog.model("m").aliases == {"best": 2}
    assert set(outcomes(catalog.reconcile(apply=True, renumber=True)).values()) == {"replayed"}
    assert same(catalog, "m@5", 3) and catalog.version("m@5").tags == {"which": "third"}
    assert catalog.version("m@prod").number == 5


@pytest.mark.parametrize("why", ["dropped", "erased"])
def test_a_deletion_does_not_hit_the_namesake_of_what_it_deleted(world, why: str) -> None:
    w = world()
    catalog = outage(w, lambda c: c.save("m", weights(3)), lambda c: c.version("m@3").delete())
    published, deleted = catalog.reconcile()
    assert (published.outcome, deleted.outcome) == ("renumber", "ready")
    if why == "erased":
        catalog.save("z", weights(3))
        catalog.erase("z@1", "by request")
        before = w.sites["oracle"].blobs()
        found = outcomes(catalog.reconcile(apply=True, renumber=True))
        assert found == {"version.published m@3": "conflict", "version.deleted m@3": "conflict"}
        assert w.sites["oracle"].blobs() == before, "nothing of it was brought first"
    else:
        found = outcomes(catalog.reconcile(apply=True, drop=[published.id]))
        assert found == {"version.published m@3": "dropped", "version.deleted m@3": "conflict"}
    assert [version.number for version in catalog.versions("m")] == [3, 2, 1]


def test_an_alias_that_moved_on_by_both_sides_stays_with_the_present_one(world) -> None:
    """What the void side had seen as m@3 is not the m@3 that the alias names now."""
    catalog = outage(
        world(),
        lambda c: c.save("m", weights(3)),
        lambda c: c.version("m@3").alias("best"),
        lambda c: c.save("m", weights(4)),
        lambda c: c.version("m@4").alias("best"),
    )
    catalog.version("m@3").alias("best")
    found = catalog.reconcile(apply=True, renumber=True)
    assert [void.outcome for void in found] == ["replayed", "conflict", "replayed", "conflict"]
    assert catalog.version("m@best").number == 3
    catalog.reconcile(apply=True, take=[found[3].id])
    assert catalog.version("m@best").number == 5
    assert same(catalog, "m@best", 4)


def test_each_void_branch_has_numbers_of_its_own(world) -> None:
    """Two branches are void: cern's m@2, and oracle's m@2, whose tag is not meant for cern's."""
    w = world("cern", "oracle", "tape")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2))
    w.fails_over()
    catalog = w.open()
    catalog.save("m", weights(20))
    catalog.sync("tape")
    catalog.version("m@2").tag(whose="oracle")
    w.sites["oracle"].away = True
    w.machine("three")
    w.open(stale=True).failover("tape", force=True)
    for site in w.sites.values():
        site.away = False
    catalog = w.open()
    assert [void.outcome for void in catalog.reconcile(apply=True, renumber=True)] == ["replayed", "replayed"]
    assert same(catalog, "m@2", 20) and catalog.version("m@2").tags == {"whose": "oracle"}
    assert same(catalog, "m@3", 2) and not catalog.version("m@3").tags


def test_what_came_back_into_a_branch_that_became_void_itself_is_known_there_by_its_number_there(world) -> None:
    """A is m@2 of cern's void branch, and m@3 of oracle's, which is void as well; a tag of the latter names m@3."""
    w = world("cern", "oracle", "tape")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2), tags={"is": "A"})
    w.fails_over()
    catalog = w.open()
    catalog.save("m", weights(3), tags={"is": "B"})
    w.sites["cern"].away = False
    catalog = w.open()
    assert [void.becomes for void in catalog.reconcile(apply=True, renumber=True)] == [("m@3",)]
    catalog.version("m@3").tag(late="A")
    w.sites["oracle"].away = w.sites["cern"].away = True
    w.machine("three")
    w.open(stale=True).failover("tape", force=True)
    catalog = w.open()
    for seed, name in ((4, "C"), (5, "D")):
        catalog.save("m", weights(seed), tags={"is": name})
    for site in w.sites.values():
        site.away = False
    catalog = w.open()
    assert outcomes(catalog.reconcile(apply=True))["tags.set m@3"] == "conflict"
    assert catalog.version("m@3").tags == {"is": "D"}
    catalog.reconcile(apply=True, renumber=True)
    late = {version.tags.get("is"): version.tags.get("late") for version in catalog.versions("m")}
    assert late == {None: None, "A": "A", "B": None, "C": None, "D": None}


def test_a_void_erasure_is_worked_out_anew_and_takes_nothing_that_lives(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    key = big(catalog, "m@1")
    catalog.erase("m@1", "by request")
    w.fails_over()
    catalog = w.open()
    catalog.save("n", weights(1))
    w.sites["cern"].away = False
    catalog = w.open()
    found = catalog.reconcile(apply=True)
    assert [void.outcome for void in found] == ["conflict"]
    assert "`catalog erase` m@1" in str(found[0].why)
    assert same(catalog, "n@1", 1)
    catalog.sync()
    for ref in ("m@1", "n@1"):
        catalog.erase(ref, "by request, again")
    catalog.reconcile(drop=[found[0].id])
    catalog.sync()
    assert not any(site.has(key) for site in w.sites.values())
    assert not catalog.reconcile()


def test_a_sweep_between_bringing_and_writing_is_seen(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """n@1 shares its bytes with m@1, which is collected right after they were found on the primary."""
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("n", weights(1))
    w.fails_over()
    other = w.direct("oracle")  # who does not know of cern does not know what is awaited
    other.version("m@1").delete()
    w.sites["cern"].away = False
    w.machine("three")
    catalog = w.open()
    bring = reconcile._bring

    def bring_and_collect(*values: Any) -> Any:
        found = bring(*values)
        assert other.gc(grace=-1).blobs > 0
        return found

    with monkeypatch.context() as patch:
        patch.setattr(reconcile, "_bring", bring_and_collect)
        assert [void.outcome for void in catalog.reconcile(apply=True)] == ["conflict"]
    catalog.sync()
    assert [void.outcome for void in catalog.reconcile(apply=True)] == ["replayed"]
    assert same(catalog, "n@1", 1)
    catalog.sync()
    assert not catalog.audit().flaws


def test_what_a_void_branch_published_again_after_a_sweep_comes_back(world) -> None:
    """There its bytes have another key than the present state gives them."""
    w = world()
    catalog = w.open()
    catalog.save("base", weights(0))
    catalog.sync()
    catalog.save("m", weights(1))
    catalog.version("m@1").delete()
    catalog.gc(grace=-1)
    catalog.save("m", weights(1))
    assert big(catalog, "m@2").endswith("~1")
    w.fails_over()
    w.sites["cern"].away = False
    catalog = w.open()
    assert {void.outcome for void in catalog.reconcile(apply=True)} == {"replayed"}
    assert same(catalog, "m@2", 1)
    catalog.sync()
    assert not catalog.audit().flaws


def test_bytes_that_no_part_has_keep_only_their_own_intent_from_coming_back(world) -> None:
    w = world()
    catalog = outage(w, lambda c: c.save("k", weights(3)), lambda c: c.save("l", weights(4)))
    w.machine("one")
    with w.direct("cern") as cern:
        assert not cern.writable
    lost = digest_of(b"")
    for info in list(w.sites["cern"].store.list("blobs/")):
        if info.key not in w.sites["oracle"].blobs():
            lost = "sha256:" + info.key.rpartition("/")[2]
            w.sites["cern"].drop(lost)
            break
    found = catalog.reconcile(apply=True)
    assert sorted(void.outcome for void in found) == ["conflict", "replayed"]
    assert lost in str(next(void.why for void in found if void.outcome == "conflict"))


@pytest.mark.parametrize("where", ["cern", "oracle"])
def test_what_a_void_branch_awaits_is_kept_until_it_came_back_or_was_dropped(world, where: str) -> None:
    """Neither a sweep that a part replicates nor the sweep of a part that is the primary again takes it."""
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("n", weights(1))
    catalog.save("o", weights(2))
    alone, shared = big(catalog, "o@1"), big(catalog, "n@1")
    w.fails_over()
    catalog = w.open()
    catalog.version("m@1").delete()
    w.sites["cern"].away = False
    if where == "oracle":  # without knowing of cern
        w.direct("oracle").gc(grace=-1)
    catalog = w.open()
    catalog.sync()
    if where == "cern":
        catalog.failover("cern")
        catalog = w.open()
        catalog.gc(grace=-1)
        catalog.sync()
    assert w.sites["cern"].has(shared) and w.sites["cern"].has(alone)
    n, o = catalog.reconcile()
    assert n.outcome == o.outcome == "ready"
    assert [void.outcome for void in catalog.reconcile(apply=True, drop=[o.id])] == ["replayed", "dropped"]
    assert same(catalog, "n@1", 1)
    if where == "oracle":
        catalog.sync()
        catalog.failover("cern")
        catalog = w.open()
    catalog.gc(grace=-1)
    assert not w.sites["cern"].has(alone)
    catalog.sync()
    assert not catalog.audit().flaws


@pytest.mark.parametrize("how", ["replayed", "dropped"])
def test_what_a_void_branch_stored_under_a_later_key_does_not_hide_what_lives(world, how: str) -> None:
    """There the content was swept and published again, as ~1; here it never was. A sweep of the old primary, when it is
    the primary again, finds both."""
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.version("m@1").delete()
    catalog.gc(grace=-1)
    catalog.save("m", weights(1))
    w.fails_over()
    w.sites["cern"].away = False
    catalog = w.open()
    if how == "replayed":
        assert {void.outcome for void in catalog.reconcile(apply=True)} == {"replayed"}
    else:
        catalog.reconcile(drop=[void.id for void in catalog.reconcile()])
    catalog.sync()
    catalog.failover("cern")
    for turn in range(2):
        catalog = w.open()
        catalog.gc(grace=-1)
        catalog.sync()
        assert not catalog.audit(deep=True).flaws
        for site in w.sites:
            w.machine(f"{site}-{turn}")
            with w.direct(site) as part:
                assert same(part, "m@2" if how == "replayed" else "m@1", 1)


def test_a_sweep_of_a_key_that_was_never_given_here_changes_nothing(world) -> None:
    """As an earlier release wrote it, and a replica deletes for it later."""
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    key = big(catalog, "m@1")
    catalog.repository.commit(event("blobs.swept", keys=[f"{key}~1"], versions=[]))
    assert big(catalog, "m@1") == key
    catalog.version("m@1").delete()
    catalog.gc(grace=-1)
    catalog.save("m", weights(1))
    assert big(catalog, "m@2") == f"{key}~1"
    catalog.sync()
    assert w.sites["oracle"].has(f"{key}~1")
    assert not catalog.audit().flaws


@pytest.mark.parametrize("take", [False, True])
def test_a_model_that_got_a_version_since_is_not_deleted_by_who_did_not_see_it(world, take: bool) -> None:
    catalog = outage(world(), lambda c: c.model("m").delete())
    (void,) = catalog.reconcile(apply=True)
    assert void.outcome == "conflict" and void.why is not None and "m was deleted before m@3 came" in void.why
    assert [version.number for version in catalog.versions("m")] == [3, 2, 1]
    if take:
        assert [void.outcome for void in catalog.reconcile(apply=True, take=[void.id])] == ["replayed"]
        assert "m" not in catalog


def test_a_version_comes_without_the_alias_that_somebody_set_since(world) -> None:
    catalog = outage(world(), lambda c: c.save("m", weights(3), alias="best"))
    catalog.version("m@3").alias("best")
    (void,) = catalog.reconcile()
    assert void.outcome == "renumber" and void.why == "without the alias best, which somebody else has set since"
    (void,) = catalog.reconcile(apply=True, renumber=True)
    assert void.outcome == "replayed" and "without the alias best" in str(void.why)
    assert catalog.model("m").aliases == {"best": 3}
    assert same(catalog, "m@4", 3)


def test_small_bytes_that_only_the_common_journal_has_after_an_erasure_come_along(world) -> None:
    """The list of distributions is inside an entry that both branches have; the erasure of m@1 took it away."""
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("n", weights(2))
    w.fails_over()
    w.open().erase("m@1", "by request")
    w.sites["cern"].away = False
    catalog = w.open()
    assert [void.outcome for void in catalog.reconcile(apply=True)] == ["replayed"]
    assert same(catalog, "n@1", 2) and catalog.fsck().clean


def test_an_erasure_takes_the_bytes_under_every_key(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    key = big(catalog, "m@1")
    catalog.version("m@1").delete()
    catalog.gc(grace=-1)
    catalog.save("m", weights(1))
    assert w.sites["cern"].has(f"{key}~1")
    w.fails_over()
    w.sites["cern"].away = False
    catalog = w.open()
    catalog.sync()
    catalog.erase("m@1", "by request")
    catalog.sync()
    assert not any(key[7:] in name for site in w.sites.values() for name in site.blobs())


def test_a_race_with_a_sweep_is_seen_also_behind_a_long_void_branch(world, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entries have higher numbers than the present journal: what they say of a head means nothing here."""
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    other = catalog.save("k", weights(100))
    for number in range(12):
        other.tag(number=number)
    catalog.save("n", weights(1))
    w.fails_over()
    near = w.direct("oracle")
    near.version("m@1").delete()
    w.sites["cern"].away = False
    w.machine("three")
    catalog = w.open()
    bring = reconcile._bring

    def bring_and_collect(*values: Any) -> Any:
        found = bring(*values)
        if values[2].stored["events"][0]["model"] == "n":
            assert near.gc(grace=-1).blobs > 0
        return found

    with monkeypatch.context() as patch:
        patch.setattr(reconcile, "_bring", bring_and_collect)
        assert outcomes(catalog.reconcile(apply=True))["version.published n@1"] == "conflict"
    assert outcomes(catalog.reconcile(apply=True))["version.published n@1"] == "replayed"
    assert same(catalog, "n@1", 1)
    catalog.sync()
    assert not catalog.audit().flaws


def test_a_machine_that_knows_a_later_epoch_neither_syncs_nor_reconciles_in_an_earlier_one(world) -> None:
    w = world("cern", "oracle", "tape")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("void", weights(9))
    w.fails_over()
    catalog = w.open()
    catalog.save("a", weights(3))
    catalog.sync("tape")
    catalog.save("a", weights(4))
    w.sites["oracle"].away = True
    w.machine("one")
    w.open(stale=True).failover("tape", force=True)
    catalog = w.open()
    for number in range(3):
        catalog.version("m@1").tag(number=number)
    w.sites["tape"].away = True
    w.sites["cern"].away = w.sites["oracle"].away = False
    catalog = w.open(stale=True)
    verbs: tuple[Callable[[], Any], ...] = (
        lambda: catalog.sync("cern"), lambda: catalog.reconcile(apply=True), lambda: catalog.gc(grace=-1),
        lambda: catalog.save("z", weights(1)), lambda: catalog.erase("m@1", "by request"),
    )  # fmt: skip
    for verb in verbs:
        asked = w.calls
        with pytest.raises(ReadOnly, match="has seen epoch"):
            verb()
        assert w.calls - asked < 100, "it did not try again and again"
    w.machine("check")
    with w.direct("cern") as cern:
        assert all(same(cern, version.ref, 1) for version in cern.versions("m"))


def test_a_part_that_goes_away_keeps_nobody_from_sweeping_or_copying(world) -> None:
    w = world("cern", "oracle", "tape")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.save("k", weights(9))
    catalog.sync()
    catalog.save("n", weights(2))
    w.fails_over()
    w.sites["cern"].away = False
    catalog = w.open()
    catalog.sync()
    w.sites["cern"].away = True
    catalog.version("k@1").delete()
    assert catalog.gc(grace=-1).blobs > 0
    assert catalog.sync("tape")[0].entries == 2


def test_void_branches_are_read_once_and_not_for_an_ordinary_save(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.save("k", weights(9))
    catalog.sync()
    for number in range(20):
        catalog.version("m@1").tag(number=number)
    w.fails_over()
    w.sites["cern"].away = False
    w.open().sync()
    catalog = w.open("sync")

    def cost() -> int:
        before = sum(w.sites["cern"].calls.values())
        for number in range(10):
            catalog.version("m@1").tag(again=number)
        return sum(w.sites["cern"].calls.values()) - before

    cost()
    usual = cost()
    catalog.version("k@1").delete()
    catalog.gc(grace=-1)
    assert cost() <= usual + 3


@pytest.mark.parametrize("verb", ["apply", "drop"])
def test_a_replica_that_is_away_does_not_lose_the_answer(world, verb: str, caplog: pytest.LogCaptureFixture) -> None:
    w = world("cern", "oracle", "tape")
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    for number in range(4):
        catalog.save(f"n{number}", weights(number + 2))
    w.fails_over()
    w.sites["cern"].away = False
    catalog = w.open("sync")
    w.sites["tape"].away = True
    ids = [void.id for void in catalog.reconcile()]
    found = catalog.reconcile(apply=True) if verb == "apply" else catalog.reconcile(drop=ids)
    assert [void.outcome for void in found] == ["replayed" if verb == "apply" else "dropped"] * 4
    assert "not on every replica yet" in caplog.text


def test_hundreds_are_dropped_at_once(world) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    for number in range(620):
        catalog.version("m@1").tag(number=number)
    w.fails_over()
    w.sites["cern"].away = False
    catalog = w.open()
    ids = [void.id for void in catalog.reconcile()]
    assert len(ids) == 620
    assert len(catalog.reconcile(drop=ids)) == 620 and catalog.reconcile() == []


# -- all of it together -----------------------------------------------------------------------------------------------


def contents_of(seed: int) -> int:
    """How many different weights there are: with few, they are swept and published again all the time."""
    return (7, 2)[seed % 2]


def walk(w: World, seed: int, turns: int) -> tuple[set[int], set[int]]:
    """Publish, mark, delete, collect and bring back while sites go and come; return the ids of the versions that were
    acknowledged, and of those whose deletion was. Each version bears its id as a tag and as an alias of its own, both
    set by later calls; contents are shared."""
    chance = random.Random(seed)
    contents = contents_of(seed)
    published: set[int] = set()
    deleted: set[int] = set()
    for turn in range(turns):
        w.machine(f"machine-{chance.randrange(3)}")
        for site in w.sites.values():
            site.away = chance.random() < 0.25
        try:
            catalog = w.open(chance.choice(["manual", "sync"]), stale=True)
            if not catalog.writable:
                up = [name for name, site in w.sites.items() if not site.away]
                catalog.failover(chance.choice(up), force=True)  # some are: it could be opened
            for step in range(chance.randrange(1, 4)):
                one = turn * 10 + step
                try:
                    version = catalog.save(f"m{chance.randrange(3)}", weights(one % contents, 3000), tags={"id": one})
                except PublishedNotReplicated as exc:
                    version = exc.version
                published.add(one)
                marks: list[Callable[[], Any]] = [
                    lambda version=version, one=one: version.tag(late=one),  # type: ignore[misc]
                    lambda version=version, one=one: version.alias(f"a{one}"),  # type: ignore[misc]
                ]
                for mark in marks:
                    if chance.random() < 0.5:
                        try:
                            mark()
                        except NotReplicated:
                            pass
            name = f"m{chance.randrange(3)}"
            if chance.random() < 0.3 and name in catalog and (versions := catalog.versions(name)):
                some = chance.choice(versions)
                try:
                    some.delete()
                except NotReplicated:
                    pass
                deleted.add(some.tags["id"])
            for verb, often in (("sync", 0.4), ("gc", 0.3), ("reconcile", 0.2)):
                if chance.random() < often:
                    more = {"gc": {"grace": -1}, "reconcile": {"apply": True, "renumber": chance.random() < 0.5}}
                    getattr(catalog, verb)(**more.get(verb, {}))
            if chance.random() < 0.15:
                catalog.failover(chance.choice(list(w.sites)))
        except CatalogError:
            continue
    return published, deleted


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.campaign) for n in range(4, 300))])
def test_whatever_happens_between_sites_each_version_is_there_once_and_bears_its_own_marks(world, seed: int) -> None:
    w = world(*("cern", "oracle", "tape")[: 2 + seed // 2 % 2])
    w.open().sync()
    published, deleted = walk(w, seed, 40)
    assert len(published) > 15
    for site in w.sites.values():
        site.away = False
    w.machine("last")
    catalog = w.open(stale=True)
    if not catalog.writable:
        catalog.failover("oracle")
        catalog = w.open()
    for void in catalog.reconcile(apply=True, renumber=True):
        assert void.outcome == "replayed" or not void.what[0].startswith("version.published"), void
    catalog.sync()
    assert not catalog.audit(deep=True).flaws
    for name in w.sites:
        w.machine(f"final-{name}")
        with w.direct(name) as part:
            found: set[int] = set()
            for model in part.models():
                names = part.model(model.name).aliases
                for version in part.versions(model.name):
                    one = version.tags["id"]
                    assert one not in found and version.tags.get("late", one) == one
                    assert all(alias == f"a{one}" for alias, number in names.items() if number == version.number)
                    assert (version.load()["w"] == weights(one % contents_of(seed), 3000)["w"]).all()
                    found.add(one)
            assert published - deleted <= found <= published
            assert part.fsck().clean


def test_a_primary_that_lost_what_was_acknowledged_gives_no_number_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup was restored, and no machine that has seen more is at hand: the replica has more."""
    config = tmp_path / "catalog.toml"
    monkeypatch.setenv("CATALOG_CONFIG", str(config))
    parts = "".join(f'[catalogs.{name}]\nurl = "file://{tmp_path}/{name}"\n' for name in ("cern", "oracle"))
    hybrid = '[catalogs.both]\nbackend = "hybrid"\nprimary = "cern"\nreplicas = ["oracle"]\ndurability = "sync"\n'
    config.write_text(parts + hybrid)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "one"))
    with Catalog.open("both") as catalog:
        for number in (1, 2, 3):
            catalog.save("m", {"w": np.full(3, number)})
    max(path for path in (tmp_path / "cern" / "journal").rglob("*") if path.is_file()).unlink()
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "another"))
    with Catalog.open("both") as catalog:
        with pytest.raises(IntegrityError, match=r"oracle .* holds 3: the primary lost what was acknowledged"):
            catalog.save("m", {"w": np.full(3, 9)})
        assert len(catalog.versions("m")) == 2
    (tmp_path / "cern").rename(tmp_path / "away")
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "third"))
    with Catalog.open("both", stale=True) as catalog:
        catalog.failover("oracle", force=True)
    (tmp_path / "away").rename(tmp_path / "cern")
    with Catalog.open("both") as catalog:
        catalog.sync()
        assert catalog.load("m@3")["w"][0] == 3
        assert catalog.save("m", {"w": np.full(3, 9)}).number == 4
