"""What all commands share: opening the catalog, printing results, reading `key=value`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from catalog_core.catalog import Catalog
from catalog_core.errors import InvalidInput

json_option = click.option(
    "--json", "as_json", is_flag=True, expose_value=False, help="Print JSON, for programs.",
    callback=lambda ctx, _, value: ctx.obj.update(json=True) if value else None,
)  # fmt: skip


def opened(ctx: click.Context, *, create: bool = False) -> Catalog:
    """The catalog that was asked for, closed when the command ends. Only the default one is made by looking."""
    target = ctx.obj["catalog"]
    import os

    default = target is None and not os.environ.get("CATALOG")
    catalog = Catalog.open(target, create=create or default)
    ctx.call_on_close(catalog.close)
    if sys.stderr.isatty():
        catalog._progress = bar()
    return catalog


def bar() -> Callable[[int, int], None]:
    """A progress bar on the terminal, for what takes over a second."""
    begin = time.monotonic()
    progress: list[Any] = []

    def show(done: int, total: int) -> None:
        if not progress and time.monotonic() - begin < 1:
            return
        if not progress:
            from rich.console import Console
            from rich.progress import Progress

            progress.append(Progress(console=Console(stderr=True), transient=True))
            progress.append(progress[0].add_task("", total=total))
            progress[0].start()
        progress[0].update(progress[1], completed=done, total=total)
        if done >= total:
            progress[0].stop()
            progress.clear()

    return show


def put(ctx: click.Context, item: Any, *, lines: Iterable[str] | None = None) -> None:
    """Print one thing: JSON for programs, `lines` or label and text for people."""
    from catalog_core import show

    if ctx.obj["json"]:
        data = item if isinstance(item, (dict, list)) else show.record(item)
        click.echo(json.dumps(data, ensure_ascii=False, default=str, indent=2))
        return
    if lines is not None:
        for line in lines:
            click.echo(line)
        return
    pairs = show.lines(item)
    width = max((len(label) for label, _ in pairs), default=0)
    for label, text in pairs:
        click.echo(f"{label:{width}}  {text}")


def put_table(ctx: click.Context, items: Sequence[Any], empty: str) -> None:
    """Print a listing: JSON for programs, aligned columns for people."""
    from catalog_core import show

    if ctx.obj["json"]:
        click.echo(json.dumps([show.record(item) for item in items], ensure_ascii=False, default=str, indent=2))
        return
    if not items:
        click.echo(empty)
        return
    headings, rows = show.table(items)
    used = [n for n in range(len(headings)) if any(row[n] for row in rows)]
    widths = {n: max(len(headings[n]), *(len(row[n]) for row in rows)) for n in used}
    for row in ([heading.upper() for heading in headings], *rows):
        click.echo("  ".join(f"{row[n]:{widths[n]}}" for n in used).rstrip())


def pairs(given: Sequence[str], what: str, *, numbers: bool = False) -> dict[str, Any]:
    """`key=value` texts as a dictionary; with `numbers` the values must be numbers."""
    result: dict[str, Any] = {}
    for text in given:
        key, mark, value = text.partition("=")
        if not mark:
            raise click.UsageError(f"{what} {text!r} is not KEY=VALUE")
        result[key] = _number(key, value, what) if numbers else value
    return result


def _number(key: str, text: str, what: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise InvalidInput(f"{what} {key!r} must be a number, not {text!r}", hint="texts go into tags") from None
