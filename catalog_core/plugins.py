"""The plug-in loader: tolerant, and the same door for built-ins and strangers.

A plug-in that fails to import, has an unknown API, or claims a name that is taken, is reported; the rest works.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from catalog_core import callers, hookspecs
from catalog_core.errors import CatalogError, ConfigError, InvalidInput, MissingPlugin, PluginError, installs
from catalog_core.shown import an
from catalog_core.specs import API, BackendSpec, CheckSpec, CommandSpec, FormatSpec, RuntimeSpec, SerializerSpec

if TYPE_CHECKING:
    from catalog_core.records import Manifest

KINDS: dict[str, type] = {
    "backends": BackendSpec, "serializers": SerializerSpec, "runtimes": RuntimeSpec, "formats": FormatSpec,
    "checks": CheckSpec, "commands": CommandSpec,
}  # fmt: skip
EXTRAS = {"torch": "torch", "tensorflow": "tensorflow", "keras": "keras", "sklearn": "sklearn"}
log = logging.getLogger("catalog_core")


@attrs.frozen
class Problem:
    """Something wrong with a plug-in."""

    plugin: str
    message: str


class _Manager(pluggy.PluginManager):
    """Takes plain functions for hooks too, by their name: a plug-in need not import a marker."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        marked = super().parse_hookimpl_opts(plugin, name)
        if marked is None and name.startswith("catalog_") and inspect.isfunction(getattr(plugin, name, None)):
            return {"optionalhook": False, "specname": None, "tryfirst": False, "trylast": False,
                    "wrapper": False, "hookwrapper": False}  # fmt: skip
        return marked


