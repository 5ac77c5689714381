"""The servers are killed and started again at random while processes write and read: what was acknowledged is there."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import places
import pytest

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]
KILLS = {"eos": 20, "eos-sss": 6, "eos-tokens": 6, "oci": 16, "s3": 8}
CASES = [
    pytest.param("hybrid", 1, id="hybrid"),  # it writes to EOS and to OCI
    *[pytest.param(name, KILLS.get(name, 8), id=f"{name}-long", marks=pytest.mark.campaign) for name in places.REMOTE],
]


@pytest.mark.parametrize(("name", "kills"), CASES)
def test_what_was_acknowledged_outlives_the_server(tmp_path: Path, name: str, kills: int) -> None:
    chance = random.Random(f"{name} {kills}")
    with places.start(name) as place:
        target = place.fresh()
        roles = {"w0": "write", "w1": "write", "r0": "read", "r1": "read"}
        workers = [places.Worker(place, target, role, who, tmp_path / who, pause=0.1) for who, role in roles.items()]
        for worker in workers:
            worker.ready()
        for worker in workers:
            worker.go()
        spans = []
        for _ in range(kills):
            time.sleep(chance.uniform(0.3, 2.0))
            server = chance.choice(place.servers)
            begun = time.monotonic_ns()
            server.kill()
            time.sleep(chance.uniform(0.0, 1.0))
            server.start()
            spans.append((begun, time.monotonic_ns()))
        time.sleep(1)
        for worker in workers:
            worker.go()
        done = {worker.name: worker.result(120) for worker in workers}
        found = places.verified(place, target, tmp_path)
        places.followed(place, target, tmp_path, found)
    every = [record for records in done.values() for record in records]
    foreign = [record["error"] for record in every if not record.get("ours", True)]
    assert not foreign, foreign[0]
    slowest = max(every, key=lambda record: record["ended"] - record["begun"])
    saved = {
        record["result"][0]: [writer, record["result"][1]]
        for writer, records in done.items()
        for record in records
        if record["what"] == "save" and not record["error"]
    }
    assert saved.items() <= found.items(), "an acknowledged version is gone, or is another one"
    assert len({tuple(who) for who in found.values()}) == len(found), "a save was published twice"
    met = [record for record in every if any(record["begun"] < end and record["ended"] > begin for begin, end in spans)]
    assert len({record["what"] for record in met}) >= 2, "nobody was at work when the server died"
    assert max(record["ended"] for record in every if not record.get("error")) > spans[-1][1], "nobody went on"
    failed = Counter(record["error"][:150] for record in every if record.get("error"))
    print(
        f"{name}: {kills} kills, {len(saved)} of {len(found)} versions acknowledged, {len(every)} operations, "
        f"the slowest took {(slowest['ended'] - slowest['begun']) / 1e9:.1f} s, failed: {dict(failed)}"
    )
