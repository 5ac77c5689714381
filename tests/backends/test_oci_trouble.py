"""Wrong users, clocks, places and rights, and full buckets: one clear sentence each, and no secret in it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oci_server import NAMESPACE, OCIServer
from oci_store import calm, cut_small, new_store, other_user, put, run

from catalog_core import Catalog
from catalog_core.errors import BackendError, CatalogError, ConfigError, NoSpace, ReadOnly
from catalog_oci import doctor
from catalog_oci.store import OCIStore, open_store

pytestmark = pytest.mark.server
running, server, store = pytest.fixture(run, scope="module"), pytest.fixture(calm), pytest.fixture(new_store)
small_parts = pytest.fixture(cut_small)


def refused(server: OCIServer, store: OCIStore, kind: type[CatalogError], profile: str = "DEFAULT", **more: Any) -> str:
    """The message of each verb's error, which must all be of `kind`."""
    texts = set()
    other = other_user(server, store, profile, **more)
    for verb in (
        lambda: put(other, "x", b"x"),
        lambda: other.get("x"),
        lambda: other.stat("x"),
        lambda: list(other.list("")),
        lambda: other.delete(["x"]),
    ):
        with pytest.raises(CatalogError) as caught:
            verb()
        assert type(caught.value) is kind
        assert caught.value.hint
        texts.add(str(caught.value))
    return "\n".join(texts)


def test_a_key_that_the_service_does_not_know(server: OCIServer, store: OCIStore) -> None:
    text = refused(server, store, BackendError, "STRANGER")
    assert "does not accept the signature of profile 'STRANGER'" in text
    assert "opc-request-id" in text


def test_no_key_no_profile_no_file(server: OCIServer, store: OCIStore, tmp_path: Path) -> None:
    assert "key file of profile 'MISSING'" in refused(server, store, ConfigError, "MISSING")
    assert "no profile 'NOBODY'" in refused(server, store, ConfigError, "NOBODY")
    nowhere = str(tmp_path / "none")
    assert "does not exist" in refused(server, store, ConfigError, oci_config_file=nowhere)
    broken = tmp_path / "config"
    broken.write_text(server.config.read_text().replace("fingerprint", "finger"))
    assert "fingerprint is missing" in refused(server, store, ConfigError, oci_config_file=str(broken))
    (tmp_path / "bad.pem").write_text("-----BEGIN RSA PRIVATE KEY-----\nnot\n-----END RSA PRIVATE KEY-----\n")
    broken.write_text(server.config.read_text().replace(str(server.run / "default.pem"), str(tmp_path / "bad.pem")))
    assert "private key" in refused(server, store, ConfigError, oci_config_file=str(broken))


def test_no_principal_outside_of_oracle_cloud(
    server: OCIServer, store: OCIStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCI_METADATA_BASE_URL", server.endpoint)  # else the SDK asks 169.254.169.254
    assert "no instance principal" in refused(server, store, ConfigError, auth="instance_principal")
    assert "no resource principal" in refused(server, store, ConfigError, auth="resource_principal")


def test_an_expired_session_says_how_to_renew_it(server: OCIServer, store: OCIStore) -> None:
    text = refused(server, store, ConfigError, "EXPIRED")
    assert "expired at 20" in text
    assert "oci session authenticate" in text


def test_a_session_that_is_renewed_goes_on(server: OCIServer, store: OCIStore, tmp_path: Path) -> None:
    """Its file holds a token that the service refuses; while we are told so, `oci session refresh` writes a new one."""
    path = tmp_path / "token"
    good = (server.run / "token.token").read_text()
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace(str(server.run / "token.token"), str(path)))
    path.write_text(good)
    other = other_user(server, store, "TOKEN", oci_config_file=str(config))
    put(other, "a", b"a")
    path.write_text("a.b.c")
    other.calls._log_in_again()
    with pytest.raises(BackendError, match="signature"):
        other.stat("a")
    path.write_text(good)
    assert other.stat("a") is not None


@pytest.mark.parametrize("skew", [-400, 400])
def test_a_wrong_clock_is_called_a_wrong_clock(server: OCIServer, store: OCIStore, skew: int) -> None:
    server.control(settings={"skew": skew})
    text = refused(server, store, BackendError)
    assert f"clock is {abs(skew)} s {'behind' if skew > 0 else 'ahead'}" in text.replace("399", "400").replace(
        "401", "400"
    )
    server.control(settings={"skew": skew * 0.7})
    put(store, "a", b"a")


def test_a_wrong_bucket_or_namespace(server: OCIServer, store: OCIStore) -> None:
    right = store.bucket
    for attribute, value, words in (
        ("bucket", "nothing", "bucket 'nothing' of namespace 'openlab' does not exist"),
        ("namespace", "elsewhere", "no namespace 'elsewhere'"),
    ):
        other = other_user(server, store)
        setattr(other, attribute, value)
        setattr(other.calls, attribute, value)
        for verb in (lambda: put(other, "x", b""), lambda: other.stat("x"), lambda: other.get("x")):  # noqa: B023
            with pytest.raises(BackendError, match=words):
                verb()
    assert store.bucket == right


