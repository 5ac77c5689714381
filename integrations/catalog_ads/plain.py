"""Objects with the methods that ADS's have for writing and reading themselves, and tables of pandas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs

from catalog_core import folders, plain_yaml
from catalog_core.errors import InvalidInput, MissingPlugin, SerializationError
from catalog_core.shown import an

MAX_TEXT = 10 << 20  # bytes of a text that is read whole


def frame(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> Any:
    """Rows as a pandas DataFrame. Raises `MissingPlugin` where pandas is not installed: nothing else here needs it."""
    return pandas().DataFrame([list(row) for row in rows], columns=list(columns))


def pandas() -> Any:
    """The module pandas, imported on use. Raises `MissingPlugin`."""
    try:
        import pandas as found  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as exc:
        raise MissingPlugin("ADS shows this as a pandas DataFrame", hint="pip install pandas") from exc
    return found


def to_yaml(value: Any) -> str:
    """Plain data as YAML."""
    import yaml

    return str(yaml.safe_dump(json.loads(json.dumps(value, default=str))))


def write_text(text: str, uri: str, suffix: str = "") -> None:
    """Write a text to a local file. Raises `InvalidInput` for a place that is none, or has another ending."""
    if not isinstance(uri, str) or not uri or "://" in uri:
        raise InvalidInput(f"{uri!r} is no local path", hint="write it here, and copy it")
    path = Path(uri).expanduser()
    if suffix and path.suffix.lower() != suffix:
        raise InvalidInput(f"{uri!r} does not end in {suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class Plain:
    """Fields that are written as JSON and YAML, and read back. Subclasses are attrs classes, whose fields are texts,
    numbers, or such objects again."""

    @classmethod
    def _fields(cls) -> tuple[Any, ...]:
        kind: Any = cls
        return tuple(field for field in attrs.fields(kind) if not field.name.startswith("_"))

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """The fields as plain data; `side_effect="upper"` has their names in capitals, as `runtime.yaml` has them."""
        upper = options.get("side_effect") == "upper"
        found = {}
        for field in self._fields():
            value = getattr(self, field.name)
            if isinstance(value, Plain):
                value = value.to_dict(**options)
            found[field.name.upper() if upper else field.name] = value
        return found

    def to_json(self, uri: str | None = None, **options: Any) -> str | None:
        """The same as a text; written to a local file and None, where `uri` names one."""
        return self._out(json.dumps(self.to_dict(**options), indent=4, default=str), uri)

    def to_yaml(self, uri: str | None = None, **options: Any) -> str | None:
        """The same as YAML."""
        return self._out(to_yaml(self.to_dict(**options)), uri)

    @staticmethod
    def _out(text: str, uri: str | None) -> str | None:
        if uri is None:
            return text
        write_text(text, uri)
        return None

    @staticmethod
    def serialize(obj: Any) -> Any:
        """Plain data of an object of this kind, or of a date. Raises `TypeError`."""
        for name in ("to_dict", "isoformat"):
            if hasattr(obj, name):
                return getattr(obj, name)()
        raise TypeError(f"Type {type(obj)} not serializable.")

    @classmethod
    def from_dict(cls, obj_dict: Mapping[str, Any], **options: Any) -> Self:
        """An object from its fields, whatever the case of their names; others are ignored. Raises `InvalidInput`."""
        if not isinstance(obj_dict, Mapping):
            raise InvalidInput(f"{cls.__name__} is made from a dictionary, not from {an(type(obj_dict).__name__)}")
        made = cls()
        told = {str(key).lower(): value for key, value in obj_dict.items()}
        for field in cls._fields():
            if field.name in told:
                inner = getattr(made, field.name)
                value = told[field.name]
                setattr(made, field.name, type(inner).from_dict(value or {}) if isinstance(inner, Plain) else value)
        return made

    @classmethod
    def from_json(cls, json_string: str | None = None, uri: str | None = None, **options: Any) -> Self:
        """An object from a JSON text, or a local file of one. Raises `InvalidInput`."""
        return cls._read(json_string, uri, json.loads)

    @classmethod
    def from_yaml(cls, yaml_string: str | None = None, uri: str | None = None, **options: Any) -> Self:
        """An object from a YAML text, or a local file of one. Raises `InvalidInput`."""
        return cls._read(yaml_string, uri, lambda text: plain_yaml.read(text, "the text"))

    @classmethod
    def from_string(cls, obj_string: str | None = None, uri: str | None = None, **options: Any) -> Self:
        """As `from_yaml`; JSON is YAML."""
        return cls.from_yaml(obj_string, uri)

    @classmethod
    def _read(cls, text: str | None, uri: str | None, parse: Callable[[str], Any]) -> Self:
        if not text and not uri:
            raise InvalidInput("Must provide either a text or the path of a file")
        try:
            return cls.from_dict(parse(text or folders.content(Path(str(uri)).expanduser(), MAX_TEXT).decode()))
        except (ValueError, RecursionError, SerializationError) as exc:
            raise InvalidInput(f"that is no {cls.__name__}: {str(exc)[:200]}") from exc

    def __repr__(self) -> str:
        return str(self.to_yaml())

    def __str__(self) -> str:
        return str(self.to_json())
