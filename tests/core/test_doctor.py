"""The doctor finds what a catalog could not live with, and touches nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from catalog_core import Catalog, config, doctor
from catalog_core.interfaces.store import BlobInfo
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.records import Check
from catalog_core.testing.memory import MemoryStore


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))


def results(checks: Iterator[Check]) -> dict[str, str]:
    return {check.id: check.result for check in checks}


@pytest.mark.server
def test_a_good_place_passes_and_the_race_is_noted(tmp_path: Path) -> None:
    target = config.resolve(f"file://{tmp_path / 'shared'}")
    with Catalog.open(target.url) as catalog:
        catalog.save("m", {"w": [1.0]})
    found = results(doctor.examine(target, rounds=5))
    for name in ("open", "write", "read", "stat", "list", "exclusive", "race", "delete"):
        assert found[name] == "passed", found
    assert [path.name for path in (tmp_path / "shared/probes").rglob("*") if path.is_file()] == ["exclusive"]
    with Catalog.open(target.url) as catalog:
        assert catalog.fsck().clean


@pytest.mark.server
def test_the_command_shows_a_table_and_fails_where_a_check_does(tmp_path: Path) -> None:
    import json
    import subprocess
    import sys

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "catalog_cli", *args], capture_output=True, text=True, timeout=120)

    done = run("doctor", f"file://{tmp_path / 'new'}", "--rounds", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert {"race", "exclusive"} <= {row["id"] for row in json.loads(done.stdout)}
    (tmp_path / "file").write_text("")
    done = run("doctor", f"file://{tmp_path / 'file' / 'below'}")
    assert done.returncode == 1
    assert "failed" in done.stdout


def test_nothing_is_written_where_that_is_asked_for(tmp_path: Path) -> None:
    target = config.resolve(f"file://{tmp_path / 'shared'}")
    Catalog.open(target.url).close()
    assert results(doctor.examine(target, write=False))["probe"] == "skipped"
    assert not (tmp_path / "shared/probes").exists()


def test_what_does_not_apply_is_said(tmp_path: Path) -> None:
    found = list(doctor.examine(config.resolve(tmp_path / "local")))
    assert found[-1].result == "skipped"
    assert "transactions" in found[-1].cause


class Careless(MemoryStore):
    """`exclusive` is not."""

    def put(self, key: str, stream: BinaryIO, size: int, mode: Any) -> None:
        super().put(key, stream, size, "hint")


class Forgetful(MemoryStore):
    """Lists what is not there, and not what is."""

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        yield BlobInfo(prefix + "ghost", 1, 0.0)


class Garbling(MemoryStore):
    """Gives back other bytes."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        stream = super().get(key, start, length)
        stream.seek(1)
        return stream


class Late(MemoryStore):
    """Its clock is an hour off."""

    def stat(self, key: str) -> BlobInfo | None:
        info = super().stat(key)
        return info and BlobInfo(key, info.size, info.time - 3600)


@pytest.mark.parametrize(
    ("kind", "fails"), [(Careless, "exclusive"), (Forgetful, "list"), (Garbling, "read"), (Late, "stat")]
)
def test_a_store_that_breaks_a_promise_is_found(
    kind: type[MemoryStore], fails: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = kind()
    monkeypatch.setattr(doctor, "connect", lambda target, create: ObjectStoreBackend(store, "memory", "memory://x"))
    found = {check.id: check for check in doctor.examine(config.resolve(f"file://{tmp_path}"))}
    assert found[fails].result == "failed"
    assert "not safe here" in found[fails].cause
    assert found["race"].result == "skipped"
    assert MemoryStore.stat(store, "probes/exclusive") is None


def test_a_race_without_a_single_winner_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Pool:
        """The same work, one process after the other."""

        def __init__(self, count: int) -> None: ...
        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None: ...

        def starmap_async(self, call: Any, work: list[Any]) -> Any:
            results = [call(*item) for item in work]
            return type("Done", (), {"get": lambda self, timeout: results})()

    store = Careless()
    monkeypatch.setattr(doctor, "connect", lambda target, create: ObjectStoreBackend(store, "memory", "memory://x"))
    monkeypatch.setattr(doctor.multiprocessing, "get_context", lambda kind: type("Context", (), {"Pool": Pool}))
    with pytest.raises(AssertionError, match="3 of 3 races had no single winner"):
        doctor.race(config.resolve(f"file://{tmp_path}"), "probes/x", 3)
