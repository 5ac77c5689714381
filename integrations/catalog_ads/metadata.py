"""Metadata as scripts for ADS use them: entries by key, of the taxonomy (whose keys are fixed) or of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import attrs

from catalog_ads.plain import Plain, frame, to_yaml, write_text
from catalog_ads.words import Framework, MetadataTaxonomyKeys, UseCaseType
from catalog_core.errors import InvalidInput, NotFound
from catalog_core.names import nearest
from catalog_oracle import taxonomy

_NOBODY = object()
DATA = "Training and Validation Datasets"


class NoSuchKey(NotFound, ValueError):
    """There is no entry of that key; ADS raises a ValueError."""


@attrs.define(repr=False, str=False, eq=False)
class ModelTaxonomyMetadataItem(Plain):
    """One entry of the taxonomy."""

    key: str
    value: Any = None
    has_artifact: bool = False

    def update(self, value: Any, has_artifact: bool = False) -> None:
        """Set the value."""
        self.value, self.has_artifact = value, has_artifact

    def reset(self) -> None:
        """Forget the value."""
        self.value = None

    def validate(self) -> bool:
        """Hold a use case or a framework against the words that there are. Raises `InvalidInput`."""
        words: Any = {"UseCaseType": UseCaseType, "Framework": Framework}.get(self.key)
        if words is not None and self.value and self.value not in words:
            raise InvalidInput(
                f"Invalid value of `{self.key}`: {str(self.value)[:60]!r}", hint=f"one of {', '.join(words.values())}"
            )
        return True

    def size(self) -> int:
        """Bytes, as ADS counts them."""
        return len(json.dumps(self.to_dict(), default=str).encode("utf-16"))

    @classmethod
    def from_dict(cls, obj_dict: Mapping[str, Any], **options: Any) -> Self:
        """An entry from plain data."""
        names = attrs.fields_dict(cls)
        return cls(**{key: value for key, value in obj_dict.items() if key in names})

    def to_json(self, uri: str | None = None, **options: Any) -> str | None:
        """The entry as JSON."""
        return self._out(json.dumps(self.to_dict(), default=str), uri)

    def to_json_file(self, file_path: str, storage_options: Any = None) -> None:
        """Write the value to a local file, or into a folder as `KEY.json`."""
        path = Path(file_path) if Path(file_path).suffix else Path(file_path) / f"{self.key}.json"
        write_text(json.dumps(self.value, default=str), str(path))

    def as_item(self) -> taxonomy.Item:
        """As OCI takes it: a text."""
        value = self.value
        text = "" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
        about = getattr(self, "description", None) or ""
        return taxonomy.Item(self.key, text, about, getattr(self, "category", None))


@attrs.define(repr=False, str=False, eq=False)
class ModelCustomMetadataItem(ModelTaxonomyMetadataItem):
    """One entry of one's own, with a description and a category."""

    has_artifact: bool = attrs.field(default=False, kw_only=True)
    description: str | None = None
    category: str | None = None

    def update(  # type: ignore[override]
        self, value: Any, description: str | None = None, category: str | None = None, has_artifact: bool = False
    ) -> None:
        """Set the value, and what else is given."""
        self.value, self.has_artifact = value, has_artifact
        self.description = self.description if description is None else description
        self.category = self.category if category is None else category

    def reset(self) -> None:
        """Forget the value, its description and its category."""
        self.value = self.description = self.category = None

    def validate(self) -> bool:
        """Hold it against the limits of OCI. Raises `InvalidInput`."""
        taxonomy.check([self.as_item()])
        return True

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """The fields in ADS's order."""
        names = ("key", "value", "description", "category", "has_artifact")
        return {name: getattr(self, name) for name in names}

    def is_metric(self) -> bool:
        """Whether it is a number of the category Performance."""
        value = self.value.item() if hasattr(self.value, "item") else self.value
        return self.category == "Performance" and isinstance(value, (int, float)) and not isinstance(value, bool)


