"""A catalog whose format `ads` is a small stand-in, so that the way to OCI is tested by itself.

As a program: `CATALOG REF OPTIONS PLACE`, the last two JSON, publishes a version.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oci_datascience_server import COMPARTMENT, PROJECT, DataScienceServer

import catalog_oci_datascience as ods
from catalog_core import Catalog, plugins
from catalog_core.plugins import Registry
from catalog_core.records import Foreign
from catalog_core.specs import FormatSpec

SCHEMA = json.dumps({"version": "1.1", "schema": [{"name": "latent", "dtype": "float32", "required": True}]})
PLACE = {"compartment": COMPARTMENT, "project": PROJECT}
SCORE = "def load_model():\n    ...\n"


def catalog_register_formats() -> Iterable[FormatSpec]:
    here = "oci_datascience_catalog"
    yield FormatSpec("ads", ("score.py",), f"{here}:read", f"{here}:write")


def write(version: Any, folder: Path) -> None:
    version.catalog.download(version, folder / "files")
    (folder / "input_schema.json").write_text(version.tags.get("schema", SCHEMA))
    (folder / "score.py").write_text(SCORE)


def read(path: Path, scratch: Path, unsafe: bool) -> Foreign:
    pickled = path / "model.pkl"
    if pickled.exists():  # as a real reader does: kept, or converted where that is allowed
        return Foreign({"model": pickle.loads(pickled.read_bytes()) if unsafe else pickled})
    return Foreign({"model": next((path / "files").rglob("*.safetensors"))})


def registry() -> Registry:
    """What is installed, with the stand-in in place of another format of its name."""
    return Registry([("standin", "oci_datascience_catalog"), *plugins.registry().modules.items()])


def opened(folder: Path, name: str = "here") -> Catalog:
    catalog = Catalog.open(folder)
    catalog.repository.name = name
    catalog.repository.registry = registry()
    return catalog


def saved(catalog: Catalog, name: str = "calo/gan", size: int = 1000, **about: Any) -> Any:
    """A version whose weights are the same in every catalog."""
    arrays = {"w": np.arange(size, dtype=np.float32)}
    return catalog.save(name, arrays, provenance={"script": "train.py", "git": None}, **about)


# what the tests' fixtures are made of: a file names those that it uses, as `server = pytest.fixture(calm)`


def run() -> Iterator[DataScienceServer]:
    """For all tests of a file."""
    with DataScienceServer() as server:
        yield server


def calm(running: DataScienceServer) -> DataScienceServer:
    """Without models, and without the faults and settings of the test before."""
    return running.calm()


def login(server: DataScienceServer) -> ods.Options:
    """Of a user who may do all."""
    return ods.Options(**server.login())


def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """An empty catalog, and no session of OCI around it."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("NB_SESSION_COMPARTMENT_OCID", "JOB_RUN_COMPARTMENT_OCID", "PROJECT_OCID"):
        monkeypatch.delenv(name, raising=False)
    with opened(tmp_path / "catalog") as made:
        yield made


if __name__ == "__main__":
    with opened(Path(sys.argv[1])) as made:
        ods.publish(
            made.version(sys.argv[2]), options=ods.Options(**json.loads(sys.argv[3])), **json.loads(sys.argv[4])
        )
