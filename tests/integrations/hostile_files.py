"""Files that lie, hide code or lead elsewhere, built byte by byte; and the canary that sings when one was executed."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

CANARY = Path("canary")


class Canary:
    """Makes a file in the working folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {CANARY}",)


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    """An array as NumPy writes it, objects as a pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def safetensors(data: bytes = bytes(16), end: int = 16, header: Mapping[str, Any] | None = None) -> bytes:
    """A safetensors file of four numbers, whose header may say something else."""
    table = {"w": {"dtype": "F32", "shape": [end // 4], "data_offsets": [0, end]}} if header is None else header
    head = json.dumps(table).encode()
    return len(head).to_bytes(8, "little") + head + data


def link(name: str, target: str) -> bytes:
    """A zip file whose only member is a link."""
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, target)
    return buffer.getvalue()


def twice(first: bytes, second: bytes, name: str = "a.npy") -> bytes:
    """A zip file with two members of one name."""
    other = "b" + name[1:]
    return zipped({name: first, other: second}).replace(other.encode(), name.encode())


def encrypted(data: bytes) -> bytes:
    """The zip file, saying that its first member is encrypted."""
    locked = bytearray(data)
    locked[locked.index(b"PK\x03\x04") + 6] |= 1
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    return bytes(locked)


def saying(data: bytes, size: int, said: int) -> bytes:
    """The zip file, saying that its members of `size` bytes unpack to `said`, with the checksum of that beginning."""
    import zlib

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            if info.file_size == size:
                crc = zlib.crc32(archive.read(info)[:said])
                old = info.CRC.to_bytes(4, "little") + info.compress_size.to_bytes(4, "little")
                new = crc.to_bytes(4, "little") + info.compress_size.to_bytes(4, "little")
                data = data.replace(old + size.to_bytes(4, "little"), new + said.to_bytes(4, "little"))
    return data


def message(*parts: tuple[int, Any]) -> bytes:
    """A protobuf message, of numbers, texts and messages."""

    def varint(value: int) -> bytes:
        low = value & 127
        return bytes([low]) if value < 128 else bytes([low | 128]) + varint(value >> 7)

    result = b""
    for number, value in parts:
        if isinstance(value, int):
            result += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            result += varint(number << 3 | 2) + varint(len(data)) + data
    return result


def onnx_file(location: str, operator: str = "MatMul", domain: str = "") -> bytes:
    """A graph with a branch in it, and a tensor whose data lie at `location`."""
    tensor = message((2, 1), (8, "W"), (13, message((1, "location"), (2, location))), (14, 1))
    node = message((4, operator), (7, domain))
    branch = message((1, "then_branch"), (6, message((1, node))))
    return message((1, 10), (7, message((1, message((4, "If"), (5, branch))), (5, tensor))), (8, message((2, 20))))


def saved_model(
    *operators: str, functions: Mapping[str, tuple[str, ...]] | None = None, entry: str = "", asset: str = ""
) -> bytes:
    """`saved_model.pb` with these operators in its graph and in its functions, which call one another by an attribute
    where an operator is called `call:NAME`; `entry` is what its object offers, `asset` a file that it names."""

    def node(kind: str) -> bytes:
        if not kind.startswith("call:"):
            return message((1, "n"), (2, kind))
        called = message((1, "f"), (2, message((10, message((1, kind[5:]))))))
        return message((1, "n"), (2, "PartitionedCall"), (5, called))

    library = [
        (1, message((1, message((1, name))), *((3, node(kind)) for kind in kinds)))
        for name, kinds in (functions or {}).items()
    ]
    graph = message(*((1, node(kind)) for kind in operators), *([(2, message(*library))] if library else []))
    objects = message((1, message((8, message((1, entry)))))) if entry else b""
    more = [(6, message((2, asset)))] if asset else []
    return message((1, 1), (2, message((2, graph), *more, *([(7, objects)] if objects else []))))


def keras_file(config: Any, weights: bytes = b"") -> bytes:
    """A `.keras` archive with this configuration."""
    members = {"config.json": json.dumps(config).encode(), "metadata.json": b'{"keras_version": "3.0"}'}
    return zipped({**members, **({"model.weights.h5": weights} if weights else {})})


def layer(name: str, module: str | None = "keras.layers", registered: str | None = None, **config: Any) -> Any:
    """The configuration of a layer as Keras 3 writes it."""
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


def laughs(levels: int, merged: bool = False) -> str:
    """YAML of a few names, each for nine times the one before: in lists, or in mappings by merged keys."""
    text = "a0: &a0 {x: 1}\n" if merged else "a0: &a0 [x]\n"
    for n in range(levels):
        nine = ", ".join([f"*a{n}"] * 9)
        text += f"a{n + 1}: &a{n + 1} " + (f"{{<<: [{nine}]}}\n" if merged else f"[{nine}]\n")
    return text
