"""Live torch modules are filled by their own protocol: `load_state_dict`, with its hooks, subclasses and extra states.
Imports no framework: who has a module has imported torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from catalog_core import filling, tensors
from catalog_core.errors import SerializationError


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
            raise SerializationError(f"a {type(target).__name__} cannot be filled", hint="a module or its state dict")
        return filling.fill(
            into, target, state, lambda new: tensors.fill({key: target[key] for key in new}, new), **chosen
        )
    live = state_of(target)
    still = {name for name, value in target.named_parameters(remove_duplicate=False) if not value.requires_grad}
    return filling.fill(
        into, live, state, lambda new: _apply(target, live, new), frozen=still.__contains__, problems=_misfits, **chosen
    )


def _misfits(target: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """As `filling.misfitting`; a lazy parameter takes any shape, and an extra state is no tensor of the module's."""
    plain = {name: live for name, live in target.items() if not hasattr(live, "materialize") and not _is_extra(name)}
    return filling.misfitting(plain, values)


def _is_extra(name: str) -> bool:
    return name.rpartition(".")[2] == "_extra_state"


def _apply(module: Any, live: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    whole = {name: new.get(name, value) for name, value in live.items()}
    before = {name: _copy(value) for name, value in live.items()} if _is_custom(module) else None
    try:
        module.load_state_dict(whole)
        reported = state_of(module)
        wrong = [name for name, value in new.items() if not _same(reported.get(name), value)]
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
    lazy = not tensors.is_torch(value) or hasattr(value, "materialize")
    return value if lazy else value.detach().clone()


def _same(one: Any, two: Any) -> bool:
    """Bit by bit, so that NaN is equal to itself; where they are is of no matter."""
    if not tensors.is_torch(one) or (one.dtype, one.shape) != (two.dtype, two.shape):
        return False
    if one.device == two.device and not one.is_meta and sys.modules["torch"].equal(one.detach(), two.detach()):
        return True
    return bytes(tensors.memory_of(one)) == bytes(tensors.memory_of(two))
