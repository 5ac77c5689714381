"""One walk of folders for all that takes files in: what is there is taken, or refused by name; nothing vanishes."""

from __future__ import annotations

import os
import socket
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog_core import Catalog, about, folders
from catalog_core.errors import CatalogError, InvalidInput
from catalog_core.testing.memory import memory_catalog

pytestmark = pytest.mark.unit
SCORE = "def load_model():\n    return 1\n\n\ndef predict(data, model=None):\n    return data\n"


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with memory_catalog() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    (made / "score.py").write_text(SCORE)
    (made / "sub" / "w.bin").write_bytes(b"weights")
    return made


def _nowhere(folder: Path) -> None:
    (folder / "odd").symlink_to("../blobs/gone")


def _itself(folder: Path) -> None:
    (folder / "odd").symlink_to("odd")


def _back(folder: Path) -> None:
    (folder / "sub" / "odd").symlink_to("../../model")


def _here(folder: Path) -> None:
    (folder / "odd").symlink_to(".")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "odd")


def _socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # a path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("odd")
    finally:
        os.chdir(here)


def _device(folder: Path) -> None:
    (folder / "odd").symlink_to("/dev/null")


def _pipe_by_link(folder: Path) -> None:
    os.mkfifo(folder.parent / "pipe")
    (folder / "odd").symlink_to("../pipe")


def _oci(catalog: Catalog, folder: Path) -> Any:
    from catalog_oci_datascience import archive

    return archive.pack(folder, folder.parent / "packed.zip")


def _ads(catalog: Catalog, folder: Path) -> Any:
    from catalog_ads.archive import files_of

    return files_of(folder)


def _scan(catalog: Catalog, folder: Path) -> Any:
    from catalog_scan.scanner import scan_path

    found = scan_path(folder).findings
    if any(item.file.endswith("odd") for item in found):
        raise InvalidInput("; ".join(f"{item.file}: {item.cause}" for item in found))


def _import(catalog: Catalog, folder: Path) -> Any:
    from catalog_doors.look import tree

    return tree(folder)


TAKERS: dict[str, Callable[[Catalog, Path], Any]] = {
    "save": lambda catalog, folder: catalog.save("m", folder),
    "component": lambda catalog, folder: catalog.save("m", components={"a": folder}),
    "data set": lambda catalog, folder: about.training(None, {"train": folder}, None),
    "attach": lambda catalog, folder: catalog.save("m", folder / "score.py").attach("code", folder),
    "generic": lambda catalog, folder: catalog.save("m", folder, serializer="generic"),
    "scan": _scan, "ads": _ads, "oci": _oci, "import": _import,
}  # fmt: skip
ODD = [_nowhere, _itself, _back, _here, _pipe, _socket, _device, _pipe_by_link]


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__.strip("_"))
def test_what_cannot_be_taken_is_refused_by_name(
    odd: Callable[[Path], None], taker: str, catalog: Catalog, folder: Path
) -> None:
    odd(folder)
    with pytest.raises(CatalogError, match="odd"):
        TAKERS[taker](catalog, folder)


@pytest.mark.parametrize("taker", TAKERS)
def test_a_folder_that_cannot_be_listed_is_refused_by_name(
    taker: str, catalog: Catalog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "odd").mkdir()
    true = os.scandir

    def scandir(path: Any = ".") -> Any:  # root may list everything
        if os.fspath(path).endswith("odd"):
            raise PermissionError(13, "Permission denied", path)
        return true(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(CatalogError, match="odd"):
        TAKERS[taker](catalog, folder)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__.strip("_"))
def test_a_path_itself_is_a_file_or_folder(odd: Callable[[Path], None], catalog: Catalog, folder: Path) -> None:
    odd(folder)
    path = next(path for path in (folder / "odd", folder / "sub" / "odd") if path.is_symlink() or path.exists())
    if path.is_dir():
        pytest.skip("a folder that holds itself is one that is named in the error of what it holds")
    with pytest.raises(InvalidInput, match="odd is"):
        catalog.save("m", path)
    with pytest.raises(InvalidInput, match="odd is"):
        about.dataset("train", path)


