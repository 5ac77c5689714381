"""Protobuf's wire format, as far as some questions need it: where ONNX graphs have their data, which files a SavedModel
names, and which operators their graphs have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from catalog_onnx import operators
from catalog_savedmodel.operations import ALLOWED, HARMLESS, SAVER

# Every SavedModel has them, in the functions that write and read its own variables, which its methods do not call.
OWN_FILES = SAVER
MAX_DEPTH = 64
MAX_FIELDS = 20_000_000  # of all messages of one file: a field may take as little as two bytes
MAX_TOP = 100_000  # of the message itself, to tell what it is
# A function of the graph with a name like this stands for no operator: those begin with a capital, or one underscore.
_OWN = re.compile(r"[a-z].*|__.*", re.S)


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: number, and an integer or its bytes. Raises ValueError where it is none."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field has no number")
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field is of kind {kind}")
        if length > len(data) - at:
            raise ValueError("a field is longer than the message")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number is too long")


def looks_like(data: memoryview) -> str | None:
    """`onnx`, `savedmodel`, `fingerprint`, or None: by the fields on top."""
    seen: dict[int, int | memoryview] = {}
    try:
        for count, (number, value) in enumerate(fields(data)):
            seen.setdefault(number, value)
            if number > 30 or count > MAX_TOP:
                return None
    except ValueError:
        return None
    if _is_fingerprint(data, seen):
        return "fingerprint"
    if (
        isinstance(seen.get(7), memoryview)
        and isinstance(seen.get(1), int)
        and isinstance(seen.get(8, b""), (memoryview, bytes))
    ):
        return "onnx"
    if set(seen) == {1, 2} and isinstance(seen[1], int) and isinstance(seen[2], memoryview):
        return "savedmodel"
    return None


def _is_fingerprint(data: memoryview, seen: dict[int, int | memoryview]) -> bool:
    """Whether it is `fingerprint.pb` of a SavedModel: hashes, a version, and perhaps an id, each once."""
    try:
        numbers = [number for number, _ in fields(data)]
    except ValueError:
        return False
    ids = seen.get(7, memoryview(b""))
    return (
        len(data) <= 256
        and {1, 2, 3, 4} <= set(seen) <= set(range(1, 8))
        and len(numbers) == len(seen)
        and all(isinstance(seen[number], int) for number in set(seen) & {1, 2, 3, 4, 5})
        and all(isinstance(seen[number], memoryview) for number in set(seen) & {6, 7})
        and isinstance(ids, memoryview)
        and re.fullmatch(rb"[0-9A-Za-z-]{0,64}", ids) is not None
    )


def sentencepiece(data: memoryview) -> bool:
    """Whether the message is a vocabulary of SentencePiece: pieces of a text and a number, and their settings."""
    count = 0
    try:
        for number, value in fields(data):
            if number > 5 or isinstance(value, int):
                return False
            if number == 1 and count < 100:
                piece = dict(fields(value))
                if not piece.keys() <= {1, 2, 3} or isinstance(piece.get(1, 0), int):
                    return False
            count += number == 1
    except ValueError:
        return False
    return count > 0


def tensor(data: memoryview) -> bool:
    """Whether the message is one array of ONNX (`TensorProto`) with its numbers in it."""
    found: dict[int, int | memoryview] = {}
    try:
        for count, (number, value) in enumerate(fields(data)):
            if number not in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12) or count > MAX_TOP:
                return False
            found[number] = value
    except ValueError:
        return False
    kind = found.get(2)
    return isinstance(kind, int) and 0 < kind < 40 and not isinstance(found.get(9, b""), int) and len(found) > 1


def keras_metadata(data: memoryview) -> list[str] | None:
    """The JSON texts of `keras_metadata.pb`, or None where the message is no such file."""
    texts = []
    try:
        for number, value in fields(data):
            if number != 1 or isinstance(value, int):
                return None
            inner = dict(fields(value))
            told = inner.get(5)
            if isinstance(told, int) or told is None or not inner.keys() <= {1, 2, 3, 4, 5, 6}:
                return None
            texts.append(bytes(told).decode())
    except (ValueError, UnicodeDecodeError):
        return None
    return texts or None


def onnx(data: memoryview) -> tuple[list[str], list[str]]:
    """Operators that are on no list, and locations of external data, of an ONNX file. Raises ValueError."""
    walk = _Onnx()
    walk.model(data)
    return sorted(walk.operators), walk.locations


def tensorflow(data: memoryview) -> tuple[list[str], list[str]]:
    """Operators that are on no list, and the names of files that are read (assets), of a SavedModel. Raises
    ValueError."""
    walk = _SavedModel()
    walk.model(data)
    return sorted(walk.operators), walk.assets


class _Walk:
    """Reads messages, and counts their fields."""

    def __init__(self) -> None:
        self.left = MAX_FIELDS
        self.operators: set[str] = set()

    def fields(self, data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        for number, value in fields(data):
            self.left -= 1
            if self.left < 0:
                raise ValueError(f"it has more than {MAX_FIELDS:,} fields")
            yield number, value

    def parts(self, data: memoryview, *numbers: int) -> Iterator[memoryview]:
        for number, value in self.fields(data):
            if number in numbers:
                if isinstance(value, int):
                    raise ValueError(f"field {number} is a number")
                yield value

    def text(self, data: memoryview, number: int) -> str:
        found = ""
        for value in self.parts(data, number):
            found = bytes(value).decode()
        return found


class _Onnx(_Walk):
    def __init__(self) -> None:
        super().__init__()
        self.locations: list[str] = []
        self.own: set[tuple[str, str]] = set()

    def model(self, data: memoryview) -> None:
        for function in self.parts(data, 25):
            self.own.add((self.text(function, 10), self.text(function, 1)))
        for graph in self.parts(data, 7):
            self.graph(graph, 0)
        for function in self.parts(data, 25):
            for node in self.parts(function, 7):
                self.node(node, 0)
        for training in self.parts(data, 20):
            for graph in self.parts(training, 1, 2):
                self.graph(graph, 0)

    def graph(self, graph: memoryview, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError("graphs are nested too deeply")
        for number, value in self.fields(graph):
            if number == 1 and not isinstance(value, int):
                self.node(value, depth)
            elif number == 5 and not isinstance(value, int):
                self.tensor(value)
            elif number == 15 and not isinstance(value, int):
                for tensor in self.parts(value, 1, 2):
                    self.tensor(tensor)

    def node(self, node: memoryview, depth: int) -> None:
        name, domain = self.text(node, 4), self.text(node, 7)
        if (domain, name) not in self.own and name not in operators.ALLOWED.get(domain, ()):
            self.operators.add(f"{domain}:{name}")
        for attribute in self.parts(node, 5):
            for tensor in self.parts(attribute, 5, 10):
                self.tensor(tensor)
            for sparse in self.parts(attribute, 22, 23):
                for tensor in self.parts(sparse, 1, 2):
                    self.tensor(tensor)
            for graph in self.parts(attribute, 6, 11):
                self.graph(graph, depth + 1)

    def tensor(self, tensor: memoryview) -> None:
        for entry in self.parts(tensor, 13):
            if self.text(entry, 1) == "location":
                self.locations.append(self.text(entry, 2))


class _SavedModel(_Walk):
    def __init__(self) -> None:
        super().__init__()
        self.assets: list[str] = []

    def model(self, data: memoryview) -> None:
        for graph in self.parts(data, 2):
            self.assets += [self.text(asset, 2) for asset in self.parts(graph, 6)]
            entries = [name for objects in self.parts(graph, 7) for name in self.entries(objects)]
            for definition in self.parts(graph, 2):
                self.definition(definition, entries)

    def entries(self, objects: memoryview) -> Iterator[str]:
        """The functions that objects offer."""
        for item in self.parts(objects, 1):
            for function in self.parts(item, 6):
                yield from (bytes(name).decode() for name in self.parts(function, 1))
            for function in self.parts(item, 8):
                yield self.text(function, 1)

    def definition(self, definition: memoryview, entries: list[str]) -> None:
        """Operators of a graph and its functions; what writes files has no place where an entry leads."""
        used = {self.text(node, 2) for node in self.parts(definition, 1)}
        operators: dict[str, set[str]] = {}
        calls: dict[str, set[str]] = {}
        for library in self.parts(definition, 2):
            for function in self.parts(library, 1):
                names = [self.text(signature, 1) for signature in self.parts(function, 1)]
                nodes = [(self.text(node, 2), set(self.calls(node))) for node in self.parts(function, 3)]
                for name in names:
                    operators.setdefault(name, set()).update(kind for kind, _ in nodes)
                    calls.setdefault(name, set()).update(*(called | {kind} for kind, called in nodes))
        own = {name for name in operators if _OWN.fullmatch(name)}
        self.operators |= (used.union(*operators.values()) - own) - ALLOWED - OWN_FILES - HARMLESS
        waiting, reached = list(entries), set[str]()
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                self.operators |= operators.get(name, set()) & OWN_FILES
                waiting += calls.get(name, ())

    def calls(self, node: memoryview) -> Iterator[str]:
        for entry in self.parts(node, 5):
            for value in self.parts(entry, 2):
                for function in self.parts(value, 10):
                    yield self.text(function, 1)
                for listed in self.parts(value, 1):
                    for function in self.parts(listed, 9):
                        yield self.text(function, 1)
