"""Writes the golden journals and the states they mean into a folder: `python tests/core/make_golden.py FOLDER`.

Run it by hand when format 1 gains a meaning that no golden journal holds, then copy the *new* files to
`catalog_core/testing/golden/`. Those that are there stay as they are: they freeze what earlier releases meant. There is
no clock and no chance in here: the same release writes the same bytes (a test compares them with what is shipped).
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from catalog_core.digests import digest_of
from catalog_core.events import Intent, event, write_entry
from catalog_core.interfaces.backend import Head

START = 1_750_000_000_000


def d(text: str) -> str:
    return digest_of(text.encode())


class Journal:
    """Entries as any writer could have made them, right or wrong."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.head: Head | None = None
        self.count = 0
        self.add(event("catalog.created", catalog="c" * 32, format=1, hash="sha256"))

    def id(self) -> str:
        self.count += 1
        return f"{self.count:032x}"

    def add(self, *events: dict[str, Any], id: str | None = None, blobs: Any = (), time: int | None = None) -> None:
        self.add_intents([(id or self.id(), events)], blobs, time)

    def add_intents(self, intents: Any, blobs: Any = (), time: int | None = None) -> None:
        now = START + 1000 * len(self.entries) if time is None else time
        made = [Intent(id, "alice" if n % 2 == 0 else "bob", now, self.head, events) for n, (id, events) in
                enumerate(intents)]  # fmt: skip
        packed = {key: base64.b64encode(text.encode()).decode() for key, text in dict(blobs).items()}
        data = write_entry(self.head, now, made, packed)
        self.head = Head(len(self.entries), digest_of(data))
        self.entries.append(data)


def publish(model: str, number: Any, *, blobs: tuple[str, ...] = (), checked: int = -1, **more: Any) -> dict[str, Any]:
    name = f"{model}@{number}"
    return event(
        "version.published", model=model, number=number, manifest=d(f"manifest {name}"), layout=d(f"layout {name}"),
        size=100, blobs="".join(digest[7:23] for digest in sorted(blobs)), checked=checked, **more,
    )  # fmt: skip


def of(kind: str, model: str, number: Any = ..., **fields: Any) -> dict[str, Any]:
    return event(kind, model=model, **({} if number is ... else {"number": number}), **fields)


def every_event(j: Journal) -> None:
    rich = {
        "summary": {"framework": "torch", "algorithm": "Net", "parameters": 7, "components": {"model": "torch"}},
        "tags": {"team": "openlab", "good": True, "count": 3, "share": 0.5}, "metrics": {"auc": 0.93, "val/loss": 1e-7},
        "params": {"lr": 0.001, "name": "adam"}, "taxonomy": {"task": "generation"}, "text": "a calorimeter",
    }  # fmt: skip
    j.add(publish("calo/3dgan", 1, **rich), of("alias.set", "calo/3dgan", 1, alias="champion", seen="any"))
    j.add(publish("calo/3dgan", 2))
    j.add(of("model.updated", "calo/3dgan", set={"title": "3DGAN – шум", "owner": "alice"}, seen={}))
    j.add(of("model.updated", "calo/3dgan", set={"title": None, "description": "long"}, seen={"title": "3DGAN – шум"}))
    j.add(of("alias.set", "calo/3dgan", 2, alias="champion", seen=1))
    j.add(of("alias.set", "calo/3dgan", 2, alias="rc.1", seen=None))
    j.add(of("alias.set", "calo/3dgan", None, alias="rc.1", seen=2))
    j.add(of("stage.set", "calo/3dgan", 2, stage="production", seen="registered"))
    j.add(of("stage.set", "calo/3dgan", 2, stage="archived", seen="production"))
    j.add(of("tags.set", "calo/3dgan", 1, set={"team": "cms", "new": "x"}, unset=["good", "never there"]))
    j.add(of("metrics.set", "calo/3dgan", 1, set={"auc": 0.95, "fid": 12}, unset=["val/loss"]))
    j.add(of("card.set", "calo/3dgan", digest=d("card"), seen=None), blobs={d("card"): "card"})
    j.add(of("card.set", "calo/3dgan", digest=d("card 2"), seen=d("card"), blobs=d("card 2")[7:23], checked=12))
    j.add(of("attachment.set", "calo/3dgan", 1, name="roc.png", digest=d("png"), size=3))
    j.add(of("attachment.set", "calo/3dgan", 1, name="logs/run.txt", digest=d("log"), size=4, blobs="", checked=0))
    j.add(of("attachment.set", "calo/3dgan", 1, name="roc.png", digest=None, size=None))
    j.add(publish("digits", 1), time=START)  # a clock that goes back: effective time does not
    j.add(publish("digits", 2))
    j.add(of("version.deleted", "digits", 1, reason="a mistake"))
    j.add(of("version.deleted", "digits", 2))
    j.add(of("version.restored", "digits", 2))
    j.add(of("model.deleted", "digits", reason="by wish"))
    j.add(of("model.restored", "digits"))
    j.add(publish("gone", 1), of("alias.set", "gone", 1, alias="live", seen=None))
    j.add(of("model.deleted", "gone"))
    j.add(publish("gone", 2))  # comes back; version 1 does not
    j.add(event("blobs.swept", keys=[d("manifest digits@1")], versions=[["digits", 1]]))
    j.add_intents([(j.id(), (publish("two", 1),)), (j.id(), (publish("two", 2), publish("three", 1)))])


