"""The state: what the journal says by now, as questions to the index and frozen rows as answers.

Every statement that reads the state is here, but for those of a search (`query_sql`) and of the rules (`reducer`).
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core.values import typed, when

if TYPE_CHECKING:
    from catalog_core.index import Index

ROOM = 500  # ids in one statement
FIELDS = ("title", "description", "owner")  # of a model


class Deletion(enum.IntEnum):
    """Whether a version is deleted, and how."""

    NOT = 0
    ALONE = 1
    COLLECTED = 2  # its bytes are gone: it cannot be restored
    WITH_MODEL = 3


Field = tuple[str, str, float | None, int | None]  # key (`metrics.auc`), text, number, boolean as 0 or 1


@attrs.frozen
class VersionRow:
    """A version as it stands: `name` and `number`, `digest` of its manifest, `layout` (a digest), `stage`, `author`,
    `time` (seconds since 1970), `size` (bytes), `deleted`, `position` (of the entry that published it), `model` (its
    row); `attachments` (name → digest, bytes), and the `aliases` of its model (alias → number)."""

    fields: Sequence[Field]
    attachments: Mapping[str, tuple[str, int]]
    aliases: Mapping[str, int]
    id: int
    name: str
    number: int
    digest: str
    layout: str
    stage: str
    author: str
    time: float
    size: int
    deleted: Deletion = attrs.field(converter=Deletion)
    position: int
    model: int

    @property
    def ref(self) -> str:
        """`name@number`."""
        return f"{self.name}@{self.number}"

    def group(self, kind: str) -> dict[str, Any]:
        """Its `tags`, `metrics`, `params` or `taxonomy`, as they were given."""
        begin = f"{kind}."
        return {
            key.removeprefix(begin): typed(text, number, flag)
            for key, text, number, flag in self.fields
            if key.startswith(begin)
        }


@attrs.frozen
class ModelRow:
    """A model as it stands: `name`, `title`, `description`, `owner`, `time` and `updated` (seconds since 1970),
    `deleted`, `card` (a digest), `newest` (the highest number that is not deleted), `aliases` (alias → number)."""

    aliases: Mapping[str, int]
    id: int
    name: str
    title: str | None
    description: str | None
    owner: str | None
    time: float
    updated: float
    deleted: bool = attrs.field(converter=bool)
    card: str | None
    newest: int | None


# -- versions ---------------------------------------------------------------------------------------------------------

VERSION = (
    "SELECT v.id, v.name, v.number, v.manifest, v.layout, v.stage, v.author, v.created, v.size, v.deleted, v.position,"
    " v.model FROM"
)


def _versions(index: Index, source: str, params: Iterable[Any] = ()) -> list[VersionRow]:
    """The versions that `FROM {source}` selects as `v`, with all that may change of them, at one position."""
    with index.reading():
        rows = index.rows(f"{VERSION} {source}", params)
        ids = [row[0] for row in rows]
        fields: dict[int, list[Any]] = {}
        for version, *field in _among(index, "SELECT version, key, text, number, flag FROM fields", "version", ids):
            fields.setdefault(version, []).append(field)
        attached: dict[int, dict[str, tuple[str, int]]] = {}
        for version, name, digest, size in _among(index, "SELECT * FROM attachments", "version", ids):
            attached.setdefault(version, {})[name] = digest, size
        aliases = _aliases(index, {row[-1] for row in rows})
    return [
        VersionRow(fields.get(row[0], ()), attached.get(row[0], {}), aliases.get(row[-1], {}), *row) for row in rows
    ]  # fmt: skip


def _aliases(index: Index, models: Iterable[int]) -> dict[int, dict[str, int]]:
    """Alias → number, by model."""
    found: dict[int, dict[str, int]] = {}
    for model, alias, number in _among(index, "SELECT model, alias, number FROM aliases", "model", models):
        found.setdefault(model, {})[alias] = number
    return found


def _among(index: Index, select: str, column: str, ids: Iterable[int]) -> Iterator[tuple[Any, ...]]:
    """The rows of a table that belong to `ids`, in the order of `column` and the one behind it: a statement for each
    `ROOM` ids, not for each id."""
    wanted = list(ids)
    for start in range(0, len(wanted), ROOM):
        part = wanted[start : start + ROOM]
        yield from index.rows(f"{select} WHERE {column} IN ({_marks(part)}) ORDER BY 1, 2", part)


def _marks(values: Collection[Any]) -> str:
    return ",".join("?" * len(values))


def versions_of(index: Index, model: ModelRow) -> list[VersionRow]:
    """The versions of a model that are not deleted, newest first."""
    return _versions(index, "versions v WHERE model = ? AND deleted = 0 ORDER BY number DESC", (model.id,))


def versions_by_id(index: Index, ids: Sequence[int]) -> list[VersionRow]:
    """These versions, in this order."""
    found: dict[int, VersionRow] = {}
    for start in range(0, len(ids), ROOM):
        part = ids[start : start + ROOM]
        found |= {row.id: row for row in _versions(index, f"versions v WHERE v.id IN ({_marks(part)})", part)}
    return [found[number] for number in ids]


def _version(index: Index, name: str, which: str, *values: Any, source: str = "") -> VersionRow | None:
    """The newest version of a model that meets a condition on `v` (and `source`)."""
    rows = _versions(
        index, f"models m {source} WHERE m.name = ? {which} ORDER BY v.number DESC LIMIT 1", (name, *values)
    )
    return rows[0] if rows else None


OF_MODEL = "JOIN versions v ON v.model = m.id"


def version_newest(index: Index, name: str) -> VersionRow | None:
    """The newest version that is neither deleted nor archived."""
    return _version(index, name, "AND v.deleted = 0 AND v.stage <> 'archived'", source=OF_MODEL)


def version_numbered(index: Index, name: str, number: int) -> VersionRow | None:
    """The version `name@number`."""
    return _version(index, name, "AND v.number = ?", number, source=OF_MODEL)


def version_called(index: Index, name: str, alias: str) -> VersionRow | None:
    """The version that an alias points at."""
    source = f"JOIN aliases a ON a.model = m.id {OF_MODEL} AND v.number = a.number"
    return _version(index, name, "AND a.alias = ?", alias, source=source)


def version_with_digest(index: Index, name: str, begin: str) -> VersionRow | None:
    """The newest version of a model whose digest begins so."""
    end = begin + "g"  # behind all digests that begin so
    return _version(index, name, "AND v.manifest >= ? AND v.manifest <= ?", begin, end, source=OF_MODEL)


def version_same(index: Index, name: str, number: int, digest: str) -> VersionRow | None:
    """The version `name@number`, where it has this digest."""
    return _version(index, name, "AND v.number = ? AND v.manifest = ?", number, digest, source=OF_MODEL)


def version_holding(index: Index, digest: str, name: str) -> VersionRow | None:
    """A version of this digest: rather one that is not deleted, one of the model `name`, a newer one."""
    rows = _versions(
        index, "versions v WHERE v.manifest = ? ORDER BY v.deleted > 0, v.name <> ?, v.number DESC LIMIT 1",
        (digest, name),
    )  # fmt: skip
    return rows[0] if rows else None


@attrs.frozen
class Standing:
    """What a change is held against: the digest of a version, its stage, and whether it is deleted."""

    digest: str
    stage: str
    deleted: Deletion = attrs.field(converter=Deletion)


def standing(index: Index, name: str, number: int) -> Standing | None:
    """How `name@number` stands; None where there is none."""
    rows = index.rows(
        f"SELECT v.manifest, v.stage, v.deleted FROM models m {OF_MODEL} WHERE m.name = ? AND v.number = ?",
        (name, number),
    )
    return Standing(*rows[0]) if rows else None


def published(index: Index, version: VersionRow) -> Mapping[str, Any]:
    """The event that published a version; its `summary` is there in any case."""
    from catalog_core.events import summary_of

    rows = index.rows(
        "SELECT ordinal FROM events WHERE position = ? AND model = ? AND number = ? AND type = 'version.published'"
        " AND rejected IS NULL",
        (version.position, version.name, version.number),
    )
    event = index.event(version.position, rows[0][0])
    return {**event, "summary": summary_of(event) if "summary" in event else {}}


def params(version: VersionRow, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a version; None for one that was given as None, which `summary` of its publish event names."""
    none = summary.get("none")
    names = [name for name in none if type(name) is str] if isinstance(none, list) else []
    return {**dict.fromkeys(names), **version.group("params")}


