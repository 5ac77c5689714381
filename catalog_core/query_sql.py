"""Filters → parameterised SQL over the index, with keyset paging."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import attrs

from catalog_core.errors import InvalidInput, InvalidQuery
from catalog_core.events import STAGES
from catalog_core.index import Index
from catalog_core.names import nearest
from catalog_core.query import Both, Compare, Either, Field, Has, Node, Not, Query, words
from catalog_core.reducer import GROUPS
from catalog_core.state import VersionRow, versions_by_id
from catalog_core.values import check_limit

COLUMN = {
    "name": "v.name", "version": "v.number", "stage": "v.stage", "author": "v.author", "framework": "v.framework",
    "algorithm": "v.algorithm", "size": "v.size", "time": "v.created", "verification": "v.verification",
}  # fmt: skip
RARE = 3000  # so few versions are looked up by an index, and sorted
BRANCHES = 16  # of an `or` that are merged, newest first
OFFERED = 1000  # values among which the nearest is looked for
WALKED = ("=", "~")  # operators whose index lists versions newest first

SORTED = "coalesce({0}.number, {0}.text)"  # what versions are ordered by; the reducer indexes the same expression


@attrs.frozen
class Part:
    """A piece of SQL and its parameters, in the order of their question marks."""

    sql: str
    params: tuple[Any, ...] = ()


@attrs.frozen
class Statement:
    """SQL that selects sort keys and ids, its parameters, how many rows make a page, how many pages before had, and how
    many the query wants in all (None: every one)."""

    sql: str
    params: tuple[Any, ...]
    limit: int
    shown: int
    total: int | None


@attrs.frozen
class _Source:
    """What is read first: tables, the column that is the version's id there, and the conditions on them."""

    tables: str
    id: str
    where: tuple[Part, ...] = ()


ALL = _Source("versions v", "v.id")


def compile(query: Query, *, limit: int, cursor: str | None, index: Index) -> Statement:
    """The statement for one page of at most `limit` rows, behind `cursor` if given. The query's own limit counts over
    all pages. Raises `InvalidQuery` where `limit` is below 1 or the cursor belongs to another query.

    An index is read in the order of the answer wherever there is one, so that a page costs what it shows and not what
    the catalog holds: that of the first key of `order by`, else one whose versions come newest first."""
    try:
        check_limit(limit)
    except InvalidInput as exc:
        raise InvalidQuery(exc.message) from exc
    nodes = _together(query.where)
    few = [_few(node, index) for node in nodes]
    where = [_present(field) for field, _ in query.order]  # what lacks the key has no place in the order
    where += [Part(f"v.id IN ({ids.sql})", ids.params) for ids in few if ids]
    nodes = [node for node, ids in zip(nodes, few, strict=True) if not ids]
    before, after = 0, None
    if cursor is not None:
        before, *after = _read_cursor(cursor, len(query.order) + 2)
    count = limit if query.limit is None else max(0, min(limit, query.limit - before))
    if any(few):
        source, keys = ALL, [(_sort_key(field), down) for field, down in query.order]
    elif query.order:
        source, nodes, first = _ordered(query.order[0][0], nodes)
        further = [(_sort_key(field), down) for field, down in query.order[1:]]
        keys = [(first, query.order[0][1]), *further]
    else:
        branches = [(source, [*where, *source.where, *rest]) for source, rest in _newest_first(nodes, index)]
        selects = [_select(source, conditions, [], after) for source, conditions in branches]
        sql = " UNION ".join(select.sql for select in selects) + " ORDER BY 1 DESC LIMIT ?"
        params = (value for select in selects for value in select.params)
        return Statement(sql, (*params, count + 1), count, before, query.limit)
    select = _select(source, [*source.where, *where, *(_node(node, index) for node in nodes)], keys, after)
    order = [f"{number} {'DESC' if down else 'ASC'}" for number, (_, down) in enumerate(keys, 1)]
    sql = f"{select.sql} ORDER BY {', '.join([*order, f'{len(keys) + 1} DESC'])} LIMIT ?"
    return Statement(sql, (*select.params, count + 1), count, before, query.limit)


