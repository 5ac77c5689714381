"""Sessions: entry points of an artifact, checked at the door and run step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import TracebackType
from typing import Any, NoReturn, Self

import attrs

from catalog_core.columns import Columns, check_unmasked, dtype_of, is_frame, spread
from catalog_core.errors import BackendError, CatalogError, InvalidInput, InvalidName, NotFound
from catalog_core.interfaces.runtime import Artifact
from catalog_core.names import check_component, nearest
from catalog_core.outputs import by_name as by_name  # serializers know them as part of this
from catalog_core.outputs import choosing, odd
from catalog_core.outputs import fields_of as fields_of
from catalog_core.records import Component, EntryPoint, Manifest, TensorSpec, step_of
from catalog_core.shown import an, clean
from catalog_core.tabular import as_html
from catalog_core.values import refuse_pickle


def to_numpy(value: Any) -> Any:
    """An array or tensor as it is stored: NumPy where NumPy has its dtype, else the tensor itself."""
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.is_conj() or value.is_neg():  # signs that torch has not written yet
            value = value.resolve_conj().resolve_neg()
        return value if "bfloat16" in str(value.dtype) or "float8" in str(value.dtype) else value.numpy()
    return np.asarray(value)


def fit(values: Mapping[str, Any], wanted: Sequence[str] | None) -> dict[str, Any]:
    """The inputs of a step: by name where names agree, else by position; all where nobody knows what it takes."""
    if not wanted or (isinstance(values, Columns) and len(wanted) == 1):
        return values if isinstance(values, Columns) else dict(values)
    named = {name: value for name, value in values.items() if name in wanted}
    return named or dict(zip(wanted, values.values(), strict=False))


@contextmanager
def running(component: str, method: str) -> Iterator[None]:
    """What the code of an object or a plug-in raises becomes `InvalidInput`, with component and method."""
    try:
        yield
    except (CatalogError, MemoryError):
        raise
    except Exception as exc:
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise InvalidInput(f"{component}.{method} cannot run on these inputs: {cause}") from exc


def check_inputs(entry: EntryPoint, inputs: Mapping[str, Any]) -> None:
    """Hold inputs against the entry point: names, dtypes, shapes. Raises `InvalidInput`: tensor, expected, got."""
    known = {spec.name: spec for spec in entry.inputs}
    for name in known.keys() - inputs.keys():
        table = len(known) > 1 and all(len(spec.shape) == 1 for spec in entry.inputs)
        way = f"; a data frame, or {name}=…" if table else ""
        raise InvalidInput(f"{entry.name} needs the input {name!r}", hint=f"inputs: {', '.join(known)}{way}")
    for name in inputs.keys() - known.keys():
        raise InvalidInput(
            f"{entry.name} has no input {name!r}", hint=nearest(name, known) or f"inputs: {', '.join(known)}"
        )
    axes: dict[str, int] = {}
    for name, spec in known.items():
        check_tensor(f"input {name!r} of {entry.name}", spec, inputs[name], axes)
        check_range(f"input {name!r} of {entry.name}", spec, inputs[name])


def check_tensor(what: str, spec: TensorSpec, value: Any, axes: dict[str, int]) -> None:
    """Hold one tensor against its specification; named free axes must agree among the tensors of a call (`axes`)."""
    strange = odd(value)
    if strange is not None:
        raise InvalidInput(f"{what} is {strange[0]}; expected an array of {_shown(spec)}", hint=strange[1])
    if not hasattr(value, "shape"):
        way = f'np.array(…, "{spec.dtype}")' if not isinstance(value, (str, bytes, type(None))) else None
        raise InvalidInput(f"{what} is {an(type(value).__name__)}; expected an array of {_shown(spec)}", hint=way)
    check_unmasked(what, value)
    dtype, shape = dtype_of(value), tuple(value.shape)
    good = dtype == spec.dtype and len(shape) == len(spec.shape)
    for size, wanted in zip(shape, spec.shape, strict=False):
        if isinstance(wanted, str):
            good = good and axes.setdefault(wanted, size) == size
        elif wanted is not None:
            good = good and size == wanted
    if not good:
        bound = "".join(f", {axis} = {size}" for axis, size in axes.items() if axis in spec.shape)
        way = f'array.astype("{spec.dtype}") if that loses nothing' if dtype != spec.dtype else None
        raise InvalidInput(f"{what}: expected {_shown(spec)}{bound}, got {dtype}{list(shape)}", hint=way)


def check_range(what: str, spec: TensorSpec, value: Any) -> None:
    """Raise `InvalidInput` for numbers outside of a range that was declared."""
    if (spec.minimum is None and spec.maximum is None) or not spec.has_order or not all(value.shape):
        return
    low, high = float(value.min()), float(value.max())
    least = "-inf" if spec.minimum is None else f"{spec.minimum:g}"
    most = "inf" if spec.maximum is None else f"{spec.maximum:g}"
    if not (low >= float(least) and high <= float(most)):
        unit = f" {spec.unit}" if spec.unit else ""
        raise InvalidInput(f"{what}: expected values from {least} to {most}{unit}, got {low:g} to {high:g}")


def _shown(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{', '.join('?' if axis is None else str(axis) for axis in spec.shape)}]"


RESERVED = ("close", "device", "entry_points", "run")  # what a session has of its own


def check_entry_point(name: object) -> str:
    """Return `name` if an entry point may be called so: it is a method of the session. Raises `InvalidName`."""
    text = check_component(name, "entry point")
    if text in RESERVED:
        raise InvalidName(
            f"an entry point cannot be called {text!r}: a session has that of its own",
            hint=f"not {', '.join(RESERVED)}; for example {text}_model",
        )
    return text


def bind(point: EntryPoint, values: Sequence[Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a call by name, as Python binds arguments: none is dropped, none is given twice. Raises
    `InvalidInput`."""
    names = [spec.name for spec in point.inputs]
    if len(values) == 1 and isinstance(values[0], Mapping) and not inputs:  # no input is one
        return {str(name): value for name, value in values[0].items()}
    if values and not names:
        raise InvalidInput(
            f"{point.name} takes its inputs by name: it was saved without an example, which would tell their order",
            hint=f"s.{point.name}(name=array), or save it with example=…",
        )
    return in_order(point.name, names, values, inputs)


