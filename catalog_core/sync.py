"""Replication: copies of a catalog follow its primary.

First the blobs that entries up to some position rely on, then these entries, in order; so a replica is at every moment
a whole catalog, perhaps an older one. What the primary has swept by now is not copied, and a replica deletes what a
sweep names when it has that entry. What was copied leaves its checksums in `sums/` (a hint), so that an audit can
believe what stores report and need not read terabytes.
"""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import attrs

from catalog_core import forks, state
from catalog_core.branches import awaited
from catalog_core.epochs import read_epochs, write_epoch
from catalog_core.errors import (
    BackendError,
    CatalogError,
    Conflict,
    IntegrityError,
    InvalidInput,
    NotFound,
    NotReplicated,
)
from catalog_core.events import SWEEPS
from catalog_core.interfaces.store import BlobInfo, ObjectStore, Replicated
from catalog_core.journal import StoreJournal, entry_key
from catalog_core.layout import read_layout
from catalog_core.objectstore import blob_key
from catalog_core.page import Shown
from catalog_core.parallel import in_order
from catalog_core.spool import received

if TYPE_CHECKING:
    from catalog_core.repository import Repository
    from catalog_core.staging import Progress

BATCH = 256  # entries between two looks at the replica's epochs
PARALLEL = 4
TOGETHER = 64  # entries whose checksums are kept in one object
MANY = 1000  # keys for which a listing of the replica is cheaper than a question each
PATIENCE = 30.0  # seconds for which closing waits for the replicas
log = logging.getLogger("catalog_core")


@attrs.frozen
class Synced(Shown):
    """What one replica got, or would get: `entries` and `blobs` (`bytes` in all) copied, `deleted` blobs that were
    swept; its `position` afterwards."""

    part: str
    entries: int
    blobs: int
    bytes: int
    deleted: int
    position: int


def replicated(repository: Repository) -> Replicated:
    """The store of a catalog that has parts. Raises `InvalidInput`."""
    store = getattr(repository.backend, "store", None)
    if not isinstance(store, Replicated):
        raise InvalidInput(f"{repository.url} has no replicas", hint='configure one: backend = "hybrid"')
    return store


# -- what entries rely on ---------------------------------------------------------------------------------------------


def relied(repository: Repository, first: int, last: int, *, strict: bool = True) -> dict[str, tuple[int | None, str]]:
    """The storage keys of the blobs that the entries `first` to `last` rely on, as far as they were not swept since,
    each with its size (None where nobody noted it) and what needs it. A layout that cannot be read raises if `strict`,
    else only its own key is there."""
    index = repository.index
    found: dict[str, tuple[int | None, str]] = {}

    def note(digest: str, size: int | None, ref: str) -> None:
        key = index.key(digest)
        if not index.is_erased(digest) and not state.is_inlined(index, key):
            found.setdefault(key, (size, ref))

    for stored in state.stored_between(index, first, last):
        ref, layout = stored.ref, stored.layout
        note(stored.manifest, None, ref)
        note(layout, None, ref)
        try:
            data = repository.content.blob(layout, f"layout of {ref}")
        except CatalogError:
            if strict:
                raise
            continue
        try:
            files = read_layout(data)
        except IntegrityError as exc:
            if strict and exc.hint:  # a newer release can read it
                raise
            continue  # these are the right bytes, and nobody can load the version: it must not keep the others back
        for chunk in (chunk for chunks in files.values() for chunk in chunks):
            note(chunk.pack or chunk.digest, chunk.length if chunk.pack is None else None, ref)
    for position, ordinal in state.places(index, "card.set", "attachment.set", after=first - 1, until=last):
        event = index.event(position, ordinal)
        digest = event["digest"]
        if digest is None:
            continue
        if not state.was_swept(index, digest, position) or state.is_card_or_attachment(index, digest):
            note(digest, event.get("size"), f"{event['model']} ({event['type']})")
    return found


def _sweeps(repository: Repository, first: int, last: int) -> Iterator[Mapping[str, Any]]:
    """The sweeps and erasures among these entries."""
    for place in state.places(repository.index, *SWEEPS, after=first - 1, until=last):
        yield repository.index.event(*place)


