"""Streams whose bytes must be known before they go on: taken into a temporary file, and summed on the way."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5, sha256
from typing import BinaryIO

import attrs

from catalog_core import durable


@attrs.frozen
class Received:
    """The bytes of a stream in a temporary file, and what they add up to."""

    file: BinaryIO
    size: int
    digest: str
    adler32: str
    md5: str


@contextmanager
def received(stream: BinaryIO) -> Iterator[Received]:
    """Take all of `stream` into a file that lasts as long as the context. Raises `NoSpace`."""
    state, other, adler = sha256(), md5(usedforsecurity=False), 1
    with durable.translated(tempfile.gettempdir()), tempfile.TemporaryFile() as file:
        while block := stream.read(1 << 20):
            durable.write_all(file, block)
            state.update(block)
            other.update(block)
            adler = zlib.adler32(block, adler)
        size = file.tell()
        file.seek(0)
        yield Received(file, size, "sha256:" + state.hexdigest(), f"{adler:08x}", other.hexdigest())
