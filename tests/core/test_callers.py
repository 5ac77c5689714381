"""A warning names the line of the caller: not one of the library, of a plug-in, or of a framework in between."""

from __future__ import annotations

import contextlib
import re
import sys
import sysconfig
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog_core import Catalog, callers
from catalog_core.plugins import Registry, registry

ROOT = Path(__file__).parents[2]
SITE = sysconfig.get_path("purelib")


def made(module: str, file: str) -> Callable[..., Any]:
    """A function of a module of that name and file, which calls what it is given with the rest."""
    space: dict[str, Any] = {"__name__": module}
    exec(compile("def call(first, *rest):\n    return first(*rest)\n", file, "exec"), space)
    call: Callable[..., Any] = space["call"]
    return call


CORE = made("catalog_core.deep", f"{SITE}/catalog_core/deep.py")
PLUGIN = made("catalog_torch.serializer", "/a/checkout/serializers/catalog_torch/serializer.py")
TORCH = made("torch.export", f"{SITE}/torch/export.py")
HOOKS = made("pluggy._callers", f"{SITE}/pluggy/_callers.py")
STANDARD = made("contextlib", contextlib.__file__)
TRAINER = made("lightning.trainer", f"{SITE}/lightning/trainer.py")
LAB = made("lab.training", f"{SITE}/lab/training.py")
SCRIPT = made("__main__", "/home/jane/train.py")


@pytest.fixture(autouse=True)
def plugins() -> None:
    registry()


def named(*path: Callable[..., Any]) -> str:
    """The file that a warning names which is given at the end of these calls, the outermost first."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        path[0](*path[1:], callers.warn, "told")
    (one,) = told
    return one.filename


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ((SCRIPT, CORE), "/home/jane/train.py"),
        ((SCRIPT, CORE, PLUGIN, CORE), "/home/jane/train.py"),
        ((SCRIPT, CORE, TORCH, PLUGIN), "/home/jane/train.py"),  # a framework between
        ((SCRIPT, CORE, HOOKS, PLUGIN), "/home/jane/train.py"),  # any package between
        ((SCRIPT, STANDARD, CORE, STANDARD, PLUGIN), "/home/jane/train.py"),
        ((SCRIPT, TORCH, PLUGIN, CORE), "/home/jane/train.py"),  # a callback of ours in a framework's loop
        ((SCRIPT, LAB, CORE, PLUGIN), f"{SITE}/lab/training.py"),  # an installed package that calls is the caller
        ((TRAINER, SCRIPT, CORE), "/home/jane/train.py"),  # a callback of the user's
        ((CORE, SCRIPT, CORE, PLUGIN), "/home/jane/train.py"),  # code of the user's that we run
    ],
)
def test_the_first_frame_outside_is_named(path: tuple[Callable[..., Any], ...], file: str) -> None:
    assert named(*path) == file


def test_a_thread_of_the_library_names_what_started_it() -> None:
    found: list[str] = []
    ran = threading.Thread(target=lambda: found.append(named(CORE)))
    ran.start()
    ran.join()
    assert found == [__file__]  # that of the lambda
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ran = threading.Thread(target=CORE, args=(callers.warn, "told"))
        ran.start()
        ran.join()
    assert told[0].filename == threading.__file__


def test_a_plug_in_of_a_stranger_is_no_caller_once_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = made("stranger_models.plugin", "/a/checkout/stranger_models/plugin.py")
    deep = made("stranger_models.inside.deep", "/a/checkout/stranger_models/inside/deep.py")
    assert named(SCRIPT, CORE, stranger) == "/home/jane/train.py"  # its own package is none, registered or not
    assert named(SCRIPT, CORE, stranger, deep) == "/a/checkout/stranger_models/plugin.py"
    plugin = type(sys)("stranger_models")
    monkeypatch.setitem(sys.modules, "stranger_models", plugin)
    Registry([("stranger", "stranger_models")])
    assert named(SCRIPT, CORE, stranger, deep) == "/home/jane/train.py"


def test_filters_and_once_for_a_line_hold_as_for_any_warning() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module=re.escape(__name__))
        for _ in range(3):
            CORE(callers.warn, "once for this line")
        CORE(callers.warn, "and for that one", DeprecationWarning)
    assert [(str(one.message), one.category) for one in told] == [
        ("once for this line", UserWarning), ("and for that one", DeprecationWarning)
    ]  # fmt: skip
    with warnings.catch_warnings(), pytest.raises(UserWarning, match="told"):
        warnings.simplefilter("error")
        CORE(callers.warn, "told")


@pytest.mark.parametrize("verb", ["attach", "save"])
def test_what_files_warn_of_names_the_caller(verb: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "none").mkdir(parents=True)
    (folder / "score.py").write_text("1")
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04N.")
    with (
        Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog,
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.simplefilter("always")
        version = catalog.save("m", tmp_path / "model.pkl") if verb == "save" else None
        if verb == "attach":
            version = catalog.save("m", folder / "score.py").attach("code", folder)
    assert version is not None
    assert [Path(one.filename) for one in told] == [Path(__file__)], [str(one.message) for one in told]


def test_there_is_no_other_way_to_warn() -> None:
    """A fixed `stacklevel=` counts frames that the next change adds or takes away; `catch_warnings` of a plug-in takes
    the warnings of the other threads."""
    wrong: list[str] = []
    for room in ("catalog_core", "backends", "serializers", "runners", "integrations", "apps"):
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text()
            found = re.findall(r"stacklevel\s*=|\bwarnings\.warn\(|import warn\b|\bcatch_warnings\(", text)
            allowed = ["catch_warnings("] if path.name == "main.py" and path.parent.name == "catalog_cli" else []
            wrong += [f"{path.relative_to(ROOT)}: {one}" for one in found if one not in allowed]
    assert wrong == []
