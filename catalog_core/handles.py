"""Handles: a catalog and a frozen record at a position of its journal. Changes return a new handle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from catalog_core import callers, folders, state
from catalog_core.errors import Conflict, InvalidInput, NotFound, PublishedNotReplicated, Rejected
from catalog_core.names import check_alias, check_key, check_name, check_together, nearest
from catalog_core.shown import an
from catalog_core.values import PUBLISHED, Fixed, Handle, check_metric, check_tags, given, refuse_pickle, when

if TYPE_CHECKING:
    from datetime import datetime

    from catalog_core.artifact import StoredArtifact
    from catalog_core.catalog import Catalog
    from catalog_core.compare import Comparison
    from catalog_core.index import Index
    from catalog_core.lineage import Lineage
    from catalog_core.records import Check, Manifest
    from catalog_core.repository import Published
    from catalog_core.show import Event
    from catalog_core.state import Deletion, ModelRow, VersionRow
    from catalog_core.verify import Report

TOGETHER = 200  # attachments in one entry


def version_published(catalog: Catalog, name: str, published: Published) -> Version:
    """The version that was published just now. Raises `PublishedNotReplicated`, with it, where a replica is behind."""
    from catalog_core.index import Damaged

    row, index = None, catalog.repository.index
    with suppress(Damaged):
        row = state.version_numbered(index, name, published.number)
    if row is None:  # the index was damaged: it comes back, and the change must not look as if it had failed
        catalog.repository.refresh(force=True)
        row = state.version_numbered(index, name, published.number)
    assert row is not None
    version = Version(catalog, row)
    if published.behind is not None:
        raise PublishedNotReplicated(
            f"{version.ref} is published, and not on every replica yet: {published.behind.__cause__}",
            version=version,
            hint=published.behind.hint,
        ) from published.behind
    return version


def restorable(index: Index, name: str) -> str | None:
    """A hint that names the deleted versions of a model that can be restored, the newest first; None without any."""
    refs = [f"{name}@{number}" for number in state.restorable(index, name, limit=4)]
    if not refs:
        return None
    which = f"{', '.join(refs[:3])}{' …' if len(refs) > 3 else ''} {'is' if len(refs) == 1 else 'are'} deleted"
    return f"{which}: catalog restore {refs[0]}"


def _files(folder: Path) -> dict[str, Path]:
    """The files below a folder, by their relative paths; what is left out is said."""
    found = folders.read(folder, skip=lambda name: name.startswith(".") or name == "__pycache__")
    left = [*(f"{name} (hidden, or a cache)" for name in found.skipped), *(f"{name} (empty)" for name in found.empty)]
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        callers.warn(f"not attached of {folder}: {', '.join(left[:5])}{more}")
    return dict(found.files)


class Version(Handle):
    """A published version: `model`, `number`, `digest` (of its manifest), `stage`, `author`, `created`, `size`
    (bytes), `aliases`, `tags`, `metrics`, `params`, `attachments`, all as they were when it was looked up.

    It belongs to its catalog and its digest: no method looks its name up again. What others change meanwhile it does
    not show, and a change made on top of that is a `Conflict`; `catalog.version(version)` gives it as it is now."""

    __slots__ = ("_published", "catalog", "row")
    kind = "version"
    WAYS: ClassVar[Mapping[str, str]] = {
        "stage": 'promote("production")', "tags": 'tag("key", "value")', "metrics": 'annotate("key", 0.5)',
        "aliases": 'alias("name")', "attachments": 'attach("name", path)', "deleted": "delete(), or restore()",
    }  # fmt: skip
    catalog: Catalog
    row: VersionRow
    _published: Mapping[str, Any] | None

    def __init__(self, catalog: Catalog, row: VersionRow) -> None:
        self._set(catalog=catalog, row=row, _published=None)  # the last: the event, once somebody asks

    @property
    def model(self) -> str:
        """The name of its model."""
        return self.row.name

    @property
    def number(self) -> int:
        """Its number: 1 for the first version of a model."""
        return self.row.number

    @property
    def digest(self) -> str:
        """The SHA-256 of its manifest, as `sha256:…`; so of all that it consists of."""
        return self.row.digest

    @property
    def stage(self) -> str:
        """How far it is promoted."""
        return self.row.stage

    @property
    def author(self) -> str:
        """Who published it."""
        return self.row.author

    @property
    def time(self) -> float:
        """When it was published, in seconds since 1970 as its entry says; see `created`."""
        return self.row.time

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return self.row.size

    @property
    def deleted(self) -> Deletion:
        """Whether it is deleted, and how."""
        return self.row.deleted

    @property
    def ref(self) -> str:
        """`name@number`."""
        return self.row.ref

    @property
    def created(self) -> datetime:
        """When it was published (UTC)."""
        return when(self.time)

    @property
    def summary(self) -> Mapping[str, Any]:
        """What the publish event says: framework, algorithm, parameters, components, verification."""
        return Fixed(self._event_of_publish()["summary"])

    def _event_of_publish(self) -> Mapping[str, Any]:
        """The event that published this version; the journal is asked once."""
        if self._published is None:
            self._set(_published=state.published(self.catalog.repository.index, self.row))
        return self._published or {}

    def _field(self, kind: str) -> dict[str, Any]:
        return Fixed(self.row.group(kind), f"version.{self.WAYS[kind]}" if kind in self.WAYS else PUBLISHED)

    @property
    def description(self) -> str | None:
        """The sentence that it was saved with, for full-text search."""
        text: str | None = self._event_of_publish().get("text")
        return text

    @property
    def tags(self) -> dict[str, Any]:
        """Tags, free keys and values."""
        return self._field("tags")

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics: finite numbers."""
        return self._field("metrics")

    @property
    def params(self) -> dict[str, Any]:
        """Hyperparameters, captured and given; None for one that was given as None."""
        return Fixed(state.params(self.row, self.summary))

    @property
    def taxonomy(self) -> dict[str, Any]:
        """Use case, task, domain and the like."""
        return self._field("taxonomy")

    @property
    def aliases(self) -> list[str]:
        """The aliases that point here."""
        return sorted(alias for alias, number in self.row.aliases.items() if number == self.number)

    @property
    def artifact(self) -> StoredArtifact:
        """The artifact, as runtimes see it: manifest, components, readers. Raises `IntegrityError`."""
        from catalog_core.artifact import stored

        repository = self.catalog.repository
        return stored(repository.content, repository.registry, self.row)

    @property
    def manifest(self) -> Manifest:
        """What the version consists of, read and checked against its digest."""
        return self.artifact.manifest

    def load(self, component: str | None = None, **options: Any) -> Any:
        """See `Catalog.load`."""
        return self.catalog.load(self, component, **options)

    def download(self, folder: str | os.PathLike[str]) -> Path:
        """See `Catalog.download`."""
        return self.catalog.download(self, folder)

    def session(self, device: str = "cpu", **options: Any) -> Any:
        """See `Catalog.session`."""
        return self.catalog.session(self, device, **options)

    def verify(self, *, trust: bool = False) -> Report:
        """Run the checks on the stored version in a fresh process; see `Catalog.verify`."""
        return self.catalog.verify(self, trust=trust)

    def _check_standing(self, index: Index) -> None:
        """Raise `Conflict` where the journal has another version of this number: what this one was given went to
        another one when a failover abandoned the branch that it stood in."""
        found = state.standing(index, self.model, self.number)
        now = found and found.digest
        if now != self.digest:
            raise Conflict(
                f"{self.ref} is {now or 'nothing'} by now; this handle is of {self.digest}",
                seen=self.digest, actual=now, hint=f"look it up again: catalog.version({self.model!r})",
            )  # fmt: skip

    def _changed(self, *events: dict[str, Any]) -> Version:
        def standing(index: Index) -> list[dict[str, Any]]:
            self._check_standing(index)
            return list(events)

        self.catalog.repository.commit(events=standing)
        return self.catalog.version(self, deleted=True)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        from catalog_core.events import event

        return event(kind, model=self.model, number=self.number, **fields)

    def alias(self, name: str) -> Version:
        """Point alias `name` here; nothing is written where it does already. Raises `Conflict` if it moved elsewhere
        since this handle was read."""
        told = self._event("alias.set", alias=check_alias(name), seen=self.row.aliases.get(name))
        self.catalog.repository.refresh()
        now = state.version_called(self.catalog.repository.index, self.model, name)
        if now is not None and (now.number, now.digest) == (self.number, self.digest):
            return self.catalog.version(self, deleted=True)  # as asked
        return self._changed(told)

    def promote(self, stage: str) -> Version:
        """Move to another stage. Raises `Rejected` for an unknown one, `Conflict` if it changed since this handle was
        read."""
        return self._changed(self._event("stage.set", stage=stage, seen=self.stage))

    def tag(self, /, *pair: Any, **tags: Any) -> Version:
        """Set tags: `tag("team", "cms")`, `tag({"odd key": 1})` or `tag(team="cms")`; others stay as they are. Raises
        `InvalidInput` for what cannot be stored, or where nothing is set."""
        values = check_tags(given("tag", "untag", pair, tags))
        for key, value in values.items():
            if value is None:
                raise InvalidInput(f"tag {key!r} cannot be None", hint=f"untag({key!r}) removes it")
        return self._changed(self._event("tags.set", set=values, unset=[]))

    def untag(self, *keys: str) -> Version:
        """Remove tags. Raises `NotFound` for one that this handle does not have, and the nearest."""
        return self._changed(self._event("tags.set", set={}, unset=self._known("tag", keys, self.tags)))

    def annotate(self, /, *pair: Any, **metrics: Any) -> Version:
        """Set metrics, as `tag` sets tags: finite numbers, else `InvalidInput`."""
        values = given("annotate", "unannotate", pair, metrics)
        checked = {key: check_metric(key, value) for key, value in values.items()}
        return self._changed(self._event("metrics.set", set=checked, unset=[]))

    def unannotate(self, *keys: str) -> Version:
        """Remove metrics. Raises `NotFound` for one that this handle does not have, and the nearest."""
        return self._changed(self._event("metrics.set", set={}, unset=self._known("metric", keys, self.metrics)))

    def _known(self, kind: str, keys: tuple[str, ...], known: Mapping[str, Any]) -> list[str]:
        if not keys:
            raise InvalidInput(f"name the {kind}s to be removed", hint=f"it has {', '.join(known) or 'none'}")
        for key in keys:
            if check_key(key, kind) not in known:
                hint = nearest(key, known) or f"it has {', '.join(known) or 'none'}"
                raise NotFound(f"{self.ref} has no {kind} {key!r}", hint=hint, reference=self.ref)
        return list(keys)

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks that were run before it was published; none where it was not verified."""
        from catalog_core.records import Check

        return tuple(Check(*told) for told in self.summary.get("checks", ()))

    @property
    def attachments(self) -> dict[str, int]:
        """Files that came later, not part of what the version is: name → size in bytes."""
        sizes = {name: size for name, (_, size) in self.row.attachments.items()}
        return Fixed(sizes, f"version.{self.WAYS['attachments']}")

    def attachment(self, name: str) -> bytes:
        """The checked bytes of an attachment. Raises `NotFound` with the nearest names."""
        self._check_attached(name)
        return self.catalog.repository.content.blob(self.row.attachments[name][0], f"attachment {name} of {self.ref}")

    def _check_attached(self, name: str) -> None:
        have = self.row.attachments
        if check_name(name, "attachment") not in have:
            hint = nearest(name, have) or f"it has {', '.join(have) or 'none'}"
            raise NotFound(f"{self.ref} has no attachment {name!r}", hint=hint, reference=self.ref)

    def attach(self, name: str, source: bytes | str | os.PathLike[str]) -> Version:
        """Attach bytes or a file (a plot, a log, a notebook) under `name`, in place of one of that name. Of a folder
        (code, configuration) all files are attached, as `name/path`, but for hidden ones and `__pycache__`. The version
        itself does not change; `detach` removes what was attached."""
        check_name(name, "attachment")
        if not isinstance(source, (bytes, str, os.PathLike)):
            hint = "detach(name) removes one" if source is None else "bytes, or the path of a file or folder"
            raise InvalidInput(f"attachment {name!r} cannot be {an(type(source).__name__)}", hint=hint)
        files: list[tuple[str, bytes | Path]] = [(name, source if isinstance(source, bytes) else Path(source))]
        if not isinstance(source, bytes) and os.path.isdir(source):
            files = [(check_name(f"{name}/{path}", "attachment"), full) for path, full in _files(Path(source)).items()]
            if not files:
                raise InvalidInput(f"folder {source} holds no files")
        elif not isinstance(source, bytes):
            if not os.path.isfile(source):
                raise InvalidInput(
                    f"{source} is no file or folder", hint="attach(name, path); a text goes as text.encode()"
                )
            folders.read(Path(source))
        added = [key for key, _ in files]
        check_together([*added, *(key for key in self.row.attachments if key not in added)], "attachment")
        same = {"model": self.model, "number": self.number}
        for start in range(0, len(files), TOGETHER):
            items = []
            for key, content in files[start : start + TOGETHER]:
                size = len(content) if isinstance(content, bytes) else content.stat().st_size
                items.append((content, {**same, "name": key, "size": size}))
            self.catalog.repository.commit_blobs("attachment.set", items, self._check_standing)
        return self.catalog.version(self, deleted=True)

    def detach(self, name: str) -> Version:
        """Remove an attachment. Raises `NotFound` with the nearest names."""
        self._check_attached(name)
        return self._changed(self._event("attachment.set", name=name, digest=None, size=None))

    def start_card(self) -> str:
        """A model card to be completed by a person, made of what is known of this version."""
        from catalog_core.card import start

        return start(self.catalog.repository, self.row)

    def delete(self) -> Version:
        """Hide the version; `restore` brings it back until its bytes are collected."""
        return self._changed(self._event("version.deleted"))

    def restore(self) -> Version:
        """Undo a delete. Raises `InvalidInput` where it is not deleted, `Rejected` once the bytes were collected."""

        def restored(index: Index) -> list[dict[str, Any]]:
            self._check_standing(index)
            found = state.standing(index, self.model, self.number)
            if found is None or not found.deleted:
                raise InvalidInput(f"{self.ref} is not deleted", hint=restorable(index, self.model))
            by = state.erasure_of(index, self.model, self.number) if found.deleted == state.Deletion.COLLECTED else None
            if by is not None:
                told = f"{self.ref} cannot be restored: it was erased {by}"[:400]
                raise Rejected(told, code="collected", hint=f"catalog history {self.model}")
            return [self._event("version.restored")]

        self.catalog.repository.commit(events=restored)
        return self.catalog.version(self, deleted=True)

    def lineage(self) -> Lineage:
        """Parents and children, and theirs, as a tree."""
        return self.catalog.lineage(self)

    def compare(self, other: Version | str) -> Comparison:
        """Differences to another version, down to tensors."""
        return self.catalog.compare(self, other)

    def __eq__(self, other: object) -> bool:
        """The same version of the same catalog, whatever was changed of it between."""
        if not isinstance(other, Version) or (other.ref, other.digest) != (self.ref, self.digest):
            return False
        return other.catalog is self.catalog or other.catalog.id == self.catalog.id

    def __hash__(self) -> int:
        return hash((self.ref, self.digest))

    def __reduce__(self) -> NoReturn:
        refuse_pickle(self, f"Catalog.open({self.catalog.url!r}).version({self.ref!r})")

    def __copy__(self) -> Version:
        return self

    def __deepcopy__(self, memo: Any) -> Version:
        return self

    def __repr__(self) -> str:
        return f"<Version {self.ref} {self.digest[:19]} {self.stage}>"

    def _repr_html_(self) -> str:
        from catalog_core import show

        return show.html(self)

    def __rich__(self) -> Any:
        from catalog_core import show

        return show.rich(self)


class Model(Handle):
    """A name with versions: `name`, `title`, `description`, `owner`, `aliases`, and `newest` (the highest number that
    is not deleted, or None), all as they were when it was looked up."""

    __slots__ = ("catalog", "row")
    kind = "model"
    WAYS: ClassVar[Mapping[str, str]] = {
        **{name: f'update({name}="…")' for name in state.FIELDS},
        "card": "set_card(text)", "card_data": "set_card(text)", "aliases": 'unalias("name"), or version.alias("name")',
        "deleted": "delete(), or restore()",
    }  # fmt: skip
    catalog: Catalog
    row: ModelRow

    def __init__(self, catalog: Catalog, row: ModelRow) -> None:
        self._set(catalog=catalog, row=row)

    @property
    def name(self) -> str:
        """What it is called."""
        return self.row.name

    @property
    def title(self) -> str | None:
        """A title for people."""
        return self.row.title

    @property
    def description(self) -> str | None:
        """A sentence or two, for full-text search."""
        return self.row.description

    @property
    def owner(self) -> str | None:
        """Whom to ask."""
        return self.row.owner

    @property
    def time(self) -> float:
        """When its first version was published, in seconds since 1970."""
        return self.row.time

    @property
    def updated(self) -> float:
        """When its newest version was published or its fields were set, in seconds since 1970."""
        return self.row.updated

    @property
    def deleted(self) -> bool:
        """Whether it is deleted."""
        return self.row.deleted

    @property
    def newest(self) -> int | None:
        """The highest number that is not deleted."""
        return self.row.newest

    @property
    def card_digest(self) -> str | None:
        """The digest of its card."""
        return self.row.card

    @property
    def aliases(self) -> dict[str, int]:
        """Alias → number."""
        return Fixed(self.row.aliases, "version.alias(name), or model.unalias(name)")

    @property
    def versions(self) -> list[Version]:
        """All versions that are not deleted, newest first; asked for anew each time, as `history` is."""
        return self.catalog.versions(self.name)

    @property
    def card(self) -> str | None:
        """The model card, Markdown."""
        if self.card_digest is None:
            return None
        return self.catalog.repository.content.blob(self.card_digest, f"card of {self.name}").decode()

    @property
    def card_data(self) -> dict[str, Any]:
        """The fields of the YAML head of the card, as the Hugging Face Hub has them; empty where there are none, or
        where they cannot be read."""
        from catalog_core.card import head

        try:
            return head(self.card or "")
        except InvalidInput:
            return {}

    def update(self, /, *pair: Any, **values: Any) -> Model:
        """Set `title`, `description`, `owner`: `update(title="A GAN")`, `update({"title": "A GAN"})` or
        `update("title", "A GAN")`; None removes one. Raises `Conflict` if one changed since this handle was read."""
        from catalog_core.events import event

        told = given("update", None, pair, values)
        for key in told:
            if key not in state.FIELDS:
                hint = nearest(key, state.FIELDS) if isinstance(key, str) else None
                raise InvalidInput(f"a model has no {key!r}", hint=hint or f"it has {', '.join(state.FIELDS)}")
        seen = {key: getattr(self, key) for key in told}
        self.catalog.repository.commit(event("model.updated", model=self.name, set=told, seen=seen))
        return self.catalog.model(self.name, deleted=True)

    def set_card(self, text: str) -> Model:
        """Replace the model card."""
        if not isinstance(text, str):
            raise InvalidInput(f"a card is text, not {an(type(text).__name__)}", hint="Path(…).read_text() of a file")
        from catalog_core.card import head

        try:
            head(text)
        except InvalidInput as exc:
            callers.warn(f"the card is kept, and its fields are not read: {exc.message}")
        try:
            data = text.encode()
        except UnicodeEncodeError as exc:
            raise InvalidInput(f"the card of {self.name} holds half a surrogate pair, which is not Unicode") from exc
        self.catalog.repository.commit_blob(data, "card.set", model=self.name, seen=self.card_digest)
        return self.catalog.model(self.name, deleted=True)

    def unalias(self, name: str) -> Model:
        """Remove an alias. Raises `NotFound` with the nearest, `Conflict` if it moved since this handle was read."""
        from catalog_core.events import event

        seen = self.row.aliases
        if check_alias(name) not in seen and name not in self.catalog.model(self.name, deleted=True).aliases:
            have = f"it has {', '.join(seen) or 'none'}"
            raise NotFound(f"{self.name} has no alias {name!r}", hint=nearest(name, seen) or have)
        gone = event("alias.set", model=self.name, alias=name, number=None, seen=seen.get(name))
        self.catalog.repository.commit(gone)
        return self.catalog.model(self.name, deleted=True)

    def delete(self) -> Model:
        """Hide the model and its versions; `restore` brings them back until their bytes are collected."""
        from catalog_core.events import event

        self.catalog.repository.commit(event("model.deleted", model=self.name))
        return self.catalog.model(self.name, deleted=True)

    def restore(self) -> Model:
        """Undo a delete. Raises `InvalidInput` where it is not deleted, and names the versions that are."""
        from catalog_core.events import event

        def restored(index: Index) -> list[dict[str, Any]]:
            if not state.model_is_deleted(index, self.name):
                raise InvalidInput(f"{self.name} is not deleted", hint=restorable(index, self.name))
            return [event("model.restored", model=self.name)]

        self.catalog.repository.commit(events=restored)
        return self.catalog.model(self.name)

    def history(self) -> list[Event]:
        """Every event of the model, oldest first."""
        return self.catalog.history(self.name)

    def __eq__(self, other: object) -> bool:
        """The same name in the same catalog."""
        if not isinstance(other, Model) or other.name != self.name:
            return False
        return other.catalog is self.catalog or other.catalog.id == self.catalog.id

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> NoReturn:
        refuse_pickle(self, f"Catalog.open({self.catalog.url!r}).model({self.name!r})")

    def __copy__(self) -> Model:
        return self

    def __deepcopy__(self, memo: Any) -> Model:
        return self

    def __repr__(self) -> str:
        return f"<Model {self.name} {f'newest @{self.newest}' if self.newest else 'without versions'}>"

    def _repr_html_(self) -> str:
        from catalog_core import show

        return show.html(self)

    def __rich__(self) -> Any:
        from catalog_core import show

        return show.rich(self)
