"""Machines and functions of Oracle Cloud as users: the SDK's own signers, against what surrounds them there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import oci
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from oci_region import REGION, Region
from oci_server import NAMESPACE, OCIServer, private_pem, token
from oci_store import put

from catalog_core.errors import BackendError, ConfigError, DeadlineExceeded
from catalog_oci import doctor
from catalog_oci.store import OCIStore, open_store

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def storage() -> Iterator[OCIServer]:
    with OCIServer(tls=True) as server:
        yield server


@pytest.fixture
def region(storage: OCIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Region]:
    with Region(storage) as region:
        for key, value in region.environment().items():
            monkeypatch.setenv(key, value)
        yield region


@pytest.fixture
def url(storage: OCIServer) -> str:
    return f"oci://{storage.bucket()}@{NAMESPACE}/prod"


@pytest.fixture
def machine(region: Region, url: str) -> Iterator[OCIStore]:
    """Neither a configuration file nor an endpoint is named: the machine knows where it is."""
    store = open_store(url, {"auth": "instance_principal", "deadline": 3.0}, True)
    yield store
    store.close()


@pytest.fixture
def function(region: Region, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Region:
    """What the SDK finds in a function, a job or a notebook session: a token and its key, in files that are renewed."""
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_VERSION", "2.2")
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_RPST", str(tmp_path / "token"))
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM", str(tmp_path / "key.pem"))
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_REGION", REGION)
    renew(region)
    return region


def renew(region: Region) -> None:
    """A new token for a new key, as the cloud writes them into the files."""
    key = rsa.generate_private_key(65537, 2048)
    Path(os.environ["OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM"]).write_bytes(private_pem(key))
    Path(os.environ["OCI_RESOURCE_PRINCIPAL_RPST"]).write_text(region.let_in(key.public_key()))


def forget(storage: OCIServer) -> None:
    """No token that was handed out is accepted any more."""
    assert storage._server is not None
    users = storage._server.state.users
    for key in [key for key in users if key.startswith("ST$")]:
        del users[key]


def test_a_machine_signs_with_the_session_that_its_certificate_stands_for(region: Region, machine: OCIStore) -> None:
    put(machine, "a", b"text", "exclusive")
    assert machine.get("a").read() == b"text"
    _, signer = machine.calls._login
    assert type(signer) is oci.auth.signers.InstancePrincipalsSecurityTokenSigner
    assert machine.calls.endpoint() == f"objectstorage.{REGION}.oraclecloud.com"
    assert region.asked == 1


@pytest.mark.parametrize("size", [10, 6 << 20], ids=["memory", "streamed"])
def test_a_machine_whose_session_ends_gets_another_and_sends_the_body_whole(
    region: Region, url: str, size: int
) -> None:
    """The SDK's own second try would send a stream that it has read to its end, and wait for an answer."""
    store = open_store(url, {"auth": "instance_principal"}, True)
    put(store, "a", b"a")
    forget(region.storage)
    data = os.urandom(size)
    put(store, "b", data, "exclusive")
    assert region.asked == 2
    assert store.get("b").read() == data


def test_a_busy_token_service_is_asked_again_until_the_deadline(region: Region, url: str, machine: OCIStore) -> None:
    region.trouble = [503, 429, 500]
    patient = open_store(url, {"auth": "instance_principal", "deadline": 20.0}, True)
    put(patient, "a", b"a")
    assert region.asked == 4
    patient.close()
    forget(region.storage)
    region.trouble = [503] * 1000
    with pytest.raises(DeadlineExceeded, match="kept refusing for 3 s"):
        machine.stat("a")
    assert 2 <= region.asked - 4 <= 20, "it is asked again, with pauses that grow"


def test_a_machine_that_gets_no_session_or_a_bad_one_is_told_so(region: Region, machine: OCIStore) -> None:
    region.trouble = [401] * 3
    with pytest.raises(ConfigError, match=r"no instance principal to be had.*dynamic group"):
        machine.stat("a")
    region.trouble = []
    region.let_in = lambda public: token(time.time() + 3600)  # type: ignore[method-assign] - nobody knows it
    with pytest.raises(BackendError, match="does not accept the instance principal") as caught:
        machine.stat("a")
    assert "dynamic group" in (caught.value.hint or "")


def test_a_function_signs_with_the_token_that_it_was_given_and_reads_its_successor(function: Region, url: str) -> None:
    store = open_store(url, {"auth": "resource_principal", "deadline": 3.0}, True)
    put(store, "a", b"text", "exclusive")
    assert type(store.calls._login[1]) is oci.auth.signers.EphemeralResourcePrincipalSigner
    forget(function.storage)
    renew(function)
    data = os.urandom(6 << 20)
    put(store, "b", data, "exclusive")
    assert store.get("b").read() == data
    forget(function.storage)
    with pytest.raises(BackendError, match="does not accept the resource principal"):
        store.stat("a")


@pytest.mark.parametrize("auth", ["instance_principal", "resource_principal"])
def test_the_doctor_passes_principals(function: Region, url: str, auth: str) -> None:
    found = {check.id: check for check in doctor.checks(url, {"auth": auth})}
    assert {check.result for check in found.values()} == {"passed"}
    assert found["credentials"].cause == f"objectstorage.{REGION}.oraclecloud.com, as {auth.replace('_', ' ')}"
