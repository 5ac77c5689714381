"""What may be wrong with a place, at every place: one clear sentence, and what to do.

Each case is met by a process of its own, through `Catalog.open`, `load` and `save`, and on the command line.
What is not here has tests of its own: full disks and read-only folders of local catalogs in `core/test_places.py`.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import places
import pytest
from s3_server import USERS
from xrootd_server import XrootdServer

from catalog_core.catalog import Catalog
from catalog_core.config import Target
from catalog_core.events import Intent, event, new_id, write_entry
from catalog_core.journal import entry_key
from catalog_core.objectstore import ObjectStoreBackend

pytestmark = pytest.mark.server
LIMIT = 240.0  # seconds after which a process that tries things is given up
LOGINS = ("XrdSec", "BEARER", "AWS_", "X509", "CATALOG")
PROGRAM = """
import json, sys, traceback
import numpy as np
from catalog_core import Catalog
from catalog_core.errors import CatalogError
from catalog_cli.main import main

met = {}
def met_by(name, call):
    try:
        call()
        met[name] = ["done", "", ""]
    except CatalogError as exc:
        met[name] = [type(exc).__name__, exc.message, exc.hint or "", "".join(traceback.format_exception(exc))]
met_by("read", lambda: Catalog.open("place", create=False).load("m@1"))
met_by("save", lambda: Catalog.open("place").save("m", {"w": np.arange(2_000_000.0)}))
print(json.dumps(met), flush=True)
main(sys.argv[1:])
"""


@attrs.frozen
class Case:
    """Something that is wrong at a place. `spoil` makes it so, and returns what is other than usual: `url`, `options`
    and `environment`. `says` is in the message and `hint` in the hint; `reads`: whether reading works nevertheless."""

    what: str
    place: str
    spoil: Callable[[Ground], Mapping[str, Any]]
    error: str
    says: str
    hint: str
    reads: bool = False


@attrs.define
class Ground:
    """A catalog with three versions, and what it stands on."""

    place: places.Place
    target: Target
    folder: Path
    stack: ExitStack

    @property
    def server(self) -> Any:
        return self.place.servers[0]

    @property
    def store(self) -> Any:
        return self.place.connect(self.target).store


def user(who: str) -> Callable[[Ground], Mapping[str, Any]]:
    """Another user of an XRootD server."""
    return lambda ground: {"environment": ground.server.credentials(who)}


def option(**options: object) -> Callable[[Ground], Mapping[str, Any]]:
    return lambda ground: {"options": options}


def wrong_key(ground: Ground) -> Mapping[str, Any]:
    path = ground.folder / "sss.wrong"
    path.touch(0o600)
    right = Path(ground.server.credentials()["XrdSecSSSKT"]).read_text()
    path.write_text(right.partition(" k:")[0] + " k:" + "0" * 64 + "\n")
    return {"environment": {"XrdSecSSSKT": str(path)}}


def wrong_secret(ground: Ground) -> Mapping[str, Any]:
    path = ground.folder / "credentials"
    path.write_text(f"[writer]\naws_access_key_id = {USERS['writer'][0]}\naws_secret_access_key = hunter2hunter2\n")
    return {"environment": {"AWS_SHARED_CREDENTIALS_FILE": str(path)}}


def other_url(old: str, new: str) -> Callable[[Ground], Mapping[str, Any]]:
    return lambda ground: {"url": ground.target.url.replace(old, new, 1)}


def other_bucket(ground: Ground) -> Mapping[str, Any]:
    _, at, rest = ground.target.url.rpartition("@")
    if not at:  # SeaweedFS makes a bucket for who may write
        return {"url": "s3://elsewhere/x", "options": {"profile": "reader"}}
    return {"url": f"oci://elsewhere@{rest}"}


def no_server(ground: Ground) -> Mapping[str, Any]:
    with XrootdServer() as server:
        return {"url": server.fresh()[0]}


def below_a_file(ground: Ground) -> Mapping[str, Any]:
    (ground.folder / "file").touch()
    return {"url": f"{ground.target.url.partition('://')[0]}://{ground.folder}/file/catalog"}


def skewed(ground: Ground) -> Mapping[str, Any]:
    ground.server.control(settings={"skew": 900.0})
    ground.stack.callback(ground.server.control, settings={"skew": 0.0})
    return {}


def no_rights(ground: Ground) -> Mapping[str, Any]:
    for folder in [ground.server.path(ground.target.url), *ground.server.path(ground.target.url).rglob("*")]:
        if folder.is_dir():
            folder.chmod(0o555)
    return {}


def small_disk(ground: Ground) -> Mapping[str, Any]:
    try:
        server = ground.stack.enter_context(XrootdServer(size=12))
    except (OSError, subprocess.SubprocessError) as exc:
        pytest.skip(f"A SMALL DISK CANNOT BE MOUNTED HERE: {exc}")
    return {"url": server.fresh()[0]}


def small_quota(ground: Ground) -> Mapping[str, Any]:
    return {"url": ground.server.fresh(quota=8 << 20)[0]}


def hole(position: int) -> Callable[[Ground], Mapping[str, Any]]:
    def spoil(ground: Ground) -> Mapping[str, Any]:
        ground.store.delete([entry_key(position)])
        return {}

    return spoil


def newer(ground: Ground) -> Mapping[str, Any]:
    """A catalog that a later release made."""
    now = time.time_ns() // 1_000_000
    created = event("catalog.created", catalog=new_id(), format=2, hash="sha256")
    entry = write_entry(None, now, [Intent(new_id(), "a@b", now, None, (created,))], {}, 0)
    target = ground.place.fresh()
    ground.place.connect(target).journal.append(lambda head: entry, {}, time.monotonic() + 30)
    return {"url": target.url}


DENIED = ("BackendError", "refuses the login", "kinit|token")
CASES = [
    Case("wrong credentials", "eos-sss", wrong_key, *DENIED),
    Case("wrong credentials", "eos-tokens", user("forged"), "BackendError", "denied|login|write", "credentials|token"),
    Case("wrong credentials", "oci", option(oci_profile="STRANGER"), "BackendError", "signature", "profile"),
    Case("wrong credentials", "s3", wrong_secret, "BackendError", "SignatureDoesNotMatch", "secret key"),
    Case("wrong place", "sqlite", below_a_file, "", "file", "init|check the path|name a folder"),
    Case("wrong place", "files", below_a_file, "", "file", "init|check the path|name a folder"),
    Case("wrong place", "eos", no_server, "Interrupted", "does not answer", "later"),
    Case("wrong place", "eos-sss", other_url("//models", "//elsewhere"), "", "denied|may not write", "credentials"),
    Case("wrong place", "oci", other_bucket, "BackendError", "does not exist", "check the URL"),
    Case("wrong place", "s3", other_bucket, "NotFound", "no such bucket", "make the bucket"),
    Case("expired token", "eos-tokens", user("expired"), "BackendError", "denied|login|write", "credentials|token"),
    Case("expired token", "oci", option(oci_profile="EXPIRED"), "ConfigError", "expired", "session"),
    Case("clock skew", "oci", skewed, "BackendError", "clock is", "NTP"),
    Case("full", "eos", small_disk, "NoSpace", "full", "free space"),
    Case("full", "oci", small_quota, "NoSpace", "quota", "gc"),
    Case("read-only", "eos", no_rights, "ReadOnly", "may not write", "rights", reads=True),
    Case("read-only", "eos-sss", user("bob"), "ReadOnly", "may not write", "rights", reads=True),
    Case("read-only", "eos-tokens", user("bob"), "ReadOnly", "may not write", "rights", reads=True),
    Case("read-only", "oci", option(oci_profile="READER"), "ReadOnly", "not write", "policy", reads=True),
    Case("read-only", "s3", option(profile="reader"), "ReadOnly", "may not be written", "rights", reads=True),
    *[
        Case(f"hole at {at}", name, hole(at), "BlobMissing", f"entry {at} is missing", "restore")
        for name in ("files", "eos", "oci", "s3")
        for at in (0, 2)
    ],
    *[
        Case("newer format", name, newer, "UpgradeRequired", "format 2", "upgrade")
        for name in ("sqlite", "files", "eos", "oci", "s3")
    ],
]


@pytest.fixture
def grounds(running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Ground]]:
    """Makes a catalog at a place."""
    with ExitStack() as stack:

        def make(name: str) -> Ground:
            place = stack.enter_context(places.start(name, running(name)))
            for key, value in {**place.environment, "CATALOG_CACHE_DIR": str(tmp_path / "cache")}.items():
                monkeypatch.setenv(key, value)
            target = place.fresh()
            with Catalog(place.connect(target), "place", max_staleness=0) as catalog:
                catalog.repository.begin()
                for number in range(3):
                    catalog.save("m", {"w": np.full(20_000, number, np.int32)})
            return Ground(place, target, tmp_path, stack)

        yield make


def one_line(said: str) -> None:
    """What the command line printed is an error and at most one hint."""
    lines = said.splitlines()
    assert lines and lines[0].startswith("error: "), said
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), said
    assert max(map(len, lines)) < 600


def from_elsewhere(ground: Ground, changed: Mapping[str, Any], *command: str) -> tuple[dict[str, list[str]], int, str]:
    """What a process meets at the place: through the API, and the command's exit code and what it said."""
    options = {**ground.target.options, **changed.get("options", {})}
    table = [f"url = {json.dumps(changed.get('url', ground.target.url))}"]
    table += [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    (ground.folder / "catalog.toml").write_text("[catalogs.place]\n" + "\n".join(table) + "\n")
    (ground.folder / "w.bin").write_bytes(os.urandom(16 << 20))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(LOGINS)}
    environment |= {**ground.place.environment, **changed.get("environment", {})}
    environment["CATALOG_CONFIG"] = str(ground.folder / "catalog.toml")
    environment["CATALOG_CACHE_DIR"] = str(ground.folder / "elsewhere")
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--catalog", "place", *command],
        cwd=ground.folder, env=environment, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    met: dict[str, list[str]] = json.loads(done.stdout.splitlines()[0])
    return met, done.returncode, done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.what}-{case.place}".replace(" ", "_"))
