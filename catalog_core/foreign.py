"""Models in the formats of other programs: read into a draft, written into a folder. The formats are plug-ins."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_core import about as details
from catalog_core import folders, pointers, redact
from catalog_core.durable import translated
from catalog_core.errors import InvalidInput, MissingPlugin, NotFound, NotTrusted, SerializationError
from catalog_core.names import check_name, check_together
from catalog_core.records import Foreign
from catalog_core.specs import FormatSpec

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.draft import Draft
    from catalog_core.handles import Version
    from catalog_core.plugins import Registry

BUNDLE = "bundle"  # the catalog's own: a file with versions and their history (catalog_core.bundle)
MAX_INSIDE, MAX_SEEN, MAX_DEEP = 20, 2000, 5  # of what is looked for in a folder that is no model itself
log = logging.getLogger("catalog_core")


def import_(
    catalog: Catalog, path: Path, name: str | None, spec: FormatSpec, *, unsafe: bool, **about: Any
) -> list[Version]:
    """Publish what a reader finds at `path`, one version or several, oldest first; `about` is what is known beside.
    Nothing is published before all of it was read and checked. Raises what the reader and `Catalog.save` raise."""
    if spec.reader is None:
        raise InvalidInput(f"the format {spec.name!r} is written only")
    read = catalog.repository.registry.load(spec.reader, spec.extra)
    with ExitStack() as open_:
        scratch = open_.enter_context(tempfile.TemporaryDirectory(prefix="catalog-import-"))
        open_.enter_context(translated(str(path), reading=True))
        result: Foreign | Sequence[Foreign] = read(path, Path(scratch), unsafe)
        found = [result] if isinstance(result, Foreign) else list(result)
        if spec.instead is not None:
            log.warning("%s: kept as it is: it is %s", path.name, spec.instead)
        drafts = [open_.enter_context(_draft(catalog, path, name, spec, one, dict(about))) for one in found]
        return [_published(draft.save(), one) for draft, one in zip(drafts, found, strict=True)]


def _draft(
    catalog: Catalog, path: Path, name: str | None, spec: FormatSpec, found: Foreign, about: dict[str, Any]
) -> Draft:
    """What was found, prepared; without its example where that does not run."""
    for note in found.notes:
        log.warning("%s: %s", path.name, note)
    chosen = check_name(name or found.name or path.stem.partition(":")[0])  # "gan:v3", as W&B has it
    check_together([check_name(key, "attachment") for key in found.attachments], "attachment")
    about = joined(about, found.about)
    imported = details.without_secrets({"format": spec.name, "name": path.name, **found.provenance})
    for key in ("tags", "params"):
        if key in found.about:
            about[key] = {**about[key], **redact.tree(found.about[key])}
    about["provenance"] = {**about.get("provenance", {}), "imported": imported}
    try:
        return catalog.prepare(chosen, components=found.components, **about)
    except (InvalidInput, SerializationError, MissingPlugin, NotTrusted, MemoryError) as exc:  # not of the store
        if "example" not in found.about:
            raise
        log.warning("%s: its example does not run, and is left out: %s", path.name, str(exc) or "out of memory")
        for key in ("example", "baseline"):
            about.pop(key, None)
        return catalog.prepare(chosen, components=found.components, **about)


def _published(version: Version, found: Foreign) -> Version:
    """A version with its attachments; its card becomes that of a model which has none."""
    for key, content in found.attachments.items():
        version = version.attach(key, content)
    if found.card is not None and version.catalog.model(version.model).card is None:  # one that is there stays
        version.catalog.model(version.model).set_card(found.card)
        version = version.catalog.version(version)
    return version


def joined(known: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of `Catalog.prepare` of two sources; where both know a thing, or a key of it, what was found counts."""
    result = {**known, **found}
    for key in known.keys() & found.keys():
        if isinstance(known[key], Mapping) and isinstance(found[key], Mapping):
            result[key] = {**known[key], **found[key]}
    return result


