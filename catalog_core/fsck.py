"""`fsck`: find damage, in bytes and in what they say.

It runs whatever is there: also where this machine never opened the catalog, where an entry cannot be read, or where the
newest one is torn.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core import state
from catalog_core.codec import read_artifact
from catalog_core.content import ComponentReader, Content
from catalog_core.digests import digest_of, digest_of_stream, parse
from catalog_core.errors import CatalogError, IntegrityError, InvalidInput
from catalog_core.events import read_entry
from catalog_core.index import Index
from catalog_core.layout import Chunk, read_layout
from catalog_core.page import Shown
from catalog_core.state import Deletion

if TYPE_CHECKING:
    from catalog_core.records import Manifest
    from catalog_core.repository import Repository
    from catalog_core.staging import Progress


@attrs.frozen
class Finding:
    """One damage: `what` (entry, version and file), and the message with the way out."""

    what: str
    message: str


@attrs.frozen
class Findings(Shown):
    """What `fsck` read and found."""

    entries: int
    versions: int
    blobs: int
    bytes: int
    problems: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def rows(self) -> list[dict[str, Any]]:
        """The problems as plain rows."""
        return [attrs.asdict(problem) for problem in self.problems]


def fsck(repository: Repository, progress: Progress | None = None) -> Findings:
    """Check the chain, every reference, every stored byte, and whether what was published can be loaded, whatever was
    trusted before."""
    problems: list[Finding] = []
    entries, readable = _entries(repository, problems)
    try:
        repository.refresh(force=True)
    except CatalogError as exc:
        if not problems:
            problems.append(Finding("index", str(exc)))
    index = repository.index
    if index.head is None or index.head.position < readable - 1:  # this machine never got so far
        index = _index_of(repository, readable)
    check = _Check(repository, index, problems)
    there = (one for one in Deletion if one is not Deletion.COLLECTED)
    versions = state.stored(index, *there)
    for number, stored in enumerate(versions):
        check.version(stored.ref, stored.manifest, stored.layout)
        if progress:
            progress(number + 1, len(versions))
    for name, digest in state.cards(index):
        check.alone(f"card of {name}", digest)
    for ref, name, digest in state.attachments(index):
        check.alone(f"{ref} attachment {name}", digest)
    check.overlong()
    if index is not repository.index:
        index.close()
    return Findings(entries, len(versions), len(check.places), check.bytes, tuple(problems))


def _entries(repository: Repository, problems: list[Finding]) -> tuple[int, int]:
    """Read all entries; how many there are, and how many can be read up to the first that cannot."""
    known = repository.index.head  # what this machine saw last: nothing chains the newest entry yet
    journal = repository.backend.journal
    entries = readable = 0
    previous: str | None = None
    try:
        epoch_of = getattr(journal, "epoch_of", lambda position: 0)
        for position, data in journal.read(0):
            entries += 1
            try:
                entry = read_entry(data, position, previous, repository.url, epoch_of(position))
                readable += readable == position
                for key in entry.wrong:
                    problems.append(
                        Finding(
                            f"journal entry {position}",
                            f"journal entry {position} of {repository.url} carries other bytes under {key}; readers "
                            "ignore them, and take the blob from the store",
                        )
                    )
                if known is not None and position == known.position and entry.digest != known.digest:
                    raise IntegrityError(
                        f"journal entry {position} of {repository.url} is {entry.digest}; this machine has seen "
                        f"{known.digest}"
                    )
            except CatalogError as exc:
                problems.append(Finding(f"journal entry {position}", str(exc)))
            previous = digest_of(data)
        if known is not None and entries <= known.position:
            raise IntegrityError(
                f"{repository.url} ends at entry {entries - 1}; this machine has seen {known.position}"
            )
    except CatalogError as exc:
        problems.append(Finding(f"journal entry {entries}", str(exc)))
    return entries, readable


def _index_of(repository: Repository, stop: int) -> Index:
    """What the first `stop` entries say, in memory."""
    index = Index(None, repository.url)
    if stop:
        with index:
            index.catch_up(repository.backend.journal, stop)
    return index


class _Check:
    """What was checked: `places` are the blobs and chunks, each with what is wrong with it, and `bytes` their size."""

    def __init__(self, repository: Repository, index: Index, problems: list[Finding]) -> None:
        self.repository = repository
        self.index = index
        self.problems = problems
        self.places: dict[str, str | None] = {}
        self.bytes = 0
        self._content = Content(repository.backend, index, "always")
        self._held: dict[str, str | None] = {}  # files and their chunks, and what is wrong with them together
        self._ends: dict[str, int] = {}  # where a file of the store ends, by what layouts say

    def version(self, ref: str, manifest: str, layout: str) -> None:
        """Manifest and layout, what they say, and the chunks."""
        told = self._blob(f"{ref} manifest", manifest)
        where = self._blob(f"{ref} layout", layout)
        chunks = []
        if where is not None:
            try:
                files = read_layout(where)
                chunks = [(file, chunk) for file, parts in files.items() for chunk in parts]
            except IntegrityError:
                pass  # told below, with the manifest
        if told is not None and where is not None:
            try:
                self._notes(ref, read_artifact(told, where)[0])
            except CatalogError as exc:
                self.problems.append(Finding(f"{ref} manifest", f"{ref} cannot be loaded by anybody: {exc}"))
        for file in {file for file, _ in chunks}:
            self._joined(f"{ref} file {file[:19]}", file, files[file])
        for file, chunk in chunks:
            name = chunk.pack or chunk.digest
            self._ends[name] = max(self._ends.get(name, 0), chunk.offset + chunk.length)
            place = f"{chunk.digest}@{chunk.pack}:{chunk.offset}"
            what = f"{ref} file {file[:19]}"
            if place not in self.places:
                self.places[place] = self._chunk(chunk, what)
            self._note(what, self.places[place])

    def _joined(self, what: str, file: str, chunks: Sequence[Chunk]) -> None:
        """Whether the chunks together are the file that the manifest names: a layout may lie."""
        place = f"{file} of {' '.join(chunk.digest for chunk in chunks)}"
        if len(chunks) > 1 and place not in self._held:
            size = sum(chunk.length for chunk in chunks)
            reader = ComponentReader(self._content, {}, {"file": (file, size)}, {file: tuple(chunks)}, what)
            found: str | None = None
            with suppress(CatalogError):  # it is told of the chunk
                found = reader.joined("file")
            lies = found not in (None, file)
            self._held[place] = f"{what}: its layout puts other bytes together: {found}, not {file}" if lies else None
        self._note(what, self._held.get(place))

    def alone(self, what: str, digest: str) -> None:
        """A card, or an attachment."""
        problem, data = self._read(what, digest)
        self.bytes += len(data)
        self._note(what, problem)

    def _note(self, what: str, problem: str | None) -> None:
        if problem is not None:
            self.problems.append(Finding(what, problem))

    def _read(self, what: str, digest: str) -> tuple[str | None, bytes]:
        try:
            return None, self._content.blob(digest, what)
        except CatalogError as exc:
            return str(exc), b""

    def _blob(self, what: str, digest: str) -> bytes | None:
        """A small blob, whole; None where it cannot be read. It counts once."""
        problem, data = self._read(what, digest)
        if digest not in self.places:
            self.bytes += len(data)
        self.places[digest] = problem
        self._note(what, problem)
        return None if problem is not None else data

    def _notes(self, ref: str, manifest: Manifest) -> None:
        """The list of distributions and the baseline can be read too."""
        for what, digest in (
            ("environment", manifest.environment.get("distributions")),
            ("baseline", manifest.baseline),
        ):
            if digest is None:
                continue
            problem, data = self._read(f"{ref} {what}", digest)
            if problem is None:
                try:
                    if not isinstance(parse(data), dict):
                        raise InvalidInput("it is no JSON object")
                except InvalidInput as exc:
                    self._note(f"{ref} {what}", f"the {what} of {ref} cannot be read by anybody: {exc}")

    def _chunk(self, chunk: Any, what: str) -> str | None:
        content, digest = self._content, chunk.digest
        try:
            if chunk.pack is None and chunk.length <= 1 << 16:
                data: bytes | memoryview = content.blob(digest, what)
            elif content.remote is not None:
                data = content.remote.chunk(chunk, what)
            else:
                data = content.stored(chunk.pack or digest, what, chunk.offset, chunk.length)
                if len(data) == chunk.length:
                    content.check(digest_of(data), digest, what)
            if len(data) != chunk.length:
                raise IntegrityError(f"{what}: {chunk.pack or digest} in {content.backend.name} is cut short")
        except CatalogError as exc:
            return str(exc)
        self.bytes += chunk.length
        return None

    def overlong(self) -> None:
        """Blobs that are files of their own must have exactly the size that their layouts imply."""
        backend = self.repository.backend
        for digest, end in self._ends.items():
            info = backend.blobs.stat(self.index.key(digest))
            if info is None or info.size <= end:
                continue
            with backend.blobs.open(info.key) as stream:
                actual = digest_of_stream(stream)
            if actual != digest:
                self._note(f"blob {info.key}", f"{info.key} in {backend.name} is {info.size - end:,} bytes too long")
