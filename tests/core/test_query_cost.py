"""What a page of an answer costs, in steps of SQLite's machine: what it shows, and not what the catalog holds."""

from __future__ import annotations

import functools
import random

import pytest

from catalog_core import query, query_sql
from catalog_core.index import Index
from catalog_core.reducer import ALIAS, FIELD, TEXT, field_rows

pytestmark = pytest.mark.unit
SMALL, LARGE, PAGE = 4_000, 32_000, 20


@functools.cache
def index_of(count: int) -> Index:
    """An index of `count` versions of ten to a model, with tags, metrics and texts; the rare ones lie far back."""
    index, chance = Index(None), random.Random(1)
    with index:
        index._reducer.begin(empty=True)
        for number in range(1, count + 1):
            model, version = number % (count // 10), number * 10 // count + 1
            index.db.execute(
                "INSERT INTO versions (id, model, number, name, stage, author, created, framework, algorithm, size)"
                " VALUES (?, ?, ?, ?, ?, 'ada', ?, 'torch', 'Net', ?)",
                (number, model, number, f"m{model}", "production" if number == 5 else "registered", number,
                 chance.random()),
            )  # fmt: skip
            rows = field_rows("metrics", {"auc": chance.random(), "loss": chance.random()})
            rows += field_rows("tags", {"team": f"t{number % 8}", "half": number % 2 == 0})
            if number < 10:
                rows += field_rows("tags", {"rare": number})
            index.db.executemany(FIELD, [(number, *row) for row in rows])
            index.db.execute(TEXT, (number, f"m{model}", "shower" if number % 2 else "photon"))
            if version == 1:
                index.db.execute(ALIAS, (model, "first", number))
        index._reducer.end(empty=True)
    return index


def steps(index: Index, text: str) -> int:
    """The steps that the page takes, in hundreds; with those of the statements that plan it, and of the page behind."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    index.db.set_progress_handler(step, 100)
    try:
        cursor = None
        for _ in range(2):
            statement = query_sql.compile(query.parse(text), limit=PAGE, cursor=cursor, index=index)
            _, cursor = query_sql.run(statement, index)
            if cursor is None:
                break
    finally:
        index.db.set_progress_handler(None, 0)
    return count


@pytest.mark.parametrize(
    "text",
    [
        "", "tags.team = t3", "tags.half = true", "metrics.auc > 0.5", "metrics.auc > 2",
        "order by metrics.auc desc", "order by metrics.auc", "metrics.auc > 0.5 order by metrics.auc desc",
        "metrics.auc > 0.5 and metrics.auc < 0.6 order by metrics.auc", "tags.half = true order by metrics.loss desc",
        "metrics.loss > 0.2 and tags.half = true order by metrics.auc desc", "order by metrics.auc desc, name limit 30",
        "order by size desc", "order by size", "order by time desc", "order by name", "size > 0.5 order by size desc",
        "has(tags.none)", "has(tags.rare)", "has(tags.team)", "has(tags.rare) order by metrics.auc",
        "tags.team = t1 or tags.team = t2", "tags.team in (t1, t2, t3)", "tags.rare = 3 or tags.rare = 4",
        "(tags.team = t1 and metrics.auc > 0.5) or has(tags.team)", "metrics.auc > 2 or tags.team = t1",
        "stage = production", "stage = registered", "author = nobody", "framework = torch", "framework = jax",
        "name = m3", "text ~ shower", "text ~ muon", "alias = none", "alias = none or stage = production",
        'tags.team = t3 and not has(tags.rare)', "tags.half != true",
    ],
)  # fmt: skip
def test_a_page_costs_what_it_shows(text: str) -> None:
    small, large = steps(index_of(SMALL), text), steps(index_of(LARGE), text)
    # counting how many there are stops at a fixed number of rows, which the small index may not have
    assert large <= 2 * small + query_sql.RARE * 16 // 100, (small, large)
