"""Where the variables of a Keras model are: names by attributes and positions, never the numbers that Keras gives to
layers through the life of a process, which would match another layer after a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from catalog_core.errors import SerializationError


def walk(model: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """The classes of all layers, and all variables (seeds too), by path; what is in two places is under its first.
    Raises `SerializationError` for a variable that has no place."""
    layers: dict[str, str] = {}
    variables: dict[str, Any] = {}
    seen: set[int] = set()
    _visit("", model, layers, variables, seen)
    lost = [variable.path for variable in model.variables if id(variable) not in seen]
    if lost:
        raise SerializationError(f"the variable {lost[0]!r} of {type(model).__name__} is no attribute of a layer")
    return layers, variables


def layers(model: Any) -> dict[str, Any]:
    """All layers by path: the same paths as `walk` has."""
    found: dict[str, Any] = {}
    _visit("", model, {}, {}, set(), found)
    return found


def shared(model: Any, path: str = "", first: dict[int, str] | None = None) -> dict[str, str]:
    """The places of layers in functional and sequential models, and models inside these, where a layer stands again
    that has a place before: place → the first place."""
    first = {} if first is None else first
    again: dict[str, str] = {}
    for number, layer in enumerate(model.layers) if is_graph(model) else ():
        place = f"{path}.layers.{number}" if path else f"layers.{number}"
        if id(layer) in first:
            again[place] = first[id(layer)]
        else:
            first[id(layer)] = place
            again |= shared(layer, place, first)
    return again


def _visit(
    path: str, item: Any, layers: dict[str, str], variables: dict[str, Any], seen: set[int],
    objects: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    if isinstance(item, keras.Variable):
        if id(item) not in seen:
            seen.add(id(item))
            variables[path] = item
        return
    children: Iterator[tuple[str, Any]]
    if isinstance(item, keras.random.SeedGenerator):
        children = iter([("state", item.state)])
    elif isinstance(item, keras.layers.Layer):
        if id(item) in seen:
            return
        seen.add(id(item))
        layers[path] = type(item).__name__
        if objects is not None:
            objects[path] = item
        children = _children(item, seen)
    elif isinstance(item, Mapping):
        children = ((str(key), item[key]) for key in sorted(item, key=str))
    elif isinstance(item, (list, tuple)):
        children = ((str(number), value) for number, value in enumerate(item))
    else:
        return
    for name, child in children:
        _visit(f"{path}.{name}" if path else name, child, layers, variables, seen, objects)


def _children(layer: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(layer, (keras.Sequential, keras.Model)) and is_graph(layer):
        yield "layers", list(layer.layers)
    found = {**vars(layer), **getattr(layer, "_modules", {})}  # the torch backend keeps layers apart
    for name in sorted(found):
        if not name.startswith("_") and isinstance(
            found[name], (keras.layers.Layer, keras.Variable, keras.random.SeedGenerator, list, tuple, dict)
        ):
            yield name, found[name]
    names: set[str] = set()
    for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
        if id(variable) not in seen:
            name = variable.name
            while name in names:
                name += "_"
            names.add(name)
            yield name, variable
    yield "_layers", list(layer._layers)
    yield "_seeds", list(layer._seed_generators)


def is_graph(layer: Any) -> bool:
    """Whether its layers are a list that somebody ordered: a functional or sequential model."""
    return any(kind.__name__ in ("Functional", "Sequential") for kind in type(layer).__mro__)


def optimizers(model: Any) -> dict[str, Any]:
    """The optimizers among the attributes of a model."""
    found = {name: value for name, value in vars(model).items() if isinstance(value, keras.optimizers.Optimizer)}
    return {name: found[name] for name in sorted(found) if not name.startswith("_")}


def state_of(attribute: str, optimizer: Any) -> dict[str, Any]:
    """The variables of an optimizer by position."""
    return {f"optimizers.{attribute}.{number:03d}": v for number, v in enumerate(optimizer.variables)}


def trained_by(optimizer: Any, variables: Mapping[str, Any]) -> list[str] | None:
    """The names of what a built optimizer trains, in its order; None for one that was never used. Raises
    `SerializationError` where it trains what is not the model's."""
    if not optimizer.built:
        return None
    names = {id(variable): name for name, variable in variables.items()}
    try:
        return [names[id(variable)] for variable in optimizer._trainable_variables]
    except KeyError:
        raise SerializationError(f"an optimizer ({optimizer.name}) trains variables that are not the model's") from None
