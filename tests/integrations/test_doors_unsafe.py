"""`catalog import --unsafe`: what a pickle runs while it is converted reaches nothing outside."""

from __future__ import annotations

import json
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import CatalogError, InvalidInput, MissingPlugin, NotTrusted, SerializationError, installs
from catalog_core.testing.memory import memory_catalog
from catalog_doors import isolate
from catalog_doors.isolate import Limits

pytestmark = pytest.mark.server  # it starts processes
REFUSED = re.compile(
    r"cannot be converted: .*(Permission denied|not permitted|cross-device|Read-only file system|No such file)"
)
W = np.arange(6, dtype=np.float32).reshape(2, 3)


class Runs:
    """Runs a text when it is unpickled, and is then a dictionary of arrays."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code,)


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with memory_catalog() as made:
        yield made


@pytest.fixture(scope="module")
def reach(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """What this machine can put out of reach."""
    folder = tmp_path_factory.mktemp("reach")
    (folder / "a.pkl").write_bytes(pickle.dumps({"w": W}))
    (folder / "scratch").mkdir()
    return isolate.convert(folder / "a.pkl", "pickle", folder / "scratch").reach


def written(path: Path, code: str, **more: Any) -> Path:
    path.write_bytes(pickle.dumps({"first": Runs(code), "w": W, **more}))
    return path


def seen(catalog: Catalog, path: Path) -> str:
    """Import it, and what became of `found`, which the code has left in the folder of the conversion."""
    try:
        (version,) = catalog.import_(path, unsafe=True)
    except CatalogError as exc:
        assert "\n" not in str(exc)
        return exc.message
    assert np.array_equal(catalog.load(version.ref)["w"], W)
    return "imported"


def test_arrays_come_out_and_what_was_left_is_told(catalog: Catalog, tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "old.pkl"
    path.write_bytes(
        pickle.dumps({"w": W, "nested": [{"b": np.ones(2)}, 7], "epoch": 3, "odd": Path("x"), "o": {1, 2}})
    )
    (version,) = catalog.import_(path, unsafe=True)
    loaded = catalog.load("old")
    assert np.array_equal(loaded["w"], W) and loaded["epoch"] == 3 and loaded["nested"][1] == 7
    assert set(loaded) == {"w", "nested", "epoch"}
    assert "hold nothing" not in caplog.text  # a folder of the conversion's own is nothing to the user
    assert "/odd: a PosixPath was left behind" in caplog.text and "/o: a set was left behind" in caplog.text
    told = catalog.artifact(version).manifest.provenance["imported"]
    assert told["converted"]["old.pkl"]["was"] == "builtins.dict"
    assert told["scan"]["findings"] == 1 and "pathlib" in told["scan"]["first"][0]
    assert json.loads(version.attachment("scan.json"))["findings"][0]["rule"] == "pickle name"
    assert version.summary["components"] == {"model": "safetensors"}


def test_without_unsafe_nothing_runs(catalog: Catalog, tmp_path: Path) -> None:
    path = written(tmp_path / "model.pkl", f"open({str(tmp_path / 'canary')!r}, 'w')")
    with pytest.raises(NotTrusted, match=r"model.pkl is a pickle"):
        catalog.import_(path)
    assert not (tmp_path / "canary").exists()


def test_no_file_outside_changes(catalog: Catalog, tmp_path: Path, reach: dict[str, bool]) -> None:
    if not reach["files"]:
        pytest.skip("this kernel has no Landlock")
    canary = tmp_path / "canary"
    victim = tmp_path / "victim"
    victim.write_text("whole")
    before = victim.stat()
    for code in (
        f"open({str(canary)!r}, 'w')",
        f"open({str(victim)!r}, 'w')",
        f"open({str(victim)!r}, 'r+').truncate(0)",
        f"import os; os.remove({str(victim)!r})",
        f"import os; os.rename({str(victim)!r}, {str(canary)!r})",
        f"import os; os.symlink({str(victim)!r}, {str(canary)!r})",
        f"import os; os.link({str(victim)!r}, {str(canary)!r})",
        f"import os; os.mkdir({str(canary)!r})",
        f"import os; os.mkfifo({str(canary)!r})",
        "open('/dev/shm/catalog-canary', 'w')",
        f"open({sys.prefix + '/canary'!r}, 'w')",
    ):
        assert REFUSED.search(seen(catalog, written(tmp_path / "model.pkl", code))), code
    assert not canary.exists() and not Path("/dev/shm/catalog-canary").exists() and victim.read_text() == "whole"
    assert victim.stat().st_mtime_ns == before.st_mtime_ns


def test_the_home_folder_is_out_of_sight(catalog: Catalog, tmp_path: Path, reach: dict[str, bool]) -> None:
    if not reach["files"]:
        pytest.skip("this kernel has no Landlock")
    secret = tmp_path / "secret"
    secret.write_text("password")
    for code in (f"open({str(secret)!r}).read()", f"import os; os.listdir({str(Path.home())!r})"):
        assert REFUSED.search(seen(catalog, written(tmp_path / "model.pkl", code))), code


def test_folders_of_somebodys_home_are_not_imported_from(catalog: Catalog, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "private_module.py").write_text("password = 1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "work"))
    assert "needs private_module" in seen(catalog, written(tmp_path / "model.pkl", "import private_module"))


def test_the_environment_is_not_handed_on(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "password")
    code = (
        "import os; assert 'SECRET_TOKEN' not in os.environ, 'leaked'; assert os.getcwd() == os.environ['HOME'], 'cwd'"
    )
    assert seen(catalog, written(tmp_path / "model.pkl", code)) == "imported"


def test_rights_and_times_of_files_stay(catalog: Catalog, tmp_path: Path, reach: dict[str, bool]) -> None:
    if not reach["processes"]:
        pytest.skip("calls are filtered on x86-64 only")
    victim = tmp_path / "victim"
    victim.write_text("whole")
    before = victim.stat()
    for code in (f"import os; os.chmod({str(victim)!r}, 0o777)", f"import os; os.utime({str(victim)!r}, (1, 1))"):
        assert "not permitted" in seen(catalog, written(tmp_path / "model.pkl", code)), code
    after = victim.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_the_network_is_out_of_reach(catalog: Catalog, tmp_path: Path, reach: dict[str, bool]) -> None:
    if not reach["network"]:
        pytest.skip("neither namespaces nor a filter of calls")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        for code in (
            f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)",
            f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
            f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}', timeout=5)",
        ):
            assert REFUSED.search(seen(catalog, written(tmp_path / "model.pkl", code))), code
        with pytest.raises(BlockingIOError):
            server.accept()


def test_no_process_is_started_or_disturbed(catalog: Catalog, tmp_path: Path, reach: dict[str, bool]) -> None:
    if not reach["processes"]:
        pytest.skip("calls are filtered on x86-64 only")
    for code in (
        "import os; os.fork()",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import subprocess; subprocess.run(['/bin/true'], check=True)",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.kill(os.getppid(), 0)",
        f"import os; os.kill({os.getpid()}, 9)",
    ):
        assert REFUSED.search(seen(catalog, written(tmp_path / "model.pkl", code))), code
    threads = "import threading; t = threading.Thread(target=lambda: None); t.start(); t.join()"
    assert seen(catalog, written(tmp_path / "model.pkl", threads)) == "imported"  # libraries need them


NEIGHBOURS = {
    "sched_setaffinity": "os.sched_setaffinity({other}, {{0}})",
    "sched_getaffinity": "os.sched_getaffinity({other})",
    "sched_setscheduler": "os.sched_setscheduler({other}, os.SCHED_BATCH, os.sched_param(0))",
    "sched_setparam": "os.sched_setparam({other}, os.sched_param(0))",
    "sched_getparam": "os.sched_getparam({other})",
    "setpriority": "os.setpriority(os.PRIO_PROCESS, {other}, 19)",
    "setpriority of a group": "os.setpriority(os.PRIO_PGRP, 0, 19)",
    "setpriority of a user": "os.setpriority(os.PRIO_USER, os.getuid(), 19)",
    "getpriority": "os.getpriority(os.PRIO_PROCESS, {other})",
    "prlimit, set": "resource.prlimit({other}, resource.RLIMIT_NOFILE, (8, 8))",
    "prlimit, get": "resource.prlimit({other}, resource.RLIMIT_NOFILE)",
    "ioprio_set": "call(251, 1, {other}, 3 << 13)",
    "ioprio_get": "call(252, 1, {other})",
    "sched_setattr": "call(314, {other}, bytes(48), 0)",
    "process_vm_readv": "call(310, {other}, None, 0, None, 0, 0)",
    "process_vm_writev": "call(311, {other}, None, 0, None, 0, 0)",
    "pidfd_open": "call(434, {other}, 0)",
    "pidfd_getfd": "call(438, 0, 0, 0)",
    "process_madvise": "call(440, 0, None, 0, 0, 0)",
    "kcmp": "call(312, {other}, {other}, 0, 0, 0)",
    "migrate_pages": "call(256, {other}, 0, None, None)",
    "move_pages": "call(279, {other}, 0, None, None, None, 0)",
    "get_robust_list": "call(274, {other}, ctypes.byref(ctypes.c_void_p()), ctypes.byref(ctypes.c_size_t()))",
    "setpgid": "os.setpgid(0, 0)",
    "getsid": "os.getsid({other})",
    "fcntl, F_SETOWN": "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, {other})",
    "fcntl, F_SETOWN of a group": "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, -{other})",
    "fcntl, F_SETSIG": "fcntl.fcntl(os.pipe()[0], 10, 15)",
    "fcntl, F_SETOWN_EX": "fcntl.fcntl(os.pipe()[0], 15, struct.pack('ii', 1, {other}))",
    "ioctl, FIOSETOWN": "fcntl.ioctl(os.pipe()[0], 0x8901, struct.pack('i', {other}))",
    "ioctl, SIOCSPGRP": "fcntl.ioctl(os.pipe()[0], 0x8902, struct.pack('i', {other}))",
    "ioctl, TIOCSTI": "fcntl.ioctl(0, 0x5412, b'x')",
}
CALL = """
import ctypes, fcntl, os, resource, struct
def call(*given):
    if ctypes.CDLL(None, use_errno=True).syscall(*given) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""


