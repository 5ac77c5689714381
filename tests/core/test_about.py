"""What is said of a version beside its components: taxonomy, metadata, data sets, baselines, cards, environments."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version as installed
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest

from catalog_core import about, baseline, capture, card, recreate, tensors
from catalog_core.catalog import Catalog
from catalog_core.errors import BackendError, CatalogError, InvalidInput, NotFound
from catalog_core.records import EntryPoint, TensorSpec
from catalog_core.session import check_inputs


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    for _, variable in about.RUNS:
        monkeypatch.delenv(variable, raising=False)
    with Catalog.open(tmp_path / "catalog") as made:
        yield made


def weights(**more: Any) -> dict[str, Any]:
    return {"w": np.arange(12.0, dtype=np.float32), **more}


def manifest(catalog: Catalog, **more: Any) -> Any:
    return catalog.artifact(catalog.save("m", weights(), **more)).manifest


# -- taxonomy and metadata --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["fast simulation", "Fast_Simulation", "fast-simulation"])
def test_a_use_case_is_stored_in_one_spelling(catalog: Catalog, written: str) -> None:
    catalog.save("m", weights(), taxonomy={"use_case": written, "detector": "ECAL"})
    assert [v.ref for v in catalog.search("taxonomy.use_case = fast_simulation")] == ["m@1"]


def test_every_use_case_that_ads_classes_offer_can_be_saved() -> None:
    from catalog_oracle import taxonomy

    for case in (*taxonomy.USE_CASES, *taxonomy.MORE_USE_CASES):
        assert about.check_taxonomy({"use_case": case}) == {"use_case": case}


def test_a_use_case_that_is_none_is_refused_with_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match=r"'fast simulatoin' is not known.*fast_simulation"):
        catalog.save("m", weights(), taxonomy={"use_case": "fast simulatoin"})


def test_metadata_of_ones_own_has_a_category_and_a_description(catalog: Catalog) -> None:
    full = {"value": 3.5, "category": "performance", "description": "seconds an event"}
    assert manifest(catalog, custom={"time": full, "site": "CERN"}).custom == {"time": full, "site": {"value": "CERN"}}


@pytest.mark.parametrize(
    ("custom", "says"),
    [
        ({"a": {"value": 1, "colour": "red"}}, "has 'colour'"),
        ({"a": {"category": "x"}}, "has no value"),
        ({"a": {"value": 1, "category": 3}}, "category of custom 'a' is no text"),
        ({"a": [1]}, "is a list"),
        ({"a": {1: 2, "colour": 3}}, "has '1'"),
        ({"a": float("nan")}, "cannot be stored as JSON"),
        ("text", "must map names to values"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(catalog: Catalog, custom: Any, says: str) -> None:
    with pytest.raises(CatalogError, match=says):
        catalog.save("m", weights(), custom=custom)


# -- where it comes from ----------------------------------------------------------------------------------------------


def test_data_sets_are_named_by_their_bytes(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "showers"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.csv").write_text("1,2\n")
    (folder / "deep" / "b.csv").write_text("3\n")
    datasets = {
        "train": folder,
        "one file": folder / "a.csv",
        "calibration": "https://opendata.cern.ch/record/1",
        "test": {"reference": "cds:5", "digest": "sha256:" + "0" * 64, "size": 7},
    }
    found = manifest(catalog, datasets=datasets, seed=7, run="r-17").provenance
    assert found["datasets"]["train"] == {**found["datasets"]["train"], "reference": "showers", "size": 6, "files": 2}
    assert found["datasets"]["calibration"] == {"reference": "https://opendata.cern.ch/record/1"}
    assert found["datasets"]["test"]["size"] == 7
    assert found["seed"] == 7 and found["run"] == {"id": "r-17"}
    before = found["datasets"]["train"]["digest"]
    (folder / "deep" / "b.csv").rename(folder / "deep" / "c.csv")
    assert about.dataset("train", folder)["digest"] != before
    with pytest.raises(InvalidInput, match="does not exist"):
        catalog.save("m", weights(), datasets={"train": tmp_path / "nowhere"})
    for odd in (5, {"path": "x"}, {"digest": "sha256:zz"}):
        with pytest.raises(CatalogError):
            catalog.save("m", weights(), datasets={"train": odd})
    with pytest.raises(InvalidInput, match="no integer"):
        catalog.save("m", weights(), seed=1.5)


def test_what_is_told_of_a_data_set_has_known_keys(catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match="data set 'train' has '1'"):
        catalog.save("m", weights(), datasets={"train": {1: 2, "colour": 3}})


def test_the_run_that_a_process_is_part_of_is_noted(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "run" not in manifest(catalog).provenance
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert manifest(catalog).provenance["run"] == {"slurm": "4711"}


# -- tensors in words -------------------------------------------------------------------------------------------------

POINT = EntryPoint("run", ("model",), (TensorSpec("x", "float32", ("batch",)),), (TensorSpec("y", "float32", ()),))


def test_tensors_bear_units_and_ranges_that_are_checked_when_called() -> None:
    (point,) = about.detailed([POINT], {"x": {"unit": "GeV", "minimum": 0, "maximum": 500}, "y": {"description": "d"}})
    assert (point.inputs[0].unit, point.inputs[0].maximum, point.outputs[0].description) == ("GeV", 500.0, "d")
    check_inputs(point, {"x": np.array([0, 500], "float32")})
    check_inputs(point, {"x": np.array([], "float32")})
    for value, got in ((-1, "-1 to 1"), (501, "1 to 501"), (math.nan, "nan to nan")):
        with pytest.raises(InvalidInput, match=f"input 'x' of run: expected values from 0 to 500 GeV, got {got}"):
            check_inputs(point, {"x": np.array([1, value], "float32")})
    (open_,) = about.detailed([POINT], {"x": {"minimum": 0}})
    with pytest.raises(InvalidInput, match="from 0 to inf, got -2 to 3"):
        check_inputs(open_, {"x": np.array([-2, 3], "float32")})


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"z": {"unit": "m"}}, "no input or output"),
        ({"x": {"units": "m"}}, "has 'units'"),
        ({"x": {"minimum": "low"}}, "minimum of 'x' cannot be 'low'"),
        ({"x": {"unit": 5}}, "unit of 'x' cannot be 5"),
        ({"x": 5}, r"tensors\['x'\] is an int"),
        ({"x": {"minimum": 5, "maximum": 1}}, "minimum of 'x', 5, is above its maximum, 1"),
        ({"x": {"minimum": 5}, "run.x": {"maximum": 1}}, "minimum of 'x', 5, is above its maximum, 1"),
        ({"word": {"minimum": 0}}, "'word' is string, which has no minimum"),
        ({"wave": {"maximum": 0}}, "'wave' is complex64, which has no minimum"),
    ],
)
def test_what_is_told_of_tensors_must_fit(told: Any, says: str) -> None:
    more = (TensorSpec("word", "string", ("batch",)), TensorSpec("wave", "complex64", ("batch",)))
    with pytest.raises(InvalidInput, match=says):
        about.detailed([attrs.evolve(POINT, inputs=(*POINT.inputs, *more))], told)


# -- baselines --------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_finite_numbers() -> None:
    values = np.concatenate([np.arange(1000, dtype="float32"), [np.nan, np.inf, -np.inf]]).reshape(17, 59)
    found = baseline.statistics(values)
    assert found is not None
    assert (found["count"], found["nan"], found["inf"]) == (1003, 1, 2)
    assert (found["min"], found["max"], found["mean"]) == (0.0, 999.0, 499.5)
    assert found["std"] == pytest.approx(np.arange(1000).std())
    assert found["quantiles"]["0.5"] == 499.5
    assert sum(found["histogram"]["counts"]) == 1000 and len(found["histogram"]["edges"]) == 21


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        (np.array([], "float32"), {"count", "nan", "inf"}),
        (np.full(5, np.nan), {"count", "nan", "inf"}),
        (np.array([1e308, -1e308]), {"min", "max", "mean"}),
        (np.array([True, False]), {"mean"}),
        (np.zeros((3, 0, 2), "int8"), {"count"}),
        (np.full(9, 5), {"histogram"}),
        (7.0, {"mean"}),
    ],
)
def test_odd_arrays_have_statistics_that_json_can_hold(values: Any, keys: set[str]) -> None:
    from catalog_core.digests import canonical

    found = baseline.statistics(values)
    assert found is not None and keys <= found.keys()
    canonical(found)


def test_what_a_mask_hides_does_not_count() -> None:
    found = baseline.statistics(np.ma.array([1.0, 2.0, 1e9], mask=[False, False, True]))
    assert found is not None and (found["count"], found["max"]) == (2, 2.0)


def test_what_is_no_number_has_none() -> None:
    assert baseline.statistics(np.array(["a", "b"])) is None
    assert baseline.statistics(np.array([1j])) is None


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_the_census_counts_what_is_not_finite_in_weights(catalog: Catalog, dtype: str) -> None:
    odd = np.linspace(-3, 3, 3_000_000).astype(dtype)
    odd[[5, 17, 2_000_000]] = np.nan, np.inf, -np.inf
    large = np.full(100, np.finfo(dtype).max, dtype)
    version = catalog.save("m", {"odd": odd, "large": large, "whole": np.arange(5)})
    found = catalog.artifact(version).baseline()
    assert found is not None
    parts = 2 if dtype.startswith("complex") else 1
    assert found["weights"]["model"] == {"count": 3_000_100 * parts, "nan": 1, "inf": 2, "tensors": ["odd"]}


def test_small_floats_have_statistics() -> None:
    import ml_dtypes

    found = baseline.statistics(np.array([1, 2, np.nan], ml_dtypes.bfloat16))
    assert found is not None and (found["mean"], found["nan"]) == (1.5, 1)


def test_the_census_knows_bfloat16() -> None:
    import ml_dtypes

    values = np.array([1, np.nan, np.inf, -np.inf, -0.0, 3e38], ml_dtypes.bfloat16)
    census: dict[str, Any] = {"count": 0, "nan": 0, "inf": 0, "tensors": []}
    entry = tensors.Entry("b", "bfloat16", (6,), 0, 12)
    tensors.count_numbers([(entry, tensors.memory_of(values))], census)
    assert census == {"count": 6, "nan": 1, "inf": 2, "tensors": ["b"]}


def test_a_baseline_is_given_or_taken_of_the_example(catalog: Catalog) -> None:
    version = catalog.save("m", weights(), baseline={"x": np.arange(10.0)})
    found = catalog.artifact(version).baseline()
    assert found is not None and found["inputs"]["x"]["mean"] == 4.5
    assert catalog.fsck().clean
    with pytest.raises(InvalidInput, match="must map names"):
        catalog.save("m", weights(), baseline=np.arange(3))


def test_a_baseline_of_very_many_inputs_keeps_the_short_numbers(catalog: Catalog) -> None:
    many = {f"input_{number}": np.random.default_rng(number).normal(size=50) for number in range(120)}
    found = catalog.artifact(catalog.save("m", weights(), baseline=many)).baseline()
    assert found is not None and len(found["inputs"]) == 120
    assert "mean" in found["inputs"]["input_7"] and "histogram" not in found["inputs"]["input_7"]


# -- cards ------------------------------------------------------------------------------------------------------------


def test_a_card_is_begun_from_what_is_known(catalog: Catalog) -> None:
    parent = catalog.save("m", weights())
    version = catalog.save(
        "m", weights(), parents=[parent.ref], metrics={"auc": 0.91}, taxonomy={"domain": "calorimeter"},
        datasets={"train": {"reference": "showers", "digest": "sha256:" + "1" * 64}}, seed=3,
    )  # fmt: skip
    catalog.model("m").update(title="A model", description="Of showers.")
    text = version.start_card()
    fields = card.head(text)
    assert fields["base_model"] == ["m@1"] and fields["datasets"] == ["showers"] and fields["tags"] == ["calorimeter"]
    for part in ("# A model", "Of showers.", "Seed: 3", "sha256:111111111111", "| auc | 0.91 |", 'load("m@2")', "…"):
        assert part in text
    assert catalog.model("m").set_card(text).card_data["metrics"] == ["auc"]


@pytest.mark.parametrize(
    "provenance",
    [
        {"git": "abc"},
        {"git": {"commit": 5}},
        {"datasets": ["x"]},
        {"datasets": {"train": "x", "test": {"digest": 5}}},
        {"datasets": {"train": None}},
    ],
    ids=repr,
)
def test_a_card_is_begun_whatever_provenance_was_given(catalog: Catalog, provenance: Any) -> None:
    version = catalog.save("m", weights(), provenance=provenance)
    assert version.start_card().startswith("---\n")


def merged(count: int) -> str:
    """YAML whose keys are written out twice as often by each line, if somebody does."""
    lines = (f"a{n}: &a{n}\n  <<: [*a{n - 1}, *a{n - 1}]\n" for n in range(1, count))
    return "a0: &a0 {x: 1}\n" + "".join(lines)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("no head", {}),
        ("---\nlicense: mit\ntags: [a, b]\n---\ntext", {"license": "mit", "tags": ["a", "b"]}),
        ("---\n---\ntext", {}),
        ("---\nlicense: mit\ntext", None),
        ("---\n- a\n---\n", None),
        ("---\na: [\n---\n", None),
        ("---\na: !!python/object/apply:os.system ['true']\n---\n", None),
        ("---\na: " + "[" * 1000 + "\n---\n", None),
        ("---\n" + merged(60) + "---\n", None),
    ],
)
def test_the_head_of_a_card_is_read_and_runs_nothing(catalog: Catalog, text: str, fields: Any) -> None:
    catalog.save("m", weights())
    model = catalog.model("m").set_card(text)
    assert model.card_data == (fields or {})
    if fields is None:
        with pytest.raises(InvalidInput, match="head of the card"):
            card.head(text)


# -- environments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", ["1" + ":0" * 500, "1" + ":0" * 500 + ".5", "0x" + "f" * 500, "9" * 500, "0.1" + "1" * 500]
)
def test_a_number_of_very_many_digits_is_refused_before_it_is_read(number: str) -> None:
    """By sixties, as YAML 1.1 has times, one of 256 kB took 3 s."""
    with pytest.raises(InvalidInput, match=r"a number of [0-9,]+ digits"):
        card.head(f"---\nlicense: {number}\n---\n")
    assert card.head("---\ntime: 1:30\nlong: " + "x" * 500 + "\n---\n")["time"] == 90


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found = {**capture.environment(), "distributions": {"attrs": installed("attrs"), "catalog-core": "0.1.0"}}
    monkeypatch.setattr(capture, "environment", lambda: found)
    return found


def test_requirements_are_what_pip_reads(catalog: Catalog, small: dict[str, Any]) -> None:
    small["distributions"]["torch"] = "2.13.0+cpu"
    artifact = catalog.artifact(catalog.save("m", weights()))
    assert recreate.requirements(artifact) == [f"attrs=={installed('attrs')}", "torch==2.13.0"]


@pytest.mark.slow
@pytest.mark.parametrize("uv", [True, False])
def test_an_environment_is_made_anew(
    catalog: Catalog, small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uv: bool
) -> None:
    if not uv:
        monkeypatch.setattr(recreate, "_uv", lambda: None)
    artifact = catalog.artifact(catalog.save("m", weights()))
    recreate.create(artifact, tmp_path / "env")
    told = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-c", "import attrs; print(attrs.__version__)"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert told.stdout.strip() == installed("attrs")
    with pytest.raises(InvalidInput, match="exists already"):
        recreate.create(artifact, tmp_path / "env")


def test_the_folder_that_the_user_stands_in_has_no_say_in_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's folder may hold modules called as those of Python, and a configuration of uv."""
    for name in ("venv", "pip", "ensurepip"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "uv.toml").write_text("this is = no = configuration")
    monkeypatch.chdir(tmp_path)
    for module in ("venv", "pip"):
        recreate._run([sys.executable, "-m", module, "--help"], 60)
    uv = recreate._uv()
    if uv:
        recreate._run([uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "env")], 60)
    assert not (tmp_path / "ran").exists()


