"""What a page of handles costs, in statements of SQLite: the same for one as for all that it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog, show

pytestmark = pytest.mark.unit
MODELS = 40


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Models with an alias each, whose versions have tags and an attachment."""
    with Catalog.open(tmp_path_factory.mktemp("pages") / "catalog") as made:
        for number in range(MODELS):
            version = made.save(f"m{number}", {"w": np.ones(3)}, tags={"number": number}, alias="best", description="x")
            if number % 10 == 0:
                version.attach("log", b"text")
        yield made


def statements(catalog: Catalog, call: Callable[[], Any]) -> int:
    """How many statements of the index a call runs."""
    found: list[str] = []
    catalog.repository.index.db.set_trace_callback(found.append)
    try:
        call()
    finally:
        catalog.repository.index.db.set_trace_callback(None)
    return len(found)


@pytest.mark.parametrize("text", ["", "tags.number >= 0", "has(tags.number) order by tags.number desc", "alias = best"])
def test_a_search_runs_as_many_statements_for_one_version_as_for_a_page(catalog: Catalog, text: str) -> None:
    page = catalog.search(text)
    assert len(page) == MODELS
    assert [version.aliases for version in page] == [["best"]] * MODELS
    one = statements(catalog, lambda: catalog.search(text, limit=1))
    assert statements(catalog, lambda: catalog.search(text)) == one <= 10


def test_a_page_of_models_runs_as_many_statements_as_one_model(catalog: Catalog) -> None:
    assert [model.aliases for model in catalog.models()] == [{"best": 1}] * MODELS
    one = statements(catalog, lambda: catalog.models(limit=1))
    assert statements(catalog, catalog.models) == one <= 6


def test_the_versions_of_a_model_come_with_as_many_statements_as_one(catalog: Catalog) -> None:
    catalog.save("many", {"w": np.zeros(3)})
    one = statements(catalog, lambda: catalog.versions("many"))
    for number in range(5):
        catalog.save("many", {"w": np.full(3, number)})
    assert statements(catalog, lambda: catalog.versions("many")) == one


def test_what_a_version_was_published_with_is_read_once(catalog: Catalog) -> None:
    version = catalog.version("m0@1")
    first = statements(catalog, lambda: show.record(version))
    assert first == 2
    assert statements(catalog, lambda: (version.summary, version.description, version.params, version.checks)) == 0


def test_an_entry_of_many_events_is_read_once_for_the_history(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "plots"
    folder.mkdir()
    for number in range(50):
        (folder / f"{number}.txt").write_text(str(number))
    catalog.save("attached", {"w": np.ones(1)})
    before = statements(catalog, lambda: catalog.history("attached"))
    catalog.version("attached@1").attach("plots", folder)
    assert len(catalog.history("attached")) == 51
    assert statements(catalog, lambda: catalog.history("attached")) == before + 1
