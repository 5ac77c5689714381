"""The command line on a terminal (a pty of its own): bars for what takes over a second, and tables that fit."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from catalog_core import Catalog

pytestmark = pytest.mark.server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "weights.bin").write_bytes(b"weights" * 50_000)
    with Catalog.open(tmp_path / "catalog") as catalog:
        catalog.save(
            "calo/a-rather-long-name-of-a-model", tmp_path / "weights.bin",
            metrics={f"metric{n}": n / 7 for n in range(9)},
        )  # fmt: skip
    return tmp_path


class Terminal:
    """`catalog …` with a terminal of `columns`; `errors` only: standard output is a pipe."""

    def __init__(self, *arguments: str, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        command = [sys.executable, "-m", "catalog_cli", *arguments]
        # readline, which pytest imports, sets COLUMNS=80 behind Python's back, and the processes of xdist inherit it
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, close_fds=True, env=environment
        )
        os.close(slave)
        self.seen = ""

    def read(self, until: str | None = None, seconds: float = 60) -> str:
        """All that came, until `until` was seen, or the command ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (until is None or until not in self.seen):
            if select.select([self.master], [], [], 1)[0]:
                try:
                    data = os.read(self.master, 1 << 16)
                except OSError:  # the other end is closed
                    break
                self.seen += data.decode(errors="replace")
        assert until is None or until in self.seen, self.seen
        return self.seen

    def end(self) -> int:
        """Wait for the command."""
        self.read()
        code = self.process.wait(60)
        os.close(self.master)
        return code


def test_what_waits_shows_a_bar_and_wipes_it(folder: Path) -> None:
    with sqlite3.connect(folder / "catalog" / "catalog.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")  # the save must wait for this writer, however fast the machine is
        terminal = Terminal("save", "calo/gan", str(folder / "weights.bin"))
        terminal.read(until="100%")  # the bytes are staged, the commit waits
        other.execute("ROLLBACK")
    other.close()
    assert terminal.end() == 0
    assert "calo/gan@1  350.0 kB" in terminal.seen
    assert "━" in terminal.seen
    assert "\x1b[2K" in terminal.seen[terminal.seen.rindex("100%") :], "the bar was left on the screen"


def test_nothing_but_the_result_is_written_without_a_terminal(folder: Path) -> None:
    with sqlite3.connect(folder / "catalog" / "catalog.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        command = [sys.executable, "-m", "catalog_cli", "save", "calo/gan", str(folder / "weights.bin")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=2.5)  # long enough for a bar
        other.execute("ROLLBACK")
    other.close()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert re.fullmatch(r"calo/gan@1  350\.0 kB, [0-9.]+ k?B new  sha256:[0-9a-f]{64}\n", out)


@pytest.mark.parametrize("columns", [40, 80, 120, 250])
def test_tables_fit_the_terminal_and_lose_nothing(folder: Path, columns: int) -> None:
    terminal = Terminal("list", "calo/a-rather-long-name-of-a-model", columns=columns)
    assert terminal.end() == 0
    lines = terminal.seen.splitlines()
    assert max(map(len, lines)) <= columns
    shown = "".join(terminal.seen.split())
    for n in range(9):
        assert f"metric{n}=" in shown
    assert (len(lines) > 2) == (columns < 250)  # there one line is enough


def test_long_work_is_counted_to_its_end(folder: Path) -> None:
    """What the bar is fed: downloads by bytes, `fsck` by versions; never beyond the total."""
    with Catalog.open(folder / "catalog") as catalog:
        name = "calo/a-rather-long-name-of-a-model"
        size = catalog.version(name).size
        seen: list[tuple[int, int]] = []
        catalog.progress = lambda done, total: seen.append((done, total))
        target = catalog.download(name, folder / "out")
        assert seen[-1] == (size, size) == ((target / "weights.bin").stat().st_size,) * 2
        assert all(a <= b for a, b in seen)
