"""A version goes to another catalog: the same bytes, so the same digest."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from catalog_core.content import ComponentReader
from catalog_core.digests import canonical
from catalog_core.errors import IntegrityError, Rejected
from catalog_core.layout import write_layout
from catalog_core.staging import Source, Writer

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.handles import Version


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
            return _publish(version, target, name, writer)
        except Rejected as exc:
            if exc.code != "swept":
                raise
        finally:
            writer.discard()
    raise IntegrityError(f"{version.ref} was collected five times while it was copied", hint="stop `catalog gc`")


def _publish(version: Version, target: Catalog, name: str, writer: Writer) -> Version:
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
    published = source._index.published(version._position, version.model, version.number)
    return target._publish(
        name, writer, manifest, layout, version.size, checked,
        summary={**published.get("summary", {}), "new_bytes": writer.written}, text=published.get("text"),
        tags=version.tags, metrics=version.metrics, params=version.params, taxonomy=version.taxonomy,
    )  # fmt: skip
