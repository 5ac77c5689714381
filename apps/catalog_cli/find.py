"""list, search, show, compare, history."""

from __future__ import annotations

from typing import Any

import click

from catalog_cli.output import json_option, notify, opened, parsed, put, put_table, reference, say
from catalog_core.catalog import Catalog
from catalog_core.errors import NotFound
from catalog_core.handles import Model, Version
from catalog_core.names import Reference, parse_reference
from catalog_core.show import size
from catalog_core.shown import counted

MOST = 1_000_000  # rows of one listing (values.check_limit)


def limit_option(default: int) -> Any:
    """How many rows a listing shows."""
    return click.option(
        "--limit",
        default=default,
        type=click.IntRange(1, MOST),
        metavar="N",
        show_default=True,
        help="At most so many.",
    )


def _more(cut: bool, limit: int, told: str = "more follow") -> None:
    """Say that a listing was cut, to standard error: programs and people are both told."""
    if cut:
        say(f"{told}: --limit {min(10 * limit, MOST)} shows ten times as many", err=True)


@click.command("list")
@reference("name", required=False)
@limit_option(100)
@json_option
@click.pass_context
def list_command(ctx: click.Context, name: str | None, limit: int) -> None:
    """List the models, or the versions of NAME, newest first."""
    catalog = opened(ctx)
    if name is not None:
        versions = catalog.versions(name)
        put_table(ctx, versions[:limit], f"{name} has no versions")
        _more(len(versions) > limit, limit)
    else:
        page = catalog.models(limit=limit)
        put_table(ctx, list(page), f"{catalog.name} is empty: catalog save NAME PATH")
        _more(page.cursor is not None, limit)
    notify(ctx, catalog)


@click.command("search")
@click.argument("query", nargs=-1)
@limit_option(100)
@click.option("--cursor", help="Go on behind a page: what its last line said.")
@json_option
@click.pass_context
def search_command(ctx: click.Context, query: tuple[str, ...], limit: int, cursor: str | None) -> None:
    """Find versions: a filter like 'metrics.auc > 0.9 and tags.team = cms', or plain words."""
    page = opened(ctx).search(" ".join(query), limit=limit, cursor=cursor)
    put_table(ctx, list(page), "nothing found")
    for note in page.notes:
        say(note, err=True)
    if page.cursor is not None:
        say(f"more follow: --cursor {page.cursor}", err=True)


def _past_version(past: dict[str, Any], target: Reference, moment: str) -> dict[str, Any]:
    number = past["aliases"].get(target.alias) if target.alias else target.number
    for version in past["versions"]:
        if version["number"] == number or (target.digest and version["digest"].startswith(target.digest)):
            found: dict[str, Any] = version
            return found
    raise NotFound(f"there was no {target} at {moment}", hint=f"catalog show {target.name} --as-of '{moment}'")


@click.command("show")
@reference("ref")
@click.option("--as-of", metavar="TIME", help="A past moment (ISO 8601), or '#N' for a position of the journal.")
@json_option
@click.pass_context
def show_command(ctx: click.Context, ref: str, as_of: str | None) -> None:
    """Show a version (NAME@N, NAME@ALIAS) or a model (NAME)."""
    catalog = opened(ctx)
    target = parsed(catalog, ref)
    if as_of is not None:
        past = catalog.as_of(target.name, as_of)
        if target.selector is not None:
            put(ctx, _past_version(past, target, as_of))
            return
        put(ctx, past if ctx.obj["json"] else {**past, "versions": None})
        if not ctx.obj["json"]:
            say()
            put_table(ctx, past["versions"], "no versions")
        return
    item: Model | Version
    if target.selector is not None:
        item = catalog.version(target)
    else:
        item = catalog.model(target.name)
    put(ctx, item)
    if isinstance(item, Model) and not ctx.obj["json"]:
        say()
        put_table(ctx, item.versions, "no versions")
    notify(ctx, catalog)


@click.command("compare")
@reference("first")
@reference("second")
@json_option
@click.pass_context
def compare_command(ctx: click.Context, first: str, second: str) -> None:
    """Compare two versions: metadata, metrics, files, and tensor by tensor. One that begins with the name of another
    catalog, CATALOG:NAME@N, is read there."""
    catalog = opened(ctx)
    comparison = catalog.compare(_anywhere(ctx, catalog, first), _anywhere(ctx, catalog, second))
    if ctx.obj["json"]:
        put(ctx, comparison)
        return
    put_table(ctx, comparison.rows(), "no differences")
    shared = f"{size(comparison.shared_bytes)} of {size(comparison.total_bytes)} shared"
    say(f"{counted(comparison.same, 'tensor')} equal, {shared}")


def _anywhere(ctx: click.Context, catalog: Catalog, ref: str) -> Version:
    """The version of a reference, also of another catalog that the configuration names."""
    target = parse_reference(ref)
    if target.catalog not in (None, catalog.name):
        catalog = Catalog.open(target.catalog, create=False)
        ctx.call_on_close(catalog.close)
    return catalog.version(target, deleted=True)


@click.command("lineage")
@reference("ref")
@json_option
@click.pass_context
def lineage_command(ctx: click.Context, ref: str) -> None:
    """Show the parents and children of a version, and theirs, as a tree; shared bytes are stored once."""
    found = opened(ctx).lineage(ref)
    if ctx.obj["json"]:
        put(ctx, found)
        return
    put_table(ctx, found.rows(), f"{found.ref} has neither parents nor children here")
    if not found.whole:
        say("there are more, which are not shown", err=True)


@click.command("history")
@reference("name", required=False)
@limit_option(1000)
@json_option
@click.pass_context
def history_command(ctx: click.Context, name: str | None, limit: int) -> None:
    """Show every change of NAME, or of the whole catalog, oldest first."""
    events = opened(ctx).history(name, limit=min(limit + 1, MOST))
    put_table(ctx, events[-limit:], "no changes")
    _more(len(events) > limit, limit, "more follow, which are older")
