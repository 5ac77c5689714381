"""Bundles: what goes out comes in elsewhere, history included; a damaged or hostile one publishes nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog, durable
from catalog_core.digests import canonical, digest_of
from catalog_core.errors import CatalogError, IntegrityError, InvalidInput, NotFound, UpgradeRequired
from catalog_core.handles import Version
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


def home(version: Version) -> dict[str, Any]:
    """What a copy says of where it comes from."""
    return {
        "catalog": version.catalog.id, "ref": version.ref, "digest": version.digest, "author": version.author,
        "time": version.created.isoformat(),
    }  # fmt: skip


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
        assert version.summary["origin"] == home(original)
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


def test_any_tar_tool_reads_one(source: Catalog, tmp_path: Path) -> None:
    with tarfile.open(source.export("calo/gan@1", tmp_path / "one.catalog").path) as archive:
        first, *rest = archive.getmembers()
        assert first.name.startswith("index/")
        assert rest
        for member in (first, *rest):
            file = archive.extractfile(member)
            assert file is not None
            assert hashlib.sha256(file.read()).hexdigest() == Path(member.name).name


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


def said(catalog: Catalog, name: str) -> list[tuple[Any, ...]]:
    return [(v.tags, v.metrics, v.aliases, v.description) for v in catalog.versions(name)[::-1]]


def test_two_versions_of_one_digest_are_two_elsewhere(tmp_path: Path, target: Catalog) -> None:
    with memory_catalog() as source, memory_catalog() as third:
        one = source.save("m", {"w": np.arange(3)}, tags={"run": "one"}, alias="old")
        two = source.save("m", {"w": np.arange(3)}, tags={"run": "two"}, alias="prod", description="the second")
        two.annotate(auc=0.5)
        assert one.digest == two.digest
        path = source.export("m", tmp_path / "m.catalog").path
        target.save("m", {"w": np.arange(3)}, tags={"run": "ours"})  # of the same digest, but no copy
        for _ in range(2):
            assert [v.ref for v in target.import_(path)] == ["m@2", "m@3"]
        assert said(target, "m")[1:] == said(source, "m")
        for number in (1, 2, 2, 1):
            assert source.copy(f"m@{number}", third, "n").number == number
        assert [one[:2] for one in said(third, "n")] == [one[:2] for one in said(source, "m")]
        again = third.export("n", tmp_path / "n.catalog").path  # of copies
        assert [v.ref for v in target.import_(again, "m")] == ["m@2", "m@3"]
        assert [v.ref for v in source.import_(again, "m")] == ["m@1", "m@2"]  # their home


def test_where_it_was_first_published_is_kept_on_the_way(source: Catalog, tmp_path: Path) -> None:
    with memory_catalog() as second, memory_catalog() as third:
        source.copy("calo/gan@2", second, "shared/gan")
        second.export("shared/gan", tmp_path / "gan.catalog")
        (version,) = third.import_(tmp_path / "gan.catalog")
        first = home(source.version("calo/gan@2"))
        assert second.version("shared/gan").summary["origin"] == version.summary["origin"] == first
        assert third.copy("shared/gan", source).summary["origin"] == first


def test_a_file_is_synced_before_it_has_its_name(
    source: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (calls.append(name), real(*args))

    monkeypatch.setattr(os, "fsync", noted("file", os.fsync))
    monkeypatch.setattr(os, "rename", noted("name", os.rename))
    monkeypatch.setattr(durable, "sync_folder", noted("folder", durable.sync_folder))
    source.export("calo/gan", tmp_path / "gan.catalog")
    assert calls[:3] == ["file", "name", "folder"]


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_a_large_bundle_needs_little_memory(scheme: str, tmp_path: Path) -> None:
    """A process that may allocate 100 MB more than after its start writes and reads a bundle of 240 MB."""
    array = np.random.default_rng(1).random(10_000_000)
    with Catalog.open(f"{scheme}://{tmp_path}/source") as source:
        saved = source.save("m", {"w": array, "v": array[::-1]}).digest
        (tmp_path / "log").write_bytes(array.tobytes())
        source.version("m").attach("log", tmp_path / "log")
    code = (
        "import resource, sys\n"
        "from catalog_core import Catalog, bundle\n"
        "name, word = sys.argv[1:]\n"
        "with Catalog.open(f'{name}/source') as source, Catalog.open(f'{word}://{name}/target') as target:\n"
        "    source.artifact('m')\n"
        "    used = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmData'))\n"
        "    resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + 100_000_000,) * 2)\n"
        "    print(source.export('m', f'{name}/m.catalog').size)\n"
        "    print(target.import_(f'{name}/m.catalog')[0].digest)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path, scheme], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    size, digest = done.stdout.split()
    assert int(size) > 240_000_000
    assert digest == saved


def test_what_cannot_be_exported_leaves_no_file(source: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "there").write_text("mine")
    with pytest.raises(InvalidInput, match="exists already"):
        source.export("calo/gan", folder / "there")
    with pytest.raises(NotFound):
        source.export("calo/none", folder / "new")
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
    for step in range(0, 12, 2):
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


def forge(path: Path, members: Members) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o444
            archive.addfile(info, io.BytesIO(data))
        archive.fileobj.write(bytes(1024))  # type: ignore[union-attr]
        size = archive.offset + 1024
    with path.open("r+b") as file:  # tarfile fills it up to 10 KiB, a bundle ends
        file.truncate(size)


def blob(data: bytes) -> tuple[str, bytes]:
    return f"blobs/{hashlib.sha256(data).hexdigest()}", data


def named(data: bytes) -> tuple[str, bytes]:
    return f"index/{hashlib.sha256(data).hexdigest()}", data


def retold(change: Callable[[dict[str, Any]], Any]) -> Callable[[Members], Members]:
    """The same bundle with another index, which has its right name."""

    def forged(members: Members) -> Members:
        index = json.loads(members[0][1])
        change(index)
        return [named(canonical(index)), *members[1:]]

    return forged


def remade(change: Callable[[dict[str, Any]], Any]) -> Callable[[Members], Members]:
    """The same bundle with another manifest of the second version, under its right digest and in its place."""

    def forged(members: Members) -> Members:
        index = json.loads(members[0][1])
        item = index["versions"][1]
        old = f"blobs/{item['manifest'][0][7:]}"
        manifest = json.loads(dict(members)[old])
        change(manifest)
        data = canonical(manifest)
        item["manifest"] = [digest_of(data), len(data)]
        rest = [blob(data) if name == old else (name, value) for name, value in members[1:]]
        return [named(canonical(index)), *rest]

    return forged


def version(change: Callable[[dict[str, Any]], Any]) -> Callable[[Members], Members]:
    """The same bundle with something else said of the second version."""
    return retold(lambda index: change(index["versions"][1]))


def longer(item: dict[str, Any]) -> None:
    chunks = max(item["layout"]["files"].values(), key=lambda chunks: chunks[0][1])
    chunks[:] = [chunks[0]] * 20_000


def elsewhere(item: dict[str, Any]) -> None:
    chunks = max(item["layout"]["files"].values(), key=len)
    chunks[0] = [*chunks[0], "sha256:" + "a" * 64, 0]


def another(item: dict[str, Any]) -> None:
    files = item["layout"]["files"]
    one, two = sorted(files, key=lambda digest: files[digest][0][1])[-2:]
    files[one], files[two] = files[two], files[one]


def climbing(manifest: dict[str, Any]) -> None:
    manifest["components"][0]["files"][0]["name"] = "../../evil"


DEEP = b'{"kind":' + b"[" * 100_000
HOSTILE: dict[str, Callable[[Members], Members]] = {
    "a wrong byte in a blob": lambda m: [*m[:-1], (m[-1][0], m[-1][1][:-1] + b"!")],
    "a blob that is missing": lambda m: m[:-1],
    "a blob that is too short": lambda m: [*m[:-1], (m[-1][0], m[-1][1][:-1])],
    "a blob too many": lambda m: [*m, blob(b"something that nobody needs")],
    "blobs in another order": lambda m: [m[0], *m[:0:-1]],
    "a name that climbs": lambda m: [*m, ("../evil", b"x")],
    "a name from the root": lambda m: [*m[:-1], ("/etc/evil", m[-1][1])],
    "a name that climbs below blobs": lambda m: [*m[:-1], ("blobs/../../evil", m[-1][1])],
    "a member that stands twice": lambda m: [*m, m[-1]],
    "a second index": lambda m: [*m, m[0]],
    "no index": lambda m: m[1:],
    "an index that is not first": lambda m: [*m[1:], m[0]],
    "an index of another name": lambda m: [("index/x", m[0][1]), *m[1:]],
    "an index that is no JSON": lambda m: [named(b"{"), *m[1:]],
    "an index that is a list": lambda m: [named(b"[]"), *m[1:]],
    "an index with a key twice": lambda m: [named(b'{"kind":1,"kind":1}'), *m[1:]],
    "an index that is deep": lambda m: [named(DEEP), *m[1:]],
    "another kind of file": retold(lambda i: i.update(kind="wheel")),
    "a newer format": retold(lambda i: i.update(format=2)),
    "a name of a model that climbs": retold(lambda i: i["model"].update(name="../evil")),
    "no versions": lambda m: retold(lambda i: (i.update(versions=[]), i["model"].update(card=None)))(m)[:1],
    "versions that are none": retold(lambda i: i.update(versions=[1])),
    "a version without a layout": version(lambda v: v.pop("layout")),
    "a digest that climbs": version(lambda v: v["manifest"].__setitem__(0, "sha256:../../../../etc/passwd")),
    "a digest that is a number": version(lambda v: v["manifest"].__setitem__(0, 5)),
    "a length that is negative": version(lambda v: v["manifest"].__setitem__(1, -1)),
    "a length that is a text": version(lambda v: v["manifest"].__setitem__(1, "1")),
    "a length of many terabytes": version(lambda v: v["manifest"].__setitem__(1, 2**50)),
    "the manifest of nobody": version(lambda v: v["manifest"].__setitem__(0, digest_of(b"nobody"))),
    "a metric that is text": version(lambda v: v["about"].update(metrics={"auc": "high"})),
    "tags that are a list": version(lambda v: v["about"].update(tags=["a"])),
    "a summary that is text": version(lambda v: v["about"].update(summary="x")),
    "a text of 20 kB": version(lambda v: v["about"].update(text="x" * 20_000)),
    "nothing about it": version(lambda v: v.update(about=None)),
    "another field about it": version(lambda v: v["about"].update(number=7)),
    "an unknown field about it": version(lambda v: v["about"].update(evil=7)),
    "an alias that is a number": version(lambda v: v.update(aliases=["7"])),
    "aliases that are a number": version(lambda v: v.update(aliases=7)),
    "an attachment that climbs": retold(lambda i: i["versions"][0]["attachments"].update(
        {"../evil": i["versions"][0]["attachments"]["plot.png"]})),
    "a title that is a list": retold(lambda i: i["model"].update(title=["x"])),
    "a catalog that is a number": retold(lambda i: i.update(catalog=7)),
    "a catalog that climbs": retold(lambda i: i.update(catalog="../../evil")),
    "a layout that grows a file": version(longer),
    "a layout that points elsewhere": version(elsewhere),
    "a layout with files that changed places": version(another),
    "a layout without its files": version(lambda v: v["layout"].update(files={})),
    "a layout of another version": version(lambda v: v["layout"].update(version=2)),
    "a manifest with a file that climbs": remade(climbing),
    "a manifest with a wrong size": remade(lambda v: v["components"][0]["files"][0].update(size=1)),
}  # fmt: skip


@pytest.fixture
def members(source: Catalog, tmp_path: Path) -> Members:
    with tarfile.open(source.export("calo/gan", tmp_path / "good.catalog").path) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def refused(path: Path, tmp_path: Path) -> CatalogError:
    """The one error that an import gives; nothing was published or left."""
    with Catalog.open(f"file://{tmp_path}/empty") as catalog:
        with pytest.raises(CatalogError) as caught:
            catalog.import_(path)
        assert (catalog.position, len(catalog.models())) == (0, 0)
        assert not list((tmp_path / "empty" / "staging").glob("*"))
        assert not [path for path in (tmp_path / "empty" / "blobs").rglob("*") if path.is_file()]
    assert not list(tmp_path.rglob("evil"))
    return caught.value


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_bundle_gives_one_error_and_nothing_is_published(kind: str, members: Members, tmp_path: Path) -> None:
    forge(tmp_path / "bad.catalog", HOSTILE[kind](members))
    error = refused(tmp_path / "bad.catalog", tmp_path)
    assert isinstance(error, UpgradeRequired if kind == "a newer format" else IntegrityError)
    assert kind == "a newer format" or str(tmp_path / "bad.catalog") in error.message
    assert "\n" not in error.message


def test_the_forger_of_these_tests_makes_what_export_does(members: Members, tmp_path: Path) -> None:
    forge(tmp_path / "forged.catalog", members)
    assert (tmp_path / "forged.catalog").read_bytes() == (tmp_path / "good.catalog").read_bytes()


def test_what_is_compressed_is_not_unpacked(members: Members, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.catalog", "w:gz") as archive:
        for name, data in [*members, blob(bytes(200 << 20))]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert isinstance(refused(tmp_path / "bad.catalog", tmp_path), IntegrityError)


def test_one_that_is_cut_short_or_longer_is_refused(members: Members, tmp_path: Path) -> None:
    data = (tmp_path / "good.catalog").read_bytes()
    path = tmp_path / "bad.catalog"
    for end in [0, 1, 124, 511, 512, 600, len(data) // 2, *range(len(data) - 2000, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:end])
        assert isinstance(refused(path, tmp_path), IntegrityError)
    for other in (data + b"\0", data + bytes(1024), b"#!/bin/sh\n" + data, data + data):
        path.write_bytes(other)
        assert isinstance(refused(path, tmp_path), IntegrityError)


def test_no_thread_reads_a_file_that_was_refused(tmp_path: Path) -> None:
    with memory_catalog() as catalog:
        rng = np.random.default_rng(0)
        version = catalog.save("m", {f"{number}": rng.random(4_000_000) for number in range(4)})
        bundle = catalog.export(version, tmp_path / "good.catalog").path
    data = bytearray(bundle.read_bytes())
    at = data.find(b"blobs/")
    data[at + 512] ^= 1
    (tmp_path / "bad.catalog").write_bytes(data)
    before = threading.active_count()
    with memory_catalog() as catalog:
        with pytest.raises(IntegrityError, match="holds other bytes") as kept:
            catalog.import_(tmp_path / "bad.catalog")
        assert threading.active_count() == before, kept


def test_any_flipped_bit_is_found(members: Members, tmp_path: Path) -> None:
    good = (tmp_path / "good.catalog").read_bytes()
    rng = random.Random(7)
    heads = [at for at in range(0, len(good), 512) if good[at : at + 6] in (b"index/", b"blobs/")]
    assert len(heads) == len(members)
    places = [*range(0, 512, 3), *(rng.randrange(len(good)) for _ in range(40)), *range(len(good) - 1500, len(good), 9)]
    places += [at + rng.randrange(512) for at in heads for _ in range(3)]
    path = tmp_path / "bad.catalog"
    with memory_catalog() as catalog:
        for place in places:
            path.write_bytes(good[:place] + bytes([good[place] ^ (1 << rng.randrange(8))]) + good[place + 1 :])
            with pytest.raises(IntegrityError):
                catalog.import_(path)
        assert catalog.position == 0


@pytest.mark.parametrize("what", ["nothing", "a folder"])
def test_what_is_no_file(what: str, tmp_path: Path) -> None:
    if what == "a folder":
        (tmp_path / "bad.catalog").mkdir()
    assert isinstance(refused(tmp_path / "bad.catalog", tmp_path), NotFound)


@pytest.mark.parametrize("data", [b"", b'{"format": "xc"}', b"a,b\n1,2\n" * 300, bytes(2000)])
def test_what_is_no_bundle_is_of_no_known_format(data: bytes, tmp_path: Path) -> None:
    for name in ("xc.json", "table"):
        (tmp_path / name).write_bytes(data)
        error = refused(tmp_path / name, tmp_path)
        assert isinstance(error, NotFound) and f"{name} is a file of no known format (" in error.message
    (tmp_path / "bad.catalog").write_bytes(data)
    error = refused(tmp_path / "bad.catalog", tmp_path)
    assert isinstance(error, IntegrityError) and "int()" not in error.message


def test_a_bundle_is_known_by_its_first_bytes(source: Catalog, tmp_path: Path) -> None:
    with memory_catalog() as catalog:
        assert catalog.import_(source.export("other", tmp_path / "other.tar").path)[0].ref == "other@1"
