"""An artifact as loaders and runtimes see it: manifest, components, entry points; of a version or of a draft."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from catalog_core.content import ComponentReader, Content
from catalog_core.digests import parse
from catalog_core.errors import InvalidInput, NotFound
from catalog_core.layout import Layout
from catalog_core.names import nearest
from catalog_core.plugins import Registry
from catalog_core.records import Component, Manifest
from catalog_core.session import fit, running
from catalog_core.values import refuse_pickle


class StoredArtifact:
    """Components are loaded by their serializers, once each (interfaces.runtime.Artifact)."""

    def __init__(self, manifest: Manifest, layout: Layout, content: Content, registry: Registry, what: str) -> None:
        self.manifest = manifest
        self.layout = layout
        self.what = what
        self._content = content
        self._registry = registry
        self._loaded: dict[tuple[str, str | None], Any] = {}

    def reader(self, component: Component) -> ComponentReader:
        """The checked files of a component."""
        files = {file.name: (file.digest, file.size) for file in component.files}
        return ComponentReader(self._content, component.meta, files, self.layout, f"{self.what}#{component.name}")

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
        serializer = self._registry.serializer(component.serializer)
        known = ("trust", "as_", "copy", *getattr(serializer, "load_options", ()))
        for key in options:
            if key not in known:
                raise InvalidInput(
                    f"{component.serializer!r} has no option {key!r} for loading",
                    hint=nearest(key, known) or f"it has {', '.join(known)}",
                )
        return serializer.load(self.reader(component), device, into, options)

    def component(self, name: str, device: str | None = None, **options: Any) -> Any:
        """See `interfaces.runtime.Artifact.component`."""
        key = (name, device)
        if key not in self._loaded:
            self._loaded[key] = self.load(name, device, **options)
        return self._loaded[key]

    def call(self, component: str, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `interfaces.runtime.Artifact.call`."""
        serializer = self._registry.serializer(self.find(component).serializer)
        with running(component, method):
            outputs: Mapping[str, Any] = serializer.call(obj, method, inputs)
        return outputs

    def fit(self, component: str, obj: Any, method: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `interfaces.runtime.Artifact.fit`."""
        serializer = self._registry.serializer(self.find(component).serializer)
        with running(component, method):
            return fit(values, list(serializer.inputs(obj, method) or ()))

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
        value: dict[str, Any] = parse(self._content.blob(self.manifest.baseline, f"baseline of {self.what}"))
        return value

    def distributions(self) -> dict[str, str]:
        """What was installed where it was made: distribution → version; empty where nobody noted it."""
        lock = self.manifest.environment.get("distributions")
        value: dict[str, str] = parse(self._content.blob(lock, f"environment of {self.what}")) if lock else {}
        return value

    def example(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | None:
        """The stored example: inputs by name, and what each entry point gave for it, as NumPy arrays; or None."""
        if self.manifest.example is None:
            return None
        from catalog_core.codec import converter

        component = converter().structure(dict(self.manifest.example), Component)
        serializer = self._registry.serializer(component.serializer)
        arrays = serializer.load(self.reader(component), None, None, {"as_": "numpy"})
        inputs: dict[str, Any] = {}
        outputs: dict[str, dict[str, Any]] = {}
        for key, array in arrays.items():
            kind, _, rest = key.partition(":")
            if kind == "input":
                inputs[rest] = array
            else:
                entry, _, name = rest.partition(":")
                outputs.setdefault(entry, {})[name] = array
        return inputs, outputs


class Components(Mapping[str, Any]):
    """The components of an artifact, each loaded when it is first asked for."""

    def __init__(self, artifact: StoredArtifact, options: Mapping[str, Any]) -> None:
        self._artifact = artifact
        self._options = options
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            if name not in set(self):
                raise KeyError(name)
            self._loaded[name] = self._artifact.load(name, **self._options)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(component.name for component in self._artifact.manifest.components)

    def __len__(self) -> int:
        return len(self._artifact.manifest.components)

    def __reduce__(self) -> NoReturn:
        refuse_pickle(self, f"catalog.load({self._artifact.what!r}), or dict(components) here, which loads them all")

    def __repr__(self) -> str:
        return f"<Components {', '.join(self)}>"
