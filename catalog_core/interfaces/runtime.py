"""Runtime: runs an artifact on a device. `verify`, `session` and `predict` are one path through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from catalog_core.interfaces.serializer import Reader
from catalog_core.records import Component, EntryPoint, Manifest


class Artifact(Protocol):
    """A version, or a draft, as a runtime sees it. A runtime never reads formats: it asks for components."""

    manifest: Manifest

    def component(self, name: str, device: str | None = None, **options: Any) -> Any:
        """The component as its serializer loads it, on `device`. Loaded once. `options`: those of loading (`trust`)."""

    def call(self, component: str, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a method of a loaded component through its serializer."""

    def fit(self, component: str, obj: Any, method: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The outputs of one step as the inputs of the next: by name where names agree, else by position."""

    def in_order(self, component: str, obj: Any, names: Sequence[str]) -> Sequence[str] | None:
        """The columns of a data frame in the order in which a loaded component takes them; None where it does not know
        their names. Raises `InvalidInput`."""

    def reader(self, component: Component) -> Reader:
        """The files of a component, for a check that looks at bytes."""

    def release(self) -> None:
        """Forget the loaded components."""


class Session(Protocol):
    """Loaded components, ready to run. Also a context manager; entry points are attributes."""

    entry_points: Mapping[str, EntryPoint]
    device: str

    def run(self, entry: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run an entry point on named arrays. Names, dtypes and shapes are checked first (`InvalidInput` says tensor,
        expected and got). Outputs by name, NumPy arrays."""

    def close(self) -> None:
        """Release memory; a call after that raises `InvalidInput`. A second `close` does nothing."""


class Runtime(Protocol):
    """Opens sessions."""

    name: str

    def handles(self, manifest: Manifest) -> bool:
        """Whether it can run all components of this artifact. Imports no framework."""

    def open(self, artifact: Artifact, device: str, options: Mapping[str, Any]) -> Session:
        """A session on `device` (`cpu`, `cuda`, `cuda:1`). Raises `BackendError` where there is no such device."""
