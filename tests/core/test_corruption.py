"""Any byte of a stored catalog is damaged: a read that meets it says so, `fsck` finds it, wrong data never comes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs
import numpy as np
import pytest

from catalog_core import Catalog, content
from catalog_core.digests import digest_of
from catalog_core.errors import CatalogError, IntegrityError
from catalog_core.events import event

CARD = "# A card\n" + "of some length " * 10
NOTE = b"attached " * 9_000
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SOME = 9  # positions that are tried in each blob, entry or file; `-m campaign` tries all


def small() -> dict[str, np.ndarray]:
    return {"w": np.arange(6, dtype=np.float32), "n": np.arange(4, dtype=np.int64)}


def large() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {f"layer{n}": rng.random(10_000, dtype=np.float32) for n in range(3)}


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A catalog with small and large versions, a folder of files, a card, and an attachment; closed."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "medium.bin").write_bytes(np.random.default_rng(1).bytes(40_000))
    (folder / "large.bin").write_bytes(np.random.default_rng(2).bytes(90_000))
    url = f"{request.param}://{tmp_path}/catalog"
    with Catalog.open(url) as catalog:
        catalog.save("small", small(), tags={"team": "cms"}, metrics={"auc": 0.5})
        catalog.save("large", large(), alias="best")
        catalog.save("files", folder)
        catalog.model("small").set_card(CARD)
        digest = digest_of(NOTE)
        attached = event("attachment.set", model="large", number=1, name="note", digest=digest, size=len(NOTE))
        catalog.repository.commit(attached, blobs={digest: NOTE})
        catalog.version("small").tag(last="entry")
    return url


@attrs.define
class Piece:
    """Stored bytes that can be read, replaced and removed by the back door."""

    name: str
    read: Callable[[], bytes]
    write: Callable[[bytes], object]
    remove: Callable[[], object]


def blobs(catalog: Catalog) -> Iterator[Piece]:
    """The rows and files that hold blobs (those inside journal entries are `entries`)."""
    folder = Path(catalog.url.partition("://")[2])
    for path in sorted((folder / "blobs").rglob("*")):
        if path.is_file():
            path.chmod(0o644)
            yield Piece(path.name, path.read_bytes, path.write_bytes, path.unlink)
    if catalog.url.startswith("sqlite"):
        db = catalog.repository.backend.db
        for (key,) in db.execute("SELECT key FROM small").fetchall():
            yield Piece(
                key,
                lambda key=key: db.execute("SELECT data FROM small WHERE key = ?", (key,)).fetchone()[0],
                lambda data, key=key: db.execute(
                    "INSERT OR REPLACE INTO small (key, data, time) VALUES (?, ?, 0)", (key, data)
                ),
                lambda key=key: db.execute("DELETE FROM small WHERE key = ?", (key,)),
            )


def entries(catalog: Catalog) -> Iterator[Piece]:
    """The rows or files that hold journal entries."""
    db = catalog.repository.backend.db if catalog.url.startswith("sqlite") else None
    for at in range(catalog.position + 1):
        if db is not None:
            digest = db.execute("SELECT digest FROM entries WHERE position = ?", (at,)).fetchone()[0]
            yield Piece(
                f"entry {at}",
                lambda at=at: db.execute("SELECT data FROM entries WHERE position = ?", (at,)).fetchone()[0],
                lambda data, at=at, digest=digest: db.execute(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (at, digest, data)
                ),
                lambda at=at: db.execute("DELETE FROM entries WHERE position = ?", (at,)),
            )
        else:
            path = Path(catalog.url.partition("://")[2]) / "journal" / "0000000000" / "0000000000" / f"{at:010}"
            path.chmod(0o644)
            yield Piece(f"entry {at}", path.read_bytes, path.write_bytes, path.unlink)


def everything(catalog: Catalog) -> list[IntegrityError]:
    """Read all that the catalog holds; the errors that were met. What came without an error was right."""
    errors: list[IntegrityError] = []

    def right(read: Callable[[], object], check: Callable[[object], None]) -> None:
        try:
            value = read()
        except IntegrityError as exc:
            errors.append(exc)
        else:
            check(value)

    def equal(wanted: dict[str, np.ndarray]) -> Callable[[object], None]:
        def check(loaded: object) -> None:
            for name, array in wanted.items():
                np.testing.assert_array_equal(loaded[name], array)  # type: ignore[index]

        return check

    def same(wanted: bytes) -> Callable[[object], None]:
        def check(view: object) -> None:
            assert bytes(view) == wanted  # type: ignore[call-overload]

        return check

    def card() -> bytes:
        text = catalog.model("small").card
        if text is None:  # the journal is not read as far as the entry that set it, and that was said
            assert catalog.repository.stopped is not None
            raise catalog.repository.stopped
        return text.encode()

    right(lambda: catalog.load("small"), equal(small()))
    right(lambda: catalog.load("large@best"), equal(large()))
    folder = Path(catalog.url.partition("://")[2]).parent / "folder"
    for name in ("medium.bin", "large.bin"):

        def read(name: str = name) -> memoryview:
            artifact = catalog.artifact("files")
            return artifact.reader(artifact.find("model")).view(name)

        right(read, same((folder / name).read_bytes()))
    right(card, same(CARD.encode()))
    right(lambda: catalog.repository.content.blob(digest_of(NOTE), "note of large@1"), same(NOTE))
    for model in ("small", "large", "files"):
        for version in catalog.versions(model):
            right(lambda version=version: catalog.artifact(version).distributions(), lambda found: None)  # type: ignore[misc]
            right(lambda version=version: catalog.artifact(version).baseline(), lambda found: None)  # type: ignore[misc]
    return errors


def names_file_chunk_and_backend(exc: CatalogError) -> None:
    text = exc.message
    assert re.search(r"\b(small|large|files)(@1)?\b", text), f"names no version: {text}"
    assert DIGEST.search(text), f"names no chunk: {text}"
    assert re.search(r"\b(sqlite|files)\b", text), f"names no backend: {text}"
    assert exc.backend in ("sqlite", "files")


def positions(size: int) -> list[int]:
    return sorted({round(at * (size - 1) / (SOME - 1)) for at in range(SOME)})


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def damage_is_met_and_found(url: str, piece: Piece, data: bytes, what: str, *, harmless: bool = False) -> None:
    with Catalog.open(url, policy="always") as reader:
        errors = everything(reader)
        if not harmless:
            assert errors, f"{what} was damaged and no read noticed"
        for exc in errors:
            names_file_chunk_and_backend(exc)
        findings = reader.fsck()
        assert not findings.clean, f"{what} was damaged and fsck is content"
        assert any(DIGEST.search(p.message) and re.search(r"\b(sqlite|files)\b", p.message) for p in findings.problems)


def each_blob(url: str) -> Iterator[tuple[Piece, bytes, str]]:
    """Every stored blob, its bytes, and a description; afterwards it is as it was."""
    with Catalog.open(url) as catalog:
        assert everything(catalog) == []
        pieces = list(blobs(catalog))
        assert len(pieces) >= (10 if url.startswith("sqlite") else 3)
        for piece in pieces:
            data = piece.read()
            yield piece, data, piece.name
            piece.write(data)
        assert everything(catalog) == []
        assert catalog.fsck().clean


def test_a_flipped_byte_of_any_blob_is_met_and_found(url: str) -> None:
    for piece, data, what in each_blob(url):
        for at in positions(len(data)):
            piece.write(flipped(data, at))
            # between the tensors of a pack lies padding that no version reads
            damage_is_met_and_found(url, piece, data, f"byte {at} of {what}")


@pytest.mark.campaign
def test_every_flipped_byte_of_small_blobs_is_met_and_found(url: str) -> None:
    for piece, data, what in each_blob(url):
        for at in range(0, len(data), 1 if len(data) < 10_000 else 97):
            for bit in (1, 128):
                piece.write(flipped(data, at, bit))
                damage_is_met_and_found(url, piece, data, f"byte {at} of {what}")


def test_a_blob_that_is_cut_short_too_long_or_gone_is_met_and_found(url: str) -> None:
    for piece, data, what in each_blob(url):
        for damaged in (data[:-1], data[: len(data) // 2], b""):
            piece.write(damaged)
            damage_is_met_and_found(url, piece, data, f"{what}, cut to {len(damaged)} bytes")
        piece.write(data + b"x")  # behind the last tensor of a pack no version reads
        damage_is_met_and_found(url, piece, data, f"{what}, too long", harmless=True)
        piece.remove()
        damage_is_met_and_found(url, piece, data, f"{what}, missing")


def test_a_file_rewritten_after_it_was_trusted_is_read_again(url: str) -> None:
    with Catalog.open(url) as catalog:
        for piece in blobs(catalog):
            if "sha256" in piece.name:
                continue  # a row: always checked
            path = next((Path(url.partition("://")[2]) / "blobs").rglob(piece.name))
            data = piece.read()
            what = f"{piece.name} was rewritten"
            for way in ("in place", "by another file", "cut short"):
                assert everything(catalog) == []
                before = path.stat()
                damaged = data[:-1] if way == "cut short" else flipped(data, len(data) // 2)
                if way == "by another file":
                    spare = path.with_name("spare")
                    spare.write_bytes(damaged)
                    os.replace(spare, path)
                else:
                    path.write_bytes(damaged)
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # only the time of change tells
                errors = everything(catalog)
                assert errors, f"{what} {way}"
                for exc in errors:
                    names_file_chunk_and_backend(exc)
                assert not catalog.fsck().clean
                path.write_bytes(data)


def test_a_file_rewritten_at_once_after_it_was_trusted_is_read_again(url: str) -> None:
    """File times have the grain of the kernel's clock: within one tick a rewritten file looks untouched."""
    with Catalog.open(url) as catalog:
        for number in range(10):
            weights = {"w": np.full(20_000, number, dtype=np.float32)}
            version = catalog.save("quick", weights)
            artifact = catalog.artifact(version.ref)
            (file,) = artifact.manifest.components[0].files
            chunk = artifact.layout[file.digest][-1]
            path = catalog.repository.content.path_of(chunk.pack or chunk.digest)
            assert path is not None
            path.chmod(0o644)
            at = chunk.offset + chunk.length - 1
            last = path.read_bytes()[at]
            before = path.stat()
            version.load()
            with path.open("r+b") as pack:
                pack.seek(at)
                pack.write(bytes([last ^ 1]))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            with pytest.raises(IntegrityError):
                version.load()


