"""An artifact as loaders and runtimes see it: manifest, components, entry points; of a version or of a draft."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from catalog_core import examples, folders
from catalog_core.codec import read_artifact
from catalog_core.content import ComponentReader, Content, new_file
from catalog_core.digests import parse
from catalog_core.durable import translated
from catalog_core.errors import IntegrityError, InvalidInput, NotFound
from catalog_core.layout import Layout
from catalog_core.names import check_together, nearest
from catalog_core.plugins import Registry
from catalog_core.records import Component, Manifest
from catalog_core.session import fit, running
from catalog_core.shown import an
from catalog_core.state import VersionRow
from catalog_core.values import FLAGS, check_flags, refuse_pickle

FILES = "files"  # the serializer of what no serializer made: files as they are


def _remove(folder: Path, process: int) -> None:
    """Remove a folder that `load` gave; not in a process that was forked from the one that has it."""
    if os.getpid() == process:
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())):
            with suppress(OSError):  # the user removed it before
                path.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def _take_back(written: Sequence[Path], folder: Path, was_there: bool) -> None:
    """Remove files that were written below a folder, and folders that hold nothing any more."""
    for path in written:
        with suppress(OSError):
            path.unlink()
    emptied = {parent for path in written for parent in path.parents if folder in parent.parents}
    for place in [*sorted(emptied, reverse=True), *([] if was_there else [folder])]:
        with suppress(OSError):
            place.rmdir()


def stored(content: Content, registry: Registry, version: VersionRow) -> StoredArtifact:
    """The artifact of a published version. Raises `IntegrityError`."""
    what = version.ref
    told = content.blob(version.digest, f"manifest of {what}")
    where = content.blob(version.layout, f"layout of {what}")
    try:
        return StoredArtifact(*read_artifact(told, where), content, registry, what)
    except IntegrityError as exc:
        raise IntegrityError(f"{what} cannot be loaded: {exc.message}", hint=exc.hint) from exc


class StoredArtifact:
    """Components are loaded by their serializers, once each (interfaces.runtime.Artifact)."""

    def __init__(self, manifest: Manifest, layout: Layout, content: Content, registry: Registry, what: str) -> None:
        self.manifest = manifest
        self.layout = layout
        self.what = what
        self.content = content
        self.registry = registry
        self._loaded: dict[tuple[str, str | None], Any] = {}

    def reader(self, component: Component) -> ComponentReader:
        """The checked files of a component."""
        files = {file.name: (file.digest, file.size) for file in component.files}
        return ComponentReader(self.content, component.meta, files, self.layout, f"{self.what}#{component.name}")

    def hold(self) -> None:
        """Hold every file against its digest. Raises `IntegrityError`."""
        for component in self.manifest.components:
            reader = self.reader(component)
            for name in reader.files:
                reader.hold(name)

    def find(self, name: str) -> Component:
        """The component called `name`. Raises `NotFound` with the nearest names."""
        try:
            return self.manifest.component(name)
        except KeyError:
            names = [component.name for component in self.manifest.components]
            raise NotFound(
                f"{self.what} has no component {name!r}", hint=nearest(name, names) or f"it has {', '.join(names)}"
            ) from None

    def load(self, name: str, device: str | None = None, into: Any = None, **options: Any) -> Any:
        """Load one component anew."""
        component = self.find(name)
        check_flags(**{key: value for key, value in options.items() if key in FLAGS})
        if component.serializer == FILES:
            if device not in (None, "cpu"):
                raise InvalidInput(f"{name!r} are files, which lie on no {device!r}", hint="load them without device=")
            return self._load_files(component, into, options)
        serializer = self.registry.serializer(component.serializer)
        known = ("trust", "as_", "copy", *getattr(serializer, "load_options", ()))
        for key in options:
            if key not in known:
                raise InvalidInput(
                    f"{component.serializer!r} has no option {key!r} for loading",
                    hint=("partial=True takes what fits, as strict=False of torch does" if key == "strict" else None)
                    or nearest(key, known)
                    or f"it has {', '.join(known)}",
                )
        renaming = next((key for key in ("rename", "partial") if key in options), None)
        if renaming is not None and into is None and options.get("like") is None:
            raise InvalidInput(f"{renaming}= goes with into=: it says how a live object is filled")
        return serializer.load(self.reader(component), device, into, options)

    def _load_files(self, component: Component, into: Any, options: Mapping[str, Any]) -> Path:
        """The folder with the files: a read-only copy of this process, or `into`, a folder that is new or empty."""
        for key in options:
            if key not in ("trust", "copy"):
                raise InvalidInput(
                    f"files are loaded as they are: there is no {key!r}", hint="into=folder writes them there"
                )
        if into is not None:
            if not isinstance(into, (str, os.PathLike)):
                raise InvalidInput(f"files go into a folder, not into {an(type(into).__name__)}", hint="into=Path(…)")
            check_vacant(Path(into))
            return self.write(component, Path(into))
        with translated(tempfile.gettempdir()):
            made = Path(tempfile.mkdtemp(prefix="catalog-"))
        atexit.register(_remove, made, os.getpid())
        folder = self.write(component, made / component.name)
        for path in (*folder.rglob("*"), folder):
            path.chmod(path.stat().st_mode & ~0o222)
        return folder

    def write(self, component: Component, folder: Path, told: Callable[[int], None] = lambda count: None) -> Path:
        """Write the checked files of a component below `folder`; `told` gets the size of each piece that is written."""
        reader = self.reader(component)
        check_together(reader.files, everywhere=False)
        written, was_there = [], folder.exists()
        try:
            with translated(str(folder)):
                folder.mkdir(parents=True, exist_ok=True)
            for name in reader.files:
                path = folder / name
                with translated(str(folder), full="free space on that disk, or choose a folder on another one"):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with new_file(path, f"{self.what}: {name}") as file:
                        written.append(path)
                        for piece in reader.pieces(name):
                            told(file.write(piece))
            with translated(str(folder)):
                folders.restore(folder, reader.meta, reader.files)
        except BaseException:  # a part of a model would pass for it, and the folder for one that is in use
            _take_back(written, folder, was_there)
            raise
        return folder

    def component(self, name: str, device: str | None = None, **options: Any) -> Any:
        """See `interfaces.runtime.Artifact.component`."""
        key = (name, device)
        if key not in self._loaded:
            self._loaded[key] = self.load(name, device, **options)
        return self._loaded[key]

    def call(self, component: str, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `interfaces.runtime.Artifact.call`."""
        serializer = self.registry.serializer(self.find(component).serializer)
        with running(component, method):
            outputs: Mapping[str, Any] = serializer.call(obj, method, inputs)
        return outputs

    def fit(self, component: str, obj: Any, method: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `interfaces.runtime.Artifact.fit`."""
        serializer = self.registry.serializer(self.find(component).serializer)
        with running(component, method):
            return fit(values, list(serializer.inputs(obj, method) or ()))

    def in_order(self, component: str, obj: Any, names: Sequence[str]) -> Sequence[str] | None:
        """See `interfaces.runtime.Artifact.in_order`."""
        serializer = self.registry.serializer(self.find(component).serializer)
        ordered: Sequence[str] | None = serializer.in_order(obj, names) if hasattr(serializer, "in_order") else None
        return ordered

    def __reduce__(self) -> NoReturn:
        refuse_pickle(self, "catalog.artifact(reference)")

    def release(self) -> None:
        """See `interfaces.runtime.Artifact.release`."""
        self._loaded.clear()

    def baseline(self) -> dict[str, Any] | None:
        """The statistics of the inputs (`inputs`, see `baseline.statistics`) and the census of the weights (`weights`,
        by component) that were taken when it was made; None where there are none."""
        if self.manifest.baseline is None:
            return None
        value: dict[str, Any] = parse(self.content.blob(self.manifest.baseline, f"baseline of {self.what}"))
        return value

    def distributions(self) -> dict[str, str]:
        """What was installed where it was made: distribution → version; empty where nobody noted it."""
        lock = self.manifest.environment.get("distributions")
        value: dict[str, str] = parse(self.content.blob(lock, f"environment of {self.what}")) if lock else {}
        return value

    def example(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | None:
        """The stored example: inputs by name (of one entry point alone: by `entry.name`), and what each entry point
        gave for them, as NumPy arrays; or None."""
        found = self._example()
        if found is None:
            return None
        shared, own, outputs = found
        return shared | {f"{entry}.{name}": array for entry in own for name, array in own[entry].items()}, outputs

    def example_of(self, entry: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The stored example of one entry point: its inputs and outputs by name; None where there is none for it."""
        found = self._example()
        point = next((point for point in self.manifest.entry_points if point.name == entry), None)
        inputs = examples.inputs_of(point, *found[:2]) if found and point else {}
        return (inputs, found[2].get(entry, {})) if found and inputs else None

    def _example(self) -> Any:
        from catalog_core.codec import example_of

        component = example_of(self.manifest)
        if component is None:
            return None
        serializer = self.registry.serializer(component.serializer)
        return examples.read(serializer.load(self.reader(component), None, None, {"as_": "numpy"}))


def check_vacant(folder: Path) -> None:
    """Raise `InvalidInput` where something lies in `folder`."""
    with translated(str(folder)):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidInput(f"{folder} exists and is not an empty folder")


class Components(Mapping[str, Any]):
    """The components of an artifact, each loaded when it is first asked for."""

    def __init__(self, artifact: StoredArtifact, options: Mapping[str, Any]) -> None:
        self._artifact = artifact
        self._options = options
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            if name not in self:
                raise KeyError(name)
            self._loaded[name] = self._artifact.load(name, **self._options)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return any(component.name == name for component in self._artifact.manifest.components)  # loads nothing

    def __iter__(self) -> Iterator[str]:
        return iter(component.name for component in self._artifact.manifest.components)

    def __len__(self) -> int:
        return len(self._artifact.manifest.components)

    def __reduce__(self) -> NoReturn:
        refuse_pickle(self, f"catalog.load({self._artifact.what!r}), or dict(components) here, which loads them all")

    def __repr__(self) -> str:
        return f"<Components {', '.join(self)}>"
