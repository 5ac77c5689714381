"""A process that gives up what a pickle could abuse: the network, files, other processes, and most of the machine.

Linux only, by what an ordinary user may ask for: limits, namespaces, a root folder of its own, Landlock (landlock(7))
and a filter of system calls (seccomp(2)). Landlock does not hide that a path exists, nor its size and times (`stat`):
the root of its own does, which holds nothing but what may be read. Imports nothing but the standard library. What a
machine lacks is said, not hidden.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_NEW_USER, _NEW_NET, _NEW_IPC, _NEW_MOUNTS = 0x10000000, 0x40000000, 0x08000000, 0x00020000
_PDEATHSIG, _NO_NEW_PRIVS, _SECCOMP = 1, 38, 22
_LANDLOCK = {"create": 444, "add": 445, "restrict": 446}  # the same on every architecture
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, list a folder
_READ_FILE = 1 << 2
_WRITE = 1 << 1 | 1 << 14  # a file that is there: write, truncate
_BY_VERSION = (13, 14, 15, 15, 16)  # rights that each version of Landlock handles
# What Python and the frameworks read; a home folder, /tmp and most of /etc are not among it.
SYSTEM = (
    "/usr", "/lib", "/lib64", "/opt", "/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/proc/self",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system", "/dev/urandom", "/dev/zero",
)  # fmt: skip
# Numbers of x86-64. Sockets; new programs; other processes; what lives on after the process; rights and times of files,
# which Landlock leaves alone; and doors of the kernel that no conversion needs.
_DENIED = {
    "socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46, "bind": 49, "io_uring_setup": 425,
    "fork": 57, "vfork": 58, "execve": 59, "execveat": 322,
    "kill": 62, "tkill": 200, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_open": 434,
    "pidfd_send_signal": 424, "pidfd_getfd": 438, "process_madvise": 440, "process_mrelease": 448, "kcmp": 312,
    "migrate_pages": 256, "move_pages": 279, "ioprio_set": 251, "ioprio_get": 252, "setpgid": 109, "ptrace": 101,
    "process_vm_readv": 310, "process_vm_writev": 311, "setpriority": 141,
    "memfd_create": 319, "memfd_secret": 447,  # memory that no limit counts
    "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "add_key": 248, "request_key": 249, "keyctl": 250,
    "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94,
    "fchownat": 260, "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280, "setxattr": 188,
    "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
    "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "mount_setattr": 442, "open_by_handle_at": 304, "bpf": 321,
    "perf_event_open": 298, "userfaultfd": 323, "init_module": 175, "finit_module": 313, "kexec_load": 246,
    "reboot": 169, "settimeofday": 164, "clock_settime": 227, "sethostname": 170, "setdomainname": 171, "swapon": 167,
    "acct": 163, "quotactl": 179, "syslog": 103,
}  # fmt: skip
# Calls about a process, which may ask for their own only: by 0 or its number, in the first argument; `getpriority` and
# `get_robust_list` would tell of others.
_OWN = {
    "prlimit64": 302, "sched_setaffinity": 203, "sched_setscheduler": 144, "sched_setparam": 142, "sched_setattr": 314,
    "sched_getaffinity": 204, "sched_getscheduler": 145, "sched_getparam": 143, "sched_getattr": 315,
    "sched_rr_get_interval": 148, "get_robust_list": 274, "getpgid": 121, "getsid": 124,
}  # fmt: skip
_GETPRIORITY = 140
# Requests that go by a number in the second argument: whom a file's signals go to and which they are (a file signals
# its owner, and any process can be named as that), and input for the terminal. Landlock scopes signals from its sixth
# version on only. F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX, TIOCSPGRP.
_REQUESTS = {"fcntl": (72, (8, 10, 15)), "ioctl": (16, (0x8901, 0x8902, 0x5412, 0x541C, 0x5410))}
_CLONE, _CLONE3, _TGKILL, _THREAD = 56, 435, 234, 0x00010000
_X86_64, _ALLOW, _KILL, _ERRNO = 0xC000003E, 0x7FFF0000, 0x80000000, 0x00050000


def enter(read: Iterable[str], write: Iterable[str], memory: int, seconds: int, file_size: int) -> dict[str, bool]:
    """Give up everything but reading `read` and writing `write` (paths). Bytes and seconds of CPU limit this process.
    Returns what is out of reach from now on: `network`, `files`, `processes`, and `paths` (what other files are called,
    and how large and old they are)."""
    read, write = list(read), list(write)
    for kind, limit in (
        (resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, 512), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    if not sys.platform.startswith("linux"):
        return {"network": False, "files": False, "processes": False, "paths": False}
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PDEATHSIG, 9, 0, 0, 0)
    network, mounts = _namespaces(libc)
    paths = mounts and _root(libc, read, write)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    files = _landlock(libc, read, write)
    calls = _filter(libc)
    return {"network": network or calls, "files": files, "processes": calls, "paths": paths}


def _namespaces(libc: ctypes.CDLL) -> tuple[bool, bool]:
    """A network of its own, with nothing in it; and whether it may mount what nobody else sees."""
    user, group = os.getuid(), os.getgid()
    wanted = _NEW_USER | _NEW_NET | _NEW_IPC
    mounts = libc.unshare(wanted | _NEW_MOUNTS) == 0
    if not mounts and libc.unshare(wanted) != 0:
        return bool(libc.unshare(_NEW_NET | _NEW_IPC) == 0), False
    with contextlib.suppress(OSError):  # without these maps files can be read, and not made
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True, mounts


def _root(libc: ctypes.CDLL, read: list[str], write: list[str]) -> bool:
    """Make a root folder that holds these paths only, at their places, and enter it. False where this machine does not
    let it: then nothing has changed."""
    bind, private, read_only, remount = 0x1000 | 0x4000, 0x40000 | 0x4000, 1, 0x20
    new = os.path.join(write[0], ".root") if write else ""
    own = f"/proc/{os.getpid()}"
    try:
        os.mkdir(new)
        _done(libc.mount(None, b"/", None, private, None))
        _done(libc.mount(b"tmpfs", os.fsencode(new), b"tmpfs", 2 | 4, b"size=1m,mode=755"))  # no set-uid, no devices
        for path in (*sorted({*SYSTEM, *read} - {"/proc/self"}), own, "/dev/null", *write):
            place = _mirrored(new, path)
            if place is None:
                continue
            source, target = os.fsencode(os.path.realpath(path)), os.fsencode(place)
            _done(libc.mount(source, target, None, bind, None))
            if path not in write and not path.startswith(
                "/dev/"
            ):  # a flag that is locked may be missing here: Landlock holds
                libc.mount(None, target, None, remount | 0x1000 | read_only | 2 | 4, None)
        os.symlink(str(os.getpid()), f"{new}/proc/self")
        os.mkdir(f"{new}/.old")
        _done(libc.syscall(_DENIED["pivot_root"], os.fsencode(new), os.fsencode(f"{new}/.old")))
    except OSError:
        libc.umount2(os.fsencode(new), 2)
        return False
    os.chdir("/")
    hidden = libc.umount2(b"/.old", 2) == 0
    with contextlib.suppress(OSError):
        os.rmdir("/.old")
    libc.mount(None, b"/", None, remount | 0x1000 | read_only | 2 | 4, None)
    return bool(hidden)


def _done(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused")


def _mirrored(root: str, path: str, depth: int = 0) -> str | None:
    """The place of `path` below `root`, made there with the links that lead to it; None where it does not exist."""
    if depth > 40 or not os.path.exists(path):
        return None
    at, parts = "/", [part for part in path.split("/") if part]
    for number, part in enumerate(parts):
        at = os.path.join(at, part)
        place = root + at
        if os.path.islink(at):
            target = os.readlink(at)
            if not os.path.lexists(place):
                os.symlink(target, place)
            return _mirrored(
                root, os.path.normpath(os.path.join(os.path.dirname(at), target, *parts[number + 1 :])), depth + 1
            )
        if not os.path.lexists(place):
            if os.path.isdir(at):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o444))
    return root + at if at != "/" else None


def _landlock(libc: ctypes.CDLL, read: Iterable[str], write: Iterable[str]) -> bool:
    """Leave these paths, and nothing else of the file system."""
    version = libc.syscall(_LANDLOCK["create"], None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    handled = (1 << _BY_VERSION[min(version, len(_BY_VERSION)) - 1]) - 1
    attributes = struct.pack("QQQ", handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)  # TCP; signals
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = libc.syscall(_LANDLOCK["create"], attributes, ctypes.c_size_t(size), 0)
    if rules < 0:
        return False
    written = set(write)
    for path in (*SYSTEM, *read, *written, "/dev/null"):
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        folder = os.path.isdir(path)
        rights = (handled if folder else _READ_FILE | _WRITE) if path in written else _READ if folder else _READ_FILE
        if path == "/dev/null":
            rights = _READ_FILE | _WRITE
        rule = struct.pack("=Qi", rights & handled, fd)
        good = libc.syscall(_LANDLOCK["add"], rules, 1, rule, 0) == 0
        os.close(fd)
        if not good:
            os.close(rules)
            return False
    good = bool(libc.syscall(_LANDLOCK["restrict"], rules, 0) == 0)
    os.close(rules)
    return good


def _filter(libc: ctypes.CDLL) -> bool:
    """Refuse the calls above. False on other machines than x86-64, whose numbers differ."""
    if platform.machine() != "x86_64" or struct.calcsize("P") != 8:
        return False
    load, equal, at_least, both, give = 0x20, 0x15, 0x35, 0x45, 0x06
    own = os.getpid()
    refuse, missing = _ERRNO | 1, _ERRNO | 38  # EPERM, ENOSYS: then glibc makes threads by clone
    program = [(load, 0, 0, 4), (equal, 1, 0, _X86_64), (give, 0, 0, _KILL), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, _KILL)]  # the x32 calls
    for number in _DENIED.values():
        program += [(equal, 0, 1, number), (give, 0, 0, refuse)]
    program += [(equal, 0, 1, _CLONE3), (give, 0, 0, missing)]
    program += [(equal, 0, 4, _CLONE), (load, 0, 0, 16), (both, 1, 0, _THREAD), (give, 0, 0, refuse)]
    program += [(give, 0, 0, _ALLOW)]
    program += [(equal, 0, 4, _TGKILL), (load, 0, 0, 16), (equal, 1, 0, own), (give, 0, 0, refuse)]
    program += [(give, 0, 0, _ALLOW)]
    for number in _OWN.values():
        program += [(equal, 0, 5, number), (load, 0, 0, 16), (equal, 2, 0, 0), (equal, 1, 0, own)]
        program += [(give, 0, 0, refuse), (give, 0, 0, _ALLOW)]
    for number, requests in _REQUESTS.values():
        count = len(requests)
        program += [(equal, 0, count + 3, number), (load, 0, 0, 24)]
        program += [(equal, count - at, 0, request) for at, request in enumerate(requests)]
        program += [(give, 0, 0, _ALLOW), (give, 0, 0, refuse)]
    program += [(equal, 0, 4, _GETPRIORITY), (load, 0, 0, 24), (equal, 1, 0, 0), (give, 0, 0, refuse)]
    program += [(give, 0, 0, _ALLOW), (give, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer)))
    return bool(libc.prctl(_SECCOMP, 2, head, 0, 0) == 0)
