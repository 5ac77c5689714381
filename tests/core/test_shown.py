"""All that is shown is cleaned in one place: what others wrote never steers a terminal, by whatever way it comes."""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_cli.main import main
from catalog_core import Catalog, errors, show
from catalog_core.digests import canonical, digest_of
from catalog_core.events import event, new_id
from catalog_core.journal import entry_key
from catalog_core.shown import an, clean, clean_json, clean_lines

pytestmark = pytest.mark.unit
EVIL = "x\x1b[31m\x1b]0;title\x07\x9b5m\u202eexe\u2066\r\n\x00\x7f\u2028y"
SOURCES = Path(__file__).parents[2]


def printable(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A catalog with versions, and behind them an entry in which each text is one that steers a terminal."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    url = f"file://{tmp_path}/catalog"
    with Catalog.open(url) as catalog:
        catalog.repository.actor = EVIL  # as a journal that somebody else wrote may have it
        catalog.save(
            "m",
            {"w": [1]},
            tags={"note": EVIL},
            params={"p": EVIL},
            taxonomy={"task": EVIL},
            alias="best",
            custom={"c": {"value": EVIL, "description": EVIL}},
            provenance={"git": {"url": EVIL, "branch": EVIL}},
            datasets={"train": EVIL},
            run=EVIL,
        )
        catalog.save("m", {"w": [2]}, parents=["m@1"])
        catalog.model("m").update(title=EVIL, description=EVIL, owner=EVIL)
        catalog.model("m").set_card(f"# {EVIL}")
        at, previous = catalog.position + 1, catalog.repository.index.head.digest  # type: ignore[union-attr]
    digest = digest_of(b"x")
    published = event(
        "version.published",
        model="m",
        number=3,
        manifest=digest,
        layout=digest,
        size=1,
        blobs="",
        checked=-1,
        summary={
            "framework": EVIL,
            "algorithm": EVIL,
            "verification": EVIL,
            EVIL: EVIL,
            "components": {EVIL: EVIL},
            "checks": [[EVIL, "failed", 1, EVIL]],
            "origin": {"catalog": EVIL, "ref": EVIL},
            "parents": [EVIL, "m@1"],
        },
    )
    unknown = {"type": EVIL, "v": 1, "critical": False, "model": EVIL, "number": 1, "set": EVIL, EVIL: EVIL}
    events: list[list[dict[str, Any]]] = [
        [published],
        [unknown],
        [{**unknown, "type": "version.published", "v": 2, "size": EVIL}],
        [event("stage.set", model="m", number=1, stage=EVIL, seen=EVIL)],
        [event("alias.set", model="m", number=1, alias=EVIL, seen=EVIL)],
        [event("alias.set", model="m", number=1, alias=[EVIL], seen="any")],
        [event("tags.set", model="m", number=1, set={EVIL: EVIL}, unset=[EVIL])],
        [event("tags.set", model="m", number=1, set=[EVIL], unset=7)],
        [event("tags.set", model="m", number=1, set={}, unset=[EVIL])],
        [event("blobs.swept", keys=7, versions=EVIL)],
        [event("blobs.erased", keys=[], digests=[], versions=[[EVIL]], reason=[EVIL])],
        [event("blobs.erased", keys=[], digests=[], versions=[], reason=EVIL)],
        [event("intents.dropped", ids=7, reason=EVIL)],
        [event("version.deleted", model=EVIL, number=EVIL)],
    ]
    intents = [{"id": new_id(), "actor": EVIL, "time": 1, "based_on": None, "events": each} for each in events]
    data = canonical({"epoch": 0, "position": at, "previous": previous, "time": 1_800_000_000_000, "intents": intents})
    (tmp_path / "catalog" / entry_key(at)).write_bytes(data)
    return url


GIVEN = EVIL.replace("\0", "")  # no argument holds a zero
READ = [
    ("list",),
    ("list", "m"),
    ("search", "m"),
    ("search", "x"),
    ("show", "m"),
    ("show", "m@1"),
    ("show", "m@3"),
    ("show", "m", "--as-of", "#9"),
    ("show", "m@1", "--as-of", "#9"),
    ("history",),
    ("history", "m"),
    ("card", "m"),
    ("card", "m@1", "--start"),
    ("compare", "m@1", "m@2"),
    ("compare", "m@1", "m@3"),
    ("lineage", "m@1"),
    ("lineage", "m@3"),
    ("env", "show", "m@1"),
    ("attach", "m@1"),
    ("fsck",),
    ("gc", "--dry-run"),
    ("config",),
    ("download", "m@3", "out"),
    ("tag", "m@1"),
    ("show", GIVEN),
    ("show", f"m@{GIVEN}"),
    ("show", "m", "--as-of", GIVEN),
    ("search", f"tags.{GIVEN} ="),
    ("list", "--limit", GIVEN),
    ("save", "n", GIVEN),
    ("save", "n"),
    ("attach", "m@1", GIVEN),
    (GIVEN,),
    ("show", "m", f"--{GIVEN}"),
    ("promote", "m@1", GIVEN),
    ("export", "m@1", GIVEN, "--format", GIVEN),
    ("import", GIVEN),
    ("cache", "trim", "--to", GIVEN),
]


@pytest.mark.parametrize("arguments", READ, ids=lambda given: " ".join(map(ascii, given))[:40])
def test_no_command_prints_what_steers_a_terminal(
    hostile: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ((), ("--json",)):
        with pytest.raises(SystemExit):
            main(["--catalog", hostile, *more, *arguments])
        out, err = capsys.readouterr()
        assert out + err
        assert "Traceback" not in out + err
        assert printable(out), ascii(out)
        assert printable(err), ascii(err)
        if more and out:
            json.loads(out)


def test_programs_get_the_texts_as_they_are(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--catalog", hostile, "show", "m@1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["author"], found["tags"]["note"], found["params"]["p"]) == (EVIL, EVIL, EVIL)


def test_notebooks_and_rich_terminals_are_not_steered(hostile: str) -> None:
    from rich.console import Console

    with Catalog.open(hostile) as catalog:
        items: list[Any] = [
            catalog,
            catalog.model("m"),
            catalog.version("m@1"),
            catalog.version("m@3"),
            catalog.search("m"),
            catalog.compare("m@1", "m@2"),
            catalog.lineage("m@1"),
        ]
        for item in items:
            console = Console(width=300, force_terminal=False, file=io.StringIO(), record=True)
            console.print(item)
            assert printable(console.export_text())
            assert printable(show.html(item))
            assert printable(repr(item))
        for told in catalog.history():
            assert told.text.isprintable()
            assert all(cell.isprintable() for cell in show.table([told])[1][0])


def test_errors_and_what_is_logged_are_clean(hostile: str, caplog: pytest.LogCaptureFixture) -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CatalogError)]
    more: dict[str, dict[str, Any]] = {"Rejected": {"code": "x"}, "PublishedNotReplicated": {"version": Ref()}}
    for kind in kinds:
        raised = kind(EVIL, hint=EVIL, **more.get(kind.__name__, {}))
        assert printable(str(raised))
        assert printable(raised.message)
        assert printable(raised.hint or "")
    with caplog.at_level(logging.WARNING, logger="catalog_core"), Catalog.open(hostile) as catalog:
        path = Path(hostile.removeprefix("file://")) / entry_key(catalog.position + 1)
        path.write_bytes(EVIL.encode())
        catalog.repository.refresh(force=True)
    assert caplog.records
    assert all(record.getMessage().isprintable() for record in caplog.records)


