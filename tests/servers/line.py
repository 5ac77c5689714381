"""A line to a server: a process that passes TCP on, at so many bytes per second each way, all connections together.

with Line(server.port, 125_000_000) as line:
    ...                                         # clients connect to 127.0.0.1:line.port
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from typing import Self

BLOCK = 256 << 10


class Line:
    """See above; stopped by its pid."""

    def __init__(self, port: int, rate: int) -> None:
        self._arguments = [str(port), str(rate)]
        self.port = 0

    def __enter__(self) -> Self:
        command = [sys.executable, __file__, *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


class _Way:
    """One direction: bytes leave at the rate."""

    def __init__(self, rate: int) -> None:
        self._rate, self._due, self._lock = rate, 0.0, threading.Lock()

    def wait(self, count: int) -> None:
        with self._lock:
            self._due = max(self._due, time.monotonic() - 0.005) + count / self._rate
            due = self._due
        time.sleep(max(due - time.monotonic(), 0.0))


def _pass(source: socket.socket, target: socket.socket, way: _Way) -> None:
    buffer = memoryview(bytearray(BLOCK))
    try:
        while count := source.recv_into(buffer):
            way.wait(count)
            target.sendall(buffer[:count])
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            end.close()


def main(port: int, rate: int) -> None:
    """Pass connections on until killed."""
    there, back = _Way(rate), _Way(rate)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for ends in ((near, far, there), (far, near, back)):
                threading.Thread(target=_pass, args=ends, daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
