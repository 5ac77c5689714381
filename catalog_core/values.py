"""Values of tags, metrics, parameters and times: what may be stored, and how it is read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from catalog_core.digests import MAX_INTEGER, plain
from catalog_core.errors import InvalidInput
from catalog_core.names import check_key
from catalog_core.shown import an

if TYPE_CHECKING:
    from datetime import datetime

MAX_TAG = 4096
AHEAD = 300.0  # seconds by which clocks may differ
MAX_TAGS = 12 << 10


def scalar(value: Any) -> Any:
    """A value as Python's own type, where it is one number, text or boolean: a NumPy scalar, a 0-dimensional array or
    tensor, a member of an enumeration; a path as text. Anything else is returned as it is."""
    found = plain(value)
    if getattr(found, "shape", None) == () and hasattr(found, "dtype") and hasattr(found, "item"):
        try:
            found = plain(found.item())
        except Exception:  # a tensor without data
            return value
    if isinstance(found, os.PathLike):
        return os.fspath(found)
    return found


def check_value(key: str, value: Any, kind: str = "tag") -> str | bool | int | float:
    """Return `value` as it may be stored under `key`: a text, a boolean or a finite number that JSON holds, of at most
    4 KiB. Raises `InvalidInput`."""
    found = scalar(value)
    if not isinstance(found, (str, bool, int, float)):
        raise InvalidInput(
            f"{kind} {key!r} is {an(type(found).__name__)}; texts, numbers and booleans are allowed",
            hint="store it as text: str(value)",
        )
    if isinstance(found, str):
        try:
            _ = found.isascii() or found.encode()
        except UnicodeEncodeError as exc:
            raise InvalidInput(f"{kind} {key!r} holds half a surrogate pair, which is not Unicode") from exc
    if isinstance(found, float) and found - found != 0:
        raise InvalidInput(f"{kind} {key!r} is {found}, which cannot be stored as JSON", hint="store it as text")
    if isinstance(found, int) and abs(found) > MAX_INTEGER:
        raise InvalidInput(f"{kind} {key!r} is an integer beyond ±(2^53-1)", hint="store it as text: str(value)")
    size = _size(found)
    if size > MAX_TAG:
        raise InvalidInput(_too_large(kind, key, size), hint="long texts go into the card or an attachment")
    return found


def check_tags(tags: Mapping[str, Any], kind: str = "tag") -> dict[str, Any]:
    """Return `tags` as they may be stored: texts, booleans and finite numbers, 4 KiB each, 12 KiB in all.

    A mapping in `tags` gives a key for each of its values, joined by dots (`{"optimizer": {"lr": 1}}` is
    `optimizer.lr`); a list is a text, its JSON. None stays None: it says that there is no value, and no event holds it.
    Raises `InvalidInput`, `InvalidName`.
    """
    total = 0
    result: dict[str, Any] = {}
    for key, value in _leaves(tags, kind):
        if key in result:
            raise InvalidInput(f"{kind} {key!r} is given twice", hint="a nested mapping gives keys with dots")
        result[key] = None if value is None else check_value(key, value, kind)
        size = _size(result[key])
        total += size + len(key)
        if total > MAX_TAGS:
            raise InvalidInput(_too_large(kind, key, size), hint="long texts go into the card or an attachment")
    return result


def _size(value: Any) -> int:
    return 0 if value is None else len(str(value).encode(errors="replace"))


def _too_large(kind: str, key: str, size: int) -> str:
    return f"{kind} {key!r} takes {size:,} bytes: {MAX_TAG:,} are allowed for one, {MAX_TAGS:,} for all"


def _leaves(values: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, each with the keys that lead to it, joined by dots."""
    todo = [("", values)]
    while todo:
        path, item = todo.pop()
        inner = members(item)
        if path:
            check_key(path, kind)
            if inner is None or not inner:
                yield path, (_listed(path, item, kind) if _is_nest(item) and kind != "metric" else item)
                continue
        for key, value in reversed(list((inner or {}).items())):
            text = plain(key)
            if path and type(text) is int:  # `vars(args)` and configurations number things
                text = str(text)
            if type(text) is not str or not text:
                check_key(key, kind)
            todo.append((f"{path}.{text}" if path else text, value))


