"""The command: options, and what is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@contextmanager
def bar(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A progress bar on the terminal; what it yields takes how much of `total` is done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


@click.command("demo")
@click.option(
    "--folder", default="catalog-demo", show_default=True, type=click.Path(path_type=Path), help="Where all of it goes."
)
@click.option("--seconds", default=30.0, show_default=True, help="How long to train.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def demo_command(ctx: click.Context, folder: Path, seconds: float, as_json: bool) -> None:
    """Train a small network on real images, publish it twice, search, compare, and use it in a fresh process.

    It makes a catalog of its own in the folder; `catalog --catalog NAME demo` uses that one.
    """
    from catalog_demo import demo

    given = ctx.obj or {}
    quiet = as_json or given.get("json", False)
    result = demo.run(folder, seconds, (lambda line: None) if quiet else click.echo, bar, given.get("catalog"))
    if quiet:
        click.echo(json.dumps(result, indent=2))
