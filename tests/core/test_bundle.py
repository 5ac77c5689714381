"""Bundles: what goes out comes in elsewhere, history included; a damaged or hostile one publishes nothing."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.digests import canonical, digest_of
from catalog_core.errors import CatalogError, IntegrityError, InvalidInput, NotFound, UpgradeRequired
from catalog_core.testing.memory import memory_catalog


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))


def weights(seed: int, layers: int = 4, size: int = 50_000) -> dict[str, Any]:
    return {f"layer{n}": np.random.default_rng((seed, n)).random(size, dtype=np.float32) for n in range(layers)}


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Catalog]:
    """Two versions that share all layers but one, with all that can be said of them."""
    with Catalog.open(f"file://{tmp_path}/source") as catalog:
        first = catalog.save(
            "calo/gan", weights(1), alias="champion", description="showers", tags={"team": "lab"}, metrics={"auc": 0.5}
        )
        first.tag(team="desk").annotate(loss=2).promote("tested").attach("plot.png", b"plot" * 50_000)
        catalog.save("calo/gan", weights(1) | {"layer0": np.ones(50_000, dtype=np.float32)}, alias="newest")
        catalog.model("calo/gan").set_card("# A card").update(title="A GAN")
        catalog.save("other", {"w": np.arange(10)})
        yield catalog


@pytest.fixture(params=["sqlite", "file", "memory"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    with (
        memory_catalog() if request.param == "memory" else Catalog.open(f"{request.param}://{tmp_path}/target") as found
    ):
        yield found


def test_what_was_exported_is_the_same_elsewhere(source: Catalog, target: Catalog, tmp_path: Path) -> None:
    written = source.export("calo/gan", tmp_path / "gan.catalog")
    assert written.digest == digest_of(written.path.read_bytes())
    assert written.size == written.path.stat().st_size
    first, second = target.import_(written.path)
    assert [v.ref for v in (first, second)] == ["calo/gan@1", "calo/gan@2"]
    for version in (first, second):
        original = source.version(version.ref)
        assert (version.digest, version.size, version.tags, version.metrics, version.params, version.aliases) == (
            original.digest, original.size, original.tags, original.metrics, original.params, original.aliases,
        )  # fmt: skip
        np.testing.assert_array_equal(version.load()["layer3"], weights(1)["layer3"])
        assert version.summary["origin"] == {
            "catalog": source.id, "name": "calo/gan", "number": version.number, "digest": version.digest,
        }  # fmt: skip
    assert first.attachment("plot.png") == b"plot" * 50_000
    assert first.stage == "registered"  # to promote it is for whoever is responsible here
    assert (target.model("calo/gan").card, target.model("calo/gan").title) == ("# A card", "A GAN")
    assert [v.ref for v in target.search("showers")] == ["calo/gan@1"]
    history = json.loads(first.attachment(f"history-{source.id[:8]}.json"))
    kinds = [item["event"]["type"] for item in history["events"]]
    assert kinds == [
        "version.published", "alias.set", "tags.set", "metrics.set", "stage.set", "attachment.set", "card.set",
        "model.updated",
    ]  # fmt: skip
    assert history["events"][2]["event"]["set"] == {"team": "desk"}
    target.gc(grace=-1)
    assert target.fsck().clean


def test_what_versions_share_is_carried_and_written_once(target: Catalog, tmp_path: Path) -> None:
    with memory_catalog() as source:
        first = source.save("m", weights(1, 3, 1_100_000))
        source.save("m", weights(1, 3, 1_100_000) | {"layer0": np.ones(1_100_000, dtype=np.float32)})
        assert source.export("m", tmp_path / "m.catalog").size < 1.4 * first.size
    _, second = target.import_(tmp_path / "m.catalog")
    assert second.summary["new_bytes"] < 0.4 * second.size
    assert target.fsck().clean


def test_the_same_version_is_the_same_file(source: Catalog, tmp_path: Path) -> None:
    one = source.export("calo/gan@1", tmp_path / "one.catalog")
    source.save("other", {"w": np.arange(11)})
    with Catalog.open(source.url) as again:
        assert again.export("calo/gan@champion", tmp_path / "two.catalog").digest == one.digest
    source.version("calo/gan@1").annotate(auc=0.6)
    assert source.export("calo/gan@1", tmp_path / "three.catalog").digest != one.digest
    assert one.versions == ("calo/gan@1",)


def test_any_zip_tool_reads_one(source: Catalog, tmp_path: Path) -> None:
    with zipfile.ZipFile(source.export("calo/gan@1", tmp_path / "one.catalog").path) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "bundle.json"
        for name in archive.namelist()[1:]:
            assert hashlib.sha256(archive.read(name)).hexdigest() == name.removeprefix("blobs/")


def test_what_is_there_is_returned_and_what_collides_gets_a_number(
    source: Catalog, target: Catalog, tmp_path: Path
) -> None:
    path = source.export("calo/gan", tmp_path / "gan.catalog").path
    own = target.save("calo/gan", {"w": np.arange(3)}, alias="champion")
    target.model("calo/gan").set_card("ours")
    first, second = target.import_(path)
    assert (first.ref, second.ref) == ("calo/gan@2", "calo/gan@3")
    assert (own.catalog.version("calo/gan@champion").number, second.aliases) == (1, ["newest"])
    assert (target.model("calo/gan").card, target.model("calo/gan").title) == ("ours", "A GAN")
    before = target.position
    assert [v.ref for v in target.import_(path)] == ["calo/gan@2", "calo/gan@3"]
    assert target.position == before
    assert [v.ref for v in target.import_(path, "new/name")] == ["new/name@1", "new/name@2"]
    assert target.version("new/name@1").summary["new_bytes"] < 100_000
    assert source.import_(path)[0] == source.version("calo/gan@1")


def test_where_it_was_first_published_is_kept_on_the_way(source: Catalog, tmp_path: Path) -> None:
    with memory_catalog() as second, memory_catalog() as third:
        source.copy("calo/gan@2", second, "shared/gan")
        second.export("shared/gan", tmp_path / "gan.catalog")
        (version,) = third.import_(tmp_path / "gan.catalog")
        digest = version.digest
        home = {"catalog": source.id, "name": "calo/gan", "number": 2, "digest": digest}
        way = {"catalog": second.id, "name": "shared/gan", "number": 1, "digest": digest}
        assert second.version("shared/gan").summary["origin"] == home
        assert version.summary["origin"] == {**way, "first": home}
        back = third.copy("shared/gan", source)
        assert back.summary["origin"]["first"] == home


def test_a_bundle_beyond_the_limits_of_plain_zip(
    source: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10_000)
    path = source.export("calo/gan", tmp_path / "gan.catalog").path
    assert path.read_bytes()[-98:-94] == b"PK\6\6"
    monkeypatch.undo()
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with memory_catalog() as target:
        assert [v.digest for v in target.import_(path)] == [v.digest for v in source.versions("calo/gan")[::-1]]


def test_what_cannot_be_exported_leaves_no_file(source: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "there").write_text("mine")
    with pytest.raises(InvalidInput, match="exists already"):
        source.export("calo/gan", folder / "there")
    with pytest.raises(NotFound):
        source.export("calo/none", folder / "new")
    with pytest.raises(InvalidInput, match="no format 'tar'"):
        source.export("calo/gan", folder / "new", "tar")
    with pytest.raises(CatalogError, match="nowhere"):
        source.export("calo/gan", folder / "nowhere" / "new")
    large = max((tmp_path / "source/blobs").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    large.chmod(0o644)
    with large.open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    with pytest.raises(IntegrityError):
        source.export("calo/gan", folder / "new")
    assert [path.name for path in folder.iterdir()] == ["there"]


@pytest.mark.server
@pytest.mark.parametrize("what", ["export", "import"])
def test_a_death_at_any_moment_leaves_all_or_nothing(what: str, tmp_path: Path) -> None:
    import signal
    import subprocess
    import sys
    import time

    with Catalog.open(f"file://{tmp_path}/source") as source:
        digest = source.save("m", {"w": np.random.default_rng(1).random(4_000_000)}).digest
        source.version("m").attach("plot.png", b"plot" * 50_000)
        source.export("m", tmp_path / "good.catalog")
    call = {
        "export": f"c = Catalog.open('file://{tmp_path}/source'); print(1, flush=True); c.export('m', sys.argv[1])",
        "import": f"c = Catalog.open('file://{tmp_path}/target'); print(1, flush=True); "
        f"c.import_('{tmp_path}/good.catalog')",
    }[what]
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", f"import sys; from catalog_core import Catalog; {call}", tmp_path / "whole"], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    limit = time.monotonic() - begun
    if what == "import":
        with Catalog.open(f"file://{tmp_path}/target") as target:
            target.model("m").delete()
    for step in range(12):
        path = tmp_path / f"out-{step}"
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; from catalog_core import Catalog; {call}", path],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stdout.readline() == b"1\n"
        time.sleep(limit * step / 24)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        if what == "export" and path.exists():
            assert path.read_bytes() == (tmp_path / "good.catalog").read_bytes()
        if what == "import":
            with Catalog.open(f"file://{tmp_path}/target") as target:
                assert target.fsck().clean
                for version in target.versions("m") if "m" in target else []:
                    assert version.digest == digest
                    assert set(version.attachments) >= {"plot.png"}
                    version.delete()


# -- hostile bundles ---------------------------------------------------------------------------------------------------


Members = list[tuple[str, bytes]]


def forge(path: Path, members: Members, **how: Any) -> None:
    with zipfile.ZipFile(path, "w", how.get("compression", zipfile.ZIP_STORED)) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, how.get("compression"))


def retold(change: Callable[[dict[str, Any]], Any]) -> Callable[[Members], Members]:
    """The same bundle with another `bundle.json`."""

    def forged(members: Members) -> Members:
        index = json.loads(members[0][1])
        change(index)
        return [("bundle.json", canonical(index)), *members[1:]]

    return forged


def relaid(field: str, change: Callable[[dict[str, Any]], Any], version: int = 1) -> Callable[[Members], Members]:
    """The same bundle with another layout or manifest of one version, under its right digest."""

    def forged(members: Members) -> Members:
        index, blobs = json.loads(members[0][1]), dict(members[1:])
        item = index["versions"][version]
        value = json.loads(blobs[f"blobs/{item[field][7:]}"])
        change(value)
        data = canonical(value)
        item[field] = digest_of(data)
        return [("bundle.json", canonical(index)), *blobs.items(), (f"blobs/{item[field][7:]}", data)]

    return forged


def repeated(layout: dict[str, Any]) -> None:
    chunks = next(iter(layout["files"].values()))
    chunks[:] = [chunks[0]] * 5000


def climbing(manifest: dict[str, Any]) -> None:
    manifest["components"][0]["files"][0]["name"] = "../../evil"


def blob(data: bytes) -> tuple[str, bytes]:
    return f"blobs/{hashlib.sha256(data).hexdigest()}", data


DEEP = b'{"kind":' + b"[" * 100_000
HOSTILE: dict[str, Callable[[Members], Members]] = {
    "a wrong byte in a blob": lambda m: [*m[:-1], (m[-1][0], m[-1][1][:-1] + b"!")],
    "a blob that is missing": lambda m: m[:-1],
    "a blob that is too short": lambda m: [*m[:-1], (m[-1][0], m[-1][1][:-1])],
    "a name that climbs": lambda m: [*m, ("../evil", b"x")],
    "a name from the root": lambda m: [*m, ("/etc/evil", b"x")],
    "a name that climbs below blobs": lambda m: [*m, ("blobs/../../evil", b"x")],
    "a member that stands twice": lambda m: [*m, m[-1]],
    "a second index": lambda m: [*m, m[0]],
    "no index": lambda m: m[1:],
    "an index that is not first": lambda m: [*m[1:], m[0]],
    "an index that is no JSON": lambda m: [("bundle.json", b"{"), *m[1:]],
    "an index that is a list": lambda m: [("bundle.json", b"[]"), *m[1:]],
    "an index with a key twice": lambda m: [("bundle.json", b'{"kind":1,"kind":1}'), *m[1:]],
    "an index that is deep": lambda m: [("bundle.json", DEEP), *m[1:]],
    "another kind of zip": retold(lambda i: i.update(kind="wheel")),
    "a newer format": retold(lambda i: i.update(format=2)),
    "a name of a model that climbs": retold(lambda i: i["model"].update(name="../evil")),
    "no versions": retold(lambda i: i.update(versions=[])),
    "versions that are none": retold(lambda i: i.update(versions=[1])),
    "a version without a layout": retold(lambda i: i["versions"][1].pop("layout")),
    "a digest that climbs": retold(lambda i: i["versions"][1].update(digest="sha256:../../../../etc/passwd")),
    "a digest that is a number": retold(lambda i: i["versions"][1].update(digest=5)),
    "the manifest of nobody": retold(lambda i: i["versions"][1].update(digest=digest_of(b"nobody"))),
    "a metric that is text": retold(lambda i: i["versions"][1]["about"].update(metrics={"auc": "high"})),
    "tags that are a list": retold(lambda i: i["versions"][1]["about"].update(tags=["a"])),
    "a summary that is text": retold(lambda i: i["versions"][1]["about"].update(summary="x")),
    "a text of 20 kB": retold(lambda i: i["versions"][1]["about"].update(text="x" * 20_000)),
    "nothing about it": retold(lambda i: i["versions"][1].update(about=None)),
    "an alias that is a number": retold(lambda i: i["versions"][1].update(aliases=["7"])),
    "aliases that are a number": retold(lambda i: i["versions"][1].update(aliases=7)),
    "an attachment that climbs": retold(lambda i: i["versions"][0]["attachments"].update(
        {"../evil": i["versions"][0]["attachments"]["plot.png"]})),
    "a title that is a list": retold(lambda i: i["model"].update(title=["x"])),
    "a catalog that is a number": retold(lambda i: i.update(catalog=7)),
    "a catalog that climbs": retold(lambda i: i.update(catalog="../../evil")),
    "a layout that grows a file": relaid("layout", repeated),
    "a layout without its files": relaid("layout", lambda v: v.update(files={})),
    "a layout of another version": relaid("layout", lambda v: v.update(version=2)),
    "a manifest with a file that climbs": relaid("digest", climbing),
    "a manifest with a wrong size": relaid("digest", lambda v: v["components"][0]["files"][0].update(size=1)),
}  # fmt: skip


@pytest.fixture
def members(source: Catalog, tmp_path: Path) -> Members:
    with zipfile.ZipFile(source.export("calo/gan", tmp_path / "good.catalog").path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def refused(path: Path, tmp_path: Path) -> CatalogError:
    """The one error that an import gives; nothing was published or left."""
    with Catalog.open(f"file://{tmp_path}/empty") as catalog:
        with pytest.raises(CatalogError) as caught:
            catalog.import_(path)
        assert (catalog.position, len(catalog.models())) == (0, 0)
        assert not list((tmp_path / "empty" / "staging").glob("*"))
    assert str(path) in str(caught.value) or path.name in str(caught.value)
    assert not list(tmp_path.rglob("evil"))
    return caught.value


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_bundle_gives_one_error_and_nothing_is_published(kind: str, members: Members, tmp_path: Path) -> None:
    forge(tmp_path / "bad.catalog", HOSTILE[kind](members))
    error = refused(tmp_path / "bad.catalog", tmp_path)
    assert isinstance(error, UpgradeRequired if kind == "a newer format" else IntegrityError)
    assert "\n" not in error.message


def test_a_forged_bundle_that_is_right_is_taken(members: Members, tmp_path: Path) -> None:
    """The forger of these tests does not make what is refused by its own mistakes."""
    forge(tmp_path / "good.catalog", [*members, blob(b"something that nobody needs")])
    with Catalog.open(f"file://{tmp_path}/empty") as catalog:
        assert len(catalog.import_(tmp_path / "good.catalog")) == 2


def test_compressed_members_are_not_unpacked(members: Members, tmp_path: Path) -> None:
    forge(tmp_path / "bad.catalog", [*members, blob(bytes(200 << 20))], compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in str(refused(tmp_path / "bad.catalog", tmp_path))


def test_one_that_is_cut_short_or_longer_is_refused(members: Members, tmp_path: Path) -> None:
    forge(tmp_path / "good.catalog", members)
    data = (tmp_path / "good.catalog").read_bytes()
    path = tmp_path / "bad.catalog"
    for end in [0, 1, 21, 22, 100, len(data) // 2, *range(len(data) - 120, len(data), 7)]:
        path.write_bytes(data[:end])
        assert isinstance(refused(path, tmp_path), IntegrityError)
    for longer in (data + b"\0", b"#!/bin/sh\n" + data, data + bytes(22)):
        path.write_bytes(longer)
        assert isinstance(refused(path, tmp_path), IntegrityError)


def test_a_directory_that_claims_millions_is_not_read(members: Members, tmp_path: Path) -> None:
    forge(tmp_path / "good.catalog", members)
    data = (tmp_path / "good.catalog").read_bytes()
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 10**9, 10**9, 10**11, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(data) - 22, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "bad.catalog").write_bytes(data[:-22] + record + locator + end)
    assert "1,000,000,000 members" in str(refused(tmp_path / "bad.catalog", tmp_path))


def test_a_flipped_byte_is_found_or_changes_nothing(members: Members, tmp_path: Path) -> None:
    forge(tmp_path / "good.catalog", [*members])
    good = (tmp_path / "good.catalog").read_bytes()
    rng = random.Random(7)
    begin = len(members[0][1]) + 200
    places = [
        *range(0, begin, 11),
        *(rng.randrange(len(good)) for _ in range(60)),
        *range(len(good) - 1500, len(good), 9),
    ]
    path, taken = tmp_path / "bad.catalog", 0
    for place in places:
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << rng.randrange(8))]) + good[place + 1 :])
        with memory_catalog() as catalog:
            try:
                versions = catalog.import_(path)
            except CatalogError:
                assert catalog.position == 0
                continue
            taken += 1  # a date or a right in the zip
            assert [v.tags for v in versions] == [{"team": "desk"}, {}]
            assert all(np.array_equal(v.load()["layer1"], weights(1)["layer1"]) for v in versions)
    assert taken < len(places) / 2


@pytest.mark.parametrize("what", ["nothing", "a folder"])
def test_what_is_no_file(what: str, tmp_path: Path) -> None:
    if what == "a folder":
        (tmp_path / "bad.catalog").mkdir()
    assert isinstance(refused(tmp_path / "bad.catalog", tmp_path), NotFound)
