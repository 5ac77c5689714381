"""Symbolic expressions of a graph: taken apart, bounded, and written anew before sympy evaluates them.

torch writes them as `sympy.srepr` does (`Mul(Integer(3), Symbol('s17', positive=True))`; up to torch 2.4 as `3*s17`),
and reads them with `sympify`, which evaluates: `9**9**9**9` never ends. So names come from a list, and what an
expression of constants could grow to is bounded first.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from catalog_core.errors import SerializationError
from catalog_core.shown import an

MAX_TEXT = 20_000  # characters; a deep network with free image sizes takes about 2,000
MAX_NODES = 1_000
MAX_DEPTH = 60
MAX_BITS = 1_024  # of the largest integer that the expression could be
MAX_EXTREMES = 24  # arguments of Max and Min in one expression: sympy compares each with each, and expands
MAX_WORK = 500_000  # parts of all expressions of a graph; the arguments of Max and Min count in square
_SYMBOL = re.compile(r"(s|u|zf|zuf)\d{1,5}\Z")  # backed and unbacked sizes and floats
_ASSUMED = frozenset(["positive", "integer", "nonnegative", "nonzero", "real", "finite", "nonpositive", "negative"])
_SUMS = frozenset(["Add", "Max", "Min"])
_LOGIC = frozenset(
    """
    Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan And Or Not
    IsNonOverlappingAndDenseIndicator
    """.split()
)
_SMALLER = frozenset(  # the result is no larger than the first argument, but for a bit
    """
    Mod PythonMod FloorDiv CleanDiv CeilDiv ModularIndexing IntTrueDiv FloatTrueDiv RShift ToFloat TruncToInt
    TruncToFloat FloorToInt CeilToInt RoundToInt RoundDecimal Identity Abs floor ceiling OpaqueUnaryFn_sqrt
    """.split()
)
_POWERS = frozenset(["Pow", "PowByNatural", "LShift"])
_OPERATORS: dict[type, str] = {
    ast.Add: "Add", ast.Sub: "Add", ast.Mult: "Mul", ast.Div: "IntTrueDiv", ast.FloorDiv: "FloorDiv", ast.Mod: "Mod",
    ast.Pow: "Pow",
}  # fmt: skip
_SIGNS: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_CONSTANTS = {"True": "True", "False": "False", "true": "True", "false": "False", "oo": "oo"}


class _Refused(Exception):
    """Says why an expression is not read."""


class Budget:
    """What evaluating the expressions of one graph may cost, together."""

    def __init__(self) -> None:
        self.work = 0

    def spend(self, parts: int) -> None:
        """Raises `SerializationError` where all expressions together are too many."""
        self.work += parts
        if self.work > MAX_WORK:
            raise SerializationError("the graph holds more expressions of sizes than a network has")


def checked(text: Any, budget: Budget | None = None) -> str:
    """The expression `text`, written anew. Raises `SerializationError` for what is not plain arithmetic, or could grow
    beyond all bounds when it is evaluated."""
    try:
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise _Refused(f"it is no text of up to {MAX_TEXT:,} characters")
        tree = ast.parse(text.strip(), mode="eval")
        reader = _Reader()
        written, bits = reader.read(tree.body, 0)
        if bits > MAX_BITS:
            raise _Refused(f"it could grow to more than {MAX_BITS} bits")
        if budget is not None:
            budget.spend(reader.count + 20 * reader.extremes**2)
        return written
    except (SyntaxError, ValueError, RecursionError, MemoryError, _Refused) as exc:
        why = str(exc) if isinstance(exc, _Refused) else f"it cannot be parsed ({type(exc).__name__})"
        raise SerializationError(
            f"the graph holds the expression {str(text)[:100]!r}, which is not plain arithmetic: {why}"
        ) from exc


class _Reader:
    """Reads one expression: its text anew, and how many bits an integer takes that it could be."""

    def __init__(self) -> None:
        self.count = 0
        self.extremes = 0

    def read(self, node: ast.expr, depth: int) -> tuple[str, float]:
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            raise _Refused(f"it has more than {MAX_NODES} parts, or is nested deeper than {MAX_DEPTH}")
        if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            return repr(node.value), _bits(node.value)
        if isinstance(node, ast.Name):
            if node.id in _CONSTANTS:
                return _CONSTANTS[node.id], 1
            if _SYMBOL.match(node.id):
                return node.id, 64
            raise _Refused(f"{node.id[:40]!r} is not on the list of names")
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            text, bits = self.read(node.operand, depth + 1)
            return f"({'-' if isinstance(node.op, ast.USub) else '+'}{text})", bits
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            parts = [self.read(part, depth + 1) for part in (node.left, node.right)]
            bits = _grown(_OPERATORS[type(node.op)], parts, [node.left, node.right])
            return f"({parts[0][0]} {_SIGNS[type(node.op)]} {parts[1][0]})", bits
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _SIGNS:
            left, right = (self.read(part, depth + 1) for part in (node.left, node.comparators[0]))
            _small([left, right])
            return f"({left[0]} {_SIGNS[type(node.ops[0])]} {right[0]})", 1
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._call(node.func.id, node, depth)
        raise _Refused(f"it holds {an(type(node).__name__)}")

    def _call(self, name: str, node: ast.Call, depth: int) -> tuple[str, float]:
        leaf = _LEAVES.get(name)
        if leaf is not None:
            return leaf(node)
        if node.keywords or not node.args:
            raise _Refused(f"{name[:40]!r} is called without arguments, or with names")
        if name not in _SUMS | _LOGIC | _SMALLER | _POWERS | {"Mul", "Where", "FloatPow"}:
            raise _Refused(f"{name[:40]!r} is not on the list of names")
        self.extremes += len(node.args) if name in ("Max", "Min") else 0
        if self.extremes > MAX_EXTREMES:
            raise _Refused(f"it takes the largest or smallest of more than {MAX_EXTREMES}")
        parts = [self.read(argument, depth + 1) for argument in node.args]
        return f"{name}({', '.join(text for text, _ in parts)})", _grown(name, parts, node.args)


def _bits(value: Any) -> float:
    return value.bit_length() if isinstance(value, int) else 64


def _small(parts: list[tuple[str, float]]) -> None:
    if any(bits > MAX_BITS for _, bits in parts):
        raise _Refused(f"it could grow to more than {MAX_BITS} bits")


def _grown(name: str, parts: list[tuple[str, float]], nodes: list[ast.expr]) -> float:
    """The bits of a result, from those of its arguments."""
    _small(parts)  # so the sums below stay small too
    sizes = [bits for _, bits in parts]
    if name in _LOGIC:
        return 1
    if name == "FloatPow":  # of floats, which overflow instead of growing
        return 64
    if name == "Pow" and len(nodes) == 2 and _is_root(nodes[1]):
        return sizes[0]
    if name in _POWERS:
        exponent = _whole(nodes[1]) if len(nodes) == 2 else None
        if exponent is None or abs(exponent) > MAX_BITS:
            raise _Refused("it raises to a power that is no small whole number")
        return sizes[0] + max(exponent, 0) if name == "LShift" else sizes[0] * max(1, abs(exponent))
    if name in _SMALLER:
        return sizes[0] + 1
    if name in _SUMS or name == "Where":
        return max(sizes) + len(sizes).bit_length()
    return sum(sizes)  # Mul


def _is_root(node: ast.expr) -> bool:
    """Whether an exponent is that of a square root, or of its inverse."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "Rational":
        return False
    return [_whole(argument) for argument in node.args] in ([1, 2], [-1, 2])