@pytest.mark.parametrize("other", ["os.getppid()", "1"])
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_no_call_reaches_another_process(name: str, other: str, reach: dict[str, bool]) -> None:
    """The filter alone refuses each, from a process that is started for it and not shut in otherwise."""
    if not reach["processes"]:
        pytest.skip("calls are filtered on x86-64 only")
    before = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    built, ended = alone("jail._filter(libc)", CALL + NEIGHBOURS[name].format(other=other))
    assert built and "Operation not permitted" in ended
    assert before == (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0))


def test_libraries_still_ask_about_their_own_process(reach: dict[str, bool]) -> None:
    own = "fcntl.fcntl(0, fcntl.F_SETFD, fcntl.fcntl(0, fcntl.F_GETFD))\nfcntl.fcntl(os.dup(1), fcntl.F_GETFL)\n"
    own += "os.isatty(os.pipe()[0])\n"
    own += "os.sched_setaffinity(0, os.sched_getaffinity(os.getpid()))\nresource.prlimit(0, resource.RLIMIT_NOFILE)\n"
    own += "resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)\nos.getpriority(os.PRIO_PROCESS, 0)\nprint('fine')"
    assert alone("jail._filter(libc)", CALL + own)[1].endswith("fine")


def test_names_sizes_and_times_of_other_files_are_hidden(
    catalog: Catalog, tmp_path: Path, reach: dict[str, bool], caplog: Any
) -> None:
    if not reach["paths"]:
        pytest.skip("this machine lets no ordinary user mount anything")
    (tmp_path / "diary.txt").write_text("whole")
    folder = f"{str(tmp_path)!r}"
    for code in (
        f"import os; os.stat({str(tmp_path / 'diary.txt')!r})",
        f"import os; os.lstat({str(tmp_path / 'diary.txt')!r})",
        "import os; os.stat('/etc/hostname')",
        f"import os; os.stat('/proc/{os.getpid()}')",
        f"import os; os.stat('/proc/self/root' + {str(tmp_path / 'diary.txt')!r})",
        "import os; os.stat('/.old/etc')",
        f"import os; os.readlink({str(tmp_path / 'diary.txt')!r})",
    ):
        assert "No such file" in seen(catalog, written(tmp_path / "model.pkl", code)), code
    for code in (f"import os; os.listdir({folder})", "import os; os.listdir('/')", "import os; os.listdir('/proc')"):
        assert "Permission denied" in seen(catalog, written(tmp_path / "model.pkl", code)), code
    works = "import os; assert os.urandom(3); open('/dev/null', 'w').write('x'); import ssl, sqlite3, ctypes"
    assert seen(catalog, written(tmp_path / "model.pkl", works)) == "imported"
    assert "could not" not in caplog.text


