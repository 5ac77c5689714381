"""A clock that tests set: what waits by it takes no time, and how long it waited is a count and not a measurement."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Clock:
    """Stands in for the module `time` of the module under test: `monkeypatch.setattr(module, "time", Clock())`.

    Sleeping moves it on, and calls `tick(seconds since the start)` if one was given."""

    def __init__(self, tick: Callable[[float], None] | None = None) -> None:
        self._begun = self._now = time.monotonic()
        self._tick = tick
        self._lock = threading.Lock()

    @property
    def waited(self) -> float:
        """The seconds that all sleepers together have slept."""
        return self._now - self._begun

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds
        if self._tick is not None:
            self._tick(self.waited)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)
