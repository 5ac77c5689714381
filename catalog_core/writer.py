"""Commits: one actor's events become an entry of the journal, re-checked against the newest state."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Mapping
from typing import Any

from catalog_core import clock, state
from catalog_core.errors import IntegrityError, InvalidInput, PositionTaken, ReadOnly, Rejected
from catalog_core.events import Intent, new_id, write_entry
from catalog_core.index import Damaged, Index, cannot_write
from catalog_core.interfaces.backend import Backend, Head
from catalog_core.sqlite import sqlite3

INLINE = 16 << 10
INLINE_ALL = 512 << 10
Events = Callable[[Index], list[dict[str, Any]] | Intent]


def commit(
    backend: Backend, index: Index, actor: str, events: Events, blobs: Mapping[str, bytes], timeout: float = 60.0
) -> int:
    """Append what `events` makes of the newest state, with small `blobs` (digest → bytes); return its position.

    `events` runs again after every lost race, so numbers and checks always meet the state they are written on. It may
    return a whole `Intent`, which was made elsewhere.
    Raises `Rejected` (a rule refuses it), `ReadOnly`, `DeadlineExceeded`, `InvalidInput` (this machine's clock is
    wrong); nothing is stored then.
    """
    if not backend.capabilities.writable:
        raise ReadOnly(f"{backend.url} was opened read-only", hint="check the rights of its folder")
    clock.check(backend, index)
    identity = new_id()
    try:
        return _commit(backend, index, actor, events, blobs, timeout, identity)
    except Damaged:  # it is thrown away; the entry may have been written
        pass
    except sqlite3.OperationalError as exc:
        if index.path is None or not cannot_write(exc):
            raise
        index.move_to_memory()  # the disk that holds the index is full; the entry may have been written
    index.follow(backend.journal)
    position = index.seen(identity, actor)
    if position is not None:
        return position
    return _commit(backend, index, actor, events, blobs, timeout, identity)


def _commit(
    backend: Backend,
    index: Index,
    actor: str,
    events: Events,
    blobs: Mapping[str, bytes],
    timeout: float,
    identity: str,
) -> int:
    transactional = backend.capabilities.transactional
    with index.lock:
        stored, inlined = _place(backend, index, blobs)
        held, epoch = False, 0

        def build(head: Head | None) -> bytes:
            nonlocal held, epoch
            if held:
                index.__exit__(Rejected, None, None)
                held = False
            index.__enter__()
            held = True
            index.catch_up(backend.journal, None if head is None else head.position + 1)
            if index.head != head:
                raise PositionTaken(f"{backend.url}: the journal grew while its head was looked for")
            now = time.time_ns() // 1_000_000
            with index.undamaged():  # else a backend that is SQLite itself would take it for its own damage
                made = events(index)
            intent = made if isinstance(made, Intent) else Intent(identity, actor, now, head, tuple(made))
            epoch = getattr(backend.journal, "epoch", 0)
            data = write_entry(head, now, [intent], inlined, epoch)
            try:
                with index.undamaged():
                    index.apply(0 if head is None else head.position + 1, data, strict=True, epoch=epoch)
            except IntegrityError as exc:
                raise InvalidInput(f"nothing was written, since no reader could read it: {exc.message}") from exc
            if not transactional:  # the store may take long: others must not wait for our trial
                index.__exit__(Rejected, None, None)
                held = False
            return data

        done = False
        try:
            position, data = backend.journal.append(build, stored, time.monotonic() + timeout)
            done = True
        finally:
            if held:
                index.__exit__(None if done else Rejected, None, None)
        if not transactional:
            with index, index.undamaged():
                at = 0 if index.head is None else index.head.position + 1
                if at == position:
                    index.apply(position, data, epoch=epoch)
                elif at < position:
                    index.catch_up(backend.journal)
    return position


def _place(backend: Backend, index: Index, blobs: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Split small blobs: into the backend's transaction, into the entry, or into the store beforehand."""
    stored: dict[str, bytes] = {}
    inlined: dict[str, str] = {}
    room = INLINE_ALL
    for digest, data in blobs.items():
        key = index.key(digest)
        if backend.capabilities.transactional:
            stored[key] = data
        elif len(data) <= INLINE and len(data) * 2 <= room:
            room -= len(data) * 2
            if not state.is_inlined(index, key):
                inlined[key] = base64.b64encode(data).decode()
        else:
            backend.blobs.put(key, io.BytesIO(data), len(data))
    return stored, inlined
