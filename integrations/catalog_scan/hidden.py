"""What lies within or behind files of pure data: archives, pickles, and bytes after the end that the format has."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator

from catalog_scan import pickles
from catalog_scan.stream import Stream

Problems = Iterator[tuple[str, str]]
WINDOW = 1 << 16  # bytes that are read behind the head of a pickle; names are looked for in all bytes besides
MAX_READ = 64 << 20  # bytes that are read behind all heads of a file together, which may lie in one another
NEAR = 64  # bytes that tell most of what only begins as a pickle does
BEFORE = 4096  # bytes before an INST in which its mark is looked for
_NAME = rb"[A-Za-z_][A-Za-z0-9_.]{1,126}"  # bounded: each c or i of a file may begin one
_TEXT = rb"(?:\x8c[\x02-\x7f]|X[\x02-\xff]\0\0\0|\x8d[\x02-\x7f]\0{7})"
_KEPT = rb"(?:\x94|q[\0-\xff]|r[\0-\xff]{4})?"
_IMPORT = re.compile(
    rb"[ci](" + _NAME + rb")\n(" + _NAME + rb")\n"
    rb"|" + _TEXT + rb"(" + _NAME + rb")" + _KEPT + _TEXT + rb"(" + _NAME + rb")" + _KEPT + rb"\x93",
    re.S,
)  # fmt: skip
_HEAD = re.compile(rb"\x80[\x02-\x05][\x95c\x8c\x8d(\]}X)KMJG\x89\x88N]", re.S)


def look(data: memoryview, kind: str) -> Problems:
    """What is wrong with a file of data of this kind."""
    if zipfile.is_zipfile(Stream(data)):
        yield "hidden bytes", "an archive stands behind it"
    end = ends(data, kind)
    if end is not None and end < len(data) and bytes(data[end : end + (1 << 20)]).strip(b"\0\r\n "):
        yield "hidden bytes", f"{len(data) - end:,} bytes follow where the {kind} ends"
    named, whole = imports(data)
    if named:
        yield "pickle name", f"a pickle in it would import {named[:160]}"
    elif not whole:
        yield "cannot read", f"more than {MAX_READ:,} bytes in it begin as pickles do; the rest was not looked into"


def ends(data: memoryview, kind: str) -> int | None:
    """Where a file ends by what it says; None where it does not say so, or is cut short."""
    if kind in ("wave", "webp", "avi"):
        size = int.from_bytes(data[4:8], "big" if bytes(data[:4]) == b"RIFX" else "little")
        return 8 + size + size % 2
    if kind != "png":
        return None
    at = 8
    while at + 12 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        if re.fullmatch(rb"[A-Za-z]{4}", name) is None:
            return None
        at += size + 12
        if name == b"IEND":
            return at
    return None


def imports(data: memoryview) -> tuple[str | None, bool]:
    """The first name that is on no list, of a pickle anywhere in the bytes; and whether all heads of pickles were
    read."""
    for found in _IMPORT.finditer(data):
        if found[1] is not None and not _used(data, found.start(), found.end()):
            continue
        module, name = (part.decode() for part in found.groups() if part is not None)
        if name not in pickles.NAMES.get(module, ()) and not module.endswith(".") and ".." not in module:
            return f"{module}.{name}", True
    left = MAX_READ
    for head in _HEAD.finditer(data):
        if left <= 0:
            return None, False
        for window in (NEAR, WINDOW):  # most heads are none, and end at once
            named, read = pickles.named(data[head.start() : head.start() + window])
            left -= max(read, NEAR)
            if named:
                return named, True
            if read < window:
                break
    return None, True


def _used(data: memoryview, start: int, end: int) -> bool:
    """Whether a name of protocol 0 is called: bytes at random spell one in some GiB, and then no opcodes stand beside
    it. What `c` names is called behind it; what `i` names is called at once, on what stands behind a mark."""
    if data[start] == ord("c"):
        return pickles.calls_behind(data[end : end + WINDOW])
    before = bytes(data[max(0, start - BEFORE) : start])
    marks = [at for at in range(len(before)) if before[at] == ord("(")]
    return any(pickles.reaches(memoryview(before)[at:]) for at in reversed(marks[-64:]))