def test_a_machine_that_mounts_nothing_still_converts_and_says_so(tmp_path: Path) -> None:
    built, ended = alone("libc.umount2 and jail._root(libc, [], ['/nowhere'])", "print(os.getcwd())")
    assert not built and "Error" not in ended


def _convert(path: Path, tmp_path: Path, **limits: Any) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    isolate.convert(path, "pickle", scratch, Limits(**limits))


def test_limits_hold(tmp_path: Path) -> None:
    with pytest.raises(SerializationError, match=r"ended by signal SIG(XCPU|KILL)"):
        _convert(written(tmp_path / "cpu.pkl", "while True: pass"), tmp_path, cpu=1)
    with pytest.raises(InvalidInput, match=r"did not end|took too long"):
        _convert(written(tmp_path / "sleeps.pkl", "import time; time.sleep(60)"), tmp_path, clock=2.0)
    with pytest.raises(SerializationError, match="MemoryError"):
        _convert(written(tmp_path / "memory.pkl", "bytearray(8 << 30)"), tmp_path, memory=4 << 30)
    with pytest.raises(SerializationError, match=r"File too large|SIGXFSZ"):
        _convert(written(tmp_path / "large.pkl", "open('x', 'wb').write(bytes(1 << 22))"), tmp_path, file=1 << 20)
    many = "for n in range(10**6): open(f'x{n}', 'wb').write(bytes(1 << 16))"
    with pytest.raises(InvalidInput, match="wrote more than"):
        _convert(written(tmp_path / "many.pkl", many), tmp_path, written=4 << 20)


