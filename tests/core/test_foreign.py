"""Formats of other programs: plug-ins that read a folder into a draft, or write one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import numpy as np
import pytest

from catalog_core.catalog import Catalog
from catalog_core.errors import (
    BackendError,
    IntegrityError,
    InvalidInput,
    MissingPlugin,
    NoSpace,
    NotFound,
    NotTrusted,
    SerializationError,
)
from catalog_core.plugins import Registry
from catalog_core.records import Foreign, Stored
from catalog_core.specs import FormatSpec
from catalog_core.testing.memory import memory_catalog

NAME = "catalog_test_formats"


def read(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """A folder with `model.txt`, `card.txt` and perhaps `code.pkl`."""
    if (path / "code.pkl").exists() and not unsafe:
        raise NotTrusted("it holds a pickle", hint="--unsafe")
    assert list(scratch.iterdir()) == []
    (scratch / "made.txt").write_text((path / "model.txt").read_text().upper())
    return Foreign(
        {"model": scratch / "made.txt"},
        {"tags": {"from": "there"}},
        {"run": "r1"},
        {"card.txt": path / "card.txt"},
        ("colour is not taken over",),
        name="from-there",
    )


def read_stored(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """A component as safetensors wrote it, beside a `score.py`; `meta.json` is what was noted of the first."""
    code = Stored("generic", path / "code", {"inputs": ["x"]})
    weights = Stored("safetensors", path / "weights", json.loads((path / "meta.json").read_text()))
    return Foreign({"weights": weights, "code": code}, {"entry_points": {"predict": "code"}})


def pack(folder: Path, file: Path) -> None:
    file.write_text(",".join(sorted(path.name for path in folder.iterdir())))


def write(version: Any, folder: Path) -> None:
    version.catalog.download(version, folder / "files")
    (folder / "model.txt").write_text(next((folder / "files").rglob("made.txt")).read_text().lower())
    if "fail" in version.tags:
        raise InvalidInput("it cannot be written")


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    module = ModuleType(NAME)

    def catalog_register_formats() -> Iterable[FormatSpec]:
        yield FormatSpec("there", ("model.txt",), f"{NAME}:read", f"{NAME}:write")
        yield FormatSpec("thither", ("*.thither",), None, f"{NAME}:write")
        yield FormatSpec("thence", ("sub/*/model.thence",), f"{NAME}:read")
        yield FormatSpec("stored", ("meta.json",), f"{NAME}:read_stored")
        yield FormatSpec("packed", (), None, f"{NAME}:write", packer=f"{NAME}:pack")

    known = {"catalog_register_formats": catalog_register_formats, "read_stored": read_stored, "pack": pack}
    vars(module).update(known, read=read, write=write)
    monkeypatch.setitem(sys.modules, NAME, module)
    with memory_catalog() as made:
        plugins = ["catalog_safetensors", "catalog_generic"]
        made.repository.registry = Registry([("formats", NAME), *zip(plugins, plugins, strict=True)])
        assert not made.repository.registry.problems
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "their model"
    path.mkdir()
    (path / "model.txt").write_text("weights")
    (path / "card.txt").write_text("a card")
    return path


def test_a_folder_of_a_known_format_becomes_a_version_and_goes_out_again(
    catalog: Catalog, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (version,) = catalog.import_(folder)
    assert version.ref == "from-there@1" and version.tags == {"from": "there"}
    provenance = catalog.artifact(version).manifest.provenance
    assert provenance["imported"] == {"format": "there", "name": "their model", "run": "r1"}
    assert version.attachment("card.txt") == b"a card"
    assert "their model: colour is not taken over" in caplog.text
    (again,) = catalog.import_(folder, "other/name", format="there")
    assert again.ref == "other/name@1" and again.digest == version.digest
    assert catalog.export(version, tmp_path / "out", format="there") == tmp_path / "out"
    assert (tmp_path / "out" / "model.txt").read_text() == "weights"


def test_marks_tell_formats_apart(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "sub" / "one").mkdir(parents=True)
    (tmp_path / "sub" / "one" / "model.thence").touch()
    assert catalog.repository.registry.format_of(tmp_path).name == "thence"
    assert catalog.repository.registry.format_of(tmp_path / "sub") is None
    with pytest.raises(NotFound, match="folder of no known format"):
        catalog.import_(tmp_path / "sub")


def test_code_is_read_only_where_that_was_asked_for(catalog: Catalog, folder: Path) -> None:
    (folder / "code.pkl").touch()
    with pytest.raises(NotTrusted):
        catalog.import_(folder)
    assert len(catalog.models()) == 0
    assert catalog.import_(folder, unsafe=True)


@pytest.mark.parametrize(
    ("error", "kept"),
    [(BackendError("it does not answer"), False), (NoSpace("it is full"), False), (IntegrityError("a byte"), False),
     (InvalidInput("it does not run"), True), (SerializationError("of another shape"), True)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_an_example_is_left_out_where_it_does_not_run_and_for_no_fault_of_the_store(
    catalog: Catalog, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kept: bool
) -> None:
    plain, found = Catalog.prepare, sys.modules[NAME].read
    asked: list[bool] = []

    def prepare(self: Catalog, *given: Any, **about: Any) -> Any:
        asked.append("example" in about)
        if len(asked) == 1:
            raise error
        return plain(self, *given, **about)

    def read(path: Path, scratch: Path, unsafe: bool) -> Foreign:
        return attrs.evolve(found(path, scratch, unsafe), about={"example": {"x": np.ones(2)}})

    monkeypatch.setattr(sys.modules[NAME], "read", read)
    monkeypatch.setattr(Catalog, "prepare", prepare)
    if kept:
        assert len(catalog.import_(folder)) == 1 and asked == [True, False]
        return
    with pytest.raises(type(error)):
        catalog.import_(folder)
    assert asked == [True] and not catalog.models()


def test_what_cannot_be_done_is_said_and_leaves_nothing(catalog: Catalog, folder: Path, tmp_path: Path) -> None:
    (version,) = catalog.import_(folder)
    with pytest.raises(InvalidInput, match="exists already"):
        catalog.export(version, folder, format="there")
    with pytest.raises(InvalidInput, match="is read only"):
        catalog.export(version, tmp_path / "out", format="thence")
    with pytest.raises(InvalidInput, match="is written only"):
        catalog.import_(folder, format="thither")
    with pytest.raises(MissingPlugin, match="no format is called 'ads'"):
        catalog.import_(folder, format="ads")
    with pytest.raises(NotFound, match="does not exist"):
        catalog.import_(tmp_path / "nothing")
    version.tag(fail=1)
    with pytest.raises(InvalidInput, match="cannot be written"):
        catalog.export(version.ref, tmp_path / "out", format="there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["their model"]


def test_a_stored_component_is_read_before_it_is_published_as_it_is(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    weights = {"w": np.arange(3), "tied": np.arange(3)}
    first = catalog.save("first", weights)
    stored = tmp_path / "stored"
    catalog.download(first, stored / "weights")
    (stored / "code").mkdir()
    (stored / "code" / "score.py").write_text("raise SystemExit\ndef load_model(): ...\ndef predict(x): ...\n")
    (stored / "meta.json").write_text(json.dumps(first.manifest.components[0].meta))
    (version,) = catalog.import_(stored)
    code, kept = version.manifest.components
    assert (kept.files, kept.meta, kept.serializer) == (
        first.manifest.components[0].files, first.manifest.components[0].meta, "safetensors"
    )  # fmt: skip
    assert code.serializer == "generic" and [p.steps for p in version.manifest.entry_points] == [("code.predict",)]
    assert catalog.load(version, "weights")["w"].tolist() == [0, 1, 2]
    with pytest.raises(NotTrusted):
        catalog.load(version, "code")
    data = bytearray((stored / "weights" / "model.safetensors").read_bytes())
    data[8] = 0
    (stored / "weights" / "model.safetensors").write_bytes(data)
    with pytest.raises(SerializationError):
        catalog.import_(stored)
    assert len(catalog.versions("stored")) == 1


def test_a_format_may_have_a_file_of_its_own(catalog: Catalog, folder: Path, tmp_path: Path) -> None:
    (version,) = catalog.import_(folder)
    assert catalog.export(version, tmp_path / "out.zip", format="packed") == tmp_path / "out.zip"
    assert (tmp_path / "out.zip").read_text() == "files,model.txt"
    assert catalog.export(version, tmp_path / "out", format="packed").is_dir()
    assert catalog.export(version, tmp_path / "folder.zip", format="there").is_dir()
    with pytest.raises(InvalidInput, match="exists already"):
        catalog.export(version, tmp_path / "out.zip", format="packed")
    version.tag(fail=1)
    with pytest.raises(InvalidInput, match="cannot be written"):
        catalog.export(version, tmp_path / "more.zip", format="packed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.zip", "out", "out.zip", "their model"]
