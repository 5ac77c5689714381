"""A version goes to another catalog: the same bytes, so the same digest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core.codec import check_door, manifest_of, read_artifact
from catalog_core.content import ComponentReader
from catalog_core.digests import canonical
from catalog_core.errors import IntegrityError
from catalog_core.events import event, relies_on
from catalog_core.handles import Version, version_published
from catalog_core.layout import SMALL, Chunk, Layout, write_layout
from catalog_core.reducer import relatives
from catalog_core.repository import Published, Repository
from catalog_core.staging import Source, Writer

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.content import Content
    from catalog_core.index import Index
    from catalog_core.interfaces.backend import Head

Files = Iterator[tuple[str, Sequence[Any], Sequence[int]]]


@attrs.frozen
class Arrival:
    """A version on its way into a catalog. `files` gives digest, parts and cuts of each file, `about` has the fields of
    the event that publishes it. `attachments` (name → digest and bytes) come with it; `aliases`, what `model` says
    (title, description, owner), and the `card` (digest and bytes) do where the model has none of its own."""

    ref: str
    digest: str
    manifest: bytes
    size: int
    files: Callable[[Writer], Files]
    about: Mapping[str, Any]
    attachments: Mapping[str, tuple[str, Any]] = attrs.field(factory=dict)
    aliases: Sequence[str] = ()
    model: Mapping[str, str | None] = attrs.field(factory=dict)
    card: tuple[str, Any] | None = None


def about(version: Version) -> dict[str, Any]:
    """What is said of a version elsewhere: its present tags and metrics, what was captured, and its origin, which is
    where it was published before any copy."""
    published = version.catalog.repository.index.published(version._position, version.model, version.number)
    origin = {
        "catalog": version.catalog.id, "ref": version.ref, "digest": version.digest, "author": version.author,
        "time": version.created.isoformat(),
    }  # fmt: skip
    told = {
        "text": published.get("text"), "tags": version.tags, "metrics": version.metrics,
        "params": {key: value for key, value in version.params.items() if value is not None},  # `summary` names them
        "taxonomy": version.taxonomy, "summary": {"origin": origin, **published.get("summary", {})},
    }  # fmt: skip
    return {key: value for key, value in told.items() if value}


def view(content: Content, chunk: Chunk, what: str) -> memoryview:
    """The checked bytes of one chunk or blob."""
    layout: Layout = {chunk.digest: (chunk,)}
    return ComponentReader(content, {}, {"chunk": (chunk.digest, chunk.length)}, layout, what).view("chunk")


def copy(version: Version, target: Catalog, name: str) -> Version:
    """Publish `version` in `target` as the next version of `name`, with its present tags and metrics; what an earlier
    copy of the same version published is returned as it is. Chunks that `target` holds are not written again, nor
    fetched from a remote catalog where they are near."""
    content = version.catalog.repository.content
    artifact = version.artifact

    def files(writer: Writer) -> Files:
        near = content.remote is not None and target.repository.content.remote is None
        for digest, chunks in artifact.layout.items():
            cuts = list(accumulate(chunk.length for chunk in chunks))
            if content.remote is None:
                reader = ComponentReader(content, {}, {"file": (digest, cuts[-1])}, artifact.layout, version.ref)
                yield digest, [reader.view("file")], cuts[:-1]
                continue
            here = {chunk: writer.known(chunk.digest, chunk.length) if near else None for chunk in chunks}
            content.fetch([chunk for chunk, held in here.items() if held is None], version.ref)
            parts = (
                view(content, chunk, version.ref)
                if held is None
                else view(target.repository.content, held, version.ref)
                for chunk, held in ((chunk, here[chunk]) for chunk in chunks)
            )
            yield digest, list(parts), cuts[:-1]

    manifest = content.blob(version.digest, f"manifest of {version.ref}")
    return arrive(Arrival(version.ref, version.digest, manifest, version.size, files, about(version)), target, name)


def arrive(arrival: Arrival, target: Catalog, name: str, others: Collection[int] = ()) -> Version:
    """Publish what arrives as the next version of `name`, in one intent; see `copy`. `others` are numbers of `name` at
    which other versions arrived. Raises `IntegrityError` where a file is not what its digest says."""
    repository = target.repository
    repository.check_writable()

    def store() -> Published:
        repository.refresh(force=True)
        there = next((number for number in _there(arrival, repository, name) if number not in others), None)
        if there is not None:
            return Published(there, None)
        writer = Writer(repository.backend, repository.index, repository.progress)
        try:
            return _publish(arrival, repository, name, writer)
        finally:
            writer.discard()

    return version_published(target, name, repository.storing(store, arrival.ref))


def _there(arrival: Arrival, target: Repository, name: str) -> Iterator[int]:
    """The versions of `name` that are what arrives: of its origin, or its origin itself. Another one of the same digest
    is none: each has its own tags, metrics and aliases."""
    _, origin = relatives(arrival.about.get("summary", {}))
    rows = target.index.rows(
        "SELECT v.number, o.catalog, o.ref FROM versions v LEFT JOIN origins o ON o.version = v.id"
        " WHERE v.name = ? AND v.manifest = ? AND v.deleted = 0 ORDER BY v.number",
        (name, arrival.digest),
    )
    for number, catalog, ref in rows:
        if origin is None or origin in ((catalog, ref), (target.id, f"{name}@{number}")):
            yield number


def _publish(arrival: Arrival, target: Repository, name: str, writer: Writer) -> Published:
    described = manifest_of(arrival.manifest)
    check_door(described, everywhere=False)
    checked = target.index.head
    for digest, parts, cuts in arrival.files(writer):
        copied, _ = writer.add(Source(parts), cuts)
        if copied != digest:
            raise IntegrityError(f"{arrival.ref}: {digest} holds other bytes ({copied})", hint="catalog fsck")
    writer.bundle(described.notes)
    for digest, data in [*arrival.attachments.values(), *([arrival.card] if arrival.card else [])]:
        if len(data) <= SMALL:
            writer.add_small(bytes(data), digest)
        else:
            writer.backend.blobs.put(writer.index.key(digest), Source([data]).stream(), len(data))
    manifest = writer.add_small(arrival.manifest)
    where = canonical(write_layout(writer.layout))
    read_artifact(arrival.manifest, where)
    layout = writer.add_small(where)
    told = {**arrival.about, "summary": {**arrival.about.get("summary", {}), "new_bytes": writer.written}}
    return target.publish(
        name, writer, manifest, layout, arrival.size, checked,
        then=lambda index, same: followers(arrival, index, same, checked), **told,
    )  # fmt: skip


def followers(arrival: Arrival, index: Index, same: Mapping[str, Any], checked: Head | None) -> list[dict[str, Any]]:
    """The events behind the one that publishes: what the catalog has of its own stays as it is."""
    name = same["model"]
    listed = [
        event("attachment.set", **same, name=key, digest=digest, size=len(data), **relies_on([digest], checked))
        for key, (digest, data) in arrival.attachments.items()
    ]
    rows = index.rows("SELECT alias FROM aliases a JOIN models m ON m.id = a.model WHERE m.name = ?", (name,))
    taken = {alias for (alias,) in rows}
    listed += [event("alias.set", **same, alias=alias, seen=None) for alias in arrival.aliases if alias not in taken]
    rows = index.rows("SELECT title, description, owner, card FROM models WHERE name = ?", (name,))
    has = dict(zip(("title", "description", "owner", "card"), rows[0] if rows else (None,) * 4, strict=True))
    fill = {key: value for key, value in arrival.model.items() if value is not None and has[key] is None}
    if fill:
        listed.append(event("model.updated", model=name, set=fill, seen={}))
    if arrival.card and has["card"] is None:
        digest = arrival.card[0]
        listed.append(event("card.set", model=name, digest=digest, seen=None, **relies_on([digest], checked)))
    return listed
