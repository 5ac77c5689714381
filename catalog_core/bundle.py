"""Bundles: versions of a model and their history in one file, for sites that no network joins.

A bundle is a tar of which every byte follows from its first member, `index/<hex>` (`docs/format.md`): behind it
stand the blobs, each under its digest, in the order in which it names them. A reader computes where all is, and
compares: there is no path to be climbed, nothing to be unpacked, nothing twice, nothing that is not checked.
"""

from __future__ import annotations

import mmap
import os
import secrets
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core import durable, show, state, transfer
from catalog_core.artifact import stored
from catalog_core.codec import check_door, manifest_of
from catalog_core.digests import canonical, check_count, check_digest, digest_of, digest_of_parts, parse
from catalog_core.errors import CatalogError, IntegrityError, InvalidInput, NotFound, UpgradeRequired
from catalog_core.events import Intent, event, relies_on, write_entry
from catalog_core.index import Index
from catalog_core.layout import Chunk, Layout, read_layout, write_layout
from catalog_core.names import check_name
from catalog_core.page import Shown
from catalog_core.parallel import in_order
from catalog_core.reducer import BROKEN

if TYPE_CHECKING:
    from catalog_core.repository import Published, Repository
    from catalog_core.staging import Progress, Writer
    from catalog_core.state import VersionRow

KIND, FORMAT = "catalog-bundle", 1
SUFFIX, BEGIN = ".catalog", b"index/"
MAX_INDEX = 32 << 20  # bytes
MAX_REPEATS = 1000  # all files are at most so many times larger than the blobs that they are made of
THREADS = 2
BLOCK = 512  # of a tar
END = bytes(2 * BLOCK)


@attrs.frozen
class Exported(Shown):
    """What was written: `blobs` counts them, `size` is in bytes, `digest` is that of the file."""

    path: Path
    versions: tuple[str, ...]
    blobs: int
    size: int
    digest: str


def _member(folder: str, digest: str, size: int) -> bytes:
    """The head of a member: the same at any time and on any system."""
    info = tarfile.TarInfo(f"{folder}/{digest[7:]}")
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.USTAR_FORMAT)


def _named(index: Mapping[str, Any]) -> dict[str, int]:
    """The blobs that an index names, in their order: digest → bytes."""
    found: dict[str, int] = {}
    named = [index["model"]["card"]] if index["model"]["card"] else []
    for item in index["versions"]:
        named += [item["manifest"], *item["attachments"].values()]
        named += [chunk for chunks in item["layout"]["files"].values() for chunk in chunks]
    for digest, length in named:
        if found.setdefault(check_digest(digest), check_count(length, f"the size of {digest}")) != length:
            raise IntegrityError(f"{digest} has two sizes")
    return found


# -- out ---------------------------------------------------------------------------------------------------------------


def export(repository: Repository, versions: Sequence[VersionRow], path: Path) -> Exported:
    """Write `versions` of one model to the new file `path`: whole and synced, or not at all. Every blob is checked
    against its digest. The bytes depend on the versions and what was said of them, not on when or where this runs.
    Raises `InvalidInput` for a file that exists, `IntegrityError`, `NoSpace`."""
    if path.exists():
        raise InvalidInput(f"{path} exists already", hint="remove it, or give another name")
    places: dict[str, Chunk] = {}
    data = canonical(_index_of(repository, versions, places))
    blobs = _named(parse(data))
    if len(data) > MAX_INDEX or max(blobs.values()) >= 8 << 30:
        raise InvalidInput(f"{versions[0].name} is too large for one bundle", hint="export fewer versions at a time")

    def members() -> Iterator[Any]:
        yield from (_member("index", digest_of(data), len(data)), data, bytes(-len(data) % BLOCK))
        total, done = sum(blobs.values()), 0
        for digest, length in blobs.items():
            blob = transfer.view(repository.content, places[digest], f"a blob of {versions[0].name}")
            if digest_of(blob) != digest:  # what was checked before may be trusted by now, or nothing is
                raise IntegrityError(f"blob {digest} holds other bytes", hint="catalog fsck")
            yield from (_member("blobs", digest, length), blob, bytes(-length % BLOCK))
            done += length
            if repository.progress:
                repository.progress(done, total)
        yield END

    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    hashed, size = sha256(), 0
    try:
        with durable.translated(str(path)):
            with part.open("xb", buffering=0) as file:
                for piece in members():
                    durable.write_all(file, piece)
                    hashed.update(piece)
                    size += len(piece)
                os.fsync(file.fileno())
            os.rename(part, path)  # no link: the file system of a memory stick may know none
            durable.sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)
    return Exported(path, tuple(version.ref for version in versions), len(blobs), size, "sha256:" + hashed.hexdigest())


