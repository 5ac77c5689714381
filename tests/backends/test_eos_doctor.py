"""What `catalog doctor` asks of XRootD alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from xrootd_server import XrootdServer

from catalog_core.records import Check
from catalog_eos.doctor import checks
from catalog_eos.store import open_store

pytestmark = pytest.mark.server


def found(url: str, **options: object) -> dict[str, Check]:
    return {check.id: check for check in checks(url, options)}


@pytest.mark.parametrize("kind", ["plain", "sss", "tokens"])
def test_a_place_that_is_fit_passes_and_keeps_nothing(xrootd_servers: dict[str, XrootdServer], kind: str) -> None:
    url = xrootd_servers[kind].fresh()[0]
    seen = found(url)
    bad = {name: check for name, check in seen.items() if check.result != "passed"}
    assert set(bad) <= {"xrootd.credentials", "xrootd.space"}, bad
    assert "adler32" in seen["eos.checksum"].cause
    assert "v5" in seen["xrootd.server"].cause
    assert "GB free" in seen["xrootd.space"].cause
    assert [name for name, _ in open_store(url, {}, True).calls.entries("tmp")] == []
    assert [name for name, _ in open_store(url, {}, True).calls.entries("claims")] == []


def test_a_mounted_folder(tmp_path: Path) -> None:
    seen = found(f"eos://{tmp_path}/models")
    assert {name: check.result for name, check in seen.items()} == {
        "eos.folder": "passed", "eos.write": "passed", "eos.checksum": "warned", "eos.clock": "passed",
        "eos.exclusive": "passed",
    }  # fmt: skip


def test_no_server_is_one_failed_check(xrootd_servers: dict[str, XrootdServer]) -> None:
    with XrootdServer() as server:
        url = server.fresh()[0]
    seen = found(url)
    assert seen["xrootd.server"].result == "failed"
    assert "does not answer" in seen["xrootd.server"].cause
    assert "eos.write" not in seen


def test_an_expired_token_is_named_by_its_file_and_never_shown(
    xrootd_servers: dict[str, XrootdServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = xrootd_servers["tokens"]
    file = server.credentials("expired")["BEARER_TOKEN_FILE"]
    url = xrootd_servers["plain"].fresh()[0]
    seen = found(url, token_file=file)["xrootd.credentials"]
    assert seen.result == "failed"
    assert file in seen.cause
    assert "expired" in seen.cause
    assert Path(file).read_text()[:20] not in seen.cause
    monkeypatch.setenv("BEARER_TOKEN_FILE", server.credentials("alice")["BEARER_TOKEN_FILE"])
    told = found(url)["xrootd.credentials"].cause
    assert re.search(r"bearer token \S+ \(valid for (1\.0|0\.[5-9]) h\)", told), told  # since the server started


def test_an_expired_proxy_is_named(
    xrootd_servers: dict[str, XrootdServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = xrootd_servers["plain"].fresh()[0]
    proxy = xrootd_servers["tokens"].folder / "sec/host.pem"  # any certificate
    monkeypatch.setenv("X509_USER_PROXY", str(proxy))
    told = found(url)["xrootd.credentials"].cause
    assert re.search(rf"x509 proxy {re.escape(str(proxy))} \(valid for 4[78]\.\d h\)", told), told
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3 * 86400)
    assert re.search(r"\(expired 24\.\d h ago\)", found(url)["xrootd.credentials"].cause)


def test_who_may_only_read_fails_at_writing(xrootd_servers: dict[str, XrootdServer]) -> None:
    server = xrootd_servers["sss"]
    program = (
        "import json, sys; from catalog_eos.doctor import checks\n"
        "print(json.dumps([[c.id, c.result, c.cause] for c in checks(sys.argv[1], {})]))"
    )
    environment = {**os.environ, **server.credentials("bob"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", program, server.fresh()[0]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    seen = {name: (result, cause) for name, result, cause in json.loads(done.stdout)}
    assert seen["xrootd.server"][0] == "passed"
    assert seen["eos.write"][0] == "failed"
    assert "you may not write there" in seen["eos.write"][1]
    assert "eos.exclusive" not in seen
