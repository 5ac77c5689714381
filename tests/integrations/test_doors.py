"""Models that other programs keep, built by hand as those write them: read without running anything."""

from __future__ import annotations

import json
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import (
    Canary,
    encrypted,
    keras_file,
    laughs,
    layer,
    link,
    npy,
    onnx_file,
    safetensors,
    saying,
    twice,
    zipped,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from catalog_core import Catalog
from catalog_core.errors import CatalogError, InvalidInput, NotFound, NotTrusted, SerializationError
from catalog_core.tensors import parse_header
from catalog_core.testing.memory import memory_catalog
from catalog_doors import example, files, huggingface, text, triton
from catalog_doors.look import look, tree

pytestmark = pytest.mark.usefixtures("nothing_runs")
W = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with memory_catalog() as made:
        yield made


def imported(version: Any) -> Any:
    return version.catalog.artifact(version).manifest.provenance["imported"]


MLMODEL = """\
artifact_path: higgs
flavors:
  python_function:
    data: data
    env:
      conda: conda.yaml
    loader_module: our.loader
    python_version: 3.11.7
metadata:
  team: ep-sft
  epochs: 3
mlflow_version: 3.17.2
model_uuid: 803328d6c07f47769705038285861e07
run_id: 0123456789abcdef0123456789abcdef
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'
  params: null
utc_time_created: '2026-11-25 15:10:06.544247'
"""


@pytest.fixture
def mlflow_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "code").mkdir()
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "conda.yaml").write_text("channels:\n- conda-forge\n")
    (folder / "requirements.txt").write_text("cloudpickle==3.1\n")
    (folder / "code" / "loader.py").write_text("raise SystemExit('never')\n")
    save_file({"w": W}, folder / "data" / "weights.safetensors")
    return folder


def test_an_mlflow_model_keeps_what_mlflow_knew(catalog: Catalog, mlflow_folder: Path, caplog: Any) -> None:
    (version,) = catalog.import_(mlflow_folder)
    assert version.ref == "higgs@1"
    assert version.tags == {"mlflow_flavor": "python_function", "team": "ep-sft", "epochs": 3}
    assert version.summary["components"] == {"files": "files", "model": "safetensors"}
    assert np.array_equal(catalog.load("higgs", "model")["w"], W)
    told = imported(version)
    assert told["format"] == "mlflow" and told["run_id"] == "0123456789abcdef0123456789abcdef"
    assert told["signature"]["inputs"][0]["tensor-spec"] == {"dtype": "float64", "shape": [-1, 3]}
    assert {"MLmodel", "conda.yaml", "requirements.txt", "scan.json"} == set(version.attachments)
    assert version.attachment("MLmodel").decode() == MLMODEL
    assert "kept, and never run: code/loader.py" in caplog.text


def test_the_report_of_the_scan_is_stored(catalog: Catalog, mlflow_folder: Path) -> None:
    (version,) = catalog.import_(mlflow_folder)
    report = json.loads(version.attachment("scan.json"))
    assert {"file": "data/weights.safetensors", "format": "safetensors"} in report["files"]
    assert imported(version)["scan"]["files"] == len(report["files"])


def test_an_mlflow_pickle_is_named_and_not_read(catalog: Catalog, mlflow_folder: Path) -> None:
    (mlflow_folder / "data" / "weights.safetensors").unlink()
    (mlflow_folder / "data" / "model.pkl").write_bytes(pickle.dumps(Canary()))
    with pytest.raises(NotTrusted, match=r"data/model.pkl is a pickle: .*nothing was read .*--unsafe") as caught:
        catalog.import_(mlflow_folder)
    assert "\n" not in str(caught.value)
    assert len(catalog.models()) == 0


def cache(root: Path, files: dict[str, bytes], revision: str = "5f0c8a") -> Path:
    """A folder of the Hub's cache: content in blobs, a snapshot of links, a name for the revision."""
    folder = root / "models--cern--gan"
    for part in ("blobs", "refs", f"snapshots/{revision}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, (name, data) in enumerate(files.items()):
        (folder / "blobs" / f"{number:040x}").write_bytes(data)
        link = folder / "snapshots" / revision / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(os.path.relpath(folder / "blobs" / f"{number:040x}", link.parent)))
    (folder / "refs" / "main").write_text(revision)
    return folder


