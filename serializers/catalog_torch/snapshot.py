"""The state of a module, to put it back: tensors, gradients, modes, buffers that are made late, random numbers."""

from __future__ import annotations

from typing import Any

import torch

from catalog_core.snapshots import Held, Snapshot, of_state, together
from catalog_core.tensors import memory_of


def snapshot(module: torch.nn.Module) -> Snapshot:
    """What a module holds: `restore` of it leaves the module as it was before its code ran. Parameters that the first
    run makes (`LazyLinear`) stay: without them there is nothing to store."""
    lazy = any(torch.nn.parameter.is_lazy(value) for value in (*module.parameters(), *module.buffers()))
    found = Snapshot(None if lazy else module, _leaf, _looked_into)
    found.hold(_random_state())
    if isinstance(module, torch.jit.ScriptModule):  # what it holds is not among its attributes
        for value in (*module.parameters(), *module.buffers()):
            found.hold(_tensor(value, 1 << 30))
        found.hold(of_state(lambda: [m.training for m in module.modules()], lambda modes: _set_modes(module, modes)))
    return found


def _set_modes(module: torch.nn.Module, modes: list[bool]) -> None:
    for part, mode in zip(module.modules(), modes, strict=True):
        part.training = mode


def _looked_into(value: Any) -> bool:
    """Whether to look into an object: not into torch's own, such as graphs, but for modules."""
    return isinstance(value, torch.nn.Module) or not type(value).__module__.startswith(("torch.", "torch._"))


def _leaf(value: Any, room: int) -> Held | None:
    if isinstance(value, torch.Tensor):
        return _tensor(value, room)
    if isinstance(value, torch.Generator):
        return of_state(value.get_state, value.set_state, lambda state: state.tolist())
    return None


def _tensor(value: torch.Tensor, room: int) -> Held:
    """Data, gradient and whether it wants one. Of more than `room` bytes only what torch counts is seen."""
    grad, wants = value.grad if value.is_leaf else None, value.requires_grad
    parts = [Held(lambda: value.is_leaf and value.grad is not grad, lambda: setattr(value, "grad", grad))]
    if value.is_leaf:
        parts.append(Held(lambda: value.requires_grad != wants, lambda: setattr(value, "requires_grad", wants)))
    if grad is not None:
        parts.append(_data(grad, room))
        room -= parts[-1].size
    return together([*parts, _data(value, room)])


def _data(value: torch.Tensor, room: int) -> Held:
    plain = value.layout is torch.strided and not value.is_nested and not hasattr(value, "__tensor_flatten__")
    size = value.numel() * value.element_size() if plain else 0
    if not plain or value.device.type == "meta" or size > room:
        return Held(lambda: False, lambda: None)
    before = value.detach().clone()

    def differs() -> bool:  # its count of changes does not tell: what goes through `.data` is not counted
        return value.shape != before.shape or not _equal(value.detach(), before)

    def put_back() -> None:
        with torch.no_grad():
            if value.shape != before.shape:
                value.data = before.clone()
            else:
                value.detach().copy_(before)

    return Held(differs, put_back, size)


def _equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Bit by bit where torch can tell; NaN is equal to NaN."""
    if left.dtype != right.dtype:
        return False
    if left.is_quantized:
        left, right = left.int_repr(), right.int_repr()
    try:
        same = bool(torch.equal(left, right))
    except NotImplementedError:  # of bits, and of halves of complex numbers
        return bytes(memory_of(left)) == bytes(memory_of(right))
    if same or not (left.dtype.is_floating_point or left.dtype.is_complex):
        return same
    nan = left.isnan()
    return bool(torch.equal(nan, right.isnan()) and torch.equal(left[~nan], right[~nan]))


def _random_state() -> Held:
    parts = [of_state(torch.get_rng_state, torch.set_rng_state, lambda state: state.tolist())]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        parts.append(of_state(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all,
                              lambda states: [state.tolist() for state in states]))  # fmt: skip
    return together(parts)
