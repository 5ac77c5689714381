"""Python's own SQLite, also where TensorFlow was imported first: its library offers an SQLite without full-text search
to every module that is loaded later, and Python's would take it."""

import os
import sys

from catalog_core.errors import BackendError

_flags = sys.getdlopenflags()
if "_sqlite3" not in sys.modules and hasattr(os, "RTLD_DEEPBIND"):
    sys.setdlopenflags(_flags | os.RTLD_DEEPBIND)  # what it was linked with comes before what is loaded
try:
    import sqlite3
finally:
    sys.setdlopenflags(_flags)

__all__ = ["check_search", "sqlite3"]


def check_search(db: sqlite3.Connection) -> None:
    """Raises `BackendError` where SQLite has no full-text search."""
    if not db.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone():
        raise BackendError(
            f"SQLite {sqlite3.sqlite_version} of this process has no full-text search (FTS5)",
            hint="import catalog_core before tensorflow" if "tensorflow" in sys.modules else "use another Python",
        )
