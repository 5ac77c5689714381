"""The calls over XRootD's own client, which is imported here: this module is loaded when a root:// URL is opened."""

from __future__ import annotations

import atexit
import io
import os
import re
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, BinaryIO
from urllib.parse import quote

from XRootD import client
from XRootD.client import finalize
from XRootD.client.env import EnvPutInt
from XRootD.client.flags import DirListFlags, MkDirFlags, OpenFlags, QueryCode, StatInfoFlags

from catalog_core import forks
from catalog_core.errors import BackendError, CatalogError, ConfigError, InvalidInput
from catalog_core.quiet import quiet
from catalog_eos import status
from catalog_eos.calls import BLOCK, Found, Interrupted, Patience, block
from catalog_eos.gate import ENDED, GATE
from catalog_eos.options import Options

# The client's defaults wait 480 s for a dead server, and refuse for half an hour (StreamErrorWindow) to connect to one
# that was away once. What the user exported (XRD_…) wins over these.
SETTINGS = {
    "TimeoutResolution": 1, "RequestTimeout": 8, "ConnectionWindow": 2, "ConnectionRetry": 1, "StreamTimeout": 15,
    "StreamErrorWindow": 0,
}  # fmt: skip
PATIENCE = 8.0  # for how many seconds a call is made again that found no server
IN_FLIGHT = 4
WRITE, WRITES = 1 << 20, 8  # bytes of a written block, and blocks under way; blocks of 2 MiB take a fifth longer
THREADS = 16
SLOW = 10_000_000  # bytes per second that a server's disk reaches at least, when it syncs or sums
FILE_MODE, FOLDER_MODE = 0o644, 0o755
CLAIM_MODE = 0o777  # an existing folder of just the asked mode counts as made; the server's umask keeps this one apart
_settled = False


def settle() -> None:
    """Set the client's time limits; they count from its first connection on."""
    global _settled
    if not _settled:
        for name, value in SETTINGS.items():
            EnvPutInt(name, value)
        atexit.unregister(finalize.finalize)
        atexit.register(_end)
        _settled = True


def _end() -> None:
    """What the client does at the end of the process: it asks every object whether it is an open file. Those of other
    packages may answer with a warning of theirs."""
    with quiet():
        finalize.finalize()


def split(url: str) -> tuple[str, str]:
    """`root://host:port` and the absolute path of a URL. Raises `InvalidInput`."""
    match = re.fullmatch(r"(roots?://(?:[^/@?#]+@)?[^/@?#]+)(/.*)?", url)
    example = "root://eosuser.cern.ch//eos/user/j/jane/models"
    if not match:
        raise InvalidInput(f"not a URL of XRootD: {status.redacted(url)!r}", hint=f"like {example}")
    server, path = match[1], match[2] or ""
    if "?" in path or "#" in path:
        raise InvalidInput(
            f"{status.redacted(url)!r} carries more than a path", hint="name the file of a token in `token_file`"
        )
    if not path.startswith("//") or not path.strip("/"):
        raise InvalidInput(f"{status.redacted(url)!r} has no absolute path", hint=f"two slashes, as in {example}")
    return server, "/" + path.strip("/")


