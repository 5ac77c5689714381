"""Bundles: versions of a model and their history in one file, for sites that no network joins.

A bundle is a zip without compression: `bundle.json`, then `blobs/<hex>`, each under its digest (`docs/format.md`). It
is a zip and not a tar because its directory stands at the end: one that is cut short is refused at once, any blob is
found without reading those before it, and the stored bytes are mapped and never unpacked.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs

from catalog_core import durable, transfer
from catalog_core.content import ComponentReader
from catalog_core.digests import canonical, digest_of, digest_of_parts
from catalog_core.errors import IntegrityError, InvalidInput
from catalog_core.layout import Chunk, write_layout

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.handles import Version

KIND = "catalog-bundle"
FORMAT = 1
INDEX = "bundle.json"
MAX_TEXT = 64 << 20  # bytes of bundle.json, and of each blob that is read whole
MAX_BLOBS = 500_000
MAX_LISTING = 200 * MAX_BLOBS  # bytes of the zip's directory


@attrs.frozen
class Exported:
    """What was written: `blobs` counts them, `size` is in bytes, `digest` is that of the file."""

    path: Path
    versions: tuple[str, ...]
    blobs: int
    size: int
    digest: str


class _Output(io.RawIOBase):
    """A file that is only appended to, hashed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        durable.write_all(self._file, data)
        self._hash.update(data)
        self.size += memoryview(data).nbytes
        return memoryview(data).nbytes

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def export(catalog: Catalog, versions: Sequence[Version], path: Path) -> Exported:
    """Write `versions` of one model to the new file `path`: whole and synced, or not at all. Every blob is checked
    against its digest. The bytes depend on the versions and what was said of them, not on when or where this runs.
    Raises `InvalidInput` for a file that exists, `IntegrityError`, `NoSpace`."""
    if path.exists():
        raise InvalidInput(f"{path} exists already", hint="remove it, or give another name")
    index, blobs = _collect(catalog, versions)
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    total, done = sum(size for size, _ in blobs.values()), 0
    try:
        with durable.translated(str(path)):
            with part.open("xb", buffering=0) as file:
                output = _Output(file)
                # no seek and no tell: what was written stays as it is
                with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
                    _add(archive, INDEX, index)
                    for digest, (_, read) in blobs.items():
                        data = read()
                        if digest_of_parts([memoryview(data)]) != digest:
                            raise IntegrityError(f"blob {digest} holds other bytes", hint="catalog fsck")
                        _add(archive, f"blobs/{digest[7:]}", data)
                        done += len(data)
                        if catalog._progress:
                            catalog._progress(done, total)
                os.fsync(file.fileno())
            os.rename(part, path)
            durable.sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)
    return Exported(path, tuple(version.ref for version in versions), len(blobs), output.size, output.digest)


def _add(archive: zipfile.ZipFile, name: str, data: Any) -> None:
    """A member that looks the same at any time and on any system."""
    info = zipfile.ZipInfo(name)  # 1980
    info.create_system, info.external_attr, info.file_size = 3, 0o100444 << 16, len(data)
    with archive.open(info, "w") as member:
        member.write(data)


Blobs = dict[str, tuple[int, Callable[[], Any]]]


def _collect(catalog: Catalog, versions: Sequence[Version]) -> tuple[bytes, Blobs]:
    """The bytes of `bundle.json`, and the blobs: digest → size and what reads it."""
    content, blobs = catalog._content, Blobs()

    def text(data: bytes, what: str) -> str:
        digest = digest_of(data)
        if len(data) > MAX_TEXT:
            raise InvalidInput(f"{what} has {len(data):,} bytes; {MAX_TEXT:,} are allowed in a bundle")
        blobs.setdefault(digest, (len(data), lambda: data))
        return digest

    def stored(digest: str, size: int, what: str) -> str:
        blobs.setdefault(digest, (size, lambda: content.blob(digest, what)))
        return digest

    listed = []
    for version in versions:
        artifact = catalog._artifact(version)
        manifest = content.blob(version.digest, f"manifest of {version.ref}")
        plain = {digest: tuple(Chunk(c.digest, c.length) for c in chunks) for digest, chunks in artifact.layout.items()}
        told = transfer.about(version)
        listed.append(
            {
                "number": version.number, "digest": text(manifest, "a manifest"),
                "layout": text(canonical(write_layout(plain)), "a layout"),
                "history": text(canonical(_history(catalog, version)), "the history"),
                "author": version.author, "time": round(version.time * 1000), "stage": version.stage,
                "aliases": version.aliases, "about": told,
                "attachments": {
                    name: stored(digest, size, f"attachment {name} of {version.ref}")
                    for name, digest, size in catalog._index.rows(
                        "SELECT name, digest, size FROM attachments WHERE version = ? ORDER BY name", (version._id,)
                    )
                },
            }
        )  # fmt: skip
        for digest, chunks in artifact.layout.items():
            size = sum(chunk.length for chunk in chunks)
            reader = ComponentReader(content, {}, {"file": (digest, size)}, artifact.layout, version.ref)
            at = 0
            for chunk in chunks:
                blobs.setdefault(chunk.digest, (chunk.length, partial(reader.view, "file", at, chunk.length)))
                at += chunk.length
    model = catalog.model(versions[0].model, deleted=True)
    about = {"name": model.name, "title": model.title, "description": model.description, "owner": model.owner,
             "card": None if model.card is None else text(model.card.encode(), "the card")}  # fmt: skip
    index = {"kind": KIND, "format": FORMAT, "catalog": catalog.id, "model": about, "versions": listed}
    if len(blobs) > MAX_BLOBS:
        raise InvalidInput(
            f"{len(blobs):,} blobs; a bundle holds {MAX_BLOBS:,}", hint="export fewer versions at a time"
        )
    data = canonical(index)
    if len(data) > MAX_TEXT:
        raise InvalidInput("what is said of so many versions is too long for one bundle", hint="export fewer at a time")
    return data, blobs


def _history(catalog: Catalog, version: Version) -> dict[str, Any]:
    """The events that made a version what it is now, and its model."""
    rows = catalog._index.rows(
        "SELECT position, ordinal, time, actor FROM events WHERE model = ? AND rejected IS NULL"
        " AND (number = ? OR number IS NULL) ORDER BY id",
        (version.model, version.number),
    )
    events = [
        {
            "position": position,
            "time": round(seconds * 1000),
            "actor": actor,
            **{"event": catalog._index.event(position, n)},
        }
        for position, n, seconds, actor in rows
    ]
    return {"origin": transfer.origin(version), "events": events}
