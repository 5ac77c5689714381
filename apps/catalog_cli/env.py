"""env: the environment that a version was made in."""

from __future__ import annotations

from pathlib import Path

import click

from catalog_cli.group import Group
from catalog_cli.output import json_option, opened, put, reference
from catalog_core import recreate
from catalog_core.shown import counted


@click.group("env", cls=Group)
@json_option
def env_command() -> None:
    """Show or rebuild the environment that a version was made in."""


@env_command.command("show")
@reference("ref")
@json_option
@click.pass_context
def show_command(ctx: click.Context, ref: str) -> None:
    """Print what was installed, as pip and uv read it."""
    artifact = opened(ctx).artifact(ref)
    listed, local = recreate.requirements(artifact), recreate.local(artifact)
    environment = dict(artifact.manifest.environment)
    about = {key: value for key, value in environment.items() if key != "distributions"}
    lines = [
        f"# Python {environment.get('python') or 'unknown'} on {environment.get('platform') or 'unknown'}",
        *(f"# from a folder there, which no index has: {name}" for name in local),
        *listed,
    ]
    put(ctx, {**about, "requirements": listed, "local": local}, lines=lines)


@env_command.command("create")
@reference("ref")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--trust", is_flag=True, help="Also install from addresses that the author of REF chose.")
@json_option
@click.pass_context
def create_command(ctx: click.Context, ref: str, folder: Path, trust: bool) -> None:
    """Install it into a new virtual environment, FOLDER."""
    listed = recreate.create(opened(ctx).artifact(ref), folder, trust=trust)
    done = f"{folder}: {counted(len(listed), 'distribution')}"
    put(ctx, {"folder": str(folder), "requirements": listed}, lines=[done])
