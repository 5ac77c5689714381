"""The few calls of a file system from which `store` makes its five verbs: `remote` has them over XRootD, `mounted` on a
mounted /eos.

Paths are relative to the catalog's folder. Errors are those of `catalog_core.errors`. A call finds by itself a server
that comes back within seconds, unless it is to be made only `once`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import BinaryIO, Protocol

import attrs

from catalog_core.durable import blocks
from catalog_core.errors import BackendError

BLOCK = 2 << 20


class Interrupted(BackendError):
    """The connection failed in the middle of a call; the same call may succeed if it is made again."""


@attrs.frozen
class Found:
    """A file or folder: `size` in bytes, `time` of its last change in seconds since 1970 by the server's clock."""

    size: int
    time: float
    folder: bool


class Calls(Protocol):
    """See the module."""

    where: str

    def upload(self, path: str, stream: BinaryIO, size: int) -> int:
        """Write the next `size` bytes of `stream` to the new file `path`, durably, making the folders above; return
        their adler32. Raises `Interrupted`; the file is then of no use."""

    def good(self, path: str, size: int, adler: int) -> bool:
        """Whether a file has this size and, as far as the server can tell, this adler32."""

    def checksums(self, path: str) -> Mapping[str, str]:
        """What the server itself computed of a file; nothing where it computes none."""

    def open(self, path: str, start: int, length: int | None, *, once: bool = False) -> BinaryIO | None:
        """A range of a file; None where there is no such file."""

    def stat(self, path: str) -> Found | None:
        """What stands at `path`."""

    def entries(self, path: str) -> list[tuple[str, Found]]:
        """Names and kinds in a folder, in no order; nothing where it is missing or no folder."""

    def make(self, path: str) -> bool:
        """Make a folder, and those above; False where it exists. Of many callers at once one gets True."""

    def move(self, source: str, target: str, *, once: bool = False) -> bool:
        """Rename, making the folders above `target`; False where `source` is missing, which a second try finds if the
        answer to the first was lost."""

    def remove(self, path: str, *, once: bool = False) -> bool:
        """Remove a file; False where it is a folder. A missing one is no error."""

    def remove_folder(self, path: str, *, once: bool = False) -> None:
        """Remove an empty folder. A missing one, or one that is not empty, is no error."""


def block(stream: BinaryIO, size: int) -> bytes:
    """The next `size` bytes of a stream. Raises `BackendError` if it ends before."""
    return b"".join(blocks(stream, size, size, "eos"))


class Patience:
    """How long an operation may be tried again: until `seconds` have passed since it began."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._pause = 0.05

    def again(self) -> bool:
        """Wait a little, and say whether there is time for another try."""
        if time.monotonic() + self._pause > self._end:
            return False
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, 1.0)
        return True
