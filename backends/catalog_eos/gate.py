"""Keeps forks and calls of XRootD's client apart.

The client has handlers for a fork of its own, and gives a child a client that works. But while a fork waits for the
client's threads to pause it holds a lock that one of them takes when it lets go of a file; then both wait for ever. So
a fork waits until no call is under way, and files that ended are kept for a while: their last owner is a thread of
ours.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from catalog_core import forks

ENDED: deque[Any] = deque(maxlen=64)  # files of the client


class Gate:
    """Calls pass (`with GATE:`) while no fork is under way. A thread inside does not enter again."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._shut = False
        forks.watch(self)

    def __enter__(self) -> None:
        with self._condition:
            while self._shut:
                self._condition.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._inside -= 1
            self._condition.notify_all()

    def before_fork(self) -> None:
        """See `forks.Forks`: calls that have begun are waited for, new ones wait."""
        with self._condition:
            self._shut = True
            self._condition.wait_for(lambda: not self._inside, forks.WAIT)

    def after_fork(self, *, child: bool) -> None:
        """See `forks.Forks`."""
        if child:
            self._condition, self._inside, self._shut = threading.Condition(), 0, False
            return
        with self._condition:
            self._shut = False
            self._condition.notify_all()


GATE = Gate()
