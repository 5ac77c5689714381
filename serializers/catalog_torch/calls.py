"""The calls of a graph, held against the list of operators and the bounds of their arguments.

What an operator computes of numbers that are written in the graph is decided here, before torch sees the graph. What
depends on tensors is decided by `guards`, when the graph runs.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from catalog_core.errors import SerializationError
from catalog_torch.operations import OPERATION, SCALAR, gives_number, listed

MAX_NUMBERS = 1 << 28  # that one call may make out of nothing: a gigabyte of float32
MAX_PARTS = 1 << 16  # pieces of one tensor, groups of channels, terms of a series
MAX_PADDING = 1 << 20  # on one side
# numbers that say where, not how many: torch holds them against the tensor
_PLACES = frozenset(
    """
    dim dims dim0 dim1 dim2 dims_self dims_other start end step index axis axis0 axis1 diagonal offset offset1
    shifts source destination padding_idx ignore_index k high low quant_min quant_max from to value fill_value
    other self min max alpha beta exponent p ord correction n_power spacing prepend append negative_slope threshold
    lambd scale eps axes permutation broadcast_dimensions start_dim end_dim normalized_dim layout dtype memory_format
    reduction unsafe zero_point seed mode_id interpolation_mode padding_mode normalization decimals rtol atol
    mat1_meta target_length input_lengths target_lengths blank q d
    """.split()
)
_SAME_NUMBERS = frozenset(  # views and copies of as many numbers as they are given
    "view reshape _reshape_copy _unsafe_view view_copy unflatten "
    "sum_to_size split_with_sizes unsafe_split_with_sizes split_with_sizes_copy split unsafe_split split_copy".split()
)
_PARTS = frozenset(["chunks", "sections", "groups", "num_groups"])
_PADDINGS = frozenset(["pad", "padding", "output_padding"])
_TOGETHER = frozenset(["eye", "tril_indices", "triu_indices", "histc", "vander", "linalg_vander"])
_COUNTED = frozenset([("tile", "dims"), ("mvlgamma", "p"), ("special_multigammaln", "p")])


def overload_of(target: Any) -> Any:
    """What a node calls: an overload of an operator, an operator of control flow, or None for plain arithmetic on
    sizes. Raises `SerializationError` for what is not on the list."""
    found = OPERATION.match(target) if isinstance(target, str) and listed(target) else None
    if found is not None:
        space, name, overload = found.groups()
        packet = getattr(getattr(torch.ops, space), name, None)
        if space == "higher_order" and packet is not None:
            return packet
        operator = getattr(packet, str(overload), None)
        if isinstance(operator, torch._ops.OpOverload) and (
            gives_number(space, name, overload) or _takes_tensors(operator, str(overload))
        ):
            return operator
    elif isinstance(target, str) and SCALAR.match(target):
        return None
    raise SerializationError(
        f"the graph calls {str(target)[:100]!r}, which is not on the list of operators",
        hint="what trusts indices, resizes memory, prints or reaches files has no place in a stored graph",
    )


def _takes_tensors(operator: Any, overload: str) -> bool:
    """Whether an overload gives tensors, and takes some or makes them: TorchScript has others, on lists and texts. What
    writes into `out=`, and packed sequences, whose sizes are trusted, are left out."""
    arguments, returns = operator._schema.arguments, operator._schema.returns
    return (
        bool(returns)
        and all("Tensor" in str(value.type) for value in returns)
        and any("Tensor" in str(argument.type) or argument.name == "dtype" for argument in arguments)
        and not any(argument.is_out for argument in arguments)
        and not overload.startswith("prim_")
        and not (overload == "data" and any(argument.name == "batch_sizes" for argument in arguments))
    )


def check(target: Any, inputs: Any) -> None:
    """Hold one call against the list, and the numbers that are written in it against bounds. `inputs`: the arguments as
    a node of the graph has them. Raises `SerializationError`."""
    operator = overload_of(target)
    if not isinstance(inputs, list) or not all(
        isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("arg"), dict)
        for item in inputs
    ):
        raise SerializationError(f"the graph calls {target[:100]!r} with arguments that cannot be read")
    passed = next((item["arg"]["as_operator"] for item in inputs if item["arg"].get("as_operator") is not None), None)
    if passed is not None:
        raise SerializationError(f"the graph passes on {str(passed)[:100]!r}, which is not on the list of operators")
    if not isinstance(operator, torch._ops.OpOverload):
        return
    schema, name = {argument.name: argument for argument in operator._schema.arguments}, target.split(".")[-2]
    given = [item["name"] for item in inputs]
    surplus = sorted(set(given) - schema.keys())
    lacking = [key for key, argument in schema.items() if key not in given and not argument.has_default_value()]
    if surplus or lacking or len(set(given)) != len(given):
        raise SerializationError(
            f"the graph holds a call of {target[:90]!r} with other arguments than its own: {[*surplus, *lacking]!r:.99}"
        )
    together = 1
    for item in inputs:
        numbers = list(_numbers(item["arg"]))
        if numbers and "Tensor" not in str(schema[item["name"]].type):
            together *= _bounded(target, name.removesuffix("_"), item["name"], numbers)
    if name in _TOGETHER and together > MAX_NUMBERS:
        raise _too_large(target, "its sizes", together)
    if name in ("arange", "range"):
        _check_range(target, inputs)


def complete(target: str, inputs: list[Any]) -> None:
    """Add the defaults of arguments that are called as a word of Python is, like the `from` of `uniform_`: torch leaves
    them out when it writes a graph, and cannot read it then."""
    operator = overload_of(target)
    arguments = operator._schema.arguments if isinstance(operator, torch._ops.OpOverload) else ()
    given = {item["name"] for item in inputs}
    for argument in arguments:
        if keyword.iskeyword(argument.name) and argument.name not in given and argument.has_default_value():
            default = argument.default_value
            kind = {int: "as_int", float: "as_float"}.get(type(default))
            if kind is not None:
                inputs.append({"name": argument.name, "arg": {kind: default}, "kind": 1})


def _numbers(argument: Mapping[str, Any]) -> Iterator[int | float]:
    """The numbers that are written in an argument, in order; symbols and tensors have none yet."""
    for key, value in argument.items():
        if key in ("as_int", "as_float"):
            yield value
        elif key in ("as_ints", "as_floats"):
            yield from value if isinstance(value, list) else [value]
        elif key in ("as_sym_int", "as_sym_float") and isinstance(value, dict):
            yield from _numbers(value)
        elif key in ("as_sym_ints", "as_sym_floats") and isinstance(value, list):
            for part in value:
                yield from _numbers(part) if isinstance(part, dict) else ()
        elif key == "as_int_lists" and isinstance(value, list):
            for part in value:
                yield from part if isinstance(part, list) else [part]


def _bounded(target: str, name: str, argument: str, numbers: Sequence[Any]) -> int:
    """How many numbers an argument asks for. Raises `SerializationError` for more than the bounds."""
    for number in numbers:
        whole = type(number) is int and -(1 << 63) <= number < 1 << 63
        if not whole and type(number) is not float and number not in ("Infinity", "-Infinity", "NaN"):
            raise SerializationError(f"the graph gives {target[:100]!r} a number that is none: {str(number)[:40]}")
    if name in _SAME_NUMBERS or (argument in _PLACES and (name, argument) not in _COUNTED):
        return 1
    if any(not isinstance(number, (int, float)) or not math.isfinite(number) for number in numbers):
        if argument.startswith(("scale", "size", "output_size")):
            raise _too_large(target, argument, math.inf)
        return 1
    sizes = [max(1, abs(number)) for number in numbers]
    if (argument in _PARTS or argument == "p") and max(sizes) > MAX_PARTS:
        raise _too_large(target, argument, max(sizes))
    if argument in _PADDINGS:
        if max(sizes) > MAX_PADDING:
            raise _too_large(target, argument, max(sizes))
        return 1
    if all(isinstance(number, float) for number in numbers) and not argument.startswith("scale"):
        return 1
    asked: float = math.prod(sizes)
    if asked > MAX_NUMBERS:
        raise _too_large(target, argument, asked)
    return math.ceil(asked)


def _too_large(target: str, what: str, asked: float) -> SerializationError:
    number = f"{asked:,}" if isinstance(asked, int) and asked < 1 << 80 else f"{float(min(asked, 1e300)):.3g}"
    return SerializationError(
        f"the graph calls {target[:100]!r} for {number} numbers ({what}); one call may make {MAX_NUMBERS:,}",
        hint="let the size follow from an input, or from a stored tensor",
    )


def _check_range(target: str, inputs: Sequence[Mapping[str, Any]]) -> None:
    written = {item["name"]: next(_numbers(item["arg"]), None) for item in inputs}
    start, end, step = written.get("start", 0), written.get("end"), written.get("step", 1)
    if start is None or end is None or step is None:
        return  # a symbol: see `guards`
    asked = abs((end - start) / step) if step and math.isfinite(start + end + step) else math.inf
    if asked > MAX_NUMBERS:
        raise _too_large(target, "its range", asked)
