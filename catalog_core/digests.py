"""Digests (`sha256:<64 hex>`) and canonical JSON (RFC 8785), the bytes that all hashes are over."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any, BinaryIO

from catalog_core.errors import InvalidDigest, InvalidInput

ALGORITHM = "sha256"
MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 500  # of lists and objects in each other
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """The digest of `data`, as `sha256:hex`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of_parts(parts: Iterable[memoryview]) -> str:
    """The digest of `parts`, one after the other."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return "sha256:" + state.hexdigest()


def digest_of_stream(stream: BinaryIO) -> str:
    """The digest of all that `stream` still has."""
    state = hashlib.sha256()
    while block := stream.read(1 << 20):
        state.update(block)
    return "sha256:" + state.hexdigest()


def checksum(name: str, stream: BinaryIO, size: int) -> str:
    """The `adler32`, `md5` or `sha256` of the next `size` bytes, in hexadecimal."""
    adler, state = 1, None if name == "adler32" else hashlib.new(name, usedforsecurity=False)
    while size and (block := stream.read(min(1 << 20, size))):
        size -= len(block)
        if state is None:
            adler = zlib.adler32(block, adler)
        else:
            state.update(block)
    return f"{adler:08x}" if state is None else state.hexdigest()


def check_digest(text: object) -> str:
    """Return `text` if it is a digest. Raises `InvalidDigest`."""
    if not isinstance(text, str) or not _DIGEST.match(text):
        raise InvalidDigest(f"not a digest: {str(text)[:100]!r}; a digest is 'sha256:' and 64 hexadecimal digits")
    return text


def check_count(value: object, what: str, least: int = 0) -> int:
    """Return `value` if it counts something (bytes, entries, versions; a place in them): an integer from `least` to
    2^53-1, and no boolean, which Python takes for 0 or 1. One rule for those who write and those who read. Raises
    `InvalidInput`."""
    if type(value) is not int or not least <= value <= MAX_INTEGER:
        shown = str(value) if isinstance(value, (int, float)) and abs(value) < 1e300 else repr(value)
        raise InvalidInput(f"{what} is {shown[:40]}, which is no count from {least} to 2^53-1")
    return value


def _number(value: float) -> str:
    """A float as ECMAScript writes it (RFC 8785 section 3.2.2.3)."""
    text = float.__repr__(value)  # not repr: a subclass may write itself otherwise, as `np.float64(0.25)`
    if text in ("nan", "inf", "-inf"):
        raise InvalidInput(f"{text} is not a JSON number; store it as text, or leave it out")
    if text.endswith(".0"):
        return "0" if text == "-0.0" else text[:-2]
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    power = int(exponent)
    if 0 < power < 21:  # the shortest digits, then zeros: not the digits of the exact integer
        whole, _, fraction = mantissa.partition(".")
        return whole + fraction.ljust(power, "0")
    if -7 < power < 0:  # repr switches to exponents below 1e-4, ECMAScript below 1e-6
        sign, digits = ("-", mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
        digits = digits.replace(".", "")
        return f"{sign}0.{'0' * (-power - 1)}{digits}"
    return f"{mantissa.removesuffix('.0')}e{'+' if power > 0 else '-'}{abs(power)}"


def plain(value: Any) -> Any:
    """A number, text or boolean as Python's own type: a NumPy scalar, or a member of an enumeration or subclass that
    is one of them. What is neither is returned as it is.

    A NumPy float is widened without loss; a wider one (`longdouble`) is left alone if it has no equal double.
    """
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return str.__str__(value)  # not str(): a subclass may show itself otherwise
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    numpy = sys.modules.get("numpy")  # without it there are no scalars of it
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind not in "mM":  # times have units
        item = value.item()
        if type(item) in (bool, int, float):
            return item
        if isinstance(value, numpy.floating) and float(value) == value:
            return float(value)
    return value


def _integer_text(value: int) -> str:
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        shown = f"integer {value}" if value.bit_length() < 256 else f"an integer of {value.bit_length():,} bits"
        raise InvalidInput(f"{shown} is beyond ±(2^53-1), which JSON readers do not keep; store it as text")
    return int.__repr__(value)


WIDE = 1 << 22
_STR = {str}
_OWN = {str, int, float, bool, type(None), dict, list, tuple}


def _is_plain(value: Any) -> bool:
    """True where `json.dumps(sort_keys=True)` writes exactly what RFC 8785 asks for."""
    todo = [value]
    for _ in range(MAX_DEPTH):  # a level of nesting at a time
        inner: list[Any] = []
        for item in todo:
            kind = type(item)
            if kind is dict:
                if not _STR.issuperset(map(type, item)) or not "".join(item).isascii():
                    return False
                inner += [each for each in item.values() if type(each) is not str]
            elif kind is list or kind is tuple:
                inner += [each for each in item if type(each) is not str]
            elif kind is int:
                if not -MAX_INTEGER <= item <= MAX_INTEGER:
                    return False
            elif kind is float:
                text = repr(item)
                if text.endswith(".0") or "e" in text or "n" in text:  # ECMAScript writes 1, 1e+21; no nan, no inf
                    return False
            elif item is not None and kind is not str and kind is not bool:
                return False
        if not inner:
            return True
        if len(inner) > WIDE:  # or it holds itself: `_write` finds that
            return False
        todo = inner
    return False


_dumps = json.JSONEncoder(  # of what `_is_plain`, which holds nothing that holds itself
    ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False, check_circular=False
).encode


def _members(value: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Key and value of an object, in the order of RFC 8785: by UTF-16 code units."""
    members: dict[str, Any] = {}
    for key, inner in value.items():
        text = plain(key)
        if type(text) is not str:
            raise InvalidInput(f"JSON keys are text; got {key!r}")
        if text in members:
            raise InvalidInput(f"key {text[:80]!r} stands twice in one JSON object")
        members[text] = inner
    return sorted(members.items(), key=lambda member: member[0].encode("utf-16-be", "surrogatepass"))


