"""Tables fit the terminal, from 40 to 250 columns, also where letters are two columns wide, and lose nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_core import Catalog, show
from catalog_core.tabular import folded, laid_out, width

COLUMNS = (40, 60, 80, 100, 120, 132, 250)
TITLES = [
    "",
    "カロリメータのシャワー生成モデル",
    "热量计簇射的生成模型：第二版",
    "Ein Modell für Schauer",
    "e\u0301te\u0301 ☀️",
]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog", actor="研究者の名前はとても長い") as opened:
        for number, title in enumerate(TITLES):
            name = f"calo/a-rather-long-name-of-a-model-{number}"
            version = opened.save(name, {"w": np.zeros(3)}, metrics={f"metric{n}": n / 7 for n in range(number * 3)})
            version.alias(f"champion-of-the-month-{number}")
            if title:
                opened.model(name).update(title=title)
        yield opened


def listings(catalog: Catalog) -> list[list[object]]:
    rows = catalog.compare(*[page.ref for page in catalog.search(limit=2)]).rows()
    return [list(catalog.models()), list(catalog.search()), list(catalog.history()), list(rows)]


@pytest.mark.parametrize("columns", COLUMNS)
def test_tables_of_the_command_line_fit(catalog: Catalog, columns: int) -> None:
    for items in listings(catalog):
        headings, rows = show.table(items)
        lines = list(laid_out(headings, rows, columns))
        assert max(map(width, lines)) <= columns
        shown = "".join("".join(lines).split())
        for row in rows:
            for cell in row:
                assert set(cell) - {" "} <= set(shown)
        for word in (word for row in rows for cell in row for word in cell.split() if word.isascii()):
            assert any(word in line for line in lines) or width(word) > columns, word


@pytest.mark.parametrize("columns", COLUMNS)
def test_tables_of_a_notebooks_terminal_fit(catalog: Catalog, columns: int) -> None:
    console = pytest.importorskip("rich.console")
    newest = catalog.model("calo/a-rather-long-name-of-a-model-1")
    for item in (catalog.models(), catalog.search(), newest, newest.versions, catalog.history(), catalog.notices()):
        out = console.Console(width=columns, force_terminal=False, color_system=None)
        with out.capture() as caught:
            out.print(item)
        lines = caught.get().splitlines()
        assert max(map(width, lines)) <= columns
        assert "…" not in caught.get()
        for name in (cell for cell in caught.get().split() if cell.startswith("calo/")):
            assert re.fullmatch(r"calo/a-rather-long-name-of-a-model-\d(@1)?:?", name)


def test_columns_stand_one_below_the_other_in_every_script() -> None:
    lines = list(laid_out(["NAME", "N"], [["模型", "1"], ["model", "20"], ["é́", "300"]], None))
    assert {width(line) for line in lines} == {10}
    assert lines[1].startswith("模型   ")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp"])), st.integers(2, 300))
def test_folding_loses_no_letter_and_no_line_is_too_wide(text: str, room: int) -> None:
    lines = folded(text, room)
    assert all(width(line) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_wide_letters_take_two_columns_and_marks_none() -> None:
    assert (width("模型"), width("abc"), width("e\u0301"), width("☀️"), width("ﾓ")) == (4, 3, 1, 1, 1)
    assert unicodedata.category("\ufe0f") == "Mn"
