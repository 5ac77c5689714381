"""The commands for a catalog on several sites."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog_core import Catalog
from catalog_core.epochs import Epoch, identity, read_epochs, write_epoch
from catalog_files.store import open_store


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., subprocess.CompletedProcess[str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CATALOG", raising=False)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "catalog.toml").write_text(
        'default = "both"\n[catalogs.cern]\nurl = "file://cern"\n[catalogs.oracle]\nurl = "file://oracle"\n'
        '[catalogs.both]\nbackend = "hybrid"\nprimary = "cern"\nreplicas = ["oracle"]\ndurability = "manual"\n'
    )
    (tmp_path / "weights.bin").write_bytes(bytes(range(256)) * 1000)

    assert command("init").returncode == 0
    assert command("save", "m", "weights.bin").returncode == 0
    return command


def replica(run: Any) -> dict[str, Any]:
    (found,) = [part for part in json.loads(run("replicas", "--json").stdout) if part["name"] == "oracle"]
    return dict(found)


def test_sync_says_in_bytes_what_it_would_copy_and_what_it_copied(run, tmp_path: Path) -> None:
    assert replica(run)["behind"] == 2
    planned = run("sync", "--dry-run").stdout
    assert planned.startswith("oracle: would copy 2 entries, ")
    assert not list((tmp_path / "oracle").rglob("blobs/sha256/*/*"))
    assert run("sync").stdout == planned.replace("would copy", "copied")
    assert run("sync").stdout == "oracle: is at entry 1\n"
    assert (replica(run)["behind"], replica(run)["missing"], replica(run)["damaged"]) == (0, [], [])
    assert json.loads(run("sync", "--json").stdout) == [
        {"part": "oracle", "entries": 0, "blobs": 0, "bytes": 0, "deleted": 0, "position": 1}
    ]
    assert run("sync", "nobody").returncode == 1


def test_a_watch_outlives_an_outage(run, tmp_path: Path) -> None:
    run("sync")
    run("save", "m", "weights.bin", "--tag", "n=2")
    (tmp_path / "oracle" / "journal").rename(tmp_path / "away")
    (tmp_path / "oracle" / "journal").write_text("in the way")

    def mend() -> None:
        time.sleep(2.5)
        (tmp_path / "oracle" / "journal").unlink()
        (tmp_path / "away").rename(tmp_path / "oracle" / "journal")

    thread = threading.Thread(target=mend)
    thread.start()
    done = run("sync", "--watch", "1", "--times", "8")
    thread.join()
    assert (done.returncode, done.stdout.count("copied 1 entries")) == (0, 1), (done.stdout, done.stderr)
    assert done.stderr, "what went wrong was told"
    assert replica(run)["behind"] == 0


def test_fsck_of_replicas_finds_and_mends(run, tmp_path: Path) -> None:
    run("sync")
    assert "clean" in run("fsck", "--replicas").stdout
    victim = max((tmp_path / "oracle" / "blobs").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    victim.unlink()
    done = run("fsck", "--replicas")
    assert (done.returncode, "oracle: m@1: sha256:" in done.stdout) == (1, True)
    assert "--mend" in done.stdout
    assert replica(run)["missing"] == ["m@1"]
    assert "oracle  replica" in run("replicas").stdout and "m@1 lacks blobs" in run("replicas").stdout
    assert run("fsck", "--replicas", "--mend").returncode == 0
    assert "clean" in run("fsck", "--replicas", "--deep").stdout
    assert run("fsck", "--deep").returncode == 2


def test_what_has_no_replicas_says_so(run) -> None:
    for words in (("sync",), ("replicas",), ("reconcile",), ("fsck", "--replicas"), ("hybrid", "failover", "x")):
        done = run("--catalog", "cern", *words)
        assert (done.returncode, "has no replicas" in done.stderr) == (1, True), words


def test_the_primary_is_shown_and_chosen(run) -> None:
    assert run("hybrid").stdout == "cern is the primary\n"
    assert run("hybrid", "failover", "oracle").returncode == 1, "it holds no copy"
    run("sync")
    assert json.loads(run("hybrid", "failover", "oracle", "--json").stdout) == {"primary": "oracle", "position": 1}
    assert run("hybrid").stdout == "oracle is the primary\n"
    assert run("reconcile").stdout == "nothing stands in a void branch\n"
    assert run("doctor", "--rounds", "2").returncode == 0


COMMANDS = [
    ("list",), ("show", "m@1"), ("show", "m"), ("replicas", "--quick"), ("sync",), ("fsck",), ("fsck", "--replicas"),
]  # fmt: skip


def test_what_a_failover_abandoned_is_announced_until_somebody_decides(run, tmp_path: Path) -> None:
    run("sync")
    for command in COMMANDS:
        assert run(*command).stderr == "", command
    (tmp_path / "oracle").rename(tmp_path / "oracle.out")
    assert run("save", "m", "weights.bin", "--tag", "n=2").returncode == 0
    (tmp_path / "oracle.out").rename(tmp_path / "oracle")
    (tmp_path / "cern").rename(tmp_path / "cern.out")
    assert run("hybrid", "failover", "oracle", "--force").returncode == 0
    assert "abandoned" not in run("list", "m").stderr, "nobody who is here knows of it"
    (tmp_path / "cern.out").rename(tmp_path / "cern")
    line = "1 acknowledged change, with m@2 on cern, was abandoned by a failover: `catalog reconcile` shows and brings"
    line += " back\n"
    for command in COMMANDS:
        done = run(*command)
        assert (done.returncode, done.stderr.endswith(line), done.stderr.count("\n")) == (0, True, 1), (command, done)
        assert "acknowledged" not in done.stdout
    with Catalog.open("both") as catalog:
        assert catalog.notices() == [line.strip()]
    checks = {check["id"]: check for check in json.loads(run("doctor", "both", "--read-only", "--json").stdout)}
    assert checks["epochs"]["result"] == "warned"
    assert line.strip() in checks["epochs"]["cause"]
    assert run("reconcile", "--apply").returncode == 0
    for command in COMMANDS:
        assert run(*command).stderr == "", command


def test_rival_epochs_are_announced(run, tmp_path: Path) -> None:
    run("sync")
    for number, name in ((5, "cern"), (6, "oracle")):
        store = open_store(f"file://{tmp_path}/{name}", {}, False)
        (first,) = read_epochs(store, name).values()
        owner = identity(store, create=True)
        assert owner is not None
        write_epoch(store, Epoch(number, 1, None, owner, f"someone at {name}", 0, first.id))
    for command in [("list",), ("show", "m@1"), ("replicas", "--quick"), ("fsck",)]:
        done = run(*command)
        assert done.returncode == 0, (command, done)
        assert "has rival epochs, " in done.stderr, command
        assert "choose one with `catalog hybrid failover NAME`" in done.stderr
    checks = json.loads(run("doctor", "both", "--read-only", "--json").stdout)
    assert {check["id"]: check["result"] for check in checks}["epochs"] == "warned"


def test_nothing_is_begun_where_a_folder_is_not_mounted(run, tmp_path: Path) -> None:
    """This machine has seen a catalog there; an empty folder is what is left of a mount."""
    url = f"file://{tmp_path}/mount/models"
    assert run("-c", url, "save", "m", "weights.bin").returncode == 0
    (tmp_path / "mount").rename(tmp_path / "elsewhere")
    (tmp_path / "mount").mkdir()
    for words in (("list",), ("show", "m"), ("save", "m", "weights.bin")):
        done = run("-c", url, *words)
        assert done.returncode == 1
        assert "is its place mounted?" in done.stderr
        assert " init" not in done.stderr
    assert list((tmp_path / "mount").iterdir()) == []
