"""Every verb of the OCI store under every fault of the service: the result is right, or one clear error in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from oci_server import OCIServer
from oci_store import blob, cut_small, put

from catalog_core.errors import BackendError, CatalogError, DeadlineExceeded
from catalog_oci import source
from catalog_oci import store as store_module
from catalog_oci.store import OCIStore, open_store

pytestmark = pytest.mark.server
WORKER = Path(__file__).parent / "oci_worker.py"
PAGE = 2  # names on a page of a list


@pytest.fixture(scope="module")
def running() -> Iterator[OCIServer]:
    with OCIServer() as server:
        server.control(settings={"page": PAGE})
        yield server


@pytest.fixture
def server(running: OCIServer, monkeypatch: pytest.MonkeyPatch) -> OCIServer:
    cut_small(monkeypatch)
    running.control(faults=[], reset=True)
    return running


SIZES = {"small": 1000, "streamed": 80_000, "parts": (3 << 20) + 5}
DATA = {name: os.urandom(size) for name, size in SIZES.items()}
KEPT = {f"kept/{n}": b"%d" % n * 1000 for n in range(5)}


def read(store: OCIStore, key: str, start: int = 0, length: int | None = None) -> bytes:
    with store.get(key, start, length) as stream:
        return stream.read()


def contents(store: OCIStore) -> dict[str, bytes]:
    return {info.key: read(store, info.key) for info in store.list("")}


Verb = tuple[Callable[[OCIStore], Any], Any, dict[str, bytes | None]]
"""What is done, its result, and what it changes among the objects (None: removed)."""

VERBS: dict[str, Verb] = {
    **{
        f"put {mode} {name}": (lambda s, k=key, d=data, m=mode: put(s, k, d, m), None, {key: data})
        for name, data in DATA.items()
        for mode in ("content", "exclusive", "hint")
        for key in [blob(data) if mode == "content" else f"{mode}/{name}"]
    },
    "get": (lambda s: read(s, "kept/3"), KEPT["kept/3"], {}),
    "get a range": (lambda s: read(s, "kept/3", 5, 7), KEPT["kept/3"][5:12], {}),
    "stat": (lambda s: s.stat("kept/3").size, 1000, {}),
    "stat nothing": (lambda s: s.stat("none"), None, {}),
    "list": (lambda s: [info.key for info in s.list("kept/")], list(KEPT), {}),
    "delete": (lambda s: s.delete(["kept/0", "kept/1", "none"]), None, {"kept/0": None, "kept/1": None}),
    "sweep": (lambda s: s.sweep_uploads(3600), 0, {}),
}
FAULTS = ["503", "500", "429", "409", "404", "drop", "after", "hang"]


def new(server: OCIServer, deadline: float) -> OCIStore:
    url, options = server.fresh()
    store = open_store(url, options, True)
    for key, data in KEPT.items():
        put(store, key, data, "content")
    store.close()
    return open_store(url, {**options, "deadline": deadline}, False)


HANGS = ("put exclusive small", "put content parts", "get", "list")  # each takes a second: the others in a campaign


def met(faults: Sequence[str]) -> pytest.MarkDecorator:
    """Each verb with each fault."""
    cases = [(verb, fault) for verb in VERBS for fault in faults]
    return pytest.mark.parametrize(
        ("verb", "fault"),
        [
            pytest.param(*case, marks=pytest.mark.campaign if case[1] == "hang" and case[0] not in HANGS else [])
            for case in cases
        ],
    )


@met(FAULTS)
def test_one_fault_is_got_over(server: OCIServer, verb: str, fault: str) -> None:
    """At each of the verb's requests in turn."""
    do, result, changes = VERBS[verb]
    for nth in range(20):
        store = new(server, 2.0 if fault == "hang" else 6.0)
        server.fault({"fault": fault, "skip": nth, "rate": 1.5})
        assert do(store) == result
        unused = server.control()["faults"]
        server.fault()
        expected = {k: v for k, v in {**KEPT, **changes}.items() if v is not None}
        assert contents(store) == expected
        if unused:
            assert nth > 0  # it struck at least once
            return
        if fault == "hang" and nth == 1:
            return  # each takes a second
    raise AssertionError("a verb of more than 20 requests")


