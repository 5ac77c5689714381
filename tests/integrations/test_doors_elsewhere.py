"""Models as other registries and servers keep them: read where one of ours reads the file, else kept, and said."""

from __future__ import annotations

import io
import json
import logging
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from catalog_core import Catalog
from catalog_core.errors import CatalogError, InvalidInput, NotFound, SerializationError
from catalog_doors import INSTEAD

WEIGHTS = {"w": np.arange(4, dtype=np.float32)}
TENSORS = save(WEIGHTS)
MANIFEST = {
    "runtime": "python",
    "model": {"modelName": "gan", "serializedFile": "gan.safetensors", "modelVersion": "1.2"},
}
PIN = (
    "file: gan.safetensors\nfile_size: 80\npin_hash: 120a54f7e0818041\ntype: file\ntitle: a gan\ndescription: showers\n"
    "tags: [calo, fast]\ncreated: 20220518T150837Z\napi_version: 1\nuser: {epochs: 3, opt: {lr: 0.1}}\n"
)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "catalog") as made:
        yield made


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def told(version: Any) -> dict[str, Any]:
    imported: dict[str, Any] = version.manifest.provenance["imported"]
    return imported


def holds(catalog: Catalog, version: Any) -> None:
    assert np.array_equal(catalog.load(version, "model")["w"], WEIGHTS["w"])


MAR = {"MAR-INF/MANIFEST.json": json.dumps(MANIFEST).encode(), "gan.safetensors": TENSORS, "handler.py": b"import os\n"}


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_of_torchserve_is_its_model(catalog: Catalog, tmp_path: Path, packed: bool) -> None:
    path = zipped(tmp_path / "x.mar", MAR) if packed else put(tmp_path / "x", MAR)
    (version,) = catalog.import_(path)
    assert version.ref.startswith("gan@") and version.tags["torchserve_version"] == "1.2"
    holds(catalog, version)
    assert told(version)["model"]["serializedFile"] == "gan.safetensors"


def test_a_manifest_of_torchserve_names_what_is_there(catalog: Catalog, tmp_path: Path) -> None:
    lacks = {key: data for key, data in MAR.items() if key != "gan.safetensors"}
    with pytest.raises(NotFound, match=r"names the model .gan\.safetensors., which the archive does not hold"):
        catalog.import_(zipped(tmp_path / "x.mar", lacks))
    assert not catalog.models()


def test_a_pin_is_read_in_its_newest_version(catalog: Catalog, tmp_path: Path, caplog: Any) -> None:
    for stamp in ("20220518T150837Z-120a5", "20230101T000000Z-99999"):
        put(tmp_path / "board" / "showers" / stamp, {"gan.safetensors": TENSORS, "data.txt": PIN.encode()})
    for place, number in (("showers", "20230101T000000Z-99999"), ("showers/20220518T150837Z-120a5",) * 2):
        (version,) = catalog.import_(tmp_path / "board" / place)
        holds(catalog, version)
        assert version.ref.startswith("showers@") and told(version)["version"] == number.rpartition("/")[2]
    assert version.params["opt.lr"] == 0.1 and version.tags["pin_tags"] == "calo, fast"
    assert version.description == "showers"
    assert "left behind: 20220518T150837Z-120a5" in caplog.text


def test_a_file_called_data_txt_is_not_taken_for_a_pin(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="of no known format"):
        catalog.import_(put(tmp_path / "corpus", {"data.txt": b"once upon a time"}))


@pytest.mark.parametrize("packed", [True, False])
def test_a_model_of_modelstore_is_read_packed_or_not(catalog: Catalog, tmp_path: Path, packed: bool) -> None:
    about = {"library": "sklearn", "type": "RandomForestClassifier"}
    files = {
        "model-info.json": json.dumps({"model_type": about, "domain": "calo"}).encode(),
        "python-info.json": b'{"scikit-learn": "1.5"}', "sklearn/model.safetensors": TENSORS,
    }  # fmt: skip
    path = tarred(tmp_path / "artifacts.tar.gz", files) if packed else put(tmp_path / "out", files)
    (version,) = catalog.import_(path)
    holds(catalog, version)
    assert version.ref.startswith("calo@") and version.tags["modelstore_library"] == "sklearn"
    assert told(version)["python-info.json"] == {"scikit-learn": "1.5"}


