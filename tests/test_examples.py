"""Every example of README.md and docs/ runs, and what it shows is what comes.

In a page, top to bottom, in one folder and one Python:

- ```` ```python ```` is executed; ```` ```pycon ```` too, and its output compared.
- ```` ```console ```` holds `$ command` lines, each followed by what it prints; ```` ```sh ```` only commands.
- A block with `title="name"` is a file, written before what follows.
- `…` in an output stands for anything; dates and digests are not compared.
- `<!-- not run: reason -->` before a block leaves it out. A block inside a comment runs unseen.
- `<!-- needs: framework -->` at the top of a page: it runs where torch and scikit-learn are;
  `<!-- needs: tensorflow -->`: where TensorFlow is, in a process without torch.
"""

from __future__ import annotations

import doctest
import importlib.util
import linecache
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import attrs
import pytest

from catalog_core import platform

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# pages that a test of their own runs, since their examples are what that test inherits from
ELSEWHERE = {
    "how-to/write-a-backend.md",
    "how-to/write-a-check.md",
    "how-to/write-a-command.md",
    "how-to/write-a-serializer.md",
}
RUN = ("python", "pycon", "console", "sh")
INERT = ("toml", "text", "ebnf", "json", "sql", "mermaid", "yaml")
BLOCK = re.compile(
    r'^(?P<indent> *)```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?[^\n]*\n(?P<body>.*?)^(?P=indent)```$',
    re.M | re.S,
)
NOT_RUN = re.compile(r"<!-- not run: ([^>]+) -->\s*\Z")


@attrs.frozen
class Block:
    """A fenced block: where it is, what it is, and why it is not run, where it is not."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str
    why: str | None


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT)).removeprefix("docs/")


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        why = NOT_RUN.search(text, 0, match.start())
        line = text.count("\n", 0, match.start()) + 2
        body = textwrap.dedent(match["body"])
        found.append(Block(page, line, match["language"], match["title"], body, why and why[1]))
    return found


def plain(output: str) -> str:
    """An output without what differs from run to run: places, times, digests, and how many blanks align a table."""
    output = output.replace(os.getcwd(), "/home/ada/work").replace(os.environ["HOME"], "/home/ada")
    output = re.sub(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?", "TIME", output)
    output = re.sub(r"sha256:[0-9a-f]{12,64}…?", "DIGEST", output)
    return "\n".join(re.sub(" +", " ", line.rstrip()) for line in output.strip("\n").split("\n"))


def agree(wanted: str, got: str) -> bool:
    """Whether an output is as shown; `…` stands for any text."""
    pattern = ".*?".join(map(re.escape, plain(wanted).split("…")))
    return re.fullmatch(pattern, plain(got), re.S) is not None


def refuse(block: Block, what: str, wanted: str, got: str) -> None:
    pytest.fail(
        f"{name_of(block.page)}, line {block.line}: {what}\n--- shown\n{wanted}\n--- came\n{got}", pytrace=False
    )


class Page:
    """Runs the blocks of a page."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "example"}

    def run(self, block: Block) -> None:
        if block.title is not None:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self.python(block)
        elif block.language == "pycon":
            self.session(block)
        elif block.language in ("console", "sh"):
            self.console(block)

    def python(self, block: Block) -> None:
        file = f"{block.page}:{block.line}"
        linecache.cache[file] = (len(block.text), None, block.text.splitlines(keepends=True), file)
        exec(compile(block.text, file, "exec"), self.names)

    def session(self, block: Block) -> None:
        class Checker(doctest.OutputChecker):
            def check_output(self, want: str, got: str, optionflags: int) -> bool:
                return agree(want, got)

        test = doctest.DocTestParser().get_doctest(block.text, self.names, block.page.name, str(block.page), block.line)
        assert test.examples, f"{name_of(block.page)}, line {block.line}: no >>> in it"
        report: list[str] = []
        runner = doctest.DocTestRunner(Checker(), verbose=False)
        runner.run(test, out=report.append, clear_globs=False)
        self.names.update(test.globs)
        assert runner.summarize(verbose=False).failed == 0, "".join(report)

    def console(self, block: Block) -> None:
        commands: list[tuple[str, list[str]]] = []
        for line in block.text.splitlines():
            if block.language == "sh":
                commands.append((line, []))
            elif line.startswith("$ "):
                commands.append((line[2:], []))
            elif line.startswith("> ") and not commands[-1][1]:
                commands[-1] = (commands[-1][0] + "\n" + line[2:], [])
            else:
                commands[-1][1].append(line)
        for command, shown in commands:
            if not command.strip():
                continue
            done = subprocess.run(
                ["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            came = done.stdout + done.stderr
            fails = any(line.startswith(("error: ", "Error: ")) for line in shown)
            if bool(done.returncode) != fails:
                refuse(block, f"{command!r} ended with {done.returncode}", "\n".join(shown), came)
            if any(shown) and not agree("\n".join(shown), came):
                refuse(block, repr(command), "\n".join(shown), came)


def _parameters() -> list[Any]:
    result = []
    for page in PAGES:
        if not any(block.language in RUN and block.why is None for block in blocks(page)):
            continue
        if name_of(page) in ELSEWHERE:
            continue
        needs = re.match(r"<!-- needs: (\w+) -->", page.read_text(encoding="utf-8"))
        marks = [pytest.mark.framework if needs else pytest.mark.server, pytest.mark.timeout(600)]
        if needs and needs[1] == "tensorflow":
            missing = importlib.util.find_spec("tensorflow") is None or "torch" in sys.modules
            marks.append(pytest.mark.skipif(missing, reason="needs TensorFlow, and a process without torch"))
        result.append(pytest.param(page, marks=marks, id=name_of(page)))
    return result


@pytest.mark.parametrize("page", _parameters())
def test_the_examples_run_and_give_what_they_show(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CATALOG", "XDG_", "COLUMNS", "NO_COLOR")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CATALOG_ACTOR", "ada@lab")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))  # a page may import a file that it wrote
    platform.actor.cache_clear()
    runner = Page()
    try:
        for block in blocks(page):
            if block.why is None:
                runner.run(block)
    finally:
        platform.actor.cache_clear()


