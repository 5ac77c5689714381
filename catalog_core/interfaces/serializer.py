"""Serializer: a framework's object ↔ the files of one component."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import attrs

from catalog_core.records import Description, TensorSpec


class Directory(Protocol):
    """Where a serializer puts the files of a component. File names follow `names.check_file`."""

    def write(self, name: str, parts: Sequence[Any], cuts: Sequence[int] = ()) -> None:
        """Write file `name` from bytes-like `parts`, in order. `cuts` are the offsets (bytes) where chunks should
        begin, ascending; without them the content decides. The buffers are read before this returns, perhaps twice,
        and bytes that the catalog holds already are not written again."""

    def path(self, name: str, stride: int | None = None) -> Path:
        """A path to write `name` to, for libraries that need one. It is read and hashed when `save` has returned, and
        may then be gone. `stride`: a chunk begins every so many bytes; without it the content decides."""


class Reader(Protocol):
    """The files of a stored component: `files` are name → size, `meta` is what `save` returned. Every byte that comes
    out was checked against its digest, by the catalog's policy; that `meta` makes sense, the serializer checks."""

    meta: Mapping[str, Any]
    files: Mapping[str, int]

    @property
    def scattered(self) -> bool:
        """Whether the pieces of a file are files of their own, so that a view of all of it would be a copy."""

    def fetch(self, name: str) -> None:
        """Bring all of `name` near, if it is far: several pieces at a time. Without it each view fetches its own."""

    def view(self, name: str, start: int = 0, length: int | None = None, *, writable: bool = False) -> memoryview:
        """The bytes of `name` from `start`: mapped where they lie in one piece on a local disk, else assembled.
        `writable` gives a private copy-on-write mapping: changes never reach the store. What is read is held against
        the digest of its chunk, and a whole file against its own; see `hold`."""

    def hold(self, name: str) -> None:
        """Read all of `name` once, and hold it against its digest, unless this machine did before. For who reads a file
        in parts. Raises `IntegrityError`."""

    def open(self, name: str) -> BinaryIO:
        """`name` as a seekable stream."""

    def path(self, name: str) -> Path:
        """`name` as a real file, for libraries that need one, as long as the reader lives. It may be the stored file
        itself: never write to it."""


@attrs.frozen
class Trial:
    """A method that ran on an example, once: `example` and `outputs` (name → array), `run` to run it on other inputs,
    and `axes`, which the caller declares free: input → axis (from 0) → its name, or None."""

    example: Mapping[str, Any]
    outputs: Mapping[str, Any]
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    axes: Mapping[str, Mapping[int, str | None]] = attrs.field(factory=dict)


@attrs.frozen
class Signature:
    """What a method takes and gives. `why` tells what speaks against axes that should be free, and are not."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    why: str = ""


@attrs.frozen
class SaveRequest:
    """What the caller asked for beside the object: the component's name, an example (input name → array, of all methods
    together), the methods that should be callable without the class, options of the serializer, and `trials`: method →
    what it was given and what it gave. Methods of one object may take inputs of one name and different shapes: what is
    traced is traced for its own trial. Nothing but these methods needs to run."""

    component: str
    example: Mapping[str, Any] | None = None
    methods: Sequence[str] = ()
    options: Mapping[str, Any] = attrs.field(factory=dict)
    trials: Mapping[str, Trial] = attrs.field(factory=dict)


class Serializer(Protocol):
    """Raises `SerializationError` for what the format cannot hold. Never writes or reads pickle."""

    name: str
    # load_options: Sequence[str] = ()  names of options that `load` takes besides those below (may be left out)
    # save_options: Sequence[str]  names of the options that `save` takes; left out, any are let through

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Write `obj`; return what `load` will need besides the files, as JSON (kept in the manifest). In it `fixed`,
        if there, names methods that were stored for the sizes of the example only: method → why. `shapes`, if there, is
        what tracing told of a method's axes, and is taken out: method → {"inputs": name → axes, "outputs": name →
        axes, "why": what speaks against further free axes}; a free axis is None, or a name where axes are equal."""

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """The object again. `into` fills a live object strictly: names, shapes and dtypes must agree, else
        `SerializationError` and the object is unchanged. `device` is where the object shall be (`cpu`, `cuda:1`; None:
        the processor): a format that knows the processor only raises `BackendError` for another one. `options`:
        `trust` (bool) allows the recorded class to be imported, and may be ignored where the format needs none; `as_`
        ('numpy', 'torch', …) picks the kind of arrays; `copy` (bool) gives private memory. A serializer that fills by
        names takes `filling.OPTIONS` too, and gives them to `filling.fill`."""

    def describe(self, obj: Any) -> Description:
        """Framework, algorithm, hyperparameters, parameters, tensors; missing pieces are empty, never an error.

        `describe_stored(reader: Reader)` may be there too: the same of files, told without loading them. It raises
        `SerializationError` where they are not of the format."""

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run one method of a live or loaded object on named arrays, without gradients; outputs by name, as NumPy
        arrays or the framework's own (`output` where the object does not name them). Raises `SerializationError` for
        a method that is not there, `InvalidInput` for inputs that do not fit; what else comes out of the object's own
        code is turned into `InvalidInput` by the catalog."""

    def signature(
        self, obj: Any, method: str, example: Mapping[str, Any]
    ) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
        """Names, dtypes and shapes of the method's inputs and outputs, found by running it on `example`. Raises what
        `call` raises. Not asked of a serializer that has `measure`, which need not run the example again:

        `measure(obj, method, trial: Trial) -> Signature` is asked after `save`, unless that told the `shapes`.
        `axes.measured(trial, known)` does it for most, where `known` is what the object says of its axes."""

    def inputs(self, obj: Any, method: str) -> Iterable[str] | None:
        """The names of the method's inputs in order, or None where they are unknown: then the example's arrays are
        passed by their own names, and without an example the object must have an attribute `method`. Raises
        `SerializationError` for a method that is not there.

        `snapshot(obj)` may be there too: what a `snapshots.Snapshot` holds of the object before it is run. Without it
        the catalog looks into the object by itself. The object is put back after each run and after `save`.

        `in_order(obj, names)` is there where objects take data frames: the columns `names` in the order in which the
        object takes them, None where it does not know names. It raises `InvalidInput` for a missing or unknown one.

        Where the user names a component and no method, the catalog asks for `SerializerSpec.default_method`, or, where
        objects of one format differ in what they do, for what `default_method(obj)` of the serializer says."""
