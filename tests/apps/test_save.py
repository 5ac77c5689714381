"""`catalog save` takes what `Catalog.save` takes, reads examples from files, and leaves nothing where it is refused."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import click
import numpy as np
import pytest

from catalog_cli.examples import read
from catalog_cli.saving import axes, save_command
from catalog_core import Catalog, folders
from catalog_core.draft import Draft
from catalog_core.errors import InvalidInput

OPTIONS = {  # keyword of `Catalog.save` → how the command has it; None where only a program can give it
    "components": "component", "tags": "tag", "metrics": "metric", "params": "param", "parents": "parent",
    "options": "option", "datasets": "dataset", "entry_points": "entry_point",
    "provenance": None,  # what is captured in the working folder
    "tensors": None,  # a table of tables
    "baseline": None,  # arrays
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command):
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CATALOG", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    Path("w.bin").write_bytes(b"weights")
    return command


def test_the_command_has_an_option_for_each_keyword() -> None:
    names = {param.name for param in save_command.params}
    keywords = [*inspect.signature(Draft).parameters, *inspect.signature(Catalog.save).parameters]
    for keyword in keywords:
        if keyword in ("self", "catalog", "name", "obj", "about"):
            continue
        option = OPTIONS.get(keyword, keyword)
        option = "aliases" if option == "alias" else option
        assert option is None or option in names, keyword


def test_what_is_said_beside_is_kept(run, tmp_path: Path) -> None:
    Path("card.md").write_text("---\nlicense: apache-2.0\n---\n# GAN\n")
    Path("data.csv").write_text("x\n1\n")
    assert run("save", "gan", "w.bin").returncode == 0
    done = run(
        "save", "gan", "--component", "net=w.bin", "--parent", "gan@1", "--stage", "tested", "--alias", "best",
        "--taxonomy", "use_case=fast_simulation", "--custom", "beam=2026-10", "--seed", "7", "--run", "r1",
        "--dataset", "train=data.csv", "--dataset", "test=https://opendata.cern.ch/1", "--card", "card.md",
        "--description", "a gan", "--param", "lr=0.1",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    with Catalog.open(tmp_path / "models") as catalog:
        version = catalog.version("gan@best")
        assert (version.stage, version.number, version.description) == ("tested", 2, "a gan")
        assert version.taxonomy == {"use_case": "fast_simulation"}
        manifest = version.artifact.manifest
        assert manifest.custom["beam"]["value"] == "2026-10"
        told = manifest.provenance
        assert (told["seed"], told["run"]["id"], told["parents"]) == (7, "r1", ["gan@1"])
        assert told["datasets"]["train"]["size"] == 4
        assert told["datasets"]["test"] == {"reference": "https://opendata.cern.ch/1"}
        assert catalog.model("gan").card_data["license"] == "apache-2.0"


def test_an_example_in_a_file_makes_a_model_that_a_session_runs(run, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, "neg.onnx")
    np.savez("x.npz", x=np.ones((2, 3), "f4"))
    np.save("x.npy", np.ones((2, 3), "f4"))
    Path("x.json").write_text(json.dumps({"x": {"dtype": "float32", "values": [[1, 1, 1], [1, 1, 1]]}}))
    for file in ("x.npz", "x.npy", "x.json"):
        done = run("save", "neg", "neg.onnx", "--example", file, "--axes", "x:0=batch")
        assert (done.returncode, done.stderr) == (0, ""), file
        with Catalog.open(tmp_path / "models") as catalog, catalog.session("neg") as session:
            (name,) = session.entry_points
            got = getattr(session, name)(x=np.ones((5, 3), "f4"))
            assert np.all(np.asarray(next(iter(got.values())) if isinstance(got, dict) else got) == -1)
            assert catalog.artifact("neg").manifest.entry_points[0].inputs[0].shape[0] == "batch"


def test_examples_are_read_by_their_kind(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("e,n,name\n0.5,1,µ\n1.5,2,e\n")
    table = read(tmp_path / "a.csv")
    assert [value.dtype.kind for value in table.values()] == ["f", "i", "U"]
    (tmp_path / "a.json").write_text('{"x": [[1, 2]], "on": [true]}')
    found = read(tmp_path / "a.json")
    assert (found["x"].shape, found["on"].dtype) == ((1, 2), np.bool_)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npz", b"no zip"), ("a.npy", b"no array"), ("a.json", b"{"), ("a.json", b'{"x": [[1], [1, 2]]}'),
        ("a.json", b'{"x": null}'), ("a.json", b'{"x": {"dtype": "object", "values": [1]}}'), ("a.json", b"\xff"),
        ("a.csv", b"x\n"), ("a.csv", b"x,x\n1,2\n"), ("a.csv", b"x,y\n1\n"), ("a.pkl", b"x"), ("a", b"x"),
        ("a.json", b"[" * 100_000),
    ],
)  # fmt: skip
def test_what_is_no_example_is_one_error_that_names_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match="a") as caught:
        read(tmp_path / name)
    assert name in caught.value.message
    assert caught.value.hint


def test_an_example_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([{"x": 1}], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InvalidInput, match="cannot be read"):
            read(tmp_path / name)


def test_axes_are_written_by_input_and_number() -> None:
    assert axes(["x:0=batch,2=height", "y:1"]) == {"x": {0: "batch", 2: "height"}, "y": {1: None}}
    assert axes(["gen/x:0=batch"]) == {"gen": {"x": {0: "batch"}}}
    assert axes([]) is None
    for wrong in ("x", "x:", ":0", "x:a=1", "x:0=batch,0=b", "x:0=a b"):
        with pytest.raises(click.UsageError):
            axes([wrong])


REFUSED = [
    ("save", "bad!", "w.bin"), ("save", "x", "nowhere"), ("save", "x", "w.bin", "--metric", "a=b"),
    ("save", "x", "w.bin", "--metric", "a=nan"), ("save", "x", "w.bin", "--alias", "7"),
    ("save", "x", "w.bin", "--tag", "=1"),
    ("save", "x", "w.bin", "--serializer", "zz"), ("save", "x", "w.bin", "--serializer", "n=files"),
    ("save", "x", "w.bin", "--parent", "y@1"), ("save", "x", "w.bin", "--example", "no.npz"),
    ("save", "x", "w.bin", "--stage", "zz"), ("save", "x", "w.bin", "--card", "no.md"),
    ("save", "x", "w.bin", "--axes", "zz"), ("save", "x", "w.bin", "--taxonomy", "use_case=zz"),
    ("save", "x", "--component", "a/b=w.bin"), ("import", "nowhere"), ("import", "w.bin", "bad!"),
    ("import", "w.bin", "--format", "zz"), ("list",), ("show", "x"), ("tag", "x@1", "a=1"), ("history",),
]  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_a_refused_call_makes_no_catalog(run, tmp_path: Path, words: tuple[str, ...]) -> None:
    before = sorted(os.listdir(tmp_path))
    for place in ("./new", f"file://{tmp_path}/new"):
        done = run("-c", place, *words)
        assert done.returncode in (1, 2), words
        assert sorted(set(os.listdir(tmp_path)) - {"cache"}) == [name for name in before if name != "cache"], words


@pytest.mark.parametrize(
    "words",
    [
        ("copy", "x@1", "./new", "--name", "bad!"), ("copy", "x@7", "./new"), ("copy", "y", "./new"),
        ("copy", "x:a@1", "./new"), ("export", "x@7", "new"), ("export", "x@1", "new", "--format", "zz"),
        ("export", "x@1", "new", "--format", "ads"), ("export", "new", "--format", "zz"), ("download", "x@7", "new"),
        ("download", "x@1#zz", "new"), ("env", "create", "x@7", "new"),
        ("attach", "x@1", "new", "--get", "--name", "z"),
    ],
)  # fmt: skip
def test_a_refused_call_makes_nothing_at_its_target(run, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert run("save", "x", "w.bin").returncode == 0
    before = sorted(os.listdir(tmp_path))
    assert run(*words).returncode in (1, 2)
    assert sorted(os.listdir(tmp_path)) == before


ENDLESS = ["pipe", "/dev/zero", "/proc/kmsg", "/proc/version"]


@pytest.mark.parametrize("path", ENDLESS)
@pytest.mark.parametrize(
    "words",
    [
        ("card", "x", "PATH"), ("save", "x", "PATH"), ("save", "x", "w.bin", "--card", "PATH"),
        ("save", "x", "w.bin", "--dataset", "a=PATH"), ("save", "x", "w.bin", "--example", "PATH"),
        ("attach", "x@1", "PATH", "--name", "a"), ("import", "PATH", "y"),
    ],
)  # fmt: skip
def test_only_files_that_end_are_read(run, path: str, words: tuple[str, ...]) -> None:
    assert run("save", "x", "w.bin").returncode == 0
    os.mkfifo("pipe")
    if not os.access(path, os.R_OK):
        pytest.skip(f"{path} cannot be read here")
    if path == "/proc/version" and "card" in words[0] + "".join(words[3:4]):
        return  # a text with an end, which is no file to be kept
    done = run(*(word.replace("PATH", path) for word in words))
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: ")
    assert run("--json", "list", "x").stdout.count('"ref"') == 1


@pytest.mark.parametrize("path", ENDLESS[:3])
def test_a_configuration_is_a_file(run, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    os.mkfifo("pipe")
    monkeypatch.setenv("CATALOG_CONFIG", path)
    monkeypatch.delenv("CATALOG")
    done = run("list")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the configuration {'' if path[0] == '/' else os.getcwd() + '/'}{path}" in done.stderr


def test_the_content_of_a_file_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x" * 100)
    assert folders.content(file, 100) == b"x" * 100
    with pytest.raises(InvalidInput, match="100 bytes; 99 are allowed"):
        folders.content(file, 99)
    with pytest.raises(InvalidInput, match="a folder"):
        folders.content(tmp_path, 99)
    (tmp_path / "empty").touch()
    assert folders.content(tmp_path / "empty", 1) == b""
    assert folders.read(tmp_path).files.keys() == {"a", "empty"}
