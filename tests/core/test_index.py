"""The reducer: rules hold for every reader alike, whoever wrote the entry."""

from __future__ import annotations

import pytest

from catalog_core.digests import digest_of
from catalog_core.errors import IntegrityError, UpgradeRequired
from catalog_core.events import Intent, event, new_id, write_entry
from catalog_core.index import Index
from catalog_core.interfaces.backend import Head


class Writer:
    """Writes entries as a careless stranger would: nothing is checked before."""

    def __init__(self) -> None:
        self.index = Index(None)
        self.head: Head | None = None
        self.add(event("catalog.created", catalog=new_id(), format=1, hash="sha256"))

    def add(self, *events: dict, identity: str | None = None) -> None:
        data = write_entry(self.head, 1000, [Intent(identity or new_id(), "me", 1000, self.head, events)])
        position = 0 if self.head is None else self.head.position + 1
        with self.index:
            self.index.apply(position, data)
        self.head = Head(position, digest_of(data))

    def publish(self, number: int) -> dict:
        return event(
            "version.published", model="m", number=number, manifest=digest_of(b"m"), layout=digest_of(b"l"), size=1,
            blobs="", checked=-1,
        )  # fmt: skip

    def rejected(self) -> list[str]:
        return [row[0] for row in self.index.rows("SELECT rejected FROM events WHERE rejected IS NOT NULL")]


def test_a_rejected_event_leaves_no_trace() -> None:
    writer = Writer()
    writer.add(writer.publish(7))
    assert "next number is 1" in writer.rejected()[0]
    assert writer.index.rows("SELECT * FROM models") == []


def test_events_of_an_intent_take_effect_together() -> None:
    writer = Writer()
    writer.add(writer.publish(1), event("alias.set", model="m", alias="latest", number=1, seen=None))
    assert writer.index.rows("SELECT * FROM versions") == []
    writer.add(writer.publish(1))
    writer.add(event("model.updated", model="m", set={"owner": "me", "title": "new"}, seen={"title": "stale"}))
    assert writer.index.rows("SELECT owner, title FROM models") == [(None, None)]


def test_an_intent_that_was_retried_counts_once() -> None:
    writer = Writer()
    identity = new_id()
    writer.add(writer.publish(1), identity=identity)
    writer.add(writer.publish(2), identity=identity)
    assert writer.index.rows("SELECT number FROM versions") == [(1,)]


def test_an_unknown_critical_event_asks_for_an_upgrade_and_another_is_kept() -> None:
    writer = Writer()
    writer.add({"type": "later.invented", "v": 1, "critical": False, "anything": 1})
    assert writer.index.rows("SELECT type FROM events ORDER BY id DESC LIMIT 1") == [("later.invented",)]
    with pytest.raises(UpgradeRequired):
        writer.add({"type": "later.invented", "v": 1, "critical": True})
    assert writer.index.head == writer.head


def test_an_entry_that_does_not_continue_the_chain_is_refused() -> None:
    writer = Writer()
    data = write_entry(Head(0, digest_of(b"another")), 1000, [Intent(new_id(), "me", 1000, None, (writer.publish(1),))])
    with pytest.raises(IntegrityError, match="chain"), writer.index:
        writer.index.apply(1, data)
