"""What holds for every test: its kind is derived from its markers, so `-m unit` needs no line in each file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import xrootd_server

# A package of its own, with tests of its own: `third_party/test_stranger.py` runs them where it is installed.
collect_ignore = ["third_party/catalog_stranger"]
collect_ignore_glob: list[str] = []
# Tests of remote stores need the extra `servers`, which only their own environment installs.
NEEDS = {
    "oci": ["backends/test_oci*.py", "runners/test_oci_*.py"],
    "obstore": ["backends/test_s3.py"],
    "cryptography": ["backends/test_places_*.py", "backends/test_hybrid_sites.py"],
}
for module, files in NEEDS.items():
    if find_spec(module) is None:
        collect_ignore_glob += files
ONLY = os.environ.get("CATALOG_TEST_ONLY")  # a module: files that do not import it are left out, and not imported
KINDS = ("server", "framework", "slow", "gpu", "campaign")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """With CATALOG_TEST_ONLY: whether a file never names the module as one that it needs."""
    if ONLY is None or not collection_path.name.startswith("test_") or collection_path.suffix != ".py":
        return None
    text = collection_path.read_text()
    needs = (f'importorskip("{ONLY}")', f"import {ONLY}", f"needs: {ONLY}")
    return True if not any(need in text for need in needs) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as `unit` each test that carries no other kind."""
    for item in items:
        if not any(item.get_closest_marker(kind) for kind in KINDS):
            item.add_marker(pytest.mark.unit)


@pytest.fixture(scope="session")
def xrootd_installed() -> None:
    """XRootD's server is a system package: skips where it is missing, and fails there in CI."""
    reason = xrootd_server.missing()
    if reason is not None and os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def xrootd_servers(xrootd_installed: None) -> Iterator[dict[str, xrootd_server.XrootdServer]]:
    """A server of each kind, and the credentials of alice in the environment: the client library reads them once in a
    process, so they are set before its first connection, and other users get processes of their own."""
    kinds = ("plain", "sss", "tokens")
    before = dict(os.environ)
    with contextlib.ExitStack() as stack:
        servers = {kind: stack.enter_context(xrootd_server.XrootdServer(kind)) for kind in kinds}
        for server in servers.values():
            os.environ.update(server.credentials())
        yield servers
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def xrootd(xrootd_servers: dict[str, xrootd_server.XrootdServer]) -> xrootd_server.XrootdServer:
    """A server that lets everybody in."""
    return xrootd_servers["plain"]


@pytest.fixture(scope="session")
def running(request: pytest.FixtureRequest) -> Iterator[Callable[[str], dict[str, Any]]]:
    """The servers that a place of `places.PLACES` needs, by their names: started once, and shared by all tests."""
    import places

    with contextlib.ExitStack() as stack:
        servers: dict[str, Any] = {}

        def start(name: str) -> dict[str, Any]:
            for need in places.PLACES[name][0]:
                if need in ("plain", "sss", "tokens"):
                    servers[need] = request.getfixturevalue("xrootd_servers")[need]
                elif need not in servers:
                    servers[need] = stack.enter_context(places.SERVERS[need]())
            return servers

        yield start
