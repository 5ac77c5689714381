"""The programs and plug-ins that tests need from the system: found one by one, and installed where that is allowed.

    reason = lacking({"xrootd": "xrootd-server", "libXrdAccSciTokens-5.so": "xrootd-scitokens-plugins"})

`CATALOG_TEST_INSTALL=1` allows it, with apt-get as root. Processes that ask at once take turns.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

LIBRARIES = ("/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")


def there(part: str) -> bool:
    """Whether a program is on the path, or a library `lib….so` in one of the system's folders."""
    if not part.startswith("lib"):
        return shutil.which(part) is not None
    return any(path.exists() for folder in LIBRARIES for path in Path("/").glob(f"{folder[1:]}/{part}"))


def lacking(parts: Mapping[str, str]) -> str | None:
    """Why the `parts` (program or library → Debian's package) are not all there; None where they are. Installs those
    that are missing where that is allowed, and looks again."""
    trouble = ""
    if os.environ.get("CATALOG_TEST_INSTALL") == "1" and not all(map(there, parts)):
        try:
            with (Path(tempfile.gettempdir()) / f"catalog-tests-install-{os.getuid()}").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _install(sorted({package for part, package in parts.items() if not there(part)}))
        except (OSError, subprocess.SubprocessError) as exc:
            trouble = f" ({exc})"
    missing = {part: package for part, package in parts.items() if not there(part)}
    if not missing:
        return None
    names, packages = ", ".join(missing).upper(), " ".join(sorted(set(missing.values())))
    return f"{names} IS NOT INSTALLED{trouble}: SET CATALOG_TEST_INSTALL=1 (AS ROOT), OR INSTALL {packages}"


def _install(packages: list[str]) -> None:
    if not packages:  # another process did, while this one waited
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
        command = ["apt-get", "-o", "DPkg::Lock::Timeout=240", *command]
        subprocess.run(command, check=True, env=environment, timeout=280, stdout=subprocess.DEVNULL)
