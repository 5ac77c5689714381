"""The documentation is true: `docs/format.md` suffices for a reader of its own, and the how-to's example runs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog

DOCS = Path(__file__).parent.parent / "docs"


def mini_reader(folder: Path, model: str, number: int, file_name: str) -> bytes:
    """The bytes of a file of a version, by `docs/format.md` alone: nothing of catalog_core is used here."""
    database = folder / "catalog.db"
    db = sqlite3.connect(database) if database.exists() else None

    def digest_of(data: bytes) -> str:
        return "sha256:" + hashlib.sha256(data).hexdigest()

    def entries() -> list[bytes]:
        if db is not None:
            return [bytes(row[0]) for row in db.execute("SELECT data FROM entries ORDER BY position")]
        found: list[bytes] = []
        while True:
            at = len(found)
            path = folder / f"journal/{0:010}/{at // 1000:010}/{at:010}"
            if not path.exists():
                return found
            found.append(path.read_bytes())

    previous = None
    ids: set[str] = set()
    sweeps: dict[str, int] = {}
    inlined: dict[str, bytes] = {}
    versions: dict[tuple[str, int], dict[str, Any]] = {}
    for position, data in enumerate(entries()):
        entry = json.loads(data)
        assert entry["epoch"] == 0
        assert (entry["position"], entry["previous"]) == (position, previous), "the chain is broken"
        previous = digest_of(data)
        for key, text in entry.get("blobs", {}).items():
            inlined.setdefault(key, base64.b64decode(text, validate=True))
        for intent in entry["intents"]:
            if intent["id"] in ids:
                continue
            ids.add(intent["id"])
            for event in intent["events"]:
                assert event["v"] == 1
                if event["type"] == "version.published":
                    versions[event["model"], event["number"]] = event
                elif event["type"] == "blobs.swept":
                    for key in event["keys"]:
                        digest, _, count = key.partition("~")
                        sweeps[digest] = max(sweeps.get(digest, 0), int(count or 0) + 1)
                        inlined.pop(key, None)

    def blob(digest: str, start: int = 0, length: int | None = None) -> bytes:
        key = f"{digest}~{sweeps[digest]}" if digest in sweeps else digest
        name = key.removeprefix("sha256:")
        if key in inlined:
            data = inlined[key]
        else:
            row = db.execute("SELECT data FROM small WHERE key = ?", (key,)).fetchone() if db is not None else None
            place = "blobs" if db is not None else "blobs/sha256"
            data = bytes(row[0]) if row else (folder / place / name[:2] / name).read_bytes()
        assert digest_of(data) == digest
        return data[start:] if length is None else data[start : start + length]

    event = versions[model, number]
    manifest, layout = json.loads(blob(event["manifest"])), json.loads(blob(event["layout"]))
    assert manifest["version"] == layout["version"] == 1
    file = next(f for c in manifest["components"] for f in c["files"] if f["name"] == file_name)
    result = b""
    for digest, length, *place in layout["files"][file["digest"]]:
        part = blob(place[0], place[1], length) if place else blob(digest)
        assert len(part) == length
        assert digest_of(part) == digest
        result += part
    assert len(result) == file["size"]
    assert digest_of(result) == file["digest"]
    if db is not None:
        db.close()
    return result


def arrays_of(data: bytes) -> dict[str, np.ndarray]:
    """The float32 arrays of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    table.pop("__metadata__", None)
    body = data[8 + length :]
    found = {}
    for name, value in table.items():
        assert value["dtype"] == "F32"
        low, high = value["data_offsets"]
        found[name] = np.frombuffer(body[low:high], "<f4").reshape(value["shape"])
    return found


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_the_format_page_suffices_for_a_reader(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "catalog"
    rng = np.random.default_rng(0)

    def weights(size: int) -> dict[str, np.ndarray]:
        return {f"layer{n}.weight": rng.standard_normal((size // 10, 10), dtype=np.float32) for n in range(4)}

    small, large, middle = weights(100), weights(655_360), weights(10_000)
    changed = {**large, "layer2.weight": large["layer2.weight"] + 1}
    with Catalog.open(f"{scheme}://{folder}") as catalog:
        for name, values in [("small", small), ("m", large), ("m", changed), ("middle", middle)]:
            catalog.save(name, values, alias="champion")
        catalog.save("swept", small | {"more": small["layer0.weight"] + 1})
        catalog.version("m@1").tag(team="openlab")
        catalog.version("middle@1").delete()
        assert catalog.gc(grace=0).blobs > 0
        catalog.save("middle", middle)
        for name, number in [("small", 1), ("m", 1), ("m", 2), ("swept", 1), ("middle", 2)]:
            found = arrays_of(mini_reader(folder, name, number, "model.safetensors"))
            loaded = catalog.load(f"{name}@{number}")
            assert found.keys() == loaded.keys()
            for key, array in found.items():
                np.testing.assert_array_equal(array, loaded[key])
        downloaded = catalog.download("m@2", tmp_path / "out")
        whole = next(path for path in downloaded.rglob("model.safetensors")).read_bytes()
        assert mini_reader(folder, "m", 2, "model.safetensors") == whole
        assert len(whole) > 10_000_000
        blobs = [info.key for info in catalog.repository.backend.blobs.list()]
        layouts = [
            json.loads(catalog.repository.content.blob(layout, "layout"))["files"].values()
            for (layout,) in catalog.repository.index.rows("SELECT layout FROM versions WHERE name='m' ORDER BY number")
        ]
    packs = [{chunk[2] for chunks in files for chunk in chunks if len(chunk) == 4} for files in layouts]
    assert packs[0] < packs[1]  # the second version points into the pack of the first, and into its own
    assert scheme != "sqlite" or (folder / "catalog.db").exists()
    assert any("~1" in key for key in blobs)  # a content that was swept and stored again


def test_a_broken_chain_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"file://{tmp_path}/catalog") as catalog:
        catalog.save("m", {"w": np.zeros(10, np.float32)})
        catalog.save("m", {"w": np.ones(10, np.float32)})
    path = tmp_path / f"catalog/journal/{0:010}/{0:010}/{1:010}"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"number":1', b'"number":2'))
    with pytest.raises(AssertionError, match="chain"):
        mini_reader(tmp_path / "catalog", "m", 2, "model.safetensors")


def _how_to() -> dict[str, Any]:
    """The names that the python blocks of the how-to define, run one after the other."""
    names: dict[str, Any] = {"__name__": "how_to"}
    for block in re.findall(r"^```python\n(.*?)^```", (DOCS / "how-to/write-a-backend.md").read_text(), re.S | re.M):
        exec(compile(block, "write-a-backend.md", "exec"), names)
    return names


_NAMES = _how_to()


class TestStoreOfTheHowTo(_NAMES["TestStore"]):  # type: ignore[misc]
    """The store of the how-to keeps the contract."""


class TestBackendOfTheHowTo(_NAMES["TestBackend"]):  # type: ignore[misc]
    """So does the backend made from it."""


# and its tests, collected here
test_looking_makes_nothing = _NAMES["test_looking_makes_nothing"]
test_a_death_at_any_call_leaves_a_whole_catalog = _NAMES["test_a_death_at_any_call_leaves_a_whole_catalog"]


def test_the_store_of_the_how_to_carries_a_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_core.objectstore import ObjectStoreBackend

    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    url = f"rows://{tmp_path}/objects.db"
    arrays = {"w": np.arange(200_000, dtype=np.float32)}
    for first in (True, False):
        with Catalog(ObjectStoreBackend(_NAMES["open_store"](url, {}, first), "rows", url), "rows") as catalog:
            if first:
                catalog.repository.begin()
                catalog.save("m", arrays, alias="champion")
            np.testing.assert_array_equal(catalog.load("m@champion")["w"], arrays["w"])
            assert catalog.fsck().clean
    assert [spec.name for spec in _NAMES["catalog_register_backends"]()] == ["rows"]
