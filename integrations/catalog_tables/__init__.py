"""`catalog export --format sqlite`: the whole catalog as an SQLite database with a documented schema."""

from collections.abc import Iterable

from catalog_core.specs import FormatSpec


def catalog_register_formats() -> Iterable[FormatSpec]:
    """Register the writer."""
    yield FormatSpec("sqlite", whole="catalog_tables.export:write")
