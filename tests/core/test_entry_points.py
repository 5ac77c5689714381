"""What `prepare` makes of entry points: a serializer's default method, errors with names, nothing lost silently."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from catalog_core import plugins, tensors
from catalog_core.catalog import Catalog
from catalog_core.errors import InvalidInput, SerializationError
from catalog_core.outputs import by_name
from catalog_core.records import Description, TensorSpec
from catalog_core.specs import SerializerSpec
from catalog_core.testing.memory import memory_catalog

ROWS = np.arange(6.0).reshape(3, 2)


class Scaler:
    def __init__(self, factor: np.ndarray) -> None:
        self.factor = factor

    def scale(self, x: np.ndarray) -> np.ndarray:
        return x * self.factor

    def undo(self, x: np.ndarray) -> np.ndarray:
        return x / self.factor


class ScalerSerializer:
    """Knows its methods by name; `known` says whether it knows their inputs too."""

    name = "scaler"
    known = True

    def save(self, obj: Any, directory: Any, request: Any) -> dict[str, Any]:
        tensors.write({"factor": obj.factor}, directory)
        return {}

    def load(self, reader: Any, device: Any, into: Any, options: Any) -> Scaler:
        return Scaler(tensors.read(reader, tensors.numpy_maker(), writable=False)["factor"])

    def describe(self, obj: Any) -> Description:
        return Description("scaler", "1")

    def inputs(self, obj: Any, method: str) -> list[str] | None:
        return ["x"] if self.known and hasattr(obj, method) else None

    def call(self, obj: Any, method: str, inputs: Any) -> dict[str, Any]:
        if not hasattr(obj, method):
            raise SerializationError(f"a Scaler has no method {method!r}")
        return {"y": getattr(obj, method)(**inputs)}

    def signature(self, obj: Any, method: str, example: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
        self.call(obj, method, example)
        return [TensorSpec("x", "float64", ("rows", 2))], [TensorSpec("y", "float64", ("rows", 2))]


@pytest.fixture
def serializer() -> ScalerSerializer:
    return ScalerSerializer()


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serializer: ScalerSerializer) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    registry = copy.copy(plugins.registry())
    top = Scaler.__module__.partition(".")[0]
    spec = SerializerSpec("scaler", (top,), "unused", default_method="scale")
    registry.serializers = {**registry.serializers, "scaler": spec}
    registry._made = {"scaler": serializer}
    with memory_catalog() as catalog:
        catalog.repository.registry = registry
        yield catalog


@pytest.fixture
def scaler() -> Scaler:
    return Scaler(np.array([2.0, 4.0]))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("entries", [None, {"predict": "model"}, {"predict": "model.scale"}])
def test_a_component_alone_means_the_method_that_its_serializer_names(
    catalog: Catalog, scaler: Scaler, serializer: ScalerSerializer, known: bool, entries: Any
) -> None:
    serializer.known = known
    version = catalog.save("m", scaler, example={"x": ROWS}, entry_points=entries)
    (point,) = version.manifest.entry_points
    assert (point.name, point.steps) == ("predict", ("model.scale",))
    assert [spec.name for spec in point.inputs] == ["x"] and [spec.name for spec in point.outputs] == ["y"]
    inputs, outputs = catalog.artifact("m").example() or ({}, {})
    np.testing.assert_array_equal(inputs["x"], ROWS)
    np.testing.assert_array_equal(outputs["predict"]["y"], ROWS * scaler.factor)


def test_steps_are_joined_whether_or_not_their_inputs_are_known(catalog: Catalog, scaler: Scaler) -> None:
    version = catalog.save("m", scaler, example=ROWS, entry_points={"same": ["model", "model.undo"]})
    assert version.manifest.entry_points[0].steps == ("model.scale", "model.undo")


@pytest.mark.parametrize(
    "given",
    [
        *({"entry_points": {"predict": steps}} for steps in (5, None, [], (), [5], b"model", {"model": 1})),
        *({"skip": names} for names in (5, None, [5, "y"], [None])),
        *({"serializer": chosen} for chosen in (5, [5], {"model": 5}, {"model": [None]}, {"model": None})),
        *({key: wrong} for key in ("provenance", "options", "taxonomy", "tensors", "axes") for wrong in (5, ["x"])),
        {"axes": {5: {0: "rows"}}},
        {"tensors": {5: {"unit": "m"}}},
        {"baseline": {"x": [[1, 2], [3]]}},
    ],
    ids=repr,
)
@pytest.mark.parametrize("example", [None, {"x": ROWS}])
def test_arguments_of_another_kind_are_refused_in_a_sentence(
    catalog: Catalog, scaler: Scaler, given: dict[str, Any], example: Any
) -> None:
    with pytest.raises(InvalidInput):
        catalog.save("m", scaler, example=example, **given)
    assert len(catalog.models()) == 0


def _nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = {"a": found}
    return found


_ITSELF: dict[str, Any] = {}
_ITSELF["a"] = _ITSELF


@pytest.mark.parametrize("value", [_nested(600), _nested(5000), _ITSELF], ids=["600", "5000", "itself"])
@pytest.mark.parametrize("way", ["provenance", "datasets"])
def test_what_is_nested_without_end_is_refused_in_a_sentence(
    catalog: Catalog, scaler: Scaler, way: str, value: Any
) -> None:
    with pytest.raises(InvalidInput, match="nested"):
        catalog.save("m", scaler, **{way: value if way == "provenance" else {"train": {"reference": value}}})
    assert len(catalog.models()) == 0


def test_a_namespace_is_a_mapping_wherever_one_is_taken(catalog: Catalog, scaler: Scaler) -> None:
    told = SimpleNamespace
    version = catalog.save(
        "m", scaler, example=ROWS, taxonomy=told(task="scaling"), custom=told(site="CERN"), provenance=told(by="hand"),
        options=told(), datasets=told(train="eos"), tensors=told(x={"unit": "m"}), baseline=told(x=ROWS),
    )  # fmt: skip
    assert version.taxonomy == {"task": "scaling"} and version.manifest.custom["site"]["value"] == "CERN"
    assert version.manifest.provenance["by"] == "hand" and version.manifest.entry_points[0].inputs[0].unit == "m"


@pytest.mark.parametrize(
    "outputs", [{"a": {"b": ROWS}, "a_b": -ROWS}, {0: ROWS, "0": -ROWS}, {"": ROWS, "output": -ROWS}], ids=list
)
def test_no_output_takes_the_place_of_another(outputs: Any) -> None:
    with pytest.raises(InvalidInput, match="two outputs that are called"):
        dict(by_name(outputs))


@pytest.mark.parametrize("example", [None, {"x": ROWS}])
@pytest.mark.parametrize("steps", ["model.scales", ["model", "model.scales"]])
@pytest.mark.parametrize("known", [True, False])
def test_a_method_that_is_not_there_is_refused_by_name(
    catalog: Catalog, scaler: Scaler, serializer: ScalerSerializer, example: Any, steps: Any, known: bool
) -> None:
    serializer.known = known
    with pytest.raises(SerializationError, match="no method 'scales'") as caught:
        catalog.save("m", scaler, example=example, entry_points={"predict": steps})
    assert example is not None or caught.value.hint == "did you mean scale?"
    assert len(catalog.models()) == 0


def test_what_an_object_raises_names_component_and_method(catalog: Catalog, scaler: Scaler) -> None:
    wrong = np.ones((3, 5))
    for entries in (None, {"back": "model.undo"}):
        with pytest.raises(InvalidInput, match=r"model\.(scale|undo) cannot run on these inputs: ValueError: operands"):
            catalog.save("m", scaler, example=wrong, entry_points=entries)
    catalog.save("m", scaler)
    artifact = catalog.artifact("m")
    with pytest.raises(InvalidInput, match=r"model\.scale cannot run on these inputs: ValueError"):
        artifact.call("model", artifact.component("model"), "scale", {"x": wrong})


def test_arrays_with_an_example_have_no_entry_point_and_verify_says_why(catalog: Catalog) -> None:
    with catalog.prepare("m", {"w": np.ones(3)}, example={"x": ROWS}) as draft:
        assert draft.manifest.entry_points == ()
        (check,) = [check for check in draft.verify().checks if check.id == "run:predict"]
        assert (check.result, check.cause) == ("skipped", "a dictionary of arrays cannot be called")
        version = draft.save()
    inputs, outputs = catalog.artifact(version.ref).example() or ({}, {})
    assert inputs.keys() == {"x"} and outputs == {}
    for example in (None, {"x": ROWS}):
        with pytest.raises(SerializationError):
            catalog.save("m", {"w": np.ones(3)}, example=example, entry_points={"predict": "model"})


def test_an_example_that_no_method_takes_is_refused(catalog: Catalog, scaler: Scaler) -> None:
    with pytest.raises(InvalidInput, match="'predict' takes x"):
        catalog.save("m", scaler, example={"z": ROWS})
