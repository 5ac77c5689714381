"""The schema of `catalog.db`, as migrations. Imported only where a file is made, or was made by an older release."""

from __future__ import annotations

import sqlite3

from sqlite_utils import Database, Migrations

migrations = Migrations("catalog_sqlite")


@migrations()
def entries_and_small_blobs(db: Database) -> None:
    """The journal, and the blobs that are not worth a file, one behind the other."""
    db.table("entries").create(
        {"position": int, "digest": str, "data": bytes}, pk="position", not_null=("digest", "data")
    )
    db.table("small").create(
        {"id": int, "key": str, "data": bytes, "time": float}, pk="id", not_null=("key", "data", "time")
    )
    db.table("small").create_index(["key"], unique=True)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the file to the newest schema, inside the transaction that the caller has begun."""
    migrations.apply(Database(connection))
    connection.execute(f"PRAGMA user_version = {version}")
