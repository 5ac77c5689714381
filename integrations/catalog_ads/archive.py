"""Artifact folders: their files, their manifest (version 1), and the zip file that OCI takes, written and read."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

from catalog_core import folders
from catalog_core.errors import CatalogError, IntegrityError, InvalidInput, SerializationError
from catalog_core.names import check_file

MANIFEST = "model_artifact_manifest.json"
SCORE = "score.py"
RUNTIME = "runtime.yaml"
# ADS rewrites or adds these when it introspects or prepares an artifact; nothing is loaded from them.
REWRITTEN = frozenset(
    [
        RUNTIME,
        ".model-ignore",
        "input_schema.json",
        "output_schema.json",
        "test_json_output.json",
        "test_html_output.html",
    ]
)
MAX_FILES = 100_000
MAX_UNPACKED = 64 << 30
MAX_RATIO = 200  # unpacked to packed, beyond which an archive is a bomb
MAX_DEPTH = 64
MAX_TEXT = 10 << 20  # bytes of a JSON, YAML or Python file that is read whole
DATE = (1980, 1, 1, 0, 0, 0)  # of all members: the same version gives the same bytes
GENERATED_AT = "1980-01-01T00:00:00+00:00"
BLOCK = 1 << 20


def files_of(folder: Path) -> dict[str, Path]:
    """Every file by its name in the folder, sorted, less `__pycache__`. Raises `SerializationError` for a link, or a
    name that could not be stored."""
    found = folders.read(folder, follow=False, skip=lambda name: name == "__pycache__", error=SerializationError)
    for name in found.files:
        check_file(name)
    if len(found.files) > MAX_FILES:
        raise SerializationError(f"the artifact holds more than {MAX_FILES:,} files")
    return dict(found.files)


def digest(path: Path) -> tuple[str, int]:
    """SHA-256 in hexadecimal, and the size in bytes."""
    state, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            state.update(block)
            size += len(block)
    return state.hexdigest(), size


def write_manifest(folder: Path) -> None:
    """List every other file of the folder, with digest and size."""
    files = {}
    for name, path in files_of(folder).items():
        if name != MANIFEST:
            sha256, size = digest(path)
            files[name] = {"sha256": sha256, "size": size}
    told = {"version": 1, "generated_by": "catalog-core", "generated_at": GENERATED_AT, "files": files}
    (folder / MANIFEST).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def check_manifest(folder: Path) -> bool:
    """Hold the folder against its manifest, less the files that tools rewrite; False where it has none. Raises
    `IntegrityError` for a file that is damaged, missing, or not listed."""
    if not (folder / MANIFEST).is_file():
        return False
    told = read_json(folder / MANIFEST)
    listed = told.get("files") if isinstance(told, dict) else None
    if not isinstance(listed, dict) or told.get("version") != 1:
        raise IntegrityError(f"{MANIFEST} is no manifest of version 1")
    there = {name: path for name, path in files_of(folder).items() if name != MANIFEST}
    for name in sorted((listed.keys() ^ there.keys()) - REWRITTEN):
        raise IntegrityError(f"{name[:200]!r} is {'missing' if name in listed else 'not listed in the manifest'}")
    for name, path in there.items():
        if name in REWRITTEN:
            continue
        sha256, size = digest(path)
        if listed[name] != {"sha256": sha256, "size": size}:
            raise IntegrityError(f"{name[:200]!r} is not what the manifest says", hint="fetch the artifact again")
    return True


def read_json(path: Path) -> Any:
    """A JSON file of at most 10 MiB, nested 64 deep at most, of texts that are Unicode. Raises `SerializationError`."""
    try:
        found = json.loads(read_text(path))
        waiting = [(found, 0)]
        while waiting:
            item, depth = waiting.pop()
            if depth > MAX_DEPTH:
                raise ValueError("it is nested too deeply")
            inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
            waiting += [(part, depth + 1) for part in inner]
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"{path.name} is no JSON: {str(exc)[:200]}") from exc
    return found


def read_text(path: Path) -> str:
    """A text file of at most 10 MiB. Raises `SerializationError`."""
    if not path.is_file():
        raise SerializationError(f"the artifact holds no {path.name}")
    if path.stat().st_size > MAX_TEXT:
        raise SerializationError(f"{path.name} has {path.stat().st_size:,} bytes; {MAX_TEXT:,} are read")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise SerializationError(f"{path.name} is no text in UTF-8") from exc


def pack(folder: Path, file: Path) -> None:
    """Write the zip file of an artifact folder: files at its top level, uncompressed as ADS has it; the bytes depend
    on the files only."""
    with zipfile.ZipFile(file, "x", zipfile.ZIP_STORED) as archive:
        for name, path in files_of(folder).items():
            info = zipfile.ZipInfo(name, DATE)
            info.create_system = 3  # Unix, on every system
            info.external_attr = (0o755 if path.stat().st_mode & 0o100 else 0o644) << 16
            info.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, BLOCK)


def names_of(file: Path) -> set[str]:
    """The names of a zip file's members, without their folders; the two that an artifact has, where it is broken."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return {SCORE, RUNTIME}  # and `unpack` says what is wrong


def unpack(file: Path, target: Path) -> Path:
    """Unpack a zip file into the empty folder `target`; return the folder that holds `score.py`: that, or the only
    folder in it. Raises `SerializationError` for one that is broken, too large, or would write elsewhere."""
    try:
        with zipfile.ZipFile(file) as archive:
            for info in _checked(archive, file.stat().st_size):
                _extract(archive, info, target)
    except CatalogError:
        raise
    except Exception as exc:  # zipfile meets damage with every kind of error
        if isinstance(exc, OSError) and exc.errno != errno.EINVAL:  # that is a place before the beginning
            raise
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())[:200]
        raise SerializationError(f"{file.name} is no readable zip file: {cause}") from exc
    inside = list(target.iterdir())
    if not (target / SCORE).exists() and len(inside) == 1 and inside[0].is_dir():
        return inside[0]
    return target


def _checked(archive: zipfile.ZipFile, packed: int) -> list[zipfile.ZipInfo]:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MAX_FILES:
        raise SerializationError(f"the zip file has {len(infos):,} members; {MAX_FILES:,} are read")
    total = sum(info.file_size for info in infos)
    if total > min(MAX_UNPACKED, MAX_RATIO * packed + (1 << 20)):
        raise SerializationError(f"the zip file of {packed:,} bytes says that it unpacks to {total:,}")
    seen: set[str] = set()
    for info in infos:
        name = check_file(info.filename)
        if name.lower() in seen:
            raise SerializationError(f"the zip file has two members {name[:80]!r}")
        seen.add(name.lower())
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise SerializationError(f"member {name[:80]!r} is a link, or no file")
        if info.flag_bits & 1:
            raise SerializationError(f"member {name[:80]!r} is encrypted")
    return infos


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    path = target / info.filename
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InvalidInput(f"member {info.filename[:80]!r} lies in a file, not in a folder") from exc
    left = info.file_size
    with archive.open(info) as source, path.open("xb") as file:
        while block := source.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise SerializationError(f"member {info.filename[:80]!r} is longer than it says")
            file.write(block)
    if left:
        raise SerializationError(f"member {info.filename[:80]!r} is shorter than it says")
    if info.external_attr >> 16 & 0o100:
        path.chmod(path.stat().st_mode | 0o100)
