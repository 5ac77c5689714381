"""The filter language: what it matches, how it orders and pages, what it refuses."""

from __future__ import annotations

import base64
import operator
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_core import Catalog, query, query_sql
from catalog_core.errors import InvalidQuery
from catalog_core.index import Index
from catalog_core.query import Both, Compare, Either, Field, Has, Node, Not
from catalog_core.reducer import FIELD, TEXT, field_rows
from catalog_core.testing.memory import memory_catalog

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "query.md"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    folder = tmp_path_factory.mktemp("query")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATALOG_CACHE_DIR", str(folder / "cache"))
        with Catalog.open(f"sqlite://{folder}/catalog") as opened:
            array = {"w": np.zeros(4, np.float32)}
            opened.save("calo/gan", array, metrics={"auc": 0.9, "val/auc": 0.8}, tags={"team": "a", "flag": True},
                        description="a calorimeter shower in 3d", alias="champion")  # fmt: skip
            opened.save("calo/gan", array, metrics={"auc": 10}, tags={"team": "b c", "run": 7, "v": "v1.2"})
            opened.save("jets", array, metrics={"auc": 9, "val/auc": 0.1}, tags={"team": "it's", "flag": False})
            opened.save("tracks", array, params={"a.b": "x_y", "lr": 1e-3}, description="Track finding")
            yield opened


@pytest.fixture
def memory() -> Iterator[Catalog]:
    with memory_catalog() as made:
        yield made


def refs(catalog: Catalog, text: str, **options: Any) -> list[str]:
    return [version.ref for version in catalog.search(text, **options)]


G1, G2, J, T = "calo/gan@1", "calo/gan@2", "jets@1", "tracks@1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [T, J, G2, G1]),
        ("name = calo/gan", [G2, G1]),
        ("name = 'jets'", [J]),
        ('name == "jets"', [J]),
        ("name != jets", [T, G2, G1]),
        ("name = jets or name = tracks and version = 2", [J]),
        ("(name = jets or name = calo/gan) and version = 1", [J, G1]),
        ("not name = jets and version = 1", [T, G1]),
        ("not (name = jets and version = 1)", [T, G2, G1]),
        ("NOT NOT name = jets", [J]),
        ("name in (jets, 'tracks')", [T, J]),
        ("name NOT IN (jets, tracks)", [G2, G1]),
        ("name like 'calo/%'", [G2, G1]),
        ("name not like 'calo/%'", [T, J]),
        ("name ~ gan", [G2, G1]),
        ("text ~ 'calorimeter'", [G1]),
        ("text ~ 'calori*'", [G1]),
        ("text ~ '!!!'", []),
        ("text ~ '_ calorimeter'", [G1]),
        ("calorimeter", [G1]),
        ("shower in 3d", [G1]),
        ("shower and jets", []),
        ("track finding", [T]),
        ("TRACK", [T]),
        ("metrics.auc > 9", [G2]),
        ("metrics.auc >= 9", [J, G2]),
        ("metrics.auc<.95", [G1]),
        ("metrics.auc <= 9e0", [J, G1]),
        ("metrics.auc = 10", [G2]),
        ("metrics.auc != 10", [T, J, G1]),
        ("not metrics.auc > 9", [T, J, G1]),
        ('metrics."val/auc" > 0.5', [G1]),
        ("metrics.val/auc > 0.5", [G1]),
        ("params.a.b = x_y", [T]),
        ("params.lr = 0.001", [T]),
        ("has(tags.team)", [J, G2, G1]),
        ("not has(tags.team)", [T]),
        ("has(alias)", [G1]),
        ("alias = champion", [G1]),
        ("alias != champion", [T, J, G2]),
        ("tags.team = 'b c'", [G2]),
        ('tags.team = "it\'s"', [J]),
        (r"tags.team = 'it\'s'", [J]),
        ("tags.v = v1.2", [G2]),
        ("tags.run = 7", [G2]),
        ("tags.run = 7.0", [G2]),
        ("tags.run > 10", []),
        ("tags.flag = true", [G1]),
        ("tags.flag = false", [J]),
        ("tags.flag = 1", []),
        ("tags.flag != true", [T, J, G2]),
        ("time > 2020-01-01", [T, J, G2, G1]),
        ("time < 2020-01-01T00:00+02:00", []),
        ("stage != production", [T, J, G2, G1]),
        ("stage = production", []),
        ("size > 0", [T, J, G2, G1]),
        ('name = "x\' OR 1=1 --"', []),
        ("tags.\"x' OR '1'='1\" = 1", []),
        ("tags.team = '\"; DROP TABLE versions; --'", []),
        ("text ~ '\" OR name:*'", []),
        ("name = jets order by name", [J]),
        ("order by metrics.auc desc limit 2", [G2, J]),
        ("order by metrics.auc", [G1, J, G2]),
        ("order by name desc, version", [T, J, G1, G2]),
        ("version = 1\nlimit 2", [T, J]),
    ],
)
def test_what_a_query_matches(catalog: Catalog, text: str, expected: list[str]) -> None:
    assert refs(catalog, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "order by metrics.auc", "order by metrics.auc desc", "order by tags.team desc, name, version desc",
        "order by tags.run, metrics.auc desc limit 3", "has(tags.team) order by tags.flag",
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_together_are_the_whole_list(catalog: Catalog, text: str, size: int) -> None:
    page = catalog.search(text, limit=size)
    found: list[str] = []
    while page is not None:
        assert 0 < len(page) <= size
        found += [version.ref for version in page]
        page = page.next  # type: ignore[assignment]
    assert found == refs(catalog, text)
    assert found


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("name =", 7),
        ("name = 'a", 8),
        ("fooo = 1", 1),
        ("name = jets and\nstge = 1", 17),
        ("metrics.auc > high", 15),
        ("version > many", 11),
        ("size = 'x'", 8),
        ("time > yesterday", 8),
        ("time like 2026", 11),
        ("name.x = 1", 1),
        ("tags.team ~ a", 13),
        ("text = a", 8),
        ("limit 0", 7),
        ("name = a limit 1.5", 16),
        ("order by name, alias", 16),
        ("(name = a", 10),
        ("name = a)", 9),
        ("name = a; drop table versions", 9),
        ("name in ()", 10),
    ],
)
def test_errors_point_at_the_column(text: str, column: int) -> None:
    with pytest.raises(InvalidQuery) as caught:
        query.parse(text)
    assert caught.value.column == column


