"""The catalog written into an SQLite database, and later what changed since."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlite_utils import Database

from catalog_core.errors import BackendError, CatalogError, IntegrityError, InvalidInput, NoSpace, NotFound
from catalog_core.values import when
from catalog_tables.schema import OF_VERSION, SCHEMA, TABLES, create

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.handles import Model, Version
    from catalog_core.page import Page

log = logging.getLogger("catalog_core")
PAGE = 1000
OF_EACH_VERSION = ("model.deleted", "model.restored")
Row = dict[str, Any]


def write(catalog: Catalog, path: Path) -> None:
    """Write `catalog` to the new file `path`; into one that an earlier export wrote, what changed since. It is one
    transaction: a reader sees the old state or the new one. Raises `InvalidInput` where `path` is another kind of file,
    or holds another catalog; `NoSpace`, `BackendError`."""
    path = path.absolute()  # SQLite has meanings of its own for `:memory:` and `file:…`
    new = not path.exists()
    if not new:
        if not path.is_file():  # a pipe waits without end
            raise InvalidInput(f"{path} is no file that an export could write", hint="name a new file")
        with path.open("rb") as file:
            if file.read(16) not in (b"", b"SQLite format 3\0"):
                raise InvalidInput(f"{path} is no SQLite database", hint="name a new file, or one that an export wrote")
    try:
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute("PRAGMA defer_foreign_keys = ON")
                _write(catalog, Database(connection, execute_plugins=False), path)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have given it up itself
                    connection.execute("ROLLBACK")
                if new and path.stat().st_size == 0:  # it held nothing, and holds nothing
                    path.unlink()
                raise
    except (sqlite3.Error, UnicodeDecodeError) as exc:
        raise _unwritten(path, exc) from exc


def _unwritten(path: Path, exc: Exception) -> CatalogError:
    """The error for what SQLite says of a file, with the way out."""
    said = " ".join(str(exc).split())
    if "full" in said:
        return NoSpace(f"{path} cannot be written: {said}", hint="free some space, and export again")
    if "locked" in said:
        return BackendError(f"{path} is in use by another program ({said})", hint="close it there, or name a new file")
    if isinstance(exc, sqlite3.IntegrityError):
        hint = "somebody else changed its tables or triggers: delete it, or name a new file"
        return BackendError(f"{path} does not take these rows: {said}", hint=hint)
    if any(word in said for word in ("unable to open", "readonly", "I/O error", "out of memory", "too big")):
        hint = "check the folder, its rights, the disk, and `ulimit -f`; or name a new file elsewhere"
        return BackendError(f"{path} cannot be written: {said}", hint=hint)
    return BackendError(f"{path} is damaged: {said}", hint="delete it, or name a new file: an export writes all of it")


def _write(catalog: Catalog, db: Database, path: Path) -> None:
    catalog.history(limit=1)  # the store is asked for news; what comes while this runs is told again next time
    position, begun = catalog.position, _begun(catalog, db, path)
    news = [row for row in _events(catalog, begun) if row["position"] <= position]
    if begun < 0:
        models = list(_models(catalog))
        db.table("models").insert_all(map(_model, models))
        page: Page[Version] | None = catalog.search(limit=PAGE)
        while page is not None:
            _add(db, page)
            page = page.next
    else:
        models = _refresh(catalog, db, news)
    for model in models:
        db.execute("DELETE FROM aliases WHERE model = ?", [model.name])
    db.table("aliases").insert_all(
        {"model": model.name, "alias": alias, "version": f"{model.name}@{number}"}
        for model in models
        for alias, number in model.aliases.items()
    )
    db.table("events").insert_all(news)
    told = {
        "schema": SCHEMA, "id": catalog.id, "name": catalog.name, "position": position,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    db.table("catalog").insert_all(({"key": key, "value": str(told[key])} for key in told), replace=True)


def _begun(catalog: Catalog, db: Database, path: Path) -> int:
    """The position up to which the file holds this catalog; -1 of one that is empty, or was emptied since the journal
    went on from an earlier entry, as after a failover."""
    names = set(db.table_names())
    if not names:
        create(db)
        return -1
    if not names.issuperset(TABLES):
        raise InvalidInput(f"{path} is a database of something else", hint="name a new file")
    told = {row["key"]: row["value"] for row in db.table("catalog").rows}
    lacks = [key for key in ("schema", "id", "name", "position") if key not in told]
    if lacks or not str(told["position"]).lstrip("-").isdecimal():
        raise InvalidInput(
            f"{path} no longer says which catalog it holds: its table catalog lacks {', '.join(lacks) or 'a position'}",
            hint="name a new file",
        )
    if told["schema"] != str(SCHEMA):
        raise InvalidInput(f"{path} has the tables of another release", hint="name a new file")
    if told["id"] != catalog.id:
        raise InvalidInput(f"{path} holds another catalog, {told['name']}", hint="name a new file")
    position = int(told["position"])
    last = list(db.table("events").rows_where(order_by="position DESC, ordinal DESC", limit=1))
    if position <= catalog.position and last and last[0] in _events(catalog, last[0]["position"] - 1):
        return position
    for name in reversed(TABLES):
        db.table(name).delete_where()
    return -1


def _refresh(catalog: Catalog, db: Database, news: Iterable[Row]) -> list[Model]:
    """Write anew the models and versions of these events; return the models that are there."""
    touched: dict[str, set[int] | None] = {}  # None: all versions
    for event in news:
        data = json.loads(event["data"])
        named = data["versions"] if event["type"] == "blobs.erased" else [(event["model"], event["number"])]
        for name, number in named:
            if name is not None:
                numbers = touched.setdefault(name, set())
                if event["type"] in OF_EACH_VERSION:
                    touched[name] = None
                elif numbers is not None and number is not None:
                    numbers.add(number)
    models = []
    for name, numbers in touched.items():
        which, values = ("", [name]) if numbers is None else (" AND number = ?", [])
        for number in [None] if numbers is None else sorted(numbers):
            _remove(db, f"model = ?{which}", values or [name, number])
        try:
            model = catalog.model(name)
        except NotFound:
            db.table("models").delete_where("name = ?", [name])
            continue
        models.append(model)
        db.table("models").insert_all([_model(model)], replace=True)
        _add(db, model.versions if numbers is None else _versions(catalog, name, numbers))
    return models


def _remove(db: Database, where: str, values: list[Any]) -> None:
    for table in OF_VERSION:
        db.table(table).delete_where(f"version IN (SELECT ref FROM versions WHERE {where})", values)
    db.table("aliases").delete_where(f"version IN (SELECT ref FROM versions WHERE {where})", values)
    db.table("versions").delete_where(where, values)


def _versions(catalog: Catalog, name: str, numbers: Iterable[int]) -> Iterator[Version]:
    for number in sorted(numbers):
        with suppress(NotFound):  # it is deleted
            yield catalog.version(f"{name}@{number}")


def _models(catalog: Catalog) -> Iterator[Model]:
    page: Page[Model] | None = catalog.models(limit=PAGE)
    while page is not None:
        yield from page
        page = page.next


def _add(db: Database, versions: Iterable[Version]) -> None:
    rows: dict[str, list[Row]] = {"versions": [], **{table: [] for table in OF_VERSION}}
    for version in versions:
        for table, found in _rows(version).items():
            rows[table] += found
    for table, found in rows.items():
        db.table(table).insert_all(found)


def _card(model: Model) -> str | None:
    """The card; None, with a warning, where its bytes are missing or damaged: the other models are exported."""
    try:
        return model.card
    except (IntegrityError, UnicodeDecodeError) as exc:
        log.warning("the card of %s is left out: %s", model.name, exc)
        return None


def _model(model: Model) -> Row:
    return {
        "name": model.name, "title": model.title, "description": model.description, "owner": model.owner,
        "newest": model.newest, "created": when(model.time).isoformat(), "updated": when(model.updated).isoformat(),
        "card": _card(model),
    }  # fmt: skip


def _rows(version: Version) -> dict[str, list[Row]]:
    """The rows of one version, by table."""
    summary, params = version.summary, version.params
    words = (summary.get("framework"), summary.get("algorithm"), version.author)
    tags = sorted(f"{key} {_text(value)}" for key, value in version.tags.items())
    found: dict[str, list[Row]] = {
        "tags": [{"key": key, **_typed(value)} for key, value in version.tags.items()],
        "metrics": [{"key": key, "value": float(value)} for key, value in version.metrics.items()],
        "parameters": [{"key": key, "number": _number(value), **_typed(value)} for key, value in params.items()],
        "taxonomy": [{"key": key, "value": _text(value)} for key, value in version.taxonomy.items()],
        "components": [{"name": k, "serializer": v} for k, v in dict(summary.get("components") or {}).items()],
        "entry_points": [{"name": name} for name in summary.get("entry_points") or ()],
        "parents": [{"ordinal": place, "ref": ref} for place, ref in enumerate(summary.get("parents") or ())],
        "attachments": [{"name": name, "size": size} for name, size in version.attachments.items()],
    }
    own = {
        "ref": version.ref, "model": version.model, "number": version.number, "stage": version.stage,
        "digest": version.digest, "author": version.author, "created": version.created.isoformat(),
        "size": version.size, "framework": summary.get("framework"), "algorithm": summary.get("algorithm"),
        "weights": summary.get("parameters"), "verification": summary.get("verification"),
        "description": version.description, "words": " ".join([*filter(None, words), *tags]),
    }  # fmt: skip
    return {"versions": [own]} | {t: [{"version": version.ref, **row} for row in rows] for t, rows in found.items()}


def _typed(value: Any) -> Row:
    return {"value": _text(value), "type": "null" if value is None else type(value).__name__}


def _text(value: Any) -> str | None:
    return None if value is None else value if isinstance(value, str) else json.dumps(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _events(catalog: Catalog, after: int) -> Iterator[Row]:
    """The events behind the position `after`, oldest first."""
    while found := catalog.history(after=after, limit=PAGE):
        for position, together in groupby(found, lambda event: event.position):
            after = position
            for ordinal, event in enumerate(together):
                yield {
                    "position": position, "ordinal": ordinal, "time": event.time.isoformat(), "actor": event.actor,
                    "type": event.type, "model": event.model, "number": event.number, "rejected": event.rejected,
                    "text": event.text, "data": json.dumps(dict(event.data), ensure_ascii=False, default=dict),
                }  # fmt: skip
