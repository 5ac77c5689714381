"""Names and references: what may be called what, and how a version is pointed at.

A reference is `[catalog:]name[@N | @alias | @sha256:hex≥12][#component]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from catalog_core.errors import InvalidName, InvalidReference

MAX_NAME = 200
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_DEVICES = frozenset(["con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))])
_CATALOG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+\Z")
_HEX = re.compile(r"sha256:[0-9a-f]{12,64}\Z")


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else shown[:76] + "…'"


_NOT_IN_FILES = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, halves of surrogate pairs


def _check_segment(segment: str, whole: str, kind: str) -> None:
    if not _SEGMENT.match(segment):
        rule = "each part begins with a letter or digit and holds only A-Z a-z 0-9 . _ -"
        hint = None if whole.isascii() else "other scripts go into title="
        raise InvalidName(f"{kind} {_shown(whole)} is not allowed: {rule}", hint=hint)
    if segment.endswith("."):
        raise InvalidName(f"{kind} {_shown(whole)} is not allowed: no part may end with a dot")
    if segment.split(".")[0].lower() in _DEVICES:
        raise InvalidName(f"{kind} {_shown(whole)} is not allowed: {segment!r} is a device name on Windows")


def check_name(name: object, kind: str = "model name") -> str:
    """Return `name` if it may name a model: segments joined by `/`, 200 characters at most. Raises `InvalidName`."""
    if not isinstance(name, str) or not name:
        raise InvalidName(f"{kind} must be text with at least one character, not {_shown(name)}")
    if len(name) > MAX_NAME:
        raise InvalidName(f"{kind} {_shown(name)} has {len(name)} characters; {MAX_NAME} are allowed")
    if kind == "model name" and (told := _version_of(name)) is not None:
        raise InvalidName(f"{_shown(name)} names a version, and a model is meant here", hint=f"its name alone: {told}")
    for segment in name.split("/"):
        _check_segment(segment, name, kind)
    return name


def _version_of(text: str) -> str | None:
    """The name of the model of a reference to a version; None of what is no such reference."""
    name, at, selector = text.partition("@")
    if not at or not selector:
        return None
    return name if all(_SEGMENT.match(segment) for segment in name.split("/")) else None


def check_component(name: object, what: str = "component name") -> str:
    """Return `name` if it may name a component, or `what` else is one segment of a model name."""
    check_name(name, what)
    if "/" in str(name):
        raise InvalidName(f"{what} {_shown(name)} may not contain '/'")
    return str(name)


def check_file(name: object) -> str:
    """Return `name` if it may name a file of an artifact: a relative path in the alphabet of names (dots may lead)."""
    if not isinstance(name, str) or not 0 < len(name) <= 1000:
        raise InvalidName(f"file name {_shown(name)} must be text of 1 to 1,000 characters")
    for segment in name.split("/"):
        if segment in ("", ".", "..") or "\\" in segment or ":" in segment or _NOT_IN_FILES.search(segment):
            raise InvalidName(
                f"file name {_shown(name)} is not allowed: "
                "a relative path in Unicode without empty parts, '..', ':' or control characters"
            )
        if segment.split(".")[0].lower() in _DEVICES or segment[-1] in ". ":
            raise InvalidName(f"file name {_shown(name)} is not allowed: {segment!r} cannot be stored on Windows")
    return name


def check_together(names: Iterable[str], kind: str = "file", *, everywhere: bool = True) -> None:
    """Raise `InvalidName` where two of `names` cannot lie in one folder: one would be a file, and the folder of the
    other. With `everywhere`, also where some systems take two for one, and lose the first in silence: those that
    differ by case, or by the form of their accents (macOS, Windows), and names that Windows takes for devices."""
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        key = _as_one(name) if everywhere else name
        if everywhere and any(segment.split(".")[0] in _MORE_DEVICES for segment in key.split("/")):
            raise InvalidName(f"{kind} name {_shown(name)} is not allowed: it is a device name on Windows")
        if key in seen:
            raise InvalidName(
                f"the {kind} names {_shown(seen[key])} and {_shown(name)} cannot lie in one folder: where case and the "
                "form of accents do not count (macOS, Windows), they are one name",
                hint="rename one of them",
            )
        seen[key] = name
        for at in (at for at, char in enumerate(key) if char == "/"):
            folders.setdefault(key[:at], name)
    for key in sorted(folders.keys() & seen.keys()):
        raise InvalidName(
            f"the {kind} names {_shown(seen[key])} and {_shown(folders[key])} cannot lie in one folder: the first "
            "would be a file and a folder",
            hint="rename one of them",
        )


_MORE_DEVICES = frozenset(["conin$", "conout$", *(f"{port}{n}" for port in ("com", "lpt") for n in "¹²³")])


def _as_one(name: str) -> str:
    """What two names have in common that some file system takes for one."""
    if name.isascii():
        return name.lower()
    from unicodedata import normalize

    return normalize("NFC", normalize("NFD", name).casefold())


def check_alias(alias: object) -> str:
    """Return `alias` if it may name a version: one segment, not all digits, not `latest`. Raises `InvalidName`."""
    check_name(alias, "alias")
    text = str(alias)
    if "/" in text:
        raise InvalidName(f"alias {_shown(text)} may not contain '/'")
    if text.isdigit() or text.lower() == "latest" or text.startswith("sha256"):
        raise InvalidName(
            f"alias {_shown(text)} is not allowed: all digits, 'latest' and 'sha256…' mean something else already"
        )
    return text


def check_catalog(name: object) -> str:
    """Return `name` if it may name a catalog: two or more characters of one segment. Raises `InvalidName`."""
    if not isinstance(name, str) or not _CATALOG.match(name):
        raise InvalidName(f"catalog name {_shown(name)} is not allowed: two or more of A-Z a-z 0-9 . _ -")
    return name


def check_key(key: object, kind: str = "tag") -> str:
    """Return `key` if it may name a tag, metric or parameter: 1 to 200 printable characters. Raises `InvalidName`."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_NAME or not key.isprintable() or key != key.strip():
        raise InvalidName(
            f"{kind} key {_shown(key)} is not allowed: 1 to {MAX_NAME} printable characters, no blanks at the ends"
        )
    return key


