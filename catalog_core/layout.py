"""Layouts: where the chunks of files are.

A *layout* says where the bytes of files are: `{"version": 1, "files": {file digest: [[chunk digest, length] or
[chunk digest, length, pack digest, offset], …]}}`. It is a blob beside the manifest and not part of a version's
identity.
"""

from __future__ import annotations

from typing import Any

import attrs

from catalog_core.digests import check_count, check_digest, parse
from catalog_core.errors import IntegrityError
from catalog_core.events import UPGRADE

SMALL = 64 << 10  # a file of at most so many bytes is one chunk, a blob of its own


@attrs.frozen
class Chunk:
    """A piece of a file. It lies at `offset` of the pack, or is the blob `digest` itself where `pack` is None."""

    digest: str
    length: int
    pack: str | None = None
    offset: int = 0


Layout = dict[str, tuple[Chunk, ...]]


def write_layout(layout: Layout) -> dict[str, Any]:
    """The stored form of a layout."""
    files = {}
    for digest, chunks in layout.items():
        files[digest] = [
            [c.digest, c.length] if c.pack is None else [c.digest, c.length, c.pack, c.offset] for c in chunks
        ]
    return {"version": 1, "files": files}


def read_layout(data: bytes) -> Layout:
    """Parse and check a layout. Raises `IntegrityError`; for one of a newer release its hint is to upgrade."""
    try:
        value = parse(data)
        if value["version"] != 1:
            raise IntegrityError(f"layout version {value['version']!r} is not known to this release", hint=UPGRADE)
        return {
            check_digest(digest): tuple(_read_chunk(chunk) for chunk in chunks)
            for digest, chunks in value["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise IntegrityError(f"the layout cannot be read: {exc}") from exc


def _read_chunk(item: Any) -> Chunk:
    if not isinstance(item, list) or len(item) not in (2, 4):
        if isinstance(item, list) and len(item) > 4:
            raise IntegrityError("the layout has chunks of a kind that this release does not know", hint=UPGRADE)
        raise IntegrityError(f"a chunk of a layout is {str(item)[:80]!r}")
    chunk = Chunk(*item)
    check_digest(chunk.digest)
    if chunk.pack is not None:
        check_digest(chunk.pack.partition("~")[0])
    check_count(chunk.length, "the length of a chunk")
    check_count(chunk.offset, "the offset of a chunk")
    return chunk
