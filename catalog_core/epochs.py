"""Epochs: which store of a catalog may be written, and from which entry on.

Each record `epochs/<number>` names its owner and the entry of the epoch before behind which its own begin; what the
epoch before has beyond that is void. Records form a tree. Two that continue the same one are *rivals*: somebody made a
replica the primary on each of two sites. Nothing is written then until a person chooses, by a further record that
continues one of them and lists the others as `over`.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from catalog_core.digests import MAX_INTEGER, canonical, check_count, check_digest, digest_of, parse
from catalog_core.errors import BackendError, BlobMissing, CatalogError, IntegrityError, KeyTaken
from catalog_core.interfaces.backend import Head
from catalog_core.interfaces.store import ObjectStore

IDENTITY = "identity"
GAP = 1_000_000  # numbers are drawn from the next so many: two failovers at once must not share one


def _digests(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@attrs.frozen
class Epoch:
    """A record of who may write. `position` and `digest` are those of the last entry that it takes over from the epoch
    before (-1 and None: of nothing); `owner` is the identity of the store that holds the primary copy; `previous` is
    the digest of the record before it (None for the first one), `over` those of rivals that it puts aside."""

    number: int
    position: int
    digest: str | None
    owner: str
    actor: str
    time: int
    previous: str | None = None
    over: tuple[str, ...] = attrs.field(default=(), converter=_digests)

    @property
    def key(self) -> str:
        """Where it is kept."""
        return f"epochs/{self.number:010}"

    def to_bytes(self) -> bytes:
        """The stored form."""
        value: dict[str, Any] = attrs.asdict(self)
        value["over"] = list(self.over)
        return canonical(value if self.over else {key: item for key, item in value.items() if key != "over"})

    @property
    def id(self) -> str:
        """The digest of the record."""
        return digest_of(self.to_bytes())

    @classmethod
    def of(cls, data: bytes, where: str) -> Epoch:
        """Parse a record. Raises `IntegrityError`."""
        try:
            epoch = cls(**parse(data))
            check_count(epoch.number, "its number")
            check_count(epoch.position, "its position", -1)
            check_count(epoch.time, "its time", -MAX_INTEGER)
            if type(epoch.owner) is not str or type(epoch.actor) is not str:
                raise TypeError("its owner or actor is no text")
            for digest in (epoch.digest, epoch.previous):
                if digest is not None:
                    check_digest(digest)
            for digest in epoch.over:
                check_digest(digest)
            if epoch.to_bytes() != data:
                raise ValueError("it is not written in the canonical form")
        except (CatalogError, TypeError, ValueError) as exc:
            raise IntegrityError(f"{where} cannot be read: {exc}", hint="restore it from another copy") from exc
        return epoch

    def next(
        self, head: Head | None, owner: str, actor: str, time: int, over: tuple[str, ...] = (), above: int = 0
    ) -> Epoch:
        """A record that follows this one: `owner` goes on behind `head`. `time` is in milliseconds since 1970; the
        number is above `above`, the highest that is known."""
        number = max(self.number, above) + 1 + secrets.randbelow(GAP)
        position, digest = (-1, None) if head is None else (head.position, head.digest)
        return Epoch(number, position, digest, owner, actor, time, self.id, over)


@attrs.frozen
class Line:
    """The records that count, oldest first, as one store sees them (`chain`); the last ones of other branches that
    nobody has chosen against (`rivals`); and all records that do not count (`void`)."""

    chain: tuple[Epoch, ...] = ()
    rivals: tuple[Epoch, ...] = ()
    void: tuple[Epoch, ...] = ()

    @property
    def last(self) -> Epoch | None:
        """The present epoch; None where there is no record, and the first entry began the only one."""
        return self.chain[-1] if self.chain else None

    def epoch_of(self, position: int) -> int:
        """The epoch that a position belongs to."""
        return next((record.number for record in reversed(self.chain) if position > record.position), 0)


def line_of(records: Mapping[str, Epoch], mine: str | None, where: str) -> Line:
    """Order records (by their digests) for the store with the identity `mine`: of rivals it sees its own, else the one
    with the lowest number. Raises `IntegrityError` where one does not continue another."""
    for record in records.values():
        before = None if record.previous is None else records.get(record.previous)
        if record.previous is not None and (before is None or before.number >= record.number):
            raise IntegrityError(f"{record.key} of {where} does not continue the epoch before it")
    inner = {record.previous for record in records.values()}
    aside = {digest for record in records.values() for digest in record.over}
    ends = [record for digest, record in records.items() if digest not in inner | aside]
    if not ends:
        return Line()
    ends.sort(key=lambda record: (record.owner != mine, record.number))
    chain = []
    at: Epoch | None = ends[0]
    while at is not None:
        chain.append(at)
        at = records.get(at.previous) if at.previous else None
    chain.reverse()
    void = sorted((record for record in records.values() if record not in chain), key=lambda record: record.number)
    return Line(tuple(chain), tuple(ends[1:]), tuple(void))


def read_epochs(store: ObjectStore, where: str) -> dict[str, Epoch]:
    """The records of a store, by their digests. Raises `IntegrityError`."""
    found = {}
    for info in store.list("epochs/"):
        with store.get(info.key) as stream:
            data = stream.read()
        found[digest_of(data)] = Epoch.of(data, f"{info.key} of {where}")
    return found


def write_epoch(store: ObjectStore, epoch: Epoch) -> None:
    """Put a record; one that is there already is no error. Raises `KeyTaken` where another one has its number."""
    data = epoch.to_bytes()
    try:
        store.put(epoch.key, io.BytesIO(data), len(data), "exclusive")
    except BackendError as exc:  # taken, or put by us and the answer lost
        try:
            with store.get(epoch.key) as stream:
                there = stream.read()
        except (BackendError, BlobMissing):
            raise exc from None
        if there != data:
            raise


def identity(store: ObjectStore, *, create: bool = False) -> str | None:
    """The random name of a store, by which epochs know it; made where there is none, if `create`."""
    for _ in range(3):
        try:
            with store.get(IDENTITY) as stream:
                return stream.read(64).decode("ascii", "replace")
        except BlobMissing:
            if not create:
                return None
        name = secrets.token_hex(16)
        try:
            store.put(IDENTITY, io.BytesIO(name.encode()), len(name), "exclusive")
            return name
        except KeyTaken:
            continue
    raise BackendError("the identity of the store is taken and cannot be read")