def restore(repository: Repository) -> None:
    """Bring back what reads found missing on the primary, if it was lost: what was swept stays away. As well as it
    goes."""
    hybrid, index = replicated(repository), repository.index
    objects = set(hybrid.lacked)
    try:
        for key in ["sha256:" + name.rpartition("/")[2] for name in objects]:
            if hybrid.primary is None or not index.relies(key):
                continue
            copy = Copy(repository, hybrid.primary)
            copy.bring(key)
            log.warning("%s was missing on %s, and was brought back", key, copy.name)
            index.follow(repository.backend.journal)
            if not index.relies(key):  # swept meanwhile, perhaps before it was there again
                copy.store.delete([blob_key(key)])
    except CatalogError as exc:
        log.warning("blobs are missing on %s: %s; see `catalog fsck --replicas`", hybrid.primary, exc)
    hybrid.lacked.difference_update(objects)


# -- one replica ------------------------------------------------------------------------------------------------------


class Copy:
    """One replica, and how it is brought up to the catalog's journal."""

    def __init__(self, repository: Repository, name: str, *, create: bool = False) -> None:
        self.repository = repository
        self.name = name
        self.hybrid = replicated(repository)
        self.store = self.hybrid.part(name, create=create)
        self.url = self.hybrid.url_of(name)
        self.journal = StoreJournal(self.store, name, self.url, local=False, writable=True)

    def position(self) -> int:
        """The last entry that it has, -1 for none; what is void by epochs that it does not know yet is not counted.
        Raises `IntegrityError` where that is not the catalog's."""
        head = self.journal.head()
        if head is None:
            return -1
        journal, known = self.repository.backend.journal, self.journal.line().chain
        forks = (record.position for record in journal.line().chain if record.previous and record not in known)
        position: int = min([head.position, *forks])
        if position >= 0:
            ours, theirs = (next(iter(each.read(position, position + 1)), None) for each in (journal, self.journal))
            if ours is None or ours != theirs:
                raise IntegrityError(
                    f"{self.name} ({self.url}) holds another catalog, or went its own way at entry {position}",
                    hint="name an empty place as the replica, or see `catalog reconcile`",
                )
        return position

    def continues(self, position: int) -> bool:
        """Whether its journal goes on from the catalog's entry at `position`, in an epoch that the catalog knows."""
        journal = self.repository.backend.journal
        if {record.id for record in self.journal.line().chain} - {record.id for record in journal.line().chain}:
            return False
        ours, theirs = (next(iter(each.read(position, position + 1)), None) for each in (journal, self.journal))
        return ours is not None and ours == theirs

    def tell_epochs(self) -> None:
        """Bring the records of epochs there. Raises `Conflict` where it knows of one that we do not."""
        ours = read_epochs(cast(ObjectStore, self.hybrid), self.repository.url)
        theirs = read_epochs(self.store, self.url)
        if theirs.keys() - ours.keys():
            raise Conflict(
                f"{self.name} knows of another epoch than the primary", hint="open the catalog again, then repeat"
            )
        for record in sorted(ours.values(), key=lambda record: record.number):
            if record.id not in theirs:
                write_epoch(self.store, record)
        self.journal.line(fresh=True)

    def looking_at(self, keys: Collection[str]) -> Callable[[str], BlobInfo | None]:
        """What tells what the store says of each of the keys: asked one by one, or listed where they are many."""
        if len(keys) <= MANY:
            return lambda key: self.store.stat(blob_key(key))
        listed = {info.key: info for info in self.store.list("blobs/")}
        return lambda key: listed.get(blob_key(key))

    def lacking(self, wanted: Mapping[str, tuple[int | None, str]]) -> list[str]:
        """Those of the keys (of `relied`) that it does not have, or visibly not as it should."""
        look = self.looking_at(wanted)

        def good(key: str) -> bool:
            info = look(key)
            if info is None or wanted[key][0] not in (None, info.size):
                return False
            return "sha256:" + info.checksums.get("sha256", digest_in(key)[7:]) == digest_in(key)

        return [key for key, here in zip(wanted, in_order(good, wanted, 8, 16), strict=True) if not here]

    def size(self, key: str, known: int | None) -> int:
        """The bytes of a blob, as noted or as the primary says."""
        if known is None:
            info = self.repository.backend.blobs.stat(key)
            known = 0 if info is None else info.size
        return known

    def bring(self, key: str) -> dict[str, Any]:
        """Copy one blob there, checked; return its sums. Raises `IntegrityError`, `BlobMissing`, `BackendError`."""
        blobs = self.repository.backend.blobs
        for _ in range(len(self.hybrid.parts) + 1):
            with blobs.open(key) as stream, received(stream) as blob:
                if blob.digest != digest_in(key):
                    if blobs.distrust(key):
                        continue
                    break
                if self.store.stat(blob_key(key)) is not None:  # it is not good, and may count as stored
                    self.store.delete([blob_key(key)])
                self.store.put(blob_key(key), blob.file, blob.size, "content")
                return {"key": key, "size": blob.size, "adler32": blob.adler32, "md5": blob.md5}
        raise IntegrityError(
            f"{key} is damaged on every part of {self.repository.url}",
            hint="catalog fsck --replicas tells who needs it",
        )

    def note_sums(self, sums: list[dict[str, Any]], first: int) -> None:
        """Keep checksums beside the copies: hints for `audit`, together for some entries from `first` on."""
        name = f"sums/{first // TOGETHER:010}"
        for store in (self.store, cast(ObjectStore, self.hybrid)):
            try:
                known = {item["key"]: item for item in [*read_sums(store, name), *sums]}
                data = "".join(json.dumps(item) + "\n" for item in known.values()).encode()
                store.put(name, io.BytesIO(data), len(data), "hint")
            except CatalogError:
                continue  # it only saves an audit the reading

    def run(self, dry_run: bool, progress: Progress | None) -> Synced:
        """Bring it up to the catalog's position."""
        repository, begun = self.repository, self.position()
        head = repository.backend.journal.head()
        last = -1 if head is None else min(head.position, repository.position)
        if dry_run:
            wanted = relied(repository, begun + 1, last)
            lacking = self.lacking(wanted)
            total = sum(self.size(key, wanted[key][0]) for key in lacking)
            gone = sum(len(sweep["keys"]) for sweep in _sweeps(repository, begun + 1, last))
            return Synced(self.name, max(last - begun, 0), len(lacking), total, gone, begun)
        if self.journal.line().chain != repository.backend.journal.line().chain:
            self.tell_epochs()
        sizes: list[int] = []
        deleted, position = 0, begun
        if begun >= 0:
            if self._was_forked(begun):  # the branch that is void now may have swept here
                sizes += self._bring(0, begun, progress)
            self._delete(begun)  # who was killed here may not have
        while position < last:
            first, position = position + 1, min(position + BATCH, last)
            sizes += self._bring(first, position, progress)
            self.journal.check_line(repository.backend.journal.line())
            for at, data in repository.backend.journal.read(first, position + 1):
                self.journal.take_over(at, data)
                deleted += self._delete(at)
        return Synced(self.name, max(last - begun, 0), len(sizes), sum(sizes), deleted, max(position, begun))

    def _was_forked(self, position: int) -> bool:
        """Whether it ends at an entry of a former epoch, and has void ones behind it."""
        epoch = self.journal.epoch_of(position)
        if epoch == self.journal.epoch:
            return False
        behind = self.store.list(f"journal/{epoch:010}/", entry_key(position, epoch))
        return next(iter(behind), None) is not None

    def _bring(self, first: int, last: int, progress: Progress | None) -> list[int]:
        """Copy what these entries rely on and it lacks; return the sizes."""
        wanted = relied(self.repository, first, last)
        lacking = self.lacking(wanted)
        total, moved = sum(self.size(key, wanted[key][0]) for key in lacking), 0
        sums = []
        for item in in_order(self.bring, lacking, PARALLEL, PARALLEL):
            sums.append(item)
            moved += item["size"]
            if progress:
                progress(moved, max(total, moved))
        if sums:
            self.note_sums(sums, first)
        return [item["size"] for item in sums]

    def _delete(self, position: int) -> int:
        """Delete what the entry at `position` sweeps, if it does; return how many keys."""
        keys: set[str] = set()
        for sweep in _sweeps(self.repository, position, position):
            kept = awaited(self.repository, self.hybrid)
            swept = {key for key in sweep["keys"] if digest_in(key) not in kept}
            keys.update(blob_key(key) for key in swept if not self.repository.index.relies(key))
            if "digests" in sweep:  # an erasure: under whatever key they are
                needed = {blob_key(key) for key in relied(self.repository, 0, self.repository.position, strict=False)}
                for digest in {digest_in(key) for key in swept}:
                    keys.update(info.key for info in self.store.list(blob_key(digest)) if info.key not in needed)
        if keys:
            self.store.delete(keys)
        return len(keys)