def nearest(wanted: object, names: Iterable[str], count: int = 3) -> str | None:
    """A hint that offers the names closest to `wanted`, or None."""
    import difflib

    lower = {name.lower(): name for name in names}
    close = [lower[found] for found in difflib.get_close_matches(str(wanted).lower(), list(lower), n=count, cutoff=0.5)]
    return f"did you mean {', '.join(close)}?" if close else None


@attrs.frozen
class Reference:
    """A parsed reference. At most one of `number`, `alias`, `digest` is set; none means the newest version."""

    name: str
    number: int | None = None
    alias: str | None = None
    digest: str | None = None
    catalog: str | None = None
    component: str | None = None

    @property
    def selector(self) -> str | int | None:
        """What stands behind the `@`: digest, alias or number; None where nothing does."""
        return self.digest or self.alias or self.number

    def without_component(self) -> Reference:
        """The whole version that it points at."""
        return attrs.evolve(self, component=None)

    def __str__(self) -> str:
        text = f"{self.catalog}:{self.name}" if self.catalog else self.name
        if self.selector is not None:
            text += f"@{self.selector}"
        return f"{text}#{self.component}" if self.component else text


_ELSEWHERE = re.compile(r"(models|runs|hf|mlflow-artifacts|wandb(-artifact)?|dvc):/", re.IGNORECASE)
_COUNTED = re.compile(r"[vV]?([0-9]{1,15})(\.0)?\Z")  # how others write the number of a version


def numbered(text: str) -> int | None:
    """The number of a version that other registries write as `v3` or `3.0`; None for another text. Versions count
    from 1 here: the first of those that count from 0 is 1 too."""
    found = _COUNTED.match(text)
    return max(int(found[1]), 1) if found else None


