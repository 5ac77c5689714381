"""What is shown: one page of a listing, a list of results, a result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

Item = TypeVar("Item")


class Shown:
    """What a notebook shows as HTML, and rich in a terminal; see `show`."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from catalog_core import show

        return show.html(self)

    def __rich__(self) -> Any:
        from catalog_core import show

        return show.rich(self)


class Listing(list[Item], Shown):
    """A list of results that a notebook shows as a table; `title` says of what."""

    kind = "listing"

    def __init__(self, items: Iterable[Item] = (), title: str = "") -> None:
        super().__init__(items)
        self.title = title


class Page(Shown, Sequence[Item], Generic[Item]):
    """One page of a listing. `next` fetches the following page, or is None on the last; `cursor` is what
    `search(cursor=…)`, or `models(after=…)`, takes to go on there, also in another process; `notes` may say why a
    search found nothing."""

    kind = "page"

    def __init__(self, items: list[Item], following: Any = None, cursor: str | None = None) -> None:
        self._items = items
        self._following = following
        self.cursor = cursor
        self.notes: tuple[str, ...] = ()

    @property
    def next(self) -> Page[Item] | None:
        """The following page, or None."""
        return self._following() if self._following else None

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> list[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | list[Item]:
        return self._items[at]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def to_pandas(self) -> Any:
        """The page as a pandas DataFrame, a row an item."""
        import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]

        from catalog_core import show

        return pd.DataFrame([show.record(item) for item in self._items])

    def __repr__(self) -> str:
        if not self._items:
            return f"<Page of 0{''.join(f'; {note}' for note in self.notes)}>"
        return f"<Page of {len(self)}: {', '.join(map(repr, self._items[:5]))}{' …' if len(self) > 5 else ''}>"
