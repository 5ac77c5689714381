"""A git working tree is read without git: no program that a repository names runs, and the answers are those of git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog_core import Catalog, capture, git, git_objects

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ALLOW_PROTOCOL": "file",
}  # fmt: skip
NAMES = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always")


def run(folder: Path, *arguments: str, **more: Any) -> str:
    done = subprocess.run(
        ["git", *NAMES, "-C", str(folder), *arguments], check=True, capture_output=True, env=ENVIRONMENT, **more
    )
    return done.stdout.decode().strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "src" / "deep").mkdir(parents=True)
    run(root, "init", "-q", "-b", "main")
    (root / "a.txt").write_text("one\n")
    (root / "src" / "b.txt").write_text("two\n")
    (root / "src" / "deep" / "c.bin").write_bytes(bytes(range(256)) * 40)
    (root / "run.sh").write_text("echo\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("a.txt")
    run(root, "add", "-A")
    run(root, "commit", "-q", "-m", "first")
    return root


def looked(root: Path) -> dict[str, Any]:
    found = git.look(str(root), 60)
    assert found is not None
    return found


def is_dirty(root: Path) -> bool:
    return bool(run(root, "status", "--porcelain", "--untracked-files=no"))


# -- nothing runs ------------------------------------------------------------------------------------------------------


def _hook(root: Path, ran: Path) -> None:
    for name in ("post-index-change", "fsmonitor-watchman", "pre-commit", "post-checkout", "reference-transaction"):
        hook = root / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
        hook.chmod(0o755)


def _included(root: Path, ran: Path) -> None:
    more = root / ".git" / "more"
    more.write_text(f'[core]\n\tfsmonitor = "touch {ran}; false"\n[filter "evil"]\n\tclean = touch {ran}; cat\n')
    run(root, "config", f"includeIf.gitdir:{root}/.path", str(more))
    run(root, "config", "include.path", str(more))


def _submodule(root: Path, ran: Path) -> None:
    inner = root.parent / "inner"
    inner.mkdir()
    run(inner, "init", "-q")
    (inner / "x.txt").write_text("x\n")
    (inner / ".gitattributes").write_text("* filter=evil\n")
    run(inner, "add", "-A")
    run(inner, "commit", "-q", "-m", "x")
    run(root, "submodule", "add", "-q", str(inner), "sub")
    run(root, "commit", "-q", "-m", "sub")
    run(root / "sub", "config", "filter.evil.clean", f"touch {ran}; cat")
    run(root / "sub", "config", "core.fsmonitor", f"touch {ran}; false")
    (root / "sub" / "x.txt").write_text("y\n")


def _promised(root: Path, ran: Path) -> None:
    run(root, "config", "extensions.partialClone", "origin")
    run(root, "config", "core.repositoryFormatVersion", "1")
    run(root, "config", "remote.origin.promisor", "true")
    run(root, "config", "protocol.ext.allow", "always")
    run(root, "config", "remote.origin.url", f"ext::sh -c 'touch {ran}'")
    commit = run(root, "rev-parse", "HEAD")
    (root / ".git" / "objects" / commit[:2] / commit[2:]).unlink()


def _set(**values: str) -> Callable[[Path, Path], None]:
    def change(root: Path, ran: Path) -> None:
        for key, value in values.items():
            run(root, "config", key.replace("__", "."), value.format(ran=ran))

    return change


EVIL = {
    "clean filter": _set(filter__evil__clean="touch {ran}; cat", filter__evil__required="true"),
    "smudge filter": _set(filter__evil__smudge="touch {ran}; cat"),
    "process filter": _set(filter__evil__process="touch {ran}; cat"),
    "fsmonitor": _set(core__fsmonitor="touch {ran}; false"),
    "textconv": _set(diff__evil__textconv="touch {ran}; cat"),
    "external diff": _set(diff__evil__command="touch {ran}; true", diff__external="touch {ran}; true"),
    "ssh command": _set(core__sshCommand="touch {ran}; false", remote__origin__url="ssh://host/x"),
    "aliases": _set(
        alias__status="!touch {ran}", alias__diff="!touch {ran}", alias__remote="!touch {ran}",
        **{"alias__rev-parse": "!touch {ran}", "alias__symbolic-ref": "!touch {ran}"},
    ),
    "pager": _set(core__pager="touch {ran}; cat", pager__status="touch {ran}; cat", pager__diff="touch {ran}; cat"),
    "editor and askpass": _set(core__editor="touch {ran}", core__askPass="touch {ran}; true"),
    "credential helper": _set(credential__helper="!touch {ran}; true"),
    "gpg program": _set(gpg__program="touch {ran}; true", log__showSignature="true"),
    "hooks": _hook,
    "hooks elsewhere": _set(core__hooksPath="."),
    "includes": _included,
    "submodule": _submodule,
    "promised objects": _promised,
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_nothing_that_a_repository_names_runs_when_a_version_is_saved(
    name: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    (tree / ".gitattributes").write_text("* filter=evil diff=evil\n")
    EVIL[name](tree, ran)
    ran.unlink(missing_ok=True)  # git itself may have run it meanwhile
    (tree / "a.txt").write_text("changed\n")
    started: list[Any] = []
    monkeypatch.chdir(tree)
    capture._provenance.clear()
    capture.environment()  # the standard library asks uname, once a process
    WATCHERS.append(started)
    with Catalog.open(tmp_path / "catalog") as catalog, catalog.prepare("m", tree / "a.txt") as draft:
        found = draft.manifest.provenance["git"]
        draft.save()
    WATCHERS.clear()
    assert not ran.exists()
    assert started == []
    assert found["branch"] == "main"


WATCHERS: list[list[Any]] = []
AUDITED = ("subprocess.Popen", "os.exec", "os.system", "os.posix_spawn", "os.fork", "os.forkpty")
sys.addaudithook(lambda event, args: [w.append(args) for w in WATCHERS] if event in AUDITED else None)  # type: ignore


def test_a_repository_of_another_owner_is_read_and_runs_nothing(tree: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    commit = run(tree, "rev-parse", "HEAD")
    for path in (tree, tree / ".git"):
        os.chown(path, 12345, 12345)
    assert looked(tree)["commit"] == commit


@pytest.mark.parametrize("place", ["HEAD", "config", "index", "packed-refs", "commondir", "refs/heads/main"])
def test_a_pipe_in_a_repository_keeps_nobody_waiting(place: str, tree: Path) -> None:
    path = tree / ".git" / place
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    git.look(str(tree), 60)


@pytest.mark.parametrize("place", ["HEAD", "config", "index", "refs/heads/main", ".gitattributes", "objects"])
def test_a_broken_repository_is_not_known_and_no_error(place: str, tree: Path) -> None:
    path = tree / ".git" / place if place != ".gitattributes" else tree / place
    if path.is_dir():
        for item in path.rglob("*"):
            if item.is_file():
                item.chmod(0o644)
                item.write_bytes(b"\xff" * 40)
    else:
        path.write_bytes(b"DIRC\0\0\0\2\xff\xff\xff\xff[[\xff\0")
    (tree / "a.txt").write_text("changed\n")
    git.look(str(tree), 60)


# -- and the answers are right -----------------------------------------------------------------------------------------


def _touch(root: Path) -> None:
    os.utime(root / "a.txt", (1, 1))


def _edit(root: Path) -> None:
    (root / "src" / "deep" / "c.bin").write_bytes(b"new")


def _same_size(root: Path) -> None:
    (root / "a.txt").write_text("own\n")


def _stage(root: Path) -> None:
    _edit(root)
    run(root, "add", "-A")


def _stage_and_put_back(root: Path) -> None:
    data = (root / "a.txt").read_bytes()
    (root / "a.txt").write_text("x")
    run(root, "add", "-A")
    (root / "a.txt").write_bytes(data)


def _mode(root: Path) -> None:
    (root / "a.txt").chmod(0o755)


def _mode_that_does_not_count(root: Path) -> None:
    run(root, "config", "core.fileMode", "false")
    (root / "a.txt").chmod(0o755)


def _remove(root: Path) -> None:
    shutil.rmtree(root / "src")


def _uncache(root: Path) -> None:
    run(root, "rm", "-q", "--cached", "a.txt")


def _new(root: Path) -> None:
    (root / "new").write_text("untracked")


def _add(root: Path) -> None:
    _new(root)
    run(root, "add", "new")


def _intend(root: Path) -> None:
    _new(root)
    run(root, "add", "-N", "new")


def _relink(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("run.sh")


def _link_for_file(root: Path) -> None:
    (root / "a.txt").unlink()
    (root / "a.txt").symlink_to("run.sh")


def _skip(root: Path) -> None:
    run(root, "update-index", "--skip-worktree", "a.txt")
    (root / "a.txt").unlink()


def _assume(root: Path) -> None:
    run(root, "update-index", "--assume-unchanged", "a.txt")
    (root / "a.txt").write_text("else\n")


def _packed(root: Path) -> None:
    for number in range(30):
        (root / "src" / "b.txt").write_text("line\n" * 300 + str(number))
        run(root, "commit", "-q", "-a", "-m", str(number))
    run(root, "gc", "-q", "--aggressive", "--prune=now")
    run(root, "read-tree", "HEAD")  # no tree is noted in the index that it leaves behind a change
    _stage_and_put_back(root)


def _conflict(root: Path) -> None:
    run(root, "checkout", "-q", "-b", "other")
    (root / "a.txt").write_text("theirs\n")
    run(root, "commit", "-q", "-a", "-m", "theirs")
    run(root, "checkout", "-q", "main")
    (root / "a.txt").write_text("ours\n")
    run(root, "commit", "-q", "-a", "-m", "ours")
    with pytest.raises(subprocess.CalledProcessError):
        run(root, "merge", "-q", "other")


STATES = [
    lambda root: None, _touch, _edit, _same_size, _stage, _stage_and_put_back, _mode, _mode_that_does_not_count,
    _remove, _uncache, _new, _add, _intend, _relink, _link_for_file, _skip, _assume, _packed, _conflict,
]  # fmt: skip


@pytest.mark.parametrize("version", ["2", "3", "4"])
@pytest.mark.parametrize("change", STATES, ids=lambda change: change.__name__.strip("_<>"))
def test_dirty_is_what_git_says(change: Callable[[Path], None], version: str, tree: Path) -> None:
    run(tree, "update-index", "--index-version", version)
    change(tree)
    found = looked(tree)
    commit, branch = run(tree, "rev-parse", "HEAD"), run(tree, "symbolic-ref", "--short", "HEAD")
    dirty = is_dirty(tree)
    assert (found["commit"], found["branch"], found["dirty"]) == (commit, branch, dirty)
    assert (found["diff"] is not None) is (dirty and bool(run(tree, "diff", "HEAD")))


def test_the_same_difference_has_the_same_digest_and_another_has_another(tree: Path) -> None:
    _edit(tree)
    first = looked(tree)["diff"]
    run(tree, "add", "-A")
    assert looked(tree)["diff"] == first  # staged or not
    (tree / "a.txt").write_text("more\n")
    second = looked(tree)["diff"]
    (tree / "a.txt").write_text("less\n")
    third = looked(tree)["diff"]
    (tree / "a.txt").unlink()
    assert len({first, second, third, looked(tree)["diff"]}) == 4


def test_what_only_a_filter_could_tell_is_not_known(tree: Path) -> None:
    (tree / ".gitattributes").write_text("src/*.txt filter=upper\n")
    assert looked(tree)["dirty"] is False  # the times are those of the index
    os.utime(tree / "a.txt", (1, 1))
    os.utime(tree / "src" / "b.txt", (1, 1))
    assert looked(tree)["dirty"] is False  # and the content is that of the repository
    (tree / "src" / "b.txt").write_text("TWO\n")
    assert looked(tree)["dirty"] is None
    (tree / "a.txt").write_text("else\n")
    found = looked(tree)
    assert (found["dirty"], found["diff"]) == (True, None)  # a digest of what is known would hold for other trees too


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("top.x", "**/*.x filter=upper\n"),
        ("src/one/top.x", "src/**/*.x filter=upper\n"),
        ("src/top.x", "src/**/*.x filter=upper\n"),
        ("two words.x", '"two words.x" filter=upper\n'),
        ("src/top.x", "[attr]big filter=upper -text\n*.x big\n"),
    ],
)
def test_a_filter_is_seen_whatever_pattern_asks_for_it(tree: Path, name: str, attributes: str) -> None:
    path = tree / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("one\n")
    (tree / ".gitattributes").write_text(attributes)
    run(tree, "add", "-A")
    run(tree, "commit", "-q", "-m", "x")
    assert "filter: upper" in run(tree, "check-attr", "filter", name)  # so says git
    path.write_text("ONE\n")
    assert looked(tree)["dirty"] is None


def test_other_ends_of_lines_are_no_difference(tree: Path) -> None:
    (tree / "a.txt").write_bytes(b"one\r\n")  # as core.autocrlf checks it out
    assert looked(tree)["dirty"] is False
    (tree / "a.txt").write_bytes(b"one\r")
    assert looked(tree)["dirty"] is True


def test_a_pointer_of_lfs_stands_for_its_file(tree: Path) -> None:
    import hashlib

    content = b"weights" * 100
    oid = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"
    (tree / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (tree / "w.bin").write_text(pointer)
    run(tree, "add", "-A")
    run(tree, "commit", "-q", "-m", "lfs")
    (tree / "w.bin").write_bytes(content)  # as git lfs checks it out
    assert looked(tree)["dirty"] is False
    (tree / "w.bin").write_bytes(content + b"x")
    assert looked(tree)["dirty"] is True


def test_further_working_trees_detached_heads_and_submodules_are_read(tree: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    run(tree, "worktree", "add", "-q", "-b", "topic/x", str(more))
    assert (looked(more)["branch"], looked(more)["dirty"]) == ("topic/x", False)
    run(more, "checkout", "-q", "--detach")
    run(tree, "pack-refs", "--all")
    assert (looked(more)["branch"], looked(more)["commit"]) == (None, run(tree, "rev-parse", "HEAD"))
    run(tree, "submodule", "add", "-q", str(more), "sub")
    run(tree, "commit", "-q", "-m", "sub")
    assert looked(tree)["dirty"] is False
    assert looked(tree / "sub")["commit"] == run(tree / "sub", "rev-parse", "HEAD")
    run(tree / "sub", "commit", "-q", "--allow-empty", "-m", "ahead")
    assert looked(tree)["dirty"] is is_dirty(tree) is True


def test_a_clone_that_borrows_its_objects_is_read(tree: Path, tmp_path: Path) -> None:
    _packed(tree)
    run(tree, "reset", "-q", "--hard")
    run(tmp_path, "clone", "-q", "--shared", str(tree), "clone")
    clone = tmp_path / "clone"
    run(clone, "rm", "-q", "--cached", "a.txt")  # then the tree is read, from the other's packs
    found = looked(clone)
    assert (found["dirty"], found["url"], found["remote"]) == (True, str(tree), "origin")


def test_a_repository_of_sha256_is_read(tmp_path: Path) -> None:
    run(tmp_path, "init", "-q", "--object-format=sha256", "-b", "main")
    (tmp_path / "a").write_text("a")
    run(tmp_path, "add", "a")
    assert looked(tmp_path)["dirty"] is True
    run(tmp_path, "commit", "-q", "-m", "a")
    found = looked(tmp_path)
    assert (found["commit"], found["dirty"]) == (run(tmp_path, "rev-parse", "HEAD"), False)


def test_out_of_time_the_answer_is_not_known(tree: Path) -> None:
    os.utime(tree / "a.txt", (1, 1))
    found = git.look(str(tree), -1.0)
    assert found is not None
    assert (found["branch"], found["dirty"]) == ("main", None)


class _Counted(bytes):
    """Bytes that count how many of them were taken."""

    taken = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        _Counted.taken += len(found) if isinstance(found, bytes) else 1
        return found


def test_of_a_pack_no_more_is_read_than_its_trees_take(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an object ends is not known before: taking all that may follow cost 64 MiB for each of the trees."""
    for number in range(100):
        (tree / f"d{number}").mkdir()
        (tree / f"d{number}" / "f").write_text(str(number))
    (tree / "zz.bin").write_bytes(os.urandom(4 << 20))
    run(tree, "add", "-A")
    run(tree, "commit", "-q", "-m", "many")
    run(tree, "tag", "-a", "v1", "-m", "v1")  # git packs commits and trees first, what is below a tag behind them
    (tree / "a.txt").write_text("more\n")
    run(tree, "commit", "-q", "-a", "-m", "more")
    run(tree, "gc", "-q")
    (tree / "a.txt").write_text("staged\n")
    run(tree, "add", "a.txt")
    monkeypatch.setattr(git_objects, "_mapped", lambda path: _Counted(path.read_bytes()))
    monkeypatch.setattr(_Counted, "taken", 0)
    assert looked(tree)["dirty"] is True
    assert 0 < _Counted.taken < 4 << 20


def test_what_takes_too_long_ends_in_the_midst_of_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(git._Changes, "_working", lambda self, entry, written: seen.append(entry))
    found = git.look(str(tree), -1.0)
    assert found is not None and found["dirty"] is None and not seen
    _packed(tree)
    objects = git_objects.Objects(tree / ".git" / "objects", 20, deadline=0.0)
    with pytest.raises(TimeoutError):
        objects.tree_of(bytes.fromhex(run(tree, "rev-parse", "HEAD")))