def restorable(index: Index, name: str, limit: int) -> list[int]:
    """The numbers of the deleted versions of a model that can be restored, newest first."""
    rows = index.rows(
        f"SELECT v.number FROM models m {OF_MODEL} WHERE m.name = ? AND v.deleted IN (?, ?)"
        " ORDER BY v.number DESC LIMIT ?",
        (name, Deletion.ALONE, Deletion.WITH_MODEL, limit),
    )
    return [number for (number,) in rows]


def given_number(index: Index, name: str) -> int:
    """The highest number that a version of this model ever got; 0 before the first."""
    rows = index.rows("SELECT newest FROM models WHERE name = ?", (name,))
    return int(rows[0][0]) if rows else 0


# -- models -----------------------------------------------------------------------------------------------------------


def _models(index: Index, which: str, params: Iterable[Any]) -> list[ModelRow]:
    """Models with their aliases, at one position."""
    with index.reading():
        rows = index.rows(
            "SELECT id, name, title, description, owner, created, updated, deleted, card,"
            f" (SELECT max(number) FROM versions v WHERE v.model = models.id AND v.deleted = 0) FROM models {which}",
            params,
        )
        aliases = _aliases(index, [row[0] for row in rows])
    return [ModelRow(aliases.get(row[0], {}), *row) for row in rows]


