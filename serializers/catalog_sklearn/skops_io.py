"""skops.io, imported without the frameworks that happen to be installed."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

from catalog_core.quiet import quiet

TESTING = "sklearn.utils._testing"
_importing = threading.Lock()


def skops_io() -> Any:
    """The module `skops.io`.

    When it is first imported it lists all estimators. To do so scikit-learn walks all of its packages, also those that
    it leaves out of the list afterwards: among them are shims that import torch, dask and cupy. The walk here passes
    these by, and finds the same estimators. One function comes from its module for tests, which imports pytest."""
    with _importing:
        if "skops.io" not in sys.modules:
            from sklearn.utils import discovery

            before = discovery.pkgutil
            ignored = frozenset(discovery._MODULE_TO_IGNORE)
            stub = sys.modules.setdefault(TESTING, _for_tests())
            discovery.pkgutil = SimpleNamespace(
                walk_packages=lambda path=None, prefix="", onerror=None: _walk(path, prefix, ignored)
            )
            try:
                importlib.import_module("skops.io")
            finally:
                discovery.pkgutil = before
                if hasattr(stub, "__stub__"):
                    del sys.modules[TESTING]
    return importlib.import_module("skops.io")


def _for_tests() -> ModuleType:
    """What stands in for scikit-learn's module for tests while the estimators are listed."""

    @contextmanager
    def ignore_warnings(category: type[Warning] = Warning) -> Iterator[None]:
        with quiet():
            yield

    stub = ModuleType(TESTING)
    vars(stub).update(ignore_warnings=ignore_warnings, __stub__=True)
    return stub


def _walk(path: Iterable[str] | None, prefix: str, ignored: frozenset[str]) -> Iterator[pkgutil.ModuleInfo]:
    """What `pkgutil.walk_packages` gives, less what is in packages that the caller leaves out by their names."""
    for info in pkgutil.iter_modules(path, prefix):
        yield info
        name = info.name.rpartition(".")[2]
        if info.ispkg and name not in ignored and not name.startswith("_"):
            module = importlib.import_module(info.name)
            yield from _walk(module.__path__, info.name + ".", ignored)
