"""Call every operator that a stored graph may call with wild arguments, as a graph would: past the list, the bounds of
written numbers, and the checks of tensors. Prints a line for each operator that crashed its process, that torch would
have taken more than `LIMIT` for, or that did not end. Run as a program: `torch_wild.py TRIALS SEED [NAME…]`."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from catalog_core.errors import SerializationError
from catalog_torch import calls, guards
from catalog_torch.operations import ATEN

LIMIT = 12 << 30  # bytes: one call may make 2^30 numbers
NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    5,
    -2,
    -7,
    100,
    2**31 - 1,
    2**31,
    2**33,
    2**40,
    2**62,
    2**63 - 1,
    -(2**31),
    -(2**40),
    -(2**63),
]
SHAPES = [
    (),
    (1,),
    (3,),
    (8,),
    (2, 3),
    (4, 4),
    (1, 2, 4),
    (2, 3, 4),
    (2, 3, 4, 4),
    (1, 2, 3, 4, 4),
    (0,),
    (0, 3),
    (2, 0, 3),
]
TEXTS = ["mean", "sum", "reflect", "constant", "none", "same", "fro", "ij", "amax", "tanh", "ij,jk->ik"]
INDICES = ("ind", "target", "offset", "repeats", "lengths")


class Wild:
    """Arguments at random, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        torch.manual_seed(seed)

    def number(self) -> int:
        return self.random.choice(NUMBERS if self.random.random() < 0.4 else [0, 1, 2, -1, 3, 4])

    def tensor(self, name: str) -> torch.Tensor:
        draw, shape = self.random.random(), self.random.choice(SHAPES)
        if draw < (0.85 if any(word in name for word in INDICES) else 0.15):
            value = torch.randint(0, self.random.choice([2, 4, 8]), shape)
            if value.numel() and self.random.random() < 0.6:
                flat = value.view(-1)
                for _ in range(self.random.choice([1, 1, 3])):
                    flat[self.random.randrange(flat.numel())] = self.random.choice(NUMBERS)
            kinds = [torch.int64] * 8 + [torch.int32, torch.uint8, torch.int8, torch.int16]
            return value.to(self.random.choice(kinds))
        if draw > 0.95:
            return torch.rand(shape) > 0.5
        value = torch.randn(shape)
        if value.numel() and self.random.random() < 0.2:
            value.view(-1)[0] = self.random.choice([float("nan"), float("inf"), 1e30, -1e30])
        kinds = [torch.float32] * 20 + [torch.float64, torch.bfloat16, torch.complex64, torch.float16]
        return value.to(self.random.choice(kinds))

    def value(self, argument: Any) -> Any:
        kind, choose, draw = str(argument.type), self.random.choice, self.random.random
        if kind.startswith("Optional"):
            if draw() < 0.4:
                return None
            kind = kind.removeprefix("Optional[").removesuffix("]")
        if kind.startswith("Tensor"):
            return self.tensor(argument.name)
        if kind.startswith(("List[Optional[Tensor", "List[Tensor")):
            return [self.tensor(argument.name) for _ in range(choose([0, 1, 2, 3, 4, 12]))]
        if kind == "number":
            return choose([self.number(), 0.5, 1e300, -1.0, float("nan"), float("inf"), True])
        if kind in ("int", "SymInt") and argument.name in ("dtype", "layout", "memory_format"):
            return choose([torch.float32, torch.int64, torch.bool]) if argument.name == "dtype" else None
        plain = {
            "int": self.number,
            "SymInt": self.number,
            "bool": lambda: draw() < 0.5,
            "str": lambda: choose(TEXTS),
            "float": lambda: choose([0.0, 0.5, 1.0, -1.0, 2.0, 1e12, 1e300, float("nan"), float("inf")]),
        }
        for name, make in plain.items():
            if kind == name:
                return make()
            if kind.startswith(f"List[{name}"):
                return [
                    make() if draw() < 0.5 else choose([1, 2, 3, 1]) for _ in range(choose([0, 1, 2, 2, 3, 3, 4, 6]))
                ]
        return None


def written(value: Any) -> dict[str, Any]:
    """An argument, as a graph has it."""
    if isinstance(value, list):
        if any(isinstance(item, torch.Tensor) for item in value):
            return {"as_tensors": []}
        return {"as_floats" if any(isinstance(item, float) for item in value) else "as_ints": value}
    kinds = {bool: "as_bool", int: "as_int", float: "as_float", str: "as_string"}
    return {kinds[type(value)]: value} if type(value) in kinds else {"as_none": True}


def overloads() -> list[str]:
    """`NAME.OVERLOAD` of all operators of `aten` that a graph may call."""
    found = []
    for name in sorted(ATEN | {f"{name}_" for name in ATEN}):
        for overload in getattr(getattr(torch.ops.aten, name, None), "overloads", list)():
            try:
                calls.overload_of(f"torch.ops.aten.{name}.{overload}")
                found.append(f"{name}.{overload}")
            except SerializationError:
                pass
    return found


def try_one(name: str, trials: int, seed: int, note: Any) -> None:
    """Call one operator; before each call, `note` gets what it is called with."""
    target = f"torch.ops.aten.{name}"
    operator = calls.overload_of(target)
    guarded, wild = guards._guarded(operator) or operator, Wild(seed)
    for _ in range(trials):
        args, kwargs, inputs = [], {}, []
        for argument in operator._schema.arguments:
            default = argument.has_default_value() and wild.random.random() < 0.5
            value = argument.default_value if default else wild.value(argument)
            inputs.append({"name": argument.name, "arg": written(value)})
            args += [] if argument.kwarg_only else [value]
            kwargs |= {argument.name: value} if argument.kwarg_only else {}
        try:
            calls.check(target, inputs)
        except SerializationError:
            continue
        note.seek(0)
        note.truncate()
        note.write(f"{name} {args!r} {kwargs!r}"[:1500])
        note.flush()
        signal.alarm(20)
        try:
            guarded(*args, **kwargs)
        except Exception as exc:  # a refusal, by whoever
            if "allocate" in str(exc):
                print(f"MEMORY {name} {args!r} {kwargs!r}"[:600], flush=True)
        signal.alarm(0)


def main() -> None:
    trials, seed, names = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    found = [name for name in overloads() if not names or name.split(".")[0] in names]
    place = Path("torch_wild.note")
    for number, name in enumerate(found):
        child = os.fork()
        if child == 0:
            with place.open("w") as note, Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
                try:
                    try_one(name, trials, seed + number, note)
                finally:
                    sys.stdout.flush()
                    os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status:
            print(f"SIGNAL {status & 127} {place.read_text()}".replace("\n", " "), flush=True)
    print(f"tried {len(found)}")


if __name__ == "__main__":
    main()
