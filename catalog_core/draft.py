"""A draft: an artifact that is staged, can be verified, and becomes a version when it is saved."""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import evolve

from catalog_core import about, capture, folders, redact
from catalog_core import baseline as statistics
from catalog_core.artifact import FILES, StoredArtifact
from catalog_core.codec import converter, manifest_to_json
from catalog_core.content import Content
from catalog_core.digests import MAX_INTEGER, canonical
from catalog_core.durable import translated
from catalog_core.errors import (
    CatalogError,
    Conflict,
    InvalidInput,
    NotTrusted,
    PublishedNotReplicated,
    Rejected,
    SerializationError,
    VerificationFailed,
)
from catalog_core.interfaces.serializer import SaveRequest
from catalog_core.layout import SMALL, write_layout
from catalog_core.names import check_alias, check_component, check_file, check_name, nearest
from catalog_core.records import Component, Description, EntryPoint, File, Manifest, Stored, TensorSpec, step_of
from catalog_core.session import check_entry_point, fit, running, to_numpy
from catalog_core.staging import ComponentDirectory, Source, Writer, cuts_of
from catalog_core.values import check_metric, check_tags, members, refuse_pickle, scalar

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.handles import Version

MAX_FLOAT = sys.float_info.max


class Draft:
    """Made by `Catalog.prepare`; a context manager that discards what was not saved.

    It holds `manifest` (what the version will be), `digest` (of the manifest), and `report` (of `verify`, or None)."""

    def __init__(
        self,
        catalog: Catalog,
        name: str,
        components: Mapping[str, Any],
        *,
        entry_points: Mapping[str, str | Sequence[str]] | None = None,
        example: Any = None,
        serializer: str | Mapping[str, str | Sequence[str]] | None = None,
        tags: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        taxonomy: Mapping[str, str] | None = None,
        description: str | None = None,
        parents: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Mapping[str, Any]] | None = None,
        custom: Mapping[str, Any] | None = None,
        baseline: Mapping[str, Any] | None = None,
        seed: int | None = None,
        datasets: Mapping[str, Any] | None = None,
        run: str | None = None,
    ) -> None:
        self.catalog = catalog
        self.name = check_name(name)
        mappings = {
            "tags": tags, "metrics": metrics, "params": params, "taxonomy": taxonomy, "custom": custom,
            "tensors": tensors, "baseline": baseline, "datasets": datasets,
        }  # fmt: skip
        for kind, given in mappings.items():
            if given is not None and members(given) is None:
                raise InvalidInput(f"{kind} must map names to values; this is a {type(given).__name__}")
        self.tags = {key: value for key, value in check_tags(tags or {}).items() if value is not None}
        self.metrics = {key: check_metric(key, value) for key, value in (members(metrics) or {}).items()}
        self.params = check_tags(params or {}, "parameter")
        self.taxonomy = about.check_taxonomy(taxonomy or {})
        self.custom = about.check_custom(custom or {})
        self.description = description
        self.report: Any = None
        if isinstance(parents, str):
            raise InvalidInput(f"parents is a list of references, not {parents!r}", hint=f"parents=[{parents!r}]")
        self._parents = [catalog.version(parent).ref for parent in parents]
        self._objects = {check_component(key): value for key, value in components.items()}
        if not self._objects:
            raise InvalidInput(
                "a version needs at least one component", hint="pass an object, or components={name: object}"
            )
        self._stored = {key: value for key, value in self._objects.items() if isinstance(value, Stored)}
        self._example = example
        self._entries = entry_points
        self._formats = self._chosen(serializer)
        self._options = options or {}
        self._training = about.training(seed, datasets, run)
        self._provenance = provenance
        self._tensors = tensors or {}
        self._baseline = baseline
        self._folder: Path | None = None
        self._ended: str | None = None  # saved, or discarded
        self._behind: Version | None = None  # saved, and not on every replica
        self._writer = Writer(catalog._backend, catalog._index, catalog.progress)
        try:
            self._stage()
        except BaseException:
            self._clear()
            raise

    # -- staging ------------------------------------------------------------------------------------------------

    def _temporary(self) -> Path:
        if self._folder is None:
            near = self.catalog._backend.files or self.catalog.cache
            self._folder = Path(tempfile.mkdtemp(prefix="draft-", dir=near.staging() if near else None))
        return self._folder

    def _stage(self) -> None:
        registry = self.catalog._registry
        self._checked = self.catalog._index.head  # what is found in the store from here on was there at this head
        components: list[Component] = []
        described: dict[str, Description] = {}
        serializers = {}
        for name, stored in self._stored.items():
            components.append(self._stage_stored(name, stored))
            serializers[name] = registry.serializer(stored.serializer)
        for name, obj in self._objects.items():
            if name in self._stored:
                continue
            chosen = self._formats.get(name, [""])[0]
            spec = self._path_spec(obj, chosen) if isinstance(obj, Path) else None
            if isinstance(obj, Path) and spec is None:
                components.append(self._stage_path(name, obj))
                described[name] = Description()
                continue
            if spec is None and not chosen:
                spec = registry.find_serializer(obj)
            serializers[name] = registry.serializer(spec.name if spec else chosen)
        entries = self._entry_steps(serializers)
        inputs = self._named_example(entries, serializers)
        skipped: dict[str, str] = {}
        points, arrays, examples = self._run_example(entries, inputs, serializers, skipped)
        if self._tensors:
            points = about.detailed(points, self._tensors)
        censuses: dict[str, Any] = {}
        fixed: dict[str, str] = {}
        further = [(name, registry.serializer(kind)) for name, kinds in self._formats.items() for kind in kinds[1:]]
        for name, serializer in (*serializers.items(), *further):
            if name in self._stored:
                described[name] = serializer.describe(self._objects[name])
                continue
            methods = [m for steps in entries.values() for component, m in map(step_of, steps) if component == name]
            request = SaveRequest(name, examples.get(name), methods, self._options)
            directory = ComponentDirectory(self._writer, self._temporary)
            obj = self._objects[name]
            own = serializer is serializers[name]
            if own:
                described[name] = serializer.describe(obj)
            try:
                with translated(f"component {name!r}"):
                    meta = serializer.save(obj, directory, request)
            except CatalogError:
                raise
            except Exception as exc:
                what = f"component {name!r} cannot be written by {serializer.name!r}: {type(exc).__name__}: {exc}"
                raise SerializationError(" ".join(what.split())) from exc
            directory.seal()
            if own and directory.census["count"]:
                censuses[name] = directory.census
            if own:
                only = meta.get("fixed")
                if isinstance(only, Mapping):
                    fixed.update((f"{name}.{method}", str(why)) for method, why in only.items())
            kept = name if own else check_component(f"{name}-{serializer.name}")
            if kept in self._objects and not own:
                raise InvalidInput(f"the component {kept!r} is there already: {name!r} cannot be kept so as well")
            components.append(_component(kept, serializer.name, directory, meta))
        points = tuple(_pinned(point, fixed, arrays) for point in points)
        example = self._stage_example(arrays) if arrays else None
        described = {name: described[name] for name in self._objects}  # the first that was given is the main one
        main = next((d for d in described.values() if d.framework), next(iter(described.values())))
        environment = capture.environment()
        lock, _ = self._writer.add(Source([_lock_bytes(environment.get("distributions"))]))
        self.described = described
        baseline = self._stage_baseline(inputs, points, censuses)
        self.manifest = Manifest(
            components=tuple(sorted(components, key=lambda c: c.name)),
            entry_points=points,
            description={
                name: {
                    "framework": d.framework,
                    "framework_version": d.framework_version,
                    "algorithm": d.algorithm,
                    "parameters": d.parameters,
                    **({"import_path": d.import_path} if d.import_path else {}),
                    **({"not_run": skipped[name]} if name in skipped else {}),
                }
                for name, d in described.items()
            },
            environment={k: v for k, v in environment.items() if k != "distributions"} | {"distributions": lock},
            provenance=redact.tree(
                {
                    **(capture.provenance() if self._provenance is None else self._provenance),
                    **self._training,
                    "parents": self._parents,
                }
            ),
            custom=self.custom,
            baseline=baseline,
            taxonomy=self.taxonomy,
            example=example,
        )
        self._writer.bundle(self.manifest.notes)
        self._main = main
        self.digest = self._writer.add_small(canonical(manifest_to_json(self.manifest)))
        self._layout = self._writer.add_small(canonical(write_layout(self._writer.layout)))

    def _chosen(self, serializer: Any) -> dict[str, list[str]]:
        """The serializers that the user named, by component; behind the first, others that keep it as well."""
        if serializer is None:
            return {}
        if isinstance(serializer, str):
            return {name: [serializer] for name in self._objects}
        chosen = {name: [kinds] if isinstance(kinds, str) else list(kinds) for name, kinds in serializer.items()}
        for name, kinds in chosen.items():
            if name not in self._objects:
                hint = nearest(name, self._objects) or f"components: {', '.join(self._objects)}"
                raise InvalidInput(f"a serializer is named for {name!r}, which is no component", hint=hint)
            if not kinds or len(set(kinds)) < len(kinds):
                raise InvalidInput(f"the serializers of {name!r} must be different ones, at least one")
        return chosen

    def _path_spec(self, path: Path, chosen: str) -> Any:
        """The serializer that takes this path as its object; None where files are kept as they are."""
        registry = self.catalog._registry
        if chosen:
            registry.serializer(chosen)
        name = chosen or registry.serializer_for_suffix([path.name])
        spec = registry.serializers.get(name) if name else None
        return spec if spec is not None and spec.paths else None

    def _stage_path(self, name: str, path: Path) -> Component:
        with translated(str(path)):
            found = folders.read(path)
            if not found.files:
                raise InvalidInput(f"folder {path} holds no files")
            for file in (*found.files, *found.empty):
                check_file(file)
            result = [(file, self._writer.add(Source.of_file(at), cuts_of(at))) for file, at in found.files.items()]
        kind = self.catalog._registry.serializer_for_suffix([file for file, _ in result]) or FILES
        directory = ComponentDirectory(self._writer, self._temporary)
        directory.files = dict(result)
        return _component(name, kind, directory, found.meta)

    def _stage_stored(self, name: str, stored: Stored) -> Component:
        """Keep the files as they are; what the serializer makes of them is run, and described."""
        staged = self._stage_path(name, stored.folder)
        kept = evolve(staged, serializer=stored.serializer, meta={**stored.meta, **staged.meta})
        try:
            self._objects[name] = self._artifact(Manifest((kept,))).load(name)
        except NotTrusted:
            self._objects[name] = stored.folder
        return kept

    def _entry_steps(self, serializers: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        declared = self._entries
        if declared is None:
            declared = (
                {"predict": next(iter(serializers))} if len(serializers) == 1 and self._example is not None else {}
            )
        entries: dict[str, tuple[str, ...]] = {}
        for name, steps in declared.items():
            listed = (steps,) if isinstance(steps, str) else tuple(steps)
            for step in listed:
                if step.partition(".")[0] not in self._objects:
                    raise InvalidInput(
                        f"entry point {name!r} names component {step.partition('.')[0]!r}, which is not there",
                        hint=f"components: {', '.join(self._objects)}",
                    )
            entries[check_entry_point(name)] = tuple(self._with_method(step, serializers) for step in listed)
        return entries

    def _with_method(self, step: str, serializers: Mapping[str, Any]) -> str:
        """The step as the manifest has it, where a component alone means `forward`: another default is written out."""
        if "." in step or step not in serializers:
            return step
        method = self.catalog._registry.serializers[serializers[step].name].default_method
        return step if method == "forward" else f"{step}.{method}"

    def _named_example(self, entries: Mapping[str, Sequence[str]], serializers: Mapping[str, Any]) -> dict[str, Any]:
        example = self._example
        if example is None:
            return {}
        if isinstance(example, Mapping):
            named = _arrays({str(key): value for key, value in example.items()})
            self._check_names(named, entries, serializers)
            return named
        several = isinstance(example, tuple) or (
            isinstance(example, list) and any(hasattr(v, "shape") for v in example)
        )
        values = list(example) if several else [example]
        names: list[str] = []
        if entries:
            names = self._wanted(next(iter(entries.values()))[0], serializers) or []
        if names and len(names) < len(values):
            raise InvalidInput(
                f"the example has {len(values)} arrays, and {next(iter(entries))!r} takes {', '.join(names)}"
            )
        if not names:
            names = ["input"] if len(values) == 1 else [f"input_{number}" for number in range(len(values))]
        return _arrays(dict(zip(names, values, strict=False)))

    def _check_names(
        self, named: Mapping[str, Any], entries: Mapping[str, Sequence[str]], serializers: Mapping[str, Any]
    ) -> None:
        wanted = {name: self._wanted(steps[0], serializers) for name, steps in entries.items()}
        if wanted and not any(set(names or named) & set(named) for names in wanted.values()):
            takes = "; ".join(f"{name!r} takes {', '.join(names)}" for name, names in wanted.items())
            raise InvalidInput(
                f"the example names {', '.join(named)}; {takes}",
                hint="name the example's arrays as the method's parameters",
            )

    def _wanted(self, step: str, serializers: Mapping[str, Any]) -> list[str]:
        """The names of a step's inputs; none where its serializer does not know them."""
        component, method = step_of(step)
        if component not in serializers:
            return []
        obj = self._objects[component]
        try:
            with running(component, method):
                names = list(serializers[component].inputs(obj, method) or ())
            if not names and self._example is None and not hasattr(obj, method):
                raise SerializationError(f"a {type(obj).__name__} has no method {method!r}")
        except SerializationError as exc:
            hint = exc.hint or nearest(method, [name for name in dir(type(obj)) if not name.startswith("_")])
            raise SerializationError(f"component {component!r}: {exc.message}", hint=hint) from exc
        return names

    def _run_example(
        self,
        entries: Mapping[str, tuple[str, ...]],
        inputs: Mapping[str, Any],
        serializers: Mapping[str, Any],
        skipped: dict[str, str],
    ) -> tuple[tuple[EntryPoint, ...], dict[str, Any], dict[str, dict[str, Any]]]:
        """Run the live objects on the example: the entry points with their signatures, what to store (inputs, and
        each entry point's outputs), and what each component was given, for those that are traced when saved. An entry
        point that nobody asked for is left out if it does not run; `skipped` then takes component and cause."""
        arrays: dict[str, Any] = {f"input:{name}": to_numpy(value) for name, value in inputs.items()}
        points: list[EntryPoint] = []
        given: dict[str, dict[str, Any]] = {}
        for name, steps in entries.items():
            wanted = [self._wanted(step, serializers) for step in steps]
            runs = {step_of(step)[0] for step in steps} <= serializers.keys()
            if not inputs or not runs or (wanted[0] and not set(wanted[0]) & set(inputs)):
                points.append(EntryPoint(name, steps))  # the example is not for this one
                continue
            values: Mapping[str, Any] = inputs
            specs = None
            try:
                for step, names in zip(steps, wanted, strict=True):
                    component, method = step_of(step)
                    serializer, obj = serializers[component], self._objects[component]
                    values = fit(values, names)
                    with running(component, method):
                        signature = serializer.signature(obj, method, values)
                        specs = (specs[0] if specs else signature[0], signature[1])
                        given.setdefault(component, {}).update(values)
                        values = serializer.call(obj, method, values)
            except CatalogError as exc:
                if self._entries is not None or wanted[0]:
                    raise
                skipped[component] = exc.message
                warnings.warn(f"{name!r} is not stored to be run: {exc.message}", stacklevel=5)
                continue
            assert specs is not None
            points.append(EntryPoint(name, steps, tuple(specs[0]), tuple(specs[1])))
            arrays.update({f"output:{name}:{key}": to_numpy(value) for key, value in values.items()})
        return tuple(points), arrays, given

    def _stage_example(self, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        serializer = self.catalog._registry.serializer("safetensors")
        directory = ComponentDirectory(self._writer, self._temporary)
        meta = serializer.save(arrays, directory, SaveRequest("example"))
        directory.seal()
        example: Mapping[str, Any] = converter().unstructure(_component("example", serializer.name, directory, meta))
        return example

    def _stage_baseline(
        self, inputs: Mapping[str, Any], points: Sequence[EntryPoint], censuses: Mapping[str, Any]
    ) -> str | None:
        """The digest of a file with the statistics of the inputs (of the baseline, else of the example) and the census
        of the weights; None where there is nothing to tell."""
        names = [spec.name for point in points for spec in point.inputs]
        values = inputs if self._baseline is None else self._baseline
        found = statistics.of_inputs(values, names if self._baseline is not None else ())
        told = {"inputs": {name: item for name, item in found.items() if item}, "weights": dict(censuses)}
        if not any(told.values()):
            return None
        data = canonical(told)
        if len(data) > SMALL:  # dozens of inputs: the long lists go first
            told["inputs"] = {name: statistics.short(item) for name, item in told["inputs"].items()}
            data = canonical(told)
        if len(data) > SMALL:
            return None
        return self._writer.add(Source([data]))[0]

    # -- use ----------------------------------------------------------------------------------------------------

    @property
    def artifact(self) -> StoredArtifact:
        """The staged artifact, as runtimes see it."""
        return self._artifact(self.manifest)

    def _artifact(self, manifest: Manifest) -> StoredArtifact:
        catalog = self.catalog
        content = Content(catalog._backend, catalog._index, catalog._content.policy, catalog.cache)
        content.overlay = self._writer.staged
        content.memory = self._writer.small
        return StoredArtifact(manifest, self._writer.layout, content, self.catalog._registry, f"draft of {self.name}")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for component in self.manifest.components for file in component.files)

    @property
    def new_bytes(self) -> int:
        """Bytes that the catalog did not hold yet."""
        return self._writer.written

    def verify(self, *, trust: bool = False) -> Any:
        """Check the draft in a fresh process; returns a `verify.Report` (a table of checks). What would run its
        author's code is skipped without `trust`."""
        self._check_open()
        from catalog_core import verify

        self.report = verify.check(self.artifact, self._temporary(), trust=trust)
        return self.report

    def save(self, *, alias: str | None = None, force: bool = False) -> Version:
        """Publish the draft as the next version; durable when this returns. Raises `VerificationFailed` after a
        failed `verify`, unless `force`; `InvalidInput` where it was saved or discarded before; `PublishedNotReplicated`
        where a replica did not follow: then call it again."""
        if self._behind is not None:  # the version stands; what is missing is copies of it
            self.catalog.sync()
            version, self._behind = self._behind, None
            return version
        self._check_open()
        if self.report is not None and not self.report.passed and not force:
            raise VerificationFailed(
                f"{self.name} failed verification: {self.report.reason}",
                report=self.report,
                hint="mend it, or save(force=True) to record it as failed",
            )
        if alias is not None:
            check_alias(alias)
        self.catalog._registry.saving(self.name, self.manifest)
        for _ in range(5):
            try:
                version = self._publish(alias)
                break
            except PublishedNotReplicated as exc:
                self._behind = exc.version
                self._ended = f"saved as {exc.version.ref}"
                self._clear()
                self.catalog._registry.saved(exc.version)
                raise
            except Rejected as exc:
                if exc.code != "swept":
                    raise
                self._clear()  # somebody collected our blobs: store them again, under their next names
                self._writer = Writer(self.catalog._backend, self.catalog._index, self.catalog.progress)
                self.catalog._refresh(force=True)
                self._stage()
        else:
            raise Conflict(
                f"{self.name}: the bytes were collected five times while being saved", hint="stop `catalog gc`"
            )
        self._ended = f"saved as {version.ref}"
        self._clear()
        self.catalog._registry.saved(version)
        if self._lacks_example():
            warnings.warn(f"{version.ref} has no example: it can be loaded, and no session runs it", stacklevel=3)
        return version

    def _lacks_example(self) -> bool:
        """Whether a session could run what this is, and only an example is missing that tells how. Files and
        dictionaries of arrays are run by nothing."""
        known = {name for spec in self.catalog._registry.runtimes.values() for name in spec.serializers}
        runs = any(component.serializer in known for component in self.manifest.components)
        return runs and self._example is None and not self.manifest.entry_points

    def _publish(self, alias: str | None) -> Version:
        summary: dict[str, Any] = {
            "framework": self._main.framework,
            "algorithm": self._main.algorithm,
            "parameters": sum(d.parameters for d in self.described.values()),
            "components": {c.name: c.serializer for c in self.manifest.components},
            "entry_points": [point.name for point in self.manifest.entry_points],
            "verification": "not run" if self.report is None else "passed" if self.report.passed else "failed",
            "parents": self._parents,
            "new_bytes": self._writer.written,
            **({} if self.report is None else {"checks": self.report.told()}),
        }
        params = {**_flat(self._main.hyperparameters), **self.params}
        none = sorted(key for key, value in params.items() if value is None)
        if none:
            summary["none"] = none
        params = {key: value for key, value in params.items() if value is not None}
        return self.catalog._publish(
            self.name, self._writer, self.digest, self._layout, self.size, self._checked, alias=alias, summary=summary,
            tags=self.tags, metrics=self.metrics, params=params,
            taxonomy=self.taxonomy, text=self.description,
        )  # fmt: skip

    def _check_open(self) -> None:
        if self._ended:
            raise InvalidInput(f"this draft of {self.name} was {self._ended}", hint="prepare it again")

    def discard(self) -> None:
        """Remove what was staged and not saved; the draft is of no use any more."""
        self._ended = self._ended or "discarded"
        self._clear()

    def _clear(self) -> None:
        self._writer.discard()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Draft:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def __reduce__(self) -> NoReturn:
        refuse_pickle(self, "catalog.prepare(…)")

    def __repr__(self) -> str:
        return f"<Draft {self.name} {self.digest[:19]} {self.size:,} bytes, {self.new_bytes:,} new>"


def _arrays(example: dict[str, Any]) -> dict[str, Any]:
    """The example, each of whose values is one array, or numbers that make one. Raises `InvalidInput`."""
    for name, value in example.items():
        parts = isinstance(value, (tuple, list)) and any(hasattr(part, "shape") for part in value)
        if value is None or parts or isinstance(value, (Mapping, str, bytes)):
            kind = type(value).__name__
            raise InvalidInput(
                f"the example's {name!r} is a {kind}{' of arrays' if parts else ''}, not an array",
                hint="the inputs of an entry point are arrays, each with a name of its own",
            )
    return example


def _pinned(point: EntryPoint, fixed: Mapping[str, str], arrays: Mapping[str, Any]) -> EntryPoint:
    """The entry point with the sizes of the example, where a step (`component.method`) was stored for these only."""
    why = next((fixed[key] for key in map(".".join, map(step_of, point.steps)) if key in fixed), None)
    if why is None:
        return point

    def as_given(spec: TensorSpec, key: str) -> TensorSpec:
        return evolve(spec, shape=tuple(arrays[key].shape)) if key in arrays else spec

    made = evolve(
        point,
        inputs=tuple(as_given(spec, f"input:{spec.name}") for spec in point.inputs),
        outputs=tuple(as_given(spec, f"output:{point.name}:{spec.name}") for spec in point.outputs),
    )
    if made != point:
        shown = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in made.inputs)
        warnings.warn(f"{point.name!r} is stored for the sizes of the example only ({shown}): {why}", stacklevel=6)
    return made


def _component(name: str, serializer: str, directory: ComponentDirectory, meta: Mapping[str, Any]) -> Component:
    files = tuple(File(file, digest, size) for file, (digest, size) in sorted(directory.files.items()))
    return Component(name, serializer, files, dict(meta))


_lock: tuple[Any, bytes] = (None, canonical({}))  # of the distributions that were written last


def _lock_bytes(distributions: Any) -> bytes:
    global _lock
    if _lock[0] is not distributions:
        _lock = distributions, canonical(distributions or {})
    return _lock[1]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values among captured hyperparameters, as far as an event has room for them; as text what JSON has no
    number for."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        found = scalar(value)
        if isinstance(found, (int, float)) and not abs(found) <= (MAX_INTEGER if isinstance(found, int) else MAX_FLOAT):
            found = str(found)
        if isinstance(found, (str, bool, int, float)):
            with suppress(InvalidInput):
                result = check_tags({**result, key: found}, "parameter")
    return result
