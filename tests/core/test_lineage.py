"""Where a version comes from and what became of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.lineage import Lineage, Relative

pytestmark = pytest.mark.unit
RNG = np.random.default_rng(0)
BACKBONE = RNG.standard_normal(1_200_000).astype("f4")


def weights(head: float) -> dict[str, Any]:
    return {"backbone": BACKBONE, "head": np.full(1000, head, "f4")}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "catalog") as made:
        yield made


@pytest.fixture
def family(catalog: Catalog) -> Catalog:
    """base@1 → tuned@1 → merged@1 ← other@1 ← base@1"""
    catalog.save("base", weights(1))
    catalog.save("tuned", weights(2), parents=["base"])
    catalog.save("other", weights(3), parents=["base@1"])
    catalog.save("merged", weights(4), parents=["tuned", "other"])
    return catalog


def run(catalog: Catalog, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "catalog_cli", "--catalog", catalog.url, "lineage", *arguments],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def drawn(found: Lineage) -> list[str]:
    return [f"{row['relation']} {row['version']}" for row in found.rows()]


def test_the_tree_goes_both_ways_and_follows_each_version_once(family: Catalog) -> None:
    assert drawn(family.version("merged").lineage()) == [
        "parent ├─ tuned@1", "parent │  └─ base@1", "parent └─ other@1", "parent    └─ base@1",
    ]  # fmt: skip
    assert drawn(family.lineage("base")) == [
        "child ├─ tuned@1", "child │  └─ merged@1", "child └─ other@1", "child    └─ merged@1",
    ]  # fmt: skip
    assert drawn(family.lineage("tuned")) == ["parent └─ base@1", "child └─ merged@1"]


def test_what_was_seen_before_is_not_followed_again(family: Catalog) -> None:
    family.save("last", weights(5), parents=["merged", "tuned"])
    assert drawn(family.lineage("last"))[-1] == "parent └─ tuned@1 (above)"
    (merged, tuned) = family.lineage("last").parents
    assert tuned.again and not tuned.relatives and merged.relatives


def test_what_is_shared_with_a_parent_is_counted(family: Catalog) -> None:
    (parent,) = family.lineage("tuned").parents
    assert parent.shared_bytes is not None and parent.bytes is not None
    assert BACKBONE.nbytes <= parent.shared_bytes < parent.bytes < BACKBONE.nbytes + 50_000
    (child,) = family.lineage("tuned").children
    assert child.shared_bytes == parent.shared_bytes


def test_a_deleted_parent_is_shown_as_such(family: Catalog) -> None:
    family.version("base@1").delete()
    (parent,) = family.lineage("tuned").parents
    assert (parent.ref, parent.state) == ("base@1", "deleted")
    assert drawn(family.lineage("base@1"))[0] == "child ├─ tuned@1"
    family.gc(grace=0)
    assert family.lineage("tuned").parents[0].state == "deleted"


def test_copies_know_each_other_and_what_stayed_elsewhere(family: Catalog, tmp_path: Path) -> None:
    with Catalog.open(tmp_path / "site") as site:
        site.save("base", {"w": np.ones(3)})  # another one, of the same name
        family.copy("merged", site)
        found = site.lineage("merged")
        assert [(p.ref, p.state, p.catalog) for p in found.parents] == [
            ("tuned@1", "elsewhere", str(family.id)), ("other@1", "elsewhere", str(family.id)),
        ]  # fmt: skip
        family.copy("tuned", site, "ours/tuned")
        tuned = site.lineage("merged").parents[0]
        assert (tuned.ref, tuned.state) == ("ours/tuned@1", "here")
        assert tuned.relatives == (Relative("base@1", "elsewhere", catalog=str(family.id)),)
        assert drawn(site.lineage("ours/tuned"))[-1] == "child └─ merged@1"
        site.save("next", weights(6), parents=["merged"])
        assert [item.ref for item in site.lineage("merged").children] == ["next@1"]
        assert site.lineage("base@1").children == ()


def test_a_version_without_relatives_says_so(catalog: Catalog) -> None:
    catalog.save("alone", weights(1))
    assert catalog.lineage("alone") == Lineage("alone@1", (), ())
    assert run(catalog, "alone") == "alone@1 has neither parents nor children here\n"


def test_the_command_draws_a_tree_and_gives_json(family: Catalog) -> None:
    shown = run(family, "merged").splitlines()
    assert shown[0].split()[:2] == ["VERSION", "RELATION"] and "SHARED" in shown[0]
    assert shown[2].startswith("│  └─ base@1")
    told = json.loads(run(family, "merged", "--json"))
    assert told["ref"] == "merged@1" and told["parents"][0]["relatives"][0]["ref"] == "base@1"


def test_a_notebook_shows_the_tree(family: Catalog) -> None:
    html = family.lineage("merged")._repr_html_()
    assert "│  └─ base@1" in html and "pre-wrap" in html
    assert repr(family.lineage("tuned")) == "<Lineage tuned@1: 1 parent, 1 child>"


def test_no_look_at_relatives_reads_what_has_none(family: Catalog, tmp_path: Path) -> None:
    """Every statement finds its rows by an index, however many versions there are."""
    with Catalog.open(tmp_path / "site") as site:
        family.copy("merged", site)
        family.copy("tuned", site, "ours/tuned")
        said: list[str] = []
        site.repository.index.db.set_trace_callback(said.append)
        site.lineage("merged")
        site.repository.index.db.set_trace_callback(None)
        looks = [line for line in said if (line.startswith("SELECT") and "parents" in line) or "origins" in line]
        assert len(looks) > 3
        for line in looks:
            plan = [row[3] for row in site.repository.index.rows(f"EXPLAIN QUERY PLAN {line}")]
            assert not [step for step in plan if step.startswith("SCAN")], (line, plan)


def test_long_and_wide_families_are_cut(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.save("m", {"w": np.zeros(1)})
    for number in range(1, 8):
        catalog.save("m", {"w": np.full(1, number)}, parents=[f"m@{number}"])
    assert len(catalog.lineage("m").rows()) == 7 and catalog.lineage("m").whole
    monkeypatch.setattr("catalog_core.lineage.MAX_DEPTH", 3)
    assert len(catalog.lineage("m").rows()) == 3 and not catalog.lineage("m").whole
    monkeypatch.setattr("catalog_core.lineage.MAX_RELATIVES", 2)
    assert len(catalog.lineage("m").rows()) == 2
    looked_at: list[Any] = []
    find = catalog.version
    monkeypatch.setattr(catalog, "version", lambda *what, **how: looked_at.append(what) or find(*what, **how))
    catalog.lineage("m")
    assert len(looked_at) <= 1 + 2, "the others were not even looked at"