def test_an_unknown_field_offers_the_nearest() -> None:
    with pytest.raises(InvalidQuery) as caught:
        query.parse("framwork = torch")
    assert "framework" in str(caught.value.hint)


def test_an_unknown_field_offers_the_tags_and_metrics_that_are_called_so(memory: Catalog) -> None:
    memory.save("m", {"w": np.zeros(1)}, metrics={"auc": 0.9}, tags={"team": "cms"}, params={"team": "x"})
    for text, offered in (
        ("auc > 0.9", "metrics.auc"), ("acu > 0.9", "metrics.auc"), ("team = 'cms'", "tags.team, params.team"),
        ("order by AUC", "metrics.auc"),
    ):  # fmt: skip
        with pytest.raises(InvalidQuery) as caught:
            memory.search(text)
        assert sorted(str(caught.value.hint)) == sorted(f"did you mean {offered}?"), text
    memory.save("calo/shower", {"w": np.zeros(2)}, description="a calibration net")
    assert memory.search("calib").notes == ("no version has the word 'calib'; calib* finds what begins so",)
    assert memory.search("net zebra*").notes == ("no version has a word that begins with 'zebra'",)
    notes = memory.search("metrics.acu > 0.9 and has(tags.taem)").notes
    assert notes == ("no version has metrics.acu; did you mean auc?", "no version has tags.taem; did you mean team?")


@pytest.mark.parametrize(
    "text", ["not " * 5000 + "name = a", " or ".join(["name = a"] * 1000), "(not " * 30 + "name = a" + ")" * 30]
)
def test_too_large_a_query_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuery):
        query.parse(text)


def test_the_largest_query_runs(catalog: Catalog) -> None:
    many = ", ".join(f"n{n}" for n in range(query.CONDITIONS - 10))
    assert refs(catalog, f"name in ({many}, jets)") == [J]
    deep = query.DEPTH // 2
    assert refs(catalog, "not (" * 2 * deep + "name = jets" + ")" * 2 * deep) == [J]


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense", "W10=", "WzEsIFtdXQ==", "é", base64.urlsafe_b64encode(b'[1, "\\ud800"]').decode(),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    ],
)  # fmt: skip
def test_a_strange_cursor_is_refused(catalog: Catalog, cursor: str) -> None:
    with pytest.raises(InvalidQuery):
        catalog.search("", cursor=cursor)


def test_a_page_of_nothing_is_refused(catalog: Catalog) -> None:
    with pytest.raises(InvalidQuery):
        catalog.search("", limit=0)


