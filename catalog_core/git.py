"""What a git working tree says of itself, read without git: commit, branch, remote, and whether it was changed.

A repository's own configuration may name programs that git runs: filters, fsmonitor, hooks, textconv, external diffs,
an ssh command, aliases, a pager, included files, programs of submodules. Here nothing runs: HEAD, references and the
index are read as files, and files of the working tree are hashed as they are. What only such a program could tell is
"not known" (None).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from catalog_core.git_objects import LINK, MAX_INDEX, MODULE, Entry, Index, Objects, read_index, small
from catalog_core.git_repository import BROKEN, Repository, find, opened, text

BLOCK = 1 << 20
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s+(.*)')
State = tuple[int, bytes]  # mode and object of a path


def look(where: str, seconds: float) -> dict[str, Any] | None:
    """Commit, branch, remote and its URL, `dirty`, and `diff`: a digest of the tracked files that differ from the
    commit (mode, object and path of each, as git would store it). None where there is no repository. What cannot be
    read, and what takes longer than `seconds`, is None."""
    repository = find(Path(os.path.abspath(where)))
    if repository is None:
        return None
    found: dict[str, Any] = dict.fromkeys(("commit", "branch", "remote", "url", "dirty", "diff"))
    config: Mapping[tuple[str, str, str], str] = {}
    with contextlib.suppress(*BROKEN):
        config = repository.config()
        remotes = [name for section, name, key in config if section == "remote" and key == "url"]
        found["remote"] = "origin" if "origin" in remotes else next(iter(remotes), None)
        found["url"] = config.get(("remote", str(found["remote"]), "url"))
    with contextlib.suppress(*BROKEN):
        found["commit"], found["branch"] = repository.head()
    with contextlib.suppress(*BROKEN):
        changes = _Changes(repository, config, time.monotonic() + seconds)
        found["dirty"], found["diff"] = changes.told(found["commit"])
    return found


class _Changes:
    """What differs in a working tree from the commit that is checked out."""

    def __init__(self, repository: Repository, config: Mapping[tuple[str, str, str], str], deadline: float) -> None:
        self.repository = repository
        self.deadline = deadline
        self.hash = "sha256" if config.get(("extensions", "", "objectformat"), "sha1").lower() == "sha256" else "sha1"
        self.width = hashlib.new(self.hash, usedforsecurity=False).digest_size
        self.modes = config.get(("core", "", "filemode"), "true").lower() != "false"
        self.links = config.get(("core", "", "symlinks"), "true").lower() != "false"
        self._rules: dict[Path, list[list[str]]] = {}

    def told(self, commit: str | None) -> tuple[bool | None, str | None]:
        """Whether there is a difference, and its digest; None for what is not known."""
        path = self.repository.private / "index"
        written, index = 0, Index((), None, True)
        with contextlib.suppress(FileNotFoundError):
            written, index = os.stat(path).st_mtime_ns, read_index(small(path, MAX_INDEX), self.width)
        if not index.whole:
            return None, None
        staged = {entry.path: (entry.mode, entry.oid) for entry in index.entries}
        head: dict[bytes, State] | None = {} if commit is None else None
        if commit is not None:
            with contextlib.suppress(*BROKEN):
                head = self._head(bytes.fromhex(commit), index, staged)
        unknown, base = head is None, staged if head is None else head
        differing: dict[bytes, State | None] = {}
        for entry in index.entries:
            if time.monotonic() > self.deadline:
                unknown = True
                break
            state = self._working(entry, written)
            if state == ():
                unknown = True
            elif not entry.staged or state != base.get(entry.path):
                differing[entry.path] = state or None
        differing |= dict.fromkeys((head or {}).keys() - staged.keys())
        if not differing:  # what is staged and was put back since is a change as well, as `git status` has it
            return True if staged != base else None if unknown else False, None
        if commit is None or unknown:  # a digest of a part would be the same for what differs elsewhere
            return True, None
        state_ = hashlib.sha256()
        for name, found in sorted(differing.items()):
            mode, oid = found or (0, b"")
            state_.update(b"%o %s %s\0" % (mode, oid.hex().encode(), name))
        return True, "sha256:" + state_.hexdigest()

    def _head(self, commit: bytes, index: Index, staged: dict[bytes, State]) -> dict[bytes, State]:
        """Every path of the commit; the index says it where git noted that both are one tree."""
        objects = Objects(self.repository.common / "objects", self.width, self.deadline)
        tree = objects.tree_of(commit)
        if tree == index.tree:
            return staged
        return {path: (mode, oid) for path, mode, oid in objects.files(tree)}

    def _working(self, entry: Entry, written: int) -> State | tuple[()] | None:
        """Mode and object of a tracked path as it is in the working tree, None where it is gone, () where it is not
        known. A file is not read where size and times are those of the index."""
        same = (entry.mode, entry.oid)
        if not entry.checked:
            return same
        path = self.repository.root / os.fsdecode(entry.path)
        try:
            there = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if entry.mode == MODULE:
            return self._module(path, entry) if stat.S_ISDIR(there.st_mode) else None
        mode = self._mode(there, entry.mode)
        if mode is None:
            return None
        times = there.st_mtime_ns == entry.mtime and there.st_ctime_ns == entry.ctime and entry.mtime < written
        if times and there.st_size & 0xFFFFFFFF == entry.size and mode == entry.mode:
            return same
        if stat.S_ISLNK(there.st_mode):
            return mode, self._object([os.fsencode(os.readlink(path))], there.st_size)
        if time.monotonic() > self.deadline:
            return ()
        oid = self._object(self._blocks(path), there.st_size)
        if oid == entry.oid:
            return mode, oid
        return self._converted(path, entry, mode, oid)

    def _module(self, path: Path, entry: Entry) -> State:
        """A submodule: the commit that is checked out there; its own files are its own affair."""
        inside = opened(path)
        commit = inside.head()[0] if inside is not None else None
        return entry.mode, bytes.fromhex(commit) if commit else entry.oid

    def _mode(self, there: os.stat_result, was: int) -> int | None:
        if stat.S_ISLNK(there.st_mode):
            return LINK
        if not stat.S_ISREG(there.st_mode):
            return None
        if was == LINK and not self.links:
            return LINK
        if not self.modes and was != LINK:
            return was
        return 0o100755 if there.st_mode & 0o100 else 0o100644

    def _converted(self, path: Path, entry: Entry, mode: int, oid: bytes) -> State | tuple[()]:
        """A file that git may have stored otherwise: with other ends of lines, as a pointer of LFS, or by a filter,
        which is not run: then nobody knows."""
        kind = self._attributes(entry.path)
        if kind == "lfs":
            state = hashlib.sha256()
            for block in self._blocks(path):
                state.update(block)
            size = path.stat().st_size
            text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{state.hexdigest()}\nsize {size}\n".encode()
            return mode, self._object([text], len(text))
        if kind is not None:
            return ()
        size = sum(len(block) for block in self._unix(path))
        if size != path.stat().st_size:
            unix = self._object(self._unix(path), size)
            if unix == entry.oid:
                return mode, unix
        return mode, oid

    def _blocks(self, path: Path) -> Iterator[bytes]:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(fd, "rb") as file:
            while block := file.read(BLOCK):
                if time.monotonic() > self.deadline:
                    raise TimeoutError(f"{path} takes too long")
                yield block

    def _unix(self, path: Path) -> Iterator[bytes]:
        """The file with `\\n` for `\\r\\n`."""
        held = b""
        for block in self._blocks(path):
            block = held + block
            held = b"\r" if block.endswith(b"\r") else b""
            yield block[: len(block) - len(held)].replace(b"\r\n", b"\n")
        yield held

    def _object(self, blocks: Any, size: int) -> bytes:
        state = hashlib.new(self.hash, b"blob %d\0" % size, usedforsecurity=False)
        for block in blocks:
            state.update(block)
        return state.digest()

    def _attributes(self, path: bytes) -> str | None:
        """The conversion that attributes ask for: the name of a filter, `encoding` or `ident`; None for none."""
        name, found = os.fsdecode(path), None
        folders = ["", *(name[: at + 1] for at, char in enumerate(name) if char == "/")]
        places = [("", self.repository.common / "info" / "attributes")]
        for folder, place in [*((f, self.repository.root / f / ".gitattributes") for f in folders), *places]:
            below = name.removeprefix(folder)
            for pattern, *words in self._lines(place):
                if time.monotonic() > self.deadline:
                    raise TimeoutError(f"{place} takes too long")
                if _matches(below, pattern):
                    found = _conversion(words, found)
        return found

    def _lines(self, place: Path) -> list[list[str]]:
        """The lines of a file of attributes: a pattern and words each. Names that it gives to several words are
        replaced by these."""
        if place not in self._rules:
            self._rules[place] = []
            with contextlib.suppress(OSError, ValueError):
                lines = [line.strip() for line in text(place).splitlines()]
                rules = [_words(line) for line in lines if line and not line.startswith("#")]
                names = {pattern[6:]: words for pattern, *words in rules if pattern.startswith("[attr]")}
                self._rules[place] = [
                    [pattern, *(each for word in words for each in names.get(word, [word]))]
                    for pattern, *words in rules
                ]
        return self._rules[place]


def _words(line: str) -> list[str]:
    """A line of attributes in words; the first one may stand in quotes."""
    quoted = _QUOTED.match(line)
    return [re.sub(r"\\(.)", r"\1", quoted[1]), *quoted[2].split()] if quoted else line.split()


def _matches(below: str, pattern: str) -> bool:
    """Whether a path, from the folder of the attributes on, is one that a pattern of theirs means."""
    plain = pattern.removeprefix("**/")
    subject = below if "/" in plain.rstrip("/") else below.rpartition("/")[2]
    further = {pattern.removeprefix("/"), plain.removeprefix("/"), plain.removeprefix("/").replace("/**/", "/")}
    return any(fnmatchcase(subject, each) for each in further)


def _conversion(words: list[str], before: str | None) -> str | None:
    """What a line of attributes makes of the conversion that earlier ones asked for."""
    found = before
    for word in words:
        if word.startswith("filter="):
            found = word[7:]
        elif word in ("-filter", "!filter"):
            found = None
        elif word == "ident" or word.startswith("working-tree-encoding="):
            found = found or word.partition("-")[0]
    return found