class ModelMetadata:
    """Entries by key, whatever its case, in the order in which they came."""

    COLUMNS: ClassVar[Mapping[str, str]] = {}
    ITEM: ClassVar[type[ModelTaxonomyMetadataItem]] = ModelTaxonomyMetadataItem

    def __init__(self) -> None:
        self._items: dict[str, Any] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys."""
        return tuple(self._items)

    def get(self, key: str, value: Any = _NOBODY) -> Any:
        """The entry of a key, else `value` where it is given. Raises `NotFound` with the nearest keys."""
        if not isinstance(key, str) or not key:
            raise InvalidInput("The key must not be an empty string.")
        for name, item in self._items.items():
            if name.lower() == key.lower():
                return item
        if value is not _NOBODY:
            return value
        raise NoSuchKey(
            f"there are no metadata {key!r}", hint=nearest(key, self._items) or ", ".join(self._items) or None
        )

    def __getitem__(self, key: str) -> Any:
        return self.get(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(key) and self.get(key, None) is not None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def reset(self) -> None:
        """Forget all values."""
        for item in self:
            item.reset()

    def size(self) -> int:
        """Bytes of all entries, as ADS counts them."""
        return sum(item.size() for item in self)

    def validate(self) -> bool:
        """Hold all against the limits of OCI. Raises `InvalidInput`."""
        for item in self:
            item.validate()
        return self.validate_size()

    def validate_size(self) -> bool:
        """Hold the list against OCI's limits. Raises `InvalidInput`."""
        taxonomy.check([item.as_item() for item in self])
        return True

    def to_dict(self) -> dict[str, Any]:
        """All entries, as plain data."""
        return {"data": [item.to_dict() for item in self]}

    def to_json(self) -> str:
        """The same as a text."""
        return json.dumps(self.to_dict(), default=str)

    def to_yaml(self) -> str:
        """The same as YAML."""
        return to_yaml(self.to_dict())

    def to_json_file(self, file_path: str, storage_options: Any = None) -> None:
        """Write them to a local file, or into a folder under the name of the class."""
        path = Path(file_path) if Path(file_path).suffix else Path(file_path) / f"{type(self).__name__}.json"
        write_text(self.to_json(), str(path))

    def to_dataframe(self) -> Any:
        """The entries as a pandas DataFrame, sorted by key."""
        rows = sorted(
            ([getattr(item, name) for name in self.COLUMNS.values()] for item in self), key=lambda row: row[0]
        )
        return frame(rows, list(self.COLUMNS))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Metadata from plain data. Raises `InvalidInput`."""
        rows = data.get("data") if isinstance(data, Mapping) else None
        if not isinstance(rows, list):
            raise InvalidInput("metadata are made from a dictionary with a list `data`", hint='{"data": [{"key": …}]}')
        made = cls()
        for row in rows:
            item = cls.ITEM.from_dict(row)
            made._items[item.key] = item
        return made

    def __repr__(self) -> str:
        return self.to_yaml()

    def _repr_html_(self) -> str:
        return str(self.to_dataframe()._repr_html_())


class ModelTaxonomyMetadata(ModelMetadata):
    """The entries whose keys ADS and OCI know."""

    COLUMNS: ClassVar[Mapping[str, str]] = {"Key": "key", "Value": "value", "HasArtifact": "has_artifact"}

    def __init__(self) -> None:
        super().__init__()
        self._items = {key: ModelTaxonomyMetadataItem(key) for key in MetadataTaxonomyKeys.values()}


class ModelCustomMetadata(ModelMetadata):
    """Entries of one's own."""

    COLUMNS: ClassVar[Mapping[str, str]] = {
        "Key": "key", "Value": "value", "Description": "description", "Category": "category",
        "HasArtifact": "has_artifact",
    }  # fmt: skip
    ITEM: ClassVar[type[ModelTaxonomyMetadataItem]] = ModelCustomMetadataItem

    def add(
        self, key: str, value: Any, description: str = "", category: str | None = "Other", replace: bool = False
    ) -> None:
        """Add an entry. Raises `InvalidInput` for a key that is there (unless `replace`), an empty key or value, and
        for what is over the limits of OCI."""
        if not isinstance(key, str):
            raise TypeError("The key must be a string.")
        if value is None or (isinstance(value, str) and not value):
            raise InvalidInput(f"the value of {key!r} is empty", hint="leave it out, or remove(key)")
        value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value  # NumPy's scalars
        if not replace and key in self:
            raise InvalidInput(f"metadata {key!r} are there", hint="replace=True")
        try:
            json.dumps(value)
        except (TypeError, ValueError) as exc:
            raise InvalidInput(f"the value of {key!r} is no JSON: {exc}", hint="a text, a number, a list") from exc
        made = ModelCustomMetadataItem(key, value, description=description, category=category or "Other")
        taxonomy.check([made.as_item()])
        old = self.get(key, None)
        if old is not None:
            del self._items[old.key]
        self._items[key] = made

    def remove(self, key: str) -> None:
        """Remove an entry. Raises `NotFound`."""
        del self._items[self.get(key).key]

    def clear(self) -> None:
        """Remove all."""
        self._items.clear()

    def isempty(self) -> bool:
        """Whether there are none."""
        return not self._items

    def set_training_data(self, path: str, data_size: str | None = None) -> None:
        """Say where the training data are, and how large."""
        self._set_data("Training", "training", path, data_size)

    def set_validation_data(self, path: str, data_size: str | None = None) -> None:
        """Say where the validation data are, and how large."""
        self._set_data("Validation", "validation", path, data_size)

    def _set_data(self, kind: str, word: str, path: str, size: str | None) -> None:
        about = f"The path where {word} dataset path are stored."
        self.add(f"{kind}Dataset", path, about, DATA, replace=True)
        if size is not None:
            self.add(f"{kind}DatasetSize", size, f"The size of the {word} data.", DATA, replace=True)

    def stored(self) -> bytes:
        """As they are attached to a version."""
        return json.dumps({"data": [attrs.asdict(item.as_item()) for item in self]}, ensure_ascii=False).encode()
