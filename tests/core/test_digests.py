from __future__ import annotations

import enum
import json
import math
import threading
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_core.digests import MAX_DEPTH, canonical, check_depth, parse
from catalog_core.errors import InvalidInput

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e21, "1e+21"),
        (1e-7, "1e-7"),
        (5e-324, "5e-324"),
        (-0.0, "0"),
        (0.000001, "0.000001"),
        (-1.5e-6, "-0.0000015"),
        (1.2345678901234568e20, "123456789012345680000"),
        (1e16, "10000000000000000"),
        (295147905179352830000.0, "295147905179352830000"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (333333333.33333329, "333333333.3333333"),
        (9007199254740994.0, "9007199254740994"),
        (1.0, "1"),
    ],
)
def test_numbers_as_rfc_8785_writes_them(number: float, text: str) -> None:
    assert canonical(number) == text.encode()


def test_keys_sort_by_utf16_units() -> None:
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\u00f6": 7}
    assert list(json.loads(canonical(value))) == ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, {1: 2}, "\ud800", {1.5}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        canonical(value)


@pytest.mark.parametrize("data", [b'{"a":1,"a":2}', b"NaN", b"9007199254740993", b"1e999", b"\xff", b"{"])
def test_parse_is_strict(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse(data)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(number: float) -> None:
    assert float(canonical(number)) == number


class Whole(int):
    def __repr__(self) -> str:
        return f"Whole({int(self)})"

    __str__ = __repr__


class Share(float):
    def __repr__(self) -> str:
        return f"Share({float(self)})"

    __str__ = __repr__


class Word(str):
    def __repr__(self) -> str:
        return "Word"

    def __str__(self) -> str:
        return "Word"

    def encode(self, *args: Any, **named: Any) -> bytes:
        return b"Word"


class Level(enum.IntEnum):
    LOW = 3


class Colour(enum.StrEnum):
    RED = "r\u00e9d"


class Old(str, enum.Enum):  # noqa: UP042 - older code has these
    ADAM = "adam"


class Rate(float, enum.Enum):
    SLOW = 0.001


Pair = namedtuple("Pair", "first second")
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(2.0**53, 1e22),
    st.integers(53, 80).map(lambda power: -(2.0**power)),
    st.sampled_from([-0.0, 2.0**53, 1e21, math.nextafter(1e21, 0), -1e18, 5e-324]),
)
TEXT = st.text(max_size=8)
OF_NUMPY = st.one_of(
    *[
        st.integers(max(np.iinfo(kind).min, -(2**53) + 1), min(np.iinfo(kind).max, 2**53 - 1)).map(kind)
        for kind in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
    ],
    st.floats(-60000, 60000, width=16).map(np.float16),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(np.float32),
    FLOATS.map(np.float64),
    FLOATS.map(np.longdouble),
    st.booleans().map(np.bool_),
    TEXT.map(np.str_),
)
OF_OTHERS = st.one_of(
    INTEGERS.map(Whole),
    FLOATS.map(Share),
    TEXT.map(Word),
    st.sampled_from([Level.LOW, Colour.RED, Old.ADAM, Rate.SLOW]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXT | OF_NUMPY | OF_OTHERS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
        st.dictionaries(TEXT | TEXT.map(np.str_) | st.just(Old.ADAM), inner, max_size=4),
        st.dictionaries(TEXT, inner, max_size=3).map(OrderedDict),
    ),
)


def _lists(value: Any) -> Any:
    """The value with lists for tuples, which JSON does not tell apart."""
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, (list, tuple)) else value


@given(VALUES)
def test_all_that_is_written_can_be_read_and_is_equal(value: Any) -> None:
    found = parse(canonical(value))
    assert found == _lists(value)
    assert canonical(found) == canonical(value), "and is written so again"


@given(st.integers())
def test_an_integer_comes_back_or_is_refused(number: int) -> None:
    try:
        data = canonical(number)
    except InvalidInput:
        assert abs(number) >= 2**53
        return
    assert parse(data) == number


