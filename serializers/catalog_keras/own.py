"""What layers and optimizers keep outside of their variables, by Keras' own protocol: `save_own_variables`,
`save_assets`, and what Keras' preprocessing layers learned. After filling, what they report is compared."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import keras
import numpy as np

from catalog_core.errors import CatalogError, SerializationError
from catalog_core.names import check_file

FILE = "own.safetensors"
FOLDER = "assets"


@attrs.frozen
class Own:
    """The own state of one layer or optimizer: arrays and names of variables by key, files by name, and what was
    learned as plain values."""

    arrays: Mapping[str, Any] = attrs.field(factory=dict)
    variables: Mapping[str, str] = attrs.field(factory=dict)
    assets: Mapping[str, bytes] = attrs.field(factory=dict)
    learned: Any = None

    def same(self, other: Own) -> bool:
        """Whether two reports say the same, bit by bit."""
        return self.arrays.keys() == other.arrays.keys() and self.variables == other.variables and self.agrees(other)

    def agrees(self, other: Own) -> bool:
        """Whether another report has the same arrays of this one, bit by bit, and the same files and lessons. It may
        have more arrays, of variables that it does not know by name."""
        return all(
            key in other.arrays and _bits(value) == _bits(other.arrays[key]) for key, value in self.arrays.items()
        ) and ((self.assets, self.learned) == (other.assets, other.learned))


def _bits(array: Any) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), tuple(array.shape), np.ascontiguousarray(array).tobytes()


def report(items: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Own]:
    """What every item (path → layer or optimizer) keeps of its own, where there is any; `variables` are those of the
    model by name. Raises `SerializationError` for what cannot be stored."""
    names = {id(variable): name for name, variable in variables.items()}
    found: dict[str, Own] = {}
    for path, item in items.items():
        store = _written(path, item) if _overrides(item, "save_own_variables") else {}
        kept = {key: names[id(v)] for key, v in store.items() if isinstance(v, keras.Variable) and id(v) in names}
        arrays = {key: _array(path, key, value) for key, value in store.items() if key not in kept}
        assets = _assets(path, item) if _overrides(item, "save_assets") else {}
        learned = _learned(path, item)
        if arrays or assets or learned is not None:
            found[path] = Own(arrays, kept, assets, learned)
    return found


def restore(items: Mapping[str, Any], stored: Mapping[str, Own], values: Mapping[str, Any]) -> None:
    """Hand own state back. `values` are the variables' arrays by name."""
    for path, own in stored.items():
        item = items[path]
        if own.arrays:
            given = {key: np.array(value) for key, value in own.arrays.items()}
            item.load_own_variables(given | {key: np.array(values[name]) for key, name in own.variables.items()})
        if own.assets:
            with tempfile.TemporaryDirectory(prefix="keras-assets-") as name:
                for file, data in own.assets.items():
                    (Path(name) / file).parent.mkdir(parents=True, exist_ok=True)
                    (Path(name) / file).write_bytes(data)
                item.load_assets(name)
        if own.learned is not None:
            _learn(item, own.learned)


def fill(
    items: Mapping[str, Any], variables: Mapping[str, Any], stored: Mapping[str, Own], values: Mapping[str, Any]
) -> list[str]:
    """Hand own state back to live objects; the problems, if what they report then differs from what is stored."""
    try:
        restore(items, stored, values)
        now = report({path: items[path] for path in stored}, variables)
    except Exception as exc:  # the object's own code
        return [
            f"what its own methods load is refused by them: {type(exc).__name__}: {' '.join(str(exc).split())[:300]}"
        ]
    return [
        f"{path or 'the model'} was given what save_own_variables or save_assets wrote, and reports something else"
        for path, own in stored.items()
        if path not in now or not own.same(now[path])
    ]


def write(
    found: Mapping[str, Own], arrays: Callable[[dict[str, Any]], Any], file: Callable[[str, bytes], None]
) -> dict[str, Any]:
    """Write own state; return the notes for the manifest."""
    notes: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    for number, (path, own) in enumerate(found.items()):
        note: dict[str, Any] = {"arrays": {}, "variables": dict(own.variables), "assets": {}, "learned": None}
        for key, value in own.arrays.items():
            note["arrays"][key] = f"own.{len(tensors):03d}"
            tensors[note["arrays"][key]] = value
        for name, data in own.assets.items():
            note["assets"][name] = f"{FOLDER}/{number}/{name}"
            file(note["assets"][name], data)
        if own.learned is not None:
            note["learned"] = f"{FOLDER}/{number}.json"
            file(note["learned"], json.dumps(own.learned, separators=(",", ":")).encode())
        notes[path] = note
    if tensors:
        arrays(tensors)
    return notes


def files(notes: Mapping[str, Any]) -> set[str]:
    """The files that the notes name. Raises `SerializationError` for notes that make no sense."""
    good = isinstance(notes, Mapping) and all(isinstance(note, Mapping) for note in notes.values())
    for note in notes.values() if good else ():
        parts = [note.get(key) for key in ("arrays", "variables", "assets")]
        good = good and all(isinstance(part, Mapping) for part in parts)
        good = good and all(isinstance(text, str) for part in parts for text in part.values())
        good = good and isinstance(note.get("learned", ""), (str, type(None)))
    if not good:
        raise SerializationError("what the manifest says of this component cannot be read")
    found = {place for note in notes.values() for place in (*note["assets"].values(), note.get("learned")) if place}
    return found | ({FILE} if any(note["arrays"] for note in notes.values()) else set())


