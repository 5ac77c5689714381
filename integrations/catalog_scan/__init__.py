"""`catalog scan`: looks for code in model files, without running any."""

from collections.abc import Iterable

from catalog_core.specs import CommandSpec


def catalog_register_commands() -> Iterable[CommandSpec]:
    """Register `catalog scan`."""
    yield CommandSpec("scan", "catalog_scan.command:scan_command", "Look for code in a file, folder or version.")
