"""The failover drill on real servers, which are killed: XRootD as the primary, OCI as the replica, and the reverse."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import places
import pytest

from catalog_core.catalog import Catalog
from catalog_core.config import Target, resolve
from catalog_core.errors import BackendError, PublishedNotReplicated, ReadOnly
from catalog_core.testing.faults import FaultyStore

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
SAVER = """
import sys
import numpy as np
from catalog_core.backends import connect
from catalog_core.catalog import Catalog
from catalog_core.config import resolve
catalog = Catalog(connect(resolve(sys.argv[1]), create=False), "h")
for number in range(1000):
    print(catalog.save("m", {"w": np.full(60_000, number)}).number, flush=True)
"""


@pytest.fixture(params=["hybrid", pytest.param("reverse", marks=pytest.mark.campaign)])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[places.Place]:
    """Two servers of the test's own, which it may kill."""
    with places.start(request.param) as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        yield place


@pytest.fixture
def opened(site: places.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Catalog]]:
    """Open a hybrid (or a part of it, directly) on a machine that has never seen it, or on one that has."""
    made: list[Catalog] = []

    def open(target: Target, machine: str, *, durability: str = "manual", stale: bool = False) -> Catalog:
        import attrs

        monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / machine))
        options = dict(target.options)
        if "replicas" in options:
            options["durability"] = durability
        target = attrs.evolve(target, options=options, stale=stale)
        catalog = Catalog(site.connect(target), "h", max_staleness=0, stale=stale)
        if catalog.repository.index.head is None:
            catalog.repository.begin()
        made.append(catalog)
        return catalog

    yield open
    for catalog in made:
        catalog.close()


def weights(seed: int) -> dict[str, Any]:
    return {"w": np.random.default_rng(seed).normal(size=60_000)}


def test_the_drill(site: places.Place, opened: Callable[..., Catalog]) -> None:
    target = site.fresh()
    primary, replica = target.options["primary"], target.options["replicas"][0]
    near = site.servers[0]
    catalog = opened(target, "one")
    catalog.save("m", weights(1))
    catalog.sync()
    catalog.save("m", weights(2), alias="best")  # acknowledged, not replicated
    near.kill()

    with pytest.raises(BackendError, match="the primary of this hybrid is away"):
        opened(target, "two")
    reader = opened(target, "two", stale=True)
    assert [version.number for version in reader.versions("m")] == [1]
    assert (reader.load("m@1")["w"] == weights(1)["w"]).all()
    with pytest.raises(ReadOnly):
        reader.save("m", weights(9))
    reader.failover(replica)
    after = opened(target, "two", stale=True)
    assert after.save("m", weights(3)).ref == "m@2"

    near.start()
    catalog = opened(target, "three")
    assert {part.name: part.role for part in catalog.replicas(blobs=False)} == {primary: "replica", replica: "primary"}
    with pytest.raises(ReadOnly, match="another store is the primary"):
        opened(resolve(primary), "direct").save("m", weights(9))
    assert [(void.outcome, void.becomes) for void in catalog.reconcile()] == [("renumber", ("m@3",))]
    catalog.reconcile(apply=True, renumber=True)
    catalog.sync()
    assert not catalog.audit(deep=True).flaws
    for name in (primary, replica):
        with opened(resolve(name), f"at-{name}") as part:
            assert [version.number for version in part.versions("m")] == [3, 2, 1]
            assert (part.load("m@best")["w"] == weights(2)["w"]).all()
            assert part.fsck().clean


def test_a_replica_that_dies_is_told_and_completed_by_a_retry(
    site: places.Place, opened: Callable[..., Catalog]
) -> None:
    target = site.fresh()
    catalog = opened(target, "one", durability="sync")
    catalog.save("m", weights(1))
    site.servers[1].kill()
    with pytest.raises(PublishedNotReplicated):
        catalog.save("m", weights(2))
    assert [version.number for version in catalog.versions("m")] == [2, 1]
    site.servers[1].start()
    catalog.sync()
    with opened(resolve(target.options["replicas"][0]), "two") as part:
        assert (part.load("m@2")["w"] == weights(2)["w"]).all()


def test_a_reader_goes_on_when_the_primary_dies_under_it(site: places.Place, opened: Callable[..., Catalog]) -> None:
    target = site.fresh()
    catalog = opened(target, "one")
    for seed in range(3):
        catalog.save("m", weights(seed))
    catalog.sync()
    reader = opened(target, "two", stale=True)
    assert (reader.load("m@1")["w"] == weights(0)["w"]).all()
    site.servers[0].kill()
    assert (reader.load("m@2")["w"] == weights(1)["w"]).all()
    assert (reader.load("m@3")["w"] == weights(2)["w"]).all()


def test_a_writer_that_is_killed_leaves_copies_that_can_be_completed(
    site: places.Place, opened: Callable[..., Catalog], tmp_path: Path
) -> None:
    target = site.fresh()
    parts = f'primary = "{target.options["primary"]}"\nreplicas = ["{target.options["replicas"][0]}"]\n'
    config = Path(site.environment["CATALOG_CONFIG"])
    with config.open("a") as file:
        file.write(f'[catalogs.both]\nbackend = "hybrid"\ndurability = "sync"\n{parts}')
    opened(target, "one")
    saved = 0
    for number in range(4):
        process = subprocess.Popen([sys.executable, "-c", SAVER, "both"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(3):
            saved = int(process.stdout.readline())
        time.sleep(0.02 * number)
        process.kill()
        process.wait()
    catalog = opened(target, "two")
    assert len(catalog.versions("m")) >= saved
    catalog.sync()
    assert not catalog.audit(deep=True).flaws
    with opened(resolve(target.options["replicas"][0]), "three") as part:
        assert len(part.versions("m")) == len(catalog.versions("m"))
        assert part.fsck().clean


def test_blobs_come_from_the_near_site(site: places.Place, opened: Callable[..., Catalog]) -> None:
    target = site.fresh()
    catalog = opened(target, "one")
    catalog.save("m", {"w": np.random.default_rng(0).normal(size=2_000_000)})
    catalog.sync()
    reader = opened(target, "two")
    store = reader.repository.backend.store
    slow = store.parts[target.options["primary"]]
    slow._store = counted = FaultyStore(slow.store(), latency=0.05, bandwidth=20e6)
    slow.look(False)
    reader.load("m@1")
    assert counted.calls["get"] < 4, "entries and the identity, and no blob"
