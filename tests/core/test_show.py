"""What people see: numbers, times, widths, and texts of strangers that must not steer a terminal or a notebook."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from catalog_core import Catalog, show
from catalog_core.page import Listing
from catalog_core.shown import clean

pytestmark = pytest.mark.unit
EVIL = "a\x1b[31m\r\n<script>alert(1)</script>&"


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as catalog:
        catalog.repository.actor = EVIL  # as a journal that somebody else wrote may have it
        rng = np.random.default_rng(0)
        weights = {"w": rng.standard_normal((100, 100)).astype("f4"), "b": np.zeros(3, "f4")}
        metrics = {"loss": 0.2083333283662796, "events": 12_345_678, "rate": 3.5e-7}
        catalog.save("calo/gan", weights, tags={"note": EVIL, "run": 7}, metrics=metrics, alias="champion")
        catalog.save("calo/gan", {**weights, "w": weights["w"] * 1.5}, metrics={"loss": 0.1})
        catalog.model("calo/gan").update(title="手書き " + EVIL)
        yield catalog


def all_of(catalog: Catalog) -> list[object]:
    return [
        catalog, catalog.model("calo/gan"), catalog.version("calo/gan@1"), catalog.search("calo"),
        catalog.compare("calo/gan@1", "calo/gan@2"), catalog.verify("calo/gan@1"),
    ]  # fmt: skip


def test_people_get_four_digits_units_and_utc_and_programs_get_everything(catalog: Catalog) -> None:
    version = catalog.version("calo/gan@1")
    lines = dict(show.lines(version))
    assert lines["metrics"] == "events=12345678, loss=0.2083, rate=3.5e-07"
    assert lines["size"] == show.size(version.size) == "40.1 kB"
    assert lines["created"].endswith(" UTC")
    assert "deleted" not in lines
    record = json.loads(json.dumps(show.record(version)))
    assert record["metrics"]["loss"] == 0.2083333283662796
    assert record["size"] == version.size
    _, rows = show.table(catalog.compare(version, "calo/gan@2").rows())
    assert rows[-1][-1] == "0.5"  # how far the tensor moved
    assert not any("sha256" in cell and len(cell) > 20 for row in rows for cell in row)


def test_of_checks_those_that_did_not_pass_are_named(catalog: Catalog) -> None:
    checks = [["digests", "passed", 0.1, ""], ["unsafe", "warned", 0.2, "m/score.py: code " + EVIL]]
    assert show.text(checks, "checks") == "1 passed; unsafe warned: m/score.py: code " + clean(EVIL)
    assert show.text(checks[:1], "checks") == "1 passed"
    assert show.text([[1, 2]], "checks") == "1, 2"  # somebody else's


def test_the_past_shows_numbers_as_they_were_given(catalog: Catalog) -> None:
    past = catalog.as_of("calo/gan", "#1")["versions"][0]
    assert past["tags"]["run"] == 7
    assert type(past["metrics"]["events"]) is int


def test_texts_of_strangers_neither_steer_the_terminal_nor_the_notebook(catalog: Catalog) -> None:
    for item in [*all_of(catalog), *catalog.history()]:
        words = [cell for row in show.table([item])[1] for cell in row] if isinstance(item, show.Event) else []
        console = Console(width=200, force_terminal=False, record=True, file=io.StringIO())
        if not words:
            console.print(item)
            html = item._repr_html_()  # type: ignore[attr-defined]
            assert "<script" not in html
            assert "\x1b" not in html
            words = console.export_text().split("\n")
        assert all(word.isprintable() for word in words), words
    assert "&lt;script&gt;" in catalog.version("calo/gan@1")._repr_html_()


def test_whatever_a_call_gives_a_notebook_shows(catalog: Catalog, tmp_path: Path) -> None:
    """Every result that is no plain value: the same HTML, without scripts, escaped, in the notebook's own colours."""
    catalog.save("neg", {"w": np.zeros(1)}, tags={"note": EVIL})
    with Catalog.open(tmp_path / "other") as other:
        results = {
            "history": catalog.history(), "history of one": catalog.model("calo/gan").history(),
            "an event": catalog.history()[0], "notices": catalog.notices(), "versions": catalog.versions("calo/gan"),
            "verify": catalog.verify("calo/gan@1"), "fsck": catalog.fsck(), "gc": catalog.gc(dry_run=True),
            "lineage": catalog.lineage("calo/gan@1"), "compare": catalog.compare("calo/gan@1", "calo/gan@2"),
            "models": catalog.models(), "export": catalog.export("calo/gan@1", tmp_path / "a.catalog"),
            "copy": catalog.model(catalog.copy("neg@1", other).model), "erase": catalog.erase("neg@1", "a test"),
        }  # fmt: skip
    for name, item in results.items():
        html = item._repr_html_()
        assert html.startswith("<div><strong>"), name
        assert html.endswith("</div>"), name
        for bad in ("<script", "\x1b", "color", "background", "onclick", "src=", "href="):
            assert bad not in html, (name, bad)
        console = Console(width=200, force_terminal=False, record=True, file=io.StringIO())
        console.print(item)
        assert console.export_text().strip(), name
    assert "version.published" in results["history"]._repr_html_()
    assert list(results["history"]) == results["history"][:]
    assert "&lt;script&gt;" in results["history"]._repr_html_()


def test_notices_are_a_table_where_there_are_some() -> None:
    told = Listing(["rival epochs: <b>a</b>", EVIL], "2 notices")
    html = told._repr_html_()
    assert "&lt;b&gt;a&lt;/b&gt;" in html
    assert "<script" not in html
    assert html.count("<td") == 2
    assert Listing()._repr_html_().startswith("<div>")


def test_a_session_says_what_it_runs(catalog: Catalog) -> None:
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LinearRegression

    X = np.arange(6.0).reshape(3, 2)
    catalog.save("fit", LinearRegression().fit(X, X.sum(axis=1)), example=X)
    with catalog.session("fit") as session:
        assert "predict" in repr(session)
        html = session._repr_html_()
        assert "<td" in html
        assert "predict" in html
        assert "float64" in html
    assert "closed" in session._repr_html_()


def test_numbers_stand_at_the_right(catalog: Catalog) -> None:
    html = catalog.model("calo/gan")._repr_html_()
    assert "text-align:right;vertical-align:top'>40.1 kB<" in html
    assert "text-align:left;vertical-align:top'>registered<" in html
