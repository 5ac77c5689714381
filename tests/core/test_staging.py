"""Files that serializers write and read by path: taken as they are, where that can be, else copied."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from catalog_core import Catalog, staging
from catalog_core.errors import IntegrityError, NoSpace
from catalog_core.staging import ComponentDirectory, Writer

STRIDE = 1 << 20
CONTENT = np.random.default_rng(0).bytes(3 * STRIDE + 5000)


@pytest.fixture(params=["sqlite", "file"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"{request.param}://{tmp_path}/catalog") as opened:
        yield opened


def staged(catalog: Catalog) -> tuple[Writer, ComponentDirectory, Path]:
    assert catalog.repository.backend.files is not None
    folder = catalog.repository.backend.files.staging() / "draft"
    folder.mkdir()
    writer = Writer(catalog.repository.backend, catalog.repository.index)
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
    assert catalog.repository.content.stored(digest, "it") == CONTENT
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
    writer = Writer(catalog.repository.backend, catalog.repository.index)
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
    assert path.name == "weights.bin" and path.read_bytes() == CONTENT and path.stat().st_nlink > 1
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(IntegrityError):
        read()
    path.write_bytes(CONTENT)
    changed = CONTENT[:STRIDE] + bytes(STRIDE) + CONTENT[2 * STRIDE :]
    (tmp_path / "weights.bin").write_bytes(changed)
    version = catalog.save("m", tmp_path / "weights.bin")
    (component,) = version.manifest.components
    path = read()  # of two packs
    assert path.stat().st_nlink == 1 and path.read_bytes() == changed


def test_it_stays_while_its_version_goes(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(CONTENT)
    with catalog.prepare("m", tmp_path / "weights.bin") as draft:
        reader = draft.artifact.reader(draft.artifact.find("model"))
        path = reader.path("weights.bin")
        version = draft.save()
        assert reader.path("weights.bin") == path and path.read_bytes() == CONTENT
    version.delete()
    catalog.gc(grace=-1)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("how", ["handle", "mapping"])
def test_a_file_that_somebody_can_still_write_is_copied(catalog: Catalog, how: str) -> None:
    writer, directory, path = staged(catalog)
    path.write_bytes(CONTENT)
    with path.open("r+b") as handle:
        mapped = mmap.mmap(handle.fileno(), 0)
        if how == "mapping":
            handle.close()
        directory.seal()
        mapped[0] = CONTENT[0] ^ 1
        mapped.flush()
    (pack,) = writer.staged.values()
    assert pack.read_bytes() == CONTENT
    writer.discard()


@pytest.mark.parametrize("by_path", [True, False])
def test_a_disk_that_fails_while_it_is_written_to_is_heard(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, by_path: bool
) -> None:
    """The kernel tells a failure once, to the first who syncs: that is a thread."""
    told: list[int] = []

    def fails(handle: int) -> None:
        told.append(handle)
        if len(told) == 1:
            raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(staging, "FLUSH", STRIDE)
    monkeypatch.setattr(staging, "_sync_data", fails)
    monkeypatch.setattr(os, "fsync", fails)
    writer, directory, path = staged(catalog)
    folder = path.parent.parent.parent
    with pytest.raises(NoSpace):
        if by_path:
            path.write_bytes(CONTENT)
            directory.seal()
        else:
            directory.write("weights.bin", [CONTENT], range(0, len(CONTENT), STRIDE))
    assert not writer.staged and [item.name for item in folder.iterdir()] == ["draft"]
