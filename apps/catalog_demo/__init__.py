"""`catalog demo`: the main job, end to end, in half a minute."""

from collections.abc import Iterable

from catalog_core.specs import CommandSpec


def catalog_register_commands() -> Iterable[CommandSpec]:
    """Register `catalog demo`."""
    yield CommandSpec(
        "demo", "catalog_demo.command:demo_command", "Train, publish, find and reuse a small network.", extra="demo"
    )
