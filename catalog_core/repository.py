"""A repository: one journal, its blobs and its index, open. It refreshes, reads, commits and publishes; it knows no
verb."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from catalog_core import state
from catalog_core.digests import digest_of_parts
from catalog_core.errors import Conflict, NotReplicated, ReadOnly, Rejected
from catalog_core.events import FORMAT, Intent, event, new_id, relies_on
from catalog_core.layout import SMALL
from catalog_core.reading import Reading

if TYPE_CHECKING:
    from catalog_core.interfaces.backend import Head
    from catalog_core.staging import Writer

Made = TypeVar("Made")
TRIES = 5


@attrs.frozen
class Published:
    """A version that stands in the journal: its number; `behind` says why a replica does not have it yet."""

    number: int
    behind: NotReplicated | None


class Repository(Reading):
    """See `reading.Reading`; what is committed is signed by `actor`."""

    def check_writable(self) -> None:
        """Raises `ReadOnly`, or what stopped the reading of the journal."""
        if self.stopped is not None:
            raise self.stopped
        if self.offline:
            raise ReadOnly(f"{self.url} is open offline", hint="unset CATALOG_OFFLINE")
        if hasattr(self.backend.journal, "check_owned"):
            self.backend.journal.check_owned()
        if not self.writable:
            raise ReadOnly(f"{self.url} was opened read-only", hint="check the rights of its folder")

    def check_epoch(self) -> None:
        """Raise `ReadOnly` where the store does not know of an epoch that this machine has seen."""
        if getattr(self.backend.journal, "epoch", 0) < self.index.epoch:
            raise self.of_the_past(ReadOnly)

    def begin(self) -> None:
        """Write the first entry of a new catalog, if nobody else did meanwhile."""

        def genesis(index: Any) -> list[dict[str, Any]]:
            if index.head is not None:
                raise Rejected("the catalog exists already", code="created-twice")
            return [event("catalog.created", catalog=new_id(), format=FORMAT, hash="sha256")]

        try:
            self.commit(events=genesis)
        except NotReplicated:
            return  # it is there; the next change, or `sync`, brings it to the replicas
        except Rejected as exc:
            if exc.code != "created-twice":
                raise
            self.refresh(force=True)

    # -- commits ----------------------------------------------------------------------------------------------------

    def commit(
        self,
        *listed: dict[str, Any],
        events: Callable[[Any], list[dict[str, Any]] | Intent] | None = None,
        blobs: Mapping[str, bytes] | None = None,
    ) -> int:
        """Append what `listed` says, or what `events` makes of the index, with small `blobs` (digest → bytes); return
        its position. Raises what `writer.commit` raises, and `NotReplicated`: it is written, and not everywhere."""
        from catalog_core import writer

        if getattr(self.backend.journal, "epoch", 0) != self._epoch:  # it may be void, or nobody looked so far
            self.settle(force=True)
        self.check_epoch()
        if self.follower is not None:
            self.follower.check_ahead()
        position = writer.commit(
            self.backend, self.index, self.actor, events or (lambda index: list(listed)), blobs or {}
        )
        if self.follower is not None:
            try:
                self.follower.follow()
            except NotReplicated as exc:
                exc.position = position
                raise
        return position

    def commit_blob(self, source: bytes | Path, kind: str, **fields: Any) -> None:
        """Store a blob, and commit the event that names it (`digest`)."""
        self.commit_blobs(kind, [(source, fields)])

    def commit_blobs(
        self,
        kind: str,
        items: Iterable[tuple[bytes | Path, dict[str, Any]]],
        check: Callable[[Any], None] = lambda index: None,
    ) -> None:
        """Store blobs, and commit the events that name them, at once. `check` may refuse by the index that they are
        written on."""
        from catalog_core.staging import Source

        contents = [
            (Source([source]) if isinstance(source, bytes) else Source.of_file(source), fields)
            for source, fields in items
        ]
        digests = [digest_of_parts(content.parts) for content, _ in contents]
        for digest in digests:
            self.index.refuse_erased(digest)

        def store() -> None:
            head = self.index.head
            blobs, told = {}, []
            for digest, (content, fields) in zip(digests, contents, strict=True):
                if content.size <= SMALL:
                    blobs[digest] = b"".join(content.parts)
                else:
                    self.backend.blobs.put(self.index.key(digest), content.stream(), content.size)
                told.append(event(kind, digest=digest, **fields, **relies_on([digest], head)))

            def checked(index: Any) -> list[dict[str, Any]]:
                check(index)
                return told

            self.commit(events=checked, blobs=blobs)

        self.storing(store, f"what {kind} names")

    def storing(self, store: Callable[[], Made], what: str) -> Made:
        """Let `store` store bytes and commit what names them; again, where a sweep came between and took some of them.
        Raises `Conflict` where that does not end."""
        for _ in range(TRIES):
            try:
                return store()
            except Rejected as exc:
                if exc.code != "swept":
                    raise
                self.refresh(force=True)
        raise Conflict(f"the bytes of {what} were collected {TRIES} times while saved", hint="stop `catalog gc`")

    def publish(
        self, name: str, writer: Writer, manifest: str, layout: str, size: int, checked: Head | None,
        *, alias: str | None = None, then: Callable[[Any, dict[str, Any]], list[dict[str, Any]]] | None = None,
        **about: Any,
    ) -> Published:  # fmt: skip
        """Publish what `writer` has staged as the next version of `name`; `about` holds more fields of the event, and
        `then` makes more events for the same intent, of the index and the fields that name the version. Raises
        `Rejected` (`swept`) where a blob was collected after `checked`; see `storing`."""
        from catalog_core.index import Damaged

        writer.publish_packs()
        relied = relies_on({manifest, layout, *writer.blobs()}, checked)
        numbers: list[int] = []

        def events(index: Any) -> list[dict[str, Any]]:
            numbers.append(state.given_number(index, name) + 1)
            same = {"model": name, "number": numbers[-1]}
            more = {key: value for key, value in about.items() if value}
            published = event(
                "version.published", **same, manifest=manifest, layout=layout, size=size, **relied, **more
            )
            named = [] if alias is None else [event("alias.set", **same, alias=alias, seen="any")]
            return [published, *named, *(then(index, same) if then else ())]

        behind: NotReplicated | None = None
        try:
            self.commit(events=events, blobs=writer.fresh)
        except NotReplicated as exc:
            behind = exc
        with suppress(Damaged):
            writer.remember()
        return Published(numbers[-1], behind)
