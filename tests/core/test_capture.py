from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from catalog_core import capture

pytestmark = pytest.mark.unit
git_needed = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://u:p@ss@host/x", "https://host/x"),
        ("https://u:p@host/x@y?token=1#z", "https://host/x@y"),
        ("https://host/x#token=1", "https://host/x"),
        ("git@host:group/x.git", "git@host:group/x.git"),
    ],
)
def test_scrub(url: str, clean: str) -> None:
    assert capture.scrub(url) == clean


def test_provenance_in_a_deleted_folder_is_null(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]);"
        "from catalog_core import capture; print(capture.provenance()['git'])"
    )
    root = Path(capture.__file__).parents[1]
    gone = tmp_path / "gone"
    gone.mkdir()
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code, str(gone)], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


@git_needed
def test_a_repository_without_commits_keeps_its_remote(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "remote", "add", "origin", "https://u:p@ss@host/x.git")
    found = capture.provenance(str(tmp_path))["git"]
    assert (found["commit"], found["remote"], found["url"]) == (None, "origin", "https://host/x.git")


def test_driver_and_cards_are_read_from_the_kernel(tmp_path: Path) -> None:
    assert capture._gpu(tmp_path) is None
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\nGCC\n")
    card = tmp_path / "gpus" / "0000:01:00.0" / "information"
    card.parent.mkdir(parents=True)
    card.write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    assert capture._gpu(tmp_path) == {"driver": "550.54.15", "models": ["NVIDIA H200"]}