def rejected(j: Journal) -> None:
    j.add(publish("m", 1), of("alias.set", "m", 1, alias="a", seen=None))
    j.add(publish("m", 2))
    j.add(of("version.deleted", "m", 2))
    bad: list[tuple[dict[str, Any], ...]] = [
        (event("catalog.created", catalog="d" * 32, format=1, hash="sha256"),),
        (publish("m", 2),), (publish("m", 4),), (publish("m", 0),), (publish("m", "3"),), (publish("new", 2),),
        (publish("M", 1),), (publish("bad name", 1),), (publish("con", 1),), (publish("a/../b", 1),),
        (publish("m", 3, metrics={"auc": "high"}),), (publish("m", 3, metrics={"auc": True}),),
        (publish("m", 3, tags={" blank": 1}),), (publish("m", 3, tags={"k" * 201: 1}),),
        (publish("m", 3), of("alias.set", "m", 3, alias="latest", seen=None)),
        (publish("m", 3), of("stage.set", "m", 3, stage="production", seen="tested")),
        (of("model.updated", "none", set={"title": "x"}, seen={}),),
        (of("model.updated", "m", set={"title": "x"}, seen={"title": "stale"}),),
        (of("model.updated", "m", set={"title": "x", "colour": "red"}, seen={}),),
        (of("alias.set", "m", 1, alias="a", seen=None),), (of("alias.set", "m", 1, alias="a", seen=2),),
        (of("alias.set", "m", 2, alias="b", seen=None),), (of("alias.set", "m", 9, alias="b", seen=None),),
        (of("alias.set", "m", 1, alias="7", seen=None),), (of("alias.set", "m", 1, alias="Latest", seen=None),),
        (of("alias.set", "m", 1, alias="sha256-x", seen=None),), (of("alias.set", "m", 1, alias="a/b", seen=None),),
        (of("stage.set", "m", 1, stage="tested", seen="production"),),
        (of("stage.set", "m", 1, stage="perfect", seen="registered"),),
        (of("stage.set", "m", 9, stage="tested", seen="registered"),),
        (of("tags.set", "m", 9, set={}, unset=[]),), (of("tags.set", "m", 1, set=[], unset=[]),),
        (of("metrics.set", "m", 1, set={"fid": 1, "auc": "high"}, unset=[]),),
        (of("card.set", "m", digest=d("x"), seen=d("y")),), (of("card.set", "none", digest=d("x"), seen=None),),
        (of("attachment.set", "m", 1, name="../x", digest=d("x"), size=1),),
        (of("attachment.set", "m", 9, name="x", digest=d("x"), size=1),),
        (of("version.deleted", "m", 2),), (of("version.deleted", "m", 9),), (of("version.restored", "m", 9),),
        (of("model.deleted", "none"),), (of("model.restored", "none"),),
        (event("blobs.swept", keys=[d("x")], versions=[["m", 9]]),),
        (of("tags.set", "m", 1, set={"a": 1}, unset=[]), of("tags.set", "m", 9, set={"a": 1}, unset=[])),
    ]  # fmt: skip
    for events in bad:
        j.add(*events)
    j.add(publish("m", 3))
    # of several intents in an entry, each stands for itself, and the blobs count in any case
    j.add_intents(
        [(j.id(), (publish("m", 5),)), (j.id(), (publish("m", 4),))], blobs={d("carried"): "carried"}
    )  # fmt: skip


def retries(j: Journal) -> None:
    same, lost = j.id(), j.id()
    j.add(publish("m", 1), id=same)
    j.add(publish("m", 2), id=same)
    j.add_intents([(same, (publish("m", 2),)), (j.id(), (publish("m", 2),)), (same, (publish("n", 1),))])
    j.add(of("stage.set", "m", 1, stage="tested", seen="production"), id=lost)
    j.add(of("stage.set", "m", 1, stage="tested", seen="registered"), id=lost)  # its id is used up


def sweeps(j: Journal) -> None:
    a, b = d("a"), d("b")
    j.add(publish("m", 1, blobs=(a, b), checked=0), blobs={a: "a", b: "b"})
    j.add(publish("m", 2, blobs=(b,), checked=1), blobs={b: "another text: the first entry counts"})
    j.add(of("version.deleted", "m", 1))
    j.add(event("blobs.swept", keys=[a], versions=[["m", 1]]))
    j.add(of("version.restored", "m", 1))  # collected for good
    j.add(publish("m", 3, blobs=(a, b), checked=3))  # a was swept at 4: rejected
    j.add(publish("m", 3, blobs=(a, b), checked=4), blobs={f"{a}~1": "a"})
    j.add(event("blobs.swept", keys=[f"{a}~1", d("never stored")], versions=[]))
    j.add(publish("m", 4, blobs=(b,), checked=1))
    j.add(of("card.set", "m", digest=a, seen=None, blobs=a[7:23], checked=7))
    j.add(of("card.set", "m", digest=a, seen=None, blobs=a[7:23], checked=8), blobs={f"{a}~2": "a"})
    j.add(of("attachment.set", "m", 4, name="x", digest=a, size=1, blobs=a[7:23], checked=7))
    j.add(publish("gone", 1))
    j.add(of("model.deleted", "gone"))
    j.add(event("blobs.swept", keys=[d("manifest gone@1")], versions=[["gone", 1]]))
    j.add(of("model.restored", "gone"))  # without its version


