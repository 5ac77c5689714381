"""Bad input: one clear line through the API and the command line, no traceback, and nothing is lost."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import (
    BackendError,
    CatalogError,
    InvalidInput,
    InvalidName,
    NoSpace,
    NotFound,
    SerializationError,
)

NAMES = {
    "dots": "..", "dots inside": "a/../b", "leading slash": "/a", "trailing slash": "a/", "two slashes": "a//b",
    "new line": "a\nb", "escape": "a\x1b[31mb", "zero": "a\0b", "tab": "a\tb", "300 characters": "x" * 300,
    "cyrillic": "модель", "chinese": "模型/一", "accent": "é", "emoji": "🦊", "lone surrogate": "a\udcff",
    "blank": "a b", "empty": "", "device": "con", "trailing dot": "a.", "backslash": "a\\b", "full width": "ａ",
}  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "file"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A catalog with two models, and a folder to stand in; at the end it is whole."""
    folder = tmp_path_factory.mktemp("bad")
    url = f"{request.param}://{folder}/catalog"
    (folder / "w.bin").write_bytes(b"weights" * 100)
    (folder / "full").mkdir()
    (folder / "full" / "note").write_text("here already")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATALOG_CACHE_DIR", str(folder / "cache"))
        with Catalog.open(url) as catalog:
            catalog.save("calo/gan", {"w": np.zeros(4, dtype=np.float32)}, alias="champion", metrics={"auc": 0.5})
            catalog.save("digits", folder / "w.bin")
            before = catalog.position
            yield url, folder
            assert catalog.fsck().clean
            catalog.repository.refresh(force=True)
            assert catalog.position == before
            assert not [path for path in (folder / "catalog" / "staging").glob("*")]


@pytest.fixture
def catalog(place: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """The catalog; after the test its journal is as long as before."""
    url, folder = place
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(folder / "cache"))
    monkeypatch.chdir(folder)
    with Catalog.open(url) as opened:
        before = opened.position
        yield opened
        opened.repository.refresh(force=True)
        assert opened.position == before


