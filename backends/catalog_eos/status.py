"""What XRootD's numbers mean, in errors of ours; tokens are taken out of every text."""

from __future__ import annotations

import re
from typing import Any

from catalog_core.errors import BackendError, CatalogError, NoSpace, ReadOnly
from catalog_eos.calls import Interrupted

MISSING, EXISTS, IS_FOLDER = 3011, 3018, 3016
EXISTS_OLD = 3006  # what servers before 5 say
NO_CHECKSUM = (3012, 3013)
FS_ERROR = 3005
DENIED = (3010, 3030)
NO_SPACE = (3009, 3021)
READ_ONLY = 3025
AUTH_FAILED, TLS_FAILED = 204, 110
LOST = frozenset([1, 102, 103, 104, 105, 106, 107, 108, 109, 202, 206, 207, 303])  # of the client: the connection
LOST_ERRNO = frozenset([3004, 3008, 3024])  # a handle of before the restart; an overloaded server

_TOKENS = re.compile(
    r"(authz=)[^&\s,;)\]'\"]+|(zteos64(?::|%3a))[\w+/=.%:-]+|(bearer(?:%20|[\s+])+)[^&\s,;)\]'\"]+|(eyJ)[\w-]+\.[\w.-]+"
    r"|(//[^/\s:@]+:)[^/\s@]+(?=@)",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """`text` without tokens and passwords."""
    return _TOKENS.sub(lambda m: next(filter(None, m.groups())) + "(hidden)", text)


def cleaned(message: str) -> str:
    """A message of the client on one line, without its prefix, and without tokens."""
    text = re.sub(r"^\[[A-Z]+\] (Server responded with an error: )?", "", message.strip())
    return redacted(" ".join(text.split()))


class XRootDError(Exception):
    """What the client said, cleaned: the cause of an error of ours."""


def number(status: Any) -> int:
    """The XRootD number of an answer: 0 for success, 3011 also where a file stands in the place of a folder."""
    if status.ok:
        return 0
    if status.code == 304:
        return MISSING
    if status.errno == FS_ERROR and "not a directory" in status.message:
        return MISSING
    return int(status.errno) if status.code == 400 else -int(status.code)


def failure(status: Any, what: str, url: str, *, writing: bool) -> CatalogError:
    """The error for a failed call; `what` says what was tried (`write tmp/1`)."""
    found, said = number(status), cleaned(status.message)
    about = f"{redacted(url)}: cannot {what}"
    doctor = f"`catalog doctor {redacted(url)}` tells more"
    error: CatalogError
    if found in NO_SPACE or (found == FS_ERROR and re.search("no space|quota", said, re.I)):
        error = NoSpace(
            f"{about}: the disk is full, or the quota is used up",
            hint="free space (on EOS what is deleted counts until the recycle bin is emptied); nothing was published",
            backend="eos",
        )
    elif found == READ_ONLY or (found in DENIED and writing):
        error = ReadOnly(
            f"{about}: you may not write there", hint=f"check your credentials and the rights of the folder; {doctor}"
        )
    elif found in DENIED:
        error = BackendError(f"{about}: access is denied", hint=f"check your credentials; {doctor}", backend="eos")
    elif found in (-AUTH_FAILED, -203):
        error = BackendError(
            f"{about}: the server refuses the login",
            hint=f"kinit, renew the proxy, or name a valid token in BEARER_TOKEN_FILE; {doctor}",
            backend="eos",
        )
    elif -found in LOST or found in LOST_ERRNO:
        error = Interrupted(f"{about}: the server does not answer", hint=f"try again later; {doctor}", backend="eos")
    else:
        error = BackendError(f"{about}: {said}", hint=doctor, backend="eos")
    error.__cause__ = XRootDError(f"status {status.status}, code {status.code}, errno {status.errno}: {said}")
    return error
