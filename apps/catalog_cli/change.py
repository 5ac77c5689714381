"""alias, promote, tag, annotate, card, delete, restore."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from catalog_cli.output import json_option, opened, pairs, put, reference
from catalog_core.names import parse_reference
from catalog_core.show import text


@click.command("alias")
@reference("ref")
@click.argument("name")
@click.option("--remove", is_flag=True, help="Remove the alias NAME of the model REF instead.")
@json_option
@click.pass_context
def alias_command(ctx: click.Context, ref: str, name: str, remove: bool) -> None:
    """Point the alias NAME at REF."""
    catalog = opened(ctx)
    if remove:
        model = catalog.model(parse_reference(ref).name).unalias(name)
        put(ctx, model, lines=[f"{model.name}@{name} removed"])
    else:
        version = catalog.version(ref).alias(name)
        put(ctx, version, lines=[f"{version.model}@{name} → {version.ref}"])


@click.command("promote")
@reference("ref")
@click.argument("stage")
@json_option
@click.pass_context
def promote_command(ctx: click.Context, ref: str, stage: str) -> None:
    """Move REF to STAGE: registered, tested, validated, production, archived."""
    version = opened(ctx).version(ref).promote(stage)
    put(ctx, version, lines=[f"{version.ref} is {version.stage}"])


@click.command("tag")
@reference("ref")
@click.argument("tags", nargs=-1, metavar="[K=V]...")
@click.option("--unset", multiple=True, metavar="K", help="A tag to remove.")
@json_option
@click.pass_context
def tag_command(ctx: click.Context, ref: str, tags: tuple[str, ...], unset: tuple[str, ...]) -> None:
    """Set tags of REF, or remove them."""
    version = opened(ctx).version(ref).tag(*unset, **pairs(tags, "tag"))
    put(ctx, version, lines=[f"{key}={text(value)}" for key, value in version.tags.items()])


@click.command("annotate")
@reference("ref")
@click.argument("metrics", nargs=-1, required=True, metavar="K=NUMBER...")
@json_option
@click.pass_context
def annotate_command(ctx: click.Context, ref: str, metrics: tuple[str, ...]) -> None:
    """Set metrics of REF."""
    version = opened(ctx).version(ref).annotate(**pairs(metrics, "metric", numbers=True))
    put(ctx, version, lines=[f"{key}={text(value)}" for key, value in version.metrics.items()])


@click.command("card")
@reference("name")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def card_command(ctx: click.Context, name: str, file: Path | None) -> None:
    """Show the card of NAME, or replace it by FILE ('-' reads standard input)."""
    card = None
    if file is not None:
        card = sys.stdin.read() if str(file) == "-" else click.open_file(str(file), encoding="utf-8").read()
    model = opened(ctx).model(name)
    if card is not None:
        model = model.set_card(card)
    put(ctx, {"name": model.name, "card": model.card}, lines=(model.card or f"{name} has no card").splitlines())


@click.command("delete")
@reference("ref")
@json_option
@click.pass_context
def delete_command(ctx: click.Context, ref: str) -> None:
    """Hide a version (NAME@N) or a whole model (NAME), until `restore`, or until its bytes are collected."""
    catalog = opened(ctx)
    if "@" in ref:
        deleted = catalog.version(ref).delete().ref
    else:
        catalog.model(ref).delete()
        deleted = ref
    put(ctx, {"deleted": deleted}, lines=[f"{deleted} deleted; undo: catalog restore {deleted}"])


@click.command("restore")
@reference("ref")
@json_option
@click.pass_context
def restore_command(ctx: click.Context, ref: str) -> None:
    """Undo a delete."""
    catalog = opened(ctx)
    if "@" in ref:
        catalog.version(ref, deleted=True).restore()
    else:
        catalog.model(ref, deleted=True).restore()
    put(ctx, {"restored": ref}, lines=[f"{ref} restored"])
