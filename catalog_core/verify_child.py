"""The other side of `verify`: run in a fresh process, it loads, runs and compares. Reads `spec`, writes its result."""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

TOLERANCE = {"float64": (1e-9, 1e-12), "float32": (1e-4, 1e-5), "float16": (1e-2, 1e-2), "complex64": (1e-4, 1e-5)}


class OwnFinder(importlib.abc.MetaPathFinder):
    """Finds the catalog and its plug-ins where the parent had them, also in an editable install."""

    def __init__(self, roots: dict[str, str]) -> None:
        self.roots = roots

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of one of our top-level packages."""
        root = self.roots.get(name)
        if root is None:
            return None
        inside = [root.removesuffix("__init__.py")] if root.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(name, root, submodule_search_locations=inside)


DRAWS, SIGMA = 16, 8.0  # runs of what is random, and how far off its moments may be


class Guard(importlib.abc.MetaPathFinder):
    """Refuses modules that come with no recorded distribution: the code of whoever trained the model."""

    def __init__(self, recorded: dict[str, str], roots: dict[str, str]) -> None:
        from importlib.metadata import packages_distributions

        self.owners = packages_distributions()
        self.recorded = {name.lower().replace("_", "-") for name in recorded}
        self.roots = set(roots)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """None lets others find it; an ImportError refuses it."""
        top = name.partition(".")[0]
        if "." in name or top in sys.stdlib_module_names or top in self.roots or top.startswith("_"):
            return None
        owners = {owner.lower().replace("_", "-") for owner in self.owners.get(top, [])}
        if owners & self.recorded:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        if found is None or self._inside(found):
            return None
        whose = f"distribution {sorted(owners)[0]}, which the artifact does not record" if owners else "no distribution"
        raise ImportError(f"module {name!r} is refused: it belongs to {whose}", name=name)

    def _inside(self, found: importlib.machinery.ModuleSpec) -> bool:
        """Whether a module lies in the folder of a recorded distribution, which puts what it brings on the path itself:
        setuptools does."""
        places = [found.origin or "", *(found.submodule_search_locations or ())]
        tops = [place[len(path) + 1 :].partition("/")[0] for place in places for path in sys.path
                if path and place.startswith(path + "/")]  # fmt: skip
        owners = {owner.lower().replace("_", "-") for top in tops for owner in self.owners.get(top, [])}
        return bool(owners & self.recorded)


def main(spec: dict[str, Any]) -> None:
    """Run all checks and write the table."""
    sys.meta_path.insert(0, OwnFinder(spec["roots"]))
    trust: dict[str, Any] = {"trust": True} if spec.get("trust") else {}
    rows: list[dict[str, Any]] = []
    from catalog_core.errors import NotTrusted

    def note(identity: str, run: Callable[[], tuple[str, str] | None]) -> bool:
        begin = time.perf_counter()
        try:
            result, cause = run() or ("passed", "")
        except NotTrusted as exc:
            result, cause = "skipped", f"{exc.message}; not done without trust"
        except BaseException as exc:
            result, cause = "failed", f"{type(exc).__name__}: {' '.join(str(exc).split())[:4000]}"
        rows.append(
            {"id": identity, "result": result, "seconds": round(time.perf_counter() - begin, 4), "cause": cause}
        )
        Path(spec["result"]).write_text(json.dumps(rows))
        return result == "passed"

    from catalog_core import plugins
    from catalog_core.artifact import StoredArtifact
    from catalog_core.codec import manifest_of
    from catalog_core.content import Content
    from catalog_core.digests import canonical
    from catalog_core.layout import read_layout

    registry = plugins.Registry([(label, module) for label, module in spec["plugins"]])
    sys.meta_path.insert(0, Guard(spec["recorded"], spec["roots"]))
    content = Content.__new__(Content)
    content.overlay = {name: Path(path) for name, path in spec["places"].items()}
    content.memory = {}
    content.remote = None  # what was far was fetched for this process
    content.fetched = {}
    content.policy = "always"
    content.own = True  # the first check holds whole files against their digests
    content.backend = _Place()  # type: ignore[assignment]
    content.index = _NoIndex()  # type: ignore[assignment]
    content.blob = lambda digest, what: content.overlay[digest].read_bytes()  # type: ignore[method-assign]
    manifest = manifest_of(canonical(spec["manifest"]))
    artifact = StoredArtifact(manifest, read_layout(canonical(spec["layout"])), content, registry, spec["what"])
    if not note("digests", lambda: _digests(artifact)):
        return
    for check in registry.checks.values():
        note(check.name, lambda check=check: _check(artifact, registry, check))  # type: ignore[misc]
    note("environment", lambda: _environment(spec["recorded"]))
    loadable = [c for c in manifest.components if c.serializer in registry.serializers]
    for component in manifest.components:
        if component in loadable:
            note(f"load:{component.name}", lambda name=component.name: (artifact.component(name, **trust), None)[1])  # type: ignore[misc]
        else:
            cause = f"{component.serializer!r} is kept as it is; nothing loads it"
            note(f"load:{component.name}", lambda why=cause: ("skipped", why))  # type: ignore[misc]
    for told in manifest.description.values():
        if isinstance(told, dict) and "not_run" in told:
            note("run:predict", lambda why=str(told["not_run"]): ("skipped", why))  # type: ignore[misc]
    sessions = Sessions(artifact, registry, trust)
    for point in manifest.entry_points:
        example = artifact.example_of(point.name)
        if example is None:
            why = "no example is stored" if manifest.example is None else "the stored example is not for it"
            note(f"run:{point.name}", lambda why=why: ("skipped", why))  # type: ignore[misc]
            continue
        _run(sessions, point, *example, note)


class Sessions:
    """Sessions in which entry points run. A component is loaded once, and again only where another entry point ran it
    before: what it keeps from run to run must not show."""

    def __init__(self, artifact: Any, registry: Any, trust: dict[str, Any]) -> None:
        self._artifact, self._registry, self._trust = artifact, registry, trust
        self._session: Any = None
        self._ran: set[str] = set()

    def of(self, point: Any) -> Any:
        """The session for an entry point that did not run so far."""
        parts = {step.partition(".")[0] for step in point.steps}
        if self._session is not None and parts & self._ran:
            self._session.close()
            self._session, self._ran = None, set()
        if self._session is None:
            runtime = self._registry.runtime_for(self._artifact.manifest)
            self._session = runtime.open(self._artifact, "cpu", self._trust)
        self._ran |= parts
        return self._session


def _run(sessions: Sessions, point: Any, inputs: Any, outputs: Any, note: Any) -> None:
    got: dict[str, Any] = {}
    axes: dict[str, int] = {}
    session: Any = None

    def run() -> None:
        nonlocal session
        session = sessions.of(point)
        got.update(session.run(point.name, inputs))

    def draws() -> list[dict[str, Any]]:
        return [dict(session.run(point.name, inputs)) for _ in range(DRAWS)]

    def schema() -> None:
        from catalog_core.session import check_tensor

        for spec in point.outputs:
            check_tensor(f"output {spec.name!r} of {point.name}", spec, got[spec.name], axes)

    def batches() -> tuple[str, str] | None:
        import numpy as np

        rows = {spec.shape[0] if spec.shape else None for spec in point.inputs}
        if len(rows) != 1 or not isinstance(next(iter(rows)), str):
            return "skipped", "the first axis is not free"
        for size in (1, 3):
            other = {
                s.name: tuple(size if a in rows else n for a, n in zip(s.shape, inputs[s.name].shape, strict=True))
                for s in point.inputs
            }
            session.run(point.name, {name: np.resize(inputs[name], shape) for name, shape in other.items()})
        return None

    if note(f"run:{point.name}", run):
        note(f"schema:{point.name}", schema)
        note(f"match:{point.name}", lambda: _match(got, outputs, draws))
        note(f"batch:{point.name}", batches)


def _match(
    got: dict[str, Any], wanted: dict[str, Any], draws: Callable[[], list[dict[str, Any]]]
) -> tuple[str, str] | None:
    """Compare outputs with those of the live object: by numbers; those that differ from run to run, by finiteness and
    moments."""
    import numpy as np

    if got.keys() != wanted.keys():
        raise ValueError(f"outputs are {sorted(got)}, recorded were {sorted(wanted)}")
    more: list[dict[str, Any]] = []
    random: list[str] = []
    for name in got:
        left, right = _plain(got[name]), _plain(wanted[name])
        relative, absolute = TOLERANCE.get(str(wanted[name].dtype), (1e-2, 1e-2) if left.dtype.kind in "fc" else (0, 0))

        def same(one: Any, other: Any, relative: float = relative, absolute: float = absolute) -> bool:
            if one.shape != other.shape:
                return False
            if {one.dtype.kind, other.dtype.kind} & set("fc"):
                return bool(np.allclose(one, other, rtol=relative, atol=absolute, equal_nan=True))
            return all(a == b or (a != a and b != b) for a, b in zip(one.flat, other.flat, strict=True))  # exactly

        if same(left, right):
            continue
        if {left.dtype.kind, right.dtype.kind} & set("OUSV") and left.shape == right.shape:
            first = next(pair for pair in zip(right.flat, left.flat, strict=True) if pair[0] != pair[1])
            raise ValueError(f"output {name!r} differs from what the live object gave: {first[1]!r}, not {first[0]!r}")
        worst = np.nanmax(np.abs(_reals(left) - _reals(right))) if left.shape == right.shape else "another shape"
        told = f"output {name!r} differs from what the live object gave (largest difference {worst})"
        more = more or draws()
        others = [_plain(draw[name]) for draw in more]
        if left.shape != right.shape or all(same(left, other) for other in others):
            raise ValueError(told)
        why = _unlikely(_reals(right), [_reals(other) for other in (left, *others)])
        if why:
            raise ValueError(f"{told}; it is random, and {why}")
        random.append(name)
    return ("passed", f"random: {', '.join(random)}, compared by finiteness and moments") if random else None


def _plain(value: Any) -> Any:
    import numpy as np

    array = np.asarray(value.float() if hasattr(value, "float") else value)
    return array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else array


def _reals(array: Any) -> Any:
    """Numbers in float64, complex ones as two."""
    import numpy as np

    return np.stack([array.real, array.imag]) if array.dtype.kind == "c" else array.astype(np.float64)


def _unlikely(recorded: Any, draws: list[Any]) -> str | None:
    """Why recorded numbers are none of the same kind as those that were drawn; None where nothing speaks against it."""
    import numpy as np

    if np.isfinite(recorded).all() != all(np.isfinite(draw).all() for draw in draws):
        return "only one side is finite"
    for what, moment in (("mean", np.nanmean), ("standard deviation", np.nanstd)):
        drawn = [float(moment(draw)) for draw in draws]
        centre, spread = float(np.mean(drawn)), float(np.std(drawn))
        if not abs(moment(recorded) - centre) <= SIGMA * spread + 1e-3 * abs(centre) + 1e-12:
            return f"its {what} was {moment(recorded):.4g}, and is {centre:.4g} now"
    return None


def _digests(artifact: Any) -> None:
    for component in artifact.manifest.components:
        reader = artifact.reader(component)
        for file in component.files:
            actual = "sha256:" + hashlib.sha256(reader.view(file.name)).hexdigest()
            if actual != file.digest:
                raise ValueError(f"{component.name}/{file.name} holds other bytes: {actual}, not {file.digest}")


def _check(artifact: Any, registry: Any, spec: Any) -> tuple[str, str] | None:
    """Make the check of a plug-in; one whose packages are not installed is skipped."""
    from catalog_core.errors import MissingPlugin

    try:
        check = registry.load(spec.factory, spec.extra)
    except MissingPlugin as exc:
        return "skipped", exc.message
    result: tuple[str, str] | None = check(artifact)
    return result


def _environment(recorded: dict[str, str]) -> tuple[str, str] | None:
    from importlib.metadata import PackageNotFoundError, version

    different = []
    for name, wanted in recorded.items():
        try:
            if version(name) != wanted:
                different.append(f"{name} {version(name)} instead of {wanted}")
        except PackageNotFoundError:
            continue
    return ("warned", "; ".join(different[:5])) if different else None


class _Place:
    name = "verify"
    url = "this process"
    files = None


class _NoIndex:
    path = None

    @staticmethod
    def key(digest: str) -> str:
        return digest


if "spec" in globals():
    main(globals()["spec"])
