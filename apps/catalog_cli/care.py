"""verify, fsck, gc, config, plugins, doctor."""

from __future__ import annotations

import sys

import click

from catalog_cli.output import json_option, notify, opened, put, put_table, reference, say
from catalog_core import config, doctor, platform, plugins, redact
from catalog_core.catalog import Catalog
from catalog_core.show import size
from catalog_core.shown import counted


@click.command("verify")
@reference("ref")
@click.option("--trust", is_flag=True, help="Also run code that the author of REF brought.")
@json_option
@click.pass_context
def verify_command(ctx: click.Context, ref: str, trust: bool) -> None:
    """Load and run REF in a fresh process, and compare with what was recorded."""
    report = opened(ctx).verify(ref, trust=trust)
    put_table(ctx, report.rows(), "nothing to check")
    if not report.passed:
        sys.exit(1)


@click.command("fsck")
@click.option("--replicas", is_flag=True, help="Of a hybrid: what each part stores, by what the stores report.")
@click.option("--deep", is_flag=True, help="With --replicas: read all of it.")
@click.option("--mend", is_flag=True, help="With --replicas: bring good bytes to where they lack.")
@json_option
@click.pass_context
def fsck_command(ctx: click.Context, replicas: bool, deep: bool, mend: bool) -> None:
    """Read and check every entry and every byte.

    With --replicas: hold what each part of a hybrid stores against the journal, by sizes and checksums that the stores
    report, without reading it.
    """
    catalog = opened(ctx, damaged=not replicas)
    notify(ctx, catalog)
    if replicas:
        _audit(ctx, catalog, deep, mend)
        return
    if deep or mend:
        raise click.UsageError("--deep and --mend go with --replicas")
    found = catalog.fsck(progress=catalog.progress)
    entries = f"{found.entries:,} {'entry' if found.entries == 1 else 'entries'}"
    read = f"{entries}, {counted(found.versions, 'version')}, {counted(found.blobs, 'blob')}, {size(found.bytes)} read"
    lines = [p.message if p.message.startswith(p.what) else f"{p.what}: {p.message}" for p in found.problems]
    count = len(lines)
    put(ctx, found, lines=[*lines, f"{read}: {f'{count} problem' + 's' * (count > 1) if lines else 'clean'}"])
    if not found.clean:
        sys.exit(1)


def _audit(ctx: click.Context, catalog: Catalog, deep: bool, mend: bool) -> None:
    found = catalog.audit(deep=deep, mend=mend, progress=catalog.progress)
    lines = [f"{flaw.part}: {flaw.ref}: {flaw.message}{' (mended)' if flaw.mended else ''}" for flaw in found.flaws]
    rest = found.blobs - found.proven - len(found.flaws)
    told = f"; of {rest:,} only the size is known (--deep reads them)" if rest else ""
    count = f"{len(lines)} problem{'s' * (len(lines) > 1)}" if lines else "clean"
    lines.append(f"{counted(found.blobs, 'blob')} asked for, {found.proven:,} proven by checksums{told}: {count}")
    if found.flaws and not mend:
        lines.append("catalog fsck --replicas --mend brings the good bytes from another part")
    put(ctx, found, lines=lines)
    if any(not flaw.mended for flaw in found.flaws):
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
    what = f"{counted(result.blobs, 'blob')}, {size(result.bytes)}, {counted(result.temporaries, 'temporary file')}"
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
        "catalog": target.name, "url": redact.text(target.url), "source": target.source, "files": list(known.files),
        "catalogs": {name: redact.text(item.url) for name, item in known.catalogs.items()},
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
        say(f"problem: {problem.plugin} {problem.message}", err=True)


@click.command("doctor")
@click.argument("place", required=False)
@click.option("--rounds", default=doctor.ROUNDS, show_default=True, type=click.IntRange(1, 10000), help="Of the race.")
@click.option("--read-only", is_flag=True, help="Write nothing.")
@json_option
@click.pass_context
def doctor_command(ctx: click.Context, place: str | None, rounds: int, read_only: bool) -> None:
    """Check PLACE (a name, a URL or a folder; else the catalog in use) and this machine.

    It logs in, writes, races for, reads and removes objects below probes/. A race that was passed is noted there: the
    place then counts as safe for many writers.
    """
    target = config.resolve(place or ctx.obj["catalog"])
    checks = list(doctor.examine(target, write=not read_only, rounds=rounds))
    put_table(ctx, checks, "nothing to check")
    if any(check.result == "failed" for check in checks):
        sys.exit(1)
