"""Machines and jobs of Oracle Cloud that publish, by the real names of its services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from oci_datascience_catalog import PLACE, here, saved
from oci_datascience_server import DataScienceServer
from oci_region import REGION, Region
from oci_server import private_pem

import catalog_oci_datascience as ods
from catalog_core import Catalog
from catalog_core.errors import BackendError, ConfigError
from catalog_oci_datascience.service import Service

pytestmark = pytest.mark.server
catalog = pytest.fixture(here)


@pytest.fixture(scope="module")
def running() -> Iterator[DataScienceServer]:
    with DataScienceServer(tls=True) as server:
        yield server


@pytest.fixture
def region(running: DataScienceServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Region]:
    running.calm()
    with Region(running) as region:
        for key, value in region.environment().items():
            monkeypatch.setenv(key, value)
        yield region


def test_a_machine_publishes_and_gets_another_session_when_its_own_ends(
    running: DataScienceServer, region: Region, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of it: the body of the artifact must be sent from its beginning again."""
    upload = Service.upload

    def forgotten(self: Service, *given: Any) -> None:
        for key in [key for key in running.catalog.state.users if key.startswith("ST$")]:
            del running.catalog.state.users[key]
        upload(self, *given)

    monkeypatch.setattr(Service, "upload", forgotten)
    done = ods.publish(saved(catalog), options=ods.Options(auth="instance_principal", deadline=5.0), **PLACE)
    assert region.asked == 2
    promised = {item["key"]: item["value"] for item in running.catalog.models[done.ocid]["customMetadataList"]}
    assert promised["CatalogArtifactMD5"] == running.catalog.artifacts[done.ocid][0]["content-md5"]


@pytest.mark.parametrize(("status", "kind"), [(401, ConfigError), (503, BackendError)])
def test_a_machine_that_gets_no_session_is_told_so(
    running: DataScienceServer, region: Region, catalog: Catalog, status: int, kind: type[Exception]
) -> None:
    region.trouble = [status] * 3
    with pytest.raises(kind, match="instance principal"):
        ods.publish(saved(catalog), options=ods.Options(auth="instance_principal"), **PLACE)
    assert running.catalog.models == {}


def test_a_job_publishes_by_the_token_that_it_was_given(
    running: DataScienceServer, region: Region, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "token").write_text(region.let_in(key.public_key()))
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_VERSION", "2.2")
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_RPST", str(tmp_path / "token"))
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM", str(tmp_path / "key.pem"))
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_REGION", REGION)
    done = ods.publish(saved(catalog), options=ods.Options(auth="resource_principal", deadline=5.0), **PLACE)
    assert list(running.catalog.artifacts) == [done.ocid]


def test_what_is_no_job_is_told_so(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCI_RESOURCE_PRINCIPAL_VERSION", raising=False)
    with pytest.raises(ConfigError, match="no resource principal to be had"):
        ods.publish(saved(catalog), options=ods.Options(auth="resource_principal"), **PLACE)