def _together(node: Node | None) -> list[Node]:
    """The conditions that must all hold."""
    return [] if node is None else list(node.nodes) if isinstance(node, Both) else [node]


def _select(
    source: _Source, conditions: Sequence[Part], keys: Sequence[tuple[Part, bool]], after: Sequence[Any] | None
) -> Part:
    """The rows of a source that meet all conditions and lie behind `after`: their sort keys and ids."""
    conditions = [Part("v.deleted = 0"), *conditions]
    if after is not None:
        conditions.append(_beyond([*keys, (Part(source.id), True)], after))
    columns = ", ".join([*(key.sql for key, _ in keys), source.id])
    where = " AND ".join(condition.sql for condition in conditions)
    values = [value for part in (*(key for key, _ in keys), *conditions) for value in part.params]
    return Part(f"SELECT {columns} FROM {source.tables} WHERE {where}", tuple(values))


def _beyond(keys: Sequence[tuple[Part, bool]], after: Sequence[Any]) -> Part:
    """Rows behind the last one of the previous page, in the order of `keys`, none of which is NULL. The bound on the
    first key alone lets SQLite begin there."""
    alternatives, params = [], []
    for number, (key, down) in enumerate(keys):
        tests = [(earlier, "=", value) for (earlier, _), value in zip(keys[:number], after, strict=False)]
        tests.append((key, "<" if down else ">", after[number]))
        alternatives.append(" AND ".join(f"{part.sql} {operator} ?" for part, operator, _ in tests))
        params += [value for part, _, bound in tests for value in (*part.params, bound)]
    first, down = keys[0]
    begin = f"{first.sql} {'<=' if down else '>='} ?"
    return Part(f"{begin} AND (({') OR ('.join(alternatives)}))", (*first.params, after[0], *params))


# -- what is read first -------------------------------------------------------------------------------------------


def _ids(node: Node, index: Index) -> Part | None:
    """The ids of the versions that meet a condition, by an index; None where none lists them."""
    if isinstance(node, Either):
        found = [_ids(inner, index) for inner in node.nodes]
        if len(found) > BRANCHES or None in found:
            return None
        parts = [part for part in found if part]
        return Part(" UNION ALL ".join(p.sql for p in parts), tuple(value for p in parts for value in p.params))
    if isinstance(node, Has) and node.field.group in GROUPS:
        return Part("SELECT version FROM fields WHERE key = ?", (_key(node.field),))
    if not isinstance(node, Compare) or node.operator in ("!=", "like"):
        return None
    if node.field.group in GROUPS:
        test = _field_test(node, "fields")
        return Part(f"SELECT version FROM fields WHERE {test.sql}", test.params)
    if node.operator == "~":
        match = _match(node)
        return Part("SELECT rowid FROM texts WHERE texts MATCH ?", (match,)) if _by_text(node, index) else None
    if node.field.group == "alias":
        join = "SELECT w.id FROM aliases a CROSS JOIN versions w ON w.model = a.model AND w.number = a.number"
        return Part(f"{join} WHERE a.alias {node.operator} ?", (node.value,))
    column = COLUMN[node.field.group].replace("v.", "w.")
    return Part(f"SELECT w.id FROM versions w WHERE {column} {node.operator} ?", (node.value,))


def _few(node: Node, index: Index) -> Part | None:
    """The ids of the versions that meet a condition, where an index knows that they are few; else None."""
    ids = _ids(node, index)
    if ids is None:
        return None
    counted = f"SELECT count(*) FROM (SELECT 1 FROM ({ids.sql}) LIMIT {RARE})"
    return ids if index.rows(counted, ids.params)[0][0] < RARE else None


