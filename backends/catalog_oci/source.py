"""What is put: the bytes of a stream that can be sent again, and their digests."""

from __future__ import annotations

import base64
import hashlib
import io
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from catalog_core.durable import BLOCK, blocks
from catalog_core.errors import BackendError

SMALL = 4 << 20  # what is not larger is held in memory


class Source:
    """The next `size` bytes of `stream`, which is left behind them. `known` is their SHA-256 (hexadecimal) where the
    caller's key states it: the service then checks the bytes against it, and they need not be read twice."""

    def __init__(self, stream: BinaryIO, size: int, known: str | None) -> None:
        self.size = size
        self.spooled: BinaryIO | None = None
        self._sha256 = None if known is None else bytes.fromhex(known)
        if size <= SMALL:
            data = b"".join(_blocks(stream, size))
            stream, self._start, self._sha256 = io.BytesIO(data), 0, hashlib.sha256(data).digest()
        elif stream.seekable():
            self._start = stream.tell()
        else:
            self.spooled = tempfile.TemporaryFile()  # noqa: SIM115
            try:
                for block in _blocks(stream, size):
                    self.spooled.write(block)
            except BaseException:
                self.spooled.close()
                raise
            stream, self._start = self.spooled, 0
        self._stream = stream

    def blocks(self) -> Iterator[bytes]:
        """All bytes, in blocks. Whoever reads has the stream until it is done."""
        self._stream.seek(self._start)
        yield from _blocks(self._stream, self.size)

    def piece(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`."""
        self._stream.seek(self._start + start)
        return b"".join(_blocks(self._stream, size, size))

    def body(self) -> bytes | Body:
        """For one request."""
        return self.piece(0, self.size) if self.size <= SMALL else Body(self)

    def sha256(self) -> str:
        """Base64, as the service writes digests."""
        if self._sha256 is None:
            self._sha256 = self._digest("sha256")
        return base64.b64encode(self._sha256).decode()

    def md5(self) -> str:
        """Base64."""
        return base64.b64encode(self._digest("md5")).decode()

    def _digest(self, name: str) -> bytes:
        digest = hashlib.new(name)
        for block in self.blocks():
            digest.update(block)
        return digest.digest()

    def close(self) -> None:
        """Forget what was spooled; leave the caller's stream behind what was put."""
        if self.spooled is not None:
            self.spooled.close()
        elif self.size > SMALL:
            self._stream.seek(self._start + self.size)


class Body:
    """A source as the body of a request."""

    def __init__(self, source: Source) -> None:
        self._size = source.size
        self._blocks = source.blocks()

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def read(self, size: int = -1) -> bytes:
        """The next block, whatever `size` says: the HTTP client asks for 16 KiB, and sends what comes."""
        return next(self._blocks, b"")


def _blocks(stream: BinaryIO, size: int, most: int = BLOCK) -> Iterator[bytes]:
    try:
        yield from blocks(stream, size, most, "oci")
    except OSError as exc:
        raise BackendError(f"what is to be stored cannot be read: {exc.strerror or exc}", backend="oci") from exc
