"""The reducer: a pure function from (state, entry) to state, over the tables of an index.

It never reads a blob, a clock or the network, so every reader arrives at the same state. What each event means is in
`docs/format.md`; the journals in `catalog_core.testing` freeze it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from catalog_core.digests import canonical, check_count, check_digest, parse
from catalog_core.errors import InvalidInput, Rejected
from catalog_core.events import MAX_EVENT, STAGES, Entry, Intent, known, too_large
from catalog_core.names import check_alias, check_key, check_name
from catalog_core.sqlite import sqlite3
from catalog_core.values import word

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT UNIQUE, folded TEXT UNIQUE, title TEXT, description TEXT,
  owner TEXT, created REAL, updated REAL, deleted INTEGER NOT NULL DEFAULT 0,
  card TEXT, newest INTEGER NOT NULL DEFAULT 0);
CREATE TABLE versions (id INTEGER PRIMARY KEY, model INTEGER NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL,
  manifest TEXT, layout TEXT, stage TEXT NOT NULL, author TEXT, created REAL NOT NULL, framework TEXT, algorithm TEXT,
  size INTEGER, deleted INTEGER NOT NULL DEFAULT 0, position INTEGER, verification TEXT);
CREATE UNIQUE INDEX versions_number ON versions (model, number);
CREATE TABLE aliases (model INTEGER, alias TEXT, number INTEGER, PRIMARY KEY (model, alias)) WITHOUT ROWID;
CREATE TABLE parted (model INTEGER, alias TEXT, number INTEGER, PRIMARY KEY (model, alias)) WITHOUT ROWID;
CREATE TABLE fields (version INTEGER, key TEXT, text TEXT, number REAL, flag INTEGER,
  PRIMARY KEY (version, key)) WITHOUT ROWID;
CREATE TABLE parents (version INTEGER, ordinal INTEGER, ref TEXT, PRIMARY KEY (version, ordinal)) WITHOUT ROWID;
CREATE TABLE origins (version INTEGER PRIMARY KEY, catalog TEXT, ref TEXT);
CREATE TABLE attachments (version INTEGER, name TEXT, digest TEXT, size INTEGER,
  PRIMARY KEY (version, name)) WITHOUT ROWID;
CREATE TABLE descriptions (version INTEGER PRIMARY KEY, text TEXT);
CREATE VIRTUAL TABLE texts USING fts5(name, body, content='', columnsize=0, tokenize='unicode61');
CREATE VIRTUAL TABLE model_texts USING fts5(body, tokenize='unicode61');
CREATE TABLE entries (position INTEGER PRIMARY KEY, data BLOB);
CREATE TABLE events (id INTEGER PRIMARY KEY, position INTEGER, ordinal INTEGER, time REAL, actor TEXT, model TEXT,
  number INTEGER, type TEXT, rejected TEXT);
CREATE TABLE intents (id TEXT, actor TEXT, position INTEGER, PRIMARY KEY (id, actor)) WITHOUT ROWID;
CREATE TABLE dropped (id TEXT PRIMARY KEY, position INTEGER) WITHOUT ROWID;
CREATE TABLE swept (digest TEXT PRIMARY KEY, prefix TEXT, position INTEGER, count INTEGER) WITHOUT ROWID;
CREATE INDEX swept_prefix ON swept (prefix);
CREATE TABLE erased (digest TEXT PRIMARY KEY, prefix TEXT, position INTEGER) WITHOUT ROWID;
CREATE INDEX erased_prefix ON erased (prefix);
CREATE TABLE inlined (key TEXT PRIMARY KEY, data TEXT) WITHOUT ROWID;
"""
# made when the first entries are in: sorting all rows once is faster than finding a place for each
INDEXES = (
    "fields (key, coalesce(number, text), version)",  # in the order of their values: numbers, then texts
    "fields (key, text, version)",
    "fields (key, version)",
    "aliases (alias)",
    "parents (ref)",
    "origins (catalog, ref)",
    "events (model, position)",
    "versions (name, number)",
    *(
        f"versions ({column})"
        for column in ("number", "stage", "author", "created", "framework", "algorithm", "size", "verification")
    ),
)
# what the reducer keeps back and writes many rows at a time
VERSION = "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)"
NEWEST = "UPDATE models SET newest = ?, updated = ?, deleted = 0 WHERE id = ?"
ALIAS = "INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)"
FIELD = "INSERT OR REPLACE INTO fields VALUES (?, ?, ?, ?, ?)"
PARENT = "INSERT INTO parents VALUES (?, ?, ?)"
ORIGIN = "INSERT INTO origins VALUES (?, ?, ?)"
TEXT = "INSERT INTO texts (rowid, name, body) VALUES (?, ?, ?)"
DESCRIPTION = "INSERT INTO descriptions VALUES (?, ?)"
INTENT = "INSERT INTO intents VALUES (?, ?, ?)"
ENTRY = "INSERT INTO entries VALUES (?, ?)"
EVENT = (
    "INSERT INTO events (position, ordinal, time, actor, model, number, type, rejected) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
KEPT = 5000
# what a malformed event raises; what SQLite says of the machine (a full disk) is no verdict on it
BROKEN = (
    Rejected, ValueError, KeyError, TypeError, AttributeError,
    sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError,
)  # fmt: skip
REDUCED = (VERSION, NEWEST, FIELD, ALIAS, PARENT, ORIGIN, DESCRIPTION, TEXT)
KEEP = (*REDUCED, INTENT, ENTRY, EVENT)
GROUPS = ("tags", "metrics", "params", "taxonomy")
STATE = (
    "models",
    "versions",
    "aliases",
    "parted",
    "fields",
    "attachments",
    "intents",
    "dropped",
    "swept",
    "erased",
    "inlined",
    "entries",
    "events",
)


_alias = functools.lru_cache(4096)(check_alias)
_key = functools.lru_cache(4096)(check_key)


class Reducer:
    """Takes entries into the state, inside a transaction of `db`. Rows that are only added are kept back and written
    many at a time: whoever reads or changes the tables calls `write_back` first."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self._models: dict[str, list[int]] = {}  # name → [id, newest]
        self._last: int | None = None  # the highest id of a version
        self._kept: dict[str, list[tuple[Any, ...]]] = {statement: [] for statement in KEEP}
        self.load(0)

    def load(self, time: int) -> None:
        """Forget what is kept in memory: the tables are the state. `time` is that of the last entry (milliseconds)."""
        self.time = time
        self._ids: set[tuple[str, str]] | None = None  # of all intents, while the journal is read from its beginning
        self._forget()
        for rows in self._kept.values():
            rows.clear()
        self.swept, self.erased = (
            bool(
                self.db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
                and self.db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
            )
            for table in ("swept", "erased")
        )

    def begin(self, *, empty: bool) -> None:
        """Entries follow; `empty`: from the very first."""
        self._ids = set() if empty else None

    def end(self, *, empty: bool) -> None:
        """The entries are in."""
        self.write_back()
        self._ids = None
        if empty:
            for number, columns in enumerate(INDEXES):
                self.db.execute(f"CREATE INDEX IF NOT EXISTS lookup_{number} ON {columns}")

    def apply(self, entry: Entry, data: bytes, *, strict: bool) -> None:
        """Take one entry in. What breaks a rule is skipped and kept as rejected; with `strict` it is raised."""
        self.time = max(self.time, entry.time)
        if entry.blobs or entry.wrong:
            allowed = [item for item in entry.blobs.items() if not self.is_erased(item[0])]
            self.db.executemany("INSERT OR IGNORE INTO inlined VALUES (?, ?)", allowed)
            data = canonical({key: value for key, value in parse(data).items() if key != "blobs"})
        self._kept[ENTRY].append((entry.position, data))
        wide = len(data) > MAX_EVENT
        ordinal, now, keep = 0, self.time / 1000, self._kept[EVENT].append
        for intent in entry.intents:
            if self._is_new(intent, entry.position):
                problem = too_large(intent) if wide else None
                if problem and strict:
                    raise Rejected(problem, code="size")
                problem = problem or self._take(intent, entry, strict)
                for number, event in enumerate(intent.events, ordinal):
                    model, version = event.get("model"), event.get("number")
                    model, version = model if type(model) is str else None, version if type(version) is int else None
                    keep((entry.position, number, now, intent.actor, model, version, event["type"], problem))
            ordinal += len(intent.events)
        if len(self._kept[EVENT]) > KEPT:
            self.write_back()

    def _forget(self) -> None:
        self._models.clear()
        self._last = None

    def _is_new(self, intent: Intent, position: int) -> bool:
        """Whether no intent of this id was there before, of the same actor: nobody uses up the id of another. From here
        on there is one, accepted or rejected."""
        row = (intent.id, intent.actor, position)
        if self._ids is None:
            if self.db.execute("SELECT 1 FROM dropped WHERE id = ?", (intent.id,)).fetchone():
                return False
            return self.db.execute("INSERT OR IGNORE INTO intents VALUES (?, ?, ?)", row).rowcount > 0
        if row[:2] in self._ids:
            return False
        self._ids.add(row[:2])
        self._kept[INTENT].append(row)
        return True

    def write_back(self) -> None:
        """Write what is kept back."""
        for statement, rows in self._kept.items():
            if rows:
                self.db.executemany(statement, rows)
                rows.clear()

    def _take(self, intent: Intent, entry: Entry, strict: bool) -> str | None:
        """Let the events of an intent take effect together, or none of them; return the rule that forbids it."""
        first = intent.events[0] if intent.events else {}
        quick = (
            first.get("type") == "version.published"
            and known(first)
            and all(
                event["type"] == "alias.set"
                and known(event)
                and event["seen"] == "any"
                and (event["model"], event["number"]) == (first["model"], first["number"])
                for event in intent.events[1:]
            )
        )
        try:
            if quick:
                self._publish(first, entry, intent.actor, [event["alias"] for event in intent.events[1:]])
            else:
                self._reduce_together(intent, entry)
        except BROKEN as exc:
            if strict:
                raise
            return str(exc)
        return None

    def _reduce_together(self, intent: Intent, entry: Entry) -> None:
        """Event by event; all of them are taken back where one breaks a rule."""
        self.write_back()
        self.db.execute("SAVEPOINT intent")
        try:
            for event in intent.events:
                self.reduce(event, entry, intent.actor)
        except BROKEN:
            for statement in REDUCED:
                self._kept[statement].clear()
            self._forget()
            self.db.execute("ROLLBACK TO intent")
            self.db.execute("RELEASE intent")
            raise
        self.db.execute("RELEASE intent")

    def reduce(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        """Let one event take effect, if this release knows what it means; the tables then hold it."""
        if known(event):
            getattr(self, "_on_" + event["type"].replace(".", "_"))(event, entry, actor)
            self.write_back()

    def _on_catalog_created(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        if entry.position != 0:
            raise Rejected("a catalog is created once", code="created-twice")
        self.db.execute("INSERT OR REPLACE INTO meta VALUES ('catalog', ?)", (event["catalog"],))

    def _known_model(self, name: str) -> list[int] | None:
        known = self._models.get(name)
        if known is None:
            row = self.db.execute("SELECT id, newest FROM models WHERE name = ?", (name,)).fetchone()
            if row is None:
                return None
            if len(self._models) > 50_000:
                self.write_back()
                self._models.clear()
            known = self._models[name] = [*row]
        return known

    def _model(self, name: str) -> int:
        known = self._known_model(name)
        if known is None:
            raise Rejected(f"model {name!r} does not exist", code="no-model")
        return known[0]

    def _version(self, event: Mapping[str, Any]) -> tuple[int, int, str, int]:
        model = self._model(event["model"])
        _count(event["number"], f"the number of a version of {event['model']}", 1)
        row = self.db.execute(
            "SELECT id, stage, deleted FROM versions WHERE model = ? AND number = ?", (model, event["number"])
        ).fetchone()
        if row is None:
            raise Rejected(f"version {event['model']}@{event['number']} does not exist", code="no-version")
        return (model, *row)

    def _on_version_published(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        self._publish(event, entry, actor, ())

    def _publish(self, event: Mapping[str, Any], entry: Entry, actor: str, aliases: Iterable[str]) -> None:
        """Take in a new version, with aliases that come with it. Everything is checked before anything is kept."""
        now = self.time / 1000
        name, number, summary = event["model"], event["number"], event.get("summary", {})
        self._refuse_swept(event)
        known = self._known_model(name)
        newest = known[1] if known else 0
        if known is None:
            check_name(name)
            other = self.db.execute("SELECT name FROM models WHERE folded = ?", (name.lower(),)).fetchone()
            if other:
                raise Rejected(
                    f"model {name!r} differs from {other[0]!r} only by case", code="case", hint=f"use {other[0]!r}"
                )
        if type(number) is not int or number != newest + 1:
            raise Rejected(
                f"{name}@{number} cannot be published: the next number is {newest + 1}",
                code="number",
                seen=number,
                actual=newest + 1,
            )
        digests = check_digest(event["manifest"]), check_digest(event["layout"])
        framework, algorithm, verification = map(_text, map(summary.get, ("framework", "algorithm", "verification")))
        fields = [row for kind in GROUPS if kind in event for row in field_rows(kind, event[kind])]
        description = _text(event.get("text"))
        _count(event["size"], f"the size of {name}@{number}")
        named = [_alias(alias) for alias in aliases]
        parents, origin = relatives(summary)
        if known is None:
            row = self.db.execute(
                "INSERT INTO models (name, folded, created, updated) VALUES (?, ?, ?, ?) RETURNING id",
                (name, name.lower(), now, now),
            ).fetchone()
            known = self._models[name] = [row[0], 0]
        if self._last is None:
            self._last = self.db.execute("SELECT coalesce(max(id), 0) FROM versions").fetchone()[0]
        self._last = version = self._last + 1
        model, known[1] = known[0], number
        kept = self._kept
        kept[VERSION].append(
            (version, model, number, name, *digests, STAGES[0], actor, now, framework, algorithm, event["size"],
             entry.position, verification)
        )  # fmt: skip
        kept[NEWEST].append((number, now, model))
        kept[FIELD] += [(version, *row) for row in fields]
        kept[ALIAS] += [(model, alias, number) for alias in named]
        kept[PARENT] += [(version, place, parent) for place, parent in enumerate(parents)]
        if origin is not None:
            kept[ORIGIN].append((version, *origin))
        if description:
            kept[DESCRIPTION].append((version, description))
        tags = [row for row in fields if row[0].startswith("tags.")]
        kept[TEXT].append(text_row(version, name, description, framework, algorithm, actor, tags))

    def is_erased(self, key: str) -> bool:
        """Whether the content of a storage key may not come back."""
        if not self.erased:
            return False
        digest = key.partition("~")[0]
        return self.db.execute("SELECT 1 FROM erased WHERE digest = ?", (digest,)).fetchone() is not None

    def _refuse_swept(self, event: Mapping[str, Any]) -> None:
        """Refuse what relies on a blob that was collected since it was seen, or erased at any time."""
        if not (self.swept or self.erased) or "blobs" not in event:
            return
        _count(event["checked"], "the entry at which blobs were there", -1)
        prefixes = [event["blobs"][at : at + 16] for at in range(0, len(event["blobs"]), 16)]
        for at in range(0, len(prefixes), 500):
            part = prefixes[at : at + 500]
            among = f"prefix IN ({','.join('?' * len(part))}) LIMIT 1"
            row = self.db.execute(f"SELECT digest FROM erased WHERE {among}", part).fetchone()
            if row:
                raise erased(row[0])
            row = self.db.execute(
                f"SELECT digest FROM swept WHERE position > ? AND {among}", (event["checked"], *part)
            ).fetchone()
            if row:
                raise Rejected(f"blob {row[0]} was collected in the meantime", code="swept", hint="save again")

    def _set_fields(self, event: Mapping[str, Any], kind: str) -> None:
        version = self._version(event)[1]
        self._kept[FIELD] += [(version, *row) for row in field_rows(kind, event["set"])]
        self.write_back()
        self.db.executemany(
            "DELETE FROM fields WHERE version = ? AND key = ?", [(version, f"{kind}.{key}") for key in event["unset"]]
        )

    def _on_tags_set(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        version = self._version(event)[1]
        self.write_back()
        before = self._text_row(version)
        self._set_fields(event, "tags")
        # a table without content is told what to forget, word by word
        self.db.execute("INSERT INTO texts (texts, rowid, name, body) VALUES ('delete', ?, ?, ?)", before)
        self.db.execute(TEXT, self._text_row(version))

    def _text_row(self, version: int) -> tuple[int, str, str]:
        """The words of a version that is written, as `texts` has them."""
        name, text, framework, algorithm, author = self.db.execute(
            "SELECT name, d.text, framework, algorithm, author FROM versions v"
            " LEFT JOIN descriptions d ON d.version = v.id WHERE v.id = ?",
            (version,),
        ).fetchone()
        tags = self.db.execute(
            "SELECT key, text FROM fields WHERE version = ? AND key BETWEEN 'tags.' AND 'tags/'", (version,)
        )
        return text_row(version, name, text, framework, algorithm, author, tags)

    def _on_metrics_set(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        self._set_fields(event, "metrics")

    def _seen(self, what: str, seen: Any, actual: Any) -> None:
        if seen != actual:
            raise Rejected(
                f"{what} was changed by somebody else: you saw {seen!r}, it is {actual!r}",
                code="stale",
                seen=seen,
                actual=actual,
                hint="look again, then repeat",
            )

    def _on_alias_set(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        alias, number = check_alias(event["alias"]), event["number"]
        model = self._model(event["model"])
        row = self.db.execute("SELECT number FROM aliases WHERE model = ? AND alias = ?", (model, alias)).fetchone()
        if event["seen"] != "any":
            self._seen(f"alias {event['model']}@{alias}", event["seen"], row and row[0])
        if number is None:
            self.db.execute("DELETE FROM aliases WHERE model = ? AND alias = ?", (model, alias))
            return
        if self._version(event)[3]:
            raise Rejected(f"{event['model']}@{number} is deleted", code="deleted")
        self.db.execute(ALIAS, (model, alias, number))

    def _on_stage_set(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        _, version, stage, _ = self._version(event)
        if event["stage"] not in STAGES:
            raise Rejected(f"there is no stage {event['stage']!r}", code="stage", hint=f"stages: {', '.join(STAGES)}")
        self._seen(f"the stage of {event['model']}@{event['number']}", event["seen"], stage)
        self.db.execute("UPDATE versions SET stage = ? WHERE id = ?", (event["stage"], version))

    def _on_model_updated(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        model = self._model(event["model"])
        for key, value in event["set"].items():
            if key not in ("title", "description", "owner"):
                raise Rejected(f"a model has no {key!r}", code="field", hint="title, description, owner")
            _text(value)
            actual = self.db.execute(f"SELECT {key} FROM models WHERE id = ?", (model,)).fetchone()[0]
            self._seen(f"the {key} of {event['model']}", event["seen"].get(key), actual)
            self.db.execute(f"UPDATE models SET {key} = ?, updated = ? WHERE id = ?", (value, self.time / 1000, model))
        title, description = self.db.execute("SELECT title, description FROM models WHERE id = ?", (model,)).fetchone()
        self.db.execute("DELETE FROM model_texts WHERE rowid = ?", (model,))
        self.db.execute(
            "INSERT INTO model_texts (rowid, body) VALUES (?, ?)", (model, f"{title or ''} {description or ''}")
        )

    def _on_card_set(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        model = self._model(event["model"])
        actual = self.db.execute("SELECT card FROM models WHERE id = ?", (model,)).fetchone()[0]
        self._seen(f"the card of {event['model']}", event["seen"], actual)
        if event["digest"] is not None:
            check_digest(event["digest"])
        self._refuse_swept(event)
        self.db.execute("UPDATE models SET card = ? WHERE id = ?", (event["digest"], model))

    def _on_attachment_set(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        version, name = self._version(event)[1], check_name(event["name"], "attachment")
        if event["digest"] is None:
            self.db.execute("DELETE FROM attachments WHERE version = ? AND name = ?", (version, name))
            return
        self._refuse_swept(event)
        _count(event["size"], f"the size of attachment {name!r}")
        self.db.execute(
            "INSERT OR REPLACE INTO attachments VALUES (?, ?, ?, ?)",
            (version, name, check_digest(event["digest"]), event["size"]),
        )

    def _on_version_deleted(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        model, version, _, deleted = self._version(event)
        if deleted:
            raise Rejected(f"{event['model']}@{event['number']} is deleted already", code="deleted")
        self.db.execute("UPDATE versions SET deleted = 1 WHERE id = ?", (version,))
        self._part("number = ?", model, event["number"])

    def _part(self, which: str, *values: int) -> None:
        """Take the aliases away from what is deleted; `_rejoin` gives them back."""
        self.db.execute(f"INSERT OR REPLACE INTO parted SELECT * FROM aliases WHERE model = ? AND {which}", values)
        self.db.execute(f"DELETE FROM aliases WHERE model = ? AND {which}", values)

    def _rejoin(self, model: int) -> None:
        """Aliases come back to versions that are there again, unless the name was given away meanwhile."""
        there = "model = ? AND number IN (SELECT number FROM versions v WHERE v.model = parted.model AND v.deleted = 0)"
        self.db.execute(f"INSERT OR IGNORE INTO aliases SELECT * FROM parted WHERE {there}", (model,))
        self.db.execute(f"DELETE FROM parted WHERE {there}", (model,))

    def _restore(self, version: int, what: str) -> None:
        if self.db.execute("SELECT deleted FROM versions WHERE id = ?", (version,)).fetchone()[0] == 2:
            raise Rejected(f"{what} cannot be restored: its bytes were collected", code="collected")
        self.db.execute("UPDATE versions SET deleted = 0 WHERE id = ?", (version,))

    def _on_version_restored(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        model, version, *_ = self._version(event)
        self._restore(version, f"{event['model']}@{event['number']}")
        self.db.execute("UPDATE models SET deleted = 0 WHERE id = ?", (model,))  # else nothing would list it
        self._rejoin(model)

    def _on_model_deleted(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        model = self._model(event["model"])
        self.db.execute("UPDATE models SET deleted = 1 WHERE id = ?", (model,))
        self.db.execute("UPDATE versions SET deleted = 3 WHERE model = ? AND deleted = 0", (model,))
        self._part("1", model)

    def _on_model_restored(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        model = self._model(event["model"])
        self.db.execute("UPDATE models SET deleted = 0 WHERE id = ?", (model,))
        self.db.execute("UPDATE versions SET deleted = 0 WHERE model = ? AND deleted = 3", (model,))
        self._rejoin(model)

    def _on_blobs_swept(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        self.swept = True
        for name, number in event["versions"]:  # they cannot come back
            version = self._version({"model": name, "number": number})
            self.db.execute("UPDATE versions SET deleted = 2 WHERE id = ?", (version[1],))
        for key in event["keys"]:
            digest, _, text = key.partition("~")
            if text and not (text.isascii() and text.isdigit()):
                raise Rejected(f"{key[:100]!r} is no key of a blob", code="count")
            row = self.db.execute("SELECT count FROM swept WHERE digest = ?", (digest,)).fetchone()
            count, known = int(text or 0), row[0] if row else 0
            if count > known:
                continue  # the key of a branch that became void: nothing was ever stored under it here
            # one that a late writer left behind is swept again, which must not bring an old count back
            self.db.execute(
                "INSERT INTO swept VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET"
                " position = excluded.position, count = max(count, excluded.count)",
                (digest, digest[7:23], entry.position, count + 1),
            )
            self.db.execute("DELETE FROM inlined WHERE key = ?", (key,))
            self.db.execute("DELETE FROM chunks WHERE key = ?", (digest,))
            self.db.execute("DELETE FROM trusted WHERE key = ?", (digest,))

    def _on_blobs_erased(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        """A sweep, of which some contents may not come back."""
        _text(event["reason"])
        self._on_blobs_swept(event, entry, actor)
        self.erased = True
        for name, number in event["versions"]:
            self._part("number = ?", self._model(name), number)
        for digest in event["digests"]:
            row = (check_digest(digest), digest[7:23], entry.position)
            self.db.execute("INSERT OR IGNORE INTO erased VALUES (?, ?, ?)", row)
            self.db.execute("DELETE FROM inlined WHERE key = ?", (digest,))
            self.db.execute("UPDATE models SET card = NULL WHERE card = ?", (digest,))
            self.db.execute("DELETE FROM attachments WHERE digest = ?", (digest,))

    def _on_intents_dropped(self, event: Mapping[str, Any], entry: Entry, actor: str) -> None:
        """Nobody may bring them here from a void branch any more."""
        self._ids = None  # from here on the table is asked: it goes back with a savepoint
        for intent in event["ids"]:
            if not isinstance(intent, str):
                raise Rejected(f"{str(intent)[:60]!r} is no id of an intent", code="id")
            self.db.execute("INSERT OR IGNORE INTO dropped VALUES (?, ?)", (intent, entry.position))


def erased(digest: str) -> Rejected:
    """The error for a content that may not come back."""
    return Rejected(
        f"{digest} was erased from this catalog for good", code="erased", hint="`catalog history` says by whom, and why"
    )


def _count(value: Any, what: str, least: int = 0) -> int:
    try:
        return check_count(value, what, least)
    except InvalidInput as exc:
        raise Rejected(exc.message, code="count") from exc


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Rejected(f"{str(value)[:60]!r} is no text", code="text")
    return value


def relatives(summary: Mapping[str, Any]) -> tuple[list[str], tuple[str, str] | None]:
    """What a publish event says of where its version comes from: references of parents, and the catalog and reference
    that it was copied from. What is no text is passed over."""
    parents, origin = summary.get("parents"), summary.get("origin")
    named = [parent for parent in parents if isinstance(parent, str)] if isinstance(parents, list) else []
    if isinstance(origin, dict) and isinstance(origin.get("catalog"), str) and isinstance(origin.get("ref"), str):
        return named, (origin["catalog"], origin["ref"])
    return named, None


def text_row(
    version: int, name: str, description: str | None, framework: str | None, algorithm: str | None, author: str,
    tags: Iterable[Sequence[Any]],
) -> tuple[int, str, str]:  # fmt: skip
    """The row of `texts` of a version; the rows of its tags begin with key and text."""
    words = [description or "", framework or "", algorithm or "", author, *sorted(f"{k[5:]} {t}" for k, t, *_ in tags)]
    return version, name.replace("/", " "), " ".join(words)


def field_rows(kind: str, values: Mapping[str, Any]) -> list[tuple[str, str, float | None, int | None]]:
    """The rows of tags, metrics, parameters or taxonomy: key, text, number where it is one, 1 or 0 for a boolean."""
    rows: list[tuple[str, str, float | None, int | None]] = []
    for key, value in values.items():
        _key(key, kind)
        number = value if type(value) in (int, float) else None
        if number is None and (kind == "metrics" or not isinstance(value, (str, bool))):
            raise Rejected(f"{kind} {key!r} cannot be {value!r}", code="metric" if kind == "metrics" else "value")
        rows.append((f"{kind}.{key}", word(value), number, int(value) if isinstance(value, bool) else None))
    return rows
