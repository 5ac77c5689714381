"""Processes on two sites publish at once through each remote place: nothing is lost, doubled, or out of order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import places
import pytest

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
CI = ("eos", "oci", "s3", "hybrid")  # one of each kind: logins, and the order of sites, change no race
CASES = [
    *[pytest.param(name, 1.5, id=name) for name in CI],
    *[
        pytest.param(name, 20.0, id=f"{name}-long", marks=pytest.mark.campaign)
        for name in [*places.REMOTE, "files", "sqlite"]
    ],
]


def out_of_order(appends: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of appends of which the first stands before the second in the journal, but began after it had ended."""
    wrong = []
    earliest: dict[str, Any] | None = None  # the first to end of those that stand behind
    for one in sorted(appends, key=lambda append: append["result"], reverse=True):
        if earliest is not None and earliest["ended"] < one["begun"]:
            wrong.append((one, earliest))
        if earliest is None or one["ended"] < earliest["ended"]:
            earliest = one
    return wrong


def test_the_check_of_the_order_finds_what_is_out_of_order() -> None:
    spans = [(0, 1), (2, 9), (3, 4), (5, 6)]
    appends = [{"result": n, "begun": begun, "ended": ended} for n, (begun, ended) in enumerate(spans)]
    assert out_of_order(appends) == []
    appends[1]["result"], appends[0]["result"] = 0, 1
    assert [(one["result"], other["result"]) for one, other in out_of_order(appends)] == [(0, 1)]


@pytest.mark.parametrize(("name", "seconds"), CASES)
def test_two_sites_publish_at_once(running: Any, tmp_path: Path, name: str, seconds: float) -> None:
    with places.start(name, running(name)) as place:
        target = place.fresh()
        far = {"latency": 0.05, "bandwidth": 20e6} if name in places.REMOTE else {}  # seconds, bytes per second
        sites = {"w0": {}, "w1": {}, "w2": far, "w3": far}
        workers = [
            places.Worker(place, target, "write", who, tmp_path / who, seconds=seconds, **site)
            for who, site in sites.items()
        ]
        for worker in workers:
            worker.ready()
        for worker in workers:
            worker.go()
        done = {worker.name: worker.result(seconds + 120) for worker in workers}
        found = places.verified(place, target, tmp_path)
        places.followed(place, target, tmp_path, found)
    failed = [record["error"] for records in done.values() for record in records if record.get("error")]
    assert not failed, failed[:3]
    saved = {
        record["result"][0]: [writer, record["result"][1]]
        for writer, records in done.items()
        for record in records
        if record["what"] == "save"
    }
    counts = {writer: sum(record["what"] == "save" for record in records) for writer, records in done.items()}
    assert saved == found
    assert sum(counts.values()) == len(found), "a number was given out twice"
    assert min(counts.values()) > 0, counts
    appends = [record for records in done.values() for record in records if record["what"] == "append"]
    assert len({append["result"] for append in appends}) == len(appends)
    assert out_of_order(appends) == []
    print(f"{name}: {counts} versions in {seconds:g} s")
