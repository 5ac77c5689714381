"""Dictionaries of NumPy arrays through the serializer, and nested ones."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import MissingPlugin, SerializationError
from catalog_core.interfaces.serializer import SaveRequest
from catalog_safetensors.serializer import SafetensorsSerializer
from catalog_safetensors.structure import flatten


class Folder:
    """A component's files in memory: both `Directory` and `Reader`."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.meta: Mapping[str, Any] = {}

    @property
    def files(self) -> dict[str, int]:
        return {name: len(data) for name, data in self.data.items()}

    def write(self, name: str, parts: Sequence[Any], cuts: Sequence[int] = ()) -> None:
        self.data[name] = b"".join(bytes(memoryview(part)) for part in parts)

    def view(self, name: str, start: int = 0, length: int | None = None, *, writable: bool = False) -> memoryview:
        end = len(self.data[name]) if length is None else start + length
        part = self.data[name][start:end]
        return memoryview(bytearray(part) if writable else part)


def saved(obj: Any) -> Folder:
    folder = Folder()
    folder.meta = SafetensorsSerializer().save(obj, folder, SaveRequest("m"))  # type: ignore[arg-type]
    return folder


def load(folder: Folder, into: Any = None, **options: Any) -> Any:
    return SafetensorsSerializer().load(folder, None, into, options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["bool", "int64", "float16", "complex64", "float64", "uint16", ">f4", ">i8"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_every_dtype_comes_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    back = load(saved({"a": array}))["a"]
    assert back.shape == shape and back.dtype.name == array.dtype.name
    assert np.array_equal(back, array) and not back.flags.writeable


def test_byte_orders_are_not_tied() -> None:
    array = np.arange(4, dtype="<i4")
    back = load(saved({"a": array, "b": array.view(">i4"), "c": array}))
    assert np.array_equal(back["b"], array.view(">i4")) and back["c"] is back["a"]


def test_nested_values_come_back_exactly() -> None:
    a = np.arange(3.0)
    obj = {
        "a/b": {"c": a}, "a": {"b/c": a + 1, "b": {"c": a + 2}}, "#1": [a + 3], 1: (a + 4, None, True, 2**70, "x"),
        "~": [], "f": [1.0, 1, float("inf"), -0.0], "o": OrderedDict(z=1), "tied": a,
    }  # fmt: skip
    folder = saved(obj)
    back = load(folder)
    assert list(back) == list(obj)
    for path in (("a/b", "c"), ("a", "b/c"), ("a", "b", "c"), ("#1", 0), (1, 0)):
        want: Any = obj
        got = back
        for key in path:
            want, got = want[key], got[key]
        assert np.array_equal(want, got)
    assert back[1][1:] == (None, True, 2**70, "x") and type(back[1]) is tuple
    assert [repr(item) for item in back["f"]] == ["1.0", "1", "inf", "-0.0"]
    assert type(back["o"]) is OrderedDict and back["tied"] is back["a/b"]["c"]


def test_an_empty_dictionary_comes_back() -> None:
    assert load(saved({})) == {}


def test_what_cannot_be_held_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    for bad in ([1], {"a": object()}, {"a": np.array([object()])}, {(1, 2): 3}, loop, {"a": np.zeros(2, "complex128")}):
        with pytest.raises(SerializationError):
            saved(bad)


def test_a_mask_is_not_lost_silently(tmp_path: Path) -> None:
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        for kind, value in (
            ("safetensors", {"w": masked}),
            ("safetensors", {"a": {"w": masked}}),
            ("pytree", [masked]),
        ):
            with pytest.raises(SerializationError, match="has a mask, which would be lost"):
                catalog.save("m", value, serializer=kind)


@pytest.mark.parametrize("size", [3, 20_000])
def test_a_file_that_never_loads_is_not_published(tmp_path: Path, size: int) -> None:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        catalog.save("m", {"w": np.arange(size)})
        data = (catalog.download("m", tmp_path / "out") / "model.safetensors").read_bytes()
        path = tmp_path / "net.safetensors"
        for broken in (b"", b"garbage", data[:-1], data + b"x", data[:20], b"\xff" * 8 + data[8:]):
            path.write_bytes(broken)
            with pytest.raises(SerializationError, match=r"net\.safetensors cannot be loaded: "):
                catalog.save("broken", path)
        path.write_bytes(data)
        assert (catalog.save("whole", path).load()["w"] == np.arange(size)).all()
        assert len(catalog.models()) == 2


def test_what_is_no_dictionary_has_a_way_out(tmp_path: Path) -> None:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        for value in (np.ones(3), [np.ones(3)], (np.ones(3), np.ones(2))):
            with pytest.raises(SerializationError) as caught:
                catalog.save("m", value)
            assert "serializer='pytree'" in str(caught.value.hint)
            catalog.save("m", value, serializer="pytree")
            assert type(catalog.load("m")) is type(value)


def test_an_unknown_tensor_has_a_hint() -> None:
    folder = saved({"weight": np.ones(2), "bias": np.ones(1)})
    assert list(load(folder, tensors=["bias"])) == ["bias"]
    with pytest.raises(SerializationError) as caught:
        load(folder, tensors=["wieght"])
    assert "weight" in (caught.value.hint or "")


def test_a_read_only_target_changes_nothing() -> None:
    target = {"a": np.zeros(2), "b": np.zeros(2)}
    target["b"].flags.writeable = False
    folder = saved({"a": np.ones(2), "b": np.ones(2)})
    with pytest.raises(SerializationError, match="read-only"):
        load(folder, target)
    assert not target["a"].any()
    target["b"].flags.writeable = True
    assert load(folder, target)["b"].all()


def test_without_torch_there_is_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPlugin) as caught:
        load(saved({"a": np.ones(2)}), as_="torch")
    assert "numpy" in (caught.value.hint or "")


def test_the_safetensors_package_reads_and_writes_the_same() -> None:
    package = pytest.importorskip("safetensors.numpy")
    obj = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.array(True), "c": np.zeros((0, 2), "i8")}
    theirs = package.load(saved(obj).data["model.safetensors"])
    folder = Folder()
    folder.data["other.safetensors"] = package.save(obj)
    ours = load(folder)
    for key, value in obj.items():
        assert np.array_equal(theirs[key], value) and np.array_equal(ours[key], value)
        assert theirs[key].dtype == ours[key].dtype == value.dtype


