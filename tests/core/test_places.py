"""Where a catalog, its index and its user may be: no home, a far home, read-only places, full disks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import NoSpace, ReadOnly

pytestmark = pytest.mark.server
URLS = ["sqlite", "file"]
SUITE = Path(__file__).with_name("test_catalog.py")
LOOK = """
import sys
from catalog_core import Catalog
from catalog_core.errors import ReadOnly
with Catalog.open(sys.argv[1]) as catalog:
    assert not catalog.writable
    assert float(catalog.load("m")["w"].sum()) == 30_000.0
    assert [v.ref for v in catalog.search('tags.team = "cms"')] == ["m@1"]
    assert catalog.fsck().clean
    for write in (lambda: catalog.save("m", {"w": catalog.load("m")["w"]}), lambda: catalog.version("m").tag(a="b"),
                  lambda: catalog.version("m").delete(), lambda: catalog.gc(grace=-1)):
        try:
            write()
        except ReadOnly:
            continue
        raise AssertionError("it was written")
print("read", catalog.repository.index_place)
"""


@pytest.fixture(autouse=True)
def index_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def weights(count: int = 30_000) -> dict[str, np.ndarray]:
    return {"w": np.ones(count, dtype=np.float32)}


def run(*command: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False,
        env={key: value for key, value in env.items() if value is not None},
    )  # fmt: skip


# -- homes ------------------------------------------------------------------------------------------------------------


SHORT = "found_and_loaded or another_process or cannot_damage or the_past or index_comes_back or collects_orphans"


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [SHORT, pytest.param("not large and not gc_collects", marks=pytest.mark.campaign)])
@pytest.mark.parametrize("home", ["cannot be made", "far", "far, as everything that could hold an index"])
def test_the_suite_runs_whatever_the_home(tmp_path: Path, home: str, chosen: str) -> None:
    folder = tmp_path / "home"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    mounts = tmp_path / "mounts"
    far = [folder, temporary] if "everything" in home else [folder]
    lines = ["1 0 8:1 / / rw - ext4 /dev/sda rw"]
    if home == "cannot be made":
        folder.write_text("a file")
        folder = folder / "below"
    else:
        lines += [f"{n} 1 0:{n} / {path} rw - nfs4 host:/x rw" for n, path in enumerate(far, 2)]
    mounts.write_text("\n".join(lines) + "\n")
    done = run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests"),
        "-k", chosen, str(SUITE),
        HOME=str(folder), TMPDIR=str(temporary), CATALOG_TEST_MOUNTS=str(mounts), CATALOG_TEST_PLACES="1",
        CATALOG_CACHE_DIR=None, XDG_CACHE_HOME=None, XDG_DATA_HOME=None, XDG_CONFIG_HOME=None,
        PYTEST_ADDOPTS=None, PYTEST_XDIST_WORKER=None,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
    index = temporary / f"catalog-{os.getuid()}" / "index"
    assert index.exists() == (home != "far, as everything that could hold an index")
    assert not folder.exists() or not [path for path in folder.rglob("*") if path.is_file()]


def test_an_index_in_memory_checks_what_it_loads_and_sees_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 0 8:1 / / rw - nfs4 x rw\n2 1 0:2 / {tmp_path}/near rw - ext4 x rw\n")
    monkeypatch.setenv("CATALOG_TEST_MOUNTS", str(mounts))
    url = f"sqlite://{tmp_path}/near/catalog"
    with Catalog.open(url) as first, Catalog.open(url) as second:
        assert "in memory" in first.repository.index_place
        first.save("m", weights())
        for _ in range(2):
            np.testing.assert_array_equal(second.load("m")["w"], weights()["w"])
        (pack,) = (path for path in (tmp_path / "near/catalog/blobs").rglob("*") if path.is_file())
        pack.chmod(0o644)
        data = pack.read_bytes()
        pack.write_bytes(data[:-1] + b"x")
        with pytest.raises(Exception, match="holds other bytes"):
            second.load("m")


# -- read-only places -------------------------------------------------------------------------------------------------


def look(url: str, *before: str) -> None:
    done = run(*before, sys.executable, "-c", LOOK, url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("read")
    done = run(*before, sys.executable, "-m", "catalog_cli", "-c", url, "tag", "m@1", "a=b")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2), done.stderr
    assert done.stderr.startswith("error: ")
    assert "read-only" in done.stderr or "may not be written" in done.stderr


@pytest.mark.parametrize("kind", URLS)
def test_a_read_only_mount_is_read(disk: Path, kind: str) -> None:
    url = f"{kind}://{disk}/catalog"
    with Catalog.open(url) as catalog:
        catalog.save("m", weights(), tags={"team": "cms"})
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    look(url)


@pytest.mark.parametrize("kind", URLS)
def test_what_a_killed_writer_left_on_a_mount_that_became_read_only_is_read(disk: Path, kind: str) -> None:
    url = f"{kind}://{disk}/catalog"
    code = (
        "import os, sys, signal; import numpy as np; from catalog_core import Catalog; c = Catalog.open(sys.argv[1]);"
        "c.save('m', {'w': np.ones(30_000, dtype=np.float32)}, tags={'team': 'cms'});"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert run(sys.executable, "-c", code, url).returncode == -9
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    look(url)


@pytest.mark.parametrize("kind", URLS)
def test_a_folder_without_the_right_to_write_is_read(tmp_path: Path, kind: str) -> None:
    url = f"{kind}://{tmp_path}/catalog"
    before: list[str] = []
    if os.getuid() == 0:  # who is root and may not override rights is like everybody else
        rights = "-dac_override,-dac_read_search"
        before = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
        if shutil.which("setpriv") is None or run(*before, "true").returncode:
            pytest.skip("root's right to write everywhere cannot be given up here")
    with Catalog.open(url) as catalog:
        catalog.save("m", weights(), tags={"team": "cms"})
    folders = [path for path in (tmp_path / "catalog").rglob("*") if path.is_dir()]
    for path in [tmp_path / "catalog", *folders]:
        path.chmod(0o555)
    try:
        look(url, *before)
    finally:
        for path in [tmp_path / "catalog", *folders]:
            path.chmod(0o755)
    with Catalog.open(url) as catalog:
        assert catalog.save("m", weights()).number == 2


def test_a_new_catalog_in_a_read_only_place_is_refused(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for kind in URLS:
        with pytest.raises(ReadOnly, match="disk"):
            Catalog.open(f"{kind}://{disk}/catalog")


# -- full disks -------------------------------------------------------------------------------------------------------


def fill(disk: Path, left: int) -> Path:
    """A file that leaves about `left` bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        file.truncate(max(0, file.tell() - left))
    return filler


