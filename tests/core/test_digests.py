from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_core.digests import canonical, parse
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


@pytest.mark.parametrize("data", [b'{"a":1,"a":2}', b"NaN", b"9007199254740992", b"1e999", b"\xff", b"{"])
def test_parse_is_strict(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse(data)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(number: float) -> None:
    assert float(canonical(number)) == number


def test_a_key_that_stands_twice_among_many_is_named_at_once() -> None:
    text = "{" + "".join(f'"{number}":0,' for number in range(200_000)) + '"last":1,"last":2}'
    with pytest.raises(InvalidInput, match="key 'last' stands twice"):  # comparing each with all took minutes
        parse(text.encode())
