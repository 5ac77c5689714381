"""The sites of hybrid catalogs, for whoever tests them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sites import World

from catalog_core import journal as journal_module


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(*names: str) -> World:
        made.append(World(tmp_path, monkeypatch, *(names or ("cern", "oracle"))))
        return made[-1]

    monkeypatch.setattr(journal_module, "FENCE", 0.0)
    yield make
    for one in made:
        one.close()
