"""The shared folder keeps the contracts, among processes too."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from catalog_core import durable
from catalog_core.catalog import Catalog
from catalog_core.errors import BackendError, InvalidInput, NotFound, ReadOnly
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_files.store import FileStore, open_store


class TestStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FileStore:
        return open_store(f"file://{tmp_path}/catalog", {}, True)


class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> ObjectStoreBackend:
        url = f"file://{tmp_path}/catalog"
        return ObjectStoreBackend(open_store(url, {}, True), "files", url)


def test_a_catalog_is_only_made_on_request(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_store(f"file://{tmp_path}/none", {}, False)
    assert not (tmp_path / "none").exists()


def test_read_only_refuses_every_write(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}", {}, True).put("a", io.BytesIO(b"x"), 1, "content")
    store = FileStore(tmp_path, writable=False)
    for write in (
        lambda: store.put("b", io.BytesIO(b"x"), 1, "content"),
        lambda: store.delete(["a"]),
        lambda: store.adopt(tmp_path / "a", "b"),
        store.staging,
    ):
        with pytest.raises(ReadOnly):
            write()
    assert store.get("a").read() == b"x"


@pytest.mark.parametrize("key", ["", "../a", "a//b", "/a", "a/./b", "a\\b", "a\0b"])
def test_keys_do_not_leave_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidInput):
        FileStore(tmp_path, True).put(key, io.BytesIO(b"x"), 1, "content")


def test_a_name_too_long_is_an_error_of_ours(tmp_path: Path) -> None:
    store = FileStore(tmp_path, True)
    for call in (store.get, store.stat):
        with pytest.raises(BackendError):
            call("a" * 300)


def test_a_damaged_blob_of_another_size_is_replaced_and_nothing_stays_behind(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}", {}, True)
    (tmp_path / "blob").write_bytes(b"half")
    store.put("blob", io.BytesIO(b"whole"), 5, "content")
    assert store.get("blob").read() == b"whole"
    (tmp_path / "folder").mkdir()
    with pytest.raises(BackendError):
        store.put("folder", io.BytesIO(b"whole"), 5, "content")
    assert list((tmp_path / "staging").iterdir()) == []


def test_without_hard_links_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    store = open_store(f"file://{tmp_path}", {}, True)
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(BackendError, match="no hard links"):
        store.put("a", io.BytesIO(b"x"), 1, "content")


def test_a_long_range_is_read_as_it_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(3 << 30)
        file.seek((3 << 30) - 4)
        file.write(b"tail")
    with durable.open_range(path, "big", "files", 100, 3 << 30) as stream:
        first = stream.read(5)
    assert first == bytes(5)
    with durable.open_range(path, "big", "files", (3 << 30) - (2 << 20), 1 << 40) as stream:
        data = stream.read()
    assert len(data) == 2 << 20
    assert data.endswith(b"tail")


def test_one_folder_holds_one_catalog(tmp_path: Path) -> None:
    with Catalog.open(f"sqlite://{tmp_path}/a") as one, Catalog.open(f"file://{tmp_path}/b") as other:
        assert one.id != other.id
    for name, kind in (("a", "file"), ("b", "sqlite")):
        held = sorted((tmp_path / name).iterdir())
        for create in (False, True):
            with pytest.raises(InvalidInput, match="holds a catalog of") as caught:
                Catalog.open(f"{kind}://{tmp_path}/{name}", create=create)
            assert f"{tmp_path}/{name}" in str(caught.value.hint)
        assert sorted((tmp_path / name).iterdir()) == held