def tensors(**arrays: Any) -> bytes:
    from safetensors.numpy import save

    return save(arrays)


CARD = b"""\
---
license: mit
library_name: numpy
pipeline_tag: unconditional-generation
language:
- en
- fr
---
# A GAN
"""
SHARDED = {
    "README.md": CARD,
    "config.json": b'{"model_type": "gan", "latent": 64, "layers": [8, 16]}',
    "model-00001-of-00002.safetensors": tensors(a=W),
    "model-00002-of-00002.safetensors": tensors(b=W.astype(np.float16)),
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "tokenizer.json": b"{}",
    "pytorch_model.bin": pickle.dumps(Canary()),
}


def test_a_cache_folder_of_the_hub_becomes_one_version(catalog: Catalog, tmp_path: Path, caplog: Any) -> None:
    (version,) = catalog.import_(cache(tmp_path, SHARDED))
    assert version.ref == "cern/gan@1"
    loaded = catalog.load("cern/gan", "model")
    assert np.array_equal(loaded["a"], W) and loaded["b"].dtype == np.float16
    assert version.tags == {
        "license": "mit", "library_name": "numpy", "pipeline_tag": "unconditional-generation", "language": "en, fr",
        "model_type": "gan",
    }  # fmt: skip
    assert version.params["latent"] == 64 and version.taxonomy["task"] == "unconditional-generation"
    assert catalog.model("cern/gan").card == CARD.decode()
    told = imported(version)
    assert (told["repository"], told["revision"]) == ("cern/gan", "5f0c8a")
    names = {file.name for file in catalog.artifact(version).manifest.component("files").files}
    assert names == {"config.json", "tokenizer.json"}
    assert "left behind, since nothing here reads pickles: pytorch_model.bin" in caplog.text


def test_a_card_that_is_there_stays(catalog: Catalog, tmp_path: Path) -> None:
    catalog.import_(cache(tmp_path, SHARDED))
    catalog.model("cern/gan").set_card("ours")
    (again,) = catalog.import_(tmp_path / "models--cern--gan" / "snapshots" / "5f0c8a")
    assert again.ref == "cern/gan@2" and imported(again)["revision"] == "5f0c8a"
    assert catalog.model("cern/gan").card == "ours"


