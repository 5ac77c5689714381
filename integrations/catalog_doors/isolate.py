"""Pickles and the like, converted by a process of their own that can reach next to nothing."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from catalog_core.errors import CatalogError, InvalidInput, MissingPlugin, SerializationError, installs
from catalog_doors import child
from catalog_doors.look import small, tree
from catalog_doors.stored import FolderReader, serializer

GIB = 1 << 30
PAGE = 4096
MAX_FOLDERS = 100  # in each other
MAX_SAID = 64 << 10  # bytes of what the process prints that are kept
_MISSING = {
    "network": "this machine could not cut the conversion off from the network",
    "files": "this machine could not keep the conversion from files outside of its folder",
    "processes": "this machine could not keep the conversion from starting processes",
    "paths": "this machine could not hide from the conversion what other files are called, and how large they are",
}


@attrs.frozen
class Limits:
    """Seconds of CPU and of the clock; bytes of memory, of one written file, and of all of them."""

    cpu: int = 600
    clock: float = 900.0
    memory: int = 16 * GIB
    file: int = 4 * GIB
    written: int = 8 * GIB

    @classmethod
    def of(cls, size: int) -> Limits:
        """Enough for an input of `size` bytes."""
        return cls(memory=16 * GIB + 6 * size, file=GIB + 3 * size, written=2 * GIB + 6 * size)


@attrs.frozen
class Converted:
    """What came out: the object as its serializer loads it without trust, what it was, what was left behind, and what
    was out of the conversion's reach."""

    obj: Any
    serializer: str
    was: str
    notes: tuple[str, ...]
    reach: dict[str, bool]


def convert(path: Path, kind: str, scratch: Path, limits: Limits | None = None) -> Converted:
    """Load `path` in a process of its own and take back what a serializer wrote there, read as a stranger's file.
    Raises `SerializationError`, `MissingPlugin`, `InvalidInput` (limits)."""
    folder = scratch / f"conversion-{len(list(scratch.iterdir()))}"
    out, home = folder / "out", folder / "home"
    for made in (folder, out, home):
        made.mkdir(mode=0o700)
    limits = limits or Limits.of(path.stat().st_size)
    reach = _run(path, kind, out, home, limits)
    told = _told(out, path.name)
    notes = [str(note)[:300] for note in told.get("notes", ()) if isinstance(note, str)][: child.MAX_NOTES]
    files = {name: file for name, file in tree(out, told=False).items() if name != child.RESULT}
    try:
        name = str(told["serializer"])
        made = serializer(name)
        obj = made.load(FolderReader(files, dict(told["meta"])), None, None, {})
    except CatalogError as exc:
        raise SerializationError(f"{path.name}: what the conversion wrote cannot be read: {exc.message}") from exc
    except (KeyError, TypeError, ValueError, ImportError) as exc:
        raise SerializationError(f"{path.name}: the conversion told nothing that makes sense") from exc
    notes += [_MISSING[what] for what in _MISSING if not reach[what]]
    return Converted(obj, made.name, str(told.get("was", ""))[:200], tuple(notes), reach)


def _run(path: Path, kind: str, out: Path, home: Path, limits: Limits) -> dict[str, bool]:
    readable = _importable()
    job = {
        "file": str(path.resolve()), "kind": kind, "out": str(out.resolve()), "home": str(home.resolve()),
        "path": readable, "read": [*readable, *sorted({sys.prefix, sys.base_prefix, sys.exec_prefix})],
        "limits": [limits.memory, limits.cpu, limits.file],
    }  # fmt: skip
    environment = {
        "HOME": str(home), "TMPDIR": str(home), "PATH": os.defpath, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    for name in ("KERAS_BACKEND", "LD_LIBRARY_PATH"):
        if name in os.environ:
            environment[name] = os.environ[name]
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(child.__file__).resolve())], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=home, env=environment, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.close()
        said = _listen(process, out.parent, begun + limits.clock, limits.written)
        code = process.wait(timeout=max(1.0, begun + limits.clock - time.monotonic()))
    except subprocess.TimeoutExpired as exc:
        raise InvalidInput(f"{path.name}: the conversion did not end within {limits.clock:.0f} s") from exc
    except InvalidInput as exc:
        raise InvalidInput(f"{path.name}: {exc.message}") from exc
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        process.stdout.close()
    try:
        first = json.loads(said.partition(b"\n")[0])
        reach = {what: first[what] is True for what in _MISSING}
    except (ValueError, KeyError, TypeError):
        reach = {}
    if code or not reach:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        why = "before it was shut in" if not reach else f"limits: {limits.memory / GIB:.0f} GiB, {limits.cpu} s of CPU"
        raise SerializationError(f"{path.name}: the process that converts it ended by {how} ({why})")
    return reach


