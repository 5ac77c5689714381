"""The filter language: text → syntax tree. The grammar is in `docs/reference/query.md`.

A query without any operator is full text. Errors point at a column.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import attrs
import lark

from catalog_core.errors import InvalidQuery
from catalog_core.names import nearest

COLUMNS = (
    "name", "version", "stage", "author", "framework", "algorithm", "verification", "size", "time", "alias", "text",
)  # fmt: skip
GROUPS = ("tags", "metrics", "params", "taxonomy")
CONDITIONS = 500
DEPTH = 20
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "like", "~"]

GRAMMAR = r"""
start: [either] [order] [limit]
?either: both (_OR both)*
?both: negated (_AND negated)*
?negated: _NOT negated -> negation | "(" either ")" | condition
condition: field OPERATOR value -> comparison
  | field _IN "(" value ("," value)* ")" -> membership
  | field _NOT _IN "(" value ("," value)* ")" -> exclusion
  | field _LIKE value -> similar
  | field _NOT _LIKE value -> dissimilar
  | _HAS "(" field ")" -> presence
field: NAME ("." (KEY | STRING))?
value: STRING -> string | NUMBER -> number | WORD -> word
order: _ORDER _BY key ("," key)*
key: field DIRECTION?
limit: _LIMIT NUMBER
OPERATOR: "==" | "!=" | "<=" | ">=" | "=" | "<" | ">" | "~"
DIRECTION.3: /(asc|desc)\b/i
_OR.3: /or\b/i
_AND.3: /and\b/i
_NOT.3: /not\b/i
_IN.3: /in\b/i
_LIKE.3: /like\b/i
_HAS.3: /has(?=\s*\()/i
_ORDER.3: /order(?=\s+by\b)/i
_BY.3: /by\b/i
_LIMIT.3: /limit(?=\s+\d)/i
NUMBER.2: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?(?![\w:.\/-])/
STRING: /"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/
NAME: /[^\W\d]\w*/
KEY: /\w[\w.:\/+@-]*/
WORD: /\w[\w.:\/+@-]*/
%ignore /\s+/
"""


@attrs.frozen
class Field:
    """A field: a column of the version, or a key of tags, metrics, params, taxonomy."""

    group: str
    key: str | None = None


@attrs.frozen
class Compare:
    """`field operator value`; text, number, or time (seconds since 1970) by the field and the value."""

    field: Field
    operator: Operator
    value: str | float | int


@attrs.frozen
class Has:
    """Whether the version has the field at all."""

    field: Field


@attrs.frozen
class Not:
    """Everything that `node` does not match."""

    node: Node


@attrs.frozen
class Both:
    """All of `nodes`."""

    nodes: tuple[Node, ...]


@attrs.frozen
class Either:
    """Any of `nodes`."""

    nodes: tuple[Node, ...]


Node = Compare | Has | Not | Both | Either


@attrs.frozen
class Query:
    """A parsed query: what to match, how to order (field, descending), and how many at most."""

    where: Node | None = None
    order: tuple[tuple[Field, bool], ...] = ()
    limit: int | None = None


@functools.cache
def _parser() -> lark.Lark:
    return lark.Lark(GRAMMAR, parser="lalr", lexer="contextual", maybe_placeholders=False, propagate_positions=True)


def parse(text: str) -> Query:
    """Parse a query. Raises `InvalidQuery` with the column (from 1)."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        what = f"column {exc.start + 1}: half a surrogate pair, which is not Unicode"
        raise InvalidQuery(what, column=exc.start + 1) from None
    plain = _plain_text(text)
    if plain is not None:
        return Query(Compare(Field("text"), "~", plain) if plain else None)
    try:
        tree = _parser().parse(text)
    except lark.exceptions.UnexpectedEOF as exc:
        raise InvalidQuery(f"the query ends too early: {text[-60:]!r}", column=len(text) + 1) from exc
    except lark.exceptions.UnexpectedInput as exc:
        at = exc.pos_in_stream or 0
        ended = isinstance(exc, lark.exceptions.UnexpectedToken) and exc.token.type == "$END"
        if ended or not 0 <= at < len(text):
            raise InvalidQuery(f"the query ends too early: {text[-60:]!r}", column=len(text) + 1) from exc
        raise InvalidQuery(
            f"column {at + 1}: {text[at : at + 20]!r} is not understood here", column=at + 1,
            hint='like: framework = "torch" and metrics.auc > 0.9',
        ) from exc  # fmt: skip
    try:
        query: Query = _Builder().transform(tree)
    except RecursionError as exc:
        raise InvalidQuery(f"a query is nested at most {DEPTH} deep", hint="split the query") from exc
    except lark.exceptions.VisitError as exc:
        if isinstance(exc.orig_exc, InvalidQuery):
            raise exc.orig_exc from None
        raise
    _check_size(query.where, 0, [CONDITIONS])
    return query


def _check_size(node: Node | None, depth: int, left: list[int]) -> None:
    """Refuse what SQLite could not take: too many conditions, or nested too deeply."""
    left[0] -= 1
    if depth > DEPTH or left[0] < 0:
        raise InvalidQuery(f"a query has at most {CONDITIONS} conditions, nested {DEPTH} deep", hint="split the query")
    for inner in node.nodes if isinstance(node, (Both, Either)) else (node.node,) if isinstance(node, Not) else ():
        _check_size(inner, depth + 1, left)


def _plain_text(text: str) -> str | None:
    """The words of a query that has no operator, else None."""
    bare = re.sub(r'"(\\.|[^"\\])*"|\'(\\.|[^\'\\])*\'', "x", text)
    if re.search(r"[=<>~()!]|(^|\s)(order\s+by|limit\s+\d+|like)(\s|$)", bare, re.IGNORECASE):
        return None
    return text.strip()


@attrs.frozen
class _Value:
    """A literal: its value, its text without quotes, and its column."""

    value: str | float | int
    text: str
    column: int


class _Builder(lark.Transformer[lark.Token, Any]):
    def start(self, items: list[Any]) -> Query:
        where, order, limit = None, (), None
        for item in items:
            if isinstance(item, tuple) and item[0] == "order":
                order = item[1]
            elif isinstance(item, tuple) and item[0] == "limit":
                limit = item[1]
            else:
                where = item
        return Query(where, order, limit)

    def either(self, items: list[Any]) -> Node:
        return Either(tuple(items))

    def both(self, items: list[Any]) -> Node:
        return Both(tuple(items))

    def negation(self, items: list[Any]) -> Node:
        return Not(items[0])

    def field(self, items: list[lark.Token]) -> Field:
        first = items[0]
        group, column = str(first).lower(), (_column(first))
        if len(items) == 2:
            if group not in GROUPS:
                raise InvalidQuery(f"column {column}: {group!r} has no keys", column=column, hint=", ".join(GROUPS))
            key = str(items[1])
            return Field(group, _unquote(key) if key[0] in "\"'" else key)
        if group in ("owner", "number", "created"):
            group = {"owner": "author", "number": "version", "created": "time"}[group]
        if group not in COLUMNS:
            known = [*COLUMNS, *[f"{name}." for name in GROUPS]]
            raise InvalidQuery(
                f"column {column}: there is no field {str(first)!r}", column=column,
                hint=nearest(group, known) or f"fields: {', '.join(known)}",
            )  # fmt: skip
        return Field(group)

    def string(self, items: list[lark.Token]) -> _Value:
        text = _unquote(str(items[0]))
        return _Value(text, text, _column(items[0]))

    def number(self, items: list[lark.Token]) -> _Value:
        text = str(items[0])
        value = float(text)
        whole = text.lstrip("+-").isdigit() and abs(value) < 2**53
        return _Value(int(text) if whole else value, text, _column(items[0]))

    def word(self, items: list[lark.Token]) -> _Value:
        return _Value(str(items[0]), str(items[0]), _column(items[0]))

    def comparison(self, items: list[Any]) -> Node:
        field, operator, value = items
        return _compare(field, "=" if operator == "==" else str(operator), value)

    def similar(self, items: list[Any]) -> Node:
        return _compare(items[0], "like", items[1])

    def dissimilar(self, items: list[Any]) -> Node:
        return Not(self.similar(items))

    def membership(self, items: list[Any]) -> Node:
        return Either(tuple(_compare(items[0], "=", value) for value in items[1:]))

    def exclusion(self, items: list[Any]) -> Node:
        return Not(self.membership(items))

    def presence(self, items: list[Any]) -> Node:
        return Has(items[0])

    @lark.v_args(meta=True)
    def key(self, meta: Any, items: list[Any]) -> tuple[Field, bool]:
        if items[0].group in ("alias", "text"):
            raise InvalidQuery(f"results cannot be ordered by {items[0].group}", column=meta.start_pos + 1)
        return items[0], len(items) > 1 and items[1].lower() == "desc"

    def order(self, items: list[Any]) -> tuple[str, tuple[tuple[Field, bool], ...]]:
        return "order", tuple(items)

    def limit(self, items: list[lark.Token]) -> tuple[str, int]:
        if not str(items[0]).isdigit() or int(items[0]) < 1:
            column = _column(items[0])
            raise InvalidQuery(f"column {column}: limit is a whole number from 1", column=column)
        return "limit", int(items[0])


def _column(token: lark.Token) -> int:
    return (token.start_pos or 0) + 1


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _compare(field: Field, operator: str, given: _Value) -> Compare:
    value, column = given.value, given.column
    if operator == "~" and field.group not in ("text", "name"):
        raise InvalidQuery(f"column {column}: ~ searches text and name only", column=column, hint="use like")
    if field.group == "text" and operator != "~":
        raise InvalidQuery(f"column {column}: text is searched with ~", column=column)
    if operator == "like" and field.group in ("time", "version", "size"):
        raise InvalidQuery(f"column {column}: {field.group} is not text", column=column, hint="compare with < or >")
    if field.group == "time":
        try:
            moment = datetime.fromisoformat(given.text)
            value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError) as exc:
            raise InvalidQuery(
                f"column {column}: {given.text!r} is not a time", column=column, hint="like 2026-06-01"
            ) from exc
    elif field.group in ("version", "size"):
        if isinstance(value, str):
            raise InvalidQuery(f"column {column}: {field.group} is a number, {value!r} is not", column=column)
    elif field.group not in GROUPS or operator == "like":
        value = given.text
    elif field.group == "metrics" and isinstance(value, str):
        raise InvalidQuery(f"column {column}: a metric is a number, {value!r} is not", column=column)
    return Compare(field, operator, value)  # type: ignore[arg-type]


def words(text: str) -> Sequence[str]:
    """The words of a full-text search; a trailing * searches for beginnings."""
    return [word for word in re.findall(r"\w+\*?", text) if word.strip("_*")]
