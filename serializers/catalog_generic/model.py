"""A folder with a `score.py`, that defines `load_model()` and `predict(…, model)`."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import itertools
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from catalog_core import folders, forks
from catalog_core.errors import NotTrusted, SerializationError

SCORE = "score.py"
MAX_SOURCE = 10 << 20
_numbers = itertools.count()
_importing = forks.Lock(threading.RLock)


class GenericModel:
    """`folder/score.py`, imported, with what its `load_model` gave as `model`. Its code runs when this is made, and may
    do anything: without `trust=True` it raises `NotTrusted`. Files beside it can be imported while it is imported."""

    def __init__(self, folder: str | os.PathLike[str], *, trust: bool = False, keep: Any = None) -> None:
        self.folder = Path(folder)
        self.parameters = parameters(self.folder)
        if not trust:
            raise NotTrusted(
                f"{SCORE} is code that its author chose, and would run here", hint="trust=True, if you trust the author"
            )
        self._keep = keep  # the temporary folder lives as long as the model
        try:
            with _importing, _beside(self.folder):
                self.module = _imported(self.folder / SCORE)
                self.model = self.module.load_model()
        except Exception as exc:  # the author's code
            cause = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
            raise SerializationError(f"{SCORE} cannot load its model: {cause}") from exc

    def predict(self, **inputs: Any) -> Any:
        """What `score.predict` gives; it gets the model where it has a parameter of that name."""
        more = {"model": self.model} if _takes_model(self.folder) else {}
        return self.module.predict(**inputs, **more)

    def __deepcopy__(self, memo: Any) -> GenericModel:
        """Itself: what the model holds is not known."""
        return self


def source(folder: Path) -> str:
    """The text of `score.py`. Raises `SerializationError` where there is none."""
    path = folder / SCORE
    if not path.is_file() or path.stat().st_size > MAX_SOURCE:
        raise SerializationError(f"{folder} holds no {SCORE}", hint="it defines load_model() and predict(…, model)")
    return path.read_text(encoding="utf-8", errors="strict")


def _predict(folder: Path) -> ast.FunctionDef:
    try:
        found = {node.name: node for node in ast.parse(source(folder)).body if isinstance(node, ast.FunctionDef)}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise SerializationError(f"{SCORE} is no Python: {exc}") from exc
    missing = [name for name in ("load_model", "predict") if name not in found]
    if missing:
        raise SerializationError(f"{SCORE} does not define {missing[0]}", hint="load_model() and predict(…, model)")
    return found["predict"]


def parameters(folder: Path) -> list[str]:
    """The names of what `predict` takes besides the model, in order, read without running it; empty where it takes
    any (`**inputs`)."""
    given = _predict(folder).args
    names = [item.arg for item in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    if given.posonlyargs:
        raise SerializationError(f"predict of {SCORE} takes parameters by position only", hint="remove the /")
    return [name for name in names if name != "model"]


def _takes_model(folder: Path) -> bool:
    given = _predict(folder).args
    return "model" in {item.arg for item in (*given.args, *given.kwonlyargs)}


def files_of(folder: Path) -> dict[str, Path]:
    """Every file of the folder by its name in it, less `__pycache__`. Raises `SerializationError` for a link."""
    return dict(content(folder).files)


def content(folder: Path) -> folders.Folder:
    """The same, with what may be executed and which folders are empty."""
    return folders.read(folder, follow=False, skip=lambda name: name == "__pycache__", error=SerializationError)


def arrays(result: Any) -> dict[str, Any]:
    """What `predict` gave, as arrays by name: a mapping by its keys, a tuple by position, else `output`."""
    if isinstance(result, Mapping):
        parts = {str(key): value for key, value in result.items()}
    elif isinstance(result, tuple):
        parts = {f"output_{number}": value for number, value in enumerate(result)}
    else:
        parts = {"output": result}
    found = {name: np.asarray(value.numpy() if hasattr(value, "numpy") else value) for name, value in parts.items()}
    for name, array in found.items():
        if array.dtype.hasobject or array.dtype.kind in "US":
            raise SerializationError(f"{name!r} of what predict gave is no array of numbers")
    return found


def _imported(path: Path) -> ModuleType:
    name = f"catalog_score_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        sys.modules[name] = module  # dataclasses look for it there
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    finally:
        sys.dont_write_bytecode = before
    return module


class _Beside:
    """Finds modules in one folder, before any other place."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A top-level module of the folder."""
        if path is not None or name in sys.stdlib_module_names:
            return None
        return importlib.machinery.PathFinder.find_spec(name, [self.folder])


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Modules beside `score.py` can be imported in here, and are forgotten after: another model has its own."""
    finder, known = _Beside(folder), set(sys.modules)
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        root = str(folder) + os.sep
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(root) and not name.startswith(
                "catalog_score_"
            ):
                del sys.modules[name]
