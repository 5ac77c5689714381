"""What the command says is in its own words: hints, spellings of other registries, options that are given twice."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from catalog_cli.main import COMMANDS, group
from catalog_cli.words import hinted, spoken
from catalog_core import Catalog
from catalog_core.errors import CatalogError, InvalidInput, InvalidReference, NotFound
from catalog_core.names import parse_reference

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command):
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CATALOG", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    Path("w.bin").write_bytes(b"weights")
    assert command("save", "calo/gan", "w.bin", "--alias", "champion").returncode == 0
    assert command("save", "gan", "w.bin", "--alias", "champion").returncode == 0
    return command


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("calo/gan:champion", "did you mean calo/gan@champion?"),
        ("calo/gan:v1", "did you mean calo/gan@1?"),
        ("gan:v1", "did you mean gan@1?"),
        ("gan:champion", "did you mean gan@champion?"),
        ("g:champion", "did you mean g@champion?"),
        ("org/team/name:v3", "did you mean org/team/name@3?"),
        ("gan:v0", "did you mean gan@1?"),  # W&B counts from 0
        ("gan@v1", "did you mean gan@1?"),
        ("gan@1.0", "did you mean gan@1?"),
        ("calo/gan/1", "did you mean calo/gan@1?"),
        ("models:/calo/gan/1", "did you mean calo/gan@1?"),
        ("models:/gan@champion", "did you mean gan@champion?"),
        ("models:/gan/latest", "did you mean gan?"),
        ("models:/gan/Production", "catalog search 'name = gan and stage = production'"),
        ("runs:/0123abcd/model", "catalog import FOLDER NAME"),
        ("mlflow-artifacts:/1/model", "catalog import FOLDER NAME"),
        ("hf://org/name", "catalog import FOLDER org/name"),
        ("hf://org/name@main", "catalog import FOLDER org/name"),
        ("https://huggingface.co/org/name/tree/main", "catalog import FOLDER org/name"),
        ("wandb-artifact://team/project/name:v3", "catalog import FOLDER NAME"),
        ("s3://bucket/models", "catalog --catalog URL"),
        ("other:gan", "catalog --catalog other"),
    ],
)
def test_addresses_of_other_registries_get_the_spelling_of_this_one(run, ref: str, says: str) -> None:
    done = run("show", ref)
    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]+\nhint: [^\n]+\n", done.stderr)
    assert says in done.stderr


@pytest.mark.parametrize("ref", ["gan@1", "gan@champion", "gan@sha256:" + "0" * 12, "gan:champion", "models:gan"])
def test_a_version_where_a_model_is_meant_is_told_so(run, ref: str) -> None:
    done = run("list", ref)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "gan" in done.stderr.splitlines()[-1]
    assert "each part begins with" not in done.stderr


def test_what_is_deleted_is_named_and_comes_back(run) -> None:
    run("delete", "calo/gan@1")
    for ref in ("calo/gan@1", "calo/gan@7", "calo/gan@champion"):
        assert "catalog restore calo/gan@1" in run("show", ref).stderr
    run("delete", "gan")
    for words in (("show", "gan"), ("show", "gan@1"), ("list", "gan"), ("download", "gan@1", "out"), ("card", "gan")):
        done = run(*words)
        assert done.stderr == "error: gan is deleted\nhint: catalog restore gan\n"
    assert run("restore", "gan").returncode == 0
    assert run("show", "gan@1").returncode == 0
    run("erase", "gan@1", "--reason", "a test", "--yes")
    told = run("show", "gan@1").stderr
    assert "restore" not in told
    assert "gan@1 was erased by" in told and "a test" in told


def test_values_are_shown_as_the_command_takes_them(run) -> None:
    shown = run("save", "values", "w.bin", "--param", "amp=true", "--param", "half=false", "--param", "n=1234.5")
    assert shown.returncode == 0
    assert "amp=true, half=false, n=1234.5" in run("show", "values@1").stdout


def commands(of: click.Group, parent: click.Context) -> Iterator[tuple[list[str], click.Command]]:
    for name in of.list_commands(parent):
        command = of.get_command(parent, name)
        assert command is not None
        if isinstance(command, click.Group):
            inner = click.Context(command, info_name=name, parent=parent)
            yield from (([name, *path], below) for path, below in commands(command, inner))
        yield [name], command


def test_no_option_of_any_command_keeps_the_last_of_two_in_silence(run) -> None:
    root = click.Context(group, info_name="catalog")
    found = [([], group), *commands(group, root)]
    count = 0
    for path, command in found:
        for param in command.params:
            if not isinstance(param, click.Option) or param.is_flag or param.multiple:
                continue
            value = "1"
            done = run(*path, param.opts[0], value, param.opts[0], value, *(["list"] if not path else []))
            assert done.returncode == 2, (path, param.opts)
            assert f"{param.opts[0]} is given twice" in done.stderr, (path, param.opts)
            count += 1
    assert count > 20
    assert run("list", "--limit", "1").returncode == 0
    assert run("save", "gan", "w.bin", "--tag", "a=1", "--tag", "b=2", "--json", "--json").returncode == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("list", "--catalog", "./models"), "catalog --catalog ./models list"),
        (("list", "gan", "--catalog=./models", "--limit", "2"), "catalog --catalog=./models list gan --limit 2"),
        (("show", "gan", "-c", "./my models"), "catalog -c './my models' show gan"),
        (("list", "--stale"), "catalog --stale list"),
    ],
)
def test_an_option_behind_the_command_gets_the_whole_line(run, words: tuple[str, ...], line: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert f"It goes before: {line}\n" in done.stderr


def hints() -> Iterator[tuple[str, str]]:
    """Every hint in the sources, with a word in each gap."""

    def texts(node: ast.expr) -> Iterator[str]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            gaps = {114: "'word'", -1: "word"}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else gaps.get(getattr(part, "conversion", -1), "word")
                for part in node.values
            )
        elif isinstance(node, ast.IfExp):
            yield from (*texts(node.body), *texts(node.orelse))
        elif isinstance(node, ast.BoolOp):
            for value in node.values:
                yield from texts(value)

    for folder in ("catalog_core", "integrations", "serializers", "runners", "backends"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for keyword in node.keywords if isinstance(node, ast.Call) else ():
                    if keyword.arg == "hint":
                        yield from ((f"{path.name}:{node.lineno}", text) for text in texts(keyword.value))


def test_no_hint_of_the_catalog_reaches_the_terminal_as_an_order_in_python() -> None:
    python = re.compile(r"\w\((?!s\))[^)]*\)|\b[a-z_]+=(True|False|…|\{|\[|['\"])")
    found = list(hints())
    assert len(found) > 200
    for place, hint in found:
        told = hinted(hint)
        assert told.startswith("in Python: ") or not python.search(told), (place, told)
    assert sum(hinted(hint) != hint for _, hint in found) > 50


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        ("trust=True, if you trust the author", "--trust, if you trust the author"),
        (
            "mend it, or save(force=True) to record it as failed",
            "mend it, or catalog save --force to record it as failed",
        ),
        ("Catalog.open('cern')", "catalog --catalog cern …"),
        ("untag('team') removes it", "catalog tag REF --unset team removes it"),
        ("texts go into tags=", "texts go into --tag"),
        ("load(ref, into=net)", "in Python: load(ref, into=net)"),
        ("did you mean gan@1?", "did you mean gan@1?"),
        ("catalog search 'name = gan and stage = production'", "catalog search 'name = gan and stage = production'"),
    ],
)
def test_hints_are_said_in_the_words_of_the_command(hint: str, told: str) -> None:
    assert hinted(hint) == told
    assert spoken("x will load with trust=True only") == "x will load with --trust only"


def test_programs_get_the_same_words_and_the_library_its_own(run, tmp_path: Path) -> None:
    done = run("annotate", "gan@1", "auc=high", "--json")
    assert json.loads(done.stdout)["error"]["hint"] == "texts go into tags"
    done = run("--json", "show", "other:gan")
    assert json.loads(done.stdout)["error"]["hint"] == "catalog --catalog other …"
    with Catalog.open(tmp_path / "models") as catalog, pytest.raises(InvalidInput) as caught:
        catalog.version("other:gan")
    assert caught.value.hint == "Catalog.open('other')"


@pytest.mark.parametrize("text", ["cern:calo/gan", "ab:gan@1", "a-b:c/d@best", "calo/gan@best#net"])
def test_what_was_a_reference_still_is_one(text: str) -> None:
    assert str(parse_reference(text)) == text


def test_spellings_are_answered_by_the_library_too(tmp_path: Path) -> None:
    for text in ("models:/", "models:/x", "runs:/", "hf://", "hf://x", "dvc:/x", "MODELS:/a/1", "x:v1", "x:"):
        with pytest.raises(CatalogError) as caught:
            parse_reference(text)
        assert isinstance(caught.value, (InvalidReference, InvalidInput)), text
    with Catalog.open(tmp_path / "c") as catalog, pytest.raises(NotFound):
        catalog.model("x")


def test_the_commands_are_all_held_to_it() -> None:
    assert {path[0] for path, _ in commands(group, click.Context(group, info_name="catalog"))} >= set(COMMANDS)
