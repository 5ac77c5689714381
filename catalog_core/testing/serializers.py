"""What every Serializer promises, as tests to inherit. They run through a real catalog in a temporary folder."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

from catalog_core import plugins, tensors
from catalog_core.catalog import Catalog
from catalog_core.content import ComponentReader, Content
from catalog_core.digests import canonical, parse
from catalog_core.errors import IntegrityError, NotTrusted, SerializationError
from catalog_core.interfaces.serializer import Trial
from catalog_core.names import check_file
from catalog_core.records import Component, Description
from catalog_core.session import check_tensor, to_numpy
from catalog_core.specs import SerializerSpec
from catalog_core.staging import Source, Writer
from catalog_core.testing.faults import FaultyStore
from catalog_core.testing.memory import MemoryStore, memory_catalog

REFUSALS = (SerializationError, IntegrityError, NotTrusted)
JUNK: tuple[Any, ...] = (None, 7, -1, "x", [], {}, [None], {"a": None})
_FRAME = re.compile(rb"\x80[\x04\x05]\x95(.{8})", re.DOTALL)
Equal = Callable[[Any, Any], bool]

# Run in a fresh process: chooses the serializer, then loads, and tells what was imported and unpickled on the way.
_CHILD = """
import importlib, json, sys
told = json.loads(sys.argv[1])
sys.path[:] = told["path"]
from catalog_core import Catalog, plugins
from catalog_core.specs import SerializerSpec
from catalog_core.staging import Source, Writer
registry = plugins.registry()
importlib.import_module(told["package"])
registry.serializers[told["spec"]["name"]] = SerializerSpec(**told["spec"])
kinds = [type("Anything", (), {"__module__": top + ".part"}) for top in told["spec"]["handles"]]
chosen = [registry.find_serializer(kind()).name for kind in kinds]
early = [name for name in told["late"] if name in sys.modules]
pickled = []
sys.addaudithook(lambda event, args: pickled.append(list(map(str, args))) if event == "pickle.find_class" else None)
with Catalog.open(told["url"], create=False) as catalog:
    catalog.load("m")
