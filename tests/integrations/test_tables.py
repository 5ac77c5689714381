"""The SQLite export: all of the catalog, what changed since, and nothing but that."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import catalog_tables.export
from catalog_core.catalog import Catalog
from catalog_core.errors import BackendError, BlobMissing, InvalidInput
from catalog_core.testing.memory import memory_catalog
from catalog_tables.schema import OF_VERSION, TABLES

DOCS = Path(__file__).parents[2] / "docs/reference/sqlite-export.md"


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(tmp_path / "catalog") as catalog:
        for number in range(6):
            catalog.save(
                f"calo/{number % 3}",
                {"w": np.full(3, number, np.float32)},
                tags={"team": "cms", "n": number, "ok": True},
                metrics={"auc": number / 10},
                params={"lr": 0.5, "why": None},
                description="Photon showers",
                alias="best",
                taxonomy={"task": "other"},
            )
        yield catalog


def contents(path: Path) -> dict[str, Any]:
    """All rows but ids and the time of the export, and what the full text finds; sound, and every reference kept."""
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    found: dict[str, Any] = {}
    for table in TABLES:
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[1] != "id"]
        found[table] = sorted(map(repr, db.execute(f"SELECT {', '.join(columns)} FROM {table}")))
    found["catalog"] = [row for row in found["catalog"] if "exported" not in row]
    matches = "SELECT v.ref FROM versions_fts f JOIN versions v ON v.id = f.rowid WHERE versions_fts MATCH ?"
    found["texts"] = [sorted(db.execute(matches, [word])) for word in ("cms", "photon", "new", "atlas")]
    db.close()
    return found


def test_all_of_it_can_be_asked_with_sql(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    assert catalog.export(None, path, format="sqlite") == path
    catalog.version("calo/0@1").attach("notes.txt", b"123")
    catalog.save("child", {"w": np.zeros(2)}, parents=["calo/0@1"])
    catalog.export(None, path, format="sqlite")
    db = sqlite3.connect(path)
    frame = pandas.read_sql("SELECT ref, m.value FROM versions v JOIN metrics m ON m.version = v.ref", db)
    assert dict(zip(frame["ref"], frame["value"], strict=True))["calo/2@2"] == 0.5
    assert db.execute("SELECT version FROM aliases WHERE model = 'calo/1'").fetchall() == [("calo/1@2",)]
    typed = db.execute("SELECT key, value, type FROM tags WHERE version = 'calo/1@1' ORDER BY key").fetchall()
    assert typed == [("n", "1", "int"), ("ok", "true", "bool"), ("team", "cms", "str")]
    params = db.execute("SELECT key, value, number, type FROM parameters WHERE version = 'calo/1@1'").fetchall()
    assert sorted(params) == [("lr", "0.5", 0.5, "float"), ("why", None, None, "null")]
    assert db.execute("SELECT version, name, size FROM attachments").fetchall() == [("calo/0@1", "notes.txt", 3)]
    assert db.execute("SELECT version, ref FROM parents").fetchall() == [("child@1", "calo/0@1")]
    assert db.execute("SELECT DISTINCT name, serializer FROM components").fetchall() == [("model", "safetensors")]
    told = [json.loads(row[0])["type"] for row in db.execute("SELECT data FROM events ORDER BY position, ordinal")]
    assert told == [event.type for event in catalog.history()]
    db.close()


def change(catalog: Catalog) -> None:
    """Something of every kind."""
    catalog.model("calo/0").update(title="Zero", description="new words")
    catalog.model("calo/0").set_card("# Card")
    catalog.version("calo/0@1").tag(experiment="atlas").annotate(auc=0.99)
    catalog.version("calo/0@2").promote("validated")
    catalog.version("calo/1@2").delete()
    catalog.version("calo/1@1").alias("old")
    catalog.model("calo/2").delete()
    catalog.save("another", {"w": np.zeros(1)}, tags={"team": "new"})


def test_a_second_export_writes_what_changed_and_equals_a_first_one(catalog: Catalog, tmp_path: Path) -> None:
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    catalog.export(None, one, format="sqlite")
    untouched = "SELECT v.id FROM versions v WHERE ref = 'calo/1@1'"
    db = sqlite3.connect(one)
    catalog.version("calo/0@2").tag(again=1)
    before = db.execute(untouched).fetchone()
    catalog.export(None, one, format="sqlite")
    assert db.execute(untouched).fetchone() == before, "what nobody changed is not written again"
    change(catalog)
    catalog.export(None, one, format="sqlite")
    catalog.export(None, other, format="sqlite")
    assert contents(one) == contents(other)
    catalog.model("calo/2", deleted=True).restore()
    catalog.version("calo/1@2", deleted=True).restore()
    catalog.model("another").delete()
    catalog.erase("calo/0@1", "a mistake")
    catalog.export(None, one, format="sqlite")
    other.unlink()
    catalog.export(None, other, format="sqlite")
    assert contents(one) == contents(other)
    assert catalog.export(None, one, format="sqlite") == one, "nothing new is fine"
    assert contents(one) == contents(other)
    db.close()


def test_a_journal_that_goes_on_from_an_earlier_entry_is_written_anew(catalog: Catalog, tmp_path: Path) -> None:
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    for void in (
        "UPDATE events SET actor = 'rival' WHERE position = 6",
        "UPDATE catalog SET value = 99 WHERE key = 'position'",
    ):
        catalog.export(None, one, format="sqlite")
        db = sqlite3.connect(one)
        db.execute(void)  # as entries that a failover made void
        db.execute("DELETE FROM metrics")
        db.commit()
        db.close()
        catalog.export(None, one, format="sqlite")
        other.unlink(missing_ok=True)
        catalog.export(None, other, format="sqlite")
        assert contents(one) == contents(other)


def test_only_an_export_of_this_catalog_is_written_over(catalog: Catalog, tmp_path: Path) -> None:
    text, foreign, mine = tmp_path / "notes.txt", tmp_path / "foreign.db", tmp_path / "mine.db"
    text.write_text("what I thought of")
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE models (name TEXT)")
    db.close()
    with memory_catalog() as third:
        third.save("m", {"w": np.zeros(1)})
        third.export(None, mine, format="sqlite")
    for path, why in ((text, "no SQLite database"), (foreign, "something else"), (mine, "another catalog")):
        before = path.read_bytes()
        with pytest.raises(InvalidInput, match=why):
            catalog.export(None, path, format="sqlite")
        assert path.read_bytes() == before
    with pytest.raises(InvalidInput, match="leave the reference out"):
        catalog.export("calo/0", tmp_path / "x.db", format="sqlite")
    with pytest.raises(InvalidInput, match="holds no whole catalog"):
        catalog.export(None, tmp_path / "x.db")
    with pytest.raises(BackendError, match="cannot be written"):
        catalog.export(None, tmp_path / "nowhere" / "x.db", format="sqlite")
    assert not (tmp_path / "x.db").exists()


KILLED = """
import os, signal, sys
from catalog_core import Catalog
from catalog_tables import export
put = export._add
def killed(db, versions):
    put(db, versions)
    os.kill(os.getpid(), signal.SIGKILL)
