"""Archives, as tools pack models to send them: unpacked in scratch, within bounds, and read as the folder they are."""

from __future__ import annotations

import importlib
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any, cast

import attrs

from catalog_core.errors import CatalogError, InvalidInput, NotFound, SerializationError
from catalog_core.names import check_file
from catalog_core.records import Foreign
from catalog_core.specs import FormatSpec
from catalog_doors import files
from catalog_doors.look import MAX_FILES, fits, look, tree
from catalog_scan.scanner import MAX_RATIO

MAX_UNPACKED = 64 << 30
BLOCK = 1 << 20
ENDS = (".tar.gz", ".tgz", ".tar", ".zip", ".mar", ".bentomodel", ".nemo")


def read(path: Path, scratch: Path, unsafe: bool) -> Foreign | list[Foreign]:
    """What the archive holds, read as a folder of its format: MLflow's, the Hub's, Triton's …, or the model among its
    files. An archive within it is kept as it is. Raises `SerializationError` for one that is broken, unpacks to far
    more than it is, or would write elsewhere; and what the reader of its format raises."""
    name = next((path.name[: -len(end)] for end in ENDS if path.name.endswith(end)), path.stem)
    top = scratch / "archive" / (name if fits(check_file, name) else "model")
    top.mkdir(parents=True)
    unpack(path, top)
    folder = top
    while _spec(folder) is None and len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    found = [attrs.evolve(each, name=each.name or name) for each in inner(folder, scratch, unsafe, archive=path.name)]
    return found[0] if len(found) == 1 else found


def inner(folder: Path, scratch: Path, unsafe: bool, **told: Any) -> list[Foreign]:
    """A folder within what another tool keeps, read in its own format, else as the model among its files. `told` goes
    into the provenance of what is found. Raises `NotFound` where no file is of a model, and what the reader raises."""
    spec, place = _spec(folder), scratch / "inner"
    place.mkdir()
    reader: Any = files.read
    if spec is None:
        _check_holds_one(folder)
    elif spec.reader is not None:
        module, _, function = spec.reader.partition(":")
        reader = getattr(importlib.import_module(module), function)
        told["inner_format"] = spec.name
    found = reader(folder, place, unsafe)
    made = [found] if isinstance(found, Foreign) else found
    return [attrs.evolve(each, provenance={**told, **each.provenance}) for each in made]


def _spec(folder: Path) -> FormatSpec | None:
    """The format of an inner folder, of those that are read here."""
    from catalog_doors import catalog_register_formats

    aside = ("wandb-artifact", "kedro")  # whose readers come here
    specs = [spec for spec in catalog_register_formats() if spec.instead is None and spec.name not in aside]
    return next((spec for spec in specs if spec.fits(folder)), None)


def _check_holds_one(folder: Path) -> None:
    """Raise `NotFound` for a folder without a model that is read; it names one that is known only."""
    looked = look(tree(folder))
    if any(kind in files.MODELS for kind in looked.kinds.values()):
        return
    from catalog_doors import INSTEAD

    known = next((f"{name} is {what}" for name in looked.files for marks, what in INSTEAD.values()
                  if any(mark.startswith("*.") and fnmatch(name, mark) for mark in marks)), None)  # fmt: skip
    raise NotFound(
        f"{folder.name} holds no model that is read here" + (f"; {known}" if known else ""),
        hint="`catalog save NAME PATH` keeps a file or folder as it is",
    )


def unpack(path: Path, target: Path) -> None:
    """Unpack a zip or tar file into an empty folder. Raises `SerializationError`."""
    try:
        total, packed = 0, path.stat().st_size
        seen: set[str] = set()
        for count, (member, content) in enumerate(_members(path)):
            name = check_file(member.removeprefix("./"))
            if name.lower() in seen:
                raise SerializationError(f"{path.name} has two members {name[:80]!r}")
            seen.add(name.lower())
            if count >= MAX_FILES:
                raise SerializationError(f"{path.name} has more than {MAX_FILES:,} members")
            place = target / name
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                file = place.open("xb")
            except (FileExistsError, NotADirectoryError) as exc:
                raise InvalidInput(f"member {name[:80]!r} of {path.name} lies in a file, or where one is") from exc
            with file:
                while block := content.read(BLOCK):
                    total += len(block)
                    if total > min(MAX_UNPACKED, MAX_RATIO * max(packed, BLOCK)):
                        raise SerializationError(
                            f"{path.name} has {packed:,} bytes, and unpacks to more than {total:,}"
                        )
                    file.write(block)
    except CatalogError:
        raise
    except Exception as exc:  # both libraries meet damage with every kind of error
        if isinstance(exc, OSError) and exc.filename is not None:
            raise
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())[:200]
        raise SerializationError(f"{path.name} is no readable archive: {cause}") from exc


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of an archive, by name. Raises `SerializationError` for links, and for what is encrypted."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            with tarfile.open(path, "r:*") as packed:
                for info in packed:
                    if info.isreg():
                        yield info.name, cast(IO[bytes], packed.extractfile(info))
                    elif not info.isdir():
                        raise SerializationError(f"member {info.name[:80]!r} of {path.name} is a link, or no file")
            return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise SerializationError(f"member {member.filename[:80]!r} of {path.name} is a link, or no file")
            if member.flag_bits & 1:
                raise SerializationError(f"member {member.filename[:80]!r} of {path.name} is encrypted")
            with archive.open(member) as content:
                yield member.filename, content