def test_paths_never_share_a_name() -> None:
    a = np.ones(1)
    names, _ = flatten({"a": {"b": a, "b/c": a}, "a/b": {"c": a}, "#0": a, 0: a, "~2": {"0": a}, "~20": a})
    assert len(names) == 7


def test_loading_and_reading_takes_no_private_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapped views: 80 MB are loaded and every page is read, and less than 5 % of them become private memory."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as catalog:
        catalog.save("big", {f"w{n}": np.full(1_000_000, n, dtype=np.float32) for n in range(20)})
    code = (
        "import sys, numpy as np; from catalog_core import Catalog\n"
        "def private():\n"
        "    return int(next(l for l in open('/proc/self/status') if l.startswith('RssAnon')).split()[1]) * 1024\n"
        "with Catalog.open(sys.argv[1]) as catalog:\n"
        "    catalog.load('big', tensors=['w0'])\n"
        "    before = private()\n"
        "    arrays = catalog.load('big')\n"
        "    total = sum(float(array.max()) for array in arrays.values())\n"
        "    print(private() - before, total, len(arrays))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "catalog")], capture_output=True, text=True, timeout=60, check=True
    )
    grown, total, count = done.stdout.split()
    assert (float(total), int(count)) == (190.0, 20)
    assert int(grown) < 0.05 * 80_000_000, f"{int(grown):,} bytes became private"


def test_bytes_that_are_no_truth_values_are_refused_and_never_published(tmp_path: Path) -> None:
    """`x ^ True` of a byte 2 is true, and so is x: NumPy and torch take the bytes as they are."""
    odd = np.frombuffer(bytes([0, 1, 2, 255]), np.bool_)
    header = b'{"m":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}}'
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + odd.tobytes())
    with Catalog.open(tmp_path / "catalog") as catalog:
        for given in ({"m": odd}, path):
            with pytest.raises(SerializationError, match="2 of its bytes are neither 0 nor 1"):
                catalog.save("m", given)
        assert not catalog.models()
        version = catalog.save("m", {"m": odd.view(np.uint8) != 0})
        assert catalog.load(version)["m"].tolist() == [False, True, True, True]
        if importlib.util.find_spec("torch") is not None:
            assert catalog.load(version, as_="torch")["m"].tolist() == [False, True, True, True]
