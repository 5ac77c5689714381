"""No test passes or fails by how fast the machine is: times are measured in `bench/`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
TESTS = Path(__file__).parent
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "thread_time"}


def reads_a_clock(node: ast.AST) -> bool:
    """Whether it calls `time.monotonic` or a brother."""
    return any(
        isinstance(inner, ast.Call)
        and isinstance(inner.func, ast.Attribute)
        and inner.func.attr in CLOCKS
        and isinstance(inner.func.value, ast.Name)
        and inner.func.value.id == "time"
        for inner in ast.walk(node)
    )


def timed(tree: ast.Module) -> list[int]:
    """The lines that hold a time: an assertion about what a clock says or about a difference of two looks at it, and a
    hypothesis deadline. A loop that gives up waiting (`assert time.monotonic() < end`) holds none: what it waits for
    has no bound but a generous one."""
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        spans = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and reads_a_clock(node.value)
            and isinstance(node.value.op, ast.Sub)
            for target in node.targets
            if isinstance(target, ast.Name)
        }  # fmt: skip
        for node in ast.walk(function):
            if not isinstance(node, ast.Assert):
                continue
            differs = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Sub) and reads_a_clock(n)
                          for n in ast.walk(node.test))  # fmt: skip
            if differs or any(isinstance(n, ast.Name) and n.id in spans for n in ast.walk(node.test)):
                found.append(node.lineno)
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "deadline" and "timedelta" in ast.dump(node.value):
            found.append(node.value.lineno)
    return found


def test_the_search_finds_what_holds_a_time() -> None:
    code = (
        "import time\n"
        "def test():\n"
        "    begun = time.monotonic()\n"
        "    took = time.monotonic() - begun\n"
        "    assert took < 1\n"
        "    assert time.perf_counter() - begun < 1\n"
        "    assert time.monotonic() < begun + 60\n"
        "settings(deadline=timedelta(seconds=1))\n"
    )
    assert timed(ast.parse(code)) == [5, 6, 8]


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_test_holds_a_time(path: Path) -> None:
    assert timed(ast.parse(path.read_text())) == []