class Ref:
    ref = "m@1"

    def __reduce__(self) -> NoReturn:
        raise errors.InvalidInput("a handle stays in its process")


def test_errors_come_back_from_another_process_as_they_were() -> None:
    """One that cannot be read there ends a pool of processes, or lets it wait for ever."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CatalogError)]
    more: dict[str, dict[str, Any]] = {
        "Rejected": {"code": "x", "seen": 1, "actual": 2}, "PublishedNotReplicated": {"version": Ref()},
        "InvalidQuery": {"column": 3},
    }  # fmt: skip
    for kind in kinds:
        raised = kind("told", hint="way", **more.get(kind.__name__, {}))
        back = pickle.loads(pickle.dumps(raised))
        expected = {**vars(raised), **({"version": None} if "version" in vars(raised) else {})}
        assert (type(back), str(back), back.args, vars(back)) == (kind, str(raised), raised.args, expected)


def test_commands_print_by_one_function() -> None:
    """`say`, `say_json`, `put`, `put_table`; `main` prints errors, which are clean."""
    allowed = {"output.py": 2, "main.py": 5}
    for path in sorted((SOURCES / "apps" / "catalog_cli").glob("*.py")):
        found = re.findall(r"click\.echo\(|\bprint\(|sys\.std(?:out|err)\.write\(", path.read_text(encoding="utf-8"))
        assert len(found) == allowed.get(path.name, 0), path


@given(st.text())
def test_a_clean_text_is_one_printable_line_and_a_clean_one_stays(words: str) -> None:
    assert clean(words).isprintable()
    assert clean(clean(words)) == clean(words)
    assert printable(clean_lines(words))
    if words.isprintable():
        assert clean(words) == clean_lines(words) == words


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_clean_json_means_the_same(value: Any) -> None:
    for indent in (None, 2):
        found = clean_json(json.dumps(value, ensure_ascii=False, indent=indent))
        assert printable(found)
        assert json.loads(found) == value


SAID = (
    "a dict, an Adam, an ndarray, an SVC, a Linear, an int, a float, an LSTM, a PCA, an XGBClassifier, a UNet, "
    "an Unpickler, a uint8, an nn.Module, a model, an OrderedDict, a NoneType, an MLPClassifier"
)


@pytest.mark.parametrize("words", re.split(", ", SAID))
def test_a_word_has_the_article_that_is_said(words: str) -> None:
    assert an(words.partition(" ")[2]) == words


def test_no_name_of_a_type_stands_behind_an_article_that_is_fixed() -> None:
    root = Path(__file__).parents[2]
    fixed = re.compile(r"\b[Aa]n? \{type\(\w+\)\.__(name|module)__")
    for folder in ("catalog_core", "integrations", "serializers", "runners", "backends", "apps"):
        for path in (root / folder).rglob("*.py"):
            if path.name != "child.py" and "testing" not in path.parts:  # the child imports nothing of ours
                assert not fixed.search(path.read_text(encoding="utf-8")), path