def model_named(index: Index, name: str) -> ModelRow | None:
    """A model, deleted or not."""
    rows = _models(index, "WHERE name = ?", (name,))
    return rows[0] if rows else None


def models_after(index: Index, name: str, limit: int) -> list[ModelRow]:
    """The first models behind a name that are not deleted, by name."""
    return _models(index, "WHERE deleted = 0 AND name > ? ORDER BY name LIMIT ?", (name, limit))


def model_names(index: Index) -> list[str]:
    """The names of all models that are not deleted."""
    return [row[0] for row in index.rows("SELECT name FROM models WHERE deleted = 0")]


def model_is_deleted(index: Index, name: str) -> bool:
    """Whether a model is deleted, or versions are that went with it."""
    gone = f"EXISTS (SELECT 1 FROM versions v WHERE v.model = m.id AND v.deleted = {Deletion.WITH_MODEL})"
    return bool(index.rows(f"SELECT 1 FROM models m WHERE name = ? AND (deleted OR {gone})", (name,)))


# -- bytes ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Stored:
    """The bytes of a version: its reference, and the digests of manifest and layout."""

    ref: str
    manifest: str
    layout: str


def stored(index: Index, *deletions: Deletion, besides: int = -1) -> list[Stored]:
    """The versions that are deleted in one of these ways, the oldest first; without the row `besides`."""
    rows = index.rows(
        f"SELECT name, number, manifest, layout FROM versions WHERE deleted IN ({_marks(deletions)}) AND id <> ?"
        " ORDER BY id",
        (*deletions, besides),
    )
    return [Stored(f"{name}@{number}", manifest, layout) for name, number, manifest, layout in rows]


def stored_between(index: Index, first: int, last: int) -> list[Stored]:
    """The versions that these entries published, but for those whose bytes were collected."""
    rows = index.rows(
        "SELECT name, number, manifest, layout FROM versions WHERE position BETWEEN ? AND ? AND deleted <> ?",
        (first, last, Deletion.COLLECTED),
    )
    return [Stored(f"{name}@{number}", manifest, layout) for name, number, manifest, layout in rows]


def cards(index: Index) -> list[tuple[str, str]]:
    """Name and digest of each model's card."""
    return index.rows("SELECT name, card FROM models WHERE card IS NOT NULL")


def attachments(index: Index, besides: int = -1) -> list[tuple[str, str, str]]:
    """Reference, name and digest of what is attached to versions whose bytes are there; without the row `besides`."""
    rows = index.rows(
        "SELECT v.name, v.number, a.name, a.digest FROM attachments a JOIN versions v ON v.id = a.version"
        " WHERE v.deleted <> ? AND v.id <> ?",
        (Deletion.COLLECTED, besides),
    )
    return [(f"{model}@{number}", name, digest) for model, number, name, digest in rows]


