"""A disk that fills up in the middle of a large save: one clear error, and nothing is published."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from catalog_core import Catalog, durable
from catalog_core.errors import NoSpace


class Filling:
    """A raw file that takes a part of what it is given, as the kernel does when space runs out, then no more."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(memoryview(data)[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name: str):
        return getattr(self.file, name)


def test_a_short_write_is_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    stage = durable.stage
    weights = {"w": np.zeros(1_000_000, dtype=np.float32)}
    with Catalog.open(tmp_path / "catalog") as catalog:
        with monkeypatch.context() as patched:
            patched.setattr(durable, "stage", lambda folder: (lambda p, f: (p, Filling(f, 4_000_000)))(*stage(folder)))
            with pytest.raises(NoSpace):
                catalog.save("m", weights)
        assert "m" not in catalog
        assert not list(catalog.repository.backend.files.staging().iterdir())
        assert catalog.save("m", weights).number == 1
        assert catalog.fsck().clean
