"""The group: lazy subcommands, global options, and what an error looks like."""

from __future__ import annotations

import importlib
import io
import json
import os
import shlex
import sys
import warnings
from typing import Any

import click

from catalog_cli.group import Group, check_once

# name → (module, one line of help); the help is here so that `catalog --help` imports no command
COMMANDS = {
    "init": ("publish", "Make a catalog."),
    "save": ("saving", "Publish files or folders as the next version of a model."),
    "list": ("find", "List models, or the versions of one."),
    "search": ("find", "Find versions by a filter or by words."),
    "show": ("find", "Show a model or a version, also as it was in the past."),
    "compare": ("find", "Compare two versions, down to tensors."),
    "lineage": ("find", "Show what a version comes from, and what became of it."),
    "history": ("find", "Show every change of a model."),
    "download": ("publish", "Write the checked files of a version to a folder."),
    "copy": ("publish", "Publish a version in another catalog."),
    "export": ("publish", "Write versions to a file, for a site that no network reaches."),
    "import": ("publish", "Publish the versions that a file holds."),
    "alias": ("change", "Point an alias at a version, or remove one."),
    "promote": ("change", "Move a version to another stage."),
    "tag": ("change", "Set or remove tags of a version."),
    "annotate": ("change", "Set metrics of a version."),
    "card": ("change", "Show or replace the card of a model."),
    "update": ("change", "Set the title, description or owner of a model."),
    "attach": ("change", "Attach files to a version, fetch or remove them."),
    "delete": ("change", "Hide a version or a model."),
    "restore": ("change", "Undo a delete."),
    "erase": ("change", "Take the content of a version away for good."),
    "env": ("env", "Show or rebuild the environment that a version was made in."),
    "verify": ("care", "Run a version in a fresh process and check what it gives."),
    "fsck": ("care", "Check every entry and every byte of the catalog."),
    "gc": ("care", "Collect what no version needs."),
    "sync": ("replicas", "Bring the replicas of a hybrid up to its primary."),
    "replicas": ("replicas", "Show how far the parts of a hybrid are."),
    "reconcile": ("replicas", "Bring back what only an old primary has."),
    "hybrid": ("replicas", "Choose the primary of a hybrid."),
    "cache": ("cache", "Show, trim, check or pin what was fetched from remote catalogs."),
    "config": ("care", "Show the configuration and where it comes from."),
    "plugins": ("care", "Show the plug-ins, and what is wrong with them."),
    "doctor": ("care", "Check this catalog and this machine."),
}


class _Lazy(Group):
    """Knows its commands by name; imports the one that is called."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        check_once(self, ctx, args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(set(self._strangers()) - set(COMMANDS))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            module = importlib.import_module(f"catalog_cli.{COMMANDS[name][0]}")
            command: click.Command = getattr(module, f"{name}_command")
            return command
        spec = self._strangers().get(name)
        if spec is None:
            return None
        from catalog_core.plugins import registry

        found: click.Command = registry().load(spec.factory, spec.extra)
        return found

    @staticmethod
    def _strangers() -> dict[str, Any]:
        from catalog_core.plugins import registry

        return registry().commands

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])
        strangers = sorted((name, spec.help) for name, spec in self._strangers().items() if name not in COMMANDS)
        if strangers:
            with formatter.section("Commands of plug-ins"):
                formatter.write_dl(strangers)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--catalog", "-c", metavar="NAME", help="A configured name, a URL or a folder; else $CATALOG.")
@click.option("--stale", is_flag=True, help="While the store is away, what is known or on a replica will do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.version_option(package_name="catalog-core", prog_name="catalog")
@click.pass_context
def group(ctx: click.Context, catalog: str | None, stale: bool, as_json: bool) -> None:
    """A model catalog without a server: publish, find, check and load versions of models."""
    ctx.obj = {"catalog": catalog, "stale": stale, "json": as_json}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit 0 when done, 1 when what was asked for failed, 2 on wrong usage."""
    from catalog_core.errors import CatalogError

    given = sys.argv[1:] if arguments is None else arguments
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            sys.exit(group.main(args=given, prog_name="catalog", standalone_mode=False) or 0)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        if isinstance(exc, click.NoSuchOption):
            exc = _pointed(exc, given)
        if "--json" in given:
            usage = getattr(exc, "ctx", None)
            hint = usage.get_usage() if usage is not None else None
            _json_error("UsageError" if exc.exit_code == 2 else type(exc).__name__, exc.format_message(), hint)
        else:
            from catalog_core.shown import clean_lines

            told = io.StringIO()
            exc.show(told)
            click.echo(clean_lines(told.getvalue().rstrip("\n")), err=True)
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except CatalogError as exc:
        from catalog_cli.words import hinted

        if "--json" in given:
            _json_error(type(exc).__name__, exc.message, exc.hint and hinted(exc.hint))
        else:
            click.echo(f"error: {' '.join(exc.message.split())}", err=True)  # errors are clean
            if exc.hint:
                click.echo(f"hint: {hinted(' '.join(exc.hint.split()))}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as exc:
        from catalog_core.shown import clean

        message = clean(f"{exc.filename or 'a file'}: {exc.strerror or exc}")
        if "--json" in given:
            _json_error(type(exc).__name__, message, None)
        else:
            click.echo(f"error: {message}", err=True)
        sys.exit(1)


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning is a line for people: where it stands in the code is nothing to them."""
    from catalog_cli.output import say
    from catalog_cli.words import spoken

    say(f"note: {spoken(' '.join(str(message).split()))}", err=True)


def _pointed(exc: click.NoSuchOption, given: list[str]) -> click.UsageError:
    """The error, which says of an option of the group that was given behind a command how the line is to be written."""
    from catalog_core import redact

    own = {name: param for param in group.params if isinstance(param, click.Option) for name in param.opts}
    if exc.ctx is None or exc.ctx.parent is None or exc.option_name not in own:
        return exc
    at = next((n for n, word in enumerate(given) if word.split("=")[0] == exc.option_name), len(given))
    takes = 1 if own[exc.option_name].is_flag or "=" in "".join(given[at : at + 1]) else 2
    words = [redact.text(word) for word in (*given[at : at + takes], *given[:at], *given[at + takes :])]
    return click.UsageError(
        f"{exc.option_name} stands behind the command. It goes before: {shlex.join(['catalog', *words])}", exc.ctx
    )


def _json_error(kind: str, message: str, hint: str | None) -> None:
    error = {"type": kind, "message": message, "hint": hint}
    click.echo(json.dumps({"error": error}))  # escaped: it may quote bytes that are no text
