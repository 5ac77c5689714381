"""Reads the newest versions until STOP exists, then prints how many; run as `python kill_reader.py URL STOP`."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from catalog_core import Catalog


def check(catalog: Any, number: int) -> None:
    """The version must be all that its seed says."""
    loaded = catalog.load(f"m@{number}")
    rng = np.random.default_rng(int(loaded["seed"][0]))
    assert np.array_equal(loaded["w"], rng.random(len(loaded["w"]), dtype=np.float32)), f"half of m@{number}"
    assert np.array_equal(loaded["n"], rng.random(4, dtype=np.float32)), f"half of m@{number}"


def main() -> None:
    """Open, look at the newest two, and at the alias; with the catalog kept open for a while, as services do."""
    read = newest = 0
    while not os.path.exists(sys.argv[2]):
        with Catalog.open(sys.argv[1], create=False) as catalog:
            for _ in range(20):
                if "m" not in catalog:
                    continue
                numbers = [version.number for version in catalog.versions("m")]
                assert numbers == list(range(len(numbers), 0, -1)), "a number is missing or there twice"
                assert numbers[0] >= newest, "the catalog went back in time"
                newest = numbers[0]
                for number in numbers[:2]:
                    check(catalog, number)
                    read += 1
                assert catalog.version("m@a").number >= newest - 1
    print(read)


if __name__ == "__main__":
    main()