def _ordered(field: Field, nodes: Sequence[Node]) -> tuple[_Source, list[Node], Part]:
    """The source that comes in the order of `field`, the conditions that are left, and the sort key. Conditions on the
    field itself are met by reading a part of its index."""
    own = [
        node
        for node in nodes
        if isinstance(node, Compare) and node.field == field and node.operator not in ("!=", "like", "~")
    ]
    rest = [node for node in nodes if node not in own]
    if field.group in GROUPS:
        tests = [_field_test(node, "o") for node in own] or [Part("o.key = ?", (_key(field),))]
        tables = "fields o CROSS JOIN versions v ON v.id = o.version"
        return _Source(tables, "o.version", tuple(tests)), rest, Part(SORTED.format("o"))
    column = COLUMN[field.group]
    return (
        _Source("versions v", "v.id", tuple(Part(f"{column} {n.operator} ?", (n.value,)) for n in own)),
        rest,
        Part(column),
    )


def _newest_first(nodes: Sequence[Node], index: Index) -> list[tuple[_Source, list[Part]]]:
    """Sources that come newest first, whose union meets all conditions, with the conditions that each must be held
    against. One, but for an `or` whose branches have indexes of their own."""
    if not any(_walked(node, index) for node in nodes):
        for node in nodes:
            if isinstance(node, Either) and len(node.nodes) <= BRANCHES:
                rest = [other for other in nodes if other is not node]
                branches = [[*_together(branch), *rest] for branch in node.nodes]
                if all(any(_walked(inner, index) for inner in branch) for branch in branches):
                    return [_by_leader(branch, index) for branch in branches]
    return [_by_leader(nodes, index)]


def _by_leader(nodes: Sequence[Node], index: Index) -> tuple[_Source, list[Part]]:
    leaders = [node for kind in (Compare, Has) for node in nodes if isinstance(node, kind) and _walked(node, index)]
    leaders.sort(key=lambda node: not (isinstance(node, Compare) and node.operator == "~"))
    source, rest = ALL, list(nodes)
    if leaders:
        source = _leading(leaders[0])
        rest.remove(leaders[0])
    return source, [_node(node, index) for node in rest]


def _walked(node: Node, index: Index) -> bool:
    """Whether the index of this condition lists its versions newest first, so that a page ends the search."""
    if isinstance(node, Has):
        return node.field.group in GROUPS
    if not isinstance(node, Compare) or node.operator not in WALKED:
        return False
    return _by_text(node, index) if node.operator == "~" else node.field.group in GROUPS


def _leading(node: Node) -> _Source:
    if isinstance(node, Compare) and node.operator == "~":
        tables = "texts CROSS JOIN versions v ON v.id = texts.rowid"
        return _Source(tables, "texts.rowid", (Part("texts MATCH ?", (_match(node),)),))
    test = _field_test(node, "l") if isinstance(node, Compare) else Part("l.key = ?", (_key(node.field),))  # type: ignore[union-attr]
    return _Source("fields l CROSS JOIN versions v ON v.id = l.version", "l.version", (test,))


def run(statement: Statement, index: Index) -> tuple[list[VersionRow], str | None]:
    """The versions of a page, and the cursor of the next one; None behind the last."""
    with index.reading():
        rows = index.rows(statement.sql, statement.params)
        found = versions_by_id(index, [row[-1] for row in rows[: statement.limit]])
    shown = statement.shown + len(found)
    if len(rows) <= statement.limit or (statement.total is not None and shown >= statement.total):
        return found, None
    text = json.dumps([shown, *rows[statement.limit - 1]])
    return found, base64.urlsafe_b64encode(text.encode()).decode()


def unmatched(query: Query, index: Index) -> tuple[str, ...]:
    """Of a query that found nothing, the conditions that no version meets even alone: a stage or a text that none has,
    a tag or metric that none is given. It is for people, who may have misspelt it."""
    found = []
    todo = [] if query.where is None else [query.where]
    while todo:
        node = todo.pop(0)
        if isinstance(node, (Both, Either)):
            todo += node.nodes
        elif isinstance(node, (Compare, Has)) and node.field.group in GROUPS and not _is_used(node.field, index):
            group = f"{node.field.group}."
            own = [key.removeprefix(group) for key in _keys(index) if key.startswith(group)]
            near = nearest(str(node.field.key), own)
            found.append(f"no version has {node.field.group}.{node.field.key}{f'; {near}' if near else ''}")
        elif isinstance(node, Compare) and node.operator in ("=", "like") and isinstance(node.value, str):
            alone = compile(Query(where=node), limit=1, cursor=None, index=index)
            if not index.rows(alone.sql, alone.params):
                found.append(_none_has(node, index))
        elif isinstance(node, Compare) and node.operator == "~":
            found += _no_word(node, index)
    return tuple(found)


