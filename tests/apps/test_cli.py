"""The command line: what it prints, its exit codes, and that bad input gets one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from catalog_cli.main import COMMANDS
from catalog_core import Catalog
from catalog_core.draft import Draft
from catalog_core.handles import Model, Version


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command):
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CATALOG", str(tmp_path / "catalog"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"weights" * 1000)

    saved = command("save", "calo/gan", "weights.bin", "--metric", "auc=0.9", "--tag", "team=x", "--alias", "best")
    assert saved.returncode == 0
    return command


def test_the_command_is_a_program(run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "catalog_cli", "show", "calo/gan@9"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")


def test_every_command_answers_and_json_parses(run, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("# A card")
    assert run("save", "calo/gan", "weights.bin", "--json").returncode == 0
    for arguments in (
        ("init",), ("list",), ("list", "calo/gan"), ("search", "metrics.auc > 0.5"), ("search", "calo"),
        ("show", "calo/gan"), ("show", "calo/gan@best"), ("show", "calo/gan", "--as-of", "#1"),
        ("compare", "calo/gan@1", "calo/gan@2"), ("history", "calo/gan"), ("download", "calo/gan@1", "out"),
        ("alias", "calo/gan@2", "best"), ("alias", "calo/gan", "best", "--remove"), ("promote", "calo/gan@1", "tested"),
        ("tag", "calo/gan@1", "self=1", "--unset", "team"), ("annotate", "calo/gan@1", "loss=0.5"),
        ("card", "calo/gan", "card.md"), ("update", "calo/gan", "--title", "A GAN"),
        ("show", "calo/gan@1", "--as-of", "#1"), ("copy", "calo/gan@1", "./other"),
        ("export", "calo/gan", "gan.catalog"), ("import", "gan.catalog", "calo/again"),
        ("attach", "calo/gan@1", "card.md"),
        ("attach", "calo/gan@1", "back.md", "--get", "--name", "card.md"), ("attach", "calo/gan@1"),
        ("attach", "calo/gan@1", "--remove", "--name", "card.md"),
        ("delete", "calo/gan@1"), ("restore", "calo/gan@1"), ("delete", "calo/gan"),
        ("restore", "calo/gan"), ("verify", "calo/gan@1"), ("fsck",), ("gc", "--dry-run"), ("config",), ("plugins",),
        ("doctor",),
    ):  # fmt: skip
        done = run(*arguments, "--json")
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        json.loads(done.stdout)
    assert (tmp_path / "back.md").read_text() == "# A card"
    assert (tmp_path / "out" / "weights.bin").read_bytes() == b"weights" * 1000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "calo/gam"), "calo/gan"),
        (("show", "../etc"), "not allowed"),
        (("show", "calo/gan@bset"), "best"),
        (("list", "calo/gan@1"), "its name alone: calo/gan"),
        (("save", "calo/gan@2", "weights.bin"), "its name alone: calo/gan"),
        (("show", "calo/gan", "--as-of", "#999"), "there is no entry #999; the newest is #"),
        (("show", "calo/gan", "--as-of", "#-1"), "there is no entry #-1"),
        (("annotate", "calo/gan@1", "auc=nan"), "finite"),
        (("annotate", "calo/gan@1", "auc=high"), "number"),
        (("save", "x", "nowhere.bin"), "does not exist"),
        (("card", "calo/gan", "nowhere.md"), "nowhere.md"),
        (("search", "metrics.auc >"), "too early"),
        (("promote", "calo/gan@1", "best"), "no stage"),
        (("--catalog", "./nothing", "list"), "no catalog"),
    ],
)
def test_bad_input_gets_one_clear_line(run, arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_wrong_usage_exits_with_two(run) -> None:
    assert run("list", "--limit", "0").returncode == 2
    assert run("nonsense").returncode == 2
    assert run("save", "only-a-name").returncode == 2


def test_an_error_is_json_where_json_was_asked_for(run) -> None:
    done = run("show", "calo/gam", "--json")
    assert json.loads(done.stdout)["error"]["type"] == "NotFound"


def test_the_commands_are_those_of_the_api() -> None:
    """Each public verb of the facade can be called from the shell, under its own name or the one given here."""
    elsewhere = {
        "open": "init", "close": None, "prepare": "save", "model": "show", "version": "show", "models": "list",
        "versions": "list", "as_of": "show", "resolve_time": "show", "load": "download", "session": "verify",
        "artifact": "show", "pin": "cache", "unpin": "cache", "import_": "import",
        "audit": "fsck", "failover": "hybrid", "notices": "list",
    }  # fmt: skip
    elsewhere |= {
        "attachment": "attach", "set_card": "card", "start_card": "card",
        "unalias": "alias", "untag": "tag", "unannotate": "annotate", "detach": "attach", "discard": None,
        "versions": "list",
    }  # fmt: skip
    for kind in (Catalog, Draft, Model, Version):
        for verb in [name for name in vars(kind) if not name.startswith("_") and callable(getattr(kind, name))]:
            target = elsewhere.get(verb, verb)
            assert target is None or target in COMMANDS, f"{kind.__name__}.{verb} has no command"


def test_versions_go_to_a_catalog_by_its_name_and_back(run, tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_text(f'[catalogs.cern]\nurl = "file://{tmp_path}/eos"\n')
    assert run("--catalog", "cern", "init").returncode == 0
    digest = json.loads(run("show", "calo/gan@1", "--json").stdout)["digest"]

    def copied(*arguments: str) -> str:
        done = run("copy", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[0]

    assert copied("calo/gan@1", "cern:") == "cern:calo/gan@1"
    assert copied("calo/gan@best", "cern:") == "cern:calo/gan@1"
    assert copied("calo/gan@1", "cern:lhc/gan") == "cern:lhc/gan@1"
    assert copied("cern:lhc/gan@1", "./third", "--name", "third/gan") == "third:third/gan@1"
    assert copied("cern:lhc/gan@1", str(tmp_path / "catalog")) == "catalog:lhc/gan@1"
    for place, name in (("cern", "lhc/gan"), ("cern", "calo/gan"), ("./third", "third/gan"), ("./catalog", "lhc/gan")):
        there = json.loads(run("--catalog", place, "show", f"{name}@{digest}", "--json").stdout)
        assert there["digest"] == there["origin"]["digest"] == digest
        assert there["origin"]["ref"] == "calo/gan@1"
        assert "ref=calo/gan@1, time=" in run("--catalog", place, "show", f"{name}@1").stdout
    assert "no catalog is called 'cren'" in run("copy", "calo/gan@1", "cren:").stderr


def test_versions_go_through_a_file(run, tmp_path: Path) -> None:
    exported = json.loads(run("export", "calo/gan@1", "gan.catalog", "--format", "bundle", "--json").stdout)
    assert exported["digest"].startswith("sha256:")
    assert "exists already" in run("export", "calo/gan@1", "gan.catalog").stderr
    assert run("--catalog", "./island", "import", "gan.catalog").stdout.startswith("calo/gan@1 ")
    assert run("--catalog", "./island", "import", "gan.catalog").stdout.startswith("calo/gan@1 ")
    assert run("--catalog", "./island", "import", "gan.catalog", "other").stdout.startswith("other@1 ")
    with (tmp_path / "gan.catalog").open("r+b") as file:
        file.truncate(3000)
    done = run("--catalog", "./island", "import", "gan.catalog", "new")
    assert (done.returncode, done.stderr.count("\n")) == (1, 2)
    assert "is no whole bundle" in done.stderr
    assert len(json.loads(run("--catalog", "./island", "list", "--json").stdout)) == 2


def test_pages_go_on_behind_a_cursor_and_the_past_has_versions(run) -> None:
    run("save", "calo/gan", "weights.bin")
    first = run("search", "calo", "--limit", "1", "--json")
    cursor = first.stderr.strip().rpartition(" ")[2]
    second = run("search", "calo", "--limit", "1", "--json", "--cursor", cursor)
    found = [json.loads(page.stdout)[0]["ref"] for page in (first, second)]
    assert (found, second.stderr) == (["calo/gan@2", "calo/gan@1"], "")
    assert json.loads(run("show", "calo/gan@best", "--as-of", "#2", "--json").stdout)["number"] == 1
    for selector in ("@99", "@nobody"):
        done = run("show", f"calo/gan{selector}", "--as-of", "#2")
        assert done.returncode == 1 and "there was no" in done.stderr


def test_the_shell_completes_commands_options_and_models(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offered(words: str) -> list[str]:
        monkeypatch.setenv("_CATALOG_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        # a click program is asked under its own name
        code = "import sys; sys.argv[0] = 'catalog'; from catalog_cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        return [line.partition(",")[2] for line in done.stdout.splitlines() if line]

    assert offered("catalog ") == [*COMMANDS, "demo", "oci", "scan"]
    assert offered("catalog res") == ["restore"]
    assert offered("catalog gc --d") == ["--dry-run"]
    assert offered("catalog show ca") == ["calo/gan"]
    assert offered("catalog show calo/gan@") == ["calo/gan@best", "calo/gan@1"]
    assert offered("catalog show x") == []
    assert offered("catalog -c ./nothing show ") == []
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("arguments", [("--help",), ("show", "calo/gan@1")])
def test_help_and_show_import_only_what_they_print_by(run, arguments: tuple[str, ...]) -> None:
    """What they cost beyond Python's own start; `bench/test_start.py` has the times."""
    code = (
        "import sys; from catalog_cli import main; sys.argv[0] = 'catalog'\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()} - set(sys.stdlib_module_names)
    others = {name for name in loaded if not name.startswith(("catalog_", "_"))}
    assert others == {"attr", "attrs", "click", "pluggy"}


def test_a_folder_of_code_is_attached_and_fetched(run, tmp_path: Path) -> None:
    (tmp_path / "code" / "deep").mkdir(parents=True)
    (tmp_path / "code" / "deep" / "train.py").write_text("import this")
    assert run("attach", "calo/gan@1", str(tmp_path / "code")).returncode == 0
    done = run("attach", "calo/gan@1", str(tmp_path / "back"), "--get", "--name", "code")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back" / "deep" / "train.py").read_text() == "import this"


def test_what_is_there_is_not_overwritten_by_an_attachment(run, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("attached")
    (tmp_path / "a.txt").write_text("attached")
    assert run("attach", "calo/gan@1", "a.txt").returncode == 0
    assert run("attach", "calo/gan@1", "code").returncode == 0
    mine = [tmp_path / "a.txt", tmp_path / "o.txt", tmp_path / "code" / "train.py"]
    for path in mine:
        path.write_text("mine")
    for arguments in (("o.txt", "--name=a.txt"), ("--name=a.txt",), ("--name=code",), ("code", "--name=a.txt")):
        done = run("attach", "calo/gan@1", "--get", *arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.startswith("error: ")
        assert "exists" in done.stderr
    assert {path.read_text() for path in mine} == {"mine"}
    assert run("attach", "calo/gan@1", "--get", "--remove", "--name", "a.txt").returncode == 2
    assert run("attach", "calo/gan@1", "new.txt", "--get", "--name", "a.txt").returncode == 0
    assert (tmp_path / "new.txt").read_text() == "attached"


def test_a_command_that_is_not_there_offers_the_nearest(run) -> None:
    for arguments, offered in ((("lst",), "list"), (("cache", "trm"), "trim"), (("hybrid", "failovr"), "failover")):
        done = run(*arguments)
        assert done.returncode == 2 and f"did you mean {offered}" in done.stderr, done.stderr
    assert "there is no command 'xyzzy'" in run("xyzzy").stderr


def test_a_warning_is_a_note_without_a_line_of_code(run, tmp_path: Path) -> None:
    (tmp_path / "old.pkl").write_bytes(b"\x80\x04N.")
    done = run("save", "old", "old.pkl")
    assert done.returncode == 0 and done.stderr.startswith("note: old@1: old.pkl is kept as bytes")
    assert "catalog import old.pkl" in done.stderr and ".py:" not in done.stderr


def test_an_alias_of_another_version_stays(run) -> None:
    assert run("save", "calo/gan", "weights.bin").returncode == 0
    done = run("alias", "calo/gan@2", "best", "--remove")
    assert (done.returncode, done.stdout) == (1, "")
    assert "calo/gan@best is version 1, not 2" in done.stderr
    assert run("alias", "calo/gan@1", "best", "--remove").returncode == 0


def test_a_deleted_model_says_so(run) -> None:
    run("delete", "calo/gan")
    for arguments in (("show", "calo/gan"), ("list", "calo/gan"), ("download", "calo/gan", "out")):
        done = run(*arguments)
        assert "calo/gan is deleted" in done.stderr and "catalog restore calo/gan" in done.stderr, arguments


def test_a_card_begins_with_the_version_that_a_bare_name_means(run) -> None:
    run("save", "calo/gan", "weights.bin")
    run("promote", "calo/gan@2", "archived")
    assert 'load("calo/gan@1")' in run("card", "calo/gan", "--start").stdout
    run("promote", "calo/gan@1", "archived")
    assert 'load("calo/gan@2")' in run("card", "calo/gan", "--start").stdout


def test_one_is_no_plural(run) -> None:
    assert "1 version," in run("fsck").stdout
    run("save", "calo/gan", "weights.bin")
    assert "0 tensors equal" in run("compare", "calo/gan@1", "calo/gan@2").stdout
