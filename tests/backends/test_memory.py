"""The store in memory keeps the contracts."""

from __future__ import annotations

import pytest

from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.contract import BackendContract, ObjectStoreContract
from catalog_core.testing.memory import MemoryStore


class TestStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self) -> ObjectStoreBackend:
        return ObjectStoreBackend(MemoryStore(), "memory", "memory://")