def _no_word(node: Compare, index: Index) -> Iterator[str]:
    """Of a full text, the words that are nowhere; with the beginning that would find something."""
    for word in words(str(node.value)):
        for text, told in ((word, ""), (f"{word.rstrip('*')}*", f"; {word}* finds what begins so")):
            alone = compile(Query(where=attrs.evolve(node, value=text)), limit=1, cursor=None, index=index)
            if index.rows(alone.sql, alone.params):
                if told:
                    yield f"no version has the word {word!r}{told}"
                break
        else:
            yield f"no version has a word that begins with {word.rstrip('*')!r}"


def keys_called(name: str | None, index: Index) -> str | None:
    """A hint with the tags, metrics and the like that are called as somebody called a field, or nearly so."""
    if name is None:
        return None
    by_name: dict[str, list[str]] = {}
    for key in _keys(index):
        by_name.setdefault(key.partition(".")[2].lower(), []).append(key)
    alike = [name.lower()] if name.lower() in by_name else get_close_matches(name.lower(), by_name, 3, 0.6)
    close = [key for found in alike for key in by_name[found]]
    return f"did you mean {', '.join(close[:3])}?" if close else None


def _keys(index: Index) -> list[str]:
    return [row[0] for row in index.rows("SELECT DISTINCT key FROM fields LIMIT ?", (OFFERED,))]


def _is_used(field: Field, index: Index) -> bool:
    return bool(index.rows("SELECT 1 FROM fields WHERE key = ? LIMIT 1", (_key(field),)))


def _none_has(node: Compare, index: Index) -> str:
    name = node.field.group if node.field.key is None else f"{node.field.group}.{node.field.key}"
    if node.field.group == "stage":
        known = list(STAGES)
    elif node.field.group == "alias":
        known = [row[0] for row in index.rows("SELECT DISTINCT alias FROM aliases LIMIT ?", (OFFERED,))]
    elif node.field.group in COLUMN:
        column = COLUMN[node.field.group]
        known = [
            row[0] for row in index.rows(f"SELECT DISTINCT {column} FROM versions v LIMIT ?", (OFFERED,)) if row[0]
        ]
    else:
        lookup = "SELECT DISTINCT text FROM fields WHERE key = ? LIMIT ?"
        known = [row[0] for row in index.rows(lookup, (_key(node.field), OFFERED))]
    value = str(node.value)
    hint = nearest(value.strip("%_"), known) or (
        "" if len(known) > 8 else f"there is {', '.join(known) or 'none at all'}"
    )
    relation = "is like" if node.operator == "like" else "is"
    return f"no version's {name} {relation} {value!r}{f'; {hint}' if hint else ''}"


def _read_cursor(cursor: str, count: int) -> list[Any]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode()).decode()
        values: Any = json.loads(text)
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair can be written there, and is no text
    except (ValueError, RecursionError) as exc:
        raise InvalidQuery("the cursor is not one that this catalog gave") from exc
    scalars = isinstance(values, list) and all(
        item is None or isinstance(item, (str, float)) or (isinstance(item, int) and abs(item) < 2**63)
        for item in values
    )
    if not scalars or len(values) != count or not isinstance(values[0], int):
        raise InvalidQuery("the cursor belongs to another query")
    return [*values]


# -- conditions ---------------------------------------------------------------------------------------------------


def _key(field: Field) -> str:
    return f"{field.group}.{field.key}"


def _sort_key(field: Field) -> Part:
    if field.group in COLUMN:
        return Part(COLUMN[field.group])
    return Part(f"(SELECT {SORTED.format('s')} FROM fields s WHERE s.version = v.id AND s.key = ?)", (_key(field),))


