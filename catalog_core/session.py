"""Sessions: entry points of an artifact, checked at the door and run step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from catalog_core.errors import CatalogError, InvalidInput, NotFound
from catalog_core.interfaces.runtime import Artifact
from catalog_core.names import nearest
from catalog_core.records import EntryPoint, TensorSpec, step_of


def to_numpy(value: Any) -> Any:
    """An array or tensor as it is stored: NumPy where NumPy has its dtype, else the tensor itself."""
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return value if "bfloat16" in str(value.dtype) or "float8" in str(value.dtype) else value.numpy()
    return np.asarray(value)


def fit(values: Mapping[str, Any], wanted: Sequence[str] | None) -> dict[str, Any]:
    """The inputs of a step: by name where names agree, else by position; all where nobody knows what it takes."""
    if not wanted:
        return dict(values)
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
        raise InvalidInput(f"{entry.name} needs the input {name!r}", hint=f"inputs: {', '.join(known)}")
    for name in inputs.keys() - known.keys():
        raise InvalidInput(
            f"{entry.name} has no input {name!r}", hint=nearest(name, known) or f"inputs: {', '.join(known)}"
        )
    axes: dict[str, int] = {}
    for name, spec in known.items():
        check_tensor(f"input {name!r} of {entry.name}", spec, inputs[name], axes)


def check_tensor(what: str, spec: TensorSpec, value: Any, axes: dict[str, int]) -> None:
    """Hold one tensor against its specification; named free axes must agree among the tensors of a call (`axes`)."""
    if not hasattr(value, "shape"):
        raise InvalidInput(f"{what} is a {type(value).__name__}; expected an array of {_shown(spec)}")
    dtype, shape = str(value.dtype).removeprefix("torch."), tuple(value.shape)
    good = dtype == spec.dtype and len(shape) == len(spec.shape)
    for size, wanted in zip(shape, spec.shape, strict=False):
        if isinstance(wanted, str):
            good = good and axes.setdefault(wanted, size) == size
        elif wanted is not None:
            good = good and size == wanted
    if not good:
        bound = "".join(f", {axis} = {size}" for axis, size in axes.items() if axis in spec.shape)
        raise InvalidInput(f"{what}: expected {_shown(spec)}{bound}, got {dtype}{list(shape)}")


def signature_of(
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]], example: Mapping[str, Any]
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Names, dtypes and shapes of NumPy arrays in and out, found by running. The first axis is free where all inputs
    share it and twice as many rows give twice as many."""
    import numpy as np

    arrays = {name: np.asarray(value) for name, value in example.items()}
    outputs = {name: np.asarray(value) for name, value in run(arrays).items()}
    sizes = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    rows = sizes.pop() if len(sizes) == 1 else 0
    twice: dict[str, Any] = {}
    if rows:
        try:
            doubled = run({name: np.concatenate([array, array]) for name, array in arrays.items()})
            twice.update((name, np.shape(value)) for name, value in doubled.items())
        except Exception:  # it takes this many rows only
            pass

    def spec(name: str, array: Any, free: bool) -> TensorSpec:
        return TensorSpec(name, array.dtype.name, ("batch", *array.shape[1:]) if free else array.shape)

    return (
        [spec(name, array, bool(twice)) for name, array in arrays.items()],
        [
            spec(name, array, bool(array.ndim) and twice.get(name) == (2 * array.shape[0], *array.shape[1:]))
            for name, array in outputs.items()
        ],
    )


def _shown(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{', '.join('?' if axis is None else str(axis) for axis in spec.shape)}]"


class Session:
    """Loaded components, ready to run (interfaces.runtime.Session). Entry points are attributes."""

    def __init__(self, artifact: Artifact, device: str, options: Mapping[str, Any] | None = None) -> None:
        self._artifact = artifact
        self._options = dict(options or {})  # of loading: trust
        self.device = device
        self.entry_points = {point.name: point for point in artifact.manifest.entry_points}

    def run(self, entry: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `interfaces.runtime.Session.run`."""
        point = self.entry_points.get(entry)
        if point is None:
            names = list(self.entry_points)
            raise NotFound(
                f"there is no entry point {entry!r}",
                hint=nearest(entry, names) or (f"it has {', '.join(names)}" if names else "none was declared"),
            )
        if point.inputs:
            check_inputs(point, inputs)
        values: Mapping[str, Any] = inputs
        for number, step in enumerate(point.steps):
            component, method = step_of(step)
            obj = self._artifact.component(component, None if self.device == "cpu" else self.device, **self._options)
            if number:
                values = self._artifact.fit(component, obj, method, values)
            values = self._artifact.call(component, obj, method, values)
        return values

    def __getattr__(self, name: str) -> Any:
        point = self.__dict__.get("entry_points", {}).get(name)
        if point is None:
            raise AttributeError(f"this session has no entry point {name!r}")

        def run(*values: Any, **inputs: Any) -> Any:
            named = dict(zip([spec.name for spec in point.inputs], values, strict=False)) | inputs
            outputs = self.run(name, named)
            return next(iter(outputs.values())) if len(outputs) == 1 else outputs

        return run

    def close(self) -> None:
        """Release the components."""
        self._artifact.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
