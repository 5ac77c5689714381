"""The filter language: text → syntax tree. The grammar is in `docs/reference/query.md`.

A query without any operator is full text. Errors point at a column.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import attrs

from catalog_core.errors import InvalidQuery
from catalog_core.names import nearest

COLUMNS = (
    "name", "version", "stage", "author", "framework", "algorithm", "verification", "size", "time", "alias", "text",
)  # fmt: skip
GROUPS = ("tags", "metrics", "params", "taxonomy")
CONDITIONS = 500
DEPTH = 20
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "like", "~"]

_NUMBER_RULE = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w:./-])"
_STRING_RULE = r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
_WORD_RULE = r"(?P<word>\w[\w.:/+@-]*)"
_NUMBER = re.compile(_NUMBER_RULE)
_VALUE = re.compile(f"(?P<number>{_NUMBER_RULE})|{_STRING_RULE}|{_WORD_RULE}")
_KEY = re.compile(f"{_STRING_RULE}|{_WORD_RULE}")
_NAME = re.compile(r"[^\W\d]\w*")
_OPERATOR = re.compile(r"==|!=|<=|>=|[=<>~]")
_OPEN, _CLOSE, _COMMA, _DOT = (re.compile(re.escape(mark)) for mark in "(),.")
_OR, _AND, _NOT, _IN, _LIKE, _ORDER, _BY, _ASC, _DESC = (
    re.compile(rf"{word}\b", re.IGNORECASE)
    for word in ("or", "and", "not", "in", "like", r"order(?=\s+by\b)", "by", "asc", "desc")
)
_HAS = re.compile(r"has(?=\s*\()", re.IGNORECASE)
_LIMIT = re.compile(r"limit(?=\s+\d)", re.IGNORECASE)
_BLANK = re.compile(r"\s*")


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


def half_a_filter(text: str) -> tuple[str, ...]:
    """What is to be said where a line begins as a filter and was searched for as words, since no operator of ours is in
    it."""
    first = text.strip().split(" ")[0].lower()
    begins = first.partition(".")[0] in GROUPS if "." in first else first in (*COLUMNS, "limit", "order", "not", "has")
    if not begins or _plain_text(text) is None:
        return ()
    return (f"{text.strip()[:60]!r} was searched for as words; a filter has an operator, like metrics.auc > 0.9",)


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
    query = _Parser(text).query()
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


class _Parser:
    """A reader of the grammar in `docs/reference/query.md`, by recursive descent: one method a rule. What a word means
    (a keyword, a field, a value) depends on where it stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def query(self) -> Query:
        where: Node | None = None
        order: tuple[tuple[Field, bool], ...] = ()
        limit: int | None = None
        if not (self._ahead(_ORDER) or self._ahead(_LIMIT) or self._ended()):
            where = self._either()
        if self._take(_ORDER):
            order = self._order()
        if self._take(_LIMIT):
            limit = self._limit()
        if not self._ended():
            raise self._wrong()
        return Query(where, order, limit)

    # -- where it stands ----------------------------------------------------------------------------------------

    def _ahead(self, pattern: re.Pattern[str]) -> bool:
        return pattern.match(self._text, self._skip()) is not None

    def _take(self, pattern: re.Pattern[str]) -> bool:
        found = pattern.match(self._text, self._skip())
        if found:
            self._at = found.end()
        return found is not None

    def _skip(self) -> int:
        """The position behind the blanks."""
        return _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]

    def _ended(self) -> bool:
        return self._skip() == len(self._text)

    def _wrong(self) -> InvalidQuery:
        at, text = self._skip(), self._text
        if at == len(text):
            return InvalidQuery(f"the query ends too early: {text[-60:]!r}", column=len(text) + 1)
        return InvalidQuery(
            f"column {at + 1}: {text[at : at + 20]!r} is not understood here", column=at + 1,
            hint='like: framework = "torch" and metrics.auc > 0.9',
        )  # fmt: skip

    def _expect(self, pattern: re.Pattern[str]) -> None:
        if not self._take(pattern):
            raise self._wrong()

    # -- conditions ---------------------------------------------------------------------------------------------

    def _either(self) -> Node:
        nodes = [self._both()]
        while self._take(_OR):
            nodes.append(self._both())
        return nodes[0] if len(nodes) == 1 else Either(tuple(nodes))

    def _both(self) -> Node:
        nodes = [self._negated()]
        while self._take(_AND):
            nodes.append(self._negated())
        return nodes[0] if len(nodes) == 1 else Both(tuple(nodes))

    def _negated(self) -> Node:
        self._depth += 1
        if self._depth > 5 * DEPTH:  # brackets around brackets are no depth of the query, but take the stack
            raise InvalidQuery(f"a query is nested at most {DEPTH} deep", hint="split the query")
        try:
            if self._take(_NOT):
                return Not(self._negated())
            if self._take(_OPEN):
                node = self._either()
                self._expect(_CLOSE)
                return node
            return self._condition()
        finally:
            self._depth -= 1

    def _condition(self) -> Node:
        if self._take(_HAS):
            self._expect(_OPEN)
            field = self._field()
            self._expect(_CLOSE)
            return Has(field)
        field = self._field()
        operator = _OPERATOR.match(self._text, self._skip())
        if operator:
            self._at = operator.end()
            return _compare(field, "=" if operator[0] == "==" else operator[0], self._value())
        negated = self._take(_NOT)
        node: Node
        if self._take(_IN):
            node = Either(tuple(_compare(field, "=", value) for value in self._values()))
        elif self._take(_LIKE):
            node = _compare(field, "like", self._value())
        else:
            raise self._wrong()
        return Not(node) if negated else node

    def _values(self) -> list[_Value]:
        self._expect(_OPEN)
        values = [self._value()]
        while self._take(_COMMA):
            values.append(self._value())
        self._expect(_CLOSE)
        return values

    def _value(self) -> _Value:
        found = _VALUE.match(self._text, self._skip())
        if found is None:
            raise self._wrong()
        self._at = found.end()
        column = found.start() + 1
        if found["string"]:
            text = _unquote(found["string"])
            return _Value(text, text, column)
        if found["word"]:
            return _Value(found["word"], found["word"], column)
        text = found["number"]
        value = float(text)
        whole = text.lstrip("+-").isdigit() and abs(value) < 2**53
        return _Value(int(text) if whole else value, text, column)

    def _field(self) -> Field:
        found = _NAME.match(self._text, self._skip())
        if found is None:
            raise self._wrong()
        self._at = found.end()
        group, column = found[0].lower(), found.start() + 1
        if self._take(_DOT):
            key = _KEY.match(self._text, self._skip())
            if key is None:
                raise self._wrong()
            self._at = key.end()
            if group not in GROUPS:
                raise InvalidQuery(f"column {column}: {group!r} has no keys", column=column, hint=", ".join(GROUPS))
            return Field(group, _unquote(key[0]) if key["string"] else key[0])
        group = {"owner": "author", "number": "version", "created": "time"}.get(group, group)
        if group not in COLUMNS:
            known = [*COLUMNS, *[f"{name}." for name in GROUPS]]
            raise InvalidQuery(
                f"column {column}: there is no field {found[0]!r}", column=column,
                hint=nearest(group, known) or f"fields: {', '.join(known)}", field=found[0],
            )  # fmt: skip
        return Field(group)

    # -- order and limit ----------------------------------------------------------------------------------------

    def _order(self) -> tuple[tuple[Field, bool], ...]:
        self._expect(_BY)
        keys = [self._order_key()]
        while self._take(_COMMA):
            keys.append(self._order_key())
        return tuple(keys)

    def _order_key(self) -> tuple[Field, bool]:
        column = self._skip() + 1
        field = self._field()
        if field.group in ("alias", "text"):
            raise InvalidQuery(f"results cannot be ordered by {field.group}", column=column)
        return field, not self._take(_ASC) and self._take(_DESC)

    def _limit(self) -> int:
        column = self._skip() + 1
        found = _NUMBER.match(self._text, column - 1)
        if found is None:
            raise self._wrong()
        self._at = found.end()
        if not found[0].isdigit() or int(found[0]) < 1:
            raise InvalidQuery(f"column {column}: limit is a whole number from 1", column=column)
        return int(found[0])


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
    return [word for word in re.findall(r"\w[\w\u0300-\u036f]*\*?", text) if word.strip("_*")]