class Remote:
    """See `calls.Calls`."""

    def __init__(self, url: str, options: Options) -> None:
        settle()
        self.where = url
        self.server, self.path = split(url)
        self._timeout = options.timeout
        self.patient = 3 * options.timeout  # for blocks, of which several share the line
        self._token = _Token(options.token_file) if options.token_file else None
        self._system = client.FileSystem(self.server)
        self._tells_adler = False  # whether the server has shown that its checksums here are adler32

    # -- asking -----------------------------------------------------------------------------------------------------

    def _path(self, path: str, *hints: str) -> str:
        opaque = [*hints, *([f"authz={self._token.read()}"] if self._token else [])]
        return f"{self.path}/{path}".rstrip("/") + ("?" + "&".join(opaque) if opaque else "")

    def _url(self, path: str, *hints: str) -> str:
        return f"{self.server}/{self._path(path, *hints)}"

    def failure(self, answer: Any, what: str, *, writing: bool = False) -> CatalogError:
        """The error of a failed answer."""
        return status.failure(answer, what, self.where, writing=writing)

    def ask(
        self,
        what: str,
        call: Callable[[], tuple[Any, Any]],
        *accept: int,
        writing: bool = False,
        patience: float = PATIENCE,
    ) -> tuple[int, Any]:
        """Make a call that may be repeated: 0 and its answer, or one of the numbers to `accept`."""
        left = Patience(patience)
        while True:
            with GATE:
                answer, value = call()
            found = status.number(answer)
            if found == 0 or found in accept:
                return found, value
            error = self.failure(answer, what, writing=writing)
            if not isinstance(error, Interrupted) or not left.again():
                raise error

    def query(self, code: int, argument: str, *, patience: float = PATIENCE) -> str:
        """What the server says of itself or of a path; empty where it does not know."""
        _, value = self.ask(
            "ask the server",
            lambda: self._system.query(code, argument, timeout=self._timeout),
            *status.NO_CHECKSUM, 3000, 3006, status.MISSING,
            patience=patience,
        )  # fmt: skip
        return (value or b"").rstrip(b"\0\n").decode("utf-8", "replace")

    # -- names ------------------------------------------------------------------------------------------------------

    def stat(self, path: str, *, patience: float = PATIENCE) -> Found | None:
        """See `Calls.stat`."""
        found, info = self.ask(
            f"look at {path}", lambda: self._system.stat(self._path(path), timeout=self._timeout), status.MISSING,
            patience=patience,
        )  # fmt: skip
        return None if found else _found(info)

    def entries(self, path: str) -> list[tuple[str, Found]]:
        """See `Calls.entries`."""
        found, listing = self.ask(
            f"list {path or self.where}",
            lambda: self._system.dirlist(self._path(path), DirListFlags.STAT, timeout=self.patient),
            status.MISSING,
        )
        if found:
            return []
        result = []
        for item in listing:
            info = _found(item.statinfo) if item.statinfo else self.stat(f"{path}/{item.name}".lstrip("/"))
            if info is not None:  # else it went meanwhile
                result.append((item.name, info))
        return result

    def _make_all(self, path: str) -> None:
        self.ask(
            f"make {path or self.where}",
            lambda: self._system.mkdir(self._path(path), MkDirFlags.MAKEPATH, FOLDER_MODE, timeout=self._timeout),
            status.EXISTS, status.EXISTS_OLD,
            writing=True,
        )  # fmt: skip

    def make(self, path: str) -> bool:
        """See `Calls.make`."""
        for _ in range(2):
            found, _answer = self.ask(
                f"make {path}",
                lambda: self._system.mkdir(self._path(path), MkDirFlags.NONE, CLAIM_MODE, timeout=self._timeout),
                status.EXISTS, status.EXISTS_OLD, status.MISSING,
                writing=True,
            )  # fmt: skip
            if found != status.MISSING:
                return found == 0
            self._make_all(path.rpartition("/")[0])
        raise BackendError(f"{self.where}: {path} cannot be made: the folder above keeps vanishing", backend="eos")

    def move(self, source: str, target: str, *, once: bool = False) -> bool:
        """See `Calls.move`."""
        for _ in range(2):
            found, _answer = self.ask(
                f"rename {source} to {target}",
                lambda: self._system.mv(self._path(source), self._path(target), timeout=self._timeout),
                status.MISSING,
                writing=True,
                patience=0 if once else PATIENCE,
            )
            if not found:
                return True
            if self.stat(source) is None:
                return False
            self._make_all(target.rpartition("/")[0])  # EOS does not make the folders above
        raise BackendError(f"{self.where}: {target} cannot be made", backend="eos")

    def remove(self, path: str, *, once: bool = False) -> bool:
        """See `Calls.remove`."""
        found, _ = self.ask(
            f"remove {path}",
            lambda: self._system.rm(self._path(path), timeout=2 if once else self._timeout),
            status.MISSING, status.IS_FOLDER, status.FS_ERROR,
            writing=True,
            patience=0 if once else PATIENCE,
        )  # fmt: skip
        return found in (0, status.MISSING)

    def remove_folder(self, path: str, *, once: bool = False) -> None:
        """See `Calls.remove_folder`."""
        self.ask(
            f"remove {path}",
            lambda: self._system.rmdir(self._path(path), timeout=2 if once else self._timeout),
            status.MISSING, status.FS_ERROR, status.EXISTS, status.EXISTS_OLD,
            writing=True,
            patience=0 if once else PATIENCE,
        )  # fmt: skip

    # -- checksums --------------------------------------------------------------------------------------------------

    def checksums(self, path: str) -> Mapping[str, str]:
        """See `Calls.checksums`."""
        kind, _, value = self.query(QueryCode.CHECKSUM, self._path(path, "cks.type=adler32")).partition(" ")
        if kind != "adler32" or not re.fullmatch(r"[0-9a-f]{1,8}", value):
            return {}
        self._tells_adler = True
        return {kind: value.rjust(8, "0")}

    def good(self, path: str, size: int, adler: int) -> bool:
        """See `Calls.good`."""
        found = self.stat(path)
        if found is None or found.folder or found.size != size:
            return False
        for pause in (0.0, 0.2, 1.0):  # one that sums for many at once may fail to for one of them
            time.sleep(pause)
            sums = self.checksums(path)
            if sums or not self._tells_adler:
                break
        missing = "" if self._tells_adler else f"{adler:08x}"
        return sums.get("adler32", missing) == f"{adler:08x}"

    # -- bytes ------------------------------------------------------------------------------------------------------

    def upload(self, path: str, stream: BinaryIO, size: int) -> int:
        """See `Calls.upload`. Blocks are written while the next ones are read and summed."""
        first = block(stream, min(size, WRITE))
        adler = zlib.adler32(first)
        hints = ["eos.app=catalog", f"eos.targetsize={size}"]
        if size == len(first) and self._tells_adler:
            hints.append(f"eos.checksum={adler:08x}")
        file = self._file(
            f"create {path}", self._url(path, *hints), OpenFlags.DELETE | OpenFlags.MAKEPATH, FILE_MODE, writing=True
        )
        what = f"write {path}"
        pending: deque[tuple[Future[Any], bytes]] = deque()
        try:
            offset, part = 0, first
            while part:
                pending.append((_later(file.write, part, offset, len(part), timeout=self.patient), part))
                offset += len(part)
                if len(pending) == WRITES:
                    self._finished(pending, what)
                part = block(stream, min(size - offset, WRITE))
                adler = zlib.adler32(part, adler)
            while pending:
                self._finished(pending, what)
            answer, _ = _safely(file.sync, timeout=self.patient + size // SLOW)
            if not answer.ok:
                raise self.failure(answer, what, writing=True)
        except BaseException:
            for future, _part in pending:  # the client must not outlive its buffers
                future.result()
            _end_of(file)  # may well say that all is fine
            raise
        answer, _ = _end_of(file, self.patient + size // SLOW)
        if not answer.ok:
            raise self.failure(answer, what, writing=True)
        return adler

    def _finished(self, pending: deque[tuple[Future[Any], bytes]], what: str) -> None:
        answer, _ = pending[0][0].result()
        pending.popleft()
        if not answer.ok:
            raise self.failure(answer, what, writing=True)

    def open(self, path: str, start: int, length: int | None, *, once: bool = False) -> BinaryIO | None:
        """See `Calls.open`."""
        reader = Reader(self, path, start, length)
        if not reader.reopen(patience=0 if once else PATIENCE):
            return None
        if reader.left <= BLOCK:
            with reader:
                return io.BytesIO(reader.read())
        return reader  # type: ignore[return-value]

    def open_file(self, path: str, patience: float) -> tuple[Any, Found] | None:
        """An open file and what it is; None where it is missing or a folder."""
        what = f"read {path}"
        file = self._file(what, self._url(path), OpenFlags.READ, 0, status.MISSING, status.IS_FOLDER, patience=patience)
        if file is None:
            return None
        answer, info = _safely(file.stat, timeout=self._timeout)
        if not answer.ok:
            raise self.failure(answer, what)
        return file, _found(info)

    def _file(
        self, what: str, url: str, flags: int, mode: int, *accept: int, writing: bool = False, patience: float = 0
    ) -> Any:
        """A file of the client's, open; None where its answer is one of those to `accept`."""
        files = []

        def call() -> tuple[Any, Any]:
            files.append(client.File())  # one that failed to open stays broken
            ENDED.append(files[-1])
            answer: tuple[Any, Any] = files[-1].open(url, flags, mode, timeout=self._timeout)
            return answer

        found, _ = self.ask(what, call, *accept, writing=writing, patience=patience)
        return None if found else files[-1]


class Reader(io.BufferedIOBase):
    """A range of a file, read ahead; opened again where the connection breaks."""

    def __init__(self, remote: Remote, path: str, start: int, length: int | None) -> None:
        self._remote = remote
        self._path = path
        self._next = start  # the offset of the next byte to ask for
        self._length = length
        self._file: Any = None
        self._was: Found | None = None
        self._pending: deque[tuple[Future[Any], int, int]] = deque()
        self._block = memoryview(b"")
        self._process = forks.process()
        self.left = self._size = 0  # bytes that were not handed out yet, and all of them

    def readable(self) -> bool:
        """Yes."""
        return True

    def reopen(self, patience: float = PATIENCE) -> bool:
        """Open the file, or open it again; False where it is missing."""
        opened = self._remote.open_file(self._path, patience)
        if opened is None:
            return False
        self._file, found = opened
        if self._was is None:
            self._was = found
            rest = max(found.size - self._next, 0)
            self.left = self._size = rest if self._length is None else min(self._length, rest)
        self._compare(found)
        return True

    def _compare(self, found: Found) -> None:
        if found != self._was:
            raise BackendError(f"{self._remote.where}: {self._path} changed while it was read", backend="eos")

    def _drain(self) -> None:
        """Wait for what was asked for: the client must not outlive its file."""
        for future, _, _ in self._pending:
            future.result()
        self._pending.clear()

    def _fill(self) -> None:
        """Take the next block, and ask for those behind it."""
        asked = sum(size for _, _, size in self._pending)
        while len(self._pending) < IN_FLIGHT and asked < self.left:
            size = min(BLOCK, self.left - asked)
            self._pending.append(
                (_later(self._file.read, self._next, size, timeout=self._remote.patient), self._next, size)
            )
            self._next += size
            asked += size
        future, offset, size = self._pending[0]
        answer, data = future.result()
        self._pending.popleft()
        if (
            answer.ok and size == self.left and size < self._size
        ):  # the client by itself may have opened another file anew
            answer, info = _safely(self._file.stat, True, timeout=self._remote.patient)
            if answer.ok:
                self._compare(_found(info))
        if not answer.ok or len(data) != size:
            self._drain()
            data = self._once_more(answer, offset, size)
            self._next = offset + size
        self._block = memoryview(data)

    def _once_more(self, answer: Any, offset: int, size: int) -> bytes:
        """A block that failed, from the file opened anew."""
        left = Patience(PATIENCE)
        while True:
            if answer.ok:
                raise BackendError(f"{self._remote.where}: {self._path} ended early", backend="eos")
            error = self._remote.failure(answer, f"read {self._path}")
            if not isinstance(error, Interrupted) or not left.again():
                raise error
            _end_of(self._file)
            try:
                found = self.reopen(0)
            except Interrupted:
                continue
            if not found:
                raise BackendError(f"{self._remote.where}: {self._path} vanished while it was read", backend="eos")
            answer, data = _safely(self._file.read, offset, size, timeout=self._remote.patient)
            if answer.ok and len(data) == size:
                return bytes(data)

    def _take(self, size: int) -> memoryview:
        """At most `size` of the next bytes; none at the end."""
        forks.check(self._process, self._path, "eos")
        if not self._block and self.left:
            self._fill()
        part = self._block[:size]
        self._block = self._block[size:]
        self.left -= len(part)
        return part

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes, or all that are left."""
        wanted = self.left if size is None or size < 0 else min(size, self.left)
        parts = []
        while wanted:
            part = self._take(wanted)
            wanted -= len(part)
            parts.append(part)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        """Some of the next bytes."""
        return bytes(self._take(BLOCK if size < 0 else size))

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer; returns how much of it."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self.left:
            part = self._take(len(view) - done)
            view[done : done + len(part)] = part
            done += len(part)
        return done

    def close(self) -> None:
        """Close the file."""
        if not self.closed and self._file is not None and self._process == forks.process():
            self._drain()
            _end_of(self._file)
        super().close()


class _Token:
    """A token in a file, read again when the file changes."""

    def __init__(self, path: str) -> None:
        self._path = os.path.expanduser(path)
        self._read: tuple[int, str] | None = None

    def read(self) -> str:
        """The token as the value of `authz=`. Raises `ConfigError`."""
        try:
            changed = os.stat(self._path).st_mtime_ns
            if self._read is None or self._read[0] != changed:
                with open(self._path, encoding="ascii") as file:
                    self._read = (changed, file.read().strip())
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"token_file {self._path} cannot be read: {type(exc).__name__}") from None
        text = self._read[1]
        return text if text.startswith("zteos64:") else "Bearer%20" + quote(text)


def _found(info: Any) -> Found:
    return Found(int(info.size), float(info.modtime), bool(info.flags & StatInfoFlags.IS_DIR))


class _Closed:
    """The answer in place of the `ValueError` that the client raises for a file that it closed after a failure."""

    ok, status, code, errno, message = False, 1, 107, 0, "the client closed the file"


def _safely(call: Callable[..., tuple[Any, Any]], *arguments: Any, timeout: int) -> tuple[Any, Any]:
    """Make a call of a file."""
    try:
        with GATE:
            return call(*arguments, timeout=timeout)
    except ValueError:
        return _Closed, None


def _end_of(file: Any, timeout: int = 1) -> tuple[Any, Any]:
    """Close a file."""
    ENDED.append(file)
    return _safely(file.close, timeout=timeout)


@cache
def _pool(process: object) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "xrootd")


def _later(call: Callable[..., tuple[Any, Any]], *arguments: Any, timeout: int) -> Future[tuple[Any, Any]]:
    """Make a call of a file beside others.

    Threads of ours wait for the answer: a callback would run in a thread of the client and take the interpreter's lock
    there, while a fork anywhere in this process holds that lock and waits for the client's threads.
    """
    return _pool(forks.process()).submit(_safely, call, *arguments, timeout=timeout)
