"""The header of safetensors files: hostile ones are refused, ours are read by the safetensors package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_core import Catalog, tensors
from catalog_core.errors import SerializationError
from catalog_core.testing.memory import memory_catalog

GOOD = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}


def _file(text: bytes, data: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def _parse(file: bytes) -> tensors.Header:
    return tensors.parse_header(lambda start, length: file[start : start + length], len(file))


def test_a_good_header_is_read() -> None:
    header = _parse(_file(json.dumps({"a": GOOD}).encode(), b"1234"))
    assert [(e.name, e.dtype, e.shape, e.end - e.start) for e in header.entries] == [("a", "uint8", (4,), 4)]


@pytest.mark.parametrize(
    "table",
    [
        {"a": {**GOOD, "data_offsets": [1, 5]}},
        {"a": GOOD, "b": {**GOOD, "data_offsets": [5, 9]}},
        {"a": GOOD, "b": {**GOOD, "data_offsets": [2, 6]}},
        {"a": {**GOOD, "data_offsets": [-4, 0]}},
        {"a": {**GOOD, "shape": [-4]}},
        {"a": {**GOOD, "shape": [2**40, 2**40]}},
        {"a": {**GOOD, "shape": [2**70]}},
        {"a": {**GOOD, "shape": [1] * 65}},
        {"a": {**GOOD, "shape": {}}},
        {"a": {**GOOD, "shape": [5]}},
        {"a": {**GOOD, "dtype": "F7"}},
        {"a": {**GOOD, "dtype": ["U8"]}},
        {"a": {**GOOD, "shape": [True]}},
        {"a": [1]},
        {"a": {**GOOD, "shape": [3], "data_offsets": [0, 3]}},
        {"__metadata__": {"x": {"y": "z"}}, "a": GOOD},
        {"__metadata__": [], "a": GOOD},
        [GOOD],
    ],
)
def test_a_header_that_lies_is_refused(table: object) -> None:
    with pytest.raises(SerializationError):
        _parse(_file(json.dumps(table).encode(), b"1234"))


@pytest.mark.parametrize("entry", [{**GOOD, "dtype": "x" * 1_000_000}, {**GOOD, "data_offsets": [4, 8]}, [1]])
def test_an_error_is_a_line_however_long_the_names_are(entry: object) -> None:
    with pytest.raises(SerializationError) as caught:
        _parse(_file(json.dumps({"n" * 1_000_000: entry}).encode(), b"1234"))
    assert len(str(caught.value)) < 500
    twice = json.dumps({"n" * 1_000_000: GOOD})
    with pytest.raises(SerializationError) as caught:
        _parse(_file(f"{twice[:-1]},{twice[1:]}".encode(), b"1234"))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"1234567",
        (2**63).to_bytes(8, "little") + b"{}",
        (100_000_001).to_bytes(8, "little") + b"{}",
        _file(b'{"a":%s,"a":%s}' % ((json.dumps(GOOD).encode(),) * 2), b"1234"),
        _file(b'{"a":' + b"9" * 5000 + b"}", b""),
        _file(b"[" * 100_000, b""),
        _file(b"\xff\xfe", b""),
    ],
)
def test_a_file_that_is_none_is_refused(file: bytes) -> None:
    with pytest.raises(SerializationError):
        _parse(file)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=60).map(str.encode)), st.booleans())
def test_no_bytes_raise_anything_else(data: bytes, framed: bool) -> None:
    try:
        _parse(_file(data, b"1234") if framed else data)
    except SerializationError:
        pass


def test_the_reserved_name_is_refused() -> None:
    with pytest.raises(SerializationError, match="__metadata__"):
        tensors.plan([("__metadata__", "uint8", (1,))], {})


def test_a_view_is_in_place_and_read_only() -> None:
    buffer = bytearray(np.arange(3, dtype="<f4").tobytes())
    array = tensors.numpy_view(buffer, tensors.Entry("a", "float32", (3,), 0, 12))
    buffer[0:4] = np.float32(7).tobytes()
    assert array[0] == 7
    with pytest.raises(ValueError):
        array[0] = 1


@pytest.mark.parametrize("keys", [None, ["a", "b", "c", "d"]])
@pytest.mark.parametrize("kind", ["memory", "file", "sqlite"])
def test_who_writes_to_a_tensor_changes_no_other_that_is_stored_once_with_it(
    kind: str, keys: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal bytes are one chunk: weights that begin equal must not be trained as one."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    one = np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8)
    model = {"a": one, "b": one.copy(), "c": np.concatenate([one, one]), "d": one[: 2 << 20].copy()}
    made = memory_catalog() if kind == "memory" else Catalog.open(f"{kind}://{tmp_path}/catalog")
    with made as catalog:
        artifact = catalog.save("m", model).artifact
        reader = artifact.reader(artifact.manifest.components[0])
        found = tensors.read(reader, lambda view, entry: view, writable=True, names=keys)
        for name in model:
            before = {other: bytes(view) for other, view in found.items() if other != name}
            found[name][:] = bytes(len(found[name]))
            assert {other: bytes(view) for other, view in found.items() if other != name} == before
        again = catalog.load("m")
        assert all(np.array_equal(again[name], model[name]) for name in model)
