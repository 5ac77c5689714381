"""Whose clock counts: the store's, which all writers of a catalog share.

A writer whose clock differs from it by more than `AHEAD` is refused, so that one wrong clock brings no wrong times into
the journal. Nobody is measured against the journal itself: a wrong time that stands there already, from an older
release or by malice, must not lock out those whose clocks are right.
"""

from __future__ import annotations

import json
import time
from typing import Any

from catalog_core.errors import CatalogError, InvalidInput
from catalog_core.index import Index
from catalog_core.values import AHEAD

EVERY = 3600.0  # seconds for which a comparison counts, on one machine


def _now() -> float:
    return time.time_ns() / 1e9  # by which entries are written


def ahead(backend: Any) -> float | None:
    """By how many seconds this machine's clock is ahead of the store's; None where the store does not tell."""
    try:
        theirs = backend.clock() if hasattr(backend, "clock") else None
    except CatalogError:  # what else it is asked for will fail too, and says why
        return None
    return None if theirs is None else _now() - theirs


def check(backend: Any, index: Index) -> None:
    """Raise `InvalidInput` where this machine's clock is wrong by the store's. The store is asked once in `EVERY`
    seconds, and again when somebody has set the clock meanwhile."""
    found = _known(index)
    if found is None or abs(found) > AHEAD:  # it may have been set right
        found = ahead(backend)
        if found is None:
            return
        index.compared = _now(), time.monotonic(), found
        index.note("clock", json.dumps(index.compared))
    if abs(found) > AHEAD:
        raise InvalidInput(
            f"this machine's clock is {told(abs(found))} {'ahead of' if found > 0 else 'behind'} that of the store "
            f"({backend.url}); {told(AHEAD)} are allowed",
            hint="set it by NTP, then repeat; if it is right, let the store's be set",
        )


def _known(index: Index) -> float | None:
    """What was found less than `EVERY` ago with the clock as it is now."""
    stored = index.compared or json.loads(index.meta("clock") or "null")
    if stored is None:
        return None
    then, ticks, found = stored
    passed = time.monotonic() - ticks  # since this machine started, so that processes may compare it
    return float(found) if 0 <= passed < EVERY and abs(_now() - then - passed) < 5.0 else None


def told(seconds: float) -> str:
    """A span of time, roughly: `5 minutes`, `3 days`."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
