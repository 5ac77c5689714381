"""Bundles come in: a hostile one gives one clear error, and nothing of it is published. `bundle` says what one is."""

from __future__ import annotations

import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_core import durable, transfer
from catalog_core.bundle import FORMAT, INDEX, KIND, MAX_BLOBS, MAX_LISTING, MAX_TEXT
from catalog_core.codec import manifest_of
from catalog_core.digests import check_digest, digest_of, digest_of_parts, parse
from catalog_core.errors import CatalogError, IntegrityError, InvalidInput, NotFound, UpgradeRequired
from catalog_core.events import Entry, Intent, event, relies_on, write_entry
from catalog_core.index import Index
from catalog_core.layout import Layout, read_layout
from catalog_core.names import check_name
from catalog_core.reducer import BROKEN

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.handles import Version

MAX_REPEATS = 1000  # a file is at most so many times larger than the different chunks that it is made of
THREADS = 2
_BLOB = re.compile(r"blobs/[0-9a-f]{64}\Z")


def import_(catalog: Catalog, path: Path, name: str | None = None) -> list[Version]:
    """Publish the versions of the bundle at `path` as the next versions of `name`, else of the model that they were of;
    see `Catalog.import_`. All bytes and all rules are checked before the first one is published."""
    bundle = Bundle(path)
    arrivals = bundle.arrivals()
    bundle.check(catalog._progress)
    _rehearse(arrivals, name or bundle.model, catalog.actor)
    return [transfer.arrive(arrival, catalog, name or bundle.model) for arrival in arrivals]


