"""Bytes in memory as a file."""

from __future__ import annotations


class Stream:
    """A memoryview as a file, without a copy of all of it."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0
        self.mode = "rb"

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        end = len(self.data) if size is None or size < 0 else self.at + size
        part = bytes(self.data[self.at : end])
        self.at += len(part)
        return part

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        base = (0, self.at, len(self.data))[whence]
        if base + offset < 0:
            raise OSError("before the beginning")
        self.at = base + offset
        return self.at

    def tell(self) -> int:
        """The place."""
        return self.at

    def seekable(self) -> bool:
        """It has places."""
        return True

    def close(self) -> None:
        """Nothing is open."""
