"""A version → an artifact folder of ADS, whose `score.py` needs the framework only."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from catalog_ads import introspection, schema
from catalog_ads.archive import DATE, MANIFEST, RUNTIME, SCORE, digest, write_manifest
from catalog_ads.runtime import INFERENCE, TRAINING, read_runtime, write_runtime
from catalog_core import redact
from catalog_core.errors import InvalidInput, NotTrusted
from catalog_core.folders import restore
from catalog_core.records import Component, EntryPoint, Manifest, step_of
from catalog_core.shown import an

if TYPE_CHECKING:
    from catalog_core.artifact import StoredArtifact
    from catalog_core.handles import Version

DESCRIPTION = "catalog_model.json"
FORMAT = 1
EXAMPLE = "example"
KERAS = "model.keras"  # which score.py loads, beside the files as they are stored
HYPERPARAMETERS = "hyperparameters.json"
# serializer → the part of score.py that runs it, and what that needs
RUNNERS = {
    "torch": ("run_torch", "TorchRunner", ("torch",)),
    "savedmodel": ("run_savedmodel", "SavedModelRunner", ("tensorflow",)),
    "keras": ("run_keras", "KerasRunner", ("keras",)),
    "sklearn": ("run_sklearn", "SklearnRunner", ("scikit-learn", "skops")),
    "onnx": ("run_onnx", "OnnxRunner", ("onnxruntime",)),
    "generic": ("run_generic", "GenericRunner", ()),
}
NO_PACK = "oci://conda-packs@namespace/to-be-published"  # stands where nobody said which pack
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
log = logging.getLogger("catalog_core")


def write(version: Version, folder: Path) -> None:
    """Write a version; the same version gives the same bytes. Raises `InvalidInput` for one that could not be called
    there, `NotTrusted` for components that load with trust only, and what loading raises."""
    write_artifact(version.catalog.artifact(version), folder, version.model, version.digest, version.params)


def write_artifact(artifact: StoredArtifact, folder: Path, name: str, of: str, params: Mapping[str, Any]) -> None:
    """The same for the artifact of a version or of a draft; `of` is its digest."""
    manifest = artifact.manifest
    runtime = _runtime(manifest)
    own = _own_score(artifact, folder)
    used = {} if own else _used(artifact)
    runs: dict[str, Any] = {}  # what score.py loads, and checks first
    for component in manifest.components:
        place = folder if own else folder / "components" / component.name
        _copy(artifact, component, place)
        if component.serializer == "keras" and component.name in used:
            _write_keras(artifact.component(component.name), place / KERAS, component.name)
        if component.name in used:
            runs |= _loaded(component, place, f"components/{component.name}")
    example = None
    if manifest.example is not None:
        from catalog_core.codec import converter

        stored = converter().structure(dict(manifest.example), Component)
        _copy(artifact, stored, folder / EXAMPLE)
        example = {"serializer": stored.serializer, "meta": stored.meta}
    points = {point.name: point for point in manifest.entry_points}
    default = "predict" if "predict" in points else next(iter(points), "predict")
    usual = points.get(default, EntryPoint(default, ()))
    told = {
        "format": FORMAT,
        "name": name,
        "digest": of,
        "default": default,
        "columns": columns_of(manifest.provenance),
        "entry_points": [attrs.asdict(point) for point in manifest.entry_points],
        "components": [
            {
                **attrs.asdict(component),
                "folder": "" if own else f"components/{component.name}",
                "inputs": used.get(component.name, {}),
            }
            for component in manifest.components
        ],
        "files": runs,
        "example": example,
        "taxonomy": dict(manifest.taxonomy),
        "description": dict(manifest.description),
        "params": dict(params),
        "custom": dict(manifest.custom),
        "environment": {key: value for key, value in manifest.environment.items() if key != "distributions"},
        "provenance": redact.tree(manifest.provenance),  # earlier releases recorded more
    }
    _write_json(folder / DESCRIPTION, told)
    if not own:
        (folder / SCORE).write_text(score_py({component.serializer for component in _those(manifest, used)}), "utf-8")
        _write_requirements(folder / "requirements.txt", manifest, used)
    if not (folder / RUNTIME).exists():
        (folder / RUNTIME).write_text(write_runtime(runtime), "utf-8")
    for file, specs in ((schema.INPUT, usual.inputs), (schema.OUTPUT, usual.outputs)):
        if not (folder / file).exists():
            schema.write_schema(folder / file, specs)
    if params and not (folder / HYPERPARAMETERS).exists():
        _write_json(folder / HYPERPARAMETERS, dict(params))
    env = read_runtime(folder)["MODEL_DEPLOYMENT"]["INFERENCE_CONDA_ENV"]
    if env.get("INFERENCE_ENV_PATH") == NO_PACK:
        log.warning(
            "runtime.yaml names no conda pack: publish one with the packages of requirements.txt, and set "
            "CATALOG_ADS_CONDA_ENV to its path"
        )
    if not (folder / introspection.RESULTS).exists():
        _write_json(folder / introspection.RESULTS, introspection.as_ads(introspection.introspect(folder), env))
    write_manifest(folder)


def columns_of(provenance: Mapping[str, Any]) -> list[str]:
    """The columns of the data frame that a model was prepared with, where it takes them as one array; else none."""
    for group in ("ads", "imported"):
        told = provenance.get(group)
        names = told.get("columns") if isinstance(told, Mapping) else None
        if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
            return list(names)
    return []


def score_py(serializers: set[str]) -> str:
    """The text of `score.py` for components of these serializers."""
    texts = [_source("common")]
    runners = sorted(serializers & RUNNERS.keys())
    for name in runners:
        text = _source(RUNNERS[name][0])
        texts.append(text[text.index("from __future__ import annotations") :].partition("\n")[2])
    table = ", ".join(f'"{name}": {RUNNERS[name][1]}' for name in runners)
    texts.append(
        "MODELS: list[Model] = []\n\n\n"
        "def load_model(model_file_name: str | None = None) -> Model:\n"
        '    """The model of this folder; loaded once."""\n'
        "    if not MODELS:\n"
        f"        MODELS.append(Model(FOLDER, {{{table}}}))\n"
        "    return MODELS[0]\n\n\n"
        "def predict(data: Any, model: Any = load_model()) -> dict[str, Any]:  # noqa: B008\n"
        '    """The answer to one request."""\n'
        "    return model.answer(data)\n"
    )
    return "\n\n".join(text.strip("\n") + "\n" for text in texts)


def _source(name: str) -> str:
    return (resources.files("catalog_ads") / "serving" / f"{name}.py").read_text("utf-8")


def _those(manifest: Manifest, names: Mapping[str, Any]) -> list[Component]:
    return [component for component in manifest.components if component.name in names]


def _used(artifact: StoredArtifact) -> dict[str, dict[str, list[str] | None]]:
    """The components that entry points run: name → method → the names of its inputs. Each is loaded, which refuses
    what is on no list: `score.py` does not look again."""
    used: dict[str, dict[str, list[str] | None]] = {}
    if not artifact.manifest.entry_points:
        raise InvalidInput(
            f"{artifact.what} has no entry points: nothing of it could be called", hint="publish it with an example"
        )
    for point in artifact.manifest.entry_points:
        for step in point.steps:
            name, method = step_of(step)
            component = artifact.find(name)
            if component.serializer not in RUNNERS:
                raise InvalidInput(f"{point.name}: score.py cannot run {name!r}, of {component.serializer!r}")
            used.setdefault(name, {})[method] = _inputs(artifact, component, method)
    return used


def _inputs(artifact: StoredArtifact, component: Component, method: str) -> list[str] | None:
    if component.serializer == "generic":
        return list(component.meta.get("inputs") or ()) or None
    obj = artifact.component(component.name)
    if isinstance(obj, Mapping):
        raise InvalidInput(
            f"component {component.name!r} holds weights only, and could not be run there",
            hint="publish it with an example, so that its graph is stored",
        )
    names = artifact.registry.serializer(component.serializer).inputs(obj, method)
    return None if names is None else list(names)


def _own_score(artifact: StoredArtifact, folder: Path) -> bool:
    """Whether the version is one generic folder whose `score.py` is as ADS wants it: it is used as it is."""
    (component, *more) = artifact.manifest.components
    if more or component.serializer != "generic":
        return False
    reader = artifact.reader(component)
    if SCORE not in reader.files or any(
        name.split("/")[0] in (DESCRIPTION, MANIFEST, EXAMPLE) for name in reader.files
    ):
        return False
    (folder / SCORE).write_bytes(bytes(reader.view(SCORE)))
    good = {check.id for check in introspection.introspect(folder) if check.result == "passed"}
    return {name for name in introspection.CHECKS if name.startswith("score_")} <= good


def _copy(artifact: StoredArtifact, component: Component, folder: Path) -> None:
    reader = artifact.reader(component)
    for name in reader.files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for piece in reader.pieces(name):
                file.write(piece)
    restore(folder, reader.meta, reader.files)


def _loaded(component: Component, place: Path, prefix: str) -> dict[str, Any]:
    """The files of a component that `score.py` loads, each with its digest and size."""
    if component.serializer == "keras":
        sha256, size = digest(place / KERAS)
        return {f"{prefix}/{KERAS}": {"sha256": sha256, "size": size}}
    return {
        f"{prefix}/{file.name}": {"sha256": file.digest.removeprefix("sha256:"), "size": file.size}
        for file in component.files
    }


def _write_keras(model: Any, path: Path, name: str) -> None:
    """Keras' own file of a model, with the same bytes for the same model. Raises `NotTrusted` for classes that are not
    Keras': nobody could make them there."""
    raw = path.with_name("model.raw.keras")
    model.save(raw)
    with zipfile.ZipFile(raw) as source, zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as target:
        waiting = [json.loads(source.read("config.json"))]
        while waiting:
            item = waiting.pop()
            if isinstance(item, dict):
                module = str(item.get("module") or "builtins").partition(".")[0]
                own = module not in ("keras", "builtins") or ">" in str(item.get("registered_name"))
                if "class_name" in item and own:
                    raise NotTrusted(
                        f"component {name!r} holds {an(str(item['class_name'])[:60])}, which Keras itself "
                        "does not know",
                        hint="publish it for serving as a SavedModel (the default)",
                    )
                waiting += item.values()
            elif isinstance(item, list):
                waiting += item
        for member in sorted(source.namelist()):
            content = source.read(member)
            if member == "metadata.json":
                content = json.dumps({**json.loads(content), "date_saved": "1980-01-01@00:00:00"}).encode()
            target.writestr(zipfile.ZipInfo(member, DATE), content)
    raw.unlink()


