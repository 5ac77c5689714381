"""Folders, walked in one way by all that takes files in: components, attachments, data sets, importers, checks.

Nothing is left out in silence. A link is followed, to a file or a folder, or refused, as the caller chooses; a link to
nowhere, a link that leads back, a folder that cannot be listed, a pipe, a socket and a device are always refused. An
empty folder and the permission to execute are kept in the component's `meta`, where they are; a component without them
has the same manifest as before they were kept, and a reader that does not know these keys writes the files without.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from catalog_core.errors import CatalogError, InvalidInput
from catalog_core.names import check_file

MAX_LINKED = 1_000_000  # entries below followed links: links to links may make them without end
EXECUTABLE, EMPTY = "executable", "empty_folders"
Kind = Literal["file", "empty", "skipped", "link", "nowhere", "back", "unreadable", "special"]
_WRONG: Mapping[str, tuple[str, str]] = {
    "link": ("is a link, which is not followed here", "put what it points at in its place"),
    "nowhere": ("is a link to what does not exist", "mend or remove it"),
    "back": ("is a link that leads back to a folder that holds it", "remove it"),
    "unreadable": ("cannot be listed", "give the right to read it, or take it out"),
    "special": ("is no file: a pipe, a socket or a device", "remove it"),
}


@attrs.frozen
class Item:
    """One thing below a folder: its name there (with `/`), its place, and what it is; `cause` is the system's word."""

    name: str
    path: Path
    kind: Kind
    executable: bool = False
    cause: str = ""


@attrs.frozen
class Folder:
    """The files below a folder by name, in order; which of them may be executed; folders that hold nothing; and names
    that the caller skipped."""

    files: Mapping[str, Path]
    executable: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def meta(self) -> dict[str, Any]:
        """What a component keeps beside its files; nothing where there is nothing to keep."""
        told = {EXECUTABLE: list(self.executable), EMPTY: list(self.empty)}
        return {key: names for key, names in told.items() if names}


def walk(root: Path, *, follow: bool = True, skip: Callable[[str], bool] = lambda name: False) -> Iterator[Item]:
    """Everything below `root`, folder by folder, sorted by name. `skip` takes the last part of a name; what it accepts
    is not looked into. Raises `InvalidInput` where links multiply without end."""
    linked = 0
    top = _identity(root)
    waiting: list[tuple[Iterator[os.DirEntry[str]], str, tuple[Any, ...], bool]] = []

    def enter(path: Path, name: str, above: tuple[Any, ...], by_link: bool) -> Iterator[Item]:
        try:
            with os.scandir(path) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as exc:
            yield Item(name or ".", path, "unreadable", cause=exc.strerror or str(exc))
            return
        if not entries and name:
            yield Item(name, path, "empty")
        waiting.append((iter(entries), name, above, by_link))

    yield from enter(root, "", (top,), False)
    while waiting:
        entries, prefix, above, by_link = waiting[-1]
        entry = next(entries, None)
        if entry is None:
            waiting.pop()
            continue
        name, path = f"{prefix}/{entry.name}" if prefix else entry.name, Path(entry.path)
        linked += by_link
        if linked > MAX_LINKED:
            raise InvalidInput(f"{root}: its links lead to more than {MAX_LINKED:,} files and folders")
        if skip(entry.name):
            yield Item(name, path, "skipped")
            continue
        is_link = entry.is_symlink()
        if is_link and not follow:
            yield Item(name, path, "link")
            continue
        try:
            there = os.stat(path)
        except OSError as exc:
            yield Item(name, path, "nowhere" if is_link else "unreadable", cause=exc.strerror or str(exc))
            continue
        if stat.S_ISREG(there.st_mode) and not fed(path, there):
            yield Item(name, path, "file", bool(there.st_mode & 0o100))
        elif not stat.S_ISDIR(there.st_mode):
            yield Item(name, path, "special")
        elif (there.st_dev, there.st_ino) in above:
            yield Item(name, path, "back")
        else:
            yield from enter(path, name, (*above, (there.st_dev, there.st_ino)), by_link or is_link)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        there = os.stat(path)
    except OSError:
        return None
    return there.st_dev, there.st_ino