def big(seed: int) -> dict[str, np.ndarray]:
    return {f"w{n}": np.random.default_rng((seed, n)).random(500_000, dtype=np.float32) for n in range(4)}


@pytest.mark.parametrize("index", ["elsewhere", "on the full disk"])
@pytest.mark.parametrize("left", [0, 3 << 14, 5_000_000], ids=lambda left: f"{left} bytes left")
@pytest.mark.parametrize("kind", URLS)
def test_a_full_disk_is_one_clear_error_and_nothing_is_lost(
    disk: Path, tmp_path: Path, kind: str, left: int, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if index != "elsewhere":
        monkeypatch.setenv("CATALOG_CACHE_DIR", str(disk / "cache"))
    url = f"{kind}://{disk}/catalog"
    (tmp_path / "big.bin").write_bytes(np.random.default_rng(1).bytes(8_000_000))
    with Catalog.open(url) as catalog:
        catalog.save("kept", weights(), tags={"team": "cms"})
        filler = fill(disk, left)
        failed = 0
        for number in range(300):  # small saves, into the journal and its database, until it is full
            try:
                catalog.save("small", {"n": np.full(8_000, number, dtype=np.float32)}, alias="newest")
            except NoSpace as exc:
                assert len(exc.message.splitlines()) == 1
                assert "space" in exc.message
                failed += 1
                if failed == 3:
                    break
            if left == 5_000_000 and number == 1:
                break
        assert failed == 3 or left == 5_000_000
        before = catalog.position
        published = [version.number for version in catalog.versions("small")] if "small" in catalog else []
        with pytest.raises(NoSpace, match="space"):
            catalog.save("big", big(1))
        assert "big" not in catalog
        assert catalog.position == before
        done = run(sys.executable, "-m", "catalog_cli", "-c", url, "save", "big", str(tmp_path / "big.bin"))
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("error: "), done.stderr
        assert "space" in done.stderr
        assert len(done.stderr.splitlines()) <= 2
        np.testing.assert_array_equal(catalog.load("kept")["w"], weights()["w"])
        filler.unlink()
        assert catalog.fsck().clean
        assert catalog.save("small", {"n": np.zeros(3, dtype=np.float32)}).number == len(published) + 1
        assert catalog.save("big", big(1)).number == 1
    with Catalog.open(url) as again:
        assert again.position == before + 2
        assert sorted(v.number for v in again.versions("small")) == [*sorted(published), len(published) + 1]
        assert again.fsck().clean
        assert again.gc(grace=-1).temporaries == 0
        assert [path for path in (disk / "catalog" / "staging").iterdir()] == []


@pytest.mark.parametrize("kind", URLS)
def test_another_catalog_at_the_same_place_is_read_anew(tmp_path: Path, kind: str) -> None:
    url = f"{kind}://{tmp_path}/catalog"
    with Catalog.open(url) as catalog:
        catalog.save("m", weights())
        catalog.save("m", weights())
    shutil.rmtree(tmp_path / "catalog")
    with Catalog.open(url) as another:
        assert another.models()[:] == []
        assert another.save("other", weights()).number == 1
