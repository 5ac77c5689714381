"""`.keras` files that Keras itself wrote."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras

from catalog_core.errors import SerializationError
from catalog_keras import config

MEMBERS = frozenset(["config.json", "metadata.json", "model.weights.h5"])


def read(path: Path) -> Any:
    """The model of a `.keras` file, whose classes are Keras' own or registered in this process; code in it is never
    run. The caller has looked for links in its HDF5 part. Raises `SerializationError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            if len(names) != len(set(names)) or "config.json" not in names:
                raise SerializationError("the archive holds no config.json, or a name twice")
            surplus = sorted(set(names) - MEMBERS)
            if surplus:
                raise SerializationError(f"the archive holds {surplus[0][:100]!r}, which is not read")
            size = archive.getinfo("config.json").file_size
            if size > config.MAX_CONFIG:
                raise SerializationError("the model's configuration is larger than 64 MiB")
            with archive.open("config.json") as file:  # `ZipFile.read` unpacks the whole stream before it counts
                found = config.parse(file.read(size))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as exc:
        raise SerializationError(f"not a readable .keras archive: {exc}") from exc
    config.check(found)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = keras.saving.load_model(path, safe_mode=True)
    except Exception as exc:  # Keras, or a registered class
        raise SerializationError(f"Keras cannot load the model: {config.reason(exc)}") from exc
    if not isinstance(model, keras.layers.Layer):
        raise SerializationError(f"the file holds a {type(model).__name__}, no model or layer")
    return model
