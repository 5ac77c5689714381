from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from catalog_core import Catalog, capture, recreate
from catalog_core.errors import IntegrityError, NotTrusted

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


def _distribution(site: Path, folder: str, metadata: str | None, direct: object = None) -> None:
    place = site / f"{folder}.dist-info"
    place.mkdir(parents=True)
    (place / "RECORD").write_text("")
    if metadata is not None:
        (place / "METADATA").write_text(metadata)
    if direct is not None:
        (place / "direct_url.json").write_text(direct if isinstance(direct, str) else json.dumps(direct))


def test_broken_distributions_are_passed_over_and_origins_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, commit = tmp_path / "site", "a" * 40
    told = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n".format
    _distribution(site, "broken_one-1.0", None)
    _distribution(site, "empty_two-2.0", "")
    _distribution(site, "noversion-3", "Metadata-Version: 2.1\nName: noversion\n")
    _distribution(site, "plain_pkg-1.2", told("plain_pkg", "1.2.post1+loc.3"))
    url = "https://me:s3cr3t@git.example.org/x/fromgit.git?token=abc"
    _distribution(
        site, "fromgit-0.9", told("fromgit", "0.9"), {"url": url, "vcs_info": {"vcs": "git", "commit_id": commit}}
    )
    _distribution(
        site, "fromdir-1", told("fromdir", "1"), {"url": "file:///home/me/secret", "dir_info": {"editable": True}}
    )
    _distribution(site, "oddity-1", told("oddity", "1"), "{no json")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(capture, "_environment", {})
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as catalog:
        artifact = catalog.artifact(catalog.save("m", {"w": np.zeros(1)}))
        lines = recreate.requirements(artifact)
        assert {
            "plain_pkg==1.2.post1",
            "oddity==1",
            f"fromgit @ git+https://git.example.org/x/fromgit.git@{commit}",
        } <= {*lines}
        assert "fromdir 1" in recreate.local(artifact)
        names = "\n".join(lines)
        assert not re.search("s3cr3t|token|secret|noversion|broken|empty_two|fromdir", names)
        assert "noversion" not in artifact.distributions()
        with pytest.raises(NotTrusted, match="address that its author chose"):
            recreate.create(artifact, tmp_path / "env")
        assert not (tmp_path / "env").exists()


@pytest.mark.parametrize(
    ("direct", "origin"),
    [
        ({"url": "ssh://git@github.com/x/y", "vcs_info": {"vcs": "git", "commit_id": "1"}}, "git+ssh://git@github.com/x/y@1"),
        ({"url": "https://a/b.git", "vcs_info": {"vcs": "git", "commit_id": "1"}, "subdirectory": "c"},
         "git+https://a/b.git@1#subdirectory=c"),
        ({"url": "https://a/b.whl", "archive_info": {"hashes": {"sha256": "ab"}}}, "https://a/b.whl#sha256=ab"),
        ({"url": "https://u:p@a/b.whl", "archive_info": {}}, "https://a/b.whl"),
        ({"url": "file:///x/b.whl", "archive_info": {}}, "local"),
        ({"url": "file:///x", "dir_info": {}}, "local"),
        ({"url": "https://objectstorage.eu-frankfurt-1.oraclecloud.com/p/x7Secret9-abcdef/n/ns/b/wheels/o/a.whl",
          "archive_info": {}}, "https://objectstorage.eu-frankfurt-1.oraclecloud.com/p/***/n/ns/b/wheels/o/a.whl"),
        ({"url": "https://dl.example.org/aB3dE5gH7jK9mN1p/org/a.whl", "archive_info": {}},
         "https://dl.example.org/***/org/a.whl"),
        ({"url": "https://u:p/q@a/b.whl", "archive_info": {}}, "https://a/b.whl"),
        ({"url": "https://git@u:p@a/b.whl", "archive_info": {}}, "https://a/b.whl"),
        ({"url": "https://files.pythonhosted.org/packages/1f/2e/" + "0a1b2c3d4e5f" * 5 + "/a_b-1.0-py3-none-any.whl",
          "archive_info": {}},
         "https://files.pythonhosted.org/packages/1f/2e/" + "0a1b2c3d4e5f" * 5 + "/a_b-1.0-py3-none-any.whl"),
        ({"url": "https://download.pytorch.org/whl/cpu/torch-2.1.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl",
          "archive_info": {}},
         "https://download.pytorch.org/whl/cpu/torch-2.1.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl"),
        ({"url": 3}, None), ([], None), ({}, None), ("text", None), ({"url": "https://a", "vcs_info": {}}, "https://a"),
        ({"url": "https://a", "vcs_info": {"vcs": "git"}}, None),
    ],
)  # fmt: skip
def test_origins(direct: object, origin: str | None) -> None:
    assert capture.origin_of(json.dumps(direct)) == origin


@pytest.mark.parametrize(
    ("name", "version", "origin"),
    [
        ("x\n--extra-index-url=http://evil", "1", None), ("--index-url=http://evil", "1", None), ("x", "1 ; y", None),
        ("x", "1\ny", None), ("x", "1", "git+https://a/b@c --index-url=http://evil"), ("x", "1", "file:///etc\n-r y"),
    ],
)  # fmt: skip
def test_a_manifest_cannot_give_options_to_the_installer(name: str, version: str, origin: str | None) -> None:
    environment = {"origins": {name: origin}} if origin else {}
    artifact = types.SimpleNamespace(
        what="m@1", distributions=lambda: {name: version}, manifest=types.SimpleNamespace(environment=environment)
    )
    with pytest.raises(IntegrityError, match="which pip cannot mean"):
        recreate.requirements(artifact)  # type: ignore[arg-type]


def test_what_older_releases_noted_without_a_version_is_passed_over() -> None:
    artifact = types.SimpleNamespace(
        what="m@1", distributions=lambda: {"a": "1", "b": None}, manifest=types.SimpleNamespace(environment={})
    )
    assert recreate.requirements(artifact) == ["a==1"]  # type: ignore[arg-type]
