"""Places where a catalog can live, with the real servers behind them: one table, so that a new place is one more row.

    with places.start("eos") as place:
        target = place.fresh()                      # a new, empty place, as the configuration would name it
        place.servers[0].kill(); place.servers[0].start()

A process that talks to the place needs `place.environment`.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
from oci_server import OCIServer
from s3_server import S3Server
from xrootd_server import XrootdServer

from catalog_core.backends import connect
from catalog_core.backends import places as stores
from catalog_core.catalog import Catalog
from catalog_core.config import Target, resolve
from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.plugins import registry
from catalog_core.testing.memory import MemoryStore
from catalog_hybrid.store import HybridStore


@attrs.frozen
class Place:
    """`fresh` names a new, empty place; `environment` holds what a process needs to log in; `servers` can be killed and
    started again; `connect` makes a backend of what `fresh` returned."""

    name: str
    fresh: Callable[[], Target]
    environment: Mapping[str, str] = attrs.field(factory=dict)
    servers: tuple[Any, ...] = ()
    connect: Callable[[Target], Any] = lambda target: connect(target, create=True)
    bare: Callable[[Target], Any] | None = None  # the store alone, where a catalog would not leave it empty
    replicas: Callable[[Target], list[Target]] = lambda target: []

    def backend(self) -> Any:
        """A backend on a new, empty place."""
        return self.connect(self.fresh())

    def store(self) -> Any:
        """A store at a new, empty place."""
        return self.backend().store if self.bare is None else self.bare(self.fresh())


def _in_folder(scheme: str, name: str, servers: Mapping[str, Any]) -> Place:
    return Place(name, lambda: Target(name, f"{scheme}://{servers['folder']}/{secrets.token_hex(6)}"))


def _in_memory(name: str, servers: Mapping[str, Any]) -> Place:
    return Place(
        name,
        lambda: Target(name, f"memory://{secrets.token_hex(6)}"),
        connect=lambda target: ObjectStoreBackend(MemoryStore(), "memory", target.url),
    )


def _on_eos(kind: str, name: str, servers: Mapping[str, Any]) -> Place:
    server = servers[kind]
    return Place(name, lambda: Target(name, *server.fresh()), server.credentials(), (server,))


def _on_oci(name: str, servers: Mapping[str, Any]) -> Place:
    return Place(name, lambda: Target(name, *servers["oci"].fresh()), servers=(servers["oci"],))


def _on_s3(name: str, servers: Mapping[str, Any]) -> Place:
    server = servers["s3"]
    keys = {"AWS_SHARED_CREDENTIALS_FILE": str(server.credentials)}
    return Place(name, lambda: Target(name, *server.fresh()), keys, (server,))


def _hybrid(primary: str, replica: str, name: str, servers: Mapping[str, Any]) -> Place:
    """Two places as one: a configuration file names them, as a user's does."""
    parts = {part: PLACES[part][1](part, servers) for part in (primary, replica)}
    config = Path(servers["folder"]) / f"{name}-{secrets.token_hex(4)}.toml"
    config.touch()

    def fresh() -> Target:
        names = []
        with config.open("a") as file:
            for part, place in parts.items():
                target = place.fresh()
                names.append(f"{part}-{secrets.token_hex(4)}")
                options = "".join(f"{key} = {json.dumps(value)}\n" for key, value in target.options.items())
                file.write(f"[catalogs.{names[-1]}]\nurl = {json.dumps(target.url)}\n{options}")
        options = {"primary": names[0], "replicas": [names[1]], "durability": "async"}
        return Target(name, f"hybrid://{name}/{'+'.join(names)}", options)

    def bare(target: Target) -> HybridStore:
        named = stores(registry().backends["hybrid"], target)
        store = HybridStore({part: named[part] for part in (target.options["primary"], *target.options["replicas"])})
        store.look(create=True)
        return store

    environment = {"CATALOG_CONFIG": str(config)}
    for place in parts.values():
        environment.update(place.environment)
    down = tuple(server for place in parts.values() for server in place.servers)

    def replicas(target: Target) -> list[Target]:
        return [resolve(part) for part in target.options["replicas"]]

    return Place(name, fresh, environment, down, bare=bare, replicas=replicas)


