"""What a live object holds, to put it back after its code ran: preparing a version leaves the object as it was."""

from __future__ import annotations

import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

MAX_COPIED = 1 << 30  # bytes of arrays that are copied; more would not fit beside a large model
MAX_OBJECTS = 1_000_000
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, types.FunctionType,
          types.BuiltinFunctionType, types.MethodType, property)  # fmt: skip


@attrs.frozen
class Held:
    """One thing that was noted: `differs` tells whether it is another now, `put_back` makes it what it was. `size` is
    what a copy of it takes, in bytes."""

    differs: Callable[[], bool]
    put_back: Callable[[], None]
    size: int = 0


Leaf = Callable[[Any, int], Held | None]  # of an object and the bytes that may be copied


class Snapshot:
    """The state of an object: attributes, lists, dictionaries and sets in it, NumPy arrays, generators of random
    numbers; and the random state of Python and NumPy, which all objects share. What functions enclose, and what
    extensions in C keep, is not seen.

    `leaf` notes what only a framework knows (its arrays, its generators), given the object and how many bytes of it may
    be copied; None where it is nothing of the kind. `enter` says whether to look into an object. The cost is one copy
    of the arrays, up to a gibibyte; `restore` compares, writes what differs, and can be called again."""

    def __init__(self, obj: Any, leaf: Leaf | None = None, enter: Callable[[Any], bool] = lambda value: True) -> None:
        self._held: list[Held] = [_random_state()]
        self._alive: list[Any] = []  # so that no id is given twice
        self._room = MAX_COPIED
        seen: set[int] = set()
        waiting = [obj]
        while waiting and len(seen) < MAX_OBJECTS:
            value = waiting.pop()
            if isinstance(value, _PLAIN) or id(value) in seen:
                continue
            seen.add(id(value))
            self._alive.append(value)
            held = (leaf(value, self._room) if leaf else None) or _leaf(value, self._room)
            if held is not None:
                self._room -= held.size
                self._held.append(held)
            elif enter(value):
                waiting += self._note(value)

    def _note(self, value: Any) -> Iterator[Any]:
        """Note what a container or object holds; what it holds is to be looked at next."""
        if isinstance(value, (tuple, frozenset)):
            yield from value
        elif isinstance(value, (list, deque, set)):
            self._held.append(_of_sequence(value))
            yield from list(value)
        elif isinstance(value, dict):
            self._held.append(_of_dict(value))
            yield from list(value.values())
        if isinstance(getattr(value, "__dict__", None), dict):
            self._held.append(_of_dict(vars(value)))
            yield from list(vars(value).values())
        for name, slot in _slots(type(value)):
            try:
                inside = slot.__get__(value)
            except AttributeError:
                continue
            self._held.append(_of_slot(value, name, inside))
            yield inside

    def hold(self, held: Held) -> None:
        """Note one thing more."""
        self._held.append(held)

    def changed(self) -> bool:
        """Whether anything is another than it was."""
        return any(held.differs() for held in self._held)

    def restore(self) -> None:
        """Put back what was changed."""
        for held in self._held:
            if held.differs():
                held.put_back()


def _same(left: Any, right: Any) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _of_dict(found: dict[Any, Any]) -> Held:
    before = dict(found)

    def differs() -> bool:
        return not (_same(list(before), list(found)) and _same(list(before.values()), list(found.values())))

    def put_back() -> None:
        if list(found) != list(before):
            found.clear()
        found.update(before)

    return Held(differs, put_back)


def _of_sequence(found: Any) -> Held:
    before = list(found)

    def put_back() -> None:
        found.clear()
        found.update(before) if isinstance(found, set) else found.extend(before)

    return Held(lambda: not _same(before, list(found)), put_back)


def _slots(kind: type) -> Iterator[tuple[str, Any]]:
    for base in kind.__mro__:
        if "__slots__" in vars(base):
            for name, found in vars(base).items():
                if isinstance(found, types.MemberDescriptorType):
                    yield name, found


def _of_slot(value: Any, name: str, before: Any) -> Held:
    return Held(lambda: getattr(value, name, None) is not before, lambda: object.__setattr__(value, name, before))


def _leaf(value: Any, room: int) -> Held | None:
    """NumPy arrays, and generators of random numbers of Python and NumPy."""
    if isinstance(value, random.Random):
        return of_state(value.getstate, value.setstate)
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.ndarray):
        return _of_array(value, room)
    if isinstance(value, numpy.random.RandomState):
        return of_state(value.get_state, value.set_state, _flat)
    if isinstance(value, numpy.random.Generator):
        bits = value.bit_generator
        return of_state(lambda: bits.state, lambda state: setattr(bits, "state", state), str)
    return None


def _of_array(array: Any, room: int) -> Held | None:
    if not array.flags.writeable or array.dtype.hasobject or array.nbytes > room:
        return Held(lambda: False, lambda: None)
    before = array.copy()
    nan = array.dtype.kind in "fc"  # equal to itself here

    def differs() -> bool:
        import numpy as np

        return not np.array_equal(array, before, equal_nan=nan)

    return Held(differs, lambda: array.__setitem__(..., before), int(array.nbytes))


def of_state(
    get: Callable[[], Any], put: Callable[[Any], Any], plain: Callable[[Any], Any] = lambda state: state
) -> Held:
    """What is read by `get` and set by `put`; `plain` makes of it what can be compared."""
    before = get()
    shown = plain(before)
    return Held(lambda: bool(plain(get()) != shown), lambda: put(before))


def _flat(state: Any) -> Any:
    return [part.tolist() if hasattr(part, "tolist") else part for part in state]


def _random_state() -> Held:
    parts = [of_state(random.getstate, random.setstate)]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        parts.append(of_state(numpy.random.get_state, numpy.random.set_state, _flat))
    return together(parts)


def together(parts: list[Held]) -> Held:
    """Several as one."""

    def put_back() -> None:
        for part in parts:
            if part.differs():
                part.put_back()

    return Held(lambda: any(part.differs() for part in parts), put_back, sum(part.size for part in parts))


class Snapshots:
    """Those of several objects by name, each taken before its code first runs: by its serializer's `snapshot`, else by
    looking into it."""

    def __init__(self, objects: Mapping[str, Any], serializers: Mapping[str, Any]) -> None:
        self._objects, self._serializers = objects, serializers
        self._taken: dict[str, Snapshot] = {}

    def take(self, name: str) -> None:
        """Note the object called `name`, unless it is noted already."""
        if name in self._taken:
            return
        obj, serializer = self._objects[name], self._serializers[name]
        self._taken[name] = serializer.snapshot(obj) if hasattr(serializer, "snapshot") else Snapshot(obj)

    def restore(self, name: str) -> None:
        """Put it back."""
        self._taken[name].restore()
