"""Digests (`sha256:<64 hex>`) and canonical JSON (RFC 8785), the bytes that all hashes are over."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from typing import Any, BinaryIO

from catalog_core.errors import InvalidDigest, InvalidInput

ALGORITHM = "sha256"
MAX_INTEGER = 2**53 - 1
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


def _number(value: float) -> str:
    """A finite float as ECMAScript writes it (RFC 8785 section 3.2.2.3)."""
    if value != value or value in (float("inf"), float("-inf")):
        raise InvalidInput(f"{value} is not a JSON number; store it as text, or leave it out")
    if value == int(value) and abs(value) < 1e16:
        return str(int(value))
    text = repr(value)
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


def _plain(value: Any) -> bool:
    """True where `json.dumps(sort_keys=True)` writes exactly what RFC 8785 asks for."""
    todo = [value]
    while todo:
        item = todo.pop()
        kind = type(item)
        if kind is dict:
            try:
                if not "".join(item).isascii():
                    return False
            except TypeError:
                key = next(key for key in item if not isinstance(key, str))
                raise InvalidInput(f"JSON keys are text; got {key!r}") from None
            todo += [inner for inner in item.values() if type(inner) is not str]
        elif kind is list or kind is tuple:
            todo += [inner for inner in item if type(inner) is not str]
        elif kind is int:
            if not -MAX_INTEGER <= item <= MAX_INTEGER:
                raise InvalidInput(
                    f"integer {item} is beyond ±(2^53-1), which JSON readers do not keep; store it as text"
                )
        elif item is not None and kind is not str and kind is not bool:
            return False
    return True


_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode


def _write(value: Any, out: list[str]) -> None:
    if isinstance(value, dict):
        out.append("{")
        # RFC 8785 sorts by UTF-16 code units
        for index, key in enumerate(sorted(value, key=lambda text: text.encode("utf-16-be", "surrogatepass"))):
            out.append(("," if index else "") + _dumps(key) + ":")
            _write(value[key], out)
        out.append("}")
    elif isinstance(value, (list, tuple)):
        out.append("[")
        for index, item in enumerate(value):
            if index:
                out.append(",")
            _write(item, out)
        out.append("]")
    elif isinstance(value, float):
        out.append(_number(value))
    elif value is None or isinstance(value, (bool, str)):
        out.append(_dumps(value))
    elif isinstance(value, int):
        _plain(int(value))
        out.append(str(int(value)))
    else:
        raise InvalidInput(f"{type(value).__name__} cannot be written as JSON: {str(value)[:80]!r}")


def canonical(value: Any) -> bytes:
    """`value` as RFC 8785 canonical JSON.

    Refuses NaN, infinities, keys that are not text, integers beyond ±(2^53-1) and lone surrogates (`InvalidInput`).
    """
    if _plain(value):
        text = _dumps(value)
    else:
        out: list[str] = []
        _write(value, out)
        text = "".join(out)
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput("text holds half a surrogate pair, which is not Unicode") from exc


def _no_constant(name: str) -> Any:
    raise InvalidInput(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise InvalidInput(f"key {twice[:80]!r} stands twice in one JSON object")
    return result


def _integer(text: str) -> int:
    value = int(text) if len(text) < 20 else MAX_INTEGER + 1
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise InvalidInput(f"integer {text[:30]} is beyond ±(2^53-1)")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise InvalidInput(f"number {text[:30]} is too large")
    return value


_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer, parse_float=_finite
).decode


def parse(data: bytes) -> Any:
    """JSON read strictly: duplicate keys, NaN, infinities and large integers are refused (`InvalidInput`)."""
    try:
        return _decode(data.decode())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise InvalidInput(f"not JSON: {exc}") from exc
