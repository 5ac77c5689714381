"""Data on their way into a model of ADS's classes, and files on their way into its folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_ads import archive, writer
from catalog_core.columns import columns, is_frame
from catalog_core.errors import InvalidInput, MissingPlugin, SerializationError
from catalog_core.names import check_name
from catalog_core.rehearsal import default_method
from catalog_core.shown import an
from catalog_core.values import check_metric, check_tags

if TYPE_CHECKING:
    from catalog_core import Catalog


def slug(text: str) -> str:
    """A model name that comes as near to a text as it can. Raises `InvalidName` where nothing is left of it."""
    return check_name(re.sub(r"[^A-Za-z0-9._/-]+", "-", text).strip("-._/"))


def of_frame(catalog: Catalog, components: Mapping[str, Any], data: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """What is prepared of a data frame: itself as the example, where all components were fitted on its columns; else
    its columns are recorded, since the array that it becomes gives other answers in another order. Raises
    `InvalidInput` where one was fitted on other columns."""
    registry, names = catalog.repository.registry, [str(name) for name in data.columns]

    def fitted(obj: Any) -> bool:
        serializer = registry.serializer(registry.find_serializer(obj).name)
        return hasattr(serializer, "in_order") and serializer.in_order(obj, names) is not None

    if all(map(fitted, components.values())):
        return {"example": data}
    ads = {**about["provenance"]["ads"], "columns": names}
    return {"provenance": {**about["provenance"], "ads": ads}}


def sample(data: Any) -> Any:
    """A sample as the catalog takes an example: data frames and lists as arrays."""
    import numpy as np

    if isinstance(data, Mapping):
        return {str(key): sample(value) for key, value in data.items()}
    if hasattr(data, "to_numpy"):
        return data.to_numpy()
    return np.asarray(data) if isinstance(data, (list, tuple, int, float)) else data


def arrays(data: Any, specs: Sequence[Any]) -> dict[str, Any]:
    """Data by the names and of the dtypes of the inputs, where NumPy has these."""
    import numpy as np

    given = sample(data)
    if len(specs) > 1 and isinstance(data, (list, np.ndarray)) and all(len(spec.shape) == 1 for spec in specs):
        table = np.asarray(given, object)
        if table.ndim == 2 and table.shape[1] == len(specs):  # rows of the columns
            return {spec.name: table[:, at].tolist() for at, spec in enumerate(specs)}
    if not isinstance(given, Mapping):
        given = {specs[0].name if specs else "input": given}
    dtypes = {spec.name: spec.dtype for spec in specs}
    found = {}
    for name, value in given.items():
        plain = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        found[name] = plain.astype(dtypes[name]) if name in dtypes else plain
    return found


def envelope(data: Any, entry: str | None = None) -> dict[str, Any]:
    """The payload of ADS for data: arrays and tensors as lists, a data frame by its columns."""
    import numpy as np

    more = {} if entry is None else {"entry": entry}
    if is_frame(data):
        rows = {name: enumerate(_plain_items(column)) for name, column in columns(data).items()}
        told = json.dumps({name: {str(at): value for at, value in items} for name, items in rows.items()})
        return {"data": told, "data_type": "<class 'pandas.core.frame.DataFrame'>", **more}

    def plain(value: Any) -> Any:
        value = value.detach().cpu().numpy() if hasattr(value, "detach") else value
        return np.asarray(value).tolist() if hasattr(value, "__array__") or hasattr(value, "numpy") else value

    given = sample(data)
    value = {name: plain(item) for name, item in given.items()} if isinstance(given, Mapping) else plain(given)
    kind = "dict" if isinstance(given, Mapping) else "list"
    return {"data": value, "data_type": f"<class '{kind}'>", **more}


def _plain_items(column: Any) -> list[Any]:
    """The values of a column as JSON has them; null stands for a missing one."""
    items = column.tolist()
    return [None if item is None or item != item else item for item in items]


def place_of(artifact_dir: str | os.PathLike[str] | None) -> Path:
    """The absolute path of an artifact's folder, `~` expanded; one made for it where none is given. Raises
    `InvalidInput` for an address."""
    if artifact_dir is None or not str(artifact_dir):
        return Path(tempfile.mkdtemp(prefix="catalog-ads-"))
    if "://" in str(artifact_dir):
        raise InvalidInput(f"artifact_dir {str(artifact_dir)!r} is no local path", hint="a folder of this machine")
    return Path(os.path.abspath(os.path.expanduser(artifact_dir)))


def main_file(source: Any) -> str | None:
    """The largest file of the first component of a version or draft, as it is named in its artifact."""
    for component in source.manifest.components:
        files = max(component.files, key=lambda file: file.size, default=None)
        if files is not None:
            own = component.serializer == "generic"
            return files.name if own else f"components/{component.name}/{files.name}"
    return None


def keepable(catalog: Catalog, parts: Mapping[str, Any], owner: str, kinds: Sequence[str]) -> None:
    """Raises `InvalidInput` for what no serializer takes: ADS would pickle it, which is never done here."""
    way = (
        "write a score.py with load_model() and predict(data, model=load_model()), put it and what it reads into "
        "artifact_dir, and use GenericModel(artifact_dir=…, serialize=False)"
    )
    for name, obj in parts.items():
        what = obj.__name__ if isinstance(obj, type) else type(obj).__name__
        if kinds and not {kind.__module__.partition(".")[0] for kind in type(obj).__mro__} & set(kinds):
            raise InvalidInput(
                f"{owner} takes objects of {' or '.join(kinds)}, not {an(what)}",
                hint="GenericModel takes what any serializer takes",
            )
        known = not isinstance(obj, type) and not hasattr(obj, "__code__")
        known = known and (type(obj).__module__ != "builtins" or isinstance(obj, dict)) and isinstance(name, str)
        if known and not isinstance(obj, Path):
            try:
                catalog.repository.registry.find_serializer(obj)
            except (MissingPlugin, InvalidInput, SerializationError):
                known = False
        if not known:
            part = f"component {name!r}, " if len(parts) > 1 or name != "model" else ""
            raise InvalidInput(
                f"{part}{an(what)}: no serializer takes it, and it is never pickled as ADS would: loading a pickle "
                "runs code",
                hint=way,
            )


def tags_of(
    custom: Iterable[Any], tags: Mapping[str, Any], freeform: Mapping[str, Any] | None,
    defined: Mapping[str, Mapping[str, Any]] | None, label: str | None,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """The metrics and the tags of a version, of custom metadata and OCI's tags. Raises `InvalidInput`."""
    found = {**(freeform or {})}
    found |= {f"{space}.{key}": v for space, told in (defined or {}).items() for key, v in told.items()}
    if label is not None:
        found["version_label"] = label
    metrics: dict[str, Any] = {}
    for item in custom:
        if item.is_metric():
            metrics[item.key] = check_metric(item.key, item.value)
        elif isinstance(item.value, (str, bool, int, float)):
            found[item.key] = item.value
    checked = check_tags({**tags, **found})
    return metrics, {key: value for key, value in checked.items() if value is not None}


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


