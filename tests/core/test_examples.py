"""Examples: by entry point, derived from one another, run once; and the object is left as it was."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import plugins, tensors
from catalog_core.axes import measured
from catalog_core.catalog import Catalog
from catalog_core.columns import packed, unpacked
from catalog_core.errors import InvalidInput, SerializationError
from catalog_core.interfaces.serializer import Signature, Trial
from catalog_core.records import Description
from catalog_core.session import Session
from catalog_core.snapshots import Snapshot
from catalog_core.specs import SerializerSpec
from catalog_core.testing.memory import memory_catalog


class Network:
    """Multiplies by a matrix; all of its methods take `x`. It counts, keeps and draws what it should not."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix
        self.runs: list[tuple[int, ...]] = []
        self.seen = np.zeros(1)
        self.mode = {"training": True}
        self.generator = np.random.default_rng(3)

    def forward(self, x: np.ndarray) -> np.ndarray:
        LOG.append((self.matrix.shape, x.shape))
        self.runs.append(x.shape)
        self.seen += 1
        self.cache = x
        self.mode["training"] = False
        return x @ self.matrix + 0 * (self.generator.random() + np.random.random() + random.random())

    def back(self, x: np.ndarray) -> np.ndarray:
        return self.forward(x) @ self.matrix.T


LOG: list[tuple[tuple[int, ...], tuple[int, ...]]] = []  # of the matrix and of the input, for each run


class NetworkSerializer:
    name = "network"

    def save(self, obj: Any, directory: Any, request: Any) -> dict[str, Any]:
        tensors.write({"matrix": obj.matrix, "seen": obj.seen}, directory)
        return {
            "methods": sorted(request.methods),
            "given": {m: list(t.example["x"].shape) for m, t in request.trials.items()},
        }

    def load(self, reader: Any, device: Any, into: Any, options: Any) -> Network:
        values = tensors.read(reader, tensors.numpy_maker(), writable=False)
        made = Network(values["matrix"])
        made.seen = values["seen"].copy()
        return made

    def describe(self, obj: Any) -> Description:
        return Description("network", "1")

    def inputs(self, obj: Any, method: str) -> list[str] | None:
        return ["x"]

    def call(self, obj: Any, method: str, inputs: Any) -> dict[str, Any]:
        if not hasattr(obj, method):
            raise SerializationError(f"a Network has no method {method!r}")
        return {"y": getattr(obj, method)(**inputs)}

    def measure(self, obj: Any, method: str, trial: Trial) -> Signature:
        return measured(trial, {"x": (None, *trial.example["x"].shape[1:])})


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    registry = copy.copy(plugins.registry())
    spec = SerializerSpec("network", (Network.__module__.partition(".")[0],), "unused")
    registry.serializers = {**registry.serializers, "network": spec}
    registry._made = {"network": NetworkSerializer()}
    LOG.clear()
    with memory_catalog() as catalog:
        catalog.repository.registry = registry
        yield catalog


def gan() -> dict[str, Network]:
    rng = np.random.default_rng(0)
    return {"generator": Network(rng.random((3, 8))), "critic": Network(rng.random((8, 1)))}


POINTS = {"generate": "generator", "score": "critic"}
LATENT, IMAGE = np.ones((4, 3)), np.full((5, 8), 2.0)


@pytest.mark.parametrize(
    "example",
    [
        {"generate": {"x": LATENT}, "score": {"x": IMAGE}},
        {"generate": LATENT, "score": IMAGE},
        {"generate": (LATENT,), "score": [IMAGE]},
    ],
)
def test_networks_whose_inputs_have_one_name_have_an_example_each(catalog: Catalog, example: Any) -> None:
    networks = gan()
    version = catalog.save("gan", components=networks, entry_points=POINTS, example=example)
    shapes = {p.name: (p.inputs[0].shape, p.outputs[0].shape) for p in version.manifest.entry_points}
    assert shapes == {"generate": (("batch", 3), ("batch", 8)), "score": (("batch", 8), ("batch", 1))}
    artifact = catalog.artifact("gan")
    for entry, given, network in (("generate", LATENT, "generator"), ("score", IMAGE, "critic")):
        inputs, outputs = artifact.example_of(entry) or ({}, {})
        np.testing.assert_array_equal(inputs["x"], given)
        np.testing.assert_allclose(outputs["y"], given @ networks[network].matrix)
    assert (artifact.example() or ({}, {}))[0].keys() == {"generate.x", "score.x"}
    assert (artifact.baseline() or {})["inputs"].keys() == {"generate.x", "score.x"}


