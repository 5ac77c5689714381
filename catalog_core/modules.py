"""Live torch modules are filled by their own protocol: `load_state_dict`, with its hooks, subclasses and extra states.
Imports no framework: who has a module has imported torch."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from catalog_core import filling, tensors
from catalog_core.errors import SerializationError
from catalog_core.shown import an

_CONTAINERS = (dict, OrderedDict, list, tuple)


def is_module(value: Any) -> bool:
    """Whether `value` is a torch module, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def state_of(module: Any) -> dict[str, Any]:
    """The state dict of a module. Raises `SerializationError`."""
    try:
        return dict(module.state_dict())
    except Exception as exc:  # hooks of the user's
        raise SerializationError(f"{type(module).__name__} has no state dict: {exc}") from exc


def fill(into: Any, target: Any, state: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Fill a module, or a dictionary of tensors, from a stored state. All is checked before anything changes, and what
    the module reports afterwards is held against what was stored. `target` is the module itself, out of what `into` has
    around it. Returns `into`, or with `partial` what was done.

    Raises `SerializationError`: where the module refuses the state, or reports another one, it is put back."""
    chosen = filling.options_of(options)
    if not is_module(target):
        if not isinstance(target, Mapping):
            raise SerializationError(f"{an(type(target).__name__)} cannot be filled", hint="a module or its state dict")
        return filling.fill(into, target, state, lambda new: _put(target, new), problems=_misfits, **chosen)
    live = state_of(target)
    still = {name for name, value in target.named_parameters(remove_duplicate=False) if not value.requires_grad}
    return filling.fill(
        into, live, state, lambda new: _apply(target, live, new), frozen=still.__contains__, problems=_misfits, **chosen
    )


def _put(target: Any, new: Mapping[str, Any]) -> None:
    """Fill a dictionary: tensors in their place, plain data by a new value."""
    plain = {name: value for name, value in new.items() if _is_extra(name) or _are_plain(target[name], value)}
    tensors.fill({name: target[name] for name in new if name not in plain}, {k: new[k] for k in new if k not in plain})
    if plain:
        target.update(plain)


def _misfits(target: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """As `filling.misfitting`; a lazy parameter takes any shape, and an extra state is no tensor of the module's."""
    found = {
        name: live
        for name, live in target.items()
        if not hasattr(live, "materialize") and not _is_extra(name) and not _are_plain(live, values[name])
    }
    return filling.misfitting(found, values)


def _is_extra(name: str) -> bool:
    return name.rpartition(".")[2] == "_extra_state"


def _are_plain(*values: Any) -> bool:
    """Whether none of the values is a tensor or an array: state dicts hold plain data too."""
    return not any(tensors.is_torch(value) or hasattr(value, "__array_interface__") for value in values)


def _apply(module: Any, live: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    whole = {name: new.get(name, value) for name, value in live.items()}
    before = {name: _copy(value) for name, value in live.items()} if _is_custom(module) else None
    try:
        module.load_state_dict(whole)
        reported = state_of(module)
        wrong = [name for name, value in new.items() if name not in reported or not _same(reported[name], value)]
    except Exception as exc:
        _put_back(
            module,
            before,
            f"{type(module).__name__} refuses the stored state: {' '.join(str(exc).split())[:1000]}",
            exc,
        )
    if wrong:
        _put_back(
            module,
            before,
            f"{type(module).__name__} was filled, and reports another state: {', '.join(wrong[:5])}",
            None,
        )


def _put_back(module: Any, before: Mapping[str, Any] | None, why: str, cause: BaseException | None) -> None:
    hint = "it may be filled in part"
    if before is not None:
        try:
            module.load_state_dict(dict(before))
            hint = "it was given back the state that it had"
        except Exception:  # the user's own code, once more
            pass
    raise SerializationError(why, hint=hint) from cause


def _is_custom(module: Any) -> bool:
    """Whether code that is not torch's takes part in loading: only then is a copy of the state worth its memory."""
    ours = sys.modules["torch"].nn.Module
    for part in module.modules():
        kind = type(part)
        if kind.__module__.startswith("torch.nn.modules.") and not part._load_state_dict_pre_hooks:
            continue
        own = (kind._load_from_state_dict, kind.load_state_dict, kind.state_dict, kind.get_extra_state)
        plain = (ours._load_from_state_dict, ours.load_state_dict, ours.state_dict, ours.get_extra_state)
        if (
            own != plain
            or part._load_state_dict_pre_hooks
            or part._load_state_dict_post_hooks
            or part._state_dict_hooks
        ):
            return True
    return False


def _copy(value: Any) -> Any:
    if type(value) in _CONTAINERS:
        parts = value.items() if isinstance(value, dict) else value
        return type(value)(_copy(part) for part in parts)
    lazy = not tensors.is_torch(value) or hasattr(value, "materialize")
    return value if lazy else value.detach().clone()


def _same(one: Any, two: Any) -> bool:
    """Bit by bit, so that NaN is equal to itself; where they are is of no matter."""
    if _are_plain(one, two):
        return _same_data(one, two)
    if type(one) is not type(two) and not (tensors.is_torch(one) and tensors.is_torch(two)):
        return False
    if (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    torch = tensors.is_torch(one)
    if (
        torch
        and one.device == two.device
        and not one.is_meta
        and sys.modules["torch"].equal(one.detach(), two.detach())
    ):
        return True
    return bytes(tensors.memory_of(one)) == bytes(tensors.memory_of(two))


def _same_data(one: Any, two: Any) -> bool:
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same(value, two[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(_same, one, two))
    return bool(one == two) or (isinstance(one, float) and one != one and two != two)
