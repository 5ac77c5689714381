"""Formats of pure data, told by their first bytes: nothing in them is run, named or called by those who read them."""

from __future__ import annotations

import re

_HEADS = {
    b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tiff",
    b"MM\0*": "tiff", b"PAR1": "parquet", b"ARROW1\0\0": "arrow", b"FEA1": "feather", b"ORC": "orc", b"Obj\x01": "avro",
    b"root": "root", b"GGUF": "gguf", b"SIMPLE  =": "fits", b"SQLite format 3\0": "sqlite", b"OggS": "ogg",
    b"fLaC": "flac", b"ID3": "mp3", b"\0asm": "webassembly", b"CDF\x01": "netcdf", b"CDF\x02": "netcdf",
    b"wOFF": "font", b"wOF2": "font", b"MATLAB 5.0 MAT-file": "matlab", b"TZif": "time zone",
}  # fmt: skip
_FRAMES = 200  # of a TFRecord that are looked at


def of(data: memoryview, name: str) -> str | None:
    """The format, or None. A WebAssembly program is none of data."""
    head = bytes(data[:64])
    for mark, what in _HEADS.items():
        if head.startswith(mark) and _fits(what, data, head):
            return what
    if head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"WEBP", b"AVI "):
        return head[8:12].decode().strip().lower()
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[:5] == b"%PDF-":
        return "pdf"
    if _records(data):
        return "tfrecord"
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