def told_of(catalog: Catalog, components: Mapping[str, Any]) -> dict[str, str]:
    """Framework, version and class of the one component, as its serializer knows them, for what is exported of it."""
    if len(components) != 1:
        return {}
    (obj,) = components.values()
    registry = catalog.repository.registry
    about = registry.serializer(registry.find_serializer(obj).name).describe(obj)
    return {
        "framework": about.framework, "framework_version": about.framework_version, "algorithm": about.algorithm
    }  # fmt: skip


def as_graph(catalog: Catalog, components: Mapping[str, Any], data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The one component as an ONNX graph, and its example. Raises `InvalidInput` without a sample or for several
    components, and what `catalog_onnx.export.to_onnx` raises."""
    if data is None or len(components) != 1:
        raise InvalidInput("as_onnx takes one estimator and a sample", hint="prepare(as_onnx=True, X_sample=…)")
    from catalog_onnx.export import to_onnx

    ((name, obj),) = components.items()
    example = sample(data)
    if not isinstance(example, Mapping):
        spec = catalog.repository.registry.find_serializer(obj)
        serializer = catalog.repository.registry.serializer(spec.name)
        names = serializer.inputs(obj, default_method(serializer, spec, obj))
        example = {(names or ["input"])[0]: example}
    return {name: to_onnx(obj, example)}, dict(example)