def test_links_to_files_and_folders_are_followed(catalog: Catalog, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shards" / "more").mkdir(parents=True)
    (tmp_path / "shards" / "more" / "s.bin").write_bytes(b"shard")
    (tmp_path / "one.txt").write_text("one")
    (folder / "shards").symlink_to("../shards")
    (folder / "again").symlink_to("../shards")  # twice is no loop
    (folder / "one.txt").symlink_to("../one.txt")
    version = catalog.save("m", folder)
    out = catalog.download(version, tmp_path / "out")
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    links = {"again/more/s.bin", "one.txt", "shards/more/s.bin"}
    assert found == {"score.py", "sub/w.bin"} | links
    assert not any(path.is_symlink() for path in out.rglob("*"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {name.removeprefix("code/") for name in version.attach("code", folder).attachments} == found


def test_links_upon_links_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_LINKED", 1000)
    for level in range(30):
        (tmp_path / str(level)).mkdir()
        for way in ("a", "b"):
            (tmp_path / str(level) / way).symlink_to(f"../{level + 1}")
    (tmp_path / "30").mkdir()
    with pytest.raises(InvalidInput, match="lead to more than"):
        folders.read(tmp_path)


# -- data sets ---------------------------------------------------------------------------------------------------------


def _file(name: str, data: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(data)

    return write


def _linked(data: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        far = folder.parent / f"far-{data}"
        far.mkdir(exist_ok=True)
        (far / "x.csv").write_text(data)
        (folder / "part").symlink_to(far)

    return write


def _empty(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).mkdir(parents=True)


LISTED = "sha256:" + "0" * 64 + " 1 b"
SETS = [
    _file("a", "1"), _file("a", "2"), _file("b", "1"), _file("d/a", "1"), _linked("1"), _linked("2"), _empty("a"),
    _empty("b"), _empty("a/b"), _file(f"a\n{LISTED}", "1"), _file("a\\n" + LISTED, "1"), _file("A", "1"),
    _file("é", "1"),
    _file("e\u0301", "1"), _file("a ", "1"), _file(" a", "1"), _file(os.fsdecode(b"\xff"), "1"),
    _file(os.fsdecode(b"\xfe"), "1"), lambda folder: None,
]  # fmt: skip


def test_different_data_sets_have_different_digests(tmp_path: Path) -> None:
    found = {}
    for number, write in enumerate(SETS):
        place = tmp_path / str(number) / "data"
        place.mkdir(parents=True)
        write(place)
        found[number] = about.training(None, {"train": place}, None)["datasets"]["train"]["digest"]
    assert len(set(found.values())) == len(SETS)


def test_plain_data_sets_keep_the_digests_of_earlier_releases(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, data in (("a.csv", b"1"), ("b/c.csv", b"22"), ("b.csv", b"")):
        (tmp_path / name).write_bytes(data)
    found = about.dataset("train", tmp_path)
    assert found["digest"] == "sha256:33b642534c69772e0cb9bb59051f38294ec2bf89643cd31dceef2c8e61dd3c0c"
    assert (found["size"], found["files"]) == (3, 3)


# -- what is not content -----------------------------------------------------------------------------------------------


def _modes(folder: Path) -> dict[str, bool]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): bool(path.stat().st_mode & stat.S_IXUSR) for path in files}


def test_the_permission_to_execute_and_empty_folders_are_kept(catalog: Catalog, folder: Path, tmp_path: Path) -> None:
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "assets" / "deep").mkdir(parents=True)
    version = catalog.save("m", folder)
    (component,) = version.manifest.components
    assert component.meta == {"executable": ["run.sh"], "empty_folders": ["assets/deep"]}
    out = [catalog.download(version, tmp_path / "out")]
    with memory_catalog() as other:
        copied = catalog.copy(version, other)
        out.append(other.download(copied, tmp_path / "copied"))
        assert copied.digest == version.digest
    catalog.export(version, tmp_path / "m.bundle")
    with memory_catalog() as other:
        (arrived,) = other.import_(tmp_path / "m.bundle")
        out.append(other.download(arrived, tmp_path / "arrived"))
    for place in out:
        assert _modes(place) == {"run.sh": True, "score.py": False, "sub/w.bin": False}
        assert (place / "assets" / "deep").is_dir()
    assert catalog.save("again", out[-1]).digest == version.digest  # round and round


def test_a_file_alone_and_several_components_keep_it_too(catalog: Catalog, folder: Path, tmp_path: Path) -> None:
    (folder / "score.py").chmod(0o755)
    assert catalog.save("one", folder / "score.py").manifest.components[0].meta == {"executable": ["score.py"]}
    version = catalog.save("two", components={"a": folder, "b": folder / "sub" / "w.bin"})
    out = catalog.download(version, tmp_path / "out")
    assert _modes(out) == {"a/score.py": True, "a/sub/w.bin": False, "b/w.bin": False}


def test_a_folder_without_them_has_the_manifest_that_it_always_had(catalog: Catalog, folder: Path) -> None:
    assert catalog.save("m", folder).manifest.components[0].meta == {}
    assert set(catalog.save("g", folder, serializer="generic").manifest.components[0].meta) == {"inputs"}


def test_a_generic_folder_runs_with_its_programs(catalog: Catalog, folder: Path) -> None:
    (folder / "run.sh").write_text("#!/bin/sh\necho 7\n")
    (folder / "run.sh").chmod(0o755)
    code = "    import pathlib, subprocess\n    here = pathlib.Path(__file__).parent\n"
    code += "    return int(subprocess.run([here / 'run.sh'], capture_output=True, check=True).stdout)\n"
    (folder / "score.py").write_text(SCORE.replace("    return 1\n", code))
    version = catalog.save("m", folder, serializer="generic")
    assert version.manifest.components[0].meta["executable"] == ["run.sh"]
    assert catalog.load(version, trust=True).model == 7


def test_an_artifact_of_ads_and_the_zip_of_oci_keep_it(folder: Path, tmp_path: Path) -> None:
    from catalog_ads import archive as ads
    from catalog_oci_datascience import archive as oci

    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    for number, packer in enumerate((ads, oci)):
        packed, place = tmp_path / f"{number}.zip", tmp_path / f"unpacked-{number}"
        packer.pack(folder, packed)
        place.mkdir()
        packer.unpack(packed, place)
        assert _modes(place) == {"run.sh": True, "score.py": False, "sub/w.bin": False}
        with zipfile.ZipFile(packed) as archive:
            assert archive.getinfo("run.sh").external_attr >> 16 & 0o777 == 0o755


@pytest.mark.parametrize("names", [["../x"], ["/x"], ["a/../../x"], [7], "text", None, ["score.py/x"], ["a", "\0"]])
def test_what_a_stranger_wrote_there_leads_nowhere(names: Any, folder: Path, tmp_path: Path) -> None:
    before = sorted(path.as_posix() for path in tmp_path.rglob("*") if path.name != "a")
    mode = tmp_path.stat().st_mode
    folders.restore(folder, {"executable": names, "empty_folders": names}, ["score.py", "sub/w.bin"])
    assert sorted(path.as_posix() for path in tmp_path.rglob("*") if path.name != "a") == before
    assert tmp_path.stat().st_mode == mode and not any(_modes(folder).values())


def test_what_is_not_attached_is_said(catalog: Catalog, folder: Path) -> None:
    (folder / ".git").mkdir()
    os.mkfifo(folder / ".git" / "ipc")  # it is not looked into
    (folder / "none").mkdir()
    version = catalog.save("m", folder / "score.py")
    with pytest.warns(UserWarning, match=r"not attached of .*\.git \(hidden, or a cache\), none \(empty\)"):
        attached = version.attach("code", folder)
    assert set(attached.attachments) == {"code/score.py", "code/sub/w.bin"}


def test_an_importer_says_that_folders_hold_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    from catalog_doors.look import tree

    (folder / "none").mkdir()
    assert set(tree(folder)) == {"score.py", "sub/w.bin"}
    assert "folders that hold nothing are left out: none" in caplog.text