def is_card_or_attachment(index: Index, digest: str) -> bool:
    """Whether this is a card or an attachment now."""
    kept = "SELECT 1 FROM models WHERE card = ? UNION SELECT 1 FROM attachments WHERE digest = ?"
    return bool(index.rows(kept, (digest, digest)))


def was_swept(index: Index, digest: str, position: int) -> bool:
    """Whether a content was collected behind this entry."""
    return bool(index.rows("SELECT 1 FROM swept WHERE digest = ? AND position > ?", (digest, position)))


def inlined(index: Index, key: str) -> str | None:
    """The bytes of a blob that an entry carries, in base64; None of one that lies in the store."""
    rows = index.rows("SELECT data FROM inlined WHERE key = ?", (key,))
    return rows[0][0] if rows else None


def is_inlined(index: Index, key: str) -> bool:
    """Whether an entry carries this blob."""
    return bool(index.rows("SELECT 1 FROM inlined WHERE key = ?", (key,)))


# -- entries and events -----------------------------------------------------------------------------------------------

Place = tuple[int, int]  # of an event: the position of its entry, and which one of the entry it is


def entry(index: Index, position: int) -> Mapping[str, Any] | None:
    """What an entry says; None where there is none."""
    from catalog_core.digests import parse

    rows = index.rows("SELECT data FROM entries WHERE position = ?", (position,))
    found: Mapping[str, Any] | None = parse(rows[0][0]) if rows else None
    return found


def places(
    index: Index, *kinds: str, after: int = -1, until: int | None = None, model: str | None = None
) -> list[Place]:
    """Where the events of these kinds stand that no rule refused, behind `after` and up to `until`."""
    which = f"type IN ({_marks(kinds)}) AND rejected IS NULL AND position > ?"
    params: list[Any] = [*kinds, after]
    if until is not None:
        which, params = f"{which} AND position <= ?", [*params, until]
    if model is not None:
        which, params = f"{which} AND model = ?", [*params, model]
    return index.rows(f"SELECT position, ordinal FROM events WHERE {which} ORDER BY id", params)


def erasures(index: Index, model: str) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """The erasures that took content of a model away, oldest first: each as a row of `history`, and its event."""
    columns = "SELECT position, ordinal, time, actor, type, model, number, rejected FROM events"
    for row in index.rows(f"{columns} WHERE type = 'blobs.erased' AND rejected IS NULL ORDER BY id", []):
        event = index.events_at(row[0])[row[1]]
        if any(name == model for name, _ in event["versions"]):
            yield row, event


def erasure_of(index: Index, model: str, number: int) -> str | None:
    """By whom, when and why a version was erased, in words; None where it was not."""
    for row, event in erasures(index, model):
        if [model, number] in [list(pair) for pair in event["versions"]]:
            return f"by {row[3]} on {when(row[2]):%Y-%m-%d}: {event['reason']}"
    return None


def history(index: Index, model: str | None, limit: int, after: int | None = None) -> list[tuple[Any, ...]]:
    """Position, ordinal, time, actor, type, model, number and refusal of the last `limit` events (of a model), oldest
    first; or of the first ones behind the position `after`, with all of their last entry."""
    where, params = ("model = ?", [model]) if model else ("1", [])
    columns = "SELECT position, ordinal, time, actor, type, model, number, rejected FROM events"
    if after is None:
        return index.rows(f"{columns} WHERE {where} ORDER BY id DESC LIMIT ?", [*params, limit])[::-1]
    first = f"SELECT position FROM events WHERE {where} AND position > ? ORDER BY position LIMIT ?"
    return index.rows(
        f"{columns} WHERE {where} AND position > ? AND position <= (SELECT max(position) FROM ({first}))"
        " ORDER BY position, ordinal", [*params, after, *params, after, limit],
    )  # fmt: skip


def time_of(index: Index, position: int) -> float | None:
    """When an entry was written, in seconds since 1970."""
    found: float | None = index.rows("SELECT min(time) FROM events WHERE position = ?", (position,))[0][0]
    return found