def test_every_block_has_a_known_language() -> None:
    """So that no example escapes by another spelling."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^ *```", text, re.M)) == 2 * len(blocks(page)), (
            f"{name_of(page)}: a fence is not closed"
        )
        for block in blocks(page):
            assert block.language in RUN + INERT, f"{name_of(page)}, line {block.line}: {block.language!r}"


def test_few_examples_are_not_run_and_each_says_why() -> None:
    left = [(name_of(page), block.line, block.why) for page in PAGES for block in blocks(page) if block.why]
    print(*left, sep="\n")
    assert len(left) <= 12, left
    assert all(len(why) > 20 for _, _, why in left)


def test_a_wrong_output_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: what differs fails, `…` takes anything, and a failing command fails."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "page.md"
    for text, good in [
        ("$ echo one two\none …\n", True), ("$ echo one two\none\n", False), ("$ false\n", False),
        ("$ echo a; echo b; echo c\na\n…\nc\n", True), ("$ echo error: x; false\nerror: x\n", True),
    ]:  # fmt: skip
        block = Block(page, 1, "console", None, text, None)
        if good:
            Page().run(block)
        else:
            with pytest.raises(pytest.fail.Exception):
                Page().run(block)
    Page().run(Block(page, 1, "pycon", None, ">>> 1 / 3\n0.33…\n", None))
    with pytest.raises(AssertionError):
        Page().run(Block(page, 1, "pycon", None, ">>> 1 / 3\n0.34\n", None))


def test_every_figure_that_the_readme_boasts_of_stands_in_the_benchmarks() -> None:
    measured = (ROOT / "docs/explanation/benchmarks.md").read_text(encoding="utf-8")
    figures = re.findall(r"\*\*(\d[^*]*)\*\*", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(figures) >= 5
    assert [figure for figure in figures if figure not in measured] == []