def members(value: Any) -> Mapping[Any, Any] | None:
    """Names and values of a mapping, or of a namespace as `argparse` makes one; None for anything else."""
    if isinstance(value, Mapping):
        return value
    argparse = sys.modules.get("argparse")
    if isinstance(value, SimpleNamespace) or (argparse is not None and isinstance(value, argparse.Namespace)):
        return vars(value)
    return None


def _is_nest(value: Any) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    return listed or members(value) is not None


def _listed(key: str, value: Any, kind: str) -> str:
    """The JSON of a list, for people: what is in it must be plain."""

    def inner(item: Any) -> Any:
        if not _is_nest(item):
            found = scalar(item)
            return found if found is None else check_value(key, found, kind)
        named = members(item)
        return [inner(each) for each in item] if named is None else {str(k): inner(each) for k, each in named.items()}

    try:
        return json.dumps(inner(value), ensure_ascii=False)
    except RecursionError as exc:
        raise InvalidInput(f"{kind} {key!r} is nested too deep") from exc


def check_metrics(metrics: Mapping[str, Any]) -> dict[str, float | int]:
    """Metrics as they are stored; nested mappings give keys with dots. Raises `InvalidInput`."""
    return {key: check_metric(key, value) for key, value in _leaves(metrics, "metric")}


def check_metric(key: str, value: Any) -> float | int:
    """Return `value` if it may be a metric: a finite number. Raises `InvalidInput`."""
    check_key(key, "metric")
    number: float | int = scalar(value)
    if isinstance(number, (bool, str, bytes, complex)) or not hasattr(number, "__float__"):
        several = isinstance(value, (list, tuple))
        way = "one number, say values[-1]" if several else "texts go into tags="
        raise InvalidInput(f"metric {key!r} must be a number, not {str(value)[:60]!r}", hint=way)
    if not isinstance(number, int):
        try:
            number = float(number)
        except Exception as exc:  # several numbers, or a date of NumPy
            raise InvalidInput(f"metric {key!r} must be one number, not {an(type(value).__name__)}") from exc
        if number - number != 0:
            raise InvalidInput(f"metric {key!r} is {number}: only finite numbers can be compared", hint="leave it out")
    elif abs(number) > MAX_INTEGER:
        raise InvalidInput(f"metric {key!r} is an integer beyond ±(2^53-1)", hint="float(value) rounds it")
    return number