def test_no_file_is_trusted_while_a_change_could_bear_the_same_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalog.open(url) as catalog:
        monkeypatch.setattr(content, "CLOCK_GRAIN", 3_600_000_000_000)
        catalog.load("large")
        assert catalog.repository.index.rows("SELECT 1 FROM trusted") == []
        monkeypatch.setattr(content, "CLOCK_GRAIN", 0)
        catalog.load("large")
        assert catalog.repository.index.rows("SELECT 1 FROM trusted") != []


def test_a_reader_that_outlives_its_file_does_not_vouch_for_another(url: str, tmp_path: Path) -> None:
    data = np.random.default_rng(5).bytes(20_000_000)
    (tmp_path / "big.bin").write_bytes(data)
    with Catalog.open(url) as catalog:
        catalog.save("big", tmp_path / "big.bin")
        artifact = catalog.artifact("big")
        chunks = artifact.layout[artifact.manifest.components[0].files[0].digest]
        assert len(chunks) > 1
        reader = artifact.reader(artifact.manifest.components[0])
        assert bytes(reader.view("big.bin", 0, 10)) == data[:10]
        path = catalog.repository.content.path_of(chunks[-1].pack or chunks[-1].digest)
        assert path is not None
        spare = path.with_name("spare")
        spare.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 1))
        os.utime(spare, (0, 0))
        os.replace(spare, path)
        assert bytes(reader.view("big.bin", len(data) - 10)) == data[-10:]  # what it mapped is as it was
        path.rename(spare)
        assert bytes(reader.view("big.bin")) == data
        spare.rename(path)
        again = catalog.artifact("big")
        with pytest.raises(IntegrityError):
            again.reader(again.manifest.components[0]).view("big.bin", len(data) - 10)