def _listen(process: subprocess.Popen[bytes], folder: Path, deadline: float, written: int) -> bytes:
    """The beginning of what the process prints, until it closes its output. Raises `InvalidInput` at a limit."""
    said = b""
    sizes: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        while time.monotonic() < deadline:
            if selector.select(timeout=0.25):
                part = os.read(process.stdout.fileno(), 1 << 16)  # type: ignore[union-attr]
                if not part:
                    return said
                said = (said + part)[:MAX_SAID]
            if _size(folder, sizes) + _unnamed(process.pid, sizes) > written:
                raise InvalidInput(f"the conversion wrote more than {written:,} bytes")
    raise InvalidInput("the conversion took too long")


def _size(folder: Path, sizes: dict[int, int]) -> int:
    """Bytes of all files below a folder, and a page for each file and folder; `sizes` keeps them by inode. Raises
    `InvalidInput` where folders lie so deep that nobody could list or remove them."""
    total = 0

    def failed(exc: OSError) -> None:
        if not isinstance(exc, FileNotFoundError):  # removed meanwhile
            raise InvalidInput(f"the conversion made a folder that cannot be listed: {exc.strerror}")

    for where, folders, names in os.walk(folder, onerror=failed):
        if where.count("/") > MAX_FOLDERS + str(folder).count("/"):
            raise InvalidInput(f"the conversion made folders in each other, more than {MAX_FOLDERS}")
        total += PAGE * len(folders)
        for name in names:
            try:
                file = os.lstat(os.path.join(where, name))
                sizes[file.st_ino] = file.st_size
                total += file.st_size + PAGE
            except OSError:  # removed meanwhile
                continue
    return total


def _unnamed(pid: int, sizes: Mapping[int, int]) -> int:
    """Bytes of files that a process holds open or mapped and that have no name any more: no folder shows them, and they
    take their room until it ends. `sizes` by inode, of when they had one."""
    found: dict[int, int] = {}
    with contextlib.suppress(OSError):  # not Linux, or it has ended
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                file = os.stat(f"/proc/{pid}/fd/{number}")
                if stat.S_ISREG(file.st_mode) and not file.st_nlink:
                    found[file.st_ino] = max(file.st_size, 512 * file.st_blocks)
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
            place, _, offset, _, inode, *name = line.decode("utf-8", "replace").split(maxsplit=5)
            # "/dev/zero" and "/SYSV…" are memory without a file, which its own limit counts
            if not name or not name[0].endswith(" (deleted)") or name[0].startswith(("/dev/zero", "/SYSV")):
                continue
            start, _, end = place.partition("-")
            size = int(offset, 16) + int(end, 16) - int(start, 16)
            with contextlib.suppress(OSError):  # only some may follow these links: else what is mapped, or was known
                size = max(size, os.stat(f"/proc/{pid}/map_files/{place}").st_size)
            found[int(inode)] = max(found.get(int(inode), 0), size, sizes.get(int(inode), 0))
    return sum(found.values())


def _importable() -> list[str]:
    """The part of `sys.path` that was installed. Folders of somebody's home are not, unless this package is there: what
    lies in them is nobody's business."""
    home, prefixes = Path.home().resolve(), {Path(place).resolve() for place in (sys.prefix, sys.base_prefix)}
    found = []
    for entry in sys.path:
        place = Path(entry).resolve()
        installed = any(place.is_relative_to(prefix) for prefix in prefixes) or place.name.endswith("-packages")
        ours = any(place.glob("catalog_*/__init__.py"))
        private = place.is_relative_to(home) and not (installed or ours)
        if entry and place.exists() and not private and not home.is_relative_to(place):
            found.append(str(place))
    return found


def _told(out: Path, name: str) -> dict[str, Any]:
    """What the process wrote of itself. Raises its error as one of ours."""
    result = out / child.RESULT
    try:
        if result.is_symlink() or not result.is_file():
            raise SerializationError(f"{name}: the conversion left nothing")
        told = json.loads(small(result))
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"{name}: what the conversion wrote cannot be read") from exc
    if not isinstance(told, dict):
        raise SerializationError(f"{name}: what the conversion wrote cannot be read")
    if "error" not in told:
        return told
    error, missing = str(told["error"])[:400], told.get("missing")
    if isinstance(missing, str):
        raise MissingPlugin(f"{name} needs {missing[:80]}, which is not installed here", hint=installs(missing[:80]))
    if told.get("imported") is False:
        raise SerializationError(
            f"{name} names a package that is installed here and cannot be imported: {error}",
            hint="another version of it wrote the file, or it does not fit the others: try another environment",
        )
    raise SerializationError(f"{name} cannot be converted: {error}")