def position_at(index: Index, seconds: float, *, own: bool) -> int:
    """The position of the last entry by this time; -1 before the first. With `own`, by what entries say themselves, and
    not by times that never go back: behind one with a wrong time only its own tells an entry's."""
    (found,) = index.rows("SELECT max(position) FROM events WHERE time <= ?", (seconds,))[0]
    if own:
        by_data = "SELECT max(position) FROM entries WHERE json_extract(CAST(data AS TEXT), '$.time') <= ?"
        (said,) = index.rows(by_data, (seconds * 1000,))[0]
        found = max(-1 if found is None else found, -1 if said is None else said)
    return -1 if found is None else int(found)


def first_after(index: Index, seconds: float) -> tuple[int, bytes] | None:
    """Position and data of the first entry whose time is later."""
    rows = index.rows(
        "SELECT e.position, e.data FROM entries e JOIN events v ON v.position = e.position WHERE v.time > ?"
        " ORDER BY e.position LIMIT 1",
        (seconds,),
    )
    return rows[0] if rows else None


def refs_after(index: Index, position: int) -> list[str]:
    """The references of the versions that were published behind an entry, the oldest first."""
    rows = index.rows("SELECT name, number FROM versions WHERE position > ? ORDER BY position", (position,))
    return [f"{name}@{number}" for name, number in rows]


def knows_intent(index: Index, intent: str) -> bool:
    """Whether an intent of this id came."""
    return bool(index.rows("SELECT 1 FROM intents WHERE id = ?", (intent,)))


# -- relatives --------------------------------------------------------------------------------------------------------

Origin = tuple[str, str]  # where a copy was published first: the id of the catalog, and the reference there


def origin(index: Index, name: str, number: int) -> Origin | None:
    """Where a version was copied from; None of one that was published here."""
    rows = index.rows(
        "SELECT o.catalog, o.ref FROM versions v JOIN origins o ON o.version = v.id WHERE v.name = ? AND v.number = ?",
        (name, number),
    )
    return rows[0] if rows else None


def copies(index: Index, origin: Origin) -> list[tuple[int, str, int]]:
    """Row, name and number of the copies of what was published there."""
    return index.rows(
        "SELECT v.id, v.name, v.number FROM origins o JOIN versions v ON v.id = o.version"
        " WHERE o.catalog = ? AND o.ref = ?",
        origin,
    )


def same_bytes(index: Index, name: str, digest: str) -> list[tuple[int, Origin | None]]:
    """Number and origin of the versions of a model that have this digest and are not deleted, the oldest first."""
    rows = index.rows(
        "SELECT v.number, o.catalog, o.ref FROM versions v LEFT JOIN origins o ON o.version = v.id"
        f" WHERE v.name = ? AND v.manifest = ? AND v.deleted = {Deletion.NOT} ORDER BY v.number",
        (name, digest),
    )
    return [(number, None if catalog is None else (catalog, ref)) for number, catalog, ref in rows]


def row_of(index: Index, name: str, number: int) -> tuple[int, str, int] | None:
    """Row, name and number of `name@number`."""
    rows = index.rows("SELECT id, name, number FROM versions WHERE name = ? AND number = ?", (name, number))
    return rows[0] if rows else None


def parents(index: Index, name: str, number: int) -> list[str]:
    """The references that a version names as its parents."""
    rows = index.rows(
        "SELECT p.ref FROM versions v JOIN parents p ON p.version = v.id WHERE v.name = ? AND v.number = ?"
        " ORDER BY p.ordinal",
        (name, number),
    )
    return [ref for (ref,) in rows]


def children(index: Index, refs: Collection[str], limit: int) -> list[tuple[str, str, int, Origin | None]]:
    """Who names one of `refs` as a parent: that reference, name, number and origin of the child, the oldest first."""
    rows = index.rows(
        "SELECT p.ref, v.name, v.number, o.catalog, o.ref FROM parents p JOIN versions v ON v.id = p.version"
        f" LEFT JOIN origins o ON o.version = v.id WHERE p.ref IN ({_marks(refs)}) ORDER BY v.id LIMIT ?",
        (*sorted(refs), limit),
    )
    return [(ref, name, number, None if of is None else (of, there)) for ref, name, number, of, there in rows]
