"""Run as a process of its own: `journal_writer.py URL NAME COUNT SECONDS` appends, and prints what it did as JSON."""

from __future__ import annotations

import json
import sys
import time


def open_backend(url: str):  # type: ignore[no-untyped-def]
    """The backend behind a URL."""
    if url.startswith("sqlite:"):
        from catalog_sqlite.backend import open_backend as open_sqlite

        return open_sqlite(url, {}, True)
    from catalog_core.objectstore import ObjectStoreBackend
    from catalog_files.store import open_store

    return ObjectStoreBackend(open_store(url, {}, True), "files", url)


def main(url: str, name: str, count: int, seconds: float) -> None:
    """Append `count` entries, or as many as fit into `seconds`."""
    backend = open_backend(url)
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + seconds
    positions: list[int] = []
    while len(positions) < count and time.monotonic() < end:
        text = json.dumps({"writer": name, "n": len(positions)}).encode()
        positions.append(backend.journal.append(lambda head, text=text: text, {}, time.monotonic() + 60)[0])
    print(json.dumps({"name": name, "positions": positions}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
