"""What a live object holds, to put it back after its code ran: preparing a version leaves the object as it was."""

from __future__ import annotations

import random
import sys
import types
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    return [part.tobytes() if hasattr(part, "tobytes") else part for part in state]


def _random_state() -> Held:
    parts = [of_state(random.getstate, random.setstate)]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        parts.append(of_state(numpy.random.get_state, numpy.random.set_state, _flat))
    return together([*parts, *_of_keras(), *_of_tensorflow()])


@contextmanager
def same_random_numbers(obj: Any) -> Iterator[None]:
    """While `obj` is written, its framework or its class may draw; after it, the random state that all objects share
    is as it was. Nothing draws where plain containers and arrays are written."""
    if type(obj).__module__ in ("builtins", "numpy"):
        yield
        return
    held = _random_state()
    try:
        yield
    finally:
        if held.differs():
            held.put_back()


def _of_keras() -> Iterator[Held]:
    """The seed of `keras.random`, where Keras is imported."""
    keras: Any = sys.modules.get("keras")
    shared: Any = sys.modules.get("keras.src.backend.common.global_state")
    key = "global_seed_generator"
    if shared is None or not hasattr(keras, "ops"):
        return
    before = shared.get_global_attribute(key)

    def put(value: Any) -> None:
        shared.set_global_attribute(key, before)
        if before is not None:
            before.state.assign(value)

    def get() -> Any:
        now = shared.get_global_attribute(key)
        return None if now is None else keras.ops.convert_to_numpy(now.state).copy()

    yield of_state(get, put, lambda value: None if value is None else value.tolist())


def _of_tensorflow() -> Iterator[Held]:
    """TensorFlow's generator that all share, and the seeds of its operations, where it is imported."""
    holder: Any = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
    eager: Any = sys.modules.get("tensorflow.python.eager.context")
    if holder is None or eager is None:
        return
    shared = holder.global_generator

    def put(value: Any) -> None:
        holder.global_generator = shared
        if shared is not None:
            shared.state.assign(value)

    yield of_state(
        lambda: None if holder.global_generator is None else holder.global_generator.state.numpy().copy(), put,
        lambda value: None if value is None else value.tolist(),
    )  # fmt: skip
    context = eager.context_safe()
    seeds = getattr(context, "_rng", None)
    if seeds is not None:

        def again(state: Any) -> None:
            seeds.setstate(state)
            context.clear_kernel_cache()  # kernels that drew go on where they were, under the same seeds

        yield of_state(seeds.getstate, again)


def of_plain(obj: Any, skip: Container[str] = ()) -> Held:
    """The numbers, texts and flags among the attributes of an object, and its lists, sets and dictionaries of such:
    counters, histories, modes. Attributes that are made meanwhile stay."""
    values = vars(obj)
    single = {k: v for k, v in values.items() if k not in skip and isinstance(v, _NUMBERS)}
    kinds = (list, set, deque, dict)
    several = {k: (v, list(_items(v))) for k, v in values.items()
               if k not in skip and isinstance(v, kinds) and all(map(_is_plain, _items(v)))}  # fmt: skip

    def differs() -> bool:
        return any(k in values and not _alike(values[k], v) for k, v in single.items()) or any(
            list(_items(v)) != before for v, before in several.values()
        )

    def put_back() -> None:
        values.update({k: v for k, v in single.items() if not _alike(values.get(k), v)})
        for key, (value, before) in several.items():
            if list(_items(value)) == before:
                continue
            if type(value) not in kinds:  # a framework's own, which may not be emptied: it makes another one
                setattr(obj, key, dict(before) if isinstance(value, dict) else list(before))
                continue
            value.clear()
            value.update(before) if isinstance(value, (set, dict)) else value.extend(before)

    return Held(differs, put_back)


_NUMBERS = (bool, int, float, complex, str, bytes, type(None))


def _items(value: Any) -> Iterable[Any]:
    return value.items() if isinstance(value, dict) else value


def _is_plain(value: Any) -> bool:
    return isinstance(value, _NUMBERS) or (isinstance(value, tuple) and all(isinstance(v, _NUMBERS) for v in value))


def _alike(left: Any, right: Any) -> bool:
    return left is right or (type(left) is type(right) and left == right)


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
