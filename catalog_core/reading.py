"""A journal, its blobs and its index, open to be read. The index follows the journal, and never goes back unnoticed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol

from catalog_core import state
from catalog_core.digests import digest_of
from catalog_core.errors import BackendError, CatalogError, IntegrityError
from catalog_core.interfaces.store import Replicated
from catalog_core.values import check_actor

if TYPE_CHECKING:
    from catalog_core.plugins import Registry
    from catalog_core.staging import Progress

AWAY = 30.0  # seconds for which a store that did not answer is not asked for news, where what is known will do
log = logging.getLogger("catalog_core")


class Follower(Protocol):
    """What lets the replicas of a hybrid follow, as its `durability` says (`catalog_core.sync`)."""

    def check_ahead(self) -> None:
        """A change is to be committed. Raises `IntegrityError` where a replica has more than the primary."""

    def follow(self) -> None:
        """A change was committed. Raises `NotReplicated`."""

    def restore(self) -> None:
        """Bring back what reads found missing on the primary."""

    def close(self) -> None:
        """Wait for a while until the replicas have followed."""


class Reading:
    """A backend (`backend`: its journal and blobs), the `index` of its journal on this machine, and its `content`:
    checked bytes, through the `cache` of a remote one.

    `name` is what people call it, `actor` who signs changes, `registry` the plug-ins. `stopped` says why the journal is
    read up to an entry and nothing is written, `vanished` that the catalog which this machine has seen here is gone,
    `parts` is the store of a hybrid. For threads; a process opens its own. `settle` comes before anything else."""

    def __init__(
        self,
        backend: Any,  # an interfaces.backend.Backend; its journal may know epochs
        name: str,
        *,
        policy: Literal["always", "first-use", "never"] = "first-use",
        actor: str | None = None,
        max_staleness: float | None = None,
        stale: bool = False,
    ) -> None:
        from catalog_core import platform, plugins
        from catalog_core.cache import Cache
        from catalog_core.content import Content
        from catalog_core.index import Index, index_file

        self.backend = backend
        self.registry: Registry = plugins.registry()
        self.name = name
        self.actor = check_actor(platform.actor() if actor is None else actor)
        self.progress: Progress | None = None
        self.stopped: CatalogError | None = None
        self.vanished = False
        self.void: dict[Any, Any] = {}  # entries of void branches that were read (branches.Branches)
        remote = backend.capabilities.remote
        self.offline = remote and platform.offline()
        self.max_staleness = (2.0 if remote else 0.0) if max_staleness is None else max_staleness
        self.stale = stale
        self._id: str | None = None
        self._looked = -1e9  # when the journal was asked for news, by the monotonic clock
        self._forgot = -1  # the last entry that took bytes out of the cache
        self._epoch: int | None = None  # that of the journal when the index was held against it
        place, self.index_place = platform.cache_dir()
        self.index = Index(index_file(place, backend.url), backend.url)
        self.cache = None if place is None or not remote else Cache(platform.own_folder(place / "cache"))
        self.content = Content(backend, self.index, policy, self.cache, lambda: self.progress)
        store = getattr(backend, "store", None)
        self.parts = store if isinstance(store, Replicated) else None
        self.follower: Follower | None = None  # who opens a hybrid sets it

    @property
    def url(self) -> str:
        """Where it lies."""
        return str(self.backend.url)

    @property
    def id(self) -> str:
        """The random id that the first entry fixed."""
        if self._id is None:
            self._id = self.index.meta("catalog")
        return str(self._id)

    @property
    def position(self) -> int:
        """The position of the newest entry that the index holds; -1 without any."""
        return -1 if self.index.head is None else self.index.head.position

    @property
    def writable(self) -> bool:
        """Whether this process may write: not where the store forbids it, nor behind an entry that cannot be read, nor
        in a copy whose primary is another store."""
        owned = getattr(self.backend.journal, "owned", True)
        return bool(self.backend.capabilities.writable) and self.stopped is None and owned

    def close(self) -> None:
        """Release files and connections; replicas that are to follow have some seconds to do so."""
        if not self.index.closed:
            _ = self.id  # handles are compared by it, also later
        if self.parts is not None and self.parts.lacked:
            with suppress(BackendError, IntegrityError):
                self.refresh(force=True)
        if self.follower is not None:
            self.follower.close()
        self.index.close()
        self.backend.close()

    # -- what the journal says --------------------------------------------------------------------------------------

    def settle(self, *, force: bool = False) -> None:
        """Hold the index against the journal: it must continue it, else it is computed anew. Raises `IntegrityError`
        where entries that this machine has seen are gone."""
        if self.offline:
            return
        with self._what_is_known_may_do():
            self._hold(force)

    def refresh(self, *, force: bool = False) -> None:
        """Bring the index to the journal's head, unless it was looked at less than `max_staleness` ago. With `stale`,
        what is known will do while the store is away."""
        now = time.monotonic()
        if self.offline or (not force and now - self._looked < self.max_staleness):
            return
        with self._what_is_known_may_do():
            self._catch_up(now)

    @contextmanager
    def _what_is_known_may_do(self) -> Iterator[None]:
        """With `stale`, a store that is away is asked again later, and the index stays as it is."""
        try:
            yield
        except BackendError:
            if not self.stale or self.index.head is None:
                raise
            self._looked = time.monotonic() + AWAY

    def _hold(self, force: bool) -> None:
        if (
            not force
            and self.max_staleness > 0
            and 0 <= time.time() - (self.index.meta("looked") or 0) < self.max_staleness
        ):
            self._looked = time.monotonic()
            return
        mine, index, journal = self.index.head, self.index, self.backend.journal
        epoch = getattr(journal, "epoch", 0)
        if mine is not None:
            entry = next(iter(journal.read(mine.position, mine.position + 1)), None)
            if entry is not None and digest_of(entry[1]) == mine.digest:
                if hasattr(journal, "look_from"):
                    journal.look_from(mine)
            else:
                first = next(iter(journal.read(0, 1)), None)
                same = first is not None and index.meta("catalog") and index.meta("catalog").encode() in first[1]
                void = hasattr(journal, "line") and index.epoch in [record.number for record in journal.line().void]
                if same and epoch <= index.epoch and not void:  # no other store became the primary
                    if self.stale and self._is_ahead():
                        return
                    if epoch < index.epoch:
                        raise self.of_the_past(BackendError)
                    raise IntegrityError(
                        f"the journal of {self.backend.url} went back or was rewritten: this machine has seen "
                        f"entry {mine.position} as {mine.digest}",
                        hint=f"if you restored a backup on purpose, delete {index.path} and open it again",
                    )
                if not same and self.parts is not None:  # what is one catalog on several sites is not begun anew
                    raise IntegrityError(
                        f"{self.backend.url} held the catalog {index.meta('catalog')} when this machine saw it last; "
                        f"{'another one is' if first else 'nothing is'} there now",
                        hint=f"are its parts mounted? If this is on purpose, delete {index.path} and open it again",
                    )
                if same:
                    self._check_left_out()
                self.vanished = first is None
                index.reset()
                self._id = None
        if index.head is None:  # who reads all of it also looks behind the end: a writer must not fill a hole
            self.stop(index.follow(journal))
        self._epoch = epoch
        self.refresh(force=True)

    def _check_left_out(self) -> None:
        """An epoch leaves out entries that this machine has seen. Anybody who may write to a store can add a record of
        one: raise `IntegrityError`; in a hybrid, where parts become the primary on purpose, it is logged."""
        index = self.index
        assert index.head is not None
        chain = self.backend.journal.line().chain
        record = next((record for record in chain if record.position < index.head.position), chain[-1])
        record = next((one for one in chain if one.number > index.epoch), record)
        refs = state.refs_after(index, record.position)
        versions = f" with {', '.join(refs[:5])}{' …' if len(refs) > 5 else ''}" if refs else ""
        told = (
            f"epoch {record.number} of {self.url} (by {record.actor}) leaves out entries that this machine has seen: "
            f"{record.position + 1} to {index.head.position}{versions}"
        )
        if self.parts is None:
            raise IntegrityError(
                told,
                hint="ask who made another copy the primary; if that was on purpose, "
                + (f"delete {index.path} and open it again" if index.path else "open it again"),
            )
        log.warning("%s; `catalog reconcile` offers them", told)

    def stop(self, problem: CatalogError | None) -> None:
        """Note why the journal is read up to an entry and no further, and say so once."""
        if problem is not None and str(problem) != str(self.stopped):
            what = f"{self.url} is read up to entry {self.position}, and cannot be written: {problem}"
            log.warning("%s", " ".join(what.split()))
        self.stopped = problem

    def of_the_past(self, kind: type[CatalogError]) -> CatalogError:
        """What is said where the store does not know of an epoch that this machine has seen."""
        return kind(
            f"this machine has seen epoch {self.index.epoch} of {self.url}, in which another part is the primary; "
            "none that knows of it is here",
            hint="wait for one, read what is known (--stale), or take over: catalog hybrid failover NAME --force",
        )

    def _is_ahead(self) -> bool:
        """Whether a replica that stands in for the primary ends at an entry that this machine has seen and passed."""
        head = self.backend.journal.head()
        if head is None or self.index.head is None or head.position >= self.index.head.position:
            return False
        following = state.entry(self.index, head.position + 1)
        return following is not None and following["previous"] == head.digest

    def _catch_up(self, now: float) -> None:
        index = self.index
        head = self.backend.journal.head()
        if getattr(self.backend.journal, "epoch", 0) != self._epoch:  # it may be void, or nobody looked so far
            self._hold(True)
            return
        if head != index.head and head is not None:
            self.stop(index.follow(self.backend.journal, head.position + 1))
            mine = index.head
            if mine is not None and mine.position == head.position and mine.digest != head.digest:
                raise IntegrityError(
                    f"journal entry {head.position} of {self.url} is {head.digest}, and was read as {mine.digest}",
                    hint="it was damaged or rewritten; `catalog fsck` tells more",
                )
        elif head == index.head:
            self.stop(None)
        self._looked = now
        self.forget_erased()
        if self.parts is not None and self.parts.lacked:
            assert self.follower is not None
            self.follower.restore()
        if self.max_staleness > 0 and index.head is not None:
            index.note("looked", time.time())

    def forget_erased(self) -> None:
        """Take what was erased out of this machine's cache."""
        if self.cache is None or not self.index.erases:
            return
        for position, ordinal in state.places(self.index, "blobs.erased", after=self._forgot):
            for key in self.index.event(position, ordinal)["keys"]:
                self.cache.drop(key.partition("~")[0])
            self._forgot = position
