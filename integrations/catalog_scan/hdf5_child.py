"""What an HDF5 file holds, told by a process that may be ended: python hdf5_child.py FILE, with `sys.path` on standard
input. It prints JSON lists: `attribute`, name and text; or a rule and why it is broken."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any

MAX_RATIO = 200  # unpacked to the size of the file
MAX_OBJECTS = 100_000
MAX_MEMORY = 4 << 30  # bytes of address space


def look(path: str) -> Iterator[list[str]]:
    """All that has to be judged, object by object."""
    import h5py

    size = os.path.getsize(path)
    with h5py.File(path, "r") as file:
        yield from _attributes(file)
        waiting = [file]
        seen = 0
        while waiting:
            group = waiting.pop()
            for key in group:
                seen += 1
                if seen > MAX_OBJECTS:
                    yield ["cannot read", "it holds too much"]
                    return
                if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                    yield ["path", f"{group.name}/{key} is a link"]
                    continue
                item = group[key]
                yield from _attributes(item)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset):
                    yield from _data(item, size, h5py)


def _data(item: Any, size: int, h5py: Any) -> Iterator[list[str]]:
    if item.external or item.is_virtual:
        yield ["path", f"{item.name} has its data in another file"]
    if item.nbytes > MAX_RATIO * max(size, 1 << 16):
        yield ["zip bomb", f"{item.name} says that it unpacks to {item.nbytes:,} bytes"]
    opaque = item.dtype.kind == "V" and item.dtype.names is None
    if opaque or (item.dtype.hasobject and not h5py.check_string_dtype(item.dtype)):
        yield ["cannot read", f"{item.name} is of a type that is not looked into"]


def _attributes(item: Any) -> Iterator[list[str]]:
    for key in item.attrs:
        if item.attrs.get_id(key).shape != ():  # names of layers and weights
            continue
        value = item.attrs[key]
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(text, str) and text.lstrip().startswith(("{", "[")):
            yield ["attribute", key, text]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    sys.path[:] = json.load(sys.stdin)
    print(json.dumps(list(look(sys.argv[1]))))
