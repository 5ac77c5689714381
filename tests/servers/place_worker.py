"""Run as a process of its own: `place_worker.py JOB` works at a catalog, and prints what it did as JSON.

JOB is JSON: `role` (`write`, `read`, `verify`), `url` and `options`, `name`, `seconds`, and for a site that is far away
`latency` (seconds) and `bandwidth` (bytes per second); a writer rests for `pause` seconds after each save. It prints
`ready`, begins when a byte comes, and ends with the next one or after `seconds`. Every save is told by its parameters,
from which its content follows.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from catalog_core.backends import connect
from catalog_core.catalog import Catalog
from catalog_core.config import Target
from catalog_core.errors import CatalogError
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.faults import FaultyStore

SIZES = (2_000, 300_000, 2_000, 2_000, 3_000_000)  # in the entry, in a blob, in several


class Log:
    """What was done, when (`time.monotonic_ns`, which all processes of a machine share), and how it ended."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []

    def __call__(self, what: str, act: Callable[[], Any]) -> Any:
        """Do it; what is raised is written down: `ours` tells whether it is a `CatalogError`."""
        begun = time.monotonic_ns()
        result, error, ours = None, None, True
        try:
            result = act()
        except Exception as exc:
            ours = isinstance(exc, CatalogError)
            error = f"{type(exc).__name__}: {exc}" if ours else "".join(traceback.format_exception(exc))
        record = {"what": what, "begun": begun, "ended": time.monotonic_ns(), "result": result}
        self.done.append(record | {"error": error, "ours": ours})
        return result


def opened(job: dict[str, Any]) -> Catalog:
    """The catalog, from where the job says."""
    backend = connect(Target("place", job["url"], job["options"]), create=True)
    if job.get("latency"):
        far = FaultyStore(backend.store, job["latency"], job["bandwidth"])
        backend = ObjectStoreBackend(far, backend.name, backend.url)
    catalog = Catalog(backend, "place", actor=job["name"], max_staleness=0)
    if catalog.position < 0:
        catalog.repository.begin()
    return catalog


def content(writer: str, number: int) -> dict[str, np.ndarray]:
    """What `writer` saves as its save of that number."""
    chance = np.random.default_rng([number, *writer.encode()])
    return {"w": chance.integers(0, 256, SIZES[number % len(SIZES)], np.uint8)}


def right(catalog: Catalog, number: int) -> list[Any]:
    """Load a version and hold it against what its parameters say; who saved it, and as which."""
    version = catalog.version(f"m@{number}")
    writer, own = version.params["writer"], int(version.params["n"])
    loaded = catalog.load(version)["w"]
    if not np.array_equal(loaded, content(writer, own)["w"]):
        raise ValueError(f"m@{number} holds other bytes than {writer} saved as its {own}")
    return [writer, own]


def write(catalog: Catalog, job: dict[str, Any], going: Callable[[], bool], log: Log) -> None:
    """Save again and again; the appends are in the log as well."""
    journal = catalog.repository.backend.journal
    append = journal.append

    def timed(*args: Any) -> Any:
        begun = time.monotonic_ns()
        position, data = append(*args)
        log.done.append({"what": "append", "begun": begun, "ended": time.monotonic_ns(), "result": position})
        return position, data

    journal.append = timed
    number = 0
    while going():
        params = {"writer": job["name"], "n": number}
        model = content(job["name"], number)
        log("save", lambda params=params, model=model: [catalog.save("m", model, params=params).number, params["n"]])  # type: ignore[misc]
        number += 1
        time.sleep(job.get("pause", 0))


def read(catalog: Catalog, job: dict[str, Any], going: Callable[[], bool], log: Log) -> None:
    """Look for versions, load them, and now and then open the catalog as on a new machine."""
    chance = random.Random(job["name"])
    newest = 0
    while going():
        found = log("list", lambda: [version.number for version in catalog.versions("m")[:1]])
        newest = max(newest, *(found or [0]))
        if newest:
            number = chance.randint(1, newest)
            log("load", lambda number=number: right(catalog, number))  # type: ignore[misc]
        if chance.random() < 0.2:
            os.environ["CATALOG_CACHE_DIR"] = tempfile.mkdtemp(dir=job["scratch"])
            log("open", lambda: opened(job).position)
        time.sleep(0.02)


def verify(catalog: Catalog, job: dict[str, Any], going: Callable[[], bool], log: Log) -> None:
    """Load all that is there, and let `fsck` say whether it is whole."""
    newest = catalog.versions("m")[0].number
    for number in range(1, newest + 1):
        log(str(number), lambda number=number: right(catalog, number))  # type: ignore[misc]
    log("fsck", lambda: [str(problem) for problem in catalog.fsck().problems])


def main(job: dict[str, Any]) -> None:
    """Do the job."""
    log, stop = Log(), threading.Event()
    catalog = opened(job)
    print("ready", flush=True)
    os.read(0, 1)
    threading.Thread(target=lambda: os.read(0, 1) and stop.set(), daemon=True).start()
    end = time.monotonic() + job["seconds"]
    roles = {"write": write, "read": read, "verify": verify}
    roles[job["role"]](catalog, job, lambda: not stop.is_set() and time.monotonic() < end, log)
    print(json.dumps(log.done), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
