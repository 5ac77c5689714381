"""The tables of the exported database. They are public: `docs/reference/sqlite-export.md` describes them, and a change
of what is there gets another `SCHEMA`."""

from __future__ import annotations

from sqlite_utils import Database

SCHEMA = 1
# table → its columns beside `version`, and the one that is unique within a version
OF_VERSION: dict[str, tuple[dict[str, type], str]] = {
    "tags": ({"key": str, "value": str, "type": str}, "key"),
    "metrics": ({"key": str, "value": float}, "key"),
    "parameters": ({"key": str, "value": str, "number": float, "type": str}, "key"),
    "taxonomy": ({"key": str, "value": str}, "key"),
    "components": ({"name": str, "serializer": str}, "name"),
    "entry_points": ({"name": str}, "name"),
    "parents": ({"ordinal": int, "ref": str}, "ordinal"),
    "attachments": ({"name": str, "size": int}, "name"),
}
TABLES = ("catalog", "models", "versions", *OF_VERSION, "aliases", "events")


def create(db: Database) -> None:
    """Make the empty tables."""
    db.table("catalog").create({"key": str, "value": str}, pk="key")
    db.table("models").create(
        {
            "name": str, "title": str, "description": str, "owner": str, "newest": int, "created": str, "updated": str,
            "card": str,
        },
        pk="name",
    )  # fmt: skip
    versions = db.table("versions").create(
        {
            "id": int, "ref": str, "model": str, "number": int, "stage": str, "digest": str, "author": str,
            "created": str, "size": int, "framework": str, "algorithm": str, "weights": int, "verification": str,
            "description": str, "words": str,
        },
        pk="id", not_null=("ref", "model", "number", "stage", "digest", "created", "size"),
        foreign_keys=[("model", "models", "name")],
    )  # fmt: skip
    versions.create_index(["ref"], unique=True)
    versions.create_index(["model", "number"], unique=True)
    for name, (columns, key) in OF_VERSION.items():
        db.table(name).create(
            {"version": str, **columns}, pk=("version", key), foreign_keys=[("version", "versions", "ref")]
        )
        if "value" in columns:
            db.table(name).create_index(["key", "value"])
    db.table("aliases").create(
        {"model": str, "alias": str, "version": str},
        pk=("model", "alias"), foreign_keys=[("model", "models", "name"), ("version", "versions", "ref")],
    )  # fmt: skip
    events = db.table("events").create(
        {
            "position": int, "ordinal": int, "time": str, "actor": str, "type": str, "model": str, "number": int,
            "rejected": str, "text": str, "data": str,
        },
        pk=("position", "ordinal"),
    )  # fmt: skip
    events.create_index(["model", "position"])
    versions.enable_fts(["ref", "description", "words"], create_triggers=True)
