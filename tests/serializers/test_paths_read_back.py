"""Files and folders given by their path: what never loads is not published, and bytes tell what changed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import InvalidInput, SerializationError

pytestmark = pytest.mark.framework
X = np.ones((2, 4), np.float32)


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield catalog


def without_schema(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            if name != "schema.json":
                target.writestr(name, source.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change",
    [lambda data: b"", lambda data: data[:-50], lambda data: b"\x80\x04.", lambda data: data[:300] + b"\0" * 50
     + data[350:], without_schema],
    ids=["empty", "cut short", "a pickle", "changed inside", "no schema"],
)  # fmt: skip
def test_a_skops_file_that_never_loads_is_not_published(
    change: Callable[[bytes], bytes], catalog: Catalog, tmp_path: Path
) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(np.random.default_rng(0).random((20, 3)), [0, 1] * 10)
    path = tmp_path / "tagger.skops"
    path.write_bytes(change(skops.dumps(model)))
    with pytest.raises(SerializationError, match=r"tagger\.skops cannot be loaded: "):
        catalog.save("m", path)
    assert len(catalog.models()) == 0
    path.write_bytes(skops.dumps(model))
    assert np.array_equal(catalog.save("m", path).load().coef_, model.coef_)


class Own:
    """A class of the user's, which nothing trusts."""


def test_a_skops_file_with_a_class_of_the_users_is_published_and_says_that_it_wants_trust(
    catalog: Catalog, tmp_path: Path
) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.preprocessing import FunctionTransformer

    path = tmp_path / "own.skops"
    path.write_bytes(skops.dumps(FunctionTransformer(np.log1p, kw_args={"where": Own()})))
    with pytest.warns(UserWarning, match=r"own\.skops will load with trust=True only"):
        catalog.save("m", path)


@pytest.mark.parametrize("broken", [b"", b"abc", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"])
def test_one_broken_safetensors_file_among_good_ones_is_named(broken: bytes, catalog: Catalog, tmp_path: Path) -> None:
    catalog.save("good", {"w": np.arange(5.0)})
    folder = catalog.download("good", tmp_path / "net")
    good = (folder / "model.safetensors").read_bytes()
    (folder / "shards").mkdir()
    (folder / "shards" / "b.safetensors").write_bytes(broken)
    (folder / "config.json").write_text("{}")
    with pytest.raises(SerializationError, match=r"shards/b\.safetensors cannot be loaded") as caught:
        catalog.save("net", folder)
    assert ("git lfs pull" in str(caught.value.hint)) == broken.startswith(b"version")
    (folder / "shards" / "b.safetensors").write_bytes(good)
    assert (catalog.save("net", folder).load() / "shards" / "b.safetensors").read_bytes() == good


def test_a_serializer_of_live_objects_is_not_ignored_for_a_folder(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "weights.bin").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="'safetensors' takes live objects"):
        catalog.save("m", tmp_path / "net", serializer="safetensors")


# -- ONNX --------------------------------------------------------------------------------------------------------------


def write(path: Path, factor: float, outside: bool) -> None:
    onnx = pytest.importorskip("onnx")
    weights = onnx.numpy_helper.from_array(np.full((4, 4), factor, np.float32), "w")
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["n", 4]) for name in "xy")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [x], [y], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    (path.parent / "w.bin").unlink(missing_ok=True)
    options: dict[str, Any] = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save(model, path, **(options if outside else {}))
    for file in path.parent.iterdir():
        os.utime(file, ns=(10**18, 10**18))  # as a copy does that keeps times


@pytest.mark.parametrize("outside", [False, True], ids=["one file", "data outside"])
def test_a_graph_that_was_written_again_is_saved_as_it_is_now(outside: bool, catalog: Catalog, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "net").mkdir()
    path = tmp_path / "net" / "net.onnx"
    for number, factor in enumerate((1.0, 2.0, 3.0), 1):
        write(path, factor, outside)
        catalog.save("m", path, example={"x": X})
        with catalog.session(f"m@{number}") as session:
            assert session.predict(X)[0, 0] == 4 * factor


@pytest.mark.parametrize("outside", [False, True], ids=["one file", "data outside"])
def test_a_graph_that_changes_while_it_is_prepared_is_refused(
    outside: bool, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from catalog_onnx.serializer import OnnxSerializer

    (tmp_path / "net").mkdir()
    path = tmp_path / "net" / "net.onnx"
    write(path, 1.0, outside)
    real = OnnxSerializer.call

    def call(self: Any, obj: Any, method: str, inputs: Any) -> Any:
        outputs = real(self, obj, method, inputs)
        write(path, 2.0, outside)  # the training script writes its next epoch
        return outputs

    monkeypatch.setattr(OnnxSerializer, "call", call)
    with pytest.raises(SerializationError, match="was changed after its example ran"):
        catalog.save("m", path, example={"x": X})
    assert len(catalog.models()) == 0


def test_what_a_file_holds_is_described_as_the_live_object_was(catalog: Catalog, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    linear = pytest.importorskip("sklearn.linear_model")
    model = linear.LogisticRegression(C=0.5).fit(np.arange(8.0).reshape(4, 2), [0, 1, 0, 1])
    for name, obj in (("arrays", {"w": X}), ("tensors", {"w": torch.ones(2, 3)}), ("estimator", model)):
        first = catalog.save(name, obj)
        (file,) = catalog.download(first, tmp_path / name).iterdir()
        second = catalog.save(name, file)
        assert second.summary["parameters"] == first.summary["parameters"] > 0
        told = {difference.name for difference in catalog.compare(first, second).differences}
        if name != "tensors":  # such a file does not say whose they were
            assert not told & {"framework", "algorithm", "parameters"}
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2, 3)}, tmp_path / "hub.safetensors", metadata={"format": "pt"})
    assert catalog.save("hub", tmp_path / "hub.safetensors").summary["framework"] == "torch"


def test_a_broken_safetensors_file_is_not_published(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"x" * 100)
    with pytest.raises(SerializationError, match=r"w\.safetensors cannot be loaded: not a safetensors file"):
        catalog.save("m", file)
    assert not catalog.models()


@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors", "m.keras", "m.pt2", "m.bin"])
@pytest.mark.parametrize("way", ["save('m', path)", "import_(path)", "import_(path, 'm', format='onnx')"])
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path, name: str, way: str) -> None:
    os.mkfifo(tmp_path / name)
    code = (
        "import sys; from pathlib import Path; from catalog_core import Catalog; from catalog_core.errors import *\n"
        "path = Path(sys.argv[2])\n"
        f"with Catalog.open(sys.argv[1]) as catalog:\n try: catalog.{way}\n"
        " except InvalidInput as exc: print(exc)"
    )
    done = subprocess.run(  # without a writer, opening a pipe waits for ever
        [sys.executable, "-c", code, f"sqlite://{tmp_path}/catalog", str(tmp_path / name)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "is no file: a pipe, a socket or a device" in done.stdout
