"""A saved folder comes back as a folder; what is saved without an example says so, and what a session lacks."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.content import ComponentReader
from catalog_core.errors import IntegrityError, InvalidInput, InvalidName


@pytest.fixture(params=["sqlite", "file"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"{request.param}://{tmp_path}/catalog") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    (made / "deep").mkdir(parents=True)
    (made / "deep" / "run.sh").write_text("#!/bin/sh\n")
    (made / "deep" / "run.sh").chmod(0o755)
    (made / "notes.md").write_text("# Notes\n")
    (made / "large.bin").write_bytes(np.random.default_rng(0).bytes(100_000))
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_loaded_as_a_read_only_folder(catalog: Catalog, folder: Path) -> None:
    version = catalog.save("data", folder)
    for loaded in (catalog.load("data"), version.load(), version.load("model", trust=True)):
        assert isinstance(loaded, Path)
        assert content(loaded) == content(folder)
        assert not [path for path in (loaded, *loaded.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o222]
        assert os.access(loaded / "deep" / "run.sh", os.X_OK)
    assert catalog.load("data") != catalog.load("data")  # nobody damages what another one reads
    assert catalog.fsck().clean


def test_a_file_is_loaded_in_its_folder(catalog: Catalog, folder: Path) -> None:
    catalog.save("note", folder / "notes.md")
    assert content(catalog.load("note")) == {"notes.md": b"# Notes\n"}


def test_a_folder_is_loaded_into_a_new_one(catalog: Catalog, folder: Path, tmp_path: Path) -> None:
    catalog.save("data", folder)
    made = catalog.load("data", into=tmp_path / "new" / "place")
    assert made == tmp_path / "new" / "place" and content(made) == content(folder)
    (made / "notes.md").write_text("mine")
    for wrong, says in ((made, "not an empty folder"), ({"a": 1}, "go into a folder")):
        with pytest.raises(InvalidInput, match=says):
            catalog.load("data", into=wrong)
    with pytest.raises(InvalidInput, match="as they are"):
        catalog.load("data", as_="numpy")


@pytest.mark.parametrize("way", ["into a new folder", "into an empty folder", "download", "download of two"])
@pytest.mark.parametrize("error", [IntegrityError("a wrong byte"), KeyboardInterrupt()], ids=["wrong byte", "Ctrl-C"])
def test_what_breaks_off_leaves_no_part_of_a_model(
    catalog: Catalog, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, error: BaseException
) -> None:
    catalog.save("data", components={"one": folder, "two": folder})
    plain, given, target = ComponentReader.pieces, 0, tmp_path / "new" / "place"
    if way == "into an empty folder":
        target.mkdir(parents=True)

    def pieces(self: ComponentReader, name: str) -> Iterator[Any]:
        nonlocal given
        for piece in plain(self, name):
            given += 1
            yield piece
            if given == (5 if way == "download of two" else 2):
                raise error

    def write() -> Any:
        if way == "download of two":
            return catalog.download("data", target)
        return catalog.download("data#one", target) if way == "download" else catalog.load("data#one", into=target)

    monkeypatch.setattr(ComponentReader, "pieces", pieces)
    with pytest.raises(type(error)):
        write()
    assert given and not [path for path in tmp_path.joinpath("new").rglob("*") if path.is_file()]
    assert target.exists() == (way in ("into an empty folder", "download of two"))
    monkeypatch.undo()
    assert content(write()).values() and content(target)  # the same place may be named once more


def test_a_folder_beside_weights_is_one_of_the_components(catalog: Catalog, folder: Path) -> None:
    catalog.save("net", components={"weights": {"w": np.ones(3)}, "tokens": folder})
    parts = catalog.load("net")
    assert content(parts["tokens"]) == content(folder)
    assert parts["weights"]["w"].sum() == 3
    assert content(catalog.load("net#tokens")) == content(folder)


def test_to_ask_whether_there_is_a_component_loads_none(catalog: Catalog) -> None:
    catalog.save("net", components={"one": {"w": np.ones(3)}, "two": {"w": np.ones(3)}})
    parts = catalog.load("net")
    assert "one" in parts and "three" not in parts and 5 not in parts and [] not in parts and not parts._loaded
    assert parts["one"]["w"].sum() == 3 and list(parts._loaded) == ["one"]


def test_a_loaded_folder_that_was_removed_before_the_process_ends_is_no_error(catalog: Catalog, folder: Path) -> None:
    catalog.save("data", folder)
    code = (
        "import shutil, sys; from catalog_core import Catalog\n"
        "with Catalog.open(sys.argv[1]) as c: place, other = c.load('data').parent, c.load('data').parent\n"
        "for path in (place, *place.rglob('*')): path.chmod(0o700)\n"
        "shutil.rmtree(place); print(other)"
    )
    done = subprocess.run([sys.executable, "-c", code, catalog.url], capture_output=True, text=True, check=True)
    assert not done.stderr and not Path(done.stdout.strip()).exists()


def test_loaded_folders_go_when_their_process_ends(catalog: Catalog, folder: Path) -> None:
    """And not when a process that was forked from it does."""
    catalog.save("data", folder)
    code = (
        "import os, sys; from catalog_core import Catalog\n"
        "with Catalog.open(sys.argv[1]) as c: place = c.load('data')\n"
        "child = os.fork()\n"
        "if not child: sys.exit(0)\n"
        "os.waitpid(child, 0); print(place); print(place.joinpath('notes.md').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", code, catalog.url], capture_output=True, text=True, check=True)
    place, text = done.stdout.splitlines()[:2]
    assert text == "# Notes"
    assert not Path(place).exists() and not Path(place).parent.exists()


def test_a_session_says_what_it_lacks(catalog: Catalog, folder: Path) -> None:
    catalog.save("data", folder)
    catalog.save("weights", {"w": np.ones(3)})
    for name in ("data", "weights"):
        with pytest.raises(InvalidInput, match=f"{name}@1 has no entry point.*without an example") as caught:
            catalog.session(name)
        assert "example=" in str(caught.value.hint)


def test_what_could_run_and_has_no_example_says_so_when_it_is_saved(catalog: Catalog) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x = np.arange(8.0).reshape(4, 2)
    model = linear.LinearRegression().fit(x, x.sum(1))
    with pytest.warns(UserWarning, match="m@1 has no example: it can be loaded, and no session runs it"):
        catalog.save("m", model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        catalog.save("m", model, example=x)
        catalog.save("m", {"w": x})  # a dictionary of arrays is run by nothing


def test_a_session_takes_calls_as_python_does(catalog: Catalog) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x = np.arange(8.0).reshape(4, 2)
    model = linear.LinearRegression().fit(x, x.sum(1))
    with pytest.raises(InvalidName, match="cannot be called 'run'"):
        catalog.save("m", model, example=x, entry_points={"run": "model"})
    catalog.save("m", model, example=x)
    with catalog.session("m") as session:
        name = session.entry_points["predict"].inputs[0].name
        np.testing.assert_allclose(session.predict(x), x.sum(1))
        np.testing.assert_allclose(session.predict(**{name: x}), x.sum(1))
        for call in (
            lambda: session.predict(x, 17, "junk"), lambda: session.predict(x, **{name: x}),
            lambda: session.predict(x, more=1), lambda: session.predict(),
        ):  # fmt: skip
            with pytest.raises(InvalidInput):
                call()


def test_what_was_put_together_once_is_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "theirs"))
    with Catalog.open(tmp_path / "c") as catalog:
        catalog.save("m", {"w": np.arange(200_000.0), "v": np.ones(5)})
    hashed: list[str] = []
    known = ComponentReader._hold
    monkeypatch.setattr(ComponentReader, "_hold", lambda *args: (hashed.append(args[1]), known(*args))[1])
    with Catalog.open(tmp_path / "c") as catalog:
        catalog.load("m")  # the machine that saved it put it together itself
    assert hashed == []
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "ours"))
    for _ in range(2):
        with Catalog.open(tmp_path / "c") as catalog:
            catalog.load("m")
    assert hashed == ["model.safetensors"]
