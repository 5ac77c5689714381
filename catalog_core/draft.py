"""A draft: an artifact that is staged, can be verified, and becomes a version when it is saved."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import evolve

from catalog_core import about, callers, capture, folders, pointers, redact
from catalog_core import baseline as statistics
from catalog_core.artifact import FILES, StoredArtifact
from catalog_core.codec import check_door, converter, manifest_to_json, read_artifact
from catalog_core.content import Content
from catalog_core.digests import MAX_INTEGER, canonical
from catalog_core.durable import translated
from catalog_core.errors import (
    CatalogError,
    IntegrityError,
    InvalidInput,
    MissingPlugin,
    NotTrusted,
    PublishedNotReplicated,
    SerializationError,
    VerificationFailed,
)
from catalog_core.examples import by_dots, specs_by_name
from catalog_core.handles import Version, version_published
from catalog_core.interfaces.serializer import SaveRequest
from catalog_core.layout import SMALL, write_layout
from catalog_core.names import check_alias, check_component, check_file, check_name, nearest
from catalog_core.outputs import choosing, to_skip
from catalog_core.records import Component, Description, EntryPoint, File, Manifest, Stored, step_of
from catalog_core.rehearsal import LiveObjects, Rehearsal, default_method, rehearse
from catalog_core.session import check_range
from catalog_core.shown import an
from catalog_core.snapshots import same_random_numbers
from catalog_core.staging import ComponentDirectory, Source, Writer, check_readable, cuts_of
from catalog_core.values import MAX_TAGS, check_flags, check_metrics, check_tags, members, refuse_pickle, scalar

if TYPE_CHECKING:
    from catalog_core.catalog import Catalog
    from catalog_core.repository import Published

MAX_FLOAT = sys.float_info.max
WORDS = {  # of other registries → ours
    "input_example": "example", "sample": "example", "hyperparameters": "params", "parent": "parents",
    "alias": "alias of save(…)", "aliases": "alias of save(…), or version.alias(name) for more",
    "stage": "version.promote(stage)", "title": "model.update(title=…)", "verify": "draft.verify()",
}  # fmt: skip


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
        axes: Mapping[str, Any] | None = None,
        skip: Sequence[str] = (),
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
        self._repository = catalog.repository
        self.name = check_name(name)
        mappings = {
            "tags": tags, "metrics": metrics, "params": params, "taxonomy": taxonomy, "custom": custom,
            "tensors": tensors, "baseline": baseline, "datasets": datasets, "axes": axes, "options": options,
            "provenance": provenance,
        }  # fmt: skip
        for kind, given in mappings.items():
            if given is not None and members(given) is None:
                raise InvalidInput(f"{kind} must map names to values; this is {an(type(given).__name__)}")
        self.tags = {key: value for key, value in check_tags(tags or {}).items() if value is not None}
        self.metrics = check_metrics(metrics or {})
        self.params = check_tags(params or {}, "parameter")
        self.taxonomy = about.check_taxonomy(members(taxonomy) or {})
        self.custom = about.check_custom(members(custom) or {})
        if description is not None and not isinstance(description, str):
            raise InvalidInput(f"description is {an(type(description).__name__)}, not a text")
        self.description = description
        self.report: Any = None
        if not hasattr(components, "items"):
            raise InvalidInput(
                f"components must map names to objects; this is {an(type(components).__name__)}",
                hint='components={"model": object}',
            )
        if entry_points is not None and not isinstance(entry_points, Mapping):
            raise InvalidInput(
                f"entry_points must map names to steps; this is {an(type(entry_points).__name__)}",
                hint='entry_points={"predict": "model.predict"}',
            )
        if not isinstance(parents, (str, Iterable)):
            parents = [parents]  # one handle
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
        self._axes = members(axes) or {}
        self._skip = to_skip(skip)
        self._entries = entry_points
        self._formats = self._chosen(serializer)
        self._options = members(options) or {}
        self._training = about.training(seed, members(datasets), run)
        self._provenance = members(provenance)
        self._tensors = members(tensors) or {}
        self._baseline = members(baseline)
        self._folder: Path | None = None
        self._ended: str | None = None  # saved, or discarded
        self._behind: Version | None = None  # saved, and not on every replica
        self._writer = self._new_writer()
        try:
            self._stage()
        except BaseException:
            self._clear()
            raise

    # -- staging ------------------------------------------------------------------------------------------------

    def _new_writer(self) -> Writer:
        return Writer(self._repository.backend, self._repository.index, self._repository.progress)

    def _temporary(self) -> Path:
        if self._folder is None:
            near = self._repository.backend.files or self.catalog.cache
            self._folder = Path(tempfile.mkdtemp(prefix="draft-", dir=near.staging() if near else None))
        return self._folder

    def _stage(self) -> None:
        registry = self._repository.registry
        self._checked = self._repository.index.head  # what is found in the store from here on was there at this head
        self._as_bytes: list[str] = []  # of paths that hold a model which is not read
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
                staged = self._stage_path(name, obj)
                components.append(staged)
                described[name] = self._read_back(staged, obj)
                continue
            if spec is None and not chosen:
                spec = registry.find_serializer(obj)
            serializers[name] = registry.serializer(spec.name if spec else chosen)
        further = [(name, registry.serializer(kind)) for name, kinds in self._formats.items() for kind in kinds[1:]]
        self._check_options([*serializers.values(), *(serializer for _, serializer in further)])
        specs = {name: registry.serializers.get(made.name) for name, made in serializers.items()}
        defaults = {
            name: default_method(serializers[name], spec, self._objects[name])
            for name, spec in specs.items()
            if spec is not None
        }
        objects = LiveObjects(self._objects, serializers, defaults, self._example is not None)
        entries = objects.entry_steps(self._entries)
        if self._example is not None and not entries:
            names = [name for name in self._objects if name in serializers]
            what = f"{' and '.join(names[:3])} are several" if names else "files are run by nothing"
            hint = f"entry_points={{'predict': {names[0]!r}}} says what it is for" if names else "leave it out"
            raise InvalidInput(f"the example is for no entry point: {what}", hint=hint)
        with choosing(self._skip) as choice:
            found = rehearse(entries, self._example, objects, self._axes, asked=self._entries is not None)
            choice.check()
        arrays, skipped = found.arrays(), found.skipped
        censuses: dict[str, Any] = {}
        shapes: dict[tuple[str, str], Any] = {}
        for name, serializer in (*serializers.items(), *further):
            if name in self._stored:
                described[name] = serializer.describe(self._objects[name])
                continue
            methods = [m for steps in entries.values() for component, m in map(step_of, steps) if component == name]
            trials = found.methods_of(name)
            example = {key: value for trial in trials.values() for key, value in trial.example.items()} or None
            request = SaveRequest(name, example, methods, self._options, trials)
            directory = ComponentDirectory(self._writer, self._temporary)
            obj = self._objects[name]
            own = serializer is serializers[name]
            if own:
                described[name] = serializer.describe(obj)
            try:
                running = objects.as_it_was(name) if trials else same_random_numbers(obj)
                with translated(f"component {name!r}"), running, choosing(self._skip):
                    meta = dict(serializer.save(obj, directory, request))
            except CatalogError:
                raise
            except Exception as exc:
                what = f"component {name!r} cannot be written by {serializer.name!r}: {type(exc).__name__}: {exc}"
                raise SerializationError(" ".join(what.split())) from exc
            directory.seal()
            if own and directory.census["count"]:
                censuses[name] = directory.census
            told = {m: {"inputs": {}, "outputs": {}, "why": why} for m, why in dict(meta.get("fixed") or {}).items()}
            told |= meta.pop("shapes", {})
            if own:
                shapes.update(((name, method), shape) for method, shape in told.items())
            called = name if own else check_component(f"{name}-{serializer.name}")
            if called in self._objects and not own:
                raise InvalidInput(f"the component {called!r} is there already: {name!r} cannot be kept so as well")
            components.append(_component(called, serializer.name, directory, meta))
        with choosing(self._skip):
            points = found.points(objects, shapes)
        left_out = tuple(sorted(set(self._skip)))
        points = tuple(evolve(point, skipped=left_out) if point.inputs else point for point in points)
        for point in points:
            if point.inputs and not point.outputs:
                nothing = f"{point.name!r} gives nothing when {', '.join(left_out)} is left out"
                raise InvalidInput(nothing, hint="skip= names outputs that are no arrays, beside others")
        if self._tensors:
            points = about.detailed(points, self._tensors)
            self._check_ranges(points, found)
        kept = self._stage_example(arrays) if arrays else None
        described = {name: described[name] for name in self._objects}  # the first that was given is the main one
        main = next((d for d in described.values() if d.framework), next(iter(described.values())))
        environment = capture.environment()
        lock, _ = self._writer.add(Source([_lock_bytes(environment.get("distributions"))]))
        self.described = described
        baseline = self._stage_baseline(found.inputs(), points, censuses)
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
            provenance=self._where_from(),
            custom=self.custom,
            baseline=baseline,
            taxonomy=self.taxonomy,
            example=kept,
        )
        check_door(self.manifest)
        self._writer.bundle(self.manifest.notes)
        self._main = main
        manifest, layout = canonical(manifest_to_json(self.manifest)), canonical(write_layout(self._writer.layout))
        try:
            read_artifact(manifest, layout)
        except IntegrityError as exc:
            raise InvalidInput(f"{self.name} cannot be stored so that it can be loaded: {exc.message}") from exc
        self.digest, self._layout = self._writer.add_small(manifest), self._writer.add_small(layout)

    def _check_options(self, serializers: Sequence[Any]) -> None:
        """Raise `InvalidInput` for an option that none of the serializers has. One that does not tell takes any."""
        told = [getattr(serializer, "save_options", None) for serializer in serializers]
        if None in told:
            return
        known = sorted({name for names in told for name in names or ()})
        for key in self._options:
            if key not in known:
                have = f"they are {', '.join(known)}" if known else "this kind of object has none"
                raise InvalidInput(f"there is no option {key!r} for saving", hint=nearest(key, known) or have)

    def _where_from(self) -> dict[str, Any]:
        """Provenance without secrets. What is captured has none, and is the same for all drafts of a moment."""
        told = {**self._training, "parents": self._parents}
        if self._provenance is None:
            return {**capture.provenance(), **about.without_secrets(told)}
        return dict(about.without_secrets({**self._provenance, **told}))

    def _chosen(self, serializer: Any) -> dict[str, list[str]]:
        """The serializers that the user named, by component; behind the first, others that keep it as well."""
        if serializer is None:
            return {}
        if isinstance(serializer, (str, list, tuple)):
            serializer = dict.fromkeys(self._objects, serializer)
        given: list[Any] = list(serializer.values()) if isinstance(serializer, Mapping) else [None]
        if not all(isinstance(kind, str) for kinds in given for kind in (kinds if _is_list(kinds) else [kinds])):
            raise InvalidInput(
                f"serializer= is {repr(serializer)[:80]}", hint="a name, several, or either by component"
            )
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
        registry = self._repository.registry
        if chosen:
            registry.serializer(chosen)
        usual = registry.serializer_for_suffix([path.name])
        name = chosen or usual
        spec = registry.serializers.get(name) if name else None
        if spec is not None and not spec.paths and name != usual:
            raise InvalidInput(
                f"the serializer {name!r} takes live objects, and {path} is kept as the files that it is",
                hint="leave out serializer=, or give the object that the files hold",
            )
        if spec is None or not spec.paths:
            return None
        if not path.is_dir():
            with translated(str(path), reading=True):
                folders.check_file_alone(path)
        return spec

    def _stage_path(self, name: str, path: Path) -> Component:
        with translated(str(path), reading=True):
            found = folders.read(path)
            if not found.files:
                raise InvalidInput(f"folder {path} holds no files")
            for file in (*found.files, *found.empty):
                check_file(file)
                check_readable(found.files.get(file, path), file)
            result = [(file, self._writer.add(Source.of_file(at), cuts_of(at))) for file, at in found.files.items()]
        kind = self._repository.registry.serializer_for_suffix([file for file, _ in result]) or FILES
        if name not in self._stored and "imported" not in (self._provenance or {}):
            self._as_bytes += self._unread(path, kind, found.files)
        directory = ComponentDirectory(self._writer, self._temporary)
        directory.files = dict(result)
        return _component(name, kind, directory, found.meta)

    def _read_back(self, component: Component, path: Path) -> Description:
        """Load a file that was given by its path and is staged as it is, and describe it: what its format cannot load
        is not published. Raises `SerializationError`."""
        if component.serializer == FILES or not path.is_file():
            return Description()
        artifact = self._artifact(Manifest((component,)))
        try:
            serializer = self._repository.registry.serializer(component.serializer)
            if hasattr(serializer, "describe_stored"):
                found: Description = serializer.describe_stored(artifact.reader(component))
            else:
                found = serializer.describe(artifact.load(component.name))
            return found
        except NotTrusted as exc:
            callers.warn(f"{path.name} will load with trust=True only: {exc.message}")
        except MissingPlugin:
            pass  # it is checked where it can be loaded
        except SerializationError as exc:
            raise SerializationError(f"{path.name} cannot be loaded: {exc.message}", hint=exc.hint) from exc
        return Description()

    def _unread(self, path: Path, kind: str, files: Mapping[str, Path]) -> list[str]:
        """What is to be said of a path that is kept as bytes, where these are those of a model, or stand for others."""
        absent = [(file, told) for file, at in files.items() if (told := pointers.pointer(at, file)) is not None]
        said = [f"{file} is {told[0]}, and that is what is kept; {told[1]}" for file, told in absent[:1]]
        spec = self._repository.registry.format_of(path) if kind == FILES and not _any_bytes(path) else None
        if spec is not None and not absent and spec.instead is not None:
            said.append(f"{path.name} is kept as bytes: it is {spec.instead}")
        elif spec is not None and not absent:
            said.append(
                f"{path.name} is kept as bytes, which nothing here loads as a model; "
                f"`catalog import {path.name}` (catalog.import_) reads it as {spec.name}"
            )
        return said

    def _stage_stored(self, name: str, stored: Stored) -> Component:
        """Keep the files as they are; what the serializer makes of them is run, and described."""
        staged = self._stage_path(name, stored.folder)
        if stored.folder.is_file():
            self._read_back(staged, stored.folder)
        kept = evolve(staged, serializer=stored.serializer, meta={**stored.meta, **staged.meta})
        try:
            self._objects[name] = self._artifact(Manifest((kept,))).load(name)
        except NotTrusted:
            self._objects[name] = stored.folder
        return kept

    def _stage_example(self, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        serializer = self._repository.registry.serializer("safetensors")
        directory = ComponentDirectory(self._writer, self._temporary)
        meta = serializer.save(arrays, directory, SaveRequest("example"))
        directory.seal()
        example: Mapping[str, Any] = converter().unstructure(_component("example", serializer.name, directory, meta))
        return example

    @staticmethod
    def _check_ranges(points: Sequence[EntryPoint], found: Rehearsal) -> None:
        """Raise `InvalidInput` where the example is outside of the range that was declared: nobody could run it."""
        for point in points:
            trials = found.trials.get(point.name) or ()
            given = trials[0].example if trials else {}
            for spec in point.inputs:
                if spec.name in given:
                    check_range(f"input {spec.name!r} of the example", spec, given[spec.name])

    def _stage_baseline(
        self, inputs: Mapping[str, Any], points: Sequence[EntryPoint], censuses: Mapping[str, Any]
    ) -> str | None:
        """The digest of a file with the statistics of the inputs (of the baseline, else of the example) and the census
        of the weights; None where there is nothing to tell."""
        names = [name for name, _ in specs_by_name([evolve(point, outputs=()) for point in points])]
        values = inputs if self._baseline is None else by_dots(self._baseline)
        if self._baseline is not None:
            statistics.check(values, dict(specs_by_name([evolve(point, outputs=()) for point in points])))
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
        repository = self._repository
        content = Content(repository.backend, repository.index, repository.content.policy, repository.cache)
        content.own = True
        content.overlay = self._writer.staged
        content.memory = self._writer.small
        return StoredArtifact(manifest, self._writer.layout, content, repository.registry, f"draft of {self.name}")

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
        check_flags(trust=trust)
        from catalog_core import verify

        self.report = verify.check(self.artifact, self._temporary(), trust=trust)
        return self.report

    def save(self, *, alias: str | None = None, force: bool = False) -> Version:
        """Publish the draft as the next version; durable when this returns. Raises `VerificationFailed` after a
        failed `verify`, unless `force`; `InvalidInput` where it was saved or discarded before; `PublishedNotReplicated`
        where a replica did not follow: then call it again."""
        check_flags(force=force)
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
        self._repository.registry.saving(self.name, self.manifest)
        again = False

        def store() -> Published:
            nonlocal again
            if again:  # somebody collected our blobs: store them under their next names
                self._clear()
                self._writer = self._new_writer()
                self._stage()
            again = True
            return self._publish(alias)

        try:
            version = version_published(self.catalog, self.name, self._repository.storing(store, self.name))
        except PublishedNotReplicated as exc:
            self._behind = exc.version
            self._ended = f"saved as {exc.version.ref}"
            self._clear()
            self._repository.registry.saved(exc.version)
            raise
        self._ended = f"saved as {version.ref}"
        self._clear()
        self._repository.registry.saved(version)
        if self._lacks_example():
            callers.warn(f"{version.ref} has no example: it can be loaded, and no session runs it")
        if self._as_bytes:
            callers.warn(f"{version.ref}: {'; '.join(dict.fromkeys(self._as_bytes))}")
        return version

    def _lacks_example(self) -> bool:
        """Whether a session could run what this is, and only an example is missing that tells how. Files and
        dictionaries of arrays are run by nothing."""
        known = {name for spec in self._repository.registry.runtimes.values() for name in spec.serializers}
        runs = any(component.serializer in known for component in self.manifest.components)
        return runs and self._example is None and not self.manifest.entry_points

    def _publish(self, alias: str | None) -> Published:
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
        return self._repository.publish(
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


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _any_bytes(path: Path) -> bool:
    """Whether it is an archive, which may hold anything, or a `.bin`, as people call bytes of every kind, without the
    beginning of a model of torch."""
    if path.is_file() and path.suffix in (".zip", ".tar", ".gz", ".tgz"):
        return True
    if path.suffix != ".bin" or not path.is_file():
        return False
    with path.open("rb") as file:
        return not file.read(2).startswith((b"\x80", b"PK"))


def check_keywords(given: Iterable[str]) -> None:
    """Raise `InvalidInput` for a keyword that `prepare` and `save` do not have; it names the nearest, or the word that
    stands here for that of another registry."""
    known = tuple(Draft.__init__.__kwdefaults__ or ())
    for key in given:
        if key not in known:
            word = f"here that is {WORDS[key]}" if key in WORDS else nearest(key, known)
            raise InvalidInput(f"there is no {key!r} to be saved with", hint=word or f"known: {', '.join(known)}")


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
    """The plain values among captured hyperparameters, as far as an event has room for them, without secrets; as text
    what JSON has no number for."""
    result: dict[str, Any] = {}
    room = MAX_TAGS
    for key, value in values.items():
        found = scalar(value)
        if isinstance(found, (int, float)) and abs(found) > (MAX_INTEGER if isinstance(found, int) else MAX_FLOAT):
            found = str(found)
        if isinstance(found, str):  # an estimator that asks a service has its key
            found = redact.tree({str(key): found})[str(key)]
        if isinstance(found, (str, bool, int, float)):
            with suppress(InvalidInput):
                stored = check_tags({key: found}, "parameter")
                size = sum(len(name) + len(str(kept).encode(errors="replace")) for name, kept in stored.items())
                if room >= size:
                    room -= size
                    result |= stored
    return result
