"""Keep a framework quiet while one thread saves or loads. What the other threads log, warn of and print goes on.

`logging.disable`, `contextlib.redirect_stderr` and `warnings.catch_warnings` act on the whole process: with them the
log of a server stops while a request loads a model, and two that end in another order than they began leave it off.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from catalog_core import forks

_thread = threading.local()  # `depth`: how many blocks this thread is in; `names`: the loggers that it keeps quiet
_one_at_a_time = forks.Lock()
_inside = 0  # blocks of all threads


def _is_quiet() -> bool:
    return getattr(_thread, "depth", 0) > 0


class _ByThread(type):
    def __subclasscheck__(cls, _: Any) -> bool:
        return _is_quiet()


class _Hushed(Warning, metaclass=_ByThread):
    """A filter of warnings asks whether a category is a subclass of this one: each is, in a thread that is quiet."""


class _Filter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is kept: not if this thread is quiet."""
        return not (_is_quiet() and record.name.partition(".")[0] in _thread.names)


class _Stream:
    """Stands for `sys.stderr`: drops what a quiet thread writes, and passes on all else."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """As of a text stream."""
        return len(text) if _is_quiet() else int(self.stream.write(text) or 0)

    def writelines(self, lines: Any) -> None:
        """As of a text stream."""
        if not _is_quiet():
            self.stream.writelines(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_filter = _Filter()


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """In this thread, and until the block ends: drop what the loggers `names` and those below them record, all
    warnings, and what is written to `sys.stderr` from Python."""
    before = getattr(_thread, "names", ())
    _enter(names)
    _thread.depth, _thread.names = getattr(_thread, "depth", 0) + 1, (*before, *names)
    try:
        yield
    finally:
        _thread.depth, _thread.names = _thread.depth - 1, before
        _leave()


def _enter(names: tuple[str, ...]) -> None:
    global _inside
    with _one_at_a_time:
        _inside += 1
        for name in [*logging.root.manager.loggerDict, *names]:  # a filter of a logger does not see its children's
            if name.partition(".")[0] in names:
                logging.getLogger(name).addFilter(
                    _filter
                )  # once: it knows its filters, and this one is asked by thread
        # of loggers that are made in the meantime, say by an import, handlers hear
        for place in (logging.root, *map(logging.getLogger, names)):
            for handler in place.handlers:
                handler.addFilter(_filter)
        if logging.lastResort is not None:
            logging.lastResort.addFilter(_filter)
        if sys.stderr is not None and not isinstance(sys.stderr, _Stream):
            sys.stderr = _Stream(sys.stderr)
        if not any(item[2] is _Hushed for item in warnings.filters[:1]):
            warnings.simplefilter("ignore", _Hushed)


def _leave() -> None:
    global _inside
    with _one_at_a_time:
        _inside -= 1
        if not _inside and isinstance(sys.stderr, _Stream):
            sys.stderr = sys.stderr.stream
