"""Trees of arrays: NumPy without JAX, and Flax, Equinox and Optax where they are."""

from __future__ import annotations

import dataclasses
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
from catalog_core.errors import BackendError, SerializationError
from catalog_core.specs import SerializerSpec
from catalog_core.testing.contract import SerializerContract
from catalog_numpy import tree
from catalog_numpy.serializer import PytreeSerializer

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
    for value, cause in (([object()], "is an object"), ([{(1, 2): np.ones(1)}], "is a tuple"), ([1, 2], "no arrays")):
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
def test_typed_keys_have_a_way_out(catalog: Catalog, jax: Any) -> None:
    with pytest.raises(SerializationError, match="'k' is no array of numbers") as caught:
        catalog.save("m", {"k": jax.random.key(0)}, serializer="safetensors")
    assert "jax.random.key_data" in str(caught.value.hint)


@pytest.mark.framework
def test_jax_arrays_keep_their_dtype_or_are_refused(catalog: Catalog, jax: Any) -> None:
    catalog.save("half", [jax.numpy.ones(3, jax.numpy.bfloat16)], serializer="pytree")
    assert catalog.load("half")[0].dtype == jax.numpy.bfloat16
    assert isinstance(catalog.load("half", as_="numpy")[0], np.ndarray)
    catalog.save("double", [np.ones(3)], serializer="pytree")
    with pytest.raises(SerializationError, match="JAX makes float32 of it"):
        catalog.load("double", as_="jax")


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


# -- what is filled is what was stored ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Unknown:
    """A dataclass that JAX does not look into."""

    w: Any


