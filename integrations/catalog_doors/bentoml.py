"""A model of BentoML's store: a folder with `model.yaml`, and files that the framework's module wrote."""

from __future__ import annotations

from pathlib import Path

from catalog_core.errors import NotFound, SerializationError
from catalog_core.records import Foreign
from catalog_doors import calls, text
from catalog_doors.files import model, rest
from catalog_doors.look import look, small, tree

ABOUT = "model.yaml"
LATEST = "latest"  # a file beside the versions of a model: which of them is the newest
_TOLD = ("name", "version", "module", "api_version", "creation_time", "signatures", "options", "context", "metadata")


def read(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    """The model file becomes components; labels become tags, metadata parameters, the rest provenance."""
    path = _version(path)
    looked = look(tree(path))
    told = text.mapping(text.yaml(looked.text(ABOUT), ABOUT), ABOUT)
    if not isinstance(told.get("name"), str) or not isinstance(told.get("module"), str):
        raise SerializationError(f"{ABOUT} has no name and module, as BentoML writes them", hint="is it BentoML's?")
    own = [name for name in looked.files if name.startswith("saved_model")]  # so its framework modules call the file
    found = model(looked, scratch, unsafe, "model", own or [name for name in looked.files if name != ABOUT] or None)
    signatures = told.get("signatures")
    calls.by(found, signatures if isinstance(signatures, dict) else (), f"{ABOUT} (signatures)")
    rest(found, looked, scratch, leave=[ABOUT])
    labels, metadata = (told[key] if isinstance(told.get(key), dict) else {} for key in ("labels", "metadata"))
    return found.foreign(
        looked,
        name=told["name"],
        tags=text.tags({"bentoml_module": told["module"], **labels}, notes=found.notes, of=f"labels of {ABOUT}"),
        params=text.tags(metadata, "parameter", found.notes, f"metadata of {ABOUT}"),
        provenance={key: told[key] for key in _TOLD if told.get(key)},
        attachments={ABOUT: looked.files[ABOUT]},
    )


def _version(path: Path) -> Path:
    """The folder of a version: of a model in BentoML's store, that which its `latest` names. Raises `NotFound`."""
    if (path / ABOUT).is_file() or not (path / LATEST).is_file():
        return path
    latest = text.decoded(small(path / LATEST, 1000), LATEST).strip()
    known = sorted(item.parent.name for item in path.glob(f"*/{ABOUT}"))
    if latest not in known or (path / latest).is_symlink():
        raise NotFound(
            f"{path.name}/{LATEST} names the version {latest[:100]!r}, which is not there",
            hint=f"import one of those that are: {path / known[-1]}" if known else f"there is no {ABOUT}",
        )
    return path / latest