@met(["503", "429", "404", "drop", "after", "hang"])
def test_a_fault_that_stays_is_one_clear_error(server: OCIServer, verb: str, fault: str) -> None:
    do, result, changes = VERBS[verb]
    store = new(server, 0.4)
    server.fault({"fault": fault, "times": -1, "rate": 1.0})
    with pytest.raises(CatalogError) as caught:
        do(store)
    assert caught.value.hint
    assert caught.value.__cause__ is not None
    assert fault == "404" or isinstance(caught.value, DeadlineExceeded)
    server.fault()
    time.sleep(1.1 if fault == "hang" else 0)
    after = {k: v for k, v in {**KEPT, **changes}.items() if v is not None}
    assert contents(store) in (KEPT, after)  # all or nothing; an answer that was lost may have been a success
    if fault != "after":
        assert contents(store) == KEPT
    mode_is_exclusive = "exclusive" in verb and contents(store) == after
    if not mode_is_exclusive:
        assert do(open_store_like(store, 6.0)) == result
    assert contents(store) == after


def open_store_like(store: OCIStore, deadline: float) -> OCIStore:
    url = f"oci://{store.bucket}@{store.namespace}/{store.prefix}"
    return open_store(url, {**attrs.asdict(store.calls.options), "deadline": deadline}, False)


def test_a_body_that_is_cut_short_is_taken_up_where_it_ended(server: OCIServer) -> None:
    data = os.urandom(3_000_000)
    store = new(server, 5.0)
    put(store, "big", data, "hint")
    server.fault({"fault": "short", "times": 6, "method": "GET"})
    assert read(store, "big") == data
    assert server.control()["faults"] == []
    server.fault({"fault": "short", "times": 6, "method": "GET"})
    assert read(store, "big", 1000, 2_000_000) == data[1000:2_001_000]
    server.fault({"fault": "short", "times": 3}, {"fault": "404", "times": 2}, {"fault": "drop"}, {"fault": "503"})
    with store.get("big") as stream:
        assert b"".join(iter(lambda: stream.read(70_001), b"")) == data


def test_a_body_that_always_ends_early_is_an_error(server: OCIServer) -> None:
    store = new(server, 0.6)
    put(store, "big", bytes(3_000_000), "hint")
    server.fault({"fault": "short", "times": -1})
    with pytest.raises(DeadlineExceeded, match="bytes are missing"):
        read(store, "big")


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(server: OCIServer) -> None:
    store = new(server, 5.0)
    put(store, "big", b"a" * 3_000_000, "hint")
    server.fault({"fault": "short", "method": "GET"})
    stream = store.get("big")
    put(store, "big", b"b" * 3_000_000, "hint")
    with pytest.raises(BackendError, match="replaced or removed meanwhile"):
        stream.read()


def test_a_slow_body_comes_whole_and_one_that_trickles_is_given_up(server: OCIServer) -> None:
    data = os.urandom(100_000)
    store = new(server, 1.0)
    put(store, "big", data, "hint")
    server.fault({"fault": "slow", "rate": 100_000, "method": "GET"})
    assert read(store, "big") == data
    server.fault({"fault": "slow", "rate": 2000, "times": -1, "method": "GET"})
    with pytest.raises(DeadlineExceeded, match="bytes are missing"):
        read(store, "big")


def test_many_threads_use_one_store_through_random_faults(server: OCIServer) -> None:
    """More threads than the SDK pools connections, and losers, whose 412 makes the SDK close connections."""
    store = new(server, 10.0)
    server.fault(
        {"fault": "404", "times": -1, "chance": 0.03},
        {"fault": "after", "times": -1, "chance": 0.05},
        {"fault": "drop", "times": -1, "chance": 0.03},
        {"fault": "503", "times": -1, "chance": 0.05},
    )
    errors: list[BaseException] = []
    won: list[str] = []

    def work(number: int) -> None:
        try:
            for n in range(15):
                data = b"%d %d " % (number, n) * 1000
                put(store, blob(data), data, "content")
                assert read(store, blob(data)) == data
                try:
                    put(store, f"race/{n}", data, "exclusive")
                    won.append(f"race/{n}")
                except store_module.KeyTaken:
                    pass
                assert store.stat(f"race/{n}") is not None
                assert store.stat(f"none/{n}") is None
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.fault()
    assert errors == []
    assert sorted(won) == sorted(f"race/{n}" for n in range(15))
    assert len(list(store.list("blobs/"))) == 14 * 15


# ------------------------------------------------------------------------------------------- processes, and their ends


