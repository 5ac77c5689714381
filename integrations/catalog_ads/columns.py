"""`Schema`: what the columns of a table hold, as an object with ADS's attributes; and how a sample becomes one."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from catalog_ads import schema
from catalog_ads.plain import MAX_TEXT, Plain, pandas, to_yaml, write_text
from catalog_core import folders, plain_yaml
from catalog_core.errors import InvalidInput, MissingPlugin, SerializationError

_STATS = {
    "mean": "mean", "std": "standard deviation", "min": "sample minimum", "25%": "lower quartile", "50%": "median",
    "75%": "upper quartile", "max": "sample maximum",
}  # fmt: skip


@attrs.define(repr=False, str=False)
class Expression(Plain):
    """A condition on a value: `$x >= 0`. It is kept and shown; nothing here runs it."""

    expression: str = ""
    language: str = "python"


@attrs.define(repr=False, str=False)
class Domain(Plain):
    """What the values of a column are."""

    values: str = ""
    stats: dict[str, Any] = attrs.Factory(dict)
    constraints: list[Expression] = attrs.Factory(list)

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """The fields as plain data."""
        return {**super().to_dict(**options), "constraints": [item.to_dict() for item in self.constraints]}

    @classmethod
    def from_dict(cls, obj_dict: Mapping[str, Any], **options: Any) -> Self:
        """A domain from plain data."""
        made = super().from_dict(obj_dict)
        made.constraints = [Expression.from_dict(item) for item in obj_dict.get("constraints") or ()]
        return made


@attrs.define(repr=False, str=False)
class Attribute(Plain):
    """One column."""

    dtype: str = ""
    feature_type: str = ""
    name: Any = ""
    domain: Domain = attrs.Factory(Domain)
    required: bool = True
    description: str = ""
    order: int | None = None

    @property
    def key(self) -> Any:
        """Its name."""
        return self.name


class Schema:
    """Columns by name, in their order."""

    def __init__(self) -> None:
        self._schema: dict[Any, Attribute] = {}
        self._version = schema.VERSION

    def add(self, item: Attribute, replace: bool = False) -> None:
        """Add a column. Raises `TypeError` for another object, `InvalidInput` for one that is there, unless
        `replace`."""
        if not isinstance(item, Attribute):
            raise TypeError("Argument must be an instance of the class Attribute.")
        if not replace and item.key in self._schema:
            raise InvalidInput(f"the key {item.key!r} exists already", hint="replace=True")
        self._schema[item.key] = item

    @property
    def keys(self) -> tuple[Any, ...]:
        """The names of the columns."""
        return tuple(item.key for item in self)

    @classmethod
    def from_dict(cls, schema: Mapping[str, Any]) -> Self:
        """A schema from plain data. Raises `InvalidInput`."""
        made = cls()
        told = {str(key).lower(): value for key, value in schema.items()} if isinstance(schema, Mapping) else None
        if told is None or not isinstance(told.get("schema", []), list):
            raise InvalidInput("that is no schema", hint='{"schema": [{"name": …, "dtype": …}], "version": "1.1"}')
        for row in told.get("schema", ()):
            made.add(Attribute.from_dict(row))
        return made

    @classmethod
    def from_json(cls, schema: str) -> Self:
        """A schema from a JSON text."""
        return cls.from_dict(json.loads(schema))

    @classmethod
    def from_file(cls, file_path: str) -> Self:
        """A schema from a JSON or YAML file. Raises `InvalidInput` for another ending."""
        path = Path(file_path).expanduser()
        if path.suffix.lower() not in (".json", ".yaml", ".yml"):
            raise InvalidInput(f"{path.name} is neither JSON nor YAML")
        text = folders.content(path, MAX_TEXT).decode()
        return (
            cls.from_json(text) if path.suffix.lower() == ".json" else cls.from_dict(plain_yaml.read(text, path.name))
        )

    @classmethod
    def of(cls, path: Path) -> Self:
        """That of an artifact; an empty one where there is no file. Raises `SerializationError`."""
        try:
            return cls.from_dict({"schema": schema.read_schema(path)})
        except InvalidInput as exc:
            raise SerializationError(f"{path.name} is no schema: {exc}") from exc

    def to_dict(self) -> dict[str, Any]:
        """All columns as plain data."""
        return {"schema": [item.to_dict() for item in self], "version": self._version}

    def to_json(self) -> str:
        """The same as a text."""
        return json.dumps(_finite(self.to_dict()), default=str)

    def to_yaml(self) -> str:
        """The same as YAML."""
        return to_yaml(_finite(self.to_dict()))

    def to_json_file(self, file_path: str, storage_options: Any = None) -> None:
        """Write it to a `.json` file."""
        write_text(self.to_json(), file_path, ".json")

    def to_yaml_file(self, file_path: str) -> None:
        """Write it to a `.yaml` file."""
        write_text(self.to_yaml(), file_path, "" if str(file_path).endswith(".yml") else ".yaml")

    def validate_size(self) -> bool:
        """Hold it against OCI's limit of 32,000 bytes. Raises `InvalidInput`."""
        size = sys.getsizeof(self.to_yaml())  # as ADS counts it
        if size > schema.MAX_BYTES:
            raise InvalidInput(f"the schema is `{size}` bytes; OCI takes {schema.MAX_BYTES:,}")
        return True

    def validate_schema(self) -> bool:
        """That every column has a name and a dtype. Raises `InvalidInput`."""
        for item in self:
            if item.name in (None, "") or not item.dtype:
                raise InvalidInput(f"column {item.name!r} has no name or no dtype")
        return True

    def __getitem__(self, key: Any) -> Attribute:
        if key not in self._schema:
            raise InvalidInput(f"the key {key!r} is not found", hint=", ".join(map(str, self.keys)) or None)
        return self._schema[key]

    def __iter__(self) -> Iterator[Attribute]:
        return iter(sorted(self._schema.values(), key=lambda item: item.order or 0))

    def __len__(self) -> int:
        return len(self._schema)

    def __repr__(self) -> str:
        return self.to_yaml()