def test_a_plain_folder_with_one_file_keeps_its_bytes(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(tensors(w=W))
    (version,) = catalog.import_(folder)
    version.download(tmp_path / "out")
    assert (tmp_path / "out" / "model" / "model.safetensors").read_bytes() == tensors(w=W)
    assert imported(version)["format"] == "huggingface"


def test_types_that_numpy_lacks_keep_their_shards(
    catalog: Catalog, tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    shard = len(header).to_bytes(8, "little") + header + b"\x80?\x00@"
    index = json.dumps({"weight_map": {"w": "model-00001-of-00001.safetensors"}}).encode()
    files = {"model-00001-of-00001.safetensors": shard, "model.safetensors.index.json": index}
    (version,) = catalog.import_(cache(tmp_path / "with", files))
    assert version.summary["components"] == {"model": "safetensors"}
    assert [float(value) for value in catalog.load(version.ref)["w"]] == [1, 2]

    def lacking(name: str) -> Any:
        raise SerializationError(f"NumPy has no dtype {name}")

    monkeypatch.setattr("catalog_core.tensors.numpy_dtype", lacking)
    (version,) = catalog.import_(cache(tmp_path / "without", files))
    assert version.summary["components"] == {"model-00001-of-00001": "safetensors"}
    assert "ml_dtypes is not installed" in caplog.text
    version.download(tmp_path / "out")
    assert next((tmp_path / "out").rglob("*.safetensors")).read_bytes() == shard


@pytest.mark.parametrize("format", ["mlflow", "bentoml", "triton", "huggingface", "savedmodel", "file"])
def test_a_format_that_is_named_wrongly_is_one_clear_line(catalog: Catalog, tmp_path: Path, format: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.md").write_text("# Notes")
    if format in ("huggingface", "savedmodel", "file"):
        (version,) = catalog.import_(tmp_path / "folder", format=format)
        assert set(version.summary["components"].values()) == {"files"}
    else:
        with pytest.raises((NotFound, InvalidInput), match=r"holds no |a repository of 0 models"):
            catalog.import_(tmp_path / "folder", format=format)
    with pytest.raises(CatalogError):
        catalog.import_(tmp_path / "folder" / "notes.md", "notes", format="mlflow")


def test_shards_that_overlap_or_lack_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    twice = {**SHARDED, "model-00002-of-00002.safetensors": tensors(a=W)}
    with pytest.raises(SerializationError, match=r"two shards of .* hold 'a'"):
        catalog.import_(cache(tmp_path / "1", twice))
    index = json.dumps({"weight_map": {"a": "../../../../etc/passwd"}}).encode()
    with pytest.raises(SerializationError, match="which is no safetensors file in this folder"):
        catalog.import_(cache(tmp_path / "2", {**SHARDED, "model.safetensors.index.json": index}))


@pytest.mark.parametrize("name", ["../../..", "/etc", "nothing", "5f0c8a/../.."])
def test_a_revision_leads_nowhere_else(catalog: Catalog, tmp_path: Path, name: str) -> None:
    folder = cache(tmp_path, SHARDED)
    (folder / "refs" / "main").write_text(name)
    with pytest.raises(InvalidInput, match="is no snapshot here"):
        catalog.import_(folder)


def test_one_of_several_snapshots_must_be_named(catalog: Catalog, tmp_path: Path) -> None:
    folder = cache(tmp_path, SHARDED)
    (folder / "refs" / "main").unlink()
    (folder / "snapshots" / "other").mkdir()
    with pytest.raises(InvalidInput, match="holds 2 snapshots"):
        catalog.import_(folder)


MODEL_YAML = """\
name: calo
version: 6xhb2zsrkgxz3kx4
module: bentoml.picklable_model
labels:
  stage: dev
options: {}
metadata:
  loss: 0.25
context:
  framework_name: numpy
  framework_versions:
    numpy: 2.1.0
  bentoml_version: 1.4.0
  python_version: 3.11.7
signatures:
  predict:
    batchable: true
    batch_dim:
    - 0
    - 0
api_version: v1
creation_time: '2026-11-25T15:10:06.544247+00:00'
"""


@pytest.fixture
def bento(tmp_path: Path) -> Path:
    folder = tmp_path / "6xhb2zsrkgxz3kx4"
    folder.mkdir()
    (folder / "model.yaml").write_text(MODEL_YAML)
    np.savez(folder / "saved_model.npz", w=W, n=np.arange(3))
    return folder


def test_a_bentoml_model_keeps_its_labels(catalog: Catalog, bento: Path) -> None:
    (version,) = catalog.import_(bento)
    assert version.ref == "calo@1"
    assert version.tags == {"bentoml_module": "bentoml.picklable_model", "stage": "dev"}
    assert version.params == {"loss": 0.25}
    assert imported(version)["signatures"]["predict"] == {"batchable": True, "batch_dim": [0, 0]}
    assert np.array_equal(catalog.load("calo", "model")["w"], W)


def test_a_model_yaml_of_another_program_is_told_from_bentomls(catalog: Catalog, bento: Path) -> None:
    (bento / "model.yaml").write_text("nodes: []\n")
    with pytest.raises(SerializationError, match="no name and module, as BentoML writes them"):
        catalog.import_(bento)


CONFIG = """\
name: "calo"  # of the detector
platform: 'onnxruntime_onnx'
max_batch_size: 8
input [ { name: "x", data_type: TYPE_FP32 dims: [ -1, 3 ] }, { name: "n" data_type: TYPE_INT64 dims: [] } ]
output { name: "y"; data_type: TYPE_BF16; dims: 2 }
instance_group < count: 1 >
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "calo"
    for version in (1, 2):
        (folder / str(version)).mkdir(parents=True)
        (folder / str(version) / "model.safetensors").write_bytes(tensors(w=W * version))
    (folder / "2" / "model.py").write_text("raise SystemExit('never')\n")
    (folder / "config.pbtxt").write_text(CONFIG)
    return folder


@pytest.mark.parametrize("whole", [True, False])
def test_a_triton_model_is_taken_in_its_highest_version(
    catalog: Catalog, repository: Path, whole: bool, caplog: Any
) -> None:
    (version,) = catalog.import_(repository.parent if whole else repository)
    told = imported(version)
    assert version.ref == "calo@1" and told["version"] == 2 and told["max_batch_size"] == 8
    assert told["signature"]["inputs"][0] == {"name": "x", "dtype": "float32", "shape": [None, 3]}
    assert told["signature"]["outputs"] == [{"name": "y", "dtype": "bfloat16", "shape": [2]}]
    assert np.array_equal(catalog.load("calo", "model")["w"], W * 2)
    assert "version 2 was taken; left behind: 1" in caplog.text


def test_a_repository_of_several_models_asks_which(catalog: Catalog, repository: Path) -> None:
    (repository.parent / "b").mkdir()
    (repository.parent / "b" / "config.pbtxt").touch()
    with pytest.raises(InvalidInput, match="a repository of 2 models: b, calo"):
        catalog.import_(repository.parent)


def test_plain_files_load_as_arrays(catalog: Catalog, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", W)
    np.savez_compressed(tmp_path / "some.npz", a=W, b=np.arange(3))
    (tmp_path / "plain.safetensors").write_bytes(tensors(w=W))
    for name, key in (("one.npy", "array"), ("some.npz", "a"), ("plain.safetensors", "w")):
        (version,) = catalog.import_(tmp_path / name)
        assert np.array_equal(catalog.load(version.ref)[key], W), name
        assert version.model == Path(name).stem and imported(version)["format"] == "file"


def test_what_safetensors_cannot_hold_is_kept_with_the_reason(catalog: Catalog, tmp_path: Path, caplog: Any) -> None:
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    (version,) = catalog.import_(tmp_path / "words.npy")
    assert version.summary["components"] == {"model": "files"}
    assert "words.npy: kept as it is" in caplog.text


# -- hostile --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".keras", ".pt", ".pt2", ".safetensors", ".onnx", ".h5", ".skops"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_known_under_every_name(catalog: Catalog, tmp_path: Path, suffix: str, protocol: int) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Canary(), protocol))
    with pytest.raises(NotTrusted, match=rf"model{suffix} is a pickle"):
        catalog.import_(path)


DEFLATED = zipfile.ZIP_DEFLATED
REDUCE = {"__loader__": "ReduceNode", "__module__": "os", "__class__": "system"}
HOSTILE = {
    "bomb.npz": zipped({"a.npy": npy(np.zeros(1 << 23))}, DEFLATED),
    "climbs.npz": zipped({"../../a.npy": npy(W)}),
    "backwards.npz": zipped({"..\\..\\a.npy": npy(W)}),
    "drive.npz": zipped({"C:/a.npy": npy(W)}),
    "link.npz": link("a.npy", "/etc/passwd"),
    "absolute.npz": zipped({"/tmp/a.npy": npy(W)}),
    "locked.npz": encrypted(zipped({"a.npy": npy(W)})),
    "longer.npz": saying(zipped({"a.npy": npy(np.zeros(1 << 16))}, DEFLATED), (1 << 19) + 128, 640),
    "objects.npz": zipped({"a.npy": npy(np.array([Canary()], dtype=object))}),
    "objects.npy": npy(np.array([Canary()], dtype=object)),
    "twice.npz": twice(npy(W), npy(W)),
    "lies.safetensors": safetensors(b"1234", 1 << 42),
    "short.safetensors": safetensors(bytes(12)),
    "overlaps.safetensors": safetensors(
        header={name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in "ab"}
    ),
    "head.safetensors": (99_000_000).to_bytes(8, "little") + b"{" + bytes(100),
    "deep.safetensors": (1 << 20).to_bytes(8, "little") + b'{"w":' + b"[" * ((1 << 20) - 5),
    "lies.npy": npy(W)[:-4],
    "lambda.keras": keras_file(layer("Lambda"), b"\x89HDF\r\n\x1a\n"),
    "nested.keras": keras_file(layer("TimeDistributed", layer=layer("Functional", layers=[layer("Lambda")]))),
    "typed.keras": keras_file(layer("__typespec__", "os", spec_name="system")),
    "savedmodel.keras": keras_file(layer("TFSMLayer", call_endpoint="serve")),
    "vocabulary.keras": keras_file(layer("TextVectorization", vocabulary="/etc/passwd")),
    "lookup.keras": keras_file(layer("Sequential", layers=[layer("StringLookup", vocabulary="../secret")])),
    "reduce.skops": zipped({"schema.json": json.dumps(REDUCE).encode()}),
    "sniff.pt": zipped({"sniff/data.pkl": pickle.dumps(Canary()), "sniff/version": b"3\n"}),
    "native.pt2": zipped({"p/models/model.json": b"{}", "p/data/aotinductor/model/a.so": b"\x7fELF" + bytes(60)}),
    "sample.pt2": zipped({"p/models/model.json": b"{}", "p/extra/x.pkl": pickle.dumps(Canary())}),
    "outside.onnx": onnx_file("../../secret"),
    "rooted.onnx": onnx_file("/etc/passwd"),
    "operator.onnx": onnx_file("w.bin", "Run", "evil.corp"),
    "python.onnx": onnx_file("w.bin", "PyOp", "com.microsoft"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_files_are_refused_in_one_line(catalog: Catalog, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    with pytest.raises((NotTrusted, SerializationError)) as caught:
        catalog.import_(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    assert len(catalog.models()) == 0


@pytest.mark.parametrize("name", ["bomb.npz", "climbs.npz", "lies.safetensors", "short.safetensors"])
def test_broken_archives_are_refused_with_unsafe_too(catalog: Catalog, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    with pytest.raises(SerializationError):
        catalog.import_(tmp_path / name, unsafe=True)


def test_links_lead_nowhere_else(catalog: Catalog, mlflow_folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    (mlflow_folder / "notes.txt").symlink_to(secret)
    with pytest.raises(SerializationError, match=r"notes.txt is a link that leads out of model"):
        catalog.import_(mlflow_folder)
    (mlflow_folder / "notes.txt").unlink()
    (mlflow_folder / "more").symlink_to(tmp_path)
    with pytest.raises(SerializationError, match="more is a link to a folder"):
        catalog.import_(mlflow_folder)
    (mlflow_folder / "more").unlink()
    os.mkfifo(mlflow_folder / "pipe")
    with pytest.raises(SerializationError, match="pipe is no file"):
        catalog.import_(mlflow_folder)


def test_a_folder_that_cannot_be_listed_is_not_left_out(catalog: Catalog, mlflow_folder: Path) -> None:
    place = os.open(mlflow_folder, os.O_RDONLY)
    for _ in range(20):  # together longer than a path may be
        os.mkdir("x" * 250, dir_fd=place)
        inner = os.open("x" * 250, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    with pytest.raises(CatalogError) as caught:
        catalog.import_(mlflow_folder)
    assert "\n" not in str(caught.value) and len(catalog.models()) == 0


def test_what_the_client_of_the_hub_keeps_for_itself_is_left(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "local"
    (folder / ".cache/huggingface/download").mkdir(parents=True)
    for name, data in (("config.json", b"{}"), ("model.safetensors", tensors(w=W)), (".gitignore", b"*")):
        (folder / name).write_bytes(data)
    for name in (".gitignore", "CACHEDIR.TAG", "download/config.json.metadata", "download/config.json.lock"):
        (folder / ".cache/huggingface" / name).write_bytes(b"")
    (version,) = catalog.import_(folder)
    names = {file.name for file in catalog.artifact(version).manifest.component("files").files}
    assert names == {"config.json", ".gitignore"}


def test_a_blob_outside_of_the_cache_is_not_followed(catalog: Catalog, tmp_path: Path) -> None:
    folder = cache(tmp_path, SHARDED)
    (tmp_path / "secret").write_text("password")
    (folder / "snapshots" / "5f0c8a" / "extra.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(SerializationError, match="leads out of models--cern--gan"):
        catalog.import_(folder)


@pytest.mark.parametrize(
    "words",
    [
        "!!python/object/apply:os.system ['touch canary']",
        "flavors: {sklearn: {pickled_model: !!python/object/new:os.system ['touch canary']}}",
        laughs(9),
        laughs(9, merged=True),
        "flavors: &f\n  x: *f\n",
        "[" * 5000,
        "\x00",
        "flavors: []",
        "- list",
        "",
    ],
)  # fmt: skip
def test_a_hostile_mlmodel_is_refused_in_one_line(catalog: Catalog, mlflow_folder: Path, words: str) -> None:
    (mlflow_folder / "MLmodel").write_text(words)
    with pytest.raises(SerializationError) as caught:
        catalog.import_(mlflow_folder)
    assert "\n" not in str(caught.value) and "MLmodel" in str(caught.value)


@pytest.mark.parametrize("place", ["../../secret", "/etc/passwd", "data/../..", "nowhere"])
def test_a_flavor_names_nothing_outside(catalog: Catalog, mlflow_folder: Path, place: str) -> None:
    (mlflow_folder / "MLmodel").write_text(f"flavors: {{onnx: {{data: {place}}}}}\n")
    (version,) = catalog.import_(mlflow_folder)
    assert version.summary["components"]["model"] == "safetensors"


# -- fuzz -----------------------------------------------------------------------------------------------------------

words = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def as_json(make: Any) -> Any:
    """The JSON of what `make` gives for any plain value."""
    return words.map(lambda value: json.dumps(make(value)).encode())


noise = st.binary(max_size=300) | st.text(alphabet="abc:- \n{}[]&*!'\"#<>|%@,", max_size=200).map(str.encode)


def read(door: Any, folder: Path) -> None:
    """A door gives something, or an error of ours in one line."""
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        try:
            door.read(folder, Path(scratch), False)
        except CatalogError as exc:
            assert "\n" not in str(exc) and len(str(exc)) < 1500


@fuzz
@given(
    told=noise | as_json(lambda v: v),
    index=noise | as_json(lambda v: {"weight_map": v}),
    card=noise | as_json(lambda v: v).map(lambda head: b"---\n" + head + b"\n---\n"),
)
def test_fuzz_huggingface(tmp_path: Path, told: bytes, index: bytes, card: bytes) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir(exist_ok=True)
    for name, data in {
        **SHARDED,
        "config.json": told,
        "README.md": card,
        "model.safetensors.index.json": index,
    }.items():
        (folder / name).write_bytes(data)
    read(huggingface, folder)


@fuzz
@given(told=noise | st.binary(max_size=60).map(lambda data: CONFIG.encode()[: len(data) * 7] + data))
def test_fuzz_triton(repository: Path, told: bytes) -> None:
    (repository / "config.pbtxt").write_bytes(told)
    read(triton, repository)


@fuzz
@given(cut=st.integers(0, 400), junk=st.binary(max_size=20))
def test_fuzz_safetensors_headers(tmp_path: Path, cut: int, junk: bytes) -> None:
    path, data = tmp_path / "model.safetensors", tensors(w=W, v=W)
    path.write_bytes(data[:cut] + junk + data[cut + len(junk) :])
    looked = look({"model.safetensors": path})
    try:
        looked.refuse(["model.safetensors"])
    except CatalogError:
        return
    if looked.kinds["model.safetensors"] == "safetensors":
        content = path.read_bytes()
        parse_header(lambda start, length: content[start : start + length], len(content))


def test_text_format_nests_and_counts() -> None:
    assert text.pbtxt("a { b { c: 1 } } a: 2 d: [1, 'x']", "it") == {"a": [{"b": [{"c": [1]}]}, 2], "d": [1, "x"]}
    for broken in ("a {", "}", "a: ]", "a", ": 1", "a: [", "a {" * 100 + "}" * 100, "1: 2"):
        with pytest.raises(SerializationError):
            print(text.pbtxt(broken, "it"))


def test_a_tree_has_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="holds no files"):
        tree(tmp_path)
    monkeypatch.setattr("catalog_doors.look.MAX_FILES", 1)
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    with pytest.raises(InvalidInput, match="more than 1 files"):
        tree(tmp_path)


def test_the_dtype_of_a_signature_allocates_nothing(tmp_path: Path) -> None:
    (tmp_path / "example.json").write_text('{"inputs": [1, 2]}')
    found = files.Found(about={"entry_points": {"predict": "model"}})
    huge = [example.Tensor("x", "U500000000", (None,))]
    tracemalloc.start()
    assert not example.read(found, tmp_path / "example.json", huge)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
