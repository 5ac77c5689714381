"""What keeps the house in order, and no linter says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OWN = ("catalog_core", "backends", "serializers", "runners", "integrations", "apps")
STATEMENT = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+(TABLE|INDEX)|REPLACE\s+INTO)\b",
    re.DOTALL,
)
WITH_SQL = {
    "catalog_core/index.py", "catalog_core/reducer.py", "catalog_core/state.py", "catalog_core/remembered.py",
    "catalog_core/query_sql.py", "catalog_core/sqlite.py",
    "catalog_core/testing/serializers.py",  # damages the rows of the SQLite backend
    "backends/catalog_sqlite/backend.py", "backends/catalog_sqlite/schema.py",  # their own database
    "integrations/catalog_tables/export.py",
}  # fmt: skip


def modules() -> Iterator[Path]:
    for folder in OWN:
        yield from sorted((ROOT / folder).rglob("*.py"))


def texts(path: Path) -> Iterator[str]:
    """The strings of a module, with those that stand side by side as one, without docstrings."""
    tree = ast.parse(path.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else " x " for part in node.values)


def test_every_statement_of_sql_is_in_the_index() -> None:
    found = {str(path.relative_to(ROOT)) for path in modules() if any(STATEMENT.search(text) for text in texts(path))}
    assert found - WITH_SQL == set()


@pytest.mark.parametrize("path", sorted(WITH_SQL))
def test_whoever_may_hold_sql_does(path: str) -> None:
    assert (ROOT / path).exists()
    assert any(STATEMENT.search(text) or "PRAGMA" in text for text in texts(ROOT / path))