def test_a_versioned_data_set_of_kedro_is_its_newest_version(catalog: Catalog, tmp_path: Path, caplog: Any) -> None:
    stamps = ("2023-01-01T00.00.00.000Z", "2024-06-01T10.00.00.000Z")
    for stamp in stamps:
        put(tmp_path / "gan.safetensors" / stamp, {"gan.safetensors": TENSORS})
    (version,) = catalog.import_(tmp_path / "gan.safetensors")
    holds(catalog, version)
    assert version.ref.startswith("gan@") and told(version)["version"] == stamps[1]
    assert f"left behind: {stamps[0]}" in caplog.text


def test_an_artifact_and_a_run_of_wandb_are_known(catalog: Catalog, tmp_path: Path) -> None:
    files = {
        "wandb-metadata.json": b'{"program": "train.py", "email": "a@b.c"}', "gan.safetensors": TENSORS,
        "config.yaml": b"wandb_version: 1\n_wandb: {value: {x: 1}}\nlr: {desc: null, value: 0.1}\n",
        "wandb-summary.json": b'{"loss": 0.25, "_step": 3, "text": "x", "odd": "NaN"}',
    }  # fmt: skip
    (version,) = catalog.import_(
        put(tmp_path / "artifacts" / "gan:v3", {"gan.safetensors": TENSORS, "labels.txt": b"a"})
    )
    holds(catalog, version)
    assert version.ref.startswith("gan@") and told(version)["artifact_version"] == "v3"
    (run,) = catalog.import_(put(tmp_path / "run-1" / "files", files).parent)
    holds(catalog, run)
    assert run.params["lr"] == 0.1 and run.metrics == {"loss": 0.25} and told(run)["program"] == "train.py"
    assert "email" not in told(run)
    del files["gan.safetensors"]
    with pytest.raises(NotFound, match="saved no model") as caught:
        catalog.import_(put(tmp_path / "run-2" / "files", files).parent)
    assert "wandb artifact get" in str(caught.value.hint)


@pytest.mark.parametrize("end", [".zip", ".tar.gz", ".tgz"])
def test_an_archive_is_read_as_the_folder_it_holds(catalog: Catalog, tmp_path: Path, end: str) -> None:
    pack = zipped if end == ".zip" else tarred
    hub = {"top/model.safetensors": TENSORS, "top/config.json": b'{"latent": 8}'}
    (version,) = catalog.import_(pack(tmp_path / f"gan{end}", hub))
    holds(catalog, version)
    assert version.params["latent"] == 8 and told(version)["inner_format"] == "huggingface"
    assert told(version)["archive"] == f"gan{end}"
    (plain,) = catalog.import_(pack(tmp_path / f"one{end}", {"gan.safetensors": TENSORS, "notes.md": b"x"}), "one")
    holds(catalog, plain)


def test_a_packed_onnx_graph_runs(catalog: Catalog, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "twice", [helper.make_tensor_value_info("x", kind, ["n"])],
        [helper.make_tensor_value_info("y", kind, ["n"])],
    )  # fmt: skip
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    (version,) = catalog.import_(zipped(tmp_path / "twice.zip", {"twice.onnx": data}))
    with catalog.session(version) as session:
        assert np.array_equal(session.predict(x=np.float32([1, 2])), [2, 4])


def test_an_archive_without_a_model_says_what_is_in_it(catalog: Catalog, tmp_path: Path) -> None:
    for files, word in (
        ({"a.txt": b"x"}, "no model that is read here"),
        ({"net.tflite": b"TFL3"}, "a model of LiteRT"),
    ):
        with pytest.raises(NotFound, match=word):
            catalog.import_(tarred(tmp_path / "net.tgz", files))
    assert not catalog.models()


