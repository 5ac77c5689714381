"""What goes wrong with an XRootD server: one clear error or a completed operation, and never a wrong byte. How long
that may take is measured in `bench/test_deadlines.py`."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xrootd_server import XrootdServer

from catalog_core.errors import BackendError, BlobMissing, CatalogError, ConfigError, InvalidInput, NoSpace
from catalog_core.objectstore import ObjectStoreBackend
from catalog_eos.calls import Interrupted
from catalog_eos.store import EosStore, open_store

pytestmark = pytest.mark.server
MB = 1 << 20
DATA = random.Random(1).randbytes(40 * MB)
TIMERS: list[threading.Timer] = []  # starts that are still to come


@pytest.fixture
def server(xrootd_servers: dict[str, XrootdServer]) -> Iterator[XrootdServer]:
    """One that may be killed."""
    with XrootdServer() as server:
        yield server
        while TIMERS:
            TIMERS.pop().join(30)


def put(store: EosStore, key: str, data: bytes, mode: str = "content") -> None:
    store.put(key, io.BytesIO(data), len(data), mode)  # type: ignore[arg-type]


class Trigger(io.BytesIO):
    """Calls `act` once, when `at` bytes were read."""

    def __init__(self, data: bytes, at: int, act: Any) -> None:
        super().__init__(data)
        self._at, self._act = at, act

    def read(self, size: int | None = -1, /) -> bytes:
        if self._act is not None and self.tell() >= self._at:
            act, self._act = self._act, None
            act()
        return super().read(size)


class Pipe:
    """A stream that cannot be read again."""

    def __init__(self, stream: io.BytesIO) -> None:
        self.read = stream.read

    def seekable(self) -> bool:
        return False


def restart(server: XrootdServer, after: float) -> None:
    """Kill the server; it is back `after` seconds later."""
    server.kill()
    TIMERS.append(threading.Timer(after, server.start))
    TIMERS[-1].start()


# -- death of the server ----------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 3.0])
def test_a_server_that_is_killed_in_mid_write_gets_all_of_it_when_it_is_back(
    server: XrootdServer, after: float
) -> None:
    store = open_store(server.fresh()[0], {}, True)
    store.put("blob", Trigger(DATA, 20 * MB, lambda: restart(server, after)), len(DATA), "content")
    assert store.get("blob").read() == DATA
    assert [info.key for info in store.list("")] == ["blob"]


def test_a_stream_that_cannot_be_read_again_ends_in_a_clear_error(server: XrootdServer) -> None:
    store = open_store(server.fresh()[0], {}, True)
    stream = Pipe(Trigger(DATA, 20 * MB, lambda: restart(server, 0.0)))
    with pytest.raises(Interrupted, match="does not answer"):
        store.put("blob", stream, len(DATA), "content")  # type: ignore[arg-type]
    assert store.stat("blob") is None


def test_a_server_that_stays_away_is_a_clear_error(server: XrootdServer) -> None:
    url = server.fresh()[0]
    store = open_store(url, {}, True)
    put(store, "blob", DATA)
    stream = store.get("blob")
    assert stream.read(MB) == DATA[:MB]
    with pytest.raises(Interrupted, match="does not answer") as caught:
        store.put("other", Trigger(DATA, 20 * MB, server.kill), len(DATA), "content")
    assert "catalog doctor" in str(caught.value)
    for call in (stream.read, lambda: store.stat("blob")):
        with pytest.raises(Interrupted):
            call()
    stream.close()
    server.start()
    assert store.get("blob").read() == DATA
    assert store.stat("other") is None
    assert store.sweep_uploads(-1) <= 1
    assert store.calls.entries("tmp") == []


@pytest.mark.parametrize("after", [0.0, 3.0])
def test_a_read_goes_on_when_the_server_is_back(server: XrootdServer, after: float) -> None:
    store = open_store(server.fresh()[0], {}, True)
    put(store, "blob", DATA)
    with store.get("blob", 7) as stream:
        first = stream.read(5 * MB)
        restart(server, after)
        rest = stream.read()
    assert first + rest == DATA[7:]


def test_a_file_that_changes_while_the_server_is_away_is_not_mixed(server: XrootdServer) -> None:
    url = server.fresh()[0]
    store = open_store(url, {}, True)
    put(store, "hint", DATA, "hint")
    with store.get("hint") as stream:
        assert stream.read(MB) == DATA[:MB]
        server.kill()
        path = server.path(url) / "hint"
        path.write_bytes(bytes(len(DATA)))
        os.utime(path, (1, 1))
        server.start()
        with pytest.raises(BackendError, match="changed while it was read"):
            stream.read()


def test_a_server_that_hangs_is_a_clear_error(server: XrootdServer) -> None:
    store = open_store(server.fresh()[0], {"timeout": 2}, True)
    put(store, "blob", DATA)
    stream = store.get("blob")
    server.pause()
    try:
        for call in (lambda: store.stat("blob"), stream.read, lambda: put(store, "other", DATA)):
            with pytest.raises(Interrupted):
                call()
    finally:
        server.resume()
    stream.close()
    assert store.get("blob").read() == DATA


@pytest.mark.parametrize("deaths", [5, pytest.param(60, marks=pytest.mark.campaign)])
def test_entries_are_appended_while_the_server_dies_again_and_again(server: XrootdServer, deaths: int) -> None:
    url = server.fresh()[0]
    backends = [ObjectStoreBackend(open_store(url, {}, True), "eos", url) for _ in range(2)]
    for backend in backends:
        backend.store._lease = 3.0  # type: ignore[attr-defined]
    done: list[tuple[int, bytes]] = []
    stop = threading.Event()

    def write(me: int) -> None:
        n = 0
        while not stop.is_set():
            text = b'"%d/%d"' % (me, n)
            n += 1
            try:
                done.append(backends[me].journal.append(lambda head, text=text: text, {}, time.monotonic() + 30))  # type: ignore[misc]
            except BackendError:
                pass

    writers = [threading.Thread(target=write, args=(me,)) for me in range(2)]
    for writer in writers:
        writer.start()
    chance = random.Random(4)
    for _ in range(deaths):
        time.sleep(chance.uniform(0.2, 0.8))
        server.kill()
        time.sleep(chance.uniform(0, 0.5))
        server.start()
    time.sleep(1)
    stop.set()
    for writer in writers:
        writer.join(40)
        assert not writer.is_alive()
    journal = dict(ObjectStoreBackend(open_store(url, {}, False), "eos", url).journal.read(0))
    assert list(journal) == list(range(len(journal)))
    assert len(done) > 20
    for position, text in done:
        assert journal[position] == text
    assert len({position for position, _ in done}) == len(done)


# -- rights, credentials ----------------------------------------------------------------------

PROGRAM = """
import io, json, sys, traceback
from catalog_core.errors import CatalogError
from catalog_eos.store import open_store
store = open_store(sys.argv[1], json.loads(sys.argv[2]), True)
for name, call in {
    "read": lambda: store.get("blob").read().decode(),
    "content": lambda: store.put("new", io.BytesIO(b"x"), 1, "content"),
    "exclusive": lambda: store.put("entry1", io.BytesIO(b"x"), 1, "exclusive"),
    "delete": lambda: store.delete(["blob"]),
}.items():
    try:
        print(json.dumps([name, "done", call()]))
    except CatalogError as exc:
        print(json.dumps([name, type(exc).__name__, str(exc) + "".join(traceback.format_exception(exc))]))