print(json.dumps([chosen, early, pickled, [name for name in told["traps"] if name in sys.modules]]))
"""


def pickles_in(name: str, data: bytes) -> list[str]:
    """The names of what looks like a pickle in a file: the file itself, members of a zip file, or a part of it."""
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [x for member in archive.namelist() for x in pickles_in(f"{name}:{member}", archive.read(member))]
    framed = any(int.from_bytes(match[1], "little") <= len(data) for match in _FRAME.finditer(data))
    head = data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return [name] if framed or head or name.endswith((".pkl", ".pickle")) else []


class SerializerContract:
    """Inherit, and define the fixtures

    - `spec`: the `SerializerSpec` that your hook yields; its factory can be imported by its name,
    - `obj`: an object to save, made anew for each test, that `copy.deepcopy` can copy,
    - `equal`: a function of two objects (saved, loaded or filled) that tells whether they hold the same, bit by bit,

    and where your format can do it, else leave out:

    - `change`: a function that changes what a loaded object holds, or raises because it is read-only,
    - `target`: a live object with the names and shapes of `obj` and other content, which `into=` fills,
    - `misfits`: live objects that `into=` must refuse,
    - `example` and `methods`: input name → array, and the names of the methods that take them.
    """

    @pytest.fixture
    def change(self) -> Callable[[Any], Any] | None:
        """Nothing changes it."""
        return None

    @pytest.fixture
    def target(self) -> Any:
        """Nothing can be filled."""
        return None

    @pytest.fixture
    def misfits(self) -> Sequence[Any]:
        """None."""
        return ()

    @pytest.fixture
    def example(self) -> Mapping[str, Any] | None:
        """None."""
        return None

    @pytest.fixture
    def methods(self) -> Sequence[str]:
        """None."""
        return ()

    # -- the machinery ------------------------------------------------------------------------------------------

    @pytest.fixture
    def serializer(self, spec: SerializerSpec) -> Any:
        """The serializer, made as the catalog makes it."""
        return plugins.registry().load(spec.factory, spec.extra)()

    @pytest.fixture
    def open(
        self, spec: SerializerSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[..., Catalog]]:
        """Opens a catalog that knows the serializer, whether it is installed or not."""
        monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
        opened: list[Catalog] = []

        def opener(kind: str = "sqlite") -> Catalog:
            if kind == "memory":
                catalog = memory_catalog()
            elif kind == "slow":
                catalog = memory_catalog(FaultyStore(MemoryStore(), latency=0.0005, bandwidth=1e9))
            else:
                catalog = Catalog.open(f"{kind}://{tmp_path}/{kind}")
            registry = copy.copy(plugins.registry())
            registry.serializers = {**registry.serializers, spec.name: spec}
            catalog.repository.registry = registry
            opened.append(catalog)
            return catalog

        yield opener
        for catalog in opened:
            catalog.close()

    @pytest.fixture
    def publish(self, obj: Any, example: Any, methods: Sequence[str]) -> Callable[..., Catalog]:
        """Saves the object, or another, as `m` with its methods as entry points."""

        def save(catalog: Catalog, value: Any = None, name: str = "m") -> Catalog:
            points = {f"use-{method}": f"model.{method}" for method in methods} or None
            value = obj if value is None else value
            catalog.save(name, components={"model": value}, entry_points=points, example=example)
            return catalog

        return save

    @pytest.fixture
    def catalog(self, open: Callable[..., Catalog], publish: Callable[..., Catalog]) -> Catalog:
        """A catalog in a folder, with the object saved as `m`."""
        return publish(open())

    @staticmethod
    def component(catalog: Catalog, name: str = "m") -> Component:
        """The stored component of a version."""
        return catalog.artifact(name).manifest.components[0]

    @classmethod
    def files(cls, catalog: Catalog, name: str = "m") -> dict[str, bytes]:
        """The bytes of its files."""
        reader = catalog.artifact(name).reader(cls.component(catalog, name))
        return {file: bytes(reader.view(file)) for file in reader.files}

    @staticmethod
    def reader(catalog: Catalog, files: Mapping[str, bytes], meta: Mapping[str, Any]) -> ComponentReader:
        """What a careless or hostile author might have stored, with digests that fit."""
        writer = Writer(catalog.repository.backend, catalog.repository.index)
        content = Content(catalog.repository.backend, catalog.repository.index)
        stored = {name: writer.add(Source([data])) for name, data in files.items()}
        content.overlay, content.memory = writer.staged, writer.small
        return ComponentReader(content, meta, stored, writer.layout, "damaged")

    # -- the promises -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["sqlite", "file", "memory", "slow"])
    def test_what_was_saved_comes_back(
        self, kind: str, open: Callable[..., Catalog], publish: Callable[..., Catalog], obj: Any, equal: Equal
    ) -> None:
        before = copy.deepcopy(obj)
        catalog = publish(open(kind))
        assert equal(obj, before), "saving changed the object"
        choices: list[dict[str, Any]] = [{}, {"copy": True}, {"device": "cpu"}]
        for options in choices:
            assert equal(catalog.load("m", **options), obj), options
        if kind in ("sqlite", "file"):
            assert equal(open(kind).load("m"), obj)

    def test_threads_load_the_same(self, catalog: Catalog, obj: Any, equal: Equal) -> None:
        with ThreadPoolExecutor(3) as pool:
            assert all(pool.map(lambda _: equal(catalog.load("m"), obj), range(6)))

    def test_saving_twice_gives_the_same_files(self, catalog: Catalog, publish: Callable[..., Catalog]) -> None:
        publish(catalog, name="again")
        assert self.component(catalog, "again") == self.component(catalog)

    def test_what_was_loaded_is_saved_as_the_same_files(
        self, catalog: Catalog, publish: Callable[..., Catalog], obj: Any
    ) -> None:
        loaded = catalog.load("m")
        if type(loaded) is not type(obj):
            pytest.skip("it loads as another type")
        publish(catalog, loaded, "again")
        assert self.component(catalog, "again").files == self.component(catalog).files

    def test_names_of_files_are_allowed_and_meta_is_json(self, catalog: Catalog) -> None:
        component = self.component(catalog)
        assert component.files
        assert [check_file(file.name) for file in component.files] == [file.name for file in component.files]
        assert parse(canonical(dict(component.meta))) == component.meta

    def test_changing_a_loaded_object_leaves_the_stored_bytes_alone(
        self, catalog: Catalog, open: Callable[..., Catalog], obj: Any, equal: Equal, change: Any
    ) -> None:
        if change is None:
            pytest.skip("nothing changes it")
        stored = self.files(catalog)
        choices: list[dict[str, Any]] = [{}, {"copy": True}]
        for options in choices:
            loaded = catalog.load("m", **options)
            try:
                change(loaded)
            except Exception:
                assert not options, "copy=True gives private memory, which can be changed"
            else:
                assert not equal(loaded, obj)
            for other in (catalog, open()):
                assert equal(other.load("m"), obj)
        assert self.files(catalog) == stored
        assert catalog.fsck().clean

    def test_into_fills_a_live_object(self, catalog: Catalog, obj: Any, equal: Equal, target: Any) -> None:
        if target is None:
            with pytest.raises(SerializationError):
                catalog.load("m", into=object())
            return
        assert not equal(target, obj), "the fixture `target` must hold something else"
        assert catalog.load("m", into=target) is target
        assert equal(target, obj)

    def test_into_refuses_what_does_not_fit_and_leaves_it_unchanged(
        self, catalog: Catalog, equal: Equal, misfits: Sequence[Any]
    ) -> None:
        for number, misfit in enumerate(misfits):
            before = copy.deepcopy(misfit)
            with pytest.raises(SerializationError):
                catalog.load("m", into=misfit)
            assert equal(misfit, before), f"misfit {number} was changed"
        with pytest.raises(SerializationError):
            catalog.load("m", into=object())

    def test_as_numpy_gives_arrays_by_name_or_says_no(self, catalog: Catalog, obj: Any, serializer: Any) -> None:
        with pytest.raises(SerializationError):
            catalog.load("m", as_="no such kind")
        try:
            arrays = catalog.load("m", as_="numpy")
        except SerializationError:
            return
        if not isinstance(arrays, Mapping) or not all(hasattr(array, "dtype") for array in arrays.values()):
            return  # the same nested object, with NumPy arrays in it
        described = serializer.describe(obj).tensors
        shapes = {name: (array.dtype.name, tuple(array.shape)) for name, array in arrays.items()}
        assert shapes == {name: (dtype, tuple(shape)) for name, (dtype, shape) in described.items()}

    def test_describe_tells_what_the_files_hold_and_never_raises(
        self, catalog: Catalog, obj: Any, serializer: Any
    ) -> None:
        described = serializer.describe(obj)
        assert described.framework and described.framework_version
        canonical({name: [dtype, list(shape)] for name, (dtype, shape) in described.tensors.items()})
        found: dict[str, Any] = {}
        for name, data in self.files(catalog).items():
            if name.endswith(".safetensors"):
                header = tensors.parse_header(lambda start, length, data=data: data[start : start + length], len(data))  # type: ignore[misc]
                found |= {entry.name: (entry.dtype, entry.shape) for entry in header.entries}
        if found:
            found |= {other: found[stored] for other, stored in self.component(catalog).meta.get("shared", {}).items()}
            assert {name: (dtype, tuple(shape)) for name, (dtype, shape) in described.tensors.items()} == found
        for other in (None, 7, "x", object(), [object()], {"a": object()}, catalog.load("m")):
            assert isinstance(serializer.describe(other), Description)

    def test_inputs_signature_and_call_agree(
        self, catalog: Catalog, obj: Any, serializer: Any, example: Any, methods: Sequence[str]
    ) -> None:
        with pytest.raises(SerializationError):
            serializer.call(obj, "no_such_method", {})
        with pytest.raises(SerializationError):
            wrong = {"nothing": "model.no_such_method"}
            catalog.save("none", components={"model": obj}, entry_points=wrong, example=example)
        points = {point.name: point for point in catalog.artifact("m").manifest.entry_points}
        for method in methods:
            outputs = self._checked_call(serializer, obj, method, example)
            assert points[f"use-{method}"].inputs and points[f"use-{method}"].outputs
            try:
                again = self._checked_call(serializer, catalog.load("m"), method, example)
            except SerializationError:
                continue  # it can be run by its class only
            assert again.keys() == outputs.keys()
            for name, value in outputs.items():
                assert bytes(tensors.memory_of(value)) == bytes(tensors.memory_of(again[name])), (method, name)

    def test_an_example_alone_gives_an_entry_point_with_a_signature(
        self, catalog: Catalog, obj: Any, spec: SerializerSpec, example: Any, methods: Sequence[str]
    ) -> None:
        if not methods:
            pytest.skip("there are no methods")
        points = catalog.save("plain", obj, example=example).manifest.entry_points
        cause = f"the default method of {spec.name!r} ({spec.default_method!r}) did not run: see SerializerSpec"
        assert points and points[0].inputs and points[0].outputs, cause

    @staticmethod
    def _checked_call(serializer: Any, obj: Any, method: str, example: Any) -> dict[str, Any]:
        names = serializer.inputs(obj, method)
        given = {name: example[name] for name in (example if names is None else names) if name in example}
        assert given, f"the example names none of the inputs {names} of {method}"
        before = copy.deepcopy(given)
        outputs = {name: to_numpy(value) for name, value in serializer.call(obj, method, given).items()}
        if hasattr(serializer, "measure"):
            found = serializer.measure(obj, method, Trial(given, outputs, lambda x: serializer.call(obj, method, x)))
            ins, outs = found.inputs, found.outputs
        else:
            ins, outs = serializer.signature(obj, method, given)
        assert [spec.name for spec in ins] == list(given) and [spec.name for spec in outs] == list(outputs)
        axes: dict[str, int] = {}
        for spec in ins:
            check_tensor(f"input {spec.name}", spec, given[spec.name], axes)
            assert bytes(tensors.memory_of(given[spec.name])) == bytes(tensors.memory_of(before[spec.name]))
        for spec in outs:
            check_tensor(f"output {spec.name}", spec, outputs[spec.name], axes)
        return outputs

    def test_nothing_that_is_written_is_a_pickle(self, catalog: Catalog) -> None:
        assert [found for name, data in self.files(catalog).items() for found in pickles_in(name, data)] == []

    def test_choosing_imports_nothing_and_loading_imports_no_class(
        self, catalog: Catalog, spec: SerializerSpec, obj: Any, tmp_path: Path
    ) -> None:
        module = spec.factory.partition(":")[0]
        package = module.rpartition(".")[0] or "catalog_core"  # the hook is in there
        # what importing the hook cannot help importing: its own package, which may hold the classes too
        mine = module.partition(".")[0]
        late = [module, *(top for top in spec.handles if top not in {*sys.stdlib_module_names, mine})]
        own = {*spec.handles, *sys.stdlib_module_names, mine}
        traps = {kind.__module__.partition(".")[0] for kind in type(obj).__mro__} - own
        for top in traps:
            (tmp_path / "traps" / top).mkdir(parents=True)
            (tmp_path / "traps" / top / "__init__.py").write_text("")
        told = {
            "path": [str(tmp_path / "traps"), *sys.path], "spec": attrs.asdict(spec), "late": late,
            "traps": sorted(traps), "url": catalog.url, "package": package,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, json.dumps(told)], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        chosen, early, pickled, imported = json.loads(done.stdout)
        assert chosen == [spec.name] * len(spec.handles)
        assert early == [], f"imported while the serializer was only chosen: {', '.join(early)}"
        assert pickled == [], f"a pickle was read: {pickled}"
        assert imported == [], f"the object's own code was imported without trust: {', '.join(imported)}"
        assert catalog.repository.registry.find_serializer(obj).name == spec.name

    # -- damage -------------------------------------------------------------------------------------------------

    def test_damage_in_the_store_is_an_error_and_never_another_object(
        self, catalog: Catalog, open: Callable[..., Catalog], obj: Any, equal: Equal
    ) -> None:
        folder, refused = Path(catalog.url.partition("://")[2]), 0
        artifact = catalog.artifact("m")
        for file in self.component(catalog).files:
            for chunk in artifact.layout[file.digest]:
                place = _Place(folder, catalog.repository.index.key(chunk.pack or chunk.digest))
                good = place.read()
                for bad in _damaged(good, chunk.offset, chunk.offset + chunk.length):
                    place.write(bad)
                    try:
                        same = equal(open().load("m"), obj)
                    except REFUSALS:
                        refused += 1
                    else:
                        assert same, f"{file.name} was damaged, and another object came back"
                place.write(good)
        assert refused, "nothing that was damaged was noticed"
        assert equal(open().load("m"), obj)

    def test_files_that_their_author_cut_short_or_broke_are_refused(self, catalog: Catalog, serializer: Any) -> None:
        files, meta = self.files(catalog), self.component(catalog).meta
        draw = random.Random(0)
        for name, data in files.items():
            for length in {len(data) // 2, len(data) - 1, 0} - {len(data)}:
                reader = self.reader(catalog, {**files, name: data[:length]}, meta)
                with pytest.raises(REFUSALS):
                    serializer.load(reader, None, None, {})
            with pytest.raises(REFUSALS):
                serializer.load(
                    self.reader(catalog, {k: v for k, v in files.items() if k != name}, meta), None, None, {}
                )
            for _ in range(20):
                at = draw.randrange(min(len(data), 4096)) if data else 0
                bad = data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
                self._tolerate(serializer, self.reader(catalog, {**files, name: bad}, meta))
            self._tolerate(serializer, self.reader(catalog, {**files, name: data + b"\0"}, meta))

    def test_a_meta_that_lies_is_refused_or_does_no_harm(self, catalog: Catalog, serializer: Any) -> None:
        files, meta = self.files(catalog), dict(self.component(catalog).meta)
        for bad in [{}, *_variants(meta)][:400]:
            self._tolerate(serializer, self.reader(catalog, files, bad))

    @staticmethod
    def _tolerate(serializer: Any, reader: ComponentReader) -> None:
        """An object, or one of the errors that refuse; whatever else is raised fails the test."""
        try:
            serializer.load(reader, None, None, {})
        except REFUSALS:
            pass


class _Place:
    """One blob of a catalog in a folder, read and written through the back door (`docs/format.md`)."""

    def __init__(self, folder: Path, key: str) -> None:
        self.key, self.database = key, folder / "catalog.db"
        name = key.removeprefix("sha256:")
        self.path = folder / "blobs" / name[:2] / name

    def read(self) -> bytes:
        if self.path.exists():
            return self.path.read_bytes()
        db = sqlite3.connect(self.database)
        data = bytes(db.execute("SELECT data FROM small WHERE key = ?", (self.key,)).fetchone()[0])
        db.close()
        return data

    def write(self, data: bytes) -> None:
        if self.path.exists():
            self.path.chmod(0o644)
            self.path.write_bytes(data)
            return
        db = sqlite3.connect(self.database)
        with db:
            db.execute("UPDATE small SET data = ? WHERE key = ?", (data, self.key))
        db.close()


def _damaged(data: bytes, start: int, stop: int) -> Iterator[bytes]:
    for at in sorted({start, (start + stop) // 2, max(stop - 1, start)}):
        if at < len(data):
            yield data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    for length in {start, (start + stop) // 2, max(stop - 1, start)}:
        yield data[:length]


def _variants(value: Any) -> Iterator[Any]:
    """`value` with each of its parts left out or replaced by junk, one at a time."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield {k: v for k, v in value.items() if k != key}
            for other in (*JUNK, *_variants(item)):
                yield {**value, key: other}
    elif isinstance(value, list):
        for at, item in enumerate(value):
            for other in (*JUNK, *_variants(item)):
                yield [*value[:at], other, *value[at + 1 :]]
