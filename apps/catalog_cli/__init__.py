"""The `catalog` command. Subcommands are imported when they are called."""

from catalog_cli.main import main

__all__ = ["main"]
