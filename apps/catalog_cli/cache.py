"""cache: what was fetched from remote catalogs."""

from __future__ import annotations

import click

from catalog_cli.group import Group
from catalog_cli.output import json_option, metered, opened, put, reference
from catalog_core import platform
from catalog_core.cache import Cache, parse_size
from catalog_core.errors import NotFound
from catalog_core.show import size
from catalog_core.shown import counted


def _cache() -> Cache:
    place, why = platform.cache_dir()
    if place is None:
        raise NotFound(f"there is no cache: {why}")
    return Cache(place / "cache")


@click.group("cache", cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def cache_command(ctx: click.Context) -> None:
    """Show how much is cached, and what is pinned."""
    if ctx.invoked_subcommand is None:
        found = _cache().usage()
        full = f"{size(found.bytes)} of {size(found.limit)} in {counted(found.files, 'file')}"
        full += f", {size(found.pinned_bytes)} pinned"
        put(ctx, found, lines=[f"{found.place}: {full}", *[f"pinned: {pin}" for pin in found.pins]])


@cache_command.command("trim")
@click.option("--to", metavar="SIZE", help="Leave at most so much, like 5GB; else the limit of the cache.")
@json_option
@click.pass_context
def trim_command(ctx: click.Context, to: str | None) -> None:
    """Remove what was not used for longest; what is pinned stays."""
    count, freed = _cache().trim(None if to is None else parse_size(to, "--to"))
    put(ctx, {"files": count, "bytes": freed}, lines=[f"removed {counted(count, 'file')}, {size(freed)}"])


@cache_command.command("verify")
@json_option
@click.pass_context
def verify_command(ctx: click.Context) -> None:
    """Read every file; remove the damaged ones, which are then fetched again."""
    bad = _cache().verify(metered(ctx))
    put(ctx, {"damaged": bad}, lines=[*[f"removed {digest}" for digest in bad], f"{len(bad)} damaged"])


@cache_command.command("pin")
@reference("ref")
@json_option
@click.pass_context
def pin_command(ctx: click.Context, ref: str) -> None:
    """Fetch REF and keep it, to be used with CATALOG_OFFLINE=1."""
    pin = opened(ctx).pin(ref)
    files = len(pin.digests)
    put(ctx, {"ref": pin.ref, "files": files}, lines=[f"pinned {pin.ref}: {counted(files, 'file')}"])


@cache_command.command("unpin")
@reference("ref")
@json_option
@click.pass_context
def unpin_command(ctx: click.Context, ref: str) -> None:
    """Let REF leave the cache again."""
    was = opened(ctx).unpin(ref)
    put(ctx, {"ref": ref, "pinned": was}, lines=[f"unpinned {ref}" if was else f"{ref} was not pinned"])