def each_entry(url: str) -> Iterator[tuple[Piece, bytes, bool]]:
    """Every journal entry, its bytes, and whether it is the newest; afterwards it is as it was."""
    with Catalog.open(url) as catalog:
        pieces = list(entries(catalog))
        for piece in pieces:
            data = piece.read()
            yield piece, data, piece is pieces[-1]
            piece.write(data)
        assert catalog.fsck().clean


def journal_damage_is_met_and_found(url: str, tmp_path: Path, what: str, *, newest: bool) -> None:
    """By `fsck` of one who knew the journal before, and by a newcomer, who reads all of it."""
    try:
        with Catalog.open(url) as known:
            findings = known.fsck()
            assert not findings.clean, f"{what} and fsck is content"
            assert "entry" in findings.problems[0].what
            assert re.search(r"sqlite://|file://", findings.problems[0].message), findings.problems[0].message
    except IntegrityError as exc:
        assert newest, exc
        assert re.search(r"entry \d+", exc.message), exc.message
        assert re.search(r"sqlite://|file://", exc.message), exc.message
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "other"))
        try:
            with Catalog.open(url, create=False) as newcomer:
                # nothing chains the newest entry of a plain folder but the memory of those who read it; a hole looks
                # like the end to those who do not read all; another type of event, like that of a later release
                blind = url.startswith("file") and (newest or "gone" in what)
                assert blind or newcomer.repository.stopped is not None, f"{what} and a newcomer did not notice"
                assert newest or not newcomer.fsck().clean
        except CatalogError as exc:
            assert re.search(r"entry \d+|no catalog", exc.message), exc.message
            assert re.search(r"sqlite://|file://|no catalog", exc.message), exc.message


