"""Configuration: catalogs by name, from TOML and the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from catalog_core import folders, platform, redact
from catalog_core.cache import parse_size
from catalog_core.errors import ConfigError, InvalidInput, InvalidName, NotFound
from catalog_core.names import check_catalog, nearest
from catalog_core.plugins import registry
from catalog_core.shown import an

MAX_FILE = 1 << 20  # bytes of a configuration
GENERAL = ("max_staleness", "bandwidth", "stale")
SECRETS = frozenset(
    [
        "password",
        "passwd",
        "passphrase",
        "token",
        "secret",
        "key",
        "apikey",
        "credential",
        "passwords",
        "tokens",
        "secrets",
        "keys",
        "credentials",
    ]
)


@attrs.frozen
class Target:
    """A catalog to open: its name, URL, and the options of its backend; `source` says where that stands. The rest holds
    for every backend: `max_staleness` (seconds) and `stale`, see `Catalog.open`, and `bandwidth` (bytes per second, of
    all transfers of a process together); None where nothing is said."""

    name: str
    url: str = attrs.field(repr=redact.text)
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=lambda given: repr(redact.tree(given)))
    source: str = "given"
    max_staleness: float | None = None
    bandwidth: int | None = None
    stale: bool = False


@attrs.frozen
class Settings:
    """What the files say: the default's name, and the catalogs by name."""

    default: str | None
    catalogs: Mapping[str, Target]
    files: tuple[str, ...]


