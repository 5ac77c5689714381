"""What tests of files from strangers share."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_files import CANARY, Canary


@pytest.fixture
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Works in `tmp_path`, where a pickle that is loaded makes a file: none may."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Canary()))
    assert CANARY.exists(), "the canary itself must work"
    CANARY.unlink()
    yield
    assert not CANARY.exists(), "something was executed"
