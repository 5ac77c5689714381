"""Erasure for good: what is gone comes back by no way."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core.catalog import Catalog
from catalog_core.errors import CatalogError, InvalidInput, NotFound, Rejected
from catalog_core.testing.memory import MemoryStore, memory_catalog

WHY = "request 17"


@pytest.fixture(params=["sqlite", "file", "memory"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    made = memory_catalog() if request.param == "memory" else Catalog.open(f"{request.param}://{tmp_path}/catalog")
    with made as catalog:
        yield catalog


def weights(seed: int) -> dict[str, Any]:
    return {"w": np.random.default_rng(seed).normal(size=40_000), "shared": np.arange(40_000.0)}


def held(catalog: Catalog) -> set[str]:
    return {info.key for info in catalog.repository.backend.blobs.list()}


def test_what_no_other_version_needs_is_deleted_and_the_rest_stays(catalog: Catalog) -> None:
    first = catalog.save("m", weights(1), alias="best")
    first.attach("people.txt", b"names" * 20_000)
    catalog.save("m", weights(2))
    before = held(catalog)
    done = catalog.erase("m@1", WHY)
    assert done.bytes > 400_000
    assert held(catalog) < before
    assert [version.number for version in catalog.versions("m")] == [2]
    assert (catalog.load("m@2")["shared"] == weights(2)["shared"]).all()
    assert catalog.fsck().clean
    assert "m@best" not in catalog
    with pytest.raises(NotFound):
        catalog.load("m@1")
    with pytest.raises(Rejected, match="cannot be restored"):
        catalog.version("m@1", deleted=True).restore()
    assert [event.type for event in catalog.history()][-1] == "blobs.erased"
    assert WHY in catalog.history()[-1].text


def test_what_a_late_writer_put_under_an_older_key_goes_too(catalog: Catalog) -> None:
    """It was swept, put again under its first key by who had not heard of it, and saved under the next one since."""
    blobs = catalog.repository.backend.blobs
    old = catalog.save("m", weights(1))
    catalog.save("kept", weights(2))
    before = {}
    for key in held(catalog):
        with blobs.open(key) as stream:
            before[key] = stream.read()
    old.delete()
    catalog.gc(grace=0)
    gone = before.keys() - held(catalog)
    assert gone
    new = catalog.save("m", weights(1))
    for key in gone:
        blobs.put(key, io.BytesIO(before[key]), len(before[key]))
    catalog.erase(new, WHY)
    assert not [key for key in held(catalog) if key.partition("~")[0] in gone]
    assert (catalog.load("kept")["shared"] == weights(2)["shared"]).all()
    assert catalog.fsck().clean


@pytest.mark.parametrize("way", ["save", "copy", "bundle", "attach", "card"])
def test_it_comes_back_by_no_way(catalog: Catalog, way: str, tmp_path: Path) -> None:
    text = "somebody's " * 20_000
    version = catalog.save("m", weights(1))
    version.attach("people.txt", text.encode())
    with Catalog.open(f"file://{tmp_path}/other") as other:
        catalog.copy("m@1", other)
        other.export("m@1", tmp_path / "m.catalog")
        catalog.erase("m@1", WHY)
        catalog.save("m", weights(2))
        catalog.gc(grace=-1)
        before = held(catalog)
        back: dict[str, Callable[[], Any]] = {
            "save": lambda: catalog.save("m", weights(1)),
            "copy": lambda: other.copy("m@1", catalog, "n"),
            "bundle": lambda: catalog.import_(tmp_path / "m.catalog"),
            "attach": lambda: catalog.version("m@2").attach("again.txt", text.encode()),
            "card": lambda: catalog.model("m").set_card(text),
        }
        with pytest.raises(CatalogError, match="was erased from this catalog for good"):
            back[way]()
    catalog.gc(grace=-1)
    assert held(catalog) == before
    assert catalog.fsck().clean


def test_what_any_model_may_have_is_not_forbidden(catalog: Catalog) -> None:
    """The same environment, and the same layers within another file."""
    catalog.save("m", weights(1))
    catalog.erase("m@1", WHY)
    assert catalog.save("m", weights(2)).ref == "m@2"
    assert (catalog.load("m@2")["shared"] == weights(1)["shared"]).all()
    assert catalog.fsck().clean


def test_weights_that_another_version_has_too_stay_and_may_be_saved_again(catalog: Catalog) -> None:
    catalog.save("m", weights(1))
    catalog.save("n", weights(1), tags={"kept": "yes"})
    catalog.erase("m@1", WHY)
    assert (catalog.load("n@1")["w"] == weights(1)["w"]).all()
    assert catalog.save("o", weights(1), tags={"a": "b"}).ref == "o@1"
    assert catalog.fsck().clean


def test_an_erasure_wants_a_reason_and_a_version_that_is_there(catalog: Catalog) -> None:
    catalog.save("m", weights(1))
    with pytest.raises(InvalidInput, match="needs a reason"):
        catalog.erase("m@1", "  ")
    with pytest.raises(NotFound):
        catalog.erase("m@9", WHY)
    assert catalog.fsck().clean


def test_every_machine_drops_it_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "one"))
    writer = memory_catalog(store)
    writer.save("m", weights(1))
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "two"))
    reader = memory_catalog(store)
    reader.pin("m@1")
    assert reader.cache is not None
    full = reader.cache.usage().bytes
    writer.erase("m@1", WHY)
    reader.repository.refresh(force=True)
    assert reader.cache.usage().bytes < full / 10
    for catalog in (writer, reader):
        catalog.close()


@pytest.mark.parametrize("how", ["gc", "erase"])
def test_the_past_of_another_model_can_still_be_asked_for(catalog: Catalog, how: str) -> None:
    catalog.save("m", weights(1))
    catalog.save("q", weights(2))
    catalog.model("q").update(title="after")
    if how == "gc":
        catalog.version("m@1").delete()
        catalog.gc(grace=-1)
    else:
        catalog.erase("m@1", WHY)
    assert catalog.as_of("q", f"#{catalog.position}")["title"] == "after"


def test_what_was_erased_says_so_and_is_in_the_history_of_its_model(catalog: Catalog) -> None:
    catalog.save("m", weights(1))
    catalog.save("n", weights(2))
    catalog.erase("m@1", WHY)
    for ask in (catalog.version, catalog.load, catalog.artifact):
        with pytest.raises(NotFound, match=f"m@1 was erased by .*{WHY}") as caught:
            ask("m@1")
        assert "restore" not in str(caught.value.hint)
    with pytest.raises(Rejected, match=f"m@1 cannot be restored: it was erased by .*{WHY}"):
        catalog.version("m@1", deleted=True).restore()
    assert [event.type for event in catalog.history("m")] == ["version.published", "blobs.erased"]
    assert [event.type for event in catalog.history("m", limit=1)] == ["blobs.erased"]
    first = catalog.history("m")[0].position
    assert [event.type for event in catalog.history("m", after=first, limit=1)] == ["blobs.erased"]
    assert [event.type for event in catalog.history("m", after=-1, limit=1)] == ["version.published"]
    assert [event.type for event in catalog.history("n")] == ["version.published"]
