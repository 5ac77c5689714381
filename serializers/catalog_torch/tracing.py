"""Tracing a method with `torch.export`, every axis free that the method leaves free."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import tree_unflatten

from catalog_core.axes import BATCH, Axis, resized, shared_rows
from catalog_core.errors import InvalidInput, SerializationError
from catalog_core.outputs import by_name
from catalog_torch import exported
from catalog_torch.snapshot import snapshot

Shape = tuple[Any, ...]  # of integers and torch's symbolic ones
Declared = Mapping[str, Mapping[int, str | None]]


@attrs.frozen
class Traced:
    """A program, what `keep` made of it, and what tracing told of its axes: `shapes` as
    `interfaces.serializer.Serializer.save` returns them. `fixed` says why the rows are not free ("" where they are, or
    where the inputs share none)."""

    program: torch.export.ExportedProgram
    kept: Any
    shapes: dict[str, Any]
    fixed: str = ""


_PLAIN = (  # how what torch says begins, or what stands in it → what it means
    (r"specialized integer from data-dependent", "its code makes a Python number of a tensor's values (item(), int())"),
    (r"data-dependent|[Dd]ynamic control flow|DataDependentOutput", "its code asks for the values of a tensor, as `if` "
     "and `while` do: a graph goes one way"),
    (r"Constraints violated|specialized (?:it )?to be a constant", "its code holds the length of an axis fixed"),
    (r"\.numpy\(\) is not supported|numpy\(\) on a Tensor|to numpy", "its code leaves torch for NumPy, where no graph "
     "follows"),
    (r"in output, which is not a known type", "it gives an object that torch does not take apart into tensors"),
    (r"ScriptModule", "it is a ScriptModule, which torch.export does not take"),
    (r"^(?:TorchRuntimeError|Unsupported|InternalTorchDynamoError)\b", "its code calls what a graph cannot hold"),
    (r"^NotImplementedError\b", "it uses an operator that has no form without data"),
)  # fmt: skip


def reason(exc: BaseException) -> str:
    """What is wrong, in a sentence where it is known, and all that torch says: the line of the module stands behind
    the first."""
    said = " ".join(f"{type(exc).__name__}: {exc}".split())[:4000]
    plain = next((words for pattern, words in _PLAIN if re.search(pattern, said[:1000])), None)
    files = {Path(frame.f_code.co_filename).parts[-3:-1] for frame, _ in traceback.walk_tb(exc.__traceback__)}
    if plain is not None and ("torch", "distributions") in files:
        plain = "its distributions of torch.distributions check their values (validate_args=False leaves that out)"
    return said if plain is None else f"{plain}. torch says: {said}"


def trace(
    module: torch.nn.Module,
    inputs: Mapping[str, Any],
    axes: Declared | None = None,
    *,
    keep: Callable[[torch.export.ExportedProgram], Any],
    all_axes: bool = True,
) -> Traced:
    """Export `module` for named tensors. Every axis is left to torch, which finds those that the module fixes; else
    (not `all_axes`, or where that fails) the first one, where all tensors share it, and those that are declared
    (`axes`). `keep` makes of the program what is stored, and may refuse it by `SerializationError`.

    This exports once, and runs nothing else: the graph is then walked for other sizes without any data, and an axis
    for which it does not work, or gives another number of rows, is not called free. Up to two more exports follow where
    this one fails, or fixes the rows. Raises `SerializationError` with torch's reason where the module cannot be
    exported."""
    rows = shared_rows(inputs)
    wanted = {name: dict(found) for name, found in (axes or {}).items()}
    for name, value in inputs.items() if rows else ():
        if value.ndim:
            wanted.setdefault(name, {}).setdefault(0, BATCH)
    auto = torch.export.Dim.AUTO
    few = {name: dict.fromkeys(wanted.get(name, ()), auto) or None for name in inputs}
    many = {name: dict.fromkeys(range(value.ndim), auto) or None for name, value in inputs.items()}
    grown = _grown(inputs, wanted)
    reasons: list[str] = []

    def attempt(dynamic: Any, values: Mapping[str, Any]) -> Traced | None:
        try:
            with exported.ONE_AT_A_TIME, exported.quiet():
                program = torch.export.export(module, (), dict(values), dynamic_shapes=dynamic)
            shapes = _axes_of(program, values, axes or {}, rows) if dynamic else {"inputs": {}, "outputs": {}}
            return Traced(program, keep(program), shapes)
        except Exception as exc:
            reasons.append(exc.message if isinstance(exc, SerializationError) else reason(exc))
            return None

    made = attempt(many, grown) if all_axes and any(many.values()) else None
    if made is None and any(few.values()) and not (all_axes and few == many):
        made = attempt(few, grown)
    if made is not None and rows and _rows_fixed(made, inputs):
        if strict := attempt({name: {0: torch.export.Dim(BATCH)} if few[name] else None for name in few}, grown):
            return strict
        reasons.reverse()  # torch says why, where it is told that the rows are free
        made = None if any(grown[name] is not inputs[name] for name in inputs) else made
    elif made is not None:
        return made
    made = made or attempt(None, inputs)
    if made is None:
        raise SerializationError(f"torch.export cannot trace {_owner(module)}: {reasons[0]}")
    why = reasons[0] if reasons else ""
    return attrs.evolve(made, shapes={"inputs": {}, "outputs": {}, "why": why}, fixed=why if rows else "")


def unrolled(module: torch.nn.Module, inputs: Mapping[str, Any], shapes: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The axes behind the first, as input and axis, for which the module's own code takes other lengths and the program
    does not: torch.export writes loops and recurrent layers out, step by step. Tried on shapes, without data. The last
    axis may be a length too, of tokens and where there are recurrent layers; else it is one of features."""
    cells = (torch.nn.RNNBase, torch.nn.RNNCellBase)
    recurrent = any(isinstance(part, cells) for part in module.modules())
    found: list[tuple[str, int]] = []
    lengths: dict[int, list[tuple[str, int]]] = {}  # the axes that may be lengths, by how long they are
    for name, axes in shapes["inputs"].items():
        to_the_end = recurrent or not (inputs[name].is_floating_point() or inputs[name].is_complex())
        for at in range(1, len(axes) if to_the_end else len(axes) - 1):
            size = int(inputs[name].shape[at])
            if isinstance(axes[at], int) and size > 1:
                lengths.setdefault(size, []).append((name, at))
    before = snapshot(module) if lengths else None  # its code may keep what it gets, and that is without data
    usual = _rows(module, inputs) if lengths else None
    for places in lengths.values() if usual is not None else ():
        alone = [place for place in places if _rows(module, inputs, {place}) == usual]
        rest = set(places) - set(alone)  # tokens and their mask are longer together, or not at all
        together = len(rest) > 1 and _rows(module, inputs, rest) == usual
        found += [place for place in places if place in alone or together]
    if before is not None:
        before.restore()
    return [(name, at) for name in shapes["inputs"] for at in range(inputs[name].ndim) if (name, at) in found]


