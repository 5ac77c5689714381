"""What a plug-in yields from a hook: small frozen records. The named factory is imported on first use.

In all of them `extra` is the extra of the distribution that brings what the factory needs (None: nothing more), for the
hint of `MissingPlugin`, and `api` the version of the interface that the plug-in was written for.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import attrs

API = 1


@attrs.frozen
class BackendSpec:
    """A backend. `schemes` are the URL schemes it opens; `factory` ("package.module:function") is called with
    `(url: str, options: dict, create: bool)` and returns a Backend, or an ObjectStore that the core wraps. `options`
    names the attrs class ("package.module:Class") that checks its table in the configuration.
    `local` says that a path follows `scheme://`: a relative one then starts at the working folder, or at the folder of
    the configuration file, and reaches the factory absolute. `doctor` ("package.module:function") is called with
    `(url: str, options: dict)` and yields `records.Check`s of what only this backend can tell (credentials, clock,
    bucket); what every store promises, `catalog doctor` checks by itself.
    `parts` names the options that hold names of other catalogs, one or a list. Factory and doctor then get `parts`,
    name to `interfaces.store.Place`, and the factory also stale=, whether a copy may stand in while the store is
    away.
    `store` says whether the factory makes an ObjectStore: only such a catalog can be a part of another one. `imports`
    are modules that its first call imports and that take long: whoever waits for an answer imports them before."""

    name: str
    schemes: tuple[str, ...]
    factory: str
    options: str | None = None
    extra: str | None = None
    api: int = API
    local: bool = False
    doctor: str | None = None
    parts: tuple[str, ...] = ()
    store: bool = True
    imports: tuple[str, ...] = ()


@attrs.frozen
class SerializerSpec:
    """A serializer. `handles` are top-level module names of the objects it takes (`torch`). `factory`
    ("package.module:Class") is called without arguments and returns a Serializer. `suffixes` are the ends of the file
    names that it reads where a single file is published as it is (`.safetensors`). `default_method` runs where the
    user names a component and no method, unless the serializer names another one for the object. `paths` says that it
    also takes a `Path` (a file of these suffixes, or any where the user names the serializer) as its object, to be
    checked, run and described; without it files are kept as they are."""

    name: str
    handles: tuple[str, ...]
    factory: str
    suffixes: tuple[str, ...] = ()
    extra: str | None = None
    api: int = API
    default_method: str = "forward"
    paths: bool = False


@attrs.frozen
class RuntimeSpec:
    """A runtime. It opens an artifact if `serializers` names those of all its components; where several do, the first
    that is installed runs it. `devices` are the kinds of devices it can use (`cpu`, `cuda`), for people to see.
    `factory` ("package.module:Class") is called without arguments and returns a Runtime."""

    name: str
    serializers: tuple[str, ...]
    devices: tuple[str, ...]
    factory: str
    extra: str | None = None
    api: int = API


@attrs.frozen
class FormatSpec:
    """A format in which other programs keep models. `marks` say what it looks like: one that begins with `*.` is the
    end of a file's name (`*.onnx`), one that ends with `/` is a folder's name (`*.mlpackage/`), others are patterns as
    of `pathlib.Path.glob` that match inside a folder of this format (`MLmodel`, `*/1/model.onnx`); of marks with
    spaces between them each must match. Where several formats match, the first that is installed reads it.
    `reader` ("package.module:function") is called with `(path: Path, scratch: Path, unsafe: bool)` and returns a
    `records.Foreign`: scratch is an empty folder of its own, removed after the import; unless unsafe it must not run or
    unpickle anything that it finds. `writer` is called with `(version: handles.Version, folder: Path)` and fills the
    new, empty folder. Either may be None. `packer`, where there is one, is called with `(folder: Path, file: Path)` and
    makes one file of what was written: for an export to a path that ends in `.zip`. `whole` is called with
    `(catalog: catalog.Catalog, path: Path)`: it writes the whole catalog to one file, or brings that up to date.
    `instead` is for a format that is known and not read: what it is, and what to import in its place ("a model of X:
    import Y"). Its files are kept as they are, and this is said; a format that is read comes before it."""

    name: str
    marks: tuple[str, ...] = ()
    reader: str | None = None
    writer: str | None = None
    extra: str | None = None
    api: int = API
    packer: str | None = None
    whole: str | None = None
    instead: str | None = None

    def fits(self, path: Path) -> bool:
        """Whether a file or folder looks like one of the marks."""
        folder = path.is_dir()

        def has(part: str) -> bool:
            if part.endswith("/"):
                return folder and fnmatch(path.name, part[:-1])
            if part.startswith("*."):
                return not folder and fnmatch(path.name, part)
            return folder and next(path.glob(part), None) is not None

        return any(all(has(part) for part in mark.split(" ")) for mark in self.marks)


@attrs.frozen
class CheckSpec:
    """A check of `catalog verify`, by its id. `factory` ("package.module:function") is called in verify's own process
    with `(artifact: interfaces.runtime.Artifact)`, of which nothing was loaded yet. It returns None where all is well,
    or what the result is ("passed", "warned", "failed" or "skipped") and its cause; what it raises is a failure."""

    name: str
    factory: str
    extra: str | None = None
    api: int = API


@attrs.frozen
class CommandSpec:
    """A subcommand of `catalog`. `factory` ("package.module:command") is a click command, imported when it is called;
    `help` is its line in `catalog --help`, which imports nothing."""

    name: str
    factory: str
    help: str
    extra: str | None = None
    api: int = API