export._add = killed
Catalog.open(sys.argv[1]).export(None, sys.argv[2], format="sqlite")
"""


def test_a_killed_export_leaves_the_state_before(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    catalog.export(None, path, format="sqlite")
    before = contents(path)
    change(catalog)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "catalog"), str(path)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert contents(path) == before
    catalog.export(None, path, format="sqlite")
    other = tmp_path / "other.db"
    catalog.export(None, other, format="sqlite")
    assert contents(path) == contents(other)


def test_a_full_disk_is_one_sentence(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    catalog.export(None, path, format="sqlite")
    before = contents(path)
    change(catalog)
    code = (
        "import resource, signal, sys; from catalog_core import Catalog; from catalog_core.errors import CatalogError\n"
        "catalog = Catalog.open(sys.argv[1]); catalog.history(limit=1)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try: catalog.export(None, sys.argv[2], format='sqlite')\n"
        "except CatalogError as exc: print(type(exc).__name__, exc.message)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "catalog"), str(path)]
    told = subprocess.run(command, capture_output=True, text=True)
    wanted = rf"(BackendError|NoSpace) {re.escape(str(path))} cannot be written: .*\n"
    assert re.fullmatch(wanted, told.stdout), told
    assert contents(path) == before


def test_the_page_tells_the_tables_as_they_are(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    catalog.export(None, path, format="sqlite")
    told = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", DOCS.read_text(), re.MULTILINE))
    db = sqlite3.connect(path)
    found = {t: ", ".join(row[1] for row in db.execute(f"PRAGMA table_info({t})")) for t in TABLES}
    assert told == found
    for table in OF_VERSION:
        assert {row[2:5] for row in db.execute(f"PRAGMA foreign_key_list({table})")} == {("versions", "version", "ref")}
    db.close()


def test_history_behind_a_position_comes_in_whole_entries(catalog: Catalog) -> None:
    everything = catalog.history()
    found = []
    after = -1
    while page := catalog.history(limit=2, after=after):
        after = page[-1].position
        found += page
    assert found == everything
    assert [event.position for event in catalog.history("calo/1", after=1, limit=1)] == [2, 2], "with its alias"


def test_a_table_that_was_emptied_is_told(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "out.db"
    catalog_tables.export.write(catalog, path)
    for change in ("UPDATE catalog SET value = 'x' WHERE key = 'position'", "DELETE FROM catalog WHERE key = 'id'",
                   "DELETE FROM catalog"):  # fmt: skip
        with sqlite3.connect(path) as db:
            db.execute(change)
        db.close()
        with pytest.raises(InvalidInput, match="no longer says which catalog"):
            catalog_tables.export.write(catalog, path)


def test_a_first_export_that_fails_leaves_no_file(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise BackendError("the store is gone")

    path, there = tmp_path / "out.db", tmp_path / "there.db"
    catalog_tables.export.write(catalog, there)
    before = there.read_bytes()
    monkeypatch.setattr("catalog_tables.export._begun", fails)
    for place in (path, there):
        with pytest.raises(BackendError, match="the store is gone"):
            catalog_tables.export.write(catalog, place)
    assert not path.exists() and there.read_bytes() == before


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory", "file:%2e%2e/y.db", "file:a.db?mode=ro"])
def test_a_path_is_a_path_whatever_sqlite_makes_of_it(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    catalog.export(None, name, format="sqlite")
    assert contents(tmp_path / name)["models"]


def test_a_pipe_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path):
        with pytest.raises(InvalidInput, match="is no file"):
            catalog.export(None, path, format="sqlite")


def test_a_damaged_export_is_one_error_with_the_way_out(catalog: Catalog, tmp_path: Path) -> None:
    catalog.export(None, tmp_path / "a.db", format="sqlite")
    whole, bad = (tmp_path / "a.db").read_bytes(), tmp_path / "bad.db"
    for old, new in ((b"CREATE TABLE", b"CRE\xffTE TABLE"), (b"CREATE TABLE", b"KREATE TABLE")):
        assert old in whole
        bad.write_bytes(whole.replace(old, new))
        with pytest.raises(BackendError, match="is damaged") as caught:
            catalog.export(None, bad, format="sqlite")
        assert "name a new file" in str(caught.value.hint)
    with sqlite3.connect(tmp_path / "a.db") as db:
        db.execute("UPDATE catalog SET value = CAST(x'e5e5' AS TEXT) WHERE key = 'name'")
    db.close()
    with pytest.raises(BackendError, match="is damaged"):
        catalog.export(None, tmp_path / "a.db", format="sqlite")


def test_a_lost_card_costs_one_card(catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog.model("calo/0").set_card("of zero")
    catalog.model("calo/1").set_card("of one")
    digest = catalog.model("calo/1").card_digest
    blob = catalog.repository.content.blob
    with pytest.MonkeyPatch.context() as patch:

        def lost(key: str, what: str, *more: Any) -> bytes:
            if key == digest:
                raise BlobMissing(f"{what} is gone")
            return blob(key, what, *more)

        patch.setattr(catalog.repository.content, "blob", lost, raising=False)
        catalog.export(None, tmp_path / "a.db", format="sqlite")
    with sqlite3.connect(tmp_path / "a.db") as db:
        rows = dict(db.execute("SELECT name, card FROM models"))
    db.close()
    assert rows == {"calo/0": "of zero", "calo/1": None, "calo/2": None}
    assert "card of calo/1" in caplog.text
