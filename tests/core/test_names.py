from __future__ import annotations

import pytest

from catalog_core.errors import InvalidName, InvalidReference
from catalog_core.names import check_alias, check_file, check_name, parse_reference

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "text", ["a", "calo/3dgan@7", "calo/3dgan@prod#gen", "eos:calo/x@sha256:0123456789ab", "a.b-c_d#weights"]
)
def test_references_come_back_as_written(text: str) -> None:
    assert str(parse_reference(text)) == text


@pytest.mark.parametrize("text", ["", "a@0", "a@latest", "a@sha256:12", "file:///a", "models:/a/1", "a:3", "a:latest"])
def test_bad_references(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_reference(text)


@pytest.mark.parametrize("name", ["", "a//b", "/a", "a/", "..", "a.", "con", "x/NUL.txt", "é", "a b", "a\n", "a" * 201])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidName):
        check_name(name)


@pytest.mark.parametrize("alias", ["7", "latest", "Latest", "sha256", "a/b"])
def test_bad_aliases(alias: str) -> None:
    with pytest.raises(InvalidName):
        check_alias(alias)


@pytest.mark.parametrize("name", ["../a", "a/../b", "/a", "a\\b", "c:a", "a\x00", "aux.txt", "a "])
def test_bad_files(name: str) -> None:
    with pytest.raises(InvalidName):
        check_file(name)