def spawn(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), *args]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_one_of_four_processes_wins_each_key_whatever_answers_are_lost(server: OCIServer) -> None:
    url, options = server.fresh()
    rounds = 80
    options["deadline"] = 20
    racers = [spawn("race", url, json.dumps(options), str(n), str(rounds)) for n in range(4)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    server.fault(
        {"fault": "after", "times": -1, "chance": 0.08, "method": "PUT"},
        {"fault": "503", "times": -1, "chance": 0.04},
        {"fault": "404", "times": -1, "chance": 0.03},
        {"fault": "drop", "times": -1, "chance": 0.04},
    )
    answers = [racer.communicate("go\n", timeout=120)[0] for racer in racers]
    server.fault()
    winners: dict[int, list[int]] = {n: [] for n in range(rounds)}
    for name, answer in enumerate(answers):
        for n in json.loads(answer):
            winners[n].append(name)
    store = open_store(url, options, False)
    for n, names in winners.items():
        assert len(names) == 1, (n, names)
        assert read(store, f"race/{n}") == b"%d won %d" % (names[0], n)


def test_an_upload_goes_on_after_its_process_was_killed(server: OCIServer, tmp_path: Path) -> None:
    data = os.urandom(30 << 20)
    path = tmp_path / "file"
    path.write_bytes(data)
    url, options = server.fresh()
    server.control(settings={"latency": 0.05}, reset=True)
    worker = spawn("put", url, json.dumps({**options, "parallel": 2}), str(path), blob(data))
    end = time.monotonic() + 30
    while not (found := server.control()["parts"]) or found[-1] < 6:
        assert time.monotonic() < end
        assert worker.poll() is None
        time.sleep(0.01)
    worker.kill()
    worker.communicate()
    store = open_store(url, options, False)
    assert store.stat(blob(data)) is None
    state = server.control(settings={"latency": 0.0}, reset=True)
    with path.open("rb") as file:
        store.put(blob(data), file, len(data), "content")
    assert server.control()["requests"]["PUT u"] <= 30 - 6
    assert state["parts"][-1] >= 6
    assert not any(name.endswith(blob(data)) for name in server.control()["uploads"])
    assert read(store, blob(data)) == data


def test_two_processes_send_the_same_large_blob_at_once(server: OCIServer, tmp_path: Path) -> None:
    data = os.urandom(12 << 20)
    path = tmp_path / "file"
    path.write_bytes(data)
    url, options = server.fresh()
    workers = [spawn("put", url, json.dumps(options), str(path), blob(data)) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    store = open_store(url, options, False)
    assert contents(store) == {blob(data): data}


def test_the_service_goes_away_and_comes_back(tmp_path: Path) -> None:
    """Killed in the middle of uploads and downloads, and started again on the same port with the same data."""
    data = os.urandom(24 << 20)
    with OCIServer(process=True) as server:
        url, options = server.fresh()
        store = open_store(url, {**options, "deadline": 15.0}, True)
        put(store, "old", data, "content")
        done, stop = [], threading.Event()
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for n in range(1000):
                    if stop.is_set():
                        return
                    put(store, f"new/{number}-{n}", data[: 1 << 20] + b"%d %d" % (number, n), "exclusive")
                    done.append((number, n))
                    assert read(store, "old") == data
            except BaseException as exc:
                errors.append(exc)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            time.sleep(0.4)
            server.kill()
            time.sleep(0.2)
            server.start()
        stop.set()
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert len(done) > 5
        for number, n in done:
            assert read(store, f"new/{number}-{n}") == data[: 1 << 20] + b"%d %d" % (number, n)
        assert len(list(store.list("new/"))) == len(done)


def test_a_large_body_does_not_make_a_dead_service_wait_for_longer(server: OCIServer) -> None:
    """It gets more time to travel, and not to fail."""
    store = new(server, 0.6)
    put(store, "big", bytes(2_000_000), "hint")
    broken = {**server.options(), "service_endpoint": "http://127.0.0.1:9", "deadline": 0.6}
    dead = open_store(f"oci://{store.bucket}@{store.namespace}/x", broken, False)
    for verb in (lambda: put(dead, "x", bytes(2_000_000), "hint"), lambda: read(dead, "x")):
        with pytest.raises(DeadlineExceeded, match="connection refused"):
            verb()
    server.fault({"fault": "drop", "times": -1, "skip": 1}, {"fault": "short"})
    with pytest.raises(DeadlineExceeded):
        read(store, "big")


def test_a_forked_child_makes_connections_of_its_own(server: OCIServer) -> None:
    """Two processes on one connection would read each other's answers."""
    store = new(server, 5.0)
    read(store, "kept/1")
    idle = store.calls._idle[0]
    program = f"""
import os, sys, json
sys.path.insert(0, {str(Path(source.__file__).parent.parent)!r})
from catalog_oci.store import open_store
store = open_store({f"oci://{store.bucket}@{store.namespace}/{store.prefix}"!r}, json.loads(sys.argv[1]), False)
store.stat("kept/1")
before = store.calls._idle[0]
child = os.fork()
if child == 0:
    good = store.stat("kept/2").size == 1000 and before not in store.calls._idle
    os._exit(0 if good else 1)
print(os.waitpid(child, 0)[1], store.stat("kept/3").size)
"""
    assert idle is not None
    options = json.dumps(server.options())
    done = subprocess.run([sys.executable, "-c", program, options], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["0", "1000"], "")
