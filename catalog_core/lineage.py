"""Where a version comes from and what became of it: parents and children, as a tree."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core import state
from catalog_core.errors import CatalogError
from catalog_core.layout import read_layout
from catalog_core.page import Shown
from catalog_core.shown import counted
from catalog_core.values import when

if TYPE_CHECKING:
    from catalog_core.repository import Repository
    from catalog_core.state import VersionRow

MAX_DEPTH = 100
MAX_RELATIVES = 1000
MAX_SHARED = 100  # relatives whose layouts are read, to count what they share


@attrs.frozen
class Relative:
    """A parent or child. `state` is `here`, `deleted`, `elsewhere` (in the catalog `catalog`, which is not this one) or
    `unknown` (no version here is called so). `shared_bytes` of the `bytes` of the younger of the two are also the older
    one's, and stored once; None where that was not counted. `relatives` go on in the same direction; they are left out
    where `again` says that they stand at an earlier place of the tree."""

    ref: str
    state: str
    framework: str = ""
    algorithm: str = ""
    created: str = ""
    bytes: int | None = None
    shared_bytes: int | None = None
    catalog: str | None = None
    again: bool = False
    relatives: tuple[Relative, ...] = ()


@attrs.frozen
class Lineage(Shown):
    """All ancestors and descendants of the version `ref`. `whole` is False where there were too many to follow."""

    ref: str
    parents: tuple[Relative, ...]
    children: tuple[Relative, ...]
    whole: bool = True

    def rows(self) -> list[dict[str, Any]]:
        """A row for each relative, ancestors first; the tree is drawn in the first column."""
        from catalog_core.show import size

        found = []
        for relation, relatives in (("parent", self.parents), ("child", self.children)):
            for branch, item in _drawn(relatives, ""):
                shared = None
                if item.shared_bytes is not None and item.bytes is not None:
                    shared = f"{size(item.shared_bytes)} of {size(item.bytes)}"
                where = f" {item.catalog[:12]}" if item.catalog else ""
                state = "" if item.state == "here" else f"{item.state}{where}"
                found.append(
                    {
                        "version": branch + item.ref + (" (above)" if item.again else ""), "relation": relation,
                        "state": state, "framework": item.framework, "algorithm": item.algorithm,
                        "created": item.created, "shared": shared,
                    }
                )  # fmt: skip
        return found

    def __repr__(self) -> str:
        children = f"{len(self.children)} {'child' if len(self.children) == 1 else 'children'}"
        return f"<Lineage {self.ref}: {counted(len(self.parents), 'parent')}, {children}>"


def _drawn(relatives: tuple[Relative, ...], before: str) -> Iterator[tuple[str, Relative]]:
    for number, item in enumerate(relatives):
        last = number == len(relatives) - 1
        yield before + ("└─ " if last else "├─ "), item
        yield from _drawn(item.relatives, before + ("   " if last else "│  "))


def lineage(repository: Repository, version: VersionRow) -> Lineage:
    """The tree of a version, from what the publish events in this catalog say. A copy's parents are looked for among
    the copies of the same catalog; no other catalog is asked."""
    family = _Family(repository)
    parents = family.grow(version, family.parents, set())
    children = family.grow(version, family.children, set())
    return Lineage(version.ref, parents, children, family.whole)


def _parts(ref: str) -> tuple[str, int] | None:
    """The name and number of a reference; None of one that has no number."""
    name, _, number = ref.rpartition("@")
    return (name, int(number)) if number.isascii() and number.isdigit() and len(number) < 19 else None


Name = tuple[str, str]  # of a version, for all time: id of the catalog where it was published first, reference there
Edges = Callable[[Name], list[Name]]


class _Family:
    """Who names whom, looked up where the tree goes."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._index = repository.index
        self.whole = True
        self._own = repository.id
        self._chunks: dict[str, Mapping[str, int] | None] = {}
        self._left = MAX_RELATIVES
        self._shared_left = MAX_SHARED
        self.parents: Edges = functools.cache(self._parents)
        self.children: Edges = functools.cache(self._children)

    def _name(self, ref: str) -> Name:
        """The name of what is called `ref` here: where a copy comes from, else `ref` itself."""
        called = _parts(ref)
        return (called and state.origin(self._index, *called)) or (self._own, ref)

    def _refs(self, name: Name) -> list[str]:
        """What the versions of that name are called here, the oldest first."""
        found = set(state.copies(self._index, name))
        called = _parts(name[1])
        if called and name[0] == self._own and self._name(name[1]) == name:
            itself = state.row_of(self._index, *called)
            found |= {itself} if itself else set()
        return [f"{model}@{number}" for _, model, number in sorted(found)]

    def _named(self, child: Name, parent: str) -> Name:
        """Whom a version means by `parent`: a copy keeps the names that its parents had where it comes from."""
        return self._name(parent) if child[0] == self._own else (child[0], parent)

    def _parents(self, name: Name) -> list[Name]:
        found: dict[Name, None] = {}
        for ref in self._refs(name):
            for parent in state.parents(self._index, *(_parts(ref) or (ref, 0))):
                found[self._named(name, parent)] = None
        found.pop(name, None)
        return list(found)

    def _children(self, name: Name) -> list[Name]:
        refs = {name[1], *self._refs(name)}
        rows = state.children(self._index, refs, 2 * MAX_RELATIVES + 1)
        self.whole = self.whole and len(rows) <= 2 * MAX_RELATIVES
        found: dict[Name, None] = {}
        for parent, model, number, origin in rows:
            child = origin or (self._own, f"{model}@{number}")
            if child != name and self._named(child, parent) == name:
                found[child] = None
        return list(found)

    def grow(self, start: VersionRow, edges: Edges, seen: set[Name]) -> tuple[Relative, ...]:
        """The relatives of a version along `edges`, each followed once."""
        return self._grow(self._name(start.ref), start, edges, seen, 0)

    def _grow(
        self, name: Name, version: VersionRow | None, edges: Edges, seen: set[Name], depth: int
    ) -> tuple[Relative, ...]:
        seen.add(name)
        found = []
        for other in edges(name):
            if depth >= MAX_DEPTH or self._left <= 0:
                self.whole = False
                break
            self._left -= 1
            relative, there = self._relative(other)
            if version is not None and there is not None:
                child, parent = (version, there) if edges is self.parents else (there, version)
                total, shared = self._shared(child, parent)
                relative = attrs.evolve(relative, bytes=total, shared_bytes=shared)
            if other in seen:
                relative = attrs.evolve(relative, again=bool(edges(other)))
            else:
                relative = attrs.evolve(relative, relatives=self._grow(other, there, edges, seen, depth + 1))
            found.append(relative)
        return tuple(found)

    def _relative(self, name: Name) -> tuple[Relative, VersionRow | None]:
        refs = self._refs(name)
        if not refs and name[0] != self._own:
            return Relative(name[1], "elsewhere", catalog=name[0]), None
        called = _parts(refs[-1] if refs else name[1])
        version = called and state.version_numbered(self._index, *called)
        if not version:
            return Relative(name[1], "unknown"), None
        summary = state.published(self._index, version)["summary"]
        relative = Relative(
            version.ref,
            "deleted" if version.deleted else "here",
            str(summary.get("framework", "")),
            str(summary.get("algorithm", "")),
            when(version.time).isoformat(),
        )
        return relative, version

    def _shared(self, child: VersionRow, parent: VersionRow) -> tuple[int | None, int | None]:
        """The bytes of the child, and how many of them the parent has too; None where a layout cannot be read."""
        if self._shared_left <= 0:
            return None, None
        self._shared_left -= 1
        mine, theirs = self._layout(child), self._layout(parent)
        if mine is None or theirs is None:
            return None, None
        return sum(mine.values()), sum(length for digest, length in mine.items() if digest in theirs)

    def _layout(self, version: VersionRow) -> Mapping[str, int] | None:
        if version.ref not in self._chunks:
            try:
                data = self._repository.content.blob(version.layout, f"layout of {version.ref}")
                chunks = {c.digest: c.length for parts in read_layout(data).values() for c in parts}
                self._chunks[version.ref] = chunks
            except CatalogError:  # erased, collected, or out of reach
                self._chunks[version.ref] = None
        return self._chunks[version.ref]
