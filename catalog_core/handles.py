"""Handles: a catalog and a frozen record at a position of its journal. Changes return a new handle."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from catalog_core import folders
from catalog_core.errors import InvalidInput, NotFound
from catalog_core.names import check_alias, check_name, nearest
from catalog_core.values import check_metric, check_tags, typed, when

if TYPE_CHECKING:
    from datetime import datetime

    from catalog_core.catalog import Catalog
    from catalog_core.compare import Comparison
    from catalog_core.lineage import Lineage
    from catalog_core.records import Check, Manifest
    from catalog_core.show import Event
    from catalog_core.verify import Report

Item = TypeVar("Item")


TOGETHER = 200  # attachments in one entry


def _files(folder: Path) -> dict[str, Path]:
    """The files below a folder, by their relative paths; what is left out is said."""
    found = folders.read(folder, skip=lambda name: name.startswith(".") or name == "__pycache__")
    left = [*(f"{name} (hidden, or a cache)" for name in found.skipped), *(f"{name} (empty)" for name in found.empty)]
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        warnings.warn(f"not attached of {folder}: {', '.join(left[:5])}{more}", stacklevel=3)
    return dict(found.files)


class Version:
    """A published version: `model`, `number`, `digest` (of its manifest), `stage`, `author`, `created`, `size`
    (bytes), and, read on use, `tags`, `metrics`, `params`, `aliases`, `attachments`, `manifest`."""

    __slots__ = (
        "_fields",
        "_id",
        "_layout",
        "_position",
        "author",
        "catalog",
        "deleted",
        "digest",
        "model",
        "number",
        "size",
        "stage",
        "time",
    )
    kind = "version"
    COLUMNS = (
        "v.id, v.name, v.number, v.manifest, v.layout, v.stage, v.author, v.created, v.size, v.deleted, v.position"
    )

    def __init__(self, catalog: Catalog, row: Sequence[Any]) -> None:
        self.catalog = catalog
        (
            self._id,
            self.model,
            self.number,
            self.digest,
            self._layout,
            self.stage,
            self.author,
            self.time,
            self.size,
            self.deleted,
            self._position,
        ) = row
        self._fields: dict[str, dict[str, Any]] | None = None

    @property
    def ref(self) -> str:
        """`name@number`."""
        return f"{self.model}@{self.number}"

    @property
    def created(self) -> datetime:
        """When it was published (UTC)."""
        return when(self.time)

    @property
    def summary(self) -> Mapping[str, Any]:
        """What the publish event says: framework, algorithm, parameters, components, verification."""
        event = self.catalog._index.published(self._position, self.model, self.number)
        return dict(event.get("summary", {}))

    def _field(self, kind: str) -> dict[str, Any]:
        if self._fields is None:
            self._fields = {"tags": {}, "metrics": {}, "params": {}, "taxonomy": {}}
            for key, *value in self.catalog._index.rows(
                "SELECT key, text, number, flag FROM fields WHERE version = ? ORDER BY key", (self._id,)
            ):
                group, _, name = key.partition(".")
                self._fields[group][name] = typed(*value)
        return dict(self._fields[kind])

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
        none = self.summary.get("none")
        names = [name for name in none if type(name) is str] if isinstance(none, list) else []
        return {**dict.fromkeys(names), **self._field("params")}

    @property
    def taxonomy(self) -> dict[str, Any]:
        """Use case, task, domain and the like."""
        return self._field("taxonomy")

    @property
    def aliases(self) -> list[str]:
        """The aliases that point here."""
        rows = self.catalog._index.rows(
            "SELECT alias FROM aliases a JOIN models m ON m.id = a.model WHERE m.name = ? AND number = ? ORDER BY 1",
            (self.model, self.number),
        )
        return [row[0] for row in rows]

    @property
    def manifest(self) -> Manifest:
        """What the version consists of, read and checked against its digest."""
        return self.catalog._artifact(self).manifest

    def load(self, component: str | None = None, **options: Any) -> Any:
        """See `Catalog.load`."""
        return self.catalog.load(self.ref, component, **options)

    def download(self, folder: str | os.PathLike[str]) -> Path:
        """See `Catalog.download`."""
        return self.catalog.download(self.ref, folder)

    def session(self, device: str = "cpu", **options: Any) -> Any:
        """See `Catalog.session`."""
        return self.catalog.session(self.ref, device, **options)

    def verify(self) -> Report:
        """Run the checks on the stored version in a fresh process."""
        return self.catalog.verify(self.ref)

    def _changed(self, *events: dict[str, Any]) -> Version:
        self.catalog._commit(*events)
        return self.catalog.version(self.ref, deleted=True)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        from catalog_core.events import event

        return event(kind, model=self.model, number=self.number, **fields)

    def alias(self, name: str) -> Version:
        """Point alias `name` here. Raises `Conflict` if it moved since it was last seen."""
        rows = self.catalog._index.rows(
            "SELECT number FROM aliases a JOIN models m ON m.id = a.model WHERE m.name = ? AND alias = ?",
            (self.model, check_alias(name)),
        )
        return self._changed(self._event("alias.set", alias=name, seen=rows[0][0] if rows else None))

    def promote(self, stage: str) -> Version:
        """Move to another stage. Raises `Rejected` for an unknown one, `Conflict` if it changed meanwhile."""
        return self._changed(self._event("stage.set", stage=stage, seen=self.stage))

    def tag(self, /, *unset: str, **tags: Any) -> Version:
        """Set tags by keyword (or `**{"odd key": value}`); positional keys are removed."""
        checked = check_tags(tags)
        for key, value in checked.items():
            if value is None:
                raise InvalidInput(f"tag {key!r} cannot be None", hint=f"tag({key!r}) removes it")
        return self._changed(self._event("tags.set", set=checked, unset=list(unset)))

    def annotate(self, /, **metrics: float) -> Version:
        """Set metrics: finite numbers, else `InvalidInput`."""
        checked = {key: check_metric(key, value) for key, value in metrics.items()}
        return self._changed(self._event("metrics.set", set=checked, unset=[]))

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks that were run before it was published; none where it was not verified."""
        from catalog_core.records import Check

        return tuple(Check(*told) for told in self.summary.get("checks", ()))

    @property
    def attachments(self) -> dict[str, int]:
        """Files that came later, not part of what the version is: name → size in bytes."""
        return dict(
            self.catalog._index.rows("SELECT name, size FROM attachments WHERE version = ? ORDER BY 1", (self._id,))
        )

    def attachment(self, name: str) -> bytes:
        """The checked bytes of an attachment. Raises `NotFound` with the nearest names."""
        rows = self.catalog._index.rows(
            "SELECT digest FROM attachments WHERE version = ? AND name = ?", (self._id, name)
        )
        if not rows:
            known = self.attachments
            hint = nearest(name, known) or f"it has {', '.join(known) or 'none'}"
            raise NotFound(f"{self.ref} has no attachment {name!r}", hint=hint, reference=self.ref)
        return self.catalog._content.blob(rows[0][0], f"attachment {name} of {self.ref}")

    def attach(self, name: str, source: bytes | str | os.PathLike[str] | None) -> Version:
        """Attach bytes or a file (a plot, a log, a notebook) under `name`, in place of one of that name; None removes
        it. Of a folder (code, configuration) all files are attached, as `name/path`, but for hidden ones and
        `__pycache__`. The version itself does not change."""
        check_name(name, "attachment")
        if source is None:
            return self._changed(self._event("attachment.set", name=name, digest=None, size=None))
        files: list[tuple[str, bytes | Path]] = [(name, source if isinstance(source, bytes) else Path(source))]
        if not isinstance(source, bytes) and os.path.isdir(source):
            files = [(check_name(f"{name}/{path}", "attachment"), full) for path, full in _files(Path(source)).items()]
            if not files:
                raise InvalidInput(f"folder {source} holds no files")
        elif not isinstance(source, bytes) and not os.path.isfile(source):
            raise InvalidInput(f"{source} is no file or folder")
        same = {"model": self.model, "number": self.number}
        for start in range(0, len(files), TOGETHER):
            items = []
            for key, content in files[start : start + TOGETHER]:
                size = len(content) if isinstance(content, bytes) else content.stat().st_size
                items.append((content, {**same, "name": key, "size": size}))
            self.catalog._commit_blobs("attachment.set", items)
        return self.catalog.version(self.ref, deleted=True)

    def start_card(self) -> str:
        """A model card to be completed by a person, made of what is known of this version."""
        from catalog_core.card import start

        return start(self)

    def delete(self) -> Version:
        """Hide the version; `restore` brings it back until its bytes are collected."""
        return self._changed(self._event("version.deleted"))

    def restore(self) -> Version:
        """Undo a delete. Raises `Rejected` once the bytes were collected."""
        return self._changed(self._event("version.restored"))

    def lineage(self) -> Lineage:
        """Parents and children, and theirs, as a tree."""
        return self.catalog.lineage(self)

    def compare(self, other: Version | str) -> Comparison:
        """Differences to another version, down to tensors."""
        return self.catalog.compare(self, other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and (other.ref, other.digest) == (self.ref, self.digest)

    def __hash__(self) -> int:
        return hash((self.ref, self.digest))

    def __repr__(self) -> str:
        return f"<Version {self.ref} {self.digest[:19]} {self.stage}>"

    def _repr_html_(self) -> str:
        from catalog_core import show

        return show.html(self)

    def __rich__(self) -> Any:
        from catalog_core import show

        return show.rich(self)


class Model:
    """A name with versions: `name`, `title`, `description`, `owner`, `newest` (the highest number ever given)."""

    __slots__ = (
        "_id",
        "card_digest",
        "catalog",
        "deleted",
        "description",
        "name",
        "newest",
        "owner",
        "time",
        "title",
        "updated",
    )
    kind = "model"
    COLUMNS = "id, name, title, description, owner, created, updated, deleted, card, newest"

    def __init__(self, catalog: Catalog, row: Sequence[Any]) -> None:
        self.catalog = catalog
        (
            self._id,
            self.name,
            self.title,
            self.description,
            self.owner,
            self.time,
            self.updated,
            self.deleted,
            self.card_digest,
            self.newest,
        ) = row

    @property
    def aliases(self) -> dict[str, int]:
        """Alias → number."""
        return dict(
            self.catalog._index.rows("SELECT alias, number FROM aliases WHERE model = ? ORDER BY alias", (self._id,))
        )

    @property
    def versions(self) -> list[Version]:
        """All versions that are not deleted, newest first."""
        return self.catalog.versions(self.name)

    @property
    def card(self) -> str | None:
        """The model card, Markdown."""
        if self.card_digest is None:
            return None
        return self.catalog._content.blob(self.card_digest, f"card of {self.name}").decode()

    @property
    def card_data(self) -> dict[str, Any]:
        """The fields of the YAML head of the card, as the Hugging Face Hub has them; empty where there are none, or
        where they cannot be read."""
        from catalog_core.card import head

        try:
            return head(self.card or "")
        except InvalidInput:
            return {}

    def update(self, **values: str | None) -> Model:
        """Set `title`, `description`, `owner`. Raises `Conflict` if one changed since this handle was read."""
        from catalog_core.events import event

        seen = {key: getattr(self, key, None) for key in values}
        self.catalog._commit(event("model.updated", model=self.name, set=values, seen=seen))
        return self.catalog.model(self.name)

    def set_card(self, text: str) -> Model:
        """Replace the model card."""
        if not isinstance(text, str):
            raise InvalidInput(f"a card is text, not a {type(text).__name__}")
        try:
            data = text.encode()
        except UnicodeEncodeError as exc:
            raise InvalidInput(f"the card of {self.name} holds half a surrogate pair, which is not Unicode") from exc
        self.catalog._commit_blob(data, "card.set", model=self.name, seen=self.card_digest)
        return self.catalog.model(self.name)

    def unalias(self, name: str) -> Model:
        """Remove an alias. Raises `Conflict` if it moved since this handle was read."""
        from catalog_core.events import event

        aliases = self.aliases
        if check_alias(name) not in aliases:
            have = f"it has {', '.join(aliases) or 'none'}"
            raise NotFound(f"{self.name} has no alias {name!r}", hint=nearest(name, aliases) or have)
        self.catalog._commit(event("alias.set", model=self.name, alias=name, number=None, seen=aliases[name]))
        return self.catalog.model(self.name)

    def delete(self) -> None:
        """Hide the model and its versions; `restore` brings them back until their bytes are collected."""
        from catalog_core.events import event

        self.catalog._commit(event("model.deleted", model=self.name))

    def restore(self) -> Model:
        """Undo a delete."""
        from catalog_core.events import event

        self.catalog._commit(event("model.restored", model=self.name))
        return self.catalog.model(self.name)

    def history(self) -> list[Event]:
        """Every event of the model, oldest first."""
        return self.catalog.history(self.name)

    def __repr__(self) -> str:
        return f"<Model {self.name} newest @{self.newest}>"

    def _repr_html_(self) -> str:
        from catalog_core import show

        return show.html(self)

    def __rich__(self) -> Any:
        from catalog_core import show

        return show.rich(self)


class Page(Sequence[Item], Generic[Item]):
    """One page of a listing. `next` fetches the following page, or is None on the last; `cursor` is what
    `search(cursor=…)`, or `models(after=…)`, takes to go on there, also in another process."""

    kind = "page"

    def __init__(self, items: list[Item], following: Any = None, cursor: str | None = None) -> None:
        self._items = items
        self._following = following
        self.cursor = cursor

    @property
    def next(self) -> Page[Item] | None:
        """The following page, or None."""
        return self._following() if self._following else None

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> list[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | list[Item]:
        return self._items[at]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def to_pandas(self) -> Any:
        """The page as a pandas DataFrame, a row an item."""
        import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]

        from catalog_core import show

        return pd.DataFrame([show.record(item) for item in self._items])

    def __repr__(self) -> str:
        return f"<Page of {len(self)}: {', '.join(map(repr, self._items[:5]))}{' …' if len(self) > 5 else ''}>"

    def _repr_html_(self) -> str:
        from catalog_core import show

        return show.html(self)

    def __rich__(self) -> Any:
        from catalog_core import show

        return show.rich(self)
