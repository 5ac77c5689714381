"""Metadata as scripts for ADS use it, and tables that print."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from catalog_ads import taxonomy
from catalog_core.errors import InvalidInput, NotFound
from catalog_core.names import nearest


class Table(list[dict[str, Any]]):
    """Rows, as dictionaries of the same keys."""

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame."""
        import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]

        return pd.DataFrame(self)

    def __repr__(self) -> str:
        if not self:
            return "no rows"
        lines = [list(self[0]), *([str(value) for value in row.values()] for row in self)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        lines = [[f"<th>{html.escape(key)}</th>" for key in (self[0] if self else ())]]
        lines += [[f"<td>{html.escape(str(value))}</td>" for value in row.values()] for row in self]
        rows = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
        return f"<table>{rows}</table>"


@attrs.define
class MetadataItem:
    """One entry; custom ones have a description and a category."""

    key: str
    value: Any = None
    description: str = ""
    category: str | None = None

    def update(self, value: Any, description: str | None = None, category: str | None = None) -> None:
        """Set the value, and what else is given."""
        self.value = value
        self.description = self.description if description is None else description
        self.category = self.category if category is None else category

    def reset(self) -> None:
        """Forget the value."""
        self.value = None

    def is_metric(self) -> bool:
        """Whether it is a number of the category Performance."""
        number = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        return self.category == "Performance" and number

    def as_item(self) -> taxonomy.Item:
        """As OCI takes it: a text."""
        value = self.value
        text = "" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
        return taxonomy.Item(self.key, text, self.description, self.category)


class Metadata:
    """Entries by key, in the order in which they came."""

    def __init__(self, keys: Iterable[str] = (), *, custom: bool = False) -> None:
        self._items = {key: MetadataItem(key) for key in keys}
        self._custom = custom

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys."""
        return tuple(self._items)

    def get(self, key: str) -> MetadataItem:
        """The entry of a key. Raises `NotFound` with the nearest keys."""
        if key not in self._items:
            raise NotFound(f"there are no metadata {key!r}", hint=nearest(key, self._items) or ", ".join(self._items))
        return self._items[key]

    def __getitem__(self, key: str) -> MetadataItem:
        return self.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[MetadataItem]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def add(self, key: str, value: Any, description: str = "", category: str = "Other", replace: bool = False) -> None:
        """Add a custom entry. Raises `InvalidInput` for a key that is there (unless `replace`) or fixed, and for what
        is over the limits of OCI."""
        if not self._custom:
            raise InvalidInput("the keys of the taxonomy are fixed", hint="metadata_custom.add(…)")
        if key in self._items and not replace:
            raise InvalidInput(f"metadata {key!r} are there", hint="replace=True")
        made = MetadataItem(key, value, description, category)
        taxonomy.check([made.as_item()])
        self._items[key] = made

    def remove(self, key: str) -> None:
        """Remove a custom entry."""
        self.get(key)
        del self._items[key]

    def clear(self) -> None:
        """Remove all."""
        self._items.clear()

    def isempty(self) -> bool:
        """Whether there are none."""
        return not self._items

    def reset(self) -> None:
        """Forget all values."""
        for item in self:
            item.reset()

    def set_training_data(self, path: str, data_size: str | None = None) -> None:
        """Say where the training data are, and how large."""
        self._set_data("Training", path, data_size)

    def set_validation_data(self, path: str, data_size: str | None = None) -> None:
        """Say where the validation data are, and how large."""
        self._set_data("Validation", path, data_size)

    def _set_data(self, kind: str, path: str, size: str | None) -> None:
        category = "Training and Validation Datasets"
        self.add(f"{kind}Dataset", path, "", category, replace=True)
        if size is not None:
            self.add(f"{kind}DatasetSize", size, "", category, replace=True)

    def validate(self) -> bool:
        """Hold all against the limits of OCI. Raises `InvalidInput`."""
        taxonomy.check([item.as_item() for item in self])
        return True

    def validate_size(self) -> bool:
        """The same."""
        return self.validate()

    def size(self) -> int:
        """Bytes of the list, as OCI counts them."""
        return len(json.dumps(self.to_dict()["data"], ensure_ascii=False).encode("utf-16"))

    def to_dict(self) -> dict[str, Any]:
        """All entries, as plain data."""
        return {"data": [attrs.asdict(item.as_item()) for item in self]}

    def to_json(self) -> str:
        """The same, as a text."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_dataframe(self) -> Table:
        """The entries as rows."""
        names = ("Key", "Value", "Description", "Category") if self._custom else ("Key", "Value")
        rows = ((item.key, item.value, item.description, item.category) for item in self)
        return Table(dict(zip(names, row, strict=False)) for row in rows)

    def __repr__(self) -> str:
        return repr(self.to_dataframe())

    def _repr_html_(self) -> str:
        return self.to_dataframe()._repr_html_()
