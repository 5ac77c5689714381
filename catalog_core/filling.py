"""Fill a live object from stored tensors: all of them, under other names, or those that fit.

The names of a network change, and a head is replaced: `rename` says what stored names are called in the live object,
`partial` takes what fits and reports the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from catalog_core import tensors
from catalog_core.errors import InvalidInput, SerializationError
from catalog_core.names import nearest
from catalog_core.shown import an
from catalog_core.values import check_flags

OPTIONS = ("rename", "partial")  # of `load`, for serializers that fill by names
SHOWN = 20
Rename = Mapping[str, str] | Callable[[str], str | None] | None


@attrs.frozen
class Filled:
    """What `load(ref, into=…, partial=True)` did. Names are those of the live object, but for `left_over`.

    `loaded` were filled; `frozen` are those among them that training will not change; `new` kept their values, since
    nothing stored is called so; `skipped` kept them too, since what is stored has another shape or dtype (name → why);
    `left_over` are stored, and nothing in the live object is called so. `into` is the object."""

    into: Any = attrs.field(repr=False)
    loaded: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    skipped: Mapping[str, str] = attrs.field(factory=dict)

    def __str__(self) -> str:
        skipped = [why if why.startswith(name) else f"{name}: {why}" for name, why in self.skipped.items()]
        kinds = {
            "loaded": self.loaded, "of them frozen": self.frozen, "new": self.new, "skipped": skipped,
            "left over": self.left_over,
        }  # fmt: skip
        return "\n".join(f"{kind}: {len(names)}{_listed(names)}" for kind, names in kinds.items())


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})" if names else ""


def options_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """`rename` and `partial` among the options of `load`, checked. Raises `InvalidInput`."""
    rename, partial = options.get("rename"), options.get("partial", False)
    texts = isinstance(rename, Mapping) and all(isinstance(t, str) for pair in rename.items() for t in pair)
    if rename is not None and not texts and not callable(rename):
        raise InvalidInput(
            f"rename= is {an(type(rename).__name__)}",
            hint="{'old': 'new'} for names or prefixes, or a function of a name",
        )
    check_flags(partial=partial)
    return {"rename": rename, "partial": partial}


def renamed(values: Mapping[str, Any], rename: Rename) -> dict[str, Any]:
    """Stored values under the names that the live object has for them.

    A mapping goes from stored names or prefixes to live ones; a prefix ends where a part of a name ends (`.` or `/`),
    the longest one wins, and `""` stands before every name. A function gets each stored name, and returns the live
    one, or None to leave it out. Raises `InvalidInput` for a prefix that nothing has, and where two get one name."""
    if rename is None:
        return dict(values)
    used: set[str] = set()
    result: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in values.items():
        new = _by_prefix(name, rename, used) if isinstance(rename, Mapping) else rename(name)
        if new is None:
            new = name if isinstance(rename, Mapping) else None
        elif not isinstance(new, str):
            raise InvalidInput(f"rename= gives {an(type(new).__name__)} for {name!r}", hint="a name, or None")
        if new is None:
            continue
        if new in result:
            raise InvalidInput(f"rename= gives {origin[new]!r} and {name!r} one name, {new!r}")
        result[new], origin[new] = value, name
    unused = [old for old in rename if old not in used] if isinstance(rename, Mapping) else []
    if unused:
        parts = {name[:at] for name in values for at in _ends(name)}
        raise InvalidInput(
            f"rename= names {unused[0]!r}, and no stored tensor begins so", hint=nearest(unused[0], sorted(parts))
        )
    return result


def _ends(name: str) -> list[int]:
    """Where a prefix of `name` may end, the whole name included."""
    return [at for at, letter in enumerate(name) if letter in "./"] + [len(name)]


def _by_prefix(name: str, rename: Mapping[str, str], used: set[str]) -> str | None:
    ends = {at + step for at in _ends(name) for step in (0, 1) if at + step <= len(name)}  # before and behind a dot
    for at in sorted(ends | {0}, reverse=True):
        old = name[:at]
        if old in rename:
            used.add(old)
            new, rest = rename[old], name[at:]
            return rest[1:] if not new and rest[:1] in (".", "/") and old else new + rest
    return None


def suggested(missing: Iterable[str], left_over: Iterable[str]) -> str | None:
    """A hint with the prefixes that would bring together what has one ending."""
    found: dict[str, str] = {}
    waiting = list(left_over)
    for name in list(missing)[: 4 * SHOWN]:
        other = max(waiting, key=lambda stored: len(_tail(name, stored)), default="")
        common = len(_tail(name, other))
        if not common:
            continue
        waiting.remove(other)
        old, new = other[: len(other) - common], name[: len(name) - common]
        found.setdefault(old.rstrip("./") if new else old, new.rstrip("./") if old else new)
    return f"are they renamed? rename={found!r}" if 0 < len(found) <= 4 else None


def _tail(one: str, other: str) -> str:
    """The parts that two names end with, all but the first of one of them."""
    parts = [text.replace("/", ".").split(".") for text in (one, other)]
    count = 0
    while count < min(map(len, parts)) and parts[0][-1 - count] == parts[1][-1 - count]:
        count += 1
    return one[len(one) - len(".".join(parts[0][len(parts[0]) - count :])) :] if count else ""


def refusal(
    missing: Iterable[str], left_over: Iterable[str], other: Iterable[str], what: str = "tensors"
) -> SerializationError:
    """The error that names what is missing and what is left over."""
    missing, left_over, other = list(missing), list(left_over), list(other)
    told = [f"{len(missing)} missing from what is stored{_listed(missing)}"] if missing else []
    if left_over:
        told.append(f"{len(left_over)} left over: stored, but not in the live object{_listed(left_over)}")
    told += other[:5]
    hint = suggested(missing, left_over) or ("partial=True takes what fits" if missing or left_over else None)
    return SerializationError(
        f"the stored {what} do not fit: {'; '.join(told)}", hint=f"nothing was changed; {hint or ''}".rstrip("; ")
    )


def fill(
    into: Any,
    target: Mapping[str, Any],
    values: Mapping[str, Any],
    apply: Callable[[dict[str, Any]], None],
    *,
    rename: Rename = None,
    partial: bool = False,
    frozen: Callable[[str], bool] = lambda name: False,
    problems: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, str]] | None = None,
    what: str = "tensors",
) -> Any:
    """Fill `into`, whose live tensors are `target`, from stored `values`; all is checked before `apply` gets what goes
    in, by live names. A live tensor that is another one too (tied weights) is there if one of its names is stored.
    Returns `into`, or with `partial` a `Filled`.

    `frozen(name)` says what training will not change; `problems(target, values)` which of the shared names do not fit,
    and why. Raises `SerializationError`, and `InvalidInput` as `renamed` does."""
    values = _through_ties(target, renamed(values, rename))
    shared = [name for name in target if name in values]
    missing = [name for name in target if name not in values]
    left_over = [name for name in values if name not in target]
    misfits = (problems or misfitting)({name: target[name] for name in shared}, values)
    if not partial:
        if missing or left_over or misfits:
            raise refusal(missing, left_over, misfits.values(), what)
        apply({name: values[name] for name in shared})
        return into
    loaded = [name for name in shared if name not in misfits]
    if not loaded:
        why = "; ".join([*misfits.values()][:5]) or "they have no name in common"
        hint = suggested(missing, left_over)
        raise SerializationError(
            f"none of the stored {what} fits: {why}", hint=f"nothing was changed; {hint or ''}".rstrip("; ")
        )
    apply({name: values[name] for name in loaded})
    return Filled(into, tuple(loaded), tuple(filter(frozen, loaded)), tuple(missing), tuple(left_over), dict(misfits))


def _through_ties(target: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Stored values under all names of the live tensors that they fill: files keep tied weights once."""
    if all(name in values for name in target):
        return values
    marks = {name: mark for name, live in target.items() if (mark := _place(live)) is not None}
    held = {mark: values[name] for name, mark in marks.items() if name in values}
    return values | {name: held[mark] for name, mark in marks.items() if name not in values and mark in held}


def _place(live: Any) -> Any:
    """Where a live tensor has its numbers; None for one that has none yet, and for what is no tensor."""
    if tensors.is_torch(live):
        return None if hasattr(live, "materialize") or not live.data_ptr() else tensors.identity(live)
    return tensors.identity(live) if hasattr(live, "__array_interface__") else None


def misfitting(target: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Why stored tensors cannot fill live ones of the same names, by name: shapes, dtypes, what cannot be written, and
    ties that are none in what is stored."""
    found: dict[str, str] = {}
    for name, live in target.items():
        problems = tensors.mismatches({name: live}, {name: values[name]})
        if problems:
            found[name] = problems[0]
    fitting = {name: live for name, live in target.items() if name not in found}
    for problem in tensors.mismatches(fitting, {name: values[name] for name in fitting}):
        found[problem.partition(" and ")[0]] = problem
    return found