def read(notes: Mapping[str, Any], arrays: Mapping[str, Any], file: Callable[[str], bytes]) -> dict[str, Own]:
    """Own state from checked notes. Raises `SerializationError` for a name that leads out of a folder."""
    found: dict[str, Own] = {}
    for path, note in notes.items():
        for name in note["assets"]:
            check_file(name)
        if any(place not in arrays for place in note["arrays"].values()):
            raise SerializationError(f"own state of {path!r} is not stored")
        found[path] = Own(
            {key: arrays[place] for key, place in note["arrays"].items()},
            dict(note["variables"]),
            {name: file(place) for name, place in note["assets"].items()},
            _plain(file(note["learned"])) if note.get("learned") else None,
        )
    return found


def _plain(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise SerializationError(f"what a layer learned cannot be read: {exc}") from exc


def _overrides(item: Any, method: str) -> bool:
    """Whether a class that is not one of Keras has a method of the protocol."""
    owner = next((kind for kind in type(item).__mro__ if method in vars(kind)), object)
    return owner is not object and owner.__module__.partition(".")[0] != "keras"


def _written(path: str, item: Any) -> dict[str, Any]:
    store: dict[str, Any] = {}
    try:
        item.save_own_variables(store)
    except Exception as exc:
        raise SerializationError(f"save_own_variables of {path or 'the model'} fails: {exc}") from exc
    return store


def _array(path: str, key: Any, value: Any) -> Any:
    try:
        array = np.asarray(keras.ops.convert_to_numpy(value))
    except Exception:
        array = np.asarray(value)
    if not isinstance(key, str) or array.dtype.kind in "OUSM":
        raise SerializationError(
            f"save_own_variables of {path or 'the model'} writes {key!r}, which is no array of numbers",
            hint="write text and files in save_assets",
        )
    return array


def _assets(path: str, item: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="keras-assets-") as name:
        try:
            item.save_assets(name)
        except Exception as exc:
            raise SerializationError(f"save_assets of {path or 'the model'} fails: {exc}") from exc
        places = [place for place in sorted(Path(name).rglob("*")) if not place.is_dir()]
        odd = [place.name for place in places if place.is_symlink() or not place.is_file()]
        if odd:
            raise SerializationError(f"save_assets of {path or 'the model'} writes {odd[0]!r}, which is no plain file")
        found = {place.relative_to(name).as_posix(): place.read_bytes() for place in places}
    for file in found:
        check_file(file)
    return found


def _learned(path: str, item: Any) -> Any:
    """What a preprocessing layer of Keras learned by `adapt` and keeps in no variable."""
    if type(item).__name__ == "Discretization" and getattr(item, "num_bins", None) is not None:
        edges = item.bin_boundaries
        return None if edges is None else {"bin_boundaries": [float(edge) for edge in edges]}
    if getattr(item, "input_vocabulary", "") is not None or hasattr(item, "_lookup_layer"):
        return None
    words = item.get_vocabulary(include_special_tokens=False)
    if not len(words):
        return None
    if item.output_mode == "tf_idf":
        raise SerializationError(
            f"the weights of the vocabulary of {item.name!r} were learned by adapt() or set later: they are not in the "
            "configuration",
            hint=f"{type(item).__name__}(vocabulary=…, idf_weights=…), or serializer='savedmodel'",
        )
    plain = [word.item() if isinstance(word, np.generic) else word for word in words]
    if json.loads(json.dumps(plain)) != plain:
        raise SerializationError(f"the vocabulary of {item.name!r} holds what is neither text nor a whole number")
    return {"vocabulary": plain}


def _learn(item: Any, learned: Any) -> None:
    edges, words = (learned.get(key) if isinstance(learned, dict) else None for key in ("bin_boundaries", "vocabulary"))
    if type(item).__name__ == "Discretization" and isinstance(edges, list):
        item.bin_boundaries = [float(edge) for edge in edges]
    elif isinstance(words, list) and all(isinstance(word, (str, int)) for word in words):
        item.set_vocabulary(words)  # a list: Keras would read a text as the name of a file
    else:
        raise SerializationError(f"what {type(item).__name__} learned cannot be read")


def refuse_unfilled(items: Mapping[str, Any], variables: Mapping[str, Any], stored: Mapping[str, Own]) -> list[str]:
    """The problems of live objects that keep own state of which nothing is stored, and of stored state without one."""
    try:
        live = report(items, variables)
    except CatalogError as exc:
        return [exc.message]
    kept = {path for path, own in live.items() if own.learned is None}  # what it learned before is replaced
    problems = [
        f"{path or 'the model'} keeps state of its own, of which nothing is stored" for path in kept - stored.keys()
    ]
    return problems + [f"{path or 'the model'} is stored with state of its own" for path in stored if path not in items]
