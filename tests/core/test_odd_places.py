"""Places that are no folder, settings that are no file, files that may not grow: one sentence, and nothing is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog, config, durable
from catalog_core.errors import BackendError, CatalogError, ConfigError, InvalidInput, ReadOnly

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.unit


@pytest.mark.parametrize("kind", ["sqlite", "file"])
@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    "what", ["a file", "below a file", "far below a file", "a device", "a pipe", "a link to a file"]
)
def test_a_place_that_is_no_folder_is_said(kind: str, create: bool, what: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"hello")
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe")
    place = {
        "a file": file, "below a file": file / "x", "far below a file": file / "x" / "y", "a device": Path("/dev/null"),
        "a pipe": tmp_path / "pipe", "a link to a file": tmp_path / "link",
    }[what]  # fmt: skip
    with pytest.raises(InvalidInput, match=r"there can be no catalog in .* is no folder") as caught:
        Catalog.open(f"{kind}://{place}", create=create)
    assert caught.value.hint
    assert file.read_bytes() == b"hello"


@pytest.mark.parametrize("what", ["a device without end", "a pipe", "a folder", "far too long"])
def test_settings_that_never_end_are_refused(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "catalog.toml"
    if what == "a device without end":
        place = Path("/dev/zero")
    elif what == "a pipe":
        os.mkfifo(place)
    elif what == "a folder":
        place.mkdir()
    else:
        place.write_bytes(b"#" * (config.MAX_FILE + 1))
    monkeypatch.setenv("CATALOG_CONFIG", str(place))
    with pytest.raises(ConfigError, match=str(place)):
        Catalog.open("somewhere")


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def weights(seed: int) -> dict[str, Any]:
    return {"w": np.random.default_rng(seed).normal(size=40_000)}


CALLS: dict[str, Callable[[Catalog, Path], Any]] = {
    "save": lambda catalog, folder: catalog.save("m", weights(2)),
    "load": lambda catalog, folder: catalog.load("m"),
    "tag": lambda catalog, folder: catalog.version("m").tag(a=1),
    "attach": lambda catalog, folder: catalog.version("m").attach("plot", bytes(200_000)),
    "export": lambda catalog, folder: catalog.export("m", folder / "m.catalog"),
    "download": lambda catalog, folder: catalog.download("m", folder / "out"),
    "search": lambda catalog, folder: catalog.search("m"),
    "fsck": lambda catalog, folder: catalog.fsck(),
}


@pytest.mark.parametrize("kind", ["sqlite", "file"])
@pytest.mark.parametrize("size", [0, 100, 4096, 20_000, 60_000, 100_000, 200_000, 300_000])
@pytest.mark.parametrize("newcomer", [False, True])
def test_files_that_may_not_grow_are_one_sentence_and_nothing_is_lost(
    kind: str, size: int, newcomer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of a newcomer breaks off at any place; so does what is published, exported and fetched."""
    url = f"{kind}://{tmp_path / 'place'}"
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(url) as catalog:
        catalog.save("m", weights(1))
    problems = []
    for number, (what, call) in enumerate(CALLS.items()):
        if newcomer:
            monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / f"cache-{number}"))
        with at_most(size):
            try:
                with Catalog.open(url) as catalog:
                    call(catalog, tmp_path)
            except CatalogError as exc:
                problems.append((what, str(exc)))
    assert all("Traceback" not in told and len(told) < 600 for _, told in problems)
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "last"))
    with Catalog.open(url) as catalog:
        assert not catalog.fsck().problems
        versions = catalog.versions("m")
        assert len(versions) == 1 + ("save" not in dict(problems))
        for version in versions:
            assert np.array_equal(catalog.load(version)["w"], weights(version.number)["w"])
        assert catalog.save("m", weights(3)).number == len(versions) + 1


def test_a_right_that_is_lacking_is_named_by_what_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`may not be written` is said where something was to be written, and of what may not be read that."""
    with Catalog.open(tmp_path / "c") as catalog:
        catalog.save("m", {"w": np.zeros(3)})
        catalog.export("m@1", tmp_path / "m.catalog")
        file = tmp_path / "w.bin"
        file.write_bytes(b"x")
        whole = os.open

        def refused(path: object, *rest: int, **more: object) -> int:
            if str(path).endswith(("w.bin", "m.catalog")):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return whole(path, *rest, **more)  # type: ignore[arg-type]

        def opened(path: Path, mode: str = "r", *rest: object, **more: object) -> object:
            if str(path).endswith(("w.bin", "m.catalog")):
                refused(path, os.O_RDONLY)
            return open(path, mode, *rest, **more)  # type: ignore[call-overload]

        monkeypatch.setattr(os, "open", refused)
        monkeypatch.setattr(Path, "open", opened)
        for call in (
            lambda: catalog.save("m", file), lambda: catalog.import_(tmp_path / "m.catalog"),
            lambda: catalog.save("m", {"w": np.zeros(4)}, datasets={"train": file}),
        ):  # fmt: skip
            with pytest.raises(BackendError, match="may not be read") as caught:
                call()
            assert "rights" in str(caught.value.hint)
    with pytest.raises(ReadOnly, match="may not be written"), durable.translated("x"):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(ReadOnly, match="may not be written"), durable.translated("x", reading=True):
        raise OSError(errno.EROFS, "Read-only file system")
