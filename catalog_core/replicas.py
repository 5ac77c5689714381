"""The copies of a catalog: how far they are, whether what they store is good, and which of them is the primary."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, cast

import attrs

from catalog_core import redact, state
from catalog_core.digests import digest_of_stream
from catalog_core.epochs import identity, line_of, read_epochs, write_epoch
from catalog_core.errors import BlobMissing, CatalogError, Conflict, InvalidInput, NotFound
from catalog_core.interfaces.backend import Head
from catalog_core.interfaces.store import ObjectStore
from catalog_core.journal import StoreJournal
from catalog_core.objectstore import blob_key
from catalog_core.page import Shown
from catalog_core.parallel import in_order
from catalog_core.sync import MANY, Copy, digest_in, read_sums, relied, replicated

log = logging.getLogger("catalog_core")

if TYPE_CHECKING:
    from catalog_core.repository import Repository
    from catalog_core.staging import Progress


@attrs.frozen
class Replica(Shown):
    """The state of one part. `role` is primary, replica or away (`problem` says why); `behind` counts the entries that
    it lacks, `lag` is the age of the first of them in seconds; `missing` and `damaged` are versions that need a blob
    which it lacks, or has with another size or checksum; None where nobody looked."""

    name: str
    url: str = attrs.field(converter=redact.text)
    role: str
    epoch: int | None = None
    position: int | None = None
    behind: int | None = None
    lag: float | None = None
    missing: tuple[str, ...] | None = None
    damaged: tuple[str, ...] | None = None
    problem: str | None = None


@attrs.frozen
class Flaw(Shown):
    """A blob that a part lacks (`missing`) or has otherwise (`damaged`), with the first version that needs it."""

    part: str
    key: str
    ref: str
    what: str
    message: str
    mended: bool = False


@attrs.frozen
class Audit(Shown):
    """What an audit found: `blobs` were asked for, `read` of them in full, `proven` by a checksum that the store
    reports or by reading; of the rest only the size is known."""

    blobs: int
    proven: int
    read: int
    flaws: tuple[Flaw, ...]


def replicas(repository: Repository, *, blobs: bool = True) -> list[Replica]:
    """The state of every part; with `blobs`, also of what it stores (see `audit`)."""
    hybrid = replicated(repository)
    repository.refresh(force=True)
    result = []
    for name in hybrid.parts:
        try:
            copy = Copy(repository, name)
            epoch, position = copy.journal.epoch, copy.position()
            flaws = _flaws(copy, position, _sums(copy), deep=False, mend=False)[0] if blobs else []
        except CatalogError as exc:
            result.append(Replica(name, hybrid.url_of(name), "away", problem=str(exc)))
            continue
        refs = {
            what: tuple(dict.fromkeys(flaw.ref for flaw in flaws if flaw.what == what))
            for what in ("missing", "damaged")
        }
        role = "primary" if name == hybrid.primary else "replica"
        result.append(
            Replica(
                name, hybrid.url_of(name), role, epoch, position, max(repository.position - position, 0),
                _lag(repository, position), refs["missing"] if blobs else None, refs["damaged"] if blobs else None,
            )
        )  # fmt: skip
    return result


def _lag(repository: Repository, position: int) -> float:
    since = state.time_of(repository.index, position + 1)
    return 0.0 if since is None else max(time.time() - since, 0.0)


def audit(repository: Repository, *, deep: bool = False, mend: bool = False, progress: Progress | None = None) -> Audit:
    """Hold what every part stores against what its entries rely on, by the sizes and checksums that the store reports;
    with `deep`, by reading it. `mend` brings the good bytes to where they lack. Parts that are away raise."""
    hybrid = replicated(repository)
    repository.refresh(force=True)
    flaws: list[Flaw] = []
    blobs = proven = 0
    for name in hybrid.parts:
        copy = Copy(repository, name)
        found, asked, good = _flaws(copy, copy.position(), _sums(copy), deep=deep, mend=mend, progress=progress)
        flaws += found
        blobs, proven = blobs + asked, proven + good
    return Audit(blobs, proven, blobs if deep else 0, tuple(flaws))


def _sums(copy: Copy) -> dict[str, dict[str, Any]]:
    """The checksums that were noted when blobs were copied."""
    known: dict[str, dict[str, Any]] = {}
    for store in (copy.store, cast(ObjectStore, copy.hybrid)):
        names = [info.key for info in store.list("sums/")]
        for found in in_order(lambda name, store=store: read_sums(store, name), names, 8, 16):  # type: ignore[misc]
            known.update((item["key"], item) for item in found)
    return known


def _flaws(
    copy: Copy, position: int, sums: dict[str, dict[str, Any]], *,
    deep: bool, mend: bool, progress: Progress | None = None,
) -> tuple[list[Flaw], int, int]:  # fmt: skip
    """The flaws of one part, and how many blobs were asked for and proven."""
    wanted = relied(copy.repository, 0, position, strict=False)
    ask = copy.looking_at(wanted)

    def look(key: str) -> tuple[str, str] | bool:
        """What is wrong (what, message); else whether a checksum proves that nothing is."""
        info = ask(key)
        if info is not None and len(wanted) > MANY and not info.checksums and not deep:  # a listing may tell none
            info = copy.store.stat(blob_key(key)) or info
        if info is None:
            return "missing", f"{key} is not there"
        known = sums.get(key, {})
        size = wanted[key][0] if wanted[key][0] is not None else known.get("size")
        if size is not None and info.size != size:
            return "damaged", f"{key} has {info.size:,} bytes, not {size:,}"
        expected: dict[str, str] = {"sha256": digest_in(key)[7:]}
        expected.update((name, known[name]) for name in ("md5", "adler32") if name in known)
        proofs = expected.keys() & info.checksums.keys()
        for name in proofs:
            if info.checksums[name] != expected[name]:
                return "damaged", f"{key}: the store reports {name} {info.checksums[name]}, not {expected[name]}"
        return bool(proofs) if not deep else _read(copy.store, key)

    flaws, proven, done = [], 0, 0
    for key, found in zip(wanted, in_order(look, wanted, 8, 16), strict=True):
        done += 1
        if progress:
            progress(done, len(wanted))
        if isinstance(found, bool):
            proven += found
            continue
        mended = mend and _mended(copy, key)
        flaws.append(Flaw(copy.name, key, wanted[key][1], *found, mended))
    return flaws, len(wanted), proven


def _read(store: ObjectStore, key: str) -> tuple[str, str] | bool:
    try:
        with store.get(blob_key(key)) as stream:
            digest = digest_of_stream(stream)
    except BlobMissing:
        return "missing", f"{key} is not there"
    if digest != digest_in(key):
        return "damaged", f"{key} holds other bytes ({digest})"
    return True


def _mended(copy: Copy, key: str) -> bool:
    """Bring the good bytes there from another part; whether that went well."""
    try:
        copy.bring(key)
    except CatalogError:
        return False
    return True


# -- another primary --------------------------------------------------------------------------------------------------


def failover(repository: Repository, name: str, *, force: bool = False) -> int:
    """Make the part `name` the primary; return the position from which its epoch goes on. What another reachable part
    has beyond that is brought there first; of rival epochs that of `name` wins. Raises `NotFound` where it holds no
    copy, `Conflict` where it stays behind what this machine has seen, unless `force`."""
    hybrid = replicated(repository)
    hybrid.look(stale=True)
    repository.backend.journal.forget()
    store = hybrid.part(name)
    line = repository.backend.journal.line(fresh=True)
    known, seen = repository.index.epoch, repository.position
    unknown = line.last is None or line.last.number < known  # no part that is here knows of that epoch
    if name == hybrid.primary and not line.rivals and not unknown:
        raise InvalidInput(f"{name} is the primary already", hint="catalog replicas")
    owner = identity(store, create=True)
    records = read_epochs(store, hybrid.url_of(name))
    line = line_of(records, owner, hybrid.url_of(name))
    nothing = NotFound(f"{name} holds no copy of this catalog", hint="catalog sync, while the primary is there")
    if line.last is None or owner is None:
        raise nothing
    if unknown and not line.rivals:
        if not force:
            raise _behind(name, repository.backend.journal.head(), seen)
        repository.index.reset()
        repository.settle(force=True)
    if not line.rivals:
        repository.refresh(force=True)
        Copy(repository, name).run(False, None)
    head = StoreJournal(store, name, hybrid.url_of(name), local=False, writable=True).head()
    if head is None:
        raise nothing
    if head.position < seen and not line.rivals and not force:
        raise _behind(name, head, seen)
    over = tuple(rival.id for rival in line.rivals)
    above = max(known, *(record.number for record in records.values()))
    record = line.last.next(head, owner, repository.actor, time.time_ns() // 1_000_000, over, above)
    write_epoch(store, record)
    try:  # it took effect: what fails from here on is made up for by whoever opens the catalog next
        hybrid.look(stale=True)  # tells the others
        repository.backend.journal.line(fresh=True)
        repository.settle(force=True)
    except CatalogError as exc:
        log.warning("%s is the primary now, from entry %d on; not all parts know yet: %s", name, head.position, exc)
    return head.position


def _behind(name: str, head: Head | None, seen: int) -> Conflict:
    position = -1 if head is None else head.position
    return Conflict(
        f"{name} ends at entry {position}; this machine has seen {seen}, on a part that is away",
        seen=seen,
        actual=position,
        hint="the difference can be reconciled when that part returns: repeat with --force",
    )
