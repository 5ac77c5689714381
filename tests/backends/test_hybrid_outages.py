"""What is no outage is not called one: slow imports and replicas, wrong configuration, folders that are not mounted."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from sites import Site, World, weights

from catalog_core import replicas
from catalog_core.catalog import Catalog
from catalog_core.errors import BackendError, CatalogError, ConfigError, NotFound
from catalog_core.interfaces.store import ObjectStore, Place
from catalog_hybrid import store as hybrid_store
from catalog_hybrid.store import HybridStore

Configure = Callable[..., None]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Write `catalog.toml` with a hybrid `both` of the parts `one` and `two`, at these URLs."""

    def write(one: str, two: str) -> None:
        (tmp_path / "catalog.toml").write_text(
            f'[catalogs.one]\nurl = "{one}"\n[catalogs.two]\nurl = "{two}"\n'
            '[catalogs.both]\nurl = "hybrid://both"\nprimary = "one"\nreplicas = ["two"]\ndurability = "manual"\n'
        )
        monkeypatch.setenv("CATALOG_CONFIG", str(tmp_path / "catalog.toml"))
        monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))

    return write


# -- budgets ----------------------------------------------------------------------------------------------------------


def test_imports_are_made_before_the_time_of_a_part_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(hybrid_store, "time", clock)
    order: list[str] = []
    places = {}
    for name in ("one", "two"):
        site = Site(name)

        def load(name: str = name) -> None:
            order.append(f"{name} is imported")
            clock.sleep(100.0)  # more than anybody waits for an answer

        def connect(create: bool, name: str = name, site: Site = site) -> ObjectStore:
            order.append(f"{name} is asked")
            return site

        places[name] = Place(f"memory://{name}", connect, load)
    store = HybridStore(places, stale=True)
    store.look(create=True)
    assert store.primary == "one"
    assert order[:2] == ["one is imported", "two is imported"]
    store.look()
    assert len([step for step in order if "imported" in step]) == 2, "once is enough"


@pytest.mark.server  # where Oracle's SDK is installed
def test_built_in_places_name_what_takes_long_to_import(configure: Configure, tmp_path: Path) -> None:
    configure(f"file://{tmp_path}/one", "oci://bucket@namespace/x")
    code = (
        "import sys; from catalog_core import config; from catalog_core.backends import places\n"
        "from catalog_core.plugins import registry\n"
        "named = places(registry().backends['hybrid'], config.resolve('both'))\n"
        "assert 'oci' not in sys.modules; named['two'].load(); print('oci.object_storage' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_a_replica_that_is_slow_is_waited_for_where_nobody_else_can_stand_in(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    w.sites["cern"].away = True
    slow = w.sites["oracle"]
    slow.held = threading.Event()

    def tick(waited: float) -> None:
        if waited > 3 * hybrid_store.SOON and slow.held is not None:
            held, slow.held = slow.held, None
            held.set()

    monkeypatch.setattr(hybrid_store, "time", Clock(tick))
    w.machine("two")
    with w.open(stale=True) as reader:
        assert [version.number for version in reader.versions("m")] == [1]


def test_one_that_had_no_time_to_answer_is_not_said_to_have_no_copy(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    w.sites["cern"].away = True
    slow = w.sites["oracle"]
    slow.held = held = threading.Event()
    monkeypatch.setattr(hybrid_store, "time", Clock())
    w.machine("two")
    with pytest.raises(BackendError, match="the primary of this hybrid is away") as caught:
        w.open(stale=True)
    assert caught.value.hint == "try again: oracle had no time to answer"
    slow.held = None
    held.set()


def test_a_failover_that_took_effect_does_not_fail(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    write = replicas.write_epoch

    def then_away(store: Any, record: Any) -> None:
        write(store, record)
        for site in w.sites.values():
            site.away = True

    monkeypatch.setattr(replicas, "write_epoch", then_away)
    with caplog.at_level(logging.WARNING):
        assert catalog.failover("oracle") == 1
    assert "oracle is the primary now, from entry 1 on" in caplog.text
    for site in w.sites.values():
        site.away = False
    with w.open() as again:
        assert again.repository.parts is not None
        assert again.repository.parts.primary == "oracle"


def test_a_failover_whose_answer_was_lost_took_effect(world: Callable[..., World]) -> None:
    w = world()
    catalog = w.open()
    catalog.save("m", weights(1))
    catalog.sync()
    oracle = w.sites["oracle"]
    put = oracle.put

    def lost(key: str, *rest: Any) -> None:
        put(key, *rest)
        if key.startswith("epochs/"):
            raise BackendError("the answer was lost")

    oracle.put = lost  # type: ignore[method-assign]
    assert catalog.failover("oracle") == 1
    assert catalog.repository.parts is not None
    assert catalog.repository.parts.primary == "oracle"


# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("stale", [False, True])
def test_a_part_that_is_a_database_is_a_wrong_configuration_at_once(
    configure: Configure, tmp_path: Path, order: int, stale: bool
) -> None:
    urls = [f"file://{tmp_path}/files", f"sqlite://{tmp_path}/database"]
    configure(*urls[::order])
    with pytest.raises(ConfigError, match=r"keeps its journal in a database.*a part is a store of objects"):
        Catalog.open("both", stale=stale)
    assert not (tmp_path / "files").exists(), "nothing is made before the configuration is right"
    assert not (tmp_path / "database").exists()


def test_another_error_of_the_configuration_of_a_part_is_no_outage_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(create: bool) -> ObjectStore:
        raise ConfigError("region is unknown")

    store = HybridStore({"one": Site("one").place, "two": Place("memory://two", wrong)}, stale=True)
    with pytest.raises(ConfigError, match="region is unknown"):
        store.look(create=True)


# -- what is not mounted ----------------------------------------------------------------------------------------------


def _all_said(exc: BaseException | None) -> str:
    return (
        "" if exc is None else f"{exc}\n{_all_said(exc.__cause__ if isinstance(exc.__cause__, BackendError) else None)}"
    )


@pytest.mark.parametrize("gone", ["one", "two"])
def test_nobody_is_told_to_begin_a_catalog_where_a_part_is_not_mounted(
    configure: Configure, tmp_path: Path, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    configure(f"file://{tmp_path}/one", f"file://{tmp_path}/two")
    with Catalog.open("both") as catalog:
        catalog.save("m", weights(1))
        catalog.sync()
    (tmp_path / gone).rename(tmp_path / "elsewhere")
    said = ""
    for stale in (False, True):
        try:
            with Catalog.open("both", create=False, stale=stale) as catalog:
                said += "".join(str(part.problem) for part in catalog.replicas())
        except CatalogError as exc:
            said += _all_said(exc)
    assert "mounted" in said
    assert " init" not in said


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_nor_where_this_machine_has_seen_a_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    url = f"{scheme}://{tmp_path}/mount/catalog"
    with pytest.raises(NotFound, match="init"):
        Catalog.open(url, create=False)
    with Catalog.open(url) as catalog:
        catalog.save("m", weights(1))
    (tmp_path / "mount").rename(tmp_path / "elsewhere")
    (tmp_path / "mount").mkdir()
    with pytest.raises(NotFound, match=r"this machine has seen one there.*mounted") as caught:
        Catalog.open(url, create=False)
    assert " init" not in str(caught.value)
    (tmp_path / "mount").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "mount")
    with Catalog.open(url, create=False) as catalog:
        assert catalog.version("m").number == 1
