"""Killed writers: by SIGKILL at every step of a save, and at any moment. Nothing published is lost, no half is seen."""

from __future__ import annotations

import mmap
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from catalog_core import Catalog

pytestmark = pytest.mark.server
WRITER = Path(__file__).with_name("kill_writer.py")
READER = Path(__file__).with_name("kill_reader.py")
STEPS = ("between", "staging", "publish", "append", "index", "cleanup")
MOMENTS = [
    *[(step, when) for step in STEPS[1:] for when in ("before", "after")],
    ("staging", "unsynced"),
    ("publish", "unnamed"),
    ("append", "unwritten"),
    ("append", "unindexed"),
    ("cleanup", "appended"),
    ("cleanup", "remembered"),
]
FILE_MOMENTS = [("append", "unsynced"), ("append", "unnamed")]  # an entry is a row on the other backend
SIZE = 100_000
BOUND = 20.0  # seconds after which a writer that does not move is given up


class Writer:
    """A writer that is born again after every death."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.seed = url, folder, 0
        board = folder / "board"
        board.write_bytes(bytes(16))
        with board.open("r+b") as file:
            self.board = mmap.mmap(file.fileno(), 16)
        command = [sys.executable, str(WRITER), url, str(board)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def promised(self) -> int:
        return int(struct.unpack("<q", self.board[8:16])[0])

    @promised.setter
    def promised(self, number: int) -> None:
        self.board[8:16] = struct.pack("<q", number)

    @property
    def step(self) -> str:
        return STEPS[self.board[0]]

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begin(self, step: str, moment: str) -> int:
        """Begin a life; returns its process."""
        assert self.process.stdin is not None
        self.seed += 1000
        self.process.stdin.write(f"{step} {moment} {self.seed}\n")
        self.process.stdin.flush()
        return int(self._line())

    def ended(self) -> None:
        """Wait for a death by SIGKILL."""
        answer = self._line()
        assert answer == "dead", answer

    def wait(self, step: str, number: int) -> None:
        """Until it is in `step` of a save after that of `number`. Spins: a step may take 0.1 ms."""
        deadline = time.monotonic() + BOUND
        index = STEPS.index(step)
        while self.promised < number or self.board[0] != index:
            assert time.monotonic() < deadline, f"the writer never came to {step}"

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(BOUND)

    def check(self) -> int:
        """What must hold after a death, and a save and a collection after that; returns how many versions there are."""
        with Catalog.open(self.url, create=False) as catalog:
            numbers = [version.number for version in catalog.versions("m")]
            assert numbers == list(range(numbers[0], 0, -1)), "a number is missing or there twice"
            assert numbers[0] in (self.promised, self.promised + 1), "a promised version is lost"
            assert catalog.model("m").aliases["a"] == numbers[0]
            whole(catalog, numbers[0])
            findings = catalog.fsck()
            assert findings.clean and findings.versions == numbers[0]
            self.seed += 1000
            assert catalog.save("m", weights(self.seed), alias="a").number == numbers[0] + 1
            catalog.gc(grace=-1)
            assert not list((self.folder / "catalog/staging").iterdir())
            packs = [path for path in (self.folder / "catalog/blobs").rglob("*") if path.is_file()]
            assert len([path for path in packs if path.stat().st_size > SIZE]) == numbers[0] + 1, "a pack was left"
            whole(catalog, numbers[0] + 1)
            if numbers[0] < 50 or self.seed % 10_000 == 0:  # a collection that takes too much is seen soon enough
                assert catalog.fsck().clean
            self.promised = numbers[0] + 1
        return self.promised


def weights(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"seed": np.array([seed]), "w": rng.random(SIZE, dtype=np.float32), "n": rng.random(4, dtype=np.float32)}


def whole(catalog: Catalog, number: int) -> None:
    loaded = catalog.load(f"m@{number}")
    for name, array in weights(int(loaded["seed"][0])).items():
        assert np.array_equal(loaded[name], array), f"m@{number} holds other weights in {name}"


@pytest.fixture(params=["sqlite", "file"])
def writer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    made = Writer(f"{request.param}://{tmp_path}/catalog", tmp_path)
    yield made
    made.close()


def test_a_writer_killed_at_each_step_of_a_save_loses_nothing(writer: Writer) -> None:
    for step, moment in MOMENTS + (FILE_MOMENTS if writer.url.startswith("file") else []):
        writer.begin(step, moment)
        writer.ended()
        assert writer.step == step
        writer.check()


def durations(writer: Writer) -> dict[str, float]:
    """How long one visit of each step takes, in seconds: the median over some saves, watched from outside."""
    process = writer.begin("-", "-")
    writer.wait("between", writer.promised + 1)
    visits: dict[str, list[float]] = {step: [] for step in STEPS}
    begin = last = time.perf_counter()
    end, step = begin + BOUND, writer.step
    while last - begin < 1.0 or not all(visits.values()):
        assert time.perf_counter() < end, "a step was never seen"
        if writer.step != step:
            now = time.perf_counter()
            visits[step].append(now - last)
            step, last = writer.step, now
    os.kill(process, signal.SIGKILL)
    writer.ended()
    writer.check()
    return {step: statistics.median(times) for step, times in visits.items()}


def kill_at_random(writer: Writer, kills: int, rng: random.Random, each: int = 0) -> Counter[str]:
    """Kill that many writers, each at a moment drawn from the measured time of a step, every step in its turn, and more
    where fewer than `each` died; return in which step they died."""
    lasts = durations(writer)
    died: Counter[str] = Counter()
    wanted = [STEPS[1 + number % (len(STEPS) - 1)] for number in range(kills)]
    while wanted and died.total() < 4 * kills:
        step = wanted.pop()
        process = writer.begin("-", "-")
        writer.wait(step, writer.promised + 1 + rng.randrange(3))
        moment = time.perf_counter() + rng.uniform(0, lasts[step])
        while time.perf_counter() < moment:
            pass
        os.kill(process, signal.SIGKILL)
        writer.ended()
        died[writer.step] += 1
        writer.check()
        wanted = wanted or [step for step in STEPS[1:] if died[step] < each]
    rows = [f"{step:8} {lasts[step] * 1000:8.2f} ms {died[step]:5} kills" for step in STEPS]
    print(f"\n{writer.url.partition(':')[0]}: {died.total()} kills", *rows, sep="\n")
    return died


def test_a_writer_killed_at_any_moment_loses_nothing(writer: Writer) -> None:
    assert kill_at_random(writer, 12, random.Random(7)).total() == 12


@pytest.mark.campaign
def test_hundreds_of_killed_writers_lose_nothing_under_the_eyes_of_a_reader(writer: Writer, tmp_path: Path) -> None:
    """At least 200 kills, and ten in each step, while another process reads the newest versions all the time."""
    writer.begin("staging", "before")
    writer.ended()
    writer.check()
    stop = tmp_path / "stop"
    command = [sys.executable, str(READER), writer.url, str(stop)]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    died = kill_at_random(writer, 220, random.Random(2026), each=10)
    stop.touch()
    out, err = reader.communicate(timeout=60)
    assert reader.returncode == 0, err
    print(f"a reader read {out.strip()} versions meanwhile")
    assert int(out) > 100
    assert died.total() >= 200
    assert all(died[step] >= 10 for step in STEPS[1:]), died
