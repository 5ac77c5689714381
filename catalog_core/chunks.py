"""Content-defined chunking with a gear hash, for files whose structure is unknown.

The hash at a byte is a function of the 64 bytes up to it: h(i) = Σ G[b(i−k)]·2^k mod 2^64, k = 0 … 63 (Xia et al.,
FastCDC, USENIX ATC 2016, section 3). A chunk ends behind byte i where the top 20 bits of h(i) are 0 and it has at
least MINIMUM bytes, or where it has MAXIMUM bytes. numba makes it fast; without numba NumPy gives the same cuts.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

MINIMUM = 256 << 10
MAXIMUM = 4 << 20
BITS = 20  # a cut every 2^20 bytes in the mean, behind the minimum
WINDOW = 64


@functools.cache
def table() -> Any:
    """The gear table: 256 uint64, the first 8 bytes, little-endian, of SHA-256("catalog-core gear" + byte)."""
    rows = [hashlib.sha256(b"catalog-core gear" + bytes([byte])).digest()[:8] for byte in range(256)]
    return np.frombuffer(b"".join(rows), dtype="<u8").copy()


def _next_numba(data: Any, start: int, gear: Any) -> int:
    """The end of the chunk that begins at `start`, compiled by numba."""
    size = data.shape[0]
    stop = min(start + MAXIMUM, size)
    at = start + MINIMUM
    if at >= size:
        return int(size)
    hashed = np.uint64(0)
    shift = np.uint64(1)
    limit = np.uint64(1) << np.uint64(64 - BITS)
    for i in range(at - WINDOW, at - 1):
        hashed = (hashed << shift) + gear[data[i]]
    for i in range(at - 1, stop - 1):
        hashed = (hashed << shift) + gear[data[i]]
        if hashed < limit:
            return int(i + 1)
    return int(stop)


def _next_numpy(data: Any, start: int, gear: Any) -> int:
    """The same cut with NumPy, block by block: the window's sum by doubling."""
    size = data.shape[0]
    stop = min(start + MAXIMUM, size)
    at = start + MINIMUM
    if at >= size:
        return int(size)
    limit = np.uint64(1) << np.uint64(64 - BITS)
    block = 1 << 18
    for low in range(at - 1, stop - 1, block):
        high = min(low + block, stop - 1)
        sums = gear[data[low - WINDOW + 1 : high]]
        width = 1
        while width < WINDOW:
            longer = sums.copy()
            longer[width:] += sums[:-width] << np.uint64(width)
            sums = longer
            width *= 2
        hits = np.flatnonzero(sums[WINDOW - 1 :] < limit)
        if hits.size:
            return int(low + hits[0] + 1)
    return int(stop)


@functools.cache
def _compiled() -> Callable[[Any, int, Any], int]:
    try:
        import numba
    except ImportError:
        return _next_numpy
    compiled: Callable[[Any, int, Any], int] = numba.njit(cache=True, nogil=True)(_next_numba)
    return compiled


def cut(view: Any, final: bool = True, *, step: Callable[[Any, int, Any], int] | None = None) -> list[int]:
    """The end offsets of the chunks of `view` (bytes-like). Without `final` only those that more bytes cannot move."""
    data = np.frombuffer(view, dtype=np.uint8)
    run = step or _compiled()
    gear = table()
    ends: list[int] = []
    at = 0
    while at < data.shape[0]:
        end = run(data, at, gear)
        if end == data.shape[0] and not final and end - at < MAXIMUM:
            break
        ends.append(end)
        at = end
    return ends