class Anew:
    """A node of a list of numbers, which makes an array at each look."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = [float(number) for number in numbers]


class Doubling(Anew):
    """And one that changes what it is given."""


@pytest.fixture(scope="module")
def nodes() -> None:
    jax = pytest.importorskip("jax")
    flat = lambda node: ((np.array(node.numbers),), None)  # noqa: E731
    jax.tree_util.register_pytree_node(Anew, flat, lambda _, parts: Anew(parts[0]))
    jax.tree_util.register_pytree_node(Doubling, flat, lambda _, parts: Doubling(2 * parts[0]))


@pytest.mark.framework
def test_a_tree_that_would_keep_its_old_numbers_is_refused(catalog: Catalog, nodes: None) -> None:
    catalog.save("unknown", Unknown(np.ones(2)), serializer="pytree")
    with pytest.raises(SerializationError, match="'w' is inside of an object that JAX does not look into"):
        catalog.load("unknown", like=Unknown(np.zeros(2)))
    live = Unknown(np.zeros(2))
    assert catalog.load("unknown", into=live) is live and live.w.tolist() == [1, 1]
    catalog.save("anew", {"a": Anew([1, 2])}, serializer="pytree")
    with pytest.raises(SerializationError, match="'a/#0' is made anew each time"):
        catalog.load("anew", into={"a": Anew([0, 0])})
    assert catalog.load("anew", like={"a": Anew([0, 0])})["a"].numbers == [1, 2]
    with pytest.raises(SerializationError, match="makes another array of what is stored as 'a/#0'"):
        catalog.load("anew", like={"a": Doubling([0, 0])})


@pytest.mark.parametrize("serializer", ["pytree", "safetensors"])
def test_arrays_that_overlap_are_not_filled_with_what_differs(catalog: Catalog, serializer: str) -> None:
    catalog.save("m", {"v": np.ones(2), "w": np.arange(3.0)}, serializer=serializer)
    catalog.save("fits", {"v": np.array([2.0, 3.0]), "w": np.arange(3.0)}, serializer=serializer)
    base = np.full(4, 7.0)
    with pytest.raises(SerializationError, match=r"lie in one memory.*nothing was changed"):
        catalog.load("m", into={"w": base[:3], "v": base[2:]})
    assert base.tolist() == [7, 7, 7, 7]
    catalog.load("fits", into={"w": base[:3], "v": base[2:]})
    assert base.tolist() == [0, 1, 2, 3]
    beside = np.zeros(5)  # neither overlaps, though each lies within the reach of the other
    catalog.load("m", into={"w": beside[::2], "v": beside[1::2]})
    assert beside.tolist() == [0, 1, 1, 1, 2]


@pytest.mark.framework
def test_arrays_of_jax_are_not_filled_in_place(catalog: Catalog, jax: Any) -> None:
    catalog.save("m", {"w": jax.numpy.ones(2)}, serializer="pytree")
    with pytest.raises(SerializationError, match=r"'w' is an array of JAX, which cannot be changed.*like="):
        catalog.load("m", into={"w": jax.numpy.zeros(2)})


@pytest.mark.framework
@pytest.mark.parametrize("method", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_random_keys_come_back_as_keys(catalog: Catalog, jax: Any, method: str) -> None:
    keys = jax.random.split(jax.random.key(3, impl=method), 2)
    state = {"key": keys, "one": keys[0], "w": jax.numpy.ones(2)}
    catalog.save("m", state, serializer="pytree")
    for found in (
        catalog.load("m"),
        catalog.load("m", like=jax.tree.map(lambda leaf: leaf[::-1], state | {"one": keys}) | {"one": keys[1]}),
    ):
        assert found["key"].dtype == keys.dtype and found["one"].shape == ()
        assert np.array_equal(jax.random.normal(found["one"], (3,)), jax.random.normal(keys[0], (3,)))
    assert np.array_equal(catalog.load("m", as_="numpy")["key"], jax.random.key_data(keys))
    other = jax.random.key(0, impl="rbg" if method != "rbg" else "unsafe_rbg")
    with pytest.raises(
        SerializationError, match=f"one is random keys of {method}.., in the live object random keys of"
    ):
        catalog.load("m", like=state | {"one": other})
    with pytest.raises(SerializationError, match="one is random keys of"):
        catalog.load("m", like=state | {"one": jax.numpy.zeros(keys[0].shape)})
    renamed = catalog.load("m", like={"rng": keys[1:], "two": keys[1], "w": state["w"]} | {"rng": keys},
                           rename={"key": "rng", "one": "two"})  # fmt: skip
    assert np.array_equal(jax.random.key_data(renamed["rng"]), jax.random.key_data(keys))


@pytest.mark.framework
def test_a_method_of_random_keys_that_is_none_is_refused(catalog: Catalog, jax: Any) -> None:
    catalog.save("m", {"key": jax.random.key(0)}, serializer="pytree")
    component = catalog.artifact("m").manifest.components[0]
    reader = catalog.artifact("m").reader(component)
    for told, why in (("os.system", "no random key of 'os.system'"), (1, "cannot be read")):
        reader.meta = {**component.meta, "keys": {"key": told}}
        with pytest.raises(SerializationError, match=why):
            PytreeSerializer().load(reader, None, None, {})
    for name in ("numpy", "keys"):
        reader.meta = {**component.meta, name: ["other"] if name == "numpy" else {"other": "rbg"}}
        with pytest.raises(SerializationError, match="cannot be read"):
            PytreeSerializer().load(reader, None, None, {})


@pytest.mark.framework
def test_a_flax_module_with_a_state_of_random_numbers_is_saved(catalog: Catalog, jax: Any) -> None:
    nnx = pytest.importorskip("flax.nnx")
    layer, other = (nnx.Dropout(0.5, rngs=nnx.Rngs(seed)) for seed in (1, 2))
    ones = jax.numpy.ones(16)
    first = layer(ones)
    catalog.save("m", layer)
    again = catalog.load("m", like=other)
    assert np.array_equal(again(ones), layer(ones)) and not np.array_equal(first, other(ones))


@pytest.mark.framework
def test_arrays_of_numpy_and_of_jax_in_one_tree_come_back_as_what_they_were(catalog: Catalog, jax: Any) -> None:
    state = [jax.numpy.ones(2), np.arange(2.0), {"n": np.int64(3)}]  # JAX would cut the second and third to 32 bits
    catalog.save("m", state, serializer="pytree")
    found = catalog.load("m")
    assert isinstance(found[0], jax.Array) and isinstance(found[1], np.ndarray)
    assert found[1].dtype == np.float64 and found[2]["n"].dtype == np.int64
    with pytest.raises(SerializationError, match="jax_enable_x64"):
        catalog.load("m", as_="jax")


@pytest.mark.framework
@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "bool"])
def test_dtypes_of_jax_and_arrays_without_axes_come_back(catalog: Catalog, jax: Any, dtype: str) -> None:
    state = {
        "w": jax.numpy.ones((2, 3), dtype),
        "s": jax.numpy.ones((), dtype),
        "n": None,
        "e": jax.numpy.ones((0, 2), dtype),
    }
    catalog.save("m", state, serializer="pytree")
    shapes = jax.eval_shape(lambda: state)
    for found in (catalog.load("m"), catalog.load("m", like=state), catalog.load("m", like=shapes)):
        assert found["n"] is None and same(jax, found, state)


@pytest.mark.framework
@pytest.mark.parametrize("dtype", ["int4", "uint4", "float8_e4m3fnuz"])
def test_a_dtype_that_cannot_be_stored_names_the_array_and_the_way_out(catalog: Catalog, jax: Any, dtype: str) -> None:
    for serializer in ("pytree", "safetensors"):
        with pytest.raises(SerializationError, match=f"'a/?.?w': safetensors has no dtype '{dtype}'.*astype"):
            catalog.save("m", {"a": {"w": jax.numpy.ones(2).astype(dtype)}}, serializer=serializer)


@pytest.mark.framework
def test_a_deleted_buffer_is_named(catalog: Catalog, jax: Any) -> None:
    gone = jax.numpy.ones(2)
    gone.delete()
    for serializer in ("pytree", "safetensors"):
        with pytest.raises(SerializationError, match=r"'w' cannot be read: .*deleted"):
            catalog.save("m", {"w": gone}, serializer=serializer)


@pytest.mark.framework
def test_a_device_that_is_not_there_names_those_that_are(catalog: Catalog, jax: Any) -> None:
    catalog.save("m", [jax.numpy.ones(2)], serializer="pytree")
    for device in ("cuda", "cpu:99", "nonsense", "cpu:x"):
        if device == "cuda" and jax.default_backend() == "gpu":
            continue
        with pytest.raises(BackendError, match=f"JAX has no device '{device}'") as caught:
            catalog.load("m", device=device)
        assert "cpu:0" in str(caught.value.hint)