def _field_test(node: Compare, table: str) -> Part:
    """The condition on a row of `fields` that is called `table`. A number is looked for among sorted values, where the
    texts come behind all numbers."""
    key, operator = _key(node.field), "=" if node.operator == "!=" else node.operator
    if operator == "like":
        return Part(f"{table}.key = ? AND {table}.text LIKE ?", (key, str(node.value)))
    if not isinstance(node.value, (int, float)):
        return Part(f"{table}.key = ? AND {table}.text {operator} ?", (key, node.value))
    value = f"{SORTED.format(table)} {operator} ?"
    if operator in (">", ">="):
        return Part(f"{table}.key = ? AND {value} AND {table}.number IS NOT NULL", (key, node.value))
    return Part(f"{table}.key = ? AND {value}", (key, node.value))


def _by_text(node: Compare, index: Index) -> bool:
    """Whether a full text is found by the texts of versions alone."""
    return bool(_match(node)) and not _of_models(node, index)


def _of_models(node: Compare, index: Index) -> bool:
    """Whether a full text is found in the title or description of a model, so in all its versions."""
    match = _match(node)
    if node.field.group == "name" or not match:
        return False
    return bool(index.rows("SELECT 1 FROM model_texts WHERE model_texts MATCH ? LIMIT 1", (match,)))


def _match(node: Compare) -> str:
    prefix = "name : " if node.field.group == "name" else ""
    return " AND ".join(
        f'{prefix}"{word.removesuffix("*")}"{"*" if word.endswith("*") else ""}' for word in words(str(node.value))
    )


def _node(node: Node, index: Index) -> Part:
    """A condition that is true or false for every version, never NULL."""
    if isinstance(node, (Both, Either)):
        parts = [_node(item, index) for item in node.nodes]
        word = " AND " if isinstance(node, Both) else " OR "
        return Part(f"({word.join(part.sql for part in parts)})", tuple(v for part in parts for v in part.params))
    if isinstance(node, Not):
        inner = _node(node.node, index)
        return Part(f"NOT {inner.sql}", inner.params)
    if isinstance(node, Has):
        return _present(node.field)
    if node.operator == "!=":
        equal = _node(attrs.evolve(node, operator="="), index)
        return Part(f"NOT {equal.sql}", equal.params)
    if node.operator == "~":
        return _text_test(node, index)
    if node.field.group == "alias":
        operator = "LIKE" if node.operator == "like" else node.operator
        exists = "EXISTS (SELECT 1 FROM aliases a WHERE a.model = v.model AND a.number = v.number AND a.alias"
        return Part(f"{exists} {operator} ?)", (node.value,))
    if node.field.group in COLUMN:
        return Part(f"coalesce({COLUMN[node.field.group]} {node.operator} ?, 0)", (node.value,))
    test = _field_test(node, "f")
    return Part(f"EXISTS (SELECT 1 FROM fields f WHERE f.version = v.id AND {test.sql})", test.params)


def _text_test(node: Compare, index: Index) -> Part:
    match = _match(node)
    if not match:
        return Part("0")
    if not _of_models(node, index):
        return Part("EXISTS (SELECT 1 FROM texts WHERE texts MATCH ? AND rowid = v.id)", (match,))
    of_model = "v.model IN (SELECT rowid FROM model_texts WHERE model_texts MATCH ?)"
    return Part(f"(v.id IN (SELECT rowid FROM texts WHERE texts MATCH ?) OR {of_model})", (match, match))


def _present(field: Field) -> Part:
    """Whether the version has the field at all."""
    if field.group in COLUMN:
        return Part(f"({COLUMN[field.group]} IS NOT NULL)")
    if field.group == "alias":
        return Part("EXISTS (SELECT 1 FROM aliases a WHERE a.model = v.model AND a.number = v.number)")
    if field.group == "text":
        return Part("1")
    return Part("EXISTS (SELECT 1 FROM fields f WHERE f.version = v.id AND f.key = ?)", (_key(field),))
