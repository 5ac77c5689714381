"""skops.io, imported without the frameworks that happen to be installed."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

_importing = threading.Lock()


def skops_io() -> Any:
    """The module `skops.io`.

    When it is first imported it lists all estimators. To do so scikit-learn walks all of its packages, also those that
    it leaves out of the list afterwards: among them are shims that import torch, dask and cupy. The walk here passes
    these by, and finds the same estimators."""
    with _importing:
        if "skops.io" not in sys.modules:
            from sklearn.utils import discovery

            before = discovery.pkgutil
            ignored = frozenset(discovery._MODULE_TO_IGNORE)
            discovery.pkgutil = SimpleNamespace(
                walk_packages=lambda path=None, prefix="", onerror=None: _walk(path, prefix, ignored)
            )
            try:
                importlib.import_module("skops.io")
            finally:
                discovery.pkgutil = before
    return importlib.import_module("skops.io")


def _walk(path: Iterable[str] | None, prefix: str, ignored: frozenset[str]) -> Iterator[pkgutil.ModuleInfo]:
    """What `pkgutil.walk_packages` gives, less what is in packages that the caller leaves out by their names."""
    for info in pkgutil.iter_modules(path, prefix):
        yield info
        name = info.name.rpartition(".")[2]
        if info.ispkg and name not in ignored and not name.startswith("_"):
            module = importlib.import_module(info.name)
            yield from _walk(module.__path__, info.name + ".", ignored)
