"""How things look: records for programs, tables for terminals, HTML for notebooks. Imported on use."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from catalog_core import redact
from catalog_core.index import Index
from catalog_core.shown import clean
from catalog_core.state import ModelRow, VersionRow, erasures, history
from catalog_core.tabular import as_html, described, folded, laid_out
from catalog_core.values import when


@attrs.frozen
class Event:
    """One event of the history. `rejected` says why it had no effect, where a rule refused it."""

    position: int
    time: datetime
    actor: str
    type: str
    model: str | None
    number: int | None
    data: Mapping[str, Any]
    rejected: str | None

    @property
    def text(self) -> str:
        """The event in one line."""
        what = f"{self.model}@{self.number}" if self.number else self.model or ""
        try:
            detail = self._detail()
        except (KeyError, TypeError, ValueError, AttributeError):  # a rejected one may hold anything
            detail = text({key: value for key, value in self.data.items() if key not in ("type", "v", "critical")})
        told = f"{self.type} {what} {detail}".strip() + (f" (rejected: {self.rejected})" if self.rejected else "")
        return clean(told)

    def _repr_html_(self) -> str:
        return html(self)

    def __rich__(self) -> Any:
        return rich(self)

    def _detail(self) -> str:
        data = self.data
        if self.type == "version.published":
            return size(data.get("size", 0))
        if self.type == "alias.set":
            return str(data["alias"]) if data["number"] else f"{data['alias']} removed"
        if self.type == "stage.set":
            return f"{data['seen']} → {data['stage']}"
        if self.type in ("tags.set", "metrics.set"):
            return ", ".join([*filter(None, [text(data["set"])]), *(f"-{key}" for key in data["unset"])])
        if self.type == "blobs.swept":
            return f"{len(data['keys'])} blobs"
        if self.type == "blobs.erased":
            return f"{', '.join(f'{name}@{number}' for name, number in data['versions'])}: {data['reason']}"
        if self.type == "intents.dropped":
            return f"{len(data['ids'])} intents"
        return ", ".join(data.get("set", ""))


def events(index: Index, name: str | None, limit: int, after: int | None = None) -> list[Event]:
    """The last `limit` events of a model, or of all, oldest first; or the first ones behind the position `after`, with
    all of their last entry."""
    told = functools.lru_cache(1)(index.events_at)  # those of one entry come together: it is read once
    rows = history(index, name, limit, after)
    gone = [row for row, _ in erasures(index, name) if after is None or row[0] > after] if name else []
    if gone:
        rows = sorted([*rows, *gone])
        last = rows[min(limit, len(rows)) - 1][0]
        rows = rows[-limit:] if after is None else [row for row in rows if row[0] <= last]
    return [
        Event(position, when(seconds), actor, kind, model, number, told(position)[ordinal], rejected)
        for position, ordinal, seconds, actor, kind, model, number, rejected in rows
    ]


def past(model: ModelRow, versions: Iterable[VersionRow]) -> dict[str, Any]:
    """A model as it stood: title, aliases, versions."""
    told = []
    for row in versions:
        groups = {"tags": row.group("tags"), "metrics": row.group("metrics")}
        groups |= {kind: values for kind in ("params", "taxonomy") if (values := row.group(kind))}
        created = when(row.time).isoformat()
        told.append({"number": row.number, "stage": row.stage, "digest": row.digest, "created": created, **groups})
    return {
        "name": model.name, "title": model.title, "description": model.description, "owner": model.owner,
        "aliases": dict(sorted(model.aliases.items())), "versions": told,
    }  # fmt: skip


def _kind(item: Any) -> str:
    """What a handle says it is; handles are above this floor."""
    return str(getattr(item, "kind", ""))


def record(item: Any) -> dict[str, Any]:
    """Anything of the catalog as plain JSON values."""
    if _kind(item) == "version":
        own = {
            "ref": item.ref, "model": item.model, "number": item.number, "digest": item.digest, "stage": item.stage,
            "author": item.author, "created": item.created.isoformat(), "size": item.size, "aliases": item.aliases,
            "tags": item.tags, "metrics": item.metrics, "params": item.params, "taxonomy": item.taxonomy,
            "description": item.description, "attachments": item.attachments, "deleted": bool(item.deleted),
        }  # fmt: skip
        return own | {key: value for key, value in item.summary.items() if key not in own}  # it may not pass for them
    if _kind(item) == "model":
        return {
            "name": item.name, "title": item.title, "description": item.description, "owner": item.owner,
            "newest": item.newest, "aliases": item.aliases, "updated": when(item.updated).isoformat(),
        }  # fmt: skip
    if isinstance(item, Event):
        return {
            "position": item.position, "time": item.time.isoformat(), "actor": item.actor, "type": item.type,
            "model": item.model, "number": item.number, "text": item.text, "rejected": item.rejected,
        }  # fmt: skip
    if attrs.has(type(item)):
        return attrs.asdict(item)
    return dict(item)


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def text(value: Any, key: str = "") -> str:
    """A value for people: bytes with a unit, four significant digits, times (in UTC) to the minute; `key` says what it
    is."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    if key in ("size", "new_bytes"):
        return size(value)
    if key == "parameters" and isinstance(value, int):
        return f"{value:,}"
    if key in ("created", "updated"):
        return str(value)[:16].replace("T", " ")
    if isinstance(value, float):
        short = f"{value:.4g}"
        return short if value.is_integer() or not short.lstrip("-").isdigit() else f"{value:.1f}"  # 1234.5 is not 1234
    if key == "checks" and all(isinstance(row, list) and len(row) == 4 for row in value):
        others = [
            f"{clean(str(row[0]))} {clean(str(row[1]))}: {clean(str(row[3]))}" for row in value if row[1] != "passed"
        ]
        return "; ".join([f"{len(value) - len(others)} passed", *others])
    if isinstance(value, dict):
        return ", ".join(f"{clean(str(name))}={text(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value))
    return clean(str(value))


def lines(item: Any) -> list[tuple[str, str]]:
    """Label and text of each line that describes one thing; what is empty is left out."""
    return [
        (clean(key.replace("_", " ")), clean(text(value, key)) + (" UTC" if key in ("created", "updated") else ""))
        for key, value in record(item).items()
        if value not in (None, "", {}, [], ()) and (key, value) != ("deleted", False)
    ]


def table(items: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a listing, without the columns that are empty."""
    if not items:
        return [], []
    if _kind(items[0]) == "version":
        rows = [
            [v.ref, v.stage, text(v.aliases), text(v.summary.get("framework")), size(v.size),
             text(v.created.isoformat(), "created"), text(v.metrics)]
            for v in items
        ]  # fmt: skip
        headings = ["version", "stage", "aliases", "framework", "size", "created (UTC)", "metrics"]
    elif _kind(items[0]) == "model":
        rows = [
            [m.name, str(m.newest), ", ".join(f"{a}→{n}" for a, n in m.aliases.items()), text(m.title)] for m in items
        ]
        headings = ["model", "newest", "aliases", "title"]
    elif isinstance(items[0], Event):
        rows = [[str(e.position), e.time.strftime("%Y-%m-%d %H:%M:%S"), e.actor, e.text] for e in items]
        headings = ["position", "time (UTC)", "actor", "event"]
    else:
        records = [record(item) for item in items]
        headings = list(records[0])
        # a digest is cut: nobody compares 64 digits by eye
        rows = [[re.sub(r"^(sha256:.{12}).{52}$", r"\1…", text(row.get(k), k)) for k in headings] for row in records]
    used = [n for n in range(len(headings)) if any(row[n] for row in rows)]
    return [clean(headings[n]) for n in used], [[clean(row[n]) for n in used] for row in rows]


def _parts(item: Any) -> tuple[str, list[tuple[str, str]], Sequence[Any]]:
    """Title, lines and rows of anything that is shown."""
    title, described, rows = _named_parts(item)
    return clean(title), described, rows


def _named_parts(item: Any) -> tuple[str, list[tuple[str, str]], Sequence[Any]]:
    if _kind(item) == "listing":
        return item.title or repr(item), [], [{"notice": each} if isinstance(each, str) else each for each in item]
    if _kind(item) == "page":
        return f"{len(item)} found" + (", more follow (.next)" if item.next is not None else ""), [], list(item)
    if _kind(item) == "model":
        return item.name, lines(item), item.versions
    if hasattr(item, "rows"):
        return repr(item).strip("<>"), [], item.rows()
    if hasattr(item, "models"):
        return f"{item.name} {redact.text(item.url)}", [], list(item.models())
    return getattr(item, "ref", type(item).__name__), lines(item), []


def rich(item: Any) -> Any:
    """A rich renderable."""
    from rich.console import Group

    title, pairs, rows = _parts(item)
    headings, cells = table(rows)
    parts: list[Any] = [_Lines(lambda columns: iter(folded(title, columns)), "bold")]  # no name is broken here either
    if pairs:
        parts.append(_Lines(lambda columns: described(pairs, columns)))
    if headings:
        parts.append(_Lines(lambda columns: laid_out(headings, cells, columns), "bold"))
    return Group(*parts)


@attrs.frozen
class _Lines:
    """Lines for rich, made for the width of their place; the first one in a style of its own."""

    made: Callable[[int], Iterator[str]]
    first: str = ""

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        for number, line in enumerate(self.made(options.max_width)):
            yield Text(line, style="" if number else self.first, no_wrap=True, overflow="ignore")


def html(item: Any) -> str:
    """HTML for notebooks; every text is escaped, every colour is the notebook's own."""
    title, pairs, rows = _parts(item)
    return as_html(title, pairs, *table(rows))
