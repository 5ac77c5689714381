"""One added file `epochs/…` takes nobody back who has seen more: anybody who may write to a store can add one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import journal
from catalog_core.catalog import Catalog
from catalog_core.epochs import Epoch, write_epoch
from catalog_core.errors import CatalogError, IntegrityError
from catalog_core.testing.memory import MemoryStore, memory_catalog


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FENCE", 0.0)
    monkeypatch.setattr(journal, "NEWS", 0.0)


def model(number: int) -> dict[str, Any]:
    return {"w": np.full(100, number)}


def forged(catalog: Catalog, position: int, number: int = 7, owner: str = "mallory") -> Epoch:
    """Add an epoch that begins behind the entry at `position`."""
    digest = catalog.repository.index.rows("SELECT 1")  # the index is up to date
    assert digest
    record = Epoch(number, position, "sha256:" + "0" * 64, owner, "mallory\x1b[31m", 0)
    write_epoch(catalog.repository.backend.store, record)
    return record


@pytest.mark.parametrize("number", [1, 7, 999_999])
@pytest.mark.parametrize("running", [False, True])
def test_who_has_seen_more_refuses_and_says_what(tmp_path: Path, number: int, running: bool) -> None:
    url = f"file://{tmp_path}/catalog"
    catalog = Catalog.open(url)
    for at in range(2):
        catalog.save("m", model(at))
    record = forged(catalog, catalog.position - 1, number)
    said = rf"epoch {number} of {url} \(by mallory.*leaves out entries that this machine has seen: 2 to 2 with m@2"
    if running:
        with pytest.raises(IntegrityError, match=said):
            Catalog.open(url)
        catalog.repository.backend.journal.line(fresh=True)
        for call in (lambda: catalog.versions("m"), lambda: catalog.save("m", model(3)), lambda: catalog.load("m")):
            with pytest.raises(CatalogError):
                call()
    catalog.close()
    with pytest.raises(IntegrityError, match=said) as caught:
        Catalog.open(url)
    assert "ask who made another copy the primary" in str(caught.value.hint)
    (tmp_path / "catalog" / record.key).unlink()
    with Catalog.open(url) as catalog:
        assert catalog.version("m").number == 2
        assert catalog.load("m")["w"][0] == 1


def test_who_has_seen_no_more_goes_on(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/catalog"
    with Catalog.open(url) as catalog:
        catalog.save("m", model(0))
        forged(catalog, catalog.position)
    with Catalog.open(url) as catalog:
        assert catalog.version("m").number == 1


def test_an_index_in_memory_refuses_too() -> None:
    store = MemoryStore()
    with memory_catalog(store) as catalog:
        catalog.repository.max_staleness = 0.0
        catalog.repository.index.move_to_memory()
        catalog.repository.refresh(force=True)
        catalog.save("m", model(0))
        forged(catalog, 0)
        catalog.repository.backend.journal.line(fresh=True)
        with pytest.raises(IntegrityError, match="leaves out") as caught:
            catalog.versions("m")
        assert str(caught.value.hint).endswith("on purpose, open it again")