class _TooDeep(InvalidInput):
    pass


def _write(value: Any) -> str:
    """`value` in pieces, without recursion: how deep it may be nested must not depend on who calls."""
    out: list[str] = []
    todo: list[tuple[Any, int]] = [(value, 1)]  # with its depth; depth 0: text that is written as it is
    while todo:
        given, depth = todo.pop()
        if not depth:
            out.append(given)
            continue
        item = given if type(given) in _OWN else plain(given)
        if item is None or type(item) in (bool, str):
            out.append(_dumps(item))
        elif type(item) is int:
            out.append(_integer_text(item))
        elif type(item) is float:
            out.append(_number(item))
        elif not isinstance(item, (dict, list, tuple)):
            raise InvalidInput(f"{type(item).__name__} cannot be written as JSON: {str(item)[:80]!r}")
        elif depth > MAX_DEPTH:
            raise _TooDeep(f"nested more than {MAX_DEPTH} deep, which JSON readers do not take")
        elif isinstance(item, dict):
            members = _members(item)
            todo.append(("}", 0))
            for number in range(len(members) - 1, -1, -1):
                key, inner = members[number]
                todo += [(inner, depth + 1), (("," if number else "") + _dumps(key) + ":", 0)]
            out.append("{")
        else:
            todo.append(("]", 0))
            for number in range(len(item) - 1, -1, -1):
                todo += [(item[number], depth + 1), ("," if number else "", 0)]
            out.append("[")
    return "".join(out)


def _place(value: Any) -> str:
    """Where in `value` the first thing is that cannot be written, as `key.key.3`; empty for `value` itself."""
    todo = [("", value)]
    while todo:
        path, item = todo.pop()
        inner = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, (list, tuple)) else None
        if inner is not None:
            todo += [(f"{path}.{key}" if path else str(key), each) for key, each in inner][::-1]
            continue
        try:
            _write(item).encode()
        except (InvalidInput, UnicodeEncodeError):
            return path
    return ""


def canonical(value: Any) -> bytes:
    """`value` as RFC 8785 canonical JSON. `parse` gives it back: an equal value, with lists for tuples.

    NumPy scalars, enumerations and subclasses of text and numbers are written as what they are. Refuses NaN,
    infinities, keys that are not text or stand twice, integers beyond ±(2^53-1), lone surrogates, and what is nested
    more than `MAX_DEPTH` deep (`InvalidInput`, which names the place).
    """
    problem: Exception
    try:
        return (_dumps(value) if _is_plain(value) else _write(value)).encode()
    except UnicodeEncodeError as exc:
        problem, message = exc, "text holds half a surrogate pair, which is not Unicode"
    except _TooDeep:
        raise
    except InvalidInput as exc:
        problem, message = exc, exc.message
    place = _place(value)
    raise InvalidInput(f"{ascii(place)[1:-1]}: {message}" if place else message) from problem


def _no_constant(name: str) -> Any:
    raise InvalidInput(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise InvalidInput(f"key {twice[:80]!r} stands twice in one JSON object")
    return result


def _integer(text: str) -> int | float:
    """An integer; or a whole float beyond ±(2^53-1), where the digits are those that ECMAScript writes for one."""
    if len(text) < 23:  # ECMAScript writes 1e21 with an exponent
        value = int(text)
        if -MAX_INTEGER <= value <= MAX_INTEGER:
            return value
        if _number(float(value)) == text:
            return float(value)
    raise InvalidInput(f"integer {text[:30]} is beyond ±(2^53-1)")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise InvalidInput(f"number {text[:30]} is too large")
    return value


_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer, parse_float=_finite
).decode
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(data: bytes) -> Any:
    """JSON read strictly: duplicate keys, NaN, infinities, lone surrogates and integers beyond ±(2^53-1) are refused
    (`InvalidInput`). Digits of a larger whole number are a float, where they are those that `canonical` writes for it.
    """
    try:
        value = _decode(data.decode())
        if _SURROGATE.search(data):  # Python takes half a pair, which no UTF-8 can hold
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput("not JSON: text holds half a surrogate pair, which is not Unicode") from exc
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise InvalidInput(f"not JSON: {exc}") from exc
    return value


# One that does not end goes to the end of the data, and is not begun anew at each quote in it.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def check_depth(data: bytes) -> None:
    """Refuse JSON that is nested more than `MAX_DEPTH` deep (`InvalidInput`). What `parse` can take depends on how deep
    the caller's own calls are; what all readers must read alike is checked by this before."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    steps = _STRING.sub(b"", data).translate(_STEPS, _NO_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH:
        raise InvalidInput(f"not JSON: nested more than {MAX_DEPTH} deep")
