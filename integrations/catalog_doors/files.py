"""One file, or one SavedModel: what it becomes, told by its content."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from catalog_core import tensors
from catalog_core.errors import CatalogError, NotTrusted, SerializationError
from catalog_core.names import check_component, check_file, check_name
from catalog_core.records import Foreign
from catalog_doors import example, isolate
from catalog_doors.look import PICKLED, POINTER, Looked, fits, look, placed, tree
from catalog_doors.stored import FolderReader, serializer
from catalog_scan import wire
from catalog_scan.scanner import Finding

GRAPH = "saved_model.pb"
# What a component is made of, best first; nothing that has to be converted where something else is there.
ORDER = (
    "safetensors", "onnx", "pt2", "keras", "skops", "ubjson", "xgboost", "lightgbm", "npz", "npy", *sorted(PICKLED)
)  # fmt: skip
MODELS = frozenset([*ORDER, "savedmodel", POINTER])
SAFE_KINDS = MODELS - PICKLED - {POINTER}
_NAMES = {
    "pickle": "a pickle", "torch pickle": "a pickle of torch", "torchscript": "a TorchScript archive, with pickles",
    "hdf5": "an HDF5 file, as old Keras models are", "packed": "a packed file, as of joblib",
}  # fmt: skip


@attrs.define
class Found:
    """What the files of one model become. `about` are keywords of `Catalog.prepare`, `takes` the inputs that the model
    itself declares."""

    objects: dict[str, Any] = attrs.field(factory=dict)
    about: dict[str, Any] = attrs.field(factory=dict)
    provenance: dict[str, Any] = attrs.field(factory=dict)
    notes: list[str] = attrs.field(factory=list)
    used: set[str] = attrs.field(factory=set)
    takes: list[example.Tensor] = attrs.field(factory=list)

    def foreign(
        self,
        looked: Looked,
        *,
        name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        taxonomy: Mapping[str, str] | None = None,
        description: str | None = None,
        params: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        attachments: Mapping[str, Any] | None = None,
        card: str | None = None,
    ) -> Foreign:
        """All of it as the catalog takes it, with the report of the scan; with an example of zeros where nobody gave
        one, and the model says what it takes."""
        if "example" not in self.about:
            example.zeros(self, self.takes)
        about = {"tags": tags, "taxonomy": taxonomy, "description": description, "params": params}
        return Foreign(
            self.objects,
            {**self.about, **{key: value for key, value in about.items() if value}},
            {**(provenance or {}), **self.provenance, "scan": looked.told()},
            {**(attachments or {}), "scan.json": looked.attachment()},
            tuple(self.notes),
            name if name is not None and fits(check_name, name) else None,
            card,
        )


def read(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """A single file, or a SavedModel folder (a door)."""
    files = tree(path) if path.is_dir() else _beside(path)
    looked = look(files)
    found = model(looked, scratch, unsafe, name="model")
    rest(found, looked, scratch)
    name = path.name if path.is_dir() else path.stem
    return found.foreign(looked, name=name)


def model(looked: Looked, scratch: Path, unsafe: bool, name: str, among: Iterable[str] | None = None) -> Found:
    """The model among the files: a SavedModel, or the file of the best kind. Raises `NotTrusted` where only `unsafe`
    could read one, `SerializationError` where there is none."""
    names = list(looked.files if among is None else among)
    absent = [file for file in names if looked.kinds[file] == POINTER]
    if not any(looked.kinds[file] in SAFE_KINDS for file in names):
        looked.elsewhere(absent)
    graphs = [file for file in names if Path(file).name == GRAPH and looked.kinds[file] == "savedmodel"]
    if graphs:
        return _savedmodel(looked, min(graphs, key=len), scratch, name)
    for kind in ORDER:
        chosen = [file for file in names if looked.kinds[file] == kind]
        if len(chosen) == 1:
            return one(looked, chosen[0], scratch, unsafe, name)
        if chosen:
            return _several(looked, chosen, scratch, unsafe)
    found = Found()
    looked.refuse(names)
    found.notes.append(f"no file is of a format that is read here; {_listed(names)} kept as they are")
    return found


def rest(found: Found, looked: Looked, scratch: Path, leave: Iterable[str] = ()) -> None:
    """Keep the other files as they are, in the component `files`. Nothing runs them; what is a pickle stays out."""
    kept = {name: path for name, path in looked.files.items() if name not in found.used and name not in set(leave)}
    out = [name for name in kept if looked.kinds[name] in PICKLED and looked.kinds[name] != "hdf5"]
    if out:
        found.notes.append(f"left behind, since nothing here reads pickles: {_listed(out)}")
    absent = [name for name in kept if looked.kinds[name] == POINTER]
    if absent:
        found.notes.append(f"the content is not here, only what stands for it: {_listed(absent)}")
    code = sorted({item.file for item in looked.wrong(kept) if item.file not in out and item.rule == "code"})
    if code:
        found.notes.append(f"kept, and never run: {_listed(code)}")
    broken = [name for name in kept if name not in out]
    for item in looked.wrong(broken):
        if item.rule in ("link", "path", "zip bomb", "two of one name", "lying header", "hidden bytes"):
            looked.refuse([item.file.partition(":")[0]])
    if broken:
        key = "files" if "files" not in found.objects else "other-files"
        found.objects[key] = placed({name: kept[name] for name in broken}, _fresh(scratch, "files"))


def one(looked: Looked, file: str, scratch: Path, unsafe: bool, name: str) -> Found:
    """What one file becomes."""
    kind, path = looked.kinds[file], looked.files[file]
    if kind in PICKLED:
        return _converted(looked, file, scratch, unsafe, name)
    looked.refuse([file], _PASSED.get(kind, lambda item: False))
    if kind == "onnx":
        return _onnx(looked, file, scratch, name)
    found = Found(used={file})
    try:
        found.objects[name] = _READERS[kind](path, scratch)
    except NotTrusted:
        raise
    except (SerializationError, ImportError) as exc:
        why = exc.message if isinstance(exc, CatalogError) else f"{exc.name} is not installed"
        _kept(found, looked, [file], scratch, name, why)
        return found
    if kind == "keras":
        found.about["serializer"] = "keras"
        found.takes = _declared(found.objects[name])
    if kind == "pt2" and any("/data/sample_inputs/" in item.file for item in looked.report.files):
        found.notes.append(f"{file}: its sample inputs, a pickle, were left behind")
    if kind in _ENTRY:
        found.about["entry_points"] = {"predict": name}
    return found


def _declared(model: Any) -> list[example.Tensor]:
    """The inputs of a functional model of Keras, by position; none of another one."""
    try:
        inputs = list(model.inputs or ())
    except (AttributeError, ValueError):  # it was never built
        return []
    shapes = [example.shape([-1 if size is None else size for size in tensor.shape]) for tensor in inputs]
    return [
        example.Tensor(None, str(tensor.dtype), shape)
        for tensor, shape in zip(inputs, shapes, strict=True)
        if shape is not None
    ]


def _left_by_pt2(item: Finding) -> bool:
    """Sample inputs and guards, which are never read from a `.pt2`."""
    member = item.file.partition(":")[2].partition("/")[2]
    return member.startswith("data/sample_inputs/") or (item.rule == "code" and member == "models/model.json")


# Findings of a file that its reader leaves alone, or checks by itself: Keras' has a list of classes.
_PASSED: dict[str, Callable[[Finding], bool]] = {"pt2": _left_by_pt2, "keras": lambda item: item.rule == "type"}


def _several(looked: Looked, chosen: list[str], scratch: Path, unsafe: bool) -> Found:
    """A component for each of several files of one kind."""
    found = Found()
    for file in chosen:
        name = component(file, found.objects)
        part = one(looked, file, scratch, unsafe, name)
        found.objects |= part.objects
        found.notes += part.notes
        found.used |= part.used
        found.provenance |= part.provenance
        found.about = {**found.about, **{key: v for key, v in part.about.items() if key != "entry_points"}}
    return found


_USUAL_NAMES = frozenset(
    ["model", "pytorch_model", "diffusion_pytorch_model", "adapter_model", "open_clip_pytorch_model"]
)


def component(file: str, taken: Mapping[str, Any]) -> str:
    """A name for the component that a file becomes, which none of `taken` has."""
    folder, _, last = file.rpartition("/")
    if last.partition(".")[0] in _USUAL_NAMES and folder:  # unet/diffusion_pytorch_model.safetensors
        variant = last.partition(".")[2].rpartition(".")[0]
        file = f"{folder}-{variant}.part" if variant else f"{folder}.part"
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in file.rpartition(".")[0])
    name = stem.strip("._-")[:80] or "part"
    name = name if fits(check_component, name) else "part"
    number = 1
    while name in taken:
        number += 1
        name = f"{name.rstrip('0123456789').rstrip('-')}-{number}"
    return name


def _converted(looked: Looked, file: str, scratch: Path, unsafe: bool, name: str) -> Found:
    kind = looked.kinds[file]
    if not unsafe:
        raise NotTrusted(
            f"{file} is {_NAMES[kind]}: to read it is to run what its author chose, so nothing was read",
            hint="`catalog import --unsafe` (unsafe=True) converts it, in a process shut in; `catalog scan` looks in",
        )
    for item in looked.wrong([file]):
        if item.rule in ("zip bomb", "path", "link", "two of one name"):
            looked.refuse([file])
    done = isolate.convert(looked.files[file], kind, scratch)
    found = Found({name: done.obj}, notes=list(done.notes))
    found.used.add(file)
    found.provenance["converted"] = {file: {"kind": kind, "was": done.was, "out of reach": done.reach}}
    if done.serializer == "keras":
        found.about["serializer"] = "keras"
    if done.serializer in ("keras", "sklearn"):
        found.about["entry_points"] = {"predict": name}
    return found


def _kept(found: Found, looked: Looked, files: Iterable[str], scratch: Path, name: str, why: str) -> None:
    """Keep files as they are, with the reason."""
    files = list(files)
    found.used |= set(files)
    found.notes.append(f"{_listed(files)}: kept as it is: {why}")
    found.objects[name] = placed({file: looked.files[file] for file in files}, _fresh(scratch, "kept"))


def _savedmodel(looked: Looked, graph: str, scratch: Path, name: str) -> Found:
    root = graph.rpartition("/")[0]
    prefix = f"{root}/" if root else ""
    own = ("saved_model.pb", "variables/", "assets/", "assets.extra/", "fingerprint.pb", "keras_metadata.pb")
    files = [file for file in looked.files if file.startswith(prefix) and file.removeprefix(prefix).startswith(own)]
    looked.elsewhere(files)
    looked.refuse([file for file in files if not file.endswith(("fingerprint.pb", "keras_metadata.pb"))])
    found = Found(used=set(files))
    folder = placed({file.removeprefix(prefix): looked.files[file] for file in files}, _fresh(scratch, "savedmodel"))
    try:
        from catalog_savedmodel import foreign
    except ImportError as exc:
        found.notes.append(f"{graph}: kept as it is: {exc.name} is not installed")
        found.objects[name] = folder
        return found
    try:
        root_object, signatures = foreign.read(folder, _fresh(scratch, "checked"))
    except SerializationError as exc:
        found.notes.append(f"{graph}: kept as it is: {exc.message}")
        found.objects[name] = folder
        return found
    found.objects[name] = root_object
    found.takes = [example.Tensor(*told) for told in foreign.takes(root_object)]
    main = "serving_default" if "serving_default" in signatures else signatures[0]
    found.about["entry_points"] = {
        "predict": f"{name}.{main}",
        **{key: f"{name}.{key}" for key in signatures if key != main and fits(check_component, key)},
    }
    return found


def _onnx(looked: Looked, file: str, scratch: Path, name: str) -> Found:
    """The graph with the files of its external data."""
    found = Found(used={file})
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            _kept(found, looked, [file], scratch, name, f"{package} is not installed")
            return found
    from catalog_onnx.model import OnnxModel

    reader = FolderReader(looked.files, {})
    graph, folder = reader.view(file), file.rpartition("/")[0]
    wanted = {place: f"{folder}/{place}" if folder else place for place in wire.onnx(graph)[1]}  # they are there
    looked.elsewhere(full for full in wanted.values() if full in looked.files)
    model = OnnxModel(bytes(graph), {place: reader.view(full) for place, full in wanted.items()})
    found.objects[name] = model
    found.used |= set(wanted.values())
    found.about["entry_points"] = {"predict": name}
    try:
        found.takes = [example.Tensor(spec.name, spec.dtype, _sizes(spec.shape)) for spec in model.inputs]
    except SerializationError as exc:  # onnxruntime does not run it, or it takes what is no array
        found.notes.append(f"{file}: nothing is known of its inputs: {exc.message}")
    return found


def _sizes(shape: Iterable[Any]) -> tuple[int | None, ...]:
    """A shape, of which an axis with a name has any length."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _beside(path: Path) -> dict[str, Path]:
    """A file, and the files of an ONNX graph's external data, which lie beside it."""
    files = {path.name: path.resolve()}
    view = FolderReader(files, {}).view(path.name)
    try:
        places = wire.onnx(view)[1] if wire.looks_like(view) == "onnx" else []
    except ValueError:
        return files
    for place in sorted({place for place in places if fits(check_file, place)}):
        data = path.parent / place
        if data.is_file() and data.resolve().is_relative_to(path.parent.resolve()):
            files[place] = data.resolve()
    return files


