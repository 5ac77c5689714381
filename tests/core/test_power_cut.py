"""Power cuts: the file operations of saves are recorded, and what a disk may hold after each of them is opened again.

The disk of the model keeps what POSIX promises and no more: the bytes of a file as of its last fsync, the names of a
folder as of the last fsync of that folder. Of what came later it may keep all, nothing, or parts (`SURVIVALS`).
"""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from system_packages import lacking

import catalog_core
import catalog_files
import catalog_sqlite
from catalog_core import Catalog, durable, journal
from catalog_core.errors import BackendError, CatalogError, NotFound

WRITER = Path(__file__).with_name("power_writer.py")
BACKENDS = ("sqlite", "file")
CALLS = (
    "open,openat,creat,write,pwrite64,pwritev,pwritev2,writev,truncate,ftruncate,fallocate,fsync,fdatasync,"
    "sync_file_range,link,linkat,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,symlink,symlinkat,"
    "lseek,mmap,msync,copy_file_range,sendfile"
)


# -- the recorder ---------------------------------------------------------------------------------------------------


def _strace() -> str:
    """The path of a strace that works here; skips where there is none."""
    if reason := lacking({"strace": "strace"}):
        pytest.skip(f"POWER CUTS NOT TESTED: {reason}")
    found = str(shutil.which("strace"))
    probe = subprocess.run([found, "-e", "trace=fsync", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"POWER CUTS NOT TESTED: strace MAY NOT TRACE HERE ({probe.stderr.strip()[:80]})")
    return found


@attrs.frozen
class Op:
    """One recorded call: the paths it names (those of open files too), the bytes it writes, other words, its result."""

    call: str
    paths: tuple[Path, ...]
    data: bytes
    words: tuple[str, ...]
    result: int


_LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)$")
_ITEM = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?|-?\w+<((?:\\x[0-9a-f]{2})*)>|([\w|~-]+)')


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _op(call: str, arguments: str, result: int) -> Op:
    paths: list[Path] = []
    words, data, opened = [], b"", Path("/")
    for quoted, cut, path, word in _ITEM.findall(arguments):
        assert not cut, "strace cut a string short"
        if path:  # an open file, or the folder to which the next path is relative
            opened = Path(os.fsdecode(_bytes(path)))
            paths.append(opened)
        elif word:
            words.append(word)
        elif call in ("write", "pwrite64"):
            data = _bytes(quoted)
        else:
            if call.endswith(("at", "at2")):
                paths.remove(opened)
            paths.append(opened / os.fsdecode(_bytes(quoted)))
    return Op(call, tuple(paths), data, tuple(words), result)


def _operations(log: Path, folder: Path) -> Iterator[Op]:
    """The calls of a log that name something in `folder` and did not fail, in order of their return."""
    wanted = "".join(f"\\x{byte:02x}" for byte in os.fsencode(folder))
    begun: dict[str, str] = {}
    with log.open() as lines:
        for line in lines:
            match = _LINE.match(line)
            if not match:
                continue
            process, call, rest = match.groups()
            if rest.rstrip().endswith("<unfinished ...>"):
                begun[process] = rest.partition("<unfinished")[0]
                continue
            if "resumed>" in line[:60]:
                rest = begun.pop(process) + rest
            elif wanted in rest and any(wanted in other for other in begun.values()):
                raise AssertionError("two threads change the catalog at once: the order of their calls is not known")
            arguments, _, result = rest.rpartition(" = ")
            if wanted in arguments and not result.startswith(("-1", "?")):
                yield _op(call, arguments, int(re.split(r"\W", result, maxsplit=1)[0], 0))


# -- the disk -------------------------------------------------------------------------------------------------------


Changes = list[tuple[int, bytes | None]]


class File:
    """Bytes as of the last fsync, and the changes since: (offset, bytes) written, (size, None) cut or grown."""

    def __init__(self) -> None:
        self.synced = b""
        self.pending: Changes = []
        self.at = 0

    def after(self, changes: Changes) -> bytes:
        """The synced bytes with `changes` made to them."""
        data = bytearray(self.synced)
        for offset, part in changes:
            data += bytes(max(0, offset - len(data)))
            if part is None:
                del data[offset:]
            else:
                data[offset : offset + len(part)] = part
        return bytes(data)


class Folder:
    """Names now, and as of the last fsync."""

    def __init__(self) -> None:
        self.names: dict[str, File | Folder] = {}
        self.synced: dict[str, File | Folder] = {}