def test_noise_is_not_kept(tmp_path: Path) -> None:
    _convert(written(tmp_path / "loud.pkl", "import os\nfor _ in range(500): os.write(1, bytes(1 << 16))"), tmp_path)


@pytest.mark.parametrize(
    "result",
    [
        "[]",
        "{",
        '{"serializer": "keras"}',
        '{"serializer": "safetensors", "meta": 3}',
        '{"serializer": "safetensors", "meta": {"structure": {"dict": 7}}}',
        '{"error": ["x"]}',
        '{"error": "x", "missing": 5}',
    ],
)
def test_a_process_that_lies_of_its_result_is_not_believed(tmp_path: Path, result: str) -> None:
    code = f"import os; open('../out/result.json', 'w').write({result!r}); os._exit(0)"
    with pytest.raises(CatalogError):
        _convert(written(tmp_path / "lies.pkl", code), tmp_path)


def test_links_out_of_the_result_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password")
    told = json.dumps({"serializer": "safetensors", "meta": {}})
    code = f"import os; os.symlink({str(secret)!r}, '../out/model.safetensors'); "
    code += f"open('../out/result.json', 'w').write({told!r}); os._exit(0)"
    with pytest.raises(SerializationError, match="a link that leads out of out"):
        _convert(written(tmp_path / "links.pkl", code), tmp_path)
    code = f"import os; os.symlink({str(secret)!r}, '../out/result.json'); os._exit(0)"
    with pytest.raises(SerializationError, match="left nothing"):
        _convert(written(tmp_path / "links.pkl", code), tmp_path)


def test_what_cannot_be_unpickled_is_told_in_one_line(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "absent.pkl").write_bytes(b"cnowhere_to_be_found\nThing\n(tR.")
    with pytest.raises(MissingPlugin, match="needs nowhere_to_be_found, which is not installed"):
        catalog.import_(tmp_path / "absent.pkl", unsafe=True)
    (tmp_path / "words.pkl").write_bytes(pickle.dumps({"a": "b"}))
    with pytest.raises(SerializationError, match="a dict holds no arrays"):
        catalog.import_(tmp_path / "words.pkl", unsafe=True)


