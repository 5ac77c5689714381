"""Collection races publication of the same content: whoever comes first, nothing that was published is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import Rejected


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/catalog"


@pytest.fixture
def opened(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Catalog]]:
    """Opens the catalog as another machine would: with an index of its own."""
    made: list[Catalog] = []

    def another() -> Catalog:
        monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / f"cache{len(made)}"))
        made.append(Catalog.open(url))
        return made[-1]

    yield another
    for catalog in made:
        catalog.close()


CONTENT = {
    "small": {"w": np.arange(100, dtype=np.float32)},
    "blob": {"w": np.arange(10_000, dtype=np.float32)},
    "pack": {"a": np.arange(1_500_000, dtype=np.float32), "b": np.ones(1_500_000, dtype=np.float32)},
}


def parked(sweeper: Catalog, step: str, meanwhile: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `meanwhile` happen once, just before the sweeper takes `step` on the store; then the sweeper goes on."""
    blobs = sweeper.repository.backend.blobs
    real = getattr(blobs, step)
    waiting = [meanwhile]

    def later(*arguments: Any) -> Any:
        if waiting:
            waiting.pop()()
        return real(*arguments)

    monkeypatch.setattr(blobs, step, later)


def check(catalog: Catalog, content: str, *refs: str) -> None:
    for ref in refs:
        loaded = catalog.load(ref)
        for name, array in CONTENT[content].items():
            np.testing.assert_array_equal(loaded[name], array)
    findings = catalog.fsck()
    assert findings.clean, findings.problems
    assert catalog.gc(grace=-1).blobs == 0 or catalog.fsck().clean
    for ref in refs:
        catalog.load(ref)


@pytest.mark.parametrize("content", CONTENT)
@pytest.mark.parametrize("prepared", ["after the sweep", "before it", "and put before it"])
def test_a_sweeper_parked_between_event_and_delete_takes_nothing_new(
    opened: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch, content: str, prepared: str
) -> None:
    sweeper, publisher = opened(), opened()
    sweeper.save("old", CONTENT[content]).delete()
    draft = publisher.prepare("new", CONTENT[content])
    if "put" in prepared:
        draft._writer.publish_packs()

    def publish() -> None:
        if prepared == "after the sweep":
            publisher.save("new", CONTENT[content])
        else:
            draft.save()

    parked(sweeper, "delete", publish, monkeypatch)
    sweeper.gc(grace=-1)
    if "new" not in publisher:  # nothing of this content was stored as a blob, so nothing was swept
        assert content == "small" and publisher.url.startswith("file")
        publish()
    draft.discard()
    for catalog in (publisher, sweeper, opened()):
        check(catalog, content, "new@1")


@pytest.mark.parametrize("content", CONTENT)
def test_a_publication_while_the_sweep_is_computed_makes_it_start_again(
    opened: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    sweeper, publisher = opened(), opened()
    sweeper.save("old", CONTENT[content]).delete()
    parked(sweeper, "list", lambda: publisher.save("new", CONTENT[content]), monkeypatch)
    sweeper.gc(grace=-1)
    for catalog in (publisher, sweeper, opened()):
        check(catalog, content, "new@1")


@pytest.mark.parametrize("content", CONTENT)
def test_a_restore_while_the_sweep_is_computed_makes_it_start_again(
    opened: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    sweeper, other = opened(), opened()
    sweeper.save("old", CONTENT[content]).delete()
    parked(sweeper, "list", lambda: other.version("old@1", deleted=True).restore(), monkeypatch)
    sweeper.gc(grace=-1)
    for catalog in (other, sweeper, opened()):
        check(catalog, content, "old@1")


def test_a_restore_after_the_sweep_is_refused(opened: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch) -> None:
    sweeper, other = opened(), opened()
    sweeper.save("old", CONTENT["pack"]).delete()
    met: list[str] = []

    def restore() -> None:
        with pytest.raises(Rejected) as caught:
            other.version("old@1", deleted=True).restore()
        met.append(caught.value.code)

    parked(sweeper, "delete", restore, monkeypatch)
    sweeper.gc(grace=-1)
    assert met == ["collected"]
    assert other.fsck().clean


@pytest.mark.parametrize("content", CONTENT)
def test_a_sweeper_that_dies_before_it_deletes_leaves_what_the_next_one_takes(
    opened: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    sweeper, other = opened(), opened()
    sweeper.save("old", CONTENT[content]).delete()
    with monkeypatch.context() as patch:
        parked(sweeper, "delete", die, patch)
        if content == "small" and sweeper.url.startswith("file"):
            sweeper.gc(grace=-1)
        else:
            with pytest.raises(Died):
                sweeper.gc(grace=-1)
    other.save("new", CONTENT[content])
    other.gc(grace=-1)
    for catalog in (other, opened()):
        check(catalog, content, "new@1")
    assert sweeper.gc(grace=-1).blobs == 0


@pytest.mark.parametrize("content", ["blob", "pack"])
def test_what_a_late_writer_left_under_an_old_key_does_not_hide_the_newer_one(
    opened: Callable[[], Catalog], content: str
) -> None:
    catalog, late = opened(), opened()
    catalog.save("m", CONTENT[content]).delete()
    left = dict(stored(catalog))
    catalog.gc(grace=-1)
    catalog.save("m", CONTENT[content]).delete()
    catalog.gc(grace=-1)
    live = catalog.save("m", CONTENT[content])
    catalog.save("same", CONTENT[content]).delete()
    for key, data in left.items():  # a writer that has not heard of the sweeps stores the content once more
        late.repository.backend.blobs.put(key, open_bytes(data), len(data))
    assert catalog.gc(grace=-1).blobs == len(left)
    for reader in (catalog, late, opened()):
        check(reader, content, live.ref)
    restored = catalog.version("same@1", deleted=True).restore()  # it needs none of what was collected
    check(catalog, content, restored.ref)


def stored(catalog: Catalog) -> Iterator[tuple[str, bytes]]:
    for info in list(catalog.repository.backend.blobs.list()):
        with catalog.repository.backend.blobs.open(info.key) as stream:
            yield info.key, stream.read()


def open_bytes(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


@pytest.mark.parametrize("content", CONTENT)
def test_a_draft_that_relies_on_what_was_swept_stores_it_again(opened: Callable[[], Catalog], content: str) -> None:
    """Also where the publisher's index has gone past the sweep before the draft is saved."""
    sweeper, publisher = opened(), opened()
    publisher.save("old", CONTENT[content]).delete()
    draft = publisher.prepare("new", CONTENT[content])
    sweeper.gc(grace=-1)
    publisher.models()
    check(publisher, content, draft.save().ref)
