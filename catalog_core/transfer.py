"""A version goes to another catalog: the same bytes, so the same digest."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from catalog_core.content import ComponentReader
from catalog_core.digests import canonical
from catalog_core.errors import IntegrityError, Rejected
from catalog_core.events import event
from catalog_core.layout import write_layout
from catalog_core.staging import Source, Writer

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.handles import Version
    from catalog_core.index import Index


def copy(version: Version, target: Catalog, name: str) -> Version:
    """Publish `version` in `target` as the next version of `name`, with its present tags and metrics; one that is there
    with the same digest is returned as it is. Chunks that `target` holds are not written again."""
    target._check_writable()
    for _ in range(5):
        target._refresh(force=True)
        there = target._index.rows(
            "SELECT number FROM versions WHERE name = ? AND manifest = ? AND deleted = 0", (name, version.digest)
        )
        if there:
            return target._version(name, there[0][0])
        writer = Writer(target._backend, target._index, target._progress)
        try:
            number = _publish(version, target, name, writer)
            writer.remember()
            return target._version(name, number)
        except Rejected as exc:
            if exc.code != "swept":
                raise
        finally:
            writer.discard()
    raise IntegrityError(f"{version.ref} was collected five times while it was copied", hint="stop `catalog gc`")


def _publish(version: Version, target: Catalog, name: str, writer: Writer) -> int:
    source, checked = version.catalog, target._index.head
    artifact = source._artifact(version)
    for digest, chunks in artifact.layout.items():
        size = sum(chunk.length for chunk in chunks)
        reader = ComponentReader(source._content, {}, {"file": (digest, size)}, artifact.layout, version.ref)
        cuts = list(accumulate(chunk.length for chunk in chunks))[:-1]
        copied, _ = writer.add(Source([reader.view("file")]), cuts)
        if copied != digest:
            raise IntegrityError(f"{version.ref}: {digest} holds other bytes ({copied})", hint="catalog fsck")
    writer.bundle(artifact.manifest.environment.get("distributions"))
    manifest = writer.add_small(source._content.blob(version.digest, f"manifest of {version.ref}"))
    layout = writer.add_small(canonical(write_layout(writer.layout)))
    writer.publish_packs()
    published = source._index.published(version._position, version.model, version.number)
    about: dict[str, Any] = {
        "summary": {**published.get("summary", {}), "new_bytes": writer.written},
        "tags": version.tags, "metrics": version.metrics, "params": version.params, "taxonomy": version.taxonomy,
        "text": published.get("text"),
    }  # fmt: skip
    blobs = sorted({manifest, layout, *writer.blobs()})
    numbers: list[int] = []

    def events(index: Index) -> list[dict[str, Any]]:
        rows = index.rows("SELECT newest FROM models WHERE name = ?", (name,))
        numbers.append(rows[0][0] + 1 if rows else 1)
        return [
            event(
                "version.published", model=name, number=numbers[-1], manifest=manifest, layout=layout,
                size=version.size, blobs="".join(digest[7:23] for digest in blobs),
                checked=-1 if checked is None else checked.position,
                **{key: value for key, value in about.items() if value},
            )
        ]  # fmt: skip

    target._commit(events=events, blobs=writer.fresh)
    return numbers[-1]
