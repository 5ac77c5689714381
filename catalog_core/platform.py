"""All differences between operating systems and places: file systems, folders, who we are."""

from __future__ import annotations

import functools
import os
import re
import stat
import sys
import tempfile
from pathlib import Path

# file systems on which SQLite's locks or syncs cannot be relied on
_NETWORK = {
    "nfs": "NFS", "nfs4": "NFS", "afs": "AFS", "lustre": "Lustre", "cifs": "CIFS", "smb3": "CIFS", "ceph": "CephFS",
    "gpfs": "GPFS", "beegfs": "BeeGFS", "9p": "9p", "fuse": "FUSE", "cvmfs": "CVMFS",
}  # fmt: skip


def _mounts() -> list[tuple[str, str]]:
    """Mount points and their types, as the kernel tells; CATALOG_TEST_MOUNTS names a file to read instead (tests)."""
    source = os.environ.get("CATALOG_TEST_MOUNTS", "/proc/self/mountinfo")
    try:
        lines = Path(source).read_bytes().split(b"\n")
    except OSError:
        return []
    result = []
    for line in lines:
        fields = line.split(b" ")
        if b"-" in fields[6:-1]:
            # the kernel writes blanks and backslashes as \\ooo, and every other byte as it is
            point = re.sub(rb"\\([0-3][0-7]{2})", lambda found: bytes([int(found[1], 8)]), fields[4])
            result.append((os.fsdecode(point), os.fsdecode(fields[fields.index(b"-", 6) + 1])))
    return result


def file_system(path: Path) -> str:
    """The type of the file system that holds `path` (`ext4`, `nfs4`, `fuse.eosxd`), or `unknown`."""
    resolved = os.path.realpath(path)
    best, kind = "", "unknown"
    for point, name in _mounts():
        prefix = point.rstrip("/") + "/"
        if (resolved + "/").startswith(prefix) and len(prefix) >= len(best):
            best, kind = prefix, name
    return kind


def network_file_system(path: Path) -> str | None:
    """The name of the network or FUSE file system that holds `path`, or None where SQLite is safe."""
    kind = file_system(path)
    if kind == "fuseblk":
        return None
    if kind.startswith("fuse."):
        name = kind.removeprefix("fuse.")
        return "EOS (FUSE)" if "eos" in name else f"FUSE ({name})"
    return _NETWORK.get(kind)


def _home(variable: str, unix: str, mac: str) -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "catalog-core"
    if sys.platform == "darwin":
        return Path.home() / "Library" / mac / "catalog-core"
    return Path(os.environ.get(variable) or Path.home() / unix) / "catalog-core"


def data_dir() -> Path:
    """Where the default catalog lives."""
    return _home("XDG_DATA_HOME", ".local/share", "Application Support")


def config_dir() -> Path:
    """Where the user's `catalog.toml` lives."""
    return _home("XDG_CONFIG_HOME", ".config", "Application Support")


def others_can_change(path: Path) -> str | None:
    """Why a file or folder that we rely on may be changed by another user, or None."""
    if not hasattr(os, "getuid"):
        return None
    info = path.stat()
    if info.st_uid != os.getuid():
        return f"belongs to another user (uid {info.st_uid})"
    if info.st_mode & 0o002 or (info.st_mode & 0o020 and not _is_private(info.st_gid)):
        return f"can be written by other users (mode {stat.S_IMODE(info.st_mode):o}; chmod go-w)"
    return None


def _is_private(group: int) -> bool:
    """Whether a group is that of this user alone, as most distributions make one for each (with a umask of 002)."""
    try:
        import grp
        import pwd

        user, found = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except (ImportError, KeyError):
        return False
    return user.pw_gid == group and found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name}


def own_folder(folder: Path) -> Path:
    """A folder that no other user can read or change, whatever the umask; made, with those above it, where it is not
    there. Raises `OSError`."""
    for missing in [path for path in (*reversed(folder.parents), folder) if not path.is_dir()]:
        missing.mkdir(exist_ok=True, mode=0o700)
    if others_can_change(folder) and folder.stat().st_uid == os.getuid():  # an older release followed the umask
        folder.chmod(0o700)
    return folder


def _usable(folder: Path, *, private: bool = False) -> str | None:
    """Why a folder cannot hold SQLite files, or None. Makes it."""
    try:
        if not folder.is_dir():
            own_folder(folder)
        info = folder.lstat()
        if private and (not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077):
            return "is not private to this user"
        reason = others_can_change(folder)
        if reason is not None:
            return reason
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        return f"cannot be written ({exc.strerror})"
    network = network_file_system(folder)
    return f"is on {network}" if network else None


def cache_dir() -> tuple[Path | None, str]:
    """The folder for index and cache, and why it was chosen; None means memory.

    The first local, writable one of $CATALOG_CACHE_DIR, the platform's cache folder, $TMPDIR/catalog-<uid> that no
    other user can change: the index says which files were checked already.
    """
    places: list[tuple[Path, bool]] = []
    if os.environ.get("CATALOG_CACHE_DIR"):
        places.append((Path(os.environ["CATALOG_CACHE_DIR"]), False))
    places.append((_home("XDG_CACHE_HOME", ".cache", "Caches"), False))
    if hasattr(os, "getuid"):
        places.append((Path(tempfile.gettempdir()) / f"catalog-{os.getuid()}", True))
    refused: list[str] = []
    for folder, private in places:
        reason = _usable(folder, private=private)
        if reason is None:
            return folder, "; ".join([*refused, f"{folder} is local and writable"])
        refused.append(f"{folder} {reason}")
    return None, "; ".join([*refused, "so the index is kept in memory"])


def offline() -> bool:
    """Whether $CATALOG_OFFLINE forbids the network."""
    return os.environ.get("CATALOG_OFFLINE", "") not in ("", "0")


@functools.cache
def actor() -> str:
    """Who changes are signed by: $CATALOG_ACTOR, else user@host."""
    import getpass
    import socket

    if os.environ.get("CATALOG_ACTOR"):
        return os.environ["CATALOG_ACTOR"]
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"
