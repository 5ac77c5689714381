"""Catalogs on a real S3 server keep the contracts, whatever happens to the server, the keys and the answers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3_server import USERS, S3Server

from catalog_core.catalog import Catalog
from catalog_core.errors import BackendError, CatalogError, ConfigError, InvalidInput, KeyTaken, NotFound, ReadOnly
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_core.testing.faults import FaultyStore
from catalog_core.testing.memory import memory_catalog
from catalog_s3.store import SINGLE, Options, S3Store, open_store

pytestmark = pytest.mark.server


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(autouse=True)
def _keys(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(server.credentials))
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def fresh(server: S3Server) -> S3Store:
    url, options = server.fresh()
    return open_store(url, options, True)


class TestStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, fresh: S3Store) -> S3Store:
        return fresh


class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self, server: S3Server) -> ObjectStoreBackend:
        url, options = server.fresh()
        return ObjectStoreBackend(open_store(url, options, True), "s3", url)


def test_what_is_large_goes_up_in_parts_and_only_true_checksums_are_told(fresh: S3Store) -> None:
    small, large = os.urandom(3 << 20), os.urandom(SINGLE + 1)
    fresh.put("small", io.BytesIO(small), len(small), "content")
    fresh.put("large", io.BytesIO(large), len(large), "content")
    told = {info.key: info.checksums for info in fresh.list("")}
    assert told == {"small": {"md5": hashlib.md5(small).hexdigest()}, "large": {}}
    assert hashlib.sha256(fresh.get("large").read()).digest() == hashlib.sha256(large).digest()
    assert fresh.get("large", SINGLE - 5, 5).read() == large[SINGLE - 5 : SINGLE]
    with pytest.raises(BackendError, match="of 83886080 bytes came"):
        fresh.put("cut", io.BytesIO(large), 80 << 20, "content")
    assert fresh.stat("cut") is None


def test_an_opaque_etag_is_no_checksum(server: S3Server) -> None:
    url, options = server.fresh()
    store = open_store(url, {**options, "etag": "opaque"}, True)
    store.put("a", io.BytesIO(b"x"), 1, "content")
    assert [info.checksums for info in store.list("")] == [{}]


def test_a_conflict_with_our_own_lost_answer_is_a_success(fresh: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    client = fresh._client()

    class Losing:
        """Does the put, and answers as the second try of a request whose first answer was lost."""

        def put(self, *args: Any, **given: Any) -> None:
            client.put(*args, **given)
            client.put(*args, **given)

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

    monkeypatch.setitem(fresh._clients, 0, Losing())
    fresh.put("x", io.BytesIO(b"mine"), 4, "exclusive")
    with pytest.raises(KeyTaken):
        fresh.put("x", io.BytesIO(b"mine"), 4, "exclusive")
    assert fresh.get("x").read() == b"mine"


def test_keys_are_found_in_the_environment_too(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url, options = server.fresh()
    options.pop("profile")
    access, secret, _ = USERS["writer"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    open_store(url, options, True).put("a", io.BytesIO(b"x"), 1, "content")


def told(error: BaseException) -> str:
    """All that an error and its causes say."""
    return f"{error!r} {error} {getattr(error, 'hint', '')}" + (told(error.__cause__) if error.__cause__ else "")


def test_a_wrong_secret_is_one_sentence_without_the_secret(server: S3Server, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "credentials"
    path.write_text(f"[wrong]\naws_access_key_id = {USERS['writer'][0]}\naws_secret_access_key = hunter2hunter2\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    url, options = server.fresh()
    with pytest.raises(BackendError, match="SignatureDoesNotMatch") as caught:
        open_store(url, {**options, "profile": "wrong"}, True)
    assert caught.value.hint == "check the secret key"
    assert "hunter2" not in told(caught.value)
    with pytest.raises(BackendError, match="no keys of a profile 'none'"):
        open_store(url, {**options, "profile": "none"}, True)
    path.write_text("aws_secret_access_key = hunter2hunter2\n[")
    with pytest.raises(BackendError, match="no keys") as caught:
        open_store(url, options, True)
    assert "hunter2" not in told(caught.value)


def test_a_user_who_may_only_read_reads(server: S3Server) -> None:
    url, options = server.fresh()
    open_store(url, options, True).put("a", io.BytesIO(b"x"), 1, "content")
    reader = open_store(url, {**options, "profile": "reader"}, False)
    assert reader.get("a").read() == b"x"
    for mode in ("content", "exclusive", "hint"):
        with pytest.raises(ReadOnly):
            reader.put("b", io.BytesIO(b"x"), 1, mode)  # type: ignore[arg-type]
    with pytest.raises(ReadOnly):
        reader.delete(["a"])
    assert reader.get("a").read() == b"x"


def test_a_bucket_that_is_not_there(server: S3Server) -> None:
    _, options = server.fresh()
    with pytest.raises(NotFound, match="no such bucket"):
        open_store("s3://elsewhere/x", {**options, "profile": "reader"}, True)


@pytest.mark.parametrize(
    "endpoint", ["http://storage.example.org", "https://key:secret@storage.example.org", "ftp://localhost", "there"]
)
def test_an_endpoint_is_https_or_this_machine(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint") as caught:
        Options(endpoint=endpoint)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "s3://B/x", "s3://key@bucket/x", "s3://bucket/a?b=c", "s3://bucket:9000/x"])
def test_a_url_is_a_bucket_and_a_prefix(url: str) -> None:
    with pytest.raises(InvalidInput):
        open_store(url, {}, False)


@pytest.mark.parametrize("key", ["a", "entries/416"])
def test_an_endpoint_or_key_with_416_in_its_name_is_no_answer_416(server: S3Server, key: str) -> None:
    """What obstore says of a failed request names both."""
    _, options = server.fresh()
    for port in range(41600, 41700):
        with socket.socket() as free:
            if free.connect_ex(("127.0.0.1", port)) != 0:
                break
    store = open_store("s3://catalogs/x", {**options, "endpoint": f"http://127.0.0.1:{port}", "timeout": 1}, False)
    for start in (0, 5):
        with pytest.raises(BackendError):
            store.get(key, start)
    near = open_store("s3://catalogs/x", options, False)
    near.put(key, io.BytesIO(b"abc"), 3, "content")
    assert near.get(key, 10).read() == b""


def test_a_server_that_is_down_or_deaf_is_an_error(server: S3Server) -> None:
    _, options = server.fresh()
    store = open_store("s3://catalogs/x", {**options, "endpoint": "http://127.0.0.1:9", "timeout": 3}, False)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        silent = open_store("s3://catalogs/x", {**options, "endpoint": url, "timeout": 2}, False)
        for target in (store, silent):
            for call in (
                lambda s: s.stat("a"),
                lambda s: s.get("a"),
                lambda s: s.put("a", io.BytesIO(b"x"), 1, "exclusive"),
                lambda s: list(s.list("")),
            ):
                with pytest.raises(BackendError):
                    call(target)


def test_a_server_killed_in_the_middle_loses_nothing_it_acknowledged() -> None:
    with S3Server() as own, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(own.credentials))
        url, options = own.fresh()
        store = open_store(url, {**options, "timeout": 2}, True)
        rng = np.random.default_rng(1)
        with memory_catalog(store) as catalog:
            first = catalog.save("m", {"w": rng.standard_normal(500_000)})
            for delay in (0.05, 0.2):
                killer = threading.Timer(delay, own.kill)
                killer.start()
                with suppress(CatalogError):
                    for _ in range(20):
                        catalog.save("m", {"w": rng.standard_normal(2_000_000)})
                killer.join()
                own.start()
                assert np.array_equal(catalog.load(first)["w"], catalog.load("m@1")["w"])
        with memory_catalog(open_store(url, options, False)) as again:
            assert again.fsck().clean
            count = len(again.versions("m"))
            assert [v.number for v in again.versions("m")] == list(range(count, 0, -1))
            assert again.save("m", {"w": [1.0]}).number == count + 1


def test_four_processes_race_for_every_position(server: S3Server, tmp_path: Path) -> None:
    url, options = server.fresh()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    code = (
        "import io, json, sys; from catalog_s3.store import open_store; from catalog_core.objectstore import"
        " ObjectStoreBackend as B; import time\n"
        "url, options, name = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]\n"
        "journal = B(open_store(url, options, False), 's3', url).journal\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for n in range(10): print(journal.append(lambda head: b'\"%s/%d\"' % (name.encode(), n), {}, "
        "time.monotonic() + 120)[0])\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, url, json.dumps(options), str(n)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=environment,
        )
        for n in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    outs = [process.communicate("\n", timeout=200)[0].split() for process in processes]
    entries = dict(ObjectStoreBackend(open_store(url, options, False), "s3", url).journal.read(0))
    assert list(entries) == list(range(40))
    for name, positions in enumerate(outs):
        assert [entries[int(position)] for position in positions] == [b'"%d/%d"' % (name, n) for n in range(10)]


def test_a_catalog_works_behind_a_slow_line_that_loses_answers(fresh: S3Store) -> None:
    slow = FaultyStore(fresh, latency=0.05, bandwidth=20e6)
    with memory_catalog(slow) as catalog:
        slow.fail("put", nth=2, when="after")
        weights = np.arange(500_000.0)
        saved = None
        for _ in range(2):  # a lost answer to a blob is an error that a second try ends
            try:
                saved = catalog.save("m", {"w": weights})
                break
            except BackendError:
                continue
        assert saved is not None and saved.number == 1
        assert np.array_equal(catalog.load("m")["w"], weights)


def test_the_configuration_names_an_endpoint(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, options = server.fresh()
    monkeypatch.chdir(tmp_path)
    lines = "".join(f'{key} = "{value}"\n' for key, value in options.items())
    (tmp_path / "catalog.toml").write_text(f'[catalogs.ceph]\nurl = "{url}"\n{lines}')
    with pytest.raises(NotFound):
        Catalog.open("ceph", create=False)
    with Catalog.open("ceph") as catalog:
        catalog.save("m", {"w": np.arange(10)})
        assert not catalog.repository.backend.many_writers  # nobody raced there yet
    with Catalog.open("ceph", create=False) as catalog:
        assert catalog.load("m")["w"].sum() == 45
    (tmp_path / "catalog.toml").write_text(f'[catalogs.ceph]\nurl = "{url}"\nendpoint = "http://example.org"\n')
    with pytest.raises(ConfigError, match="must begin with https"):
        Catalog.open("ceph")


def test_without_keys_the_sentence_names_them(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not the address of a service of Amazon's machines, which is where the library looked last."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with socket.socket() as taken:  # nobody answers there
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        url, options = server.fresh()
        with pytest.raises(BackendError, match="there are no keys for S3") as caught:
            open_store(url, {key: value for key, value in options.items() if key != "profile"}, True)
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value.hint) and "profile" in str(caught.value.hint)