def test_every_example_of_the_page_parses_and_its_grammar_is_the_parsers() -> None:
    page = DOCS.read_text()
    examples = [line for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(examples) > 10
    for line in examples:
        query.parse(line)
    ebnf = re.search(r"```ebnf\n(.*?)```", page, re.DOTALL)
    assert ebnf
    for field in (*query.COLUMNS, *query.GROUPS):
        assert f'"{field}"' in ebnf[1]


# -- the SQL against a plain evaluator ----------------------------------------------------------------------------

KEYS = ("tags.a", "tags.odd/key", "metrics.m", "params.p")
VALUES: list[Any] = [0, 1, 2.5, -3, "x", "Xy", "1", "", True, False]
Row = dict[str, Any]


def make_rows() -> list[Row]:
    rng = np.random.default_rng(5)
    rows = []
    for number in range(1, 31):
        row: Row = {"id": number, "name": f"m{number % 3}", "version": number, "size": int(rng.integers(0, 4)),
                    "framework": [None, "torch", "numpy"][int(rng.integers(3))]}  # fmt: skip
        for key in KEYS:
            if rng.random() < 0.6:
                row[key] = float(rng.integers(-3, 4)) if key == "metrics.m" else VALUES[int(rng.integers(len(VALUES)))]
        rows.append(row)
    return rows


def words_of(row: Row) -> str:
    return " ".join(word for number, word in enumerate(WORDS) if row["id"] % (number + 2) == 0)


ROWS = make_rows()
WORDS = ("calorimeter", "shower", "muon")


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    made = Index(None)
    for row in ROWS:
        made.db.execute(
            "INSERT INTO versions (id, model, number, name, stage, created, framework, size)"
            " VALUES (?, 1, ?, ?, 'none', 0, ?, ?)",
            (row["id"], row["version"], row["name"], row["framework"], row["size"]),
        )
        for key in KEYS:
            if key in row:
                group, _, rest = key.partition(".")
                made.db.executemany(FIELD, [(row["id"], *field) for field in field_rows(group, {rest: row[key]})])
        made.db.execute(TEXT, (row["id"], row["name"], words_of(row)))
    yield made
    made.close()


TESTS = {"=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def matches(node: Node, row: Row) -> bool:
    if isinstance(node, Both):
        return all(matches(inner, row) for inner in node.nodes)
    if isinstance(node, Either):
        return any(matches(inner, row) for inner in node.nodes)
    if isinstance(node, Not):
        return not matches(node.node, row)
    name = node.field.group if node.field.key is None else f"{node.field.group}.{node.field.key}"
    have = words_of(row) if name == "text" else row.get(name)
    if isinstance(node, Has):
        return have is not None
    if node.operator == "!=":
        return not matches(Compare(node.field, "=", node.value), row)
    if have is None:
        return False
    if node.operator == "~":
        return str(node.value).lower() in words_of(row).split()
    if node.operator == "like":
        pattern = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in str(node.value))
        return re.fullmatch(pattern, text_of(have), re.IGNORECASE | re.DOTALL) is not None
    if isinstance(node.value, str):
        return TESTS[node.operator](text_of(have), node.value)
    return not isinstance(have, (bool, str)) and TESTS[node.operator](have, node.value)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def written(node: Node) -> str:
    if isinstance(node, (Both, Either)):
        return "(" + (" and " if isinstance(node, Both) else " OR ").join(written(n) for n in node.nodes) + ")"
    if isinstance(node, Not):
        return f"not {written(node.node)}"
    field = node.field.group if node.field.key is None else f"{node.field.group}.{quoted(node.field.key)}"
    if isinstance(node, Has):
        return f"has({field})"
    return f"{field} {node.operator} {quoted(node.value) if isinstance(node.value, str) else node.value}"


fields = st.sampled_from([*[Field(*key.split(".", 1)) for key in KEYS], Field("name"), Field("framework")])
numbers = st.sampled_from([-3, 0, 1, 2, 2.5, 1e3])
texts = st.sampled_from(["x", "Xy", "1", "", "true", "m1", "torch", "it's", 'a"b', "\\"])
orders = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])


def comparison(field: Field) -> st.SearchStrategy[Node]:
    if field.group in ("metrics", "version", "size"):
        return st.builds(Compare, st.just(field), orders, numbers)
    like = st.builds(Compare, st.just(field), st.just("like"), st.sampled_from(["x%", "%", "_", "%1", "M_", "t%"]))
    values = texts if field.key is None else st.one_of(numbers, texts)
    return st.one_of(st.builds(Compare, st.just(field), orders, values), like)


