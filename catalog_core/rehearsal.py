"""Running the live objects of a draft on its example: each method once, and the objects are as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from attrs import evolve

from catalog_core import axes, callers
from catalog_core.columns import Columns, packed
from catalog_core.errors import CatalogError, InvalidInput, SerializationError
from catalog_core.examples import Steps, by_entry
from catalog_core.interfaces.serializer import Signature, Trial
from catalog_core.names import nearest
from catalog_core.records import EntryPoint, TensorSpec, step_of
from catalog_core.session import check_entry_point, fit, running, to_numpy
from catalog_core.shown import an
from catalog_core.snapshots import Snapshots


def default_method(serializer: Any, spec: Any, obj: Any) -> str:
    """The method that a component alone means: what the serializer says of this object, else what is usual for its
    format."""
    own = getattr(serializer, "default_method", None)
    return str(own(obj)) if callable(own) else str(spec.default_method)


class LiveObjects:
    """The objects of a draft with their serializers, by component. Each method runs once for the same inputs."""

    def __init__(
        self, objects: Mapping[str, Any], serializers: Mapping[str, Any], defaults: Mapping[str, str], what_runs: bool
    ) -> None:
        self.objects, self.serializers = objects, serializers
        self._defaults = defaults  # component → the method that it means alone
        self._what_runs = what_runs  # whether there is an example
        self.snapshots = Snapshots(objects, serializers)
        self._ran: list[tuple[tuple[str, str], Mapping[str, Any], Trial]] = []
        self._found: dict[int, Signature] = {}  # by the trial's identity

    def entry_steps(self, declared: Mapping[str, str | Sequence[str]] | None) -> dict[str, Steps]:
        """Entry points by name, each step as the manifest has it: a component alone means `forward`, another default
        method is written out. One component with an example gets `predict` without being asked, or what it does in
        place of that: `transform`, of a scaler."""
        if declared is None:
            alone = next(iter(self.serializers)) if len(self.serializers) == 1 and self._what_runs else None
            own = alone is not None and hasattr(self.serializers[alone], "default_method")
            declared = {} if alone is None else {self._defaults[alone] if own else "predict": alone}
        entries: dict[str, Steps] = {}
        for name, steps in declared.items():
            listed = (steps,) if isinstance(steps, str) else tuple(steps) if isinstance(steps, Sequence) else ()
            if not listed or not all(isinstance(step, str) for step in listed):
                raise InvalidInput(
                    f"entry point {name!r} cannot be {repr(steps)[:80]}",
                    hint='"component", "component.method", or a list of these, one after the other',
                )
            for step in listed:
                if step.partition(".")[0] not in self.objects:
                    raise InvalidInput(
                        f"entry point {name!r} names component {step.partition('.')[0]!r}, which is not there",
                        hint=f"components: {', '.join(self.objects)}",
                    )
            entries[check_entry_point(name)] = tuple(
                f"{step}.{self._defaults[step]}" if self._defaults.get(step, "forward") != "forward" else step
                for step in listed
            )
        return entries

    def runs(self, steps: Steps) -> bool:
        """Whether all components of these steps can be called: files cannot."""
        return {step_of(step)[0] for step in steps} <= self.serializers.keys()

    def names(self, step: str) -> list[str]:
        """The names of a step's inputs; none where its serializer does not know them."""
        component, method = step_of(step)
        if component not in self.serializers:
            return []
        obj = self.objects[component]
        try:
            with running(component, method):
                names = list(self.serializers[component].inputs(obj, method) or ())
            if not names and not self._what_runs and not hasattr(obj, method):
                raise SerializationError(f"{an(type(obj).__name__)} has no method {method!r}")
        except SerializationError as exc:
            hint = exc.hint
            if hint is None and repr(method) in exc.message:  # it is the method that is wrong
                hint = nearest(method, [name for name in dir(type(obj)) if not name.startswith("_")])
            raise SerializationError(f"component {component!r}: {exc.message}", hint=hint) from exc
        return names

    def takes_columns(self, step: str, names: Sequence[str]) -> bool:
        """Whether a step was fitted on a data frame of these columns."""
        component, _ = step_of(step)
        if not hasattr(self.serializers.get(component), "in_order"):
            return False
        try:
            return self.serializers[component].in_order(self.objects[component], names) is not None
        except InvalidInput:
            return False

    @contextmanager
    def as_it_was(self, component: str) -> Iterator[None]:
        """Whatever runs in here, the object is after it as it was before it first ran."""
        self.snapshots.take(component)
        try:
            yield
        finally:
            self.snapshots.restore(component)

    def run(self, step: str, values: Mapping[str, Any], free: Mapping[str, Any]) -> Trial:
        """Run a step. The same step on the same arrays is not run again."""
        for known, given, trial in self._ran:
            if known == step_of(step) and given.keys() == values.keys() and all(given[n] is values[n] for n in values):
                return trial
        component, method = step_of(step)
        serializer, obj = self.serializers[component], self.objects[component]

        def call(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
            with running(component, method), self.as_it_was(component):
                outputs: Mapping[str, Any] = serializer.call(obj, method, inputs)
            return outputs

        arrays = {name: value if hasattr(value, "shape") else to_numpy(value) for name, value in values.items()}
        trial = Trial(arrays, call(values), call, axes.check_axes(free, arrays))
        self._ran.append((step_of(step), values, trial))
        return trial

    def signature(self, step: str, trial: Trial, shapes: Mapping[str, Any] | None) -> Signature:
        """What a step takes and gives. `shapes` are those that its serializer found while it saved."""
        if id(trial) not in self._found:
            self._found[id(trial)] = axes.from_shapes(trial, shapes) if shapes else self._measured(step, trial)
        return self._found[id(trial)]

    def _measured(self, step: str, trial: Trial) -> Signature:
        component, method = step_of(step)
        serializer, obj = self.serializers[component], self.objects[component]
        with running(component, method), self.as_it_was(component):
            if hasattr(serializer, "measure"):
                found: Signature = serializer.measure(obj, method, trial)
                return found
            inputs, outputs = serializer.signature(obj, method, trial.example)
        return Signature(tuple(inputs), tuple(outputs))


@attrs.define
class Rehearsal:
    """What came of running all entry points on their examples. By entry point: the `trials` of its steps, in order,
    empty where it was not run, and `own`, the inputs that no other entry point shares. `shared` are the inputs of all.
    `skipped` are components that could not be run, and why."""

    entries: Mapping[str, Steps]
    shared: dict[str, Any] = attrs.field(factory=dict)
    own: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    trials: dict[str, list[Trial]] = attrs.field(factory=dict)
    skipped: dict[str, str] = attrs.field(factory=dict)

    def arrays(self) -> dict[str, Any]:
        """The example as it is stored."""
        found = {f"input:{name}": _stored(name, value) for name, value in self.shared.items()}
        for entry, inputs in self.own.items():
            found |= {f"input@{entry}:{name}": _stored(name, value) for name, value in inputs.items()}
        for entry, trials in self.trials.items():
            for name, value in trials[-1].outputs.items() if trials else ():
                found[f"output:{entry}:{name}"] = to_numpy(value)
        return packed(found)

    def inputs(self) -> dict[str, Any]:
        """All inputs, by their names; where entry points have different ones of one name, by `entry.name`."""
        names = [name for inputs in (self.shared, *self.own.values()) for name in inputs]
        found = dict(self.shared)
        for entry, inputs in self.own.items():
            found |= {name if names.count(name) == 1 else f"{entry}.{name}": value for name, value in inputs.items()}
        return found

    def methods_of(self, component: str) -> dict[str, Trial]:
        """The methods of a component that ran, each with its first trial."""
        found: dict[str, Trial] = {}
        for entry, trials in self.trials.items():
            for step, trial in zip(self.entries[entry], trials, strict=False):
                if step_of(step)[0] == component:
                    found.setdefault(step_of(step)[1], trial)
        return found

    def points(self, objects: LiveObjects, shapes: Mapping[tuple[str, str], Any]) -> tuple[EntryPoint, ...]:
        """The entry points with what they take and give. `shapes`: component and method → what saving found."""
        return tuple(
            self._point(name, steps, objects, shapes) for name, steps in self.entries.items() if name in self.trials
        )

    def _point(
        self, name: str, steps: Steps, objects: LiveObjects, shapes: Mapping[tuple[str, str], Any]
    ) -> EntryPoint:
        trials = self.trials[name]
        if not trials:
            return EntryPoint(name, steps)
        found = [objects.signature(s, t, shapes.get(step_of(s))) for s, t in zip(steps, trials, strict=True)]
        point = EntryPoint(name, steps, found[0].inputs, found[-1].outputs)
        if len(found) > 1:
            rows = not any(at == 0 for t, part in zip(trials, found, strict=True) for _, at in axes.frozen(t, part))
            point = _over_steps(point, trials, rows=rows)
        for step, trial, part in zip(steps, trials, found, strict=True):
            self._tell(point, step, trial, part)
        return point

    @staticmethod
    def _tell(point: EntryPoint, step: str, trial: Trial, found: Signature) -> None:
        """Warn of axes that should be free and are not."""
        stuck = list(axes.frozen(trial, found))
        if not stuck:
            return
        sizes = {spec.name: list(spec.shape) for spec in found.inputs}
        if all(isinstance(size, int) for shape in sizes.values() for size in shape):
            what = "is stored for the sizes of the example only"
            shown = ", ".join(f"{name} {shape}" for name, shape in sizes.items())
        else:
            what = "takes some axes as long as in the example only"
            shown = ", ".join(f"axis {at} of {name!r}: {sizes[name][at]}" for name, at in stuck)
        by = "" if len(point.steps) == 1 else f" in {step}"
        why = f": {found.why}" if found.why else ""
        callers.warn(f"{point.name!r} {what}{by} ({shown}){why}")


def _stored(name: str, value: Any) -> Any:
    try:
        return to_numpy(value)
    except (TypeError, ValueError, RuntimeError) as exc:  # of a framework: it is sparse, quantized, or without data
        why = " ".join(str(exc).split())
        raise SerializationError(f"the example's {name!r} cannot be stored: {why}", hint="give a dense array") from exc


def _over_steps(point: EntryPoint, trials: Sequence[Trial], *, rows: bool) -> EntryPoint:
    """An entry point of several steps, each of which named its own axes: a name of the outputs is kept where the inputs
    have it too. Where a step takes one number of rows only (not `rows`), so do all."""
    names = {axis for spec in point.inputs for axis in spec.shape if isinstance(axis, str)} if rows else set()

    def of(spec: TensorSpec, array: Any) -> TensorSpec:
        other = [None if rows else size for size in array.shape]
        shape = (a if not isinstance(a, str) or a in names else o for a, o in zip(spec.shape, other, strict=True))
        return evolve(spec, shape=tuple(shape))

    return evolve(
        point,
        inputs=tuple(of(spec, trials[0].example[spec.name]) for spec in point.inputs),
        outputs=tuple(of(spec, trials[-1].outputs[spec.name]) for spec in point.outputs),
    )


def rehearse(
    entries: Mapping[str, Steps], example: Any, objects: LiveObjects, free: Mapping[str, Any], *, asked: bool
) -> Rehearsal:
    """Run each entry point once on its example. `example`: input name → array, the inputs of the first entry point by
    position, or either of these by entry point; `free`: the declared axes.

    An entry point that the example does not name gets what an earlier one gave, where it runs on that: so a
    discriminator is run on what the generator made. One that nobody `asked` for is left out if it does not run."""
    found = Rehearsal(entries)
    found.shared, found.own = by_entry(example, entries, objects.names, objects.takes_columns)
    fed = list(found.own)
    for name, steps in entries.items():
        wanted, *_ = [objects.names(step) for step in steps]
        if not (found.shared or found.own) or not objects.runs(steps):
            found.trials[name] = []
            continue
        inputs = found.own.get(name) or (found.shared if _takes(wanted, found.shared) else None)
        try:
            if inputs is None:
                raise InvalidInput(f"the example is not for {name!r}")
            found.trials[name] = _steps(name, steps, inputs, objects, free)
        except CatalogError as exc:
            derived = None if name in fed else _derived(name, steps, wanted, found, objects, free)
            if derived is not None:
                found.own[name], found.trials[name] = derived
            elif inputs is None:
                found.trials[name] = []
            elif asked or wanted:
                raise
            else:
                found.skipped[step_of(steps[0])[0]] = exc.message
                callers.warn(f"{name!r} is not stored to be run: {exc.message}")
    _check_declared(free, found, objects)
    return found


def _takes(wanted: Sequence[str], inputs: Mapping[str, Any]) -> bool:
    together = isinstance(inputs, Columns) and len(wanted) == 1
    return bool(inputs) and (not wanted or together or bool(set(wanted) & set(inputs)))


def _steps(
    name: str, steps: Steps, inputs: Mapping[str, Any], objects: LiveObjects, free: Mapping[str, Any]
) -> list[Trial]:
    trials: list[Trial] = []
    values = inputs
    for step in steps:
        values = fit(values, objects.names(step))
        trials.append(objects.run(step, values, {} if trials else axes.declared(free, name, list(values))))
        values = trials[-1].outputs
    return trials


def _derived(
    name: str, steps: Steps, wanted: Sequence[str], found: Rehearsal, objects: LiveObjects, free: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Trial]] | None:
    """Inputs that an earlier entry point gave, and on which this one runs; None where there are none."""
    for other, trials in found.trials.items():
        outputs = trials[-1].outputs if trials else {}
        if not outputs or found.entries[other] == steps or len(outputs) != (len(wanted) or 1):
            continue
        inputs = fit(outputs, wanted)
        try:
            if set(inputs) == set(wanted or inputs):
                return inputs, _steps(name, steps, inputs, objects, free)
        except CatalogError:
            continue
    return None


def _check_declared(free: Mapping[str, Any], found: Rehearsal, objects: LiveObjects) -> None:
    """Raise `InvalidInput` for declared axes of what is neither an input nor an entry point."""
    known = {name for inputs in (found.shared, *found.own.values()) for name in inputs}
    known |= {name for trials in found.trials.values() for name in (trials[0].example if trials else ())}
    for name in free:
        if name not in known and name not in found.entries:
            hint = nearest(name, known) or f"inputs: {', '.join(sorted(known)) or 'none, without an example'}"
            raise InvalidInput(f"axes tells of {name!r}, which is no input", hint=hint)
