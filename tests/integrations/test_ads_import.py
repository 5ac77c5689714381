"""Artifacts of ADS, read without running them: foreign ones, damaged ones, hostile ones."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog_ads import archive, introspection, reader, runtime
from catalog_core import Catalog
from catalog_core.errors import (
    CatalogError,
    IntegrityError,
    InvalidInput,
    NotTrusted,
    SerializationError,
)
from catalog_core.testing.memory import memory_catalog

SCORE = """
import os
open(os.environ["CANARY"], "w").close()
def load_model(model_file_name="model.pkl"):
    return 3
def predict(data, model=load_model(), input_schema_path="input_schema.json"):
    return {"prediction": [model * item for item in data]}
"""
RUNTIME = """# as ADS writes it
MODEL_ARTIFACT_VERSION: '3.0'
MODEL_DEPLOYMENT:
  INFERENCE_CONDA_ENV:
    INFERENCE_ENV_PATH: oci://packs@space/conda/generalml_p38_cpu_v1
    INFERENCE_ENV_SLUG: generalml_p38_cpu_v1
    INFERENCE_ENV_TYPE: data_science
    INFERENCE_PYTHON_VERSION: '3.8'
MODEL_PROVENANCE:
  PROJECT_OCID: ''
  TRAINING_CODE:
    ARTIFACT_DIRECTORY: /home/datascience/out
  TRAINING_CONDA_ENV:
    TRAINING_ENV_PATH: ''
    TRAINING_PYTHON_VERSION: 3.8
  TRAINING_REGION: eu-frankfurt-1
"""
SCHEMA = {
    "version": "1.1",
    "schema": [{"dtype": "float64", "feature_type": "Continuous", "name": "x", "required": True, "order": 0}],
}
FOREIGN: dict[str, bytes] = {
    "score.py": SCORE.encode(),
    "runtime.yaml": RUNTIME.encode(),
    "model.pkl": b"cos\nsystem\n(S'true'\ntR.",
    "input_schema.json": json.dumps(SCHEMA).encode(),
    "hyperparameters.json": b'{"depth": 3, "name": "a", "inner": {"a": 1}, "nothing": null}',
    "test_json_output.json": b'{"score_py": {"success": true}}',
    "größe/日本.txt": b"a name",
}


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with memory_catalog() as made:
        yield made


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that appears where `score.py` is run."""
    path = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(path))
    yield path


def manifest(files: Mapping[str, bytes]) -> bytes:
    told = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()}
    return json.dumps({"version": 1, "generated_by": "ADS", "files": told}).encode()


def listed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {**files, archive.MANIFEST: manifest(files)}


