"""What every ObjectStore, Backend and Serializer promises, as tests to inherit; each says which fixtures it needs.

All are imported from here: `from catalog_core.testing.contract import SerializerContract`.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog_core.catalog import Catalog
from catalog_core.digests import digest_of
from catalog_core.errors import BackendError, BlobMissing, KeyTaken
from catalog_core.interfaces.backend import Backend, Head
from catalog_core.interfaces.store import LocalFiles, ObjectStore
from catalog_core.testing import golden
from catalog_core.testing.serializers import SerializerContract

__all__ = ["BackendContract", "ObjectStoreContract", "SerializerContract", "forked"]

CONTENT = bytes(range(256)) * 1200  # 300 kB: more than any backend keeps among its rows


def key_of(content: bytes) -> str:
    """The key of a blob."""
    return digest_of(content)


def forked(work: Callable[[], object]) -> str | None:
    """Do `work` in a forked child; None where it went well, else what it raised. A child that hangs is killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        try:
            work()
            told = "well"
        except BaseException:
            told = traceback.format_exc()[-4000:]
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return None if told == "well" else told or "the child hung"


def _forks_beside(at_work: Callable[[int], object], child: Callable[[int], object]) -> None:
    """Fork five times while a thread is at work; both must go on."""
    errors: list[BaseException] = []
    begun, stop = threading.Event(), threading.Event()

    def run() -> None:
        number = 0
        try:
            while not stop.is_set():
                at_work(number)
                begun.set()
                number += 1
        except BaseException as exc:
            errors.append(exc)
            begun.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    begun.wait()
    try:
        told = [forked(lambda number=number: child(number)) for number in range(5)]  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
    assert told == [None] * 5, told
    assert not errors, errors


def _soon() -> float:
    return time.monotonic() + 30