@given(st.floats(2.0**53, 1e21, exclude_max=True), st.integers(-3, 3))
def test_digits_of_a_large_float_are_that_float_and_all_others_are_refused(number: float, beside: int) -> None:
    digits = int(canonical(number))
    found = parse(b"%d" % digits)
    assert type(found) is float
    assert found == number
    if beside:
        try:
            other = parse(b"%d" % (digits + beside))
        except InvalidInput:
            return
        assert canonical(other) == b"%d" % (digits + beside), "only what is written for a float is read"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"a": [1, {"b": np.float64(math.nan)}]}, "a.1.b: nan"),
        ({"deep": {"seed": 2**60}}, "deep.seed: integer 1152921504606846976"),
        ({"huge": 10**6000}, "huge: an integer of 19,932 bits"),
        ({"k": "\ud800"}, "k: text holds half"),
        ({"when": np.datetime64("2026-01-01")}, "when: datetime64"),
        ({"took": np.timedelta64(3, "s")}, "took: timedelta64"),
        ({"z": np.complex64(1)}, "z: complex64"),
        ({"long": np.longdouble("0.1")}, "long: longdouble"),
        ({"a": {1: "x", "1": "y"}}, "keys are text; got 1"),
        ([{"a", "b"}], "0: set"),
    ],
)
def test_what_cannot_be_written_is_named_by_its_place(value: Any, named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        canonical(value)
    assert named in str(caught.value)


def test_two_keys_that_are_one_text_are_refused() -> None:
    class Other(str):
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> bool:
            return self is other

    with pytest.raises(InvalidInput, match="'a' stands twice"):
        canonical({"a": 1, Other("a"): 2})


def _nested(depth: int, inner: Any = 1.0) -> Any:
    for number in range(depth):
        inner = [inner] if number % 2 else {"a": inner}
    return inner


@pytest.mark.parametrize("leaf", ["text", 1, 1.0, []])
def test_nesting_ends_at_one_depth_for_writers_and_readers_whoever_calls(leaf: Any) -> None:
    deepest = _nested(MAX_DEPTH - isinstance(leaf, list), leaf)
    data = canonical(deepest)
    check_depth(data)
    assert parse(data) == deepest
    for deeper in (_nested(MAX_DEPTH + 1, leaf), _nested(100_000, leaf)):
        with pytest.raises(InvalidInput, match="nested more than 500 deep"):
            canonical(deeper)
    with pytest.raises(InvalidInput, match="nested more than 500 deep"):
        check_depth(b"[" + data + b"]")
    check_depth(b'["' + b'[{\\"' * 1000 + b'"]')  # brackets in texts do not count


@pytest.mark.parametrize("times", [1, 2])
def test_what_holds_itself_is_refused(times: int) -> None:
    loop: list[Any] = []
    loop += [loop] * times
    done = threading.Event()

    def write() -> None:
        with pytest.raises(InvalidInput, match="nested more than"):
            canonical({"loop": loop})
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(60), "it looks for the end of what has none"


@pytest.mark.parametrize("data", [b'"\\ud800"', b'{"\\uDFFF":1}', b'["\\ud83d\\ud83d\\ude00"]'])
def test_half_a_surrogate_pair_is_no_text(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="half a surrogate pair"):
        parse(data)
    assert parse(b'"\\ud83d\\ude00 \\\\ud800"') == "\U0001f600 \\ud800"


@given(st.binary(max_size=40) | st.text('[]{}":,\\\\ud8e01. -n', max_size=40).map(str.encode))
def test_all_that_is_read_can_be_written(data: bytes) -> None:
    try:
        value = parse(data)
    except InvalidInput:
        return
    assert parse(canonical(value)) == value


def test_a_key_that_stands_twice_among_many_is_named_at_once() -> None:
    text = "{" + "".join(f'"{number}":0,' for number in range(200_000)) + '"last":1,"last":2}'
    with pytest.raises(InvalidInput, match="key 'last' stands twice"):  # comparing each with all took minutes
        parse(text.encode())
