"""Verification: an artifact is loaded and run in a fresh process that cannot see the training code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import attrs

from catalog_core import capture
from catalog_core.artifact import StoredArtifact
from catalog_core.codec import manifest_to_json
from catalog_core.layout import SMALL, write_layout
from catalog_core.page import Shown
from catalog_core.records import Check
from catalog_core.shown import counted

TIMEOUT = 300.0
MAX_TOLD = 5000  # characters of all checks that a version keeps


@attrs.frozen
class Report(Shown):
    """The table of checks of one verification."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.result != "failed" for check in self.checks)

    @property
    def reason(self) -> str:
        """The first failed check and its cause, or nothing."""
        return next((f"{check.id}: {check.cause}" for check in self.checks if check.result == "failed"), "")

    def rows(self) -> list[dict[str, Any]]:
        """The checks as plain rows."""
        return [attrs.asdict(check) for check in self.checks]

    def told(self) -> list[list[Any]]:
        """The checks as they are stored with a version (id, result, seconds, the beginning of the cause), as many as an
        event has room for; what did not pass comes first where that is not all."""
        rows = [[c.id, c.result, round(c.seconds, 3), c.cause[:1000]] for c in self.checks]
        if sum(len(str(row)) for row in rows) > MAX_TOLD:
            rows.sort(key=lambda row: row[1] == "passed")
        kept, room = [], MAX_TOLD
        for row in rows:
            room -= len(str(row))
            if room < 0:
                break
            kept.append(row)
        return kept

    def __repr__(self) -> str:
        return f"<Report {'passed' if self.passed else 'failed'}: {counted(len(self.checks), 'check')}>"


def check(artifact: StoredArtifact, folder: Path, timeout: float = TIMEOUT, *, trust: bool = False) -> Report:
    """Check an artifact in a fresh process; `folder` takes what has to be written for it.

    The process gets this one's `sys.path` less the working folder, the script's folder and editable installs, and
    refuses to import what belongs to no distribution that the artifact records. It never raises for what the artifact
    does: a process that dies or hangs is a failed check. What needs `trust` is skipped without it.
    """
    spec = folder / "verify.json"
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    spec.write_text(json.dumps({**_spec(artifact, folder, result), "trust": trust}))
    code = (
        "import sys, json; spec = json.load(open(sys.argv[1])); sys.path[:] = spec['path'];"
        "exec(compile(open(spec['child']).read(), spec['child'], 'exec'))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, str(spec)], capture_output=True, text=True, errors="replace",
            timeout=timeout, check=False, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Report((Check("process", "failed", timeout, f"it did not end within {timeout:.0f} s"),))
    try:
        checks = tuple(Check(**row) for row in json.loads(result.read_text()))
    except (OSError, ValueError, TypeError):
        checks = ()
    if done.returncode or not checks:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        how = f"signal {_signal(-done.returncode)}" if done.returncode < 0 else f"exit {done.returncode}"
        checks = (*checks, Check("process", "failed", 0.0, f"the process ended by {how}: {last[:300]}"))
    return Report(checks)


def _spec(artifact: StoredArtifact, folder: Path, result: Path) -> dict[str, Any]:
    content = artifact.content
    places: dict[str, list[Any]] = {}
    for chunks in artifact.layout.values():
        content.fetch([chunk for chunk in chunks if chunk.pack is None], artifact.what)
        for chunk in chunks:
            name = chunk.pack or chunk.digest
            path = None if name in content.memory else content.path_of(name)
            if path is not None:
                places[name] = [str(path)]
            elif chunk.length <= SMALL:
                places[name] = [str(_spill(folder, name, content.blob(name, artifact.what)))]
            else:
                with content.backend.blobs.open(content.index.key(name)) as stream:
                    places[name] = [str(_spill(folder, name, stream.read()))]
    recorded = artifact.distributions()
    roots = {name: str(sys.modules[name].__file__) for name in _own(artifact)}
    return {
        "manifest": manifest_to_json(artifact.manifest),
        "layout": write_layout(artifact.layout),
        "places": {name: place[0] for name, place in places.items()},
        "path": _clean_path(),
        "plugins": list(artifact.registry.modules.items()),
        "roots": roots,
        "recorded": recorded,
        "what": artifact.what,
        "result": str(result),
        "child": str(Path(__file__).with_name("verify_child.py")),
    }


def _signal(number: int) -> str:
    with suppress(ValueError):  # those for real time have no names
        return signal.Signals(number).name
    return str(number)


def _own(artifact: StoredArtifact) -> list[str]:
    return ["catalog_core", *[re.split(r"[.:]", value)[0] for value in artifact.registry.modules.values()]]


def _spill(folder: Path, digest: str, data: bytes) -> Path:
    path = folder / f"blob-{digest[7:]}"
    path.write_bytes(data)
    return path


def _clean_path() -> list[str]:
    """`sys.path` less the working folder, the script's folder, and folders of editable installs."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    refused = {os.path.realpath(os.getcwd())}
    if main and not main.endswith(("pytest/__main__.py", "bin/pytest", "bin/catalog")):
        refused.add(os.path.realpath(os.path.dirname(main)))
    for distribution in distributions():
        root = capture.editable(distribution)
        if root is not None:
            below = {path for path in map(os.path.realpath, sys.path) if (path + "/").startswith(root + "/")}
            refused |= {path for path in below if not _installed(path)}
    keep = [path for path in sys.path if path and os.path.realpath(path) not in refused]
    return [path for path in keep if os.path.exists(path)]


def _installed(path: str) -> bool:
    """Whether a folder holds what was installed: a virtual environment may lie inside the project."""
    return os.path.basename(path) in ("site-packages", "dist-packages") or path.startswith(
        os.path.realpath(sys.prefix) + "/"
    )