def _torn(pending: Changes) -> Changes:
    """All but the last, and half of that."""
    offset, part = pending[-1]
    return pending if part is None else [*pending[:-1], (offset, part[: len(part) // 2])]


def _none(pending: Changes) -> Changes:
    return []


def _last(pending: Changes) -> Changes:
    return pending[-1:]


def _all(pending: Changes) -> Changes:
    return pending


# What may be left of names and of bytes that were not synced. The first is what is promised, the second is a mere kill.
SURVIVALS: dict[str, tuple[Callable[[Folder], dict[str, Any]], Callable[[Changes], Changes]]] = {
    "nothing": (lambda folder: folder.synced, _none),
    "all": (lambda folder: folder.names, _all),
    "names": (lambda folder: folder.names, _none),
    "bytes": (lambda folder: folder.synced, _all),
    "a torn write": (lambda folder: folder.names, _torn),
    "a torn write, no names": (lambda folder: folder.synced, _torn),
    "the last write": (lambda folder: folder.names, _last),
    "removals": (lambda folder: {n: x for n, x in folder.synced.items() if folder.names.get(n) is x}, _all),
    "additions": (lambda folder: {**folder.synced, **folder.names}, _all),
}


class Disk:
    """A folder on a disk that forgets what was not synced. The folder itself is safe from the beginning."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = Folder()

    def _find(self, path: Path) -> tuple[Folder, str]:
        folder: Any = self.top
        for part in path.relative_to(self.root).parts[:-1]:
            folder = folder.names[part]
        return folder, path.name

    def _node(self, path: Path) -> Any:
        if path == self.root:
            return self.top
        folder, name = self._find(path)
        return folder.names.get(name)

    def apply(self, op: Op) -> bool:
        """Take in a call; whether it changed anything."""
        if not all(path.is_relative_to(self.root) for path in op.paths) or not op.paths:
            return False
        if any(path.name.endswith("-shm") for path in op.paths):
            return False  # shared memory of SQLite's processes: made anew after a crash
        call = re.sub("^f(data)?sync$", "fsync", re.sub("at2?$", "", op.call))
        handler = getattr(self, f"_on_{call}", None)
        assert handler, f"{op.call} changes the catalog, and this model does not know it"
        return bool(handler(op, *op.paths))

    def _on_open(self, op: Op, path: Path) -> bool:
        assert not any("O_APPEND" in word for word in op.words), f"{path} is appended to: not modelled"
        node = self._node(path)
        if isinstance(node, File):
            node.at = 0
            if any("O_TRUNC" in word for word in op.words):
                node.pending.append((0, None))
                return True
        elif node is None and any("O_CREAT" in word for word in op.words):
            folder, name = self._find(path)
            folder.names[name] = File()
            return True
        return False

    def _on_lseek(self, op: Op, path: Path) -> bool:
        node = self._node(path)
        if isinstance(node, File):
            node.at = op.result
        return False

    def _on_mmap(self, op: Op, path: Path) -> bool:
        assert not {"MAP_SHARED", "PROT_READ|PROT_WRITE"} <= set(op.words), f"{path} is written by a shared map"
        return False

    def _on_write(self, op: Op, path: Path) -> bool:
        node = self._node(path)
        node.pending.append((node.at, op.data[: op.result]))
        node.at += op.result
        return True

    def _on_pwrite64(self, op: Op, path: Path) -> bool:
        self._node(path).pending.append((int(op.words[-1]), op.data[: op.result]))
        return True

    def _on_ftruncate(self, op: Op, path: Path) -> bool:
        self._node(path).pending.append((int(op.words[-1]), None))
        return True

    def _on_fsync(self, op: Op, path: Path) -> bool:
        node = self._node(path)
        if isinstance(node, Folder):
            node.synced = dict(node.names)
        else:
            node.synced, node.pending = node.after(node.pending), []
        return True

    def _on_link(self, op: Op, path: Path, other: Path) -> bool:
        folder, name = self._find(other)
        folder.names[name] = self._node(path)
        return True

    def _on_rename(self, op: Op, path: Path, other: Path) -> bool:
        (before, old), (after, new) = self._find(path), self._find(other)
        after.names[new] = before.names.pop(old)
        return True

    def _on_unlink(self, op: Op, path: Path) -> bool:
        folder, name = self._find(path)
        del folder.names[name]
        return True

    _on_rmdir = _on_unlink

    def _on_mkdir(self, op: Op, path: Path) -> bool:
        folder, name = self._find(path)
        folder.names[name] = Folder()
        return True

    def left(self, survival: str) -> dict[str, bytes | None]:
        """What a cut of the power now leaves: relative path → bytes, None for a folder."""
        names, changes = SURVIVALS[survival]
        left: dict[str, bytes | None] = {}

        def walk(folder: Folder, prefix: str) -> None:
            for name, node in names(folder).items():
                if isinstance(node, Folder):
                    left[prefix + name] = None
                    walk(node, f"{prefix}{name}/")
                else:
                    left[prefix + name] = node.after(changes(node.pending) if node.pending else [])

        walk(self.top, "")
        return left


# -- what must hold -------------------------------------------------------------------------------------------------


def _weights(seed: int, size: int) -> dict[str, Any]:
    return {
        "seed": np.array([seed]),
        "frozen": np.random.default_rng(size).random(size, dtype=np.float32),
        "w": np.random.default_rng(seed).random(size, dtype=np.float32),
    }


def _whole(catalog: Catalog, number: int, size: int | None = None) -> int:
    """Load a version and hold it against what its seed says; return the seed."""
    loaded = catalog.load(f"m@{number}")
    seed, size = int(loaded["seed"][0]), size or len(loaded["w"])
    for name, array in _weights(seed, size).items():
        assert np.array_equal(loaded[name], array), f"m@{number} holds other weights in {name}"
    return seed


def check(url: str, folder: Path, promised: list[dict[str, Any]]) -> None:
    """Open what a crash left, and find everything that was promised, nothing by halves, and room for more."""
    saved = {ack["number"]: ack for ack in promised if ack["done"] == "save"}
    deleted = {ack["number"] for ack in promised if ack["done"] == "delete"}
    try:
        catalog = Catalog.open(url, create=False)
    except NotFound:
        assert not promised, "the catalog is lost"
        catalog = Catalog.open(url)
    with catalog:
        there = [] if "m" not in catalog else [version.number for version in catalog.versions("m")]
        newest = max(there, default=max(saved, default=0))
        assert set(saved) - deleted <= set(there), f"promised {sorted(set(saved) - deleted)}, found {there}"
        assert set(there) | deleted == set(range(1, newest + 1)), f"found {there}"
        for number in there:
            known = saved.get(number)
            seed = _whole(catalog, number, known and known["size"])
            assert known is None or known["seed"] == seed
        if there:
            assert catalog.model("m").aliases.get("a", newest) == newest or deleted
        findings = catalog.fsck()
        assert findings.clean, findings.problems
        catalog.gc(grace=-1)
        assert not list((folder / "staging").iterdir())
        number = catalog.save("m", _weights(1000, 20_000), alias="a").number
        assert number > newest
    with Catalog.open(url, create=False) as catalog:
        _whole(catalog, number)
        assert catalog.fsck().clean


# -- plans, and their replay ----------------------------------------------------------------------------------------

LARGE, MIDDLE, SMALL = 10_000, 3_000, 4  # floats: a pack of its own; a blob on the file store; in the entry or a row
STEPS: list[list[Any]] = [["save", 1, LARGE], ["save", 2, MIDDLE], ["save", 3, SMALL]]
ALL = [*STEPS, ["write", 4, LARGE + 1]]  # the file that a serializer wrote becomes the pack
LONG = [
    *STEPS,
    ["reopen"],
    ["save", 4, LARGE],
    ["delete", 1],
    ["gc"],
    ["save", 1, LARGE],
    ["reopen"],
    ["gc"],
    *[["save", seed, (SMALL, MIDDLE, LARGE)[seed % 3]] for seed in range(5, 12)],
]


@attrs.define
class Recording:
    """What was recorded of one plan."""

    disk: Path
    operations: dict[str, list[Op]]  # by scenario
    promises: dict[str, list[dict[str, Any]]]

    def replay(self, name: str, survivals: list[str], only_promises: bool = False) -> Iterator[tuple[str, Any, Any]]:
        """The distinct states that a crash may leave of the scenario `name`: where it happened, what was left, and
        what had been promised by then. With `only_promises`, crashes right after a promise."""
        disk = Disk(self.disk / name)
        promised: list[dict[str, Any]] = []
        seen: set[str] = set()
        for number, op in enumerate(self.operations[name]):
            if op.paths == (self.disk / "acknowledged",):
                ack = json.loads(op.data)
                if ack["done"] == "end":
                    continue
                promised.append(ack)
            elif not disk.apply(op) or only_promises:
                continue
            for survival in survivals:
                left = disk.left(survival)
                digest = hashlib.sha256(json.dumps(promised).encode())
                for path, data in sorted(left.items()):
                    digest.update(f"\0{path}\0{data is None}\0".encode() + (data or b""))
                if digest.hexdigest() not in seen:
                    seen.add(digest.hexdigest())
                    yield f"after call {number} ({op.call}), {survival} kept", left, list(promised)


class Machine:
    """Records plans, and opens what crashes leave of them."""

    def __init__(self, folder: Path, logs: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.logs = logs
        self.patch = patch
        self.checked = 0
        patch.setattr(
            journal, "entry_key", lambda position, epoch=0: f"journal/{epoch:010}/{position // 2:010}/{position:010}"
        )  # as the writer does: a new folder for every second entry

    def record(self, plan: dict[str, list[dict[str, Any]]]) -> Recording:
        """Run `scheme-name` → lives, all under strace in one go."""
        disk, strace = self.folder / "disk", _strace()
        disk.mkdir()
        (disk / "acknowledged").touch()
        scenarios = []
        for name, lives in plan.items():
            (disk / name).mkdir()
            url = f"{name.partition('-')[0]}://{disk / name}/made/catalog"
            scenarios.append({"name": name, "url": url, "lives": lives})
        (self.logs / "plan.json").write_text(json.dumps(scenarios))
        log = self.logs / "log"
        trace = "trace=" + ",".join(f"?{call}" for call in CALLS.split(","))
        command = [strace, "-f", "-y", "-xx", "-s", "4000000", "-e", trace, "-e", "signal=none", "-o", str(log)]
        command += [sys.executable, str(WRITER), str(self.logs / "plan.json"), str(disk / "acknowledged")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        promises: dict[str, list[dict[str, Any]]] = {}
        for line in (disk / "acknowledged").read_text().splitlines():
            ack = json.loads(line)
            promises.setdefault(ack["scenario"], []).append(ack)
        operations: dict[str, list[Op]] = {name: [] for name in plan}
        for op in _operations(log, disk):
            for name in {path.relative_to(disk).parts[0] for path in op.paths if disk in path.parents}:
                if name in operations:
                    operations[name].append(op)
                elif op.call == "write":
                    operations[json.loads(op.data)["scenario"]].append(op)
        log.unlink()
        return Recording(disk, operations, promises)

    def survive(
        self, recording: Recording, name: str, survivals: list[str] | None = None, only_promises: bool = False
    ) -> str | None:
        """Open every state that a crash may leave; say what was lost first, if anything was."""
        for where, left, promised in recording.replay(name, survivals or list(SURVIVALS), only_promises):
            self.checked += 1
            work = self.folder / "after"
            shutil.rmtree(work, ignore_errors=True)
            for path, data in left.items():
                target = work / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.mkdir(exist_ok=True) if data is None else target.write_bytes(data)
            self.patch.setenv("CATALOG_CACHE_DIR", str(work / "cache"))
            folder = work / "made/catalog"
            try:
                check(f"{name.partition('-')[0]}://{folder}", folder, promised)
            except (AssertionError, CatalogError) as exc:
                return f"{name}, {where}: {type(exc).__name__}: {exc}"
        return None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    memory = Path("/dev/shm")  # the disk is a model, so that a real one only costs time
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Machine(Path(folder), tmp_path, monkeypatch)


@pytest.mark.server
@pytest.mark.parametrize("scheme", BACKENDS)
def test_no_acknowledged_version_is_lost_wherever_the_power_is_cut(machine: Machine, scheme: str) -> None:
    recording = machine.record({f"{scheme}-saves": [{"steps": STEPS}]})
    lost = machine.survive(recording, f"{scheme}-saves")
    assert lost is None, lost
    print(f"{scheme}: {machine.checked} crash states")
    assert machine.checked > 50


@pytest.mark.campaign
@pytest.mark.parametrize("scheme", BACKENDS)
def test_no_acknowledged_version_is_lost_in_a_long_life(machine: Machine, scheme: str) -> None:
    recording = machine.record({f"{scheme}-long": [{"steps": LONG}, {"steps": STEPS, "creates": False}]})
    lost = machine.survive(recording, f"{scheme}-long")
    assert lost is None, lost
    print(f"{scheme}: {machine.checked} crash states")


def test_a_name_that_could_not_be_synced_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    sync_folder = durable.sync_folder

    def broken(folder: Path) -> None:
        if "journal" in folder.parts:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync_folder(folder)

    with Catalog.open(f"file://{tmp_path}/catalog") as catalog:
        with monkeypatch.context() as patched, pytest.raises(BackendError):
            patched.setattr(durable, "sync_folder", broken)
            catalog.save("m", {"w": np.zeros(4)})
        assert catalog.save("m", {"w": np.ones(4)}).number in (1, 2)
        assert catalog.fsck().clean


def _sites() -> list[tuple[str, str, int, int]]:
    """Every place in the library that asks for something to be synced: file, function, first and last line."""
    found = []
    roots = [Path(str(package.__file__)).parent for package in (catalog_core, catalog_files, catalog_sqlite)]
    for path in [path for root in roots for path in sorted(root.rglob("*.py")) if "testing" not in path.parts]:
        for function in [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]:
            if path.name == "durable.py" and function.name in ("sync", "sync_folder", "flush"):
                continue  # two that the others call, and one that only hurries a later one
            if path.name in ("cache.py", "bundle.py"):
                continue  # of copies of what is elsewhere: tests/core/test_cache.py, test_bundle.py
            if path.name in ("sync.py", "catalog.py", "draft.py"):
                continue  # replicas are brought in sync there, no disk
            for node in ast.walk(function):
                name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
                if name in ("sync", "sync_folder", "fsync", "fdatasync"):
                    found.append((path.name, function.name, node.lineno, node.end_lineno or node.lineno))
    return found


def _interrupted(scheme: str, label: str, **second: Any) -> dict[str, list[dict[str, Any]]]:
    """A writer that dies before its first, second, … sync or link; then one that saves the same and lives."""
    moments = range(1, 38 if scheme == "file" else 14)
    follower = {"steps": [*STEPS, *STEPS[:1]], "creates": False, **second}
    return {f"{scheme}-{label}-{moment}": [{"steps": STEPS, "die": moment}, follower] for moment in moments}


@pytest.mark.server
def test_without_any_single_fsync_a_version_is_lost(machine: Machine) -> None:
    """Each place that syncs is left out, alone: a cut of the power then loses something that was promised."""
    sites = _sites()
    plan: dict[str, list[dict[str, Any]]] = {}
    for scheme in BACKENDS:
        plan[f"{scheme}-whole"] = [{"steps": ALL}]
        for number, (_, function, *_) in enumerate(sites):
            if function == "settled":  # for what others left: there must be others
                plan |= _interrupted("file", str(number), skip=sites[number])
            else:
                plan[f"{scheme}-{number}-0"] = [{"steps": ALL, "skip": sites[number]}]
    for mode in ("NORMAL", "OFF"):
        plan[f"sqlite-{mode}"] = [{"steps": STEPS, "synchronous": mode}]
    recording = machine.record(plan)
    for mode in ("NORMAL", "OFF"):
        assert machine.survive(recording, f"sqlite-{mode}", ["nothing"], True), f"synchronous={mode} loses nothing"
    for scheme in BACKENDS:
        whole = machine.survive(recording, f"{scheme}-whole", only_promises=True)
        assert whole is None, whole
    for number, site in enumerate(sites):
        lost = {}
        for scheme in BACKENDS:
            for name in [name for name in plan if name.startswith(f"{scheme}-{number}-") and scheme not in lost]:
                found = machine.survive(recording, name, ["nothing"], True)
                if found:
                    lost[scheme] = found
                    break
        assert lost, f"nothing is lost without the sync in {site}"
        # a sync that a plain save asks for on this backend is missed on this backend
        for scheme in BACKENDS:
            ran = recording.promises[f"{scheme}-whole"][-1]["sites"]
            if any([f, g] == list(site[:2]) and site[2] <= line <= site[3] for f, g, line in ran):
                assert scheme in lost, f"on {scheme}, nothing is lost without the sync in {site}"
        print(f"without the sync in {site[0]}, {site[1]}, line {site[2]}:", *(text[:130] for text in lost.values()))


@pytest.mark.server
@pytest.mark.parametrize("scheme", BACKENDS)
def test_what_a_killed_writer_left_unsynced_is_safe_once_another_relies_on_it(machine: Machine, scheme: str) -> None:
    """A writer is killed before each of its syncs and links; another saves the same, is promised it, and the power
    goes."""
    plan = _interrupted(scheme, "dies")
    recording = machine.record(plan)
    ends = [sum(ack["done"] == "end" for ack in recording.promises[name]) for name in plan]
    assert ends[0] == 1 and ends[-1] == 2, f"more moments are needed: {ends}"
    lost = [machine.survive(recording, name, ["nothing"], True) for name in plan]
    assert not any(lost), "\n".join(filter(None, lost))
