"""Artifacts of OCI Data Science that go through a bucket: by export, by reference, and back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oci_datascience_catalog import PLACE, SCHEMA, SCORE, here, login, opened, run, saved
from oci_datascience_server import DataScienceServer
from oci_server import NAMESPACE

import catalog_oci_datascience as ods
from catalog_core import Catalog
from catalog_core.errors import BackendError, DeadlineExceeded, IntegrityError, InvalidInput, NoSpace, NotFound
from catalog_oci_datascience import archive, limits
from catalog_oci_datascience import bucket as bucket_module
from catalog_oci_datascience.archive import measure
from catalog_oci_datascience.bucket import Bucket
from catalog_oci_datascience.options import Options

pytestmark = pytest.mark.server
SIZE = 30_000


running = pytest.fixture(scope="module")(run)
options = pytest.fixture(login)
empty = pytest.fixture(here)


@pytest.fixture
def server(running: DataScienceServer, monkeypatch: pytest.MonkeyPatch) -> DataScienceServer:
    """What is larger than 64 KiB counts as large, and travels in parts of 32 KiB."""
    monkeypatch.setattr(limits, "DIRECT", 1 << 16)
    monkeypatch.setattr(bucket_module, "PART", 1 << 15)
    return running.calm()


@pytest.fixture
def bucket(server: DataScienceServer) -> str:
    return f"oci://{server.bucket(versioning='Enabled')}@{NAMESPACE}/models"


@pytest.fixture
def catalog(empty: Catalog) -> Catalog:
    saved(empty, size=SIZE)
    return empty


def publish(catalog: Catalog, options: Options, bucket: str | None, **more: Any) -> ods.Published:
    return ods.publish(catalog.version("calo/gan"), options=options, **PLACE, bucket=bucket, **more)


def objects(server: DataScienceServer, bucket: str) -> list[str]:
    return server.catalog.state.buckets[bucket.removeprefix("oci://").partition("@")[0]].names


def test_a_large_artifact_without_a_bucket_is_refused_before_oci_is_asked(
    server: DataScienceServer, catalog: Catalog, options: Options
) -> None:
    server.control(reset=True)
    with pytest.raises(InvalidInput, match="more than 65,536 go through a bucket"):
        publish(catalog, options, None)
    assert set(server.control()["requests"]) <= {"POST b"}


def test_a_zip_that_is_too_large_though_its_files_are_not_goes_through_a_bucket(
    server: DataScienceServer, catalog: Catalog, options: Options, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = archive.files(catalog.download("calo/gan", Path(catalog.url.partition("://")[2]).parent / "d"))
    size = sum(path.stat().st_size for path in files.values()) + len(SCHEMA) + len(SCORE)
    monkeypatch.setattr(limits, "DIRECT", size)
    with pytest.raises(InvalidInput, match="go through a bucket"):
        publish(catalog, options, None)
    assert server.catalog.models == {}
    assert publish(catalog, options, bucket).how == "by export"


@pytest.mark.parametrize("md5", ["md5", "multipart", "none"])
def test_a_large_artifact_goes_through_a_bucket_both_ways_and_leaves_nothing_there(
    server: DataScienceServer, catalog: Catalog, options: Options, bucket: str, md5: str, tmp_path: Path
) -> None:
    """Whatever checksum the service reports for what it copied: then the bytes themselves are compared."""
    server.control(settings={"export_md5": md5})
    done = publish(catalog, options, bucket)
    assert done.how == "by export"
    _, data = server.catalog.artifacts[done.ocid]
    promised = {item["key"]: item["value"] for item in server.catalog.models[done.ocid]["customMetadataList"]}
    assert promised["CatalogArtifactSHA256"] == hashlib.sha256(data).hexdigest()
    assert "files/model.safetensors" in zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert objects(server, bucket) == []
    assert publish(catalog, options, bucket).how == "was there"
    with opened(tmp_path / "other") as there:
        with pytest.raises(InvalidInput, match="come through a bucket"):
            ods.pull(there, done.ocid, options=options)
        version = ods.pull(there, done.ocid, options=options, bucket=bucket)
        np.testing.assert_array_equal(version.load()["w"], np.arange(SIZE, dtype=np.float32))
    assert objects(server, bucket) == []


def test_what_the_service_copied_wrongly_is_noticed(
    server: DataScienceServer, catalog: Catalog, options: Options, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.control(settings={"export_md5": "none"})
    handler = server.catalog.handler
    keep = handler.keep  # type: ignore[attr-defined]
    monkeypatch.setattr(handler, "keep", lambda self, one, data, *more: keep(self, one, b"X" + data[1:], *more))
    with pytest.raises(IntegrityError, match="is not the one that was published"):
        publish(catalog, options, bucket)


def test_a_copy_that_fails_says_why_and_is_tried_again_with_the_same_model(
    server: DataScienceServer, catalog: Catalog, options: Options, bucket: str
) -> None:
    server.control(settings={"work_error": "the bucket may not be read by the service"})
    with pytest.raises(BackendError, match=r"the bucket may not be read by the service \(work request ocid1"):
        publish(catalog, options, bucket)
    server.control(settings={"work_error": None})
    assert publish(catalog, options, bucket).how == "by export"
    assert len(server.catalog.models) == 1


def test_a_copy_that_takes_too_long_goes_on_and_is_waited_for_by_the_next_one(
    server: DataScienceServer, catalog: Catalog, options: Options, bucket: str
) -> None:
    server.control(settings={"work": 10_000})
    with pytest.raises(DeadlineExceeded, match=r"not done after 0\.3 s \(work request .* is IN_PROGRESS"):
        publish(catalog, Options(**server.login(patience=0.3)), bucket)
    server.control(settings={"work": 0})
    publish(catalog, options, bucket)
    assert len(server.catalog.models) == len(server.catalog.work) == 1
    assert objects(server, bucket) == []


@pytest.mark.parametrize("fault", ["after", "drop", "503"])
def test_answers_on_the_way_through_a_bucket_are_lost(
    server: DataScienceServer, catalog: Catalog, options: Options, bucket: str, fault: str
) -> None:
    for method in ("POST", "PUT", "GET", "HEAD"):
        server.calm()
        catalog.version("calo/gan").untag(*catalog.version("calo/gan").tags) if catalog.version(
            "calo/gan"
        ).tags else None
        server.fault({"fault": fault, "times": 4, "method": method, "chance": 0.5})
        done = publish(catalog, Options(**server.login(deadline=30.0)), bucket)
        server.fault()
        assert list(server.catalog.artifacts) == list(server.catalog.models) == [done.ocid]
        assert objects(server, bucket) == []


def test_a_file_by_reference_stays_in_the_bucket(
    server: DataScienceServer, catalog: Catalog, options: Options, bucket: str, tmp_path: Path
) -> None:
    done = publish(catalog, options, bucket, by_reference=True)
    assert done.how == "by reference"
    headers, data = server.catalog.artifacts[done.ocid]
    assert headers["content-disposition"].endswith('.json"')
    told = json.loads(data)
    assert (told["version"], told["type"]) == ("1.0", "modelOSSReferenceDescription")
    (listed,) = told["models"]
    assert listed["bucketName"] in bucket and listed["namespace"] == NAMESPACE
    assert [found["name"] for found in listed["objects"]] == objects(server, bucket)
    assert all(found["name"].startswith(listed["prefix"]) and found["version"] for found in listed["objects"])
    custom = {item["key"]: item["value"] for item in server.catalog.models[done.ocid]["customMetadataList"]}
    assert custom["modelDescription"] == "true"
    server.control(reset=True)
    assert publish(catalog, options, bucket, by_reference=True).how == "was there"
    assert not any(kind.startswith("PUT") for kind in server.control()["requests"])
    with opened(tmp_path / "other") as there:
        version = ods.pull(there, done.ocid, options=options)
        np.testing.assert_array_equal(version.load()["w"], np.arange(SIZE, dtype=np.float32))


def test_what_is_too_large_to_be_copied_goes_by_reference_by_itself(
    server: DataScienceServer, catalog: Catalog, options: Options, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EXPORT", 100_000)
    assert publish(catalog, options, bucket).how == "by reference"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"no json", "cannot be read"), (b"{}", "cannot be read"), (b'{"models": [1]}', "cannot be read"),
        (b'{"models": [{"bucketName": "b", "namespace": "n", "objects": [{"name": "../evil"}]}]}', "name '../evil'"),
    ],
)  # fmt: skip
def test_a_list_of_objects_that_is_wrong_is_refused(
    server: DataScienceServer,
    catalog: Catalog,
    options: Options,
    bucket: str,
    tmp_path: Path,
    text: bytes,
    message: str,
) -> None:
    done = publish(catalog, options, bucket, by_reference=True)
    server.replace(done.ocid, text)
    custom = server.catalog.models[done.ocid]["customMetadataList"]
    custom[:] = [item for item in custom if not item["key"].startswith("CatalogArtifact")]
    with opened(tmp_path / "other") as there, pytest.raises((IntegrityError, InvalidInput), match=message):
        ods.pull(there, done.ocid, options=options)


def test_an_object_that_went_away_is_not_found(
    server: DataScienceServer, catalog: Catalog, options: Options, bucket: str, tmp_path: Path
) -> None:
    done = publish(catalog, options, bucket, by_reference=True)
    name = next(name for name in objects(server, bucket) if name.endswith(".safetensors"))
    Bucket(bucket, options).delete(name)
    Bucket(bucket, options).delete(name)  # once more is no error
    with opened(tmp_path / "other") as there, pytest.raises(NotFound, match=r"model\.safetensors"):
        ods.pull(there, done.ocid, options=options)


def test_a_full_bucket_leaves_no_model(server: DataScienceServer, catalog: Catalog, options: Options) -> None:
    full = f"oci://{server.bucket(quota=1000)}@{NAMESPACE}"
    with pytest.raises(NoSpace, match="quota or limit is used up"):
        publish(catalog, options, full, by_reference=True)
    assert server.catalog.models == {}
    with pytest.raises(NoSpace):
        publish(catalog, options, full)
    assert server.catalog.artifacts == {}


def test_an_upload_in_parts_goes_on_where_it_stopped(
    server: DataScienceServer, options: Options, bucket: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))
    hasty = Bucket(bucket, Options(**server.login(deadline=0.2)))
    server.fault({"fault": "503", "times": -1, "method": "PUT", "skip": 6})
    with pytest.raises(DeadlineExceeded, match="part 7"):
        hasty.put(hasty.key("file"), measure(path))
    server.fault()
    server.control(reset=True)
    store = Bucket(bucket, options)
    store.put(store.key("file"), measure(path))
    assert server.control()["requests"]["PUT u"] == 10 - 6
    store.put(store.key("file"), measure(path))  # and once more costs a look
    assert server.control()["requests"]["PUT u"] == 10 - 6
    got = store.get(store.key("file"), tmp_path / "back")
    assert got.sha256 == measure(path).sha256
    assert store.key("file") not in server.control()["uploads"]