def _whole(node: ast.expr) -> int | None:
    """The whole number that a node is: `2`, `-2`, `Integer(-2)`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Integer" and node.args:
        node = node.args[0]
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1, node.operand
    return sign * node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _symbol(node: ast.Call) -> tuple[str, float]:
    name = node.args[0].value if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) else None
    assumed = {
        word.arg: word.value.value for word in node.keywords if word.arg and isinstance(word.value, ast.Constant)
    }
    plain = len(assumed) == len(node.keywords) and all(type(value) is bool for value in assumed.values())
    if not isinstance(name, str) or not _SYMBOL.match(name) or not plain or not assumed.keys() <= _ASSUMED:
        raise _Refused("a symbol has another name than those of torch, like s0 or u0")
    words = "".join(f", {key}={value!r}" for key, value in assumed.items())
    return f"Symbol({name!r}{words})", 64


def _integer(node: ast.Call) -> tuple[str, float]:
    value = _whole(node.args[0]) if len(node.args) == 1 and not node.keywords else None
    if value is None:
        raise _Refused("an Integer is not one whole number")
    return f"Integer({value})", value.bit_length()


def _rational(node: ast.Call) -> tuple[str, float]:
    values = [_whole(argument) for argument in node.args]
    if len(values) != 2 or None in values or not values[1] or node.keywords:
        raise _Refused("a Rational is not two whole numbers")
    return f"Rational({values[0]}, {values[1]})", max(int(value or 0).bit_length() for value in values)


def _float(node: ast.Call) -> tuple[str, float]:
    number = node.args[0].value if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) else None
    value = str(number) if isinstance(number, (str, int, float)) else ""
    good = 0 < len(value) <= 400
    precision = [word.value for word in node.keywords if word.arg in ("precision", "dps", "prec")]
    for word in precision:
        good = good and isinstance(word, ast.Constant) and type(word.value) is int and 1 <= word.value <= 200
    if not good or len(precision) != len(node.keywords):
        raise _Refused("a Float is not one number")
    try:
        return f"Float({float(value)!r})", 64
    except ValueError:
        raise _Refused("a Float is not one number") from None


_LEAVES: dict[str, Callable[[ast.Call], tuple[str, float]]] = {
    "Symbol": _symbol, "Integer": _integer, "Rational": _rational, "Float": _float,
}  # fmt: skip