def test_what_is_wrong_is_said_in_one_sentence(grounds: Callable[[str], Ground], case: Case) -> None:
    ground = grounds(case.place)
    changed = case.spoil(ground)
    met, code, said = from_elsewhere(ground, changed, "save", "m", "w.bin")
    print(json.dumps([case.what, case.place, *(entry[:3] for entry in met.values()), said]))
    assert code == 1
    one_line(said)
    for step, (kind, message, hint, *_) in met.items():
        if step == "read" and (case.reads or case.what == "full"):
            continue
        assert kind == case.error or not case.error, (step, kind, message)
        assert re.search(case.says, message), (step, message)
        assert re.search(case.hint, hint), (step, hint)
        assert len(message) < 600 and "\n" not in message
    assert (met["read"][0] == "done") == case.reads
    assert "hunter2" not in json.dumps(met) + said
    token = changed.get("environment", {}).get("BEARER_TOKEN_FILE")
    assert token is None or Path(token).read_text()[:40] not in json.dumps(met) + said


FOREIGN = [
    *("notes.txt", "journal/README", "journal/0000000000/notes", "journal/0000000000/0000000000/zzz"),
    *("blobs/sha256/ab/readme.txt", "segments/x", ".DS_Store"),
]


@pytest.mark.parametrize("name", [name for name in places.STORES if name != "memory"])
def test_what_strangers_put_there_is_left_alone(grounds: Callable[[str], Ground], name: str) -> None:
    ground = grounds(name)
    store = ground.store
    for key in FOREIGN:
        store.put(key, io.BytesIO(b"stranger"), 8, "content")
    with Catalog(ObjectStoreBackend(store, name, "x://strangers"), "place", max_staleness=0) as catalog:
        assert catalog.position == 3
        assert catalog.save("m", {"w": np.full(20_000, 3, np.int32)}).number == 4
        assert [int(catalog.load(version)["w"][0]) for version in catalog.versions("m")] == [3, 2, 1, 0]
        assert catalog.fsck().clean
        catalog.gc(grace=-1)
        assert catalog.fsck().clean
    left = {info.key for info in store.list("")}
    assert left >= set(FOREIGN)
