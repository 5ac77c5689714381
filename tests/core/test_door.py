"""What may come in: names that can lie in one folder on every system. What came in before stays readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog_core import Catalog, artifact, bundle, content, draft, transfer
from catalog_core.errors import CatalogError, IntegrityError, InvalidInput, InvalidName
from catalog_core.names import check_together

pytestmark = pytest.mark.unit
# two names, and whether any system can hold both
PAIRS = {
    "case": ("Readme", "readme", True),
    "case of a folder": ("A", "a/b", True),
    "case below a folder": ("x/Data.bin", "x/data.bin", True),
    "accents": ("caf\u00e9", "cafe\u0301", True),
    "accents of a folder": ("\u00e9/x", "e\u0301/x", True),
    "greek case": ("\u03a3", "\u03c3", True),
    "a file and its folder": ("a", "a/b", False),
    "a file deep below": ("x/a", "x/a/b/c", False),
}


@pytest.mark.parametrize("what", PAIRS)
def test_two_names_that_cannot_lie_in_one_folder(what: str) -> None:
    one, two, somewhere = PAIRS[what]
    for names in ((one, two), (two, one), (one, "other", two)):
        with pytest.raises(InvalidName, match="cannot lie in one folder") as caught:
            check_together(names)
        assert repr(one) in str(caught.value) and repr(two) in str(caught.value)
        if somewhere:
            check_together(names, everywhere=False)
        else:
            with pytest.raises(InvalidName):
                check_together(names, everywhere=False)


@pytest.mark.parametrize("name", ["com\u00b9", "x/LPT\u00b3.txt", "CONIN$", "conout$.log"])
def test_devices_that_were_not_on_the_list_do_not_come_in(name: str) -> None:
    with pytest.raises(InvalidName, match="device"):
        check_together([name])
    check_together([name], everywhere=False)


def test_names_that_only_resemble_each_other_pass() -> None:
    check_together(["a", "ab", "a.b", "b/a", "b/c/a", "A1", "stra\u00dfe", "common.txt", "e", "\u00e9", "comb\u00b9"])
    check_together(["A/x", "a/y"])  # one folder, where case does not count, and it holds both


@pytest.fixture
def catalog(tmp_path: Path):
    with Catalog.open(tmp_path / "catalog") as opened:
        yield opened


def made(folder: Path, *names: str) -> Path:
    """A folder with a file of each name, whose content is the name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            pytest.skip("this disk takes them for one")
        path.write_text(name)
    return folder


@pytest.mark.parametrize("what", [what for what, (*_, somewhere) in PAIRS.items() if somewhere])
def test_a_folder_that_would_lose_a_file_elsewhere_is_not_published(
    what: str, catalog: Catalog, tmp_path: Path
) -> None:
    folder = made(tmp_path / "given", *PAIRS[what][:2])
    for save in (lambda: catalog.save("m", folder), lambda: catalog.prepare("m", components={"w": folder})):
        with pytest.raises(InvalidName, match="cannot lie in one folder") as caught:
            save()
        assert caught.value.hint
    assert not catalog.models()


def test_components_lie_beside_each_other_too(catalog: Catalog, tmp_path: Path) -> None:
    folder = made(tmp_path / "given", "x")
    with pytest.raises(InvalidName, match="'Net' and 'net'"):
        catalog.prepare("m", components={"Net": folder, "net": folder})
    assert not catalog.models()


def test_attachments_lie_beside_each_other_too(catalog: Catalog, tmp_path: Path) -> None:
    version = catalog.save("m", made(tmp_path / "given", "x")).attach("plots", b"1")
    for name in ("Plots", "plots/a.png", "PLOTS/a.png"):
        with pytest.raises(InvalidName, match="cannot lie in one folder"):
            version.attach(name, b"2")
    with pytest.raises(InvalidName, match="cannot lie in one folder"):
        version.attach("logs", made(tmp_path / "logs", "a.txt", "A.txt"))
    assert catalog.version("m").attach("plots", b"3").attachments == {"plots": 1}  # in place of what was there
    assert catalog.version("m").attachment("plots") == b"3"


def published_before(catalog: Catalog, folder: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    """A version of a release that did not look at the names together."""
    with monkeypatch.context() as patch:
        patch.setattr(draft, "check_door", lambda manifest: None)
        if "a/b" in names:  # as a serializer may have written them
            made(folder, "a", "other")
            taken = draft._component

            def lying(name, serializer, directory, meta):
                directory.files["a/b"] = directory.files.pop("other")
                return taken(name, serializer, directory, meta)

            patch.setattr(draft, "_component", lying)
        else:
            made(folder, *names)
        catalog.save("old", folder)


def test_what_was_published_before_is_read_and_goes_on(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_before(catalog, tmp_path / "given", monkeypatch, ("A", "a"))
    folder = catalog.download("old", tmp_path / "out")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"A": "A", "a": "a"}
    assert (catalog.load("old") / "a").read_text() == "a"
    found = catalog.export("old", tmp_path / "old.catalog")
    with Catalog.open(tmp_path / "second") as second:
        assert second.import_(found.path)[0].digest == catalog.version("old").digest
        assert catalog.copy("old", second, "copied").digest == catalog.version("old").digest
    assert not catalog.fsck().problems


def test_what_no_folder_can_hold_is_read_file_by_file_and_goes_nowhere(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_before(catalog, tmp_path / "given", monkeypatch, ("a", "a/b"))
    stored = catalog.artifact("old")
    reader = stored.reader(stored.manifest.components[0])
    assert (bytes(reader.view("a")), bytes(reader.view("a/b"))) == (b"a", b"other")
    assert reader.path("a").read_text() == "a"
    found = catalog.export("old", tmp_path / "old.catalog")
    with Catalog.open(tmp_path / "second") as second:
        for way in (
            lambda: reader.path("a/b"),
            lambda: catalog.download("old", tmp_path / "out"),
            lambda: catalog.copy("old", second),
            lambda: second.import_(found.path),
        ):
            with pytest.raises((InvalidName, IntegrityError), match="cannot lie in one folder"):
                way()
        assert not second.models()
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_disk_that_takes_two_names_for_one_is_named(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_before(catalog, tmp_path / "given", monkeypatch, ("A", "a"))
    stored = catalog.artifact("old")
    reader = stored.reader(stored.manifest.components[0])
    there = reader.path("A")
    (there.parent / "a").hardlink_to(there)  # as such a disk shows it
    with pytest.raises(InvalidInput, match="the same one to this disk"):
        reader.path("a")
    assert reader.path("A").read_text() == "A"
    path = Path.open

    def folded(self: Path, mode: str = "r", *rest, **more):
        return path(self.with_name(self.name.lower()) if "b" in mode else self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", folded)
    with pytest.raises(InvalidInput, match="the same one to this disk"):
        catalog.download("old", tmp_path / "out")


def test_every_way_in_asks_the_same() -> None:
    """The doors: whoever publishes or writes files asks one function."""
    assert draft.check_door is transfer.check_door is bundle.check_door
    assert artifact.check_together is content.check_together is check_together
    assert issubclass(InvalidName, CatalogError)
