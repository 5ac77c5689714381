"""YAML that others wrote, as plain values: no tag makes an object, and nothing in it grows or nests without end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalog_core.digests import MAX_INTEGER
from catalog_core.errors import SerializationError

MAX_VALUES = 20_000
MAX_DEPTH = 32
MAX_DIGITS = 400


def read(text: str, what: str) -> Any:
    """The plain values of a YAML text; no tag makes an object. Raises `SerializationError`."""
    from yaml import SafeLoader, YAMLError, load

    class Loader(SafeLoader):
        left, depth = MAX_VALUES, 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.left, self.depth = self.left - 1, self.depth + 1
            if self.left < 0 or self.depth > MAX_DEPTH:
                raise ValueError(f"it holds more than {MAX_VALUES:,} values, or is nested too deeply")
            node = super().compose_node(parent, index)
            if getattr(node, "tag", "").endswith((":int", ":float")) and len(node.value) > MAX_DIGITS:
                raise ValueError(
                    f"a number of {len(node.value):,} digits"
                )  # by sixties (1:30:00), it takes their square
            self.depth -= 1
            return node

        def flatten_mapping(self, node: Any) -> None:
            """Merged keys (`<<`) are written out here before anybody can count them."""
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise ValueError("merged keys (<<) are not read")
            super().flatten_mapping(node)

    try:
        return plain(load(text, Loader), what)
    except (YAMLError, ValueError, RecursionError, TypeError, OverflowError, AttributeError) as exc:
        raise SerializationError(f"{what} cannot be read: {' '.join(str(exc).split())[:200]}") from exc


def plain(value: Any, what: str) -> Any:
    """The value as JSON has it; text for what JSON lacks. Names that stand for the same list are written out, so there
    is a limit. Raises `SerializationError` beyond."""
    left = [MAX_VALUES]

    def made(item: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0 or depth > MAX_DEPTH:
            raise SerializationError(f"{what} holds more than {MAX_VALUES:,} values, or is nested too deeply")
        if isinstance(item, Mapping):
            return {str(key): made(inner, depth + 1) for key, inner in item.items()}
        if isinstance(item, (list, tuple, set)):
            return [made(inner, depth + 1) for inner in item]
        if item is None or isinstance(item, (bool, str)):
            return item
        if isinstance(item, int) and abs(item) <= MAX_INTEGER:
            return item
        return item if isinstance(item, float) and item - item == 0 else str(item)[:1000]

    return made(value, 0)