def test_an_environment_that_cannot_be_made_says_why(
    catalog: Catalog, small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recreate, "_uv", lambda: None)
    small["python"] = "2.7.18"
    artifact = catalog.artifact(catalog.save("m", weights()))
    with pytest.raises(NotFound, match=r"made with Python 2.7.18; this is 3\."):
        recreate.create(artifact, tmp_path / "env")
    small["python"] = sys.version.split()[0]
    monkeypatch.setattr(recreate.sys, "executable", "/bin/false")
    with pytest.raises(BackendError, match="failed with status 1"):
        recreate.create(catalog.artifact(catalog.save("m", weights())), tmp_path / "env")
    done: list[Any] = []

    def breaks_off(command: list[str], timeout: float) -> None:
        done.append(command)
        if len(done) > 1:
            raise BackendError("no index has it")
        Path(command[-1]).mkdir()

    monkeypatch.setattr(recreate, "_run", breaks_off)
    with pytest.raises(BackendError, match="no index has it"):
        recreate.create(catalog.artifact(catalog.save("m", weights())), tmp_path / "env")
    assert len(done) == 2 and not (tmp_path / "env").exists()  # so it can be tried again
    small["distributions"] = {}
    with pytest.raises(NotFound, match="does not say"):
        recreate.create(catalog.artifact(catalog.save("m", weights())), tmp_path / "env")


def test_words_of_others_are_kept_as_metadata() -> None:
    told = {"use_case": "Fast Simulation", "domain": "calorimetry"}
    assert about.taxonomy_of(told) == ({"use_case": "fast_simulation", "domain": "calorimetry"}, {})
    assert about.taxonomy_of({**told, "use_case": "weather"}) == (
        {"domain": "calorimetry"}, {"use_case": {"value": "weather", "category": "Other"}},
    )  # fmt: skip
    with pytest.raises(InvalidInput):
        about.taxonomy_of({" odd ": "x"})


@pytest.mark.parametrize("told", [None, "x", [], 1, {"model": None}, {"model": "x"}, {"model": {"parameters": "x"}}])
def test_a_card_begins_whatever_a_manifest_says(told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another program wrote there may be of any form."""
    with Catalog.open(tmp_path / "c") as catalog:
        version = catalog.save("m", {"w": np.zeros(3)})
        manifest = attrs.evolve(version.manifest, description=told if isinstance(told, dict) else {"model": told})
        found = attrs.evolve(manifest, provenance={"parents": told, "git": told, "datasets": told})
        monkeypatch.setattr(card, "stored", lambda *_: SimpleNamespace(manifest=found))
        assert "# m" in version.start_card()
