"""Trees of arrays: NumPy without JAX, and Flax, Equinox and Optax where they are."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import catalog_numpy
from catalog_core import Catalog
from catalog_core.errors import SerializationError
from catalog_core.specs import SerializerSpec
from catalog_core.testing.contract import SerializerContract
from catalog_numpy import tree

Moments = namedtuple("Moments", ["count", "mean", "more"])


def made(value: float = 1.0) -> Any:
    mean = {"a/b": np.full((3, 2), value), "#1": np.full(4, value, np.float32)}
    return [Moments(np.array(3), mean, (1, None, "text", 2.5, True)), (), {7: np.full(2, value, np.float16), "e": {}}]


def text(value: Any) -> str:
    """A tree without the classes of its named tuples, down to the bits."""
    arrays, structure = tree.flatten(value)
    return repr([(k, str(v.dtype), v.shape, v.tobytes()) for k, v in arrays.items()]) + repr(structure).replace(
        f"{__name__}:", "").replace("catalog_numpy.tree:", "")  # fmt: skip


class TestTree(SerializerContract):
    @pytest.fixture
    def spec(self) -> SerializerSpec:
        return next(iter(catalog_numpy.catalog_register_serializers()))

    @pytest.fixture
    def publish(self, obj: Any) -> Callable[..., Catalog]:
        """A list says nothing of its serializer: it is named."""

        def save(catalog: Catalog, value: Any = None, name: str = "m") -> Catalog:
            catalog.save(name, obj if value is None else value, serializer="pytree")
            return catalog

        return save

    @pytest.fixture
    def obj(self) -> Any:
        return made()

    @pytest.fixture
    def equal(self) -> Callable[[Any, Any], bool]:
        return lambda one, two: text(one) == text(two)

    @pytest.fixture
    def change(self) -> Callable[[Any], Any]:
        def change(loaded: Any) -> None:
            loaded[2][7][:] = 5

        return change

    @pytest.fixture
    def target(self) -> Any:
        return made(0.0)

    @pytest.fixture
    def misfits(self) -> list[Any]:
        other = made(0.0)
        other[2][7] = np.zeros(3, np.float16)
        return [other, made(0.0)[:1], [np.zeros(3)]]

    # a list is chosen by name only, and nothing of it has to be imported
    test_choosing_imports_nothing_and_loading_imports_no_class = None  # type: ignore[assignment]

    def test_inputs_signature_and_call_agree(self, serializer: Any, obj: Any) -> None:  # type: ignore[override]
        with pytest.raises(SerializationError, match="cannot be called"):
            serializer.call(obj, "forward", {})


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield catalog


def test_named_tuples_load_without_their_class(catalog: Catalog) -> None:
    catalog.save("m", made(), serializer="pytree")
    loaded = catalog.load("m")
    assert type(loaded[0]) is not Moments
    assert loaded[0]._fields == Moments._fields
    assert loaded[0].more == (1, None, "text", 2.5, True)
    assert type(catalog.load("m", trust=True)[0]) is Moments
    assert [file.name for file in catalog.artifact("m").manifest.components[0].files] == [
        "model.safetensors", "structure.json",
    ]  # fmt: skip


def test_what_is_no_tree_of_arrays_is_refused(catalog: Catalog) -> None:
    for value, cause in (([object()], "is a object"), ([{(1, 2): np.ones(1)}], "is a tuple"), ([1, 2], "no arrays")):
        with pytest.raises(SerializationError, match=cause):
            catalog.save("m", value, serializer="pytree")
    loop: list[Any] = [np.ones(1)]
    loop.append(loop)
    with pytest.raises(SerializationError, match="deeper"):
        catalog.save("m", loop, serializer="pytree")


@pytest.mark.parametrize(
    "node",
    [
        {"named": [["__class__", {"value": 1}]], "class": "os:system"},
        {"named": [["import", {"value": 1}]], "class": "a:b"},
        {"named": [["a b", {"value": 1}]], "class": "a:b"},
        {"array": "none"}, {"x": 1}, {}, [], 7, {"dict": [[None, {"value": 1}]]}, {"int": "9" * 9999},
    ],
)  # fmt: skip
def test_a_structure_that_lies_is_refused(node: Any) -> None:
    with pytest.raises(SerializationError, match="broken"):
        tree.restore(node, {})


def test_a_class_of_another_package_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    code = (
        "from catalog_numpy import tree; print(tree.restore({'named': [['a', {'int': '1'}]], 'class': 'trap:T'}, {}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "T(a=1)", done.stderr


# -- JAX -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def jax() -> Any:
    return pytest.importorskip("jax")


def same(jax: Any, one: Any, two: Any) -> bool:
    left, right = jax.tree_util.tree_leaves(one), jax.tree_util.tree_leaves(two)
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if hasattr(a, "dtype")]
    return all(a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


@pytest.mark.framework
def test_plain_parameters_of_flax_need_nothing_else(catalog: Catalog, jax: Any) -> None:
    linen = pytest.importorskip("flax.linen")
    variables = linen.Dense(3).init(jax.random.key(0), np.ones((1, 4), np.float32))
    catalog.save("flax", variables)
    x = np.ones((2, 4), np.float32)
    loaded = catalog.load("flax")
    assert same(jax, loaded, variables)
    assert np.array_equal(linen.Dense(3).apply(loaded, x), linen.Dense(3).apply(variables, x))
    catalog.save("frozen", pytest.importorskip("flax.core").freeze(variables))
    assert same(jax, catalog.load("frozen"), variables)
    assert catalog.artifact("frozen").manifest.components[0].serializer == "pytree"


@pytest.mark.framework
def test_an_equinox_module_comes_back_like_a_live_one(catalog: Catalog, jax: Any) -> None:
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(2, 1, 8, 2, key=jax.random.key(0))
    with pytest.warns(UserWarning, match="not stored"):
        catalog.save("mlp", model)
    other = eqx.nn.MLP(2, 1, 8, 2, key=jax.random.key(1))
    loaded = catalog.load("mlp", like=other)
    x = jax.numpy.ones(2)
    assert type(loaded) is type(model)
    assert np.array_equal(loaded(x), model(x))
    assert not np.array_equal(other(x), model(x))
    assert isinstance(catalog.load("mlp"), dict)
    with pytest.raises(SerializationError, match="do not fit"):
        catalog.load("mlp", like=eqx.nn.MLP(2, 1, 9, 2, key=jax.random.key(1)))
    assert catalog.version("mlp").summary["algorithm"] == "MLP"


@pytest.mark.framework
def test_training_goes_on_as_if_it_had_not_stopped(catalog: Catalog, jax: Any) -> None:
    optax = pytest.importorskip("optax")
    x, y = np.ones((8, 3), np.float32), np.arange(8, dtype=np.float32)
    optimizer = optax.chain(optax.clip(1.0), optax.adam(0.1))

    def loss(params: Any) -> Any:
        return ((x @ params["w"] + params["b"] - y) ** 2).mean()

    def steps(params: Any, state: Any, count: int) -> Any:
        for _ in range(count):
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    params = {"w": jax.numpy.ones(3), "b": jax.numpy.zeros(())}
    params, state = steps(params, optimizer.init(params), 3)
    catalog.save("run", components={"params": params, "optimizer": state}, serializer="pytree")
    found = catalog.load("run")
    assert type(found["optimizer"]) is tuple
    assert found["optimizer"][1][0]._fields == ("count", "mu", "nu")
    again, rest = steps(found["params"], found["optimizer"], 2)
    plain, wanted = steps(params, state, 2)
    assert float(loss(again)) == float(loss(plain))
    assert same(jax, rest, wanted)


@pytest.mark.framework
@pytest.mark.parametrize("serializer", ["pytree", "safetensors"])
def test_typed_keys_have_a_way_out(catalog: Catalog, jax: Any, serializer: str) -> None:
    with pytest.raises(SerializationError, match="'k' is no array of numbers") as caught:
        catalog.save("m", {"k": jax.random.key(0)}, serializer=serializer)
    assert "jax.random.key_data" in str(caught.value.hint)


@pytest.mark.framework
def test_jax_arrays_keep_their_dtype_or_are_refused(catalog: Catalog, jax: Any) -> None:
    catalog.save("half", [jax.numpy.ones(3, jax.numpy.bfloat16)], serializer="pytree")
    assert catalog.load("half")[0].dtype == jax.numpy.bfloat16
    assert isinstance(catalog.load("half", as_="numpy")[0], np.ndarray)
    catalog.save("double", [np.ones(3)], serializer="pytree")
    with pytest.raises(SerializationError, match="JAX makes float32 of it"):
        catalog.load("double", as_="jax")
    with pytest.raises(SerializationError, match="no array of numbers"):
        catalog.save("key", [jax.random.key(0)], serializer="pytree")


def test_trees_are_filled_under_other_names_and_in_part(tmp_path: Path) -> None:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        stored = {"encoder": [np.ones(2), np.ones(3)], "head": np.ones(4)}
        catalog.save("m", stored, serializer="pytree")
        live = {"backbone": [np.zeros(2), np.zeros(3)], "head": np.zeros(5)}
        with pytest.raises(SerializationError, match=r"backbone/#0.*encoder/#0.*rename=\{'encoder': 'backbone'\}"):
            catalog.load("m", into=live)
        done = catalog.load("m", into=live, rename={"encoder": "backbone"}, partial=True)
        assert done.loaded == ("backbone/#0", "backbone/#1") and list(done.skipped) == ["head"]
        assert live["backbone"][1].tolist() == [1, 1, 1] and live["head"].tolist() == [0] * 5


def test_new_trees_take_other_names_and_what_fits(tmp_path: Path) -> None:
    jax = pytest.importorskip("jax")
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        catalog.save("m", {"encoder": jax.numpy.ones(2), "head": jax.numpy.ones(4)}, serializer="pytree")
        live = {"backbone": jax.numpy.zeros(2), "head": jax.numpy.zeros(5)}
        done = catalog.load("m", like=live, rename={"encoder": "backbone"}, partial=True)
        assert done.into["backbone"].tolist() == [1, 1] and done.into["head"].tolist() == [0] * 5
        live["head"] = jax.numpy.zeros(4)
        assert catalog.load("m", like=live, rename={"encoder": "backbone"})["head"].tolist() == [1] * 4


def test_a_named_tuple_whose_fields_were_renamed_is_read_back(tmp_path: Path) -> None:
    """`rename=True` makes `_1` of a name that cannot be one; it was published, and no load could make it."""
    import collections

    Renamed = collections.namedtuple("Renamed", ["a", "class"], rename=True)  # type: ignore[misc]
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        catalog.save("m", Renamed(np.ones(2), np.zeros(3)), serializer="pytree")
        loaded = catalog.load("m")
    assert loaded._fields == ("a", "_1") and loaded[1].shape == (3,)