def _runtime(manifest: Manifest) -> dict[str, str]:
    """What `runtime.yaml` says: the environment variables first, then what was prepared or imported, then what the
    version knows itself."""
    found = {
        "inference_conda_env": NO_PACK,
        "inference_env_type": "published",
        "inference_python_version": ".".join(str(manifest.environment.get("python", "")).split(".")[:2]),
        "training_python_version": str(manifest.environment.get("python", "")),
    }
    ads = manifest.provenance.get("ads")
    if isinstance(ads, Mapping) and "no_pack" in ads:
        found = {}
    for group in ("imported", "ads"):
        told = manifest.provenance.get(group)
        known = told.get("runtime") if isinstance(told, Mapping) else None
        if isinstance(known, Mapping):
            found |= {key: str(known[key]) for key in (*INFERENCE, *TRAINING) if known.get(key)}
    for key, variable in (
        ("inference_conda_env", "CATALOG_ADS_CONDA_ENV"), ("inference_python_version", "CATALOG_ADS_PYTHON"),
    ):  # fmt: skip
        if os.environ.get(variable):
            found[key] = os.environ[variable]
    return found


def _write_requirements(path: Path, manifest: Manifest, used: Mapping[str, Any]) -> None:
    """The packages that score.py needs, the frameworks at the versions that made the model."""
    wanted: dict[str, str] = {"numpy": ""}
    steps = [step_of(step) for point in manifest.entry_points if point.inputs for step in point.steps[:1]]
    takes = any(part.serializer == "sklearn" for part in manifest.components if part.name in dict(steps))
    if takes and any(spec.name != "X" for point in manifest.entry_points for spec in point.inputs):
        wanted["pandas"] = ""  # for data frames
    for component in _those(manifest, used):
        told = manifest.description.get(component.name, {})
        wanted |= dict.fromkeys(RUNNERS[component.serializer][2], "")
        if component.serializer == "keras":
            wanted.setdefault(str(told.get("backend", "tensorflow")), "")
    for component in _those(manifest, used):
        told = manifest.description.get(component.name, {})
        framework = _DISTRIBUTIONS.get(str(told.get("framework")), str(told.get("framework")))
        if framework in (*wanted, "xgboost", "lightgbm") and told.get("framework_version"):
            wanted[framework] = "==" + str(told["framework_version"]).partition("+")[0]
    path.write_text("".join(f"{name}{version}\n" for name, version in sorted(wanted.items())), "utf-8")


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, default=list)
    path.write_text(text + "\n", "utf-8")