"""


def as_user(url: str, credentials: dict[str, str], options: dict[str, object] | None = None) -> dict[str, list[str]]:
    """What a process with other credentials meets, by the name of what it tried."""
    environment = {key: value for key, value in os.environ.items() if key not in ("XrdSecSSSKT", "BEARER_TOKEN_FILE")}
    environment |= {**credentials, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", PROGRAM, url, json.dumps(options or {})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    for token in (value for key, value in credentials.items() if key == "BEARER_TOKEN_FILE" and Path(value).exists()):
        assert Path(token).read_text()[:40] not in done.stdout + done.stderr
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("kind", ["sss", "tokens"])
def test_who_may_only_read_reads_and_is_told_so(xrootd_servers: dict[str, XrootdServer], kind: str) -> None:
    server = xrootd_servers[kind]
    url = server.fresh()[0]
    store = open_store(url, {}, True)
    put(store, "blob", b"text")
    met = as_user(url, server.credentials("bob"))
    assert met["read"] == ["done", "text"]
    for name in ("content", "exclusive", "delete"):
        assert met[name][0] == "ReadOnly", met[name]
        assert "you may not write there" in met[name][1]
    assert [info.key for info in store.list("")] == ["blob"]
    assert store.calls.entries("claims") == store.calls.entries("tmp") == []


@pytest.mark.parametrize("who", ["expired", "forged", "missing"])
def test_a_token_that_does_not_count_is_named_as_the_cause(xrootd_servers: dict[str, XrootdServer], who: str) -> None:
    server = xrootd_servers["tokens"]
    met = as_user(server.fresh()[0], server.credentials(who))
    for name in ("read", "content", "exclusive", "delete"):
        assert met[name][0] != "done"
        assert "credentials" in met[name][1] or "BEARER_TOKEN_FILE" in met[name][1], met[name]


def test_a_secret_that_the_server_does_not_know_is_refused(
    xrootd_servers: dict[str, XrootdServer], tmp_path: Path
) -> None:
    server = xrootd_servers["sss"]
    wrong = tmp_path / "sss.wrong"
    right = Path(server.credentials()["XrdSecSSSKT"]).read_text()
    wrong.touch(0o600)
    wrong.write_text(right.partition(" k:")[0] + " k:" + "0" * 64 + "\n")
    met = as_user(server.fresh()[0], {"XrdSecSSSKT": str(wrong)})
    assert "refuses the login" in met["content"][1]


def test_a_token_in_a_file_of_its_own_gives_its_rights(xrootd_servers: dict[str, XrootdServer], tmp_path: Path) -> None:
    """As an EOS token does: the login is bob's, who may only read; the token lets write."""
    server = xrootd_servers["tokens"]
    url = server.fresh()[0]
    put(open_store(url, {}, True), "blob", b"text")
    options: dict[str, object] = {"token_file": server.credentials("alice")["BEARER_TOKEN_FILE"]}
    met = as_user(url, server.credentials("bob"), options)
    assert {name: rest[0] for name, rest in met.items()} == dict.fromkeys(
        ["read", "content", "exclusive", "delete"], "done"
    )
    met = as_user(url, server.credentials("alice"), {"token_file": server.credentials("forged")["BEARER_TOKEN_FILE"]})
    secret = Path(str(server.credentials("forged")["BEARER_TOKEN_FILE"])).read_text()
    assert met["content"][0] == "ReadOnly"
    assert secret[:40] not in json.dumps(met)


