"""What this machine remembers of stored bytes, beside the state in the index. All of it may be lost at any time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from catalog_core.digests import digest_of
from catalog_core.layout import Chunk, Layout
from catalog_core.state import Deletion

if TYPE_CHECKING:
    from catalog_core.index import Index

Edge = tuple[str, str]  # a layout, and a blob that it needs


def chunk(index: Index, digest: str) -> tuple[str, int, int] | None:
    """Where a chunk lies: the digest of its blob, offset and length there."""
    rows = index.rows("SELECT key, offset, length FROM chunks WHERE digest = ?", (digest,))
    return rows[0] if rows else None


def _listing(chunks: Iterable[str]) -> str:
    return digest_of("\n".join(chunks).encode())


def file_of(index: Index, chunks: Iterable[str]) -> str | None:
    """The digest of the file that consists of these chunks."""
    rows = index.rows("SELECT digest FROM files WHERE chunks = ?", (_listing(chunks),))
    return rows[0][0] if rows else None


def note_layout(index: Index, layout: Layout) -> None:
    """Remember where the chunks of these files lie, so that the next save finds them."""
    with index.cache():
        for digest, chunks in layout.items():
            index.db.executemany("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)", map(_chunk_row, chunks))
            listing = _listing(chunk.digest for chunk in chunks)
            index.db.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (listing, digest))


def _chunk_row(chunk: Chunk) -> tuple[str, str, int, int]:
    return chunk.digest, chunk.pack or chunk.digest, chunk.offset, chunk.length


def note_file(index: Index, chunks: Iterable[str], digest: str) -> None:
    """Remember that these chunks make the file of that digest."""
    with index.cache():
        index.db.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (_listing(chunks), digest))


def trusted(index: Index, key: str, stamp: str) -> set[str]:
    """The chunks of a file that were checked since it last changed."""
    return {row[0] for row in index.rows("SELECT digest FROM trusted WHERE key = ? AND stamp = ?", (key, stamp))}


def trust(index: Index, key: str, stamp: str, chunks: Iterable[str]) -> None:
    """Remember that these chunks of a file were checked; `stamp` tells when it changes."""
    with index.cache():
        index.db.execute("DELETE FROM trusted WHERE key = ? AND stamp <> ?", (key, stamp))
        index.db.executemany("INSERT OR IGNORE INTO trusted VALUES (?, ?, ?)", [(key, stamp, one) for one in chunks])


def expanded(index: Index) -> set[str]:
    """The layouts of which it is remembered what they need."""
    return {row[0] for row in index.rows("SELECT layout FROM expanded")}


def note_edges(index: Index, layouts: Collection[str], edges: Collection[Edge]) -> None:
    """Remember what these layouts need."""
    with index.cache():
        index.db.executemany("INSERT OR IGNORE INTO edges VALUES (?, ?)", edges)
        index.db.executemany("INSERT OR IGNORE INTO expanded VALUES (?)", [(layout,) for layout in layouts])


def needed(index: Index, besides: int) -> set[str]:
    """The blobs that versions which are not deleted need, by the layouts that are `expanded`; without the row
    `besides`."""
    rows = index.rows(
        f"SELECT e.key FROM edges e JOIN versions v ON v.layout = e.layout WHERE v.deleted = {Deletion.NOT}"
        " AND v.id <> ?",
        (besides,),
    )
    return {row[0] for row in rows}
