"""Saves until it is killed; run as `python kill_writer.py URL BOARD`.

Each line on stdin, `STEP MOMENT SEED`, begins a life: a fork that opens the catalog and saves versions, the first
of them undisturbed. In the second it kills itself by SIGKILL at that moment of that step; with `- -` it saves on, and
waits for others to do it. The answers on stdout are the process's id, and `dead` when it is.

BOARD is a mapped file of 16 bytes: the step it is in, as an index into STEPS, and the last number it was promised.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import catalog_core
from catalog_core import capture, catalog, draft, durable, index, objectstore, plugins, staging, writer  # noqa: F401

STEPS = ("between", "staging", "publish", "append", "index", "cleanup")
SIZE = 100_000


def weights(seed: int) -> dict[str, Any]:
    """A version that tells what it must be: a pack of two chunks, and a small blob."""
    rng = np.random.default_rng(seed)
    return {"seed": np.array([seed]), "w": rng.random(SIZE, dtype=np.float32), "n": rng.random(4, dtype=np.float32)}


class Board:
    """What the writer shows to who watches it. It is memory: no call of the system is added to those of a save."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 16)
        self.target = ("-", "-")

    def promised(self, number: int) -> None:
        """A version was acknowledged."""
        self.map[8:16] = struct.pack("<q", number)

    def moment(self, name: str) -> None:
        """The place to die, if it is this moment of this step."""
        if self.target == (STEPS[self.map[0]], name):
            os.kill(os.getpid(), signal.SIGKILL)

    def step(self, owner: Any, name: str, step: str) -> None:
        """Announce `step` while `owner.name` runs."""
        function: Callable[..., Any] = getattr(owner, name)

        def announced(*args: Any, **options: Any) -> Any:
            outer, self.map[0] = self.map[0], STEPS.index(step)
            self.moment("before")
            result = function(*args, **options)
            self.moment("after")
            self.map[0] = outer
            return result

        setattr(owner, name, announced)

    def inside(self, owner: Any, name: str, moment: str) -> None:
        """Name the moment before `owner.name` is called."""
        function: Callable[..., Any] = getattr(owner, name)

        def announced(*args: Any, **options: Any) -> Any:
            self.moment(moment)
            return function(*args, **options)

        setattr(owner, name, announced)


def live(url: str, board: Board, step: str, when: str, seed: int) -> None:
    """One life."""
    with catalog_core.Catalog.open(url) as opened:
        for count in range(10_000):
            board.map[0] = 0
            if count == 1:
                board.target = (step, when)
            board.promised(opened.save("m", weights(seed + count), alias="a").number)


def main() -> None:
    """Announce the steps, then be born again for every line."""
    board = Board(sys.argv[2])
    plugins.registry()
    capture.environment(), capture.provenance()
    board.step(draft.Draft, "_stage", "staging")
    board.step(draft.Draft, "save", "cleanup")  # what is left of a save beside the steps that follow here
    board.step(staging.Writer, "publish_packs", "publish")
    board.step(writer, "commit", "append")
    board.step(index.Index, "apply", "index")
    board.inside(durable, "sync", "unsynced")  # the bytes are written
    board.inside(durable, "sync_folder", "unnamed")  # the file has its name
    board.inside(writer, "write_entry", "unwritten")  # the state is caught up
    board.inside(index.Index, "_flush", "unindexed")  # the entry is in the journal of SQLite, and in no index
    board.inside(staging.Writer, "remember", "appended")
    board.inside(staging.Writer, "discard", "remembered")
    for line in sys.stdin:
        step, when, seed = line.split()
        process = os.fork()
        if process == 0:
            try:
                live(sys.argv[1], board, step, when, int(seed))
            finally:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print("dead" if os.waitstatus_to_exitcode(status) == -signal.SIGKILL else f"failed: {status}", flush=True)


if __name__ == "__main__":
    main()
