"""`.keras` files that Keras itself wrote."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import keras

from catalog_core import callers
from catalog_core.errors import SerializationError
from catalog_core.quiet import quiet
from catalog_core.shown import an
from catalog_keras import build, config, training

WEIGHTS = "model.weights.h5"
MEMBERS = frozenset(["config.json", "metadata.json", WEIGHTS])
_RATIO = 64  # a compressed array of an honest file is not smaller than a 64th


def read(path: Path) -> Any:
    """The model of a `.keras` file, whose classes are Keras' own or registered in this process; code in it is never
    run. Keras reads a copy, whose configuration is the checked one. The caller has looked for links in its HDF5 part.
    Raises `SerializationError`."""
    with tempfile.TemporaryDirectory(prefix="keras-") as name:
        copy, weights = Path(name) / "model.keras", Path(name) / WEIGHTS
        try:
            with zipfile.ZipFile(path) as archive:
                found = _config(archive)
                if WEIGHTS in archive.namelist():
                    _check_packed(archive.getinfo(WEIGHTS))
                    with archive.open(WEIGHTS) as source, weights.open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as exc:
            raise SerializationError(f"not a readable .keras archive: {exc}") from exc
        lost = training.unknown_taken_out(found)
        config.check(found)
        size = _size(weights) if weights.exists() else 0
        with zipfile.ZipFile(copy, "w") as archive:
            archive.writestr("config.json", json.dumps(found))
            archive.writestr("metadata.json", json.dumps({"keras_version": keras.__version__}))
            if weights.exists():
                archive.write(weights, WEIGHTS)
        try:
            with quiet(), build.bounded(build.allowance(size)):
                model = keras.saving.load_model(copy, safe_mode=True)
        except Exception as exc:  # Keras, or a registered class
            raise build.refusal(exc, "Keras cannot load the model") from exc
    if not isinstance(model, keras.layers.Layer):
        raise SerializationError(f"the file holds {an(type(model).__name__)}, no model or layer")
    if lost:
        callers.warn(f"the model is read without what it was compiled with: {lost}")
    return model


def _config(archive: zipfile.ZipFile) -> dict[str, Any]:
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
        return config.parse(file.read(size))


def _check_packed(info: zipfile.ZipInfo) -> None:
    """What a member says of its size, before it is unpacked: reading stops there."""
    if info.file_size > build.SLACK + _RATIO * info.compress_size:
        raise SerializationError(
            f"{info.filename} is {info.compress_size:,} bytes in the archive, and says it is {info.file_size:,}",
            hint="keras.Model.save writes weights that are not packed so tightly: have the file written again",
        )


def _size(weights: Path) -> int:
    """The bytes of all arrays of an HDF5 file. Raises `SerializationError` for one that says it is far larger than what
    lies in the file."""
    sizes: list[int] = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            size, lies = item.size * item.dtype.itemsize, item.id.get_storage_size()
            if size > build.SLACK + _RATIO * lies:
                raise SerializationError(f"the array {name[:100]!r} says it has {size} bytes, and {lies} are stored")
            sizes.append(size)

    try:
        with h5py.File(weights, "r") as file:
            file.visititems(look)
    except (OSError, RuntimeError, ValueError, TypeError) as exc:
        raise SerializationError(f"the weights cannot be read: {exc}") from exc
    return sum(sizes)