def export(version: Version, folder: Path, spec: FormatSpec) -> Path:
    """Write a version into a new folder, or a new `.zip` file where the format has one. Raises `InvalidInput` where
    something is there, and what the writer raises."""
    if spec.writer is None:
        if spec.whole is not None:
            raise InvalidInput(f"the format {spec.name!r} holds the whole catalog", hint="leave the reference out")
        formats = version.catalog.repository.registry.formats.values()
        written = [BUNDLE, *sorted(other.name for other in formats if other.writer is not None)]
        raise InvalidInput(f"the format {spec.name!r} is read only", hint=f"written are {', '.join(written)}")
    if folder.exists():
        raise InvalidInput(f"{folder} exists already", hint="name a new folder")
    write = version.catalog.repository.registry.load(spec.writer, spec.extra)
    with translated(str(folder)):
        staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            made = staged / "made"
            made.mkdir()
            write(version, made)
            if folder.suffix == ".zip" and spec.packer is not None:
                pack = version.catalog.repository.registry.load(spec.packer, spec.extra)
                pack(made, staged / folder.name)
                made = staged / folder.name
            made.rename(folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return folder


def export_whole(catalog: Catalog, path: Path, spec: FormatSpec | None) -> Path:
    """Write the whole catalog to `path`, or bring that file up to date. Raises what the writer raises."""
    if spec is None or spec.whole is None:
        called = BUNDLE if spec is None else spec.name
        raise InvalidInput(f"the format {called!r} holds no whole catalog", hint="name a model or a version to export")
    write = catalog.repository.registry.load(spec.whole, spec.extra)
    with translated(str(path)):
        write(catalog, path)
    return path


def spec_for(registry: Registry, path: Path, name: str | None) -> FormatSpec | None:
    """The format called `name`, or else that of `path`; None for a bundle of this catalog's own. Raises
    `MissingPlugin`, `NotFound`, `SerializationError` (a file that only stands for another)."""
    from catalog_core import bundle

    if path.exists() and not path.is_dir():
        folders.check_file_alone(path)
    if name is not None:
        return None if name == BUNDLE else registry.format(name)
    if not path.exists():
        raise NotFound(f"{path} does not exist")
    if not path.is_dir():
        folders.read(path)  # no pipe is read, nor anything else without an end
    if bundle.begins_so(path):  # a bundle is one whatever it is called: `m.tar` is no archive of somebody else
        return None
    spec = registry.format_of(path)
    if spec is None and (path.is_dir() or not bundle.resembles(path)):
        formats = registry.formats.values()
        known = ", ".join(sorted(each.name for each in formats if each.instead is None)) or "none is installed"
        inside = _inside(registry, path) if path.is_dir() else []
        if inside:
            more = f" and {len(inside) - 5} more" if len(inside) > 5 else ""
            raise NotFound(
                f"{path} is no model, and holds {', '.join(f'{at} ({kind})' for at, kind in inside[:5])}{more}",
                hint=f"import one: catalog import {path / inside[0][0]}",
            )
        if path.is_file() and (told := pointers.pointer(path)) is not None:
            raise SerializationError(f"{path} is {told[0]}", hint=told[1])
        raise NotFound(
            f"{path} is a {'folder' if path.is_dir() else 'file'} of no known format ({known})",
            hint="`catalog save NAME PATH` keeps it as it is",
        )
    return spec


def _inside(registry: Registry, path: Path) -> list[tuple[str, str]]:
    """The models within a folder that is none, by their place in it, and the formats they are in; a few levels deep."""
    found: list[tuple[str, str]] = []
    todo = [(path, 0)]
    seen = 0
    while todo and len(found) <= MAX_INSIDE and seen < MAX_SEEN:
        folder, depth = todo.pop(0)
        with translated(str(folder), reading=True):
            items = sorted(item for item in folder.iterdir() if not item.is_symlink())
        for item in items[: MAX_SEEN - seen]:
            seen += 1
            spec = registry.format_of(item) if item.is_dir() or item.is_file() else None
            if spec is not None:
                found.append((item.relative_to(path).as_posix(), spec.name))
            elif item.is_dir() and depth < MAX_DEEP:
                todo.append((item, depth + 1))
    return found
