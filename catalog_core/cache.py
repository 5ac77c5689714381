"""The cache of remote blobs: files named by the SHA-256 of what they hold, shared by all catalogs of a user.

`blobs/<2 hex>/<hex>` are the files, `tmp/` what is being fetched, `pins/<hex>` lists of what is kept for offline use.
Nothing in it is trusted: whoever maps a file checks it first, and a damaged one is dropped and fetched again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import attrs

from catalog_core import durable, forks, redact
from catalog_core.digests import digest_of, digest_of_stream
from catalog_core.errors import ConfigError, NoSpace

LIMIT = 20 << 30
AGAIN = 30.0  # seconds for which nothing is looked for that could make room, where nothing could
FULL = "free space on that disk, `catalog cache trim --to 0`, or set CATALOG_CACHE_DIR to a folder on another one"
DAY = 86400.0
UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}


def parse_size(text: str, what: str) -> int:
    """Bytes of `500000`, `20 GB` or `1.5T` (decimal units). Raises `ConfigError` that names `what`."""
    number = text.strip().lower().removesuffix("b").rstrip()
    unit = number[-1:] if number[-1:] in "kmgt" else ""
    try:
        value = float(number.removesuffix(unit)) * UNITS[unit]
        if not 0 <= value < 1 << 62:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{what} is {text!r}", hint="a size, like 20GB") from None
    return int(value)


@attrs.frozen
class Pin:
    """What is kept: `ref` of the catalog at `url`, and the digests that it needs."""

    ref: str
    url: str
    digests: frozenset[str]


@attrs.frozen
class Usage:
    """How full the cache is: files, bytes, the limit, and how much of it is pinned."""

    place: str
    files: int
    bytes: int
    limit: int
    pinned_bytes: int
    pins: tuple[str, ...]


class Cache:
    """See the module. Safe for many threads and processes; `limit` is in bytes ($CATALOG_CACHE_SIZE, else 20 GiB)."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = folder
        given = os.environ.get("CATALOG_CACHE_SIZE")
        self.limit = limit if limit is not None else parse_size(given, "CATALOG_CACHE_SIZE") if given else LIMIT
        self._added = 0
        self._refused = -1e9
        self._making = forks.Lock()  # several chunks come at a time

    def _file(self, digest: str) -> Path:
        name = digest.partition(":")[2]
        return self.folder / "blobs" / name[:2] / name

    def staging(self) -> Path:
        """An existing folder for what is being written."""
        folder = self.folder / "tmp"
        with durable.translated(str(folder), full=FULL):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def make_room(self, size: int) -> bool:
        """Remove what was not used for longest, about `size` bytes; whether something went. Nothing goes where all of
        it would not be enough. Pinned files stay."""
        with self._making:
            if time.monotonic() - self._refused < AGAIN:
                return False
            usage = self.usage()
            loose = usage.bytes - usage.pinned_bytes
            if shutil.disk_usage(self.staging()).free + loose >= size and self.trim(max(usage.bytes - size, 0))[0]:
                return True
            self._refused = time.monotonic()
            return False

    def path(self, digest: str) -> Path | None:
        """The file that holds `digest`, not checked; None where it is not here. Its time is that of its last use, to
        the day."""
        path = self._file(digest)
        try:
            if time.time() - path.stat().st_mtime > DAY:
                os.utime(path)
        except OSError:
            return None
        return path

    def add(self, digest: str, write: Callable[[BinaryIO], None], size: int = 0) -> None:
        """Keep what `write` writes into a new file; it has checked that these are the bytes of `digest`. Where it is
        known, `size` is set aside first, so that a full disk (`NoSpace`) is noticed before anything is fetched."""
        final = self._file(digest)
        path, file = durable.stage(self.staging())
        try:
            with durable.translated(str(path), full=FULL), file:
                if size and hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                write(file)
                os.fchmod(file.fileno(), 0o444)
                size = file.tell()
            with durable.translated(str(final), full=FULL):
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, final)
        finally:
            path.unlink(missing_ok=True)
        self._added += size
        if self._added > self.limit // 50:  # counting all files takes a while
            self._added = 0
            self.trim()

    def add_bytes(self, digest: str, data: bytes) -> None:
        """Keep a small blob, if there is room."""
        try:
            self.add(digest, lambda file: durable.write_all(file, data))
        except NoSpace:
            return

    def settle(self, path: Path) -> None:
        """Make a file durable: what is trusted from now on must outlive a power cut. A fetch does not wait."""
        with durable.translated(str(path), reading=True), path.open("rb") as file:
            os.fsync(file.fileno())

    def drop(self, digest: str) -> None:
        """Forget a file."""
        self._file(digest).unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[str, Path, os.stat_result]]:
        for path in (self.folder / "blobs").glob("??/*"):
            try:
                yield "sha256:" + path.name, path, path.stat()
            except FileNotFoundError:
                continue

    # -- pins ---------------------------------------------------------------------------------------------------

    def _pin_file(self, ref: str, url: str) -> Path:
        return self.folder / "pins" / digest_of(f"{url} {ref}".encode())[7:39]

    def pin(self, pin: Pin) -> None:
        """Keep the digests, whatever else goes."""
        path = self._pin_file(pin.ref, pin.url)
        data = json.dumps({"ref": pin.ref, "url": pin.url, "digests": sorted(pin.digests)}).encode()
        with durable.translated(str(path), full=FULL):
            path.parent.mkdir(parents=True, exist_ok=True)
            staged = self.staging() / (path.name + f".{os.getpid()}")
            staged.write_bytes(data)
            os.replace(staged, path)

    def unpin(self, ref: str, url: str) -> bool:
        """Let what was pinned go like the rest; whether it was pinned."""
        try:
            self._pin_file(ref, url).unlink()
        except FileNotFoundError:
            return False
        return True

    def pins(self) -> list[Pin]:
        """What is pinned."""
        found = []
        for path in sorted((self.folder / "pins").glob("*")):
            try:
                value = json.loads(path.read_bytes())
                found.append(Pin(value["ref"], value["url"], frozenset(value["digests"])))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # being written, or damaged: then it pins nothing
        return found

    # -- care ---------------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """Count it."""
        pins = self.pins()
        pinned = frozenset().union(*[pin.digests for pin in pins])
        sizes = [(digest in pinned, info.st_size) for digest, _, info in self._files()]
        return Usage(
            str(self.folder),
            len(sizes),
            sum(size for _, size in sizes),
            self.limit,
            sum(size for kept, size in sizes if kept),
            tuple(f"{pin.ref} of {redact.text(pin.url)}" for pin in pins),
        )

    def trim(self, limit: int | None = None) -> tuple[int, int]:
        """Remove what was not used for longest, until at most `limit` bytes are left (the cache's own by default), and
        what killed fetches left. Pinned files stay. Returns how many files and bytes went."""
        limit = self.limit if limit is None else limit
        pinned = frozenset().union(*[pin.digests for pin in self.pins()])
        files = sorted(self._files(), key=lambda item: item[2].st_mtime)
        total = sum(info.st_size for _, _, info in files)
        count = size = 0
        for digest, path, info in files:
            if total <= limit:
                break
            if digest not in pinned:
                path.unlink(missing_ok=True)
                total -= info.st_size
                size += info.st_size
                count += 1
        if (self.folder / "tmp").is_dir():
            durable.sweep(self.folder / "tmp", DAY)
        return count, size

    def verify(self, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Read every file; drop and return the digests of the damaged ones."""
        bad: list[str] = []
        files = list(self._files())
        done, total = 0, sum(info.st_size for _, _, info in files)
        for digest, path, info in files:
            try:
                with path.open("rb") as file:
                    if digest_of_stream(file) != digest:
                        bad.append(digest)
            except FileNotFoundError:
                continue
            done += info.st_size
            if progress:
                progress(done, total)
        for digest in bad:
            self.drop(digest)
        return bad

    def holds(self, digests: Iterable[str]) -> set[str]:
        """Those of `digests` that are here."""
        return {digest for digest in digests if self._file(digest).exists()}
