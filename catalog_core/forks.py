"""What a forked child must not share with its parent: open SQLite files, connections, and locks that a thread held.

`multiprocessing` forks by default on Linux before Python 3.14. The child gets a copy of the memory and none of the
threads: a lock that one of them held is never released there, and a connection is used by two processes at once.
SQLite takes locks of the parent for its own; a connection is neither used nor closed in a child
(https://www.sqlite.org/howtocorrupt.html, 2.6). So whatever holds such a thing calls `watch(self)`, and is asked at
every fork.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from catalog_core.errors import BackendError

WAIT = 5.0  # seconds for which a fork waits for a thread that is at work
INHERITED: list[Any] = []  # what a child keeps of its parent, so that it is never closed there


class Forks(Protocol):
    """What is asked at a fork."""

    def before_fork(self) -> None:
        """Called in the parent, before: let what is under way end, and close what must not be inherited."""

    def after_fork(self, *, child: bool) -> None:
        """Called in both processes, after. The child forgets what its parent uses."""


_process = object()
_watched: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_serial = count()
_asked: list[Any] = []  # by the fork that is under way


def watch(holder: Forks) -> None:
    """Ask `holder` at every fork, for as long as it lives; before what it was made from, whose locks it takes later."""
    _watched[holder] = next(_serial)


def process() -> object:
    """This process, to be compared with what it was when something was made."""
    return _process


def check(made: object, what: str, backend: str) -> None:
    """Raise `BackendError` for a stream of `what` that was opened in the process `made`, before this one was forked:
    its connection is the parent's."""
    if made is not _process:
        raise BackendError(f"{what} was opened before this process forked", hint="open it again here", backend=backend)


class Lock:
    """A lock (`with`) that is free in a forked child, whoever held it in the parent. `make` is what it is made of:
    `threading.RLock` where a thread takes it again."""

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._make = make
        self._lock = make()
        self._owner: int | None = None
        self._depth = 0
        self._held = False
        watch(self)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = threading.get_ident()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._lock.release()

    def before_fork(self) -> None:
        """See `Forks`: what it guards is not copied half changed, except where the thread that forks is at it."""
        mine = self._owner == threading.get_ident()
        self._held = not mine and self._lock.acquire(timeout=WAIT / 10)

    def after_fork(self, *, child: bool) -> None:
        """See `Forks`."""
        if self._held:
            self._lock.release()
        elif child and self._owner != threading.get_ident():
            self._lock, self._owner, self._depth = self._make(), None, 0
        self._held = False


def _before() -> None:
    _asked[:] = [holder for holder, _ in sorted(_watched.items(), key=lambda item: -item[1])]
    for holder in _asked:
        holder.before_fork()


def _after(child: bool) -> None:
    global _process
    if child:
        _process = object()
    asked = list(_asked)
    _asked.clear()
    for holder in reversed(asked):
        holder.after_fork(child=child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=lambda: _after(False), after_in_child=lambda: _after(True))
