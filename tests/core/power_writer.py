"""Writes catalogs under the eyes of strace; run as `python power_writer.py PLAN ACKNOWLEDGED`.

The plan is a list of scenarios: `{"name", "url", "lives": [{"skip", "die", "steps"}, …]}`. Each life is a
process of its own (a fork, so that everything is imported once). `skip` is a place in the source, `[file, function,
first line, last line]`, whose fsync is left out; `die` is the number of the fsync or link before which the process dies
by SIGKILL. What a step promised is written to ACKNOWLEDGED, a line each, when it is promised.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import numpy as np

import catalog_core
from catalog_core import capture, catalog, draft, durable, journal, platform, plugins  # noqa: F401  (before the forks)
from catalog_core.staging import ComponentDirectory

fsync, link = os.fsync, os.link
SHORT = 2  # entries in a folder of the journal, instead of 1000


def weights(seed: int, size: int) -> dict[str, Any]:
    """A version that tells what it must be: `size` random floats, and the same frozen ones in every version."""
    return {
        "seed": np.array([seed]),
        "frozen": np.random.default_rng(size).random(size, dtype=np.float32),
        "w": np.random.default_rng(seed).random(size, dtype=np.float32),
    }


def by_path(directory: Any, name: str, parts: Any, cuts: Any = ()) -> None:
    """As a serializer whose library writes files itself."""
    directory.path(name).write_bytes(b"".join(parts))


in_memory = ComponentDirectory.write


class Life:
    """What one process does with its calls of fsync and link."""

    def __init__(self, life: dict[str, Any], folder: str) -> None:
        self.folder = folder
        self.skip, self.die, self.count = life.get("skip"), life.get("die"), 0
        self.sites: set[tuple[str, str, int]] = set()

    def _step(self) -> None:
        self.count += 1
        if self.count == self.die:
            os.kill(os.getpid(), signal.SIGKILL)

    def fsync(self, handle: int) -> None:
        frame: Any = sys._getframe(1)
        while frame.f_code.co_name in ("sync", "sync_folder"):
            frame = frame.f_back
        file, function, line = os.path.basename(frame.f_code.co_filename), frame.f_code.co_name, frame.f_lineno
        self.sites.add((file, function, line))
        if self.skip and self.skip[:2] == [file, function] and self.skip[2] <= line <= self.skip[3]:
            return
        if os.readlink(f"/proc/self/fd/{handle}").startswith(self.folder):
            self._step()
        fsync(handle)

    def link(self, *names: Any) -> None:
        self._step()
        link(*names)


def live(scenario: dict[str, Any], life: dict[str, Any], acknowledged: int) -> None:
    """One process's work."""

    def say(**what: Any) -> None:
        os.write(acknowledged, json.dumps({"scenario": scenario["name"], **what}).encode() + b"\n")

    state = Life(life, scenario["url"].partition("://")[2].removesuffix("/made/catalog"))
    os.fsync, os.link = state.fsync, state.link
    opened = catalog_core.Catalog.open(scenario["url"])
    if life.get("synchronous"):
        opened.repository.backend.db.execute(f"PRAGMA synchronous={life['synchronous']}")
    if life.get("creates", True):
        say(done="open")
    for verb, *values in life["steps"]:
        if verb in ("save", "write"):
            seed, size = values
            ComponentDirectory.write = by_path if verb == "write" else in_memory
            version = opened.save("m", weights(seed, size), alias="a")
            say(done="save", number=version.number, seed=seed, size=size)
        elif verb == "delete":
            say(done="delete", number=values[0])  # from here on it may be gone
            opened.version(f"m@{values[0]}").delete()
        elif verb == "gc":
            opened.gc(grace=-1)
        elif verb == "reopen":
            opened.close()
            opened = catalog_core.Catalog.open(scenario["url"])
    say(done="end", sites=sorted(state.sites), count=state.count)
    if not life.get("leave"):
        opened.close()


def main() -> None:
    """Run the plan."""
    durable.flush = lambda path: None  # it only hurries a sync to come, from a thread
    journal.entry_key = lambda position, epoch=0: f"journal/{epoch:010}/{position // SHORT:010}/{position:010}"
    platform.cache_dir = lambda: (None, "the index is in memory: it needs no disk, and strace no time for it")
    plugins.registry()
    capture.environment(), capture.provenance()  # once for all lives
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    acknowledged = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
    for scenario in plan:
        for life in scenario["lives"]:
            process = os.fork()
            if process == 0:
                status = 1
                try:
                    live(scenario, life, acknowledged)
                    status = 0
                finally:
                    sys.stdout.flush()
                    sys.excepthook(*sys.exc_info()) if status else None
                    os._exit(status)
            _, status = os.waitpid(process, 0)
            expected = -signal.SIGKILL if life.get("die") else 0
            code = os.waitstatus_to_exitcode(status)
            if code != expected and not (life.get("die") and code == 0):
                sys.exit(f"{scenario['name']}: a life ended with {code}")


if __name__ == "__main__":
    main()