def test_a_flipped_byte_of_any_journal_entry_is_met_and_found(url: str, tmp_path: Path) -> None:
    for piece, data, newest in each_entry(url):
        for at in positions(len(data)):
            piece.write(flipped(data, at))
            journal_damage_is_met_and_found(url, tmp_path, f"byte {at} of {piece.name} was flipped", newest=newest)


@pytest.mark.campaign
def test_every_flipped_byte_of_the_journal_is_met_and_found(url: str, tmp_path: Path) -> None:
    for piece, data, newest in each_entry(url):
        for at in range(len(data)):
            piece.write(flipped(data, at, 1 << at % 8))
            journal_damage_is_met_and_found(url, tmp_path, f"byte {at} of {piece.name} was flipped", newest=newest)


def test_an_entry_that_is_cut_short_too_long_or_gone_is_met_and_found(url: str, tmp_path: Path) -> None:
    for piece, data, newest in each_entry(url):
        for damaged in (data[:-1], data[: len(data) // 2], b"", data + b" ", data + b"x"):
            piece.write(damaged)
            what = f"{piece.name} has {len(damaged)} bytes, not {len(data)}"
            journal_damage_is_met_and_found(url, tmp_path, what, newest=newest)
        piece.remove()
        if newest:  # a journal that ends earlier: whoever saw it before knows, a newcomer cannot
            with pytest.raises(IntegrityError, match="went back"):
                Catalog.open(url)
        else:
            journal_damage_is_met_and_found(url, tmp_path, f"{piece.name} is gone", newest=False)


def pages_never_give_wrong_data(url: str, tmp_path: Path, places: list[int], bit: int) -> None:
    folder = Path(url.partition("://")[2])
    database = folder / "catalog.db"
    assert [path.name for path in folder.glob("catalog.db*")] == ["catalog.db"]  # closed: all is in one file
    data = database.read_bytes()
    shutil.copytree(tmp_path / "cache", tmp_path / "kept")
    for number, at in enumerate(places):
        for suffix in ("-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        database.write_bytes(flipped(data, at, bit))
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        if number % 2:  # every other time the index must be computed from the damaged journal
            shutil.copytree(tmp_path / "kept", tmp_path / "cache")
        try:
            with Catalog.open(url, create=False) as catalog:
                everything(catalog)
                catalog.fsck()
        except CatalogError as exc:
            assert len(exc.message.splitlines()) == 1, exc.message
    database.write_bytes(data)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_flipped_byte_anywhere_in_the_database_never_gives_wrong_data(url: str, tmp_path: Path) -> None:
    size = (Path(url.partition("://")[2]) / "catalog.db").stat().st_size
    header = list(range(0, 120, 3))
    pages = [page + offset for page in range(0, size, 4096) for offset in (0, 4, 8, 9, 2000, 4095)]
    pages_never_give_wrong_data(url, tmp_path, [*header, *pages], 1)


@pytest.mark.campaign
@pytest.mark.parametrize("bit", [1, 16, 128])
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_every_flipped_byte_of_the_database_never_gives_wrong_data(url: str, tmp_path: Path, bit: int) -> None:
    size = (Path(url.partition("://")[2]) / "catalog.db").stat().st_size
    # the bytes that lay out the pages all, the payload between them every seventh
    places = [at for at in range(size) if at < 200 or at % 4096 < 120 or at % 7 == bit % 7]
    pages_never_give_wrong_data(url, tmp_path, places, bit)


def test_a_database_that_was_cut_short_is_read_up_to_there_and_checked(tmp_path: Path) -> None:
    """Also by a machine that never saw it: `fsck` runs, and says what is lost."""
    with Catalog.open(f"sqlite://{tmp_path}/c") as catalog:
        for number in range(12):
            catalog.save("m", {"w": np.arange(3000.0) + number})
    database = tmp_path / "c" / "catalog.db"
    data = database.read_bytes()
    found = []
    for share in (0.4, 0.6, 0.8):
        place = tmp_path / f"cut{share}"
        shutil.copytree(tmp_path / "c", place)
        (place / "catalog.db").write_bytes(data[: int(len(data) * share)])
        with Catalog.open(f"sqlite://{place}", damaged=True) as cut:
            findings = cut.fsck()
            assert any("cannot be read" in finding.message for finding in findings.problems)
            found.append(len(cut.versions("m")) if cut.models() else 0)
            for version in cut.versions("m")[:-1] if cut.models() else []:
                with suppress(CatalogError):  # its bytes may be behind the cut
                    assert version.load()["w"][0] == version.number - 1
            with pytest.raises(CatalogError, match="cannot be read"):
                cut.save("m", {"w": np.zeros(1)})
    assert found == sorted(found) and 0 < found[-1] < 12
    assert (tmp_path / "c" / "catalog.db").read_bytes() == data
