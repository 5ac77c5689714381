"""Content-defined cuts: one answer with and without numba, sizes in limits, a local change stays local."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_core import chunks


def _data(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 6 << 20))
def test_numba_and_numpy_agree(seed: int, size: int) -> None:
    pytest.importorskip("numba")
    data = _data(seed, size)
    ends = chunks.cut(data)
    assert ends == chunks.cut(data, step=chunks._next_numpy)
    sizes = np.diff([0, *ends])
    assert sum(sizes) == size
    assert all(chunks.MINIMUM <= part <= chunks.MAXIMUM for part in sizes[:-1])


def test_zeros_are_cut_alike() -> None:
    data = bytes(9 << 20)
    assert chunks.cut(data) == chunks.cut(data, step=chunks._next_numpy)


def test_an_insertion_moves_few_chunks() -> None:
    data = _data(1, 24 << 20)
    changed = data[: 8 << 20] + b"new" + data[8 << 20 :]

    def parts(whole: bytes) -> set[bytes]:
        ends = chunks.cut(whole)
        return {whole[low:high] for low, high in zip([0, *ends], ends, strict=False)}

    assert len(parts(data)) > 10
    assert len(parts(changed) - parts(data)) <= 4


def test_cuts_that_more_bytes_cannot_move_are_kept() -> None:
    data = _data(2, 10 << 20)
    early = chunks.cut(data[: 6 << 20], final=False)
    assert early and early == chunks.cut(data)[: len(early)]