def unknown_ignored(j: Journal) -> None:
    j.add(publish("m", 1))
    j.add({"type": "later.invented", "v": 1, "critical": False, "model": "m", "number": 1, "anything": [1, {"a": 2}]})
    j.add({**of("version.deleted", "m", 1), "v": 2, "critical": False})
    j.add({**publish("m", 2), "v": 2, "critical": False})
    j.add({**of("version.deleted", "m", 1), "type": "version_deleted", "critical": False})
    j.add({"type": "later.invented", "v": 7, "critical": False, "model": ["m"], "number": {"a": 1}}, publish("m", 2))
    j.add({k: v for k, v in of("stage.set", "m", 1, stage="tested", seen="registered").items() if k != "critical"})


def unknown_critical(j: Journal) -> None:
    j.add(publish("m", 1))
    j.add(of("tags.set", "m", 1, set={"before": 1}, unset=[]))
    j.add({"type": "later.invented", "v": 1, "critical": True, "model": "m"})
    j.add(of("tags.set", "m", 1, set={"after": 1}, unset=[]))


def unknown_version(j: Journal) -> None:
    j.add(publish("m", 1))
    j.add(publish("m", 2), {k: v for k, v in {**of("version.deleted", "m", 1), "v": 2}.items() if k != "critical"})


def replays(j: Journal) -> None:
    """What came back from a void branch, and what may not."""
    back, dropped, spared = j.id(), j.id(), j.id()
    j.add(publish("m", 1))
    about = {"by": "carol", "epoch": 0, "position": 2, "events": [publish("m", 1)]}
    now = START + 1000 * len(j.entries)
    intent = Intent(back, "alice", now - 500, j.head, (publish("m", 2),), {"replayed": about, "signature": "reserved"})
    data = write_entry(j.head, now, [intent])
    j.head = Head(len(j.entries), digest_of(data))
    j.entries.append(data)
    j.add(publish("m", 3), id=back)  # it is here already
    j.add(event("intents.dropped", ids=[dropped], reason="reconciled"))
    j.add(publish("m", 3), id=dropped)
    j.add(event("intents.dropped", ids=[spared]), of("version.deleted", "m", 9))  # rejected: it drops nothing
    j.add(publish("m", 3), id=spared)
    j.add(event("intents.dropped", ids=[7]))


def erasures(j: Journal) -> None:
    a, b = d("a"), d("b")
    j.add(
        publish("m", 1, blobs=(a, b), checked=0),
        of("alias.set", "m", 1, alias="best", seen=None),
        blobs={a: "a", b: "b"},
    )
    j.add(of("card.set", "m", digest=a, seen=None), of("attachment.set", "m", 1, name="x", digest=a, size=1))
    j.add(event("blobs.erased", keys=[a, b], digests=[a], versions=[["m", 1]], reason="by request"))
    j.add(publish("m", 2, blobs=(a,), checked=99))  # it may not come back
    j.add(publish("m", 2, blobs=(b,), checked=2))  # only collected, but after that
    j.add(publish("m", 2, blobs=(b,), checked=4), blobs={a: "a again: nobody is shown it", f"{b}~1": "b"})
    j.add(of("version.restored", "m", 1))
    j.add(of("card.set", "m", digest=a, seen=None, blobs=a[7:23], checked=6))
    j.add(event("blobs.erased", keys=[], digests=["no digest"], versions=[], reason="rejected"))
    j.add(event("blobs.erased", keys=[], digests=[b], versions=[["m", 9]], reason="rejected"))


JOURNALS = (
    every_event,
    erasures,
    rejected,
    replays,
    retries,
    sweeps,
    unknown_ignored,
    unknown_critical,
    unknown_version,
)


def main(folder: Path) -> None:
    from catalog_core.catalog import Catalog
    from catalog_core.objectstore import ObjectStoreBackend
    from catalog_core.testing import golden
    from catalog_core.testing.memory import MemoryStore

    for number, write in enumerate(JOURNALS):
        journal = Journal()
        write(journal)
        name = write.__name__.replace("_", "-")
        (folder / f"{name}.jsonl").write_bytes(b"".join(data + b"\n" for data in journal.entries))
        backend = ObjectStoreBackend(MemoryStore(), "memory", f"memory://{tempfile.mkdtemp()}/{number}")
        golden.replay(backend, journal.entries)
        with Catalog(backend, "golden") as catalog:
            text = json.dumps(golden.state(catalog), indent=1, sort_keys=True, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