@pytest.fixture
def shell(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The command line in this process, as the script `catalog` calls it: exit code and what it said."""
    (point,) = entry_points(group="console_scripts", name="catalog")
    main = point.load()

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--catalog", catalog.url, *arguments])
        out, err = capsys.readouterr()
        assert out == ""
        return int(ended.value.code or 0), err

    return call


def one_line(code: int, said: str) -> None:
    assert "Traceback" not in said
    lines = said.splitlines()
    if code == 2:
        assert lines[-1].startswith("Error: ")
        return
    assert code == 1
    assert lines[0].startswith("error: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
    assert len(lines[0]) < 600
    assert all(character.isprintable() for line in lines for character in line), "it could drive a terminal"


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_bad_name_is_refused_by_every_verb(catalog: Catalog, name: str) -> None:
    weights = {"w": np.ones(3, dtype=np.float32)}
    for call in (
        lambda: catalog.save(name, weights),
        lambda: catalog.save("m", components={name: weights}),
        lambda: catalog.save("m", weights, alias=name),
        lambda: catalog.version("calo/gan").alias(name),
        lambda: catalog.version(name),
        lambda: catalog.version(f"calo/gan@{name}"),
        lambda: catalog.load(name),
        lambda: catalog.load(f"calo/gan#{name}"),
        lambda: catalog.model(name),
        lambda: catalog.as_of(name, "#1"),
        lambda: catalog.history(name),
    ):
        with pytest.raises(CatalogError) as caught:
            call()
        assert isinstance(caught.value, (InvalidInput, NotFound))
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 600
    with pytest.raises(InvalidName) as caught:
        catalog.save(name, weights)
    assert caught.value.message.count(ascii(name)[1:10]) or not name.isascii() or len(name) > 80


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_bad_name_is_one_line_of_the_command(
    catalog: Catalog, shell: Callable[..., tuple[int, str]], name: str
) -> None:
    for arguments in (
        ("save", name, "w.bin"), ("show", name), ("list", name), ("history", name), ("delete", name),
        ("restore", name), ("card", name), ("promote", name, "tested"), ("alias", "calo/gan@1", name),
        ("save", "m", "w.bin", "--alias", name), ("save", "m", "--component", f"{name}=w.bin"),
        ("download", name, "out"), ("compare", "calo/gan@1", name), ("verify", name),
    ):  # fmt: skip
        if arguments == ("list", ""):
            continue
        one_line(*shell(*arguments))


@pytest.mark.parametrize(
    ("wrong", "offered"),
    [
        ("calo/gen", "calo/gan"), ("digit", "digits"), ("calo/gan@champoin", "champion"), ("calo/gan@2", "1"),
        ("calo/gan@sha256:000000000000", "1"), ("calo/gan@1#generator", "model"), ("models:/digits/1", "digits@1"),
        ("digits:1", "digits@1"), ("digits@latest", "digits"), ("other:digits", "other"),
        ("digits@0", "count from 1"), ("digits@-1", "not allowed"), ("digits@1@2", "not allowed"), ("#model", "model"),
        ("https://host/digits", "open the catalog first"),
    ],
)  # fmt: skip
def test_a_reference_to_nothing_offers_what_there_is(
    catalog: Catalog, shell: Callable[..., tuple[int, str]], wrong: str, offered: str
) -> None:
    with pytest.raises(CatalogError) as caught:
        catalog.load(wrong)
    assert offered in str(caught.value)
    code, said = shell("download", wrong, "nowhere")
    one_line(code, said)
    assert offered in said
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        "high",
        "0.9",
        None,
        True,
        1 << 53,
        1 << 2000,
        1j,
        [1.0],
        {},
        b"1",
        np.bool_(True),
        np.int64(1 << 60),
        np.uint64((1 << 64) - 1),
        np.float64("nan"),
        np.str_("0.5"),
        np.complex64(1),
        np.array([1.0, 2.0]),
        np.datetime64("2026-01-01"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_metric_is_refused(catalog: Catalog, value: Any) -> None:
    with pytest.raises(InvalidInput, match="auc"):
        catalog.version("calo/gan").annotate(auc=value)
    with pytest.raises(InvalidInput, match="auc"):
        catalog.save("calo/gan", {"w": np.ones(3, dtype=np.float32)}, metrics={"auc": value})
    assert catalog.version("calo/gan@1").metrics == {"auc": 0.5}


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "high", "", "0x10", "1_0_0__0", "9" * 5000, "1,5"])
def test_a_metric_that_is_no_number_is_one_line_of_the_command(
    shell: Callable[..., tuple[int, str]], text: str
) -> None:
    one_line(*shell("annotate", "calo/gan@1", f"auc={text}"))
    one_line(*shell("save", "calo/gan", "w.bin", "--metric", f"auc={text}"))


@pytest.mark.parametrize(
    "tags",
    [
        {"note": "x" * 10_000_000}, {f"k{n}": "x" * 4000 for n in range(2500)}, {"x" * 10_000_000: "1"}, {"": "1"},
        {" a": "1"}, {"a\nb": "1"}, {"a": float("nan")}, {"a": {1}}, {"a": [b"x"]}, {"a": b"x"}, {"a": 1 << 60},
        {"a": "\udcff"}, {"\udcff": "a"}, {1: "a"}, {"a": np.zeros(3)}, {"a": 10**4000}, {"a": {"b": 1}, "a.b": 2},
        {"a": {"b": {"": 1}}}, {"a": {"1": 1, 1: 2}}, {"a": {1.5: 1}}, {"a": np.int64(1 << 60)}, {"a": dict},
    ],
    ids=lambda tags: repr(tags)[:20],
)  # fmt: skip
def test_bad_tags_are_refused(catalog: Catalog, shell: Callable[..., tuple[int, str]], tags: Mapping[Any, Any]) -> None:
    for call in (
        lambda: catalog.save("m", {"w": np.ones(3, dtype=np.float32)}, tags=tags),
        lambda: catalog.save("m", {"w": np.ones(3, dtype=np.float32)}, params=tags),
        lambda: catalog.version("calo/gan").tag(**tags) if all(isinstance(k, str) for k in tags) else check(tags),
    ):
        with pytest.raises(InvalidInput) as caught:
            call()
        assert len(str(caught.value)) < 600
        assert len(str(caught.value).splitlines()) == 1
    if all(isinstance(value, str) for value in tags.values()) and "" not in tags and 1 not in tags:
        one_line(*shell("tag", "calo/gan@1", *(f"{key}={value}" for key, value in tags.items())))


def check(tags: Mapping[Any, Any]) -> None:
    from catalog_core.values import check_tags

    check_tags(tags)


@pytest.mark.parametrize("text", ["x" * 10_000_000, "\udcff"], ids=["10 MB", "lone surrogate"])
def test_a_bad_text_is_refused_wherever_it_comes(catalog: Catalog, text: str) -> None:
    weights = {"w": np.ones(3, dtype=np.float32)}
    calls: list[Callable[[], Any]] = [
        lambda: catalog.save("m", weights, description=text),
        lambda: catalog.save("m", weights, taxonomy={"task": text}),
        lambda: catalog.model("calo/gan").update(title=text),
        lambda: catalog.version("calo/gan").promote(text),
    ]
    if text == "\udcff":
        calls.append(lambda: catalog.model("calo/gan").set_card(text))
    for call in calls:
        with pytest.raises(CatalogError) as caught:
            call()
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("moment", ["yesterday", "#", "#x", "#-1x", "#99999999999999999999", "2026-13-01", "\0", ""])
def test_a_moment_that_is_none_is_refused(catalog: Catalog, shell: Callable[..., tuple[int, str]], moment: str) -> None:
    with pytest.raises(CatalogError, match=r"not a time|there is no entry"):
        catalog.as_of("calo/gan", moment)
    one_line(*shell("show", "calo/gan", "--as-of", moment))


@pytest.mark.parametrize(
    "query",
    ["metrics.auc >", "(" * 400, "(" * 3000 + "a = 1", "not " * 3000 + "name = a", "metrics.auc > 'x", "nonsense = 1",
     "a = 1 and", "\0 = 1", "order by", "limit 0", "metrics. > 1", "name in ()",
     "name = '\udcff'"],
    ids=lambda query: query[:12],
)  # fmt: skip
def test_a_bad_query_is_one_line(catalog: Catalog, shell: Callable[..., tuple[int, str]], query: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        catalog.search(query)
    assert len(str(caught.value).splitlines()) == 1
    one_line(*shell("search", query))


@pytest.mark.parametrize(
    "arguments",
    [
        ("save", "m", "nowhere.bin"), ("save", "m", "nothing/"), ("save", "m", "w.bin", "w.bin"),
        ("save", "m", "w.bin", "--parent", "nobody@1"), ("save", "m", "w.bin", "--tag", "novalue"), ("save", "m"),
        ("save", "m", "w.bin", "--component", "x"), ("download", "digits", "full"), ("download", "digits", "w.bin"),
        ("download", "digits", "w.bin/below"), ("card", "digits", "nowhere.md"), ("card", "digits", "w.bin/x"),
        ("promote", "digits@1", "best"), ("alias", "digits@1", "7"), ("alias", "digits@1", "latest"),
        ("alias", "calo/gan", "nobody", "--remove"), ("restore", "nobody"), ("restore", "nobody@1"),
        ("compare", "digits@1", "digits@9"), ("tag", "digits@1", "novalue"), ("list", "--limit", "x"), ("nonsense",),
        ("gc", "--grace", "soon"), ("show",), ("verify", "digits@3"), ("history", "nobody"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_argument_is_one_line_of_the_command(
    shell: Callable[..., tuple[int, str]], arguments: tuple[str, ...]
) -> None:
    one_line(*shell(*arguments))


@pytest.mark.parametrize(
    "where", ["./nothing", "nobody", "sqlite:///nowhere/at/all", "nope://x", "file:w.bin", "w.bin"]
)
def test_a_catalog_that_is_none_is_one_line(catalog: Catalog, capsys: pytest.CaptureFixture[str], where: str) -> None:
    (point,) = entry_points(group="console_scripts", name="catalog")
    for target in (where, str(Path("w.bin").absolute() / "below")):
        with pytest.raises(SystemExit) as ended:
            point.load()(["--catalog", target, "list"])
        one_line(int(ended.value.code or 0), capsys.readouterr().err)
        with pytest.raises(CatalogError):
            Catalog.open(target, create=False)
        assert not Path("nothing").exists()


def script(catalog: Catalog, *arguments: bytes) -> subprocess.CompletedProcess[bytes]:
    """The installed command in a process of its own."""
    command = [os.fsencode(Path(sys.executable).with_name("catalog")), b"-c", catalog.url.encode(), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert b"Traceback" not in done.stderr, done.stderr
    return done


def test_bytes_that_are_no_text_are_one_line_of_the_script(catalog: Catalog) -> None:
    """Only a real command line brings them, in names, values, and files."""
    for arguments in (
        (b"show", b"a\xff"), (b"save", b"m", b"nowhere\xff"), (b"tag", b"calo/gan@1", b"k=\xff"),
        (b"alias", b"calo/gan@1", b"\xff"), (b"search", b"name = '\xff'"),
    ):  # fmt: skip
        done = script(catalog, *arguments)
        one_line(done.returncode, done.stderr.decode(errors="replace"))


def test_an_error_about_bytes_that_are_no_text_is_json(catalog: Catalog) -> None:
    done = script(catalog, b"save", b"m", b"nowhere\xff", b"--json")
    assert json.loads(done.stdout)["error"]["message"]
    assert done.returncode == 1


def test_the_command_shows_nothing_of_another_catalog(catalog: Catalog) -> None:
    assert script(catalog, b"show", b"other:digits").returncode == 1


# -- objects and files ------------------------------------------------------------------------------------------------


class Half:
    """A serializer that gives up after it wrote a small, a large, and a named file."""

    name = "half"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def save(self, obj: Any, directory: Any, request: Any) -> Mapping[str, Any]:
        directory.write("small", [b"x"])
        directory.write("large", [np.random.default_rng(1).bytes(300_000)])
        directory.path("named").write_bytes(b"y" * 100_000)
        raise self.error

    def describe(self, obj: Any) -> Any:
        from catalog_core.records import Description

        return Description()


@pytest.mark.parametrize(
    "error", [ValueError("no\nroom"), OSError(errno.EIO, "broken"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()]
)
def test_a_save_that_fails_half_way_leaves_nothing(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setitem(catalog.repository.registry._made, "half", Half(error))
    expected = {ValueError: SerializationError, OSError: BackendError}.get(type(error), KeyboardInterrupt)
    with pytest.raises(expected) as caught:
        catalog.save("calo/gan", object(), serializer="half")
    assert caught.value is error or caught.value.__cause__ is error
    assert isinstance(caught.value, NoSpace) == (getattr(error, "errno", 0) == errno.ENOSPC)
    assert len(str(caught.value).splitlines()) <= 1
    assert list(catalog.repository.backend.files.staging().iterdir()) == []
    assert catalog.fsck().clean
    np.testing.assert_array_equal(catalog.load("calo/gan")["w"], np.zeros(4, dtype=np.float32))
    with catalog.prepare("calo/gan", {"w": np.ones(4, dtype=np.float32)}) as draft:
        assert draft.size > 0


@pytest.mark.parametrize(
    "obj", [object(), None, 7, "text", [1], {"a": object()}, lambda: 1], ids=lambda o: repr(o)[:12]
)
def test_an_object_that_nothing_can_write_is_refused(catalog: Catalog, obj: Any) -> None:
    with pytest.raises(CatalogError) as caught:
        catalog.save("m", obj)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a:b", "nul", "new\nline", "back\\slash", "dot.", b"\xff"], ids=repr)
def test_a_file_that_could_not_be_read_again_is_not_saved(catalog: Catalog, tmp_path: Path, name: Any) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / os.fsdecode(name)).write_bytes(b"x")
    for path in (folder, folder / os.fsdecode(name)):
        with pytest.raises(InvalidName, match="file name"):
            catalog.save("m", path)


def test_what_is_neither_file_nor_folder_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty").mkdir()
    for path in ("pipe", "loop", "empty", "missing", "pipe/below", "x" * 300):
        with pytest.raises(CatalogError):
            catalog.save("m", tmp_path / path)
        with pytest.raises(InvalidInput, match=r"is no file|holds no files"):
            catalog.version("digits").attach("note", tmp_path / path)
    with pytest.raises(InvalidInput):
        catalog.save("m", Path("/dev/null"))


@pytest.mark.parametrize("target", ["full", "w.bin", "w.bin/below", "x" * 300])
def test_a_download_to_where_it_cannot_go_is_an_error_of_ours(catalog: Catalog, target: str) -> None:
    with pytest.raises(CatalogError):
        catalog.download("digits", target)


# -- calls that cannot mean anything ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda c: Catalog.open(c.url, policy="nevr"),
        lambda c: c.models(limit=0),
        lambda c: c.models(limit=-5),
        lambda c: c.history(limit=-1),
        lambda c: c.search("", limit=2**70),
        lambda c: c.search("", cursor="W1s5MjIzMzcyMDM2ODU0Nzc1ODA4MDAsIDFdXQ=="),
        lambda c: c.load("digits", foo=3),
        lambda c: c.load("digits", device="cuda"),
        lambda c: c.as_of("digits", dt.date(2026, 1, 1)),
        lambda c: c.model("digits").set_card(None),
        lambda c: c.save("m", {"w": np.ones(3)}, metrics=[1]),
        lambda c: c.save("m", {"w": np.ones(3)}, tags="text"),
        lambda c: c.save("m", {"w": np.ones(3)}, parents="digits@1"),
        lambda c: c.save("m", "weights.bin"),
        lambda c: c.save("m", {"w": np.ones(3)}, alias="7"),
    ],
)
def test_a_call_that_cannot_mean_anything_is_one_error_of_ours(
    catalog: Catalog, call: Callable[[Catalog], object]
) -> None:
    before = catalog.position
    with pytest.raises(CatalogError):
        call(catalog)
    assert catalog.position == before


def test_a_closed_catalog_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    for url in (f"sqlite://{tmp_path}/one", f"file://{tmp_path}/two"):
        with Catalog.open(url) as closed:
            version = closed.save("m", {"w": np.ones(3)})
        for call in (lambda: closed.models(), lambda: closed.load("m"), lambda: closed.save("m", {}), version.load):
            with pytest.raises(CatalogError, match="closed"):
                call()


def test_handles_are_references_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    catalog = Catalog.open(tmp_path / "catalog")
    catalog.save("calo/gan", {"w": np.ones(3)})
    catalog.save("digits", {"w": np.ones(3)})
    version = catalog.version("digits")
    assert catalog.version(version) == version
    assert set(catalog.load(version)) == set(version.load("model"))
    assert catalog.save("child", {"w": np.ones(3)}, parents=[version]).summary["parents"] == [version.ref]
    assert list(version.download(tmp_path / "out").iterdir())
    (tmp_path / "note.txt").write_text("x")
    assert version.attach("note", str(tmp_path / "note.txt")).attachments["note"] == 1
    with pytest.raises(NotFound, match="calo/gan"):
        catalog.version("CALO/GAN")


FLAGS: dict[str, Callable[[Catalog, Any], Any]] = {
    "trust": lambda c, value: c.load("calo/gan", trust=value),
    "copy": lambda c, value: c.load("digits", copy=value),
    "partial": lambda c, value: c.load("calo/gan", into={}, partial=value),
    "verify": lambda c, value: c.save("digits", {"w": np.zeros(1)}, verify=value),
    "force": lambda c, value: c.save("digits", {"w": np.zeros(1)}, force=value),
    "trust of verify": lambda c, value: c.verify("calo/gan", trust=value),
    "trust of a handle": lambda c, value: c.version("calo/gan").load(trust=value),
    "trust of a session": lambda c, value: c.session("calo/gan", trust=value),
    "dry_run": lambda c, value: c.gc(dry_run=value),
    "unsafe": lambda c, value: c.import_("nothing", unsafe=value),
    "create": lambda c, value: Catalog.open(c.url, create=value),
    "stale": lambda c, value: Catalog.open(c.url, stale=value),
}


@pytest.mark.parametrize("call", FLAGS)
@pytest.mark.parametrize("value", ["no", "false", 0, 1, []])
def test_what_is_on_or_off_is_true_or_false(catalog: Catalog, call: str, value: Any) -> None:
    name = call.partition(" ")[0]
    before = catalog.position
    with pytest.raises(InvalidInput, match=f"{name}= is .*, neither True nor False"):
        FLAGS[call](catalog, value)
    assert catalog.position == before


ODD: dict[str, tuple[Callable[[Catalog], Any], str, str]] = {
    "copy to a text": (lambda c: c.copy("digits", "./m2"), "open catalog", "Catalog.open('./m2')"),  # type: ignore[arg-type]
    "entry points in a list": (
        lambda c: c.save("n", {"w": np.zeros(1)}, entry_points=["a"]),
        "entry_points",
        "predict",
    ),
    "entry points as text": (lambda c: c.save("n", {"w": np.zeros(1)}, entry_points="a"), "entry_points", "predict"),
    "components in a list": (lambda c: c.save("n", components=[np.zeros(1)]), "components", "model"),  # type: ignore[arg-type]
    "components as object": (lambda c: c.save("n", components=object()), "components", "model"),  # type: ignore[arg-type]
    "a version beside": (lambda c: c.load("digits", version=1), "'version'", 'load("digits@1")'),
    "a search in a list": (lambda c: c.search(["a"]), "list", "search"),  # type: ignore[arg-type]
    "a grace in words": (lambda c: c.gc(grace="1d"), "'1d'", "86400"),  # type: ignore[arg-type]
    "a misspelt word": (lambda c: c.save("n", {"w": np.zeros(1)}, metrcis={}), "'metrcis'", "metrics"),
    "an input example": (lambda c: c.save("n", {"w": np.zeros(1)}, input_example=1), "'input_example'", "example"),
    "aliases": (lambda c: c.save("n", {"w": np.zeros(1)}, aliases=["a"]), "'aliases'", "alias"),
    "alias of a draft": (lambda c: c.prepare("n", {"w": np.zeros(1)}, alias="a"), "'alias'", "save"),
    "strict": (lambda c: c.load("calo/gan", into={}, strict=False), "'strict'", "partial=True"),
}


@pytest.mark.parametrize("call", ODD)
def test_a_call_in_other_words_is_answered_by_one_of_our_errors(catalog: Catalog, call: str) -> None:
    odd, named, way = ODD[call]
    before = catalog.position
    with pytest.raises(InvalidInput) as caught:
        odd(catalog)
    assert named in caught.value.message
    assert way in str(caught.value.hint)
    assert catalog.position == before


def test_one_parent_is_a_list_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "c") as catalog:
        parent = catalog.save("m", {"w": np.zeros(1)})
        child = catalog.save("m", {"w": np.ones(1)}, parents=parent)
        assert child.summary["parents"] == ["m@1"]
        model = catalog.model("m")
    for call in (
        lambda: parent.summary,
        lambda: parent.promote("tested"),
        lambda: model.history(),
        lambda: child.load(),
    ):
        with pytest.raises(BackendError, match="was closed"):
            call()
