"""What holds for every test: its kind is derived from its markers, so `-m unit` needs no line in each file."""

from __future__ import annotations

import pytest

# A package of its own, with tests of its own: `third_party/test_stranger.py` runs them where it is installed.
collect_ignore = ["third_party/catalog_stranger"]
KINDS = ("server", "framework", "slow", "gpu", "campaign")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as `unit` each test that carries no other kind."""
    for item in items:
        if not any(item.get_closest_marker(kind) for kind in KINDS):
            item.add_marker(pytest.mark.unit)
