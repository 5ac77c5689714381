"""What a file is, by its content, and who looks at it."""

from __future__ import annotations

import ast
import bz2
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from catalog_core import tensors
from catalog_core.errors import CatalogError
from catalog_core.names import check_file
from catalog_scan import commands, configs, formats, hdf5, hidden, markup, pickles, wire
from catalog_scan.stream import Stream

MAX_UNPACKED = 1 << 30  # bytes of one member that has to be unpacked to be seen
MAX_NPY_HEADER = 1 << 16
Problems = Iterator[tuple[str, str]]
_PLAIN = re.compile(rb"[^\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]*")
# One byte a character: all that is beyond ASCII is a letter of Western or Cyrillic codes, or a sign of Windows' own.
_LETTERS = re.compile(rb"[\t\n\f\r -~\xc0-\xff\x80\x82\x84\x85\x91-\x97\xa0\xa7-\xab\xad\xae\xb0-\xb7\xb9-\xbe]*")
_WIDE = ("gb18030", "shift_jis", "euc_jp", "big5", "euc_kr")
_NATIVE = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xca\xfe\xba\xbe", b"!<arch>\n")
UNPACKED: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), "bzip2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor,
}  # fmt: skip
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"7z\xbc\xaf": "7-zip", b"\x28\xb5\x2f\xfd": "zstd",
    b"Rar!": "rar",
}  # fmt: skip
_TABLE_END = bytes.fromhex("57fb808b247547db")  # of TensorFlow's variables.index


Look = Callable[[memoryview, str, Sequence[str]], Problems]


def kind_of(data: memoryview, name: str, beside: Sequence[str]) -> tuple[str, Look | None]:
    """What the bytes are, and who looks at them. The name decides only where raw numbers are, and source code."""
    head = bytes(data[:4096])
    if not head:
        return "empty", None
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip", None
    if head[:6] == b"\x93NUMPY":
        return "npy", _npy
    if any(head.startswith(mark) for mark in _NATIVE):
        return "native code", _says("native code", "a machine runs it")
    for mark, what in _PACKED.items():
        if head.startswith(mark) and what in UNPACKED:
            return what, None
        if head.startswith(mark):
            return what, _says("cannot read", f"it is packed by {what}, and not looked into")
    if _is_zlib(head):
        return "zlib", _says("cannot read", "it is packed by zlib, and not looked into")
    if head[257:262] == b"ustar":
        return "tar", None
    if head[:8] == b"\x89HDF\r\n\x1a\n" or any(
        bytes(data[at : at + 8]) == b"\x89HDF\r\n\x1a\n" for at in (512, 1024, 2048)
    ):
        return "hdf5", _hdf5
    length = int.from_bytes(head[:8], "little")
    if len(data) > 10 and head[8:9] == b"{" and length <= tensors.MAX_HEADER:
        return "safetensors", _safetensors
    if pickles.looks_like(data):  # before all whose heads might be opcodes, as those of GIF are
        return "pickle", _pickle
    plain = formats.of(data, name)
    if plain is not None:
        return plain, {"gguf": _gguf, "pdf": _pdf}.get(plain, _nothing_hidden(plain))
    if head[:4] == b"{L\0\0" and b"learner" in head[:200]:
        return "ubjson", _nothing_hidden("ubjson")
    if re.fullmatch(r"(.*/)?[\w.-]+\.(index|data-\d{5}-of-\d{5})", name) and _is_checkpoint(data, name, beside):
        return ("numbers", _nothing_hidden("numbers")) if ".data-" in name else ("index", _index)
    if name.lower().endswith(configs.SOURCE):
        return "source", _says("code", "it runs where somebody imports or calls it")
    told = commands.run_by_name(name)
    if told is not None:
        return "commands", _says("code", told)
    if formats.of_r(head) or name.lower().endswith((".rds", ".rda", ".rdata")):
        return "r", _says("code", "R may run what is in it while it reads it")
    if zipfile.is_zipfile(Stream(data)):
        return "zip", None
    protobuf = wire.looks_like(data)
    if protobuf is not None:
        return protobuf, {"onnx": _onnx, "savedmodel": _savedmodel}.get(protobuf, _nothing_hidden(protobuf))
    if _is_text(data):
        return "text", _text
    if wire.keras_metadata(data) is not None:
        return "keras metadata", _metadata
    if wire.tensor(data):
        return "onnx tensor", _nothing_hidden("onnx tensor")
    if wire.sentencepiece(data):
        return "sentencepiece", _nothing_hidden("sentencepiece")
    return "unknown", _says("cannot read", "it is of no format that is known here")


