"""What is captured without asking: the environment and where the code came from. A missing piece is null."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from catalog_core import git, redact
from catalog_core.about import captured

FRESH = 10.0
BUDGET = 6.0
_environment: dict[str, Any] = {}
_provenance: dict[str, tuple[float, dict[str, Any]]] = {}


def environment() -> dict[str, Any]:
    """Python, platform, and all installed distributions; computed once a process. `origins` names those that no index
    has as they are: where they come from, or `local`."""
    if not _environment:
        import platform

        found, origins = installed()
        _environment.update(
            python=platform.python_version(),
            implementation=platform.python_implementation(),
            platform=platform.platform(),
            machine=platform.machine(),
            cpus=os.cpu_count(),
            gpu=_gpu(),
            distributions=dict(sorted(found.items())),
            **({"origins": dict(sorted(origins.items()))} if origins else {}),
        )
    return _environment


def installed() -> tuple[dict[str, str], dict[str, str]]:
    """The installed distributions, name → version, and the origins of some of them. A broken one, that tells no name or
    no version, is passed over."""
    from importlib.metadata import distributions

    versions: dict[str, str] = {}
    origins: dict[str, str] = {}
    for distribution in distributions():
        try:
            name, version = distribution.metadata["Name"], distribution.version
            direct = distribution.read_text("direct_url.json")
        except Exception:  # what the files of others make of it: nothing there, no text, no metadata
            continue
        if not isinstance(name, str) or not isinstance(version, str) or not name or not version or name in versions:
            continue
        versions[name] = version
        if direct and (origin := origin_of(direct)):
            origins[name] = origin
    return versions, origins


def origin_of(direct: str) -> str | None:
    """Where a distribution comes from, by the text of its `direct_url.json` (PEP 610): `git+https://…@commit`, the URL
    of an archive, or `local` for files of this machine; None where that cannot be read. No user names or passwords, and
    parts of the path that may be a secret (of an address that anybody may use) are masked."""
    try:
        told = json.loads(direct)
        url, vcs, archive = told["url"], told.get("vcs_info"), told.get("archive_info")
        if url.startswith("file:") or "dir_info" in told:
            return "local"
        scheme, user, place = re.fullmatch(r"(?s)(\w[\w+.-]*://)(git@(?!.*@))?(.*)", url).groups("")  # type: ignore[union-attr]
        plain = re.split(r"[?#\s]", redact.address(scheme + place), maxsplit=1)[0].replace("://", f"://{user}", 1)
        below = f"#subdirectory={told['subdirectory']}" if told.get("subdirectory") else ""
        if vcs:
            return f"{vcs['vcs']}+{plain}@{vcs['commit_id']}{below}"
        sums = (archive or {}).get("hashes") or {}
        return f"{plain}#sha256={sums['sha256']}" if sums.get("sha256") else plain + below
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def editable(distribution: Any) -> str | None:
    """The folder of a distribution that is installed so that its files are edited there; None for any other, and for a
    broken one."""
    try:
        told = json.loads(distribution.read_text("direct_url.json") or "{}")
        if not (told.get("dir_info") or {}).get("editable"):
            return None
        return os.path.realpath(unquote(told["url"].removeprefix("file://")))
    except Exception:  # as in `installed`
        return None


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
    """Git remote, commit, branch, whether dirty (and the digest of the difference), script and command line, without
    secrets; looked at again after ten seconds. With `CATALOG_CAPTURE=none`, none of it is looked at."""
    if not captured():
        return {"git": None, "script": None, "command": []}
    try:
        where = folder or os.getcwd()
    except OSError:  # the folder we stand in was deleted
        return dict(redact.tree({"git": None, **_script()}))
    known = _provenance.get(where)
    if known is None or time.monotonic() - known[0] > FRESH:
        known = _provenance[where] = (time.monotonic(), redact.tree(_look(where)))
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
