"""An ObjectStore on EOS and on any XRootD server: blobs under names of their content, entries in folders of their own.

EOS has no exclusive create that a client could rely on, and its rename is not POSIX's: over a file it removes the old
one first, and a folder moves *into* an existing one; the check, the removal and the rename are not one transaction.
`mkdir` has one winner everywhere. So a key put `exclusive` is a folder that holds `entry`, and only who made the folder
`claims/<key>.<n>` may move one there. See "EOS" in docs/explanation/consistency.md.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from catalog_core.errors import (
    BackendError,
    BlobMissing,
    CatalogError,
    DeadlineExceeded,
    InvalidInput,
    KeyTaken,
    NoSpace,
)
from catalog_core.interfaces.store import BlobInfo, Mode
from catalog_eos.calls import Calls, Found, Interrupted, Patience, block
from catalog_eos.options import Options

TEMPORARY, CLAIMS, ENTRY = "tmp", "claims", "entry"
PROOF = "probes/exclusive"
LEASE = 12.0  # seconds after which a claim that led to nothing is passed over
RETRY = 8.0
THREADS = 8
_NAME = re.compile(r"[A-Za-z0-9._~-]+\Z")


class EosStore:
    """See `interfaces.store.ObjectStore`."""

    def __init__(self, calls: Calls, lease: float = LEASE) -> None:
        self.calls = calls
        self._lease = lease
        self._many: bool | None = None
        self._folders: set[str] = set()  # first names of keys that were found to be folders with an entry

    @property
    def many_writers(self) -> bool:
        """Whether the race for an exclusive key has passed on this very place (`catalog doctor` runs it)."""
        if self._many is None:
            try:
                stream = self.calls.open(
                    PROOF, 0, 1 << 16, once=True
                )  # opening must not wait for a server that is away
                self._many = stream is not None and json.load(stream).get("result") == "passed"
            except (CatalogError, ValueError, AttributeError):
                return False
        return self._many

    # -- the five verbs ---------------------------------------------------------------------------------------------

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        """See `ObjectStore.put`. What is put `exclusive` is held in memory."""
        _check(key)
        if mode == "exclusive":
            self._put_exclusive(key, block(stream, size))
            return
        path, adler = self._upload(stream, size)
        try:
            place = self._place(key)
            if place is not None and mode == "content" and self.calls.good(place, size, adler):
                self._forget(path)
                return
            if place is not None and place != key:
                raise BackendError(f"{self.calls.where}: {key} was put as an entry, and stays", backend="eos")
            if not self.calls.move(path, key) and not self.calls.good(key, size, adler):
                raise BackendError(
                    f"{self.calls.where}: what was uploaded for {key} is gone",
                    hint="was it collected meanwhile? save again",
                    backend="eos",
                )
        except BaseException:
            self._forget(path)
            raise

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `ObjectStore.get`."""
        _check(key)
        paths = [key, f"{key}/{ENTRY}"]
        if key.partition("/")[0] in self._folders:
            paths.reverse()
        for path in paths:
            stream = self.calls.open(path, start, length)
            if stream is not None:
                if path != key:
                    self._folders.add(key.partition("/")[0])
                return stream
        raise BlobMissing(f"{key} is not in {self.calls.where}", backend="eos")

    def stat(self, key: str) -> BlobInfo | None:
        """See `ObjectStore.stat`. Of an entry no checksum is asked for: its chain is its checksum."""
        _check(key)
        found = self.calls.stat(key)
        if found is None:
            return None
        if not found.folder:
            return BlobInfo(key, found.size, found.time, self.calls.checksums(key))
        found = self.calls.stat(f"{key}/{ENTRY}")
        return None if found is None or found.folder else BlobInfo(key, found.size, found.time)

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        """See `ObjectStore.list`. Without checksums, which would cost a request each."""
        folder = prefix.rpartition("/")[0]
        with ThreadPoolExecutor(THREADS) as pool:
            yield from self._walk(pool, folder, self.calls.entries(folder), prefix, after)

    def _walk(
        self, pool: ThreadPoolExecutor, folder: str, entries: Iterable[tuple[str, Found]], prefix: str, after: str
    ) -> Iterator[BlobInfo]:
        base = f"{folder}/" if folder else ""
        files = {base + name: found for name, found in entries if _NAME.match(name) and not found.folder}
        below = [base + name for name, found in entries if _NAME.match(name) and found.folder]
        if not folder:
            below = [key for key in below if key not in (TEMPORARY, CLAIMS)]
        # "0" is what follows "/": all that lies in a folder sorts before its name and that
        below = [key for key in below if f"{key}/".startswith(prefix[: len(key) + 1]) and f"{key}0" > after]
        order: list[tuple[str, BlobInfo | list[tuple[str, Found]]]] = [
            (key, BlobInfo(key, found.size, found.time)) for key, found in files.items()
        ]
        for key, inside in zip(below, pool.map(self.calls.entries, below), strict=True):
            entry = next((found for name, found in inside if name == ENTRY and not found.folder), None)
            if entry is not None:
                order.append((key, BlobInfo(key, entry.size, entry.time)))
            else:
                order.append((f"{key}/", inside))
        for key, item in sorted(order, key=lambda pair: pair[0]):
            if not isinstance(item, BlobInfo):
                yield from self._walk(pool, key[:-1], item, prefix, after)
            elif key.startswith(prefix) and key > after:
                yield item

    def delete(self, keys: Iterable[str]) -> None:
        """See `ObjectStore.delete`."""
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(self._delete, keys):
                pass

    def _delete(self, key: str) -> None:
        _check(key)
        if not self.calls.remove(key):
            self._remove_entry(key)

    def sweep_uploads(self, older_than: float) -> int:
        """Remove temporaries that are older than `older_than` seconds, and claims that nobody can hold any more;
        return how many."""
        count = 0
        now = time.time()
        for name, found in self.calls.entries(TEMPORARY):
            if found.time <= now - older_than:
                self._forget(f"{TEMPORARY}/{name}", found.folder)
                count += 1
        for name, found in self.calls.entries(CLAIMS):
            key = name.rpartition(".")[0].replace(",", "/")
            if found.time <= now - max(older_than, 10 * self._lease) or self._place(key):
                self.calls.remove_folder(f"{CLAIMS}/{name}")
                count += 1
        return count

    # -- publishing -------------------------------------------------------------------------------------------------

    def _place(self, key: str) -> str | None:
        """The file that holds `key`, if there is one."""
        found = self.calls.stat(key)
        if found is None or not found.folder:
            return None if found is None else key
        return f"{key}/{ENTRY}" if self.calls.stat(f"{key}/{ENTRY}") else None

    def _upload(self, stream: BinaryIO, size: int, *, claim: str = "", patience: float = RETRY) -> tuple[str, int]:
        """Write a new file, or for a `claim` a folder with an `entry`, and check it; again under another name where the
        connection breaks. Returns its name and its adler32."""
        start = stream.tell() if stream.seekable() else None
        left: Patience | None = None
        while True:
            path = f"{TEMPORARY}/{claim}~{secrets.token_hex(12)}"
            file = f"{path}/{ENTRY}" if claim else path
            try:
                adler = self.calls.upload(file, stream, size)
                if not self.calls.good(file, size, adler):
                    self._complain(file, size)
                return path, adler
            except BaseException as exc:
                self._forget(path, folder=bool(claim))
                left = left or Patience(patience)
                if not isinstance(exc, Interrupted) or start is None or not left.again():
                    raise
            stream.seek(start)

    def _complain(self, file: str, size: int) -> None:
        """Say what is wrong with an upload that the server took without complaint."""
        found = self.calls.stat(file)
        if found is not None and found.size < size:  # a server may write a part, and answer that all is well
            raise NoSpace(
                f"{self.calls.where}: the server kept {found.size} of {size} bytes: the disk is full, as it seems",
                hint="free space; nothing was published",
                backend="eos",
            )
        raise Interrupted(f"{self.calls.where}: {file} did not arrive whole", hint="try again", backend="eos")

    def _forget(self, path: str, folder: bool = False) -> None:
        """Remove a temporary, as far as that is possible: `sweep_uploads` takes what stays."""
        try:
            self._remove_entry(path, once=True) if folder else self.calls.remove(path, once=True)
        except CatalogError:
            pass

    def _remove_entry(self, folder: str, *, once: bool = False) -> None:
        self.calls.remove(f"{folder}/{ENTRY}", once=once)
        self.calls.remove_folder(folder, once=once)

    # -- exclusive --------------------------------------------------------------------------------------------------

    def _put_exclusive(self, key: str, data: bytes) -> None:
        """Win a claim, then publish; or wait until somebody else has, passing over a claim that stood for a lease."""
        now = time.monotonic()
        end, since, number, pause = now + 3 * self._lease, now, 1, 0.002
        won = sent = False
        seen: float | None = None  # when the claim that we wait for was made, by the server's clock
        while now < end:
            if self.calls.make(f"{CLAIMS}/{_claim(key, number)}"):
                won = True
                self._fence([_claim(key, n) for n in range(1, number)])
                if self._place(key) is None:
                    sent = self._publish(key, data, _claim(key, number), now) or sent
            place = self._place(key)
            if place is not None:
                if won:  # whoever takes one of these names now will see the key
                    for n in range(1, number + 1):
                        self.calls.remove_folder(f"{CLAIMS}/{_claim(key, n)}")
                if sent and self._read(place) == data:
                    return
                raise KeyTaken(f"{key} is taken", backend="eos")
            now = time.monotonic()
            if seen is None or now - since > self._lease:
                claim = self.calls.stat(f"{CLAIMS}/{_claim(key, number)}")
                if claim is not None and claim.time == seen:
                    number, seen = number + 1, None
                    continue
                seen, since = None if claim is None else claim.time, now  # a new one has all of its lease before it
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
            now = time.monotonic()
        raise DeadlineExceeded(
            f"{self.calls.where}: {key} is claimed by others, who do not finish", hint="try again", backend="eos"
        )

    def _fence(self, claims: Sequence[str]) -> None:
        """Take away what earlier claimants would publish: a rename of theirs that is still on its way finds nothing."""
        if not claims:
            return
        for name, _ in self.calls.entries(TEMPORARY):
            if name.rpartition("~")[0] in claims:
                away = f"{TEMPORARY}/~{secrets.token_hex(12)}"
                if self.calls.move(f"{TEMPORARY}/{name}", away):
                    self._forget(away, folder=True)

    def _read(self, path: str) -> bytes | None:
        stream = self.calls.open(path, 0, None)
        if stream is None:
            return None
        with stream:
            return stream.read()

    def _publish(self, key: str, data: bytes, claim: str, asked: float) -> bool:
        """Move an entry to `key`, with a claim that was asked for at `asked`; whether it may be there now.

        Nobody passes this claim over before `asked` + the lease; so no rename is begun in its second half, and until
        then a claim that led to nothing is given back.
        """
        half = asked + self._lease / 2
        folder = ""
        try:
            folder, _ = self._upload(io.BytesIO(data), len(data), claim=claim, patience=half - time.monotonic())
            if time.monotonic() > half:
                self._forget(folder, folder=True)
                return False
            try:
                moved = self.calls.move(folder, key, once=True)
            except Interrupted:
                return True  # nobody knows; what is on its way must stay whole
        except BaseException:
            if folder:
                self._forget(folder, folder=True)
            if self._place(key) is not None:
                return False  # where rename refuses what is there
            if time.monotonic() < half:
                self.calls.remove_folder(f"{CLAIMS}/{claim}")
            raise
        inside = f"{key}/{folder.rpartition('/')[2]}"
        if moved and self.calls.stat(inside) is not None:  # EOS puts the later folder into the earlier one
            self._forget(inside, folder=True)
            return False
        return moved


def _claim(key: str, number: int) -> str:
    return f"{key.replace('/', ',')}.{number}"


def _check(key: str) -> None:
    parts = key.split("/")
    if not all(_NAME.match(part) and part not in (".", "..", ENTRY) for part in parts) or parts[0] in (
        TEMPORARY,
        CLAIMS,
    ):
        raise InvalidInput(f"not a key: {key[:100]!r}")


def open_store(url: str, options: Mapping[str, Any], create: bool) -> EosStore:
    """The store of `root://host//path` or `roots://…`, or of a mounted `eos:///eos/…`. It connects when it is used, and
    makes its folder when it first puts something."""
    chosen = Options(**options)
    if url.startswith("eos://"):
        from catalog_eos.mounted import Mounted

        return EosStore(Mounted(url))
    from catalog_eos.remote import Remote

    return EosStore(Remote(url, chosen))