def read_sums(store: ObjectStore, name: str) -> list[dict[str, Any]]:
    """The checksums that were noted under a name: `key`, `size`, `adler32`, `md5`; none where they cannot be read."""
    try:
        with store.get(name) as stream:
            found = [json.loads(line) for line in stream.read().splitlines()]
        return [item for item in found if isinstance(item["key"], str)]
    except (CatalogError, ValueError, KeyError, TypeError):
        return []


def digest_in(key: str) -> str:
    """The digest in a storage key."""
    return key.partition("~")[0]


def _names(hybrid: Replicated, names: Iterable[str] | None) -> list[str]:
    if names is None:
        return [name for name in hybrid.parts if name != hybrid.primary]
    for name in (chosen := list(names)):
        if name not in hybrid.parts:
            raise NotFound(f"this hybrid has no part {name!r}", hint=f"parts: {', '.join(hybrid.parts)}")
    return [name for name in chosen if name != hybrid.primary]


def sync(
    repository: Repository,
    names: Iterable[str] | None = None,
    *,
    create: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    copies: dict[str, Copy] | None = None,
) -> list[Synced]:
    """Bring replicas up to the primary, and make new ones if `create`. One that fails does not keep the others from it.
    Raises the first error after all were tried. `copies` keeps what is known of them for the next time."""
    hybrid = replicated(repository)
    if hybrid.primary is None:
        raise BackendError(
            "the primary of this hybrid is away: there is nothing to follow",
            hint="catalog hybrid failover NAME makes a replica the primary",
        )
    repository.refresh(force=True)
    repository.check_epoch()
    repository.backend.journal.check_owned()
    done: list[Synced] = []
    error: CatalogError | None = None
    for name in _names(hybrid, names):
        try:
            copy = (copies or {}).pop(name, None) or Copy(repository, name, create=create)
            done.append(copy.run(dry_run, progress))
            if copies is not None:
                copies[name] = copy
        except CatalogError as exc:
            error = error or exc
    if error is not None:
        raise error
    return done


