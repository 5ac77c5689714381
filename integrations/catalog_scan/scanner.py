"""Files, told by their content. What is on no list, and what cannot be read, is a finding."""

from __future__ import annotations

import mmap
import re
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, cast

import attrs

from catalog_core import folders
from catalog_core.errors import CatalogError, InvalidInput
from catalog_core.names import check_file
from catalog_scan.kinds import MAX_UNPACKED, UNPACKED, kind_of
from catalog_scan.stream import Stream

MAX_DEPTH = 4  # archives in archives
MAX_MEMBERS = 100_000
MAX_RATIO = 200  # unpacked to packed; of archives in archives, of all together
# Members of archives that their readers take as raw numbers, and never as anything else.
_RAW = re.compile(
    r"(.*/)?(data/\d+|data/(weights/weight_\d+|constants/tensor_\d+)|\.data/serialization_id|byteorder|version"
    r"|\.format_version|archive_version|archive_format)"
)


@attrs.frozen
class File:
    """A file, or a member of an archive, and what it is."""

    file: str
    format: str


@attrs.frozen
class Finding:
    """What is wrong with a file: the rule that it breaks, and why."""

    file: str
    rule: str
    cause: str


@attrs.frozen
class Report:
    """All files, and all findings."""

    files: tuple[File, ...]
    findings: tuple[Finding, ...]


def scan_path(path: Path) -> Report:
    """Look at a file, or at all files of a folder. Links, and folders that cannot be listed, are findings."""
    scanner = Scanner()
    found = list(folders.walk(path, follow=False)) if path.is_dir() and not path.is_symlink() else [_alone(path)]
    names = [item.name for item in found if item.kind == "file"]
    for item in found:
        name = item.name
        try:
            if item.kind == "unreadable":
                scanner.find(name, "cannot read", item.cause)
            elif item.kind == "link":
                scanner.find(name, "link", "it is a link, and was not followed")
            elif item.kind == "special":
                scanner.find(name, "link", "it is no file")
            elif item.kind == "file" and item.path.stat().st_size == 0:
                scanner.files.append(File(name, "empty"))
            elif item.kind == "file":
                with item.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                    scanner.look_mapped(name, mapped, names)
        except OSError as exc:
            scanner.find(name, "cannot read", str(exc.strerror or exc))
    if not scanner.files and not scanner.findings:
        raise InvalidInput(f"{path} holds no files")
    return scanner.report()


def _alone(path: Path) -> folders.Item:
    """A path that is no folder."""
    there = path.lstat()
    kind: folders.Kind = "link" if stat.S_ISLNK(there.st_mode) else "special"
    if stat.S_ISREG(there.st_mode) and not folders.fed(path, there):
        kind = "file"
    return folders.Item(path.name, path, kind)


