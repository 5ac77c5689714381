"""Versions in the model catalog of OCI Data Science, by the real SDK, against a server of our own."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pickle
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import oci
import pytest
from oci_datascience_catalog import PLACE, SCHEMA, calm, here, login, opened, registry, run, saved
from oci_datascience_server import COMPARTMENT, PROJECT, DataScienceServer

import catalog_oci_datascience as ods
from catalog_cli.main import main
from catalog_core import Catalog, plugins
from catalog_core.errors import ConfigError, InvalidInput, MissingPlugin, NotFound
from catalog_core.records import Component, File, Manifest
from catalog_oci_datascience import limits, record
from catalog_oci_datascience.options import Options
from catalog_oci_datascience.publishing import note_of

pytestmark = pytest.mark.server


running = pytest.fixture(scope="module")(run)
server = pytest.fixture(calm)
options = pytest.fixture(login)
catalog = pytest.fixture(here)


def other(tmp_path: Path) -> Catalog:
    return opened(tmp_path / "other", "there")


def items(model: dict[str, Any], which: str = "custom") -> dict[str, dict[str, Any]]:
    return {item["key"]: item for item in model[f"{which}MetadataList"]}


def test_a_version_becomes_a_model_with_all_that_is_known_of_it(
    server: DataScienceServer, catalog: Catalog, options: Options
) -> None:
    parent = saved(catalog, "calo/parent")
    git = {
        "url": "https://gitlab.example/calo.git",
        "branch": "main",
        "commit": "abc123",
        "dirty": True,
        "diff": "sha256:d",
    }
    more = {
        "run": {"slurm": "4711", "oci": "ocid1.datasciencejobrun.oc1..x"}, "seed": 7,
        "datasets": {"train": {"reference": "showers", "digest": "sha256:" + 64 * "0", "description": "July"}},
    }  # fmt: skip
    version = catalog.save(
        "calo/gan", {"w": np.arange(5.0)}, parents=[parent.ref], metrics={"auc": 0.75},
        params={"lr": 0.001, "layers": 3}, taxonomy={"use_case": "fast simulation", "domain": "calorimetry"},
        tags={"team": "openlab"},
        provenance={"git": git, "script": "train.py", "command": ["train.py", "--seed", "1"], **more},
    )  # fmt: skip
    catalog.model("calo/gan").update(description="Showers in a box")
    done = ods.publish(
        version, options=options, **PLACE, version_set="gan", tags={"cost": "0815"},
        custom=[ods.Item("Batch", "64", "Training Profile", "Showers in one step.")],
    )  # fmt: skip
    assert (done.ref, done.name, done.how, done.notes) == ("calo/gan@1", "calo/gan@1", "directly", ())
    model = server.catalog.models[done.ocid]
    assert (model["displayName"], model["description"]) == ("calo/gan@1", "Showers in a box")
    assert (model["compartmentId"], model["projectId"]) == (COMPARTMENT, PROJECT)
    assert model["freeformTags"] == {
        "catalog_digest": version.digest, "catalog_reference": "here:calo/gan@1", "cost": "0815",
    }  # fmt: skip
    assert (model["modelVersionSetName"], model["versionLabel"], model["versionId"]) == ("gan", "1", 1)
    assert model["inputSchema"] == SCHEMA
    custom = items(model)
    assert custom["auc"]["category"] == "Performance"
    assert custom["Batch"] == {
        "key": "Batch", "value": "64", "category": "Training Profile", "description": "Showers in one step.",
    }  # fmt: skip
    assert custom["Seed"]["value"] == "7"
    assert custom["dataset.train"]["category"] == "Training and Validation Datasets"
    assert custom["dataset.train"]["description"] == "July"
    assert json.loads(custom["dataset.train"]["value"])["reference"] == "showers"
    assert custom["Parents"]["value"] == "calo/parent@1"
    assert custom["GitDirty"]["value"] == "true"
    assert custom["Python"]["category"] == "Training Environment"
    assert custom["tag.team"]["value"] == "openlab"
    assert custom["taxonomy.use_case"]["value"] == "fast_simulation"
    assert custom["CatalogDigest"]["value"] == version.digest
    defined = items(model, "defined")
    assert defined["UseCaseType"]["value"] == "other"
    assert json.loads(defined["Hyperparameters"]["value"]) == {"lr": 0.001, "layers": 3}
    assert server.catalog.provenance[done.ocid] == {
        "repositoryUrl": "https://gitlab.example/calo.git", "gitBranch": "main", "gitCommit": "abc123",
        "trainingScript": "train.py", "trainingId": "ocid1.datasciencejobrun.oc1..x",
    }  # fmt: skip
    headers, data = server.catalog.artifacts[done.ocid]
    assert headers["content-disposition"] == f'attachment; filename="{done.ocid}.zip"'
    assert custom["CatalogArtifactSHA256"]["value"] == hashlib.sha256(data).hexdigest()
    assert headers["content-md5"] == base64.b64encode(hashlib.md5(data).digest()).decode()
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert names == ["files/model.safetensors", "input_schema.json", "score.py"]
    again = catalog.version("calo/gan@1")
    assert again.tags[note_of(COMPARTMENT, PROJECT)] == done.ocid
    assert again.digest == version.digest
    assert catalog.search(f'tags.{note_of(COMPARTMENT, PROJECT)} = "{done.ocid}"')[0] == again


@pytest.mark.parametrize(
    ("taxonomy", "framework", "wanted"),
    [({"use_case": "Anomaly Detection"}, "anomaly_detection", "other"), ({}, None, "other")],
)
def test_words_of_oci_are_used_where_it_has_one(
    server: DataScienceServer, catalog: Catalog, options: Options, taxonomy: Any, framework: Any, wanted: str
) -> None:
    done = ods.publish(saved(catalog, taxonomy=taxonomy), options=options, **PLACE)
    defined = items(server.catalog.models[done.ocid], "defined")
    assert defined.get("UseCaseType", {}).get("value") == framework
    assert defined["Framework"]["value"] == wanted  # numpy


def test_publishing_again_finds_the_model_by_its_note_and_is_cheap(
    server: DataScienceServer, catalog: Catalog, options: Options
) -> None:
    first = ods.publish(saved(catalog), options=options, **PLACE)
    server.control(reset=True)
    second = ods.publish(catalog.version("calo/gan"), options=options, **PLACE)
    assert (second.ocid, second.how) == (first.ocid, "was there")
    asked = server.control()["requests"]
    assert not any(kind.startswith(("POST", "PUT", "GET models/artifact")) or kind == "GET models" for kind in asked)
    assert len(server.catalog.models) == 1


def test_publishing_again_finds_the_model_without_a_note_and_long_after(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path
) -> None:
    """Retry tokens hold for a day, and notes are in the catalog that published: another copy of it has none."""
    server.control(settings={"page": 2})
    version = saved(catalog)
    first = ods.publish(version, options=options, **PLACE)
    for number in range(5):
        ods.publish(saved(catalog, f"m{number}", 10 + number), options=options, **PLACE)
    server.catalog.tokens.clear()
    with other(tmp_path) as there:
        copied = catalog.copy(version.ref, there)
        copied = copied.untag(*copied.tags) if copied.tags else copied
        second = ods.publish(copied, options=options, **PLACE)
        assert second.ocid == first.ocid
        assert there.version("calo/gan@1").tags[note_of(COMPARTMENT, PROJECT)] == first.ocid
    assert len(server.catalog.models) == 6


def test_many_who_publish_at_once_make_one_model(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path
) -> None:
    server.control(settings={"latency": 0.02})
    saved(catalog)
    found: list[str] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with opened(tmp_path / "catalog") as mine:
                done = ods.publish(mine.version("calo/gan@1"), options=options, **PLACE, version_set="gan")
                found.append(done.ocid)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(set(found)) == 1 and len(found) == 5
    assert len(server.catalog.models) == len(server.catalog.artifacts) == len(server.catalog.sets) == 1


def test_versions_of_a_model_share_a_set(server: DataScienceServer, catalog: Catalog, options: Options) -> None:
    for size in (10, 11):
        done = ods.publish(saved(catalog, size=size), options=options, **PLACE, version_set="gan")
    assert len(server.catalog.sets) == 1
    model = server.catalog.models[done.ocid]
    assert (model["versionId"], model["versionLabel"]) == (2, "2")
    done = ods.publish(saved(catalog, size=12), options=options, **PLACE, version_set="gan", label="tuned")
    assert server.catalog.models[done.ocid]["versionLabel"] == "tuned"


def test_another_project_gets_a_model_of_its_own(
    server: DataScienceServer, catalog: Catalog, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ods.publish(saved(catalog), options=options, **PLACE)
    elsewhere = PROJECT.replace("test", "second")
    monkeypatch.setattr("oci_datascience_server.PROJECT", elsewhere)
    second = ods.publish(catalog.version("calo/gan"), options=options, compartment=COMPARTMENT, project=elsewhere)
    assert second.ocid != first.ocid
    tags = catalog.version("calo/gan").tags
    assert {tags[note_of(COMPARTMENT, project)] for project in (PROJECT, elsewhere)} == {first.ocid, second.ocid}


# ---------------------------------------------------------------------------------------------------------- and back


def test_a_model_is_pulled_into_another_catalog_once(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path
) -> None:
    catalog.repository.name = "a: folder"  # that of a catalog that was opened by its place
    version = saved(
        catalog, metrics={"auc": 0.75}, params={"lr": 0.5}, taxonomy={"use_case": "fast simulation"},
        tags={"team": "x"}, custom={"beam": {"value": "July", "category": "Training Profile", "description": "which"}},
    )  # fmt: skip
    done = ods.publish(version, options=options, **PLACE)
    with other(tmp_path) as there:
        pulled = ods.pull(there, done.ocid, options=options)
        assert pulled.ref == "calo/gan@1"
        np.testing.assert_array_equal(pulled.load()["w"], np.arange(1000, dtype=np.float32))
        assert (pulled.metrics, pulled.params) == ({"auc": 0.75}, {"lr": 0.5})
        assert pulled.taxonomy == {"use_case": "fast_simulation"}
        assert pulled.manifest.custom == version.manifest.custom
        assert pulled.tags == {"team": "x", note_of(COMPARTMENT, PROJECT): done.ocid}
        provenance = pulled.manifest.provenance
        assert provenance["imported"]["format"] == "ads"
        assert provenance["oci"]["metadata"]["CatalogDigest"] == version.digest
        assert provenance["oci"]["input_schema"] == SCHEMA
        assert provenance["script"] == "train.py"
        server.control(reset=True)
        assert ods.pull(there, done.ocid, options=options) == pulled
        assert "GET models/artifact/content" not in server.control()["requests"]
        assert ods.pull(there, done.ocid, "mine", options=options).ref == "mine@1"
        assert len(there.versions("calo/gan")) == 1


def test_what_was_published_from_a_catalog_is_not_pulled_into_it(
    catalog: Catalog, options: Options, tmp_path: Path
) -> None:
    version = saved(catalog)
    done = ods.publish(version, options=options, **PLACE)
    assert ods.pull(catalog, done.ocid, options=options) == version
    with other(tmp_path) as there:
        copied = catalog.copy(version.ref, there)
        if copied.tags:
            copied = copied.untag(*copied.tags)
        assert ods.pull(there, done.ocid, options=options) == copied
        assert there.version(copied.ref).tags == {note_of(COMPARTMENT, PROJECT): done.ocid}
    assert len(catalog.versions("calo/gan")) == 1


@pytest.mark.parametrize("use_case", ["regression", "weather forecast"])
def test_a_model_that_oracles_client_made_is_pulled(
    server: DataScienceServer, catalog: Catalog, options: Options, use_case: str
) -> None:
    """With the names of the service's documentation, values that are no numbers, a name that is none of ours, and words
    that we do not know: these are kept as they are."""
    client = oci.data_science.DataScienceClient(
        oci.config.from_file(str(server.config)), service_endpoint=server.endpoint
    )
    details = {
        "compartmentId": COMPARTMENT, "projectId": PROJECT, "displayName": "Ada's best model (v2)!",
        "definedMetadataList": [
            {"key": "useCaseType", "value": "regression"},
            {"key": "libraryName", "value": "other"},
            {"key": "hyperParameters", "value": '{"depth": 4, "x": [1]}'},
        ],
        "customMetadataList": [
            {"key": "mae", "value": "0.25", "category": "Performance"},
            {"key": "roc", "value": "good", "category": "Performance"},
            {"key": "CondaEnvironment", "value": "NA", "category": "Training Environment"},
            {"key": "beam", "value": "July", "category": "Training Profile", "description": "which"},
        ],
    }  # fmt: skip
    ocid = client.create_model(details).data.id
    words = {"useCaseType": use_case, "libraryName": "a framework of next year"}  # lists of the service grow
    for item in server.catalog.models[ocid]["definedMetadataList"]:
        item["value"] = words.get(item["key"], item["value"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("score.py", "")
        weights = saved(catalog).download(Path(catalog.url.partition("://")[2]).parent / "d") / "model.safetensors"
        archive.write(weights, "files/model.safetensors")
    client.create_model_artifact(ocid, buffer.getvalue(), content_disposition='attachment; filename="a.zip"')
    version = ods.pull(catalog, ocid, options=options)
    assert version.ref == "Ada-s-best-model-v2@1"
    custom = version.manifest.custom
    assert version.taxonomy == ({"use_case": "regression"} if use_case == "regression" else {})
    assert custom.get("use_case", {}).get("value") == (None if use_case == "regression" else use_case)
    assert custom["Framework"]["value"] == "a framework of next year"
    assert custom["beam"] == {"value": "July", "category": "Training Profile", "description": "which"}
    assert custom["roc"] == {"value": "good", "category": "Performance"}
    assert version.metrics == {"mae": 0.25}
    assert version.params == {"depth": 4}
    assert version.manifest.provenance["oci"]["metadata"]["roc"] == "good"
    assert "CondaEnvironment" not in version.manifest.provenance["oci"]["metadata"]


def test_description_and_free_form_tags_come_along_and_a_pickle_is_converted_when_it_may_be(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path
) -> None:
    client = oci.data_science.DataScienceClient(
        oci.config.from_file(str(server.config)), service_endpoint=server.endpoint
    )
    details = {
        "compartmentId": COMPARTMENT, "projectId": PROJECT, "displayName": "pickled", "description": "Of July's beam.",
        "freeformTags": {"team": "cms", "cost": "12"},
    }  # fmt: skip
    ocid = client.create_model(details).data.id
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("score.py", "def load_model(): pass\ndef predict(data, model=load_model()): pass\n")
        archive.writestr("runtime.yaml", "MODEL_ARTIFACT_VERSION: '3.0'\n")
        archive.writestr("model.pkl", pickle.dumps({"w": np.arange(3.0)}))
    client.create_model_artifact(ocid, buffer.getvalue(), content_disposition='attachment; filename="a.zip"')
    first = ods.pull(catalog, ocid, options=options)
    assert (first.tags["team"], first.tags["cost"]) == ("cms", "12")
    assert catalog.model(first.model).description == "Of July's beam."
    assert ods.pull(catalog, ocid, options=options) == first
    second = ods.pull(catalog, ocid, options=options, unsafe=True)
    assert second != first and second.manifest.provenance["oci"]["unsafe"] is True
    assert second.tags["team"] == "cms" and catalog.model(second.model).description == "Of July's beam."
    assert ods.pull(catalog, ocid, options=options, unsafe=True) == second, "and only once"


def test_what_the_catalog_cannot_hold_stays_in_the_provenance(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path
) -> None:
    done = ods.publish(saved(catalog, tags={"team": "x"}), options=options, **PLACE)
    model = server.catalog.models[done.ocid]
    model["definedMetadataList"] = [
        {"key": "Hyperparameters", "value": json.dumps({"long": "x" * 5000, "deep": {"a": 1}, "lr": 0.5, " ": 1})},
        {"key": "useCaseType", "value": "ner"},
    ]
    more = {f"tag.t{n}": "x" * 4000 for n in range(4)} | {" odd ": "1.5", "not a number": "nan", "auc": "0.5"}
    for key, value in more.items():
        category = "Other" if key.startswith("tag") else "Performance"
        model["customMetadataList"].append({"key": key, "value": value, "category": category})
    model["displayName"] = None
    del model["freeformTags"]["catalog_reference"]
    with opened(tmp_path / "other") as there:
        version = ods.pull(there, done.ocid, options=options)
        assert version.model == done.ocid
        assert version.params == {"lr": 0.5}
        assert version.metrics == {"auc": 0.5}
        assert version.tags[note_of(COMPARTMENT, PROJECT)] == done.ocid
        assert set(version.tags) < {note_of(COMPARTMENT, PROJECT), "team", "t0", "t1", "t2", "t3"}
        kept = version.manifest.provenance["oci"]["metadata"]
        assert all(kept[key] == value for key, value in more.items())


def test_models_are_listed_newest_first_without_the_deleted(
    server: DataScienceServer, catalog: Catalog, options: Options
) -> None:
    server.control(settings={"page": 2})
    done = [ods.publish(saved(catalog, f"m{n}", 10 + n), options=options, **PLACE) for n in range(5)]
    server.catalog.models[done[2].ocid]["lifecycleState"] = "DELETED"
    found = ods.models(compartment=COMPARTMENT, options=options)
    assert [model.name for model in found] == ["m4@1", "m3@1", "m1@1", "m0@1"]
    assert found[0].reference == "here:m4@1"
    assert found[0].digest == catalog.version("m4").digest
    assert [m.name for m in ods.models(**PLACE, options=options, limit=1)] == ["m4@1"]


# ------------------------------------------------------------------------------------------------------------ limits

LIMITS: dict[str, tuple[Callable[[Catalog], Any], dict[str, Any], str]] = {
    "value": (saved, {"custom": [ods.Item("Notes", "x" * 16_001)]}, "'Notes' has 16,001 .* OCI allows 16,000"),
    "list": (saved, {"custom": [ods.Item(f"k{n}", "x" * 9_000) for n in range(2)]}, "custom metadata take .* 'k0' is"),
    "description": (saved, {"custom": [ods.Item("k", "v", "Other", "x" * 256)]}, "description of metadata 'k' has 256"),
    "category": (saved, {"custom": [ods.Item("k", "v", "Nonsense")]}, "'k' has the category 'Nonsense'"),
    "key": (saved, {"custom": [ods.Item("k" * 256, "v")]}, "metadata key 'kkkk.*is not allowed"),
    "twice": (lambda c: saved(c, metrics={"Python": 1.0}), {}, "'Python' is there twice"),
    "hyperparameters": (lambda c: saved(c, params={f"p{n}": "ü" * 1400 for n in range(4)}), {},
        "'Hyperparameters' has .* OCI allows 16,000"),
    "name": (saved, {"name": "x" * 256}, "the name has 256"),
    "label": (saved, {"label": "x" * 256}, "the version label has 256"),
    "tags": (saved, {"tags": {f"t{n}": "v" for n in range(9)}}, "11 free-form tags; 10 are allowed"),
    "tag": (saved, {"tags": {"t": "v" * 257}}, "tag 't' has 257"),
    "tag key": (saved, {"tags": {"a.b": "v"}}, "tag key 'a.b' is not allowed"),
    "schema": (lambda c: saved(c, tags={"schema": "x" * 4000}), {}, "input_schema takes 4,000 bytes; 3,000 are"),
}  # fmt: skip


@pytest.mark.parametrize("case", LIMITS)
def test_limits_of_oci_are_checked_before_it_is_asked(
    server: DataScienceServer, catalog: Catalog, options: Options, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    make, about, message = LIMITS[case]
    if case == "schema":
        monkeypatch.setattr(record, "MAX_SCHEMA", 3_000)
    if case == "hyperparameters":
        monkeypatch.setattr(record, "MAX_LIST", 1 << 20)
    version = make(catalog)
    server.control(reset=True)
    with pytest.raises(InvalidInput, match=message):
        ods.publish(version, options=options, **PLACE, **about)
    assert set(server.control()["requests"]) <= {"POST b"}  # our own look, by `control`
    assert server.catalog.models == {}


def test_what_is_too_long_can_be_left_out(
    server: DataScienceServer, catalog: Catalog, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = saved(catalog, params={f"p{n}": "x" * 2900 for n in range(4)}, metrics={"auc": 1.0})
    monkeypatch.setattr(record, "MAX_VALUE", 8_000)
    with pytest.raises(InvalidInput, match=r"'Hyperparameters' has .*--leave-out Hyperparameters"):
        ods.publish(version, options=options, **PLACE)
    done = ods.publish(version, options=options, **PLACE, leave_out=["Hyperparameters", "auc", "input_schema"])
    model = server.catalog.models[done.ocid]
    assert "Hyperparameters" not in items(model, "defined")
    assert "auc" not in items(model)
    assert model.get("inputSchema") is None


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({}, "no compartment is named"), ({"compartment": COMPARTMENT}, "no project is named"),
        ({"compartment": "ml", "project": PROJECT}, "'ml' is no OCID of a compartment"),
        ({"compartment": COMPARTMENT, "project": COMPARTMENT}, "is no OCID of a project"),
        ({**PLACE, "by_reference": True}, "needs a bucket"), ({**PLACE, "bucket": "s3://x"}, "names no bucket"),
    ],
)  # fmt: skip
def test_a_wrong_target_is_refused(catalog: Catalog, options: Options, place: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ods.publish(saved(catalog), options=options, **place)


def test_a_notebook_session_of_oci_says_where(
    server: DataScienceServer, catalog: Catalog, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NB_SESSION_COMPARTMENT_OCID", COMPARTMENT)
    monkeypatch.setenv("PROJECT_OCID", PROJECT)
    assert ods.publish(saved(catalog), options=options).ocid in server.catalog.models


def test_a_format_that_is_not_installed_is_said_before_anything_is_made(
    server: DataScienceServer, catalog: Catalog, options: Options
) -> None:
    with pytest.raises(MissingPlugin, match="no format is called 'nonsense'"):
        ods.publish(saved(catalog), options=options, **PLACE, format="nonsense")
    assert server.catalog.models == {}


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="endpoint must be https"):
        Options(endpoint="http://datascience.example.org")
    with pytest.raises(ConfigError, match="is not known"):
        Options(auth="password")


def test_importing_the_plug_in_brings_no_sdk() -> None:
    import subprocess
    import sys

    code = "import sys, catalog_oci_datascience; sys.exit('oci' in sys.modules or 'click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(
    server: DataScienceServer, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    found = registry()
    monkeypatch.setattr(plugins, "registry", lambda: found)
    login = ["--config-file", str(server.config), "--endpoint", server.endpoint, "--storage-endpoint", server.endpoint]

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--catalog", catalog.url.partition("://")[2].removesuffix("/catalog.db"), "oci", *arguments, *login])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def test_the_command_publishes_lists_and_pulls(
    server: DataScienceServer, catalog: Catalog, command: Callable[..., tuple[int, str, str]]
) -> None:
    saved(catalog)
    where = ["--compartment", COMPARTMENT, "--project", PROJECT]
    code, out, _ = command("publish", "calo/gan", *where, "--version-set", "gan", "--custom", "Ticket=42")
    (ocid,) = server.catalog.models
    assert (code, out) == (0, f"calo/gan@1  {ocid}  directly\n")
    assert items(server.catalog.models[ocid])["Ticket"]["value"] == "42"
    code, out, _ = command("publish", "calo/gan@1", *where, "--json")
    assert (code, json.loads(out)["how"], json.loads(out)["ocid"]) == (0, "was there", ocid)
    code, out, _ = command("models", *where)
    assert code == 0 and "calo/gan@1" in out and ocid in out
    code, out, _ = command("models", "--compartment", COMPARTMENT, "--json")
    assert json.loads(out)[0]["version_set"] == "gan"
    code, out, _ = command("pull", ocid, "again")
    assert (code, out.split()[:2]) == (0, ["again@1", ocid])
    code, _, err = command("pull", ocid.replace("ocid1", "ocid2"))
    assert code == 1 and err.startswith("error: looking at the model ocid2.") and "hint:" in err
    code, _, err = command("publish", "calo/gan", *where, "--profile", "NOBODY")
    assert code == 1 and "has no profile 'NOBODY'" in err


def test_a_model_that_does_not_exist_is_not_found(catalog: Catalog, options: Options) -> None:
    with pytest.raises(NotFound, match="does not exist, or this user may not"):
        ods.pull(catalog, "ocid1.datasciencemodel.oc1..none", options=options)


@pytest.mark.parametrize(
    ("total", "result", "cause"),
    [
        (1 << 30, None, ""),
        (3 << 30, "passed", "3.2 GB: OCI Data Science takes more than 2.1 GB through a bucket only"),
        (500 * 10**9, "warned", "500.0 GB: OCI Data Science takes at most 400.0 GB, more by reference only"),
    ],
)
def test_verify_says_how_the_artifact_could_go(total: int, result: str | None, cause: str) -> None:
    files = (File("weights", "sha256:" + "0" * 64, total),)
    artifact = SimpleNamespace(manifest=Manifest((Component("model", "files", files),)))
    assert limits.check(artifact) == (None if result is None else (result, cause))