leaves = st.one_of(
    st.builds(Compare, st.just(Field("text")), st.just("~"), st.sampled_from([*WORDS, "Shower", "none"])),
    st.one_of(fields, st.sampled_from([Field("version"), Field("size")])).flatmap(comparison),
    st.builds(Has, fields),
)
nodes = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(Both, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Either, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(node=nodes, rare=st.sampled_from([0, 3, 2000]), limit=st.sampled_from([1, 7, 100]))
def test_sql_matches_what_a_plain_evaluator_matches(index: Index, node: Node, rare: int, limit: int) -> None:
    """Page by page, whichever condition the search is led by (`RARE` decides)."""
    parsed = query.parse(written(node))
    found: list[int] = []
    cursor: str | None = ""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(query_sql, "RARE", rare)
        while cursor is not None and len(found) <= len(ROWS):
            statement = query_sql.compile(parsed, limit=limit, cursor=cursor or None, index=index)
            page, cursor = query_sql.run(statement, index)
            found += [row.id for row in page]
    assert found == [row["id"] for row in reversed(ROWS) if matches(node, row)]


def test_titles_and_descriptions_of_models_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as opened:
        for name in ("gan", "wae"):
            for number in range(3):
                opened.save(name, {"w": np.full(3, number)}, tags={"odd": number % 2}, description="a network")
        opened.model("gan").update(title="Calorimeter showers", description="Fast simulation")
        assert refs(opened, "calorimeter") == ["gan@3", "gan@2", "gan@1"]
        assert refs(opened, "text ~ simulation and tags.odd = 1") == ["gan@2"]
        assert refs(opened, "not text ~ simulation") == ["wae@3", "wae@2", "wae@1"]
        assert refs(opened, 'name ~ "calorimeter"') == []
        assert len(refs(opened, "network")) == 6
        opened.model("gan").update(title="Renamed")
        assert refs(opened, "calorimeter") == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("text", ["r\u00e9sum\u00e9", "e\u0327\u0301x", "na\u00efve"])
def test_a_word_is_found_however_its_accents_are_written(memory: Catalog, text: str, form: str) -> None:
    """On a Mac they come as characters of their own."""
    memory.save("m", {"w": np.zeros(1)}, description=f"of a {unicodedata.normalize('NFC', text)}")
    memory.save("m", {"w": np.zeros(2)}, description=f"of a {unicodedata.normalize('NFD', text)}")
    assert refs(memory, unicodedata.normalize(form, text)) == ["m@2", "m@1"]
    assert refs(memory, unicodedata.normalize(form, text)[:-1] + "*") == ["m@2", "m@1"]


def words_in(index: Index) -> list[tuple[str, int, str]]:
    """All that the texts of versions are found by: word, version, column."""
    with index:
        index.db.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, texts, instance)")
        rows = index.db.execute("SELECT term, doc, col FROM temp.vocabulary ORDER BY 1, 2, 3").fetchall()
        index.db.execute("DROP TABLE temp.vocabulary")
    return rows


def test_tags_of_later_are_found_and_those_of_once_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as opened:
        first = opened.save("a/m", {"w": np.arange(3)}, tags={"team": "desk", "n": 7, "ok": True}, description="desk")
        opened.save("a/m", {"w": np.arange(4)}, tags={"team": "desk"})
        assert refs(opened, "later") == []
        first = first.tag(note="much later", x=0.5)
        assert refs(opened, "later") == refs(opened, "note") == refs(opened, "later 7 true") == ["a/m@1"]
        first = first.tag(note="sooner", team="lab")
        assert refs(opened, "later") == []
        assert refs(opened, "text ~ sooner and tags.n = 7") == refs(opened, "team lab") == ["a/m@1"]
        assert refs(opened, "team desk") == ["a/m@2", "a/m@1"]  # its description says so still
        first.untag("note").untag("ok")
        assert refs(opened, "sooner") == refs(opened, "note") == refs(opened, "true") == []
        assert refs(opened, "name ~ a") == ["a/m@2", "a/m@1"]
        live, place = words_in(opened.repository.index), opened.repository.index.path
    assert place is not None
    place.unlink()  # it is made anew
    with Catalog.open(tmp_path / "catalog") as again:
        assert refs(again, "team desk") == ["a/m@2", "a/m@1"]
        assert words_in(again.repository.index) == live