def test_a_token_file_that_is_not_there_is_named(xrootd: XrootdServer, tmp_path: Path) -> None:
    store = open_store(xrootd.fresh()[0], {"token_file": str(tmp_path / "none")}, True)
    with pytest.raises(ConfigError, match="token_file"):
        store.stat("x")


# -- a full disk, damage, strangers -----------------------------------------------------------


def test_a_full_disk_is_named_and_nothing_is_published(xrootd_installed: None) -> None:
    try:
        server = XrootdServer(size=16)
    except (OSError, subprocess.SubprocessError) as exc:
        pytest.skip(f"A SMALL DISK CANNOT BE MOUNTED HERE: {exc}")
    with server:
        url = server.fresh()[0]
        store = open_store(url, {}, True)
        put(store, "small", b"x")
        with pytest.raises(NoSpace, match="the disk is full"):
            put(store, "large", DATA)
        assert [info.key for info in store.list("")] == ["small"]
        assert store.calls.entries("tmp") == []
        (server.data / "filler").write_bytes(bytes(16 * MB - 200_000))
        with pytest.raises(NoSpace):
            for number in range(100):
                put(store, f"entries/{number}", DATA[:20_000], "exclusive")
        assert store.get("small").read() == b"x"
        assert store.calls.entries("tmp") == store.calls.entries("claims") == []
        (server.data / "filler").unlink()
        put(store, f"entries/{len(list(store.list('entries/')))}", b"now", "exclusive")


