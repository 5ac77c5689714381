"""Files that serializers write and read by path: taken as they are, where that can be, else copied."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import IntegrityError
from catalog_core.staging import ComponentDirectory, Writer

STRIDE = 1 << 20
CONTENT = np.random.default_rng(0).bytes(3 * STRIDE + 5000)


@pytest.fixture(params=["sqlite", "file"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"{request.param}://{tmp_path}/catalog") as opened:
        yield opened


def staged(catalog: Catalog) -> tuple[Writer, ComponentDirectory, Path]:
    assert catalog._backend.files is not None
    folder = catalog._backend.files.staging() / "draft"
    folder.mkdir()
    writer = Writer(catalog._backend, catalog._index)
    directory = ComponentDirectory(writer, lambda: folder)
    return writer, directory, directory.path("sub/weights.bin", STRIDE)


def test_a_new_file_is_taken(catalog: Catalog) -> None:
    writer, directory, path = staged(catalog)
    path.write_bytes(CONTENT)
    inode = path.stat().st_ino
    directory.seal()
    digest = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    assert directory.files == {"sub/weights.bin": (digest, len(CONTENT))}
    assert writer.staged[digest].stat().st_ino == inode and writer.staged[digest].stat().st_mode & 0o777 == 0o444
    assert [(c.offset, c.length) for c in writer.layout[digest]] == [
        *((at * STRIDE, STRIDE) for at in range(3)),
        (3 * STRIDE, 5000),
    ]
    assert not path.exists() and writer.written == len(CONTENT)
    writer.publish_packs()
    assert catalog._content.stored(digest, "it") == CONTENT
    writer.discard()


@pytest.mark.parametrize("how", ["hard link", "link"])
def test_a_file_that_is_somebody_elses_too_is_copied(catalog: Catalog, tmp_path: Path, how: str) -> None:
    writer, directory, path = staged(catalog)
    theirs = tmp_path / "theirs"
    theirs.write_bytes(CONTENT)
    theirs.chmod(0o644)
    (os.link if how == "hard link" else os.symlink)(theirs, path)
    directory.seal()
    (pack,) = writer.staged.values()
    assert pack.stat().st_ino != theirs.stat().st_ino and theirs.stat().st_mode & 0o777 == 0o644
    assert pack.read_bytes() == theirs.read_bytes() == CONTENT
    writer.discard()


def test_of_a_file_that_is_known_in_part_only_the_rest_is_written(catalog: Catalog) -> None:
    writer, directory, path = staged(catalog)
    path.write_bytes(CONTENT)
    directory.seal()
    writer.publish_packs()
    writer.remember()
    writer.discard()
    changed = CONTENT[:STRIDE] + bytes(STRIDE) + CONTENT[2 * STRIDE :]
    writer = Writer(catalog._backend, catalog._index)
    directory = ComponentDirectory(writer, lambda: path.parent.parent)
    again = directory.path("sub/weights.bin", STRIDE)
    again.write_bytes(changed)
    directory.seal()
    (pack,) = writer.staged.values()
    # the rest at the end is a small chunk: where anything is new, it is new too
    assert pack.stat().st_size == STRIDE + 5000 and writer.written == STRIDE + 5000 and writer.shared == 2 * STRIDE
    assert not again.exists()
    writer.discard()


def test_a_stored_file_is_read_where_it_lies_once_it_was_checked(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(CONTENT)
    version = catalog.save("m", tmp_path / "weights.bin")
    (component,) = version.manifest.components

    readers = []  # the folder lives as long as they do

    def read() -> Path:
        readers.append(catalog.artifact(version).reader(component))
        return readers[-1].path("weights.bin")

    path = read()
    assert path.name == "weights.bin" and path.read_bytes() == CONTENT
    stored = path.resolve()
    assert stored != path and stored.is_relative_to(tmp_path / "catalog")
    stored.chmod(0o644)
    stored.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(IntegrityError):
        read()
    stored.write_bytes(CONTENT)
    changed = CONTENT[:STRIDE] + bytes(STRIDE) + CONTENT[2 * STRIDE :]
    (tmp_path / "weights.bin").write_bytes(changed)
    version = catalog.save("m", tmp_path / "weights.bin")
    (component,) = version.manifest.components
    path = read()  # of two packs
    assert path.resolve() == path.absolute() and path.read_bytes() == changed