def test_what_a_machine_lacks_is_said(catalog: Catalog, tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    true = isolate._run

    def lacking(*given: Any) -> dict[str, bool]:
        return {**true(*given), "network": False}

    monkeypatch.setattr(isolate, "_run", lacking)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": W}))
    catalog.import_(tmp_path / "a.pkl", unsafe=True)
    assert "this machine could not cut the conversion off from the network" in caplog.text


def test_shards_of_the_hub_are_converted_into_one(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for number, key in ((1, "a"), (2, "b")):
        (folder / f"pytorch_model-{number:05}-of-00002.bin").write_bytes(pickle.dumps({key: W * number}))
    with pytest.raises(NotTrusted):
        catalog.import_(folder)
    (version,) = catalog.import_(folder, unsafe=True)
    loaded = catalog.load(version.ref, "model")
    assert np.array_equal(loaded["b"], W * 2) and set(loaded) == {"a", "b"}
    told = catalog.artifact(version).manifest.provenance["imported"]["converted"]
    assert len(told) == 2


ALONE = """
import ctypes, os, sys
sys.path[:] = {path!r}
from catalog_doors import jail
import socket
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
print({wall})
{code}
"""


def alone(wall: str, code: str) -> tuple[bool, str]:
    """Whether one wall of the jail could be built, without the others, and how the code ended behind it."""
    script = ALONE.format(path=sys.path, wall=wall, code=code)
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.startswith("True"), (done.stderr.strip().splitlines() or [done.stdout.strip()])[-1]


def test_each_wall_stands_alone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        call = f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        assert alone("True", call)[1] == "True", "without a wall it gets through"
        for wall in ("jail._namespaces(libc)[0]", "jail._filter(libc)"):
            built, ended = alone(wall, call)
            assert not built or "Error" in ended, wall
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    built, ended = alone(
        f"jail._landlock(libc, [], [{str(inside)!r}])", f"open({str(inside / 'a')!r}, 'w')\nopen({str(outside)!r}, 'w')"
    )
    assert not built or ("PermissionError" in ended and (inside / "a").exists() and not outside.exists())


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("f = open('x', 'wb'); os.unlink('x')", "wrote more than"),
        ("f = os.fdopen(os.open('.', os.O_TMPFILE | os.O_RDWR), 'wb')", "wrote more than"),
        ("f = open('x', 'wb')\nfor n in range(5000): os.mkdir(f'd{n}')", "wrote more than"),
        ("f = open('x', 'wb')\nfor n in range(300): os.mkdir('d' * 9), os.chdir('d' * 9)", "in each other"),
    ],
    ids=["a file that was removed", "a file without a name", "folders without number", "folders in each other"],
)
def test_what_no_folder_shows_counts_too(tmp_path: Path, code: str, why: str) -> None:
    """A disk is not filled behind the back of the limit."""
    size = 16 << 20 if code.startswith("f = os") or "unlink" in code else 1
    fill = f"import os, time\n{code}\nf.write(bytes({size}))\nf.flush()\ntime.sleep(60)"
    with pytest.raises(InvalidInput, match=why):
        _convert(written(tmp_path / "hidden.pkl", fill), tmp_path, written=8 << 20)


@pytest.mark.parametrize("mapped", ["16 << 20", "4096"])
def test_a_file_that_stays_mapped_counts_too(tmp_path: Path, mapped: str) -> None:
    """It was removed and closed, and takes its room on the disk until it is mapped no more, however little of it is."""
    fill = (
        f"import mmap, os, time\nf = open('x', 'w+b')\nf.write(bytes(16 << 20))\nf.flush()\n"
        f"m = mmap.mmap(f.fileno(), {mapped})\nos.unlink('x')\nos.closerange(3, 512)\ntime.sleep(60)"
    )
    with pytest.raises(InvalidInput, match="wrote more than"):
        _convert(written(tmp_path / "mapped.pkl", fill), tmp_path, written=8 << 20)


def test_memory_that_no_limit_counts_is_refused(catalog: Catalog, tmp_path: Path, reach: dict[str, bool]) -> None:
    if not reach["processes"]:
        pytest.skip("no filter of calls here")
    path = written(tmp_path / "memory.pkl", "import os; os.memfd_create('x')")
    assert "Operation not permitted" in seen(catalog, path)


def test_a_package_that_is_there_and_fails_is_not_called_missing(catalog: Catalog, tmp_path: Path) -> None:
    """`pip install` was the remedy for every ImportError, with the name of the module."""
    place = tmp_path / "model.pkl"
    place.write_bytes(b"cjson.no_such_part\nThing\n(tR.")  # another version has it
    with pytest.raises(SerializationError, match=r"imported: .*No module named 'json\.no_such_part'") as caught:
        catalog.import_(place, unsafe=True)
    assert "pip install" not in str(caught.value) and "another version" in str(caught.value.hint)
    place.write_bytes(b"cgoogle_nowhere.part\nThing\n(tR.")
    with pytest.raises(MissingPlugin, match="needs google_nowhere") as missing:
        catalog.import_(place, unsafe=True)
    assert missing.value.hint == "pip install google_nowhere"


def test_a_package_is_installed_by_its_own_name() -> None:
    names = {"sklearn.svm": "scikit-learn", "google.protobuf.service": "protobuf", "xgboost.core": "xgboost"}
    assert {module: installs(module) for module in names} == {m: f"pip install {name}" for m, name in names.items()}
