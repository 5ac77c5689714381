"""Stores in memory as the sites of a hybrid catalog: they can be away, slow, and damaged."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core.catalog import Catalog
from catalog_core.errors import (
    BackendError,
)
from catalog_core.interfaces.store import ObjectStore, Place
from catalog_core.objectstore import ObjectStoreBackend, blob_key
from catalog_core.testing.faults import FaultyStore
from catalog_core.testing.memory import MemoryStore
from catalog_hybrid.store import HybridStore


class Site(FaultyStore):
    """A store that can be away, and be damaged."""

    def __init__(self, name: str) -> None:
        super().__init__(MemoryStore())
        self.name = name
        self.away = False
        self.refused = 0  # calls while it was away
        self.held: threading.Event | None = None  # calls wait for it
        self.place = Place(f"memory://{name}", self._open)

    def _open(self, create: bool) -> ObjectStore:
        return self

    def _enter(self, verb: Any) -> BaseException | None:
        if self.away:
            self.refused += 1
            raise BackendError(f"{self.name} is away", backend=self.name)
        if self.held is not None:
            self.held.wait(120)
        return super()._enter(verb)

    def damage(self, key: str) -> None:
        """Flip a byte of a stored blob."""
        data, when = self.store._objects[blob_key(key)]  # type: ignore[attr-defined]
        self.store._objects[blob_key(key)] = (bytes([data[0] ^ 1]) + data[1:], when)  # type: ignore[attr-defined]

    def drop(self, key: str) -> None:
        self.store.delete([blob_key(key)])

    def has(self, key: str) -> bool:
        return self.store.stat(blob_key(key)) is not None

    def blobs(self) -> set[str]:
        return {info.key for info in self.store.list("blobs/")}


class World:
    """Sites, and machines that open them. Each machine has an index and a cache of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.sites = {name: Site(name) for name in names}
        self.folder = folder
        self._patch = monkeypatch
        self._opened: list[Catalog] = []
        self.machine("one")

    def machine(self, name: str) -> None:
        """From now on somebody else, somewhere else."""
        self._patch.setenv("CATALOG_CACHE_DIR", str(self.folder / name))

    @property
    def calls(self) -> int:
        """How many calls all sites have met, or would have."""
        return sum(site.calls.total() + site.refused for site in self.sites.values())

    def fails_over(self, away: str = "cern", to: str = "oracle", machine: str = "two") -> None:
        """`away` goes away, and somebody else makes `to` the primary."""
        self.sites[away].away = True
        self.machine(machine)
        self.open(stale=True).failover(to)

    def open(self, durability: str = "manual", *, stale: bool = False, url: str = "hybrid://h", **more: Any) -> Catalog:
        store = HybridStore({name: site.place for name, site in self.sites.items()}, durability, stale=stale)
        store.look(create=True)
        store.begin(create=True)
        return self._catalog(store, url, stale=stale, **more)

    def direct(self, name: str) -> Catalog:
        """A part of it, opened without knowing of the others."""
        return self._catalog(self.sites[name], f"memory://{name}")

    def _catalog(self, store: Any, url: str, **more: Any) -> Catalog:
        catalog = Catalog(ObjectStoreBackend(store, "hybrid", url), "h", max_staleness=0, **more)
        if catalog.repository.index.head is None:
            catalog.repository.begin()
        self._opened.append(catalog)
        return catalog

    def close(self) -> None:
        for catalog in self._opened:
            catalog.close()


def weights(seed: int = 0, size: int = 40_000) -> dict[str, Any]:
    return {"w": np.random.default_rng(seed).normal(size=size)}


def same(catalog: Catalog, ref: str, seed: int) -> bool:
    return bool((catalog.load(ref)["w"] == weights(seed)["w"]).all())


def big(catalog: Catalog, ref: str) -> str:
    """The key of the largest blob of a version."""
    chunks = [chunk for parts in catalog.artifact(ref).layout.values() for chunk in parts]
    largest = max(chunks, key=lambda chunk: chunk.length)
    return catalog.repository.index.key(largest.pack or largest.digest)
