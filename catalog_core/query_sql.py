"""Filters → parameterised SQL over the index, with keyset paging."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from catalog_core.errors import InvalidInput, InvalidQuery
from catalog_core.handles import Page, Version
from catalog_core.index import Index
from catalog_core.query import Both, Compare, Either, Field, Has, Node, Not, Query, words
from catalog_core.reducer import GROUPS
from catalog_core.values import check_limit

COLUMN = {
    "name": "v.name", "version": "v.number", "stage": "v.stage", "author": "v.author", "framework": "v.framework",
    "algorithm": "v.algorithm", "size": "v.size", "time": "v.created", "verification": "v.verification",
}  # fmt: skip
RARE = 2000


@attrs.frozen
class Statement:
    """SQL that selects ids and sort keys, its parameters, how many rows make a page, how many pages before had, and
    how many the query wants in all (None: every one)."""

    sql: str
    params: tuple[Any, ...]
    limit: int
    shown: int
    total: int | None


def compile(query: Query, *, limit: int, cursor: str | None, index: Index) -> Statement:
    """The statement for one page of at most `limit` rows, behind `cursor` if given. The query's own limit counts over
    all pages. Raises `InvalidQuery` where `limit` is below 1 or the cursor belongs to another query."""
    try:
        check_limit(limit)
    except InvalidInput as exc:
        raise InvalidQuery(exc.message) from exc
    nodes = () if query.where is None else query.where.nodes if isinstance(query.where, Both) else (query.where,)
    params: list[Any] = []
    rare = [_rare(node, params, index) for node in nodes]
    source, newest, where = "versions v", "v.id", ["v.deleted = 0"]
    if not query.order and not any(rare):
        leader = next((node for kind in ("~", "=") for node in nodes if _leads(node, kind, index)), None)
        if leader is not None:
            source, newest, first = _leading(leader, params)
            where.append(first)
            nodes = tuple(node for node in nodes if node is not leader)
            rare = [None] * len(nodes)
    where += [condition for condition in rare if condition]
    where += [_node(node, params, index) for node, condition in zip(nodes, rare, strict=True) if not condition]
    keys: list[tuple[str, bool]] = []
    order_params: list[Any] = []
    where += [_has(field, params) for field, _ in query.order]  # what lacks the key has no place in the order
    for field, descending in query.order:
        expression = _sort_key(field, order_params)
        keys.append((expression, descending))
    keys.append((newest, True))
    before = 0
    if cursor is not None:
        before, *after = _read_cursor(cursor, len(keys) + 1)
        where.append(_beyond(keys, after, params, order_params))
    columns = ", ".join(expression for expression, _ in keys)
    order = ", ".join(f"{number + 1} {'DESC' if down else 'ASC'}" for number, (_, down) in enumerate(keys))
    count = limit if query.limit is None else max(0, min(limit, query.limit - before))
    sql = f"SELECT {columns} FROM {source} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"
    return Statement(sql, (*order_params, *params, count + 1), count, before, query.limit)


def page(
    statement: Statement, index: Index, columns: str, make: Callable[[Sequence[Any]], Version],
    following: Callable[[str], Page[Version]],
) -> Page[Version]:  # fmt: skip
    """Run a statement; the page, and how to get the next one."""
    rows = index.rows(statement.sql, statement.params)
    ids = [row[-1] for row in rows[: statement.limit]]
    if not ids:
        return Page([])
    found = {
        row[0]: row
        for start in range(0, len(ids), 500)
        for row in index.rows(
            f"SELECT {columns} FROM versions v WHERE v.id IN ({','.join('?' * len(ids[start : start + 500]))})",
            ids[start : start + 500],
        )
    }
    items = [make(found[number]) for number in ids]
    more = token = None
    shown = statement.shown + len(ids)
    if len(rows) > statement.limit and (statement.total is None or shown < statement.total):
        text = json.dumps([shown, *rows[statement.limit - 1]])
        token = base64.urlsafe_b64encode(text.encode()).decode()
        more = lambda: following(token)  # noqa: E731
    return Page(items, more, token)


def _read_cursor(cursor: str, count: int) -> list[Any]:
    try:
        values: Any = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except ValueError as exc:
        raise InvalidQuery("the cursor is not one that this catalog gave") from exc
    scalars = isinstance(values, list) and all(
        item is None or isinstance(item, (str, float)) or (isinstance(item, int) and abs(item) < 2**63)
        for item in values
    )
    if not scalars or len(values) != count or not isinstance(values[0], int):
        raise InvalidQuery("the cursor belongs to another query")
    return [*values]


def _beyond(keys: Sequence[tuple[str, bool]], after: Sequence[Any], params: list[Any], own: Sequence[Any]) -> str:
    """Rows behind the last one of the previous page, in the order of `keys`; NULLs sort as SQLite sorts them."""
    alternatives = []
    holes = iter(own)
    fields = [[next(holes) for _ in range(expression.count("?"))] for expression, _ in keys]
    for number, (expression, down) in enumerate(keys):
        parts = []
        for earlier in range(number):
            parts.append(f"{keys[earlier][0]} IS ?")
            params += [*fields[earlier], after[earlier]]
        value = after[number]
        if number == len(keys) - 1:  # an id
            parts.append(f"{expression} < ?")
            params.append(value)
        elif value is None:
            parts.append("0" if down else f"{expression} IS NOT NULL")
            params += [] if down else fields[number]
        elif down:
            parts.append(f"({expression} < ? OR {expression} IS NULL)")
            params += [*fields[number], value, *fields[number]]
        else:
            parts.append(f"{expression} > ?")
            params += [*fields[number], value]
        alternatives.append(f"({' AND '.join(parts)})")
    return f"({' OR '.join(alternatives)})"


def _sort_key(field: Field, params: list[Any]) -> str:
    if field.group in COLUMN:
        return COLUMN[field.group]
    params.append(f"{field.group}.{field.key}")
    return "(SELECT coalesce(number, text) FROM fields WHERE version = v.id AND key = ?)"


def _field_test(node: Compare) -> tuple[str, list[Any]]:
    """The condition on a row of `fields`, behind `key = ?`."""
    key = f"{node.field.group}.{node.field.key}"
    if node.operator == "like":
        return "fields.key = ? AND fields.text LIKE ?", [key, str(node.value)]
    column = "number" if isinstance(node.value, (int, float)) else "text"
    operator = "=" if node.operator == "!=" else node.operator
    return f"fields.key = ? AND fields.{column} {operator} ?", [key, node.value]


def _rare(node: Node, params: list[Any], index: Index) -> str | None:
    """A condition of the top-level AND that few versions meet: looked up first, by its index; else None."""
    if not isinstance(node, Compare) or node.operator in ("!=", "like"):
        return None
    if node.field.group in GROUPS:
        test, values = _field_test(node)
        counted = f"SELECT count(*) FROM (SELECT 1 FROM fields WHERE {test} LIMIT {RARE})"
        if index.rows(counted, values)[0][0] < RARE:
            params += values
            return f"v.id IN (SELECT version FROM fields WHERE {test})"
        return None
    if node.operator == "~" and not _of_models(node, index):
        match = _match(node)
        counted = f"SELECT count(*) FROM (SELECT 1 FROM texts WHERE texts MATCH ? LIMIT {RARE})"
        if match and index.rows(counted, [match])[0][0] < RARE:
            params.append(match)
            return "v.id IN (SELECT rowid FROM texts WHERE texts MATCH ?)"
    return None


def _of_models(node: Compare, index: Index) -> bool:
    """Whether a full text is found in the title or description of a model, so in all its versions."""
    match = _match(node)
    if node.field.group == "name" or not match:
        return False
    return bool(index.rows("SELECT 1 FROM model_texts WHERE model_texts MATCH ? LIMIT 1", (match,)))


def _leads(node: Node, operator: str, index: Index) -> bool:
    """Whether the index of this condition lists its versions newest first, so that a page ends the search."""
    if not isinstance(node, Compare) or node.operator != operator:
        return False
    if operator == "~":
        return bool(_match(node)) and not _of_models(node, index)
    return node.field.group in GROUPS


def _leading(node: Node, params: list[Any]) -> tuple[str, str, str]:
    """What is read first, the column that orders it, and the condition on it."""
    assert isinstance(node, Compare)
    if node.operator == "~":
        params.append(_match(node))
        return "texts CROSS JOIN versions v ON v.id = texts.rowid", "texts.rowid", "texts MATCH ?"
    test, values = _field_test(node)
    params += values
    return "fields CROSS JOIN versions v ON v.id = fields.version", "fields.version", test


def _match(node: Compare) -> str:
    prefix = "name : " if node.field.group == "name" else ""
    return " AND ".join(
        f'{prefix}"{word.removesuffix("*")}"{"*" if word.endswith("*") else ""}' for word in words(str(node.value))
    )


def _node(node: Node, params: list[Any], index: Index) -> str:
    """A condition that is true or false for every version, never NULL."""
    if isinstance(node, (Both, Either)):
        word = " AND " if isinstance(node, Both) else " OR "
        return f"({word.join([_node(item, params, index) for item in node.nodes])})"
    if isinstance(node, Not):
        return f"NOT {_node(node.node, params, index)}"
    if isinstance(node, Has):
        return _has(node.field, params)
    if node.operator == "!=":
        return f"NOT {_node(attrs.evolve(node, operator='='), params, index)}"
    if node.operator == "~":
        match = _match(node)
        if not match:
            return "0"
        params.append(match)
        if not _of_models(node, index):
            return "EXISTS (SELECT 1 FROM texts WHERE texts MATCH ? AND rowid = v.id)"
        params.append(match)
        of_model = "v.model IN (SELECT rowid FROM model_texts WHERE model_texts MATCH ?)"
        return f"(v.id IN (SELECT rowid FROM texts WHERE texts MATCH ?) OR {of_model})"
    if node.field.group == "alias":
        params.append(node.value)
        operator = "LIKE" if node.operator == "like" else node.operator
        return f"EXISTS (SELECT 1 FROM aliases WHERE model = v.model AND number = v.number AND alias {operator} ?)"
    if node.field.group in COLUMN:
        params.append(node.value)
        return f"coalesce({COLUMN[node.field.group]} {node.operator} ?, 0)"
    test, values = _field_test(node)
    params += values
    return f"EXISTS (SELECT 1 FROM fields WHERE version = v.id AND {test})"


def _has(field: Field, params: list[Any]) -> str:
    if field.group in COLUMN:
        return f"({COLUMN[field.group]} IS NOT NULL)"
    if field.group == "alias":
        return "EXISTS (SELECT 1 FROM aliases WHERE model = v.model AND number = v.number)"
    if field.group == "text":
        return "1"
    params.append(f"{field.group}.{field.key}")
    return "EXISTS (SELECT 1 FROM fields WHERE version = v.id AND key = ?)"
