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