def _fresh(scratch: Path, name: str) -> Path:
    """A new folder in scratch."""
    folder = scratch / f"{name}-{len(list(scratch.iterdir()))}"
    folder.mkdir()
    return folder


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# -- readers of single files: (path, scratch) → object ------------------------------------------------------------


def named(path: Path, scratch: Path) -> Path:
    """A safetensors file itself, which is kept bit by bit and loads as it is, under a name that says what it is."""
    if path.name.endswith(".safetensors"):
        return path
    place = _fresh(scratch, "named") / tensors.FILE
    place.symlink_to(path)
    return place


def _numpy(path: Path, scratch: Path) -> Any:
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
        arrays = {"array": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (ValueError, OSError, EOFError, TypeError, KeyError, MemoryError) as exc:
        raise SerializationError(f"NumPy cannot read it: {' '.join(str(exc).split())[:200]}") from exc
    tensors.plan([(key, tensors.dtype_of(value), value.shape) for key, value in arrays.items()], {})  # or it raises
    return arrays


def _pt2(path: Path, scratch: Path) -> Any:
    from catalog_torch import foreign

    return foreign.read(path)


def _keras(path: Path, scratch: Path) -> Any:
    from catalog_keras import foreign

    place = _fresh(scratch, "named") / "model.keras"  # Keras goes by the suffix
    place.symlink_to(path)
    return foreign.read(place)


def of_class(obj: Any, kind: str) -> Any:
    """A model of XGBoost as the class that another program says it was; all else as it is."""
    if not type(obj).__module__.startswith("xgboost"):
        return obj
    from catalog_sklearn.boosters import as_estimator

    return as_estimator(obj, kind)


def _estimator(suffix: str) -> Any:
    def made(path: Path, scratch: Path) -> Any:
        meta = {"class": None} if suffix == ".ubj" else {}  # the file says
        return serializer("sklearn").load(FolderReader({f"model{suffix}": path}, meta), None, None, {})

    return made


def _xgboost(path: Path, scratch: Path) -> Any:
    from catalog_sklearn.boosters import read_xgboost

    return read_xgboost(path.read_bytes())


_READERS: dict[str, Any] = {
    "safetensors": named, "npz": _numpy, "npy": _numpy, "pt2": _pt2, "keras": _keras,
    "skops": _estimator(".skops"), "ubjson": _estimator(".ubj"), "xgboost": _xgboost, "lightgbm": _estimator(".txt"),
}  # fmt: skip
_ENTRY = frozenset(["pt2", "keras", "skops", "ubjson", "xgboost", "lightgbm"])
