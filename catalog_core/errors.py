"""Every error that the catalog raises, in one tree.

    CatalogError
    ├── InvalidInput (ValueError)      a value from outside breaks a rule
    │   ├── InvalidName, InvalidReference, InvalidQuery, InvalidDigest
    ├── NotFound (LookupError)         a model, version, alias, catalog or attachment does not exist
    ├── Conflict                       somebody changed the same thing first; holds both values
    │   └── Rejected                   the rules of the journal refuse the event
    ├── IntegrityError                 bytes are not what their digest says
    │   └── BlobMissing                bytes that should be there are gone
    ├── NotTrusted                     would run code that the artifact's author chose
    ├── SerializationError             an object cannot be written or read in a format
    ├── VerificationFailed             the checks of a draft failed
    ├── MissingPlugin                  nothing installed handles this
    ├── PluginError                    a plug-in is broken, or two claim one name
    ├── ConfigError                    the configuration cannot be used
    ├── UpgradeRequired                the catalog was written by a newer release
    ├── ReadOnly                       the catalog or its place cannot be written
    │   └── UnsafePlace                SQLite is not safe on this file system
    ├── NotReplicated                  a change is made, and not yet on every copy
    │   └── PublishedNotReplicated     so is a version
    └── BackendError                   the store failed
        ├── DeadlineExceeded, NoSpace
        └── KeyTaken, PositionTaken    an exclusive put was lost (handled by the core)

Each says what happened, why, and what to do. `reference` and `backend` name the thing where they are known.
"""

from __future__ import annotations

from typing import Any

LONGEST = 8000  # characters of a message


class CatalogError(Exception):
    """Base of all errors. `hint` is the way out, printed on a line of its own by the command line."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        reference: str | None = None,
        backend: str | None = None,
    ) -> None:
        from catalog_core import redact  # here: most programs meet no error
        from catalog_core.shown import clean_lines

        told = str(message)  # it may quote what others wrote, at any length
        if len(told) > LONGEST:
            told = f"{told[:LONGEST]} … ({len(told):,} characters)"
        self.message = clean_lines(redact.text(told))
        super().__init__(self.message)
        self.hint = hint and clean_lines(redact.text(hint))
        self.reference = reference
        self.backend = backend

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """From another process it comes back as it was: one that cannot would end a pool of processes."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[CatalogError], args: tuple[Any, ...], state: dict[str, Any]) -> CatalogError:
    made = kind.__new__(kind, *args)
    made.__dict__.update(state)
    return made


class InvalidInput(CatalogError, ValueError):
    """A value from outside breaks a rule; the message names the value and the rule."""


class InvalidName(InvalidInput):
    """A name of a model, alias, tag, component or file breaks the rules of naming."""


class InvalidReference(InvalidInput):
    """A reference cannot be parsed."""


class InvalidDigest(InvalidInput):
    """A digest is not `sha256:` and 64 hexadecimal digits."""


class InvalidQuery(InvalidInput):
    """A filter cannot be parsed. `column` counts from 1; `field` is a name that stands where a field must, and is
    none."""

    def __init__(
        self, message: str, *, column: int | None = None, hint: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.column = column
        self.field = field


class NotFound(CatalogError, LookupError):
    """What was asked for does not exist; `hint` offers the nearest names."""


class Conflict(CatalogError):
    """Somebody else changed the same thing first. `seen` is what the caller saw, `actual` what stands now."""

    def __init__(self, message: str, *, seen: Any = None, actual: Any = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.seen = seen
        self.actual = actual


class Rejected(Conflict):
    """The rules of the journal refuse an event (see `code` for the rule)."""

    def __init__(
        self, message: str, *, code: str, seen: Any = None, actual: Any = None, hint: str | None = None
    ) -> None:
        super().__init__(message, seen=seen, actual=actual, hint=hint)
        self.code = code


class IntegrityError(CatalogError):
    """Bytes are not what their digest says. The message names file, chunk and backend."""


class BlobMissing(IntegrityError):
    """A blob that an entry names is not in the store."""


class NotTrusted(CatalogError):
    """Going on would run code that the artifact's author chose; pass `trust=True` if you trust the author."""


class SerializationError(CatalogError):
    """An object cannot be written or read in this format."""


class VerificationFailed(CatalogError):
    """The checks of a draft failed. `report` holds the table."""

    def __init__(self, message: str, *, report: Any = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


class MissingPlugin(CatalogError):
    """No installed plug-in handles this; `hint` is the exact command that installs one."""


# What is installed under another name than it is imported by.
_PACKAGES = {
    "sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow", "cv2": "opencv-python", "skimage": "scikit-image",
    "google.protobuf": "protobuf", "bs4": "beautifulsoup4", "dateutil": "python-dateutil", "attr": "attrs",
    "sentence_transformers": "sentence-transformers", "pytorch_lightning": "pytorch-lightning",
}  # fmt: skip


def installs(module: str) -> str:
    """The command that installs the package of a module."""
    parts = module.split(".")
    known = (_PACKAGES.get(".".join(parts[:count])) for count in range(len(parts), 0, -1))
    return f"pip install {next(filter(None, known), parts[0])}"


class PluginError(CatalogError):
    """A plug-in cannot be used: it fails to import, has an unknown API, or its name is taken twice."""


class ConfigError(CatalogError):
    """The configuration cannot be used; the message names file and key."""


class UpgradeRequired(CatalogError):
    """The catalog holds something that only a newer release understands."""


class ReadOnly(CatalogError):
    """The catalog cannot be written here."""


class UnsafePlace(ReadOnly):
    """SQLite would be written on a network or FUSE file system, where it loses data."""


class NotReplicated(CatalogError):
    """The change stands in the primary, and is not on every replica yet. Do not repeat it: `sync` completes it.
    `position` is that of its entry, where it is known."""

    position: int = -1


class PublishedNotReplicated(NotReplicated):
    """`version` is published, and not on every replica yet. Do not save it again: `catalog.sync()`, or `save()` of the
    same draft, completes it. In another process `version` is None, and `reference` names it."""

    def __init__(self, message: str, *, version: Any, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, reference=version.ref)
        self.version = version

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, {**self.__dict__, "version": None})  # a handle stays in its process


class BackendError(CatalogError):
    """The store behind the catalog failed; the vendor's error is chained."""


class DeadlineExceeded(BackendError):
    """An operation did not finish before its deadline."""


class NoSpace(BackendError):
    """The store is full, or over quota. Nothing was published."""


class KeyTaken(BackendError):
    """An `exclusive` put found its key taken."""


class PositionTaken(BackendError):
    """Another writer won this position of the journal."""
