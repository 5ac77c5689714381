"""Care of a catalog: `gc` collects what no version needs, `erase` takes content away, `pin` keeps it near."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core import clock, durable, remembered, state
from catalog_core.artifact import stored as artifact_of
from catalog_core.branches import awaited
from catalog_core.cache import Pin
from catalog_core.errors import CatalogError, Conflict, IntegrityError, InvalidInput, NotReplicated, Rejected
from catalog_core.events import event
from catalog_core.layout import Layout, read_layout
from catalog_core.page import Shown
from catalog_core.state import Deletion, VersionRow

if TYPE_CHECKING:
    from catalog_core.records import Manifest
    from catalog_core.repository import Repository

BATCH = 5000


@attrs.frozen
class Collected(Shown):
    """What `gc` removed, or would remove: blobs, their bytes, and abandoned temporaries."""

    blobs: int
    bytes: int
    temporaries: int
    keys: tuple[str, ...] = attrs.field(repr=False)


@attrs.frozen
class Erased(Shown):
    """What `erase` took away for good: blobs, their bytes. `shared` blobs stay, since other versions need them;
    `in_journal` are small ones that entries carry, which no reader is shown any more, and which stay in those."""

    ref: str
    blobs: int
    bytes: int
    shared: int
    in_journal: int


def _layout_of(repository: Repository, ref: str, digest: str) -> Layout:
    data = repository.content.blob(digest, f"layout of {ref}")
    try:
        return read_layout(data)
    except IntegrityError as exc:
        raise IntegrityError(
            f"what {ref} needs is not known: {exc.message}", hint=exc.hint or f"catalog delete {ref}, then collect"
        ) from exc


def pin(repository: Repository, version: VersionRow) -> Pin:
    """Fetch all that a version needs into the cache, checked, and keep it there."""
    cache, content = repository.cache, repository.content
    if cache is None:
        raise InvalidInput(f"{repository.url} is a local catalog: there is nothing to fetch", reference=version.ref)
    artifact = artifact_of(content, repository.registry, version)
    chunks = [chunk for parts in artifact.layout.values() for chunk in parts]
    content.fetch(chunks, version.ref, keep=True)
    for digest in {chunk.digest for chunk in chunks if not content.lies_alone(chunk)}.union(artifact.manifest.notes):
        data = content.blob(digest, version.ref)
        inlined = state.is_inlined(repository.index, repository.index.key(digest))
        if not inlined and cache.path(digest) is None:  # its disk is full
            cache.add(digest, lambda file, data=data: durable.write_all(file, data))  # type: ignore[misc]
    needed = {version.digest, version.layout, *[chunk.digest for chunk in chunks]}
    kept = Pin(version.ref, repository.url, frozenset(needed))
    cache.pin(kept)
    return kept


def _needed(repository: Repository, besides: VersionRow | None = None) -> set[str]:
    """The digests that versions which are not deleted, cards and attachments need; `besides` does not count."""
    index = repository.index
    apart = -1 if besides is None else besides.id
    known = remembered.expanded(index)
    live = state.stored(index, Deletion.NOT, besides=apart)
    fresh = {one.layout: one.ref for one in live if one.layout not in known}
    needed = {digest for one in live for digest in (one.manifest, one.layout)}
    for start in range(0, len(fresh), BATCH):
        part = list(fresh.items())[start : start + BATCH]
        edges = [
            (layout, chunk.pack or chunk.digest)
            for layout, ref in part
            for chunks in _layout_of(repository, ref, layout).values()
            for chunk in chunks
        ]
        needed |= {key for _, key in edges}
        remembered.note_edges(index, [layout for layout, _ in part], edges)
    needed |= remembered.needed(index, apart)
    needed.update(card for _, card in state.cards(index))
    needed.update(digest for _, _, digest in state.attachments(index, apart))
    return needed


def gc(repository: Repository, grace: float, dry_run: bool) -> Collected:
    """Collect blobs that no version needs and that are older than `grace` seconds, and abandoned temporaries.

    The sweep is an entry of the journal at exactly the head it was computed from; only then are keys deleted. A
    publish that overlaps it is rejected and stores its bytes again under new keys.
    """
    repository.check_writable()
    backend, index = repository.backend, repository.index
    if not dry_run:
        clock.check(backend, index)  # the ages of what is there are by the store's
    for _ in range(20):
        repository.refresh(force=True)
        head = index.head
        needed = {index.key(digest) for digest in _needed(repository)}
        kept = awaited(repository, repository.parts) if repository.parts is not None else ()
        before = time.time() - grace
        doomed = [
            info
            for info in backend.blobs.list()
            if info.key not in needed
            and info.key.partition("~")[0] not in kept
            and info.time <= before
            # the keys of void branches are left: they may be given here one day, and a sweep must not come after that
            and index.gave(info.key)
        ]
        keys = [info.key for info in doomed]
        size = sum(info.size for info in doomed)
        if dry_run:
            return Collected(len(keys), size, 0, tuple(keys))
        names = {key: key.partition("~")[0] for key in keys}
        gone = _gone(repository, {digest for key, digest in names.items() if key == index.key(digest)})
        behind = None
        try:
            for start in range(0, len(keys), BATCH):
                part = keys[start : start + BATCH]
                told = event("blobs.swept", keys=part, versions=gone if start == 0 else [])
                position, late = _at_head(repository, head, told)
                behind = late or behind
                backend.blobs.delete(part)
                head = index.head
                if start + BATCH < len(keys) and (head is None or head.position != position):
                    raise Rejected("somebody published meanwhile", code="head-moved")
        except Rejected as exc:
            if exc.code != "head-moved":
                raise
            continue
        sweeper = backend.files or backend  # a remote store may have abandoned uploads as well
        temporaries = sweeper.sweep_uploads(grace) if hasattr(sweeper, "sweep_uploads") else 0
        if behind is not None:
            raise behind
        return Collected(len(keys), size, temporaries, tuple(keys))
    raise Conflict(
        "others kept publishing while the sweep was computed", hint="run `catalog gc` again at a quieter time"
    )


def _gone(repository: Repository, doomed: set[str]) -> list[list[Any]]:
    """The deleted versions that lose a blob: they can no longer be restored."""
    result: list[list[Any]] = []
    for one in state.stored(repository.index, Deletion.ALONE, Deletion.WITH_MODEL):
        try:
            chunks = [chunk for parts in _layout_of(repository, one.ref, one.layout).values() for chunk in parts]
        except CatalogError:
            chunks = []
        if doomed & {one.manifest, one.layout, *[chunk.pack or chunk.digest for chunk in chunks]}:
            name, _, number = one.ref.partition("@")
            result.append([name, int(number)])
    return result


def _at_head(repository: Repository, head: Any, told: dict[str, Any]) -> tuple[int, NotReplicated | None]:
    """Commit an event at exactly the head that it was computed from, else `Rejected` (`head-moved`); return its
    position. What follows from it is to be done also where a replica is behind; the error that says so comes too."""

    def events(index: Any) -> list[dict[str, Any]]:
        if index.head != head:
            raise Rejected("somebody published meanwhile", code="head-moved")
        return [told]

    try:
        return repository.commit(events=events), None
    except NotReplicated as exc:
        return exc.position, exc


def erase(repository: Repository, version: VersionRow, reason: str) -> Erased:
    """Take the content of a version away for good. Its blobs are deleted, as far as no other version needs them; its
    manifest, attachments and files of weights may not come back, by any way. (What any model may have, its graph or
    environment, may.) The event that says so, with its `reason`, stays."""
    repository.check_writable()
    if not reason.strip():
        raise InvalidInput("an erasure needs a reason", hint="it stays in the history; name no person in it")
    index, blobs = repository.index, repository.backend.blobs
    for _ in range(20):
        repository.refresh(force=True)
        head = index.head
        artifact = artifact_of(repository.content, repository.registry, version)
        now = state.versions_by_id(index, [version.id])[0]
        attached = {digest for digest, _ in now.attachments.values()}
        stored = {digest: {c.pack or c.digest for c in chunks} for digest, chunks in artifact.layout.items()}
        mine = {version.digest, version.layout, *attached}.union(*stored.values())
        doomed = mine - _needed(repository, besides=version)
        banned = (attached | {version.digest}) & doomed
        banned |= {digest for digest in _weights(artifact.manifest) if stored.get(digest, mine) & doomed}
        lasting = sum(state.is_inlined(index, index.key(digest)) for digest in doomed)
        keys = sorted(map(index.key, doomed))
        found = [info for info in map(blobs.stat, keys) if info is not None]
        gone = [pair for pair in _gone(repository, doomed) if pair != [version.name, version.number]]
        told = event(
            "blobs.erased", keys=keys, digests=sorted(banned), versions=[[version.name, version.number], *gone],
            reason=reason,
        )  # fmt: skip
        blobs.delete(_strays(repository, doomed, banned))  # now: once it is told, somebody may store under such a key
        try:
            _, behind = _at_head(repository, head, told)
        except Rejected as exc:
            if exc.code != "head-moved":
                raise
            continue
        blobs.delete(info.key for info in found)
        repository.forget_erased()
        if behind is not None:
            raise behind
        size = sum(info.size for info in found)
        return Erased(version.ref, len(found), size, len(mine - doomed), lasting)
    raise Conflict("others kept publishing while the erasure was computed", hint="try again at a quieter time")


def _strays(repository: Repository, digests: Collection[str], erased: Collection[str]) -> list[str]:
    """The other keys under which these contents are stored: older ones, which a late writer may have filled again, and
    those of void branches."""
    index = repository.index
    kept = awaited(repository, repository.parts, erased) if repository.parts is not None else ()
    doomed = set(digests).difference(kept)
    named = ((info.key, info.key.partition("~")[0]) for info in repository.backend.blobs.list())
    return [key for key, digest in named if digest in doomed and key != index.key(digest)]


def _weights(manifest: Manifest) -> Iterator[str]:
    """The files of numbers of a version, and those that were published as they are."""
    for component in manifest.components:
        for file in component.files:
            if file.name.endswith(".safetensors") or component.serializer == "files":
                yield file.digest