class Bundle:
    """An open bundle: its blobs are views of the mapped file. `index` is what `bundle.json` says, not checked yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise NotFound(f"there is no file {path}")
        try:
            with durable.translated(str(path)), path.open("rb") as file:
                self._view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                self._check_end()
                with zipfile.ZipFile(file) as archive:
                    self._spans = dict(self._places(archive.infolist()))
                    self._crc = archive.getinfo(INDEX).CRC
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError, LookupError) as exc:
            raise self._broken(str(exc)) from exc
        data = bytes(self._span(INDEX)[: MAX_TEXT + 1])
        if len(data) > MAX_TEXT or zlib.crc32(data) != self._crc:
            raise self._broken(f"{INDEX} is damaged, or too long")
        try:
            self.index = parse(data)
            if self.index["kind"] != KIND:
                raise self._broken(f"its kind is {self.index['kind']!r}")
            if self.index["format"] != FORMAT:
                raise UpgradeRequired(
                    f"{path} is a bundle of format {self.index['format']!r}, this release reads {FORMAT}",
                    hint="upgrade: pip install -U catalog-core",
                )
            self.model = check_name(self.index["model"]["name"])
        except (InvalidInput, KeyError, TypeError) as exc:
            raise self._broken(f"{INDEX}: {exc}") from exc

    def _broken(self, why: str) -> IntegrityError:
        return IntegrityError(f"{self.path} is no whole bundle: {why[:300]}", hint="copy or export it again")

    def _check_end(self) -> None:
        """The zip must end where the file does, with a directory that is not too large to be read."""
        end = self._view[-22:]
        if len(end) < 22 or bytes(end[:4]) != b"PK\5\6" or bytes(end[20:]) != b"\0\0":
            raise self._broken("it does not end as a zip does")
        count, listing = struct.unpack("<HI", end[10:16])
        if listing == 0xFFFFFFFF or count == 0xFFFF:  # zip64: its own record, and where that is
            count, listing = struct.unpack("<QQ", self._view[-98:][32:48])
        if count > MAX_BLOBS + 1 or listing > MAX_LISTING:
            raise self._broken(f"it lists {count:,} members in {listing:,} bytes")

    def _places(self, members: Iterable[zipfile.ZipInfo]) -> Iterator[tuple[str, tuple[int, int]]]:
        """Where the bytes of each member are."""
        seen, total = set[str](), 0
        for info in members:
            name, at = info.filename, info.header_offset
            total += info.file_size
            if name in seen:
                raise self._broken(f"member {name} stands twice")
            if not _BLOB.match(name) and (name, at) != (INDEX, 0):
                raise self._broken(f"member {name[:100]!r} does not belong there")
            if info.compress_type or info.compress_size != info.file_size or info.flag_bits & 1:
                raise self._broken(f"member {name} is compressed or encrypted")
            head = self._view[at : at + 30]
            name_size, extra_size = struct.unpack("<HH", head[26:30])
            begin = at + 30 + name_size + extra_size
            if bytes(self._view[at + 30 : at + 30 + name_size]) != name.encode() or total > len(self._view):
                raise self._broken(f"member {name} is not where the directory says")
            seen.add(name)
            yield name, (begin, info.file_size)

    def _span(self, name: str) -> memoryview:
        begin, size = self._spans.get(name, (0, -1))
        if size < 0 or begin + size > len(self._view):
            raise self._broken(f"{name} is missing")
        return self._view[begin : begin + size]

    def blob(self, digest: str, length: int | None = None) -> memoryview:
        """The bytes of a blob, not checked. Raises `IntegrityError` where it is missing or has another length."""
        view = self._span(f"blobs/{check_digest(digest)[7:]}")
        if length is not None and len(view) != length:
            raise self._broken(f"{digest} has {len(view):,} bytes, not {length:,}")
        return view

    def text(self, digest: str) -> bytes:
        """A blob that is read whole, checked."""
        view = self.blob(digest)
        if len(view) > MAX_TEXT:
            raise self._broken(f"{digest} has {len(view):,} bytes; {MAX_TEXT:,} are allowed")
        if digest_of_parts([view]) != digest:
            raise self._broken(f"{digest} holds other bytes")
        return bytes(view)

    def check(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Hold every blob against its digest. Raises `IntegrityError`, which names the first that is wrong."""
        names = [name for name in self._spans if name != INDEX]
        total, done = sum(self._spans[name][1] for name in names), 0
        with ThreadPoolExecutor(THREADS) as pool:
            for name, found in zip(
                names, pool.map(lambda name: digest_of_parts([self._span(name)]), names), strict=True
            ):
                if found[7:] != name[6:]:
                    pool.shutdown(cancel_futures=True)
                    raise self._broken(f"{name} holds other bytes ({found})")
                done += self._spans[name][1]
                if progress:
                    progress(done, total)

    def arrivals(self) -> list[transfer.Arrival]:
        """The versions, as they are to be published. Raises `IntegrityError` where what is said of them is wrong."""
        try:
            about = self.index["model"]
            model = {key: about[key] for key in ("title", "description", "owner")}
            model["card"] = None if about["card"] is None else self.text(about["card"])
            found = [self._arrival(item, model) for item in self.index["versions"]]
        except (CatalogError, KeyError, TypeError, AttributeError, ValueError) as exc:
            if str(self.path) in str(exc):
                raise
            raise self._broken(str(exc) if isinstance(exc, CatalogError) else f"{INDEX}: {exc!r}") from exc
        if not found:
            raise self._broken("it has no versions")
        return found

    def _arrival(self, item: Mapping[str, Any], model: Mapping[str, Any]) -> transfer.Arrival:
        data, layout = self.text(item["digest"]), read_layout(self.text(item["layout"]))
        manifest = manifest_of(data)
        for digest, chunks in layout.items():
            sizes = {chunk.digest: len(self.blob(chunk.digest, chunk.length)) for chunk in chunks}
            if sum(chunk.length for chunk in chunks) > MAX_REPEATS * sum(sizes.values()):
                raise self._broken(f"file {digest} repeats its chunks more than {MAX_REPEATS} times")
        files = [file for component in manifest.components for file in component.files]
        for file in files:
            if file.digest not in layout or sum(chunk.length for chunk in layout[file.digest]) != file.size:
                raise self._broken(f"the layout of version {item['number']} does not say where {file.name} is")
        history = f"history-{self.index['catalog'][:8]}.json"
        return transfer.Arrival(
            f"{self.path.name}:{self.model}@{item['number']}", item["digest"], data, sum(file.size for file in files),
            partial(self._files, layout), item["about"],
            {**{name: self.blob(digest) for name, digest in item["attachments"].items()},
             history: memoryview(self.text(item["history"]))},
            item["aliases"], model,
        )  # fmt: skip

    def _files(self, layout: Layout) -> Iterator[tuple[str, Sequence[Any], Sequence[int]]]:
        for digest, chunks in layout.items():
            yield digest, [self.blob(c.digest) for c in chunks], list(accumulate(c.length for c in chunks))[:-1]


def _rehearse(arrivals: Sequence[transfer.Arrival], name: str, actor: str) -> None:
    """Publish everything in an empty index in memory: what a rule refuses is found before anything is stored."""
    trial = Index(None)
    with trial:
        for number, arrival in enumerate(arrivals, 1):
            same = {"model": name, "number": number}
            digests = {key: digest_of_parts([memoryview(data)]) for key, data in arrival.attachments.items()}
            card = digest_of(arrival.model["card"]) if arrival.model["card"] is not None else None
            try:
                about = {key: arrival.about[key] for key in (*transfer.ABOUT, "summary") if key in arrival.about}
                published = event(
                    "version.published", **same, manifest=arrival.digest, layout=arrival.digest, size=arrival.size,
                    **relies_on([arrival.digest], None), **about,
                )  # fmt: skip
                events = [published, *transfer.followers(arrival, trial, same, digests, card, None)]
                write_entry(None, 0, [Intent("", actor, 0, None, tuple(events))])
                for item in events:
                    trial._reducer.reduce(item, Entry(number, None, 0, (), {}, ""), actor)
            except BROKEN as exc:
                raise IntegrityError(f"{arrival.ref} breaks a rule of catalogs: {exc}") from exc
