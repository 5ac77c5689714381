"""Components of several frameworks as one model, and one component kept in several formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core.catalog import Catalog
from catalog_core.errors import InvalidInput

pytestmark = pytest.mark.framework
torch = pytest.importorskip("torch")
preprocessing = pytest.importorskip("sklearn.preprocessing")

X = np.random.default_rng(0).normal(3, 2, (200, 4)).astype("float32")


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as made:
        yield made


def pipeline() -> dict[str, Any]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).eval()
    return {"scaler": preprocessing.StandardScaler().fit(X), "net": net}


def expected(parts: dict[str, Any], values: Any) -> Any:
    with torch.no_grad():
        return parts["net"](torch.from_numpy(parts["scaler"].transform(values).astype("float32"))).numpy()


def test_a_pipeline_of_two_frameworks_is_verified_and_runs_in_a_fresh_process(catalog: Catalog) -> None:
    parts = pipeline()
    entries = {"predict": ["scaler.transform", "net"], "scale": "scaler.transform"}
    with catalog.prepare("m", components=parts, entry_points=entries, example={"X": X[:5]}) as draft:
        report = draft.verify()
        assert report.passed, report
        draft.save()
    with catalog.session("m@1") as session:
        assert np.allclose(session.predict(X=X), expected(parts, X), atol=1e-6)
        assert np.allclose(session.scale(X=X), parts["scaler"].transform(X))
        with pytest.raises(InvalidInput, match="expected float32"):
            session.predict(X=X.astype("float64"))


def test_what_no_entry_point_uses_needs_no_runtime(catalog: Catalog) -> None:
    parts = pipeline()
    catalog.save(
        "m", components={**parts, "table": {"t": np.arange(3)}}, entry_points={"scale": "scaler.transform"},
        example={"X": X[:5]},
    )  # fmt: skip
    with catalog.session("m@1") as session:
        assert session.scale(X=X).shape == (200, 4)
    catalog.save("n", components={"table": {"t": np.arange(3)}, "scaler": parts["scaler"]})
    with pytest.raises(InvalidInput, match="no entry point that a session could run"):
        catalog.session("n@1")


def test_serializers_are_named_by_component(catalog: Catalog) -> None:
    tree = {"layer": {"w": np.ones(3, "float32")}}
    version = catalog.save("m", components={"a": {"w": np.zeros(3)}, "b": tree}, serializer={"b": "pytree"})
    assert version.summary["components"] == {"a": "safetensors", "b": "pytree"}
    assert (catalog.load(version)["b"]["layer"]["w"] == 1).all()
    with pytest.raises(InvalidInput, match="'c', which is no component"):
        catalog.save("m", components={"a": {"w": np.zeros(3)}}, serializer={"c": "pytree"})


def test_a_component_is_kept_in_several_formats_and_shared_bytes_once(catalog: Catalog) -> None:
    values = {"w": np.random.default_rng(1).normal(size=300_000)}
    version = catalog.save("m", components={"weights": values}, serializer={"weights": ["safetensors", "pytree"]})
    assert version.summary["components"] == {"weights": "safetensors", "weights-pytree": "pytree"}
    loaded = catalog.load(version)
    assert (loaded["weights"]["w"] == loaded["weights-pytree"]["w"]).all()
    assert version.summary["new_bytes"] < 1.3 * values["w"].nbytes, "the numbers lie there once"
    for odd in ([], ["pytree", "pytree"]):
        with pytest.raises(InvalidInput, match="must be different ones"):
            catalog.save("m", components={"weights": values}, serializer={"weights": odd})
    with pytest.raises(InvalidInput, match="is there already"):
        catalog.save(
            "m",
            components={"weights": values, "weights-pytree": values},
            serializer={"weights": ["safetensors", "pytree"]},
        )
