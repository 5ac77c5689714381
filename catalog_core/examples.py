"""Examples: what each entry point of a draft is run on, what it gives, and how that is stored.

Stored are arrays by key: `input:NAME` for what all entry points share, `input@ENTRY:NAME` for what one entry point got
alone, and `output:ENTRY:NAME`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from attrs import evolve

from catalog_core import axes
from catalog_core.errors import CatalogError, InvalidInput, SerializationError
from catalog_core.interfaces.serializer import Signature, Trial
from catalog_core.names import check_component, nearest
from catalog_core.records import EntryPoint, TensorSpec, step_of
from catalog_core.session import fit, running, to_numpy
from catalog_core.snapshots import Snapshots

Steps = tuple[str, ...]


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
        method is written out. One component with an example gets `predict` without being asked."""
        if declared is None:
            declared = (
                {"predict": next(iter(self.serializers))} if len(self.serializers) == 1 and self._what_runs else {}
            )
        entries: dict[str, Steps] = {}
        for name, steps in declared.items():
            listed = (steps,) if isinstance(steps, str) else tuple(steps)
            for step in listed:
                if step.partition(".")[0] not in self.objects:
                    raise InvalidInput(
                        f"entry point {name!r} names component {step.partition('.')[0]!r}, which is not there",
                        hint=f"components: {', '.join(self.objects)}",
                    )
            entries[check_component(name)] = tuple(
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
                raise SerializationError(f"a {type(obj).__name__} has no method {method!r}")
        except SerializationError as exc:
            hint = exc.hint or nearest(method, [name for name in dir(type(obj)) if not name.startswith("_")])
            raise SerializationError(f"component {component!r}: {exc.message}", hint=hint) from exc
        return names

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
        found = {f"input:{name}": to_numpy(value) for name, value in self.shared.items()}
        for entry, inputs in self.own.items():
            found |= {f"input@{entry}:{name}": to_numpy(value) for name, value in inputs.items()}
        for entry, trials in self.trials.items():
            for name, value in trials[-1].outputs.items() if trials else ():
                found[f"output:{entry}:{name}"] = to_numpy(value)
        return found

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
        warnings.warn(f"{point.name!r} {what}{by} ({shown}){why}", stacklevel=8)


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
    found.shared, found.own = _by_entry(example, entries, objects)
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
                warnings.warn(f"{name!r} is not stored to be run: {exc.message}", stacklevel=6)
    _check_declared(free, found, objects)
    return found


def _takes(wanted: Sequence[str], inputs: Mapping[str, Any]) -> bool:
    return bool(inputs) and (not wanted or bool(set(wanted) & set(inputs)))


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


def _by_entry(
    example: Any, entries: Mapping[str, Steps], objects: LiveObjects
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The inputs that all entry points share, and those of one alone."""
    if example is None:
        return {}, {}
    if isinstance(example, Mapping) and _names_entries(example, entries, objects):
        own = {}
        for name, given in example.items():
            if name not in entries:
                hint = nearest(str(name), entries) or f"entry points: {', '.join(entries)}"
                raise InvalidInput(f"the example is by entry point, and {name!r} is none", hint=hint)
            own[name] = _named(given, {name: entries[name]}, objects)
        return {}, own
    return _named(example, entries, objects), {}


def _names_entries(example: Mapping[Any, Any], entries: Mapping[str, Steps], objects: LiveObjects) -> bool:
    """Whether an example is by entry point: one of its values is a mapping, or its keys are entry points and no
    inputs."""
    if not any(name in entries for name in example):
        return False
    if any(isinstance(given, (Mapping, tuple)) for name, given in example.items() if name in entries):
        return True
    if not set(example) <= set(entries):
        return False
    taken = [objects.names(entries[name][0]) for name in example]
    return all(names and not set(names) & set(example) for names in taken)


def _named(example: Any, entries: Mapping[str, Steps], objects: LiveObjects) -> dict[str, Any]:
    """The arrays of an example by name; those by position under the names of the first entry point's inputs."""
    if isinstance(example, Mapping):
        named = _arrays({str(key): value for key, value in example.items()})
        _check_names(named, entries, objects)
        return named
    several = isinstance(example, tuple) or (isinstance(example, list) and any(hasattr(v, "shape") for v in example))
    values = list(example) if several else [example]
    names = objects.names(next(iter(entries.values()))[0]) if entries else []
    if names and len(names) < len(values):
        raise InvalidInput(
            f"the example has {len(values)} arrays, and {next(iter(entries))!r} takes {', '.join(names)}"
        )
    if not names:
        names = ["input"] if len(values) == 1 else [f"input_{number}" for number in range(len(values))]
    return _arrays(dict(zip(names, values, strict=False)))


def _check_names(named: Mapping[str, Any], entries: Mapping[str, Steps], objects: LiveObjects) -> None:
    wanted = {name: objects.names(steps[0]) for name, steps in entries.items()}
    if wanted and not any(set(names or named) & set(named) for names in wanted.values()):
        takes = "; ".join(f"{name!r} takes {', '.join(names)}" for name, names in wanted.items())
        raise InvalidInput(
            f"the example names {', '.join(named)}; {takes}",
            hint="name the example's arrays as the method's parameters",
        )


def _arrays(example: dict[str, Any]) -> dict[str, Any]:
    """The example, each of whose values is one array, or numbers that make one. Raises `InvalidInput`."""
    for name, value in example.items():
        parts = isinstance(value, (tuple, list)) and any(hasattr(part, "shape") for part in value)
        if value is None or parts or isinstance(value, (Mapping, str, bytes)):
            kind = type(value).__name__
            raise InvalidInput(
                f"the example's {name!r} is a {kind}{' of arrays' if parts else ''}, not an array",
                hint="the inputs of an entry point are arrays, each with a name of its own; networks whose inputs have "
                'one name take example={"entry point": {"input": array}, …}',
            )
    return example


def read(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """A stored example: the inputs that entry points share, those of one alone, and the outputs by entry point."""
    shared: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    outputs: dict[str, dict[str, Any]] = {}
    for key, array in arrays.items():
        kind, _, rest = key.partition(":")
        if kind == "input":
            shared[rest] = array
        elif kind.startswith("input@"):
            own.setdefault(kind.removeprefix("input@"), {})[rest] = array
        else:
            entry, _, name = rest.partition(":")
            outputs.setdefault(entry, {})[name] = array
    return shared, own, outputs


def inputs_of(point: EntryPoint, shared: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The stored inputs of one entry point; empty where the example is not for it."""
    given = own.get(point.name, shared)
    wanted = [spec.name for spec in point.inputs]
    return {name: given[name] for name in wanted} if wanted and set(wanted) <= set(given) else {}


def by_dots(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by input, or by entry point and input, as `input` and `entry.input`."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        found |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, Mapping) else {name: value}
    return found


def specs_by_name(points: Sequence[EntryPoint]) -> Iterator[tuple[str, TensorSpec]]:
    """Every input and output under its name, and under `entry.name`."""
    for point in points:
        for spec in (*point.inputs, *point.outputs):
            yield spec.name, spec
            yield f"{point.name}.{spec.name}", spec
