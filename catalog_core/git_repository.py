"""A git repository as files: where it is, its configuration, and what is checked out."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import zlib
from pathlib import Path

import attrs

from catalog_core.git_objects import small

MAX_TEXT = 4 << 20  # bytes of a configuration, a reference, or attributes
MAX_PACKED = 256 << 20  # of packed-refs
MAX_LINKS = 5  # references to references
# Whatever a repository that somebody else wrote may make of its readers.
BROKEN = (OSError, ValueError, KeyError, IndexError, struct.error, zlib.error, RecursionError, MemoryError)
_SECTION = re.compile(r'\s*\[\s*([A-Za-z0-9.-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\](.*)')
_KEY = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)\s*(?:=\s*(.*))?$")


@attrs.frozen
class Repository:
    """`root` of the working tree, the folder that is its own (`private`), and the one that it shares with other working
    trees of the repository (`common`)."""

    root: Path
    private: Path
    common: Path

    def config(self) -> dict[tuple[str, str, str], str]:
        """Section, subsection, key → the last value. Files that it includes are not read."""
        found: dict[tuple[str, str, str], str] = {}
        section, name = "", ""
        for line in small(self.common / "config", MAX_TEXT).decode("utf-8", "replace").splitlines():
            begun = _SECTION.match(line)
            if begun:
                section, name = begun[1].lower(), re.sub(r"\\(.)", r"\1", begun[2] or "")
                line = begun[3]
            told = _KEY.match(line)
            if told and section:
                found[section, name, told[1].lower()] = _value(told[2])
        return found

    def head(self) -> tuple[str | None, str | None]:
        """Commit and branch; None for a commit that is not there yet, and for the branch of a detached HEAD."""
        line, branch = text(self.private / "HEAD"), None
        for _ in range(MAX_LINKS):
            if not line.startswith("ref:"):
                return (line if re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", line) else None), branch
            name = line[4:].strip()
            if not re.fullmatch(r"refs/[^\x00-\x20\x7f~^:?*\[\\]+", name) or ".." in name or name.endswith("/.invalid"):
                return None, branch
            branch = branch or (name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else None)
            try:
                line = text(self.common / name)
            except (OSError, ValueError):
                return self._packed(name), branch
        return None, branch

    def _packed(self, name: str) -> str | None:
        try:
            data = small(self.common / "packed-refs", MAX_PACKED)
        except (OSError, ValueError):
            return None
        found = re.search(rb"^([0-9a-f]{40}(?:[0-9a-f]{24})?) " + re.escape(os.fsencode(name)) + rb"\r?$", data, re.M)
        return found[1].decode("ascii") if found else None


def _value(told: str | None) -> str:
    """A value of the configuration without quotes and comment."""
    if told is None:
        return "true"
    made, quoted, at = "", False, 0
    while at < len(told):
        char = told[at]
        if char == "\\" and at + 1 < len(told):
            at += 1
            made += {"n": "\n", "t": "\t"}.get(told[at], told[at])
        elif char == '"':
            quoted = not quoted
        elif char in "#;" and not quoted:
            break
        else:
            made += char
        at += 1
    return made.strip()


def text(path: Path) -> str:
    """A small file, its bytes kept."""
    return small(path, MAX_TEXT).decode("utf-8", "surrogateescape").strip()


def opened(root: Path) -> Repository | None:
    """The repository of a working tree whose folder this is."""
    place = root / ".git"
    try:
        if stat.S_ISREG(os.stat(place).st_mode):  # of a further working tree, or a submodule
            told = text(place)
            if not told.startswith("gitdir:"):
                return None
            place = root / told[7:].strip()
        text(place / "HEAD")
    except BROKEN:
        return None
    common = place
    with contextlib.suppress(OSError, ValueError):
        common = place / text(place / "commondir")
    return Repository(root, place, common)


def find(where: Path) -> Repository | None:
    """The repository of the nearest folder above that is a working tree; None where there is none."""
    for root in (where, *where.parents):
        found = opened(root)
        if found is not None:
            return found
    return None
