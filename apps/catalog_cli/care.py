"""verify, fsck, gc, config, plugins, doctor."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from catalog_cli.output import json_option, opened, put, put_table, reference
from catalog_core import config, platform, plugins
from catalog_core.show import size


@click.command("verify")
@reference("ref")
@json_option
@click.pass_context
def verify_command(ctx: click.Context, ref: str) -> None:
    """Load and run REF in a fresh process, and compare with what was recorded."""
    report = opened(ctx).verify(ref)
    put_table(ctx, report.rows(), "nothing to check")
    if not report.passed:
        sys.exit(1)


@click.command("fsck")
@json_option
@click.pass_context
def fsck_command(ctx: click.Context) -> None:
    """Read and check every entry and every byte."""
    catalog = opened(ctx)
    found = catalog.fsck(progress=catalog._progress)
    read = f"{found.entries:,} entries, {found.versions:,} versions, {found.blobs:,} blobs, {size(found.bytes)} read"
    lines = [p.message if p.message.startswith(p.what) else f"{p.what}: {p.message}" for p in found.problems]
    count = len(lines)
    put(ctx, found, lines=[*lines, f"{read}: {f'{count} problem' + 's' * (count > 1) if lines else 'clean'}"])
    if not found.clean:
        sys.exit(1)


@click.command("gc")
@click.option("--grace", default=86400.0, show_default=True, help="Spare what is younger, in seconds.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@click.pass_context
def gc_command(ctx: click.Context, grace: float, dry_run: bool) -> None:
    """Collect blobs that no version needs, and what killed writers left behind."""
    result = opened(ctx).gc(grace=grace, dry_run=dry_run)
    verb = "would collect" if dry_run else "collected"
    what = f"{result.blobs:,} blobs, {size(result.bytes)}, {result.temporaries} temporaries"
    put(ctx, result, lines=[f"{verb} {what}"])


@click.command("config")
@json_option
@click.pass_context
def config_command(ctx: click.Context) -> None:
    """Show the configured catalogs, the default, and the files they come from."""
    known = config.settings()
    target = config.resolve(ctx.obj["catalog"])
    place, why = platform.cache_dir()
    data = {
        "catalog": target.name, "url": target.url, "source": target.source, "files": list(known.files),
        "catalogs": {name: item.url for name, item in known.catalogs.items()},
        "cache": str(place) if place else "memory", "cache place": why,
    }  # fmt: skip
    put(ctx, data)


@click.command("plugins")
@json_option
@click.pass_context
def plugins_command(ctx: click.Context) -> None:
    """Show what the installed plug-ins bring, and what is wrong with them."""
    registry = plugins.registry()
    if ctx.obj["json"]:
        problems = [{"plugin": problem.plugin, "message": problem.message} for problem in registry.problems]
        put(ctx, {"plugins": registry.describe(), "problems": problems})
        return
    put_table(ctx, registry.describe(), "no plug-in is installed")
    for problem in registry.problems:
        click.echo(f"problem: {problem.plugin} {problem.message}", err=True)


@click.command("doctor")
@json_option
@click.pass_context
def doctor_command(ctx: click.Context) -> None:
    """Check this catalog and this machine."""
    catalog = opened(ctx)
    folder = Path(catalog.url.partition("://")[2])
    data = {
        "catalog": catalog.name, "url": catalog.url, "id": catalog.id, "entries": catalog.position + 1,
        "writable": catalog.writable, "file system": platform.file_system(folder), "index": str(catalog._index.path),
        "index place": catalog.index_place, "actor": catalog.actor,
        "governance": "advisory: no root keys, an actor is only a name",
        "problems": [f"{problem.plugin}: {problem.message}" for problem in plugins.registry().problems],
    }  # fmt: skip
    put(ctx, data)
