"""Work in a copy of this process that is ended after a while: libraries in C have no end, or crash, on some files."""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import Any


def run(work: Callable[[], Any], seconds: float) -> Any:
    """What `work` returns, as JSON has it. Raises ValueError where it raises, crashes, or takes longer than `seconds`;
    where no process can be copied, it is done in this one."""
    if not hasattr(os, "fork"):
        return work()
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                told = {"result": work()}
            except BaseException as exc:
                told = {"error": f"{type(exc).__name__}: {exc}"}
            with os.fdopen(target, "wb") as file:
                file.write(json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(target)
    try:
        told = json.loads(_listen(source, time.monotonic() + seconds) or b"null")
    finally:
        os.close(source)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if told is None:
        raise ValueError(f"reading it crashed, or did not end within {seconds:.0f} s")
    if "error" in told:
        raise ValueError(told["error"])
    return told["result"]


def _listen(source: int, deadline: float) -> bytes:
    """All that comes, or nothing where it does not end in time."""
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            part = os.read(source, 1 << 16)
            if not part:
                return said
            said += part
    return b""
