"""What publishing a small model takes: passes over its JSON, statements, and nothing again that is constant."""

from __future__ import annotations

import cProfile
import pstats
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import InvalidInput

pytestmark = pytest.mark.unit


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Callable[[], Catalog]]:
    """Saves one more version of a small model; what is looked up once in a process has been looked up."""
    with Catalog.open(tmp_path / "catalog") as catalog:
        array = np.arange(1000, dtype=np.float32)

        def save() -> Catalog:
            array[0] += 1
            catalog.save("small", {"weight": array}, tags={"team": "cms"}, metrics={"auc": 0.5})
            return catalog

        for _ in range(3):
            save()
        yield save


def calls(run: Callable[[], Any]) -> Counter[tuple[str, str]]:
    """How often each function is called: module and name → count."""
    profile = cProfile.Profile()
    profile.runcall(run)
    found: Counter[tuple[str, str]] = Counter()
    for (file, _, name), (_, count, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        found[Path(file).stem, name] += count
    return found


def test_each_piece_of_json_is_written_once_and_read_back_once(publish: Callable[[], Catalog]) -> None:
    found = calls(publish)
    assert found["digests", "canonical"] == 5  # the tensors' header, the baseline, manifest, layout, and the entry
    assert found["digests", "parse"] == 3  # manifest, layout and entry: what no reader could read is not published
    assert found["codec", "manifest_of"] == found["events", "read_entry"] == 1


def test_what_is_captured_is_looked_up_and_scrubbed_once_for_many_versions(
    publish: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog_core import capture

    monkeypatch.setattr(capture, "FRESH", 1e9)
    publish()
    found = calls(publish)
    assert found["capture", "_look"] == found["capture", "installed"] == 0
    assert found["redact", "tree"] <= 2  # of what only this draft knows
    assert found["redact", "command"] == 0


def test_plug_ins_without_a_hook_are_not_called_for_it(publish: Callable[[], Catalog]) -> None:
    found = calls(publish)
    assert found["_caller", "get_hookimpls"] == 2  # saving, saved


def test_a_publish_takes_a_fixed_number_of_statements(publish: Callable[[], Catalog]) -> None:
    catalog = publish()
    told: dict[str, list[str]] = {"index": [], "store": []}
    for kind, db in (("index", catalog.repository.index.db), ("store", catalog.repository.backend.db)):
        db.set_trace_callback(told[kind].append)
    numbers = []
    for _ in range(3):
        for list_ in told.values():
            list_.clear()
        publish()
        own = {kind: [text for text in texts if not text.startswith("--")] for kind, texts in told.items()}
        numbers.append((len(own["index"]), len(own["store"])))
    for db in (catalog.repository.index.db, catalog.repository.backend.db):
        db.set_trace_callback(None)
    assert numbers[0] == numbers[1] == numbers[2]
    assert numbers[0][0] <= 36 and numbers[0][1] <= 12
    locked = own["store"][own["store"].index("BEGIN IMMEDIATE") + 1 : own["store"].index("COMMIT")]
    assert len(locked) <= 6  # the head, the blobs, the entry


@pytest.mark.parametrize("count", [0, 10, 2000])
def test_each_hyperparameter_is_checked_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 3,000, of stacked estimators, those before were checked again for each: 4 s a publish."""
    from catalog_core import draft, values

    checked: list[int] = []
    plain = values.check_tags
    monkeypatch.setattr(draft, "check_tags", lambda tags, kind: (checked.append(len(tags)), plain(tags, kind))[1])
    given = {f"estimator{number}__depth": "x" * (number % 7) for number in range(count)}
    given["note"] = "y" * 5000  # more than one value may take
    found = draft._flat(given)
    assert sum(checked) <= count + 1 and plain(found) == found  # they have room in an event
    left = {key: value for key, value in given.items() if key not in found and key != "note"}
    for key, value in left.items():  # and those that are left out have none
        with pytest.raises(InvalidInput):
            plain({**found, key: value})
        break
    assert bool(left) == (count == 2000) and "note" not in found
