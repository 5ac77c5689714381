"""sync, replicas, reconcile, hybrid: a catalog on several sites."""

from __future__ import annotations

import sys
import time

import click

from catalog_cli.group import Group
from catalog_cli.output import json_option, notify, opened, put, say
from catalog_core.errors import BackendError
from catalog_core.show import record, size
from catalog_core.shown import counted
from catalog_core.sync import Synced, replicated


@click.command("sync")
@click.argument("parts", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only count, in bytes.")
@click.option("--watch", metavar="SECONDS", type=click.FloatRange(min=0.1), help="Again and again, so long apart.")
@click.option("--times", type=click.IntRange(1), help="With --watch: so many times, then end.")
@json_option
@click.pass_context
def sync_command(
    ctx: click.Context, parts: tuple[str, ...], dry_run: bool, watch: float | None, times: int | None
) -> None:
    """Bring the replicas (or only PARTS) up to the primary.

    What came over stays when it is stopped; the next one goes on there. With --watch a part that is away is told, and
    tried again.
    """
    catalog = opened(ctx)
    count = 0
    while True:
        count += 1
        try:
            done = catalog.sync(*parts, dry_run=dry_run, progress=catalog.progress)
            if watch is None or any(step.entries for step in done):
                _say(ctx, done, dry_run, catalog.position)
        except BackendError as exc:
            if watch is None:
                raise
            say(exc.message, err=True)
        if watch is None or count == times:
            notify(ctx, catalog)
            return
        time.sleep(watch)


def _say(ctx: click.Context, done: list[Synced], dry_run: bool, position: int) -> None:
    verb = "would copy" if dry_run else "copied"
    lines = []
    for step in done:
        what = f"{step.entries:,} entries, {counted(step.blobs, 'blob')}, {size(step.bytes)}"
        more = f", {'would delete' if dry_run else 'deleted'} {step.deleted:,} swept blobs" if step.deleted else ""
        known = step.entries or step.deleted
        lines.append(f"{step.part}: {verb} {what}{more}" if known else f"{step.part}: is at entry {position}")
    nothing = "nothing to do: the primary is the only part that was named"
    put(ctx, [record(step) for step in done], lines=lines or [nothing])


@click.command("replicas")
@click.option("--quick", is_flag=True, help="Positions only; do not ask for blobs.")
@json_option
@click.pass_context
def replicas_command(ctx: click.Context, quick: bool) -> None:
    """Show the parts of a hybrid: who is the primary, how far the others are, which versions lack something."""
    catalog = opened(ctx)
    found = catalog.replicas(blobs=not quick)
    lines = []
    for part in found:
        if part.problem is not None:
            where = "" if part.url in part.problem else f"{part.url}: "
            lines.append(f"{part.name}  {part.role}  {where}{part.problem}")
            continue
        behind = f", {part.behind:,} behind, the first for {_span(part.lag or 0.0)}" if part.behind else ""
        lines.append(f"{part.name}  {part.role}  {part.url}: entry {part.position}{behind}, epoch {part.epoch}")
        lines += [f"  {ref} lacks blobs" for ref in part.missing or ()]
        lines += [f"  {ref} has damaged blobs" for ref in part.damaged or ()]
    put(ctx, [record(part) for part in found], lines=lines)
    notify(ctx, catalog)


def _span(seconds: float) -> str:
    for name, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s"


@click.command("reconcile")
@click.option("--apply", is_flag=True, help="Write what can be written as it was.")
@click.option("--renumber", is_flag=True, help="Also versions whose number was given away, under the next one.")
@click.option("--take", multiple=True, metavar="ID", help="A conflict in which the void side wins.")
@click.option("--drop", multiple=True, metavar="ID", help="What is to stay void for good.")
@json_option
@click.pass_context
def reconcile_command(
    ctx: click.Context, apply: bool, renumber: bool, take: tuple[str, ...], drop: tuple[str, ...]
) -> None:
    """Show what an old primary acknowledged and no other part has, and bring it back.

    Nothing is lost by waiting: what is shown stays where it is until it is applied or dropped.
    """
    chosen = apply or renumber or bool(take)
    found = opened(ctx).reconcile(apply=chosen, renumber=renumber, take=take, drop=drop)
    lines = []
    for void in found:
        note = f" as {', '.join(void.becomes)}" if void.becomes and void.outcome in ("renumber", "replayed") else ""
        lines.append(f"{void.id[:12]}  {void.outcome}{note}: {'; '.join(void.what)} by {void.actor} on {void.part}")
        lines += [f"  {void.why}"] if void.why else []
    put(ctx, [record(void) for void in found], lines=lines or ["nothing stands in a void branch"])
    if chosen and any(void.outcome not in ("replayed", "dropped") for void in found):
        sys.exit(1)


@click.group("hybrid", cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def hybrid_command(ctx: click.Context) -> None:
    """Show, or choose, the primary of a catalog on several sites."""
    if ctx.invoked_subcommand is None:
        name = replicated(opened(ctx).repository).primary
        put(ctx, {"primary": name}, lines=[f"{name} is the primary" if name else "the primary is away"])


@hybrid_command.command("failover")
@click.argument("part")
@click.option("--force", is_flag=True, help="Even if this machine has seen more than PART has.")
@json_option
@click.pass_context
def failover_command(ctx: click.Context, part: str, force: bool) -> None:
    """Make PART the primary: it is written from now on, and the old one is read-only when it returns.

    Of two rival primaries it chooses PART. What the other one alone has is shown by `catalog reconcile`.
    """
    ctx.obj["stale"] = True
    catalog = opened(ctx)
    position = catalog.failover(part, force=force)
    put(ctx, {"primary": part, "position": position}, lines=[f"{part} is the primary, from entry {position + 1} on"])