def _rows(module: torch.nn.Module, inputs: Mapping[str, Any], doubled: Collection[tuple[str, int]] = ()) -> Any:
    """The lengths of the first axes that the module's own code gives for the inputs without data, of which some axes
    may be doubled; None where it does not take them."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with exported.ONE_AT_A_TIME, exported.quiet(), torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            values = {}
            for name, value in inputs.items():
                shape = [2 * size if (name, at) in doubled else size for at, size in enumerate(value.shape)]
                values[name] = torch.empty(shape, dtype=value.dtype, device=value.device)
            return [value.shape[:1] for _, value in by_name(module(**values)) if hasattr(value, "shape")]
    except Exception:  # what its code says of sizes that do not fit, or of tensors without data
        return None


def _owner(module: torch.nn.Module) -> str:
    return type(getattr(module, "owner", module)).__name__


def _grown(inputs: Mapping[str, Any], wanted: Declared) -> dict[str, Any]:
    """The inputs, twice as long along axes that should be free and have a length of one: torch takes one for a
    constant."""
    found = dict(inputs)
    for name, axes in wanted.items():
        for at in axes:
            if name in found and found[name].shape[at] == 1:
                found[name] = resized(found[name], at, 2)
    return found


def _rows_fixed(made: Traced, inputs: Mapping[str, Any]) -> bool:
    return any(isinstance(made.shapes["inputs"][name][0], int) for name, value in inputs.items() if value.ndim)


def _axes_of(
    program: torch.export.ExportedProgram, values: Mapping[str, Any], declared: Declared, rows: int
) -> dict[str, Any]:
    """The axes of a program: free are those that are symbols, and for which the graph works at other lengths."""
    ins, outs = _shapes(program)
    lengths = {_symbol(size): int(values[name].shape[at]) for name, shape in ins.items()
               for at, size in enumerate(shape) if _symbol(size) is not None}  # fmt: skip
    firsts = {_symbol(shape[0]) for shape in ins.values() if shape}
    batch = firsts.pop() if rows and len(firsts) == 1 else None
    free = _working(program, values, lengths, batch)
    for shape in outs.values():  # rows that become more with another axis are no rows
        first = None if not shape or isinstance(shape[0], int) else _expr(shape[0])
        if batch is not None and first is not None and first != batch and first.subs(lengths) == lengths[batch]:
            free &= {batch}
    names = _names(ins, outs, declared, batch)
    fixed = {symbol: length for symbol, length in lengths.items() if symbol not in free}

    def axis(size: Any) -> Axis:
        found = size if isinstance(size, int) else _expr(size).subs(fixed)
        return int(found) if isinstance(found, int) or found.is_number else names.get(found)

    return {
        "inputs": {name: list(map(axis, shape)) for name, shape in ins.items()},
        "outputs": {name: list(map(axis, shape)) for name, shape in outs.items()},
    }


def _expr(size: Any) -> Any:
    return size.node.expr


def _symbol(size: Any) -> Any:
    """The symbol that a size is; None for a number and for an expression of several."""
    return _expr(size) if not isinstance(size, int) and _expr(size).is_Symbol else None


def _shapes(program: torch.export.ExportedProgram) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """The sizes of inputs and outputs, by the names that the catalog gives them."""
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    given = [nodes.get(s.arg.name) for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    gave = [
        nodes.get(s.arg.name) if hasattr(s.arg, "name") else getattr(s.arg, "value", None)
        for s in program.graph_signature.output_specs
        if s.kind is OutputKind.USER_OUTPUT
    ]
    assert program.call_spec.in_spec is not None and program.call_spec.out_spec is not None
    _, named = tree_unflatten(given, program.call_spec.in_spec)
    result = tree_unflatten([v if hasattr(v, "shape") else None for v in gave], program.call_spec.out_spec)
    return (
        {name: tuple(value.shape) for name, value in named.items()},
        {name: tuple(value.shape) for name, value in by_name(result)},
    )


def _names(
    ins: Mapping[str, Shape], outs: Mapping[str, Shape], declared: Declared, batch: Any
) -> dict[Any, str | None]:
    """A name for each symbol that has several places, or one by declaration."""
    places: dict[Any, list[str]] = {}
    for shapes in (ins, outs):
        for name, shape in shapes.items():
            for at, size in enumerate(shape):
                if _symbol(size) is not None:
                    places.setdefault(_symbol(size), []).append(f"{name}_{at}")
    names: dict[Any, str | None] = {symbol: at[0] if len(at) > 1 else None for symbol, at in places.items()}
    if batch is not None:
        names[batch] = BATCH
    for name, axes in declared.items():
        for at, axis in axes.items():
            symbol = _symbol(ins[name][at]) if name in ins else None
            if symbol is not None and axis is not None:
                names[symbol] = axis
    return names


def _working(
    program: torch.export.ExportedProgram, values: Mapping[str, Any], lengths: Mapping[Any, int], batch: Any
) -> set[Any]:
    """Those symbols for which the graph works at other lengths: all together, else those that do alone."""
    if not lengths or _walks(program, values, lengths, set(lengths)):
        return set(lengths)
    if not _walks(program, values, lengths, set()):  # it cannot be walked without data: torch is believed
        return set(lengths)
    alone = {symbol for symbol in lengths if _walks(program, values, lengths, {symbol})}
    return alone if _walks(program, values, lengths, alone) else alone & {batch}


def _walks(
    program: torch.export.ExportedProgram, values: Mapping[str, Any], lengths: Mapping[Any, int], longer: set[Any]
) -> bool:
    """Whether the graph gives what its own expressions say, with some symbols at twice their length. Shapes only: no
    data are touched."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx import Interpreter
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    ins, outs = _shapes(program)
    sizes = {symbol: 2 * length if symbol in longer else length for symbol, length in lengths.items()}

    def length(size: Any) -> Any:
        return size if isinstance(size, int) else _expr(size).subs(sizes)

    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    try:
        with exported.ONE_AT_A_TIME, exported.quiet(), torch.no_grad(), mode:
            results = Interpreter(program.graph_module).run(*_arguments(program, ins, values, length))
        kinds = [spec.kind for spec in program.graph_signature.output_specs]
        gave = [result for result, kind in zip(results, kinds, strict=True) if kind is OutputKind.USER_OUTPUT]
        found = [value if hasattr(value, "shape") else None for value in gave]
        assert program.call_spec.out_spec is not None
        pairs = [
            (length(size), got)
            for name, value in by_name(tree_unflatten(found, program.call_spec.out_spec))
            for size, got in zip(outs[name], value.shape, strict=True)
        ]
    except Exception:  # whatever operators say of sizes that do not fit
        return False
    return all(size == got for size, got in pairs if isinstance(got, int) and (isinstance(size, int) or size.is_number))


def _arguments(
    program: torch.export.ExportedProgram, ins: Mapping[str, Shape], values: Mapping[str, Any],
    length: Callable[[Any], Any],
) -> Iterator[Any]:  # fmt: skip
    """What the graph takes: weights, constants, and empty inputs."""
    named = iter(ins.items())
    for spec in program.graph_signature.input_specs:
        target = spec.target or ""
        if spec.kind is InputKind.USER_INPUT:
            name, shape = next(named)
            yield torch.empty(
                [int(length(size)) for size in shape], dtype=values[name].dtype, device=values[name].device
            )
        elif target in program.state_dict:
            yield program.state_dict[target]
        elif target in program.constants:
            yield program.constants[target]
        else:
            raise InvalidInput(f"the graph takes {spec.kind}")
