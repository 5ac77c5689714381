import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest
from catalog_stranger.log import SMALL, LogStore, open_store

from catalog_core.errors import BackendError, KeyTaken, NotFound
from catalog_core.testing.faults import Death, FaultyStore
from catalog_core.testing.memory import memory_catalog


def put(store, key, data, mode="content"):
    store.put(key, io.BytesIO(data), len(data), mode)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "the.log")


def test_all_comes_back_when_the_log_is_opened_again(path):
    big = random.Random(1).randbytes(3 * SMALL)
    with closing(LogStore(path)) as store:
        put(store, "a/1", b"one")
        put(store, "a/2", big)
        put(store, "a/1", b"two", "hint")
        put(store, "b", b"")
        store.delete(["b", "c"])
    with closing(LogStore(path, create=False)) as store:
        assert [(info.key, info.size) for info in store.list("")] == [("a/1", 3), ("a/2", len(big))]
        assert store.get("a/1").read() == b"two"
        assert store.get("a/2", SMALL, 10).read() == big[SMALL : SMALL + 10]


@pytest.mark.parametrize("size", [10, 3 * SMALL])
def test_every_torn_tail_is_dropped(path, size):
    with closing(LogStore(path)) as store:
        put(store, "a", b"whole")
        whole = os.path.getsize(path)
        put(store, "b", random.Random(2).randbytes(size))
    with open(path, "rb") as file:
        data = file.read()
    for cut in sorted(
        {*range(whole, min(whole + 60, len(data))), *range(len(data) - 8, len(data)), len(data) - size // 2}
    ):
        for tail in (b"", b"\0" * (len(data) - cut)):  # a cut, and a length without its bytes
            with open(path, "wb") as file:
                file.write(data[:cut] + tail)
            with closing(LogStore(path)) as store:
                if tail and data[cut:] == tail:
                    continue
                assert [info.key for info in store.list("")] == ["a"], (cut, tail[:1])
                put(store, "c", b"after")
            with closing(LogStore(path)) as store:
                assert [info.key for info in store.list("")] == ["a", "c"]


def test_damage_in_the_middle_is_no_torn_tail(path):
    with closing(LogStore(path)) as store:
        put(store, "a", b"one")
        put(store, "b", b"two")
    with open(path, "r+b") as file:
        file.seek(12)
        file.write(b"?")
    size = os.path.getsize(path)
    with closing(LogStore(path)) as store, pytest.raises(BackendError, match="damaged"):
        put(store, "c", b"three")
    assert os.path.getsize(path) == size


def test_what_is_no_log_is_left_alone(path):
    with open(path, "wb") as file:
        file.write(b"my thesis")
    with closing(LogStore(path)) as store, pytest.raises(BackendError, match="no log"):
        put(store, "a", b"")
    with open(path, "rb") as file:
        assert file.read() == b"my thesis"


def test_no_log_no_catalog(tmp_path):
    with pytest.raises(NotFound):
        open_store(f"logfile://{tmp_path}/none.log", {}, False)
    assert not (tmp_path / "none.log").exists()


def test_deleted_bytes_are_given_back_while_others_use_the_log(path):
    with closing(LogStore(path)) as one, closing(LogStore(path)) as two:
        big = bytes(2 << 20)
        put(one, "big", big)
        put(one, "small", b"stays")
        stream = two.get("big")
        one.delete(["big"])
        assert os.path.getsize(path) < 1000
        assert stream.read() == big
        stream.close()
        assert two.get("small").read() == b"stays" and two.stat("big") is None
        put(two, "more", b"x")
        assert [info.key for info in one.list("")] == ["more", "small"]


def claim(path, mine, others):
    won = []
    with closing(LogStore(path, sync=False)) as store:
        for number in range(60):
            try:
                put(store, f"journal/{number:04}", mine, "exclusive")
                won.append(number)
            except KeyTaken:
                pass
    others.put((mine, won))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_one_of_many_processes_wins_each_key(path, method):
    context = multiprocessing.get_context(method)
    results = context.Queue()
    crew = [context.Process(target=claim, args=(path, bytes([65 + n]) * 100, results)) for n in range(4)]
    for process in crew:
        process.start()
    wins = dict(results.get(timeout=30) for _ in crew)
    for process in crew:
        process.join()
    assert sorted(number for won in wins.values() for number in won) == list(range(60))
    with closing(LogStore(path)) as store:
        for mine, won in wins.items():
            assert all(store.get(f"journal/{number:04}").read() == mine for number in won)


def test_a_forked_child_takes_its_own_lock(path):
    with closing(LogStore(path, sync=False)) as store:
        put(store, "before", b"x")
        children = []
        for n in range(3):
            if not (pid := os.fork()):
                try:
                    for k in range(50):
                        put(store, f"{n}/{k}", bytes(500))
                finally:
                    os._exit(0)
            children.append(pid)
        for k in range(50):
            put(store, f"p/{k}", bytes(500))
        for pid in children:
            os.waitpid(pid, 0)
        assert len(list(store.list(""))) == 201


WRITER = """
import io, os, sys
from catalog_stranger.log import LogStore
store, n = LogStore(sys.argv[1]), int(sys.argv[2])
while True:
    data = n.to_bytes(8, "big") * (20000 if n % 2 else 40)
    store.put(f"k/{n:08}", io.BytesIO(data), len(data), "exclusive")
    print(n, flush=True)
    n += 1
"""


def test_killed_writers_lose_nothing_that_returned(path):
    rng, promised, start = random.Random(3), [], 0
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path, str(start)], stdout=subprocess.PIPE, text=True)
        writer.stdout.readline()
        time.sleep(rng.uniform(0.01, 0.1))
        writer.send_signal(signal.SIGKILL)
        said = [start, *(int(line) for line in writer.communicate()[0].split("\n") if line)]
        promised += said
        with closing(LogStore(path)) as store:
            keys = [int(info.key[2:]) for info in store.list("k/")]
            assert keys == list(range(len(keys))) and set(promised) <= set(keys)
            for n in said:
                assert store.get(f"k/{n:08}").read(8) == n.to_bytes(8, "big")
            start = len(keys)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_catalog_on_the_log_survives_a_death_at_every_call(tmp_path, when):
    for nth in range(1, 8):
        path = str(tmp_path / f"{when}{nth}.log")
        with closing(LogStore(path)) as store, memory_catalog(store) as catalog:
            catalog.save("m", {"w": [1.0]})
            with memory_catalog(dying := FaultyStore(store)) as other:
                dying.die(nth=nth, when=when)
                try:
                    other.save("m", {"w": list(map(float, range(30000)))})
                except Death:
                    pass
        with closing(LogStore(path)) as store, memory_catalog(store) as catalog:
            assert catalog.fsck().clean
            assert catalog.save("m", {"w": [2.0]}).number in (2, 3)
