"""A version goes to another catalog: the same bytes, so the same digest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core import state
from catalog_core.artifact import stored
from catalog_core.codec import check_door, manifest_of, read_artifact
from catalog_core.content import ComponentReader
from catalog_core.digests import canonical
from catalog_core.errors import IntegrityError
from catalog_core.events import event, relies_on
from catalog_core.layout import SMALL, Chunk, Layout, write_layout
from catalog_core.reducer import relatives
from catalog_core.repository import Published, Repository
from catalog_core.staging import Source, Writer
from catalog_core.state import VersionRow
from catalog_core.values import when

if TYPE_CHECKING:
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


def about(repository: Repository, version: VersionRow) -> dict[str, Any]:
    """What is said of a version elsewhere: its present tags and metrics, what was captured, and its origin, which is
    where it was published before any copy."""
    published = state.published(repository.index, version)
    origin = {
        "catalog": repository.id, "ref": version.ref, "digest": version.digest, "author": version.author,
        "time": when(version.time).isoformat(),
    }  # fmt: skip
    groups = {kind: version.group(kind) for kind in ("tags", "metrics", "params", "taxonomy")}
    told = {"text": published.get("text"), **groups, "summary": {"origin": origin, **published["summary"]}}
    return {key: value for key, value in told.items() if value}


def view(content: Content, chunk: Chunk, what: str) -> memoryview:
    """The checked bytes of one chunk or blob."""
    layout: Layout = {chunk.digest: (chunk,)}
    return ComponentReader(content, {}, {"chunk": (chunk.digest, chunk.length)}, layout, what).view("chunk")


def copy(source: Repository, version: VersionRow, target: Repository, name: str) -> Published:
    """Publish a version of `source` in `target` as the next version of `name`, with its present tags and metrics; what
    an earlier copy of the same version published is returned as it is. Chunks that `target` holds are not written
    again, nor fetched from a remote catalog where they are near."""
    content = source.content
    artifact = stored(content, source.registry, version)

    def files(writer: Writer) -> Files:
        near = content.remote is not None and target.content.remote is None
        for digest, chunks in artifact.layout.items():
            cuts = list(accumulate(chunk.length for chunk in chunks))
            if content.remote is None:
                reader = ComponentReader(content, {}, {"file": (digest, cuts[-1])}, artifact.layout, version.ref)
                yield digest, [reader.view("file")], cuts[:-1]
                continue
            here = {chunk: writer.known(chunk.digest, chunk.length) if near else None for chunk in chunks}
            content.fetch([chunk for chunk, held in here.items() if held is None], version.ref)
            parts = (
                view(content, chunk, version.ref) if held is None else view(target.content, held, version.ref)
                for chunk, held in ((chunk, here[chunk]) for chunk in chunks)
            )
            yield digest, list(parts), cuts[:-1]

    manifest = content.blob(version.digest, f"manifest of {version.ref}")
    told = about(source, version)
    return arrive(Arrival(version.ref, version.digest, manifest, version.size, files, told), target, name)


def arrive(arrival: Arrival, target: Repository, name: str, others: Collection[int] = ()) -> Published:
    """Publish what arrives as the next version of `name`, in one intent; see `copy`. `others` are numbers of `name` at
    which other versions arrived. Raises `IntegrityError` where a file is not what its digest says."""
    target.check_writable()

    def store() -> Published:
        target.refresh(force=True)
        there = next((number for number in _there(arrival, target, name) if number not in others), None)
        if there is not None:
            return Published(there, None)
        writer = Writer(target.backend, target.index, target.progress)
        try:
            return _publish(arrival, target, name, writer)
        finally:
            writer.discard()

    return target.storing(store, arrival.ref)


def _there(arrival: Arrival, target: Repository, name: str) -> Iterator[int]:
    """The versions of `name` that are what arrives: of its origin, or its origin itself. Another one of the same digest
    is none: each has its own tags, metrics and aliases."""
    _, origin = relatives(arrival.about.get("summary", {}))
    for number, other in state.same_bytes(target.index, name, arrival.digest):
        if origin is None or origin in (other, (target.id, f"{name}@{number}")):
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
    has = state.model_named(index, name)
    taken = has.aliases if has else {}
    listed += [event("alias.set", **same, alias=alias, seen=None) for alias in arrival.aliases if alias not in taken]
    fill = {key: value for key, value in arrival.model.items() if value is not None and getattr(has, key, None) is None}
    if fill:
        listed.append(event("model.updated", model=name, set=fill, seen={}))
    if arrival.card and (has is None or has.card is None):
        digest = arrival.card[0]
        listed.append(event("card.set", model=name, digest=digest, seen=None, **relies_on([digest], checked)))
    return listed