def in_order(what: str, names: Sequence[str], values: Sequence[Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs by name, of those that were given by position and those that were given by name. Raises `InvalidInput`
    where there are too many, or one is given twice."""
    if len(values) > len(names):
        raise InvalidInput(
            f"{what} takes {len(names)} input{'s' * (len(names) != 1)} ({', '.join(names)}), {len(values)} were given",
            hint="arrays, in this order or by name",
        )
    named = dict(zip(names, values, strict=False))
    for name in inputs:
        if name in named:
            raise InvalidInput(f"{what} is given {name!r} twice: by position and by name")
    return named | dict(inputs)


class Session:
    """Loaded components, ready to run (interfaces.runtime.Session). Entry points are attributes; one that is called as
    something of the session's own (`run`, `close`; of an older release) is reached by `session.run(name, inputs)`."""

    def __init__(self, artifact: Artifact, device: str, options: Mapping[str, Any] | None = None) -> None:
        self._artifact = artifact
        self._options = dict(options or {})  # of loading: trust
        self._closed = False
        self.device = device
        self.entry_points = {point.name: point for point in artifact.manifest.entry_points}

    def run(self, entry: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `interfaces.runtime.Session.run`."""
        self._check_open()
        point = self.entry_points.get(entry) if isinstance(entry, str) else None
        if point is None:
            names = list(self.entry_points)
            raise NotFound(
                f"there is no entry point {entry!r}",
                hint=nearest(entry, names) or (f"it has {', '.join(names)}" if names else "none was declared"),
            )
        inputs = self._by_name(point, inputs)
        if point.inputs:
            first, _ = step_of(point.steps[0])
            inputs = spread(point, inputs, lambda names: self._artifact.in_order(first, self._object(first), names))
            check_inputs(point, inputs)
        values: Mapping[str, Any] = inputs
        with choosing(point.skipped) if point.skipped else nullcontext():
            for number, step in enumerate(point.steps):
                values = self._step(*step_of(step), values, first=number == 0)
        return values

    @staticmethod
    def _by_name(point: EntryPoint, inputs: Any) -> Mapping[str, Any]:
        names = [spec.name for spec in point.inputs]
        if is_frame(inputs):
            return {names[0] if len(names) == 1 else "": inputs}
        if not isinstance(inputs, Mapping):
            raise InvalidInput(
                f"the inputs of {point.name} are arrays by name, not {an(type(inputs).__name__)}",
                hint=f"run({point.name!r}, {{{(names or ['input'])[0]!r}: array}}), or session.{point.name}(array)",
            )
        return inputs

    def _object(self, component: str) -> Any:
        return self._artifact.component(component, None if self.device == "cpu" else self.device, **self._options)

    def _step(self, component: str, method: str, values: Mapping[str, Any], *, first: bool) -> Mapping[str, Any]:
        obj = self._object(component)
        if not first:
            values = self._artifact.fit(component, obj, method, values)
        return self._artifact.call(component, obj, method, values)

    def __getattr__(self, name: str) -> Any:
        point = self.__dict__.get("entry_points", {}).get(name)
        if point is None:
            have = list(self.__dict__.get("entry_points", {}))
            hint = nearest(name, have) or f"it has {', '.join(have) or 'none'}"
            raise AttributeError(f"this session has no entry point {name!r} ({hint})")

        def run(*values: Any, **inputs: Any) -> Any:
            outputs = self.run(name, bind(point, values, inputs))
            return next(iter(outputs.values())) if len(outputs) == 1 else outputs

        return run

    def __reduce__(self) -> NoReturn:
        refuse_pickle(self, "catalog.session(reference)")

    def _check_open(self) -> None:
        if self._closed:
            of = f" of {self._artifact.what}" if hasattr(self._artifact, "what") else ""
            raise InvalidInput(
                f"this session{of} was closed: its `with` block ended, or close() was called",
                hint="open another: catalog.session(reference)",
            )

    def __repr__(self) -> str:
        return f"<{self._title()}: {', '.join(self.entry_points) or 'nothing that runs'}>"

    def _title(self) -> str:
        closed = "closed session" if self._closed else "Session"
        return f"{closed} of {getattr(self._artifact, 'what', 'an artifact')} on {self.device}"

    def _repr_html_(self) -> str:
        rows = [
            [
                point.name,
                *("; ".join(f"{s.name}: {_shown(s)}" for s in specs) for specs in (point.inputs, point.outputs)),
            ]
            for point in self.entry_points.values()
        ]
        return as_html(
            clean(self._title()), [], ["entry point", "inputs", "outputs"], [list(map(clean, r)) for r in rows]
        )

    def close(self) -> None:
        """Release the components; a call after that raises `InvalidInput`. A second one does nothing."""
        if not self._closed:
            self._closed = True
            self._artifact.release()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Share:
    """The components of an artifact that one runtime runs; each method is an entry point."""

    def __init__(self, artifact: Artifact, components: Sequence[str]) -> None:
        self._artifact = artifact
        manifest = artifact.manifest
        steps = {step for point in manifest.entry_points for step in point.steps if step_of(step)[0] in components}
        self.manifest = attrs.evolve(
            manifest,
            components=tuple(component for component in manifest.components if component.name in components),
            entry_points=tuple(EntryPoint(".".join(step_of(step)), (step,)) for step in sorted(steps)),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._artifact, name)


class _Pipeline(Session):
    """A session whose steps run in several runtimes; arrays go from one to the other as NumPy has them."""

    def __init__(
        self, artifact: Artifact, device: str, sessions: Mapping[str, Any], options: Mapping[str, Any]
    ) -> None:
        super().__init__(artifact, device, options)
        self._sessions = sessions  # by component

    def _step(self, component: str, method: str, values: Mapping[str, Any], *, first: bool) -> Mapping[str, Any]:
        session = self._sessions[component]
        if not first:
            place = None if session.device == "cpu" else session.device
            obj = self._artifact.component(component, place, **self._options)
            plain = {name: to_numpy(value) for name, value in values.items()}
            values = self._artifact.fit(component, obj, method, plain)
        result: Mapping[str, Any] = session.run(f"{component}.{method}", values)
        return result

    def close(self) -> None:
        """Close the session of each runtime too, also where one of them fails."""
        with ExitStack() as rest:
            rest.callback(super().close)
            for session in {} if self._closed else {id(each): each for each in self._sessions.values()}.values():
                rest.callback(session.close)


class Together:
    """Several runtimes as one (interfaces.runtime.Runtime): each runs the components of its serializers, on the device
    that was asked for, or on the processor where it knows no such kind of device."""

    name = "together"

    def __init__(self, runtimes: Mapping[str, tuple[Any, Sequence[str]]]) -> None:
        self._runtimes = runtimes  # by serializer: the runtime, and the kinds of devices that it can use

    def handles(self, manifest: Manifest) -> bool:
        """Whether there is a runtime for all that its entry points use."""
        return all(component.serializer in self._runtimes for component in used(manifest))

    def open(self, artifact: Artifact, device: str, options: Mapping[str, Any]) -> Session:
        """A session over the sessions of these runtimes."""
        shares: dict[int, list[str]] = {}
        components = used(artifact.manifest)
        for component in components:
            shares.setdefault(id(self._runtimes[component.serializer][0]), []).append(component.name)
        sessions: dict[str, Any] = {}
        kinds = sorted({"cpu"}.union(*(self._runtimes[component.serializer][1] for component in components)))
        if device.partition(":")[0] not in kinds:
            raise BackendError(f"no component can be on the device {device!r}", hint=f"devices: {', '.join(kinds)}")
        with ExitStack() as opened:
            for component in components:
                runtime, devices = self._runtimes[component.serializer]
                if component.name not in sessions:
                    names = shares[id(runtime)]
                    place = device if device.partition(":")[0] in devices else "cpu"
                    session = runtime.open(_Share(artifact, names), place, options)
                    opened.callback(session.close)  # where the next runtime cannot open its own
                    sessions.update(dict.fromkeys(names, session))
            opened.pop_all()
        return _Pipeline(artifact, device, sessions, options)


def used(manifest: Manifest) -> list[Component]:
    """The components that entry points use; all where there are none."""
    names = {step_of(step)[0] for point in manifest.entry_points for step in point.steps}
    return [component for component in manifest.components if component.name in names or not names]