def lay(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path: Path, files: Mapping[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def test_an_artifact_of_ads_is_kept_and_runs_with_trust_only(catalog: Catalog, tmp_path: Path, canary: Path) -> None:
    (version,) = catalog.import_(lay(tmp_path / "my model", listed(FOREIGN)))
    assert version.ref == "my-model@1"
    assert version.params["depth"] == 3 and version.params["name"] == "a"
    told = version.manifest.provenance["imported"]
    assert told["format"] == "ads"
    assert told["runtime"] == {
        "inference_conda_env": "oci://packs@space/conda/generalml_p38_cpu_v1",
        "inference_env_slug": "generalml_p38_cpu_v1",
        "inference_env_type": "data_science",
        "inference_python_version": "3.8",
        "training_code": "/home/datascience/out",
        "training_python_version": "3.8",
        "training_region": "eu-frankfurt-1",
    }
    assert version.attachment("ads/input_schema.json") == FOREIGN["input_schema.json"]
    with pytest.raises(NotTrusted):
        catalog.load(version)
    assert not canary.exists()
    with catalog.session(version, trust=True) as session:
        assert session.run("predict", {"data": [1, 2]})["prediction"].tolist() == [3, 6]
    assert canary.exists()


def test_it_goes_out_again_as_it_was(catalog: Catalog, tmp_path: Path) -> None:
    (version,) = catalog.import_(lay(tmp_path / "in", listed(FOREIGN)))
    catalog.export(version, tmp_path / "out", format="ads")
    for name, data in FOREIGN.items():
        assert (tmp_path / "out" / name).read_bytes() == data
    (again,) = catalog.import_(tmp_path / "out")
    assert again.ref == "in@2" and again.manifest.components == version.manifest.components
    told = again.manifest.provenance["imported"]
    assert told["runtime"] == version.manifest.provenance["imported"]["runtime"]


def test_a_zip_is_read_at_its_top_or_in_its_only_folder(catalog: Catalog, tmp_path: Path) -> None:
    (one,) = catalog.import_(zipped(tmp_path / "a.zip", listed(FOREIGN)))
    (two,) = catalog.import_(zipped(tmp_path / "b.zip", {f"inner/{n}": d for n, d in listed(FOREIGN).items()}))
    (three,) = catalog.import_(zipped(tmp_path / "c.zip", FOREIGN))
    assert one.manifest.components == two.manifest.components == three.manifest.components


def refused(catalog: Catalog, path: Path, match: str, kind: type[CatalogError] = SerializationError) -> None:
    with pytest.raises(kind, match=match) as caught:
        catalog.import_(path)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
    assert len(catalog.models()) == 0


def test_hostile_zips_are_refused(catalog: Catalog, tmp_path: Path, canary: Path) -> None:
    base = dict(FOREIGN)
    for name in ("../out.txt", "/etc/out.txt", "a/../../out.txt", "a\\..\\out.txt", "C:/out.txt"):
        refused(catalog, zipped(tmp_path / "t.zip", {**base, name: b"x"}), "file name", CatalogError)
    refused(catalog, zipped(tmp_path / "t.zip", {**base, "zeros": bytes(300 << 20)}), "unpacks to 314,57")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "t.zip", "w") as file:
        for name, data in [*base.items(), ("score.py", b"other")]:
            file.writestr(name, data)
    refused(catalog, tmp_path / "t.zip", "two members 'score.py'")
    refused(catalog, zipped(tmp_path / "t.zip", {**base, "Score.py": b"x"}), "two members 'Score.py'")
    refused(catalog, zipped(tmp_path / "t.zip", {**base, "score.py/x": b"x"}), "lies in a file", InvalidInput)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as file:
        for name, data in base.items():
            file.writestr(name, data)
        file.writestr(link, "/etc/passwd")
    refused(catalog, tmp_path / "t.zip", "'link' is a link")
    data = zipped(tmp_path / "t.zip", base, zipfile.ZIP_STORED).read_bytes()
    (tmp_path / "t.zip").write_bytes(data.replace(b"cos\nsystem", b"cos\nSystem"))
    refused(catalog, tmp_path / "t.zip", "no readable zip file")
    (tmp_path / "t.zip").write_bytes(lying(data, len(FOREIGN["model.pkl"]), 5))
    refused(catalog, tmp_path / "t.zip", "no readable zip file|says that|than it says")
    (tmp_path / "t.zip").write_bytes(b"PK\x03\x04" + bytes(50))
    refused(catalog, tmp_path / "t.zip", "no readable zip file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.zip"] and not canary.exists()


def lying(data: bytes, size: int, said: int) -> bytes:
    """The archive, saying that its members of `size` bytes have `said`."""
    return data.replace(struct.pack("<II", size, size), struct.pack("<II", said, said))


def test_damaged_folders_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    def changed(**files: bytes) -> Path:
        told = {**FOREIGN, **{name.replace("__", "."): data for name, data in files.items()}}
        return lay(tmp_path / f"n{len(list(tmp_path.iterdir()))}", told)

    deep = "a: " + "[" * 40 + "]" * 40
    bomb = "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n"
    for text in ("", "just text", "a: [", "a: !!python/object:os.system {}", deep, bomb, "\x00", "a: b\n" * 300_000):
        refused(catalog, changed(runtime__yaml=text.encode()), "runtime.yaml", CatalogError)
    refused(catalog, changed(runtime__yaml=b"\xff\xfe\x00"), "no text in UTF-8")
    nested = '{"schema": ' + "[" * 70 + "]" * 70 + "}"
    for text in ("{", "[]", '{"schema": 3}', '{"schema": [1]}', "[" * 100_000, nested, '{"a": "\\ud800"}'):
        refused(catalog, changed(input_schema__json=text.encode()), "input_schema.json")
    refused(catalog, changed(score__py=b"def load_model(:"), "is no Python")
    refused(catalog, changed(score__py=b"x = 1"), "does not define load_model")
    wrong = {**listed(FOREIGN), "model.pkl": b"other"}
    refused(catalog, lay(tmp_path / "w1", wrong), "not what the manifest says", IntegrityError)
    more = {**listed(FOREIGN), "more.txt": b"x"}
    refused(catalog, lay(tmp_path / "w2", more), "'more.txt' is not listed", IntegrityError)
    less = {name: data for name, data in listed(FOREIGN).items() if name != "model.pkl"}
    refused(catalog, lay(tmp_path / "w3", less), "'model.pkl' is missing", IntegrityError)
    (lay(tmp_path / "w4", FOREIGN) / "link").symlink_to("/etc/passwd")
    refused(catalog, tmp_path / "w4", "is a link")
    refused(catalog, zipped(tmp_path / "other.zip", {"a.txt": b"x"}), "no artifact of ADS: there is no score.py")


def test_the_checks_of_ads_name_what_is_wrong(tmp_path: Path) -> None:
    def results(**files: bytes) -> dict[str, str]:
        told = {**FOREIGN, **{name.replace("__", "."): data for name, data in files.items()}}
        folder = lay(tmp_path / str(len(list(tmp_path.iterdir()))), {n: d for n, d in told.items() if d})
        return {c.id: c.result for c in introspection.introspect(folder) if c.result not in ("passed", "skipped")}

    scores = {"score_load_model", "score_predict", "score_predict_arg", "score_predict_data", "score_syntax"}
    envs = {"runtime_env_path", "runtime_env_python"}
    assert len(introspection.CHECKS) == 11 and results() == {}
    assert set(results(score__py=b"")) == scores | {"score_py"}
    assert set(results(score__py=b"def (")) == scores
    assert set(results(score__py=b"def predict(data): 1")) == {"score_load_model"}
    body = b"def load_model(): 1\ndef predict(%s): 1"
    assert set(results(score__py=body % b"x, model=1")) == {"score_predict_data", "score_predict_arg"}
    assert set(results(score__py=body % b"data, model")) == {"score_predict_arg"}
    assert set(results(score__py=body % b"data, *, model")) == {"score_predict_arg"}
    assert set(results(runtime__yaml=b"")) == envs | {"runtime_yaml", "runtime_version"}
    assert set(results(runtime__yaml=b"MODEL_ARTIFACT_VERSION: 2.0")) == envs | {"runtime_version"}
    pythons = {"3.6": True, "3.12.1": True, "3.14": True, "3.15": False, "2.7": False, "3.1": False}
    for python, good in pythons.items():
        text = RUNTIME.replace("PYTHON_VERSION: '3.8'", f"PYTHON_VERSION: '{python}'").encode()
        assert ("runtime_env_python" not in results(runtime__yaml=text)) == good
    told = introspection.as_ads(introspection.introspect(lay(tmp_path / "x", FOREIGN)), {"INFERENCE_ENV_PATH": "p"})
    assert set(told) == set(introspection.CHECKS)
    assert told["runtime_env_path"]["value"] == "p" and told["score_py"]["key"] == "score_py"
    assert all({"category", "description", "error_msg"} <= set(row) for row in told.values())


def test_a_written_runtime_has_all_that_ads_asks_for(tmp_path: Path) -> None:
    (tmp_path / "runtime.yaml").write_text(runtime.write_runtime({"training_region": "a: 'b' \u00fc"}), "utf-8")
    told = runtime.read_runtime(tmp_path)
    assert told["MODEL_ARTIFACT_VERSION"] == "3.0"
    assert set(told["MODEL_DEPLOYMENT"]["INFERENCE_CONDA_ENV"]) == set(runtime.INFERENCE.values())
    provenance = told["MODEL_PROVENANCE"]
    assert set(provenance.pop("TRAINING_CONDA_ENV").values()) == set(provenance.pop("TRAINING_CODE").values()) == {""}
    assert set(provenance) == {
        "PROJECT_OCID", "TENANCY_OCID", "TRAINING_COMPARTMENT_OCID", "TRAINING_REGION", "TRAINING_RESOURCE_OCID",
        "USER_OCID", "VM_IMAGE_INTERNAL_ID",
    }  # fmt: skip
    assert runtime.flat_runtime(told) == {"training_region": "a: 'b' \u00fc"}


# -- what we wrote ourselves, damaged ---------------------------------------------------------------------------------


class Files(dict[str, bytes]):
    """Files by name; too many to be printed."""

    def __repr__(self) -> str:
        return f"<{len(self)} files>"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an artifact of ours, of two components that need no framework, and with an example."""
    place = tmp_path_factory.mktemp("ours")
    with memory_catalog() as catalog:
        (place / "own").mkdir()
        (place / "own" / "score.py").write_text("def load_model(): return 2\ndef predict(x, model): return x * model\n")
        version = catalog.save(
            "own", components={"own": place / "own"}, serializer="generic", entry_points={"predict": "own"}
        )
        catalog.export(version, place / "out", format="ads")
        arrays = catalog.save("arrays", {"input:x": np.ones(3, "f4")})
        catalog.download(arrays, place / "arrays")
    weights = (place / "arrays" / "model.safetensors").read_bytes()
    files = {p.relative_to(place / "out").as_posix(): p.read_bytes() for p in (place / "out").rglob("*") if p.is_file()}
    del files[archive.MANIFEST]
    told = json.loads(files["catalog_model.json"])
    digest = "sha256:" + hashlib.sha256(weights).hexdigest()
    file = {"name": "model.safetensors", "digest": digest, "size": len(weights)}
    for name, kind in (("weights", "safetensors"), ("kept", "files")):
        files[f"components/{name}/model.safetensors"] = weights
        part = {"name": name, "serializer": kind, "files": [file], "meta": {}, "inputs": {}}
        told["components"].append({**part, "folder": f"components/{name}"})
    told["example"] = {"serializer": "safetensors", "meta": {}}
    files["example/model.safetensors"] = weights
    files["catalog_model.json"] = json.dumps(told).encode()
    return Files(files)


def test_what_we_wrote_is_read_component_by_component(catalog: Catalog, tmp_path: Path, ours: dict[str, bytes]) -> None:
    (version,) = catalog.import_(lay(tmp_path / "ours", listed(ours)))
    assert version.ref == "own@1"
    assert {c.name: c.serializer for c in version.manifest.components} == {
        "own": "generic", "weights": "safetensors", "kept": "safetensors"
    }  # fmt: skip
    assert catalog.load(version, "weights")["input:x"].tolist() == [1, 1, 1]


TEXT = st.text(st.characters(), max_size=20)  # half surrogate pairs too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
LIMITS = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """All places of a JSON value: (container, key)."""
    found = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += [(value, key), *nodes(item)]
    return found


def one_error(tmp_path_factory: pytest.TempPathFactory, files: Mapping[str, bytes]) -> None:
    """It is imported, or refused with one error of ours."""
    folder = lay(tmp_path_factory.mktemp("fuzz"), files)
    with memory_catalog() as catalog:
        try:
            catalog.import_(folder, "m", format="ads")
        except CatalogError:
            assert len(catalog.models()) == 0


@LIMITS
@given(data=st.data())
def test_any_damage_of_our_description_gives_one_error(
    tmp_path_factory: pytest.TempPathFactory, ours: dict[str, bytes], data: st.DataObject
) -> None:
    told = copy.deepcopy(json.loads(ours["catalog_model.json"]))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(nodes(told)))
        if data.draw(st.booleans()) or isinstance(container, list):
            container[key] = data.draw(JSON)
        else:
            del container[key]
            if not nodes(told):
                break
    text = json.dumps(told).encode()
    one_error(tmp_path_factory, {**ours, "catalog_model.json": text})


@LIMITS
@given(data=st.data())
def test_any_damage_of_a_file_gives_one_error(
    tmp_path_factory: pytest.TempPathFactory, ours: dict[str, bytes], data: st.DataObject
) -> None:
    base = data.draw(st.sampled_from([ours, FOREIGN]))
    name = data.draw(st.sampled_from(sorted(base)))
    content = bytearray(base[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(at, min(len(content), at + 40)))
        content[at:end] = data.draw(st.binary(max_size=20))
    files = {**base, name: bytes(content)}
    one_error(tmp_path_factory, listed(files) if data.draw(st.booleans()) else files)


@LIMITS
@given(data=st.data())
def test_any_damage_of_a_zip_gives_one_error(
    tmp_path_factory: pytest.TempPathFactory, ours: dict[str, bytes], data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as file:
        for name, content in listed(ours).items():
            file.writestr(name, content)
    whole = bytearray(buffer.getvalue())
    ends = len(whole) - 1
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, ends) | st.integers(max(0, ends - 1500), ends))  # the directory is at the end
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(min_size=1, max_size=3))
    path = tmp_path_factory.mktemp("fuzz") / "a.zip"
    path.write_bytes(whole)
    with memory_catalog() as catalog:
        try:
            catalog.import_(path, "m")
        except CatalogError:
            assert len(catalog.models()) == 0


def test_the_reader_alone_needs_no_catalog(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    found = reader.read(lay(tmp_path / "in", FOREIGN), tmp_path / "scratch", False)
    assert list(found.components) == ["artifact"] and "nobody can tell" in found.notes[0]
