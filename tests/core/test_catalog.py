"""The facade on both local backends, with arrays only (no framework)."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import (
    Conflict,
    IntegrityError,
    InvalidInput,
    InvalidName,
    NotFound,
    Rejected,
)


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if not os.environ.get("CATALOG_TEST_PLACES"):  # test_places.py chooses where the index goes
        monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    return f"{request.param}://{tmp_path}/catalog"


@pytest.fixture
def catalog(url: str):
    with Catalog.open(url) as opened:
        yield opened


def weights(seed: int = 0, count: int = 4, size: int = 1000) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"layer{n}.weight": rng.standard_normal(size, dtype=np.float32) for n in range(count)}


def test_what_was_saved_is_found_and_loaded_again(catalog: Catalog) -> None:
    saved = catalog.save("calo/3dgan", weights(), metrics={"auc": 0.93}, tags={"team": "openlab"}, alias="champion")
    assert saved.ref == "calo/3dgan@1"
    for ref in ("calo/3dgan", "calo/3dgan@1", "calo/3dgan@champion", f"calo/3dgan@{saved.digest[:19]}"):
        assert catalog.version(ref) == saved
    loaded = catalog.load("calo/3dgan@champion")
    for name, array in weights().items():
        np.testing.assert_array_equal(loaded[name], array)
    assert saved.metrics == {"auc": 0.93}
    assert saved.tags == {"team": "openlab"}
    assert [v.ref for v in catalog.search('metrics.auc > 0.9 and tags.team = "openlab"')] == ["calo/3dgan@1"]


def test_another_process_sees_it(catalog: Catalog, url: str) -> None:
    catalog.save("m", weights())
    code = (
        "import sys; from catalog_core import Catalog; c = Catalog.open(sys.argv[1]);"
        "print(c.version('m').ref, len(c.load('m')))"
    )
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["m@1", "4"]


def test_a_large_version_shares_what_did_not_change(catalog: Catalog) -> None:
    big = weights(count=10, size=2_000_000)
    with catalog.prepare("big", big) as draft:
        assert draft.new_bytes > 80_000_000
        draft.save()
    with catalog.prepare("big", big) as draft:
        assert draft.new_bytes < 0.001 * draft.size
        draft.save()
    before = big["layer3.weight"]
    big["layer3.weight"] = before + 1
    with catalog.prepare("big", big) as draft:
        assert draft.new_bytes < 0.11 * draft.size
        draft.save()
    for number in (1, 2, 3):
        loaded = catalog.load(f"big@{number}")
        np.testing.assert_array_equal(loaded["layer3.weight"], before if number < 3 else big["layer3.weight"])
        np.testing.assert_array_equal(loaded["layer9.weight"], big["layer9.weight"])
    assert catalog.fsck().clean


def test_loaded_arrays_cannot_damage_the_store(catalog: Catalog) -> None:
    catalog.save("big", weights(count=2, size=2_000_000))
    loaded = catalog.load("big")
    with pytest.raises(ValueError, match="read-only"):
        loaded["layer0.weight"][0] = 1


def test_several_components_load_lazily(catalog: Catalog) -> None:
    version = catalog.save("gan", components={"generator": weights(1), "discriminator": weights(2)})
    parts = catalog.load("gan")
    assert sorted(parts) == ["discriminator", "generator"]
    np.testing.assert_array_equal(parts["generator"]["layer0.weight"], weights(1)["layer0.weight"])
    np.testing.assert_array_equal(catalog.load("gan#discriminator")["layer0.weight"], weights(2)["layer0.weight"])
    assert version.summary["components"] == {"discriminator": "safetensors", "generator": "safetensors"}


def test_files_and_folders_are_kept_as_they_are(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    content = np.random.default_rng(1).bytes(3_000_000)
    (folder / "deep" / "weights.bin").write_bytes(content)
    (folder / "note.txt").write_text("hello")
    (folder / "empty").touch()
    catalog.save("folder", folder)
    out = catalog.download("folder", tmp_path / "out")
    assert (out / "deep" / "weights.bin").read_bytes() == content
    assert (out / "note.txt").read_text() == "hello"
    assert (out / "empty").read_bytes() == b""


def test_numbers_are_never_reused_and_deletes_can_be_undone(catalog: Catalog) -> None:
    catalog.save("m", weights(1), alias="champion")
    second = catalog.save("m", weights(2), alias="champion")
    second.delete()
    assert catalog.version("m").number == 1
    with pytest.raises(NotFound, match="deleted"):
        catalog.version("m@2")
    assert catalog.save("m", weights(3)).number == 3
    catalog.version("m@2", deleted=True).restore()
    assert catalog.version("m@2").number == 2


def test_a_stale_handle_meets_a_conflict_that_shows_both(catalog: Catalog) -> None:
    version = catalog.save("m", weights())
    version.promote("tested")
    with pytest.raises(Conflict) as caught:
        version.promote("production")
    assert (caught.value.seen, caught.value.actual) == ("registered", "tested")


def test_tags_merge_and_history_tells(catalog: Catalog) -> None:
    version = catalog.save("m", weights(), tags={"a": "1"})
    version.tag(b="2").untag("a").tag("c", 3)
    version.annotate(auc=0.5)
    assert catalog.version("m").tags == {"b": "2", "c": 3}
    assert [event.type for event in catalog.history("m")] == [
        "version.published",
        "tags.set",
        "tags.set",
        "tags.set",
        "metrics.set",
    ]


def test_the_past_can_be_asked(catalog: Catalog) -> None:
    catalog.save("m", weights(1), alias="champion")
    then = catalog.position
    catalog.save("m", weights(2), alias="champion")
    assert catalog.model("m").aliases == {"champion": 2}
    assert catalog.as_of("m", f"#{then}")["aliases"] == {"champion": 1}


@pytest.mark.parametrize("name", ["../x", "a//b", "/a", "a/", "", "é", "a" * 300, "con", "a\nb", "a."])
def test_bad_names_are_refused_and_nothing_is_stored(catalog: Catalog, name: str) -> None:
    before = catalog.position
    with pytest.raises(InvalidName):
        catalog.save(name, weights())
    assert catalog.position == before


def test_names_that_differ_by_case_are_refused(catalog: Catalog) -> None:
    catalog.save("Model", weights())
    with pytest.raises(Rejected, match="case"):
        catalog.save("model", weights())
    assert len(catalog.models()) == 1


@pytest.mark.parametrize("metrics", [{"auc": float("nan")}, {"auc": "high"}, {"auc": True}, {"": 1.0}])
def test_bad_metrics_are_refused(catalog: Catalog, metrics: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        catalog.save("m", weights(), metrics=metrics)
    assert "m" not in catalog


def test_ten_megabytes_of_tags_are_refused(catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match="allowed"):
        catalog.save("m", weights(), tags={"note": "x" * 10_000_000})


def test_a_wrong_reference_offers_the_nearest(catalog: Catalog) -> None:
    catalog.save("calo/3dgan", weights(), alias="champion")
    with pytest.raises(NotFound, match="calo/3dgan"):
        catalog.version("calo/3dgam")
    with pytest.raises(NotFound, match="champion"):
        catalog.version("calo/3dgan@champoin")


def test_the_index_comes_back_equal(
    catalog: Catalog, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        catalog.save(f"m{number % 2}", weights(number), tags={"n": str(number)}, alias="newest").annotate(loss=number)
    catalog.version("m0@1").delete()
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "other"))
    with Catalog.open(url) as other:
        assert other.repository.index.dump() == catalog.repository.index.dump()


def test_gc_collects_orphans_and_deleted_versions_only(catalog: Catalog) -> None:
    catalog.save("keep", weights(1, 3, 1_000_000))
    catalog.save("drop", weights(2, 3, 1_000_000)).delete()
    with catalog.prepare("never", weights(3, 3, 1_000_000)) as draft:
        draft._writer.publish_packs()
    result = catalog.gc(grace=-1)
    assert result.bytes > 23_000_000
    assert catalog.fsck().clean
    np.testing.assert_array_equal(catalog.load("keep")["layer0.weight"], weights(1, 3, 1_000_000)["layer0.weight"])
    with pytest.raises(Rejected, match="collected"):
        catalog.version("drop@1", deleted=True).restore()
    again = catalog.save("drop", weights(2, 3, 1_000_000))
    np.testing.assert_array_equal(again.load()["layer1.weight"], weights(2, 3, 1_000_000)["layer1.weight"])
    assert catalog.fsck().clean
    assert catalog.gc(grace=-1).blobs == 0


def test_collection_that_races_a_publication_loses_nothing(catalog: Catalog, url: str) -> None:
    """The same content is garbage, is swept, and is published again by a draft that had staged it before."""
    content = weights(5, 3, 1_000_000)
    catalog.save("old", content).delete()
    draft = catalog.prepare("new", content)
    draft._writer.publish_packs()
    with Catalog.open(url) as sweeper:
        sweeper.gc(grace=-1)
    version = draft.save()
    np.testing.assert_array_equal(version.load()["layer2.weight"], content["layer2.weight"])
    assert catalog.fsck().clean


def test_every_flipped_byte_of_a_pack_is_found(catalog: Catalog, tmp_path: Path) -> None:
    catalog.save("m", weights(1, 2, 1_000_000))
    (path,) = [p for p in (tmp_path / "catalog" / "blobs").rglob("*") if p.is_file() and p.stat().st_size > 7_000_000]
    catalog.load("m")
    data = path.read_bytes()
    path.chmod(0o644)
    for at in (0, 500, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(IntegrityError, match=r"m@1.*model\.safetensors.*sha256"):
            catalog.load("m")
        assert not catalog.fsck().clean
    path.write_bytes(data)
    catalog.load("m")
    for damaged in (data[:-1], data + b"x", b""):
        path.write_bytes(damaged)
        assert not catalog.fsck().clean
    path.unlink()
    assert not catalog.fsck().clean
    with pytest.raises(IntegrityError):
        catalog.load("m")


def test_every_flipped_byte_of_the_journal_is_found(catalog: Catalog, url: str, tmp_path: Path) -> None:
    catalog.save("m", weights())
    if url.startswith("sqlite"):
        db = catalog.repository.backend.db

        def read() -> bytes:
            return db.execute("SELECT data FROM entries WHERE position = 1").fetchone()[0]

        def write(data: bytes) -> None:
            db.execute("UPDATE entries SET data = ? WHERE position = 1", (data,))
    else:
        (path,) = (tmp_path / "catalog" / "journal").rglob("0000000001")
        path.chmod(0o644)
        read, write = path.read_bytes, path.write_bytes
    data = read()
    for at in range(0, len(data), max(1, len(data) // 25)):
        write(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        findings = catalog.fsck()
        assert not findings.clean, f"byte {at} was flipped and nobody noticed"
    write(data)
    assert catalog.fsck().clean


def test_a_flipped_byte_of_a_small_blob_is_an_error(catalog: Catalog, url: str) -> None:
    if not url.startswith("sqlite"):
        pytest.skip("small blobs are inside the journal here")
    catalog.save("m", weights())
    db = catalog.repository.backend.db
    for key, data in db.execute("SELECT key, data FROM small").fetchall():
        db.execute("UPDATE small SET data = ? WHERE key = ?", (bytes([data[0] ^ 1]) + data[1:], key))
        assert not catalog.fsck().clean
        db.execute("UPDATE small SET data = ? WHERE key = ?", (data, key))
    assert catalog.fsck().clean


def test_a_catalog_that_is_not_there_is_not_made_by_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(NotFound):
        Catalog.open(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()


def test_what_is_held_already_is_not_counted_as_new(catalog: Catalog) -> None:
    first = catalog.save("m", {"w": np.zeros(10, np.float32)})
    assert first.summary["new_bytes"] > first.size  # the list of installed packages is new as well
    assert catalog.save("m", {"w": np.zeros(10, np.float32)}).summary["new_bytes"] == 0
    assert catalog.save("m", {"w": np.ones(10, np.float32)}).summary["new_bytes"] == first.size


def test_a_retrained_model_does_not_keep_the_bytes_of_the_one_before(catalog: Catalog) -> None:
    """Both files have the same header: a few bytes must not hold a pack of any size."""
    rng = np.random.default_rng(0)
    first, second = ({"w": rng.standard_normal(100_000, dtype=np.float32)} for _ in range(2))
    catalog.save("m", first)
    catalog.save("m", second)
    catalog.version("m@1").delete()
    assert catalog.gc(grace=0).bytes > 400_000
    np.testing.assert_array_equal(catalog.load("m@2")["w"], second["w"])
    again = catalog.save("m", second)
    assert again.summary["new_bytes"] == 0
    assert catalog.fsck().clean


def test_a_folder_is_attached_in_one_entry_without_what_is_hidden(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "training"
    for name, text in {"train.py": "import this", "conf/gan.toml": "lr = 1", ".git/HEAD": "x", "__pycache__/a.pyc": "x",
                       "conf/.env": "SECRET=1", "data.bin": "x" * 100_000}.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    version = catalog.save("m", {"w": np.arange(3)})
    before = catalog.position
    version = version.attach("code", folder)
    assert catalog.position == before + 1
    assert version.attachments == {"code/conf/gan.toml": 6, "code/data.bin": 100_000, "code/train.py": 11}
    assert version.attachment("code/data.bin") == b"x" * 100_000
    (folder / "not good.py").touch()
    with pytest.raises(InvalidInput):
        version.attach("code", folder)
    assert catalog.position == before + 1, "nothing of it was attached"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="holds no files"):
        version.attach("code", tmp_path / "empty")
    assert catalog.fsck().clean


def test_attachments_come_and_go_without_changing_the_version(catalog: Catalog, tmp_path: Path) -> None:
    version = catalog.save("m", weights())
    log = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "train.log").write_bytes(log)
    after = version.attach("plots/loss.png", b"\x89PNG").attach("train.log", tmp_path / "train.log")
    assert after == version
    assert after.attachments == {"plots/loss.png": 4, "train.log": 300_000}
    assert (after.attachment("plots/loss.png"), after.attachment("train.log")) == (b"\x89PNG", log)
    with pytest.raises(NotFound, match=r"train\.log"):
        after.attachment("train.lgo")
    with pytest.raises(InvalidName):
        after.attach("../x", b"")
    catalog.gc(grace=-1)
    assert catalog.fsck().clean
    assert after.detach("train.log").attachments == {"plots/loss.png": 4}
    assert catalog.gc(grace=-1).bytes >= 300_000
    assert catalog.version("m").attachment("plots/loss.png") == b"\x89PNG"


@pytest.mark.parametrize("what", ["card", "attachment"])
def test_a_blob_that_is_swept_while_it_is_named_is_stored_again(catalog: Catalog, url: str, what: str) -> None:
    version = catalog.save("m", weights())
    text = "A card. " * 50_000
    version.attach("old", text.encode()).detach("old")
    commit = catalog.repository.commit

    def swept_between(*events: object, **more: object) -> int:
        catalog.repository.commit = commit  # type: ignore[method-assign]
        with Catalog.open(url) as sweeper:
            sweeper.gc(grace=-1)
        return commit(*events, **more)  # type: ignore[arg-type]

    catalog.repository.commit = swept_between  # type: ignore[assignment,method-assign]
    if what == "card":
        assert catalog.model("m").set_card(text).card == text
    else:
        assert version.attach("new", text.encode()).attachment("new") == text.encode()
    assert catalog.fsck().clean
    assert any(event.type == "blobs.swept" for event in catalog.history())


def test_a_draft_that_ended_publishes_nothing(catalog: Catalog) -> None:
    with catalog.prepare("m", weights(0, 2, 100_000)) as discarded:
        pass
    with catalog.prepare("m", weights()) as saved:
        saved.save()
    for draft in (discarded, saved):
        with pytest.raises(InvalidInput, match=r"was (discarded|saved as m@1)"):
            draft.save()
        with pytest.raises(InvalidInput):
            draft.verify()
    assert [version.number for version in catalog.versions("m")] == [1]
    assert catalog.fsck().clean


def test_a_thousand_small_files_are_one_pack_and_are_shared(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1500):
        (folder / f"f{number}.txt").write_text(f"{number} " * (number % 7))  # some are empty, some equal
    catalog.save("many", folder)
    (folder / "f7.txt").write_text("changed")
    with catalog.prepare("many", folder) as draft:
        assert draft.new_bytes < 100
        draft.save()
    assert catalog.verify("many").passed
    (folder / "f8.txt").unlink()
    few = tmp_path / "few"
    few.mkdir()
    (few / "f11.txt").write_text((folder / "f11.txt").read_text())
    catalog.save("few", few)
    catalog.gc(grace=-1)
    assert catalog.fsck().clean
    for number, expected in ((1, "7 " * 0), (2, "changed")):
        out = catalog.download(f"many@{number}", tmp_path / f"out{number}")
        assert (out / "f7.txt").read_text() == expected
        assert (out / "f1499.txt").read_text() == (folder / "f1499.txt").read_text()
        assert len(list(out.iterdir())) == 1500
    catalog.version("many@1").delete()
    catalog.version("many@2").delete()
    catalog.gc(grace=-1)
    assert (catalog.download("few", tmp_path / "few-out") / "f11.txt").read_text() == (few / "f11.txt").read_text()
    assert catalog.fsck().clean


def test_a_file_whose_small_tensors_are_alike_is_mapped_not_copied(catalog: Catalog) -> None:
    rng = np.random.default_rng(0)
    state = {f"{n}.weight": rng.random(1_500_000, dtype=np.float32) for n in range(3)}
    state |= {f"{n}.bias": np.zeros(1500, np.float32) for n in range(3)}
    catalog.save("m", dict(sorted(state.items())))
    loaded = catalog.load("m")
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, state[name])
        while isinstance(array, np.ndarray):
            array = array.base
        assert isinstance(array.obj, mmap.mmap), name


def test_aliases_come_back_with_what_is_restored_unless_they_were_given_away(catalog: Catalog) -> None:
    first = catalog.save("m", weights(1), alias="champion").alias("stable")
    second = catalog.save("m", weights(2))
    first.delete()
    assert catalog.model("m").aliases == {}
    catalog.version(second).alias("champion")
    catalog.version("m@1", deleted=True).restore()
    assert catalog.model("m").aliases == {"champion": 2, "stable": 1}
    catalog.model("m").delete()
    assert catalog.model("m", deleted=True).restore().aliases == {"champion": 2, "stable": 1}


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_a_copy_in_another_catalog_has_the_same_digest_and_shares_what_is_there(
    catalog: Catalog, tmp_path: Path, kind: str
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(100):
        (many / f"f{number}").write_text(str(number))
    first = catalog.save(
        "m", components={"a": weights(1, 3, 1_100_000), "b": many}, description="text", tags={"t": "1"}
    )
    first = first.annotate(loss=0.5)
    changed = weights(1, 3, 1_100_000) | {"layer0.weight": np.ones(1_100_000, dtype=np.float32)}
    second = catalog.save("m", components={"a": changed, "b": many})
    with Catalog.open(f"{kind}://{tmp_path}/other") as other:
        copied = catalog.copy("m@1", other)
        assert (copied.digest, copied.tags, copied.metrics) == (first.digest, {"t": "1"}, {"loss": 0.5})
        assert catalog.copy(first, other).number == 1  # it is there
        renamed = catalog.copy(second, other, "n/m")
        assert (renamed.ref, renamed.digest) == ("n/m@1", second.digest)
        assert renamed.summary["new_bytes"] < 0.5 * renamed.size
        assert [v.ref for v in other.search("text")] == ["m@1"]
        np.testing.assert_array_equal(other.load("n/m#a")["layer0.weight"], changed["layer0.weight"])
        assert (other.download("m@1#b", tmp_path / "out") / "f7").read_text() == "7"
        assert other.verify("m@1").passed
        assert other.fsck().clean
        other.gc(grace=-1)
        assert other.fsck().clean
