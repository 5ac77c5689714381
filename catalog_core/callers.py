"""Warn where the caller's own code is: a warning that names a line of this library helps nobody to find the cause.

A fixed level of the stack counts frames, and their number differs with the verb (`save`, `prepare`, the command), with
the plug-ins and with the frameworks in between.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from types import FrameType

_own = {"catalog_core", "catalog_cli", "catalog_oracle"}  # modules, with what is below them; plug-ins add theirs
_frameworks: set[str] = set()  # top-level names of what serializers handle
_STANDARD = tuple({sysconfig.get_path(kind) + os.sep for kind in ("stdlib", "platstdlib")})
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def register(modules: Iterable[str] = (), frameworks: Iterable[str] = ()) -> None:
    """Count `modules`, and what is below them, as parts of the library, and `frameworks` (top-level names) as between
    it and its caller. The registry does so for each plug-in."""
    _own.update(modules)
    _frameworks.update(frameworks)


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn, as `warnings.warn` does, at the line of the first caller that is outside of the library, of its plug-ins
    and of the frameworks between them."""
    frame = caller(sys._getframe(1))
    known = frame.f_globals.setdefault("__warningregistry__", {})
    module = str(frame.f_globals.get("__name__") or "<unknown>")
    warnings.warn_explicit(text, category, frame.f_code.co_filename, frame.f_lineno, module, known)


def caller(frame: FrameType) -> FrameType:
    """The innermost frame of the caller, from `frame` outward, which is of the library. In a thread that the caller's
    code started with one of our functions there is none: then the frame that called this function."""
    name = str(frame.f_globals.get("__name__") or "")
    own = _own | {name.rpartition(".")[0] or name}  # also a plug-in that is used before any is registered
    frames = list(_outward(frame))
    at = 0
    while at < len(frames):
        if not (_is_own(frames[at], own) or _is_between(frames[at])):
            beyond = _own_beyond(frames, at, own)
            if beyond is None:
                return frames[at]
            at = beyond
        at += 1
    return next((frame for frame in frames if not _is_own(frame, own)), frames[-1])


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _own_beyond(frames: list[FrameType], start: int, own: set[str]) -> int | None:
    """The place of the next frame of the library, where only installed packages are before it (pluggy, click); None
    where code of the caller's is, or the end."""
    for at in range(start, len(frames)):
        if _is_own(frames[at], own):
            return at
        path = frames[at].f_code.co_filename
        if not (_is_between(frames[at]) or any(part in path for part in _INSTALLED)):
            return None
    return None


def _is_own(frame: FrameType, own: set[str]) -> bool:
    parts = str(frame.f_globals.get("__name__") or "").split(".")
    return any(".".join(parts[:count]) in own for count in range(1, len(parts) + 1))


def _is_between(frame: FrameType) -> bool:
    """Whether it is of a framework, or of Python's own library."""
    path = frame.f_code.co_filename
    if str(frame.f_globals.get("__name__") or "").partition(".")[0] in _frameworks:
        return True
    installed = any(part in path for part in _INSTALLED)
    return path.startswith("<frozen ") or (path.startswith(_STANDARD) and not installed)