def test_a_damaged_blob_is_found_by_put_and_replaced(xrootd: XrootdServer) -> None:
    url = xrootd.fresh()[0]
    store = open_store(url, {}, True)
    put(store, "blob", DATA)
    good = store.stat("blob")
    path = xrootd.path(url) / "blob"
    damaged = bytearray(DATA)
    damaged[17] ^= 1
    path.write_bytes(damaged)
    os.utime(path, (1, 1))  # the server keeps a checksum as long as the time of change, in seconds, stays
    assert store.get("blob").read() == damaged
    bad = store.stat("blob")
    assert good is not None and bad is not None
    assert good.checksums.keys() == bad.checksums.keys() == {"adler32"}
    assert good.checksums != bad.checksums
    put(store, "blob", DATA)
    assert store.get("blob").read() == DATA
    path.write_bytes(DATA[:-1])
    put(store, "blob", DATA)
    assert store.get("blob").read() == DATA


def test_what_strangers_leave_in_the_tree_is_no_object(xrootd: XrootdServer) -> None:
    url = xrootd.fresh()[0]
    store = open_store(url, {}, True)
    put(store, "blobs/a", b"x")
    put(store, "journal/1", b"x", "exclusive")
    folder = xrootd.path(url)
    for name in ("blobs/.sys.v#.a/1.2", "blobs/.sys.a#.a.uuid", "notes (old).txt", "ümlaut", "journal/1/late/entry"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("stranger")
    assert [info.key for info in store.list("")] == ["blobs/a", "journal/1"]
    put(store, "blobs/a", b"x")
    assert store.stat("journal/1/late") is None or store.get("journal/1").read() == b"x"


def test_temporaries_are_swept_by_age(xrootd: XrootdServer) -> None:
    url = xrootd.fresh()[0]
    store = open_store(url, {}, True)
    put(store, "blob", b"x")
    for name in ("tmp/left", "tmp/folder/entry"):
        (xrootd.path(url) / name).parent.mkdir(exist_ok=True)
        (xrootd.path(url) / name).write_text("left")
    os.utime(xrootd.path(url) / "tmp/left", (1, 1))
    os.chmod(xrootd.path(url) / "tmp/folder", 0o777)
    assert store.sweep_uploads(3600) == 1
    assert [name for name, _ in store.calls.entries("tmp")] == ["folder"]
    assert store.sweep_uploads(-1) == 1
    assert store.calls.entries("tmp") == []
    assert store.get("blob").read() == b"x"


def test_an_entry_is_not_replaced_by_content_or_a_hint(xrootd: XrootdServer) -> None:
    store = open_store(xrootd.fresh()[0], {}, True)
    put(store, "k", b"entry", "exclusive")
    put(store, "k", b"entry", "content")
    for mode in ("content", "hint"):
        with pytest.raises(BackendError):
            put(store, "k", b"other", mode)
    assert store.get("k").read() == b"entry"


@pytest.mark.parametrize(
    "key", ["", "../a", "a//b", "/a", "a/./b", "a b", "a?b", "a\n", "tmp/x", "claims/x", "a/entry"]
)
def test_keys_do_not_leave_the_folder(xrootd: XrootdServer, key: str) -> None:
    store = open_store(xrootd.fresh()[0], {}, True)
    for call in (lambda: put(store, key, b"x"), lambda: store.stat(key), lambda: store.get(key)):
        with pytest.raises(InvalidInput):
            call()


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("root://host/eos/x", "two slashes"),
        ("root://host", "two slashes"),
        ("root:////eos/x", "like root://"),
        ("root://host//eos/x?authz=zteos64:secret", "token_file"),
        ("eos://eos/x", "like eos:///eos"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_at_once(url: str, hint: str) -> None:
    with pytest.raises(CatalogError, match=hint) as caught:
        open_store(url, {}, True)
    assert "secret" not in str(caught.value)


def test_several_writers_are_declared_where_the_race_has_passed(xrootd: XrootdServer) -> None:
    url = xrootd.fresh()[0]
    assert not open_store(url, {}, True).many_writers
    put(open_store(url, {}, True), "probes/exclusive", json.dumps({"result": "failed"}).encode(), "hint")
    assert not open_store(url, {}, True).many_writers
    put(open_store(url, {}, True), "probes/exclusive", json.dumps({"result": "passed"}).encode(), "hint")
    assert open_store(url, {}, True).many_writers
    assert ObjectStoreBackend(open_store(url, {}, True), "eos", url).many_writers


def test_opening_where_no_server_is_is_no_error(server: XrootdServer) -> None:
    url = server.fresh()[0]
    server.kill()
    assert not ObjectStoreBackend(open_store(url, {}, False), "eos", url).many_writers


def test_threads_share_a_store(xrootd: XrootdServer) -> None:
    store = open_store(xrootd.fresh()[0], {}, True)
    wrong: list[object] = []

    def work(me: int) -> None:
        try:
            for number in range(5):
                data = random.Random(me * 100 + number).randbytes(5 * MB + me)
                put(store, f"t/{me}-{number}", data)
                with store.get(f"t/{me}-{number}") as stream:
                    if stream.read() != data:
                        wrong.append((me, number))
        except BaseException as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(list(store.list("t/"))) == 20


def test_what_is_missing_is_missing(xrootd: XrootdServer) -> None:
    store = open_store(xrootd.fresh()[0], {}, False)
    with pytest.raises(BlobMissing):
        store.get("x")
    assert list(store.list("")) == []
    assert store.sweep_uploads(-1) == 0


FORKING = """
import io, os, subprocess, sys, threading
from catalog_eos.store import open_store
store = open_store(sys.argv[1], {}, True)
data = os.urandom(20_000_000)
store.put("blob", io.BytesIO(data), len(data), "content")
stop, wrong = threading.Event(), []
def work():
    while not stop.is_set():
        store.put("again", io.BytesIO(data), len(data), "content")
        with store.get("blob") as stream:
            if stream.read() != data:
                wrong.append(1)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
stop.set()
for thread in threads:
    thread.join()
sys.exit(len(wrong))
"""


def test_a_fork_elsewhere_in_the_process_does_not_stop_a_transfer(xrootd: XrootdServer) -> None:
    """The client ends its threads before a fork; one that waited for the interpreter's lock would never end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-W", "ignore", "-c", FORKING, xrootd.fresh()[0]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_that_told_checksums_is_not_believed_without_one(
    xrootd: XrootdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Busy with other sums it may fail to tell one: it is asked again, and an upload that nobody confirms is none."""
    url, _ = xrootd.fresh()
    store = open_store(url, {}, True)
    store.put("blobs/sha256/aa/" + "a" * 64, io.BytesIO(b"x" * 5000), 5000, "content")
    told, asked = store.calls.checksums, []

    def silent(times: int) -> None:
        asked.clear()

        def checksums(path: str) -> Any:
            asked.append(path)
            return {} if len(asked) <= times else told(path)

        monkeypatch.setattr(store.calls, "checksums", checksums)

    silent(1)
    store.put("blobs/sha256/bb/" + "b" * 64, io.BytesIO(b"y" * 5000), 5000, "content")
    assert len(asked) >= 2
    silent(1000)
    with pytest.raises(BackendError):
        store.put("blobs/sha256/cc/" + "c" * 64, io.BytesIO(b"z" * 5000), 5000, "content")
    monkeypatch.undo()
    assert store.stat("blobs/sha256/cc/" + "c" * 64) is None
