"""What the words of a command line mean, and that nothing is made, counted or left out in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog_cli.output import _typed
from catalog_core import Catalog

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]) -> Run:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CATALOG", str(tmp_path / "catalog"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"weights" * 1000)
    with Catalog.open(tmp_path / "catalog"):
        pass

    def call(*arguments: str) -> tuple[int, str, str]:
        done = command(*arguments)
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1), ("17", 17), ("-3", -3), ("1e-3", 0.001), ("3E5", 3e5), (".5", 0.5), ("true", True),
        ("false", False),
        ("0", 0), ("2.50", 2.5), ("007", "007"), ("1_000", "1_000"), ("nan", "nan"), ("inf", "inf"), ("1e999", "1e999"),
        ("True", "True"), ("", ""), ('"17"', "17"), ('"true"', "true"),
        ("12345678901234567890", "12345678901234567890"),
        ("1234e56", "1234e56"), ("12e4567", "12e4567"), ("+5", "+5"), ("1.2.3", "1.2.3"), ("٣", "٣"),
        ("cms", "cms"), ("-", "-"),
        (".", "."), ('"', '"'), ("0x10", "0x10"), (" 1", " 1"),
    ],
)  # fmt: skip
def test_words_are_typed(text: str, value: object) -> None:
    found = _typed(text, "param")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "value"), [("2.10", "2.10"), ("2.1", 2.1), ("1.0", 1.0), (".5", ".5"), ("2026", 2026)]
)
def test_a_tag_keeps_what_a_number_would_lose(text: str, value: object) -> None:
    found = _typed(text, "tag")
    assert (found, type(found)) == (value, type(value))


def test_a_search_finds_numbers_of_the_command_line(run: Run) -> None:
    arguments = ("--param", "lr=0.1", "--param", "name=adam", "--tag", "year=2026", "--tag", "torch=2.10")
    assert run("save", "m", "weights.bin", *arguments, "--description", "A small one")[0] == 0
    for query in ("params.lr < 0.2", "tags.year > 2025", "params.name = adam", 'tags.torch = "2.10"'):
        assert [row["ref"] for row in json.loads(run("search", query, "--json")[1])] == ["m@1"], query
    assert run("tag", "m@1", "good=true", "year=2027")[1].splitlines() == ["good=true", "torch=2.10", "year=2027"]


def test_the_description_is_shown(run: Run) -> None:
    run("save", "m", "weights.bin", "--description", "A small one")
    assert json.loads(run("show", "m@1", "--json")[1])["description"] == "A small one"
    assert "A small one" in run("show", "m@1")[1]


def test_tags_and_metrics_are_read_without_an_entry_and_removed(run: Run, tmp_path: Path) -> None:
    run("save", "m", "weights.bin", "--tag", "team=cms", "--metric", "auc=0.9")

    def position() -> int:
        with Catalog.open(tmp_path / "catalog") as catalog:
            return catalog.position

    before = position()
    assert run("tag", "m@1")[1] == "team=cms\n"
    assert run("annotate", "m@1")[1] == "auc=0.9\n"
    assert json.loads(run("tag", "m@1", "--json")[1])["tags"] == {"team": "cms"}
    assert position() == before
    assert run("annotate", "m@1", "loss=1", "--unset", "auc")[1] == "loss=1\n"
    assert run("annotate", "m@1", "--unset", "loss")[1] == "m@1 has no metrics\n"
    assert run("tag", "m@1", "--unset", "team")[1] == "m@1 has no tags\n"
    code, _, err = run("tag", "m@1", "--unset", "tema")
    assert code == 1 and "has no tag 'tema'" in err
    assert run("tag", "m@1", "a=1", "a=2")[0] == 2


def test_a_catalog_is_not_made_by_a_misspelt_name(run: Run, tmp_path: Path) -> None:
    run("save", "m", "weights.bin")
    assert run("export", "m@1", "m.bundle")[0] == 0
    assert run("-c", "./models", "init")[0] == 0
    before = {path.name for path in tmp_path.iterdir()}
    for place in ("./modles", f"file://{tmp_path}/modles"):
        for arguments in (("save", "m", "weights.bin"), ("import", "m.bundle")):
            code, _, err = run("-c", place, *arguments)
            assert code == 1 and "did you mean models?" in err and "init" in err, err
    code, _, err = run("copy", "m@1", "./modles")
    assert code == 1 and "did you mean models?" in err
    for arguments in (("list",), ("tag", "m@1", "a=1")):
        assert run("-c", "./modles", *arguments)[0] == 1
    assert {path.name for path in tmp_path.iterdir()} == before
    assert run("-c", "./models", "save", "m", "weights.bin")[2] == ""


def test_a_catalog_that_is_made_by_a_save_is_told_of(run: Run, tmp_path: Path) -> None:
    code, out, err = run("-c", "./fresh", "save", "m", "weights.bin", "--json")
    assert code == 0 and json.loads(out)["ref"] == "m@1"
    assert err == f"made a new catalog at sqlite://{tmp_path}/fresh\n"


def test_a_catalog_of_the_environment_that_is_made_is_told_of(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOG", "./elsewhere")
    assert run("save", "m", "weights.bin")[2] == f"made a new catalog at sqlite://{tmp_path}/elsewhere\n"
    assert run("save", "m", "weights.bin")[2] == ""


def test_a_configured_catalog_is_made_by_its_first_save(run: Run, tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_text('[catalogs.mine]\nurl = "./mine"\n')
    assert run("-c", "mine", "save", "m", "weights.bin")[0] == 0
    assert (tmp_path / "mine").is_dir()


def test_what_was_there_is_not_counted_as_new(run: Run) -> None:
    run("save", "m", "weights.bin")
    first, again = run("copy", "m@1", "./other"), run("copy", "m@1", "./other")
    assert "made a new catalog" in first[2] and "made" not in again[2]
    assert "kB new" in first[1] and "there already" in again[1]
    assert json.loads(run("copy", "m@1", "./other", "--json")[1])["new_bytes"] == 0
    run("export", "m", "m.bundle")
    run("-c", "./third", "init")
    first, again = run("-c", "./third", "import", "m.bundle"), run("-c", "./third", "import", "m.bundle")
    assert "kB new" in first[1] and "there already" in again[1]


def test_the_newest_in_a_list_is_not_deleted(run: Run) -> None:
    for _ in range(2):
        run("save", "m", "weights.bin")
    run("delete", "m@2")
    assert json.loads(run("list", "--json")[1])[0]["newest"] == 1


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("stage = prod", "no version's stage is 'prod'; did you mean production?"),
        ("tags.team = cmss", "no version's tags.team is 'cmss'; did you mean cms?"),
        ('tags.team like "x%"', "no version's tags.team is like 'x%'; there is cms"),
        ("alias = champ", "no version's alias is 'champ'; did you mean champion?"),
        ("metrics.auc > 0.5 and framework = troch", "no version's framework is 'troch'"),
        ("tags.team = cms and metrics.auc > 2", ""),
    ],
)
def test_a_value_that_no_version_has_is_pointed_out(run: Run, query: str, says: str) -> None:
    run("save", "m", "weights.bin", "--tag", "team=cms", "--metric", "auc=0.9", "--alias", "champion")
    code, out, err = run("search", query)
    assert (code, out) == (0, "nothing found\n")
    assert says in err and (says or not err)


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("show",), ("list", "--limit", "x"), ("save", "m"), ("tag", "m@1", "x"), ("list", "--what")],
)  # fmt: skip
def test_wrong_usage_is_json_where_json_was_asked_for(run: Run, arguments: tuple[str, ...]) -> None:
    run("save", "m", "weights.bin")
    for given in ((*arguments, "--json"), ("--json", *arguments)):
        code, out, err = run(*given)
        told = json.loads(out)["error"]
        assert (code, err, told["type"]) == (2, "", "UsageError")
        assert told["message"]


def test_versions_of_two_catalogs_are_compared(run: Run, tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_text('[catalogs.other]\nurl = "./other"\n')
    run("save", "m", "weights.bin", "--tag", "team=a")
    run("-c", "other", "save", "m", "weights.bin", "--tag", "team=b")
    found = json.loads(run("compare", "m@1", "other:m@1", "--json")[1])
    assert (found["first"], found["second"]) == ("catalog:m@1", "other:m@1")
    assert [(d["kind"], d["before"], d["after"]) for d in found["differences"]] == [("tag", "a", "b")]


def test_a_listing_that_is_cut_says_so(run: Run) -> None:
    for _ in range(3):
        assert run("save", "m", "weights.bin")[0] == 0
    for arguments in (("list", "m"), ("history",), ("history", "m")):
        for more in ((), ("--json",)):
            code, out, err = run(*arguments, "--limit", "2", *more)
            assert (code, err.count("more follow")) == (0, 1), arguments
            assert "--limit 20" in err
            assert run(*arguments, "--limit", "4", *more)[2] == ""
            assert not more or len(json.loads(out)) == 2
    newest = json.loads(run("history", "--limit", "2", "--json")[1])
    assert newest == json.loads(run("history", "--json")[1])[-2:]
    assert len(json.loads(run("list", "m", "--limit", "3", "--json")[1])) == 3
    assert run("list", "m", "--limit", "3")[2] == ""


def test_nothing_is_restored_that_was_not_deleted(run: Run) -> None:
    for _ in range(2):
        assert run("save", "m", "weights.bin")[0] == 0
    assert run("delete", "m@1")[0] == 0
    before = run("history", "--json")[1]
    for ref in ("m", "m@2"):
        code, out, err = run("restore", ref)
        assert (code, out) == (1, "")
        assert err == f"error: {ref} is not deleted\nhint: m@1 is deleted: catalog restore m@1\n"
    assert run("history", "--json")[1] == before
    assert run("restore", "m@1")[0] == 0
    assert run("restore", "m@1")[2] == "error: m@1 is not deleted\n"
    assert run("delete", "m")[0] == 0
    assert run("save", "m", "weights.bin")[0] == 0  # the model is there again, and its old versions are not
    assert "m@2, m@1 are deleted: catalog restore m@2" in run("restore", "m@3")[2]
    assert run("restore", "m")[0] == 0
    assert len(json.loads(run("list", "m", "--json")[1])) == 3


def test_every_alias_that_is_given_is_set(run: Run) -> None:
    assert run("save", "m", "weights.bin", "--alias", "a", "--alias", "b b")[0] == 1
    assert json.loads(run("list", "--json")[1]) == []
    for _ in range(2):
        code, out, err = run("save", "m", "weights.bin", "--alias", "a", "--alias", "b", "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["aliases"] == ["a", "b"]
    assert json.loads(run("list", "--json")[1])[0]["aliases"] == {"a": 2, "b": 2}


@pytest.mark.parametrize("option", [("-c", "./m"), ("--catalog", "./m"), ("--stale",)])
def test_an_option_of_all_commands_is_pointed_before_the_command(run: Run, option: tuple[str, ...]) -> None:
    code, _, err = run("list", *option)
    assert code == 2
    assert f"It goes before: catalog {' '.join(option)} list" in err
    assert "It goes before" in json.loads(run("list", "--json", *option)[1])["error"]["message"]
    assert "It goes before" not in run("list", "--oops")[2]
