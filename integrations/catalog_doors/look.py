"""What lies at a place: its files, none of them outside, and what each is by its content."""

from __future__ import annotations

import json
import logging
import mmap
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from catalog_core import folders, pointers
from catalog_core.errors import CatalogError, InvalidInput, NotFound, NotTrusted, SerializationError
from catalog_core.names import check_file
from catalog_doors import text
from catalog_scan.scanner import File, Finding, Report, Scanner

log = logging.getLogger("catalog_core")
MAX_FILES = 100_000
MAX_TOLD = 20  # findings that the provenance repeats; the attachment has all of them
BROKEN = frozenset(
    ["cannot read", "hidden bytes", "lying header", "link", "missing data", "path", "two of one name", "zip bomb"]
)
POINTER = "pointer"  # a small file in place of one that is elsewhere
PICKLED = frozenset(["pickle", "torch pickle", "torchscript", "hdf5", "packed"])  # what only --unsafe converts
_TEXTS = frozenset([".yaml", ".yml", ".txt", ".md", ".json", ".toml", ".cfg", ".pbtxt", ".py"])
_PACKED = frozenset(["gzip", "bzip2", "xz", "zlib"])


def tree(root: Path, inside: Path | None = None, *, told: bool = True) -> dict[str, Path]:
    """Every file below `root` by its name there, links resolved; they may lead to a file `inside` only (`root` by
    default). Folders that hold nothing are left out, and `told` of where they are the user's. Raises
    `SerializationError` for other links, and for what is no file."""
    limit = (inside or root).resolve()
    found: dict[str, Path] = {}
    empty: list[str] = []
    for item in folders.walk(root, follow=False):
        target = Path(os.path.realpath(item.path))
        if item.kind == "empty":
            empty.append(item.name)
            continue
        if item.kind == "link":
            if target.is_dir():
                raise SerializationError(f"{item.name} is a link to a folder, which is not followed")
            if not target.is_relative_to(limit):
                raise SerializationError(
                    f"{item.name} is a link that leads out of {limit.name}", hint="copy the file there"
                )
            if not target.is_file():
                raise SerializationError(f"{item.name} is no file", hint="remove it, or mend the link")
        elif item.kind != "file":
            raise folders.wrong(item, root, SerializationError)
        found[check_file(item.name)] = target
        if len(found) > MAX_FILES:
            raise InvalidInput(f"{root} holds more than {MAX_FILES:,} files")
    if not found:
        raise InvalidInput(f"{root} holds no files")
    if empty and told:
        log.warning("%s: folders that hold nothing are left out: %s", root.name, ", ".join(empty[:10]))
    return found


@attrs.frozen
class Looked:
    """Files by name, what each is, and what is wrong with them."""

    files: Mapping[str, Path]
    kinds: Mapping[str, str]
    report: Report

    def wrong(self, names: Iterable[str]) -> list[Finding]:
        """The findings in these files, members of archives included."""
        wanted = set(names)
        return [found for found in self.report.findings if found.file in wanted or _owner(found.file) in wanted]

    def refuse(self, names: Iterable[str], passed: Callable[[Finding], bool] = lambda found: False) -> None:
        """Raise for the first thing that is wrong with these files: `SerializationError` where they are broken or lie,
        `NotTrusted` where they hold code. What `passed` accepts is never read, or checked by who reads it."""
        for found in self.wrong(names):
            if passed(found):
                continue
            what = f"{found.file}: {found.cause} ({found.rule})"
            if found.rule in BROKEN:
                raise SerializationError(what, hint="nothing of it was read; `catalog scan` shows all of it")
            raise NotTrusted(what, hint="nothing was run; `catalog save NAME PATH` keeps a file as it is, unread")

    def elsewhere(self, names: Iterable[str]) -> None:
        """Raise `SerializationError` for the first of these files that only stands for one which is not here."""
        for name in names:
            told = pointers.pointer(self.files[name], name) if self.kinds.get(name) == POINTER else None
            if told is not None:
                raise SerializationError(f"{name} is {told[0]}", hint=told[1])

    def text(self, name: str) -> str:
        """The text of a small file. Raises `NotFound` where there is none, `SerializationError` where it is no text."""
        if name not in self.files:
            raise NotFound(f"the folder holds no {name}", hint="--format names another program, or leave it out")
        return text.decoded(small(self.files[name]), name)

    def told(self) -> dict[str, Any]:
        """The report, short, for the provenance."""
        findings = [f"{found.file}: {found.rule}: {found.cause}" for found in self.report.findings]
        return {"files": len(self.report.files), "findings": len(findings), "first": findings[:MAX_TOLD]}

    def attachment(self) -> bytes:
        """The report, whole."""
        told = attrs.asdict(self.report, recurse=True)
        return json.dumps(told, ensure_ascii=False, indent=1, sort_keys=True).encode()


def look(files: Mapping[str, Path]) -> Looked:
    """Scan files by their content; none is loaded."""
    scanner, kinds = Scanner(), {}
    names = list(files)
    for name, path in files.items():
        with path.open("rb") as file:
            mode = os.fstat(file.fileno())
            if not stat.S_ISREG(mode.st_mode):
                raise SerializationError(f"{name} is no file")
            if mode.st_size == 0:
                scanner.files.append(File(name, "empty"))
                kinds[name] = "empty"
                continue
            at = len(scanner.files)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                scanner.look_mapped(name, mapped, names)
                kind = _kind(scanner.files[at].format, path, bytes(mapped[:64]))
                kinds[name] = POINTER if pointers.pointer(path, name) else kind
    return Looked(files, kinds, scanner.report())


def _kind(format: str, path: Path, head: bytes) -> str:
    """The scanner's word, with what the archives of models are."""
    if format == "pickle" and path.suffix in _TEXTS:  # a line that begins with c or i might be one; nobody loads it
        return "text"
    if format == "text" and head.startswith(b"tree\nversion="):
        return "lightgbm"
    if format == "text" and head.startswith(b'{"learner":'):
        return "xgboost"
    if format in _PACKED or (format == "unknown" and path.suffix in (".pkl", ".pickle", ".joblib", ".z")):
        return "packed"
    if format != "zip":
        return format
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return "zip"
    ends = {name.partition("/")[2] for name in names}
    if {"config.json", "metadata.json"} <= set(names):
        return "keras"
    if "models/model.json" in ends:
        return "pt2"
    if "data.pkl" in ends:
        return "torchscript" if any(end.startswith("code/") for end in ends) else "torch pickle"
    if "schema.json" in names:
        return "skops"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def _owner(file: str) -> str:
    return file.partition(":")[0]


def placed(files: Mapping[str, Path], folder: Path) -> Path:
    """A new folder in which each name is a link to its file."""
    for name, path in files.items():
        place = folder / check_file(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    return folder


def small(path: Path, limit: int = 1 << 20) -> bytes:
    """All of a small file. Raises `SerializationError` for a larger one."""
    if path.stat().st_size > limit:
        raise SerializationError(f"{path.name} is larger than {limit:,} bytes")
    return path.read_bytes()


def fits(check: Any, value: Any) -> bool:
    """Whether a value passes one of the core's checks."""
    try:
        check(value)
    except CatalogError:
        return False
    return True