def read(
    root: Path,
    *,
    follow: bool = True,
    skip: Callable[[str], bool] = lambda name: False,
    error: type[CatalogError] = InvalidInput,
) -> Folder:
    """What is below `root`, which is a folder, or a file alone, under its own name. Raises `error` for the first thing
    that cannot be taken in, with the way out."""
    if not root.is_dir():
        return Folder({root.name: root}, (root.name,) if check_file_alone(root, error).st_mode & 0o100 else ())
    files: dict[str, Path] = {}
    names: dict[str, list[str]] = {"executable": [], "empty": [], "skipped": []}
    for item in walk(root, follow=follow, skip=skip):
        if item.kind in _WRONG:
            raise wrong(item, root, error)
        if item.kind == "file":
            files[item.name] = item.path
            if item.executable:
                names["executable"].append(item.name)
        else:
            names[item.kind].append(item.name)
    return Folder(files, *(tuple(names[key]) for key in ("executable", "empty", "skipped")))


def check_file_alone(path: Path, error: type[CatalogError] = InvalidInput) -> os.stat_result:
    """What a path that is no folder is. Raises `error` where it is no file: opening a pipe waits for ever."""
    try:
        there = os.stat(path)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        what = _WRONG["nowhere"][0] if path.is_symlink() else "does not exist"
        raise error(f"{path} {what}") from exc
    if not stat.S_ISREG(there.st_mode) or fed(path, there):
        raise error(f"{path} {_WRONG['special'][0]}")
    return there


def fed(path: Path, there: os.stat_result) -> bool:
    """Whether a file that says it is empty is not: the system makes up what is read, as in `/proc`, perhaps for ever,
    or waits for what comes."""
    if there.st_size or not hasattr(os, "O_NONBLOCK"):
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False  # who reads it says why not
    try:
        return bool(os.read(fd, 1))
    except OSError:
        return True
    finally:
        os.close(fd)


def wrong(item: Item, root: Path, error: type[CatalogError] = InvalidInput) -> CatalogError:
    """The error for something that is not taken in."""
    what, hint = _WRONG[item.kind]
    cause = f" ({item.cause})" if item.cause and item.kind == "unreadable" else ""
    return error(f"{item.name} {what}{cause}, in {root}", hint=hint)


def restore(folder: Path, meta: Mapping[str, Any], names: Iterable[str]) -> None:
    """Give the files of a component, written below `folder`, back what `meta` keeps of them: those that may be read may
    be executed by the same people, and folders that were empty. Names that are not among `names`, or lead elsewhere,
    are passed over."""
    written = set(names)
    for name in _texts(meta.get(EXECUTABLE)):
        if name in written:
            path = folder / name
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | (mode & 0o444) >> 2)
    for name in _texts(meta.get(EMPTY)):
        try:
            check_file(name)
        except InvalidInput:
            continue
        if not any(other == name or other.startswith(f"{name}/") or name.startswith(f"{other}/") for other in written):
            (folder / name).mkdir(parents=True, exist_ok=True)


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, (list, tuple)) else []


def content(path: Path, most: int, what: str = "") -> bytes:
    """The bytes of one file that somebody named: a regular file (links are followed) of at most `most` bytes; never a
    pipe or a device, which may have no end, or wait for ever. `what` is what it is for. Raises `InvalidInput`, and
    `OSError` where it cannot be opened."""
    told = f"{what} {path}".strip()
    waits = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | waits)
    try:
        there = os.fstat(fd)
        if not stat.S_ISREG(there.st_mode):
            kind = "a folder" if stat.S_ISDIR(there.st_mode) else "a pipe, a socket or a device"
            raise InvalidInput(f"{told} is no file: {kind}", hint="give a regular file")
        if there.st_size > most:
            raise InvalidInput(f"{told} has {there.st_size:,} bytes; {most:,} are allowed")
        parts, left = [], most + 1
        while left and (part := os.read(fd, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    except BlockingIOError:  # as of /proc/kmsg, which waits for what comes
        left = 0
    finally:
        os.close(fd)
    if not left:
        raise InvalidInput(f"{told} has no end, or waits for what comes", hint="give a regular file")
    return b"".join(parts)