@pytest.mark.parametrize("denied", ["hidden", "403"])
def test_a_user_who_may_only_read(server: OCIServer, store: OCIStore, small_parts: None, denied: str) -> None:
    server.control(settings={"denied": denied})
    put(store, "a", b"text")
    reader = other_user(server, store, "READER")
    assert reader.get("a").read() == b"text"
    assert [info.key for info in reader.list("")] == ["a"]
    for verb in (
        lambda: put(reader, "b", b"x", "exclusive"),
        lambda: put(reader, "b", bytes(3 << 20)),
        lambda: put(reader, "a", b"x", "hint"),
        lambda: reader.delete(["a"]),
    ):
        with pytest.raises(ReadOnly, match=r"may read, but not write.*policy"):
            verb()
    assert [info.key for info in store.list("")] == ["a"]


def test_a_full_bucket(server: OCIServer, small_parts: None) -> None:
    url, options = server.fresh(quota=4 << 20)
    store = open_store(url, options, True)
    put(store, "a", bytes(1 << 20))
    for mode, size in (("exclusive", (2 << 20) - 1), ("content", 3 << 20)):
        put(store, "b", bytes(1 << 20), "hint")
        with pytest.raises(NoSpace, match=r"quota.*catalog gc"):
            put(store, "c", bytes(size + (1 << 20)), mode)
    assert [info.key for info in store.list("")] == ["a", "b"]


def test_a_catalog_of_a_reader_and_in_a_full_bucket(
    server: OCIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a user of the catalog reads, not of the store; nothing half is published."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    url, options = server.fresh(quota=3 << 20)
    table = "".join(
        f'[catalogs.{name}]\nurl = "{url}"\n' + "".join(f'{key} = "{value}"\n' for key, value in keys.items())
        for name, keys in {"writer": options, "reader": server.options("READER")}.items()
    )
    (tmp_path / "catalog.toml").write_text(table)
    monkeypatch.setenv("CATALOG_CONFIG", str(tmp_path / "catalog.toml"))
    with Catalog.open("writer", create=True) as catalog:
        catalog.save("m", {"w": np.arange(1000)})
        with pytest.raises(NoSpace, match=r"quota is used up.*nothing was published"):
            catalog.save("m", {"w": np.random.default_rng(0).random(1 << 19)})
    with Catalog.open("reader") as catalog:
        assert [version.number for version in catalog.model("m").versions] == [1]
        assert catalog.load("m@1")["w"][-1] == 999
        with pytest.raises(ReadOnly, match=r"may read, but not write.*policy"):
            catalog.save("m", {"w": np.arange(2000)})


def test_a_retention_rule_forbids_to_delete(server: OCIServer) -> None:
    url, options = server.fresh(retention=[{"id": "r", "displayName": "keep"}])
    store = open_store(url, options, True)
    put(store, "a", b"a")
    with pytest.raises(ReadOnly, match="retention rule"):
        store.delete(["a"])
    assert store.get("a").read() == b"a"


def test_no_secret_is_in_a_message_or_a_log(
    server: OCIServer,
    store: OCIStore,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """All errors of all users, with every logger at DEBUG and the SDK asked to log requests."""
    config = tmp_path / "config"
    words = "correct horse battery"
    text = server.config.read_text().replace("region=", f"log_requests=true\npass_phrase={words}\nregion=")
    config.write_text(text)
    secrets = [words, *(path.read_text() for path in server.run.glob("*.token"))]
    secrets += [line for path in server.run.glob("*.pem") for line in path.read_text().splitlines()[1:-1]]
    shown = []
    with caplog.at_level(logging.DEBUG):
        for profile in ("DEFAULT", "READER", "TOKEN", "EXPIRED", "STRANGER", "MISSING"):
            url = f"oci://{store.bucket}@{NAMESPACE}/x"
            options = {**server.options(profile), "oci_config_file": str(config), "deadline": 0.3}
            for fault in ("", "503", "drop"):
                server.fault(*([{"fault": fault, "times": -1}] if fault else []))
                try:
                    put(open_store(url, options, False), "a", b"a", "hint")
                except CatalogError as exc:
                    error: BaseException | None = exc
                    while error is not None:
                        shown.append(f"{error} {error!r} {getattr(error, 'hint', '')}")
                        error = error.__cause__ or error.__context__
                shown += [f"{check}" for check in doctor.checks(url, options)]
    out = "\n".join([*shown, caplog.text, *capfd.readouterr()])
    assert len(shown) > 50
    assert [secret for secret in secrets if len(secret) > 20 and secret in out] == []
    assert words not in out
