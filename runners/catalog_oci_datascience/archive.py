"""A folder as a zip of which every byte is settled, and a zip as a folder."""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
import zlib
from pathlib import Path

import attrs

from catalog_core import folders
from catalog_core.errors import IntegrityError, InvalidInput, NotTrusted
from catalog_core.names import check_file

BLOCK = 1 << 20
GROWTH, SMALL = 100, 1 << 30  # an archive may grow to so many times its size, or to so many bytes


@attrs.frozen
class Packed:
    """A file that is to be sent: size in bytes, MD5 as the service reports it (base64), SHA-256 (hexadecimal)."""

    path: Path
    size: int
    md5: str
    sha256: str


def measure(path: Path) -> Packed:
    """Size and digests of a file."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(BLOCK):
            md5.update(piece)
            sha256.update(piece)
    return Packed(path, path.stat().st_size, base64.b64encode(md5.digest()).decode(), sha256.hexdigest())


def files(folder: Path) -> dict[str, Path]:
    """The files below a folder by their relative names, in the order of these. Raises `InvalidInput` for links and for
    what is no file."""
    return dict(sorted(folders.read(folder, follow=False).files.items()))


def pack(folder: Path, path: Path) -> Packed:
    """Write the files below `folder` to a new zip: sorted, not compressed (weights do not shrink), without times, so
    that the same files give the same bytes. Raises `InvalidInput` for an empty folder."""
    found = files(folder)
    if not found:
        raise InvalidInput("the artifact holds no files")
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, source in found.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = (0o100755 if source.stat().st_mode & 0o100 else 0o100644) << 16
            info.file_size = source.stat().st_size  # decides whether ZIP64 is needed
            with source.open("rb") as file, archive.open(info, "w") as target:
                shutil.copyfileobj(file, target, BLOCK)
    return measure(path)


def unpack(path: Path, folder: Path) -> None:
    """Write the files of a zip below a new folder. Raises `NotTrusted` for a path that leaves it, a link, a name that
    comes twice, or a bomb, before anything is written; `IntegrityError` for a damaged file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            _check(members, max(path.stat().st_size * GROWTH, SMALL))
            for info in members:
                target = folder / info.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, BLOCK)
                if info.external_attr >> 16 & 0o100:
                    target.chmod(target.stat().st_mode | 0o100)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        FileExistsError,
        NotADirectoryError,
    ) as exc:
        raise IntegrityError(f"the artifact is no zip that can be read: {exc}") from exc


def _check(members: list[zipfile.ZipInfo], most: int) -> None:
    seen: set[str] = set()
    for info in members:
        try:
            check_file(info.filename)
        except InvalidInput as exc:
            raise NotTrusted(f"the artifact holds a file of a forbidden name: {exc.message}") from exc
        if (info.external_attr >> 16) & 0o170000 == 0o120000:
            raise NotTrusted(f"{info.filename!r} in the artifact is a link")
        if info.filename.lower() in seen:
            raise NotTrusted(f"{info.filename!r} is in the artifact twice")
        seen.add(info.filename.lower())
    if sum(info.file_size for info in members) > most:
        raise NotTrusted(f"the artifact would grow to more than {most:,} bytes")