SERVERS: dict[str, Callable[[], Any]] = {
    "folder": tempfile.TemporaryDirectory,
    "plain": partial(XrootdServer, "plain"),
    "sss": partial(XrootdServer, "sss"),
    "tokens": partial(XrootdServer, "tokens"),
    "oci": partial(OCIServer, process=True),
    "s3": S3Server,
}
PLACES: dict[str, tuple[tuple[str, ...], Callable[[str, Mapping[str, Any]], Place]]] = {
    "sqlite": (("folder",), partial(_in_folder, "sqlite")),
    "memory": ((), _in_memory),
    "files": (("folder",), partial(_in_folder, "file")),
    "eos": (("plain",), partial(_on_eos, "plain")),
    "eos-sss": (("sss",), partial(_on_eos, "sss")),
    "eos-tokens": (("tokens",), partial(_on_eos, "tokens")),
    "oci": (("oci",), _on_oci),
    "s3": (("s3",), _on_s3),
    "hybrid": (("folder", "plain", "oci"), partial(_hybrid, "eos", "oci")),
    "reverse": (("folder", "plain", "oci"), partial(_hybrid, "oci", "eos")),
}
STORES = [name for name in PLACES if name != "sqlite"]  # those that are an ObjectStore below
REMOTE = [name for name in STORES if name not in ("memory", "files")]


@contextmanager
def start(name: str, running: Mapping[str, Any] | None = None) -> Iterator[Place]:
    """A place, on servers of its own where they are not among the `running` ones."""
    needs, make = PLACES[name]
    with ExitStack() as stack:
        yield make(name, {n: (running or {}).get(n) or stack.enter_context(SERVERS[n]()) for n in needs})


class Worker:
    """A process of `place_worker.py`, which is another machine: it has a cache of its own in `folder`."""

    def __init__(self, place: Place, target: Target, role: str, name: str, folder: Path, **more: Any) -> None:
        folder.mkdir()
        job = {"role": role, "url": target.url, "options": dict(target.options), "name": name, "scratch": str(folder)}
        path = os.pathsep.join(entry for entry in sys.path if entry)
        environment = {
            **os.environ,
            **place.environment,
            "PYTHONPATH": path,
            "CATALOG_CACHE_DIR": str(folder / "cache"),
        }
        command = [sys.executable, str(Path(__file__).with_name("place_worker.py"))]
        self.name = name
        self._process = subprocess.Popen(
            [*command, json.dumps(job | {"seconds": 600.0} | more)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ready(self) -> None:
        """Wait until it has opened the catalog."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == b"ready\n", f"{self.name} ended with {self._process.wait(30)}"

    def go(self) -> None:
        """Let it begin; called again, let it end after what it is doing."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b".")
            self._process.stdin.flush()
        except BrokenPipeError:  # its time was up
            pass

    def result(self, timeout: float) -> list[dict[str, Any]]:
        """What it did, when it has ended; it has `timeout` seconds for that."""
        try:
            out, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        assert self._process.returncode == 0, f"{self.name} ended with {self._process.returncode}"
        done: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
        return done


def verified(place: Place, target: Target, folder: Path, name: str = "verify") -> dict[int, list[Any]]:
    """All versions as a new machine finds them: by number, who saved it, and as which. Each was loaded and compared,
    there is no gap, and the catalog is whole."""
    worker = Worker(place, target, "verify", name, folder / name)
    worker.ready()
    worker.go()
    *versions, fsck = worker.result(240)
    wrong = [record for record in versions if record["error"]]
    assert not wrong, wrong[:3]
    assert fsck["result"] == [], fsck
    assert [int(record["what"]) for record in versions] == list(range(1, len(versions) + 1))
    return {int(record["what"]): record["result"] for record in versions}


def followed(place: Place, target: Target, folder: Path, found: Mapping[int, list[Any]]) -> None:
    """Each replica of a hybrid is brought up to date, and holds the same versions by itself."""
    if "replicas" not in target.options:
        return
    with (
        mock.patch.dict(os.environ, {**place.environment, "CATALOG_CACHE_DIR": str(folder / "followed")}),
        Catalog(place.connect(target), "followed", max_staleness=0) as catalog,
    ):
        catalog.sync()
        flaws = catalog.audit(deep=True).flaws
        assert not flaws, flaws[:3]
        copies = place.replicas(target)
    for number, replica in enumerate(copies):
        assert verified(place, replica, folder, f"replica-{number}") == found