class Scanner:
    """Looks at files one after the other, and collects what it finds."""

    def __init__(self) -> None:
        self.files: list[File] = []
        self.findings: list[Finding] = []
        self._left = 0  # bytes that may still be unpacked of the file that is looked at

    def report(self) -> Report:
        """What was found so far."""
        return Report(tuple(self.files), tuple(self.findings))

    def find(self, file: str, rule: str, cause: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(file, rule, cause))

    def look_mapped(self, file: str, mapped: mmap.mmap, names: Sequence[str]) -> None:
        """Look at a mapped file, and let go of it."""
        with memoryview(mapped) as data:
            self.look(file, data, file, names)

    def look(self, file: str, data: memoryview, name: str, beside: Sequence[str] = (), depth: int = 0) -> None:
        """Look at one file. `name` is its name among the files `beside` it."""
        data = data.cast("B") if data.format != "B" else data
        if depth == 0:
            self._left = MAX_RATIO * max(len(data), 1 << 20)
        kind, problems = kind_of(data, name, beside)
        self.files.append(File(file, kind))
        try:
            if kind in ("zip", "tar", *UNPACKED):
                unpack = self._zip if kind == "zip" else self._tar if kind == "tar" else partial(self._packed, kind)
                unpack(file, data, depth)
                return
            for rule, cause in problems(data, name, beside) if problems else ():
                self.find(file, rule, cause)
        except Exception as exc:  # a reader that was not ready for this file: nobody knows what is in it
            self.find(file, "cannot read", f"{kind}: " + " ".join(f"{type(exc).__name__}: {exc}".split())[:200])

    def _packed(self, kind: str, file: str, data: memoryview, depth: int) -> None:
        """One file, packed."""
        if depth >= MAX_DEPTH:
            self.find(file, "cannot read", f"archives are nested deeper than {MAX_DEPTH}")
            return
        stream, limit = UNPACKED[kind](), min(self._left, MAX_UNPACKED)
        content = stream.decompress(data, limit + 1)
        self._left -= len(content)
        if len(content) > limit:
            self.find(file, "zip bomb", f"{len(data):,} bytes unpack to more than {limit:,}")
            return
        name = re.sub(r"\.(gz|bz2|xz|lzma|tgz)$", "", file.rpartition("/")[2].rpartition(":")[2])
        self.look(f"{file}:{name or 'content'}", memoryview(content), name or "content", (), depth + 1)
        if not stream.eof or stream.unused_data.strip(b"\0"):
            self.find(file, "cannot read", f"it does not end where its {kind} ends")

    def _tar(self, file: str, data: memoryview, depth: int) -> None:
        if depth >= MAX_DEPTH:
            self.find(file, "cannot read", f"archives are nested deeper than {MAX_DEPTH}")
            return
        with tarfile.open(fileobj=cast(IO[bytes], Stream(data)), mode="r:") as archive:
            members = []
            for info in archive:
                members.append(info)
                if len(members) > MAX_MEMBERS:
                    self.find(file, "zip bomb", f"it has more than {MAX_MEMBERS:,} members")
                    return
        names = [info.name for info in members]
        for double in sorted(name for name, count in Counter(names).items() if count > 1):
            self.find(file, "two of one name", f"it has two members {double[:80]!r}")
        for info in members:
            where = f"{file}:{info.name}"
            try:
                check_file(info.name.removeprefix("./").removesuffix("/") or "root")
            except CatalogError as exc:
                self.find(where, "path", exc.message)
                continue
            if info.isreg() and not info.issparse():
                end = info.offset_data + info.size
                self.look(where, data[info.offset_data : end], info.name, names, depth + 1)
            elif not info.isdir():
                self.find(where, "link", "the member is a link, or no file")

    def _zip(self, file: str, data: memoryview, depth: int) -> None:
        if depth >= MAX_DEPTH:
            self.find(file, "cannot read", f"archives are nested deeper than {MAX_DEPTH}")
            return
        with zipfile.ZipFile(Stream(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if len(infos) > MAX_MEMBERS:
                self.find(file, "zip bomb", f"it has {len(infos):,} members")
                return
            if infos and min(info.header_offset for info in infos) != 0:
                self.find(file, "hidden bytes", "the archive begins behind other bytes")
            packed, unpacked = sum(info.compress_size for info in infos), sum(info.file_size for info in infos)
            if unpacked > MAX_RATIO * max(packed, 1 << 16) or packed > len(data):
                self.find(file, "zip bomb", f"{len(data):,} bytes say that they unpack to {unpacked:,}")
                return
            for double in sorted(name for name, count in Counter(names).items() if count > 1):
                self.find(file, "two of one name", f"it has two members {double[:80]!r}")
            torch = any(
                name.endswith("data.pkl") or "/models/" in name or name.endswith("archive_format") for name in names
            )
            for info in infos:
                self._member(file, data, archive, info, names, torch, depth)

    def _member(
        self, file: str, data: memoryview, archive: zipfile.ZipFile, info: zipfile.ZipInfo, names: Sequence[str],
        torch: bool, depth: int,
    ) -> None:  # fmt: skip
        where = f"{file}:{info.filename}"
        try:
            check_file(info.filename.removesuffix("/"))
        except CatalogError as exc:
            self.find(where, "path", exc.message)
            return
        if stat.S_ISLNK(info.external_attr >> 16):
            self.find(where, "link", "the member is a link")
            return
        if info.is_dir():
            return
        if info.flag_bits & 1:
            self.find(where, "cannot read", "it is encrypted")
            return
        if torch and _RAW.fullmatch(info.filename):
            self.files.append(File(where, "numbers"))
            return
        with archive.open(info):  # compares the two headers
            pass
        start = info.header_offset + 30
        start += int.from_bytes(data[start - 4 : start - 2], "little") + int.from_bytes(
            data[start - 2 : start], "little"
        )
        content = data[start : start + info.compress_size]
        if len(content) != info.compress_size:
            self.find(where, "cannot read", "it is longer than the archive")
            return
        if info.compress_type != zipfile.ZIP_STORED:
            self._left -= info.file_size
            if info.file_size > MAX_UNPACKED:
                self.find(where, "cannot read", f"it would have to be unpacked to {info.file_size:,} bytes")
                return
            if self._left < 0:
                self.find(where, "zip bomb", "all archives in it unpack to far more than it is")
                return
            content = _inflated(content, info)
        elif info.file_size != info.compress_size:
            raise zipfile.BadZipFile("a member has two sizes")
        self.look(where, content, info.filename, names, depth + 1)


def _inflated(packed: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """What a member unpacks to. Python's own reader takes a stream that is longer than the archive says, and unpacks it
    whole. Raises BadZipFile for one, and zlib.error."""
    if info.compress_type != zipfile.ZIP_DEFLATED:
        raise zipfile.BadZipFile("a member is packed by what is not unpacked here")
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    content = stream.decompress(packed, info.file_size + 1)
    if len(content) != info.file_size or not stream.eof or stream.unused_data or zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile(f"{info.filename[:80]!r} is not what the archive says")
    return memoryview(content)
