"""What `docs/explanation/comparison.md` claims of this project is what is installed; of others it holds nothing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from catalog_core.plugins import registry

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/explanation/comparison.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# the modules whose objects a serializer takes, as people call them; what is left out is no framework
FRAMEWORKS = {
    "equinox": "Equinox", "flax": "Flax", "jax": "JAX", "keras": "Keras", "lightgbm": "LightGBM", "onnx": "ONNX",
    "optax": "Optax", "sklearn": "scikit-learn", "tensorflow": "TensorFlow", "torch": "PyTorch", "xgboost": "XGBoost",
}  # fmt: skip
NONE = {"builtins", "collections", "numpy", "jaxlib"}


def claimed(what: str) -> tuple[int, list[str]]:
    """The number and the names that the page tells."""
    match = re.search(rf"\*\*(\d+) {what}\*\*: ([^;.]+)", PAGE)
    assert match is not None, what
    return int(match[1]), [name.strip(" `") for name in match[2].split(",")]


def ours(kind: str) -> list[str]:
    """What this project brings; strangers may have installed more."""
    packages = {Path(path).name for path in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    specs = getattr(registry(), kind)
    paths = {name: getattr(s, "factory", None) or s.reader or s.writer or s.whole for name, s in specs.items()}
    known = [name for name, spec in specs.items() if getattr(spec, "instead", None) is not None]  # and not read
    known += [name for name, path in paths.items() if path.split(".")[0].split(":")[0] not in packages]
    return sorted(paths.keys() - set(known))


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("serializers", "serializers"),
        ("backends", "backends"),
        ("runtimes", "runtimes"),
        ("formats of others", "formats"),
    ],
)
def test_the_page_names_and_counts_what_is_installed(what: str, kind: str) -> None:
    number, names = claimed(what)
    assert (number, names) == (len(ours(kind)), ours(kind))


def test_the_page_counts_the_frameworks_whose_objects_are_taken() -> None:
    taken = {module for name in ours("serializers") for module in registry().serializers[name].handles}
    modules = {module for module in taken if not module.startswith("catalog_")} - NONE
    number, names = claimed("frameworks")
    assert modules == FRAMEWORKS.keys()
    assert (number, names) == (len(modules), sorted((FRAMEWORKS[m] for m in modules), key=str.lower))
    row = next(line for line in PAGE.splitlines() if line.startswith("| frameworks |"))
    assert row.rstrip("| ").split("|")[-1].strip() == f"{number}, and any file"


def test_every_store_of_the_page_has_a_backend() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| remote stores |")).rstrip("| ").split("|")[-1]
    for word, backend in (
        ("EOS", "eos"),
        ("OCI", "oci"),
        ("S3", "s3"),
        ("shared folder", "files"),
        ("hybrids", "hybrid"),
    ):
        assert word in row and backend in ours("backends")


def test_what_the_page_says_is_missing_is_missing() -> None:
    """When one of these comes, the page has to say so."""
    told = PAGE[PAGE.index("does *not* have today") :].split("\n\n")[0]
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for words, package in (("a web page", "apps/catalog_web"), ("a server", "runners/catalog_serving")):
        assert (words in told) == (package not in packages)
