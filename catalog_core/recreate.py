"""Environments: the distributions that a version was made with, as requirements, and installed anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_core.durable import translated
from catalog_core.errors import BackendError, InvalidInput, NotFound

if TYPE_CHECKING:
    from catalog_core.artifact import StoredArtifact

OURS = "catalog-core"
TIMEOUT = 3600.0


def requirements(artifact: StoredArtifact) -> list[str]:
    """The distributions as pip and uv read them, `name==version`, in order. A build's local mark (`+cpu`) is left out:
    an index may offer another build. Raises `NotFound` where nobody noted them."""
    found = artifact.distributions()
    if not found:
        raise NotFound(f"{artifact.what} does not say what was installed where it was made")
    return [f"{name}=={version.partition('+')[0]}" for name, version in sorted(found.items()) if name != OURS]


def create(artifact: StoredArtifact, folder: Path, *, timeout: float = TIMEOUT) -> list[str]:
    """Make a virtual environment in a new folder, with Python as it was (if uv or this machine has it) and all these
    distributions; what the installer says goes to standard error. Returns the requirements, which are kept in
    `requirements.txt` there. Raises `InvalidInput` (a folder that exists), `NotFound`, `BackendError` (it cannot be
    installed)."""
    listed = requirements(artifact)
    if folder.exists():
        raise InvalidInput(f"{folder} exists already", hint="name a new folder")
    wanted = str(artifact.manifest.environment.get("python") or "")
    uv = _uv()
    here = ".".join(map(str, sys.version_info[:2]))
    minor = ".".join(wanted.split(".")[:2])
    if uv:
        which = sys.executable if minor in ("", here) else minor
        _run([uv, "venv", "--quiet", "--python", which, str(folder)], timeout)
    elif minor in ("", here):
        _run([sys.executable, "-m", "venv", str(folder)], timeout)
    else:
        raise NotFound(
            f"it was made with Python {wanted}; this is {here}", hint="install uv, which brings the right one"
        )
    with translated(str(folder)):
        file = folder / "requirements.txt"
        file.write_text("".join(f"{line}\n" for line in listed))
    python = folder / "bin" / "python"
    install = (
        [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install", "--quiet"]
    )
    _run([*install, "--no-deps", "-r", str(file)], timeout)
    return listed


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def _run(command: list[str], timeout: float) -> None:
    try:
        done = subprocess.run(command, stdout=2, timeout=timeout, stdin=subprocess.DEVNULL, env=_environment())
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BackendError(f"{command[0]} did not do it: {exc}") from exc
    if done.returncode:
        raise BackendError(
            f"{' '.join(command[:3])} … failed with status {done.returncode}; what it said is above",
            hint="distributions that no index has can be taken out: `catalog env show REF > requirements.txt`",
        )


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
