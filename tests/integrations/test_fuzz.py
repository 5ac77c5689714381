"""Readers of strangers' bytes, fed with damaged ones: a value, or one of the catalog's own errors, in a bounded number
of calls and bounded memory. Hypothesis prints what repeats a failure."""

from __future__ import annotations

import io
import json
import pickle
import sys
import tempfile
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import keras_file, layer, npy, onnx_file, safetensors, saved_model, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog_ads import archive, runtime, schema
from catalog_core.codec import manifest_of
from catalog_core.errors import CatalogError
from catalog_core.layout import read_layout
from catalog_core.tensors import parse_header
from catalog_core.testing.memory import memory_catalog
from catalog_doors import bentoml, mlflow, text, triton
from catalog_scan import pickles, wire
from catalog_scan.scanner import Scanner

MEMORY = 64 << 20  # bytes; what is read has a few hundred
CALLS = 300_000  # of functions, Python's and C's
FUZZ = settings(
    max_examples=120, deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


ODD = [b"9" * 19, b"-1", b"1e999", b"NaN", b"null", b"[" * 3000, b"{}", b"\xff" * 9, b"\0" * 8]


@st.composite
def damaged(draw: Any, whole: bytes) -> bytes:
    """The bytes after a few cuts, flips and insertions; also of pieces of themselves, so that lengths lie."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(len(data), at + 12)) | st.just(len(data)))
        begin = draw(st.integers(0, len(whole)))
        piece = st.just(whole[begin : begin + 40])
        numbers = st.sampled_from(
            [b"9" * 19, b"-1", b"1e999", b"NaN", b"null", b"[" * 3000, b"{}", b"\xff" * 9, b"\0" * 8]
        )
        data[at:end] = draw(st.binary(max_size=8) | piece | numbers)
    return bytes(data)


@contextmanager
def bounded(*own: type[Exception]) -> Iterator[None]:
    """Nothing but the catalog's errors, and those of `own`, comes out, each in one line; and little memory is taken, by
    few calls. (Where one call of C takes too long, pytest's own timeout ends the test.)"""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        assert calls < CALLS, "too many calls"

    tracemalloc.start()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    except CatalogError as exc:
        assert "\n" not in str(exc) and len(str(exc)) < 1500
    except own:
        pass
    finally:
        sys.setprofile(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY


def stored() -> tuple[bytes, bytes]:
    """The manifest and the layout of a version with all that a manifest may have."""
    with memory_catalog() as catalog:
        with catalog.prepare(
            "m", components={"w": {"a": np.ones(3)}, "v": [np.ones(2), 1]}, serializer={"v": "pytree"},
            taxonomy={"framework": "numpy"}, custom={"k": {"value": 1}}, seed=1,
        ) as draft:  # fmt: skip
            version = draft.save()
        layout = draft._layout
        return catalog.repository.content.blob(version.digest, "it"), catalog.repository.content.blob(layout, "it")


MANIFEST, LAYOUT = stored()
MLMODEL = b"""\
artifact_path: higgs
flavors:
  python_function: {data: data, env: {conda: conda.yaml}, loader_module: our.loader}
metadata: {team: ep-sft, epochs: 3}
run_id: 0123456789abcdef0123456789abcdef
saved_input_example_info: {artifact_path: input_example.json, pandas_orient: split, type: dataframe}
signature:
  inputs: '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]'
  outputs: '[{"type": "double", "name": "y", "required": true}]'
  params: null
utc_time_created: '2026-11-25 15:10:06.544247'
"""
EXAMPLE = b'{"columns": ["a", "b", "c"], "data": [[1.0, 2, 3], [4, 5, 6]]}'
MODEL_YAML = b"""\
name: calo
version: 6xhb2zsrkgxz3kx4
module: bentoml.picklable_model
labels: {stage: dev}
metadata: {loss: 0.25}
signatures: {predict: {batchable: true, batch_dim: [0, 0]}}
creation_time: '2026-11-25T15:10:06.544247+00:00'
"""
CONFIG = b"""\
name: "calo"  # of the detector
platform: 'onnxruntime_onnx'
max_batch_size: 8
input [ { name: "x", data_type: TYPE_FP32 dims: [ -1, 3 ] }, { name: "n" data_type: TYPE_INT64 dims: [] } ]
output { name: "y"; data_type: TYPE_BF16; dims: 2 }
"""
RUNTIME = b"""\
MODEL_ARTIFACT_VERSION: '3.0'
MODEL_DEPLOYMENT:
  INFERENCE_CONDA_ENV: {INFERENCE_ENV_SLUG: a, INFERENCE_ENV_TYPE: data_science, INFERENCE_PYTHON_VERSION: '3.11'}
MODEL_PROVENANCE: {TRAINING_CODE: {ARTIFACT_DIRECTORY: a}}
"""
FIELD = {"dtype": "float64", "feature_type": "Continuous", "name": "a", "domain": {}, "required": True}
SCHEMA = json.dumps({"schema": [FIELD], "version": "1.1"}).encode()
HEADER = safetensors(
    header={"__metadata__": {"a": "b"}, "w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
)


@FUZZ
@given(damaged(MANIFEST))
def test_manifests(data: bytes) -> None:
    with bounded():
        manifest_of(data)


@FUZZ
@given(damaged(LAYOUT))
def test_layouts(data: bytes) -> None:
    with bounded():
        read_layout(data)


@FUZZ
@given(damaged(HEADER))
def test_headers_of_safetensors(data: bytes) -> None:
    with bounded():
        for entry in parse_header(lambda start, length: data[start : start + length], len(data)).entries:
            assert 8 <= entry.start <= entry.end <= len(data)


def door(read: Callable[..., Any], files: Mapping[str, bytes]) -> None:
    """What a door makes of a folder."""
    with tempfile.TemporaryDirectory() as name, bounded():
        folder = Path(name) / "in"
        for file, data in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
        (Path(name) / "scratch").mkdir()
        read(folder, Path(name) / "scratch", False)


@FUZZ
@given(damaged(MLMODEL), st.just(EXAMPLE) | damaged(EXAMPLE))
def test_models_of_mlflow(told: bytes, example: bytes) -> None:
    door(mlflow.read, {"MLmodel": told, "data/w.safetensors": safetensors(), "input_example.json": example})


@FUZZ
@given(damaged(MODEL_YAML))
def test_models_of_bentoml(told: bytes) -> None:
    door(bentoml.read, {"model.yaml": told, "w.safetensors": safetensors()})


@FUZZ
@given(damaged(CONFIG))
def test_models_of_triton(told: bytes) -> None:
    door(triton.read, {"config.pbtxt": told, "1/w.safetensors": safetensors()})


@FUZZ
@given(damaged(b"---\nlicense: mit\nlanguage: [en, fr]\ntags: &t\n- a\nmore: *t\n---\n# A GAN\n"))
def test_heads_of_model_cards(card: bytes) -> None:
    with bounded():
        text.tags(text.card_head(text.decoded(card, "it"), "it"))


@FUZZ
@given(damaged(RUNTIME), damaged(SCHEMA), damaged(b'{"version": 1, "files": {"a": {"sha256": "0", "size": 1}}}'))
def test_what_ads_keeps_beside_a_model(told: bytes, described: bytes, manifest: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / archive.RUNTIME).write_bytes(told)
        (folder / schema.INPUT).write_bytes(described)
        (folder / archive.MANIFEST).write_bytes(manifest)
        for read in (
            lambda: runtime.flat_runtime(runtime.read_runtime(folder)),
            lambda: schema.read_schema(folder / schema.INPUT),
            lambda: archive.check_manifest(folder),
        ):
            with bounded():
                read()


PLAIN = {"a": [1, 2.5, None, (1, 2)], "b": np.arange(3), "c": OrderedDict(x=1), "d": {1, 2}, "e": b"x" * 40}


@pytest.mark.parametrize("protocol", range(6))
@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_pickles(protocol: int, data: st.DataObject) -> None:
    changed = data.draw(damaged(pickle.dumps(PLAIN, protocol)))
    with bounded():
        pickles.looks_like(memoryview(changed))
        assert all(rule and cause for rule, cause in pickles.check(memoryview(changed)))


GRAPH = saved_model("MatMul", "own", functions={"own": ("Relu", "call:f"), "f": ("SaveV2",)}, entry="own", asset="a")


@FUZZ
@given(damaged(GRAPH), damaged(onnx_file("w.bin")))
def test_graphs(tensorflow: bytes, onnx: bytes) -> None:
    for read, data in ((wire.tensorflow, tensorflow), (wire.onnx, onnx), (wire.looks_like, tensorflow + onnx)):
        with bounded(ValueError):
            read(memoryview(data))


FILES = {
    "a.npy": npy(np.ones((2, 3))), "a.safetensors": HEADER, "saved_model.pb": GRAPH, "a.onnx": onnx_file("w.bin"),
    "a.keras": keras_file(layer("Dense", units=3)), "a.pkl": pickle.dumps(PLAIN),
    "a.npz": zipped({"a.npy": npy(np.ones(20)), "b.json": json.dumps(PLAIN["a"]).encode()}, 8),
    "a.pt": zipped({"a/data.pkl": pickle.dumps(PLAIN, 2), "a/version": b"3", "a/data/0": bytes(8)}),
    "a.zip": zipped({"a.zip": zipped({"b": b"text" * 30}, 8), "c/d": b"x"}, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@settings(FUZZ, max_examples=60)
@given(data=st.data())
def test_the_scanner(name: str, data: st.DataObject) -> None:
    changed = data.draw(damaged(FILES[name]))
    scanner = Scanner()
    with bounded():
        scanner.look(name, memoryview(changed), name, [name])
    assert all("\n" not in f"{found.file}{found.rule}{found.cause}" for found in scanner.findings)


def hdf5() -> bytes:
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["model_config"] = json.dumps(layer("Dense", units=3))
        file.create_dataset("layers/w", data=np.ones((30, 4)), chunks=(10, 4), compression="gzip")
        file["names"] = np.array(["a", "bc"], h5py.string_dtype())
    return buffer.getvalue()


@settings(FUZZ, max_examples=15)
@given(data=st.data())
def test_files_of_hdf5(monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    monkeypatch.setattr("catalog_scan.hdf5.SECONDS", 3.0)
    changed = data.draw(damaged(hdf5()))
    with bounded():
        Scanner().look("a.h5", memoryview(changed), "a.h5", ["a.h5"])


@FUZZ
@given(damaged(zipped({"score.py": b"x = 1\n" * 20, "runtime.yaml": RUNTIME, "d/e": b"x"}, 8)))
def test_zip_files_are_unpacked_inside_or_not_at_all(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "out"
        folder.mkdir()
        (Path(name) / "a.zip").write_bytes(data)
        with bounded():
            archive.unpack(Path(name) / "a.zip", folder)
        assert sorted(path.name for path in Path(name).iterdir()) == ["a.zip", "out"]
