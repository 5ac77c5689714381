import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from polycal import PolynomialCalibration

from catalog_core import Catalog
from catalog_core.errors import BackendError, ConfigError, InvalidInput, SerializationError

CATALOG = str(Path(sys.executable).with_name("catalog"))


def run(*args, ok=True):
    done = subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout if ok else done.stderr


@pytest.fixture
def url(tmp_path):
    return f"logfile://{tmp_path}/models.log"


@pytest.fixture
def signals():
    return np.random.default_rng(5).uniform(1, 10, (200, 3))


@pytest.fixture
def model(signals):
    return PolynomialCalibration.fit(signals, (signals * [1.0, 1.2, 0.8]).sum(axis=1))


def test_save_search_load_verify(url, model, signals):
    with Catalog.open(url) as catalog:
        with catalog.prepare(
            "calo/poly",
            model,
            example={"signals": signals[:4]},
            entry_points={"predict": "model", "split": "model.by_channel"},
            metrics={"rms": 0.01},
            tags={"team": "strangers"},
            description="polynomials of three layers",
        ) as draft:
            report = draft.verify()
            assert report.passed, report.reason
            assert {check.id for check in report.checks} >= {"match:predict", "batch:predict", "match:split"}
            assert {check.result for check in report.checks} == {"passed"}
            version = draft.save(alias="champion")
        assert version.params == {"degree": 2, "ridge": 1e-6, "unit": "GeV"}
        (entry,) = [entry for entry in version.manifest.entry_points if entry.name == "predict"]
        assert (entry.inputs[0].name, entry.inputs[0].shape, entry.outputs[0].unit) == ("signals", ("rows", 3), "GeV")
    code = f"""
import sys, numpy as np
from catalog_core import Catalog
with Catalog.open({url!r}, create=False) as catalog:
    query = 'framework = polycal and params.degree = 2 and metrics.rms < 0.1 and tags.team = strangers'
    (found,) = catalog.search(query)
    assert [v.ref for v in catalog.search("layers")] == [found.ref]
    with found.session() as session:
        print(session.predict(signals=np.array([[1.0, 2.0, 3.0]])).tolist()[0])
    print(found.load().unit)
    print(catalog.verify("calo/poly@champion").passed, catalog.fsck().clean)
"""
    value, unit, checked = run(sys.executable, "-c", code).split("\n")[:3]
    assert float(value) == pytest.approx(5.8, abs=1e-4)
    assert (unit, checked) == ("GeV", "True True")


def test_arrays_private_memory_and_filling(url, model):
    with Catalog.open(url) as catalog:
        catalog.save("m", model)
        assert sorted(catalog.load("m", as_="numpy")) == ["coefficients", "pedestals"]
        assert not catalog.load("m", as_="numpy")["pedestals"].flags.writeable
        assert catalog.load("m", as_="numpy", copy=True)["pedestals"].flags.writeable
        with pytest.raises(SerializationError, match="as_"):
            catalog.load("m", as_="torch")
        live = PolynomialCalibration(np.zeros((3, 3)), np.zeros(3), unit="?")
        assert catalog.load("m", into=live) is live and live.unit == "GeV"
        with pytest.raises(SerializationError):
            catalog.load("m", into=PolynomialCalibration(np.zeros((3, 2)), np.zeros(3)))


def test_a_session_refuses_what_does_not_fit(url, model, signals):
    with Catalog.open(url) as catalog:
        catalog.save("m", model, example=signals[:4])
        with catalog.session("m") as session:
            with pytest.raises(InvalidInput, match="signals"):
                session.predict(signals=signals[:, :2])
            np.testing.assert_array_equal(session.predict(signals=signals), model.predict(signals))
        with pytest.raises(InvalidInput, match=r"rows, 3"):
            catalog.save("m", model, example=signals[:4, :2])
        with pytest.raises(BackendError, match="cuda"):
            catalog.load("m", device="cuda")
        with pytest.raises(BackendError, match="cuda"):
            catalog.session("m", device="cuda")


def test_what_is_deleted_is_collected(url, tmp_path):
    with Catalog.open(url) as catalog:
        catalog.save("m", {"w": np.random.default_rng(0).normal(size=500_000)})
        catalog.save("m", {"w": np.zeros(3)})
        catalog.version("m@1").delete()
        assert catalog.gc(grace=-1).blobs > 0
        assert (tmp_path / "models.log").stat().st_size < 100_000
        assert catalog.fsck().clean and catalog.load("m")["w"].shape == (3,)


def test_the_option_of_the_configuration(tmp_path):
    file = tmp_path / "catalog.toml"

    def write(line):
        file.write_text(f'[catalogs.mine]\nurl = "logfile://{tmp_path}/c.log"\n{line}\n')

    write("sync = false")
    with Catalog.open("mine") as catalog:
        assert catalog.save("m", {"w": [1]}).number == 1
    write('sync = "no"')
    with pytest.raises(ConfigError, match="sync is true or false"):
        Catalog.open("mine")
    write("sink = true")
    with pytest.raises(ConfigError, match="sink"):
        Catalog.open("mine")


def test_the_command(tmp_path, url, model):
    with Catalog.open(url) as catalog:
        catalog.save("m", model)
    assert "m@1" in run(CATALOG, "--catalog", url, "stranger-info")
    told = json.loads(run(CATALOG, "--catalog", url, "stranger-info", "--json"))
    assert told == json.loads(run(CATALOG, "--json", "--catalog", url, "stranger-info"))
    assert (told["models"], told["calibrations"][0]["ref"]) == (1, "m@1")
    assert "error: there is no log" in run(CATALOG, "-c", f"logfile://{tmp_path}/x.log", "stranger-info", ok=False)
    assert "problem" not in run(CATALOG, "plugins")