def given(verb: str, opposite: str | None, pair: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """What a call `verb(key, value)`, `verb({key: value})` or `verb(key=value)` sets; `opposite` is the verb that
    removes. Raises `InvalidInput` for any other call, and where nothing is set."""
    ways = f'{verb}("key", value), {verb}({{"key": value}}) or {verb}(key=value)'
    if len(pair) == 2:
        values = {pair[0]: pair[1]}
    elif len(pair) == 1 and (named := members(pair[0])) is not None:
        values = dict(named)
    elif len(pair) == 1 and isinstance(pair[0], str):
        remove = f"; {opposite}({pair[0]!r}) removes it" if opposite else ""
        raise InvalidInput(f"{verb}({pair[0]!r}) has no value", hint=f"{verb}({pair[0]!r}, value) sets it{remove}")
    elif pair:
        what = f"a {type(pair[0]).__name__}" if len(pair) == 1 else f"{len(pair)} arguments"
        raise InvalidInput(f"{verb} cannot take {what}", hint=ways)
    else:
        values = {}
    twice = values.keys() & keywords.keys()
    if twice:
        raise InvalidInput(f"{verb} is given {sorted(twice)[0]!r} twice")
    values.update(keywords)
    if not values:
        raise InvalidInput(f"{verb} sets nothing", hint=ways)
    return values


FLAGS = ("trust", "partial", "copy")  # options of `load` and `session` that are on or off


def check_flags(**values: Any) -> None:
    """Raise `InvalidInput` for a value that is neither True nor False: a text such as "no" would count as yes."""
    for name, value in values.items():
        if not isinstance(scalar(value), bool):
            raise InvalidInput(
                f"{name}= is {repr(value)[:60]}, neither True nor False", hint=f"{name}=True, or leave it out"
            )


PUBLISHED = "it was published so; save a new version"


class Fixed(dict[str, Any]):
    """What a handle shows of a mapping: a dictionary that refuses changes, since they would reach nothing. It is equal
    to a plain one, and copies of it are plain. `way` says what changes the thing itself."""

    __slots__ = ("_way",)

    def __init__(self, values: Mapping[str, Any], way: str = PUBLISHED) -> None:
        super().__init__(values)
        self._way = way

    def _refuse(self, *given: Any, **named: Any) -> NoReturn:
        raise InvalidInput("what a handle shows cannot be changed in place", hint=f"{self._way}; dict(…) is a copy")

    __setitem__ = __delitem__ = __ior__ = _refuse
    pop = popitem = clear = update = setdefault = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __copy__(self) -> dict[str, Any]:
        return dict(self)


class Handle:
    """A base whose attributes are set once, by `_set`. Assigning one raises `InvalidInput` that names the method which
    changes the thing (`WAYS`: attribute → that method)."""

    __slots__ = ()
    kind = "handle"
    WAYS: ClassVar[Mapping[str, str]] = {}

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse(name)

    def __delattr__(self, name: str) -> None:
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        if not hasattr(self, name):
            raise InvalidInput(f"{an(self.kind)} has no {name!r}", hint=f"{', '.join(self.WAYS)} can be changed")
        way = f"{self.kind} = {self.kind}.{self.WAYS[name]}" if name in self.WAYS else PUBLISHED
        raise InvalidInput(f"{name} of {an(self.kind)} cannot be assigned", hint=way)


OPEN = "it holds an open catalog, with files, connections and locks of this process"


def refuse_pickle(thing: object, instead: str, why: str = OPEN) -> NoReturn:
    """Raise the `InvalidInput` of what cannot go to another process: `instead` is what makes it anew there."""
    shown = repr(thing) if why == OPEN else an(type(thing).__name__)
    raise InvalidInput(f"{shown} cannot be pickled: {why}", hint=f"send the name, and there call {instead}")


def check_seconds(name: str, value: Any, least: float = 0.0) -> float:
    """Return `value` as seconds: a finite number from `least` on, and no boolean. Raises `InvalidInput`."""
    found = scalar(value)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not least <= found < float("inf"):
        told = f"{name} is {repr(value)[:60]}, which is no number of seconds"
        raise InvalidInput(told, hint=f"{name}=86400 is a day")
    return float(found)


def check_actor(actor: Any) -> str:
    """Return `actor` if it may sign changes: a text of 1 to 200 printable characters. Raises `InvalidInput`."""
    if not isinstance(actor, str) or not 0 < len(actor) <= 200 or not actor.isprintable():
        raise InvalidInput(
            f"an actor cannot be {repr(actor)[:80]}: 1 to 200 printable characters", hint="actor=… or $CATALOG_ACTOR"
        )
    return actor


def check_limit(limit: int) -> int:
    """Return `limit` if so many rows may be asked for: 1 to a million. Raises `InvalidInput`."""
    if type(limit) is not int or not 1 <= limit <= 1_000_000:
        raise InvalidInput(f"limit is {limit!r}; 1 to 1,000,000 are allowed")
    return limit


def when(seconds: float) -> datetime:
    """A time of the journal (seconds since 1970), as an aware datetime in UTC. One that has not come yet was written by
    a wrong clock, or by malice: it is shown as now (`catalog doctor` names the entry)."""
    import time
    from datetime import UTC, datetime

    now = time.time()
    return datetime.fromtimestamp(max(seconds, 0.0) if seconds < now + AHEAD else now, UTC)


def word(value: str | bool | int | float) -> str:
    """The text of a stored value: what a search compares with a text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def typed(text: str, number: float | None, flag: int | None) -> Any:
    """A stored value as it was given: the boolean, the number (whole where it was written so), else the text."""
    if flag is not None:
        return bool(flag)
    if number is None:
        return text
    return int(number) if "." not in text and "e" not in text else number
