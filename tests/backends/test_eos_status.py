"""XRootD's numbers as errors of ours; no token is in any of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from catalog_core.errors import BackendError, CatalogError, NoSpace, ReadOnly
from catalog_eos.calls import Interrupted
from catalog_eos.status import cleaned, failure, number, redacted

TOKENS = [
    "root://h//eos/x?authz=zteos64:MDAwMDAwNzR4nONKL+/=&eos.app=y",
    "open /eos/x?eos.app=y&authz=Bearer%20eyJhbGciOi.eyJpc3Mi.c2ln",
    "Authorization: Bearer eyJhbGciOi.eyJpc3Mi.c2ln",
    "token eyJhbGciOi.eyJpc3Mi.c2ln is expired",
    "zteos64%3aMDAwMDAwNzR4nONKL was refused",
    "root://jane:c2ln@host//eos/x",
]


def answer(errno: int = 0, code: int = 400, message: str = "") -> SimpleNamespace:
    return SimpleNamespace(ok=False, status=1, code=code, errno=errno, message=message)


@pytest.mark.parametrize("text", TOKENS)
def test_tokens_and_passwords_are_taken_out(text: str) -> None:
    for secret in ("MDAwMDAwNzR4nONKL", "eyJpc3Mi", "c2ln"):
        assert secret not in redacted(text)
        error = failure(answer(3005, message=f"[ERROR] failed: {text}\n"), "read x", text, writing=False)
        assert secret not in f"{error} {error.__cause__!r}"
    assert "(hidden)" in redacted(text)


def test_what_is_no_token_stays() -> None:
    for text in ("root://eosuser.cern.ch:1094//eos/user/j/jane/x", "bearer", "jane@cern.ch", "a:b"):
        assert redacted(text) == text


def test_a_message_is_one_clean_line() -> None:
    text = "[ERROR] Server responded with an error: [3011] Unable to open /x; no such file or directory\n"
    assert cleaned(text) == "[3011] Unable to open /x; no such file or directory"


@pytest.mark.parametrize(
    ("errno", "code", "writing", "kind"),
    [
        (3009, 400, True, NoSpace),
        (3021, 400, True, NoSpace),
        (3010, 400, True, ReadOnly),
        (3030, 400, True, ReadOnly),
        (3025, 400, True, ReadOnly),
        (3010, 400, False, BackendError),
        (0, 204, True, BackendError),
        (0, 108, True, Interrupted),
        (0, 206, False, Interrupted),
        (3004, 400, True, Interrupted),
        (3019, 400, True, BackendError),
    ],
)
def test_numbers_mean_errors(errno: int, code: int, writing: bool, kind: type[CatalogError]) -> None:
    error = failure(answer(errno, code), "write x", "root://h//p", writing=writing)
    assert type(error) is kind
    assert error.hint
    assert error.__cause__ is not None


def test_a_file_in_the_place_of_a_folder_is_missing() -> None:
    assert number(answer(3005, message="Unable to open /x/y; not a directory")) == 3011
    assert number(answer(3005, message="Unable to remove /x; directory not empty")) == 3005
    assert number(answer(0, 304)) == 3011
