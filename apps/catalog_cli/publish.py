"""init, download, copy, export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from catalog_cli.output import json_option, made, opened, put, reference
from catalog_core import foreign, plugins, redact
from catalog_core.handles import Version
from catalog_core.names import check_name, parse_reference
from catalog_core.show import record, size


@click.command("init")
@json_option
@click.pass_context
def init_command(ctx: click.Context) -> None:
    """Make a catalog where --catalog says (or the default one); one that exists is left as it is."""
    catalog = opened(ctx, create=True)
    url = redact.text(catalog.url)
    put(ctx, {"name": catalog.name, "url": url, "id": catalog.id}, lines=[f"{catalog.name} at {url}"])


@click.command("download")
@reference("ref")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def download_command(ctx: click.Context, ref: str, folder: Path) -> None:
    """Write the checked files of REF into FOLDER, which must be new or empty."""
    catalog = opened(ctx)
    target = catalog.download(ref, folder)
    files = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    put(ctx, {"folder": str(target), "files": files}, lines=[f"{target / file}" for file in files])


@click.command("copy")
@reference("ref")
@click.argument("target")
@click.option("--name", help="The name of the model there, if not the same; CATALOG:NAME says it too.")
@json_option
@click.pass_context
def copy_command(ctx: click.Context, ref: str, target: str, name: str | None) -> None:
    """Publish REF, which may begin with its CATALOG:, in another catalog. TARGET is CATALOG:, a URL or a folder."""
    place, mark, rest = target.partition(":")
    if not mark or "://" in target or "/" in place:
        place, rest = target, ""
    ctx.obj["catalog"] = ctx.obj["catalog"] or parse_reference(ref).catalog
    catalog = opened(ctx)
    found = catalog.version(ref)  # before the other catalog is made
    name = check_name(name or rest or found.model)
    with made(ctx, place) as other:
        other.progress = catalog.progress
        before = other.position
        version = catalog.copy(found, other, name)
        put(ctx, _told(version, before), lines=[_line(version, before, f"{other.name}:")])


def _told(version: Version, before: int) -> dict[str, Any]:
    """A version for programs; where it was there at the position `before`, no byte of it is new."""
    return record(version) | ({"new_bytes": 0} if version.row.position <= before else {})


def _line(version: Version, before: int, begin: str = "") -> str:
    """A version for people, likewise."""
    new = "there already" if version.row.position <= before else f"{size(version.summary['new_bytes'])} new"
    return f"{begin}{version.ref}  {size(version.size)}, {new}  {version.digest}"


@click.command("export")
@reference("ref", required=False)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--format", default="bundle", show_default=True, help="bundle, or one that `catalog plugins` lists.")
@json_option
@click.pass_context
def export_command(ctx: click.Context, ref: str | None, path: Path | None, format: str) -> None:
    """Write REF, or all versions of a model, to the new file PATH, with their history; in another format, one version
    to the new folder PATH, or to a .zip file where the format has one. Without REF, the whole catalog to the file PATH,
    or what changed in it since: --format sqlite."""
    if ref is None:
        raise click.UsageError("Missing argument 'PATH'.", ctx)
    if path is None and format == "bundle":
        raise click.UsageError(f"where to? catalog export {ref} PATH", ctx)
    what, where = (None, Path(ref)) if path is None else (ref, path)  # one argument is the path
    written = opened(ctx).export(what, where, format=format)
    if isinstance(written, Path):
        put(ctx, {"path": str(written), "format": format}, lines=[f"{written}  {format}"])
        return
    what = f"{len(written.versions):,} version{'s' * (len(written.versions) > 1)}, {size(written.size)}"
    put(ctx, written, lines=[f"{written.path}  {what}  {written.digest}"])


@click.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@click.option("--format", help="bundle, or one that `catalog plugins` lists; else found out.")
@click.option("--unsafe", is_flag=True, help="Convert pickles and the like, in a process of its own.")
@json_option
@click.pass_context
def import_command(ctx: click.Context, path: Path, name: str | None, format: str | None, unsafe: bool) -> None:
    """Check PATH, a file or folder, and publish what it holds, under NAME or the name it had."""
    if name is not None:
        check_name(name)  # this too before a catalog is made
    foreign.spec_for(plugins.registry(), path, format)
    catalog = opened(ctx, publish=True)
    before = catalog.position
    versions = catalog.import_(path, name, format=format, unsafe=unsafe)
    lines = [_line(version, before) for version in versions]
    put(ctx, [_told(version, before) for version in versions], lines=lines)
