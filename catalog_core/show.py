"""How things look: records for programs, tables for terminals, HTML for notebooks. Imported on use."""

from __future__ import annotations

import html as escaping
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from catalog_core.index import Index
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
        data = self.data
        if self.type == "version.published":
            detail = f"{data.get('size', 0):,} bytes"
        elif self.type == "alias.set":
            detail = data["alias"] if data["number"] else f"{data['alias']} removed"
        elif self.type == "stage.set":
            detail = f"{data['seen']} → {data['stage']}"
        elif self.type in ("tags.set", "metrics.set"):
            detail = ", ".join(
                [*(f"{key}={value}" for key, value in data["set"].items()), *(f"-{k}" for k in data["unset"])]
            )
        elif self.type == "blobs.swept":
            detail = f"{len(data['keys'])} blobs"
        else:
            detail = ", ".join(data.get("set", ""))
        return f"{self.type} {what} {detail}".strip() + (f" (rejected: {self.rejected})" if self.rejected else "")


def events(index: Index, name: str | None, limit: int) -> list[Event]:
    """The last `limit` events of a model, or of all, oldest first."""
    where, params = ("WHERE model = ?", [name]) if name else ("", [])
    rows = index.rows(
        "SELECT position, time, actor, type, model, number, ordinal, rejected FROM events "
        f"{where} ORDER BY id DESC LIMIT ?", [*params, limit],
    )  # fmt: skip
    return [
        Event(position, when(seconds), actor, kind, model, number, index.event(position, ordinal), rejected)
        for position, seconds, actor, kind, model, number, ordinal, rejected in reversed(rows)
    ]


def state(past: Index) -> dict[str, Any]:
    """A model in a past state: title, aliases, versions."""
    name, title, description, owner = past.rows("SELECT name, title, description, owner FROM models")[0]
    versions = []
    for number, stage, manifest, created, identity in past.rows(
        "SELECT number, stage, manifest, created, id FROM versions WHERE deleted = 0 ORDER BY number"
    ):
        fields: dict[str, dict[str, Any]] = {"tags": {}, "metrics": {}}
        for key, text, value in past.rows("SELECT key, text, number FROM fields WHERE version = ?", (identity,)):
            group, _, rest = key.partition(".")
            fields.setdefault(group, {})[rest] = text if value is None else value
        versions.append(
            {"number": number, "stage": stage, "digest": manifest, "created": when(created).isoformat(), **fields}
        )
    aliases = dict(past.rows("SELECT alias, number FROM aliases ORDER BY alias"))
    return {
        "name": name, "title": title, "description": description, "owner": owner, "aliases": aliases,
        "versions": versions,
    }  # fmt: skip


def _kind(item: Any) -> str:
    """What a handle says it is; handles are above this floor."""
    return str(getattr(item, "kind", ""))


def record(item: Any) -> dict[str, Any]:
    """Anything of the catalog as plain JSON values."""
    if _kind(item) == "version":
        return {
            "ref": item.ref, "model": item.model, "number": item.number, "digest": item.digest, "stage": item.stage,
            "author": item.author, "created": item.created.isoformat(), "size": item.size, "aliases": item.aliases,
            "tags": item.tags, "metrics": item.metrics, "params": item.params, "taxonomy": item.taxonomy,
            "attachments": item.attachments, "deleted": bool(item.deleted), **item.summary,
        }  # fmt: skip
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


def lines(item: Any) -> list[tuple[str, str]]:
    """Label and text of each line that describes one thing."""
    data = record(item)
    result = []
    for key, value in data.items():
        if value in (None, "", {}, [], ()):
            continue
        if key == "size":
            value = size(value)
        elif isinstance(value, dict):
            value = ", ".join(f"{name}={inner}" for name, inner in value.items())
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        result.append((key, str(value)))
    return result


def table(items: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a listing."""
    if not items:
        return [], []
    if _kind(items[0]) == "version":
        rows = [
            [v.ref, v.stage, ", ".join(v.aliases), str(v.summary.get("framework") or ""), size(v.size),
             v.created.strftime("%Y-%m-%d %H:%M"), ", ".join(f"{k}={x:.4g}" for k, x in v.metrics.items())]
            for v in items
        ]  # fmt: skip
        return ["version", "stage", "aliases", "framework", "size", "created", "metrics"], rows
    if _kind(items[0]) == "model":
        rows = [
            [m.name, str(m.newest), ", ".join(f"{a}→{n}" for a, n in m.aliases.items()), m.title or ""] for m in items
        ]
        return ["model", "newest", "aliases", "title"], rows
    if isinstance(items[0], Event):
        return ["position", "time", "actor", "event"], [
            [str(e.position), e.time.strftime("%Y-%m-%d %H:%M:%S"), e.actor, e.text] for e in items
        ]
    records = [record(item) for item in items]
    keys = list(records[0])
    return keys, [["" if row.get(key) is None else str(row[key]) for key in keys] for row in records]


def _parts(item: Any) -> tuple[str, list[tuple[str, str]], Sequence[Any]]:
    """Title, lines and rows of anything that is shown."""
    if _kind(item) == "page":
        return f"{len(item)} found" + (", more follow (.next)" if item.next is not None else ""), [], list(item)
    if _kind(item) == "model":
        return item.name, lines(item), item.versions
    if hasattr(item, "rows"):
        return repr(item), [], item.rows()
    if hasattr(item, "models"):
        return f"{item.name} {item.url}", [], list(item.models())
    return getattr(item, "ref", type(item).__name__), lines(item), []


def rich(item: Any) -> Any:
    """A rich renderable."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title, described, rows = _parts(item)
    parts: list[Any] = [Text(title, style="bold")]
    if described:
        grid = Table.grid(padding=(0, 2))
        for label, text in described:
            grid.add_row(Text(label, style="dim"), Text(text))
        parts.append(grid)
    headings, cells = table(rows)
    if headings:
        listing = Table(*headings)
        for row in cells:
            listing.add_row(*map(Text, row))
        parts.append(listing)
    return Group(*parts)


def html(item: Any) -> str:
    """HTML for notebooks; every text is escaped."""
    title, described, rows = _parts(item)
    clean = escaping.escape
    out = [f"<div><strong>{clean(title)}</strong>"]
    if described:
        body = "".join(f"<tr><th style='text-align:left'>{clean(a)}</th><td>{clean(b)}</td></tr>" for a, b in described)
        out.append(f"<table>{body}</table>")
    headings, cells = table(rows)
    if headings:
        head = "".join(f"<th style='text-align:left'>{clean(text)}</th>" for text in headings)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{clean(text)}</td>" for text in row) + "</tr>"
            for row in cells
        )
        out.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    return "".join(out) + "</div>"
