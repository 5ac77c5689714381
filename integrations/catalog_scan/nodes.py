"""The nodes of YAML, document by document. Nothing is made of them, and no nesting ends the process: libyaml's own
composer goes down by recursion in C."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

MAX_DEPTH = 200


class TooDeep(ValueError):
    """The text is nested more deeply than anybody writes."""


class _Composer(Composer, Resolver):
    """PyYAML's composer, over the events of the quick parser where there is one."""

    def __init__(self, text: str) -> None:
        Composer.__init__(self)
        Resolver.__init__(self)
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._events = yaml.parse(text, Loader=loader)
        self._next: Any = None
        self._depth = 0

    def peek_event(self) -> Any:
        if self._next is None:
            self._next = next(self._events, None)
        return self._next

    def get_event(self) -> Any:
        event, self._next = self.peek_event(), None
        return event

    def check_event(self, *kinds: Any) -> bool:
        event = self.peek_event()
        return event is not None and (not kinds or isinstance(event, kinds))

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooDeep(f"it is YAML that is nested more than {MAX_DEPTH} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def documents(text: str) -> Iterator[Any]:
    """The root of each document that is not empty, as it comes: what is wrong behind it is raised later. Raises
    `yaml.YAMLError`, `TooDeep`."""
    composer = _Composer(text)
    while composer.check_node():
        yield composer.get_node()
