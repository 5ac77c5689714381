"""alias, promote, tag, annotate, card, delete, restore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from catalog_cli.output import json_option, opened, pairs, parsed, put, reference, text_of
from catalog_core.errors import InvalidInput, NotFound
from catalog_core.show import size, text
from catalog_core.shown import counted

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.handles import Version


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
        named = parsed(catalog, ref)
        model = catalog.model(named.name)
        if named.selector is not None:
            version, at = catalog.version(named), model.aliases.get(name)
            if at is not None and at != version.number:
                raise InvalidInput(
                    f"{model.name}@{name} is version {at}, not {version.number}",
                    hint=f"to remove it: catalog alias {model.name} {name} --remove",
                )
        model = model.unalias(name)
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
    """Set tags of REF, or remove them; without any, show those that it has."""
    version = opened(ctx).version(ref)
    if unset:
        version = version.untag(*unset)
    if tags:
        version = version.tag(pairs(tags, "tag", typed=True))
    put(
        ctx,
        version,
        lines=[f"{key}={text(value)}" for key, value in version.tags.items()] or [f"{version.ref} has no tags"],
    )


@click.command("annotate")
@reference("ref")
@click.argument("metrics", nargs=-1, metavar="[K=NUMBER]...")
@click.option("--unset", multiple=True, metavar="K", help="A metric to remove.")
@json_option
@click.pass_context
def annotate_command(ctx: click.Context, ref: str, metrics: tuple[str, ...], unset: tuple[str, ...]) -> None:
    """Set metrics of REF, or remove them; without any, show those that it has."""
    version = opened(ctx).version(ref)
    if unset:
        version = version.unannotate(*unset)
    if metrics:
        version = version.annotate(pairs(metrics, "metric", numbers=True))
    put(
        ctx, version,
        lines=[f"{key}={text(value)}" for key, value in version.metrics.items()] or [f"{version.ref} has no metrics"],
    )  # fmt: skip


@click.command("card")
@reference("name")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--start", is_flag=True, help="Print a card to be completed, made of what NAME (or NAME@N) knows.")
@json_option
@click.pass_context
def card_command(ctx: click.Context, name: str, file: Path | None, start: bool) -> None:
    """Show the card of NAME, or replace it by FILE ('-' reads standard input)."""
    if start:
        if file is not None:
            raise click.UsageError("--start prints a card; it takes no FILE")
        version = _newest(opened(ctx), name)
        text = version.start_card()
        put(ctx, {"name": version.model, "card": text}, lines=text.splitlines())
        return
    card = None if file is None else text_of(file, "the card")
    model = opened(ctx).model(name)
    if card is not None:
        model = model.set_card(card)
    about = {"name": model.name, "card": model.card, "head": model.card_data}
    put(ctx, about, lines=(model.card or f"{name} has no card").splitlines())


def _newest(catalog: Catalog, name: str) -> Version:
    """The version of a reference; of a bare name whose versions are all archived, the newest of these."""
    try:
        return catalog.version(name)
    except NotFound:
        archived = catalog.versions(name) if parsed(catalog, name).selector is None else []
        if not archived:
            raise
        return archived[0]


@click.command("update")
@reference("name")
@click.option("--title", help="A name for people, in any script.")
@click.option("--description", help="What it is, in a few sentences.")
@click.option("--owner", help="Whom to ask.")
@json_option
@click.pass_context
def update_command(
    ctx: click.Context, name: str, title: str | None, description: str | None, owner: str | None
) -> None:  # fmt: skip
    """Set the title, description or owner of NAME; an empty text removes it."""
    given = {"title": title, "description": description, "owner": owner}
    values = {key: text or None for key, text in given.items() if text is not None}
    if not values:
        raise click.UsageError("nothing to update: give --title, --description or --owner")
    put(ctx, opened(ctx).model(name).update(**values))


@click.command("attach")
@reference("ref")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--name", help="What to call it; else the name of FILE.")
@click.option("--remove", is_flag=True, help="Remove the attachment --name.")
@click.option("--get", is_flag=True, help="Write the attachment --name to FILE, which must be new.")
@json_option
@click.pass_context
def attach_command(
    ctx: click.Context, ref: str, file: Path | None, name: str | None, remove: bool, get: bool
) -> None:  # fmt: skip
    """Attach FILE (a plot, a log, a notebook, or a folder of code) to REF, fetch or remove one, or list them."""
    version = opened(ctx).version(ref)
    if (remove or get) and name is None:
        raise click.UsageError("--remove and --get need --name")
    if remove and get:
        raise click.UsageError("--remove and --get are two steps: get it first")
    if get and name is not None:
        _fetch(version, name, file or Path(Path(name).name))
    elif remove and name is not None:
        version = version.detach(name)
    elif file is not None:
        version = version.attach(name or file.name, file)
    listed = [f"{key}  {size(count)}" for key, count in version.attachments.items()]
    put(ctx, version.attachments, lines=listed or [f"{version.ref} has no attachments"])


def _fetch(version: Version, name: str, target: Path) -> None:
    """Write an attachment to a new file, or all of `name/` into a new or empty folder. Raises `InvalidInput` where
    something is there: it may be the only copy of what its owner wrote."""
    from catalog_core.artifact import check_vacant  # here: the other commands do without

    below = [key for key in version.attachments if key.startswith(f"{name}/")]
    if name in version.attachments or not below:
        content = version.attachment(name)
        try:
            with target.open("xb") as file:
                file.write(content)
        except FileExistsError as exc:
            raise InvalidInput(f"{target} exists already", hint="remove it, or give another FILE") from exc
        return
    check_vacant(target)
    for key in below:
        path = target / key.removeprefix(f"{name}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(version.attachment(key))


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


@click.command("erase")
@reference("ref")
@click.option("--reason", required=True, help="It stays in the history; name no person in it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def erase_command(ctx: click.Context, ref: str, reason: str, yes: bool) -> None:
    """Take the content of REF away for good, in all copies of the catalog, and let it never come back.

    What other versions need of it stays. Unlike `delete` this cannot be undone.
    """
    catalog = opened(ctx)
    version = catalog.version(ref, deleted=True)
    if not yes:
        click.confirm(f"Erase {version.ref} ({size(version.size)}) for good?", abort=True)
    done = catalog.erase(version, reason)
    lines = [f"erased {done.ref}: {counted(done.blobs, 'blob')}, {size(done.bytes)}"]
    if done.shared:
        lines.append(f"{done.shared:,} blobs stay: other versions need them")
    if done.in_journal:
        lines.append(
            f"{done.in_journal:,} small blobs stand in the journal: no reader is shown them, and they stay there"
        )
    put(ctx, done, lines=lines)
