"""Races for exclusive keys: a rename by EOS's rules around the calls of a store, and the process that takes part."""

from __future__ import annotations

import io
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from catalog_core.errors import KeyTaken
from catalog_eos.calls import Calls
from catalog_eos.store import EosStore, open_store


class EosRules:
    """`calls` whose rename is EOS's, at its worst: what stands at source and target is looked at first; a folder moves
    into a folder, a file is removed before another takes its place; and what appears at the target between that look
    and the act is overwritten, even if the source was moved elsewhere meanwhile (`pinned`). `gap` is called in between,
    as `gap(source, target)`, and may take its time."""

    def __init__(self, calls: Calls, gap: Callable[[str, str], None], pinned: bool = False) -> None:
        self._calls = calls
        self._gap = gap
        self._pinned = pinned

    def __getattr__(self, name: str) -> Any:
        return getattr(self._calls, name)

    def move(self, source: str, target: str, *, once: bool = False) -> bool:
        """See `Calls.move`."""
        there = self._calls.stat(target)
        name = source.rpartition("/")[2]
        if self._pinned:
            self._calls.move(source, f"pinned/{name}")
            source = f"pinned/{name}"
        self._gap(source, target)
        if there is not None and there.folder:
            return self._calls.move(source, f"{target}/{name}", once=once)
        if there is not None:
            self._calls.remove(target)
            self._gap(source, target)
        elif self._calls.stat(target) is not None and self._calls.stat(source) is not None:
            self._calls.move(target, f"overwritten/{name}")
        return self._calls.move(source, target, once=once)


def racing_store(url: str, rules: str, seed: int) -> EosStore:
    """A store for races: by the server's own `rules` ("posix"), or by EOS's with gaps of up to 3 ms ("eos")."""
    store: EosStore = open_store(url, {}, True)
    if rules == "eos":
        chance = random.Random(seed)
        store.calls = EosRules(store.calls, lambda source, target: time.sleep(chance.random() * 0.003))  # type: ignore[assignment]
    return store


def race(url: str, rules: str, me: int, rounds: int, barrier: Any, results: Any) -> None:
    """Try to win `rounds` keys against the others behind the barrier; sends the rounds that were won."""
    store = racing_store(url, rules, me)
    won = []
    try:
        for number in range(rounds):
            data = b"%d of %d %s" % (me, number, b"x" * 50)
            barrier.wait(60)
            try:
                store.put(f"race/{number:06}", io.BytesIO(data), len(data), "exclusive")
                won.append(number)
            except KeyTaken:
                pass
    except BaseException as exc:
        barrier.abort()
        print(f"racer {me}: {exc!r}", file=sys.stderr)
        raise
    finally:
        results.put((me, won))
