"""Data on their way into a model of ADS's classes, and files on their way into its folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_ads import archive, writer
from catalog_core.errors import InvalidInput
from catalog_core.names import check_name

if TYPE_CHECKING:
    from catalog_core import Catalog


def slug(text: str) -> str:
    """A model name that comes as near to a text as it can. Raises `InvalidName` where nothing is left of it."""
    return check_name(re.sub(r"[^A-Za-z0-9._/-]+", "-", text).strip("-._/"))


def sample(data: Any) -> Any:
    """A sample as the catalog takes an example: data frames and lists as arrays."""
    import numpy as np

    if isinstance(data, Mapping):
        return {str(key): sample(value) for key, value in data.items()}
    if hasattr(data, "to_numpy"):
        return data.to_numpy()
    return np.asarray(data) if isinstance(data, (list, int, float)) else data


def arrays(data: Any, specs: Sequence[Any]) -> dict[str, Any]:
    """Data by the names and of the dtypes of the inputs, where NumPy has these."""
    import numpy as np

    given = sample(data)
    if not isinstance(given, Mapping):
        given = {specs[0].name if specs else "input": given}
    dtypes = {spec.name: spec.dtype for spec in specs}
    found = {}
    for name, value in given.items():
        plain = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        found[name] = plain.astype(dtypes[name]) if name in dtypes else plain
    return found


def envelope(data: Any, entry: str | None = None) -> dict[str, Any]:
    """The payload of ADS for data: arrays and tensors as lists."""
    import numpy as np

    def plain(value: Any) -> Any:
        value = value.detach().cpu().numpy() if hasattr(value, "detach") else value
        return np.asarray(value).tolist() if hasattr(value, "__array__") or hasattr(value, "numpy") else value

    given = sample(data)
    value = {name: plain(item) for name, item in given.items()} if isinstance(given, Mapping) else plain(given)
    kind = "dict" if isinstance(given, Mapping) else "list"
    more = {} if entry is None else {"entry": entry}
    return {"data": value, "data_type": f"<class '{kind}'>", **more}


def put(source: Path, target: Path, overwrite: bool) -> None:
    """Copy an artifact folder. Raises `InvalidInput` where another file is in the way, unless `overwrite`."""
    files = archive.files_of(source)
    for name, path in files.items():
        place = target / name
        if not overwrite and place.exists() and place.read_bytes() != path.read_bytes():
            raise InvalidInput(f"{place} exists already", hint="force_overwrite=True, or another artifact_dir")
    for name, path in files.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def collected(folder: Path, model_file: str | None, score_py: str | None, overwrite: bool) -> None:
    """Copy a model file and a `score.py` into a folder; what is there stays, unless `overwrite`."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in ((model_file, None), (score_py, archive.SCORE)):
        if source is not None and Path(source).exists():
            place = folder / (name or Path(source).name)
            if not place.exists() or (overwrite and not place.samefile(source)):
                shutil.copy(source, place)


def own_files(folder: Path, target: Path) -> None:
    """Copy what is in a folder, less what was written beside it when it was prepared before."""
    files = archive.files_of(folder)
    if {writer.DESCRIPTION, archive.MANIFEST} <= files.keys():
        told = archive.read_json(files[writer.DESCRIPTION])["components"]
        listed = archive.read_json(files[archive.MANIFEST])["files"]
        made = {*listed, archive.MANIFEST} - {file["name"] for part in told for file in part["files"]}
        files = {name: path for name, path in files.items() if name not in made}
    for name, path in files.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def as_graph(catalog: Catalog, components: Mapping[str, Any], data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The one component as an ONNX graph, and its example. Raises `InvalidInput` without a sample or for several
    components, and what `catalog_onnx.export.to_onnx` raises."""
    if data is None or len(components) != 1:
        raise InvalidInput("as_onnx takes one estimator and a sample", hint="prepare(as_onnx=True, X_sample=…)")
    from catalog_onnx.export import to_onnx

    ((name, obj),) = components.items()
    example = sample(data)
    if not isinstance(example, Mapping):
        spec = catalog._registry.find_serializer(obj)
        names = catalog._registry.serializer(spec.name).inputs(obj, spec.default_method)
        example = {(names or ["input"])[0]: example}
    return {name: to_onnx(obj, example)}, dict(example)
