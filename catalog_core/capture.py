"""What is captured without asking: the environment and where the code came from. A missing piece is null."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FRESH = 10.0
_environment: dict[str, Any] = {}
_provenance: dict[str, tuple[float, dict[str, Any]]] = {}


def environment() -> dict[str, Any]:
    """Python, platform, and all installed distributions; computed once a process."""
    if not _environment:
        import platform
        from importlib.metadata import distributions

        found = {}
        for distribution in distributions():
            name = distribution.metadata["Name"]
            if name:
                found.setdefault(name, distribution.version)
        _environment.update(
            python=platform.python_version(),
            implementation=platform.python_implementation(),
            platform=platform.platform(),
            machine=platform.machine(),
            cpus=os.cpu_count(),
            distributions=dict(sorted(found.items())),
        )
    return _environment


def _git(folder: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, errors="replace", timeout=5, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def scrub(url: str) -> str:
    """A remote's URL without user names, passwords and tokens."""
    return re.sub(r"(?<=://)[^/@]*@", "", url).partition("?")[0]


def provenance(folder: str | None = None) -> dict[str, Any]:
    """Git remote, commit, branch, whether dirty (and the digest of the difference), script and command line; looked
    at again after ten seconds."""
    where = folder or os.getcwd()
    known = _provenance.get(where)
    if known is None or time.monotonic() - known[0] > FRESH:
        known = _provenance[where] = (time.monotonic(), _look(where))
    return known[1]


def _look(where: str) -> dict[str, Any]:
    git = None
    commit = _git(where, "rev-parse", "HEAD")
    if commit is not None:
        remotes = (_git(where, "remote") or "").split()
        remote = "origin" if "origin" in remotes else next(iter(remotes), None)
        url = _git(where, "remote", "get-url", remote) if remote else None
        status = _git(where, "status", "--porcelain", "--untracked-files=no")
        difference = _git(where, "diff", "HEAD") if status else None
        git = {
            "commit": commit,
            "branch": _git(where, "symbolic-ref", "--short", "-q", "HEAD"),
            "remote": remote,
            "url": scrub(url) if url else None,
            "dirty": None if status is None else bool(status),
            "diff": "sha256:" + hashlib.sha256(difference.encode()).hexdigest() if difference else None,
        }
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return {
        "git": git,
        "script": Path(main).name if main else None,
        "command": [Path(a).name if n == 0 else a for n, a in enumerate(sys.argv)][:50],
    }
