"""Files, told by their content. What is on no list, and what cannot be read, is a finding."""

from __future__ import annotations

import ast
import json
import mmap
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from catalog_core import folders, tensors
from catalog_core.errors import CatalogError, InvalidInput
from catalog_core.names import check_file
from catalog_scan import hdf5, pickles, wire

MAX_DEPTH = 4  # archives in archives
MAX_MEMBERS = 100_000
MAX_UNPACKED = 1 << 30  # bytes of one member that has to be unpacked to be seen
MAX_RATIO = 200  # unpacked to packed; of archives in archives, of all together
MAX_NPY_HEADER = 1 << 16
Problems = Iterator[tuple[str, str]]
_PLAIN = re.compile(rb"[^\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]*")
# What only holds pixels.
_IMAGES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}
_NATIVE = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xca\xfe\xba\xbe", b"!<arch>\n")
_PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"7z\xbc\xaf": "7-zip", b"\x28\xb5\x2f\xfd": "zstd",
    b"Rar!": "rar",
}  # fmt: skip
# Members of archives that their readers take as raw numbers, and never as anything else.
_RAW = re.compile(
    r"(.*/)?(data/\d+|data/(weights/weight_\d+|constants/tensor_\d+)|\.data/serialization_id|byteorder|version"
    r"|\.format_version|archive_version|archive_format)"
)
_TABLE_END = bytes.fromhex("57fb808b247547db")  # of TensorFlow's variables.index


@attrs.frozen
class File:
    """A file, or a member of an archive, and what it is."""

    file: str
    format: str


@attrs.frozen
class Finding:
    """What is wrong with a file: the rule that it breaks, and why."""

    file: str
    rule: str
    cause: str


@attrs.frozen
class Report:
    """All files, and all findings."""

    files: tuple[File, ...]
    findings: tuple[Finding, ...]


def scan_path(path: Path) -> Report:
    """Look at a file, or at all files of a folder. Links, and folders that cannot be listed, are findings."""
    scanner = Scanner()
    found = list(folders.walk(path, follow=False)) if path.is_dir() and not path.is_symlink() else [_alone(path)]
    names = [item.name for item in found if item.kind == "file"]
    for item in found:
        name = item.name
        try:
            if item.kind == "unreadable":
                scanner.find(name, "cannot read", item.cause)
            elif item.kind == "link":
                scanner.find(name, "link", "it is a link, and was not followed")
            elif item.kind == "special":
                scanner.find(name, "link", "it is no file")
            elif item.kind == "file" and item.path.stat().st_size == 0:
                scanner.files.append(File(name, "empty"))
            elif item.kind == "file":
                with item.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                    scanner.look_mapped(name, mapped, names)
        except OSError as exc:
            scanner.find(name, "cannot read", str(exc.strerror or exc))
    if not scanner.files and not scanner.findings:
        raise InvalidInput(f"{path} holds no files")
    return scanner.report()


def _alone(path: Path) -> folders.Item:
    """A path that is no folder."""
    mode = path.lstat().st_mode
    kind: folders.Kind = "link" if stat.S_ISLNK(mode) else "file" if stat.S_ISREG(mode) else "special"
    return folders.Item(path.name, path, kind)


