"""What all commands share: opening the catalog, printing results, reading `key=value`."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from catalog_core import config, folders, redact, tabular
from catalog_core.catalog import UNMOUNTED, Catalog
from catalog_core.digests import MAX_INTEGER
from catalog_core.errors import InvalidInput, NotFound
from catalog_core.names import Reference, parse_reference
from catalog_core.shown import clean, clean_json

json_option = click.option(
    "--json", "as_json", is_flag=True, expose_value=False, help="Print JSON, for programs.",
    callback=lambda ctx, _, value: ctx.obj.update(json=True) if value else None,
)  # fmt: skip
"""A decorator: `--json` after the name of a command means the same as before it. It is no parameter of the function."""


def names(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """What Tab offers for a reference: names of models, or what may follow `@`. It makes no catalog and never fails."""
    try:
        with Catalog.open(ctx.find_root().params.get("catalog"), create=False) as catalog:
            name, at, _ = begun.partition("@")
            if at:
                ends = [*catalog.model(name).aliases, *(v.number for v in catalog.versions(name)[:20])]
                return [ref for ref in (f"{name}@{end}" for end in ends) if ref.startswith(begun)]
            before = begun[:-1] + chr(ord(begun[-1]) - 1) + "\U0010ffff" if begun else ""
            return [m.name for m in catalog.models(after=before) if m.name.startswith(begun)]
    except Exception:
        return []


def reference(argument: str, **options: Any) -> Any:
    """An argument that names a model or a version."""
    return click.argument(argument, shell_complete=names, **options)


def opened(ctx: click.Context, *, create: bool = False, publish: bool = False, damaged: bool = False) -> Catalog:
    """The catalog that was asked for, closed when the command ends. Only the default one is made by looking; what is to
    `publish` makes one too, but not where another one is called nearly so, and it says so. With `damaged`, one whose
    journal cannot be read is opened too."""
    target = ctx.obj["catalog"]
    default = target is None and not os.environ.get("CATALOG")
    progress = metered(ctx)
    if publish and not default:
        catalog = made(ctx, target, stale=ctx.obj["stale"] or None)
    else:
        stale = ctx.obj["stale"] or None
        catalog = Catalog.open(target, create=create or default, stale=stale, damaged=damaged)
    ctx.call_on_close(catalog.close)
    catalog.progress = progress
    return catalog


def made(ctx: click.Context, target: str | None, **options: Any) -> Catalog:
    """The catalog of that name, URL or folder; one that is not there is made, and told of: the name may be misspelt.
    Raises `NotFound` where one beside it is called nearly so."""
    settings = config.resolve(target)
    try:
        return Catalog.open(target, create=False, **options)
    except NotFound as exc:
        if exc.hint == UNMOUNTED:
            raise
        alike = _alike(settings.url) if settings.source == "given" else None
        if alike is not None:
            raise NotFound(
                f"there is no catalog at {redact.text(settings.url)}",
                hint=f"did you mean {alike}? Else: catalog -c {target} init",
            ) from None
    catalog = Catalog.open(target, **options)
    quiet(ctx)
    say(f"made a new catalog at {redact.text(catalog.url)}", err=True)
    return catalog


def _alike(url: str) -> str | None:
    """The catalog in the same folder whose name is nearest to that of a local one, or None."""
    _, _, text = url.partition("://")
    place = Path(text)
    if not place.is_absolute() or not place.parent.is_dir():
        return None
    names = [
        path.name for path in place.parent.iterdir() if any((path / own).exists() for own in ("catalog.db", "journal"))
    ]
    return next(iter(difflib.get_close_matches(place.name, names, 1, 0.75)), None)


def notify(ctx: click.Context, catalog: Catalog) -> None:
    """Say, beside what was asked for, what everybody must know of a catalog on several sites."""
    quiet(ctx)
    for line in catalog.notices():
        say(line, err=True)


def metered(ctx: click.Context) -> Callable[[int, int], None] | None:
    """Show a meter until the command ends; what it is to be told, or None where nobody would see it."""
    if not sys.stderr.isatty():
        return None
    meter = ctx.obj["meter"] = Meter(str(ctx.info_name))
    ctx.call_on_close(meter.stop)
    return meter.update


class Meter:
    """What a terminal shows of a command that takes over a second: a bar where the work is counted, else a pulse."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._work: tuple[int, int | None] = (0, None)
        self._bar: Any = None
        self._timer = threading.Timer(1.0, self._start)
        self._timer.daemon = True
        self._timer.start()

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        bar = Progress(console=Console(stderr=True), transient=True)
        bar.add_task(self._what, completed=self._work[0], total=self._work[1])
        bar.start()
        self._bar = bar

    def update(self, done: int, total: int) -> None:
        """So much is done."""
        self._work = (done, total)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def stop(self) -> None:
        """Wipe it: something is to be printed."""
        self._timer.cancel()
        self._timer.join()
        if self._bar is not None:
            self._bar.stop()


