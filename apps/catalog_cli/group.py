"""A group of commands that offers the nearest one. Light: `catalog --help` imports it."""

from __future__ import annotations

import click


class Group(click.Group):
    """Commands by name; the nearest is offered for one that is not there."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See `click.Group`. Raises `click.UsageError`."""
        name = args[0]
        if name[:1] != "-" and self.get_command(ctx, name) is None:
            from catalog_core.names import nearest

            hint = nearest(name, self.list_commands(ctx))
            raise click.UsageError(f"there is no command {name!r}{f'; {hint}' if hint else ''}", ctx)
        return super().resolve_command(ctx, args)


def check_once(command: click.Command, ctx: click.Context, args: list[str]) -> None:
    """Raise `click.UsageError` where an option that takes one value is given twice, also to a command below: click
    would keep the last one and say nothing. It is asked of the uppermost group, so commands of plug-ins are held to it
    too."""
    if ctx.resilient_parsing:
        return
    try:
        _, rest, order = command.make_parser(ctx).parse_args(list(args))
    except click.UsageError:
        return  # the command itself says it
    seen = set()
    for param in order:
        if not isinstance(param, click.Option) or param.multiple or param.is_flag or param.count:
            continue
        if param.name in seen:
            raise click.UsageError(f"{param.opts[0]} is given twice, and takes one value", ctx)
        seen.add(param.name)
    below = command.get_command(ctx, rest[0]) if isinstance(command, click.Group) and rest else None
    if below is not None:
        check_once(below, below.context_class(below, info_name=rest[0], parent=ctx), rest[1:])
