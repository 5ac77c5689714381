"""What strangers write may be long, and of any shape: reading and scrubbing it takes time that grows with its length
alone. (Where it grew with the square, these tests would not end before pytest's timeout.)"""

from __future__ import annotations

import pytest

from catalog_core import redact
from catalog_core.digests import check_depth
from catalog_core.errors import CatalogError, InvalidInput

MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    "text",
    [
        "k: " + "A" * MEGABYTE, "k=" + "A" * MEGABYTE, "A" * MEGABYTE + "=", "a." * MEGABYTE + ":", "a1" * MEGABYTE + "://x",
        "k: " + "eyJ-" * (MEGABYTE // 4), "x-" * (MEGABYTE // 2) + ": v", "k='" + "x" * MEGABYTE, "=" * MEGABYTE,
        "--a" * (MEGABYTE // 3) + " :", "k=" + '"' * MEGABYTE, "bearer " * (MEGABYTE // 7) + "=", " " * MEGABYTE + "=:",
        "hf_" * (MEGABYTE // 3) + "=", "https://" * (MEGABYTE // 8), "password " * (MEGABYTE // 9) + ":",
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_a_long_text_is_scrubbed_in_the_end(text: str) -> None:
    assert isinstance(redact.text(text), str)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":' + b"[" * 600 + b'"' + b'\\"' * 500_000, b"[" * 600 + b'"' * 500_001,
        b"[" * 600 + b'"' + b"\\" * 500_001,
        b"[" * 600 + b'"a\\' * 300_000,
    ],
)  # fmt: skip
def test_the_depth_of_what_does_not_end_is_counted_in_the_end(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="nested more than"):
        check_depth(data)


def test_an_error_quotes_no_more_than_a_person_reads() -> None:
    error = CatalogError("seen: " + "A" * MEGABYTE)
    assert len(str(error)) < 10_000
    assert "1,048,582 characters" in str(error)


def test_secrets_before_and_behind_long_words_are_masked() -> None:
    found = redact.text(f"{'A' * 300} password=hunter2hunter2 {'b.' * 500} https://u:pw1234567@host/x")
    assert "hunter2" not in found and "pw1234567" not in found
