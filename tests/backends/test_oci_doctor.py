"""What `catalog doctor oci://…` finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from oci_server import NAMESPACE, OCIServer
from oci_store import bare, calm, new_store, run

from catalog_core import doctor as core_doctor
from catalog_core.config import Target
from catalog_oci import doctor
from catalog_oci.store import OCIStore, open_store

pytestmark = pytest.mark.server
running, server, store = pytest.fixture(run, scope="module"), pytest.fixture(calm), pytest.fixture(new_store)


def examine(url: str, options: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {check.id: (check.result, check.cause) for check in doctor.checks(url, {"deadline": 1.0, **options})}


def test_the_doctor_passes_a_bucket_that_is_fine_and_writes_nothing(server: OCIServer, store: OCIStore) -> None:
    found = examine(f"oci://{store.bucket}@{NAMESPACE}/team", server.options())
    assert {result for result, _ in found.values()} == {"passed"}
    assert tuple(found) == doctor.NAMES
    assert f"profile 'DEFAULT' of {server.config}" in found["credentials"][1]
    assert list(bare(server).list_objects(NAMESPACE, store.bucket).data.objects) == []


@pytest.mark.parametrize(
    ("check", "words", "change"),
    [
        ("credentials", "no profile 'NOBODY'", {"oci_profile": "NOBODY"}),
        ("credentials", "key file of profile 'MISSING'", {"oci_profile": "MISSING"}),
        ("credentials", "expired at", {"oci_profile": "EXPIRED"}),
        ("signature", "does not accept the signature", {"oci_profile": "STRANGER"}),
        ("signature", "connection refused", {"service_endpoint": "http://127.0.0.1:9"}),
        ("bucket", "does not exist", {"url": f"oci://nothing@{NAMESPACE}/x"}),
        ("bucket", "no namespace 'other'", {"url": "oci://nothing@other/x"}),
    ],
)
def test_the_doctor_names_what_fails_and_skips_the_rest(
    server: OCIServer, store: OCIStore, check: str, words: str, change: dict[str, str]
) -> None:
    url = change.pop("url", f"oci://{store.bucket}@{NAMESPACE}/team")
    found = examine(url, {**server.options(), **change})
    assert found[check][0] == "failed"
    assert words in found[check][1]
    later = list(found)[list(found).index(check) + 1 :]
    assert {found[name][0] for name in later} == {"skipped"}


def test_the_doctor_warns_of_what_the_bucket_keeps(server: OCIServer) -> None:
    rule = {"id": "r", "displayName": "keep", "duration": {"timeAmount": 30, "timeUnit": "DAYS"}}
    found = examine(*server.fresh(versioning="Enabled", retention=[rule], publicAccessType="ObjectRead"))
    assert [name for name, (result, _) in found.items() if result == "warned"] == ["bucket", "versioning", "retention"]
    assert "lifecycle" in found["versioning"][1]
    assert "30 days" in found["retention"][1]


def test_the_doctor_warns_of_a_clock_before_it_is_refused(server: OCIServer, store: OCIStore) -> None:
    url = f"oci://{store.bucket}@{NAMESPACE}/team"
    for skew, result in ((100, "warned"), (270, "failed")):
        server.control(settings={"skew": skew})
        assert examine(url, server.options())["clock"][0] == result
    server.control(settings={"skew": 400})
    assert "clock is" in examine(url, server.options())["signature"][1]


def test_the_doctor_says_who_may_only_read(server: OCIServer, store: OCIStore) -> None:
    found = examine(f"oci://{store.bucket}@{NAMESPACE}/team", server.options("READER"))
    assert found["rights to read"][0] == "passed"
    assert found["rights to write"][0] == "warned"


def test_the_doctor_races_in_the_bucket_and_cleans_up(
    server: OCIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of `catalog doctor`, of which the checks above are the part of this backend."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path))
    url, options = server.fresh()
    checks = {check.id: check for check in core_doctor.examine(Target("probe", url, options), rounds=5)}
    assert [check for check in checks.values() if check.result == "failed"] == []
    assert checks["race"].result == "passed"
    assert set(doctor.NAMES) <= checks.keys()
    left = [info.key for info in open_store(url, options, False).list("")]
    assert [key for key in left if key.startswith("journal/")] == []
    assert len(left) <= 1  # the note that the race was passed
