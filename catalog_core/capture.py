"""What is captured without asking: the environment and where the code came from. A missing piece is null."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from catalog_core import git, redact
from catalog_core.about import captured

FRESH = 10.0
BUDGET = 6.0
_environment: dict[str, Any] = {}
_provenance: dict[str, tuple[float, dict[str, Any]]] = {}


def environment() -> dict[str, Any]:
    """Python, platform, and all installed distributions; computed once a process."""
    if not _environment:
        import platform
        from importlib.metadata import distributions

        found: dict[str, str] = {}
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
            gpu=_gpu(),
            distributions=dict(sorted(found.items())),
        )
    return _environment


def _gpu(root: Path = Path("/proc/driver/nvidia")) -> dict[str, Any] | None:
    """The driver and the cards, as the kernel's module tells; None without one. Loads no library."""
    try:
        driver = (root / "version").read_text(errors="replace").partition("\n")[0]
    except OSError:
        return None
    models = []
    for card in sorted(root.glob("gpus/*/information")):
        try:
            models += re.findall(r"^Model:\s*(.+?)\s*$", card.read_text(errors="replace"), re.MULTILINE)
        except OSError:
            continue
    version = re.search(r"\s(\d+(?:\.\d+)+)\s", driver)
    return {"driver": version[1] if version else driver, "models": models}


def scrub(url: str) -> str:
    """A remote's URL without user names, passwords, tokens and query."""
    return re.split(r"[?#]", redact.text(url), maxsplit=1)[0]


def provenance(folder: str | None = None) -> dict[str, Any]:
    """Git remote, commit, branch, whether dirty (and the digest of the difference), script and command line; looked
    at again after ten seconds. With `CATALOG_CAPTURE=none`, none of it is looked at."""
    if not captured():
        return {"git": None, "script": None, "command": []}
    try:
        where = folder or os.getcwd()
    except OSError:  # the folder we stand in was deleted
        return {"git": None, **_script()}
    known = _provenance.get(where)
    if known is None or time.monotonic() - known[0] > FRESH:
        known = _provenance[where] = (time.monotonic(), _look(where))
    return known[1]


def _look(where: str) -> dict[str, Any]:
    found = git.look(where, BUDGET)
    if found is not None and found["url"]:
        found["url"] = scrub(found["url"])
    return {"git": found, **_script()}


def _script() -> dict[str, Any]:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return {
        "script": Path(main).name if main else None,
        "command": [Path(sys.argv[0]).name, *redact.command(sys.argv[1:50])] if sys.argv else [],
    }