def link(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("model.safetensors")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return path


HOSTILE: dict[str, Any] = {
    "up.zip": lambda path: zipped(path, {"../out.safetensors": TENSORS}),
    "root.tar.gz": lambda path: tarred(path, {"/tmp/out.safetensors": TENSORS}),
    "up.mar": lambda path: zipped(path, {"MAR-INF/MANIFEST.json": b"{}", "a/../../b": b"x"}),
    "link.tar": link,
    "bomb.zip": lambda path: zipped(path, {"a.bin": bytes(300 << 20)}),
    "bomb.tar.gz": lambda path: tarred(path, {"a.bin": bytes(300 << 20)}),
    "twice.tgz": lambda path: tarred(path, {"a.bin": b"x", "A.bin": b"y"}),
    "file.tgz": lambda path: tarred(path, {"a": b"x", "a/b": b"y"}),
    "torn.zip": lambda path: path.write_bytes(b"PK\3\4torn") and path,
    "torn.tgz": lambda path: path.write_bytes(b"\x1f\x8btorn") and path,
    "torn.mar": lambda path: path.write_bytes(b"PK\5\6") and path,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_write_nowhere_else(catalog: Catalog, tmp_path: Path, name: str) -> None:
    path = HOSTILE[name]((tmp_path / "in").mkdir() or tmp_path / "in" / name)
    with pytest.raises(CatalogError):
        catalog.import_(path, unsafe=True)
    assert not catalog.models() and [item.name for item in tmp_path.iterdir() if item.name != "catalog"] == ["in"]


def example_of(mark: str) -> dict[str, bytes]:
    """Files that fit a mark; a folder's mark becomes a file in it."""
    parts = [part.removeprefix("./") for part in mark.split(" ")]
    return {part.replace("*", "x").replace("?", "0"): b"\x00\x01bytes of a model" for part in parts}


@pytest.mark.parametrize(("format", "mark"), [(key, mark) for key, (marks, _) in INSTEAD.items() for mark in marks])
def test_what_nothing_reads_is_kept_and_said(
    catalog: Catalog, tmp_path: Path, format: str, mark: str, caplog: Any
) -> None:
    what = INSTEAD[format][1]
    if mark.startswith("*.") and not mark.endswith("/"):
        path = put(tmp_path, {f"net{mark[1:]}": b"\x00\x01bytes of a model"}) / f"net{mark[1:]}"
    elif mark.endswith("/"):
        path = put(tmp_path / f"net{mark[1:-1]}", {"part": b"x"})
    else:
        path = put(tmp_path / "net", example_of(mark))
    with caplog.at_level(logging.WARNING, "catalog_core"):
        (version,) = catalog.import_(path, "imported")
    assert f"{path.name}: kept as it is: it is {what}" in caplog.text and told(version)["format"] == format
    (component,) = version.manifest.components
    reader = version.artifact.reader(component)
    files = {item.relative_to(path).as_posix(): item for item in path.rglob("*") if item.is_file()} or {path.name: path}
    assert {name: bytes(reader.view(name)) for name in reader.files} == {
        name: item.read_bytes() for name, item in files.items()
    }
    with pytest.warns(UserWarning) as caught:
        catalog.save("saved", path)
    assert any(f"{path.name} is kept as bytes: it is {what}" in str(item.message) for item in caught)


def test_a_model_of_bentomls_store_is_the_one_that_latest_names(catalog: Catalog, tmp_path: Path) -> None:
    for version in ("aaa", "bbb"):
        about = f"name: gan\nversion: {version}\nmodule: bentoml.picklable_model\n"
        put(tmp_path / "gan" / version, {"model.yaml": about.encode(), "saved_model.safetensors": TENSORS})
    (tmp_path / "gan" / "latest").write_text("aaa")
    (version,) = catalog.import_(tmp_path / "gan")
    assert told(version)["version"] == "aaa"
    holds(catalog, version)
    (tmp_path / "gan" / "latest").write_text("../other")
    with pytest.raises(NotFound, match=r"names the version '\.\./other', which is not there"):
        catalog.import_(tmp_path / "gan")


def test_a_link_is_no_newest_version(catalog: Catalog, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", {"gan.safetensors": TENSORS})
    (tmp_path / "gan.safetensors").mkdir()
    (tmp_path / "gan.safetensors" / "2024-06-01T10.00.00.000Z").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((SerializationError, InvalidInput), match="link"):
        catalog.import_(tmp_path / "gan.safetensors")


def test_an_archive_of_data_is_saved_without_a_word(
    catalog: Catalog, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    for name in ("data.zip", "data.tar.gz"):
        catalog.save("data", (zipped if name.endswith("zip") else tarred)(tmp_path / name, {"a.csv": b"1,2"}))
    assert not recwarn.list
