"""The face: `Catalog`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from catalog_core import state
from catalog_core.errors import (
    CatalogError,
    InvalidInput,
    InvalidName,
    NotFound,
)
from catalog_core.handles import Model, Version, restorable, version_published
from catalog_core.names import Reference, check_alias, check_name, nearest, numbered, parse_reference
from catalog_core.page import Listing, Page
from catalog_core.shown import an, counted
from catalog_core.values import FLAGS, check_flags, check_limit, check_seconds, refuse_pickle

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from catalog_core.artifact import StoredArtifact
    from catalog_core.bundle import Exported
    from catalog_core.cache import Cache, Pin
    from catalog_core.compare import Comparison
    from catalog_core.content import Policy
    from catalog_core.draft import Draft
    from catalog_core.fsck import Findings
    from catalog_core.lineage import Lineage
    from catalog_core.maintain import Collected, Erased
    from catalog_core.reconcile import Void
    from catalog_core.replicas import Audit, Replica
    from catalog_core.show import Event
    from catalog_core.staging import Progress
    from catalog_core.sync import Synced
    from catalog_core.verify import Report

UNMOUNTED = "is its place mounted? Another catalog must not be begun there"


class Catalog:
    """A model registry without a server: one journal, one blob store, and the index derived from them.

    Open one with `Catalog.open`; use it from any number of threads and processes. A context manager. Set `progress` to
    be told, as `(done, total)` in bytes, of what takes long: saving, loading from afar, copying, comparing.
    """

    def __init__(
        self,
        backend: Any,
        name: str = "",
        *,
        policy: Policy = "first-use",
        actor: str | None = None,
        max_staleness: float | None = None,
        stale: bool = False,
        damaged: bool = False,
    ) -> None:
        from catalog_core.repository import Repository

        if policy not in ("always", "first-use", "never"):
            raise InvalidInput(f"policy {policy!r} is not known", hint="always, first-use, never")
        if not hasattr(backend, "journal"):
            raise InvalidInput("a Catalog is made of a backend", hint=f"Catalog.open({str(backend)!r}) opens a place")
        self.repository = Repository(
            backend, name, policy=policy, actor=actor, max_staleness=max_staleness, stale=stale
        )
        if self.repository.parts is not None:
            from catalog_core.sync import Follower

            self.repository.follower = Follower(self.repository)
        try:
            self.repository.settle()
        except CatalogError as exc:
            if not damaged:
                raise
            self.repository.stop(exc)

    @classmethod
    def open(
        cls,
        target: str | os.PathLike[str] | None = None,
        *,
        create: bool = True,
        policy: Policy = "first-use",
        actor: str | None = None,
        max_staleness: float | None = None,
        stale: bool | None = None,
        damaged: bool = False,
    ) -> Self:
        """Open a catalog: a configured name, a URL, or a folder; nothing opens the default. Created on first use
        unless `create=False` (`NotFound` then). `policy` says when local bytes are checked: `always`, `first-use`
        (again whenever the file changed) or `never`; `actor` is who signs changes; for `max_staleness` seconds after
        a look at the journal (2 for a remote one, 0 for a local one) it is not asked for news; with `stale`, what is
        known here, or on a replica, is good enough while the store (the primary) is away; with `damaged` it is opened
        also where nothing of its journal can be read, or it was rewritten, for `fsck`. Raises `NotFound`,
        `ConfigError`, `MissingPlugin`, `UnsafePlace` (SQLite on a network file system), `ReadOnly`, `BackendError`,
        and `IntegrityError` where its first entry cannot be read, or entries that were seen here are gone."""
        from attrs import evolve

        from catalog_core import backends, config
        from catalog_core.index import index_known

        check_flags(create=create, damaged=damaged)
        if max_staleness is not None:
            check_seconds("max_staleness", max_staleness)
        settings = config.resolve(target)
        if stale is not None:
            check_flags(stale=stale)
            settings = evolve(settings, stale=stale)
        try:
            made = backends.connect(settings, create=create)
        except NotFound as exc:
            if not str(exc.hint).endswith("init") or not index_known(settings.url):
                raise
            raise NotFound(f"{exc.message}, and this machine has seen one there", hint=UNMOUNTED) from exc
        pause = settings.max_staleness if max_staleness is None else max_staleness
        catalog = cls(
            made, settings.name, policy=policy, actor=actor, max_staleness=pause, stale=settings.stale, damaged=damaged
        )
        repository = catalog.repository
        if repository.index.head is None and repository.stopped is None:
            if repository.offline:
                raise NotFound(f"{settings.url} was never opened here, and CATALOG_OFFLINE is set")
            if not create:
                told = f"there is no catalog at {settings.url}"
                if repository.vanished:
                    raise NotFound(f"{told}, and this machine has seen one there", hint=UNMOUNTED)
                raise NotFound(told, hint="catalog init")
            repository.begin()
        return catalog

    @property
    def name(self) -> str:
        """What it is called: its name in the configuration, or that of its folder."""
        return self.repository.name

    @property
    def actor(self) -> str:
        """Who signs changes."""
        return self.repository.actor

    @property
    def progress(self) -> Progress | None:
        """What is told, as `(done, total)` in bytes, of what takes long."""
        return self.repository.progress

    @progress.setter
    def progress(self, progress: Progress | None) -> None:
        self.repository.progress = progress

    @property
    def cache(self) -> Cache | None:
        """The bytes of a remote catalog that this machine keeps; None of a local one."""
        return self.repository.cache

    @property
    def url(self) -> str:
        """Where the catalog lives."""
        return self.repository.url

    @property
    def id(self) -> str:
        """The random id that the first entry fixed."""
        return self.repository.id

    @property
    def position(self) -> int:
        """The position of the newest entry this handle knows."""
        return self.repository.position

    @property
    def writable(self) -> bool:
        """Whether this process may write: not where the store forbids it, nor behind an entry that cannot be read, nor
        in a copy whose primary is another store."""
        return self.repository.writable

    # -- publish ------------------------------------------------------------------------------------------------

    def prepare(
        self, name: str, obj: Any = None, *, components: Mapping[str, Any] | None = None, **about: Any
    ) -> Draft:
        """Stage an object (or a `Path`, or several `components`) as a draft of `name`; nothing is published yet.

        `about`: `entry_points` (name → component, `component.method`, or a list of steps), `example` (input name →
        array, or the first entry point's inputs by position: an array, or a tuple of them; or either of these by entry
        point; it is run once, and the object is as it was after), `axes` (what should have any length: input → axis →
        its name or None, or an array of other lengths; also by entry point), `skip` (the names of outputs to leave out:
        those that are no arrays), `serializer` (one, or by component, or
        several for one: the further ones are kept beside it as `component-serializer`), `tags`, `metrics`, `params`,
        `taxonomy`, `description`, `parents` (references),
        `options` (of the serializer), `provenance` (where it comes from, in place of what is found in the working
        folder). Raises `InvalidInput`, `SerializationError`, `MissingPlugin`, `NoSpace`.
        """
        from catalog_core.draft import Draft, check_keywords

        check_keywords(about)
        self.repository.check_writable()
        if (obj is None) == (components is None):
            raise InvalidInput("pass one object, or components={name: object}")
        return Draft(self, name, components if components is not None else {"model": obj}, **about)

    def save(
        self,
        name: str,
        obj: Any = None,
        *,
        alias: str | None = None,
        verify: bool = False,
        force: bool = False,
        **about: Any,
    ) -> Version:
        """Prepare and save in one call; see `prepare` and `Draft.save`. `verify=True` runs the checks before, and
        `VerificationFailed` is raised if one fails, unless `force`."""
        check_flags(verify=verify, force=force)
        if alias is not None:
            check_alias(alias)
        with self.prepare(name, obj, **about) as draft:
            if verify:
                draft.verify()
            return draft.save(alias=alias, force=force)

    # -- find ---------------------------------------------------------------------------------------------------

    def model(self, name: str, *, deleted: bool = False) -> Model:
        """The model called `name`. Raises `NotFound` with the nearest names."""
        check_flags(deleted=deleted)
        self.repository.refresh()
        self._check_model(name)
        row = state.model_named(self.repository.index, name)
        if row is None or (row.deleted and not deleted):
            raise self._no_model(name)
        return Model(self, row)

    def _check_model(self, name: str) -> None:
        """Raise `InvalidName` for what may not name a model; for the reference of a version, which one is meant."""
        try:
            check_name(name)
        except InvalidName:
            if not isinstance(name, str) or not any(mark in name for mark in ":#"):
                raise
            found = parse_reference(name)
            if found.catalog not in (None, self.name):
                raise self._of_another(found) from None
            told = f"{name} names a version, and a model is meant here" if found.selector else f"{name} is a reference"
            raise InvalidInput(told, hint=f"the model is {found.name}") from None

    def _no_model(self, name: str) -> NotFound:
        found = state.model_named(self.repository.index, name)
        if found is not None and found.deleted:
            return NotFound(f"{name} is deleted", hint=f"catalog restore {name}", reference=name)
        names = state.model_names(self.repository.index)
        above, _, end = name.rpartition("/")
        spelt = f"did you mean {above}@{numbered(end)}?" if above in names and numbered(end) else nearest(name, names)
        return NotFound(
            f"there is no model {name!r} in {self.name}",
            hint=spelt or ("it is empty" if not names else "catalog list shows all"),
            reference=name,
        )

    def _of_another(self, ref: Reference) -> InvalidInput:
        """The error for a reference into another catalog, which may be one with `:` in place of `@`."""
        hint = f"Catalog.open({ref.catalog!r})"
        if ref.selector is None and state.model_named(self.repository.index, str(ref.catalog)) is not None:
            hint = f"did you mean {ref.catalog}@{ref.name}? Else: {hint}"
        return InvalidInput(f"{ref} is in catalog {ref.catalog!r}, this is {self.name!r}", hint=hint)

    def models(self, *, limit: int = 100, after: str = "") -> Page[Model]:
        """Models by name, a page of at most `limit` (1 to a million), behind the name `after`."""
        check_limit(limit)
        self.repository.refresh()
        found = state.models_after(self.repository.index, after, limit + 1)
        items = [Model(self, row) for row in found[:limit]]
        more = (lambda: self.models(limit=limit, after=items[-1].name)) if len(found) > limit else None
        return Page(items, more, items[-1].name if more else None)

    def versions(self, name: str) -> list[Version]:
        """The versions of a model that are not deleted, newest first."""
        model = self.model(name)
        found = [Version(self, row) for row in state.versions_of(self.repository.index, model.row)]
        return Listing(found, f"{model.name}: {counted(len(found), 'version')}")

    def version(self, ref: str | Reference | Version, *, deleted: bool = False) -> Version:
        """The version a reference points at; a bare name is the newest one that is neither deleted nor archived. Of a
        `Version`, the same one as it is now: a version of another catalog stands for its bytes, and what has them here
        is taken. Raises `NotFound` with the nearest names, `InvalidReference`, `InvalidInput` (nothing here has them).
        """
        check_flags(deleted=deleted)
        self.repository.refresh()
        if isinstance(ref, Version):
            return self._held(ref, deleted=deleted)
        parsed = parse_reference(ref)
        if parsed.component is not None:
            raise InvalidInput(
                f"{parsed} names a component, and a whole version is meant here",
                hint=f"{parsed.without_component()}; load and download take a component",
            )
        if parsed.catalog is not None and parsed.catalog != self.name:
            raise self._of_another(parsed)
        index = self.repository.index
        if parsed.alias is not None:
            row = state.version_called(index, parsed.name, parsed.alias)
        elif parsed.number is not None:
            row = state.version_numbered(index, parsed.name, parsed.number)
        elif parsed.digest is not None:
            row = state.version_with_digest(index, parsed.name, parsed.digest)
        else:
            row = state.version_newest(index, parsed.name)
        if row is None or (row.deleted and not deleted):
            raise self._no_version(parsed, deleted=row is not None)
        return Version(self, row)

    def _held(self, version: Version, *, deleted: bool = False) -> Version:
        """What has the bytes of a handle here: the version itself; else, where the handle is of another catalog or its
        number was given away by a failover, one of the same digest. Never another one that is called the same."""
        index, found = self.repository.index, None
        if self._is_own(version):
            found = state.version_same(index, version.model, version.number, version.digest)
        found = found or state.version_holding(index, version.digest, version.model)
        if found is not None and (deleted or not found.deleted):
            return Version(self, found)
        if found is not None:
            raise self._no_version(parse_reference(found.ref), deleted=True)
        if self._is_own(version):
            raise NotFound(
                f"{version.ref} of {self.name} is not {version.digest} any more, and nothing else here is",
                hint=f"look it up again: catalog.version({version.model!r})", reference=version.ref,
            )  # fmt: skip
        raise InvalidInput(
            f"{version.ref} is a version of catalog {version.catalog.name!r}, and {self.name!r} holds no copy of it",
            hint="use its own methods, or copy it first: version.catalog.copy(version, this_catalog)",
        )

    def _is_own(self, version: Version) -> bool:
        return version.catalog is self or version.catalog.id == self.id

    def _pointed(self, ref: str | Reference | Version) -> tuple[Version, str | None]:
        """The version, and the component that the reference names, or None."""
        if isinstance(ref, Version):
            return self.version(ref), None
        parsed = parse_reference(ref)
        return self.version(parsed.without_component()), parsed.component

    def _no_version(self, ref: Reference, *, deleted: bool) -> NotFound:
        model = state.model_named(self.repository.index, ref.name)
        if model is None or model.deleted:
            return self._no_model(ref.name)
        if deleted:
            return self._gone(ref)
        numbers = [str(v.number) for v in self.versions(ref.name)[:5]]
        aliases = list(self.model(ref.name).aliases)
        have = f"it has versions {', '.join(numbers) or 'none'}" + (
            f" and aliases {', '.join(aliases)}" if aliases else ""
        )
        if ref.selector is None and numbers:
            told = f"all versions of {ref.name} are archived"
            return NotFound(told, hint=f"name one: {ref.name}@{numbers[0]}", reference=str(ref))
        close = nearest(ref.alias, aliases) if ref.alias else None
        number = numbered(ref.alias) if ref.alias else None
        if number is not None and not close:
            close = f"did you mean {ref.name}@{number}?"
        gone = restorable(self.repository.index, ref.name)
        return NotFound(
            f"there is no {ref} in {self.name}", hint=close or (f"{have}; {gone}" if gone else have), reference=str(ref)
        )

    def _gone(self, ref: Reference) -> NotFound:
        """The error for a version that is deleted: whether it comes back."""
        row = state.version_numbered(self.repository.index, ref.name, ref.number) if ref.number else None
        if row is not None and row.deleted == state.Deletion.COLLECTED:
            by = state.erasure_of(self.repository.index, ref.name, row.number)
            if by is None:
                return NotFound(f"{ref} is deleted, and its bytes are gone: gc collected them", reference=str(ref))
            return NotFound(f"{ref} was erased {by}"[:400], hint=f"catalog history {ref.name}", reference=str(ref))
        return NotFound(f"{ref} is deleted", hint=f"catalog restore {ref}", reference=str(ref))

    def search(self, text: str = "", *, limit: int = 100, cursor: str | None = None) -> Page[Version]:
        """Versions that match a filter (`metrics.auc > 0.9 and tags.team = "cms"`) or, without any operator, a full
        text. Newest first unless it says `order by`. Where nothing is found, the page's `notes` say which stage or text
        of the filter no version has. Raises `InvalidQuery` with the column."""
        from catalog_core import query, query_sql
        from catalog_core.errors import InvalidQuery

        if not isinstance(text, str):
            hint = "search('metrics.auc > 0.9'), or plain words"
            raise InvalidInput(f"a search is a text, not {an(type(text).__name__)}", hint=hint)
        self.repository.refresh()
        try:
            parsed = query.parse(text)
        except InvalidQuery as exc:
            exc.hint = query_sql.keys_called(exc.field, self.repository.index) or exc.hint
            raise
        statement = query_sql.compile(parsed, limit=limit, cursor=cursor, index=self.repository.index)
        rows, following = query_sql.run(statement, self.repository.index)
        more = None if following is None else lambda: self.search(text, limit=limit, cursor=following)
        page = Page([Version(self, row) for row in rows], more, following)
        if not page and cursor is None:
            page.notes = (*query.half_a_filter(text), *query_sql.unmatched(parsed, self.repository.index))
        return page

    # -- load and run -------------------------------------------------------------------------------------------

    def artifact(self, ref: str | Version) -> StoredArtifact:
        """The artifact of a version, as runtimes see it: manifest, components, readers."""
        return self.version(ref).artifact

    def load(
        self,
        ref: str | Version,
        component: str | None = None,
        *,
        device: str | None = None,
        into: Any = None,
        **options: Any,
    ) -> Any:
        """Load a version: the object where it has one component, else a lazy read-only mapping of components. Files
        that no serializer made come as a folder: a read-only copy until this process ends, or `into` a new one.

        `into` fills a live object strictly; with it, `rename={"old": "new"}` (names, prefixes, or a function) says what
        stored names are called there, and `partial=True` takes what fits and returns a `Filled`. `as_` picks the kind
        of arrays (`numpy`, `torch`, `state_dict`); `trust=True` allows the recorded class to be imported; `copy=True`
        gives private memory. Every byte is checked by the catalog's policy. Raises `NotFound`, `IntegrityError`,
        `NotTrusted`, `SerializationError`.
        """
        version, named = self._pointed(ref)
        for key in ("version", "number", "name"):
            if key in options:
                hint = f'it is part of the reference: load("{version.model}@1")'
                raise InvalidInput(f"load has no option {key!r}", hint=hint)
        if component is not None and not isinstance(component, str):
            hint = f"a version is {version.model}@{component}" if isinstance(component, int) else "its name"
            raise InvalidInput(f"a component is named by text, not by {component!r}", hint=hint)
        return self._load(version, component or named, device=device, into=into, **options)

    def _load(self, version: Version, component: str | None, **options: Any) -> Any:
        from catalog_core.artifact import Components

        check_flags(**{key: value for key, value in options.items() if key in FLAGS})
        artifact = version.artifact
        names = [part.name for part in artifact.manifest.components]
        if component is None and len(names) > 1:
            into = options.pop("into", None)
            if into is not None:
                return {name: artifact.load(name, into=target, **options) for name, target in into.items()}
            return Components(artifact, options)
        return artifact.load(component or names[0], **options)

    def session(self, ref: str | Version, device: str = "cpu", **options: Any) -> Any:
        """Open a session that runs the version's entry points on `device` (`cpu`, `cuda`, `cuda:1`):
        `s.generate(latent=z)`. Arrays or tensors go in, of the dtypes and shapes that the entry point names, else
        `InvalidInput`; NumPy arrays come out. After its `with` block, or `close`, it runs nothing more. Raises
        `NotFound`, `MissingPlugin`, `BackendError` (no such device), `InvalidInput` (it was saved without an example,
        so nothing is known that could run)."""
        check_flags(**{key: value for key, value in options.items() if key in FLAGS})
        artifact = self.artifact(ref)
        if not artifact.manifest.entry_points:
            told = artifact.manifest.description.values()
            why = next((str(told["not_run"]) for told in told if isinstance(told, dict) and "not_run" in told), None)
            raise InvalidInput(
                f"{artifact.what} has no entry point that a session could run: "
                f"{why or 'it was saved without an example'}",
                hint="save it with example=…, or entry_points={…}; catalog.load gives what is in it",
            )
        return self.repository.registry.runtime_for(artifact.manifest).open(artifact, device, options)

    def download(self, ref: str | Version, folder: str | os.PathLike[str]) -> Path:
        """Write the checked files of a version, or of one component, into a new or empty folder, a subfolder a
        component where there are several; return it. Raises `InvalidInput` for a folder that holds something."""
        import shutil
        from pathlib import Path

        from catalog_core.artifact import check_vacant

        target = Path(folder)
        check_vacant(target)
        version, wanted = self._pointed(ref)
        artifact = version.artifact
        components = artifact.manifest.components if wanted is None else (artifact.find(wanted),)
        done, total = 0, sum(file.size for component in components for file in component.files)

        def told(count: int) -> None:
            nonlocal done
            done += count
            if self.progress:
                self.progress(done, total)

        try:
            for component in components:
                artifact.write(component, target / component.name if len(components) > 1 else target, told)
        except BaseException:  # whole components too: the folder was empty, and may be named once more
            for component in components if len(components) > 1 else ():
                shutil.rmtree(target / component.name, ignore_errors=True)
            raise
        return target

    def copy(self, ref: str | Version, target: Catalog, name: str | None = None) -> Version:
        """Publish a version in another catalog, under its own name or `name`: the same manifest, so the same digest.
        What `target` holds already is not written again; what an earlier copy of this version published is returned.
        Raises `NotFound`, `IntegrityError`, `ReadOnly`, `NoSpace`."""
        from catalog_core import transfer

        if not isinstance(target, Catalog):
            hint = f"Catalog.open({str(target)!r})" if isinstance(target, (str, os.PathLike)) else "Catalog.open(place)"
            raise InvalidInput(f"copy needs an open catalog as target, not {an(type(target).__name__)}", hint=hint)
        version = self.version(ref)
        name = check_name(name or version.model)
        return version_published(target, name, transfer.copy(self.repository, version.row, target.repository, name))

    def pin(self, ref: str | Version) -> Pin:
        """Fetch a version of a remote catalog into the cache and keep it there, to be used with CATALOG_OFFLINE set.
        Raises `NotFound`, `InvalidInput` (a local catalog), `IntegrityError`, `BackendError`, `NoSpace`."""
        from catalog_core import maintain

        return maintain.pin(self.repository, self.version(ref).row)

    def unpin(self, ref: str | Version) -> bool:
        """Let the files of a version leave the cache again; whether it was pinned."""
        return self.cache is not None and self.cache.unpin(self.version(ref, deleted=True).ref, self.url)

    def export(
        self, ref: str | Version | None, path: str | os.PathLike[str], *, format: str = "bundle"
    ) -> Exported | Path:
        """Write a version to a new file, or all versions of a model where `ref` is a bare name, with their history, to
        be imported by another catalog. With another `format`, one version to a new folder, or a `.zip` file where the
        format has one, as that format wants it (`catalog plugins` tells which there are). Where `ref` is None, the
        whole catalog in a format that holds one (`sqlite`); a file that such an export wrote is brought up to date.
        Raises `NotFound`, `InvalidInput` (a path that exists), `MissingPlugin`, `IntegrityError`, `NoSpace`."""
        from pathlib import Path

        from catalog_core import bundle, foreign

        if ref is None:
            spec = None if format == foreign.BUNDLE else self.repository.registry.format(format)
            return foreign.export_whole(self, Path(path), spec)
        if format != foreign.BUNDLE:
            return foreign.export(self.version(ref), Path(path), self.repository.registry.format(format))

        name = None if isinstance(ref, Version) else parse_reference(ref)
        versions = [self.version(ref)] if name is None or name.selector else self.versions(name.name)[::-1]
        if not versions:
            raise NotFound(f"{ref} has no versions", reference=str(ref))
        return bundle.export(self.repository, [version.row for version in versions], Path(path))

    def import_(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        format: str | None = None,
        unsafe: bool = False,
        **about: Any,
    ) -> list[Version]:
        """Publish what an exported file holds, under its own name or `name`, and return the versions, oldest first.
        Each gets the next number; what an earlier import or copy of the same version published is returned as it is,
        another version of the same digest is not. All of the file is checked before anything is published. A file or
        folder in the `format` of another program, which is found out where it is not told, becomes one version, or one
        for each that it serves; nothing in it is run or unpickled, unless `unsafe` lets a process of its own convert
        what could not be read otherwise. What is known and not read is kept as it is, with a line that says so.
        `about` (see `prepare`) is what is known of it beside; what it says of itself counts more. Raises `NotFound`,
        `InvalidInput`, `IntegrityError` (a damaged or forged file), `MissingPlugin`, `SerializationError`,
        `NotTrusted`, `UpgradeRequired`, `ReadOnly`, `NoSpace`."""
        from pathlib import Path

        from catalog_core import bundle, foreign

        check_flags(unsafe=unsafe)
        if "://" in os.fspath(path):
            told = f"{os.fspath(path)} is an address, and import reads files and folders"
            raise InvalidInput(told, hint="fetch it first, say with huggingface_hub.snapshot_download or curl")
        self.repository.check_writable()
        place, chosen = Path(path), None if name is None else check_name(name)
        spec = foreign.spec_for(self.repository.registry, place, format)
        if spec is not None:
            return foreign.import_(self, place, chosen, spec, unsafe=unsafe, **about)
        if about:
            raise InvalidInput(f"a bundle says all itself; {', '.join(about)} cannot be given")
        return [version_published(self, *one) for one in bundle.import_(self.repository, place, chosen)]

    # -- history, checks, care ----------------------------------------------------------------------------------

    def history(self, name: str | None = None, *, limit: int = 1000, after: int | None = None) -> list[Event]:
        """The newest `limit` events, oldest first, of one model or all; those that come first behind the position
        `after`, where it is given (then all of the last entry, which may be a few more)."""
        from catalog_core import show

        check_limit(limit)
        self.repository.refresh()
        if name is not None:
            self.model(name, deleted=True)
        found = show.events(self.repository.index, name, limit, after)
        return Listing(found, f"history of {name or self.name}: {counted(len(found), 'event')}")

    def resolve_time(self, moment: str | datetime) -> int:
        """The journal position at a past moment (ISO 8601, UTC unless it says otherwise; `#N` is a position);
        -1 before the first entry."""
        from datetime import UTC, datetime

        if isinstance(moment, str):
            try:
                if moment.startswith("#"):
                    return self._entry_at(int(moment[1:]))
                moment = datetime.fromisoformat(moment)
            except ValueError as exc:
                raise InvalidInput(
                    f"{moment!r} is not a time", hint="like 2026-06-01T00:00Z, or '#1234' for a position"
                ) from exc
        if not hasattr(moment, "tzinfo"):
            raise InvalidInput(f"{moment!r} is not a time", hint="a datetime, '2026-06-01T00:00Z', or '#1234'")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
        index = self.repository.index
        return state.position_at(index, seconds, own=index.time / 1000 > time.time())

    def _entry_at(self, position: int) -> int:
        if not 0 <= position <= self.position:
            raise NotFound(f"there is no entry #{position}; the newest is #{self.position}", hint="catalog history")
        return position

    def as_of(self, name: str, moment: str | datetime) -> dict[str, Any]:
        """A model as it stood at a past moment (see `resolve_time`): title, aliases, versions with stage, tags and
        metrics. Raises `NotFound` where it did not exist yet."""
        from catalog_core import show

        check_name(name)
        self.repository.refresh()
        position = self.resolve_time(moment)
        past = self.repository.index.as_of(name, position)
        model = state.model_named(past, name)
        if model is None:
            raise NotFound(f"{name!r} did not exist at {moment}", reference=name)
        return show.past(model, state.versions_of(past, model)[::-1])

    def compare(self, first: str | Version, second: str | Version) -> Comparison:
        """Two versions side by side: metadata, metrics, files, and tensor by tensor; see `compare.Comparison`. A
        `Version` of another catalog is read there."""
        from catalog_core import compare

        def side(ref: str | Version) -> compare.Side:
            catalog = ref.catalog if isinstance(ref, Version) else self
            return compare.Side(catalog.repository, catalog.version(ref, deleted=True).row)

        return compare.compare(side(first), side(second), self.progress)

    def lineage(self, ref: str | Version) -> Lineage:
        """The parents and children of a version and theirs, as a tree; see `lineage.Lineage`."""
        from catalog_core import lineage

        return lineage.lineage(self.repository, self.version(ref, deleted=True).row)

    def verify(self, ref: str | Version, *, trust: bool = False) -> Report:
        """Run the checks of a stored version in a fresh process; a `verify.Report`. What would run its author's code is
        skipped without `trust`."""
        import tempfile
        from pathlib import Path

        from catalog_core import verify

        check_flags(trust=trust)
        with tempfile.TemporaryDirectory(prefix="catalog-verify-") as folder:
            return verify.check(self.artifact(ref), Path(folder), trust=trust)

    def fsck(self, *, progress: Progress | None = None) -> Findings:
        """Read and check every entry and every byte, and whether what they say can be loaded; a `fsck.Findings`."""
        from catalog_core import fsck

        return fsck.fsck(self.repository, progress)

    def gc(self, *, grace: float = 86400.0, dry_run: bool = False) -> Collected:
        """Collect what no version needs and is older than `grace` seconds; a `maintain.Collected`. With `dry_run`
        it only says what would go. Raises `ReadOnly`, `Conflict` when others keep publishing."""
        from catalog_core import maintain

        check_flags(dry_run=dry_run)
        return maintain.gc(self.repository, check_seconds("grace", grace, least=-86400.0), dry_run)

    def erase(self, ref: str | Version, reason: str) -> Erased:
        """Take the content of a version away for good, in all copies of the catalog: what no other version needs of it
        may not come back, by any way. The history keeps that it was, and `reason`. Raises `NotFound`, `InvalidInput`,
        `ReadOnly`, `Conflict`."""
        from catalog_core import maintain

        version = self.version(ref, deleted=True)
        if isinstance(ref, Version) and ref != version:  # it is for good: no other one of the same bytes will do
            raise InvalidInput(
                f"{ref.ref} is no version of {self.name!r}", hint=f"erase {version.ref!r} by its reference"
            )
        return maintain.erase(self.repository, version.row, reason)

    # -- replicas -----------------------------------------------------------------------------------------------

    def sync(self, *parts: str, dry_run: bool = False, progress: Progress | None = None) -> list[Synced]:
        """Bring the replicas of a hybrid (or only `parts`) up to its primary: what they lack, and no more; what came
        stays when it is stopped. With `dry_run` it only counts, in bytes. Raises `InvalidInput` (no hybrid),
        `BackendError` (a part is away; the others were served), `IntegrityError`, `ReadOnly`, `NoSpace`."""
        from catalog_core import sync

        check_flags(dry_run=dry_run)
        return sync.sync(self.repository, parts or None, create=not dry_run, dry_run=dry_run, progress=progress)

    def replicas(self, *, blobs: bool = True) -> list[Replica]:
        """The state of every part of a hybrid: position, lag, and with `blobs` the versions of which it lacks some or
        has damaged ones, by what its store reports. Raises `InvalidInput` (no hybrid)."""
        from catalog_core import replicas

        check_flags(blobs=blobs)
        return replicas.replicas(self.repository, blobs=blobs)

    def audit(self, *, deep: bool = False, mend: bool = False, progress: Progress | None = None) -> Audit:
        """Check what every part of a hybrid stores, by sizes and checksums that the stores report, or, `deep`, by
        reading all of it. `mend` brings good bytes to where they lack. Raises `BackendError` where a part is away."""
        from catalog_core import replicas

        check_flags(deep=deep, mend=mend)
        return replicas.audit(self.repository, deep=deep, mend=mend, progress=progress)

    def failover(self, part: str, *, force: bool = False) -> int:
        """Make a part of a hybrid the primary, in a new epoch; return the position behind which that begins. What the
        old primary alone has beyond it is void there, and `reconcile` offers it. Raises `NotFound`, `Conflict` (this
        machine has seen more than the part has, unless `force`), `BackendError`, `ReadOnly`."""
        from catalog_core import replicas

        check_flags(force=force)
        return replicas.failover(self.repository, part, force=force)

    def reconcile(
        self, *, apply: bool = False, renumber: bool = False, take: Iterable[str] = (), drop: Iterable[str] = ()
    ) -> list[Void]:
        """What an old primary acknowledged and no other part has, intent by intent. With `apply` what can be written as
        it was is, with its id, actor and signature; with `renumber` also versions whose number was given away; `take`
        and `drop` are ids of conflicts that are to win, or to stay void for good. Raises `NotFound`, `ReadOnly`."""
        from catalog_core import reconcile

        check_flags(apply=apply, renumber=renumber)
        return reconcile.reconcile(self.repository, apply=apply, renumber=renumber, take=take, drop=drop)

    def notices(self) -> list[str]:
        """What everybody who uses a catalog on several sites must know, a line each: rival epochs, and acknowledged
        changes that a failover abandoned, as far as the parts that answered know. Empty where there is nothing to say,
        and for a catalog on one site."""
        from catalog_core import branches

        told = branches.notices(self.repository)
        return Listing(told, counted(len(told), "notice") if told else "nothing is to be known")

    def close(self) -> None:
        """Release files and connections; replicas that are to follow have some seconds to do so."""
        self.repository.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, ref: str | Version) -> bool:
        try:
            self.version(ref)
        except NotFound:
            return False
        except InvalidInput:
            if isinstance(ref, Version):
                return False
            raise
        return True

    def __reduce__(self) -> NoReturn:
        refuse_pickle(self, f"Catalog.open({self.url!r})")

    def __repr__(self) -> str:
        from catalog_core import redact

        return f"<Catalog {self.name} {redact.text(self.url)}>"

    def _repr_html_(self) -> str:
        from catalog_core import show

        return show.html(self)

    def __rich__(self) -> Any:
        from catalog_core import show

        return show.rich(self)