class ObjectStoreContract:
    """Inherit, and define the fixture `store`: a new, empty store for each test."""

    def test_what_is_put_comes_back_whole_and_in_ranges(self, store: ObjectStore) -> None:
        store.put("a/b", io.BytesIO(CONTENT), len(CONTENT), "content")
        for start, length in [(0, None), (7, None), (7, 11), (0, 0), (0, 1 << 40), (len(CONTENT) - 3, 99)]:
            with store.get("a/b", start, length) as stream:
                expected = CONTENT[start:] if length is None else CONTENT[start : start + length]
                assert stream.read() == expected, (start, length)

    def test_a_put_takes_only_its_size_from_the_stream(self, store: ObjectStore) -> None:
        stream = io.BytesIO(b"onetwo")
        store.put("one", stream, 3, "content")
        store.put("two", stream, 3, "content")
        assert store.get("one").read() + store.get("two").read() == b"onetwo"

    @pytest.mark.parametrize("mode", ["content", "exclusive", "hint"])
    def test_a_stream_that_ends_early_leaves_nothing(self, store: ObjectStore, mode: str) -> None:
        with pytest.raises(BackendError):
            store.put("short", io.BytesIO(b"12"), 3, mode)  # type: ignore[arg-type]
        assert store.stat("short") is None
        assert list(store.list("")) == []

    def test_what_is_not_there(self, store: ObjectStore) -> None:
        store.put("a/b/c", io.BytesIO(b"x"), 1, "content")
        for key in ("missing", "a", "a/b", "a/b/c/d"):
            assert store.stat(key) is None, key
            with pytest.raises(BlobMissing):
                store.get(key)
        store.delete(["missing", "a/missing"])

    def test_content_is_idempotent_and_a_hint_replaces(self, store: ObjectStore) -> None:
        for _ in range(2):
            store.put("same", io.BytesIO(b"same"), 4, "content")
        for text in (b"first", b"second"):
            store.put("hint", io.BytesIO(text), len(text), "hint")
        assert store.get("same").read() == b"same"
        assert store.get("hint").read() == b"second"

    def test_an_exclusive_key_is_taken_once_and_never_changed(self, store: ObjectStore) -> None:
        store.put("x", io.BytesIO(b"first"), 5, "exclusive")
        for text in (b"other", b"first"):
            with pytest.raises(KeyTaken):
                store.put("x", io.BytesIO(text), 5, "exclusive")
        assert store.get("x").read() == b"first"

    def test_one_of_many_threads_wins_an_exclusive_key(self, store: ObjectStore) -> None:
        for round_ in range(10):
            winners: list[bytes] = []
            gate = threading.Barrier(8)

            def race(text: bytes, key: str, gate: threading.Barrier, winners: list[bytes]) -> None:
                gate.wait()
                try:
                    store.put(key, io.BytesIO(text), len(text), "exclusive")
                    winners.append(text)
                except KeyTaken:
                    pass

            threads = [
                threading.Thread(target=race, args=(b"%03d" % n * 1000, f"race/{round_}", gate, winners))
                for n in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(winners) == 1
            assert store.get(f"race/{round_}").read() == winners[0]

    def test_stat_tells_size_and_time(self, store: ObjectStore) -> None:
        store.put("a", io.BytesIO(b"12345"), 5, "content")
        info = store.stat("a")
        assert info is not None
        assert (info.key, info.size) == ("a", 5)
        assert abs(info.time - time.time()) < 300

    def test_list_is_in_order_from_after_and_by_prefix(self, store: ObjectStore) -> None:
        keys = ["p/a", "p/a-b/c", "p/b/c", "p/b.d", "p/bb", "q/a", "p2"]
        for key in keys:
            store.put(key, io.BytesIO(key.encode()), len(key), "content")
        assert [i.key for i in store.list("p/")] == sorted(k for k in keys if k.startswith("p/"))
        assert [i.key for i in store.list("p/b")] == sorted(k for k in keys if k.startswith("p/b"))
        assert [i.key for i in store.list("p/", "p/b.d")] == sorted(k for k in keys if k[:2] == "p/" and k > "p/b.d")
        assert [(i.key, i.size) for i in store.list("")] == [(k, len(k)) for k in sorted(keys)]
        assert list(store.list("none/")) == []

    def test_delete_removes_only_what_it_names(self, store: ObjectStore) -> None:
        for key in ("a", "b", "c"):
            store.put(key, io.BytesIO(b"x"), 1, "content")
        store.delete(iter(["a", "c"]))
        assert [info.key for info in store.list("")] == ["b"]
        store.put("a", io.BytesIO(b"y"), 1, "exclusive")
        assert store.get("a").read() == b"y"

    forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

    @forks
    def test_a_forked_child_and_its_parent_both_go_on(self, store: ObjectStore) -> None:
        """`multiprocessing` forks by default on Linux before Python 3.14."""
        store.put("parent", io.BytesIO(CONTENT), len(CONTENT), "content")

        def work(number: int) -> None:
            assert store.get("parent").read() == CONTENT
            store.put(f"child/{number}", io.BytesIO(b"child"), 5, "exclusive")
            store.put(f"child/{number}-large", io.BytesIO(CONTENT), len(CONTENT), "content")
            with pytest.raises(KeyTaken):
                store.put(f"child/{number}", io.BytesIO(b"other"), 5, "exclusive")
            assert store.get(f"child/{number}-large", 7, 11).read() == CONTENT[7:18]
            assert [info.key for info in store.list(f"child/{number}-")] == [f"child/{number}-large"]
            assert store.stat("missing") is None

        for number in range(2):
            assert forked(lambda number=number: work(number)) is None  # type: ignore[misc]
            work(number + 10)
        assert forked(lambda: forked(lambda: work(20)) and pytest.fail("the grandchild failed")) is None
        work(30)

    @forks
    def test_a_stream_that_was_open_at_a_fork_is_still_the_parents(self, store: ObjectStore) -> None:
        """A child that reads on gets the right bytes or an error, and takes none away from its parent."""
        content = CONTENT * 10
        store.put("long", io.BytesIO(content), len(content), "content")
        stream = store.get("long")
        begun = stream.read(1000)

        def read_on() -> None:
            try:
                rest = stream.read()
            except BackendError:
                rest = store.get("long", 1000).read()
            assert begun + rest == content

        assert forked(read_on) is None
        assert begun + stream.read() == content
        stream.close()

    @forks
    def test_a_child_forked_while_a_thread_is_at_work_goes_on(self, store: ObjectStore) -> None:
        def work(key: str) -> None:
            store.put(key, io.BytesIO(CONTENT), len(CONTENT), "content")
            assert store.get(key).read() == CONTENT

        _forks_beside(lambda number: work(f"parent/{number % 3}"), lambda number: work(f"child/{number}"))


class BackendContract:
    """Inherit, and define the fixture `backend`: a new, empty backend for each test."""

    forks = ObjectStoreContract.forks

    @forks
    def test_a_forked_child_and_its_parent_both_append(self, backend: Backend) -> None:
        def work(text: bytes) -> None:
            key = key_of(text)
            backend.blobs.put(key, io.BytesIO(text), len(text))
            assert backend.blobs.open(key).read() == text
            position, data = backend.journal.append(lambda head: b'"%b"' % text, {}, _soon())
            assert next(iter(backend.journal.read(position))) == (position, data)

        work(b"parent")
        for number in range(2):
            assert forked(lambda number=number: work(b"child %d" % number)) is None  # type: ignore[misc]
            work(b"parent %d" % number)
        _forks_beside(lambda number: work(b"thread %d" % number), lambda number: work(b"beside %d" % number))
        work(b"end")
        assert [position for position, _ in backend.journal.read(0)] == list(range(len(list(backend.journal.read(0)))))

    def test_an_empty_journal(self, backend: Backend) -> None:
        assert backend.journal.head() is None
        assert list(backend.journal.read(0)) == []
        assert list(backend.blobs.list()) == []

    def test_entries_come_back_in_order_and_the_head_is_the_last(self, backend: Backend) -> None:
        seen: list[Head | None] = []
        for n in range(20):

            def build(head: Head | None, n: int = n) -> bytes:
                seen.append(head)
                return b'{"n":%d}' % n

            assert backend.journal.append(build, {}, _soon()) == (n, b'{"n":%d}' % n)
        expected = [(n, b'{"n":%d}' % n) for n in range(20)]
        assert seen == [None] + [Head(n, digest_of(data)) for n, data in expected[:-1]]
        assert list(backend.journal.read(0)) == expected
        assert list(backend.journal.read(5, 9)) == expected[5:9]
        assert list(backend.journal.read(20)) == []
        assert backend.journal.head() == Head(19, digest_of(b'{"n":19}'))

    def test_what_build_raises_ends_the_append_with_nothing_stored(self, backend: Backend) -> None:
        def build(head: Head | None) -> bytes:
            raise LookupError("no")

        with pytest.raises(LookupError):
            backend.journal.append(build, {}, _soon())
        assert backend.journal.head() is None
        assert backend.journal.append(lambda head: b"{}", {}, _soon())[0] == 0

    def test_threads_append_without_gaps_or_losses(self, backend: Backend) -> None:
        done: list[tuple[int, bytes]] = []

        def work(name: int) -> None:
            for n in range(10):
                done.append(backend.journal.append(lambda head, n=n: b'"%d/%d"' % (name, n), {}, _soon()))  # type: ignore[misc]

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(done) == list(backend.journal.read(0))
        assert [position for position, _ in sorted(done)] == list(range(40))

    @pytest.mark.parametrize("size", [0, 100, 300_000])
    def test_blobs_come_back_whole_and_in_ranges(self, backend: Backend, size: int) -> None:
        content = CONTENT[:size]
        key = key_of(content)
        for _ in range(2):
            backend.blobs.put(key, io.BytesIO(content), size)
        for start, length in [(0, None), (3, None), (3, 50), (0, 0), (max(size - 2, 0), 10)]:
            with backend.blobs.open(key, start, length) as stream:
                expected = content[start:] if length is None else content[start : start + length]
                assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(expected).digest(), (start, length)
        info = backend.blobs.stat(key)
        assert info is not None
        assert (info.key, info.size) == (key, size)

    def test_blobs_with_an_entry_are_stored_with_it_or_not_at_all(self, backend: Backend) -> None:
        if not backend.capabilities.transactional:
            with pytest.raises(BackendError):
                backend.journal.append(lambda head: b"{}", {key_of(b"x"): b"x"}, _soon())
            return

        def refuse(head: Head | None) -> bytes:
            raise LookupError("no")

        with pytest.raises(LookupError):
            backend.journal.append(refuse, {key_of(b"x"): b"x"}, _soon())
        assert backend.blobs.stat(key_of(b"x")) is None
        backend.journal.append(lambda head: b"{}", {key_of(b"x"): b"x"}, _soon())
        assert backend.blobs.open(key_of(b"x")).read() == b"x"

    def test_blobs_are_listed_in_order_and_deleted(self, backend: Backend) -> None:
        contents = [b"%d" % n * (1 if n % 2 else 100_000) for n in range(8)]
        for content in contents:
            backend.blobs.put(key_of(content), io.BytesIO(content), len(content))
        keys = sorted(map(key_of, contents))
        keys.insert(1, keys[0] + "~1")
        backend.blobs.put(keys[1], io.BytesIO(b"again"), 5)
        assert [info.key for info in backend.blobs.list()] == keys
        assert [info.key for info in backend.blobs.list(keys[3])] == keys[4:]
        backend.blobs.delete([*keys[:3], key_of(b"missing")])
        assert [info.key for info in backend.blobs.list()] == keys[3:]
        assert backend.blobs.stat(keys[0]) is None
        with pytest.raises(BlobMissing):
            backend.blobs.open(keys[0])

    @pytest.mark.parametrize("name", golden.names())
    def test_a_golden_journal_means_what_it_meant(
        self, backend: Backend, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "golden"))
        golden.replay(backend, golden.entries(name))
        catalog = Catalog(backend, "golden")
        assert golden.state(catalog) == golden.expected(name)
        catalog.repository.index.close()

    def test_a_staged_file_can_be_adopted(self, backend: Backend) -> None:
        from catalog_core import durable

        files = backend.files
        if files is None:
            pytest.skip("this backend has no local files")
        assert isinstance(files, LocalFiles)
        path = durable.write_new(files.staging(), io.BytesIO(CONTENT), len(CONTENT))
        for _ in range(2):
            files.adopt(path, key_of(CONTENT))
        path.unlink()
        assert backend.blobs.open(key_of(CONTENT)).read() == CONTENT
        local = files.local_path(key_of(CONTENT))
        assert local is not None
        assert local.stat().st_mode & 0o777 == 0o444
        assert files.local_path(key_of(b"missing")) is None
        durable.write_new(files.staging(), io.BytesIO(b"left"), 4)
        assert files.sweep_uploads(3600) == 0
        assert files.sweep_uploads(-1) == 1
