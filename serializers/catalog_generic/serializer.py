"""A folder with a `score.py` ↔ its files, as they are."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalog_core.axes import measured
from catalog_core.errors import BackendError, CatalogError, NotTrusted, SerializationError
from catalog_core.folders import restore
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest, Signature, Trial
from catalog_core.names import check_file
from catalog_core.records import Description
from catalog_generic import model
from catalog_generic.model import GenericModel


class GenericSerializer:
    """See `interfaces.serializer`. It takes a `Path`, which it never runs, or a `GenericModel`, which was trusted."""

    name = "generic"
    save_options = ()

    @staticmethod
    def _folder(obj: Any) -> Path:
        if isinstance(obj, GenericModel):
            return obj.folder
        if isinstance(obj, Path) and obj.is_dir():
            return obj
        raise SerializationError(f"{obj!r} is no folder with a {model.SCORE}"[:300], hint="a Path, or a GenericModel")

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Write every file of the folder."""
        folder = self._folder(obj)
        inputs = model.parameters(folder)
        content = model.content(folder)
        for name, path in content.files.items():
            shutil.copyfile(path, directory.path(name))
        return {"inputs": inputs, **content.meta}

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """A `GenericModel`: runs the author's `score.py`, so only with `trust`."""
        if options.get("as_") is not None or into is not None:
            raise SerializationError("a generic model is loaded as it is", hint="load without as_ and into")
        if device not in (None, "cpu"):
            raise BackendError("a generic model chooses its device itself", hint="device='cpu'", backend="generic")
        if model.SCORE not in reader.files:
            raise SerializationError(f"the component holds no {model.SCORE}")
        if not options.get("trust"):
            raise NotTrusted(
                f"loading runs {model.SCORE}, code that the author of the version wrote",
                hint="trust=True, if you trust the author; download(ref, folder) runs nothing",
            )
        folder = tempfile.TemporaryDirectory(prefix="catalog-generic-")
        for name in reader.files:
            path = Path(folder.name) / check_file(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with reader.open(name) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        restore(Path(folder.name), reader.meta, reader.files)
        return GenericModel(folder.name, trust=True, keep=folder)

    def describe(self, obj: Any) -> Description:
        """Only what can be told without running it: `predict`'s inputs, and how many files there are."""
        try:
            folder = self._folder(obj)
            told = {"inputs": ", ".join(model.parameters(folder)), "files": len(model.files_of(folder))}
        except (CatalogError, OSError, ValueError):
            told = {}
        return Description("generic", platform.python_version(), "", told)

    def inputs(self, obj: Any, method: str) -> list[str] | None:
        """The parameters of `predict`, less the model; read, not run."""
        if method != "predict":
            raise SerializationError(f"a generic model has no method {method!r}", hint="it has predict")
        return model.parameters(self._folder(obj)) or None

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run `predict`."""
        self.inputs(obj, method)
        if not isinstance(obj, GenericModel):
            raise NotTrusted(
                f"an example would run {model.SCORE}",
                hint="publish catalog_generic.model.GenericModel(folder, trust=True), or without an example",
            )
        return model.arrays(obj.predict(**inputs))

    def measure(self, obj: Any, method: str, trial: Trial) -> Signature:
        """Found by running."""
        return measured(trial)
