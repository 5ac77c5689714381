"""What is got: a stream over one object that takes up again where the connection broke."""

from __future__ import annotations

import io
import time
from typing import Any

from catalog_core import forks
from catalog_core.errors import BackendError, DeadlineExceeded
from catalog_oci.calls import Calls, reason
from catalog_oracle.client import SLOWEST


class Download(io.RawIOBase):
    """The bytes of object `name` from `start`, `length` of them or all. `found` is False where there is no object.

    A body that ends early, or breaks off, is asked for again from there, of the same object (by its ETag): never are
    fewer bytes returned than there are.
    """

    def __init__(self, calls: Calls, key: str, name: str, start: int, length: int | None) -> None:
        super().__init__()
        self._calls = calls
        self._key, self._name = key, name
        self._at = start
        self._last = "" if length is None else str(start + length - 1)
        self._left = 0
        self._etag: str | None = None
        self._body: Any = None
        self._process = forks.process()
        self.found = self._open()
        self._patience = calls.options.deadline + self._left / SLOWEST  # seconds of waiting, in all

    def _open(self) -> bool:
        from oci.exceptions import ServiceError

        wanted: dict[str, str] = {}
        if self._at or self._last:
            wanted["range"] = f"bytes={self._at}-{self._last}"
        if self._etag:
            wanted["if_match"] = self._etag
        what = f"reading {self._key}"
        try:
            answer = self._calls(
                what, lambda c: c.get_object(self._calls.namespace, self._calls.bucket, self._name, **wanted)
            )
        except ServiceError as exc:
            if exc.code == "ObjectNotFound" and self._etag is None:
                return False
            if exc.status == 416 and self._etag is None:  # it ends before `start`
                return True
            if exc.status == 412 or exc.code == "ObjectNotFound":
                raise BackendError(
                    f"{what}: the object was replaced or removed meanwhile", hint="try again", backend="oci"
                ) from exc
            raise self._calls.meaning(exc, what) from exc
        self._etag = answer.headers["etag"]
        self._left = int(answer.headers["content-length"])
        self._body = answer.data.raw
        return True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes, at least one unless it is the end."""
        want = min(len(buffer), self._left)
        idle = 0.0
        while want:
            began = time.monotonic()
            data, problem = self._next(want)
            waited = time.monotonic() - began  # the reader's own time does not count
            self._patience -= waited
            idle += waited
            if self._patience < 0 or (idle > self._calls.options.deadline and not data):
                why = reason(problem) if problem else "they come too slowly, or the body ends early"
                raise DeadlineExceeded(
                    f"reading {self._key}: {self._left - len(data)} bytes are missing: {why}",
                    hint="try again",
                    backend="oci",
                ) from problem
            if data:
                buffer[: len(data)] = data
                self._at += len(data)
                self._left -= len(data)
                if not self._left:
                    self._drop()
                return len(data)
        return 0

    def _next(self, want: int) -> tuple[bytes, Exception | None]:
        """What comes next, and what went wrong if nothing does; the object is then open again at this place."""
        from urllib3.exceptions import HTTPError

        problem: Exception | None = None
        if self._process is not forks.process():  # the connection is the parent's, who reads on
            forks.INHERITED.append(self._body)
            self._body, self._process = None, forks.process()
            self._open()
        try:
            data: bytes = self._body.read1(want)
            if data:
                return data, None
        except (OSError, HTTPError) as exc:
            problem = exc
        self._drop()
        time.sleep(0.05)
        self._open()
        return b"", problem

    def readall(self) -> bytes:
        """All that is left."""
        data = bytearray(self._left)
        view = memoryview(data)
        while view:
            view = view[self.readinto(view) :]
        return bytes(data)

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        super().close()