def _told_by_colon(name: str, rest: str) -> str | None:
    """What `name:rest` means where the colon stands before a version, as in other registries; None where `name` may be
    a catalog and `rest` a model of it."""
    number = numbered(rest)
    if number is not None:
        return f"{name}@{number}"
    if rest == "latest":
        return name
    return f"{name}@{rest}" if not _CATALOG.match(name) and "/" not in rest else None


def _elsewhere(text: str) -> InvalidReference:
    """The error for an address of another registry, or of a catalog: it says what is written here instead."""
    scheme, _, rest = text.partition(":")
    scheme, rest = scheme.lower(), rest.lstrip("/")
    said = f"reference {_shown(text)} is "
    if scheme == "models":
        name, at, end = rest.partition("@")
        if not at:
            name, _, end = rest.partition("/") if rest.count("/") < 2 else rest.rpartition("/")
        if not at and end.lower() in ("production", "staging", "archived", "none"):
            stage = {"staging": "validated", "none": "registered"}.get(end.lower(), end.lower())
            hint = f"a stage names no version; these are in it: catalog search 'name = {name} and stage = {stage}'"
            return InvalidReference(f"{said}a stage of MLflow", hint=hint)
        number = numbered(end)
        spelt = name if end in ("", "latest") else f"{name}@{end if number is None else number}"
        return InvalidReference(f"{said}MLflow's form", hint=f"did you mean {spelt}?")
    if scheme in ("runs", "mlflow-artifacts"):
        return InvalidReference(
            f"{said}a place in a tracking server of MLflow",
            hint="catalog import FOLDER NAME publishes what MLflow wrote there; then it is NAME@N",
        )
    hub = re.match(r"(?:hf:/+|https?://(?:www\.)?huggingface\.co/)([^/@]+/[^/@]+)", text, re.IGNORECASE)
    if hub:
        return InvalidReference(
            f"{said}a repository of the Hugging Face Hub",
            hint=f"fetch its folder, then: catalog import FOLDER {hub[1]}; then it is {hub[1]}@N",
        )
    if "://" in text and not scheme.startswith("wandb"):
        return InvalidReference(
            f"reference {_shown(text)} contains a URL",
            hint="open the catalog first: Catalog.open(url), then name@version",
        )
    return InvalidReference(
        f"{said}an address of another registry",
        hint="fetch its folder, then: catalog import FOLDER NAME; then it is NAME@N",
    )


def parse_reference(text: object) -> Reference:
    """Parse `[catalog:]name[@N | @alias | @sha256:hex≥12][#component]`. Raises `InvalidReference` or `InvalidName`."""
    if isinstance(text, Reference):
        return text
    if not isinstance(text, str) or not text:
        raise InvalidReference(f"a reference is text like 'calo/3dgan@7', not {_shown(text)}")
    if _ELSEWHERE.match(text) or "://" in text:
        raise _elsewhere(text)
    body, hash_, component = text.partition("#")
    if hash_:
        check_component(component)
    body, at, selector = body.partition("@")
    catalog: str | None = None
    if ":" in body:
        catalog, _, body = body.partition(":")
        told = _told_by_colon(catalog, body)
        if told is not None:
            raise InvalidReference(f"reference {_shown(text)} uses ':' for a version", hint=f"did you mean {told}?")
        check_catalog(catalog)
    check_name(body)
    whole = Reference(body, catalog=catalog, component=component or None)
    if not at:
        return whole
    if selector.isascii() and selector.isdigit():
        number = int(selector) if len(selector) < 16 else 0
        if number < 1:
            raise InvalidReference(f"reference {_shown(text)}: versions count from 1")
        return attrs.evolve(whole, number=number)
    if selector.startswith("sha256:"):
        if not _HEX.match(selector):
            raise InvalidReference(f"reference {_shown(text)}: a digest needs 12 to 64 lower-case hexadecimal digits")
        return attrs.evolve(whole, digest=selector)
    if selector.lower() == "latest":
        raise InvalidReference(
            f"reference {_shown(text)}: there is no 'latest'", hint=f"a bare {body!r} is the newest version"
        )
    return attrs.evolve(whole, alias=check_alias(selector))