def _says(rule: str, cause: str) -> Look:
    def look(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
        yield rule, cause

    return look


def _is_zlib(head: bytes) -> bool:
    """Whether a stream of zlib begins so; it may be all letters."""
    if head[:2] not in (b"x\x01", b"x^", b"x\x9c", b"x\xda"):
        return False
    try:
        return bool(zlib.decompressobj().decompress(head, 1 << 16)) or len(head) < 32
    except zlib.error:
        return False


def _is_text(data: memoryview) -> bool:
    if len(data) > MAX_UNPACKED:
        return False
    try:
        text = _decoded(data)
    except UnicodeDecodeError:
        return False
    if bytes(data[:2]) in _UTF16:
        return "\0" not in text
    if _PLAIN.fullmatch(data) is None:
        return False
    if not isinstance(text, _Latin) or sum(char > "\x7f" for char in text) * 10 < len(text):
        return True
    return _LETTERS.fullmatch(data) is not None or any(_reads(data, coding) for coding in _WIDE)


def _reads(data: memoryview, coding: str) -> bool:
    """Whether it is text in a code of East Asia."""
    try:
        text = str(data, coding)
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\t\r\n\f" for char in text)


class _Latin(str):
    """A text of which each byte was taken for a character."""


def _decoded(data: memoryview) -> str:
    """The text: UTF-8, UTF-16 with its mark, or, of old, one byte a character."""
    if bytes(data[:2]) in _UTF16:
        return str(data, "utf-16")
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return _Latin(str(data, "latin-1"))


def _nothing_hidden(kind: str) -> Look:
    """Some readers look for an archive at the end of whatever they get, or for a pickle behind a picture's head."""

    def look(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
        yield from hidden.look(data, kind)

    return look


def _pickle(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    yield from pickles.check(data)


def _npy(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    major = data[6]
    width = 2 if major == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + length
    if major not in (1, 2, 3) or length > MAX_NPY_HEADER or start > len(data):
        yield "cannot read", "its header is broken"
        return
    told = ast.literal_eval(bytes(data[8 + width : start]).decode("latin-1").strip())
    shape, descr = told["shape"], told["descr"]
    if _has_objects(descr):
        yield "pickle", "its items are objects, which are kept as a pickle"
        yield from pickles.check(data[start:])
        return
    import numpy as np

    items = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise ValueError("its shape is no list of sizes")
        items *= size
    if items * np.lib.format.descr_to_dtype(descr).itemsize != len(data) - start:
        yield "lying header", f"its header tells of {items:,} items, and {len(data) - start:,} bytes follow"


def _has_objects(descr: Any) -> bool:
    if isinstance(descr, str):
        return "O" in descr
    return any(_has_objects(item) for item in descr) if isinstance(descr, (list, tuple)) else False


def _safetensors(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    if zipfile.is_zipfile(Stream(data)):
        yield "hidden bytes", "an archive stands behind it"
    try:
        tensors.parse_header(lambda start, length: bytes(data[start : start + length]), len(data))
    except CatalogError as exc:
        yield "lying header", exc.message


def _is_checkpoint(data: memoryview, name: str, beside: Sequence[str]) -> bool:
    """Whether it is one of TensorFlow's own pairs of an index and numbers."""
    if ".data-" not in name:
        return bytes(data[-8:]) == _TABLE_END or "/variables/" in f"/{name}"
    return name[: name.rindex(".data-")] + ".index" in beside or "/variables/" in f"/{name}"


def _gguf(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    yield from hidden.look(data, "gguf")
    yield from markup.template(bytes(data[: 64 << 20]).decode("latin-1"))


def _pdf(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    yield from hidden.look(data, "pdf")
    if formats.acts(data):
        yield "code", "it holds actions that a reader of PDF runs"


def _index(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    if bytes(data[-8:]) != _TABLE_END:
        yield "cannot read", "it is no index of variables"


def _onnx(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    if zipfile.is_zipfile(Stream(data)):
        yield "hidden bytes", "an archive stands behind it"
    operators, locations = wire.onnx(data)
    for operator in operators[:20]:
        yield "operator", f"{operator[:100]} is not on the list"
    folder = name.rpartition("/")[0]
    for location in sorted(set(locations)):
        try:
            check_file(location)
        except CatalogError:
            yield "path", f"it wants its data from {location[:100]!r}"
            continue
        if (f"{folder}/{location}" if folder else location) not in beside:
            yield "missing data", f"it wants its data from {location[:100]!r}, which is not beside it"


def _savedmodel(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    if zipfile.is_zipfile(Stream(data)):
        yield "hidden bytes", "an archive stands behind it"
    operators, assets = wire.tensorflow(data)
    for operator in operators[:20]:
        what = "is called from a method" if operator in wire.OWN_FILES else "is not on the list"
        yield "operator", f"{operator[:100]} {what}"
    for asset in assets:
        try:
            check_file(asset)
        except CatalogError:
            yield "path", f"it reads the file {asset[:100]!r}"


def _text(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    yield from configs.text(_decoded(data), name)


def _metadata(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    yield from configs.keras_metadata(wire.keras_metadata(data) or ())


def _hdf5(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    if bytes(data[:8]) != b"\x89HDF\r\n\x1a\n":
        yield "hidden bytes", "the file begins behind other bytes"
    if zipfile.is_zipfile(Stream(data)):
        yield "hidden bytes", "an archive stands behind it"
    try:
        told = hdf5.look(data)
    except ModuleNotFoundError:
        yield "cannot read", "h5py is not installed (pip install h5py)"
        return
    for rule, *about in told:
        if rule != "attribute":
            yield rule, about[0]
            continue
        try:
            found = list(configs.tree(json.loads(about[1])))
        except (ValueError, RecursionError):
            continue
        yield from ((rule, f"attribute {about[0]}: {cause}") for rule, cause in found)