class Registry:
    """What the installed plug-ins bring, by kind and name."""

    def __init__(self, modules: Iterable[tuple[str, str]]) -> None:
        self.backends: dict[str, BackendSpec] = {}
        self.serializers: dict[str, SerializerSpec] = {}
        self.runtimes: dict[str, RuntimeSpec] = {}
        self.formats: dict[str, FormatSpec] = {}
        self.checks: dict[str, CheckSpec] = {}
        self.commands: dict[str, CommandSpec] = {}
        self.providers: dict[tuple[str, str], str] = {}
        self.problems: list[Problem] = []
        self.modules: dict[str, str] = {}
        self._made: dict[str, Any] = {}
        self._manager = _Manager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        for label, module in modules:
            self._register(label, module)

    def _register(self, label: str, name: str) -> None:
        plugin: Any = None
        try:
            path, _, attribute = name.partition(":")
            plugin = importlib.import_module(path.strip())
            for part in attribute.split(".") if attribute else ():
                plugin = getattr(plugin, part.strip())
            if self._manager.register(plugin, label) is None:
                raise PluginError("it is registered already")
            self._manager.check_pending()
            found: list[tuple[str, Any]] = []
            for kind, wanted in KINDS.items():
                for spec in self._call(label, f"catalog_register_{kind}") or ():
                    if not isinstance(spec, wanted):
                        raise TypeError(f"catalog_register_{kind} yields {an(type(spec).__name__)}")
                    found.append((kind, spec))
        except (Exception, SystemExit) as exc:  # a broken stranger must not stop the others
            if self._manager.get_plugin(label) is plugin is not None:
                self._manager.unregister(name=label)
            self.problems.append(Problem(label, f"cannot be loaded: {type(exc).__name__}: {exc}"))
            return
        # only now: a plug-in that fails midway leaves nothing
        for kind, spec in found:
            self._add(label, kind, spec)
        self.modules[label] = name
        made_in = [str(getattr(spec, "factory", "")).partition(":")[0] for _, spec in found]
        callers.register(
            [path.strip(), *filter(None, made_in)], [top for _, spec in found for top in getattr(spec, "handles", ())]
        )

    def _call(self, label: str, hook: str, **values: Any) -> Any:
        """What the plug-in `label` answers to `hook`; None where it does not implement it."""
        return next((ask(**values) for found, ask in self._implementing(hook) if found == label), None)

    def _implementing(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """The plug-ins that implement a hook, with what calls them, in the order in which they were registered."""

        def caller(function: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
            return lambda **values: function(*[values[name] for name in names])

        found = {each.plugin_name: each for each in getattr(self._manager.hook, hook).get_hookimpls()}
        order = [*self.modules, *(label for label in found if label not in self.modules)] if found else []
        return [(label, caller(found[label].function, found[label].argnames)) for label in order if label in found]

    def _add(self, label: str, kind: str, spec: Any) -> None:
        table = getattr(self, kind)
        if spec.api != API:
            self.problems.append(
                Problem(label, f"{kind} {spec.name!r} wants interface {spec.api}, this release has {API}; not loaded")
            )
        elif spec.name in table:
            first = self.providers[kind, spec.name]
            self.problems.append(Problem(label, f"{kind} {spec.name!r} is already provided by {first}; not loaded"))
        else:
            table[spec.name] = spec
            self.providers[kind, spec.name] = label

    def load(self, factory: str, extra: str | None = None) -> Any:
        """Import `package.module:attribute`. Raises `MissingPlugin` where a dependency is not installed."""
        module, _, attribute = factory.partition(":")
        with self.importing(factory, extra):
            return getattr(importlib.import_module(module), attribute)

    @contextmanager
    def importing(self, factory: str, extra: str | None = None) -> Iterator[None]:
        """What a plug-in imports in here may be missing: `MissingPlugin` says how to install it."""
        module = factory.partition(":")[0]
        try:
            yield
        except ModuleNotFoundError as exc:
            if exc.name and (module == exc.name or module.startswith(exc.name + ".")):
                raise PluginError(f"{factory} cannot be imported: {exc}") from exc
            need = extra or EXTRAS.get(str(exc.name))
            raise MissingPlugin(
                f"{factory} needs {exc.name}, which is not installed",
                hint=f"pip install 'catalog-core[{need}]'" if need else installs(str(exc.name)),
            ) from exc
        except CatalogError:
            raise
        except Exception as exc:  # a vendor's library may fail in any way: a missing .so is an OSError
            raise PluginError(f"{factory} cannot be used: {exc}") from exc

    def backend_for(self, url: str) -> BackendSpec:
        """The backend that opens `url`. Raises `MissingPlugin`."""
        scheme = url.partition("://")[0]
        for spec in self.backends.values():
            if scheme in spec.schemes:
                return spec
        known = sorted(f"{scheme}://" for spec in self.backends.values() for scheme in spec.schemes)
        raise MissingPlugin(
            f"no backend opens {scheme}://", hint=f"installed: {', '.join(known) or 'none'}; see `catalog plugins`"
        )

    def serializer(self, name: str) -> Any:
        """The serializer called `name`. Raises `MissingPlugin`."""
        if name not in self._made:
            spec = self.serializers.get(name)
            if spec is None:
                raise MissingPlugin(
                    f"no serializer is called {name!r}",
                    hint=f"installed: {', '.join(sorted(self.serializers)) or 'none'}",
                )
            self._made[name] = self.load(spec.factory, spec.extra)()
        return self._made[name]

    def find_serializer(self, obj: Any) -> SerializerSpec:
        """The serializer for an object, by the top-level modules of its classes; imports nothing."""
        if isinstance(obj, str):
            raise InvalidInput(f"{obj[:60]!r} is text, not a model", hint="a Path publishes a file or folder as it is")
        if isinstance(obj, type):
            raise InvalidInput(
                f"{obj.__qualname__} is a class, not an object of it", hint=f"pass what {obj.__name__}(…) makes"
            )
        for kind in type(obj).__mro__:
            if kind is object:
                break
            module = kind.__module__.partition(".")[0]
            # every class has ancestors in builtins: of those, only a dict says what the object is
            if module in ("builtins", "collections") and kind is not type(obj) and not issubclass(kind, dict):
                continue
            for spec in self.serializers.values():
                if module in spec.handles:
                    return spec
        handled = sorted({module for spec in self.serializers.values() for module in spec.handles})
        raise MissingPlugin(
            f"no serializer takes {an(type(obj).__module__)}.{type(obj).__qualname__}",
            hint=f"installed ones take objects of {', '.join(handled)}; serializer=… names one that takes it all the "
            f"same ({', '.join(sorted(self.serializers))}); a Path publishes files as they are",
        )

    def serializer_for_suffix(self, files: Iterable[str]) -> str | None:
        """The serializer that reads these files, by their suffixes; None where none does."""
        names = list(files)
        for spec in self.serializers.values():
            if spec.suffixes and len(names) == 1 and names[0].endswith(spec.suffixes):
                return spec.name
        return None

    def format(self, name: str) -> FormatSpec:
        """The format called `name`. Raises `MissingPlugin`."""
        if name not in self.formats:
            known = ", ".join(sorted(self.formats)) or "none"
            raise MissingPlugin(f"no format is called {name!r}", hint=f"installed: {known}")
        return self.formats[name]

    def format_of(self, path: Path) -> FormatSpec | None:
        """The format of a file or folder, by the marks of those that can be read, then of those that are only known;
        None where none fits."""
        for spec in sorted(self.formats.values(), key=lambda spec: spec.instead is not None):
            if spec.reader and spec.fits(path):
                return spec
        return None

    def runtime_for(self, manifest: Manifest) -> Any:
        """What runs the entry points: the first runtime that runs all components they use, else several together.
        Raises `MissingPlugin`."""
        from catalog_core.session import Together, used

        needed = {component.serializer for component in used(manifest)}
        for spec in self.runtimes.values():
            if needed <= set(spec.serializers):
                return self._runtime(spec)
        found = {name: next((s for s in self.runtimes.values() if name in s.serializers), None) for name in needed}
        missing = sorted(name for name, spec in found.items() if spec is None)
        if missing:
            known = "; ".join(f"{spec.name} runs {', '.join(spec.serializers)}" for spec in self.runtimes.values())
            raise MissingPlugin(
                f"no runtime runs components of {', '.join(missing)}", hint=f"installed: {known or 'none'}"
            )
        return Together({name: (self._runtime(spec), spec.devices) for name, spec in found.items() if spec})

    def _runtime(self, spec: RuntimeSpec) -> Any:
        if spec.name + "/runtime" not in self._made:
            self._made[spec.name + "/runtime"] = self.load(spec.factory, spec.extra)()
        return self._made[spec.name + "/runtime"]

    def saving(self, name: str, manifest: Manifest) -> None:
        """Ask the plug-ins; one that raises `CatalogError` refuses the save."""
        for label, ask in self._implementing("catalog_saving"):
            try:
                ask(name=name, manifest=manifest)
            except CatalogError:
                raise
            except Exception as exc:
                raise PluginError(f"plug-in {label} failed while {name!r} was saved: {exc}") from exc

    def saved(self, version: Any) -> None:
        """Tell the plug-ins; what one raises is logged and changes nothing."""
        for label, tell in self._implementing("catalog_saved"):
            try:
                tell(version=version)
            except Exception:
                log.exception("plug-in %s failed after %s was saved", label, version.ref)

    def describe(self) -> list[dict[str, str]]:
        """What is installed, one row each."""
        return [
            {
                "kind": kind.removesuffix("s"),
                "name": name,
                "plugin": self.providers[kind, name],
                "factory": getattr(spec, "factory", None) or spec.reader or spec.writer,
            }
            for kind in KINDS
            for name, spec in sorted(getattr(self, kind).items())
        ]


@functools.cache
def registry() -> Registry:
    """The registry of this process: every installed distribution's entry points, built-ins first."""
    from importlib.metadata import PackageNotFoundError, distribution, entry_points

    values = {point.value: point.name for point in sorted(entry_points(group=hookspecs.GROUP), reverse=True)}
    names = list(values.values())
    found = [(name if names.count(name) == 1 else f"{name} ({value})", value) for value, name in values.items()]
    try:
        ours = {point.value for point in distribution("catalog-core").entry_points}
    except PackageNotFoundError:
        ours = set()
    return Registry(sorted(found, key=lambda item: (item[1] not in ours, item)))


def check_options(spec: BackendSpec, settings: Any) -> None:
    """Check the options of a `config.Target` with the attrs class that its backend names. Raises `ConfigError`,
    which names the place where the options stand."""
    if spec.options is None:
        return
    kind = registry().load(spec.options, spec.extra)
    known = [field.alias for field in attrs.fields(kind)]
    where = f"{settings.source}: [catalogs.{settings.name}]"
    unknown = sorted(set(settings.options) - set(known))
    if unknown:
        raise ConfigError(
            f"{where}: backend {spec.name!r} does not know {unknown[0]!r}",
            hint=f"options: {', '.join(known) or 'none'}",
        )
    asked = [field.alias for field in attrs.fields(kind) if field.default is attrs.NOTHING]
    missing = [name for name in asked if name not in settings.options]
    if missing:
        raise ConfigError(
            f"{where}: backend {spec.name!r} needs {' and '.join(missing)}", hint=f"options: {', '.join(known)}"
        )
    try:
        kind(**settings.options)
    except (TypeError, ValueError) as exc:
        told = exc.args[0] if exc.args else exc  # attrs puts its own records behind the text
        raise ConfigError(f"{where}: {told}") from exc
