"""obstore, which a forked child needs a second time.

It is a compiled library that talks on threads of its own, one group for the whole process. A forked child has none of
them: a call waits there for ever, and takes answers away from its parent, which then waits for ever too. Nothing in
obstore starts them again (https://github.com/tokio-rs/tokio/issues/4301). A copy of the library's file is another
library to the loader, with threads of its own: the child loads that on first use (15 MB, about 60 ms).
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib import import_module
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from shutil import copyfileobj
from typing import Any

import obstore

from catalog_core import forks

NAME = "obstore._obstore"


class Library:
    """The copy of obstore that this process may use."""

    def __init__(self) -> None:
        self._package: Any = obstore
        self._process = forks.process()
        self._lock = forks.Lock()

    @property
    def package(self) -> Any:
        """The package `obstore`."""
        if self._process is not forks.process():
            with self._lock:
                if self._process is not forks.process():
                    forks.INHERITED.append(self._package)
                    self._package = _copy(self._package._obstore.__file__)
                    self._process = forks.process()
        return self._package

    @property
    def exceptions(self) -> Any:
        """The errors that its calls raise."""
        return self.package.exceptions


def _copy(path: str) -> Any:
    """Load a copy of the compiled library at `path`, and the package over it."""
    forks.INHERITED.append({name: sys.modules.pop(name) for name in list(sys.modules) if _is_obstore(name)})
    with open(path, "rb") as source, _nameless() as target:
        copyfileobj(source, target, 1 << 20)
        target.flush()
        loader = ExtensionFileLoader(NAME, f"/proc/self/fd/{target.name}" if type(target.name) is int else target.name)
        spec = spec_from_loader(NAME, loader)
        assert spec is not None
        module = module_from_spec(spec)
        loader.exec_module(module)
    module.__file__ = path
    sys.modules[NAME] = module
    return import_module("obstore")


def _is_obstore(name: str) -> bool:
    return name == "obstore" or name.startswith("obstore.")


def _nameless() -> Any:
    """A file for the copy: in memory where the system can, for a temporary folder may forbid to run what lies there."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("obstore"), "wb")
    return tempfile.NamedTemporaryFile(suffix=".so")


LIBRARY = Library()
