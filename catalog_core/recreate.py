"""Environments: the distributions that a version was made with, as requirements, and installed anew."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_core.durable import translated
from catalog_core.errors import BackendError, IntegrityError, InvalidInput, NotFound, NotTrusted

if TYPE_CHECKING:
    from catalog_core.artifact import StoredArtifact

OURS = "catalog-core"
LOCAL = "local"  # the origin of what was installed from files of that machine
_NAME, _VERSION = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", r"[A-Za-z0-9][A-Za-z0-9.!_+-]*"
LINE = re.compile(rf"{_NAME}(?:=={_VERSION}| @ (?:(?:git|hg|svn|bzr)\+)?[a-z]+://[^\s;]+)")
TIMEOUT = 3600.0


def requirements(artifact: StoredArtifact) -> list[str]:
    """The distributions as pip and uv read them, in order: `name==version`, or `name @ URL` for one that came from a
    repository or an archive. A build's local mark (`+cpu`) is left out: an index may offer another build. What came
    from a folder of that machine is left out, see `local`. Raises `NotFound` where nobody noted them, `IntegrityError`
    for what is no name, version or URL."""
    found = artifact.distributions()
    if not found:
        raise NotFound(f"{artifact.what} does not say what was installed where it was made")
    origins = _origins(artifact)
    lines = []
    for name, version in sorted(found.items()):
        origin = origins.get(name)
        if name == OURS or origin == LOCAL or version is None:  # an older release noted broken ones without a version
            continue
        line = f"{name} @ {origin}" if origin else f"{name}=={str(version).partition('+')[0]}"
        if not LINE.fullmatch(line):
            raise IntegrityError(f"{artifact.what} names the distribution {line[:80]!r}, which pip cannot mean")
        lines.append(line)
    return lines


def local(artifact: StoredArtifact) -> list[str]:
    """The distributions that came from a folder or file of the machine where it was made, with their versions."""
    found, origins = artifact.distributions(), _origins(artifact)
    return [f"{name} {found[name]}" for name, origin in sorted(origins.items()) if origin == LOCAL and name in found]


def _origins(artifact: StoredArtifact) -> dict[str, str]:
    told = artifact.manifest.environment.get("origins")
    return {str(name): str(origin) for name, origin in told.items()} if isinstance(told, Mapping) else {}


def create(artifact: StoredArtifact, folder: Path, *, trust: bool = False, timeout: float = TIMEOUT) -> list[str]:
    """Make a virtual environment in a new folder, with Python as it was (if uv or this machine has it) and all these
    distributions; what the installer says goes to standard error. Returns the requirements, which are kept in
    `requirements.txt` there. What comes from an address that the author of the artifact chose is installed with `trust`
    only. Raises `InvalidInput` (a folder that exists), `NotFound`, `NotTrusted`, `BackendError` (it cannot be
    installed)."""
    listed = requirements(artifact)
    chosen = [line for line in listed if " @ " in line]
    if chosen and not trust:
        raise NotTrusted(
            f"{artifact.what} needs {chosen[0]}{f' and {len(chosen) - 1} more' * (len(chosen) > 1)}: "
            "installing runs code from an address that its author chose",
            hint="--trust, or trust=True, if you trust the author; `catalog env show` lists all",
        )
    if folder.exists():
        raise InvalidInput(f"{folder} exists already", hint="name a new folder")
    folder = folder.absolute()
    try:
        _install(artifact, listed, folder, timeout)
    except BaseException:  # half an environment would pass for one, and its folder exist already
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return listed


def _install(artifact: StoredArtifact, listed: list[str], folder: Path, timeout: float) -> None:
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


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def _run(command: list[str], timeout: float) -> None:
    """Run an installer in an empty folder: the one that the user stands in may hold a `uv.toml` that names another
    index, or a `venv.py` that Python would take for its own."""
    try:
        with tempfile.TemporaryDirectory(prefix="catalog-env-") as nowhere:
            done = subprocess.run(
                command, stdout=2, timeout=timeout, stdin=subprocess.DEVNULL, env=_environment(), cwd=nowhere
            )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BackendError(f"{command[0]} did not do it: {exc}") from exc
    if done.returncode:
        raise BackendError(
            f"{' '.join(command[:3])} … failed with status {done.returncode}; what it said is above",
            hint="distributions that no index has can be taken out: `catalog env show REF > requirements.txt`",
        )


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