def _read(path: Path, *, project: bool) -> tuple[str | None, dict[str, Target]]:
    import tomllib

    try:
        data = tomllib.loads(folders.content(path, MAX_FILE, "the configuration").decode("utf-8"))
    except InvalidInput as exc:
        raise ConfigError(exc.message, hint=exc.hint or "$CATALOG_CONFIG names a file") from exc
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc
    unknown = set(data) - {"default", "catalogs"}
    if unknown:
        raise ConfigError(f"{path}: unknown key {sorted(unknown)[0]!r}", hint="known keys: default, catalogs")
    catalogs = {}
    tables = data.get("catalogs", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{path}: catalogs must be tables", hint='[catalogs.name] and url = "…" below it')
    for name, table in tables.items():
        try:
            check_catalog(name)
        except InvalidName as exc:
            raise ConfigError(f"{path}: {exc.message}", hint=exc.hint) from exc
        if not isinstance(table, dict) or not isinstance(_url(name, table), str):
            raise ConfigError(f'{path}: [catalogs.{name}] needs url = "…"')
        options = {key: value for key, value in table.items() if key not in ("url", "backend", *GENERAL)}
        for key in options:
            if _secret(key) or (project and key in ("trust", "signers")):
                raise ConfigError(
                    f"{path}: [catalogs.{name}] may not set {key!r}", hint="secrets stay out of this file"
                )
        url = _absolute(_url(name, table), path.parent, path)
        catalogs[name] = Target(name, url, options, str(path), **_general(table, f"{path}: [catalogs.{name}]"))
    default = data.get("default")
    if default is not None and not isinstance(default, str):
        raise ConfigError(f"{path}: default must be the name of a catalog")
    if default is not None and ("://" in default or default.startswith((".", "/", "~"))):
        default = _absolute(default, path.parent, path)
    return default, catalogs


def _url(name: str, table: Mapping[str, Any]) -> Any:
    """The URL of a table: given, or made of its backend and the catalogs that it names as its parts."""
    backend = table.get("backend")
    if "url" in table or not isinstance(backend, str):
        return table.get("url")
    spec = registry().backends.get(backend)
    if spec is None or not spec.parts:
        return None
    values = [table.get(option, ()) for option in spec.parts]
    names = [part for value in values for part in ([value] if isinstance(value, str) else value)]
    return f"{backend}://{name}/{'+'.join(map(str, names))}"


def _general(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What every backend's table may hold."""
    stale, bandwidth = table.get("max_staleness"), table.get("bandwidth")
    if stale is not None and (type(stale) not in (int, float) or not 0 <= stale < 1e9):
        raise ConfigError(f"{where}: max_staleness is {stale!r}", hint="seconds, like 2 or 0.5")
    if bandwidth is not None:
        if type(bandwidth) not in (int, str):
            raise ConfigError(f"{where}: bandwidth is {bandwidth!r}", hint='bytes per second, like "20MB"')
        bandwidth = parse_size(str(bandwidth), f"{where}: bandwidth")
        if bandwidth < 1:
            raise ConfigError(f"{where}: bandwidth is {bandwidth}", hint='bytes per second, like "20MB"')
    reads = table.get("stale", False)
    if type(reads) is not bool:
        raise ConfigError(f"{where}: stale is {reads!r}", hint="true or false")
    return {"max_staleness": stale, "bandwidth": bandwidth, "stale": reads}


def _secret(key: str) -> bool:
    """Whether a key names a secret: its last word does (`api_key`, `authToken`), `keyring` and `key_file` do not."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower())
    return bool(words) and words[-1] in SECRETS


def _absolute(url: str, folder: Path, source: Path | None = None) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark and (hint := _slashes(url)):
        raise ConfigError(f"{source}: {url!r} is neither a URL nor a folder", hint=hint)
    if not mark:
        return folder_url(folder / Path(url).expanduser())
    if not rest.startswith("/") and any(s.local and scheme in s.schemes for s in registry().backends.values()):
        return f"{scheme}://{(folder / rest).resolve()}"
    return url


def _slashes(text: str) -> str | None:
    """A hint for `scheme:path`, which is no URL of ours. (One letter and a colon is a drive.)"""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(?!//)(.*)", text)
    return f"a URL is {match[1]}://{match[2]}, a folder ./{text}" if match else None


def settings() -> Settings:
    """The merged configuration: $CATALOG_CONFIG alone, or ./catalog.toml over the user's."""
    given = os.environ.get("CATALOG_CONFIG")
    paths = [Path(given)] if given else [platform.config_dir() / "catalog.toml", Path("catalog.toml")]
    default: str | None = None
    catalogs: dict[str, Target] = {}
    files = []
    for path in paths:
        if path.exists() or given:
            found, tables = _read(path.absolute(), project=path.name == str(path))
            default = found or default
            catalogs.update(tables)
            files.append(str(path.absolute()))
    return Settings(default, catalogs, tuple(files))


def folder_url(path: Path) -> str:
    """The URL of a folder: what is there decides, a new one becomes SQLite."""
    folder = path.expanduser().resolve()
    scheme = "file" if (folder / "journal").is_dir() and not (folder / "catalog.db").exists() else "sqlite"
    return f"{scheme}://{folder}"


def resolve(target: str | os.PathLike[str] | None) -> Target:
    """What to open: nothing (the default), a configured name, a URL, or a folder. Raises `NotFound`, `ConfigError`."""
    if target is None:
        target = os.environ.get("CATALOG") or None
    if target is None:
        known = settings()
        if known.default is not None:
            return resolve(known.default)
        return Target("local", folder_url(platform.data_dir() / "default"), source="built in")
    if not isinstance(target, (str, os.PathLike)):
        raise InvalidInput(f"a catalog is opened by its name, URL or folder, not by {an(type(target).__name__)}")
    text = os.fspath(target)
    if "://" in text:
        scheme, _, rest = text.partition("://")
        name = Path(rest).name or scheme
        return Target(name, _absolute(text, Path.cwd()))
    if isinstance(target, os.PathLike) or text.startswith((".", "/", "~")) or os.path.isabs(text):
        path = Path(text)
        return Target(path.resolve().name, folder_url(path))
    known = settings()
    if text in known.catalogs:
        return known.catalogs[text]
    if text == "local":
        return Target("local", folder_url(platform.data_dir() / "default"), source="built in")
    names = ["local", *known.catalogs]
    raise NotFound(
        f"no catalog is called {text!r}",
        hint=_slashes(text) or nearest(text, names) or f"known: {', '.join(names)}; a folder is written ./{text}",
    )
