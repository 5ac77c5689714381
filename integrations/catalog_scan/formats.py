"""Formats of pure data, told by their first bytes: nothing in them is run, named or called by those who read them."""

from __future__ import annotations

import re
from typing import Any

_HEADS = {
    b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tiff",
    b"MM\0*": "tiff", b"PAR1": "parquet", b"ARROW1\0\0": "arrow", b"FEA1": "feather", b"ORC": "orc", b"Obj\x01": "avro",
    b"root": "root", b"GGUF": "gguf", b"SIMPLE  =": "fits", b"SQLite format 3\0": "sqlite", b"OggS": "ogg",
    b"fLaC": "flac", b"ID3": "mp3", b"\0asm": "webassembly", b"CDF\x01": "netcdf", b"CDF\x02": "netcdf",
    b"wOFF": "font", b"wOF2": "font", b"MATLAB 5.0 MAT-file": "matlab", b"TZif": "time zone",
    b"\xde\x12\x04\x95": "gettext", b"\x95\x04\x12\xde": "gettext",
}  # fmt: skip
_FRAMES = 200  # of a TFRecord that are looked at


def of(data: memoryview, name: str) -> str | None:
    """The format, or None. A WebAssembly program is none of data."""
    head = bytes(data[:64])
    for mark, what in _HEADS.items():
        if head.startswith(mark) and _fits(what, data, head):
            return what
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] in (b"WAVE", b"WEBP", b"AVI "):
        return head[8:12].decode().strip().lower()
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[:5] == b"%PDF-":
        return "pdf"
    if _records(data):
        return "tfrecord"
    if _matlab4(data):
        return "matlab"
    return None


def _fits(what: str, data: memoryview, head: bytes) -> bool:
    """Whether a short mark is followed by what the format has there."""
    if what == "bmp":
        return int.from_bytes(head[2:6], "little") == len(data)
    if what in ("parquet", "feather", "orc"):
        return len(data) > 12 and (what == "orc" or bytes(data[-4:]) == head[:4])
    if what == "root":
        return 0 < int.from_bytes(head[8:12], "big") < 4096
    return what != "webassembly"


def of_r(head: bytes) -> bool:
    """Whether it is what R writes of its objects, packed or not: what is in it may be a promise, which R keeps."""
    return re.match(rb"(RD[XAB][23]\n)?(X\n\0\0\0[\2\3]|A\n[23]\n\d{5,}\n|B\n[\2\3]\0\0\0)", head) is not None


def acts(data: memoryview) -> bool:
    """Whether a PDF holds actions that its reader runs."""
    return re.search(rb"/(JavaScript|JS|Launch|OpenAction|AA|RichMedia)\b", data) is not None


def _records(data: memoryview) -> bool:
    """Whether the file is a chain of frames as TensorFlow writes records: length, checksum, bytes, checksum."""
    at = 0
    for _ in range(_FRAMES):
        if at == len(data):
            break
        size = int.from_bytes(data[at : at + 8], "little")
        if size > len(data) - at - 16 or masked(bytes(data[at : at + 8])) != int.from_bytes(
            data[at + 8 : at + 12], "little"
        ):
            return False
        at += size + 16
    return at > 0


def _matlab4(data: memoryview) -> bool:
    """Whether the file is a chain of matrices as MATLAB 4 writes them: kind, rows, columns, name, numbers."""
    at = 0
    while at < len(data):
        order: Any = "little" if int.from_bytes(data[at : at + 4], "little") < 5000 else "big"
        kind, rows, columns, imaginary, length = (int.from_bytes(data[n : n + 4], order) for n in range(at, at + 20, 4))
        known = kind < 2000 and kind // 100 % 10 == 0 and kind // 10 % 10 < 6 and kind % 10 < 3 and imaginary < 2
        name = bytes(data[at + 20 : at + 20 + length]) if known and 1 < length < 256 else b""
        if re.fullmatch(rb"[A-Za-z]\w*\0", name) is None:
            return False
        at += 20 + length + rows * columns * (8, 4, 4, 2, 2, 1)[kind // 10 % 10] * (1 + imaginary)
    return at == len(data) > 0


_TABLE: list[int] = []


def masked(data: bytes) -> int:
    """CRC-32C (Castagnoli) of a few bytes, rotated and shifted as records have it."""
    if not _TABLE:
        for byte in range(256):
            value = byte
            for _ in range(8):
                value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
            _TABLE.append(value)
    state = 0xFFFFFFFF
    for byte in data:
        state = _TABLE[(state ^ byte) & 255] ^ state >> 8
    state ^= 0xFFFFFFFF
    return ((state >> 15 | state << 17) + 0xA282EAD8) & 0xFFFFFFFF
