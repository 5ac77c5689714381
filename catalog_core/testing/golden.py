"""Golden journals: entries of format 1 and the state they mean, frozen. A release that reads them otherwise is wrong.

`golden/<name>.jsonl` holds the bytes of the entries, a line each; `golden/<name>.json` what `state` tells of a catalog
with that journal. `tests/core/make_golden.py` wrote both, and writes new ones; those that are here never change.

    >>> from catalog_core.catalog import Catalog
    >>> from catalog_core.objectstore import ObjectStoreBackend
    >>> from catalog_core.testing import golden
    >>> from catalog_core.testing.memory import MemoryStore
    >>> backend = ObjectStoreBackend(MemoryStore(), "memory", "memory://golden")
    >>> golden.replay(backend, golden.entries("retries"))
    >>> golden.state(Catalog(backend, "golden")) == golden.expected("retries")
    True
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from catalog_core.digests import parse
from catalog_core.errors import BlobMissing, InvalidName, NotFound
from catalog_core.interfaces.backend import Backend, Head
from catalog_core.state import given_number

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog

FOLDER = files("catalog_core.testing") / "golden"
DELETED = ("no", "deleted", "collected", "with its model")


def names() -> list[str]:
    """The golden journals."""
    return sorted(path.name.removesuffix(".jsonl") for path in FOLDER.iterdir() if path.name.endswith(".jsonl"))


def entries(name: str) -> list[bytes]:
    """The bytes of the entries, from position 0."""
    return (FOLDER / f"{name}.jsonl").read_bytes().splitlines()


def expected(name: str) -> dict[str, Any]:
    """The state they mean, as `state` tells it."""
    result: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return result


def replay(backend: Backend, journal: Sequence[bytes]) -> None:
    """Append entries as they are to an empty backend."""
    for data in journal:

        def build(head: Head | None, data: bytes = data) -> bytes:
            return data

        backend.journal.append(build, {}, time.monotonic() + 60)


def state(catalog: Catalog) -> dict[str, Any]:
    """What the journal of a catalog means, by names and numbers, whatever the index looks like.

    `models` by name, with their versions by number; `keys`: digest → storage key, where it is another one; `inlined`:
    digest → text of the blobs that entries brought and no sweep took; `events`: position, type, model, number and
    whether it was rejected; `stopped`: the position of the first entry that needs a newer release, or null. Times are
    in milliseconds, digests as they are stored.
    """
    catalog.repository.refresh(force=True)
    history = catalog.history(limit=1_000_000)
    digests: set[str] = set()
    brought: set[str] = set()
    for position, data in catalog.repository.backend.journal.read(0):
        if position > catalog.position:
            break
        entry = parse(data)
        brought |= {key.partition("~")[0] for key in entry.get("blobs", {})}
        for event in (event for intent in entry["intents"] for event in intent["events"]):
            digests |= {key.partition("~")[0] for key in event.get("keys", ()) if isinstance(key, str)}
    models = {}
    for name in sorted({event.model for event in history if event.model}):
        try:
            models[name] = _model(catalog, name)
        except (NotFound, InvalidName):  # all that was said of it was rejected
            continue
    return {
        "catalog": catalog.id,
        "head": [catalog.position, catalog.repository.index.head and catalog.repository.index.head.digest],
        "stopped": catalog.position + 1 if catalog.repository.stopped else None,
        "models": models,
        "keys": {
            d: catalog.repository.index.key(d)
            for d in sorted(digests | brought)
            if catalog.repository.index.key(d) != d
        },
        "inlined": {d: text for d in sorted(brought) if (text := _inlined(catalog, d)) is not None},
        "events": [[e.position, e.type, e.model, e.number, e.rejected is not None] for e in history],
    }


def _model(catalog: Catalog, name: str) -> dict[str, Any]:
    model = catalog.model(name, deleted=True)
    try:
        bare = catalog.version(name).number
    except NotFound:
        bare = None
    newest = given_number(catalog.repository.index, name)
    return {
        "title": model.title, "description": model.description, "owner": model.owner, "card": model.card_digest,
        "created": round(model.time * 1000), "updated": round(model.updated * 1000), "deleted": bool(model.deleted),
        "newest": newest, "aliases": model.aliases, "bare": bare,
        "versions": {str(number): _version(catalog, f"{name}@{number}") for number in range(1, newest + 1)},
    }  # fmt: skip


def _version(catalog: Catalog, ref: str) -> dict[str, Any]:
    version = catalog.version(ref, deleted=True)
    return {
        "manifest": version.digest, "layout": version.row.layout, "size": version.size, "author": version.author,
        "created": round(version.time * 1000), "stage": version.stage, "deleted": DELETED[version.deleted],
        "summary": dict(version.summary), "tags": version.tags, "metrics": version.metrics, "params": version.params,
        "taxonomy": version.taxonomy, "attachments": version.attachments,
    }  # fmt: skip


def _inlined(catalog: Catalog, digest: str) -> str | None:
    try:
        return catalog.repository.content.blob(digest, "golden").decode()
    except BlobMissing:
        return None