def quiet(ctx: click.Context) -> None:
    """End the meter, if there is one."""
    if "meter" in ctx.obj:
        ctx.obj["meter"].stop()


def say(text: str = "", *, err: bool = False) -> None:
    """Print one line, to standard error if `err`: all that commands print goes through here, and cannot steer the
    terminal."""
    click.echo(clean(text), err=err)


def say_json(data: Any) -> None:
    """Print JSON. What is no JSON is a text."""
    click.echo(clean_json(json.dumps(data, ensure_ascii=False, default=str, indent=2)))


def put(ctx: click.Context, item: Any, *, lines: Iterable[str] | None = None) -> None:
    """Print one thing: JSON for programs, `lines` or label and text for people."""
    from catalog_core import show

    quiet(ctx)
    if ctx.obj["json"]:
        say_json(item if isinstance(item, (dict, list)) else show.record(item))
        return
    if lines is None:
        lines = tabular.described(show.lines(item), _columns())
    for line in lines:
        say(line)


def _columns() -> int | None:
    """How wide the terminal is; None where it is none."""
    return max(shutil.get_terminal_size().columns, 8) if sys.stdout.isatty() else None


def put_table(ctx: click.Context, items: Sequence[Any], empty: str) -> None:
    """Print a listing: JSON for programs, aligned columns for people; a terminal that is too narrow gets long cells
    in several lines, or a paragraph for each row."""
    from catalog_core import show

    quiet(ctx)
    if ctx.obj["json"]:
        say_json([show.record(item) for item in items])
        return
    if not items:
        say(empty)
        return
    headings, rows = show.table(items)
    for line in tabular.laid_out([heading.upper() for heading in headings], rows, _columns()):
        say(line)


def parsed(catalog: Catalog, text: str) -> Reference:
    """A reference into this catalog. Raises `InvalidReference`, and `InvalidInput` where it names another one."""
    found = parse_reference(text)
    if found.catalog not in (None, catalog.name):
        catalog.model(text)  # says which catalog it is in, or that another mark was meant
    return found


MOST = 4 << 20  # bytes of a text that somebody names by its file


def text_of(path: str | Path, what: str) -> str:
    """The text in a file, or of standard input for `-`; a regular file of some MiB, so it comes to an end. Raises
    `InvalidInput`, `OSError`."""
    if str(path) == "-":
        return sys.stdin.read(MOST)
    try:
        return folders.content(Path(path), MOST, what).decode()
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"{what} {path} is no text in UTF-8: {exc}") from exc


def pairs(given: Sequence[str], what: str, *, numbers: bool = False, typed: bool = False) -> dict[str, Any]:
    """`key=value` texts as a dictionary; with `numbers` the values must be numbers, with `typed` they are what `typed`
    makes of them."""
    result: dict[str, Any] = {}
    for text in given:
        key, mark, value = text.partition("=")
        if not mark:
            raise click.UsageError(f"{what} {text!r} is not KEY=VALUE")
        if key in result:
            raise click.UsageError(f"{what} {key!r} is given twice")
        result[key] = _number(key, value, what) if numbers else _typed(value, what) if typed else value
    return result


_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,15})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)?\.[0-9]+|-?(0|[1-9][0-9]*)\.")
_SCIENTIFIC = re.compile(r"-?[0-9](\.[0-9]*)?[eE][-+]?[0-9]{1,3}")


def _typed(text: str, what: str) -> Any:
    """The value that a word of the command line means: a number, true or false, or the text; in double quotes it is
    text in any case. What a number would not keep stays text: `007`, a long id, and in a tag `2.10`, a version."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text) and abs(int(text)) <= MAX_INTEGER:
        return int(text)
    keeps = what == "param" or text == str(float(text)) if _DECIMAL.fullmatch(text) else _SCIENTIFIC.fullmatch(text)
    if keeps and abs(float(text)) < float("inf"):
        return float(text)
    return text


def _number(key: str, text: str, what: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise InvalidInput(f"{what} {key!r} must be a number, not {text!r}", hint="texts go into tags") from None
