"""Texts that others wrote: YAML, the head of a model card, and protobuf's text format. Values become plain and few."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from catalog_core.errors import InvalidInput, SerializationError
from catalog_core.plain_yaml import MAX_DEPTH, MAX_VALUES, plain, read
from catalog_core.shown import an
from catalog_core.values import MAX_TAGS, check_tags

__all__ = ["card_head", "decoded", "mapping", "pbtxt", "plain", "tags", "yaml"]
MAX_TEXT = 1 << 20
yaml = read
_CARD = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.S)


def decoded(data: bytes, what: str) -> str:
    """Text in UTF-8. Raises `SerializationError`."""
    if len(data) > MAX_TEXT:
        raise SerializationError(f"{what} is larger than {MAX_TEXT:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise SerializationError(f"{what} is no text in UTF-8") from exc


def mapping(value: Any, what: str) -> dict[str, Any]:
    """The value, if it is a mapping. Raises `SerializationError`."""
    if not isinstance(value, dict):
        raise SerializationError(f"{what} is no mapping")
    return value


def card_head(text: str, what: str) -> dict[str, Any]:
    """The YAML head of a model card; empty where there is none."""
    found = _CARD.match(text)
    value = yaml(found[1], f"the head of {what}") if found else None
    return value if isinstance(value, dict) else {}


def tags(values: Mapping[str, Any], kind: str = "tag", notes: list[str] | None = None, of: str = "") -> dict[str, Any]:
    """The values as tags or parameters, those of nested mappings under keys with dots; a list of words is joined, other
    lists are JSON. What lies less deep comes first, as much as there is room for; `notes` hears what of `of` is not."""
    kept: dict[str, Any] = {}
    left: list[str] = []
    room = MAX_TAGS
    for key, value in sorted(_leaves(values), key=lambda leaf: leaf[0].count(".")):
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", key).strip("_.-")
        if isinstance(value, list):
            words = all(isinstance(item, (str, int)) for item in value)
            value = ", ".join(map(str, value)) if words else json.dumps(value, ensure_ascii=False)
        try:
            found = check_tags({name: value}, kind)[name]
        except InvalidInput:
            left.append(key)
            continue
        size = len(str(found).encode(errors="replace")) + len(name)
        if size > room or name in kept:
            left.append(key)
            continue
        kept[name], room = found, room - size
    if left and notes is not None:
        shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        notes.append(f"{of}: no room for {an(kind)} of {shown[:300]}; they are kept, and not searched")
    return kept


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings under keys joined by dots; nothing of what is empty or null."""
    for key, value in values.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from _leaves(value, name)
        elif value is not None and value != []:
            yield name, value


_TOKEN = re.compile(
    r'\s+|#[^\n]*|(?P<text>"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\')|(?P<word>[\w.+-]+)|(?P<mark>[{}\[\]:,;<>])'
)


def pbtxt(text: str, what: str) -> dict[str, list[Any]]:
    """The fields of a message in protobuf's text format: name → values in order. Raises `SerializationError`."""
    tokens = list(_tokens(text, what))
    if len(tokens) > MAX_VALUES:
        raise SerializationError(f"{what} holds more than {MAX_VALUES:,} words")
    found, at = _message(tokens, 0, 0, what)
    if at != len(tokens):
        raise SerializationError(f"{what} cannot be read: a bracket too many")
    return found


def _tokens(text: str, what: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise SerializationError(f"{what} cannot be read at {text[at : at + 20]!r}")
        if match.lastgroup:
            yield match[0]
        at = match.end()


def _message(tokens: list[str], at: int, depth: int, what: str) -> tuple[dict[str, list[Any]], int]:
    if depth > MAX_DEPTH:
        raise SerializationError(f"{what} is nested too deeply")
    fields: dict[str, list[Any]] = {}
    while at < len(tokens) and tokens[at] not in ("}", ">"):
        if tokens[at] in (",", ";"):
            at += 1
            continue
        name, at = tokens[at], at + 1
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise SerializationError(f"{what} cannot be read: {name[:20]!r} is no name")
        if at < len(tokens) and tokens[at] == ":":
            at += 1
        if at >= len(tokens):
            raise SerializationError(f"{what} ends within {name!r}")
        values = fields.setdefault(name, [])
        if tokens[at] != "[":
            value, at = _value(tokens, at, depth, what)
            values.append(value)
            continue
        at += 1
        while at < len(tokens) and tokens[at] != "]":
            if tokens[at] == ",":
                at += 1
                continue
            value, at = _value(tokens, at, depth, what)
            values.append(value)
        at += 1
    return fields, at


def _value(tokens: list[str], at: int, depth: int, what: str) -> tuple[Any, int]:
    token = tokens[at]
    if token in ("{", "<"):
        value, at = _message(tokens, at + 1, depth + 1, what)
        if at >= len(tokens):
            raise SerializationError(f"{what} ends within a message")
        return value, at + 1
    if token in "}>[]:,;":
        raise SerializationError(f"{what} cannot be read: {token!r} in place of a value")
    if token[0] in "\"'":
        return re.sub(r"\\(.)", r"\1", token[1:-1]), at + 1
    number = int(token) if re.fullmatch(r"-?\d{1,15}", token) else token
    return number, at + 1