def _index_of(repository: Repository, versions: Sequence[VersionRow], places: dict[str, Chunk]) -> dict[str, Any]:
    """What the index says; `places` takes where each blob is."""

    def place(digest: str, length: int) -> tuple[str, int]:
        places.setdefault(digest, Chunk(digest, length))
        return digest, length

    events = [e for e in show.events(repository.index, versions[0].name, -1) if e.rejected is None]  # -1: all
    listed = []
    for version in versions:
        artifact = stored(repository.content, repository.registry, version)
        artifact.hold()
        layout = artifact.layout
        manifest = repository.content.blob(version.digest, f"manifest of {version.ref}")
        places |= {chunk.digest: chunk for chunks in layout.values() for chunk in chunks}
        plain = {digest: tuple(Chunk(c.digest, c.length) for c in chunks) for digest, chunks in layout.items()}
        listed.append(
            {
                "number": version.number, "manifest": place(version.digest, len(manifest)),
                "layout": write_layout(plain), "about": transfer.about(repository, version),
                "aliases": sorted(alias for alias, number in version.aliases.items() if number == version.number),
                "attachments": {name: place(*held) for name, held in version.attachments.items()},
                "history": [
                    {"position": e.position, "time": e.time.isoformat(), "actor": e.actor, "event": e.data}
                    for e in events if e.number in (None, version.number)
                ],
            }
        )  # fmt: skip
    model = state.model_named(repository.index, versions[0].name)
    assert model is not None
    card = None
    if model.card is not None:
        card = place(model.card, len(repository.content.blob(model.card, f"card of {model.name}")))
    about = {key: getattr(model, key) for key in ("name", "title", "description", "owner")} | {"card": card}
    return {"kind": KIND, "format": FORMAT, "catalog": repository.id, "model": about, "versions": listed}


# -- in ----------------------------------------------------------------------------------------------------------------


def import_(repository: Repository, path: Path, name: str | None = None) -> Iterator[tuple[str, Published]]:
    """Publish the versions of the bundle at `path`, one a step, as the next versions of `name`, else of the model that
    they were of; see `Catalog.import_`. All bytes and all rules are checked before the first one is published."""
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    with durable.translated(str(path), reading=True), path.open("rb") as file, _broken(path):
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        index, blobs = _opened(data)
        name = name or check_name(index["model"]["name"])
        layouts = [read_layout(canonical(item["layout"])) for item in index["versions"]]
        _check(layouts, blobs, repository.progress)
        arrivals = [_arrival(path, index, *each, blobs) for each in zip(index["versions"], layouts, strict=True)]
        if not arrivals:
            raise IntegrityError("it has no versions")
        _rehearse(arrivals, name, repository.actor)
    arrived: set[int] = set()
    for arrival in arrivals:
        published = transfer.arrive(arrival, repository, name, arrived)
        arrived.add(published.number)
        yield name, published


def resembles(path: Path) -> bool:
    """Whether a file may be meant as a bundle: by its name, or by how it begins."""
    return path.suffix == SUFFIX or not path.is_file() or begins_so(path)


def begins_so(path: Path) -> bool:
    """Whether this is a file that begins as a bundle does."""
    if not path.is_file():
        return False
    with durable.translated(str(path), reading=True), path.open("rb") as file:
        return file.read(len(BEGIN)) == BEGIN


@contextmanager
def _broken(path: Path) -> Iterator[None]:
    """Whatever is wrong with a bundle is one error."""
    try:
        yield
    except UpgradeRequired:
        raise
    except (CatalogError, *BROKEN) as exc:
        why = exc.message if isinstance(exc, CatalogError) else repr(exc)
        raise IntegrityError(f"{path} is no whole bundle: {why[:300]}", hint="copy or export it again") from exc