@pytest.mark.parametrize("example", [{"x": LATENT}, LATENT, {"generate": {"x": LATENT}}])
def test_what_one_entry_point_gives_is_the_example_of_the_next(catalog: Catalog, example: Any) -> None:
    networks = gan()
    version = catalog.save("gan", components=networks, entry_points=POINTS, example=example)
    assert [p.inputs[0].shape for p in version.manifest.entry_points] == [("batch", 3), ("batch", 8)]
    inputs, _ = catalog.artifact("gan").example_of("score") or ({}, {})
    np.testing.assert_allclose(inputs["x"], LATENT @ networks["generator"].matrix)


def test_an_entry_point_that_nothing_feeds_has_no_schema(catalog: Catalog) -> None:
    networks = {"critic": gan()["critic"], "other": Network(np.ones((6, 2)))}
    version = catalog.save(
        "m", components=networks, entry_points={"score": "critic", "other": "other"}, example={"score": IMAGE}
    )
    assert [bool(p.inputs) for p in version.manifest.entry_points] == [True, False]
    assert catalog.artifact("m").example_of("other") is None


def test_a_flat_example_is_stored_as_before_and_read_as_before(catalog: Catalog) -> None:
    catalog.save("m", gan()["generator"], example={"x": LATENT})
    artifact = catalog.artifact("m")
    stored = artifact.manifest.example or {}
    assert [name for name in artifact._example()[0]] == ["x"] and artifact._example()[1] == {}
    inputs, outputs = artifact.example() or ({}, {})
    assert inputs.keys() == {"x"} and outputs["predict"].keys() == {"y"} and stored["name"] == "example"


