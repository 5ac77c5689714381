"""A version goes to another catalog: the same bytes, so the same digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core.codec import manifest_of
from catalog_core.content import ComponentReader
from catalog_core.digests import canonical, digest_of_parts
from catalog_core.errors import IntegrityError, Rejected
from catalog_core.events import event, relies_on
from catalog_core.layout import SMALL, write_layout
from catalog_core.staging import Source, Writer

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.handles import Version
    from catalog_core.index import Index
    from catalog_core.interfaces.backend import Head

ABOUT = ("text", "tags", "metrics", "params", "taxonomy")


@attrs.frozen
class Arrival:
    """A version on its way into a catalog. `files` gives the digest, the parts and the cuts of each of its files,
    `about` has the fields of the event that publishes it. What else comes with it: `attachments` (bytes by name),
    `aliases`, and `model` (title, description, owner, and the card as bytes), where the catalog has none of its own."""

    ref: str
    digest: str
    manifest: bytes
    size: int
    files: Callable[[], Iterator[tuple[str, Sequence[Any], Sequence[int]]]]
    about: Mapping[str, Any]
    attachments: Mapping[str, Any] = attrs.field(factory=dict)
    aliases: Sequence[str] = ()
    model: Mapping[str, Any] = attrs.field(factory=dict)


def origin(version: Version) -> dict[str, Any]:
    """Where a version comes from, for the `summary` of the event that publishes it elsewhere; `first` is where it was
    published before any copy."""
    here = {
        "catalog": version.catalog.id, "name": version.model, "number": version.number, "digest": version.digest,
    }  # fmt: skip
    before = version.summary.get("origin")
    if not isinstance(before, dict):
        return here
    return {**here, "first": before.get("first") or before}


def about(version: Version) -> dict[str, Any]:
    """What is said of a version elsewhere: its present tags and metrics, what was captured, and its origin."""
    published = version.catalog._index.published(version._position, version.model, version.number)
    told = {
        "text": published.get("text"), "tags": version.tags, "metrics": version.metrics, "params": version.params,
        "taxonomy": version.taxonomy, "summary": {**published.get("summary", {}), "origin": origin(version)},
    }  # fmt: skip
    return {key: value for key, value in told.items() if value}


def copy(version: Version, target: Catalog, name: str) -> Version:
    """Publish `version` in `target` as the next version of `name`, with its present tags and metrics; one that is there
    with the same digest is returned as it is. Chunks that `target` holds are not written again."""
    content = version.catalog._content
    artifact = version.catalog._artifact(version)

    def files() -> Iterator[tuple[str, Sequence[Any], Sequence[int]]]:
        for digest, chunks in artifact.layout.items():
            size = sum(chunk.length for chunk in chunks)
            reader = ComponentReader(content, {}, {"file": (digest, size)}, artifact.layout, version.ref)
            yield digest, [reader.view("file")], list(accumulate(chunk.length for chunk in chunks))[:-1]

    manifest = content.blob(version.digest, f"manifest of {version.ref}")
    return arrive(Arrival(version.ref, version.digest, manifest, version.size, files, about(version)), target, name)


def arrive(arrival: Arrival, target: Catalog, name: str) -> Version:
    """Publish what arrives as the next version of `name`, in one intent; see `copy`. Raises `IntegrityError` where a
    file is not what its digest says."""
    target._check_writable()
    for _ in range(5):
        target._refresh(force=True)
        there = target._index.rows(
            "SELECT number FROM versions WHERE name = ? AND manifest = ? AND deleted = 0", (name, arrival.digest)
        )
        if there:
            return target._version(name, there[0][0])
        writer = Writer(target._backend, target._index, target._progress)
        try:
            return _publish(arrival, target, name, writer)
        except Rejected as exc:
            if exc.code != "swept":
                raise
        finally:
            writer.discard()
    raise IntegrityError(f"{arrival.ref} was collected five times while it was copied", hint="stop `catalog gc`")


def _publish(arrival: Arrival, target: Catalog, name: str, writer: Writer) -> Version:
    checked = target._index.head
    for digest, parts, cuts in arrival.files():
        copied, _ = writer.add(Source(parts), cuts)
        if copied != digest:
            raise IntegrityError(f"{arrival.ref}: {digest} holds other bytes ({copied})", hint="catalog fsck")
    writer.bundle(manifest_of(arrival.manifest).environment.get("distributions"))
    attached = {key: _store(Source([data]), writer) for key, data in arrival.attachments.items()}
    card = _store(Source([arrival.model["card"]]), writer) if arrival.model.get("card") else None
    manifest = writer.add_small(arrival.manifest)
    layout = writer.add_small(canonical(write_layout(writer.layout)))
    summary = {**arrival.about.get("summary", {}), "new_bytes": writer.written}
    return target._publish(
        name, writer, manifest, layout, arrival.size, checked, summary=summary,
        then=lambda index, same: followers(arrival, index, same, attached, card, checked),
        **{key: arrival.about.get(key) for key in ABOUT},
    )  # fmt: skip


def _store(source: Source, writer: Writer) -> str:
    """Keep a blob that no layout names, small for the commit and large in the store; return its digest."""
    digest = digest_of_parts(source.parts)
    if source.size <= SMALL:
        return writer.add_small(b"".join(source.parts), digest)
    writer.backend.blobs.put(writer.index.key(digest), source.stream(), source.size)
    return digest


def followers(
    arrival: Arrival, index: Index, same: Mapping[str, Any], attached: Mapping[str, str], card: str | None,
    checked: Head | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The events behind the one that publishes: what the catalog has of its own stays as it is."""
    name = same["model"]
    listed = [
        event("attachment.set", **same, name=key, digest=digest, size=memoryview(arrival.attachments[key]).nbytes,
              **relies_on([digest], checked))
        for key, digest in attached.items()
    ]  # fmt: skip
    rows = index.rows("SELECT alias FROM aliases a JOIN models m ON m.id = a.model WHERE m.name = ?", (name,))
    taken = {alias for (alias,) in rows}
    listed += [event("alias.set", **same, alias=alias, seen=None) for alias in arrival.aliases if alias not in taken]
    rows = index.rows("SELECT title, description, owner, card FROM models WHERE name = ?", (name,))
    has = dict(zip(("title", "description", "owner", "card"), rows[0] if rows else (None,) * 4, strict=True))
    fill = {
        key: arrival.model[key] for key in ("title", "description", "owner") if arrival.model.get(key) and not has[key]
    }
    if fill:
        listed.append(event("model.updated", model=name, set=fill, seen={key: has[key] for key in fill}))
    if card is not None and has["card"] is None:
        listed.append(event("card.set", model=name, digest=card, seen=None, **relies_on([card], checked)))
    return listed
