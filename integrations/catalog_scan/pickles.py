"""Pickles, read opcode by opcode and never loaded. Opcodes and names are held against lists of what is harmless."""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Iterator
from typing import Any

MAX_OPCODES = 20_000_000
PEEK = 1 << 20  # bytes
MAX_TEXT = 1 << 30  # beyond, only what has a head is told to be a pickle; the scanner calls the rest unknown
TORCH_LEGACY = 0x1950A86A20F9469CFC6C  # the first pickle of torch files before 1.6
# What may be named, and so called, by a pickle of arrays and plain values.
NAMES = {
    "_codecs": {"encode"},
    "builtins": {"bytearray", "complex", "frozenset", "range", "set", "slice"},
    "__builtin__": {"bytearray", "complex", "frozenset", "range", "set", "slice"},
    "collections": {"OrderedDict"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
    "torch": {
        "BFloat16Storage", "BoolStorage", "ByteStorage", "CharStorage", "ComplexDoubleStorage", "ComplexFloatStorage",
        "DoubleStorage", "FloatStorage", "HalfStorage", "IntStorage", "LongStorage", "ShortStorage", "Size", "bfloat16",
        "bool", "complex128", "complex64", "device", "float16", "float32", "float64", "int16", "int32", "int64", "int8",
        "uint8",
    },
    "torch._utils": {"_rebuild_parameter", "_rebuild_tensor", "_rebuild_tensor_v2"},
    "torch.serialization": {"_get_layout"},
    "torch.storage": {"UntypedStorage"},
}  # fmt: skip
_HARMLESS = """
ADDITEMS APPEND APPENDS BINBYTES BINBYTES8 BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINSTRING
BINUNICODE BINUNICODE8 BUILD BYTEARRAY8 DICT DUP EMPTY_DICT EMPTY_LIST EMPTY_SET EMPTY_TUPLE FLOAT FRAME FROZENSET GET
GLOBAL INT LIST LONG LONG1 LONG4 LONG_BINGET LONG_BINPUT MARK MEMOIZE NEWFALSE NEWOBJ NEWTRUE NONE POP POP_MARK PROTO
PUT REDUCE SETITEM SETITEMS SHORT_BINBYTES SHORT_BINSTRING SHORT_BINUNICODE STACK_GLOBAL STOP STRING TUPLE TUPLE1
TUPLE2 TUPLE3 UNICODE
"""
OPCODES = frozenset(_HARMLESS.split())
CALLS = ("REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD")
_MARK, _NAMED = object(), object()  # on the stack: where a list begins, and what was imported
# Opcode and module. A text that begins with c or i has a blank on its first line, and a module has none.
_IMPORT = re.compile(rb"[ci][^ \t\r\n]+\n")
_WORDS = re.compile(rb"[^\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]*")
_DOTTED = re.compile(r"[\w.-]+ [\w.<>]+")
_ARGUMENTS = re.compile(rb"[t)lo]")
_KEPT = re.compile(rb"[pg]\d+\n|q.|\x94", re.S)
_FOREIGN = re.compile(rb"(?=[\x00-\x7f]*[\x80-\xff]|[^\\]*\\)[A-Za-z0-9_.\\\x80-\xff]+")


def looks_like(data: memoryview) -> bool:
    """Whether the bytes begin as a pickle does: by its head, or by opcodes of any protocol that name or call something.
    What stands behind, or that there is no end, does not matter: loading it would have run that far."""
    if len(data) > 1 and data[0] == 0x80 and data[1] <= 5:
        return True
    if _WORDS.fullmatch(data[:PEEK]) is not None:
        return _text_calls(data)
    found = _calls(data[:PEEK])
    return bool(_calls(data) if found is None and PEEK < len(data) <= MAX_TEXT else found)


class _Stack(list[Any]):
    """A stack that knows how many marks and names are on it, without being looked through."""

    marks = named = 0

    def append(self, value: Any) -> None:
        self.marks += value is _MARK
        self.named += value is _NAMED
        super().append(value)

    def pop(self, at: Any = -1) -> Any:
        value = super().pop(at)
        self.marks -= value is _MARK
        self.named -= value is _NAMED
        return value


def _text_calls(data: memoryview) -> bool:
    """Whether a text, read as a pickle of protocol 0, would call something before it fails. Words are opcodes too: a
    list that begins with `cat` and `dog` names `dog` of `at`. So a call counts that has what it calls on the stack."""
    stack = _Stack()
    memo: dict[int, Any] = {}
    stream, begin = io.BytesIO(data), 0
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            name = opcode.name
            if name == "STOP" or (name in ("INST", "OBJ") and not stack.marks):
                return False
            if name == "INST" and _DOTTED.fullmatch(str(argument)) is None:
                return False  # no module is called so: it cannot be imported
            if name in ("INST", "STACK_GLOBAL") or count > 1_000_000:
                return True
            if name in ("REDUCE", "NEWOBJ", "BUILD") and _NAMED in stack[-2:-1]:
                return True
            if name == "OBJ" and stack.named:
                return True
            _step(opcode, argument, stack, memo)
            begin = stream.tell()
    except Exception:  # loading it would have ended here too, unless at a name that pickletools cannot spell
        lines = bytes(data[begin : begin + PEEK]).split(b"\n", 2)
        named = len(lines) > 2 and lines[0][:1] in (b"c", b"i") and _FOREIGN.fullmatch(b".".join(lines[:2])) is not None
        return named and (lines[0][:1] == b"i" or _called(lines[2]))
    return False


def _called(data: bytes) -> bool:
    """Whether arguments stand in the bytes, are kept or not, and then something is called with them. No byte is
    looked at twice."""
    seen: set[tuple[bytes, int]] = set()
    for found in _ARGUMENTS.finditer(data):
        at, call = found.end(), b"." if found[0] == b"o" else b"R"
        while (call, at) not in seen:
            if data[at : at + 1] == call:
                return True
            kept = _KEPT.match(data, at)
            if kept is None:
                break
            seen.add((call, at))
            at = kept.end()
    return False


def _calls(data: memoryview) -> bool | None:
    """Whether the opcodes name or call something; None where they stop to be opcodes."""
    stream, begin = io.BytesIO(data), 0
    try:
        for count, (opcode, _, _) in enumerate(pickletools.genops(stream)):
            if opcode.name in (*CALLS, "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                return count > 0
            if _imports(data, begin) or count > 1_000_000:
                return True
            begin = stream.tell()
    except Exception:  # also at names that pickletools cannot spell, and pickle can
        return True if _imports(data, begin) else None
    return False


def _imports(data: memoryview, at: int) -> bool:
    return at < len(data) and data[at] in b"ci" if at else _IMPORT.match(data) is not None


def check(data: memoryview, tail: bool = False) -> Iterator[tuple[str, str]]:
    """What is wrong with a file of one pickle or several, as rule and cause. `tail`: other bytes may follow."""
    stream = io.BytesIO(data)
    first: Any = None
    number = 0
    while stream.tell() < len(data):
        begin = stream.tell()
        try:
            value, problems = _one(stream)
        except (
            ValueError,
            IndexError,
            KeyError,
            OverflowError,
            UnicodeDecodeError,
            RecursionError,
            MemoryError,
        ) as exc:
            if number == 0:
                yield "cannot read", f"the pickle is broken at or after byte {begin}: {_line(exc)}"
            elif not tail and first != TORCH_LEGACY:
                yield "cannot read", f"{len(data) - begin:,} bytes follow the pickle"
            return
        first = value if number == 0 else first
        number += 1
        yield from problems
        if number >= 1000:
            yield "cannot read", "more than 1,000 pickles in one file"
            return
        if first == TORCH_LEGACY and number == 5:
            return  # magic, protocol, system, object, keys; then the numbers


def _one(stream: io.BytesIO) -> tuple[Any, list[tuple[str, str]]]:
    """The value of a pickle, where it is a number or text, and what is wrong with it. Plays the stack machine with the
    values of texts and numbers only. Raises ValueError and the like where it cannot."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    problems: dict[tuple[str, str], None] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if count > MAX_OPCODES:
            raise ValueError("it has too many opcodes")
        if name not in OPCODES:
            problems["pickle opcode", f"{name} is not on the list"] = None
        if name in ("GLOBAL", "INST"):
            module, _, attribute = str(argument).partition(" ")
            _name(module, attribute, problems)
        elif name == "STACK_GLOBAL":
            _name(stack[-2], stack[-1], problems)
        elif name == "BUILD" and stack[-2] is _NAMED:
            problems["pickle opcode", "BUILD would change what it has imported"] = None
        if name == "STOP":
            return stack[-1], list(problems)
        _step(opcode, argument, stack, memo)
    raise ValueError("it does not end")


def calls_behind(data: memoryview) -> bool:
    """Whether the opcodes behind a name call or change something, or do not end within the bytes."""
    stream = io.BytesIO(data)
    try:
        for opcode, _, _ in pickletools.genops(stream):
            if opcode.name in CALLS:
                return True
            if opcode.name == "STOP":
                return False
    except Exception:  # no opcodes, or no more of them
        return stream.tell() == len(data)
    return True


def reaches(data: memoryview) -> bool:
    """Whether the bytes are opcodes to their end."""
    stream = io.BytesIO(data)
    try:
        for opcode, _, _ in pickletools.genops(stream):
            if stream.tell() == len(data):
                return True
            if opcode.name == "STOP":
                return False
    except Exception:
        return False
    return False


def named(data: memoryview) -> tuple[str | None, int]:
    """The first name of a pickle that begins here and may break off, where it is on no list; and the bytes that were
    read for it."""
    stream = io.BytesIO(data)
    return _first_name(stream), stream.tell()


def _first_name(stream: io.BytesIO) -> str | None:
    problems: dict[tuple[str, str], None] = {}
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name in ("GLOBAL", "INST"):
                _name(*str(argument).partition(" ")[::2], problems)
            elif opcode.name == "STACK_GLOBAL" and isinstance(stack[-1], str) and isinstance(stack[-2], str):
                _name(stack[-2], stack[-1], problems)
            if problems:  # the first decides: what no module can be called ends the loading of it
                told = next(iter(problems))[1].removeprefix("it would import ")
                return told if all(part.isidentifier() for part in told.split(".")) and len(told) > 4 else None
            if opcode.name == "STOP" or count > 1_000_000:
                return None
            _step(opcode, argument, stack, memo)
    except Exception:  # no pickle, or no more of it
        return None
    return None


def _step(opcode: Any, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """Play one opcode with the values of texts and numbers only."""
    name = opcode.name
    if name == "MARK":
        stack.append(_MARK)
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[int(str(argument))])
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[int(str(argument))] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name == "DUP":
        stack.append(stack[-1])
    elif name == "POP":
        stack.pop()
    else:
        before = opcode.stack_before
        if pickletools.markobject in before:
            while stack.pop() is not _MARK:
                pass
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            if stack.pop() is _MARK:
                raise ValueError("it takes a mark for a value")
        known: Any = argument if isinstance(argument, (str, int)) else None
        known = _NAMED if name in ("GLOBAL", "STACK_GLOBAL", "INST") else known
        for _ in opcode.stack_after:
            stack.append(known)


def _name(module: Any, name: Any, problems: dict[tuple[str, str], None]) -> None:
    if not isinstance(module, str) or not isinstance(name, str):
        problems["pickle name", "it names something by a text that it makes up while it is read"] = None
    elif name not in NAMES.get(module, ()):
        problems["pickle name", f"it would import {module[:80]}.{name[:80]}"] = None


def _line(exc: BaseException) -> str:
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:200]