@pytest.mark.parametrize(
    "example, message",
    [
        ({"generat": {"x": LATENT}, "score": {"x": IMAGE}}, "'generat' is none .did you mean generate?"),
        ({"generate": {"z": LATENT}}, "the example names z; 'generate' takes x"),
        ({"generate": {"x": {"deep": LATENT}}}, "the example's 'x' is a dict, not an array"),
        ({"generate": (LATENT, LATENT)}, "the example has 2 arrays, and 'generate' takes x"),
        ({"x": IMAGE}, r"generator\.forward cannot run on these inputs"),
        ({"generate": {"x": LATENT, "mask": LATENT}}, "names 'mask', which nothing takes: 'generate' takes x"),
        ({"x": LATENT, "mask": LATENT}, "names 'mask', which nothing takes"),
        ({"x": np.ma.array(LATENT, mask=LATENT > 0)}, "the example's 'x' has a mask, which would be lost"),
        (np.ma.array(LATENT, mask=False), "the example's 'x' has a mask"),
        ((), "the example holds no arrays"),
        ([], r"generator\.forward cannot run"),
    ],
)
def test_a_wrong_example_is_refused_by_name(catalog: Catalog, example: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        catalog.save("gan", components=gan(), entry_points=POINTS, example=example)
    assert len(catalog.models()) == 0


def test_each_method_is_stored_for_its_own_example_and_runs_once_for_it(catalog: Catalog) -> None:
    network = Network(np.ones((3, 8)))
    points = {"there": "model", "again": "model.forward", "there_and_back": ["model", "model.back"]}
    with pytest.raises(InvalidInput):  # 8 columns do not go where 3 are wanted
        catalog.save("m", network, entry_points=points, example=LATENT)
    square = Network(np.ones((3, 3)))
    LOG.clear()
    catalog.save("m", square, entry_points=points, example=LATENT)
    assert catalog.artifact("m").manifest.components[0].meta["given"] == {"forward": [4, 3], "back": [4, 3]}
    # forward on the example, back on what it gave, and each once more with twice as many rows
    assert [shape for _, shape in LOG] == [(4, 3), (4, 3), (8, 3), (8, 3)]


def test_details_and_baselines_may_be_of_one_entry_point(catalog: Catalog) -> None:
    version = catalog.save(
        "gan", components=gan(), entry_points=POINTS, example={"generate": LATENT, "score": IMAGE},
        tensors={"score.x": {"unit": "GeV"}, "y": {"unit": "MeV"}}, baseline={"score": {"x": IMAGE}},
    )  # fmt: skip
    units = {p.name: (p.inputs[0].unit, p.outputs[0].unit) for p in version.manifest.entry_points}
    assert units == {"generate": (None, "MeV"), "score": ("GeV", "MeV")}
    assert list((catalog.artifact("gan").baseline() or {})["inputs"]) == ["score.x"]


# -- axes -----------------------------------------------------------------------------------------------------------


class Pooling:
    """Any number of steps, at most ten; columns are fixed."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        LOG.append(((), x.shape))
        if x.shape[1] > 10 or x.shape[2] != 3:
            raise ValueError(f"it takes up to ten steps of three columns, not {x.shape[1:]}")
        return x.mean(1)


def trial(run: Any, axes: Any = None, **example: np.ndarray) -> Trial:
    def call(inputs: Any) -> dict[str, Any]:
        return {"y": run(**inputs)}

    found = Trial(example, call(example), call, axes or {})
    LOG.clear()
    return found


def test_axes_are_found_by_trying_in_one_run_where_all_are_free() -> None:
    found = measured(trial(Pooling().forward, x=np.ones((4, 5, 3))))
    assert (found.inputs[0].shape, found.outputs[0].shape) == (("batch", None, 3), ("batch", 3))
    assert [shape for _, shape in LOG] == [(2, 10, 3)]


def test_an_axis_that_cannot_be_longer_stays_as_it_is_and_the_rows_are_free() -> None:
    found = measured(trial(Pooling().forward, x=np.ones((4, 6, 3))))
    assert (found.inputs[0].shape, found.outputs[0].shape) == (("batch", 6, 3), ("batch", 3))
    assert [shape for _, shape in LOG] == [(2, 12, 3), (8, 6, 3)]


def test_what_the_model_says_is_tried_once_and_nothing_else() -> None:
    found = measured(trial(Pooling().forward, x=np.ones((4, 5, 3))), {"x": (None, 5, 3)})
    assert found.inputs[0].shape == ("batch", 5, 3) and [shape for _, shape in LOG] == [(8, 5, 3)]
    found = measured(trial(Pooling().forward, x=np.ones((4, 5, 3))), {"x": (4, 5, 3)})
    assert found.inputs[0].shape == (4, 5, 3) and LOG == []


def test_an_axis_that_makes_more_rows_is_not_free() -> None:
    """A reshape takes other sizes, and gives other rows for them: `x.reshape(-1, 12)`."""
    found = measured(trial(lambda x: x.reshape(-1, 12).sum(1), x=np.ones((4, 4, 3))))
    assert (found.inputs[0].shape, found.outputs[0].shape) == (("batch", 4, 3), ("batch",))


def test_declared_axes_bear_their_names_and_two_examples_declare_them(catalog: Catalog) -> None:
    network = Network(np.ones((3, 2)))
    for axes in ({"x": {0: "events", 1: "hits"}}, {"predict": {"x": {0: "events", -2: "hits"}}}):
        version = catalog.save("m", network, example=np.ones((4, 5, 3)), axes=axes)
        (point,) = version.manifest.entry_points
        assert (point.inputs[0].shape, point.outputs[0].shape) == (("events", "hits", 3), ("events", "hits", 2))
    version = catalog.save("m", network, example=np.ones((4, 5, 3)), axes={"x": np.ones((4, 9, 3))})
    assert version.manifest.entry_points[0].inputs[0].shape == ("batch", None, 3)
    with Session(catalog.artifact("m"), "cpu") as session:
        assert session.predict(np.ones((2, 17, 3))).shape == (2, 17, 2)


def test_a_declared_axis_that_is_not_free_is_said_and_is_in_the_schema(catalog: Catalog) -> None:
    with pytest.warns(UserWarning, match=r"as long as in the example only \(axis 1 of 'x': 3\): .*matmul"):
        version = catalog.save("m", Network(np.ones((3, 2))), example=LATENT, axes={"x": {0: "batch", 1: "columns"}})
    assert version.manifest.entry_points[0].inputs[0].shape == ("batch", 3)


@pytest.mark.parametrize(
    "axes, message",
    [
        ({"z": {0: "batch"}}, "axes tells of 'z', which is no input"),
        ({"x": {2: "deep"}}, "'x' has no axis 2"),
        ({"x": "batch"}, "the axes of 'x' are a str"),
        ({"predict": {"z": {0: "batch"}}}, "axes tells of 'z', which is no input of 'predict'"),
        ({"x": np.ones((4, 3, 1))}, "the second example of 'x' has 3 axes, not 2"),
        ([("x", 0)], "axes must map names to values; this is a list"),
    ],
)
def test_wrong_axes_are_refused_by_name(catalog: Catalog, axes: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        catalog.save("m", Network(np.ones((3, 2))), example=LATENT, axes=axes)


# -- the object is left as it was -----------------------------------------------------------------------------------


def test_preparing_leaves_the_object_and_all_random_numbers_as_they_were(catalog: Catalog) -> None:
    network, matrix = Network(np.ones((3, 2))), np.ones((3, 2))
    random.seed(5)
    np.random.seed(5)
    before = copy.deepcopy(vars(network)), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    catalog.save("m", network, example=LATENT)
    assert LOG, "it ran"
    assert network.runs == [] and network.mode == {"training": True} and not hasattr(network, "cache")
    assert network.seen == 0 and network.generator.random() == before[0]["generator"].random()
    np.testing.assert_array_equal(network.matrix, matrix)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # type: ignore[index]
    assert catalog.load("m").seen == 0, "what is stored is the state before"


def test_an_object_is_put_back_also_when_its_code_fails(catalog: Catalog) -> None:
    network = Network(np.ones((3, 2)))
    with pytest.raises(InvalidInput, match="cannot run"):
        catalog.save("m", network, example=np.ones((4, 7)))
    assert LOG and network.runs == [] and network.seen == 0


class Slotted:
    __slots__ = ("inside", "value")

    def __init__(self) -> None:
        self.value, self.inside = 1, {"a": [1, 2]}


def test_what_is_nested_is_put_back_in_place() -> None:
    slotted = Slotted()
    deep: dict[str, Any] = {"tuple": (slotted, [deque([1]), {2}]), "array": np.arange(3.0), "rng": random.Random(1)}
    inner, expected = slotted.inside["a"], copy.deepcopy(deep["rng"]).random()
    snapshot = Snapshot(deep)
    assert not snapshot.changed()
    slotted.value, slotted.inside["a"] = 2, []
    inner.append(3)
    deep["tuple"][1][0].append(2)
    deep["tuple"][1][1].clear()
    deep["array"][:] = np.nan
    deep["new"] = 1
    deep["rng"].random()
    assert snapshot.changed()
    snapshot.restore()
    assert not snapshot.changed()
    assert (slotted.value, slotted.inside["a"], inner) == (1, inner, [1, 2])
    assert deep["tuple"][1] == [deque([1]), {2}] and deep["array"].tolist() == [0, 1, 2] and "new" not in deep
    assert deep["rng"].random() == expected


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", None, "", "ß"], object),
        np.array([["a", 1], [2.5, True], [None, False]], object),
        np.array("alone", object),
        np.array(2**70, object),
        np.array([["a", "b"]], object)[:0],
        np.array([np.float32(0.1), np.int8(3), np.str_("x"), np.bool_(True)], object),
        np.array([1, "1", 1.0, True], object).reshape(2, 1, 2),
    ],
    ids=repr,
)
def test_arrays_of_objects_are_stored_as_they_are(array: Any) -> None:
    """They were stored as a row of texts: `1` came back as `"1"`, and the stored example was none for its model."""
    kept = packed({"input:x": array, "output:a:y|z": array})
    assert all(part.dtype != object for part in kept.values())
    for back in unpacked(kept).values():
        assert back.dtype == object and back.shape == array.shape
        items = [item.item() if isinstance(item, np.generic) else item for item in array.reshape(-1).tolist()]
        assert [(type(item), item) for item in back.reshape(-1).tolist()] == [(type(item), item) for item in items]


def test_a_row_of_texts_is_stored_as_before() -> None:
    assert packed({"input:x": np.array(["a", None], object)}).keys() == {"text|input:x", "ends|input:x"}


@pytest.mark.parametrize(
    "item", [b"bytes", 1j, ["list"], Path("x"), "\ud800", 10**5000], ids=lambda item: type(item).__name__
)
def test_objects_that_are_neither_texts_nor_numbers_are_not_stored_as_texts(item: Any) -> None:
    array = np.empty(2, object)
    array[:] = ["a", item]
    with pytest.raises(SerializationError, match="'input:x' cannot be stored"):
        packed({"input:x": array})