class Follower:
    """Lets the replicas follow what this process commits, as the hybrid's `durability` says."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._durability = replicated(repository).durability
        self._copies: dict[str, Copy] = {}
        self._lock = forks.Lock()
        self._more = threading.Event()
        self._thread: threading.Thread | None = None
        self._looked = False
        forks.watch(self)

    def before_fork(self) -> None:
        """See `forks.Forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks.Forks`: the thread stayed with the parent, which completes what it began."""
        if child:
            self._thread, self._more, self._copies = None, threading.Event(), {}

    def check_ahead(self) -> None:
        """Before the first change of this process: with `sync`, what was acknowledged is on all replicas, so one that
        has more than the primary holds what the primary lost, say by a backup that was restored. Raises
        `IntegrityError`: no number may be given twice. Replicas that are away are not waited for."""
        if self._durability != "sync" or self._looked:
            return
        hybrid = replicated(self._repository)
        for name in hybrid.parts:
            if name == hybrid.primary:
                continue
            try:
                copy = self._copies.setdefault(name, Copy(self._repository, name))
                theirs = copy.journal.head()
                if theirs is None or theirs.position <= self._repository.position:
                    continue
                self._repository.refresh(force=True)  # it may be newer than what is known here
                position = self._repository.position
                if theirs.position > position and copy.continues(position):
                    raise IntegrityError(
                        f"{hybrid.primary}, the primary, ends at entry {position}, and {name} ({copy.url}) holds "
                        f"{theirs.position}: the primary lost what was acknowledged",
                        hint=f"nothing was written. Move the place of {hybrid.primary} away, take the copy that has"
                        f" more (catalog hybrid failover {name} --force), move it back, and catalog sync",
                    )
            except (BackendError, NotFound):
                continue
        self._looked = True

    def follow(self) -> None:
        """A change was committed. Raises `NotReplicated` with `sync`, where a replica could not follow."""
        if self._durability == "sync":
            with self._lock:
                try:
                    sync(self._repository, copies=self._copies)
                except CatalogError as exc:
                    raise NotReplicated(
                        f"the change is made, and not on every replica yet: {exc}",
                        hint="do not repeat it; `catalog sync` completes it",
                    ) from exc
        elif self._durability == "async":
            self._more.set()
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="catalog-sync", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            self._more.clear()
            try:
                sync(self._repository, copies=self._copies)
            except Exception as exc:  # nobody waits for it, and at the end of the process anything may fail
                log.warning("replicas of %s are behind: %s; `catalog sync` completes them", self._repository.name, exc)
            with self._lock:
                if not self._more.is_set():
                    self._thread = None
                    return

    def restore(self) -> None:
        """See `reading.Follower`."""
        restore(self._repository)

    def close(self) -> None:
        """Wait until the replicas have followed, for a while."""
        thread = self._thread
        if thread is not None:
            thread.join(PATIENCE)
            if thread.is_alive():
                log.warning("replicas of %s are behind; `catalog sync` completes them", self._repository.name)