class Scanner:
    """Looks at files one after the other, and collects what it finds."""

    def __init__(self) -> None:
        self.files: list[File] = []
        self.findings: list[Finding] = []
        self._left = 0  # bytes that may still be unpacked of the file that is looked at

    def report(self) -> Report:
        """What was found so far."""
        return Report(tuple(self.files), tuple(self.findings))

    def find(self, file: str, rule: str, cause: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(file, rule, cause))

    def look_mapped(self, file: str, mapped: mmap.mmap, names: Sequence[str]) -> None:
        """Look at a mapped file, and let go of it."""
        with memoryview(mapped) as data:
            self.look(file, data, file, names)

    def look(self, file: str, data: memoryview, name: str, beside: Sequence[str] = (), depth: int = 0) -> None:
        """Look at one file. `name` is its name among the files `beside` it."""
        data = data.cast("B") if data.format != "B" else data
        if depth == 0:
            self._left = MAX_RATIO * max(len(data), 1 << 20)
        kind, problems = _kind(data, name)
        self.files.append(File(file, kind))
        try:
            if kind == "zip":
                self._zip(file, data, depth)
                return
            for rule, cause in problems(data, name, beside) if problems else ():
                self.find(file, rule, cause)
        except Exception as exc:  # a reader that was not ready for this file: nobody knows what is in it
            self.find(file, "cannot read", f"{kind}: " + " ".join(f"{type(exc).__name__}: {exc}".split())[:200])

    def _zip(self, file: str, data: memoryview, depth: int) -> None:
        if depth >= MAX_DEPTH:
            self.find(file, "cannot read", f"archives are nested deeper than {MAX_DEPTH}")
            return
        with zipfile.ZipFile(_Stream(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if len(infos) > MAX_MEMBERS:
                self.find(file, "zip bomb", f"it has {len(infos):,} members")
                return
            if infos and min(info.header_offset for info in infos) != 0:
                self.find(file, "hidden bytes", "the archive begins behind other bytes")
            packed, unpacked = sum(info.compress_size for info in infos), sum(info.file_size for info in infos)
            if unpacked > MAX_RATIO * max(packed, 1 << 16) or packed > len(data):
                self.find(file, "zip bomb", f"{len(data):,} bytes say that they unpack to {unpacked:,}")
                return
            for double in sorted(name for name, count in Counter(names).items() if count > 1):
                self.find(file, "two of one name", f"it has two members {double[:80]!r}")
            torch = any(
                name.endswith("data.pkl") or "/models/" in name or name.endswith("archive_format") for name in names
            )
            for info in infos:
                self._member(file, data, archive, info, names, torch, depth)

    def _member(
        self, file: str, data: memoryview, archive: zipfile.ZipFile, info: zipfile.ZipInfo, names: Sequence[str],
        torch: bool, depth: int,
    ) -> None:  # fmt: skip
        where = f"{file}:{info.filename}"
        try:
            check_file(info.filename.removesuffix("/"))
        except CatalogError as exc:
            self.find(where, "path", exc.message)
            return
        if stat.S_ISLNK(info.external_attr >> 16):
            self.find(where, "link", "the member is a link")
            return
        if info.is_dir():
            return
        if info.flag_bits & 1:
            self.find(where, "cannot read", "it is encrypted")
            return
        if torch and _RAW.fullmatch(info.filename):
            self.files.append(File(where, "numbers"))
            return
        with archive.open(info):  # compares the two headers
            pass
        start = info.header_offset + 30
        start += int.from_bytes(data[start - 4 : start - 2], "little") + int.from_bytes(
            data[start - 2 : start], "little"
        )
        content = data[start : start + info.compress_size]
        if len(content) != info.compress_size:
            self.find(where, "cannot read", "it is longer than the archive")
            return
        if info.compress_type != zipfile.ZIP_STORED:
            self._left -= info.file_size
            if info.file_size > MAX_UNPACKED:
                self.find(where, "cannot read", f"it would have to be unpacked to {info.file_size:,} bytes")
                return
            if self._left < 0:
                self.find(where, "zip bomb", "all archives in it unpack to far more than it is")
                return
            content = _inflated(content, info)
        elif info.file_size != info.compress_size:
            raise zipfile.BadZipFile("a member has two sizes")
        self.look(where, content, info.filename, names, depth + 1)


def _inflated(packed: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """What a member unpacks to. Python's own reader takes a stream that is longer than the archive says, and unpacks it
    whole. Raises BadZipFile for one, and zlib.error."""
    if info.compress_type != zipfile.ZIP_DEFLATED:
        raise zipfile.BadZipFile("a member is packed by what is not unpacked here")
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    content = stream.decompress(packed, info.file_size + 1)
    if len(content) != info.file_size or not stream.eof or stream.unused_data or zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile(f"{info.filename[:80]!r} is not what the archive says")
    return memoryview(content)


class _Stream:
    """A memoryview as a file, without a copy of all of it."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0
        self.mode = "rb"

    def read(self, size: int = -1) -> bytes:
        end = len(self.data) if size is None or size < 0 else self.at + size
        part = bytes(self.data[self.at : end])
        self.at += len(part)
        return part

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self.at, len(self.data))[whence]
        if base + offset < 0:
            raise OSError("before the beginning")
        self.at = base + offset
        return self.at

    def tell(self) -> int:
        return self.at

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


Look = Callable[[memoryview, str, Sequence[str]], Problems]


def _kind(data: memoryview, name: str) -> tuple[str, Look | None]:
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
        if head.startswith(mark):
            return what, _says("cannot read", f"it is packed by {what}, and not looked into")
    if _is_zlib(head):
        return "zlib", _says("cannot read", "it is packed by zlib, and not looked into")
    if head[257:262] == b"ustar":
        return "tar", _says("cannot read", "it is a tar archive, and not looked into")
    if head[:8] == b"\x89HDF\r\n\x1a\n" or any(
        bytes(data[at : at + 8]) == b"\x89HDF\r\n\x1a\n" for at in (512, 1024, 2048)
    ):
        return "hdf5", _hdf5
    length = int.from_bytes(head[:8], "little")
    if len(data) > 10 and head[8:9] == b"{" and length <= tensors.MAX_HEADER:
        return "safetensors", _safetensors
    if pickles.looks_like(data):  # before all whose heads might be opcodes, as those of GIF are
        return "pickle", _pickle
    for mark, what in _IMAGES.items():
        if head.startswith(mark):
            return what, _no_zip
    if head[:4] == b"{L\0\0" and b"learner" in head[:200]:
        return "ubjson", _no_zip
    if re.fullmatch(r"(.*/)?variables/variables\.(index|data-\d+-of-\d+)", name):
        return ("numbers", _no_zip) if ".data-" in name else ("index", _index)
    if name.endswith((".py", ".pyc", ".so", ".sh")):
        return "source", _says("code", "it runs where somebody imports or calls it")
    if zipfile.is_zipfile(_Stream(data)):
        return "zip", None
    protobuf = wire.looks_like(data)
    if protobuf is not None:
        return protobuf, _onnx if protobuf == "onnx" else _savedmodel
    if _is_text(data):
        return "text", _text
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
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return _PLAIN.fullmatch(data) is not None


def _no_zip(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    """Some readers look for an archive at the end of whatever they get."""
    if zipfile.is_zipfile(_Stream(data)):
        yield "hidden bytes", "an archive stands behind it"


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
    try:
        tensors.parse_header(lambda start, length: bytes(data[start : start + length]), len(data))
    except CatalogError as exc:
        yield "lying header", exc.message


def _index(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    if bytes(data[-8:]) != _TABLE_END:
        yield "cannot read", "it is no index of variables"


def _onnx(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
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
    operators, assets = wire.tensorflow(data)
    for operator in operators[:20]:
        what = "is called from a method" if operator in wire.TENSORFLOW_OWN else "is not on the list"
        yield "operator", f"{operator[:100]} {what}"
    for asset in assets:
        try:
            check_file(asset)
        except CatalogError:
            yield "path", f"it reads the file {asset[:100]!r}"


def _text(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    text = str(data, "utf-8")
    if text.startswith("#!"):
        yield "code", "it is a script"
    if not text.lstrip().startswith(("{", "[")):
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if name.endswith(".json"):
            yield "cannot read", "it is no JSON"
        return
    yield from dict.fromkeys(_json(value))


_CALLS = ("ConstructorFromReduceNode", "MethodNode", "OperatorFuncNode", "PartialNode", "ReduceNode")
_SKOPS = ("builtins", "collections", "lightgbm", "numpy", "scipy", "sklearn", "xgboost")


_TORCH = re.compile(
    r"torch\.ops\.aten\.(?!from_file|save)\w+\.\w+|torch\.sym_\w+|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|cond)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|index)"
)


def _json(value: Any) -> Problems:
    """Code in configurations of Keras, pickles and calls in archives of torch, and strange types in trees of skops."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        if not isinstance(item, dict):
            continue
        waiting += item.values()
        yield from _layer(item)
        if item.get("use_pickle") is True:
            yield "pickle", "it says that its weights are pickled"
        for key in ("target", "as_operator"):  # of a graph of torch.export
            if (
                isinstance(item.get(key), str)
                and ("inputs" in item or key != "target")
                and not _TORCH.fullmatch(item[key])
            ):
                yield "operator", f"{item[key][:100]} is not on the list"
        if item.get("guards_code"):
            yield "code", "it holds Python code that torch would evaluate"
        if "__loader__" in item:
            module = str(item.get("__module__")).partition(".")[0]
            if item["__loader__"] in _CALLS:
                yield "call", f"it would call something by a {item['__loader__']}"
            elif module not in _SKOPS:
                yield "type", f"it would make a {str(item.get('__module__'))[:80]}.{str(item.get('__class__'))[:80]}"


_VALUES = ("__tuple__", "__bytes__", "__slice__", "__ellipsis__", "__keras_tensor__", "__tensor__", "__numpy__")
_FOREIGN = ("FlaxLayer", "JaxLayer", "TFLayer", "TFSMLayer", "TorchModuleWrapper")


def _layer(item: dict[str, Any]) -> Problems:
    """An object of a configuration of Keras."""
    name, module, config = item.get("class_name"), item.get("module"), item.get("config")
    if not isinstance(name, str):
        return
    if name in ("Lambda", "TFOpLambda") or (name.startswith("__") and name not in _VALUES):
        yield "code", f"a layer of Keras holds Python code ({name[:80]})"
    elif name in _FOREIGN:
        yield "code", f"a layer of Keras runs what another framework has stored ({name})"
    elif isinstance(module, str) and module.partition(".")[0] not in ("builtins", "keras"):
        yield "type", f"Keras would import {module[:80]}.{name[:80]}"
    if isinstance(config, dict):
        for key in ("filepath", "idf_weights", "vocabulary"):
            if isinstance(config.get(key), str):
                yield "path", f"a layer of Keras reads the file {config[key][:100]!r}"


def _hdf5(data: memoryview, name: str, beside: Sequence[str]) -> Problems:
    if bytes(data[:8]) != b"\x89HDF\r\n\x1a\n":
        yield "hidden bytes", "the file begins behind other bytes"
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
            found = list(_json(json.loads(about[1])))
        except (ValueError, RecursionError):
            continue
        yield from ((rule, f"attribute {about[0]}: {cause}") for rule, cause in found)
