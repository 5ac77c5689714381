"""`catalog scan`: looks for code in model files, without running any."""

from collections.abc import Iterable

from catalog_core.specs import CheckSpec, CommandSpec


def catalog_register_commands() -> Iterable[CommandSpec]:
    """Register `catalog scan`."""
    yield CommandSpec("scan", "catalog_scan.command:scan_command", "Look for code in a file, folder or version.")


def catalog_register_checks() -> Iterable[CheckSpec]:
    """Register the check `unsafe`."""
    yield CheckSpec("unsafe", "catalog_scan.stored:check")
