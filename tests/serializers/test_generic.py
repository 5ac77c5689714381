"""Folders with a `score.py`: kept as they are, and run only where somebody said that the author is trusted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import NotTrusted, SerializationError
from catalog_generic.model import GenericModel

SCORE = """
import json, pathlib
import helper
HERE = pathlib.Path(__file__).parent
(HERE.parent / "canary").write_text("ran") if (HERE / "canary.txt").exists() else None

def load_model():
    return json.loads((HERE / "weights" / "w.json").read_text())

def predict(x, shift, model=load_model()):
    return {"y": helper.scale(x, model["factor"]) + shift, "n": [len(x)]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "w.json").write_text('{"factor": 3.0}')
    (folder / "helper.py").write_text("def scale(x, factor):\n    return x * factor\n")
    (folder / "score.py").write_text(SCORE)
    return folder


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield catalog


EXAMPLE = {"x": np.arange(3.0), "shift": np.ones(3)}


def test_a_folder_is_saved_without_running_it(catalog: Catalog, folder: Path) -> None:
    (folder / "canary.txt").write_text("tell")
    version = catalog.save("g", folder, serializer="generic", entry_points={"predict": "model"})
    assert version.params["inputs"] == "x, shift"
    with pytest.raises(NotTrusted, match=r"score\.py"):
        catalog.load("g")
    with pytest.raises(NotTrusted), catalog.session("g") as session:
        session.run("predict", EXAMPLE)
    with pytest.raises(NotTrusted, match="an example would run"):
        catalog.save("g", folder, serializer="generic", example=EXAMPLE)
    with pytest.raises(NotTrusted):
        GenericModel(folder)
    target = catalog.download("g", folder.parent / "out")
    assert (target / "weights/w.json").read_text() == '{"factor": 3.0}'
    assert not (folder.parent / "canary").exists(), "score.py ran"


def test_with_trust_it_runs(catalog: Catalog, folder: Path) -> None:
    catalog.save("g", GenericModel(folder, trust=True), example=EXAMPLE)
    with catalog.session("g", trust=True) as session:
        outputs = session.predict(x=np.arange(4.0), shift=np.zeros(4))
        assert session.entry_points["predict"].inputs[1].name == "shift"
    np.testing.assert_array_equal(outputs["y"], 3 * np.arange(4.0))
    loaded = catalog.load("g", trust=True)
    assert loaded.predict(x=np.ones(1), shift=np.ones(1))["y"][0] == 4.0
    place = loaded.folder
    assert place.exists()
    assert "helper" not in sys.modules


def test_verify_skips_it_or_runs_it_in_a_fresh_process(catalog: Catalog, folder: Path) -> None:
    with catalog.prepare("g", GenericModel(folder, trust=True), example=EXAMPLE) as draft:
        report = draft.verify()
        assert report.passed
        assert {c.id: c.result for c in report.checks}["load:model"] == "skipped"
        assert {c.id: c.result for c in report.checks}["run:predict"] == "skipped"
        report = draft.verify(trust=True)
        assert report.passed, report.reason
        assert {c.id: c.result for c in report.checks}["match:predict"] == "passed"
        draft.save()
    assert catalog.verify("g", trust=True).passed
    assert {c.id: c.result for c in catalog.verify("g").checks}["load:model"] == "skipped"


def test_two_models_have_helpers_of_their_own(catalog: Catalog, folder: Path) -> None:
    catalog.save("a", folder, serializer="generic")
    (folder / "helper.py").write_text("def scale(x, factor):\n    return -x\n")
    catalog.save("b", folder, serializer="generic")
    a, b = (catalog.load(name, trust=True) for name in "ab")
    assert [float(m.predict(x=np.ones(1), shift=np.zeros(1))["y"][0]) for m in (a, b, a)] == [3.0, -1.0, 3.0]


@pytest.mark.parametrize(
    "source, cause",
    [
        (None, "holds no score.py"),
        ("def predict(x, model): ...", "does not define load_model"),
        ("def load_model(): ...", "does not define predict"),
        ("this is no Python", "is no Python"),
        ("(" * 5000, "is no Python"),
        ("def load_model(): ...\ndef predict(x, /, model): ...", "by position"),
    ],
)
def test_a_folder_that_cannot_be_one_is_refused(catalog: Catalog, folder: Path, source: str | None, cause: str) -> None:
    if source is None:
        (folder / "score.py").unlink()
    else:
        (folder / "score.py").write_text(source)
    with pytest.raises(SerializationError, match=cause):
        catalog.save("g", folder, serializer="generic")


def test_links_are_refused(catalog: Catalog, folder: Path) -> None:
    (folder / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(SerializationError, match="is a link"):
        catalog.save("g", folder, serializer="generic")


def test_what_the_author_raises_is_one_line(catalog: Catalog, folder: Path) -> None:
    (folder / "weights" / "w.json").write_text("{")
    catalog.save("g", folder, serializer="generic")
    with pytest.raises(SerializationError, match="cannot load its model: JSONDecodeError"):
        catalog.load("g", trust=True)


def test_outputs_that_are_no_numbers_are_an_error(catalog: Catalog, folder: Path) -> None:
    (folder / "score.py").write_text("def load_model(): ...\ndef predict(x): return ['a', 'b']\n")
    with pytest.raises(SerializationError, match="no array of numbers"):
        catalog.save("g", GenericModel(folder, trust=True), example={"x": np.ones(2)})


def test_the_command_names_the_serializer(folder: Path, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "catalog_cli", "--catalog", str(tmp_path / "c"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    assert run("save", "g", str(folder), "--serializer", "generic").startswith("g@1")
    assert "skipped" in run("verify", "g")
    told = run("verify", "g", "--trust")
    assert "load:model" in told
    assert "skipped" not in told
