"""How another program calls a model, as its manifest says: which method or signature is what `predict` does here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from catalog_core.errors import CatalogError
from catalog_core.session import check_entry_point
from catalog_doors.files import Found
from catalog_doors.look import fits
from catalog_doors.stored import serializer

USUAL = frozenset(["predict", "__call__", "forward", "run", "call"])  # what is the default here, too
_ESTIMATORS = frozenset(["sklearn", "xgboost", "lightgbm"])


def by(found: Found, methods: Iterable[str], who: str, name: str = "model") -> None:
    """Let `predict` be the first of `methods`, each of which is an entry point under its own name too. `who` says so (a
    file and a key). What cannot be done so is told in a note, and the import goes on."""
    wanted = list(dict.fromkeys(methods))
    known = found.about.get("entry_points")
    if not wanted:
        return
    if known is None:
        if set(wanted) - USUAL:
            found.notes.append(f"{who} calls {', '.join(wanted)}: what was imported has no method to call")
        return
    steps = {method: _step(found.objects[name], name, method, set(known.values())) for method in wanted}
    lacking = [method for method, step in steps.items() if step is None and method not in USUAL]
    if lacking:
        found.notes.append(f"{who} calls {', '.join(lacking)}, which the model does not have here: left out")
    called = {method: step for method, step in steps.items() if step is not None and step != name}
    own = {method: step for method, step in called.items() if fits(check_entry_point, method)}
    if not USUAL.intersection(wanted) and own:
        main = next(iter(own))
        found.notes.append(f"`predict` gives what `{main}` gives, since {who} says so")
        own = {"predict": own[main], **own}
    found.about["entry_points"] = {**known, **own}


def _step(obj: Any, name: str, method: str, steps: set[str]) -> str | None:
    """The step that runs this method of the model; None where there is none."""
    if f"{name}.{method}" in steps:  # a signature of a SavedModel
        return f"{name}.{method}"
    if method in USUAL and not any(step.startswith(f"{name}.") for step in steps):
        return name
    if not {kind.__module__.partition(".")[0] for kind in type(obj).__mro__} & _ESTIMATORS:
        return None
    try:
        serializer("sklearn").inputs(obj, method)
    except CatalogError:
        return None
    return f"{name}.{method}"