def _finite(value: Any) -> Any:
    """Plain data without what JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def columns_of(sample: Any, max_col_num: int = schema.MAX_COLUMNS) -> Schema | None:
    """The schema of a sample that is a table: a data frame, a series, an array of one or two dimensions, or lists.
    None for anything else, for one of more columns than `max_col_num`, and where pandas is not installed."""
    try:
        pd = pandas()
    except MissingPlugin:
        return None
    if isinstance(sample, pd.Series):
        table = sample.to_frame()
    elif isinstance(sample, pd.DataFrame):
        table = sample
    elif isinstance(sample, (list, tuple)) or type(sample).__module__.partition(".")[0] == "numpy":
        if getattr(sample, "ndim", 1) not in (1, 2):
            return None
        try:
            table = pd.DataFrame(sample)
        except ValueError:
            return None
    else:
        return None
    if len(table.columns) > max_col_num:
        return None
    made = Schema()
    for number, name in enumerate(table.columns):
        made.add(_column(pd, table[name], name, number), replace=True)
    return made


def _column(pd: Any, column: Any, name: Any, number: int) -> Attribute:
    kind = _kind(pd, column)
    missing = int(column.isnull().sum())
    stats: dict[str, Any]
    if kind in ("Continuous", "Integer"):
        told = column.describe()
        stats = {"count": float(len(column)), **{theirs: float(told[ours]) for ours, theirs in _STATS.items()}}
        if kind == "Continuous":
            stats["skew"] = float(column.skew())
            stats = {key: round(value, 3) for key, value in stats.items()}
    elif kind == "DateTime":
        stats = {"count": len(column), "sample maximum": str(column.max()), "sample minimum": str(column.min())}
    else:
        stats = {"count": len(column), "unique": int(column.nunique())}
    if missing:
        stats["missing"] = float(missing) if kind == "Continuous" else missing
    limits = {"Boolean": "[True, False]"}
    if kind == "Category":
        limits["Category"] = str(column.dropna().unique().tolist())
    constraints = [Expression(f"$x in {limits[kind]}")] if kind in limits else []
    required = not missing
    domain = Domain(kind, stats, constraints)
    plain = name if isinstance(name, str) else int(name) if hasattr(name, "__index__") else str(name)
    return Attribute(str(column.dtype.name), kind, plain, domain, required, str(name), number)


def _kind(pd: Any, column: Any) -> str:
    types = pd.api.types
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "Category"
    if types.is_bool_dtype(column.dtype):
        return "Boolean"
    if types.is_datetime64_any_dtype(column.dtype):
        return "DateTime"
    if types.is_integer_dtype(column.dtype):
        return "Integer"
    return "Continuous" if types.is_numeric_dtype(column.dtype) else "String"
