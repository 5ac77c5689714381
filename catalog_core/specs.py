"""What a plug-in yields from a hook: small frozen records. The named factory is imported on first use."""

from __future__ import annotations

import attrs

API = 1


@attrs.frozen
class BackendSpec:
    """A backend. `schemes` are the URL schemes it opens; `factory` ("package.module:function") is called with
    `(url: str, options: dict, create: bool)` and returns a Backend, or an ObjectStore that the core wraps. `options`
    names the attrs class ("package.module:Class") that validates its table in the configuration. `extra` is the extra
    of the distribution that brings its dependencies."""

    name: str
    schemes: tuple[str, ...]
    factory: str
    options: str | None = None
    extra: str | None = None
    api: int = API


@attrs.frozen
class SerializerSpec:
    """A serializer. `handles` are top-level module names of the objects it takes (`torch`); `types` narrows them to
    names of classes, where given. `factory` is called without arguments and returns a Serializer."""

    name: str
    handles: tuple[str, ...]
    factory: str
    suffixes: tuple[str, ...] = ()
    extra: str | None = None
    api: int = API


@attrs.frozen
class RuntimeSpec:
    """A runtime. `serializers` are those whose components it runs. `factory` is called without arguments."""

    name: str
    serializers: tuple[str, ...]
    devices: tuple[str, ...]
    factory: str
    extra: str | None = None
    api: int = API


@attrs.frozen
class CommandSpec:
    """A subcommand of `catalog`: `factory` is a click command, imported when it is called."""

    name: str
    factory: str
    help: str
    extra: str | None = None
    api: int = API
