"""A process that uses a bucket: `race URL OPTIONS NAME ROUNDS` puts exclusive keys and prints those it won;
`put URL OPTIONS PATH KEY` puts a file in parts of 1 MiB."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from catalog_core.errors import KeyTaken
from catalog_oci import parts
from catalog_oci import store as store_module
from catalog_oci.store import open_store


def race(url: str, options: str, name: str, rounds: str) -> None:
    store = open_store(url, json.loads(options), False)
    print("ready", flush=True)
    sys.stdin.readline()
    won = []
    for n in range(int(rounds)):
        data = f"{name} won {n}".encode()
        try:
            store.put(f"race/{n}", io.BytesIO(data), len(data), "exclusive")
            won.append(n)
        except KeyTaken:
            pass
    print(json.dumps(won), flush=True)


def put(url: str, options: str, path: str, key: str) -> None:
    store_module.WHOLE, parts.PART = 2 << 20, 1 << 20
    store = open_store(url, json.loads(options), False)
    with Path(path).open("rb") as file:
        store.put(key, file, Path(path).stat().st_size, "content")


if __name__ == "__main__":
    {"race": race, "put": put}[sys.argv[1]](*sys.argv[2:])