def _opened(data: memoryview) -> tuple[dict[str, Any], dict[str, memoryview]]:
    """The index and the blobs of a bundle; their bytes are not checked yet."""
    if data[: len(BEGIN)] != BEGIN:
        raise IntegrityError("it does not begin with its index")
    size = int(bytes(data[124:135]), 8)
    text = bytes(data[BLOCK : BLOCK + min(size, MAX_INDEX)])
    if len(text) != size or data[:BLOCK] != _member("index", digest_of(text), size):
        raise IntegrityError("it does not begin with its index")
    index = parse(text)
    if index["kind"] != KIND:
        raise IntegrityError(f"its kind is {index['kind']!r}")
    if index["format"] != FORMAT:
        raise UpgradeRequired(
            f"the bundle has format {index['format']!r}, this release reads {FORMAT}",
            hint="upgrade: pip install -U catalog-core",
        )
    blobs: dict[str, memoryview] = {}
    at = BLOCK + size
    for digest, length in _named(index).items():
        head = bytes(-at % BLOCK) + _member("blobs", digest, length)
        begin = at + len(head)
        if data[at:begin] != head:
            raise IntegrityError(f"{digest} is not where it should be")
        blobs[digest], at = data[begin : begin + length], begin + length
    if data[at:] != bytes(-at % BLOCK) + END:
        raise IntegrityError("it does not end where it should")
    return index, blobs


def _check(layouts: Sequence[Layout], blobs: Mapping[str, memoryview], progress: Progress | None) -> None:
    """Hold every blob and every file against its digest."""
    files = {(digest, tuple(c.digest for c in chunks)) for layout in layouts for digest, chunks in layout.items()}
    whole: list[tuple[str, tuple[str, ...]]] = [(digest, (digest,)) for digest in blobs]
    whole += [(digest, chunks) for digest, chunks in sorted(files) if chunks != (digest,)]
    total, done = sum(len(blobs[chunk]) for _, chunks in whole for chunk in chunks), 0
    if total > MAX_REPEATS * sum(map(len, blobs.values())):
        raise IntegrityError(f"its files have {total:,} bytes, more than {MAX_REPEATS} times those that are here")
    actual = in_order(lambda item: digest_of_parts(blobs[chunk] for chunk in item[1]), whole, THREADS, THREADS)
    with closing(actual):  # no thread reads on when this has raised: the file may change then
        for (digest, chunks), found in zip(whole, actual, strict=True):
            if digest != found:
                raise IntegrityError(f"{digest} holds other bytes ({found})")
            done += sum(len(blobs[chunk]) for chunk in chunks)
            if progress:
                progress(done, total)


def _arrival(
    path: Path, index: Mapping[str, Any], item: Mapping[str, Any], layout: Layout, blobs: Mapping[str, memoryview]
) -> transfer.Arrival:
    digest, _ = item["manifest"]
    manifest = bytes(blobs[digest])
    described = manifest_of(manifest)
    check_door(described, everywhere=False)
    files = [file for component in described.components for file in component.files]
    for file in files:
        if file.size != sum(chunk.length for chunk in layout[file.digest]):
            raise IntegrityError(f"the layout does not have {file.size:,} bytes of {file.name}")
    about, history = index["model"], canonical({"catalog": index["catalog"], "events": item["history"]})
    attached = {name: (digest, blobs[digest]) for name, (digest, _) in item["attachments"].items()}
    attached[f"history-{index['catalog'][:8]}.json"] = digest_of(history), memoryview(history)
    return transfer.Arrival(
        f"{path.name}:{about['name']}@{item['number']}", digest, manifest, sum(file.size for file in files),
        partial(_files, layout, blobs), item["about"], attached, item["aliases"],
        {key: about[key] for key in ("title", "description", "owner")},
        about["card"] and (about["card"][0], blobs[about["card"][0]]),
    )  # fmt: skip


def _files(layout: Layout, blobs: Mapping[str, memoryview], writer: Writer) -> transfer.Files:
    for digest, chunks in layout.items():
        yield digest, [blobs[c.digest] for c in chunks], list(accumulate(c.length for c in chunks))[:-1]


def _rehearse(arrivals: Sequence[transfer.Arrival], name: str, actor: str) -> None:
    """Publish everything in an empty index in memory: what a rule refuses is found before anything is stored."""
    trial = Index(None)
    with trial:
        for position, arrival in enumerate(arrivals):
            same, digest = {"model": name, "number": position + 1}, arrival.digest
            fields = {"manifest": digest, "layout": digest, "size": arrival.size, **relies_on([], None)}
            events = (
                event("version.published", **same, **fields, **arrival.about),
                *transfer.followers(arrival, trial, same, None),
            )
            entry = write_entry(trial.head, 0, [Intent(str(position), actor, 0, None, events)])
            trial.apply(position, entry, strict=True)
